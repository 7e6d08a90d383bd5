//! Uploads the blocks of the Prometheus that the sidecar stands beside.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use isobar_model::Clock;
use isobar_store::block::meta::Meta;
use isobar_store::block::shipper::{LabelsOf, Shipper, ShipperConfig, Synced};
use isobar_store::prometheus::Peer;

/// How often new blocks are looked for.
const INTERVAL: Duration = Duration::from_secs(30);
/// How often it is looked whether external labels are known, at the beginning. Nobody is asked for it.
const LABELS_INTERVAL: Duration = Duration::from_millis(100);

/// Why uploading was given up.
#[derive(Debug, thiserror::Error)]
#[error("aborting as no external labels found after waiting {0:?}")]
pub struct ShippingError(Duration);

/// Uploads blocks.
pub struct Shipping {
    shipper: Shipper,
    peer: Arc<Peer>,
    clock: Clock,
    ready_timeout: Duration,
}

impl Shipping {
    /// Uploads with `shipper`, once the external labels of `peer` are known, which may take
    /// `ready_timeout`.
    pub fn new(shipper: Shipper, peer: Arc<Peer>, clock: Clock, ready_timeout: Duration) -> Self {
        Shipping {
            shipper,
            peer,
            clock,
            ready_timeout,
        }
    }

    /// Looks for new blocks until `stop`; an upload that has begun then comes to its end.
    ///
    /// # Errors
    /// When there are no external labels in time.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), ShippingError> {
        let mut stop = std::pin::pin!(stop);
        tokio::select! {
            known = tokio::time::timeout(self.ready_timeout, self.labels_known()) => {
                known.map_err(|_| ShippingError(self.ready_timeout))?;
            }
            () = &mut stop => return Ok(()),
        }
        loop {
            match self.shipper.sync(self.clock.now_ms()).await {
                Ok(synced) => tell(&synced),
                Err(error) => tracing::warn!(%error, "upload blocks, trying again later"),
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = &mut stop => return Ok(()),
            }
        }
    }

    async fn labels_known(&self) {
        while self.peer.known().labels.is_empty() {
            tokio::time::sleep(LABELS_INTERVAL).await;
        }
    }
}

fn tell(synced: &Synced) {
    for block in &synced.uploaded {
        tracing::info!(%block, "block uploaded");
    }
    for (block, error) in &synced.failed {
        tracing::warn!(%block, %error, "block not uploaded, trying again later");
    }
    for (block, why) in &synced.corrupted {
        tracing::warn!(%block, why, "block cannot be read, going on without it");
    }
}

/// How blocks of `peer` are uploaded from `directory`: as the sidecar's, with external labels.
pub fn shipper_config(directory: &Path, peer: &Arc<Peer>) -> ShipperConfig {
    let peer = Arc::clone(peer);
    let labels: LabelsOf = Arc::new(move |_: &Meta| -> BTreeMap<String, String> {
        let known = peer.known();
        let pairs = known.labels.iter();
        pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    });
    ShipperConfig::new(directory, "sidecar", labels)
}
