//! Beside a running Prometheus: its data over Thanos' services, and its configuration reloaded.
//!
//! In reading order: [`check`] (whether Prometheus runs with the right flags), this file (waiting for
//! it and watching over it), [`proxy`] (its rules, targets, metadata, exemplars and statistics as
//! gRPC services), [`reloader`] (telling it when its files have changed), [`shipping`] (uploading its
//! blocks), [`metrics`].
//!
//! Its series are a store of their own: [`isobar_store::prometheus`].

pub mod check;
pub mod metrics;
pub mod proxy;
pub mod reloader;
pub mod shipping;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use isobar_store::prometheus::{ClientError, Peer};

pub use metrics::Metrics;

/// How often it is said at the beginning what is waited for.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// How the sidecar treats its Prometheus.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether blocks are uploaded: then Prometheus must not compact them before.
    pub uploads: bool,
    /// The data directory of Prometheus, as the sidecar sees it.
    pub tsdb_path: PathBuf,
    /// The file in it that says which blocks are uploaded.
    pub shipper_meta_file: String,
    /// Whether to go on although Prometheus may compact blocks before they are uploaded.
    pub ignore_unequal_block_size: bool,
    /// How often Prometheus is looked at.
    pub interval: Duration,
    /// How long one look may take.
    pub timeout: Duration,
}

/// Why the sidecar cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// Prometheus has no external labels, by which its data could be told from those of others.
    #[error(
        "no external labels configured on Prometheus server, uniquely identifying external labels \
         must be configured; see https://thanos.io/tip/thanos/storage.md#external-labels for details."
    )]
    NoExternalLabels,
}

/// Watches over a Prometheus.
pub struct Sidecar {
    config: Config,
    peer: Arc<Peer>,
    ready: Arc<AtomicBool>,
    metrics: Metrics,
}

impl Sidecar {
    /// Watches over `peer`; `ready` says whether it can be asked.
    pub fn new(config: Config, peer: Arc<Peer>, ready: Arc<AtomicBool>, metrics: Metrics) -> Self {
        Sidecar {
            config,
            peer,
            ready,
            metrics,
        }
    }

    /// Waits until Prometheus runs with the right flags and its external labels are known, for as long
    /// as that takes.
    ///
    /// # Errors
    /// When it has no external labels.
    pub async fn begin(&self) -> Result<(), SidecarError> {
        if self.config.uploads {
            self.until("check the flags of Prometheus", || self.check())
                .await;
        }
        let version = || async { Ok(self.peer.refresh_version().await?) };
        self.until("ask for the version of Prometheus", version)
            .await;
        let labels = || async { Ok(self.peer.refresh().await?) };
        self.until("ask for the external labels of Prometheus", labels)
            .await;
        let labels = self.peer.known().labels.clone();
        if labels.is_empty() {
            return Err(SidecarError::NoExternalLabels);
        }
        tracing::info!(external_labels = %labels, "Prometheus is there");
        self.metrics.prometheus_up.set(1);
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Looks at Prometheus again and again: where its data begin and its external labels may change.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(self.config.interval).await;
            let up = match self.in_time(async { Ok(self.peer.refresh().await?) }).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%error, "Prometheus cannot be asked");
                    false
                }
            };
            self.metrics.prometheus_up.set(i64::from(up));
            self.ready.store(up, Ordering::Release);
        }
    }

    async fn check(&self) -> Result<(), Trouble> {
        let Some(flags) = self.peer.flags().await? else {
            tracing::warn!("Prometheus is too old to tell its flags, they are not checked");
            return Ok(());
        };
        for remark in check::flags(&self.config, &flags).map_err(Trouble::Flags)? {
            tracing::warn!("{remark}");
        }
        Ok(())
    }

    /// Tries until it works.
    async fn until<F: Future<Output = Result<(), Trouble>>>(
        &self,
        what: &'static str,
        mut work: impl FnMut() -> F,
    ) {
        let working = async {
            while let Err(error) = self.in_time(work()).await {
                tracing::warn!(%error, "{what}, trying again");
                tokio::time::sleep(self.config.interval).await;
            }
        };
        // However seldom it is tried: nobody should have to guess why the sidecar is not ready.
        let telling = async {
            let began = tokio::time::Instant::now();
            let prometheus = self.peer.client().shown_url();
            loop {
                tokio::time::sleep(TELL_INTERVAL).await;
                let waited_s = began.elapsed().as_secs();
                tracing::info!(%prometheus, waited_s, "waiting for Prometheus: {what}");
            }
        };
        tokio::select! {
            () = working => {}
            () = telling => {}
        }
    }

    async fn in_time(
        &self,
        work: impl Future<Output = Result<(), Trouble>>,
    ) -> Result<(), Trouble> {
        let limit = self.config.timeout;
        let result = tokio::time::timeout(limit, work).await;
        result.unwrap_or(Err(Trouble::Late(limit)))
    }
}

/// Why a look at Prometheus failed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Flags(String),
    #[error("no answer within {0:?}")]
    Late(Duration),
}
