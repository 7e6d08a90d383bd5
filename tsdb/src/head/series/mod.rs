//! One series of the head: the chunk that is being written and those that are sealed.
//!
//! A chunk is sealed when it has [`CHUNK_SAMPLES_MAX`] samples, one of histograms when it has a size,
//! and both at the end of the block range they began in, so that no chunk crosses the border between
//! two blocks.

mod delete;
mod extra;
mod histograms;
mod late;
mod sealed;

pub(crate) use late::LateSample;
pub(crate) use sealed::{Filed, Stored};

use std::sync::Arc;

use isobar_model::sample::is_stale;
use isobar_model::{Columns, FloatHistogram, TimeRange};

use crate::Error;
use crate::chunks::histogram::Counts;
use crate::chunks::xor::{self, XorAppender};
use crate::chunks::{Chunk, Encoding};

use super::incoming::RejectReason;
use super::late::Epoch;
use extra::Extra;
use histograms::same_sample;
use sealed::Sealed;

/// The length of a block in milliseconds: two hours, aligned to the unix epoch.
pub const BLOCK_RANGE_MS: i64 = 2 * 60 * 60 * 1000;

/// The most samples of a chunk (Prometheus `tsdb.DefaultSamplesPerChunk`).
pub const CHUNK_SAMPLES_MAX: u16 = 120;

/// The end (exclusive) of the block range that `timestamp_ms` lies in.
pub(crate) fn block_end_ms(timestamp_ms: i64) -> i64 {
    block_start_ms(timestamp_ms).saturating_add(BLOCK_RANGE_MS)
}

/// The start of the block range that `timestamp_ms` lies in.
pub(crate) fn block_start_ms(timestamp_ms: i64) -> i64 {
    timestamp_ms.saturating_sub(timestamp_ms.rem_euclid(BLOCK_RANGE_MS))
}

/// Whether a sample lies in another block range than the one before it.
#[inline]
fn crosses_border(last_ms: Option<i64>, timestamp_ms: i64) -> bool {
    last_ms.is_some_and(|last_ms| block_start_ms(last_ms) != block_start_ms(timestamp_ms))
}

/// What became of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Appended,
    /// It could not follow the newest, and is with the late samples now.
    AppendedLate,
    Duplicate,
    Rejected(RejectReason),
}

/// The times that a head takes at present.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// What is older does not go to the in-order samples.
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    /// Which late samples are taken, if any.
    pub(crate) late: Option<LateBounds>,
}

/// The late samples that a head takes at present.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LateBounds {
    pub(crate) min_ms: i64,
    /// That of the shard.
    pub(crate) epoch: Epoch,
}

/// A series in memory. Lives in its shard; its labels live in the index.
#[derive(Debug, Default)]
pub(crate) struct MemSeries {
    /// The floats being written. Empty while histograms are: only one kind is open at a time.
    open: XorAppender,
    sealed: Sealed,
    extra: Option<Box<Extra>>,
}

/// What a series has at a time.
enum Known {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

impl Known {
    fn of(sample: &LateSample) -> Self {
        match sample {
            LateSample::Float(value) => Known::Float(*value),
            LateSample::Histogram(histogram, _) => Known::Histogram(Arc::clone(histogram)),
        }
    }

    /// Whether a sample says the same.
    fn is(&self, sample: &LateSample) -> bool {
        match (self, sample) {
            (Known::Float(known), LateSample::Float(value)) => known.to_bits() == value.to_bits(),
            (Known::Float(known), LateSample::Histogram(histogram, _)) => {
                is_stale(*known) && histogram.is_stale()
            }
            (Known::Histogram(known), LateSample::Float(value)) => {
                known.is_stale() && is_stale(*value)
            }
            (Known::Histogram(known), LateSample::Histogram(histogram, _)) => {
                same_sample(known, histogram)
            }
        }
    }
}

const _: () = assert!(size_of::<MemSeries>() <= 96, "lives once per active series");

impl MemSeries {
    /// The time of the newest sample that came in order.
    pub(crate) fn last_ms(&self) -> Option<i64> {
        self.open.last_ms().or_else(|| self.last_ms_before_floats())
    }

    fn last_ms_before_floats(&self) -> Option<i64> {
        match self.histograms_range() {
            Some(range) => Some(range.max_ms),
            None => self.sealed.last_ms(),
        }
    }

    /// The times of the open chunk of histograms.
    fn histograms_range(&self) -> Option<TimeRange> {
        self.extra.as_ref()?.histograms.range()
    }

    /// The times of the open chunk.
    fn open_range(&self) -> Option<TimeRange> {
        match (self.open.first_ms(), self.open.last_ms()) {
            (Some(first), Some(last)) => Some(TimeRange::new(first, last)),
            _ => self.histograms_range(),
        }
    }

    /// Whether the newest sample is a histogram.
    pub(crate) fn ends_in_histogram(&self) -> bool {
        let extra = self.extra.as_ref();
        extra.is_some_and(|extra| extra.histograms.has_newest())
    }

    /// Whether there is no sample.
    pub(crate) fn is_empty(&self) -> bool {
        self.open_range().is_none() && self.sealed.is_empty() && !self.has_late()
    }

    /// The time of the oldest sample.
    pub(crate) fn first_ms(&self) -> Option<i64> {
        let open = || self.open_range().map(|range| range.min_ms);
        let in_order = self.sealed.first_ms().or_else(open);
        match self.late_first_ms() {
            None => in_order,
            Some(late_ms) => Some(in_order.map_or(late_ms, |first_ms| first_ms.min(late_ms))),
        }
    }

    /// The time of the oldest sample among in-order chunks that begin at `from_ms` or later.
    pub(crate) fn first_from(&self, from_ms: i64) -> Option<i64> {
        let open = self.open_range().map(|range| range.min_ms);
        self.sealed
            .first_from(from_ms)
            .or(open.filter(|min_ms| *min_ms >= from_ms))
    }

    /// The number of chunks, the open one included.
    pub(crate) fn chunk_count(&self) -> usize {
        let late = self
            .extra
            .as_ref()
            .map_or(0, |extra| extra.late.chunk_count());
        self.sealed.len() + usize::from(self.open_range().is_some()) + late
    }

    /// Reads what an append will need. Done for many series before the first append, so that the
    /// processor waits for their memory all at once.
    #[inline]
    pub(crate) fn touch(&self) -> u8 {
        self.open.as_bytes().last().copied().unwrap_or(0) ^ self.open.sample_count() as u8
    }

    /// Appends a sample if its time allows.
    #[inline]
    pub(crate) fn append(&mut self, timestamp_ms: i64, value: f64, bounds: Bounds) -> Outcome {
        match self.last_ms() {
            Some(last_ms) if timestamp_ms <= last_ms => {
                self.append_late(timestamp_ms, LateSample::Float(value), bounds)
            }
            _ if timestamp_ms < bounds.min_ms => {
                self.append_late(timestamp_ms, LateSample::Float(value), bounds)
            }
            _ if timestamp_ms > bounds.max_ms => Outcome::Rejected(RejectReason::TooFarInFuture),
            last_ms => {
                self.push(timestamp_ms, value, last_ms);
                Outcome::Appended
            }
        }
    }

    #[inline]
    fn push(&mut self, timestamp_ms: i64, value: f64, last_ms: Option<i64>) {
        let samples = self.open.sample_count();
        if samples >= CHUNK_SAMPLES_MAX || (samples > 0 && crosses_border(last_ms, timestamp_ms)) {
            self.seal();
        }
        if samples == 0 && self.extra.is_some() && self.follow_histogram(timestamp_ms, value) {
            return;
        }
        self.open.append(timestamp_ms, value);
    }

    /// Makes room for a float where the sample before it may be a histogram. True when that takes
    /// the float in: a staleness marker ends what is before it, and so becomes a histogram
    /// (as in Prometheus).
    #[cold]
    fn follow_histogram(&mut self, timestamp_ms: i64, value: f64) -> bool {
        if !self.ends_in_histogram() {
            return false;
        }
        if is_stale(value) {
            let marker = Arc::new(FloatHistogram::stale());
            self.push_histogram(timestamp_ms, marker, Counts::Integer);
            return true;
        }
        self.seal_histograms();
        false
    }

    /// Appends a histogram if its time allows. It must have passed
    /// [`FloatHistogram::checked`].
    pub(crate) fn append_histogram(
        &mut self,
        timestamp_ms: i64,
        histogram: Arc<FloatHistogram>,
        counts: Counts,
        bounds: Bounds,
    ) -> Outcome {
        match self.last_ms() {
            Some(last_ms) if timestamp_ms <= last_ms => self.append_late(
                timestamp_ms,
                LateSample::Histogram(histogram, counts),
                bounds,
            ),
            _ if timestamp_ms < bounds.min_ms => self.append_late(
                timestamp_ms,
                LateSample::Histogram(histogram, counts),
                bounds,
            ),
            _ if timestamp_ms > bounds.max_ms => Outcome::Rejected(RejectReason::TooFarInFuture),
            _ => {
                self.push_histogram(timestamp_ms, histogram, counts);
                Outcome::Appended
            }
        }
    }

    fn push_histogram(
        &mut self,
        timestamp_ms: i64,
        histogram: Arc<FloatHistogram>,
        counts: Counts,
    ) {
        let cut = crosses_border(self.last_ms(), timestamp_ms);
        if !self.open.is_empty() {
            self.seal();
        }
        let extra = self.extra.get_or_insert_default();
        let sealed = extra
            .histograms
            .append(timestamp_ms, histogram, counts, cut);
        if let Some(chunk) = sealed {
            self.sealed.push(Stored::Heap(Box::new(chunk)));
        }
    }

    /// Ends the open chunk if all of it is older than `end_ms`.
    pub(crate) fn seal_until(&mut self, end_ms: i64) {
        if self.last_ms().is_none_or(|last_ms| last_ms < end_ms) {
            self.seal();
            self.seal_histograms();
        }
    }

    fn seal_histograms(&mut self) {
        let extra = self.extra.as_mut();
        if let Some(chunk) = extra.and_then(|extra| extra.histograms.seal()) {
            self.sealed.push(Stored::Heap(Box::new(chunk)));
        }
    }

    fn seal(&mut self) {
        let open = std::mem::take(&mut self.open);
        if let Some(chunk) = open.into_chunk() {
            self.sealed.push(Stored::Heap(Box::new(chunk)));
        }
    }

    /// A sample that cannot follow the newest: known already, contradicting, late or too old.
    #[cold]
    fn append_late(&mut self, timestamp_ms: i64, sample: LateSample, bounds: Bounds) -> Outcome {
        match self.known_at(timestamp_ms) {
            Some(known) if known.is(&sample) => return Outcome::Duplicate,
            Some(_) => return Outcome::Rejected(RejectReason::DuplicateTimestamp),
            None => {}
        }
        match bounds.late {
            _ if timestamp_ms > bounds.max_ms => Outcome::Rejected(RejectReason::TooFarInFuture),
            Some(late) if timestamp_ms >= late.min_ms => {
                let extra = self.extra.get_or_insert_default();
                extra.late.insert(timestamp_ms, sample, late.epoch);
                Outcome::AppendedLate
            }
            Some(_) => Outcome::Rejected(RejectReason::TooOld),
            None if timestamp_ms < bounds.min_ms => Outcome::Rejected(RejectReason::OutOfBounds),
            None => Outcome::Rejected(RejectReason::OutOfOrder),
        }
    }

    fn known_at(&self, timestamp_ms: i64) -> Option<Known> {
        if self.open.last_ms() == Some(timestamp_ms) {
            return Some(Known::Float(self.open.last_value()));
        }
        let late = self.extra.as_ref().map(|extra| &extra.late);
        if let Some(sample) = late.and_then(|late| late.buffered(timestamp_ms)) {
            return Some(Known::of(sample));
        }
        let at = TimeRange::new(timestamp_ms, timestamp_ms);
        let mut chunks = Vec::new();
        self.in_order_chunks(at, &mut chunks);
        let mut columns = Columns::default();
        for chunk in chunks {
            // A chunk whose file is damaged says nothing.
            if let Ok(chunk) = chunk.read() {
                chunk.decode_into(at, &mut columns).ok()?;
            }
        }
        for chunk in late.into_iter().flat_map(|late| late.sealed(at)) {
            chunk.decode_into(at, &mut columns).ok()?;
        }
        let float = columns.values.pop().map(Known::Float);
        let histogram = columns.histograms.pop();
        float.or(histogram.map(|(_, histogram)| Known::Histogram(histogram)))
    }

    /// Appends the chunks that overlap `range` to `chunks`, by first time. Sealed ones share their
    /// bytes, the open ones are copied. They are to be read when the shard is no longer locked.
    pub(crate) fn chunks(&self, range: TimeRange, chunks: &mut Vec<Stored>) {
        let start = chunks.len();
        self.in_order_chunks(range, chunks);
        if let Some(extra) = self.extra.as_ref().filter(|extra| !extra.late.is_empty()) {
            let late = extra.late.chunks(range);
            chunks.extend(late.map(|chunk| Stored::Heap(Box::new(chunk))));
            if let Some(own) = chunks.get_mut(start..) {
                own.sort_by_key(|chunk| chunk.range().min_ms);
            }
        }
    }

    /// As [`MemSeries::chunks`], without late samples.
    pub(crate) fn in_order_chunks(&self, range: TimeRange, chunks: &mut Vec<Stored>) {
        chunks.extend(self.sealed.overlapping(range));
        if self.open_range().is_some_and(|open| range.overlaps(&open)) {
            let histograms = || self.extra.as_ref()?.histograms.to_chunk();
            let open = self.open.to_chunk().or_else(histograms);
            chunks.extend(open.map(|open| Stored::Heap(Box::new(open))));
        }
    }

    /// The number of sealed chunks.
    #[inline]
    pub(crate) fn sealed_count(&self) -> usize {
        self.sealed.len()
    }

    /// The memory of the newest sealed chunks, as many as came since there were `count`, in bytes.
    #[cold]
    pub(crate) fn sealed_bytes_since(&self, count: usize) -> usize {
        self.sealed.heap_bytes_from(count)
    }

    /// The sealed chunks that are still on the heap, oldest first.
    pub(crate) fn sealed_on_heap(&self) -> impl Iterator<Item = &Chunk> {
        self.sealed.on_heap()
    }

    /// Takes note that a chunk of [`MemSeries::sealed_on_heap`] is in a file now. The oldest come
    /// first; a chunk that is gone meanwhile is left alone.
    pub(crate) fn note_filed(&mut self, chunk: &Chunk, filed: Filed) {
        self.sealed.replace(chunk, filed);
    }

    /// Drops all in-order chunks that end before `before_ms`, and says whether there were any.
    pub(crate) fn truncate(&mut self, before_ms: i64) -> bool {
        let chunks = self.chunk_count();
        self.sealed.truncate(before_ms);
        if self
            .open
            .last_ms()
            .is_some_and(|last_ms| last_ms < before_ms)
        {
            self.open = XorAppender::default();
        }
        if let Some(extra) = &mut self.extra {
            extra.histograms.truncate(before_ms);
        }
        self.chunk_count() < chunks
    }

    /// Puts back a chunk from a snapshot. Chunks come in time order; what is not newer than what
    /// is there is left out.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the chunk is of a kind that no head writes, or is not what its times
    /// say.
    pub(crate) fn restore(&mut self, chunk: Chunk) -> Result<(), Error> {
        if self
            .last_ms()
            .is_some_and(|last_ms| last_ms >= chunk.min_ms)
        {
            return Ok(());
        }
        match chunk.encoding {
            Encoding::Xor => self.restore_floats(chunk),
            _ => self.restore_histograms(chunk),
        }
    }

    fn restore_histograms(&mut self, chunk: Chunk) -> Result<(), Error> {
        self.seal();
        let extra = self.extra.get_or_insert_default();
        if let Some(open) = extra.histograms.seal() {
            self.sealed.push(Stored::Heap(Box::new(open)));
        }
        if let Some(full) = extra.histograms.resume(chunk)? {
            self.sealed.push(Stored::Heap(Box::new(full)));
        }
        Ok(())
    }

    fn restore_floats(&mut self, chunk: Chunk) -> Result<(), Error> {
        let mut columns = Columns::default();
        let rising = xor::decode(&chunk.data, &mut columns)?;
        let ends = (
            columns.timestamps.first().copied(),
            columns.timestamps.last().copied(),
        );
        if !rising || ends != (Some(chunk.min_ms), Some(chunk.max_ms)) {
            return Err(Error::corrupt(
                "snapshot chunk",
                "its times are not those announced",
            ));
        }
        self.seal();
        self.seal_histograms();
        if columns.len() < usize::from(CHUNK_SAMPLES_MAX) {
            self.open = XorAppender::resume(&chunk.data)?;
        } else {
            self.sealed.push(Stored::Heap(Box::new(chunk)));
        }
        Ok(())
    }

    /// Puts back a chunk in a file, as a snapshot names it. Chunks come in time order; what is not
    /// newer than what is there is left out.
    pub(crate) fn restore_filed(&mut self, filed: Filed) {
        let min_ms = filed.range().min_ms;
        if self.last_ms().is_none_or(|last_ms| last_ms < min_ms) {
            self.seal();
            self.seal_histograms();
            self.sealed.push(Stored::Filed(filed));
        }
    }

    /// The memory that the series holds outside of itself, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let extra = self.extra.as_ref();
        let extra = extra.map_or(0, |extra| size_of::<Extra>() + extra.heap_bytes());
        self.open.heap_bytes() + self.sealed.heap_bytes() + extra
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::chunk_files::ChunkFiles;

    const ANY: Bounds = Bounds {
        min_ms: i64::MIN,
        max_ms: i64::MAX,
        late: None,
    };

    fn chunks_of(series: &MemSeries) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        series.chunks(TimeRange::ALL, &mut chunks);
        chunks.into_iter().map(|it| it.read().unwrap()).collect()
    }

    fn check_chunks(times: impl IntoIterator<Item = i64>, expected: &[(i64, i64)]) {
        let mut series = MemSeries::default();
        for t in times {
            assert_eq!(series.append(t, t as f64, ANY), Outcome::Appended);
        }
        let chunks = chunks_of(&series);
        let ranges: Vec<_> = chunks.iter().map(|c| (c.min_ms, c.max_ms)).collect();
        assert_eq!(ranges, expected);
    }

    #[test]
    fn seals_by_samples_and_at_block_borders() {
        check_chunks((0..121).map(|i| i * 10), &[(0, 1190), (1200, 1200)]);
        check_chunks(
            [BLOCK_RANGE_MS - 1, BLOCK_RANGE_MS],
            &[
                (BLOCK_RANGE_MS - 1, BLOCK_RANGE_MS - 1),
                (BLOCK_RANGE_MS, BLOCK_RANGE_MS),
            ],
        );
        check_chunks([-1, 0, 1], &[(-1, -1), (0, 1)]);
        check_chunks(
            [i64::MIN, i64::MAX],
            &[(i64::MIN, i64::MIN), (i64::MAX, i64::MAX)],
        );
    }

    #[test]
    fn tells_repeats_from_contradictions_and_late_samples() {
        let mut series = MemSeries::default();
        for t in 0..300 {
            series.append(t * 10, 1.0, ANY);
        }
        let bounds = Bounds {
            min_ms: 500,
            max_ms: 5000,
            late: None,
        };
        let with_late = Bounds {
            late: Some(LateBounds {
                min_ms: 105,
                epoch: Epoch(3),
            }),
            ..bounds
        };
        for (t, value, expected) in [
            (1205, 1.0, Outcome::AppendedLate),
            (1205, 1.0, Outcome::Duplicate),
            (105, 2.0, Outcome::AppendedLate),
            (
                105,
                1.0,
                Outcome::Rejected(RejectReason::DuplicateTimestamp),
            ),
            (104, 1.0, Outcome::Rejected(RejectReason::TooOld)),
            (100, 1.0, Outcome::Duplicate),
            (6000, 1.0, Outcome::Rejected(RejectReason::TooFarInFuture)),
        ] {
            assert_eq!(series.append(t, value, with_late), expected, "{t} {value}");
        }
        assert_eq!(
            (series.first_ms(), series.late_first_ms()),
            (Some(0), Some(105))
        );
        for (t, value, expected) in [
            (105, 2.0, Outcome::Duplicate),
            (1206, 1.0, Outcome::Rejected(RejectReason::OutOfOrder)),
            (2990, 1.0, Outcome::Duplicate),
            (
                2990,
                2.0,
                Outcome::Rejected(RejectReason::DuplicateTimestamp),
            ),
            (20, 1.0, Outcome::Duplicate),
            (
                20,
                f64::NAN,
                Outcome::Rejected(RejectReason::DuplicateTimestamp),
            ),
            (25, 1.0, Outcome::Rejected(RejectReason::OutOfBounds)),
            (5001, 1.0, Outcome::Rejected(RejectReason::TooFarInFuture)),
            (5000, 1.0, Outcome::Appended),
        ] {
            assert_eq!(series.append(t, value, bounds), expected, "{t} {value}");
        }
    }

    #[test]
    fn a_restored_series_goes_on_where_it_stopped() {
        let mut series = MemSeries::default();
        for t in 0..200 {
            series.append(t * 15_000, t as f64 * 0.1, ANY);
        }
        let chunks = chunks_of(&series);
        let mut restored = MemSeries::default();
        for chunk in &chunks {
            restored.restore(chunk.clone()).unwrap();
            restored.restore(chunk.clone()).unwrap();
        }
        for both in [&mut series, &mut restored] {
            both.append(200 * 15_000, 7.5, ANY);
        }
        assert_eq!(chunks_of(&series), chunks_of(&restored));
        assert!(series.truncate(120 * 15_000));
        assert_eq!(series.first_ms(), Some(120 * 15_000));
        assert!(series.truncate(i64::MAX) && series.is_empty());
    }
    #[test]
    fn chunks_in_files_are_the_same_chunks() {
        let mut series = MemSeries::default();
        for t in 0..400 {
            series.append(t * 15_000, t as f64 * 0.1, ANY);
        }
        let before = chunks_of(&series);
        let dir = tempfile::tempdir().unwrap();
        let files = ChunkFiles::open(dir.path()).unwrap();
        let mut new = files.begin();
        let sealed: Vec<Chunk> = series.sealed_on_heap().cloned().collect();
        let offsets: Vec<u32> = sealed.iter().map(|chunk| new.add(chunk).unwrap()).collect();
        let file = files.finish(new).unwrap();
        for (chunk, offset) in sealed.iter().zip(offsets) {
            let filed = Filed::new(file.clone(), offset, chunk.encoding, chunk.range()).unwrap();
            series.note_filed(chunk, filed.clone());
            // A second time does nothing.
            series.note_filed(chunk, filed);
        }
        assert_eq!(series.sealed_on_heap().count(), 0);
        assert_eq!(chunks_of(&series), before);
        assert_eq!(
            series.append(15_000, 0.1, ANY),
            Outcome::Duplicate,
            "found in a file"
        );
        assert!(series.truncate(120 * 15_000));
        assert_eq!(chunks_of(&series), before[1..]);
    }
}
