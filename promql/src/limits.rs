//! What bounds a query, and how it is called off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bounds of one query.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most samples held in memory at one time (Prometheus' `--query.max-samples`).
    pub samples_max: u64,
    /// Most steps of a range query, inner steps of a subquery included.
    pub steps_max: u64,
    /// Most series that the selects of a query may give.
    pub series_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            samples_max: 50_000_000,
            steps_max: 1_000_000,
            series_max: 10_000_000,
        }
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
