//! The late samples of a series: those that came when a newer one was there already.
//!
//! They gather in a small sorted buffer. When it is full it is sealed into a chunk, which may
//! overlap with every other chunk of the series. No time is here twice, and none that the in-order
//! samples had when the late one came.

use std::sync::Arc;

use isobar_model::histogram::CounterReset;
use isobar_model::{Columns, FloatHistogram, TimeRange};

use crate::Error;
use crate::chunks::histogram::Counts;
use crate::chunks::{Chunk, Encoding};
use crate::head::late::{Epoch, LateCut, Uncut};
use crate::merge::{encode, without};

use super::MemSeries;

/// A buffer with this many samples is sealed.
const BUFFER_SAMPLES_MAX: usize = 64;
/// A chunk of no more samples than this goes back into the buffer when a snapshot is read.
const RESUMED_SAMPLES_MAX: usize = BUFFER_SAMPLES_MAX / 2;

/// A sample of either kind.
#[derive(Debug, Clone)]
pub(crate) enum LateSample {
    Float(f64),
    /// One that has passed [`FloatHistogram::checked`].
    Histogram(Arc<FloatHistogram>, Counts),
}

/// Late samples.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// In time order, each time once.
    buffer: Vec<(i64, LateSample)>,
    /// By first time.
    sealed: Vec<LateChunk>,
}

#[derive(Debug)]
struct LateChunk {
    /// The epoch of its newest samples; none of its samples comes from before another cut of the
    /// tenant.
    epoch: Epoch,
    chunk: Chunk,
}

impl Late {
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.sealed.is_empty()
    }

    /// The number of chunks, the buffer counted as one.
    pub(super) fn chunk_count(&self) -> usize {
        self.sealed.len() + usize::from(!self.buffer.is_empty())
    }

    /// The time of the oldest sample.
    pub(super) fn first_ms(&self) -> Option<i64> {
        let sealed = self.sealed.first().map(|late| late.chunk.min_ms);
        let buffer = self.buffer.first().map(|(timestamp_ms, _)| *timestamp_ms);
        sealed.into_iter().chain(buffer).min()
    }

    /// The sample of a time, when it is in the buffer.
    pub(super) fn buffered(&self, timestamp_ms: i64) -> Option<&LateSample> {
        let times = self.buffer.binary_search_by_key(&timestamp_ms, |it| it.0);
        times
            .ok()
            .and_then(|at| self.buffer.get(at))
            .map(|it| &it.1)
    }

    /// Adds a sample of a time that is not here yet.
    pub(super) fn insert(&mut self, timestamp_ms: i64, mut sample: LateSample, epoch: Epoch) {
        if let LateSample::Histogram(histogram, _) = &mut sample
            && histogram.hint == CounterReset::NotReset
        {
            // What the sender means by it is the sample before in time, which need not be here.
            Arc::make_mut(histogram).hint = CounterReset::Unknown;
        }
        let at = self
            .buffer
            .partition_point(|(time, _)| *time < timestamp_ms);
        self.buffer.insert(at, (timestamp_ms, sample));
        if self.buffer.len() >= BUFFER_SAMPLES_MAX {
            self.seal(epoch);
        }
    }

    /// Makes a chunk of the buffer.
    pub(super) fn seal(&mut self, epoch: Epoch) {
        let chunks = encode_buffer(&std::mem::take(&mut self.buffer));
        self.sealed
            .extend(chunks.into_iter().map(|chunk| LateChunk { epoch, chunk }));
        self.sealed.sort_by_key(|late| late.chunk.min_ms);
    }

    /// The sealed chunks that overlap `range`.
    pub(super) fn sealed(&self, range: TimeRange) -> impl Iterator<Item = Chunk> {
        let sealed = self.sealed.iter().map(|late| &late.chunk);
        sealed
            .filter(move |chunk| range.overlaps(&chunk.range()))
            .cloned()
    }

    /// The chunks that overlap `range`; the buffer is encoded for that.
    pub(super) fn chunks(&self, range: TimeRange) -> impl Iterator<Item = Chunk> {
        let buffered = encode_buffer(&self.buffer).into_iter();
        self.sealed(range)
            .chain(buffered.filter(move |chunk| range.overlaps(&chunk.range())))
    }

    /// Calls `each` with all chunks and their epochs, for a snapshot; the buffer's is `epoch`.
    pub(super) fn for_each(&self, epoch: Epoch, mut each: impl FnMut(Epoch, &Chunk)) {
        for late in &self.sealed {
            each(late.epoch, &late.chunk);
        }
        for chunk in encode_buffer(&self.buffer) {
            each(epoch, &chunk);
        }
    }

    /// The sealed samples of `range` up to an epoch that no cut holds, as chunks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a chunk cannot be decoded.
    pub(super) fn uncut(
        &self,
        range: TimeRange,
        until: Epoch,
        cuts: &[LateCut],
    ) -> Result<Vec<Chunk>, Error> {
        let mut chunks = Vec::new();
        for late in self.sealed.iter().filter(|late| late.epoch <= until) {
            if !range.overlaps(&late.chunk.range()) {
                continue;
            }
            let mut gone = late.held_by(cuts);
            if let Some(before_ms) = range.min_ms.checked_sub(1) {
                gone.push(TimeRange::new(i64::MIN, before_ms));
            }
            if let Some(after_ms) = range.max_ms.checked_add(1) {
                gone.push(TimeRange::new(after_ms, i64::MAX));
            }
            chunks.extend(without(&late.chunk, &gone)?);
        }
        Ok(chunks)
    }

    /// Drops the sealed samples that the cuts hold.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a chunk cannot be decoded; it stays then, and so do those behind it.
    pub(super) fn drop_cut(&mut self, cuts: &[LateCut]) -> Result<(), Error> {
        let mut at = 0;
        while let Some(late) = self.sealed.get(at) {
            let left = without(&late.chunk, &late.held_by(cuts))?;
            let epoch = late.epoch;
            let count = left.len();
            let left = left.into_iter().map(|chunk| LateChunk { epoch, chunk });
            self.sealed.splice(at..=at, left);
            at += count;
        }
        self.sealed.sort_by_key(|late| late.chunk.min_ms);
        self.sealed.shrink_to_fit();
        Ok(())
    }

    /// Deletes the samples of a range, and says whether there were any around those times.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a chunk cannot be decoded; then nothing is deleted.
    fn delete(&mut self, range: TimeRange) -> Result<bool, Error> {
        let mut hit = false;
        let mut kept = Vec::with_capacity(self.sealed.len());
        for late in &self.sealed {
            hit |= range.overlaps(&late.chunk.range());
            let left = without(&late.chunk, &[range])?.into_iter();
            kept.extend(left.map(|chunk| LateChunk {
                epoch: late.epoch,
                chunk,
            }));
        }
        if hit {
            kept.sort_by_key(|late| late.chunk.min_ms);
            self.sealed = kept;
        }
        let buffered = self.buffer.len();
        self.buffer
            .retain(|(timestamp_ms, _)| !range.contains(*timestamp_ms));
        Ok(hit || self.buffer.len() < buffered)
    }

    /// Puts back a chunk from a snapshot. `latest` is the latest epoch of all: a small chunk goes
    /// back into the buffer, where there may be samples of later epochs than its own.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is none that a head writes, or is not what its times say.
    fn restore(&mut self, chunk: Chunk, epoch: Epoch, latest: Epoch) -> Result<(), Error> {
        let corrupt = |why| Err(Error::corrupt("snapshot chunk", why));
        let counts = match chunk.encoding {
            Encoding::Xor | Encoding::Histogram => Counts::Integer,
            Encoding::FloatHistogram => Counts::Float,
            _ => return corrupt("the encoding is none that a head writes"),
        };
        let mut columns = Columns::default();
        chunk.decode_into(TimeRange::ALL, &mut columns)?;
        let floats = columns.timestamps.iter().zip(&columns.values);
        let floats = floats.map(|(time_ms, value)| (*time_ms, LateSample::Float(*value)));
        let histograms = columns.histograms.iter();
        let histograms =
            histograms.map(|it| (it.0, LateSample::Histogram(Arc::clone(&it.1), counts)));
        let samples: Vec<(i64, LateSample)> = floats.chain(histograms).collect();
        let ends = (
            samples.first().map(|it| it.0),
            samples.last().map(|it| it.0),
        );
        if ends != (Some(chunk.min_ms), Some(chunk.max_ms)) {
            return corrupt("its times are not those announced");
        }
        if samples.len() <= RESUMED_SAMPLES_MAX {
            for (timestamp_ms, sample) in samples {
                if self.buffered(timestamp_ms).is_none() {
                    self.insert(timestamp_ms, sample, latest);
                }
            }
        } else {
            self.sealed.push(LateChunk { epoch, chunk });
            self.sealed.sort_by_key(|late| late.chunk.min_ms);
        }
        Ok(())
    }

    /// The memory held outside of itself, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let data: usize = self.sealed.iter().map(|late| late.chunk.data.len()).sum();
        let histograms = self.buffer.iter().map(|(_, sample)| match sample {
            LateSample::Float(_) => 0,
            LateSample::Histogram(histogram, _) => histogram.bytes(),
        });
        self.buffer.capacity() * size_of::<(i64, LateSample)>()
            + self.sealed.capacity() * size_of::<LateChunk>()
            + histograms.sum::<usize>()
            + data
    }
}

impl LateChunk {
    /// The times of which its samples are in a block.
    fn held_by(&self, cuts: &[LateCut]) -> Vec<TimeRange> {
        let holding = cuts.iter().filter(|cut| cut.until >= self.epoch);
        holding.map(|cut| cut.range).collect()
    }
}

fn encode_buffer(buffer: &[(i64, LateSample)]) -> Vec<Chunk> {
    if buffer.is_empty() {
        return Vec::new();
    }
    let mut columns = Columns::default();
    let mut all = Counts::Integer;
    for (timestamp_ms, sample) in buffer {
        match sample {
            LateSample::Float(value) => columns.push(*timestamp_ms, *value),
            LateSample::Histogram(histogram, counts) => {
                if *counts == Counts::Float {
                    all = Counts::Float;
                }
                columns
                    .histograms
                    .push((*timestamp_ms, Arc::clone(histogram)));
            }
        }
    }
    encode(&columns, all)
}

/// What concerns late samples only.
impl MemSeries {
    /// The time of the oldest late sample.
    pub(crate) fn late_first_ms(&self) -> Option<i64> {
        self.extra.as_ref()?.late.first_ms()
    }

    /// Puts back a late sample from the log, if it is not there; says whether it was put.
    pub(crate) fn restore_late(
        &mut self,
        timestamp_ms: i64,
        sample: LateSample,
        epoch: Epoch,
    ) -> bool {
        let is_new = self.known_at(timestamp_ms).is_none();
        if is_new {
            let extra = self.extra.get_or_insert_default();
            extra.late.insert(timestamp_ms, sample, epoch);
        }
        is_new
    }

    /// Whether there are late samples.
    pub(crate) fn has_late(&self) -> bool {
        self.extra
            .as_ref()
            .is_some_and(|extra| !extra.late.is_empty())
    }

    /// Makes chunks of all late samples.
    pub(crate) fn seal_late(&mut self, epoch: Epoch) {
        if let Some(extra) = &mut self.extra {
            extra.late.seal(epoch);
        }
    }

    /// The late samples of `range` that are to be cut, as chunks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a chunk cannot be decoded.
    pub(crate) fn uncut_late(&self, range: TimeRange, uncut: &Uncut) -> Result<Vec<Chunk>, Error> {
        match &self.extra {
            Some(extra) => extra.late.uncut(range, uncut.until, &uncut.cuts),
            None => Ok(Vec::new()),
        }
    }

    /// Drops the late samples that the cuts hold.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a chunk cannot be decoded.
    pub(crate) fn drop_late(&mut self, cuts: &[LateCut]) -> Result<(), Error> {
        if let Some(extra) = &mut self.extra {
            extra.late.drop_cut(cuts)?;
        }
        if self.extra.as_ref().is_some_and(|extra| extra.is_unused()) {
            self.extra = None;
        }
        Ok(())
    }

    /// Deletes the late samples of a range, and says whether there were any around those times.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a chunk cannot be decoded; then nothing is deleted.
    pub(super) fn delete_late(&mut self, range: TimeRange) -> Result<bool, Error> {
        match &mut self.extra {
            Some(extra) => extra.late.delete(range),
            None => Ok(false),
        }
    }

    /// Calls `each` with all late samples as chunks, and with their epochs; `epoch` is that of the
    /// newest.
    pub(crate) fn for_each_late(&self, epoch: Epoch, each: impl FnMut(Epoch, &Chunk)) {
        if let Some(extra) = &self.extra {
            extra.late.for_each(epoch, each);
        }
    }

    /// Puts back late samples from a snapshot.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the chunk is of a kind that no head writes, or is not what its times
    /// say.
    pub(crate) fn restore_late_chunk(
        &mut self,
        chunk: Chunk,
        epoch: Epoch,
        latest: Epoch,
    ) -> Result<(), Error> {
        let extra = self.extra.get_or_insert_default();
        extra.late.restore(chunk, epoch, latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(chunks: &[Chunk]) -> Vec<i64> {
        let mut columns = Columns::default();
        crate::merge::read_samples(chunks, TimeRange::ALL, &mut columns).unwrap();
        columns.timestamps
    }

    fn all(late: &Late) -> Vec<i64> {
        times(&late.chunks(TimeRange::ALL).collect::<Vec<_>>())
    }

    const ONE: LateSample = LateSample::Float(1.0);

    fn cut(min_ms: i64, max_ms: i64, until: u64) -> LateCut {
        let range = TimeRange::new(min_ms, max_ms);
        LateCut {
            range,
            until: Epoch(until),
        }
    }

    #[test]
    fn samples_come_out_in_order_whatever_order_they_came_in() {
        let mut late = Late::default();
        for i in 0..200 {
            late.insert((i * 77) % 200, ONE, Epoch(0));
        }
        assert_eq!(late.sealed.len(), 3);
        assert_eq!(all(&late), (0..200).collect::<Vec<_>>());
        assert_eq!(late.first_ms(), Some(0));
    }

    #[test]
    fn a_cut_holds_what_is_in_its_range_and_epochs() {
        let mut late = Late::default();
        for t in [10, 20, 30] {
            late.insert(t, ONE, Epoch(1));
        }
        late.seal(Epoch(1));
        late.insert(15, ONE, Epoch(2));
        late.seal(Epoch(2));
        late.insert(12, ONE, Epoch(3));
        let check = |range: (i64, i64), until, cuts: &[LateCut], expected: &[i64]| {
            let range = TimeRange::new(range.0, range.1);
            let found = late.uncut(range, Epoch(until), cuts).unwrap();
            assert_eq!(times(&found), expected);
        };
        check((0, 100), 1, &[], &[10, 20, 30]);
        check((0, 100), 3, &[], &[10, 15, 20, 30]);
        check((15, 20), 3, &[], &[15, 20]);
        check((0, 100), 3, &[cut(0, 20, 1)], &[15, 30]);
        check(
            (i64::MIN, i64::MAX),
            3,
            &[cut(0, 12, 2), cut(30, 40, 2)],
            &[15, 20],
        );
        late.drop_cut(&[cut(0, 20, 1)]).unwrap();
        assert_eq!(all(&late), [12, 15, 30]);
        late.drop_cut(&[cut(0, 100, 9)]).unwrap();
        assert_eq!(all(&late), [12], "the buffer is not cut");
    }

    #[test]
    fn what_goes_back_into_the_buffer_is_of_the_latest_epoch() {
        let mut late = Late::default();
        let chunk = |t| encode_buffer(&[(t, ONE)]).remove(0);
        late.restore(chunk(50), Epoch(7), Epoch(7)).unwrap();
        // The sample at 50 came after a cut of its time up to epoch 6; the others were in no cut.
        for t in 150..213 {
            late.restore(chunk(t), Epoch(5), Epoch(7)).unwrap();
        }
        assert_eq!((late.sealed.len(), late.buffer.len()), (1, 0));
        late.drop_cut(&[cut(0, 100, 6)]).unwrap();
        assert_eq!(late.first_ms(), Some(50));
    }

    #[test]
    fn chunks_come_back_from_a_snapshot() {
        let mut late = Late::default();
        for t in 0..100 {
            late.insert(t, LateSample::Float(t as f64), Epoch(1));
        }
        let mut restored = Late::default();
        let mut epochs = Vec::new();
        late.for_each(Epoch(7), |epoch, chunk| {
            epochs.push(epoch.0);
            restored.restore(chunk.clone(), epoch, epoch).unwrap();
        });
        assert_eq!(epochs, [1, 7]);
        assert_eq!((restored.sealed.len(), restored.buffer.len()), (2, 0));
        assert_eq!(all(&restored), all(&late));
    }
}
