//! What is kept in memory of a block: [`Summary`], what filters and readers ask for all the time. The
//! whole of `meta.json` is text, held or in the file of known blocks (`cache.rs`), and is parsed when
//! somebody wants it: parsed metas of 10,000 blocks take some 50 MB, and those of compacted blocks
//! more, since they name all their files and all blocks that they were made from.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use hashbrown::HashSet;
use isobar_model::{Labels, TimeRange};
use parking_lot::Mutex;

use super::meta::{Meta, Source};
use super::paths::{self, BlockId};

/// What is asked of a block again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub id: BlockId,
    /// The first time that belongs to it, unix milliseconds.
    pub min_ms: i64,
    /// The first time behind it, unix milliseconds.
    pub end_ms: i64,
    /// The distance of its samples in milliseconds; 0 for raw ones.
    pub resolution_ms: i64,
    /// The external labels. Blocks that one fetcher read share the text.
    pub labels: Labels,
    /// The blocks of level 1 that went into it.
    pub sources: Box<[BlockId]>,
    /// Whether a compactor wrote it, or repaired it.
    pub by_compactor: bool,
    /// When it was uploaded, unix milliseconds.
    pub uploaded_ms: i64,
    /// The length of its index in bytes; blocks that were uploaded by old versions do not say.
    pub index_bytes: Option<u64>,
    /// The length of the longest chunk in bytes, where that is known.
    pub chunk_bytes_max: Option<u32>,
    /// How many series it holds; 0 when nobody says.
    pub series: u64,
    /// How many chunks.
    pub chunks: u64,
    /// How many samples.
    pub samples: u64,
    /// The bytes of its chunk segments; 0 when nobody says.
    pub segment_bytes: u64,
}

impl Summary {
    /// What `meta` says.
    pub fn of(meta: &Meta) -> Self {
        let source = meta.thanos.source.as_str();
        let in_segments = |file: &&super::meta::File| {
            let name = file.rel_path.strip_prefix(paths::CHUNKS);
            name.is_some_and(|name| name.starts_with('/'))
        };
        let segments = meta.thanos.files.iter().filter(in_segments);
        let chunk_bytes_max = u32::try_from(meta.thanos.index_stats.chunk_max_size).ok();
        Summary {
            id: meta.id(),
            min_ms: meta.block.min_ms,
            end_ms: meta.block.end_ms,
            resolution_ms: meta.thanos.downsample.resolution_ms,
            labels: Labels::from_pairs(&meta.thanos.labels),
            sources: meta.block.compaction.sources.as_slice().into(),
            by_compactor: [
                Source::BUCKET_REPAIR,
                Source::COMPACTOR,
                Source::COMPACTOR_REPAIR,
            ]
            .contains(&source),
            uploaded_ms: meta.uploaded_ms(),
            index_bytes: meta.file_bytes(paths::INDEX),
            chunk_bytes_max: chunk_bytes_max.filter(|bytes| *bytes > 0),
            series: meta.block.stats.num_series,
            chunks: meta.block.stats.num_chunks,
            samples: meta.block.stats.num_samples,
            segment_bytes: segments.map(|file| file.size_bytes).sum(),
        }
    }

    /// The times of the block.
    pub fn range(&self) -> TimeRange {
        TimeRange::new(self.min_ms, self.end_ms.saturating_sub(1))
    }
}

/// A `meta.json` that was read: what matters of it, and where the whole text is.
#[derive(Debug)]
pub struct KnownMeta {
    summary: Summary,
    text: Mutex<Text>,
}

#[derive(Debug, Clone)]
enum Text {
    Held(Arc<[u8]>),
    /// In a file that stays readable after another one took its place.
    Stored {
        file: Arc<File>,
        at: u64,
        len: u32,
    },
}

impl KnownMeta {
    /// A meta whose text is held in memory.
    pub fn held(meta: &Meta, json: &[u8]) -> Self {
        KnownMeta {
            summary: Summary::of(meta),
            text: Mutex::new(Text::Held(json.into())),
        }
    }

    /// A meta whose text lies in `file`, from `at` on.
    pub(super) fn stored(summary: Summary, file: &Arc<File>, at: u64, len: u32) -> Self {
        let file = Arc::clone(file);
        KnownMeta {
            summary,
            text: Mutex::new(Text::Stored { file, at, len }),
        }
    }

    /// The text was written to `file`, too, and need not be held any more.
    pub(super) fn is_stored(&self, file: &Arc<File>, at: u64, len: u32) {
        let file = Arc::clone(file);
        *self.text.lock() = Text::Stored { file, at, len };
    }

    /// Makes blocks with the same external labels share the text.
    pub(super) fn sharing(mut self, sets: &LabelSets) -> Self {
        self.summary.labels = sets.share(&self.summary.labels);
        self
    }

    /// The text, as it was read. May wait for the disk.
    ///
    /// # Errors
    /// When the file of known blocks cannot be read.
    pub fn json(&self) -> io::Result<Vec<u8>> {
        let text = self.text.lock().clone();
        match text {
            Text::Held(json) => Ok(json.to_vec()),
            Text::Stored { file, at, len } => {
                let mut json = vec![0; len as usize];
                file.read_exact_at(&mut json, at)?;
                Ok(json)
            }
        }
    }

    /// All of `meta.json`. May wait for the disk.
    ///
    /// # Errors
    /// When the file of known blocks cannot be read, or was damaged since.
    pub fn whole(&self) -> io::Result<Meta> {
        let name = paths::meta(self.id);
        let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
        Meta::decode(name.as_ref(), &self.json()?).map_err(invalid)
    }
}

impl From<&Meta> for KnownMeta {
    fn from(meta: &Meta) -> Self {
        KnownMeta::held(meta, &meta.encode())
    }
}

impl Deref for KnownMeta {
    type Target = Summary;

    fn deref(&self) -> &Summary {
        &self.summary
    }
}

/// Sets of external labels, each once.
#[derive(Debug, Default)]
pub(super) struct LabelSets(Mutex<HashSet<Labels>>);

impl LabelSets {
    /// Those of some blocks.
    pub(super) fn of<'a>(summaries: impl Iterator<Item = &'a Summary>) -> Self {
        LabelSets(Mutex::new(summaries.map(|it| it.labels.clone()).collect()))
    }

    fn share(&self, labels: &Labels) -> Labels {
        let mut sets = self.0.lock();
        sets.get_or_insert_with(labels, Labels::clone).clone()
    }
}
