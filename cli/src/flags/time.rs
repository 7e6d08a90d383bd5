//! Points in time as Thanos writes them in flags: a date, or how far from now.

use std::fmt;
use std::str::FromStr;

use isobar_model::time::rfc3339;

use super::units::FlagDuration;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagTime {
    /// Unix milliseconds.
    At(i64),
    /// Milliseconds from now on, whenever that is asked; below 0 for the past.
    FromNow(i64),
}

impl FlagTime {
    /// Unix milliseconds, when it is `now_ms`.
    pub(crate) fn ms(self, now_ms: i64) -> i64 {
        match self {
            FlagTime::At(ms) => ms,
            FlagTime::FromNow(ms) => now_ms.saturating_add(ms),
        }
    }
}

impl FromStr for FlagTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
            return Ok(FlagTime::At(time.timestamp_millis()));
        }
        let (sign, length) = match text.strip_prefix('-') {
            Some(length) => (-1, length),
            None => (1, text),
        };
        let wrong = || {
            format!("{text:?} is not a time; write for example 2026-01-02T15:04:05Z, -2w or -1d12h")
        };
        let length: FlagDuration = length.parse().map_err(|_| wrong())?;
        let ms = i64::try_from(length.0.as_millis()).map_err(|_| wrong())?;
        Ok(FlagTime::FromNow(sign * ms))
    }
}

impl fmt::Display for FlagTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlagTime::At(ms) => f.write_str(&rfc3339(*ms)),
            FlagTime::FromNow(ms) => {
                let length = std::time::Duration::from_millis(ms.unsigned_abs());
                let sign = if *ms < 0 { "-" } else { "" };
                write!(f, "{sign}{}", FlagDuration(length))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_distances() {
        let check = |text: &str, expected: Option<i64>| {
            let got = text.parse::<FlagTime>().ok().map(|it| it.ms(1_000_000_000));
            assert_eq!(got, expected, "{text}");
        };
        check("1970-01-01T00:00:01Z", Some(1000));
        check("1970-01-01T01:00:01.5+01:00", Some(1500));
        check("0000-01-01T00:00:00Z", Some(-62_167_219_200_000));
        check("9999-12-31T23:59:59Z", Some(253_402_300_799_000));
        check("-1d", Some(913_600_000));
        check("2h45m", Some(1_009_900_000));
        check("0", Some(1_000_000_000));
        check("yesterday", None);
        check("", None);
        check("2026-01-02", None);
    }
}
