//! The selects of a plan answered by a [`Store`]: batches are fetched as the evaluator asks for
//! them, and each series decodes its chunks into columns.
//!
//! Evaluation runs on the compute pool; waiting for a store blocks that thread, and ends when
//! the query is called off.
//!
//! Without deduplication series pass through batch by batch. With it ([`crate::replicas`]), those
//! of a select are collected first.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
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

/// Opens selects on a store.
pub(crate) struct StoreSource {
    store: Arc<dyn Store>,
    runtime: Handle,
    cancel: CancelToken,
    replicas: Replicas,
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

impl StoreSource {
    /// A source over `store` for one query, which `cancel` calls off. `runtime` drives what the
    /// store waits for; its threads must not be those that read from the source.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        runtime: Handle,
        cancel: CancelToken,
        replicas: Replicas,
    ) -> Self {
        StoreSource {
            store,
            runtime,
            cancel,
            replicas,
        }
    }
}

impl SeriesSource for StoreSource {
    fn open(
        &self,
        _index: usize,
        select: &Select,
    ) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        let request = SeriesRequest {
            matchers: select.matchers.clone(),
            range: select.range,
            hints: select.hints.clone(),
            skip_chunks: false,
            limit: 0,
        };
        let batches = BatchReader::new(self.store.series(request), &self.runtime, &self.cancel);
        Ok(Box::new(SelectStream {
            batches,
            replicas: self.replicas.clone(),
            function: ReadFor::new(&select.hints, self.replicas.lookback_ms),
            done: false,
            memory: self
                .replicas
                .memory
                .reservation("the series of a selector with replicas"),
            warnings: Warnings::default(),
        }))
    }
}

struct SelectStream {
    batches: BatchReader,
    replicas: Replicas,
    function: ReadFor,
    done: bool,
    memory: Reservation,
    warnings: Warnings,
}

impl SelectStream {
    /// The next series of the store; `None` when there is none left.
    fn next_series(&mut self) -> Result<Option<Vec<SeriesChunks>>, SelectError> {
        while !self.done {
            match self.batches.next().map_err(select_error)? {
                None => self.done = true,
                Some(SeriesBatch::Warnings(warnings)) => self.warnings.merge(warnings),
                Some(SeriesBatch::Series(series)) if series.is_empty() => {}
                Some(SeriesBatch::Series(series)) => return Ok(Some(series)),
            }
        }
        Ok(None)
    }

    /// All series of the store.
    fn collect(&mut self) -> Result<Vec<SeriesChunks>, SelectError> {
        let mut all: Vec<SeriesChunks> = Vec::new();
        let mut bytes = 0;
        while let Some(series) = self.next_series()? {
            let size = |it: &SeriesChunks| {
                let chunks = it.chunks.len() * size_of::<Chunk>();
                // Sorting makes labels anew.
                size_of::<Series>() + 2 * it.labels.as_bytes().len() + chunks
            };
            bytes += series.iter().map(size).sum::<usize>();
            let memory = self.memory.grow_to(bytes);
            memory.map_err(|error| SelectError::LimitExceeded(error.to_string()))?;
            all.extend(series);
            let most = self.replicas.series_max;
            if all.len() as u64 > most {
                return Err(SelectError::LimitExceeded(format!(
                    "query selects more than {most} series, replicas counted each"
                )));
            }
        }
        Ok(all)
    }
}

impl SeriesStream for SelectStream {
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError> {
        let range = self.replicas.range;
        if !self.replicas.deduplication.is_off() {
            let all = self.collect()?;
            let deduplication = &self.replicas.deduplication;
            let more = !all.is_empty();
            batch.extend(deduplication.apply(all, self.function, range));
            return Ok(more);
        }
        let Some(series) = self.next_series()? else {
            return Ok(false);
        };
        let deduplication = &self.replicas.deduplication;
        batch.extend(series.into_iter().map(|series| Series {
            labels: series.labels,
            samples: deduplication.alone(series.chunks, self.function, range),
        }));
        Ok(true)
    }

    fn take_warnings(&mut self) -> Warnings {
        std::mem::take(&mut self.warnings)
    }
}

/// Reads a store's answer from a thread that may block.
pub(crate) struct BatchReader {
    stream: StoreStream,
    runtime: Handle,
    cancel: CancelToken,
}

impl BatchReader {
    pub(crate) fn new(stream: StoreStream, runtime: &Handle, cancel: &CancelToken) -> Self {
        BatchReader {
            stream,
            runtime: runtime.clone(),
            cancel: cancel.clone(),
        }
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// Those of the store, and [`StoreError::Cancelled`] when the query was called off.
    pub(crate) fn next(&mut self) -> Result<Option<SeriesBatch>, StoreError> {
        let Self {
            stream,
            runtime,
            cancel,
        } = self;
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
        StoreError::Unavailable(text) => SelectError::Unavailable(text),
        StoreError::Cancelled => SelectError::Cancelled,
    }
}
