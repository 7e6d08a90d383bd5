//! The time at which a block was uploaded, as Go writes times: `2026-11-22T15:53:34.97336593Z`, with
//! as many digits as are needed. A time that was never set is the first of January of the year 1.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const UNSET: &str = "0001-01-01T00:00:00Z";

/// A time, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadTime(Option<Known>);

/// The time, and how it is written: other zones than UTC are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    unix_ms: i64,
    text: Box<str>,
}

impl UploadTime {
    /// The time `unix_ms`, in UTC.
    pub fn at(unix_ms: i64) -> Self {
        let Some(time) = DateTime::<Utc>::from_timestamp_millis(unix_ms) else {
            return UploadTime(None);
        };
        let text = format!("{}", time.format("%Y-%m-%dT%H:%M:%S%.3f"));
        let text = match text.split_once('.') {
            Some((seconds, "000")) => format!("{seconds}Z"),
            _ => format!("{}Z", text.trim_end_matches('0')),
        };
        let text = text.into();
        UploadTime(Some(Known { unix_ms, text }))
    }

    /// The time in unix milliseconds, where there is one.
    pub fn unix_ms(&self) -> Option<i64> {
        self.0.as_ref().map(|known| known.unix_ms)
    }
}

impl Serialize for UploadTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.as_ref().map_or(UNSET, |known| &known.text);
        serializer.serialize_str(text)
    }
}

impl<'de> Deserialize<'de> for UploadTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<Box<str>>::deserialize(from)? else {
            return Ok(UploadTime(None));
        };
        if &*text == UNSET {
            return Ok(UploadTime(None));
        }
        let time = DateTime::parse_from_rfc3339(&text)
            .map_err(|e| serde::de::Error::custom(format_args!("{text:?} is no time: {e}")))?;
        let unix_ms = time.timestamp_millis();
        Ok(UploadTime(Some(Known { unix_ms, text })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_as_many_digits_as_are_needed() {
        let check = |unix_ms: i64, expected: &str| {
            let time = UploadTime::at(unix_ms);
            let json = serde_json::to_string(&time).unwrap();
            assert_eq!(json, format!("{expected:?}"));
            assert_eq!(serde_json::from_str::<UploadTime>(&json).unwrap(), time);
        };
        check(0, "1970-01-01T00:00:00Z");
        check(1_795_363_200_120, "2026-11-22T16:00:00.12Z");
        check(1_795_363_200_007, "2026-11-22T16:00:00.007Z");
        check(-1, "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn times_are_read_to_the_millisecond_and_kept() {
        let check = |text: &str, expected: Option<i64>| {
            let json = format!("{text:?}");
            let time: UploadTime = serde_json::from_str(&json).unwrap();
            assert_eq!(time.unix_ms(), expected);
            assert_eq!(serde_json::to_string(&time).unwrap(), json);
        };
        check("2026-11-22T16:00:00.123456789Z", Some(1_795_363_200_123));
        check("2026-11-22T18:00:00+02:00", Some(1_795_363_200_000));
        check(UNSET, None);
        assert!(serde_json::from_str::<UploadTime>("\"yesterday\"").is_err());
    }
}
