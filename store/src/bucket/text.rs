//! Scalars of the configuration: texts that YAML takes for something else, texts that must not be
//! printed, and Go's durations.

use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_yaml_ng::Value;

/// A text; a whole number or `true` without quotes is one, too.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) if !number.is_f64() => Ok(number.to_string()),
        _ => Err(D::Error::custom("a text is wanted here; put it in quotes")),
    }
}

/// A text that is not printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "none"
        } else {
            "<secret>"
        })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        text(from).map(Secret)
    }
}

/// A duration as Prometheus writes it: `1m30s`, `500ms`, `0`.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = text(from)?;
    parse_duration(&text)
        .ok_or_else(|| D::Error::custom(format_args!("{text:?} is no duration such as 1m30s")))
}

/// Units in milliseconds, in the order in which they follow each other.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" || text.is_empty() {
        return (!text.is_empty()).then_some(Duration::ZERO);
    }
    let (mut ms, mut rest, mut units) = (0u64, text, UNITS.as_slice());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| c.is_ascii_digit());
        let (unit, behind) = behind.split_at(end.unwrap_or(behind.len()));
        let at = units.iter().position(|(name, _)| *name == unit)?;
        let (_, factor) = units.get(at)?;
        ms = ms.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        units = units.get(at + 1..)?;
        rest = behind;
    }
    Some(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            let parsed = parse_duration(text).map(|d| d.as_millis() as u64);
            assert_eq!(parsed, expected, "{text}");
        };
        check("0", Some(0));
        check("90s", Some(90_000));
        check("1h2m3s4ms", Some(3_723_004));
        check("1d", Some(86_400_000));
        for wrong in [
            "",
            "s",
            "1",
            "1s1m",
            "1s1s",
            "-1s",
            "1.5s",
            "99999999999999999y",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret: Secret = serde_yaml_ng::from_str("123").unwrap();
        assert_eq!(
            (secret.expose(), format!("{secret:?}").as_str()),
            ("123", "<secret>")
        );
        assert!(serde_yaml_ng::from_str::<Secret>("1e5").is_err());
    }
}
