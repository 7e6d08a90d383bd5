//! A Prometheus as a store: its series over remote read, its labels over its API.
//!
//! In reading order: [`config`] (how to reach it), [`client`] (requests), [`peer`] (what is known of
//! it), `read` (remote read, streamed), [`frames`] (what a stream is made of), [`samples`] (servers
//! that do not stream), `labels` (names and values).
//!
//! All data have the external labels that Prometheus is configured with; they win over labels of the
//! series themselves. Matchers on them are answered here.

pub mod client;
pub mod config;
pub mod frames;
mod labels;
pub mod peer;
mod read;
pub mod samples;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::FutureExt;
use futures::StreamExt;
use futures::future::{BoxFuture, ready};
use futures::stream;
use isobar_model::{Budget, Labels, Matcher, TimeRange};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub use client::{Client, ClientError};
pub use config::HttpClientConfig;
pub use peer::{Flags, Known, Peer};

use crate::api::{
    LabelsRequest, Names, SeriesRequest, SeriesStream, Store, StoreError, StoreInfo, StoredSet,
};
use crate::arrange::{Arrangement, without_external};
use crate::compute::Pool;
use read::Read;

/// Batches that were received and are not taken yet.
const WAITING_BATCHES: usize = 4;

/// What to do with the number of frames of an answer.
pub type FramesSeen = Arc<dyn Fn(u64) + Send + Sync>;

/// A Prometheus as a store.
#[derive(Clone)]
pub struct PrometheusStore {
    peer: Arc<Peer>,
    pool: Arc<Pool>,
    memory: Option<Arc<Budget>>,
    runtime: Handle,
    frames_seen: FramesSeen,
}

impl PrometheusStore {
    /// `peer` as a store. It asks on `runtime` and decodes what is long on `pool`; what has to be sorted
    /// again is reserved from `memory`. `frames_seen` is told the number of frames of each answer.
    pub fn new(
        peer: Arc<Peer>,
        pool: Arc<Pool>,
        memory: Option<Arc<Budget>>,
        runtime: Handle,
        frames_seen: FramesSeen,
    ) -> Self {
        PrometheusStore {
            peer,
            pool,
            memory,
            runtime,
            frames_seen,
        }
    }

    /// The matchers that Prometheus is asked for; `None` when no series matches.
    fn matchers(&self, matchers: &[Matcher]) -> Option<Vec<Matcher>> {
        without_external(matchers, &self.peer.known().labels)
    }

    fn range(&self, range: TimeRange) -> TimeRange {
        TimeRange::new(range.min_ms.max(self.peer.min_ms()), range.max_ms)
    }

    fn read(&self, request: &SeriesRequest, matchers: Vec<Matcher>) -> (Read, Arrangement) {
        let known = self.peer.known();
        let inside = |name: &str| known.names.as_ref().is_none_or(|it| it.contains(name));
        let dropped = |name: &str| request.without_labels.iter().any(|it| it == name);
        let of = |keep: &dyn Fn(&str) -> bool| known.labels.filter(|name| keep(name));
        let replaced = of(&|name| inside(name) && !dropped(name));
        let without = request.without_labels.iter();
        let mut taken: Vec<String> = without.filter(|it| inside(it)).cloned().collect();
        taken.extend(replaced.iter().map(|(name, _)| name.to_owned()));
        let read = Read {
            matchers,
            range: self.range(request.range),
            strip: of(&|name| !inside(name)),
            ordered: known.labels.iter().all(|(name, _)| !inside(name)),
        };
        let arrangement = Arrangement {
            added: of(&|name| !dropped(name)),
            taken,
            shard: request.shard.clone(),
            limit: request.limit,
        };
        (read, arrangement)
    }
}

impl Store for PrometheusStore {
    fn info(&self) -> StoreInfo {
        let range = TimeRange::new(self.peer.min_ms(), i64::MAX);
        let labels = self.peer.known().labels.clone();
        let sets = match labels.is_empty() {
            true => Vec::new(),
            false => vec![StoredSet { labels, range }],
        };
        StoreInfo {
            sets,
            range: Some(range),
        }
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        let Some(matchers) = self.matchers(&request.matchers) else {
            return stream::empty().boxed();
        };
        if matchers.is_empty() {
            let why = "no matchers specified (excluding external labels)";
            let error = Err(StoreError::Invalid(why.to_owned()));
            return stream::once(ready(error)).boxed();
        }
        let range = self.range(request.range);
        if range.min_ms > range.max_ms {
            return stream::empty().boxed();
        }
        let (out, batches) = mpsc::channel(WAITING_BATCHES);
        let store = self.clone();
        let arrangement = if request.skip_chunks {
            self.runtime.spawn(async move {
                let asking = store.label_sets(request, matchers, &out);
                drive(asking, &out).await;
            });
            Arrangement::default()
        } else {
            let (read, arrangement) = self.read(&request, matchers);
            self.runtime.spawn(async move {
                let reading = async {
                    let frames = read.run(store.peer.client(), &store.pool, &out).await?;
                    (store.frames_seen)(frames);
                    Ok(())
                };
                drive(reading, &out).await;
            });
            arrangement
        };
        let series = stream::unfold(batches, |mut batches| async move {
            let next = batches.recv().await?;
            Some((next, batches))
        });
        arrangement.of(series.boxed(), self.memory.clone())
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        let store = self.clone();
        async move { store.names(request).await }.boxed()
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        let store = self.clone();
        async move { store.values(name, request).await }.boxed()
    }
}

/// Waits until `asking` is through or nobody reads what it gives; an error is passed on.
async fn drive(asking: impl Future<Output = Result<(), StoreError>>, out: &read::Out) {
    tokio::select! {
        result = asking => {
            if let Err(error) = result {
                // Who is gone does not miss it.
                let _gone = out.send(Err(error)).await;
            }
        }
        () = out.closed() => {}
    }
}

/// `labels` with those in `added`, which win, and without those in `taken`.
fn complete(labels: Labels, added: &Labels, taken: &[String]) -> Labels {
    if added.is_empty() && taken.is_empty() {
        return labels;
    }
    let mut builder = isobar_model::LabelsBuilder::new(&labels);
    for (name, value) in added.iter() {
        builder.set(name, value);
    }
    for name in taken {
        builder.remove(name);
    }
    builder.build()
}
