//! Logarithms and powers as Go computes them on amd64, to the last digit.
//!
//! The C library's are a little more exact, but a query such as `x ^ 10 % 10` or
//! `count_values("v", log10(x))` shows the last digit.

/// What Go's `math.Log` gives. As its assembler does, it takes a subnormal number for one with an
/// implied leading bit.
pub(super) fn log(x: f64) -> f64 {
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
pub(super) fn log2(x: f64) -> f64 {
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
pub(super) fn log10(x: f64) -> f64 {
    log(x) * std::f64::consts::LOG10_E
}

/// What Go's `math.Pow` gives: the whole part of the exponent by squaring.
pub(super) fn pow(x: f64, y: f64) -> f64 {
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
        result = (part * log(x)).exp();
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

/// What Go's `math.Atan2` gives.
pub(super) fn atan2(y: f64, x: f64) -> f64 {
    let special = y == 0.0 || x == 0.0 || !y.is_finite() || !x.is_finite();
    if special {
        return y.atan2(x);
    }
    let angle = atan(y / x);
    match (x < 0.0, angle <= 0.0) {
        (false, _) => angle,
        (true, true) => angle + std::f64::consts::PI,
        (true, false) => angle - std::f64::consts::PI,
    }
}

/// What Go's `math.Atan` gives, after Cephes.
pub(super) fn atan(x: f64) -> f64 {
    use std::f64::consts::{FRAC_PI_2, FRAC_PI_4};
    /// What Pi / 2 lacks.
    const MORE_BITS: f64 = 6.123_233_995_736_766e-17;
    let size = x.abs();
    let angle = if size <= 0.66 {
        small_atan(size)
    } else if size > 1.0 + std::f64::consts::SQRT_2 {
        FRAC_PI_2 - small_atan(1.0 / size) + MORE_BITS
    } else {
        FRAC_PI_4 + small_atan((size - 1.0) / (size + 1.0)) + 0.5 * MORE_BITS
    };
    if x.is_nan() { x } else { angle.copysign(x) }
}

/// Of 0 to 0.66.
fn small_atan(x: f64) -> f64 {
    let z = x * x;
    let over = (((-8.750_608_600_031_904e-1 * z - 1.615_753_718_733_365e1) * z
        - 7.500_855_792_314_705e1)
        * z
        - 1.228_866_684_490_136_1e2)
        * z
        - 6.485_021_904_942_025e1;
    let under = ((((z + 2.485_846_490_142_306_2e1) * z + 1.650_270_098_316_988_6e2) * z
        + 4.328_810_604_912_902_5e2)
        * z
        + 4.853_903_996_359_137e2)
        * z
        + 1.945_506_571_482_614e2;
    x * (z * over / under) + x
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

    #[test]
    fn angles() {
        // From Prometheus 3.14: `time() atan2 0.1` and so on.
        assert_eq!(atan2(1_700_013_027.0, 0.1), 1.5707963267360734);
        for x in [1e-9, 0.1, 0.5, 0.66, 0.7, 1.0, 2.0, 2.5, 10.0, 1e9] {
            assert!((atan(x) - x.atan()).abs() <= 4e-16 && atan(-x) == -atan(x));
            assert!((atan2(x, -1.0) - x.atan2(-1.0)).abs() <= 9e-16);
        }
        assert_eq!(atan2(-0.0, -1.0), -std::f64::consts::PI);
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
