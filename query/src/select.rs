//! The selects of a plan answered by a [`Store`]: batches are fetched as the evaluator asks for
//! them, and each series decodes its chunks into columns.
//!
//! Evaluation runs on the compute pool as a rule; waiting for a store blocks that thread, and ends
//! when the query is called off. On a thread that must not wait ([`Waits::Never`]) a select gives
//! up instead, as it does when it has more series than were expected.
//!
//! Without deduplication series pass through batch by batch. With it ([`crate::replicas`]), those
//! of a select are collected first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use isobar_model::series::Select;
use isobar_model::{
    Budget, Reservation, SelectError, Series, SeriesSource, SeriesStream, TimeRange, Warnings,
};
use isobar_promql::limits::CancelToken;
use isobar_store::api::{SeriesBatch, SeriesStream as StoreStream};
use isobar_store::{SeriesRequest, Store, StoreError};
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::Chunk;
use isobar_tsdb::merge::splice::ReadFor;
use tokio::runtime::Handle;

use crate::replicas::Deduplication;

/// How often a wait for a store looks whether the query was called off.
const CANCEL_CHECK: Duration = Duration::from_millis(50);

/// What a thread that reads from a store may do when there is nothing to read yet.
#[derive(Debug, Clone)]
pub(crate) enum Waits {
    /// Wait; this runtime drives what the store waits for. The thread must not be one of its own.
    With(Handle),
    /// Nothing, for it has others to serve. The selects of the query give up when they would have
    /// to wait, and when they have more than `series_max` series altogether.
    Never {
        /// Most series.
        series_max: usize,
    },
}

/// Opens selects on a store.
pub(crate) struct StoreSource<'q> {
    store: Arc<dyn Store>,
    waits: &'q Waits,
    cancel: &'q CancelToken,
    replicas: Replicas,
    /// The series read so far.
    series: AtomicUsize,
    given_up: AtomicBool,
}

/// What is done with replicas in one query.
#[derive(Debug, Clone)]
pub(crate) struct Replicas {
    /// What is deduplicated, and how.
    pub(crate) deduplication: Deduplication,
    /// The times that all selects of the query look at.
    pub(crate) range: TimeRange,
    /// How far an instant selector looks back, in milliseconds.
    pub(crate) lookback_ms: i64,
    /// Most series of a select that are collected.
    pub(crate) series_max: u64,
    /// Where the memory of those comes from.
    pub(crate) memory: Arc<Budget>,
}

impl<'q> StoreSource<'q> {
    /// A source over `store` for one query, which `cancel` calls off.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        waits: &'q Waits,
        cancel: &'q CancelToken,
        replicas: Replicas,
    ) -> Self {
        StoreSource {
            store,
            waits,
            cancel,
            replicas,
            series: AtomicUsize::new(0),
            given_up: AtomicBool::new(false),
        }
    }

    /// How many series were read.
    pub(crate) fn series_read(&self) -> usize {
        self.series.load(Ordering::Relaxed)
    }

    /// Whether a select has given up ([`Waits::Never`]).
    pub(crate) fn has_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    fn give_up(&self) -> SelectError {
        self.given_up.store(true, Ordering::Relaxed);
        SelectError::Cancelled
    }
}

impl SeriesSource for StoreSource<'_> {
    fn open(
        &self,
        _index: usize,
        select: &Select,
    ) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        let request = SeriesRequest {
            hints: select.hints.clone(),
            ..SeriesRequest::new(select.matchers.clone(), select.range)
        };
        Ok(Box::new(SelectStream {
            source: self,
            batches: BatchReader::new(self.store.series(request), self.cancel),
            function: ReadFor::new(&select.hints, self.replicas.lookback_ms),
            done: false,
            heap_bytes: 0,
            memory: self
                .replicas
                .memory
                .reservation("the series of a selector with replicas"),
            warnings: Warnings::default(),
        }))
    }
}

struct SelectStream<'s> {
    source: &'s StoreSource<'s>,
    batches: BatchReader,
    function: ReadFor,
    done: bool,
    /// What the chunks of the last batch keep in memory.
    heap_bytes: usize,
    memory: Reservation,
    warnings: Warnings,
}

impl SelectStream<'_> {
    /// The next series of the store; `None` when there is none left.
    fn next_series(&mut self) -> Result<Option<Vec<SeriesChunks>>, SelectError> {
        while !self.done {
            let batch = match self.source.waits {
                Waits::With(runtime) => self.batches.next(runtime),
                Waits::Never { .. } => match self.batches.ready() {
                    Some(batch) => batch,
                    None => return Err(self.source.give_up()),
                },
            };
            match batch.map_err(select_error)? {
                None => self.done = true,
                Some(SeriesBatch::Warnings(warnings)) => self.warnings.merge(warnings),
                Some(SeriesBatch::Series(series)) if series.is_empty() => {}
                Some(SeriesBatch::Series(series)) => {
                    self.count(series.len())?;
                    return Ok(Some(series));
                }
            }
        }
        Ok(None)
    }

    /// Counts series that were read.
    fn count(&self, more: usize) -> Result<(), SelectError> {
        let count = self.source.series.fetch_add(more, Ordering::Relaxed) + more;
        match self.source.waits {
            Waits::Never { series_max } if count > *series_max => Err(self.source.give_up()),
            _ => Ok(()),
        }
    }

    /// All series of the store.
    fn collect(&mut self) -> Result<Vec<SeriesChunks>, SelectError> {
        let mut all: Vec<SeriesChunks> = Vec::new();
        let mut bytes = 0;
        while let Some(series) = self.next_series()? {
            let size = |it: &SeriesChunks| {
                let chunks = it.chunks.len() * size_of::<Chunk>();
                // Sorting makes labels anew.
                size_of::<Series>() + 2 * it.labels.as_bytes().len() + chunks + it.heap_bytes
            };
            bytes += series.iter().map(size).sum::<usize>();
            let memory = self.memory.grow_to(bytes);
            memory.map_err(|error| SelectError::LimitExceeded(error.to_string()))?;
            all.extend(series);
            let most = self.source.replicas.series_max;
            if all.len() as u64 > most {
                return Err(SelectError::LimitExceeded(format!(
                    "query selects more than {most} series, replicas counted each"
                )));
            }
        }
        Ok(all)
    }
}

impl SeriesStream for SelectStream<'_> {
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError> {
        let range = self.source.replicas.range;
        let deduplication = &self.source.replicas.deduplication;
        if !deduplication.is_off() {
            let all = self.collect()?;
            let more = !all.is_empty();
            self.heap_bytes = all.iter().map(|it| it.heap_bytes).sum();
            batch.extend(deduplication.apply(all, self.function, range));
            // What stays is reserved by whoever asked for it.
            self.memory.shrink_to(0);
            return Ok(more);
        }
        let Some(series) = self.next_series()? else {
            return Ok(false);
        };
        self.heap_bytes = series.iter().map(|it| it.heap_bytes).sum();
        batch.extend(series.into_iter().map(|series| Series {
            labels: series.labels,
            samples: deduplication.alone(series.chunks, self.function, range),
        }));
        Ok(true)
    }

    fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }

    fn take_warnings(&mut self) -> Warnings {
        std::mem::take(&mut self.warnings)
    }
}

/// Reads a store's answer in sync code.
pub(crate) struct BatchReader {
    stream: StoreStream,
    cancel: CancelToken,
}

impl BatchReader {
    pub(crate) fn new(stream: StoreStream, cancel: &CancelToken) -> Self {
        BatchReader {
            stream,
            cancel: cancel.clone(),
        }
    }

    /// The next batch, `Ok(None)` at the end, if that needs no waiting. To be called in the context
    /// of a runtime.
    ///
    /// # Errors
    /// Those of the store, and [`StoreError::Cancelled`] when the query was called off.
    fn ready(&mut self) -> Option<Result<Option<SeriesBatch>, StoreError>> {
        if self.cancel.reason().is_some() {
            return Some(Err(StoreError::Cancelled));
        }
        Some(self.stream.next().now_or_never()?.transpose())
    }

    /// The next batch; `None` at the end. `runtime` drives what the store waits for.
    ///
    /// # Errors
    /// As those of [`BatchReader::ready`].
    pub(crate) fn next(&mut self, runtime: &Handle) -> Result<Option<SeriesBatch>, StoreError> {
        {
            let _timers_and_sockets = runtime.enter();
            if let Some(batch) = self.ready() {
                return batch;
            }
        }
        let Self { stream, cancel } = self;
        runtime.block_on(async {
            loop {
                if cancel.reason().is_some() {
                    return Err(StoreError::Cancelled);
                }
                match tokio::time::timeout(CANCEL_CHECK, stream.next()).await {
                    Ok(batch) => return batch.transpose(),
                    Err(_still_waiting) => {}
                }
            }
        })
    }
}

fn select_error(error: StoreError) -> SelectError {
    match error {
        StoreError::Corrupt(text) => SelectError::Corrupt(text),
        StoreError::Unsupported(text) => SelectError::Unsupported(text),
        StoreError::LimitExceeded(text) => SelectError::LimitExceeded(text),
        StoreError::Invalid(text) | StoreError::Unavailable(text) => SelectError::Unavailable(text),
        StoreError::Cancelled => SelectError::Cancelled,
    }
}
