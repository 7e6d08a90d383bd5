//! Marks of a block in a bucket: small files beside its `meta.json` that say what is going to be done
//! with it, or must not be.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use ulid::Ulid;

use super::paths::{DELETION_MARK, NO_COMPACT_MARK, NO_DOWNSAMPLE_MARK};
use super::{BlockId, json, paths};

const VERSION: u32 = 1;

/// Why a mark cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// It is no JSON of this form. The upload of it may not have ended.
    #[error("{name}: {source}")]
    Corrupt {
        /// Which file.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It is of a version of the format that is not known.
    #[error("{name}: version is {version}")]
    Version {
        /// Which file.
        name: String,
        /// The version that it says.
        version: u32,
    },
}

/// A kind of mark.
pub trait Mark: Serialize + for<'de> Deserialize<'de> {
    /// The name of its file in the directory of a block.
    const FILE: &str;

    /// The version of the format that the file says.
    fn version(&self) -> u32;

    /// Reads a mark; `name` stands for it in errors.
    ///
    /// # Errors
    /// When it is no JSON of this form, or of another version.
    fn decode(name: &str, json: &[u8]) -> Result<Self, MarkError> {
        let mark: Self = serde_json::from_slice(json).map_err(|source| MarkError::Corrupt {
            name: name.to_owned(),
            source,
        })?;
        match mark.version() {
            VERSION => Ok(mark),
            version => Err(MarkError::Version {
                name: name.to_owned(),
                version,
            }),
        }
    }

    /// The text of the file.
    fn encode(&self) -> Vec<u8> {
        json::encode(self)
    }
}

/// Puts a mark on a block. `false` when it is there already, which then stays as it is.
///
/// # Errors
/// When the bucket does not take it, or has nothing of that block: a mark alone would look like a block that is
/// not there as a whole.
pub async fn put<M: Mark>(
    bucket: &Arc<dyn ObjectStore>,
    block: BlockId,
    mark: &M,
) -> Result<bool, object_store::Error> {
    let path = paths::file(block, M::FILE);
    match bucket.head(&path).await {
        Ok(_) => return Ok(false),
        Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let directory = paths::directory(block);
    if bucket.list(Some(&directory)).try_next().await?.is_none() {
        return Err(object_store::Error::NotFound {
            path: directory.to_string(),
            source: "nothing of this block is in the bucket".into(),
        });
    }
    bucket.put(&path, PutPayload::from(mark.encode())).await?;
    Ok(true)
}

/// The block is going to be deleted, some time after it was marked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeletionMark {
    /// The block.
    pub id: Ulid,
    /// The version of the format: 1.
    pub version: u32,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// When it was marked, unix seconds.
    #[serde(rename = "deletion_time")]
    pub time_s: i64,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The block is not to be compacted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoCompactMark {
    /// The block.
    pub id: Ulid,
    /// The version of the format: 1.
    pub version: u32,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// When it was marked, unix seconds.
    #[serde(rename = "no_compact_time")]
    pub time_s: i64,
    /// Why, as one of the constants of this type.
    pub reason: String,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The block is not to be downsampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoDownsampleMark {
    /// The block.
    pub id: Ulid,
    /// The version of the format: 1.
    pub version: u32,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// When it was marked, unix seconds.
    #[serde(rename = "no_downsample_time")]
    pub time_s: i64,
    /// Why, as one of the constants of this type.
    pub reason: String,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Mark for DeletionMark {
    const FILE: &str = DELETION_MARK;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Mark for NoCompactMark {
    const FILE: &str = NO_COMPACT_MARK;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Mark for NoDownsampleMark {
    const FILE: &str = NO_DOWNSAMPLE_MARK;

    fn version(&self) -> u32 {
        self.version
    }
}

impl DeletionMark {
    /// The mark of a block from `time_s` (unix seconds) on.
    pub fn new(block: BlockId, time_s: i64, details: &str) -> Self {
        DeletionMark {
            id: block,
            version: VERSION,
            details: details.to_owned(),
            time_s,
            other: Map::new(),
        }
    }
}

impl NoCompactMark {
    /// Someone wanted it so.
    pub const MANUAL: &str = "manual";
    /// The index of what would come out is too long.
    pub const INDEX_SIZE_EXCEEDING: &str = "index-size-exceeding";
    /// The index names chunks of a series out of order.
    pub const OUT_OF_ORDER_CHUNKS: &str = "block-index-out-of-order-chunk";
    /// It is downsampled and overlaps with another one.
    pub const DOWNSAMPLE_VERTICAL_COMPACTION: &str = "downsample-vertical-compaction";

    /// The mark of a block from `time_s` (unix seconds) on.
    pub fn new(block: BlockId, time_s: i64, reason: &str, details: &str) -> Self {
        NoCompactMark {
            id: block,
            version: VERSION,
            details: details.to_owned(),
            time_s,
            reason: reason.to_owned(),
            other: Map::new(),
        }
    }
}

impl NoDownsampleMark {
    /// Someone wanted it so.
    pub const MANUAL: &str = "manual";

    /// The mark of a block from `time_s` (unix seconds) on.
    pub fn new(block: BlockId, time_s: i64, reason: &str, details: &str) -> Self {
        NoDownsampleMark {
            id: block,
            version: VERSION,
            details: details.to_owned(),
            time_s,
            reason: reason.to_owned(),
            other: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01M81ZQE8YAM9Z23KC71TDJHDJ";

    fn check<M: Mark>(mark: &M, expected: &str) {
        let text = String::from_utf8(mark.encode()).unwrap();
        assert_eq!(text, expected.replace("ID", ID));
        let again = M::decode(M::FILE, text.as_bytes()).unwrap();
        assert_eq!(again.encode(), mark.encode());
    }

    #[test]
    fn marks_are_written_as_thanos_writes_them() {
        let block = Ulid::from_string(ID).unwrap();
        check(
            &DeletionMark::new(block, 1_700_000_000, "source of a > b"),
            r#"{"id":"ID","version":1,"details":"source of a \u003e b","deletion_time":1700000000}"#,
        );
        check(
            &NoCompactMark::new(block, 5, NoCompactMark::MANUAL, ""),
            r#"{"id":"ID","version":1,"no_compact_time":5,"reason":"manual"}"#,
        );
        check(
            &NoDownsampleMark::new(block, 5, NoDownsampleMark::MANUAL, "x"),
            r#"{"id":"ID","version":1,"details":"x","no_downsample_time":5,"reason":"manual"}"#,
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let read = |json: &str| {
            let json = json.replace("ID", ID);
            DeletionMark::decode("deletion-mark.json", json.as_bytes())
        };
        let error = read(r#"{"id":"ID","version":2,"deletion_time":1}"#).unwrap_err();
        assert!(matches!(error, MarkError::Version { version: 2, .. }));
        for json in [
            "",
            "{",
            "[]",
            r#"{"version":1}"#,
            r#"{"id":"7","version":1,"deletion_time":1}"#,
        ] {
            let error = read(json).unwrap_err();
            assert!(matches!(error, MarkError::Corrupt { .. }), "{json}");
        }
        let kept = read(r#"{"id":"ID","version":1,"deletion_time":1,"mood":7}"#).unwrap();
        assert_eq!(kept.other["mood"], 7);
    }
}
