//! What the binary operators compute on two numbers, with Go's answers for special values.

use isobar_model::go_math;

/// A binary operator on two numbers that gives a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArithmeticOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`: the remainder has the sign of the left side.
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
}

impl ArithmeticOp {
    /// Computes `left op right`.
    #[inline(always)]
    pub fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            ArithmeticOp::Add => left + right,
            ArithmeticOp::Sub => left - right,
            ArithmeticOp::Mul => left * right,
            ArithmeticOp::Div => left / right,
            ArithmeticOp::Mod => left % right,
            ArithmeticOp::Pow => go_math::pow(left, right),
            ArithmeticOp::Atan2 => go_math::atan2(left, right),
        }
    }
}

/// A comparison of two numbers. As everywhere with NaN, only `!=` holds for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompareOp {
    /// `==`
    Eql,
    /// `!=`
    Neq,
    /// `>`
    Gtr,
    /// `<`
    Lss,
    /// `>=`
    Gte,
    /// `<=`
    Lte,
}

impl CompareOp {
    /// Whether `left op right` holds.
    #[inline(always)]
    pub fn apply(self, left: f64, right: f64) -> bool {
        match self {
            CompareOp::Eql => left == right,
            CompareOp::Neq => left != right,
            CompareOp::Gtr => left > right,
            CompareOp::Lss => left < right,
            CompareOp::Gte => left >= right,
            CompareOp::Lte => left <= right,
        }
    }
}

/// The greater of two numbers as Go's `math.Max`: +Inf wins over NaN, NaN over all else.
pub fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// The lesser of two numbers as Go's `math.Min`: -Inf wins over NaN, NaN over all else.
pub fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(got: f64, want: f64) {
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{got} {want}"
        );
    }

    #[test]
    fn arithmetic_has_gos_special_values() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for (left, right, want) in [
            (-1.0, inf, 1.0),
            (-1.0, -inf, 1.0),
            (nan, 0.0, 1.0),
            (1.0, nan, 1.0),
            (0.0, -1.0, inf),
            (-0.0, -3.0, -inf),
            (-8.0, 1.0 / 3.0, nan),
            (-inf, 3.0, -inf),
            (2.0, 10.0, 1024.0),
        ] {
            same(ArithmeticOp::Pow.apply(left, right), want);
        }
        for (left, right, want) in [
            (inf, 2.0, nan),
            (5.0, 0.0, nan),
            (5.0, inf, 5.0),
            (-7.0, 3.0, -1.0),
            (7.0, -3.0, 1.0),
            (-4.0, 2.0, -0.0),
            (1e300, 7.0, 1e300 % 7.0),
        ] {
            same(ArithmeticOp::Mod.apply(left, right), want);
        }
    }

    #[test]
    fn comparison_with_nan() {
        assert!(CompareOp::Neq.apply(f64::NAN, f64::NAN));
        assert!(!CompareOp::Eql.apply(f64::NAN, f64::NAN));
        assert!(!CompareOp::Gte.apply(f64::NAN, 0.0));
        assert!(CompareOp::Eql.apply(0.0, -0.0));
    }

    #[test]
    fn extremes_as_in_go() {
        same(go_max(f64::INFINITY, f64::NAN), f64::INFINITY);
        same(go_max(f64::NEG_INFINITY, f64::NAN), f64::NAN);
        same(go_min(f64::NEG_INFINITY, f64::NAN), f64::NEG_INFINITY);
        same(go_min(1.0, f64::NAN), f64::NAN);
        same(go_max(-0.0, 0.0), 0.0);
        same(go_min(0.0, -0.0), -0.0);
        same(go_min(1.0, 2.0), 1.0);
    }
}
