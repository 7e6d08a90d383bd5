//! The sealed chunks of a series, oldest first; none overlaps with another.

use isobar_model::TimeRange;

use crate::chunks::Chunk;

/// Sealed chunks in time order.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    chunks: Vec<Chunk>,
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
        self.chunks.first().map(|chunk| chunk.min_ms)
    }

    /// The time of the newest sample.
    pub(super) fn last_ms(&self) -> Option<i64> {
        self.chunks.last().map(|chunk| chunk.max_ms)
    }

    /// The time of the oldest sample among chunks that begin at `from_ms` or later.
    pub(super) fn first_from(&self, from_ms: i64) -> Option<i64> {
        let mut firsts = self.chunks.iter().map(|chunk| chunk.min_ms);
        firsts.find(|min_ms| *min_ms >= from_ms)
    }

    /// Adds a chunk that is newer than all others.
    pub(super) fn push(&mut self, chunk: Chunk) {
        self.chunks.reserve_exact(1);
        self.chunks.push(chunk);
    }

    /// The chunks that overlap `range`; their bytes are shared.
    pub(super) fn overlapping(&self, range: TimeRange) -> impl Iterator<Item = Chunk> {
        let chunks = self.chunks.iter();
        chunks
            .filter(move |chunk| range.overlaps(&chunk.range()))
            .cloned()
    }

    /// Drops all chunks that end before `before_ms`.
    pub(super) fn truncate(&mut self, before_ms: i64) {
        self.chunks.retain(|chunk| chunk.max_ms >= before_ms);
        self.chunks.shrink_to_fit();
    }

    /// The memory held, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let data: usize = self.chunks.iter().map(|chunk| chunk.data.len()).sum();
        self.chunks.capacity() * size_of::<Chunk>() + data
    }
}
