//! Functions of one number: mathematics and, through [`super::calendar`], parts of a date.

use isobar_model::go_math;

use super::arithmetic::{go_max, go_min};
use super::calendar::DatePart;

/// A function that maps each value of a vector by itself and has no parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScalarFn {
    /// `abs`
    Abs,
    /// `acos`
    Acos,
    /// `acosh`
    Acosh,
    /// `asin`
    Asin,
    /// `asinh`
    Asinh,
    /// `atan`
    Atan,
    /// `atanh`
    Atanh,
    /// `ceil`
    Ceil,
    /// `cos`
    Cos,
    /// `cosh`
    Cosh,
    /// `deg`: radians to degrees.
    Deg,
    /// `exp`
    Exp,
    /// `floor`
    Floor,
    /// `ln`
    Ln,
    /// `log2`
    Log2,
    /// `log10`
    Log10,
    /// `rad`: degrees to radians.
    Rad,
    /// `sgn`: -1, 0 or 1; NaN and the sign of a zero stay.
    Sgn,
    /// `sin`
    Sin,
    /// `sinh`
    Sinh,
    /// `sqrt`
    Sqrt,
    /// `tan`
    Tan,
    /// `tanh`
    Tanh,
    /// `hour`, `year` and their like: the value is a time in unix seconds.
    Date(DatePart),
}

impl ScalarFn {
    /// The function of that name. `round` and `clamp*`, which have parameters, are not among them.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "abs" => ScalarFn::Abs,
            "acos" => ScalarFn::Acos,
            "acosh" => ScalarFn::Acosh,
            "asin" => ScalarFn::Asin,
            "asinh" => ScalarFn::Asinh,
            "atan" => ScalarFn::Atan,
            "atanh" => ScalarFn::Atanh,
            "ceil" => ScalarFn::Ceil,
            "cos" => ScalarFn::Cos,
            "cosh" => ScalarFn::Cosh,
            "deg" => ScalarFn::Deg,
            "exp" => ScalarFn::Exp,
            "floor" => ScalarFn::Floor,
            "ln" => ScalarFn::Ln,
            "log2" => ScalarFn::Log2,
            "log10" => ScalarFn::Log10,
            "rad" => ScalarFn::Rad,
            "sgn" => ScalarFn::Sgn,
            "sin" => ScalarFn::Sin,
            "sinh" => ScalarFn::Sinh,
            "sqrt" => ScalarFn::Sqrt,
            "tan" => ScalarFn::Tan,
            "tanh" => ScalarFn::Tanh,
            _ => ScalarFn::Date(DatePart::from_name(name)?),
        })
    }

    /// The function's value at `x`.
    pub fn eval(self, x: f64) -> f64 {
        match self {
            ScalarFn::Abs => x.abs(),
            ScalarFn::Acos => go_math::acos(x),
            ScalarFn::Acosh => go_math::acosh(x),
            ScalarFn::Asin => go_math::asin(x),
            ScalarFn::Asinh => go_math::asinh(x),
            ScalarFn::Atan => go_math::atan(x),
            ScalarFn::Atanh => go_math::atanh(x),
            ScalarFn::Ceil => x.ceil(),
            ScalarFn::Cos => go_math::cos(x),
            ScalarFn::Cosh => go_math::cosh(x),
            ScalarFn::Deg => x * 180.0 / std::f64::consts::PI,
            ScalarFn::Exp => go_math::exp(x),
            ScalarFn::Floor => x.floor(),
            ScalarFn::Ln => go_math::log(x),
            ScalarFn::Log2 => go_math::log2(x),
            ScalarFn::Log10 => go_math::log10(x),
            ScalarFn::Rad => x * std::f64::consts::PI / 180.0,
            ScalarFn::Sgn => {
                if x < 0.0 {
                    -1.0
                } else if x > 0.0 {
                    1.0
                } else {
                    x
                }
            }
            ScalarFn::Sin => go_math::sin(x),
            ScalarFn::Sinh => go_math::sinh(x),
            ScalarFn::Sqrt => x.sqrt(),
            ScalarFn::Tan => go_math::tan(x),
            ScalarFn::Tanh => go_math::tanh(x),
            ScalarFn::Date(part) => part.of_seconds(x),
        }
    }

    /// Replaces each value by the function's value there.
    pub fn eval_all(self, values: &mut [f64]) {
        for value in values {
            *value = self.eval(*value);
        }
    }
}

/// `round(x, nearest)`: the multiple of `nearest` that is closest, halves upwards.
#[inline]
pub fn round_to(x: f64, nearest: f64) -> f64 {
    let inverse = 1.0 / nearest;
    (x * inverse + 0.5).floor() / inverse
}

/// `clamp(x, min, max)`. Where `max < min` the whole result is empty, which is the caller's to
/// see: [`clamp_is_empty`]. `clamp_min` has `max` = +Inf, `clamp_max` has `min` = -Inf.
#[inline]
pub fn clamp(x: f64, min: f64, max: f64) -> f64 {
    go_max(min, go_min(max, x))
}

/// Whether `clamp` with these bounds gives no result at all.
pub fn clamp_is_empty(min: f64, max: f64) -> bool {
    max < min
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, x: f64, want: f64) {
        let got = ScalarFn::from_name(name).expect(name).eval(x);
        let close = (got - want).abs() <= want.abs() * 1e-14;
        assert!(
            close || got == want || got.is_nan() && want.is_nan(),
            "{name}({x}) = {got}"
        );
    }

    #[test]
    fn values() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        check("abs", -2.5, 2.5);
        check("ceil", -1.2, -1.0);
        check("floor", -1.2, -2.0);
        check("sqrt", -1.0, nan);
        check("ln", 0.0, -inf);
        check("log2", 8.0, 3.0);
        check("log10", 1e5, 5.0);
        check("exp", inf, inf);
        check("sgn", -3.0, -1.0);
        check("sgn", nan, nan);
        check("deg", std::f64::consts::PI, 180.0);
        check("rad", 180.0, std::f64::consts::PI);
        check("acosh", 1e308, 709.889_355_822_726);
        check("asinh", -1e308, -709.889_355_822_726);
        check("atanh", 0.5, 0.549_306_144_334_054_8);
        check("year", 0.0, 1970.0);
        assert_eq!(ScalarFn::from_name("rate"), None);
    }

    #[test]
    fn round_and_clamp() {
        assert_eq!(round_to(2.5, 1.0), 3.0);
        assert_eq!(round_to(-2.5, 1.0), -2.0);
        assert_eq!(round_to(0.26, 0.1), 0.3);
        assert!(round_to(1.0, 0.0).is_nan());
        assert_eq!(clamp(5.0, -1.0, 3.0), 3.0);
        assert!(clamp(f64::NAN, 0.0, f64::INFINITY).is_nan());
        assert!(clamp(1.0, f64::NAN, 3.0).is_nan());
        assert!(clamp_is_empty(2.0, 1.0) && !clamp_is_empty(f64::NAN, 1.0));
    }
}
