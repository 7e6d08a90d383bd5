//! Exponentials, and the hyperbolic functions that are made of them.

use std::f64::consts::{LN_2, LOG2_E};

use super::{LN_2_HIGH, ldexp, log};

/// What Go's `math.Exp` gives on processors that multiply and add in one step, as all of the last
/// ten years do.
pub fn exp(x: f64) -> f64 {
    // ln 2 in two parts.
    const LN_2_UPPER: f64 = 0.693_147_180_559_662_956_511_601_805_686_950_683_593_75;
    const LN_2_LOWER: f64 = 0.282_352_905_630_315_771_225_884_481_750_134_360_255_254_120_68e-12;
    const OVERFLOW: f64 = 7.097_827_128_933_84e+02;
    /// What the processor gives for a number that is none of 32 bits.
    const INDEFINITE: i32 = i32::MIN;
    if x.is_nan() {
        return x;
    }
    if x > OVERFLOW {
        return f64::INFINITY;
    }
    if x == f64::NEG_INFINITY {
        return 0.0;
    }
    let rounded = (LOG2_E * x).round_ties_even();
    let k = if rounded < f64::from(i32::MIN) {
        INDEFINITE
    } else {
        rounded as i32
    };
    let power = f64::from(k);
    let rest = (-power).mul_add(LN_2_UPPER, x);
    let rest = (-power).mul_add(LN_2_LOWER, rest) * 0.0625;
    let mut sum = 1.0 / 40320.0;
    for coefficient in [
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
    ] {
        sum = rest.mul_add(sum, coefficient);
    }
    // e^rest - 1, squared four times: (1 + y)^2 = 1 + y (2 + y).
    let mut y = rest * sum;
    y *= y + 2.0;
    y *= y + 2.0;
    y *= y + 2.0;
    y = (y + 2.0).mul_add(y, 1.0);
    let scale = |exponent: i32| f64::from_bits(u64::from(exponent.unsigned_abs()) << 52);
    match k.wrapping_add(0x3ff) {
        0x7ff.. => f64::INFINITY,
        exponent @ 1..0x7ff => y * scale(exponent),
        exponent @ -52..=0 => y * scale(exponent + 0x3fe) * scale(1),
        _ => 0.0,
    }
}

/// What Go's `math.Exp2` gives.
pub fn exp2(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > 1_023.999_999_999_999_9 {
        return f64::INFINITY;
    }
    if x < -1074.0 {
        return 0.0;
    }
    let k = (x + 0.5f64.copysign(x)).trunc();
    let t = x - k;
    let (high, low) = (t * LN_2_HIGH, -t * 1.908_214_929_270_587_7e-10);
    let r = high - low;
    let t = r * r;
    let series = 6.613_756_321_437_934e-5
        + t * (-1.653_390_220_546_525_2e-6 + t * 4.138_136_797_057_238_5e-8);
    let c = r - t * (1.666_666_666_666_666_6e-1 + t * (-2.777_777_777_701_559_3e-3 + t * series));
    let y = 1.0 - ((low - (r * c) / (2.0 - c)) - high);
    ldexp(y, k as i64)
}

/// What Go's `math.Sinh` gives.
pub fn sinh(x: f64) -> f64 {
    let size = x.abs();
    let value = if size > 21.0 {
        exp(size) * 0.5
    } else if size > 0.5 {
        let power = exp(size);
        (power - 1.0 / power) * 0.5
    } else {
        // Hart & Cheney, 2029.
        const P: [f64; 4] = [
            -0.630_767_364_049_771_7e+6,
            -0.899_127_202_203_950_9e+5,
            -0.289_421_135_598_956_4e+4,
            -0.263_056_321_339_749_7e+2,
        ];
        const Q: [f64; 3] = [
            -0.630_767_364_049_771_7e+6,
            0.152_151_737_879_001_9e+5,
            -0.173_678_953_558_233_7e+3,
        ];
        let square = size * size;
        let over = (((P[3] * square + P[2]) * square + P[1]) * square + P[0]) * size;
        over / (((square + Q[2]) * square + Q[1]) * square + Q[0])
    };
    value.copysign(x)
}

/// What Go's `math.Cosh` gives.
pub fn cosh(x: f64) -> f64 {
    let size = x.abs();
    let power = exp(size);
    if size > 21.0 {
        power * 0.5
    } else {
        (power + 1.0 / power) * 0.5
    }
}

/// What Go's `math.Tanh` gives.
pub fn tanh(x: f64) -> f64 {
    /// ln 2^127
    const LARGE: f64 = 8.802_969_193_111_305e1;
    let size = x.abs();
    if size > 0.5 * LARGE {
        return 1f64.copysign(x);
    }
    if size >= 0.625 {
        return (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    }
    if x == 0.0 {
        return x;
    }
    let s = x * x;
    let over =
        (-9.643_991_794_250_523e-1 * s - 9.928_772_310_019_186e1) * s - 1.614_687_684_417_084_5e3;
    let under = ((s + 1.128_116_784_916_329_3e2) * s + 2.235_488_390_601_004_5e3) * s
        + 4.844_063_053_251_255e3;
    x + x * s * over / under
}

/// From here on `x² ± 1` rounds to `x²`.
const LARGE: f64 = (1u64 << 28) as f64;

/// What Go's `math.Asinh` gives.
pub fn asinh(x: f64) -> f64 {
    if !x.is_finite() {
        return x;
    }
    let size = x.abs();
    let value = if size > LARGE {
        log(size) + LN_2
    } else if size > 2.0 {
        log(2.0 * size + 1.0 / ((size * size + 1.0).sqrt() + size))
    } else if size < 1.0 / LARGE {
        size
    } else {
        log1p(size + size * size / (1.0 + (1.0 + size * size).sqrt()))
    };
    value.copysign(x)
}

/// What Go's `math.Acosh` gives.
pub fn acosh(x: f64) -> f64 {
    if x.is_nan() || x < 1.0 {
        return f64::NAN;
    }
    if x == 1.0 {
        return 0.0;
    }
    if x >= LARGE {
        return log(x) + LN_2;
    }
    if x > 2.0 {
        return log(2.0 * x - 1.0 / (x + (x * x - 1.0).sqrt()));
    }
    let t = x - 1.0;
    log1p(t + (2.0 * t + t * t).sqrt())
}

/// What Go's `math.Atanh` gives.
pub fn atanh(x: f64) -> f64 {
    let size = x.abs();
    if size.is_nan() || size > 1.0 {
        return f64::NAN;
    }
    let value = if size == 1.0 {
        f64::INFINITY
    } else if size < 1.0 / LARGE {
        size
    } else if size < 0.5 {
        let twice = size + size;
        0.5 * log1p(twice + twice * size / (1.0 - size))
    } else {
        0.5 * log1p((size + size) / (1.0 - size))
    };
    value.copysign(x)
}

/// What Go's `math.Log1p` gives for arguments from 0 on, after FreeBSD's `s_log1p.c`.
fn log1p(x: f64) -> f64 {
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    if x.is_nan() || x == f64::INFINITY {
        return x;
    }
    let (mut k, mut f, mut mantissa, mut c) = (0, x, 1, 0.0);
    if x < f64::from_bits(0x3fda_8279_99fc_ef34) {
        if x < 1.0 / (1u64 << 29) as f64 {
            let tiny = x < 1.0 / (1u64 << 54) as f64;
            return if tiny { x } else { x - x * x * 0.5 };
        }
    } else {
        let u = if x < (1u64 << 53) as f64 { 1.0 + x } else { x };
        k = (u.to_bits() >> 52) as i64 - 1023;
        if x < (1u64 << 53) as f64 {
            let lost = if k > 0 { 1.0 - (u - x) } else { x - (u - 1.0) };
            c = lost / u;
        }
        mantissa = u.to_bits() & ((1 << 52) - 1);
        let one = if mantissa < 0x0006_a09e_667f_3bcd {
            f64::from_bits(mantissa | 1f64.to_bits())
        } else {
            k += 1;
            let half = f64::from_bits(mantissa | 0.5f64.to_bits());
            mantissa = ((1 << 52) - mantissa) >> 2;
            half
        };
        f = one - 1.0;
    }
    let (half_square, power) = (0.5 * f * f, k as f64);
    if mantissa == 0 {
        if f == 0.0 {
            return power * LN_2_HIGH + (c + power * LN_2_LOW);
        }
        let r = half_square * (1.0 - 0.666_666_666_666_666_6 * f);
        return match k {
            0 => f - r,
            _ => power * LN_2_HIGH - ((r - (power * LN_2_LOW + c)) - f),
        };
    }
    let s = f / (2.0 + f);
    let z = s * s;
    let series = super::L4 + z * (super::L5 + z * (super::L6 + z * super::L7));
    let r = z * (super::L1 + z * (super::L2 + z * (super::L3 + z * series)));
    match k {
        0 => f - (half_square - s * (half_square + r)),
        _ => {
            let low = s * (half_square + r) + (power * LN_2_LOW + c);
            power * LN_2_HIGH - ((half_square - low) - f)
        }
    }
}
