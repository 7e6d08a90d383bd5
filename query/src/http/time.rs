//! Times and durations as requests write them, with Prometheus' rounding.

/// The longest and the furthest time that Prometheus can say, in nanoseconds from its origin.
const NANOS_MAX: i128 = i64::MAX as i128;
const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// A moment with nanoseconds: a comparison or a difference is made before rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Unix nanoseconds.
    nanos: i128,
}

impl Moment {
    /// The start of a range that has none (Prometheus' `MinTime`).
    pub(crate) const MIN: Moment = Moment {
        nanos: (i64::MIN as i128 / 1000 + 62_135_596_801) * NANOS_PER_SECOND,
    };
    /// The end of a range that has none (Prometheus' `MaxTime`).
    pub(crate) const MAX: Moment = Moment {
        nanos: (i64::MAX as i128 / 1000 - 62_135_596_801) * NANOS_PER_SECOND + 999_999_999,
    };

    pub(crate) fn from_ms(timestamp_ms: i64) -> Self {
        Moment {
            nanos: i128::from(timestamp_ms) * 1_000_000,
        }
    }

    /// Unix milliseconds, rounded down, over the whole range of the type.
    pub(crate) fn ms(self) -> i64 {
        saturate(self.nanos.div_euclid(1_000_000))
    }

    /// Unix milliseconds of a step: rounded towards zero and no further away than nanoseconds
    /// reach in 64 bits (the years 1677 to 2262).
    pub(crate) fn step_ms(self) -> i64 {
        saturate(self.nanos.clamp(-NANOS_MAX, NANOS_MAX) / 1_000_000)
    }

    /// The time since `earlier`, no more than 64 bits hold.
    pub(crate) fn since(self, earlier: Moment) -> Nanos {
        Nanos(saturate(self.nanos - earlier.nanos))
    }
}

/// A duration in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(pub(crate) i64);

impl Nanos {
    /// Milliseconds, rounded towards zero.
    pub(crate) fn ms(self) -> i64 {
        self.0 / 1_000_000
    }

    /// The duration as the standard library has it; nothing when it is negative.
    pub(crate) fn std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Reads unix seconds or RFC 3339; seconds are rounded to milliseconds.
pub(crate) fn parse_time(text: &str) -> Result<Moment, String> {
    if let Some(seconds) = parse_float(text) {
        // Beyond the sentinels there is nothing; that also keeps the sum below in range.
        let whole = seconds.trunc().clamp(-1e16, 1e16);
        let fraction = (seconds.fract() * 1000.0).round() / 1000.0;
        let whole = if seconds.is_nan() { -1e16 } else { whole };
        let nanos = whole as i128 * NANOS_PER_SECOND + (fraction * 1e9) as i128;
        return Ok(Moment { nanos });
    }
    match text {
        "-292273086-05-16T16:47:06Z" => return Ok(Moment::MIN),
        "292277025-08-18T07:12:54.999999999Z" => return Ok(Moment::MAX),
        _ => {}
    }
    parse_rfc3339(text)
        .map(|nanos| Moment { nanos })
        .ok_or_else(|| format!("cannot parse {} to a valid timestamp", quoted(text)))
}

/// Reads seconds or a duration such as `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Nanos, String> {
    if let Some(seconds) = parse_float(text) {
        let nanos = seconds * 1e9;
        if nanos > i64::MAX as f64 || nanos < i64::MIN as f64 {
            let text = quoted(text);
            return Err(format!(
                "cannot parse {text} to a valid duration. It overflows int64"
            ));
        }
        return Ok(Nanos(if nanos.is_nan() {
            i64::MIN
        } else {
            nanos as i64
        }));
    }
    parse_units(text)
        .map(Nanos)
        .ok_or_else(|| format!("cannot parse {} to a valid duration", quoted(text)))
}

/// `text` in double quotes, as Go's `%q` has it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::new();
    match isobar_model::labels::write_quoted(&mut out, text) {
        Ok(()) => out,
        Err(std::fmt::Error) => format!("{text:?}"),
    }
}

/// A float as Go's `strconv.ParseFloat` reads it: also with underscores between digits and in
/// hexadecimal. Numbers that are too large are refused.
fn parse_float(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let digit_at = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(u8::is_ascii_alphanumeric)
    };
    let joins = |at: usize| digit_at(at.checked_sub(1)) && digit_at(Some(at + 1));
    let plain;
    let text = if bytes.contains(&b'_') {
        if !(0..bytes.len()).all(|at| bytes.get(at) != Some(&b'_') || joins(at)) {
            return None;
        }
        plain = text.replace('_', "");
        &plain
    } else {
        text
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(digits) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        let value = parse_hexadecimal(digits)?;
        return Some(if negative { -value } else { value });
    }
    let value = text.parse::<f64>().ok()?;
    let named = digits.starts_with(['i', 'I']);
    (!value.is_infinite() || named).then_some(value)
}

/// `1f.8p3`: hexadecimal digits and a power of two. What is beyond 60 bits of digits, or would
/// need a rounding, is refused: nobody writes times so.
fn parse_hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_hex || digits.is_empty() || digits.len() > 13 {
        return None;
    }
    let mantissa = u64::from_str_radix(&digits, 16).ok()? as f64;
    let exponent = exponent.parse::<i16>().ok()?;
    let shift = i32::from(exponent) - 4 * i32::try_from(fraction.len()).ok()?;
    let value = mantissa * 2f64.powi(shift);
    value.is_finite().then_some(value)
}

/// Durations with units, the larger first: `1d12h`.
fn parse_units(text: &str) -> Option<i64> {
    const MS: u64 = 1_000_000;
    const UNITS: [(&str, u64); 7] = [
        ("y", 365 * 24 * 3_600_000 * MS),
        ("w", 7 * 24 * 3_600_000 * MS),
        ("d", 24 * 3_600_000 * MS),
        ("h", 3_600_000 * MS),
        ("m", 60_000 * MS),
        ("s", 1_000 * MS),
        ("ms", MS),
    ];
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total = 0u64;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at_checked(digits)?;
        let unit_len = behind
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(unit_len)?;
        let (_, scale) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*scale)?)?;
        rest = behind;
    }
    i64::try_from(total).ok()
}

/// `2006-01-02T15:04:05.999999999Z07:00` in unix nanoseconds.
fn parse_rfc3339(text: &str) -> Option<i128> {
    let number = |from: usize, len: usize| {
        let digits = text.get(from..from + len)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse::<i64>().ok())?
    };
    let mark = |at: usize, expected: u8| (text.as_bytes().get(at) == Some(&expected)).then_some(());
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
        .into_iter()
        .try_for_each(|(at, expected)| mark(at, expected))?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let rest = text.get(19..)?;
    let (nanos, zone) = match rest.strip_prefix(['.', ',']) {
        None => (0, rest),
        Some(fraction) => {
            let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
            let (digits, zone) = fraction.split_at_checked(len)?;
            (fraction_nanos(digits)?, zone)
        }
    };
    let seconds = days_from_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(i128::from(seconds - zone_seconds(zone)?) * NANOS_PER_SECOND + i128::from(nanos))
}

/// The nanoseconds of the digits behind a decimal point; what is finer is cut off.
fn fraction_nanos(digits: &str) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    Some(
        digits
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(9)
            .fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0')),
    )
}

/// The offset from UTC that `Z` or `+07:00` names.
fn zone_seconds(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let bytes = zone.as_bytes();
    let digit = |at: usize| {
        bytes
            .get(at)
            .filter(|b| b.is_ascii_digit())
            .map(|b| i64::from(b - b'0'))
    };
    if bytes.len() != 6 || bytes.get(3) != Some(&b':') {
        return None;
    }
    let (hours, minutes) = (digit(1)? * 10 + digit(2)?, digit(4)? * 10 + digit(5)?);
    if hours > 24 || minutes >= 60 {
        return None;
    }
    match bytes.first()? {
        b'+' => Some(hours * 3_600 + minutes * 60),
        b'-' => Some(-(hours * 3_600 + minutes * 60)),
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar, counted in years that begin in March so that
/// the leap day comes last.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("0", 0),
            ("1700014177", 1_700_014_177_000),
            ("1700014177.4374", 1_700_014_177_437),
            ("1700014177.4376", 1_700_014_177_438),
            ("-1.5", -1_500),
            ("1e3", 1_000_000),
            ("1_0", 10_000),
            ("-0x1.8p1", -3_000),
            ("1970-01-01T00:00:01Z", 1_000),
            ("2023-11-15T02:09:37.500Z", 1_700_014_177_500),
            ("2023-11-15T02:09:37.123456789Z", 1_700_014_177_123),
            ("2023-11-15T04:09:37+02:00", 1_700_014_177_000),
            ("2024-02-29T00:00:00-01:30", 1_709_170_200_000),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ] {
            assert_eq!(parse_time(text).map(Moment::ms), Ok(expected), "{text}");
        }
        assert_eq!(parse_time("-292273086-05-16T16:47:06Z"), Ok(Moment::MIN));
        assert_eq!(
            parse_time("292277025-08-18T07:12:54.999999999Z"),
            Ok(Moment::MAX)
        );
        for text in [
            "",
            "x",
            "1e999",
            "2023-02-29T00:00:00Z",
            "2023-01-01T00:00:00",
            "2023-01-01",
            "1 ",
            "_1",
            "1__0",
            "0x10",
            "0xp1",
        ] {
            assert_eq!(
                parse_time(text),
                Err(format!("cannot parse \"{text}\" to a valid timestamp"))
            );
        }
    }

    #[test]
    fn times_out_of_reach_saturate() {
        for text in ["NaN", "-inf", "+Inf", "1e300", "-1e300", "9e15"] {
            let moment = parse_time(text).unwrap();
            assert!(moment.step_ms().abs() <= 9_223_372_036_854, "{text}");
            assert!(
                moment.since(Moment::MIN).0 != 0 && moment.ms() != 0,
                "{text}"
            );
        }
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("60", 60_000),
            ("0.25", 250),
            ("-1", -1_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1y2w3d4h5m6s7ms", 33_019_506_007),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text).map(Nanos::ms), Ok(expected), "{text}");
        }
        for text in [
            "",
            "x",
            "5mm",
            "30m1h",
            "1h1h",
            "-5m",
            "5 m",
            "999999999y",
            "ß",
        ] {
            assert_eq!(
                parse_duration(text),
                Err(format!("cannot parse \"{text}\" to a valid duration"))
            );
        }
        assert_eq!(
            parse_duration("1e20"),
            Err("cannot parse \"1e20\" to a valid duration. It overflows int64".into())
        );
    }
}
