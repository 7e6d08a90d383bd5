//! Functions of one or two numbers as Go computes them on amd64, to the last digit.
//!
//! The C library's are a little more exact, but a query such as `x ^ 10 % 10` or
//! `count_values("v", log10(x))` shows the last digit. What is missing here (roots, remainders,
//! rounding) is exact everywhere.

mod exp;
mod trig;

pub use exp::{acosh, asinh, atanh, cosh, exp, exp2, sinh, tanh};
pub use trig::{acos, asin, atan, atan2, cos, sin, tan};

/// What Go's `math.Log` gives. As its assembler does, it takes a subnormal number for one with an
/// implied leading bit.
pub fn log(x: f64) -> f64 {
    if x.is_nan() || x == f64::INFINITY {
        return x;
    }
    if x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1022;
    let mut fraction = f64::from_bits(bits & MANTISSA | 0.5f64.to_bits());
    if fraction < std::f64::consts::FRAC_1_SQRT_2 {
        fraction *= 2.0;
        exponent -= 1;
    }
    let f = fraction - 1.0;
    let k = exponent as f64;
    let s = f / (2.0 + f);
    let s2 = s * s;
    let s4 = s2 * s2;
    let t1 = s2 * (L1 + s4 * (L3 + s4 * (L5 + s4 * L7)));
    let t2 = s4 * (L2 + s4 * (L4 + s4 * L6));
    let r = t1 + t2;
    let half_square = 0.5 * f * f;
    k * LN_2_HIGH - ((half_square - (s * (half_square + r) + k * LN_2_LOW)) - f)
}

const MANTISSA: u64 = (1 << 52) - 1;
// FreeBSD's `e_log.c`.
const LN_2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN_2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
const L1: f64 = f64::from_bits(0x3fe5_5555_5555_5593);
const L2: f64 = f64::from_bits(0x3fd9_9999_9997_fa04);
const L3: f64 = f64::from_bits(0x3fd2_4924_9422_9359);
const L4: f64 = f64::from_bits(0x3fcc_71c5_1d8e_78af);
const L5: f64 = f64::from_bits(0x3fc7_4664_96cb_03de);
const L6: f64 = f64::from_bits(0x3fc3_9a09_d078_c69f);
const L7: f64 = f64::from_bits(0x3fc2_f112_df3e_5244);

/// What Go's `math.Log2` gives.
pub fn log2(x: f64) -> f64 {
    if x <= 0.0 || !x.is_finite() {
        return log(x);
    }
    let (fraction, exponent) = frexp(x);
    if fraction == 0.5 {
        return (exponent - 1) as f64;
    }
    log(fraction) * std::f64::consts::LOG2_E + exponent as f64
}

/// What Go's `math.Log10` gives.
pub fn log10(x: f64) -> f64 {
    log(x) * std::f64::consts::LOG10_E
}

/// What Go's `math.Pow` gives: the whole part of the exponent by squaring.
pub fn pow(x: f64, y: f64) -> f64 {
    let special = x == 0.0 || x == 1.0 || y == 0.0 || y == 1.0;
    if special || !x.is_finite() || !y.is_finite() {
        return x.powf(y);
    }
    if y == 0.5 {
        return x.sqrt();
    }
    if y == -0.5 {
        return 1.0 / x.sqrt();
    }
    let (mut whole, mut part) = (y.abs().trunc(), y.abs().fract());
    if part != 0.0 && x < 0.0 {
        return f64::NAN;
    }
    if whole >= (1u64 << 63) as f64 {
        return x.powf(y);
    }
    let (mut result, mut result_exponent) = (1.0, 0i64);
    if part != 0.0 {
        if part > 0.5 {
            part -= 1.0;
            whole += 1.0;
        }
        result = exp(part * log(x));
    }
    let (mut square, mut exponent) = frexp(x);
    let mut bits = whole as i64;
    while bits != 0 {
        if !(-4096..=4096).contains(&exponent) {
            result_exponent += exponent;
            break;
        }
        if bits & 1 == 1 {
            result *= square;
            result_exponent += exponent;
        }
        square *= square;
        exponent <<= 1;
        if square < 0.5 {
            square += square;
            exponent -= 1;
        }
        bits >>= 1;
    }
    if y < 0.0 {
        result = 1.0 / result;
        result_exponent = -result_exponent;
    }
    ldexp(result, result_exponent)
}

/// A finite number other than 0 as a fraction of size 0.5 to 1 and a power of two.
fn frexp(x: f64) -> (f64, i64) {
    let (x, shift) = normal(x);
    let bits = x.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i64 - 1022;
    (
        f64::from_bits(bits & !(0x7ff << 52) | 0.5f64.to_bits()),
        exponent + shift,
    )
}

/// A subnormal number as a normal one, and the power of two to multiply it with.
fn normal(x: f64) -> (f64, i64) {
    if x.abs() < f64::MIN_POSITIVE {
        (x * (1u64 << 52) as f64, -52)
    } else {
        (x, 0)
    }
}

/// `fraction * 2^exponent`, rounded once.
fn ldexp(fraction: f64, exponent: i64) -> f64 {
    if fraction == 0.0 || !fraction.is_finite() {
        return fraction;
    }
    let (fraction, shift) = normal(fraction);
    let bits = fraction.to_bits();
    let mut exponent = exponent + shift + (bits >> 52 & 0x7ff) as i64 - 1023;
    if exponent < -1075 {
        return 0f64.copysign(fraction);
    }
    if exponent > 1023 {
        return f64::INFINITY.copysign(fraction);
    }
    let mut scale = 1.0;
    if exponent < -1022 {
        exponent += 53;
        scale = 1.0 / (1u64 << 53) as f64;
    }
    scale * f64::from_bits(bits & !(0x7ff << 52) | ((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_digits_are_those_of_prometheus() {
        // From Prometheus 3.14: `ln(vector(5e-324))` and so on.
        assert_eq!(log(5e-324), -709.0895657128241);
        assert_eq!(log(1e-310), -709.0850815488945);
        assert_eq!(log2(5e-324), -1074.0);
        assert_eq!(log2(3.0), 1.5849625007211563);
        assert_eq!(log2(1_700_009_739.0), 30.662895865270862);
        assert_eq!(log10(3.0), 0.4771212547196624);
        assert_eq!(log10(7.0), 0.8450980400142568);
        assert_eq!(log10(1000.0), 3.0);
        assert_eq!(log10(123_456.0), 5.091512201627771);
        assert_eq!(log10(5e-324), -307.9536855642528);
        assert_eq!(pow(3.0, 0.3333), 1.442196755504422);
        assert_eq!(pow(2.0, -1074.0), 5e-324);
        assert_eq!(pow(5e-324, 0.5), 2.2227587494850775e-162);
    }

    /// Lines of a function, its arguments and what Go gives, as bits.
    fn differing(text: &str) -> Vec<String> {
        let agrees = |line: &&str| {
            let (name, numbers) = line.split_once(' ').unwrap();
            let numbers: Vec<f64> = numbers
                .split(' ')
                .map(|bits| f64::from_bits(u64::from_str_radix(bits, 16).unwrap()))
                .collect();
            let (found, wanted) = match (name, numbers.as_slice()) {
                ("pow", [x, y, wanted]) => (pow(*x, *y), *wanted),
                ("atan2", [y, x, wanted]) => (atan2(*y, *x), *wanted),
                ("mod", [x, y, wanted]) => (x % y, *wanted),
                (_, [x, wanted]) => (one(name)(*x), *wanted),
                _ => panic!("{line}"),
            };
            found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan()
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter(|line| !agrees(line))
            .map(str::to_owned)
            .collect()
    }

    fn one(name: &str) -> fn(f64) -> f64 {
        match name {
            "acos" => acos,
            "acosh" => acosh,
            "asin" => asin,
            "asinh" => asinh,
            "atan" => atan,
            "atanh" => atanh,
            "cos" => cos,
            "cosh" => cosh,
            "exp" => exp,
            "exp2" => exp2,
            "log" => log,
            "log2" => log2,
            "log10" => log10,
            "sin" => sin,
            "sinh" => sinh,
            "tan" => tan,
            "tanh" => tanh,
            _ => panic!("{name}"),
        }
    }

    /// `ISOBAR_GO_MATH` names a file of more such lines.
    #[test]
    fn last_digits_are_those_of_go() {
        let recorded = include_str!("../../tests/golden/go_math.txt");
        assert_eq!(differing(recorded), [""; 0]);
        if let Some(path) = std::env::var_os("ISOBAR_GO_MATH") {
            let text = std::fs::read_to_string(path).unwrap();
            let differing = differing(&text);
            assert!(
                differing.is_empty(),
                "{} differ: {:#?}",
                differing.len(),
                differing.iter().take(20).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn special_values() {
        assert!(log(-1.0).is_nan() && log2(f64::NAN).is_nan() && log10(-0.5).is_nan());
        assert_eq!(log2(0.0), f64::NEG_INFINITY);
        assert_eq!(log10(f64::INFINITY), f64::INFINITY);
        assert!(pow(-2.0, 0.5).is_nan() && pow(-2.0, 1.5).is_nan());
        assert_eq!(pow(-2.0, 3.0), -8.0);
        assert_eq!(pow(-2.0, -3.0), -0.125);
        assert_eq!(pow(10.0, 400.0), f64::INFINITY);
        assert_eq!(pow(-10.0, 401.0), f64::NEG_INFINITY);
        assert_eq!(pow(10.0, -400.0), 0.0);
        assert_eq!(pow(0.999, 1e300), 0.0);
    }
}
