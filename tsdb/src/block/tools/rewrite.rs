//! Copies a block through the writer: what was deleted is left out, and, if asked for, some series or
//! times.

use std::path::Path;
use std::sync::Arc;

use isobar_model::{Matcher, TimeRange};
use serde_json::{Map, Value};
use ulid::Ulid;

use crate::Error;
use crate::block::meta::BlockDesc;
use crate::block::{BlockMeta, BlockReader, BlockWriter};
use crate::chunks::Encoding;
use crate::exemplars::file as exemplars;
use crate::merge::{SeriesChunks, without, without_overlap};

/// What a copy holds. By default all that the block holds.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Series that do not match are left out.
    pub matchers: Vec<Matcher>,
    /// Samples at other times are left out.
    pub range: TimeRange,
}

impl Default for Rewrite {
    fn default() -> Self {
        Rewrite {
            matchers: Vec::new(),
            range: TimeRange::ALL,
        }
    }
}

/// Writes the content of a block, without what was deleted, as the block `ulid` in the directory
/// `parent`. As with Prometheus, the copy is a source of its own of level 1 and names the block as its
/// parent; it begins and ends where the block does, or where the range asked for does. Nothing is
/// written when no series is left.
///
/// # Errors
/// [`Error::Corrupt`] when the block cannot be read, [`Error::Unsupported`] when samples are left out of
/// downsampled chunks, and when the copy cannot be written.
pub fn rewrite(
    block: &Arc<BlockReader>,
    parent: &Path,
    ulid: Ulid,
    what: &Rewrite,
) -> Result<Option<BlockMeta>, Error> {
    let old = block.meta();
    let begin_ms = old.min_ms.max(what.range.min_ms);
    let end_ms = old.end_ms.min(what.range.max_ms.saturating_add(1));
    let mut meta = BlockMeta::new(ulid, begin_ms, end_ms.max(begin_ms));
    meta.compaction.parents = vec![BlockDesc {
        ulid: old.ulid,
        min_ms: old.min_ms,
        end_ms: old.end_ms,
        other: Map::new(),
    }];
    meta.compaction.hints = old.compaction.hints.clone();
    meta.other = carried(&old.other);
    let mut writer = BlockWriter::create(parent, meta, block.index().symbols())?;
    if let Some(bytes) = exemplars::part(block.dir(), &what.matchers, what.range)? {
        writer.add_file(exemplars::EXEMPLARS_FILE, &bytes)?;
    }
    let outside = outside(what.range);
    let mut aggregates = false;
    for series in block.select(&what.matchers, what.range)? {
        let SeriesChunks { labels, chunks, .. } = series?;
        aggregates |= chunks.iter().any(|it| it.encoding == Encoding::Aggregate);
        let mut kept = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            kept.extend(without(&chunk, &outside)?);
        }
        writer.add(&labels, &without_overlap(kept)?)?;
    }
    if aggregates {
        let whole = what.matchers.is_empty() && outside.is_empty() && block.tombstones().is_empty();
        if !whole {
            return Err(Error::Unsupported(format!(
                "{}: parts of a downsampled block cannot be copied: what they stand for is not counted yet",
                block.dir().display()
            )));
        }
        writer.set_sample_counts(&old.stats);
    }
    writer.finish()
}

/// The times that do not belong to a range.
fn outside(range: TimeRange) -> Vec<TimeRange> {
    let before = range
        .min_ms
        .checked_sub(1)
        .map(|max_ms| TimeRange::new(i64::MIN, max_ms));
    let behind = range
        .max_ms
        .checked_add(1)
        .map(|min_ms| TimeRange::new(min_ms, i64::MAX));
    before.into_iter().chain(behind).collect()
}

/// The fields besides Prometheus' own, without those of Thanos that describe the old files.
fn carried(other: &Map<String, Value>) -> Map<String, Value> {
    let mut other = other.clone();
    if let Some(Value::Object(thanos)) = other.get_mut("thanos") {
        for field in ["files", "segment_files", "index_stats", "upload_time"] {
            thanos.remove(field);
        }
    }
    other
}
