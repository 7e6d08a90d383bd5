//! Values as Thanos and Prometheus write them in flags: `15d`, `1h30m`, `512MB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration: one or more numbers with a unit (`y w d h m s ms`, also `us` and `ns`), or `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlagDuration(pub(crate) Duration);

/// Units in seconds, longest name first so that `ms` is not read as `m`.
const DURATION_UNITS: [(&str, u128); 9] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("y", 365 * 86_400_000_000_000),
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

impl FromStr for FlagDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration; write for example 30s, 15d or 1h30m");
        if text == "0" {
            return Ok(FlagDuration(Duration::ZERO));
        }
        let mut nanos = 0u128;
        let mut left = text;
        while !left.is_empty() {
            let digits = left.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u128 = left[..digits].parse().map_err(|_| wrong())?;
            let unit = &left[digits..];
            let (name, factor) = DURATION_UNITS
                .iter()
                .find(|(name, _)| unit.starts_with(name))
                .ok_or_else(wrong)?;
            nanos = number
                .checked_mul(*factor)
                .and_then(|part| nanos.checked_add(part))
                .ok_or_else(wrong)?;
            left = &unit[name.len()..];
        }
        if text.is_empty() {
            return Err(wrong());
        }
        let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| wrong())?;
        let rest = (nanos % 1_000_000_000) as u32;
        Ok(FlagDuration(Duration::new(seconds, rest)))
    }
}

/// Prints as Prometheus does: whole units from the largest that fits, `0s` for none.
impl fmt::Display for FlagDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_millis();
        if left == 0 {
            return f.write_str("0s");
        }
        let units = [
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1_000),
            ("ms", 1),
        ];
        for (name, millis) in units {
            if left >= millis {
                write!(f, "{}{name}", left / millis)?;
                left %= millis;
            }
        }
        Ok(())
    }
}

/// A number of bytes: `512MB`, `1GiB`, `10485760`. All units are powers of 1024, as in Thanos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlagBytes(pub(crate) u64);

impl FromStr for FlagBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a number of bytes; write for example 512MB or 20GiB");
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let power = match text[digits..].to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 1,
            "M" | "MB" | "MIB" => 2,
            "G" | "GB" | "GIB" => 3,
            "T" | "TB" | "TIB" => 4,
            "P" | "PB" | "PIB" => 5,
            _ => return Err(wrong()),
        };
        number
            .checked_mul(1 << (10 * power))
            .map(FlagBytes)
            .ok_or_else(wrong)
    }
}

impl fmt::Display for FlagBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut number = self.0;
        let mut unit = 0;
        while number >= 1024 && number.is_multiple_of(1024) && unit + 1 < units.len() {
            number /= 1024;
            unit += 1;
        }
        write!(f, "{number}{}", units[unit])
    }
}

/// An amount of memory: a number of bytes as [`FlagBytes`], or a share such as `75%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagMemory {
    /// So many bytes.
    Bytes(FlagBytes),
    /// So many hundredths of something.
    Percent(u8),
}

impl FlagMemory {
    /// The bytes when shares are those of `all` bytes.
    pub(crate) fn of(self, all: u64) -> u64 {
        match self {
            FlagMemory::Bytes(bytes) => bytes.0,
            FlagMemory::Percent(percent) => all / 100 * u64::from(percent),
        }
    }
}

impl FromStr for FlagMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else {
            let bytes = text.parse().map_err(|error| format!("{error}, or 50%"))?;
            return Ok(FlagMemory::Bytes(bytes));
        };
        match percent.parse() {
            Ok(percent @ 1..=100) => Ok(FlagMemory::Percent(percent)),
            _ => Err(format!("{text:?} is not a share; write 1% to 100%")),
        }
    }
}

impl fmt::Display for FlagMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlagMemory::Bytes(bytes) => bytes.fmt(f),
            FlagMemory::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<&str>| {
            let got = text.parse::<FlagDuration>().ok().map(|d| d.to_string());
            assert_eq!(got.as_deref(), expected, "{text}");
        };
        check("15d", Some("15d"));
        check("1h30m", Some("1h30m"));
        check("90m", Some("1h30m"));
        check("1w", Some("7d"));
        check("250ms", Some("250ms"));
        check("0", Some("0s"));
        check("0s", Some("0s"));
        check("", None);
        check("5", None);
        check("m5", None);
        check("-1h", None);
        check("99999999999999999999999999999999999999y", None);
    }

    #[test]
    fn bytes() {
        let check = |text: &str, expected: Option<&str>| {
            let got = text.parse::<FlagBytes>().ok().map(|b| b.to_string());
            assert_eq!(got.as_deref(), expected, "{text}");
        };
        check("512MB", Some("512MiB"));
        check("2gib", Some("2GiB"));
        check("1536", Some("1536B"));
        check("0", Some("0B"));
        check("1.5GB", None);
        check("many", None);
        check("99999999999PB", None);
    }

    #[test]
    fn memory() {
        let of = |text: &str| text.parse::<FlagMemory>().map(|memory| memory.of(1000));
        assert_eq!(of("75%"), Ok(750));
        assert_eq!(of("1KiB"), Ok(1024));
        for wrong in ["0%", "101%", "x%", "%", "lots"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
