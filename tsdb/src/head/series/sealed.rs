//! The sealed chunks of a series, oldest first; none overlaps with another.
//!
//! A chunk is on the heap when it is sealed and is moved to a file some time later; those in files
//! come first.

use std::sync::Arc;

use isobar_model::TimeRange;

use crate::Error;
use crate::chunks::{Chunk, Encoding};
use crate::merge::without;

use crate::head::chunk_files::ChunkFile;

/// Sealed chunks in time order.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    chunks: Vec<Stored>,
}

/// A sealed chunk, wherever it is. Reading is for when no lock is held: it may wait for the disk.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    /// In memory.
    Heap(Box<Chunk>),
    /// In a file.
    Filed(Filed),
}

/// A chunk in a file.
#[derive(Debug, Clone)]
pub(crate) struct Filed {
    file: Arc<ChunkFile>,
    offset: u32,
    /// The milliseconds from first to last sample, and in the low bits the encoding.
    span_and_encoding: u32,
    min_ms: i64,
}

const _: () = assert!(size_of::<Stored>() <= 24, "several per active series");

const ENCODING_BITS: u32 = 8;

impl Filed {
    /// A chunk at `offset` of a file; nothing when its times are too far apart to be told here.
    pub(crate) fn new(
        file: Arc<ChunkFile>,
        offset: u32,
        encoding: Encoding,
        range: TimeRange,
    ) -> Option<Self> {
        let span_ms = u32::try_from(range.max_ms.checked_sub(range.min_ms)?).ok()?;
        let fits = span_ms < 1 << (u32::BITS - ENCODING_BITS);
        fits.then(|| Filed {
            file,
            offset,
            span_and_encoding: span_ms << ENCODING_BITS | u32::from(encoding as u8),
            min_ms: range.min_ms,
        })
    }

    /// The times from the first to the last sample.
    pub(crate) fn range(&self) -> TimeRange {
        let span_ms = self.span_and_encoding >> ENCODING_BITS;
        TimeRange::new(self.min_ms, self.min_ms.saturating_add(span_ms.into()))
    }

    /// The number of the encoding.
    pub(crate) fn encoding(&self) -> u8 {
        self.span_and_encoding as u8
    }

    /// The number of its file, and the offset there.
    pub(crate) fn place(&self) -> (u32, u32) {
        (self.file.number(), self.offset)
    }

    fn read(&self) -> Result<Chunk, Error> {
        let (encoding, data) = self.file.read(self.offset)?;
        let TimeRange { min_ms, max_ms } = self.range();
        Ok(Chunk {
            encoding,
            min_ms,
            max_ms,
            data,
        })
    }
}

impl Stored {
    /// The chunk, when it is in memory.
    pub(crate) fn on_heap(&self) -> Option<&Chunk> {
        match self {
            Stored::Heap(chunk) => Some(chunk),
            Stored::Filed(_) => None,
        }
    }

    /// The file that it is in.
    pub(crate) fn file(&self) -> Option<&Arc<ChunkFile>> {
        match self {
            Stored::Heap(_) => None,
            Stored::Filed(filed) => Some(&filed.file),
        }
    }

    /// The times from the first to the last sample.
    pub(crate) fn range(&self) -> TimeRange {
        match self {
            Stored::Heap(chunk) => chunk.range(),
            Stored::Filed(filed) => filed.range(),
        }
    }

    /// The chunk itself.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its file is damaged.
    pub(crate) fn read(self) -> Result<Chunk, Error> {
        match self {
            Stored::Heap(chunk) => Ok(*chunk),
            Stored::Filed(filed) => filed.read(),
        }
    }
}

impl Sealed {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// The time of the oldest sample.
    pub(super) fn first_ms(&self) -> Option<i64> {
        self.chunks.first().map(|chunk| chunk.range().min_ms)
    }

    /// The time of the newest sample.
    pub(super) fn last_ms(&self) -> Option<i64> {
        self.chunks.last().map(|chunk| chunk.range().max_ms)
    }

    /// The time of the oldest sample among chunks that begin at `from_ms` or later.
    pub(super) fn first_from(&self, from_ms: i64) -> Option<i64> {
        let mut firsts = self.chunks.iter().map(|chunk| chunk.range().min_ms);
        firsts.find(|min_ms| *min_ms >= from_ms)
    }

    /// Adds a chunk that is newer than all others.
    pub(super) fn push(&mut self, chunk: Stored) {
        self.chunks.reserve_exact(1);
        self.chunks.push(chunk);
    }

    /// The chunks that overlap `range`; bytes are shared.
    pub(super) fn overlapping(&self, range: TimeRange) -> impl Iterator<Item = Stored> {
        let chunks = self.chunks.iter();
        chunks
            .filter(move |chunk| range.overlaps(&chunk.range()))
            .cloned()
    }

    /// The chunks on the heap.
    pub(super) fn on_heap(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().filter_map(Stored::on_heap)
    }

    /// Lets the oldest chunk on the heap go, if it is the one that was filed.
    pub(super) fn replace(&mut self, chunk: &Chunk, filed: Filed) {
        let heap = self.chunks.iter_mut().find(|it| match it {
            Stored::Heap(_) => true,
            Stored::Filed(_) => false,
        });
        if let Some(place) = heap
            && matches!(place, Stored::Heap(it) if it.data.as_ptr() == chunk.data.as_ptr())
        {
            *place = Stored::Filed(filed);
        }
    }

    /// Deletes the samples of a range, and says whether there were chunks of that time. Behind a chunk
    /// on the heap all others are on it too.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a chunk cannot be read; then nothing is deleted.
    pub(super) fn delete(&mut self, range: TimeRange) -> Result<bool, Error> {
        if self.overlapping(range).next().is_none() {
            return Ok(false);
        }
        let mut kept: Vec<Stored> = Vec::with_capacity(self.chunks.len());
        for stored in &self.chunks {
            let follows_heap = matches!(kept.last(), Some(Stored::Heap(_)));
            if range.overlaps(&stored.range()) {
                let left = without(&stored.clone().read()?, &[range])?;
                kept.extend(left.into_iter().map(|chunk| Stored::Heap(Box::new(chunk))));
            } else if follows_heap {
                kept.push(Stored::Heap(Box::new(stored.clone().read()?)));
            } else {
                kept.push(stored.clone());
            }
        }
        kept.shrink_to_fit();
        self.chunks = kept;
        Ok(true)
    }

    /// Drops all chunks that end before `before_ms`.
    pub(super) fn truncate(&mut self, before_ms: i64) {
        self.chunks
            .retain(|chunk| chunk.range().max_ms >= before_ms);
        self.chunks.shrink_to_fit();
    }

    /// The memory held, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Stored>() + self.heap_bytes_from(0)
    }

    /// The memory of the chunks on the heap behind the first `start`, in bytes.
    pub(super) fn heap_bytes_from(&self, start: usize) -> usize {
        let chunks = self.chunks.get(start..).unwrap_or_default().iter();
        chunks
            .filter_map(Stored::on_heap)
            .map(|chunk| size_of::<Chunk>() + chunk.data.len())
            .sum()
    }
}
