//! Reads a block: series by matchers, with the chunks of a range; label names and values.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobar_model::{Labels, Matcher, TimeRange};

use super::series_cache::{Key, SELECT_MAX};
use super::{BlockMeta, CHUNKS_DIR, INDEX_FILE, META_FILE, SeriesCache, TOMBSTONES_FILE};
use crate::Error;
use crate::chunks::{Chunk, SegmentReader};
use crate::db::files;
use crate::index::{ChunkMeta, IndexReader, SeriesEntry, SeriesRef};
use crate::merge::{SeriesChunks, SeriesIter, without};
use crate::mmap::map_file;
use crate::tombstones::Tombstones;

/// A block that is open. Its files are mapped; chunks that it gives keep the map alive, so the
/// directory may be deleted while it is read.
#[derive(Debug)]
pub struct BlockReader {
    dir: PathBuf,
    meta: BlockMeta,
    index: IndexReader,
    chunks: SegmentReader,
    tombstones: Tombstones,
    size_bytes: u64,
    cache: Arc<SeriesCache>,
    /// What the cache calls this block.
    number: u64,
}

impl BlockReader {
    /// Opens the block in `dir` and checks all that is needed to find series. Chunks, postings and
    /// series are checked when they are read.
    ///
    /// # Errors
    /// When a file cannot be read or does not follow its format.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Arc<Self>, Error> {
        Self::open_with(dir, Arc::default())
    }

    /// As [`BlockReader::open`], with a cache that blocks share.
    ///
    /// # Errors
    /// As [`BlockReader::open`].
    pub fn open_with(dir: impl Into<PathBuf>, cache: Arc<SeriesCache>) -> Result<Arc<Self>, Error> {
        let dir = dir.into();
        BlockReader::open_in(&dir, cache).map_err(|e| e.of_block(&dir, None))
    }

    fn open_in(dir: &Path, cache: Arc<SeriesCache>) -> Result<Arc<Self>, Error> {
        let path = dir.join(META_FILE);
        let json = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let meta = BlockMeta::decode(&path.display().to_string(), &json)?;
        let path = dir.join(INDEX_FILE);
        let index = IndexReader::open(path.display().to_string(), map_file(&path)?)?;
        let chunks = SegmentReader::open(&dir.join(CHUNKS_DIR))?;
        let (tombstones, tombstones_bytes) = read_tombstones(dir)?;
        let size_bytes =
            json.len() as u64 + index.size_bytes() + chunks.size_bytes() + tombstones_bytes;
        Ok(Arc::new(BlockReader {
            dir: dir.to_owned(),
            meta,
            index,
            chunks,
            tombstones,
            size_bytes,
            number: cache.next_block(),
            cache,
        }))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it holds and comes from.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// The length of all files in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The index.
    pub fn index(&self) -> &IndexReader {
        &self.index
    }

    /// The segment files.
    pub(crate) fn chunks(&self) -> &SegmentReader {
        &self.chunks
    }

    /// What was deleted.
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// The series that match and have chunks that overlap `range`, in label order, with those
    /// chunks. What was deleted is left out. Chunks are read when the series is reached.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the index cannot be read.
    pub fn select(
        self: &Arc<Self>,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<SeriesIter, Error> {
        if !self.meta.overlaps(range) {
            return Ok(Box::new(std::iter::empty()));
        }
        let series = self.matching(matchers)?;
        Ok(Box::new(Selected::new(self, range, series.into())))
    }

    /// The number of series that match, and at most `some` of them, evenly taken, as
    /// [`BlockReader::select`] gives them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the index cannot be read.
    pub fn select_some(
        self: &Arc<Self>,
        matchers: &[Matcher],
        range: TimeRange,
        some: usize,
    ) -> Result<(usize, SeriesIter), Error> {
        if !self.meta.overlaps(range) {
            return Ok((0, Box::new(std::iter::empty())));
        }
        let series = self.matching(matchers)?;
        let count = series.len();
        let every = count.div_ceil(some.max(1)).max(1);
        let some = series.into_iter().step_by(every).collect();
        Ok((count, Box::new(Selected::new(self, range, some))))
    }

    /// The tombstones with those of a range for the series that match, from their first to their last
    /// sample at most; nothing when no chunk of such a series lies in the range.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the index cannot be read.
    pub(crate) fn tombstones_with(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Option<Tombstones>, Error> {
        if !self.meta.overlaps(range) {
            return Ok(None);
        }
        let mut stones = self.tombstones.clone();
        let mut entry = SeriesEntry::default();
        for series in self.matching(matchers)? {
            let read = self.index.series(series, &mut entry);
            read.map_err(|e| e.of_block(&self.dir, None))?;
            let ends = entry.chunks.first().zip(entry.chunks.last());
            let hit =
                |chunk: &ChunkMeta| TimeRange::new(chunk.min_ms, chunk.max_ms).overlaps(&range);
            if let (Some((first, last)), true) = (ends, entry.chunks.iter().any(hit)) {
                let min_ms = range.min_ms.max(first.min_ms);
                stones.add(
                    series,
                    TimeRange::new(min_ms, range.max_ms.min(last.max_ms)),
                );
            }
        }
        Ok((stones != self.tombstones).then_some(stones))
    }

    /// Replaces the files of the tombstones and of what the block holds. This reader goes on as it was.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write_tombstones(&self, stones: &Tombstones) -> Result<(), Error> {
        let mut meta = self.meta.clone();
        meta.stats.num_tombstones = stones.len() as u64;
        let contents = [
            (TOMBSTONES_FILE, stones.encode()),
            (META_FILE, meta.encode().into_bytes()),
        ];
        for (file, content) in contents {
            let temporary = self.dir.join(format!("{file}.tmp"));
            files::write(&temporary, &content)?;
            files::rename(&temporary, &self.dir.join(file))?;
        }
        Ok(())
    }

    /// The names of all labels of the series that match, sorted; none when the block has no time
    /// in `range`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the index cannot be read.
    pub fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<String>, Error> {
        if !self.meta.overlaps(range) {
            return Ok(Vec::new());
        }
        let names = self.index.matching_label_names(matchers);
        names.map_err(|e| e.of_block(&self.dir, None))
    }

    /// The values of a label of the series that match, sorted; none when the block has no time in
    /// `range`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the index cannot be read.
    pub fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<String>, Error> {
        if !self.meta.overlaps(range) {
            return Ok(Vec::new());
        }
        let values = self.index.matching_label_values(name, matchers);
        values.map_err(|e| e.of_block(&self.dir, None))
    }

    /// The series that match, in label order.
    pub(crate) fn matching(&self, matchers: &[Matcher]) -> Result<Vec<SeriesRef>, Error> {
        let series = self.index.matching(matchers);
        series.map_err(|e| e.of_block(&self.dir, None))
    }
}

fn read_tombstones(dir: &Path) -> Result<(Tombstones, u64), Error> {
    let path = dir.join(TOMBSTONES_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let tombstones = Tombstones::decode(&path.display().to_string(), &bytes)?;
            Ok((tombstones, bytes.len() as u64))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok((Tombstones::default(), 0)),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

/// The file of a chunk inside of its block.
fn chunk_file(chunk: &ChunkMeta) -> String {
    let number = u64::from(chunk.reference.segment()) + 1;
    format!("{CHUNKS_DIR}/{number:06}")
}

/// The series of a select, read one by one.
struct Selected {
    block: Arc<BlockReader>,
    range: TimeRange,
    series: VecDeque<SeriesRef>,
    /// Whether the block's cache is used.
    cached: bool,
    entry: SeriesEntry,
    texts: Texts,
}

impl Selected {
    fn new(block: &Arc<BlockReader>, range: TimeRange, series: VecDeque<SeriesRef>) -> Self {
        Selected {
            block: Arc::clone(block),
            range,
            cached: series.len() <= SELECT_MAX,
            series,
            entry: SeriesEntry::default(),
            texts: Texts::default(),
        }
    }

    /// Nothing when the series has no samples in the range.
    fn read(&mut self, series: SeriesRef) -> Result<Option<SeriesChunks>, Error> {
        let block = &*self.block;
        let (range, entry) = (self.range, &mut self.entry);
        let key = Key {
            block: block.number,
            series,
        };
        let found = self.cached.then(|| block.cache.find(key, range)).flatten();
        match &found {
            None => block.index.series_within(series, range, entry)?,
            Some(known) => block.index.chunks_from(series, known.fence, range, entry)?,
        }
        if self.entry.chunks.is_empty() {
            return Ok(None);
        }
        let mut chunks = Vec::with_capacity(self.entry.chunks.len());
        let deleted = block.tombstones.get(series);
        let mut heap_bytes = 0;
        for meta in &self.entry.chunks {
            let (encoding, data) = block.chunks.chunk(meta.reference)?;
            let chunk = Chunk {
                encoding,
                min_ms: meta.min_ms,
                max_ms: meta.max_ms,
                data,
            };
            if deleted.iter().any(|range| range.overlaps(&chunk.range())) {
                let file = chunk_file(meta);
                let kept = without(&chunk, deleted).map_err(|e| {
                    let place = (file.as_str(), u64::from(meta.reference.offset()));
                    e.of_block(&block.dir, Some(place))
                })?;
                heap_bytes += kept.iter().map(|chunk| chunk.data.len()).sum::<usize>();
                chunks.extend(kept);
            } else {
                chunks.push(chunk);
            }
        }
        if chunks.is_empty() {
            return Ok(None);
        }
        let fences = &self.entry.fences;
        let labels = match found {
            Some(found) => {
                if fences.last().is_some_and(|it| it.is_behind(&found.last)) {
                    block.cache.learn(key, &found.labels, fences);
                }
                found.labels
            }
            None => {
                let labels = self.texts.labels(&block.index, &self.entry.labels)?;
                if self.cached {
                    block.cache.learn(key, &labels, fences);
                }
                labels
            }
        };
        Ok(Some(SeriesChunks {
            labels,
            chunks,
            heap_bytes,
        }))
    }
}

impl Iterator for Selected {
    type Item = Result<SeriesChunks, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(series) = self.series.pop_front() {
            match self.read(series) {
                Ok(None) => {}
                Ok(Some(series)) => return Some(Ok(series)),
                Err(e) => {
                    self.series.clear();
                    let place = (INDEX_FILE, self.block.index.offset_of(series));
                    return Some(Err(e.of_block(&self.block.dir, Some(place))));
                }
            }
        }
        None
    }
}

/// Texts of symbols that were needed lately. Finding one in the index takes a walk, and series
/// that follow each other share most of theirs.
#[derive(Default)]
struct Texts {
    /// One place for all symbols that are equal modulo the length.
    slots: Vec<Option<(u32, Box<str>)>>,
    scratch: String,
}

impl Texts {
    const SLOTS: usize = 512;

    fn labels(&mut self, index: &IndexReader, pairs: &[(u32, u32)]) -> Result<Labels, Error> {
        self.slots.resize_with(Self::SLOTS, || None);
        for (name, value) in pairs {
            self.load(index, *name)?;
            self.load(index, *value)?;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let cached = pairs
            .iter()
            .map_while(|(name, value)| Some((self.get(*name)?, self.get(*value)?)));
        let complete = cached.clone().count() == pairs.len();
        let labels = if complete {
            ensure_sorted(cached.clone())?;
            Labels::from_sorted(cached.filter(|pair| !pair.1.is_empty()), &mut scratch)
        } else {
            // Two symbols of this series want the same slot.
            let texts = pairs
                .iter()
                .map(|(name, value)| Ok((index.symbol(*name)?, index.symbol(*value)?)))
                .collect::<Result<Vec<_>, Error>>()?;
            ensure_sorted(texts.iter().copied())?;
            let texts = texts.into_iter().filter(|pair| !pair.1.is_empty());
            Labels::from_sorted(texts, &mut scratch)
        };
        self.scratch = scratch;
        Ok(labels)
    }

    fn load(&mut self, index: &IndexReader, symbol: u32) -> Result<(), Error> {
        let slot = &mut self.slots[symbol as usize % Self::SLOTS];
        if slot.as_ref().is_none_or(|(cached, _)| *cached != symbol) {
            *slot = Some((symbol, index.symbol(symbol)?.into()));
        }
        Ok(())
    }

    fn get(&self, symbol: u32) -> Option<&str> {
        match &self.slots[symbol as usize % Self::SLOTS] {
            Some((cached, text)) if *cached == symbol => Some(text),
            _ => None,
        }
    }
}

fn ensure_sorted<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), Error> {
    if pairs.map(|pair| pair.0).is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    Err(Error::corrupt(
        "labels of a series",
        "the names are not sorted",
    ))
}
