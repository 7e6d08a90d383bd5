//! What the sidecar counts, by the names that Thanos gives it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The numbers; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Whether Prometheus can be asked.
    pub prometheus_up: Gauge,
    /// Frames of an answer to a remote read.
    pub frames: Histogram,
}

impl Metrics {
    /// All at zero, in `registry`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            prometheus_up: Gauge::default(),
            frames: Histogram::new(exponential_buckets(10.0, 10.0, 5)),
        };
        registry.register(
            "thanos_sidecar_prometheus_up",
            "Boolean indicator whether the sidecar can reach its Prometheus peer",
            metrics.prometheus_up.clone(),
        );
        registry.register(
            "prometheus_store_received_frames",
            "Number of frames received per streamed response",
            metrics.frames.clone(),
        );
        metrics
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

/// What the reloader counts.
#[derive(Debug, Clone, Default)]
pub struct ReloaderMetrics {
    pub(super) reloads: Counter,
    pub(super) reloads_failed: Counter,
    pub(super) last_successful: Gauge,
    pub(super) last_success_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub(super) applied: Counter,
    pub(super) applied_failed: Counter,
    pub(super) variables_unset: Gauge,
    pub(super) watches: Gauge,
    pub(super) watch_events: Counter,
    pub(super) watch_errors: Counter,
}

impl ReloaderMetrics {
    /// All at zero, in `registry`; `method` is `http` or `signal`.
    pub fn new(registry: &mut Registry, method: &'static str) -> Self {
        let metrics = ReloaderMetrics::default();
        let info: Family<MethodLabel, Gauge> = Family::default();
        info.get_or_create(&MethodLabel { method }).set(1);
        let reloader = registry.sub_registry_with_prefix("thanos_sidecar_reloader");
        reloader.register(
            "info",
            "A metric with a constant '1' value labeled by reload method (either 'http' or 'signal')",
            info,
        );
        let counters = [
            (
                "reloads",
                "Total number of reload requests",
                &metrics.reloads,
            ),
            (
                "reloads_failed",
                "Total number of reload requests that failed",
                &metrics.reloads_failed,
            ),
            (
                "config_apply_operations",
                "Total number of config apply operations",
                &metrics.applied,
            ),
            (
                "config_apply_operations_failed",
                "Total number of config apply operations that failed",
                &metrics.applied_failed,
            ),
            (
                "watch_events",
                "Total number of changes that the reloader noticed",
                &metrics.watch_events,
            ),
            (
                "watch_errors",
                "Total number of times that the reloader could not look at a file",
                &metrics.watch_errors,
            ),
        ];
        for (name, help, counter) in counters {
            reloader.register(name, help, counter.clone());
        }
        let gauges = [
            (
                "last_reload_successful",
                "Whether the last reload attempt was successful",
                &metrics.last_successful,
            ),
            (
                "config_environment_variable_expansion_errors",
                "Number of environment variable expansions that failed during the last operation",
                &metrics.variables_unset,
            ),
            (
                "watches",
                "Number of resources watched by the reloader",
                &metrics.watches,
            ),
        ];
        for (name, help, gauge) in gauges {
            reloader.register(name, help, gauge.clone());
        }
        reloader.register(
            "last_reload_success_timestamp_seconds",
            "Timestamp of the last successful reload",
            metrics.last_success_seconds.clone(),
        );
        metrics
    }
}
