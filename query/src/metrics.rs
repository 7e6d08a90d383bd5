//! What the query path says about itself. All names are Prometheus' or Thanos', so that existing
//! dashboards and alerts read them, but for what only Isobar has.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use isobar_promql::eval::EvalError;
use isobar_promql::value::QueryStats;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::engine::Timings;

/// Bounds for the duration of requests and queries, in seconds (those of Thanos).
const SECONDS: [f64; 17] = [
    0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0, 240.0, 360.0,
    720.0,
];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Metrics of an [`Engine`](crate::engine::Engine).
#[derive(Debug, Clone)]
pub struct EngineMetrics {
    queries: Gauge,
    concurrent_max: Gauge,
    samples: Counter<u64, AtomicU64>,
    samples_read: Counter<u64, AtomicU64>,
    /// Of the slices `queue_time`, `prepare_time` and `inner_eval`.
    durations: [Histogram; 3],
    limited: Family<Limited, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limited {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Slice {
    slice: &'static str,
}

impl EngineMetrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let duration = Family::<Slice, Histogram>::new_with_constructor(seconds);
        let metrics = EngineMetrics {
            queries: Gauge::default(),
            concurrent_max: Gauge::default(),
            samples: Counter::default(),
            samples_read: Counter::default(),
            durations: ["queue_time", "prepare_time", "inner_eval"]
                .map(|slice| duration.get_or_create_owned(&Slice { slice })),
            limited: Family::default(),
        };
        registry.register(
            "isobar_queries_limited",
            "Queries that failed because they reached a limit",
            metrics.limited.clone(),
        );
        registry.register(
            "prometheus_engine_queries",
            "The current number of queries being executed",
            metrics.queries.clone(),
        );
        registry.register(
            "prometheus_engine_queries_concurrent_max",
            "The most queries that are executed at one time",
            metrics.concurrent_max.clone(),
        );
        registry.register(
            "prometheus_engine_query_samples",
            "The total number of samples looked at by all queries",
            metrics.samples.clone(),
        );
        registry.register(
            "prometheus_engine_query_samples_read",
            "The total number of samples read from storage by all queries",
            metrics.samples_read.clone(),
        );
        registry.register(
            "prometheus_engine_query_duration_histogram_seconds",
            "Query timings by stage",
            duration,
        );
        metrics
    }

    pub(crate) fn set_concurrent_max(&self, max: usize) {
        self.concurrent_max
            .set(i64::try_from(max).unwrap_or(i64::MAX));
    }

    /// Counts a query as being executed until the guard is dropped.
    pub(crate) fn begin(&self) -> InFlight {
        self.queries.inc();
        InFlight(self.queries.clone())
    }

    /// Takes in why a query failed.
    pub(crate) fn observe_error(&self, error: &EvalError) {
        if let EvalError::LimitExceeded(limit, _) = error {
            let limit = limit.name();
            self.limited.get_or_create(&Limited { limit }).inc();
        }
    }

    /// Takes in what a finished query cost.
    pub(crate) fn observe(&self, timings: &Timings, stats: &QueryStats) {
        self.samples.inc_by(stats.samples_queryable);
        self.samples_read.inc_by(stats.samples_new);
        let spent = [timings.queued, timings.prepared, timings.evaluated];
        for (histogram, spent) in self.durations.iter().zip(spent) {
            histogram.observe(spent.as_secs_f64());
        }
    }
}

/// A query that is being executed.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Metrics of HTTP requests.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: Family<Request, Counter>,
    duration: Family<Request, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    code: u16,
    handler: String,
    method: &'static str,
}

impl HttpMetrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = HttpMetrics {
            requests: Family::default(),
            duration: Family::new_with_constructor(seconds),
        };
        registry.register(
            "http_requests",
            "The total number of HTTP requests",
            metrics.requests.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "How long a request took until its answer began",
            metrics.duration.clone(),
        );
        metrics
    }

    /// Takes in an answered request. `handler` has to be one of a fixed set of names.
    pub fn observe(&self, code: u16, handler: &str, method: &str, spent: Duration) {
        const METHODS: [&str; 7] = ["get", "post", "put", "delete", "head", "options", "patch"];
        let method = METHODS.into_iter().find(|m| m.eq_ignore_ascii_case(method));
        let request = Request {
            code,
            handler: handler.to_owned(),
            method: method.unwrap_or("unknown"),
        };
        self.requests.get_or_create(&request).inc();
        self.duration
            .get_or_create(&request)
            .observe(spent.as_secs_f64());
    }
}
