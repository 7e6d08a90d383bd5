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

/// The open chunk of histograms, and what is needed to begin the next.
#[derive(Debug, Default)]
pub(super) struct OpenHistograms {
    open: Option<HistogramAppender>,
    /// The newest sample of the series, as it came, unless that is a float. It stays when its chunk
    /// is sealed, for the flags of the next.
    last: Option<Arc<FloatHistogram>>,
}

impl OpenHistograms {
    /// Whether the newest sample of the series is a histogram.
    pub(super) fn has_newest(&self) -> bool {
        self.last.is_some()
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
        let goes_on = match (&self.open, &self.last) {
            (Some(open), Some(last)) => {
                !cut && open.sample_count() < CHUNK_SAMPLES_MAX
                    && open.counts() == counts
                    && goes_on(last, &histogram)
            }
            _ => false,
        };
        let sealed = match goes_on {
            true => None,
            false => self.seal_open(),
        };
        let open = self.open.get_or_insert_with(|| {
            let header = header(self.last.as_deref(), &histogram);
            HistogramAppender::new(&histogram, counts, header)
        });
        open.append(time_ms, &histogram);
        self.last = Some(histogram);
        sealed
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
        self.last = Some(last);
        if open.sample_count() >= CHUNK_SAMPLES_MAX {
            return Ok(Some(chunk));
        }
        self.open = Some(open);
        Ok(None)
    }

    /// The memory held, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let open = self.open.as_ref().map_or(0, HistogramAppender::heap_bytes);
        open + self.last.as_ref().map_or(0, |last| last.bytes())
    }
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
