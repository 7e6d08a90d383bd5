//! Ships the blocks of the local database to the bucket, every half minute.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isobar_model::Clock;
use isobar_model::tenant::DEFAULT_TENANT;
use isobar_store::block::Meta;
use isobar_store::block::meta::Source;
use isobar_store::block::shipper::{Shipper, ShipperConfig, ShipperStats};
use isobar_store::block::upload::UploadOptions;
use isobar_store::bucket::metered::BucketMetrics;
use isobar_store::bucket::{Bucket, BucketConfig};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::Mutex;

use crate::shutdown::Shutdown;

/// How often the directory is looked at; as in Thanos.
const INTERVAL: Duration = Duration::from_secs(30);
/// The field of `meta.json` of a block that was cut here; it says whose the block is.
const OWN_FIELD: &str = "isobar";
/// The external label of a tenant's blocks, as Thanos Receive gives it.
pub(crate) const TENANT_LABEL: &str = "tenant_id";

/// Reads a variable of the environment.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The bucket of a configuration, with its requests counted.
///
/// # Errors
/// When no client can be made of the configuration.
pub(crate) fn open(
    config: &BucketConfig,
    clock: &Clock,
    metrics: &BucketMetrics,
) -> anyhow::Result<Bucket> {
    let bucket = Bucket::new(config, &environment)?;
    for remark in &bucket.remarks {
        tracing::warn!(bucket = bucket.name, "objstore.config: {remark}");
    }
    tracing::info!(bucket = bucket.name, "blocks are shipped");
    Ok(metrics.of(bucket, clock.clone()))
}

/// Ships the blocks of one directory.
pub(crate) struct Shipping {
    shipper: Mutex<Shipper>,
    stats: Arc<ShipperStats>,
    clock: Clock,
}

impl Shipping {
    /// From `directory` to `bucket`. With `only_own` these are the blocks that were cut here.
    pub(crate) fn new(bucket: &Bucket, directory: &Path, only_own: bool, clock: Clock) -> Self {
        let mut config = ShipperConfig::new(directory, Source::RECEIVE, Arc::new(tenant_label));
        // One block that does not arrive is no reason to lose others to retention.
        config.allow_out_of_order_uploads = true;
        if only_own {
            config.wanted = Arc::new(|meta| meta.block.other.contains_key(OWN_FIELD));
        }
        config.skip_corrupted_blocks = true;
        config.upload = UploadOptions {
            part_bytes: bucket.part_bytes,
            ..UploadOptions::default()
        };
        let shipper = Shipper::new(config, Arc::clone(&bucket.store));
        Shipping {
            stats: shipper.stats(),
            shipper: Mutex::new(shipper),
            clock,
        }
    }

    /// The metrics of the shipper.
    pub(crate) fn collector(&self) -> ShipperCollector {
        ShipperCollector(Arc::clone(&self.stats))
    }

    /// Ships until shutdown. An upload that is under way then is given up and goes on at the next
    /// start.
    pub(crate) async fn run(&self, shutdown: &Shutdown) {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            let ship = async {
                interval.tick().await;
                self.sync().await;
            };
            tokio::select! {
                () = ship => {}
                () = shutdown.wait() => return,
            }
        }
    }

    async fn sync(&self) {
        match self.shipper.lock().await.sync(self.clock.now_ms()).await {
            Ok(synced) => {
                for (block, error) in synced.failed {
                    tracing::warn!(%block, %error, "block was not uploaded, trying again later");
                }
                for (block, reason) in synced.corrupted {
                    tracing::warn!(%block, reason, "block cannot be read and is not uploaded");
                }
            }
            Err(error) => tracing::warn!(%error, "blocks were not shipped, trying again later"),
        }
    }
}

/// Blocks say whose they are in the field `tenant` of their own.
fn tenant_label(meta: &Meta) -> BTreeMap<String, String> {
    let tenant = meta
        .block
        .other
        .get(OWN_FIELD)
        .and_then(|own| own.get("tenant"));
    let tenant = tenant.and_then(|tenant| tenant.as_str());
    let tenant = tenant.unwrap_or(DEFAULT_TENANT);
    BTreeMap::from([(TENANT_LABEL.to_owned(), tenant.to_owned())])
}

/// The counters of a shipper as metrics, under the names that Thanos gives them.
#[derive(Debug)]
pub(crate) struct ShipperCollector(pub(crate) Arc<ShipperStats>);

impl Collector for ShipperCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = &self.0;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, count) in [
            (
                "dir_syncs",
                "Total number of dir syncs",
                read(&stats.dir_syncs),
            ),
            (
                "dir_sync_failures",
                "Total number of failed dir syncs",
                read(&stats.dir_sync_failures),
            ),
            (
                "uploads",
                "Total number of uploaded blocks",
                read(&stats.uploads),
            ),
            (
                "upload_failures",
                "Total number of block upload failures",
                read(&stats.upload_failures),
            ),
            (
                "corrupted_blocks",
                "Total number of corrupted blocks",
                read(&stats.corrupted_blocks),
            ),
        ] {
            let counter = ConstCounter::new(count);
            let name = format!("thanos_shipper_{name}");
            let family = encoder.encode_descriptor(&name, help, None, counter.metric_type())?;
            counter.encode(family)?;
        }
        let done = i64::try_from(read(&stats.upload_compacted_done)).unwrap_or(0);
        let done = ConstGauge::new(done);
        let family = encoder.encode_descriptor(
            "thanos_shipper_upload_compacted_done",
            "If 1 it means shipper uploaded all compacted blocks from the filesystem.",
            None,
            done.metric_type(),
        )?;
        done.encode(family)
    }
}
