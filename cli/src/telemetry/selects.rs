//! What each request for series has read of the blocks of a bucket, as histograms by Thanos' names.
//!
//! Their label `tenant` is that of requests without a tenant: who asks is not known this far in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream;
use isobar_model::tenant::DEFAULT_TENANT;
use isobar_model::{Matcher, TimeRange};
use isobar_store::api::{Names, SelectEstimate, SeriesStream};
use isobar_store::gateway::{Gateway, QueryStats};
use isobar_store::{LabelsRequest, SeriesRequest, Store, StoreError, StoreInfo};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Seconds, as Thanos has them.
const SECONDS: [f64; 14] = [
    0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0,
];
/// Seconds at the gate, as Thanos has them.
const GATE_SECONDS: [f64; 16] = [
    0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0, 240.0, 360.0, 720.0,
];
const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;
/// Bytes of lists of series, as Thanos has them.
const POSTINGS_BYTES: [f64; 14] = [
    32.0,
    256.0,
    512.0,
    KIB,
    32.0 * KIB,
    256.0 * KIB,
    512.0 * KIB,
    MIB,
    32.0 * MIB,
    128.0 * MIB,
    256.0 * MIB,
    512.0 * MIB,
    768.0 * MIB,
    1024.0 * MIB,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tenant {
    tenant: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Data {
    data_type: &'static str,
    tenant: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: &'static str,
    tenant: &'static str,
}

type ByTenant = Family<Tenant, Histogram, fn() -> Histogram>;
type ByData = Family<Data, Histogram, fn() -> Histogram>;

const TENANT: Tenant = Tenant {
    tenant: DEFAULT_TENANT,
};

#[derive(Debug, Clone)]
struct Numbers {
    blocks: ByTenant,
    get_all: ByTenant,
    merge: ByTenant,
    series: ByTenant,
    postings_bytes: ByTenant,
    touched: ByData,
    touched_bytes: ByData,
    fetched_bytes: ByData,
    passed: Counter,
    waited: Histogram,
    dropped: Family<Dropped, Counter>,
}

/// A gateway whose requests for series are measured.
pub(crate) struct MeasuredGateway {
    gateway: Gateway,
    numbers: Numbers,
}

impl MeasuredGateway {
    /// Measures the requests to `gateway`, of which `concurrency` may run at one time, in `registry`.
    pub(crate) fn new(gateway: Gateway, concurrency: usize, registry: &mut Registry) -> Self {
        let items = || Histogram::new(exponential_buckets(200.0, 2.0, 15));
        let bytes = || Histogram::new(exponential_buckets(1024.0, 2.0, 15));
        let numbers = Numbers {
            blocks: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1.0, 2.0, 10))
            }),
            get_all: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            merge: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            series: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(100.0, 2.0, 15))
            }),
            postings_bytes: Family::new_with_constructor(|| Histogram::new(POSTINGS_BYTES)),
            touched: Family::new_with_constructor(items),
            touched_bytes: Family::new_with_constructor(bytes),
            fetched_bytes: Family::new_with_constructor(bytes),
            passed: Counter::default(),
            waited: Histogram::new(GATE_SECONDS),
            dropped: Family::default(),
        };
        numbers.register(registry);
        registry.register_collector(Box::new(GateCollector {
            gateway: gateway.clone(),
            concurrency,
        }));
        MeasuredGateway { gateway, numbers }
    }
}

impl Numbers {
    fn register(&self, registry: &mut Registry) {
        for (name, help, histograms) in [
            (
                "thanos_bucket_store_series_blocks_queried",
                "Number of blocks in a bucket store that were touched to satisfy a query",
                &self.blocks,
            ),
            (
                "thanos_bucket_store_series_get_all_duration_seconds",
                "Time until the first series of all blocks are there to be merged",
                &self.get_all,
            ),
            (
                "thanos_bucket_store_series_merge_duration_seconds",
                "Time it takes to merge sub-results from all queried blocks into a single result, and to give it away",
                &self.merge,
            ),
            (
                "thanos_bucket_store_series_result_series",
                "Number of series observed in the final result of a query",
                &self.series,
            ),
            (
                "thanos_bucket_store_postings_size_bytes",
                "Size in bytes of the postings for a single series call",
                &self.postings_bytes,
            ),
        ] {
            registry.register(name, help, histograms.clone());
        }
        for (name, help, histograms) in [
            (
                "thanos_bucket_store_series_data_touched",
                "Number of items of a data type touched to fulfill a single Store API series request",
                &self.touched,
            ),
            (
                "thanos_bucket_store_series_data_size_touched_bytes",
                "Total size of items of a data type touched to fulfill a single Store API series request in Bytes",
                &self.touched_bytes,
            ),
            (
                "thanos_bucket_store_series_data_size_fetched_bytes",
                "Total size of items of a data type fetched to fulfill a single Store API series request in Bytes",
                &self.fetched_bytes,
            ),
        ] {
            registry.register(name, help, histograms.clone());
        }
        registry.register(
            "thanos_bucket_store_series_gate_queries_duration_seconds",
            "How many seconds it took for queries to wait at the gate",
            self.waited.clone(),
        );
        registry.register(
            "thanos_bucket_store_series_gate_queries",
            "Total number of queries that passed the gate",
            self.passed.clone(),
        );
        registry.register(
            "thanos_bucket_store_queries_dropped",
            "Number of queries that were dropped due to the limit",
            self.dropped.clone(),
        );
    }

    /// Takes in what one request has read.
    fn observe(&self, stats: &QueryStats) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        for (data_type, touched, touched_bytes, fetched_bytes) in [
            (
                "postings",
                &stats.postings_touched,
                &stats.postings_touched_bytes,
                &stats.postings_fetched_bytes,
            ),
            (
                "series",
                &stats.series_touched,
                &stats.series_touched_bytes,
                &stats.series_fetched_bytes,
            ),
            (
                "chunks",
                &stats.chunks_touched,
                &stats.chunks_touched_bytes,
                &stats.chunks_fetched_bytes,
            ),
        ] {
            let data = Data {
                data_type,
                tenant: DEFAULT_TENANT,
            };
            for (histograms, counter) in [
                (&self.touched, touched),
                (&self.touched_bytes, touched_bytes),
                (&self.fetched_bytes, fetched_bytes),
            ] {
                histograms.get_or_create(&data).observe(read(counter));
            }
        }
        let postings = read(&stats.postings_touched_bytes) + read(&stats.postings_fetched_bytes);
        for (histograms, value) in [
            (&self.blocks, read(&stats.blocks_queried)),
            (&self.series, read(&stats.merged_series_count)),
            (&self.postings_bytes, postings),
        ] {
            histograms.get_or_create(&TENANT).observe(value);
        }
        self.passed.inc();
        self.waited.observe(read(&stats.gate_waited_us) / 1e6);
        for (reason, refused) in [
            ("series", &stats.series_refused),
            ("chunks", &stats.chunks_refused),
            ("bytes", &stats.bytes_refused),
        ] {
            let dropped = Dropped {
                reason,
                tenant: DEFAULT_TENANT,
            };
            // A request has several blocks, and is dropped once.
            let refused = refused.load(Ordering::Relaxed).min(1);
            self.dropped.get_or_create(&dropped).inc_by(refused);
        }
    }
}

impl Store for MeasuredGateway {
    fn info(&self) -> StoreInfo {
        self.gateway.info()
    }

    fn range(&self) -> Option<TimeRange> {
        self.gateway.range()
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        let (series, stats) = self.gateway.series_with_stats(request);
        let select = Select {
            numbers: self.numbers.clone(),
            stats,
            began: Instant::now(),
            first: None,
        };
        stream::unfold((series, select), |(mut series, mut select)| async move {
            let next = series.next().await;
            select.first.get_or_insert(select.began.elapsed());
            Some((next?, (series, select)))
        })
        .boxed()
    }

    fn estimate(&self, matchers: &[Matcher], range: TimeRange) -> Option<SelectEstimate> {
        self.gateway.estimate(matchers, range)
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        self.gateway.label_names(request)
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        self.gateway.label_values(name, request)
    }
}

/// A request on its way; measured when it has ended, however it did.
struct Select {
    numbers: Numbers,
    stats: Arc<QueryStats>,
    began: Instant,
    /// Until something came.
    first: Option<Duration>,
}

impl Drop for Select {
    fn drop(&mut self) {
        self.numbers.observe(&self.stats);
        let Some(first) = self.first else { return };
        let rest = self.began.elapsed().saturating_sub(first);
        for (histograms, took) in [(&self.numbers.get_all, first), (&self.numbers.merge, rest)] {
            histograms
                .get_or_create(&TENANT)
                .observe(took.as_secs_f64());
        }
    }
}

/// How many requests run, and may.
struct GateCollector {
    gateway: Gateway,
    concurrency: usize,
}

impl std::fmt::Debug for GateCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GateCollector")
    }
}

impl Collector for GateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, help, value) in [
            (
                "thanos_bucket_store_series_gate_queries_in_flight",
                "Number of queries that are currently in flight",
                self.gateway.running(),
            ),
            (
                "thanos_bucket_store_series_gate_queries_max",
                "Maximum number of concurrent queries",
                self.concurrency,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
