//! What bounds a query, and how it is called off.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU8, Ordering};

use isobar_model::Budget;

/// What queries may hold when nothing else is said: 2 GiB.
const MEMORY_MAX: u64 = 2 << 30;

/// Bounds of one query.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most samples held in memory at one time (Prometheus' `--query.max-samples`).
    pub samples_max: u64,
    /// Most steps of a range query, inner steps of a subquery included.
    pub steps_max: u64,
    /// Most series that the selects of a query may give.
    pub series_max: u64,
    /// The memory that queries with these limits may hold, all of them together.
    pub memory: Arc<Budget>,
    /// Most bytes of it that one query may hold.
    pub query_memory_max: u64,
    /// The threads that queries with these limits may compute on, all of them together.
    pub threads: Threads,
}

impl Limits {
    /// The memory of one query, a part of that of all.
    pub fn query_memory(&self) -> Arc<Budget> {
        self.memory
            .child("the memory of one query", self.query_memory_max)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            samples_max: 50_000_000,
            steps_max: 1_000_000,
            series_max: 10_000_000,
            memory: Budget::new("the memory of all queries", MEMORY_MAX),
            query_memory_max: MEMORY_MAX,
            threads: Threads::default(),
        }
    }
}

/// Which bound a query reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`Limits::samples_max`]
    Samples,
    /// [`Limits::steps_max`]
    Steps,
    /// [`Limits::series_max`]
    Series,
    /// [`Limits::query_memory_max`], or [`Limits::memory`].
    Memory,
    /// One of the store that was read.
    Store,
}

impl Limit {
    /// The bound in one word, as a metric's label has it.
    pub fn name(self) -> &'static str {
        match self {
            Limit::Samples => "samples",
            Limit::Steps => "steps",
            Limit::Series => "series",
            Limit::Memory => "memory",
            Limit::Store => "store",
        }
    }
}

/// How many threads may compute at a time. An evaluation runs on its caller's thread in any case,
/// and starts more while some are free. Answers do not depend on it. By default none is free.
#[derive(Debug, Clone, Default)]
pub struct Threads(Arc<AtomicIsize>);

impl Threads {
    /// `count` threads for all who have a copy.
    pub fn new(count: usize) -> Self {
        Threads(Arc::new(AtomicIsize::new(
            isize::try_from(count).unwrap_or(isize::MAX),
        )))
    }

    /// Whether one is free now.
    pub(crate) fn any_free(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// How many are free now; negative when more evaluate than there are threads for.
    #[cfg(test)]
    pub(crate) fn free(&self) -> isize {
        self.0.load(Ordering::Relaxed)
    }

    /// A free thread, if there is one.
    pub(crate) fn take(&self) -> Option<ThreadPermit> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                (free > 0).then_some(free - 1)
            })
            .ok()?;
        Some(ThreadPermit(self.clone()))
    }

    /// Counts the caller's own thread, also when none is free.
    pub(crate) fn enter(&self) -> ThreadPermit {
        self.0.fetch_sub(1, Ordering::Relaxed);
        ThreadPermit(self.clone())
    }
}

/// Gives its thread back when dropped.
#[derive(Debug)]
pub(crate) struct ThreadPermit(Threads);

impl Drop for ThreadPermit {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls a query off from outside. The evaluator looks at it between tiles.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicU8>);

/// Why a query was called off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// Nobody waits for the answer any more.
    Cancelled,
    /// Its time is up.
    Timeout,
}

impl CancelToken {
    /// Calls the query off; the first reason given stays.
    pub fn cancel(&self, reason: CancelReason) {
        let code = match reason {
            CancelReason::Cancelled => 1,
            CancelReason::Timeout => 2,
        };
        // A second reason is of no interest: the query ends either way.
        let _first = self
            .0
            .compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Why the query was called off, if it was.
    pub fn reason(&self) -> Option<CancelReason> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(CancelReason::Cancelled),
            _ => Some(CancelReason::Timeout),
        }
    }
}
