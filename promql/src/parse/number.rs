//! Numbers as Go reads and prints them.

use std::fmt;

use super::error::quoted;

/// Reads a number as the lexer gives it (no sign): decimal, octal with a leading `0`,
/// hexadecimal, with underscores between digits, `inf` and `nan`. Otherwise Go's message.
pub(super) fn parse_number(text: &str) -> Result<f64, String> {
    if let Some(integer) = parse_integer(text) {
        return Ok(integer as f64);
    }
    let refused = |why: &str| format!("strconv.ParseFloat: parsing {}: {why}", quoted(text));
    let plain;
    let digits = if text.contains('_') {
        if !underscores_fit(text) {
            return Err(refused("invalid syntax"));
        }
        plain = text.replace('_', "");
        &plain
    } else {
        text
    };
    let special = digits.eq_ignore_ascii_case("inf")
        || digits.eq_ignore_ascii_case("infinity")
        || digits.eq_ignore_ascii_case("nan");
    match digits.parse::<f64>() {
        Ok(value) if value.is_infinite() && !special => Err(refused("value out of range")),
        Ok(value) => Ok(value),
        Err(_) => Err(refused("invalid syntax")),
    }
}

/// Go's `strconv.ParseInt(text, 0, 64)`, for texts without a sign.
fn parse_integer(text: &str) -> Option<i64> {
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    if !digits.contains('_') {
        return i64::from_str_radix(digits, base).ok();
    }
    if !underscores_fit(text) {
        return None;
    }
    i64::from_str_radix(&digits.replace('_', ""), base).ok()
}

/// Whether each underscore stands between digits, or between the base prefix and a digit.
fn underscores_fit(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = matches!(bytes, [b'0', b'x' | b'X', ..]);
    let (mut before_is_digit, mut after_underscore) = (hex, false);
    for b in &bytes[if hex { 2 } else { 0 }..] {
        let digit = b.is_ascii_digit() || hex && b.is_ascii_hexdigit();
        let underscore = *b == b'_';
        if underscore && !before_is_digit || after_underscore && !digit {
            return false;
        }
        before_is_digit = digit;
        after_underscore = underscore;
    }
    !after_underscore
}

/// Prints as Go's `strconv.FormatFloat(value, 'f', -1, 64)`.
pub(super) struct Plain(pub(super) f64);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_infinite() {
            return f.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" });
        }
        write!(f, "{}", self.0)
    }
}

/// Prints as Go's `%v`: the shortest digits, with an exponent below 1e-4 and from 1e+06 on.
pub(crate) struct Shortest(pub(crate) f64);

impl fmt::Display for Shortest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_finite() {
            return Plain(self.0).fmt(f);
        }
        let text = format!("{:e}", self.0);
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        if (-4..EXPONENT_MIN).contains(&exponent) {
            return write!(f, "{}", self.0);
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(f, "{digits}e{sign}{:02}", exponent.abs())
    }
}

/// The first exponent that `%v` writes out.
const EXPONENT_MIN: i32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_go_does() {
        let check = |text: &str, expected: &str| {
            let read = parse_number(text).map_or_else(|e| e, |v| Plain(v).to_string());
            assert_eq!(read, expected, "{text}");
        };
        check("0", "0");
        check("0755", "493");
        check("08", "8");
        check("0xc", "12");
        check("0X_1F", "31");
        check("1_000", "1000");
        check("1_000.5", "1000.5");
        check(
            "1__0",
            "strconv.ParseFloat: parsing \"1__0\": invalid syntax",
        );
        check("5.", "5");
        check(".5e1", "5");
        check("9223372036854775808", "9223372036854776000");
        check(
            "1e999",
            "strconv.ParseFloat: parsing \"1e999\": value out of range",
        );
        check("1e+", "strconv.ParseFloat: parsing \"1e+\": invalid syntax");
        check(
            "0x1ffffffffffffffff",
            "strconv.ParseFloat: parsing \"0x1ffffffffffffffff\": invalid syntax",
        );
        check("Inf", "+Inf");
        check("nAn", "NaN");
    }

    #[test]
    fn prints_shortest() {
        let check = |value: f64, expected: &str| assert_eq!(Shortest(value).to_string(), expected);
        check(0.0, "0");
        check(-1.5, "-1.5");
        check(100_000.0, "100000");
        check(1e6, "1e+06");
        check(123_456_789.0, "1.23456789e+08");
        check(0.0001, "0.0001");
        check(0.000_01, "1e-05");
        check(1e300, "1e+300");
        check(f64::NEG_INFINITY, "-Inf");
    }
}
