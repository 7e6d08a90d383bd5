//! Angles: after Cephes, and for large arguments after Payne and Hanek.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, FRAC_PI_4, PI, SQRT_2};

/// What Go's `math.Sin` gives.
pub fn sin(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() {
        return x;
    }
    if x.is_infinite() {
        return f64::NAN;
    }
    let (octant, z) = reduce(x.abs());
    let value = match octant & 3 {
        1 | 2 => near_cos(z),
        _ => near_sin(z),
    };
    if (octant > 3) != (x < 0.0) {
        -value
    } else {
        value
    }
}

/// What Go's `math.Cos` gives.
pub fn cos(x: f64) -> f64 {
    if !x.is_finite() {
        return f64::NAN;
    }
    let (octant, z) = reduce(x.abs());
    let quarter = octant & 3;
    let value = match quarter {
        1 | 2 => near_sin(z),
        _ => near_cos(z),
    };
    if (octant > 3) != (quarter > 1) {
        -value
    } else {
        value
    }
}

/// What Go's `math.Tan` gives.
pub fn tan(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() {
        return x;
    }
    if x.is_infinite() {
        return f64::NAN;
    }
    let (octant, z) = reduce(x.abs());
    let zz = z * z;
    let mut value = z;
    if zz > 1e-14 {
        let over = (-1.309_369_391_813_837_8e4 * zz + 1.153_516_648_385_874_2e6) * zz
            - 1.795_652_519_764_848_8e7;
        let under = (((zz + 1.368_129_634_706_929_5e4) * zz - 1.320_892_344_402_109_7e6) * zz
            + 2.500_838_018_233_579e7)
            * zz
            - 5.386_957_559_294_546_3e7;
        value = z + z * (zz * over / under);
    }
    if octant & 2 == 2 {
        value = -1.0 / value;
    }
    if x < 0.0 { -value } else { value }
}

/// The sine of -Pi/4 to Pi/4.
fn near_sin(z: f64) -> f64 {
    let zz = z * z;
    let series = ((((1.589_623_015_765_465_7e-10 * zz - 2.505_074_776_285_780_7e-8) * zz
        + 2.755_731_362_138_572_2e-6)
        * zz
        - 1.984_126_982_958_954e-4)
        * zz
        + 8.333_333_333_322_119e-3)
        * zz
        - 1.666_666_666_666_663e-1;
    z + z * zz * series
}

/// The cosine of -Pi/4 to Pi/4.
fn near_cos(z: f64) -> f64 {
    let zz = z * z;
    let series = ((((-1.135_853_652_138_768_2e-11 * zz + 2.087_570_084_197_473e-9) * zz
        - 2.755_731_417_929_674e-7)
        * zz
        + 2.480_158_728_885_170_4e-5)
        * zz
        - 1.388_888_888_887_305_6e-3)
        * zz
        + 4.166_666_666_666_659_5e-2;
    1.0 - 0.5 * zz + zz * zz * series
}

/// An angle of 0 or more as an even number of octants, 0 to 7, and what is left of it.
fn reduce(x: f64) -> (u64, f64) {
    // Pi / 4 in three parts.
    const PI_4_A: f64 = f64::from_bits(0x3fe9_21fb_4000_0000);
    const PI_4_B: f64 = f64::from_bits(0x3e64_442d_0000_0000);
    const PI_4_C: f64 = f64::from_bits(0x3ce8_4698_98cc_5170);
    /// From here on three parts are too few.
    const LARGE: f64 = (1u64 << 29) as f64;
    if x >= LARGE {
        return reduce_large(x);
    }
    let mut octants = (x * (2.0 * FRAC_2_PI)) as u64;
    octants += octants & 1;
    let y = octants as f64;
    (octants & 7, ((x - y * PI_4_A) - y * PI_4_B) - y * PI_4_C)
}

/// The same for what is at least Pi / 4: a product of the argument with as many binary digits of
/// 4 / Pi as matter.
fn reduce_large(x: f64) -> (u64, f64) {
    const MANTISSA_BITS: u32 = 52;
    const BIAS: i64 = 1023;
    let bits = x.to_bits();
    let exponent = (bits >> MANTISSA_BITS) as i64 - BIAS - i64::from(MANTISSA_BITS);
    let mantissa = bits & ((1 << MANTISSA_BITS) - 1) | 1 << MANTISSA_BITS;
    let (digit, shift) = ((exponent + 61) / 64, (exponent + 61) % 64);
    let word = |i: i64| {
        let digit = |i: i64| {
            let at = usize::try_from(digit + i).unwrap_or(usize::MAX);
            u128::from(FOUR_OVER_PI.get(at).copied().unwrap_or(0))
        };
        let pair = digit(i) << 64 | digit(i + 1);
        (pair << shift >> 64) as u64
    };
    let product = |i: i64| u128::from(word(i)) * u128::from(mantissa);
    let sum = ((product(0) as u64 as u128) << 64)
        .wrapping_add(product(1))
        .wrapping_add(product(2) >> 64);
    let octants = (sum >> 125) as u64;
    let (high, low) = ((sum >> 61) as u64, sum as u64);
    let zeros = high.leading_zeros();
    let exponent = (BIAS as u64).wrapping_sub(u64::from(zeros) + 1);
    // The bit in front is implied. Of small fractions, Go fills in digits three places too early.
    let shifted = high.checked_shl(zeros + 1).unwrap_or(0);
    let high = shifted | low.checked_shr(63 - zeros.min(63)).unwrap_or(0);
    let z = f64::from_bits(high >> (64 - MANTISSA_BITS) | exponent << MANTISSA_BITS);
    if octants & 1 == 1 {
        ((octants + 1) & 7, (z - 1.0) * FRAC_PI_4)
    } else {
        (octants, z * FRAC_PI_4)
    }
}

/// 4 / Pi in binary.
const FOUR_OVER_PI: [u64; 20] = [
    0x0000000000000001,
    0x45f306dc9c882a53,
    0xf84eafa3ea69bb81,
    0xb6c52b3278872083,
    0xfca2c757bd778ac3,
    0x6e48dc74849ba5c0,
    0x0c925dd413a32439,
    0xfc3bd63962534e7d,
    0xd1046bea5d768909,
    0xd338e04d68befc82,
    0x7323ac7306a673e9,
    0x3908bf177bf25076,
    0x3ff12fffbc0b301f,
    0xde5e2316b414da3e,
    0xda6cfd9e4f96136e,
    0x9e8c7ecd3cbfd45a,
    0xea4f758fd7cbe2f6,
    0x7a0e73ef14a525d4,
    0xd7f6bf623f1aba10,
    0xac06608df8f6d757,
];

/// What Go's `math.Asin` gives.
pub fn asin(x: f64) -> f64 {
    let size = x.abs();
    if x == 0.0 {
        return x;
    }
    if size.is_nan() || size > 1.0 {
        return f64::NAN;
    }
    let root = (1.0 - size * size).sqrt();
    let angle = if size > 0.7 {
        FRAC_PI_2 - positive_atan(root / size)
    } else {
        positive_atan(size / root)
    };
    angle.copysign(x)
}

/// What Go's `math.Acos` gives.
pub fn acos(x: f64) -> f64 {
    FRAC_PI_2 - asin(x)
}

/// What Go's `math.Atan2` gives.
pub fn atan2(y: f64, x: f64) -> f64 {
    let special = y == 0.0 || x == 0.0 || !y.is_finite() || !x.is_finite();
    if special {
        return y.atan2(x);
    }
    let angle = atan(y / x);
    match (x < 0.0, angle <= 0.0) {
        (false, _) => angle,
        (true, true) => angle + PI,
        (true, false) => angle - PI,
    }
}

/// What Go's `math.Atan` gives.
pub fn atan(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    positive_atan(x.abs()).copysign(x)
}

/// What Pi / 2 lacks.
const MORE_BITS: f64 = 6.123_233_995_736_766e-17;

fn positive_atan(x: f64) -> f64 {
    if x <= 0.66 {
        small_atan(x)
    } else if x > 1.0 + SQRT_2 {
        FRAC_PI_2 - small_atan(1.0 / x) + MORE_BITS
    } else {
        FRAC_PI_4 + small_atan((x - 1.0) / (x + 1.0)) + 0.5 * MORE_BITS
    }
}

/// Of 0 to 0.66.
fn small_atan(x: f64) -> f64 {
    let z = x * x;
    let over = (((-8.750_608_600_031_904e-1 * z - 1.615_753_718_733_365_2e1) * z
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
