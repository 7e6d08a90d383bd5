//! Remote read: one request, and its answer as it arrives.
//!
//! Prometheus adds its external labels to what it sends, but keeps the order that the series have
//! without them; where a series has such a label itself, that one stays. Here the external labels are
//! taken off again, and who asked adds them where they belong ([`arrange`](crate::arrange)).

use std::sync::Arc;

use bytes::Bytes;
use isobar_model::{Labels, Matcher, TimeRange};
use isobar_proto::convert::wire_matcher;
use isobar_proto::prometheus::read_request::ResponseType;
use isobar_proto::prometheus::{Query, ReadRequest};
use isobar_tsdb::SeriesChunks;
use prost::Message;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::mpsc;

use super::client::{self, Client, ClientError};
use super::frames::{self, Frames};
use super::samples;
use crate::StoreError;
use crate::api::SeriesBatch;
use crate::compute::Pool;

/// Frames of more bytes than this together are decoded on the pool.
const INLINE_BYTES_MAX: usize = 128 << 10;
/// Series in a batch of an answer that came as a whole.
const BATCH_SERIES: usize = 64;
/// The most bytes of an answer with samples, compressed.
const SAMPLES_BYTES_MAX: usize = 256 << 20;
/// What a server that streams chunks calls its answer.
const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
/// What one that sends samples calls it.
const SAMPLED: &str = "application/x-protobuf";

/// Where batches go; who reads may be gone.
pub(super) type Out = mpsc::Sender<Result<SeriesBatch, StoreError>>;

/// One remote read.
pub(super) struct Read {
    pub(super) matchers: Vec<Matcher>,
    pub(super) range: TimeRange,
    /// External labels that no series of Prometheus has itself: they are taken off.
    pub(super) strip: Labels,
    /// Whether the series come in order when that is done, so that it can be checked.
    pub(super) ordered: bool,
}

impl Read {
    /// Asks and passes on what comes; the number of frames.
    pub(super) async fn run(
        self,
        client: &Client,
        pool: &Arc<Pool>,
        out: &Out,
    ) -> Result<u64, StoreError> {
        let response = self.ask(client).await.map_err(store_error)?;
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|it| it.to_str().ok()).unwrap_or("");
        if kind.starts_with(STREAMED) {
            return self.streamed(response, pool, out).await;
        }
        if kind.starts_with(SAMPLED) {
            return self.sampled(response, pool, out).await.map(|()| 0);
        }
        Err(StoreError::Unsupported(format!(
            "Prometheus answers remote read with content type {kind:?}"
        )))
    }

    async fn ask(&self, client: &Client) -> Result<Response, ClientError> {
        let query = Query {
            start_timestamp_ms: self.range.min_ms,
            end_timestamp_ms: self.range.max_ms,
            matchers: self.matchers.iter().map(wire_matcher).collect(),
            hints: None,
        };
        let liked = [ResponseType::StreamedXorChunks, ResponseType::Samples];
        let request = ReadRequest {
            queries: vec![query],
            accepted_response_types: liked.map(i32::from).to_vec(),
        };
        let body = snap::raw::Encoder::new()
            .compress_vec(&request.encode_to_vec())
            .map_err(|why| ClientError::Config(why.to_string()))?;
        let headers = [
            ("content-encoding", "snappy"),
            ("content-type", "application/x-protobuf"),
            ("x-prometheus-remote-read-version", "0.1.0"),
        ];
        client.post("/api/v1/read", &headers, body).await
    }

    async fn streamed(
        self,
        mut response: Response,
        pool: &Arc<Pool>,
        out: &Out,
    ) -> Result<u64, StoreError> {
        let mut frames = Frames::default();
        let mut joiner = Joiner::new(self.strip, self.ordered);
        let mut count = 0u64;
        loop {
            let next = response.chunk().await.map_err(|error| {
                let why = client::chain(&error.without_url());
                StoreError::Unavailable(format!("the answer of Prometheus broke off: {why}"))
            })?;
            let Some(bytes) = next else { break };
            frames.push(&bytes);
            let mut payloads = Vec::new();
            let mut size = 0;
            while let Some(payload) = frames.take()? {
                size += payload.len();
                payloads.push(payload);
            }
            count += payloads.len() as u64;
            let done = if size > INLINE_BYTES_MAX {
                let work = move || {
                    let done = joiner.push(payloads);
                    (joiner, done)
                };
                let (back, done) = pool.run(work).await.map_err(unavailable)?;
                joiner = back;
                done?
            } else {
                joiner.push(payloads)?
            };
            if !done.is_empty() && !give(out, done).await {
                return Ok(count);
            }
        }
        frames.finish()?;
        let last: Vec<SeriesChunks> = joiner.open.take().into_iter().collect();
        give(out, last).await;
        Ok(count)
    }

    async fn sampled(
        self,
        response: Response,
        pool: &Arc<Pool>,
        out: &Out,
    ) -> Result<(), StoreError> {
        let body = client::body(response, "remote read", SAMPLES_BYTES_MAX);
        let body = body.await.map_err(store_error)?;
        let strip = self.strip;
        let work = move || -> Result<Vec<SeriesChunks>, StoreError> {
            let mut all = samples::series(&body)?;
            for one in &mut all {
                one.labels = without(&one.labels, &strip);
            }
            all.sort_by(|a, b| a.labels.cmp(&b.labels));
            Ok(all)
        };
        let all = pool.run(work).await.map_err(unavailable)??;
        let mut all = all.into_iter();
        loop {
            let batch: Vec<SeriesChunks> = all.by_ref().take(BATCH_SERIES).collect();
            if batch.is_empty() || !give(out, batch).await {
                return Ok(());
            }
        }
    }
}

/// Passes series on; whether somebody still wants more.
async fn give(out: &Out, series: Vec<SeriesChunks>) -> bool {
    series.is_empty() || out.send(Ok(SeriesBatch::Series(series))).await.is_ok()
}

fn unavailable(error: crate::compute::ComputeError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// What a failed request is to who asked the store.
pub(super) fn store_error(error: ClientError) -> StoreError {
    let text = error.to_string();
    match error {
        ClientError::Refused { text: said, .. } if said.contains("exceeded sample limit") => {
            StoreError::LimitExceeded(text)
        }
        ClientError::Refused {
            status: 400 | 422, ..
        } => StoreError::Invalid(text),
        ClientError::TooLarge { .. } => StoreError::LimitExceeded(text),
        ClientError::Unexpected { .. } => StoreError::Corrupt(text),
        ClientError::Refused { .. } | ClientError::Unreachable { .. } | ClientError::Config(_) => {
            StoreError::Unavailable(text)
        }
    }
}

/// Makes one series of those that were cut over several frames.
struct Joiner {
    strip: Labels,
    ordered: bool,
    /// The last series, which may go on.
    open: Option<SeriesChunks>,
}

impl Joiner {
    fn new(strip: Labels, ordered: bool) -> Self {
        Joiner {
            strip,
            ordered,
            open: None,
        }
    }

    /// The series that are complete.
    fn push(&mut self, payloads: Vec<Bytes>) -> Result<Vec<SeriesChunks>, StoreError> {
        let mut done = Vec::new();
        for payload in payloads {
            for mut series in frames::series(payload)? {
                series.labels = without(&series.labels, &self.strip);
                match &mut self.open {
                    Some(open) if open.labels == series.labels => {
                        open.chunks.extend(series.chunks);
                        continue;
                    }
                    Some(open) if self.ordered && series.labels < open.labels => {
                        return Err(StoreError::Unavailable(format!(
                            "Prometheus gave {} behind {}: a series has one of its external labels \
                             itself since a moment; ask again",
                            series.labels, open.labels
                        )));
                    }
                    _ => done.extend(self.open.replace(series)),
                }
            }
        }
        Ok(done)
    }
}

fn without(labels: &Labels, strip: &Labels) -> Labels {
    if strip.is_empty() {
        return labels.clone();
    }
    labels.filter(|name| !strip.has(name))
}
