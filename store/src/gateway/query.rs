//! What belongs to one request: its limits, its memory, and what it has read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use isobar_model::{Budget, OverBudget};

use crate::api::StoreError;
use crate::cache::ranges::Tally;

/// The samples that Thanos takes for a chunk when it counts them.
pub const SAMPLES_PER_CHUNK: u64 = 120;

/// What one request may do; 0 stands for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Series of all blocks that may match (`--store.grpc.touched-series-limit`).
    pub touched_series: u64,
    /// Samples of these, counted as 120 for each chunk (`--store.grpc.series-sample-limit`).
    pub samples: u64,
    /// Bytes that may be fetched from the bucket (`--store.grpc.downloaded-bytes-limit`).
    pub downloaded_bytes: u64,
    /// Series that may be given (`--store.limits.request-series`).
    pub request_series: u64,
    /// Samples that may be given, counted as above (`--store.limits.request-samples`).
    pub request_samples: u64,
}

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one request, or all of them, have read, as Thanos' `hintspb.QueryStats` has it.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl Stats {
            /// Adds all of `other`.
            pub fn add(&self, other: &Stats) {
                $(self.$name.fetch_add(other.$name.load(Ordering::Relaxed), Ordering::Relaxed);)*
            }
        }
    };
}

stats! {
    /// Blocks that were asked.
    blocks_queried,
    /// Series that were given.
    merged_series_count,
    /// Chunks that were given.
    merged_chunks_count,
    /// Lists of series that were looked at.
    postings_touched,
    /// Their bytes.
    postings_touched_bytes,
    /// Bytes of lists that were fetched from the bucket.
    postings_fetched_bytes,
    /// Requests for lists.
    postings_fetches,
    /// Series that were looked at.
    series_touched,
    /// Their bytes.
    series_touched_bytes,
    /// Bytes of series that were fetched from the bucket.
    series_fetched_bytes,
    /// Requests for series.
    series_fetches,
    /// Chunks that were looked at.
    chunks_touched,
    /// Their bytes.
    chunks_touched_bytes,
    /// Bytes of chunks that were fetched from the bucket.
    chunks_fetched_bytes,
    /// Requests for chunks.
    chunks_fetches,
    /// Chunks that were longer than expected and were read once more.
    chunk_refetches,
    /// Microseconds until it was its turn.
    gate_waited_us,
    /// Times that too many series matched.
    series_refused,
    /// Times that these had too many chunks.
    chunks_refused,
    /// Times that too many bytes had to be fetched.
    bytes_refused,
}

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Postings,
    Series,
    Chunks,
}

/// One request.
pub(super) struct Query {
    limits: Limits,
    pub(super) budget: Arc<Budget>,
    pub(super) stats: Stats,
    series: AtomicU64,
    chunks: AtomicU64,
    bytes: AtomicU64,
    given_series: AtomicU64,
    given_samples: AtomicU64,
}

impl Query {
    pub(super) fn new(limits: Limits, budget: Arc<Budget>) -> Self {
        Query {
            limits,
            budget,
            stats: Stats::default(),
            series: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            given_series: AtomicU64::new(0),
            given_samples: AtomicU64::new(0),
        }
    }

    /// Counts series of a block that match, and their chunks.
    pub(super) fn matched(&self, series: u64, chunks: u64) -> Result<(), StoreError> {
        let stats = &self.stats;
        reserve(&self.series, series, self.limits.touched_series)
            .inspect_err(|_| count(&stats.series_refused))
            .map_err(|why| StoreError::LimitExceeded(format!("exceeded series limit: {why}")))?;
        let limit = match self.limits.samples {
            0 => 0,
            samples => (samples / SAMPLES_PER_CHUNK).max(1),
        };
        reserve(&self.chunks, chunks, limit)
            .inspect_err(|_| count(&stats.chunks_refused))
            .map_err(|why| StoreError::LimitExceeded(format!("exceeded chunks limit: {why}")))
    }

    /// Counts what a read has fetched.
    pub(super) fn fetched(&self, what: Subject, tally: &Tally) -> Result<(), StoreError> {
        let stats = &self.stats;
        let (bytes, fetches, name) = match what {
            Subject::Postings => (
                &stats.postings_fetched_bytes,
                &stats.postings_fetches,
                "postings",
            ),
            Subject::Series => (&stats.series_fetched_bytes, &stats.series_fetches, "series"),
            Subject::Chunks => (&stats.chunks_fetched_bytes, &stats.chunks_fetches, "chunks"),
        };
        let fetched = tally.fetched_bytes.load(Ordering::Relaxed);
        bytes.fetch_add(fetched, Ordering::Relaxed);
        fetches.fetch_add(tally.requests.load(Ordering::Relaxed), Ordering::Relaxed);
        reserve(&self.bytes, fetched, self.limits.downloaded_bytes)
            .inspect_err(|_| count(&stats.bytes_refused))
            .map_err(|why| {
                let text = format!("exceeded bytes limit while fetching {name}: {why}");
                StoreError::LimitExceeded(text)
            })
    }

    /// Counts what is given to the caller.
    pub(super) fn give(&self, series: u64, chunks: u64) -> Result<(), StoreError> {
        let stats = &self.stats;
        stats
            .merged_series_count
            .fetch_add(series, Ordering::Relaxed);
        stats
            .merged_chunks_count
            .fetch_add(chunks, Ordering::Relaxed);
        reserve(&self.given_series, series, self.limits.request_series)
            .map_err(|why| StoreError::LimitExceeded(format!("failed to send series: {why}")))?;
        let samples = chunks.saturating_mul(SAMPLES_PER_CHUNK);
        reserve(&self.given_samples, samples, self.limits.request_samples)
            .map_err(|why| StoreError::LimitExceeded(format!("failed to send samples: {why}")))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn reserve(counter: &AtomicU64, count: u64, limit: u64) -> Result<(), String> {
    let before = counter.fetch_add(count, Ordering::Relaxed);
    let now = before.saturating_add(count);
    if limit > 0 && now > limit {
        return Err(format!("limit {limit} violated (got {now})"));
    }
    Ok(())
}

pub(super) fn over_budget(error: OverBudget) -> StoreError {
    StoreError::LimitExceeded(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_speak_as_thanos_does() {
        let limits = Limits {
            touched_series: 10,
            samples: 600,
            downloaded_bytes: 100,
            request_series: 3,
            request_samples: 240,
        };
        let query = Query::new(limits, Budget::new("the memory of the test", 1));
        let text = |result: Result<(), StoreError>| match result {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(text(query.matched(10, 5)), "");
        let expected = "exceeded series limit: limit 10 violated (got 11)";
        assert_eq!(text(query.matched(1, 0)), expected);
        let query = Query::new(limits, Budget::new("the memory of the test", 1));
        let expected = "exceeded chunks limit: limit 5 violated (got 6)";
        assert_eq!(text(query.matched(1, 6)), expected);
        let tally = Tally::default();
        tally.fetched_bytes.store(101, Ordering::Relaxed);
        let expected = "exceeded bytes limit while fetching chunks: limit 100 violated (got 101)";
        assert_eq!(text(query.fetched(Subject::Chunks, &tally)), expected);
        assert_eq!(text(query.give(3, 2)), "");
        let expected = "failed to send samples: limit 240 violated (got 360)";
        assert_eq!(text(query.give(0, 1)), expected);
        let expected = "failed to send series: limit 3 violated (got 4)";
        assert_eq!(text(query.give(1, 0)), expected);
    }
}
