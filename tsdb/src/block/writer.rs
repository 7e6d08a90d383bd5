//! Writes a block under a temporary name and gives it its own when all is on disk.

use std::path::PathBuf;

use isobar_model::Labels;

use super::meta::BlockStats;
use super::{BlockMeta, CHUNKS_DIR, INDEX_FILE, META_FILE, TOMBSTONES_FILE};
use crate::Error;
use crate::chunks::segment::SEGMENT_BYTES_MAX;
use crate::chunks::{Chunk, ChunkRef, Encoding, SegmentWriter};
use crate::db::files;
use crate::index::{ChunkMeta, IndexWriter};
use crate::merge::{SeriesChunks, without_overlap};
use crate::pace::breathe;
use crate::tombstones::Tombstones;

/// What a directory is called behind the ULID while its block is being written, as in Prometheus.
/// Such a directory that is found at start can be deleted.
pub const TEMPORARY_SUFFIX: &str = ".tmp-for-creation";

/// Writes one block. The same series give the same bytes, and the index is the one that
/// Prometheus would write. Dropped before [`BlockWriter::finish`], it leaves nothing behind.
pub struct BlockWriter {
    parent: PathBuf,
    temporary: TemporaryDir,
    meta: BlockMeta,
    index: IndexWriter,
    chunks: SegmentWriter,
    refs: Vec<ChunkRef>,
    metas: Vec<ChunkMeta>,
}

impl BlockWriter {
    /// Begins the block that `meta` describes in the directory `parent`. `symbols` are all label
    /// names and values of the series to come, and possibly more, sorted by bytes, each once.
    ///
    /// # Errors
    /// When files cannot be created, or the symbols are not sorted.
    pub fn create<S: AsRef<str>>(
        parent: impl Into<PathBuf>,
        meta: BlockMeta,
        symbols: impl IntoIterator<Item = Result<S, Error>>,
    ) -> Result<Self, Error> {
        let parent = parent.into();
        let dir = parent.join(format!("{}{TEMPORARY_SUFFIX}", meta.ulid));
        if dir.exists() {
            files::remove_dir(&dir)?;
        }
        files::create_dir(&dir)?;
        let temporary = TemporaryDir(dir);
        let index = IndexWriter::create(temporary.0.join(INDEX_FILE), symbols)?;
        let chunks = SegmentWriter::create(temporary.0.join(CHUNKS_DIR), SEGMENT_BYTES_MAX)?;
        Ok(BlockWriter {
            parent,
            temporary,
            meta,
            index,
            chunks,
            refs: Vec::new(),
            metas: Vec::new(),
        })
    }

    /// Adds a series with chunks in time order and without overlap. Series come in label order; a
    /// series without chunks is left out.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when an order is broken, and when files cannot be written.
    pub fn add(&mut self, labels: &Labels, chunks: &[Chunk]) -> Result<(), Error> {
        if chunks.is_empty() {
            return Ok(());
        }
        breathe();
        self.refs.clear();
        self.chunks.write(chunks, &mut self.refs)?;
        self.metas.clear();
        self.metas.extend(
            chunks
                .iter()
                .zip(&self.refs)
                .map(|(chunk, reference)| ChunkMeta {
                    reference: *reference,
                    min_ms: chunk.min_ms,
                    max_ms: chunk.max_ms,
                }),
        );
        self.index.add(labels, &self.metas)?;
        self.count(chunks)
    }

    /// Adds all series, resolving chunks that overlap.
    ///
    /// # Errors
    /// Those of the series, and as [`BlockWriter::add`].
    pub fn add_all(
        &mut self,
        series: impl IntoIterator<Item = Result<SeriesChunks, Error>>,
    ) -> Result<(), Error> {
        for series in series {
            let SeriesChunks { labels, chunks, .. } = series?;
            self.add(&labels, &without_overlap(chunks)?)?;
        }
        Ok(())
    }

    /// Says how many samples the downsampled chunks stand for that were added: they are not counted.
    pub(crate) fn set_sample_counts(&mut self, stats: &BlockStats) {
        self.meta.stats.num_samples = stats.num_samples;
        self.meta.stats.num_float_samples = stats.num_float_samples;
        self.meta.stats.num_histogram_samples = stats.num_histogram_samples;
    }

    /// Adds a file that others do not look at.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn add_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        files::write(&self.temporary.0.join(name), bytes)
    }

    /// Writes all to disk and gives the block its name. Nothing is written when there were no
    /// series.
    ///
    /// # Errors
    /// When files cannot be written, synced or renamed.
    pub fn finish(self) -> Result<Option<BlockMeta>, Error> {
        let BlockWriter {
            parent,
            temporary,
            meta,
            index,
            chunks,
            ..
        } = self;
        if meta.stats.num_series == 0 {
            return Ok(None);
        }
        let dir = &temporary.0;
        chunks.finish()?;
        index.finish()?;
        files::write(&dir.join(TOMBSTONES_FILE), &Tombstones::default().encode())?;
        files::write(&dir.join(META_FILE), meta.encode().as_bytes())?;
        files::sync_dir(&dir.join(CHUNKS_DIR))?;
        files::sync_dir(dir)?;
        let path = parent.join(meta.ulid.to_string());
        files::rename(dir, &path)?;
        Ok(Some(meta))
    }

    fn count(&mut self, chunks: &[Chunk]) -> Result<(), Error> {
        let stats = &mut self.meta.stats;
        stats.num_series += 1;
        stats.num_chunks += chunks.len() as u64;
        for chunk in chunks {
            // What an aggregate chunk stands for is counted by who makes it.
            if chunk.encoding == Encoding::Aggregate {
                continue;
            }
            let samples = u64::from(chunk.sample_count()?);
            stats.num_samples += samples;
            match chunk.encoding {
                Encoding::Xor | Encoding::Xor2 => stats.num_float_samples += samples,
                _ => stats.num_histogram_samples += samples,
            }
        }
        Ok(())
    }
}

/// A directory that goes when it was not renamed.
struct TemporaryDir(PathBuf);

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // Nobody is left to tell. What stays is deleted at the next start by its name.
        let _ = files::remove_dir(&self.0);
    }
}
