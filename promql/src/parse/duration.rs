//! Durations as Prometheus' `model.Duration` reads and prints them: `1h30m`.

use std::fmt;

use super::error::quoted;

/// Units from the largest to the smallest, in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * DAY_NS),
    ("w", 7 * DAY_NS),
    ("d", DAY_NS),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];
const DAY_NS: u64 = 86_400_000_000_000;

/// Reads a duration into nanoseconds. Otherwise Prometheus' message.
pub(super) fn parse_duration(text: &str) -> Result<i64, String> {
    let malformed = || format!("not a valid duration string: {}", quoted(text));
    let out_of_range = || "duration out of range".to_owned();
    match text {
        "0" => return Ok(0),
        "" => return Err("empty duration string".to_owned()),
        _ => {}
    }
    let mut rest = text;
    let mut total: u64 = 0;
    // Index of the first unit that may still come: units go from large to small.
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let amount: u64 = rest[..digits].parse().map_err(|_| malformed())?;
        rest = &rest[digits..];
        let unit_len = rest.bytes().take_while(|b| !b.is_ascii_digit()).count();
        if unit_len == 0 {
            return Err(malformed());
        }
        let (unit, tail) = rest.split_at(unit_len);
        rest = tail;
        let Some(index) = UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(format!(
                "unknown unit {} in duration {}",
                quoted(unit),
                quoted(text)
            ));
        };
        if index < next_unit {
            return Err(malformed());
        }
        next_unit = index + 1;
        let part = amount
            .checked_mul(UNITS[index].1)
            .ok_or_else(out_of_range)?;
        total = total.checked_add(part).ok_or_else(out_of_range)?;
    }
    i64::try_from(total).map_err(|_| out_of_range())
}

/// Nanoseconds as seconds, rounded as Go's `Duration.Seconds` does.
pub(super) fn seconds(ns: i64) -> f64 {
    const SECOND_NS: i64 = 1_000_000_000;
    (ns / SECOND_NS) as f64 + (ns % SECOND_NS) as f64 / SECOND_NS as f64
}

/// Seconds as milliseconds, rounded to nanoseconds first and then cut, as Prometheus does.
pub(super) fn millis(seconds: f64) -> i64 {
    go_integer((seconds * 1e9).round()) / 1_000_000
}

/// Go's conversion to 64 bits, which gives the least integer for NaN and all that does not fit.
pub(super) fn go_integer(value: f64) -> i64 {
    const LIMIT: f64 = i64::MAX as f64;
    if (-LIMIT..LIMIT).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

/// Whether seconds are more nanoseconds than 64 bits hold.
pub(super) fn out_of_range(seconds: f64) -> bool {
    const LIMIT: f64 = i64::MAX as f64 / 1e9;
    !(-LIMIT..=LIMIT).contains(&seconds) && !seconds.is_nan()
}

/// A duration in milliseconds that prints as Prometheus prints it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Millis(pub(crate) i64);

impl Millis {
    /// The duration of a number that was written as one.
    pub(super) fn of_seconds(seconds: f64) -> Millis {
        Millis(go_integer(seconds * 1e9) / 1_000_000)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut rest = self.0.unsigned_abs();
        for (unit, unit_ns) in UNITS {
            let unit_ms = unit_ns / 1_000_000;
            // Years and weeks only when nothing is left: 90d reads better than 12w6d.
            let exact_only = matches!(unit, "y" | "w");
            let amount = rest / unit_ms;
            if amount == 0 || exact_only && !rest.is_multiple_of(unit_ms) {
                continue;
            }
            write!(f, "{amount}{unit}")?;
            rest -= amount * unit_ms;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        let check = |text: &str, expected: &str| {
            let read = parse_duration(text);
            let printed = read.map_or_else(|e| e, |ns| Millis(ns / 1_000_000).to_string());
            assert_eq!(printed, expected, "{text}");
        };
        check("5m", "5m");
        check("90s", "1m30s");
        check("1y2w", "379d");
        check("14d", "2w");
        check("90d", "90d");
        check("365d", "1y");
        check("1h0m", "1h");
        check("1s500ms", "1s500ms");
        check("5m1h", "not a valid duration string: \"5m1h\"");
        check("5m1m", "not a valid duration string: \"5m1m\"");
        check("5y1hs", "unknown unit \"hs\" in duration \"5y1hs\"");
        check("300y", "duration out of range");
        check(
            "99999999999999999999s",
            "not a valid duration string: \"99999999999999999999s\"",
        );
        check("5", "not a valid duration string: \"5\"");
        assert_eq!(Millis(-300_000).to_string(), "-5m");
    }
}
