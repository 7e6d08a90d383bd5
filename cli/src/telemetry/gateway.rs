//! What the store gateway knows of its bucket and reads from it, by Thanos' names where there is one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isobar_store::block::fetch::Counts;
use isobar_store::cache::CacheCounts;
use isobar_store::gateway::{Changed, Gateway};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What the component counts when it looks at its bucket.
#[derive(Clone)]
pub(crate) struct SyncMetrics {
    syncs: Counter,
    failures: Counter,
    seconds: Histogram,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    counts: Counts,
    loaded: u64,
    loads: u64,
    drops: u64,
    last_load_s: i64,
}

impl SyncMetrics {
    /// All at zero, in `registry`, with the numbers of `gateway` and the delay that blocks have to be served.
    pub(crate) fn new(registry: &mut Registry, gateway: &Gateway, delay: Duration) -> Self {
        let metrics = SyncMetrics {
            syncs: Counter::default(),
            failures: Counter::default(),
            seconds: Histogram::new([0.01, 1.0, 10.0, 100.0, 300.0, 600.0, 1000.0]),
            seen: Arc::default(),
        };
        for (name, help, counter) in [
            (
                "thanos_blocks_meta_syncs",
                "Total blocks metadata synchronization attempts",
                &metrics.syncs,
            ),
            (
                "thanos_blocks_meta_base_syncs",
                "Total blocks metadata synchronization attempts by base Fetcher",
                &metrics.syncs,
            ),
            (
                "thanos_blocks_meta_sync_failures",
                "Total blocks metadata synchronization failures",
                &metrics.failures,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "thanos_blocks_meta_sync_duration_seconds",
            "Duration of the blocks metadata synchronization in seconds",
            metrics.seconds.clone(),
        );
        registry.register_collector(Box::new(GatewayCollector {
            gateway: gateway.clone(),
            seen: Arc::clone(&metrics.seen),
            delay_s: delay.as_secs_f64(),
        }));
        metrics
    }

    /// The bucket could not be looked at.
    pub(crate) fn failed(&self, took: Duration) {
        self.syncs.inc();
        self.failures.inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// The bucket was looked at, and `loaded` blocks of it are served; what has changed for it.
    pub(crate) fn looked(
        &self,
        took: Duration,
        counts: Counts,
        loaded: u64,
        changed: Changed,
        now_ms: i64,
    ) {
        self.syncs.inc();
        self.seconds.observe(took.as_secs_f64());
        let mut seen = self.seen.lock();
        seen.counts = counts;
        seen.loads += changed.loaded;
        seen.drops += changed.dropped;
        seen.loaded = loaded;
        if changed.loaded > 0 {
            seen.last_load_s = now_ms / 1000;
        }
    }
}

/// Reads the gateway's numbers whenever metrics are asked for.
struct GatewayCollector {
    gateway: Gateway,
    seen: Arc<Mutex<Seen>>,
    delay_s: f64,
}

impl fmt::Debug for GatewayCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayCollector")
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Collector for GatewayCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let seen = self.seen.lock();
        let kind = ConstGauge::new(0_i64).metric_type();
        let help = "Number of block metadata synced";
        let mut synced =
            encoder.encode_descriptor("thanos_blocks_meta_synced", help, None, kind)?;
        for (state, count) in &seen.counts {
            let count = ConstGauge::new(signed(*count as u64));
            count.encode(synced.encode_family(&[("state", state.as_str())])?)?;
        }
        let cache = self.gateway.cache().counts();
        let gauges = [
            (
                "thanos_bucket_store_blocks_loaded",
                "Number of currently loaded blocks",
                signed(seen.loaded),
            ),
            (
                "thanos_bucket_store_blocks_last_loaded_timestamp_seconds",
                "Timestamp when last block got loaded",
                seen.last_load_s,
            ),
            (
                "isobar_gateway_cache_memory_bytes",
                "Bytes of pages of blocks in memory",
                signed(cache.memory_bytes),
            ),
            (
                "isobar_gateway_cache_disk_bytes",
                "Bytes of pages of blocks on disk",
                signed(cache.disk_bytes),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let delay = ConstGauge::new(self.delay_s);
        let help = "Configured consistency delay in seconds";
        let name = "thanos_consistency_delay_seconds";
        delay.encode(encoder.encode_descriptor(name, help, None, delay.metric_type())?)?;

        self.encode_counters(&seen, &cache, &mut encoder)
    }
}

impl GatewayCollector {
    fn encode_counters(
        &self,
        seen: &Seen,
        cache: &CacheCounts,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let stats = self.gateway.stats();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = [
            (
                "thanos_bucket_store_block_loads",
                "Total number of blocks that were loaded",
                seen.loads,
            ),
            (
                "thanos_bucket_store_block_drops",
                "Total number of blocks that were dropped",
                seen.drops,
            ),
            (
                "isobar_gateway_blocks_queried",
                "Blocks that requests looked at",
                read(&stats.blocks_queried),
            ),
            (
                "isobar_gateway_series",
                "Series that were given",
                read(&stats.merged_series_count),
            ),
            (
                "isobar_gateway_chunks",
                "Chunks that were given",
                read(&stats.merged_chunks_count),
            ),
            (
                "isobar_gateway_series_fetched_bytes",
                "Bytes of series fetched from the bucket",
                read(&stats.series_fetched_bytes),
            ),
            (
                "isobar_gateway_postings_fetched_bytes",
                "Bytes of postings fetched from the bucket",
                read(&stats.postings_fetched_bytes),
            ),
            (
                "isobar_gateway_chunks_fetched_bytes",
                "Bytes of chunks fetched from the bucket",
                read(&stats.chunks_fetched_bytes),
            ),
            (
                "isobar_gateway_chunk_refetches",
                "Chunks that were read twice because they were longer than expected",
                read(&stats.chunk_refetches),
            ),
            (
                "isobar_gateway_cache_memory_hits",
                "Pages that were found in memory",
                cache.memory_hits,
            ),
            (
                "isobar_gateway_cache_disk_hits",
                "Pages that were found on disk",
                cache.disk_hits,
            ),
            (
                "isobar_gateway_cache_misses",
                "Pages that were fetched from the bucket",
                cache.misses,
            ),
            (
                "isobar_gateway_cache_memory_evictions",
                "Pages that made room in memory",
                cache.memory_evictions,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        Ok(())
    }
}
