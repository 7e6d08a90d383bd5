//! Tells a Prometheus to read its configuration again: over HTTP, or by a signal to its process.

use std::fs;
use std::time::Duration;

use isobar_store::prometheus::{ClientError, Peer};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// What Linux keeps of the name of a process.
const NAME_BYTES: usize = 15;
/// How often Prometheus is asked whether it has read its configuration.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// How often at most.
const ASK_MAX: usize = 60;

/// How Prometheus is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// By a request, for which it runs with `--web.enable-lifecycle`.
    Http,
    /// By SIGHUP to the process of this name, which shares a process namespace.
    Signal(String),
}

impl Method {
    /// Its name in flags and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Method::Http => "http",
            Method::Signal(_) => "signal",
        }
    }
}

pub(super) async fn reload(peer: &Peer, method: &Method) -> Result<(), String> {
    match method {
        Method::Http => {
            let answer = peer.client().post("/-/reload", &[], Vec::new()).await;
            match answer {
                Ok(_) => Ok(()),
                Err(
                    error @ ClientError::Refused {
                        status: 403..=405, ..
                    },
                ) => Err(format!(
                    "{error}; have you set `--web.enable-lifecycle` Prometheus flag?"
                )),
                Err(error) => Err(error.to_string()),
            }
        }
        Method::Signal(name) => by_signal(peer, name).await,
    }
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct RuntimeInfo {
    #[serde(default)]
    reload_config_success: bool,
    #[serde(default)]
    last_config_time: String,
}

async fn by_signal(peer: &Peer, name: &str) -> Result<(), String> {
    let before = runtime_info(peer).await?;
    let wanted = name.to_owned();
    let found = tokio::task::spawn_blocking(move || find(&wanted)).await;
    let pid = found.map_err(|why| why.to_string())??;
    kill_process(pid, Signal::HUP).map_err(|why| format!("send SIGHUP to {name}: {why}"))?;
    for _ in 0..ASK_MAX {
        tokio::time::sleep(ASK_INTERVAL).await;
        let now = runtime_info(peer).await?;
        if now.last_config_time != before.last_config_time {
            return Ok(());
        }
        if !now.reload_config_success {
            return Err("Prometheus could not take the configuration".to_owned());
        }
    }
    Err("Prometheus did not read its configuration again".to_owned())
}

async fn runtime_info(peer: &Peer) -> Result<RuntimeInfo, String> {
    let info = peer.client().api("/api/v1/status/runtimeinfo", &[]).await;
    info.map_err(|error| error.to_string())
}

/// The first process of a name.
fn find(name: &str) -> Result<Pid, String> {
    let short = name.as_bytes().get(..NAME_BYTES).unwrap_or(name.as_bytes());
    let entries = fs::read_dir("/proc").map_err(|why| format!("/proc: {why}"))?;
    let mut pids: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let of_name = |pid: &i32| {
        // A process may end while one looks.
        fs::read(format!("/proc/{pid}/comm")).is_ok_and(|it| it.trim_ascii_end() == short)
    };
    let pid = pids.into_iter().find(of_name).and_then(Pid::from_raw);
    pid.ok_or_else(|| format!("failed to find process matching {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_by_name() {
        let own = fs::read_to_string("/proc/self/comm").expect("a name");
        find(own.trim_end()).expect("this process");
        let error = find("no such process").expect_err("none");
        assert!(error.contains("no such process"));
    }
}
