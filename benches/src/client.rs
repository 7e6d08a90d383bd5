//! Feeds a server by remote write and asks it queries, over kept-alive connections whose number is
//! bounded.
//!
//! Every step of data time is sent whole before the next begins, as scrapes arrive, so no connection
//! runs ahead of another; within a step the server is fed as fast as it takes it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use reqwest::blocking::Client;

use crate::data::{Pod, SERIES_PER_POD};
use crate::encode::Batch;

/// What is sent: how many series, at which times, in what portions.
#[derive(Debug, Clone)]
pub struct Load {
    /// Decides all labels and values.
    pub seed: u64,
    /// A multiple of [`SERIES_PER_POD`].
    pub series: usize,
    /// Data time between two samples of a series.
    pub interval_ms: i64,
    /// When the first scrape interval begins: a whole second.
    pub start_ms: i64,
    /// Samples of each series altogether.
    pub steps: usize,
    /// Samples of each series in one request.
    pub samples_per_series: usize,
    /// A multiple of [`SERIES_PER_POD`].
    pub series_per_request: usize,
    /// Requests under way at once.
    pub connections: usize,
}

impl Load {
    /// All samples that are sent.
    pub fn samples(&self) -> u64 {
        self.series as u64 * self.steps as u64
    }

    /// The end of the last scrape interval.
    pub fn end_ms(&self) -> i64 {
        self.start_ms + self.steps as i64 * self.interval_ms
    }

    fn batches(&self) -> Vec<Batch> {
        let pods_per_request = (self.series_per_request / SERIES_PER_POD).max(1);
        let pods: Vec<usize> = (0..self.series / SERIES_PER_POD).collect();
        let pod = |index: &usize| Pod::new(self.seed, *index, self.interval_ms, self.start_ms);
        pods.chunks(pods_per_request)
            .map(|chunk| Batch::new(chunk.iter().map(pod).collect()))
            .collect()
    }
}

/// Sends the whole load to the remote write endpoint `url`. Calls `after_first` once every series has
/// been sent for the first time. Any answer but success ends the run: nothing may be missing.
pub fn feed(
    url: &str,
    load: &Load,
    after_first: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let client = client()?;
    let mut batches = load.batches();
    let share = batches.len().div_ceil(load.connections.max(1));
    let steps: Vec<i64> = (0..load.steps as i64)
        .map(|it| load.start_ms + it * load.interval_ms)
        .collect();
    let mut after_first = Some(after_first);
    let mut spent = Duration::ZERO;
    for steps_ms in steps.chunks(load.samples_per_series.max(1)) {
        let began = Instant::now();
        std::thread::scope(|scope| {
            let connections: Vec<_> = batches
                .chunks_mut(share)
                .map(|mine| {
                    scope.spawn(|| {
                        mine.iter_mut()
                            .try_for_each(|batch| send(&client, url, batch, steps_ms))
                    })
                })
                .collect();
            connections.into_iter().try_for_each(|it| match it.join() {
                Ok(sent) => sent,
                Err(_) => bail!("a sending thread panicked"),
            })
        })?;
        spent += began.elapsed();
        if let Some(after_first) = after_first.take() {
            after_first()?;
        }
    }
    Ok(spent)
}

fn send(client: &Client, url: &str, batch: &mut Batch, steps_ms: &[i64]) -> anyhow::Result<()> {
    post(client, url, batch.next_request(steps_ms)?.to_vec())
}

/// Posts a compressed write request. Any answer but success is an error.
pub fn post(client: &Client, url: &str, body: Vec<u8>) -> anyhow::Result<()> {
    let response = client
        .post(url)
        .header("content-encoding", "snappy")
        .header("content-type", "application/x-protobuf")
        .header("x-prometheus-remote-write-version", "0.1.0")
        .body(body)
        .send()
        .context("send a write request")?;
    let status = response.status();
    let text = response
        .text()
        .context("read the answer to a write request")?;
    ensure!(
        status.is_success(),
        "write refused with {status}: {}",
        text.trim()
    );
    Ok(())
}

/// The answer to a GET of `url`, and how long it took until the last byte was here.
pub fn ask(
    client: &Client,
    url: &str,
    parameters: &[(&str, String)],
) -> anyhow::Result<(String, Duration)> {
    let began = Instant::now();
    let response = client
        .get(url)
        .query(parameters)
        .send()
        .with_context(|| format!("ask {url}"))?;
    let status = response.status();
    let text = response
        .text()
        .with_context(|| format!("read the answer of {url}"))?;
    let took = began.elapsed();
    ensure!(
        status.is_success(),
        "{url} answers {status}: {}",
        text.chars().take(400).collect::<String>()
    );
    Ok((text, took))
}

/// An HTTP client that does not ask for compression, which would be measured along with the server.
pub fn client() -> anyhow::Result<Client> {
    Client::builder()
        .no_gzip()
        .no_proxy()
        .timeout(Duration::from_secs(300))
        .build()
        .context("build the HTTP client")
}
