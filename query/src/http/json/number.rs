//! Numbers as Go's `strconv` lays them out.
//!
//! Sample values: the shortest digits that read back as the same number, plain for magnitudes in
//! `1e-6..1e21` and with an exponent of at least two digits outside, as Prometheus'
//! `jsonutil.MarshalFloat` has it. Timestamps: seconds with up to three decimals.

/// From here on values are written with an exponent.
const PLAIN_MAX: f64 = 1e21;
/// Below this, zero aside, values are written with an exponent.
const PLAIN_MIN: f64 = 1e-6;
/// Integers below this are exact, so their decimal digits are also the shortest ones.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// From here up to [`EXACT_MAX`] the printer of digits gives plain form too, and numbers with a
/// fraction need no more work. This is where nearly all values lie.
const PRINTED_PLAIN_MIN: f64 = 1e-4;

/// Room for the text of a number.
pub(super) struct NumberText {
    integer: itoa::Buffer,
    float: zmij::Buffer,
}

impl NumberText {
    pub(super) fn new() -> Self {
        NumberText {
            integer: itoa::Buffer::new(),
            float: zmij::Buffer::new(),
        }
    }

    /// What [`write_value`] writes, of the values that are common: at most 24 bytes.
    #[inline(always)]
    pub(super) fn common_value(&mut self, value: f64) -> Option<&[u8]> {
        let magnitude = value.abs();
        if magnitude < EXACT_MAX && value as i64 as f64 == value {
            if value == 0.0 && value.is_sign_negative() {
                return Some(b"-0");
            }
            return Some(self.integer.format(value as i64).as_bytes());
        }
        let printed_plain = (PRINTED_PLAIN_MIN..EXACT_MAX).contains(&magnitude);
        printed_plain.then(|| self.float.format_finite(value).as_bytes())
    }
}

/// Appends a sample value, without quotes.
pub(crate) fn write_value(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if let Some(text) = NumberText::new().common_value(value) {
        out.extend_from_slice(text);
    } else if !value.is_finite() {
        write_non_finite(out, value);
    } else if (PLAIN_MIN..PLAIN_MAX).contains(&magnitude) {
        write_finite_plain(out, value);
    } else {
        write_scientific(out, value, 2);
    }
}

/// Appends `value` in plain form whatever its magnitude (Go's `FormatFloat(v, 'f', -1, 64)`).
pub(crate) fn write_plain(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        write_finite_plain(out, value);
    } else {
        write_non_finite(out, value);
    }
}

/// Appends a number as `encoding/json` writes a `float64`; what JSON cannot say becomes `null`.
pub(crate) fn write_json_number(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if !value.is_finite() {
        out.extend_from_slice(b"null");
    } else if magnitude == 0.0 || (PLAIN_MIN..PLAIN_MAX).contains(&magnitude) {
        write_finite_plain(out, value);
    } else {
        write_scientific(out, value, 1);
    }
}

/// Appends unix milliseconds as seconds.
pub(crate) fn write_timestamp(out: &mut Vec<u8>, timestamp_ms: i64) {
    if timestamp_ms < 0 {
        out.push(b'-');
    }
    let magnitude = timestamp_ms.unsigned_abs();
    let mut buffer = itoa::Buffer::new();
    let seconds = buffer.format(magnitude / 1000).as_bytes();
    // A copy whose length is known to the compiler is much cheaper: the years 2001 to 2286.
    match <&[u8; 10]>::try_from(seconds) {
        Ok(seconds) => out.extend_from_slice(seconds),
        Err(_) => out.extend_from_slice(seconds),
    }
    let fraction = (magnitude % 1000) as u16;
    if fraction != 0 {
        let digit = |n: u16| b'0' + (n % 10) as u8;
        let tail = [
            b'.',
            digit(fraction / 100),
            digit(fraction / 10),
            digit(fraction),
        ];
        // Prometheus pads in front and keeps zeros behind: 1.5 s is `1.500`.
        out.extend_from_slice(&tail);
    }
}

fn write_non_finite(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(match value {
        v if v.is_nan() => b"NaN",
        v if v > 0.0 => b"+Inf",
        _ => b"-Inf",
    });
}

/// Sign, digits without leading and trailing zeros, and the place of the decimal point counted
/// from in front of the first digit: 12.5 is `125` and 2.
struct Decimal {
    negative: bool,
    digits: [u8; 24],
    len: usize,
    point: i32,
}

impl Decimal {
    fn digits(&self) -> &[u8] {
        self.digits.get(..self.len).unwrap_or_default()
    }
}

fn write_finite_plain(out: &mut Vec<u8>, value: f64) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    if !text.bytes().any(|b| b == b'e') {
        let text = text.strip_suffix(".0").unwrap_or(text);
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let decimal = parse_decimal(text);
    let digits = decimal.digits();
    if decimal.negative {
        out.push(b'-');
    }
    match usize::try_from(decimal.point) {
        Err(_) | Ok(0) => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + decimal.point.unsigned_abs() as usize, b'0');
            out.extend_from_slice(digits);
        }
        Ok(point) if point >= digits.len() => {
            out.extend_from_slice(digits);
            out.resize(out.len() + point - digits.len(), b'0');
        }
        Ok(point) => {
            let (whole, fraction) = digits.split_at(point);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    }
}

/// Writes `d.ddde±x` with at least `exponent_digits` digits in the exponent.
fn write_scientific(out: &mut Vec<u8>, value: f64, exponent_digits: usize) {
    let decimal = parse_decimal(zmij::Buffer::new().format_finite(value));
    if decimal.negative {
        out.push(b'-');
    }
    if let Some((first, rest)) = decimal.digits().split_first() {
        out.push(*first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
    }
    let exponent = decimal.point - 1;
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    let mut text = itoa::Buffer::new();
    let text = text.format(exponent.unsigned_abs());
    out.resize(out.len() + exponent_digits.saturating_sub(text.len()), b'0');
    out.extend_from_slice(text.as_bytes());
}

/// Takes a printed finite number apart, however it is laid out.
fn parse_decimal(text: &str) -> Decimal {
    let mut decimal = Decimal {
        negative: false,
        digits: [0; 24],
        len: 0,
        point: 0,
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let mut before_point = true;
    for byte in mantissa.bytes() {
        match byte {
            b'-' => decimal.negative = true,
            b'.' => before_point = false,
            b'0' if decimal.len == 0 => decimal.point -= i32::from(!before_point),
            digit => {
                if let Some(slot) = decimal.digits.get_mut(decimal.len) {
                    *slot = digit;
                    decimal.len += 1;
                }
                decimal.point += i32::from(before_point);
            }
        }
    }
    while decimal.len > 1 && decimal.digits().last() == Some(&b'0') {
        decimal.len -= 1;
    }
    decimal.point += exponent.trim_start_matches('+').parse::<i32>().unwrap_or(0);
    decimal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_as_go_prints_them() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-17.0, "-17"),
            (0.1, "0.1"),
            (1_512.728_999_999_665_8, "1512.7289999996658"),
            (1e-6, "0.000001"),
            (1.5e-6, "0.0000015"),
            (9.999e-7, "9.999e-07"),
            (1e-7, "1e-07"),
            (-2.5e-100, "-2.5e-100"),
            (1e20, "100000000000000000000"),
            (1.234_567e20, "123456700000000000000"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (12_345_678_901_234_567_890.0, "12345678901234567000"),
            (f64::from_bits(0xc319_1c0d_5765_40f5), "-1766929511043133.2"),
            (1e21, "1e+21"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(text(|out| write_value(out, value)), expected);
        }
    }

    #[test]
    fn timestamps_as_prometheus_prints_them() {
        for (ms, expected) in [
            (0, "0"),
            (1, "0.001"),
            (1_700_014_177_437, "1700014177.437"),
            (1_700_014_177_500, "1700014177.500"),
            (1_700_014_177_040, "1700014177.040"),
            (-1, "-0.001"),
            (-1_500, "-1.500"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            assert_eq!(text(|out| write_timestamp(out, ms)), expected);
        }
    }

    #[test]
    fn json_numbers_have_short_exponents() {
        for (value, expected) in [(0.0, "0"), (7.8733e-5, "0.000078733"), (1e-9, "1e-9")] {
            assert_eq!(text(|out| write_json_number(out, value)), expected);
        }
    }

    proptest::proptest! {
        /// `Display` of the standard library also gives the shortest digits, in plain form. Where
        /// two are equally near it takes the larger and Go the even one.
        #[test]
        fn plain_is_as_short_as_display(bits: u64) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                let printed = text(|out| write_plain(out, value));
                proptest::prop_assert_eq!(printed.len(), value.to_string().len());
                proptest::prop_assert_eq!(printed.parse::<f64>().unwrap().to_bits(), bits);
            }
        }

        #[test]
        fn values_read_back(bits: u64) {
            let value = f64::from_bits(bits);
            if !value.is_nan() {
                let printed = text(|out| write_value(out, value));
                proptest::prop_assert_eq!(printed.parse::<f64>().unwrap().to_bits(), bits);
            }
        }

        #[test]
        fn moderate_values_are_display(mantissa in -1_000_000_000i64..1_000_000_000, scale in 0i32..9) {
            let value = mantissa as f64 / 10f64.powi(scale);
            if value == 0.0 || value.abs() >= PLAIN_MIN {
                proptest::prop_assert_eq!(text(|out| write_value(out, value)), value.to_string());
            }
        }
    }
}
