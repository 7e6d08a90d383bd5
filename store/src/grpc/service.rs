//! `thanos.Store` over any store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use isobar_model::Warnings;
use isobar_proto::thanos::series_response::Result as Answer;
use isobar_proto::thanos::{
    self, LabelNamesRequest, LabelNamesResponse, LabelValuesRequest, LabelValuesResponse,
    SeriesResponse, hints, store_server,
};
use tonic::{Request, Response, Status};

use super::answer::{Batcher, Wanted, answer};
use super::request;
use super::status::status;
use crate::api::{Names, SeriesBatch, SeriesStream};
use crate::compute::Pool;
use crate::local::TRUNCATED;
use crate::{Store, StoreError};

/// What Thanos takes a chunk for when it counts samples.
const SAMPLES_PER_CHUNK: u64 = 120;

/// Bounds on the answer to one request for series; 0 for none.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestLimits {
    /// Most series.
    pub series_max: u64,
    /// Most samples, 120 for each chunk.
    pub samples_max: u64,
}

/// How many requests ended at one of the bounds.
#[derive(Debug, Default)]
pub struct Dropped {
    /// At that on series.
    pub series: AtomicU64,
    /// At that on samples.
    pub chunks: AtomicU64,
}

/// The service.
pub struct StoreService {
    store: Arc<dyn Store>,
    pool: Option<Arc<Pool>>,
    limits: RequestLimits,
    dropped: Arc<Dropped>,
}

impl StoreService {
    /// Serves `store`. With a `pool` its streams are drawn on that, for stores that compute when they are
    /// asked.
    pub fn new(store: Arc<dyn Store>, pool: Option<Arc<Pool>>, limits: RequestLimits) -> Self {
        StoreService {
            store,
            pool,
            limits,
            dropped: Arc::default(),
        }
    }

    /// How many requests ended at one of the bounds, for metrics.
    pub fn dropped(&self) -> Arc<Dropped> {
        Arc::clone(&self.dropped)
    }
}

/// The messages of an answer.
pub type Messages = BoxStream<'static, Result<SeriesResponse, Status>>;

#[tonic::async_trait]
impl store_server::Store for StoreService {
    type SeriesStream = Messages;

    async fn series(
        &self,
        request: Request<thanos::SeriesRequest>,
    ) -> Result<Response<Messages>, Status> {
        let wire = request.into_inner();
        let request = request::series(&wire).map_err(|error| status(&error))?;
        let sending = Sending {
            batcher: Batcher::new(wire.response_batch_size, Wanted::of(&request.aggregates)),
            series: self.store.series(request),
            pool: self.pool.clone(),
            sent: Counted::default(),
            limits: self.limits,
            dropped: Arc::clone(&self.dropped),
        };
        let messages = stream::unfold(
            Some(sending),
            |sending| async move { sending?.step().await },
        );
        Ok(Response::new(messages.flat_map(stream::iter).boxed()))
    }

    async fn label_names(
        &self,
        request: Request<LabelNamesRequest>,
    ) -> Result<Response<LabelNamesResponse>, Status> {
        let request = request::label_names(request.get_ref()).map_err(|error| status(&error))?;
        let names = self.store.label_names(request).await;
        let names = names.map_err(|error| status(&error))?;
        let (values, warnings, blocks) = taken_apart(names);
        let hints = blocks.map(|queried_blocks| {
            request::pack(&hints::LabelNamesResponseHints { queried_blocks })
        });
        Ok(Response::new(LabelNamesResponse {
            names: values,
            warnings,
            hints,
        }))
    }

    async fn label_values(
        &self,
        request: Request<LabelValuesRequest>,
    ) -> Result<Response<LabelValuesResponse>, Status> {
        let wire = request.into_inner();
        let request = request::label_values(&wire).map_err(|error| status(&error))?;
        let values = self.store.label_values(wire.label, request).await;
        let values = values.map_err(|error| status(&error))?;
        let (values, warnings, blocks) = taken_apart(values);
        let hints = blocks.map(|queried_blocks| {
            request::pack(&hints::LabelValuesResponseHints { queried_blocks })
        });
        Ok(Response::new(LabelValuesResponse {
            values,
            warnings,
            hints,
        }))
    }
}

/// Warnings and infos; Thanos has one list for both. That a limit was reached is not among them: a Thanos
/// that wants whole answers fails on any warning, and who sets a limit expects to reach it.
fn remarks(warnings: &Warnings) -> Vec<String> {
    let all = warnings.warnings().iter().chain(warnings.infos());
    all.filter(|text| *text != TRUNCATED).cloned().collect()
}

fn taken_apart(names: Names) -> (Vec<String>, Vec<String>, Option<Vec<hints::Block>>) {
    let warnings = remarks(&names.warnings);
    let blocks = names.queried_blocks;
    let blocks = blocks.map(|ids| ids.into_iter().map(|id| hints::Block { id }).collect());
    (names.values, warnings, blocks)
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    series: u64,
    samples: u64,
}

/// An answer on its way out.
struct Sending {
    series: SeriesStream,
    pool: Option<Arc<Pool>>,
    batcher: Batcher,
    sent: Counted,
    limits: RequestLimits,
    dropped: Arc<Dropped>,
}

impl Sending {
    /// The messages of the next batch of the store, and what is left to do.
    async fn step(mut self) -> Option<(Vec<Result<SeriesResponse, Status>>, Option<Self>)> {
        let next = match self.pool.clone() {
            None => self.series.next().await,
            Some(pool) => {
                let mut series = self.series;
                let drawn = pool.run(move || {
                    let next = futures::executor::block_on(series.next());
                    (series, next)
                });
                match drawn.await {
                    Ok((series, next)) => {
                        self.series = series;
                        next
                    }
                    Err(error) => {
                        let error = StoreError::Unavailable(error.to_string());
                        return Some((vec![Err(status(&error))], None));
                    }
                }
            }
        };
        let mut messages = Vec::new();
        match next {
            None => {
                self.batcher.flush(&mut messages);
                Some((messages.into_iter().map(Ok).collect(), None))
            }
            Some(Err(error)) => Some((vec![Err(status(&error))], None)),
            Some(Ok(SeriesBatch::Warnings(warnings))) => {
                self.batcher.flush(&mut messages);
                let remarks = remarks(&warnings).into_iter();
                messages.extend(remarks.map(|text| answer(Answer::Warning(text))));
                Some((messages.into_iter().map(Ok).collect(), Some(self)))
            }
            Some(Ok(SeriesBatch::Series(batch))) => {
                for one in &batch {
                    let checked = self.count(one.chunks.len());
                    let pushed = checked.and_then(|()| self.batcher.push(one, &mut messages));
                    if let Err(error) = pushed {
                        let messages = messages.into_iter().map(Ok);
                        return Some((messages.chain([Err(status(&error))]).collect(), None));
                    }
                }
                Some((messages.into_iter().map(Ok).collect(), Some(self)))
            }
        }
    }

    fn count(&mut self, chunks: usize) -> Result<(), StoreError> {
        let RequestLimits {
            series_max,
            samples_max,
        } = self.limits;
        self.sent.series += 1;
        self.sent.samples += chunks as u64 * SAMPLES_PER_CHUNK;
        let over = |what, limit, got| {
            let text = format!("failed to send {what}: limit {limit} violated (got {got})");
            Err(StoreError::LimitExceeded(text))
        };
        if series_max > 0 && self.sent.series > series_max {
            self.dropped.series.fetch_add(1, Ordering::Relaxed);
            return over("series", series_max, self.sent.series);
        }
        if samples_max > 0 && self.sent.samples > samples_max {
            self.dropped.chunks.fetch_add(1, Ordering::Relaxed);
            return over("samples", samples_max, self.sent.samples);
        }
        Ok(())
    }
}
