//! What is asked of a store and given by it, by the names that Thanos' server gives it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream;
use isobar_model::{Matcher, TimeRange};
use isobar_store::api::{Names, SelectEstimate, SeriesBatch, SeriesStream};
use isobar_store::grpc::service::Dropped;
use isobar_store::{LabelsRequest, SeriesRequest, Store, StoreError, StoreInfo};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A store whose answers are counted.
pub(crate) struct CountedStore {
    inner: Arc<dyn Store>,
    numbers: Numbers,
}

#[derive(Clone)]
struct Numbers {
    series: Histogram,
    chunks: Histogram,
    pending: Gauge,
}

impl CountedStore {
    /// Counts the answers of `inner` in `registry`.
    pub(crate) fn new(inner: Arc<dyn Store>, registry: &mut Registry) -> Self {
        let numbers = Numbers {
            series: Histogram::new([1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6]),
            chunks: Histogram::new([1.0, 1e2, 1e3, 1e4, 1e5, 1e7, 1e8, 1e9]),
            pending: Gauge::default(),
        };
        registry.register(
            "thanos_store_server_series_requested",
            "Number of requested series for Series calls",
            numbers.series.clone(),
        );
        registry.register(
            "thanos_store_server_chunks_requested",
            "Number of requested chunks for Series calls",
            numbers.chunks.clone(),
        );
        registry.register(
            "thanos_store_server_pending_series_requests",
            "Number of pending series requests",
            numbers.pending.clone(),
        );
        CountedStore { inner, numbers }
    }
}

impl Store for CountedStore {
    fn info(&self) -> StoreInfo {
        self.inner.info()
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        let answer = Answer::new(self.numbers.clone());
        let state = (self.inner.series(request), answer);
        stream::unfold(state, |(mut series, mut answer)| async move {
            let next = series.next().await?;
            if let Ok(SeriesBatch::Series(batch)) = &next {
                answer.series += batch.len();
                answer.chunks += batch.iter().map(|it| it.chunks.len()).sum::<usize>();
            }
            Some((next, (series, answer)))
        })
        .boxed()
    }

    fn estimate(&self, matchers: &[Matcher], range: TimeRange) -> Option<SelectEstimate> {
        self.inner.estimate(matchers, range)
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        self.inner.label_names(request)
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        self.inner.label_values(name, request)
    }
}

/// An answer on its way; counted when it has ended, however it did.
struct Answer {
    numbers: Numbers,
    series: usize,
    chunks: usize,
}

impl Answer {
    fn new(numbers: Numbers) -> Self {
        numbers.pending.inc();
        Answer {
            numbers,
            series: 0,
            chunks: 0,
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.numbers.pending.dec();
        self.numbers.series.observe(self.series as f64);
        self.numbers.chunks.observe(self.chunks as f64);
    }
}

/// `thanos_store_selects_dropped_total`.
pub(crate) struct DroppedCollector(pub(crate) Arc<Dropped>);

impl fmt::Debug for DroppedCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DroppedCollector")
    }
}

impl Collector for DroppedCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let kind = ConstCounter::new(0_u64).metric_type();
        let help = "Number of select queries that were dropped due to configured limits";
        let mut family =
            encoder.encode_descriptor("thanos_store_selects_dropped", help, None, kind)?;
        for (reason, count) in [("series", &self.0.series), ("chunks", &self.0.chunks)] {
            let metric = ConstCounter::new(count.load(Ordering::Relaxed));
            metric.encode(family.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}
