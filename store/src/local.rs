//! A database on a local disk as a store: its head and its blocks.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{self, StreamExt};
use isobar_model::{Labels, Matcher, TimeRange, Warnings};
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::db::Db;
use isobar_tsdb::merge::SeriesIter;

use crate::api::{
    LabelsRequest, Names, SelectEstimate, SeriesBatch, SeriesRequest, SeriesStream, Store,
    StoreError, StoreInfo, StoredSet,
};
use crate::arrange::Arrangement;

/// Series per batch: enough to make the cost of a batch small beside that of its series, and few
/// enough that threads that share a query do not wait for one of them to read it.
const BATCH_SERIES: usize = 64;

/// What Prometheus says when a limit cut an answer.
pub const TRUNCATED: &str = "results truncated due to limit";

/// The series of all tenants of a database. Equal series of two tenants are one.
#[derive(Clone)]
pub struct LocalStore {
    db: Arc<Db>,
}

impl LocalStore {
    /// `db` as a store.
    pub fn new(db: Arc<Db>) -> Self {
        LocalStore { db }
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    fn open(&self, request: &SeriesRequest) -> Result<SeriesIter, StoreError> {
        Ok(self.db.select(None, &request.matchers, request.range)?)
    }

    /// A warning for each block that cannot be read: an answer without it must not look whole.
    fn missing(&self) -> Warnings {
        let mut warnings = Warnings::default();
        for (path, why) in self.db.quarantined() {
            warnings.warn(format!("block {} is left out: {why}", path.display()));
        }
        warnings
    }
}

impl Store for LocalStore {
    fn info(&self) -> StoreInfo {
        let range = self.db.range();
        let sets = range.map(|range| StoredSet {
            labels: Labels::default(),
            range,
        });
        StoreInfo {
            sets: sets.into_iter().collect(),
            range,
        }
    }

    fn range(&self) -> Option<TimeRange> {
        self.db.range()
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        let arrangement = Arrangement {
            taken: request.without_labels.clone(),
            shard: request.shard.clone(),
            limit: request.limit,
            ..Arrangement::default()
        };
        if arrangement.changes_series() {
            let all = SeriesRequest {
                without_labels: Vec::new(),
                shard: None,
                limit: 0,
                ..request
            };
            return arrangement.of(self.series(all), None);
        }
        let series = match self.open(&request) {
            Ok(series) => series,
            Err(error) => return stream::once(ready(Err(error))).boxed(),
        };
        let left = if request.limit == 0 {
            usize::MAX
        } else {
            request.limit
        };
        let batches = Batches {
            series,
            left,
            skip_chunks: request.skip_chunks,
            done: false,
        };
        let missing = self.missing();
        let remarks = (!missing.is_empty()).then_some(Ok(SeriesBatch::Warnings(missing)));
        stream::iter(remarks.into_iter().chain(batches)).boxed()
    }

    fn estimate(&self, matchers: &[Matcher], range: TimeRange) -> Option<SelectEstimate> {
        // A block that cannot be read is told about when it is read.
        self.db.estimate(None, matchers, range).ok()
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        let store = self.clone();
        async move {
            let names = store
                .db
                .label_names(None, &request.matchers, request.range)?;
            Ok(cut(names, request.limit, store.missing()))
        }
        .boxed()
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        let store = self.clone();
        async move {
            let values = store
                .db
                .label_values(None, &name, &request.matchers, request.range)?;
            Ok(cut(values, request.limit, store.missing()))
        }
        .boxed()
    }
}

/// Takes series from the database batch by batch, as the stream is polled.
struct Batches {
    series: SeriesIter,
    left: usize,
    skip_chunks: bool,
    done: bool,
}

impl Iterator for Batches {
    type Item = Result<SeriesBatch, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let mut batch = Vec::with_capacity(BATCH_SERIES.min(self.left));
        while batch.len() < BATCH_SERIES {
            let next = match self.series.next() {
                None => {
                    self.done = true;
                    break;
                }
                Some(Err(error)) => {
                    self.done = true;
                    return Some(Err(error.into()));
                }
                Some(Ok(next)) => next,
            };
            if self.left == 0 {
                self.done = true;
                let mut warnings = Warnings::default();
                warnings.warn(TRUNCATED);
                return Some(Ok(SeriesBatch::Warnings(warnings)));
            }
            self.left -= 1;
            batch.push(if self.skip_chunks {
                SeriesChunks::mapped(next.labels, Vec::new())
            } else {
                next
            });
            if self.left == 0 {
                break;
            }
        }
        (!batch.is_empty()).then_some(Ok(SeriesBatch::Series(batch)))
    }
}

fn cut(mut values: Vec<String>, limit: usize, mut warnings: Warnings) -> Names {
    if limit > 0 && values.len() > limit {
        values.truncate(limit);
        warnings.warn(TRUNCATED);
    }
    Names {
        values,
        warnings,
        queried_blocks: None,
    }
}
