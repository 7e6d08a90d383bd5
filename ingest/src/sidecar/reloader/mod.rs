//! Tells Prometheus to read its configuration again when that has changed.
//!
//! [`files`] looks at files, [`expand`] replaces `$(VAR)` in a configuration, [`trigger`] tells
//! Prometheus. This file puts them together: files are looked at every second, which notices every
//! change that moves a time, a size or an inode, also behind symbolic links; and read as a whole at
//! every watch interval, which notices all others.
//! Source: `pkg/reloader/reloader.go` of Thanos.

mod expand;
mod files;
mod trigger;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isobar_model::Clock;
use isobar_store::prometheus::Peer;
use tokio::time::Instant;

use super::metrics::ReloaderMetrics;
use files::{Contents, Stamp};
pub use trigger::Method;

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What is watched, and how Prometheus is told.
#[derive(Debug, Clone)]
pub struct ReloaderConfig {
    /// The configuration.
    pub config_file: Option<PathBuf>,
    /// Where the configuration goes, unpacked and with variables replaced.
    pub output_file: Option<PathBuf>,
    /// Directories with rules.
    pub rule_dirs: Vec<PathBuf>,
    /// How often everything is read; zero to write the output once and watch nothing.
    pub watch_interval: Duration,
    /// How long to wait before Prometheus is told again, when that did not work.
    pub retry_interval: Duration,
    /// How Prometheus is told.
    pub method: Method,
}

/// Why watching could not begin.
#[derive(Debug, thiserror::Error)]
#[error("apply the configuration: {0}")]
pub struct ReloaderError(String);

/// Watches files for one Prometheus.
pub struct Reloader {
    config: ReloaderConfig,
    peer: Arc<Peer>,
    clock: Clock,
    metrics: ReloaderMetrics,
    /// What Prometheus knows.
    told: Option<Contents>,
}

impl Reloader {
    /// Watches files for `peer`.
    pub fn new(
        config: ReloaderConfig,
        peer: Arc<Peer>,
        clock: Clock,
        metrics: ReloaderMetrics,
    ) -> Self {
        Reloader {
            config,
            peer,
            clock,
            metrics,
            told: None,
        }
    }

    /// Watches for ever.
    ///
    /// # Errors
    /// When the configuration cannot be read or written at the beginning. Later that is logged and
    /// tried again.
    pub async fn watch(mut self) -> Result<(), ReloaderError> {
        let config = &self.config;
        if config.config_file.is_none() && config.rule_dirs.is_empty() {
            tracing::debug!("no files to be watched");
            return std::future::pending().await;
        }
        let watched = config.rule_dirs.len() + usize::from(config.config_file.is_some());
        if self.config.config_file.is_some() {
            self.apply().await.map_err(ReloaderError)?;
        }
        if self.config.watch_interval.is_zero() {
            return std::future::pending().await;
        }
        self.metrics.watches.set(watched as i64);
        tracing::info!(
            config_file = ?self.config.config_file,
            output_file = ?self.config.output_file,
            rule_dirs = ?self.config.rule_dirs,
            "watching files for changes"
        );
        let mut seen = self.look().await;
        loop {
            let deadline = Instant::now() + self.config.watch_interval;
            while Instant::now() < deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
                let now = self.look().await;
                if now != seen {
                    seen = now;
                    self.metrics.watch_events.inc();
                    break;
                }
            }
            self.metrics.applied.inc();
            if let Err(error) = self.apply().await {
                self.metrics.applied_failed.inc();
                tracing::error!(error, "apply a changed configuration");
            }
        }
    }

    async fn look(&self) -> Option<Stamp> {
        let config = self.config.clone();
        let stamp = blocking(move || files::stamp(&config)).await;
        match stamp {
            Ok(stamp) => Some(stamp),
            Err(error) => {
                self.metrics.watch_errors.inc();
                tracing::debug!(error, "look at watched files");
                None
            }
        }
    }

    /// Writes the output and, when something has changed, tells Prometheus.
    async fn apply(&mut self) -> Result<(), String> {
        let config = self.config.clone();
        let unset = self.metrics.variables_unset.clone();
        let contents = blocking(move || {
            let contents = files::contents(&config)?;
            if let (Some(input), Some(output)) = (&config.config_file, &config.output_file) {
                let (result, count) = expand::write(input, output);
                unset.set(count as i64);
                result?;
            }
            Ok(contents)
        })
        .await?;
        if self.told.as_ref() == Some(&contents) || self.config.watch_interval.is_zero() {
            return Ok(());
        }
        // Later changes are looked at in time, whatever Prometheus does.
        let telling = tokio::time::timeout(self.config.watch_interval, self.tell());
        if telling.await.is_ok() {
            self.told = Some(contents);
        } else {
            // It does not know what it has.
            self.told = None;
            tracing::error!("Prometheus did not take the configuration, trying again later");
        }
        Ok(())
    }

    /// Tells Prometheus until that works.
    async fn tell(&self) {
        loop {
            self.metrics.reloads.inc();
            match trigger::reload(&self.peer, &self.config.method).await {
                Ok(()) => {
                    self.metrics.last_successful.set(1);
                    let seconds = self.clock.now_ms() as f64 / 1000.0;
                    self.metrics.last_success_seconds.set(seconds);
                    tracing::info!("Prometheus has read its configuration again");
                    return;
                }
                Err(error) => {
                    self.metrics.reloads_failed.inc();
                    self.metrics.last_successful.set(0);
                    tracing::warn!(error, "tell Prometheus to read its configuration again");
                }
            }
            tokio::time::sleep(self.config.retry_interval).await;
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|why| Err(why.to_string()))
}
