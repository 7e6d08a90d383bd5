//! Times in unix milliseconds, ranges of them, and the clock that is passed in.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A closed range of unix times in milliseconds: both ends belong to it. Empty when `min > max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first time that belongs to the range.
    pub min_ms: i64,
    /// The last time that belongs to the range.
    pub max_ms: i64,
}

impl TimeRange {
    /// All of time.
    pub const ALL: TimeRange = TimeRange {
        min_ms: i64::MIN,
        max_ms: i64::MAX,
    };

    /// The range from `min_ms` to `max_ms`, both included.
    pub fn new(min_ms: i64, max_ms: i64) -> Self {
        TimeRange { min_ms, max_ms }
    }

    /// Whether `timestamp_ms` belongs to the range.
    pub fn contains(&self, timestamp_ms: i64) -> bool {
        self.min_ms <= timestamp_ms && timestamp_ms <= self.max_ms
    }

    /// Whether some time belongs to both ranges.
    pub fn overlaps(&self, other: &TimeRange) -> bool {
        self.min_ms <= other.max_ms && other.min_ms <= self.max_ms
    }

    /// The smallest range that holds both.
    pub fn union(&self, other: &TimeRange) -> TimeRange {
        TimeRange::new(self.min_ms.min(other.min_ms), self.max_ms.max(other.max_ms))
    }
}

/// Tells the time. Passed in wherever time matters, so that a test can hold it.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's wall clock.
    pub fn system() -> Self {
        Clock(Source::System)
    }

    /// A clock that stands at `now_ms` until [`Clock::advance`] moves it.
    pub fn manual(now_ms: i64) -> Self {
        Clock(Source::Manual(Arc::new(AtomicI64::new(now_ms))))
    }

    /// The time in unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => system_now_ms(),
            Source::Manual(now) => now.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock on by `by_ms`; the system clock is not moved.
    pub fn advance(&self, by_ms: i64) {
        if let Source::Manual(now) = &self.0 {
            now.fetch_add(by_ms, Ordering::SeqCst);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now_ms())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one clock that the others stand for"
)]
fn system_now_ms() -> i64 {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}
