//! `meta.json` of a block in a bucket: what Prometheus says of a block, and the section `thanos`.
//! Fields that are not known here are kept, at every level. What is written is byte for byte what
//! Thanos writes: tabs, Go's order of the fields, and Go's escapes in texts.

use std::collections::BTreeMap;

use isobar_tsdb::block::meta::BlockMeta;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use ulid::Ulid;

use super::json;
use super::upload_time::UploadTime;

const VERSION: u32 = 1;

/// Key of the section in `meta.json`.
const SECTION: &str = "thanos";

/// Why a `meta.json` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// It is no JSON of this form. The upload of it may not have ended.
    #[error("{0}")]
    Corrupt(String),
    /// It is of a version of the format that is not known.
    #[error("{name}: section thanos is of version {version}")]
    Version {
        /// Which file.
        name: String,
        /// The version that it says.
        version: u32,
    },
}

/// The content of `meta.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    /// What Prometheus knows of a block: name, times, statistics, what it was made from.
    pub block: BlockMeta,
    /// What Thanos adds to that. It is empty for a block that Prometheus or a head wrote.
    pub thanos: Thanos,
}

/// The section `thanos`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Thanos {
    /// The version of the section: 1, or 0 in old blocks, which means the same.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub version: u32,
    /// The external labels: who wrote the block. They belong to every series of it.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How its samples were thinned out.
    #[serde(default)]
    pub downsample: Downsample,
    /// Who uploaded it.
    #[serde(default)]
    pub source: Source,
    /// The names of the chunk segments, in order. Replaced by `files`.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub segment_files: Vec<String>,
    /// All files of the block in the order of their names.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub files: Vec<File>,
    /// How the block was rewritten, in order.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub rewrites: Vec<Rewrite>,
    /// What a reader may expect of the index.
    #[serde(default)]
    pub index_stats: IndexStats,
    /// Whatever else someone wants to say about it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub extensions: Value,
    /// When `meta.json` was uploaded.
    #[serde(default)]
    pub upload_time: UploadTime,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How the samples of a block were thinned out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downsample {
    /// The distance of samples in milliseconds: 0 for raw samples, 300 000 or 3 600 000.
    #[serde(rename = "resolution")]
    pub resolution_ms: i64,
}

/// Who uploaded a block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Source(pub String);

impl Source {
    /// A sidecar beside a Prometheus.
    pub const SIDECAR: &str = "sidecar";
    /// A component that takes remote writes.
    pub const RECEIVE: &str = "receive";
    /// A compactor, by compaction or downsampling.
    pub const COMPACTOR: &str = "compactor";
    /// A compactor that repaired a block.
    pub const COMPACTOR_REPAIR: &str = "compactor.repair";
    /// A component that evaluates rules.
    pub const RULER: &str = "ruler";
    /// `tools bucket verify --repair`
    pub const BUCKET_REPAIR: &str = "bucket.repair";
    /// `tools bucket rewrite`
    pub const BUCKET_REWRITE: &str = "bucket.rewrite";
    /// `tools bucket upload-blocks`
    pub const BUCKET_UPLOAD: &str = "bucket.upload";
    /// A test.
    pub const TEST: &str = "test";

    /// A source by its name.
    pub fn new(name: &str) -> Self {
        Source(name.to_owned())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A file of a block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Its name, relative to the directory of the block.
    pub rel_path: String,
    /// Its length in bytes. `meta.json` does not know its own.
    #[serde(default, skip_serializing_if = "is_zero_bytes")]
    pub size_bytes: u64,
    /// A hash of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<FileHash>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A hash of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// The function: `SHA256`.
    #[serde(rename = "hashFunc")]
    pub func: String,
    /// The hash, in lower-case hexadecimal digits.
    pub value: String,
}

/// One rewrite of a block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The blocks that it was made from.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub sources: Vec<String>,
    /// Requests to delete samples that were carried out, in order.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub deletions_applied: Vec<Value>,
    /// Rules for labels that were carried out, in order.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub relabels_applied: Vec<Value>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a reader may expect of the index; 0 is unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IndexStats {
    /// The length of the longest entry of a series, in bytes.
    #[serde(default, skip_serializing_if = "is_zero_bytes")]
    pub series_max_size: u64,
    /// The length of the longest chunk, in bytes.
    #[serde(default, skip_serializing_if = "is_zero_bytes")]
    pub chunk_max_size: u64,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Meta {
    /// The meta of a block as its directory on a local disk has it, with the section `thanos`
    /// where there is one.
    ///
    /// # Errors
    /// When the section is there and cannot be read.
    pub fn from_block(name: &str, mut block: BlockMeta) -> Result<Self, MetaError> {
        let corrupt = |e: serde_json::Error| {
            MetaError::Corrupt(format!("corrupt {name}: section {SECTION}: {e}"))
        };
        let thanos = match block.other.remove(SECTION) {
            None | Some(Value::Null) => Thanos::default(),
            Some(section) => Thanos::deserialize(section).map_err(corrupt)?,
        };
        if thanos.version > VERSION {
            return Err(MetaError::Version {
                name: name.to_owned(),
                version: thanos.version,
            });
        }
        Ok(Meta { block, thanos })
    }

    /// Reads `meta.json`; `name` stands for it in errors.
    ///
    /// # Errors
    /// When it is no JSON of this form, or of another version.
    pub fn decode(name: &str, json: &[u8]) -> Result<Self, MetaError> {
        let block = BlockMeta::decode(name, json).map_err(|e| MetaError::Corrupt(e.to_string()))?;
        Meta::from_block(name, block)
    }

    /// The text of `meta.json`, indented with tabs and with a line feed at its end.
    pub fn encode(&self) -> Vec<u8> {
        json::encode_indented(self)
    }

    /// The name of the block.
    pub fn id(&self) -> Ulid {
        self.block.ulid
    }

    /// The length of one of its files, by its name in the block's directory. Blocks that were
    /// uploaded by old versions do not say.
    pub fn file_bytes(&self, rel_path: &str) -> Option<u64> {
        let file = self.thanos.files.iter().find(|f| f.rel_path == rel_path)?;
        (file.size_bytes > 0).then_some(file.size_bytes)
    }

    /// When it was uploaded, unix milliseconds. A block that does not say is as old as its name.
    pub fn uploaded_ms(&self) -> i64 {
        let named = i64::try_from(self.block.ulid.timestamp_ms()).unwrap_or(i64::MAX);
        self.thanos.upload_time.unix_ms().unwrap_or(named)
    }
}

impl Serialize for Meta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Both<'a> {
            #[serde(flatten)]
            block: &'a BlockMeta,
            thanos: &'a Thanos,
        }
        let (block, thanos) = (&self.block, &self.thanos);
        Both { block, thanos }.serialize(serializer)
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_zero_bytes(number: &u64) -> bool {
    *number == 0
}

/// Go writes `null` for a list or map that was never made.
fn null_is_empty<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const HEAD: &str = r#"{
	"ulid": "01M81ZQE8YAM9Z23KC71TDJHDJ",
	"minTime": 1,
	"maxTime": 2,
	"stats": {},
	"compaction": {
		"level": 1,
		"sources": [
			"01M81ZQE8YAM9Z23KC71TDJHDJ"
		]
	},
	"version": 1"#;

    fn round_trip(section: &str) -> String {
        let json = format!("{HEAD},\n\t\"thanos\": {section}\n}}\n");
        let meta = Meta::decode("meta.json", json.as_bytes()).unwrap();
        let text = String::from_utf8(meta.encode()).unwrap();
        let (head, section) = text.split_once(",\n\t\"thanos\": ").unwrap();
        assert_eq!(head, HEAD);
        section.strip_suffix("\n}\n").unwrap().to_owned()
    }

    #[test]
    fn every_field_survives() {
        let section = r#"{
		"version": 1,
		"labels": {
			"a": "\u003cb\u003e \u0026 \u2028\u2029 \"é\"",
			"z": "1"
		},
		"downsample": {
			"resolution": 300000
		},
		"source": "bucket.rewrite",
		"segment_files": [
			"000001"
		],
		"files": [
			{
				"rel_path": "chunks/000001",
				"size_bytes": 12,
				"hash": {
					"hashFunc": "SHA256",
					"value": "ab"
				}
			},
			{
				"rel_path": "meta.json"
			}
		],
		"rewrites": [
			{
				"sources": [
					"01M81ZQE8YAM9Z23KC71TDJHDJ"
				],
				"deletions_applied": [
					{
						"intervals": [
							{
								"Maxt": 2,
								"Mint": 1
							}
						],
						"matchers": []
					}
				],
				"relabels_applied": [
					{}
				]
			}
		],
		"index_stats": {
			"series_max_size": 176,
			"chunk_max_size": 20711
		},
		"extensions": {
			"parquet_migrated": true
		},
		"upload_time": "2026-11-22T15:53:34.97336593Z",
		"weather": "fine"
	}"#;
        assert_eq!(round_trip(section), section);
    }

    #[test]
    fn what_is_missing_is_written_as_go_writes_it() {
        let expected = r#"{
		"labels": {},
		"downsample": {
			"resolution": 0
		},
		"source": "",
		"index_stats": {},
		"upload_time": "0001-01-01T00:00:00Z"
	}"#;
        for section in [
            "null",
            "{}",
            r#"{"labels":null,"files":null,"segment_files":null,"rewrites":null,"extensions":null}"#,
        ] {
            assert_eq!(round_trip(section), expected, "{section}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let check = |section: &str, expected: &str| {
            let json = format!("{HEAD}, \"thanos\": {section}}}");
            let error = Meta::decode("x/meta.json", json.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        };
        check("7", "corrupt x/meta.json: section thanos: invalid type");
        check(
            r#"{"labels": [1]}"#,
            "corrupt x/meta.json: section thanos: invalid",
        );
        check(
            r#"{"upload_time": "x"}"#,
            "corrupt x/meta.json: section thanos: ",
        );
        check(
            r#"{"version": 2}"#,
            "x/meta.json: section thanos is of version 2",
        );
        check(r#"{"#, "corrupt x/meta.json: ");
    }

    #[test]
    fn a_block_that_does_not_say_when_it_was_uploaded_is_as_old_as_its_name() {
        let meta = Meta::decode("meta.json", format!("{HEAD}}}").as_bytes()).unwrap();
        assert_eq!(meta.uploaded_ms(), meta.id().timestamp_ms() as i64);
        assert_eq!(meta.file_bytes("index"), None);
    }

    #[test]
    fn what_thanos_wrote_is_written_again() {
        let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/contract");
        let mut read = 0;
        for bucket in ["life", "ha"] {
            let Ok(blocks) = std::fs::read_dir(Path::new(contract).join(bucket)) else {
                println!("skipped: {contract}/{bucket} not found");
                return;
            };
            for block in blocks {
                let path = block.unwrap().path().join("meta.json");
                let name = path.display().to_string();
                let json = std::fs::read(&path).unwrap();
                let meta = Meta::decode(&name, &json).unwrap();
                assert_eq!(meta.thanos.other.len(), 0);
                assert_eq!(
                    String::from_utf8(meta.encode()).unwrap(),
                    String::from_utf8(json).unwrap(),
                    "{name}"
                );
                read += 1;
            }
        }
        assert!(read > 10, "{read} metas read");
    }
}
