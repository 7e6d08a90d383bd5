//! When to stop: SIGINT or SIGTERM, or a component that cannot go on.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A signal this soon after the first one is the same.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Tells all tasks of a process to stop.
#[derive(Clone)]
pub(crate) struct Shutdown {
    stop: watch::Sender<bool>,
}

impl Shutdown {
    /// Listens for SIGINT and SIGTERM from here on.
    ///
    /// # Errors
    /// When the system refuses to pass signals on.
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let shutdown = Shutdown {
            stop: watch::Sender::new(false),
        };
        let trigger = shutdown.clone();
        // Owned by the runtime: it ends with the first signal or with the process.
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            tracing::info!(signal = name, "shutting down");
            trigger.stop();
            let first = Instant::now();
            // A second signal means: at once. Those that come right away are copies of the first, as
            // `cargo run` and some supervisors pass on what a whole process group has got.
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if first.elapsed() >= SAME_SIGNAL {
                    break;
                }
            }
            tracing::warn!("second signal, stopping without waiting");
            std::process::exit(130);
        });
        Ok(shutdown)
    }

    /// Tells everyone to stop.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until it is time to stop.
    pub(crate) async fn wait(&self) {
        let mut stopped = self.stop.subscribe();
        // The sender lives as long as `self`, so this ends only with the wanted value.
        let _stopped = stopped.wait_for(|stop| *stop).await;
    }
}
