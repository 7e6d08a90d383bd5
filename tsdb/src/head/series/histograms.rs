//! The native histograms of a series that are being written: an open chunk beside that of floats.
//!
//! Only one of the two is open at a time: when a series changes between floats and histograms, the
//! open chunk of the other kind is sealed, so that chunks follow each other in time.

use std::sync::Arc;

use isobar_model::histogram::CounterReset;
use isobar_model::{FloatHistogram, TimeRange};

use crate::Error;
use crate::chunks::Chunk;
use crate::chunks::histogram::{Counts, HistogramAppender, goes_on, header, is_integral};

use super::CHUNK_SAMPLES_MAX;

/// A chunk of histograms ends at this size, if it has some samples: as in Prometheus, since buckets
/// make samples of any size (`TargetBytesPerHistogramChunk`, `MinSamplesPerHistogramChunk`).
const CHUNK_BYTES_MAX: usize = 1024;
const CHUNK_SAMPLES_MIN: u16 = 10;

/// The open chunk of histograms, and what is needed to begin the next.
#[derive(Debug, Default)]
pub(super) struct OpenHistograms {
    open: Option<HistogramAppender>,
    /// What the newest sample of the open chunk says of resets; the rest of it is known there.
    hint: CounterReset,
    /// The newest sample of the series when no chunk is open, unless it is a float: for the flags of
    /// the next chunk.
    last: Option<Arc<FloatHistogram>>,
}

impl OpenHistograms {
    /// Whether the newest sample of the series is a histogram.
    pub(super) fn has_newest(&self) -> bool {
        self.open.is_some() || self.last.is_some()
    }

    /// The times of the first and the last sample of the open chunk.
    pub(super) fn range(&self) -> Option<TimeRange> {
        self.open.as_ref()?.range()
    }

    /// Adds a sample, newer than all others. The chunk that was open is given back when the sample
    /// begins a new one: `cut` says so where times ask for it.
    pub(super) fn append(
        &mut self,
        time_ms: i64,
        mut histogram: Arc<FloatHistogram>,
        counts: Counts,
        cut: bool,
    ) -> Option<Chunk> {
        if histogram.hint == CounterReset::NotReset {
            // The sender's sample before this one need not be the one that is here.
            Arc::make_mut(&mut histogram).hint = CounterReset::Unknown;
        }
        let counts = self.counts_of(&histogram, counts);
        let last = self.newest();
        let goes_on = match (&self.open, &last) {
            (Some(open), Some(last)) => {
                !cut && !is_full(open) && open.counts() == counts && goes_on(last, &histogram)
            }
            _ => false,
        };
        let sealed = match goes_on {
            true => None,
            false => self.seal_open(),
        };
        let open = self.open.get_or_insert_with(|| {
            let header = header(last.as_ref(), &histogram);
            HistogramAppender::new(&histogram, counts, header)
        });
        open.append(time_ms, &histogram);
        self.hint = histogram.hint;
        self.last = None;
        sealed
    }

    /// The newest sample of the series.
    fn newest(&self) -> Option<FloatHistogram> {
        match &self.open {
            Some(open) => Some(FloatHistogram {
                hint: self.hint,
                ..open.newest()?
            }),
            None => self.last.as_deref().cloned(),
        }
    }

    /// How a sample is encoded: a staleness marker as what is before it, and integers that are too
    /// large as floats.
    fn counts_of(&self, histogram: &FloatHistogram, counts: Counts) -> Counts {
        match &self.open {
            Some(open) if histogram.is_stale() => open.counts(),
            _ if counts == Counts::Integer && !is_integral(histogram) => Counts::Float,
            _ => counts,
        }
    }

    fn seal_open(&mut self) -> Option<Chunk> {
        self.open.take().and_then(HistogramAppender::into_chunk)
    }

    /// Ends the open chunk because a float follows.
    pub(super) fn seal(&mut self) -> Option<Chunk> {
        self.last = None;
        self.seal_open()
    }

    /// Drops the open chunk when it ends before `before_ms`.
    pub(super) fn truncate(&mut self, before_ms: i64) {
        if self.range().is_some_and(|range| range.max_ms < before_ms) {
            self.last = self.newest().map(Arc::new);
            self.open = None;
        }
    }

    /// A copy of the open chunk.
    pub(super) fn to_chunk(&self) -> Option<Chunk> {
        self.open.as_ref()?.to_chunk()
    }

    /// Goes on with a chunk from a snapshot; gives it back when it is full.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the chunk is not one that a head writes.
    pub(super) fn resume(&mut self, chunk: Chunk) -> Result<Option<Chunk>, Error> {
        let Some((open, last)) = HistogramAppender::resume(&chunk)? else {
            return Err(Error::corrupt("snapshot chunk", "it is empty"));
        };
        if open.range() != Some(chunk.range()) {
            let why = "its times are not those announced";
            return Err(Error::corrupt("snapshot chunk", why));
        }
        if open.sample_count() >= CHUNK_SAMPLES_MAX {
            self.last = Some(last);
            return Ok(Some(chunk));
        }
        self.hint = last.hint;
        self.open = Some(open);
        Ok(None)
    }

    /// The memory held, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let open = self.open.as_ref().map_or(0, HistogramAppender::heap_bytes);
        open + self.last.as_ref().map_or(0, |last| last.bytes())
    }
}

/// Whether the next sample has to go into another chunk.
fn is_full(open: &HistogramAppender) -> bool {
    let count = open.sample_count();
    count >= CHUNK_SAMPLES_MAX
        || (count >= CHUNK_SAMPLES_MIN && open.byte_count() >= CHUNK_BYTES_MAX)
}

/// Whether two samples of the same time say the same: buckets without observations do not count,
/// because all samples of a chunk have the same buckets.
pub(super) fn same_sample(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let compact = |it: &FloatHistogram| {
        let mut it = it.clone();
        it.compact();
        it
    };
    (a.is_stale() && b.is_stale()) || a == b || compact(a) == compact(b)
}

#[cfg(test)]
mod tests {
    use isobar_model::histogram::Buckets;

    use super::*;

    /// Gives the number of samples and the bytes of each chunk that is sealed.
    fn sealed(buckets: i32, samples: i64) -> Vec<(u16, usize)> {
        let mut histograms = OpenHistograms::default();
        let mut chunks = Vec::new();
        for at in 0..samples {
            let counts = (0..buckets).map(|bucket| (at * i64::from(37 + bucket * 11 % 29)) as f64);
            let counts: Vec<f64> = counts.collect();
            let histogram = FloatHistogram {
                count: counts.iter().sum(),
                sum: at as f64 * 0.37,
                positive: Buckets::of_layout((0..buckets).collect(), counts).unwrap(),
                ..FloatHistogram::default()
            };
            let (time_ms, histogram) = (at * 15_000, Arc::new(histogram));
            let chunk = histograms.append(time_ms, histogram, Counts::Integer, false);
            chunks.extend(chunk.map(|it| (it.sample_count().unwrap(), it.data.len())));
        }
        chunks
    }

    #[test]
    fn chunks_end_at_a_size_or_a_count() {
        let few = sealed(1, 500);
        assert!(few.iter().all(|it| it.0 == CHUNK_SAMPLES_MAX) && few.len() == 4);
        let many = sealed(300, 100);
        let inside = |it: &(u16, usize)| it.0 >= 10 && (1024..1500).contains(&it.1);
        assert!(!many.is_empty() && many.iter().all(inside), "{many:?}");
        // A minimum of samples keeps what is said once for all of them small.
        let most = sealed(5000, 25);
        assert_eq!(most.iter().map(|it| it.0).collect::<Vec<_>>(), [10, 10]);
    }
}
