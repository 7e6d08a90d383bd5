//! `meta.json`: what a block holds and what it was made from. Fields that are not known here are
//! kept, at every level.

use isobar_model::TimeRange;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use ulid::Ulid;

use crate::Error;

const VERSION: u32 = 1;

/// The content of `meta.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockMeta {
    /// The name of the block. Every block that is written gets a new one.
    #[serde(serialize_with = "write_ulid", deserialize_with = "read_ulid")]
    pub ulid: Ulid,
    /// The first time that belongs to the block, unix milliseconds.
    #[serde(rename = "minTime")]
    pub min_ms: i64,
    /// The first time behind the block, unix milliseconds.
    #[serde(rename = "maxTime")]
    pub end_ms: i64,
    /// How much it holds.
    #[serde(default)]
    pub stats: BlockStats,
    /// What it was made from.
    #[serde(default)]
    pub compaction: Compaction,
    /// The version of the format; 1.
    pub version: u32,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How much a block holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockStats {
    /// Samples of all kinds.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_samples: u64,
    /// Floats.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_float_samples: u64,
    /// Native histograms.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_histogram_samples: u64,
    /// Series.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_series: u64,
    /// Chunks.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_chunks: u64,
    /// Deleted ranges.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a block was made from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Compaction {
    /// How often its data were compacted; 1 for a block from a head.
    #[serde(default)]
    pub level: u32,
    /// The blocks of level 1 that went into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "ulids")]
    pub sources: Vec<Ulid>,
    /// Whether it has no samples and may go.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deletable: bool,
    /// The blocks that it was made from directly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<BlockDesc>,
    /// Whether a compaction with it failed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub failed: bool,
    /// Remarks, such as `from-out-of-order`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A block by name and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockDesc {
    /// Its name.
    #[serde(serialize_with = "write_ulid", deserialize_with = "read_ulid")]
    pub ulid: Ulid,
    /// Its first time, unix milliseconds.
    #[serde(rename = "minTime")]
    pub min_ms: i64,
    /// The first time behind it, unix milliseconds.
    #[serde(rename = "maxTime")]
    pub end_ms: i64,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl BlockMeta {
    /// The meta of a block that is cut from a head: level 1, its own source. The writer fills in
    /// the rest.
    pub fn new(ulid: Ulid, min_ms: i64, end_ms: i64) -> Self {
        BlockMeta {
            ulid,
            min_ms,
            end_ms,
            stats: BlockStats::default(),
            compaction: Compaction {
                level: 1,
                sources: vec![ulid],
                ..Compaction::default()
            },
            version: VERSION,
            other: Map::new(),
        }
    }

    /// Reads `meta.json`; `name` stands for it in errors.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is no JSON of this form or of another version.
    pub fn decode(name: &str, json: &[u8]) -> Result<Self, Error> {
        let meta: BlockMeta = serde_json::from_slice(json).map_err(|e| {
            Error::corrupt_at(name, offset_of(json, e.line(), e.column()), e.to_string())
        })?;
        if meta.version != VERSION {
            return Err(Error::corrupt_at(
                name,
                0,
                format!("version is {}", meta.version),
            ));
        }
        Ok(meta)
    }

    /// The text of `meta.json`, indented with tabs.
    pub fn encode(&self) -> String {
        let mut out = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, tabs);
        self.serialize(&mut serializer)
            .expect("all keys are texts and a Vec takes all bytes");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    /// The times of the block.
    pub fn range(&self) -> TimeRange {
        TimeRange::new(self.min_ms, self.end_ms.saturating_sub(1))
    }

    /// Whether some time of the block belongs to `range`.
    pub fn overlaps(&self, range: TimeRange) -> bool {
        self.min_ms <= range.max_ms && range.min_ms < self.end_ms
    }
}

/// The offset of a line and column, both counted from 1.
fn offset_of(text: &[u8], line: usize, column: usize) -> u64 {
    let before = text.split_inclusive(|byte| *byte == b'\n');
    let lines: usize = before.take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (lines + column.saturating_sub(1)) as u64
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn write_ulid<S: Serializer>(ulid: &Ulid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(ulid)
}

fn read_ulid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ulid, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ulid::from_string(&text)
        .map_err(|e| serde::de::Error::custom(format_args!("{text:?} is no ULID: {e}")))
}

/// Lists of ULIDs, as texts.
mod ulids {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Ulid, read_ulid, write_ulid};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Text(#[serde(serialize_with = "write_ulid", deserialize_with = "read_ulid")] Ulid);

    pub(super) fn serialize<S: Serializer>(ulids: &[Ulid], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(ulids.iter().map(|ulid| Text(*ulid)))
    }

    /// A list that is `null`, as Go writes an empty one, has no entries.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Ulid>, D::Error> {
        let texts = Option::<Vec<Text>>::deserialize(from)?;
        Ok(texts
            .unwrap_or_default()
            .into_iter()
            .map(|text| text.0)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = r#"{
	"ulid": "01M81ZQE8YAM9Z23KC71TDJHDJ",
	"minTime": 1700006402071,
	"maxTime": 1700017199197,
	"stats": {
		"numSamples": 859281,
		"numSeries": 1975,
		"numSurprises": 1
	},
	"compaction": {
		"level": 2,
		"sources": [
			"01M81ZQE8YAM9Z23KC71TDJHDJ"
		],
		"parents": [
			{
				"ulid": "01M81ZQE8YAM9Z23KC71TDJHDJ",
				"minTime": 1,
				"maxTime": 2,
				"mood": "good"
			}
		],
		"hints": [
			"from-out-of-order"
		],
		"weather": "fine"
	},
	"version": 1,
	"thanos": {
		"labels": {},
		"list": [],
		"none": null
	}
}"#;

    #[test]
    fn unknown_fields_survive() {
        let meta = BlockMeta::decode("meta.json", META.as_bytes()).unwrap();
        assert_eq!(meta.stats.num_series, 1975);
        assert_eq!(meta.encode(), META);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |from: &str, to: &str, expected: &str| {
            let json = META.replacen(from, to, 1);
            let error = BlockMeta::decode("meta.json", json.as_bytes()).unwrap_err();
            let error = error.to_string();
            assert!(
                error.starts_with(&format!("corrupt meta.json: {expected}")),
                "{error}"
            );
        };
        check(
            "01M81",
            "U1M81",
            "\"U1M81ZQE8YAM9Z23KC71TDJHDJ\" is no ULID",
        );
        check("\"version\": 1", "\"version\": 7", "version is 7");
        check("{", "[", "invalid");
        check("\"minTime\"", "\"mintime\"", "missing field `minTime`");
    }

    #[test]
    fn the_last_time_does_not_belong_to_it() {
        let meta = BlockMeta::new(Ulid::nil(), 10, 20);
        let check = |min_ms, max_ms| meta.overlaps(TimeRange::new(min_ms, max_ms));
        assert!(check(0, 10) && check(19, 30) && check(0, 30) && check(12, 13));
        assert!(!check(0, 9) && !check(20, 30));
    }
}
