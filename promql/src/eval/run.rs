//! What all operators of one evaluation share: the source, the bounds, the remarks, the counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use isobar_model::series::{Select, Series, SeriesSource, SeriesStream};

use super::EvalError;
use super::remarks::Remarks;
use crate::limits::{CancelReason, CancelToken, Limits};
use crate::plan::Plan;
use crate::value::QueryStats;

/// How many cells may be laid out for each sample that may be held.
const CELLS_PER_SAMPLE: u64 = 4;

/// One evaluation of a plan.
pub(crate) struct Run<'a> {
    selects: &'a [Select],
    readers: &'a [u32],
    source: &'a dyn SeriesSource,
    limits: &'a Limits,
    cancel: &'a CancelToken,
    remarks: Mutex<Remarks>,
    shared: Vec<OnceLock<Arc<Vec<Series>>>>,
    held: AtomicU64,
    peak: AtomicU64,
    queryable: AtomicU64,
    read: AtomicU64,
    series: AtomicU64,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        source: &'a dyn SeriesSource,
        limits: &'a Limits,
        cancel: &'a CancelToken,
    ) -> Self {
        Run {
            selects: &plan.selects,
            readers: &plan.readers,
            source,
            limits,
            cancel,
            remarks: Mutex::default(),
            shared: plan.selects.iter().map(|_| OnceLock::new()).collect(),
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            queryable: AtomicU64::new(0),
            read: AtomicU64::new(0),
            series: AtomicU64::new(0),
        }
    }

    /// Where remarks go.
    pub(crate) fn remarks(&self) -> MutexGuard<'_, Remarks> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when the query was called off.
    pub(crate) fn check(&self) -> Result<(), EvalError> {
        match self.cancel.reason() {
            None => Ok(()),
            Some(CancelReason::Cancelled) => Err(EvalError::Cancelled),
            Some(CancelReason::Timeout) => Err(EvalError::Timeout),
        }
    }

    /// Counts samples that are now held; fails when they are too many.
    pub(crate) fn hold(&self, samples: u64) -> Result<(), EvalError> {
        let held = self.held.fetch_add(samples, Ordering::Relaxed) + samples;
        self.peak.fetch_max(held, Ordering::Relaxed);
        if held > self.limits.samples_max {
            return Err(EvalError::too_many_samples());
        }
        Ok(())
    }

    /// Fails when so many cells, present or not, are more than may be laid out. Rows and
    /// accumulators have a cell for each step, which costs more than the samples held when most
    /// steps have none.
    pub(crate) fn check_cells(&self, cells: usize) -> Result<(), EvalError> {
        if cells as u64 > self.limits.samples_max.saturating_mul(CELLS_PER_SAMPLE) {
            return Err(EvalError::too_many_samples());
        }
        Ok(())
    }

    /// The number of samples held.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Says that of the samples held since `before` only `kept` are left.
    pub(crate) fn release_to(&self, before: u64, kept: u64) -> Result<(), EvalError> {
        self.held.store(before, Ordering::Relaxed);
        self.hold(kept)
    }

    /// Counts samples decoded, and samples looked at.
    pub(crate) fn count_samples(&self, read: u64, queryable: u64) {
        self.read.fetch_add(read, Ordering::Relaxed);
        self.queryable.fetch_add(queryable, Ordering::Relaxed);
    }

    /// Opens a select.
    pub(crate) fn open(&self, index: usize) -> Result<Feed<'_>, EvalError> {
        if self.readers[index] <= 1 {
            let stream = self.source.open(index, &self.selects[index])?;
            return Ok(Feed {
                run: self,
                from: From::Stream {
                    stream: Some(stream),
                    batch: Vec::new().into_iter(),
                },
            });
        }
        if self.shared[index].get().is_none() {
            let mut all = Vec::new();
            let mut stream = self.source.open(index, &self.selects[index])?;
            while stream.next_batch(&mut all)? {
                self.check()?;
                self.check_series(all.len() as u64)?;
            }
            self.remarks().add_from_store(stream.take_warnings());
            self.count_series(all.len() as u64)?;
            // Single-threaded up to here, so nobody else can have set it.
            let _set = self.shared[index].set(Arc::new(all));
        }
        let series = self.shared[index].get().cloned().unwrap_or_default();
        Ok(Feed {
            run: self,
            from: From::Shared { series, at: 0 },
        })
    }

    fn count_series(&self, count: u64) -> Result<(), EvalError> {
        let series = self.series.fetch_add(count, Ordering::Relaxed) + count;
        self.check_series(series)
    }

    fn check_series(&self, series: u64) -> Result<(), EvalError> {
        if series > self.limits.series_max {
            return Err(EvalError::LimitExceeded(format!(
                "query selects more than {} series",
                self.limits.series_max
            )));
        }
        Ok(())
    }

    /// The counters and the remarks.
    pub(crate) fn finish(self) -> (QueryStats, Remarks) {
        let stats = QueryStats {
            samples_queryable: self.queryable.into_inner(),
            samples_read: self.read.into_inner(),
            samples_peak: self.peak.into_inner(),
            series: self.series.into_inner(),
        };
        (
            stats,
            self.remarks
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// The series of a select, one after the other.
pub(crate) struct Feed<'r> {
    run: &'r Run<'r>,
    from: From<'r>,
}

enum From<'r> {
    Stream {
        stream: Option<Box<dyn SeriesStream + 'r>>,
        batch: std::vec::IntoIter<Series>,
    },
    Shared {
        series: Arc<Vec<Series>>,
        at: usize,
    },
}

impl Feed<'_> {
    /// Calls `visit` with the next series; gives `None` when there is none left.
    pub(crate) fn next<T>(
        &mut self,
        visit: impl FnOnce(&Series) -> Result<T, EvalError>,
    ) -> Result<Option<T>, EvalError> {
        match &mut self.from {
            From::Shared { series, at } => {
                let Some(series) = series.get(*at) else {
                    return Ok(None);
                };
                *at += 1;
                visit(series).map(Some)
            }
            From::Stream { stream, batch } => loop {
                if let Some(series) = batch.next() {
                    return visit(&series).map(Some);
                }
                let Some(open) = stream else { return Ok(None) };
                self.run.check()?;
                let mut next = Vec::new();
                let more = open.next_batch(&mut next)?;
                self.run.count_series(next.len() as u64)?;
                *batch = next.into_iter();
                if !more {
                    self.run.remarks().add_from_store(open.take_warnings());
                    *stream = None;
                }
            },
        }
    }
}
