//! What the status pages and `/metrics` show of the database and the process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use isobar_model::Clock;
use isobar_model::time::rfc3339;
use isobar_query::status::{BuildInfo, Count, HeadStats, RuntimeInfo, StatusSource, TsdbStatus};
use isobar_tsdb::db::{self, Db};
use isobar_tsdb::exemplars::ExemplarStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::flags::standalone::StandaloneFlags;

/// The database's figures as metrics, under the names that Prometheus gives them.
pub(crate) struct DbCollector {
    db: Arc<Db>,
}

impl DbCollector {
    /// Figures of `db`, read whenever metrics are asked for.
    pub(crate) fn new(db: Arc<Db>) -> Self {
        DbCollector { db }
    }
}

impl DbCollector {
    fn encode_limits(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let limits = self.db.limits();
        let limit = ConstGauge::new(0_i64);
        let mut family = encoder.encode_descriptor(
            "isobar_tenant_limit",
            "What each tenant may have or write; 0 is no limit",
            None,
            limit.metric_type(),
        )?;
        for (name, limit) in [
            ("series_per_tenant", limits.series_per_tenant),
            ("series_per_metric", limits.series_per_metric),
            ("samples_per_second", limits.samples_per_second),
        ] {
            let limit = ConstGauge::new(i64::try_from(limit).unwrap_or(i64::MAX));
            limit.encode(family.encode_family(&[("limit", name)])?)?;
        }
        Ok(())
    }
}

fn encode_counters(
    stats: &db::HeadStats,
    exemplars: &ExemplarStats,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    for (name, help, count) in [
        (
            "prometheus_tsdb_head_samples_appended",
            "Total number of appended samples",
            stats.samples_appended,
        ),
        (
            "prometheus_tsdb_head_out_of_order_samples_appended",
            "Total number of appended out of order samples",
            stats.samples_appended_late,
        ),
        (
            "prometheus_tsdb_exemplar_exemplars_appended",
            "Total number of appended exemplars",
            exemplars.appended,
        ),
        (
            "prometheus_tsdb_exemplar_out_of_order_exemplars",
            "Total number of exemplars that came out of order",
            exemplars.out_of_order,
        ),
    ] {
        let counter = ConstCounter::new(count);
        let kind = counter.metric_type();
        counter.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
    }
    Ok(())
}

impl fmt::Debug for DbCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DbCollector")
    }
}

impl Collector for DbCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = self.db.head_stats(None);
        let exemplars = self.db.exemplar_stats();
        encode_counters(&stats, &exemplars, &mut encoder)?;
        self.encode_limits(&mut encoder)?;

        let series = ConstGauge::new(0_i64);
        let mut family = encoder.encode_descriptor(
            "prometheus_tsdb_head_series",
            "Number of series in the head",
            None,
            series.metric_type(),
        )?;
        for (tenant, count) in self.db.tenants() {
            let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            count.encode(family.encode_family(&[("tenant", tenant.as_str())])?)?;
        }

        let (head_bytes, head_bytes_max) = self.db.head_memory();
        let mut gauge = |name, help, value: i64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        gauge(
            "prometheus_tsdb_head_chunks",
            "Number of chunks in the head",
            whole(stats.chunks),
        )?;
        if let Some((min_ms, max_ms)) = stats.range_ms {
            gauge(
                "prometheus_tsdb_head_min_time",
                "Oldest sample in the head, unix milliseconds",
                min_ms,
            )?;
            gauge(
                "prometheus_tsdb_head_max_time",
                "Newest sample in the head, unix milliseconds",
                max_ms,
            )?;
        }
        for (name, help, value) in [
            (
                "isobar_head_memory_bytes",
                "Memory that the head takes, by estimate",
                head_bytes,
            ),
            (
                "isobar_head_memory_max_bytes",
                "From how much memory of the head on new series are refused",
                head_bytes_max.unwrap_or(u64::MAX),
            ),
            (
                "prometheus_tsdb_exemplar_exemplars_in_storage",
                "Number of exemplars in memory",
                exemplars.exemplars,
            ),
            (
                "prometheus_tsdb_exemplar_series_with_exemplars_in_storage",
                "Number of series with exemplars in memory",
                exemplars.series,
            ),
            (
                "prometheus_tsdb_exemplar_max_exemplars",
                "Most exemplars of a tenant in memory",
                exemplars.exemplars_max,
            ),
            (
                "isobar_exemplars_bytes",
                "Memory that exemplars take",
                exemplars.bytes,
            ),
        ] {
            gauge(name, help, whole(value))?;
        }
        let blocks = self.db.blocks();
        gauge(
            "prometheus_tsdb_blocks_loaded",
            "Number of blocks that are open",
            blocks.len() as i64,
        )?;
        // A log that cannot be measured right now has no figure; the next scrape tries again.
        if let Ok(bytes) = self.db.wal_bytes() {
            gauge(
                "prometheus_tsdb_wal_storage_size_bytes",
                "Size of the log on disk",
                whole(bytes),
            )?;
        }
        Ok(())
    }
}

/// What `/api/v1/status/…` tells.
pub(crate) struct Status {
    flags: BTreeMap<String, String>,
    retention: String,
    clock: Clock,
    started_ms: i64,
    db: Arc<Db>,
    damages: Arc<AtomicI64>,
}

impl Status {
    /// The status of a process that starts now with these flags. `damages` counts what of the log
    /// could not be read.
    pub(crate) fn new(
        flags: &StandaloneFlags,
        clock: Clock,
        db: Arc<Db>,
        damages: Arc<AtomicI64>,
    ) -> Self {
        let limits = [
            (!flags.retention.0.is_zero()).then(|| flags.retention.to_string()),
            (flags.retention_bytes.0 > 0).then(|| flags.retention_bytes.to_string()),
        ];
        Status {
            flags: flags
                .listed()
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect(),
            retention: limits
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" or "),
            started_ms: clock.now_ms(),
            clock,
            db,
            damages,
        }
    }
}

impl StatusSource for Status {
    fn build(&self) -> BuildInfo {
        BuildInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            go_version: "rust".to_owned(),
            ..BuildInfo::default()
        }
    }

    fn flags(&self) -> BTreeMap<String, String> {
        self.flags.clone()
    }

    fn runtime(&self) -> RuntimeInfo {
        let started = rfc3339(self.started_ms);
        RuntimeInfo {
            start_time: started.clone(),
            // A directory that was removed under the process has no name.
            cwd: std::env::current_dir()
                .map(|dir| dir.display().to_string())
                .unwrap_or_default(),
            hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .map(|name| name.trim().to_owned())
                .unwrap_or_default(),
            server_time: rfc3339(self.clock.now_ms()),
            reload_config_success: true,
            last_config_time: started,
            corruption_count: self.damages.load(Ordering::Relaxed),
            goroutine_count: crate::telemetry::process::thread_count(),
            threads_max: std::thread::available_parallelism().map_or(0, |n| n.get() as u64),
            memory_limit_bytes: i64::MAX,
            storage_retention: self.retention.clone(),
            ..RuntimeInfo::default()
        }
    }

    fn tsdb(&self, limit: usize) -> Result<TsdbStatus, String> {
        let stats = self.db.head_stats(None);
        let lists = self.db.cardinality(None, limit);
        let counts = |list: Vec<(String, u64)>| {
            list.into_iter()
                .map(|(name, value)| Count { name, value })
                .collect()
        };
        // Prometheus shows the ends of time for an empty head.
        let (min_time, max_time) = stats.range_ms.unwrap_or((i64::MAX, i64::MIN));
        Ok(TsdbStatus {
            head_stats: HeadStats {
                num_series: stats.series,
                num_label_pairs: stats.label_pairs,
                chunk_count: i64::try_from(stats.chunks).unwrap_or(i64::MAX),
                min_time,
                max_time,
            },
            series_count_by_metric_name: counts(lists.series_by_metric),
            label_value_count_by_label_name: counts(lists.values_by_label),
            memory_in_bytes_by_label_name: counts(lists.value_bytes_by_label),
            series_count_by_label_value_pair: counts(lists.series_by_pair),
        })
    }
}
