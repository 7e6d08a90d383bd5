//! How much memory the head takes, and what becomes of new series when that is too much.
//!
//! The figure is an estimate: what series, chunks and tables were found to take when they were
//! looked at last, and what has been entered into the index since. It is reserved from the budget of
//! the process, so that queries get what is left. What is in the head is never refused its place:
//! series that exist live on, and only new ones are turned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use isobar_model::budget::{Budget, Reservation};
use parking_lot::Mutex;

use super::series::MemSeries;

/// What a new series takes beside its labels until it is looked at: its slot, its key, and its first
/// chunk.
const NEW_SERIES_BYTES: u64 = size_of::<Option<MemSeries>>() as u64 + 32 + 200;

/// The memory of the head.
#[derive(Debug, Default)]
pub(super) struct HeadMemory {
    /// The share of the head in the memory of the process, if there is a limit, and what is held of it.
    share: Option<(Arc<Budget>, Mutex<Reservation>)>,
    /// Series, chunks and their tables, when they were looked at last.
    series: AtomicU64,
    /// Series that were made since.
    new: AtomicU64,
    /// Labels and what finds them.
    index: AtomicU64,
}

impl HeadMemory {
    pub(super) fn new(share: Option<Arc<Budget>>) -> Self {
        let share = share.map(|budget| {
            let held = budget.reservation("the head");
            (budget, Mutex::new(held))
        });
        HeadMemory {
            share,
            ..HeadMemory::default()
        }
    }

    /// Bytes, estimated.
    pub(super) fn bytes(&self) -> u64 {
        let of_new = self.new.load(Ordering::Relaxed) * NEW_SERIES_BYTES;
        self.series.load(Ordering::Relaxed) + self.index.load(Ordering::Relaxed) + of_new
    }

    /// From how many bytes on no new series is taken; `None` when there is no limit.
    pub(super) fn limit(&self) -> Option<u64> {
        self.share.as_ref().map(|(budget, _)| budget.limit())
    }

    /// Takes note of what series, chunks and tables take, and of the index.
    pub(super) fn note_all(&self, series: usize, index: usize) {
        self.series.store(series as u64, Ordering::Relaxed);
        self.new.store(0, Ordering::Relaxed);
        self.note_index(index);
    }

    /// Takes note of what the index takes.
    pub(super) fn note_index(&self, index: usize) {
        self.index.store(index as u64, Ordering::Relaxed);
        if let Some((budget, held)) = &self.share {
            held.lock().hold(self.bytes().min(budget.limit()));
        }
    }

    /// Takes note of a series that is made.
    pub(super) fn note_new(&self) {
        self.new.fetch_add(1, Ordering::Relaxed);
    }
}
