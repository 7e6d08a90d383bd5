//! Prometheus' remote write over HTTP.
//!
//! [`request`] turns a body into stored samples, without a runtime; this page is the HTTP edge.
//! What can be stored is stored; what is refused is named in a 400, which senders do not repeat.
//! A fault on this side is a 5xx, which they do. A request is acknowledged when its samples are
//! in the log on disk.

mod metrics;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use isobar_model::Tenant;
use isobar_store::compute::{self, ComputeError, Pool};
use isobar_store::metadata::MetadataStore;
use isobar_tsdb::Error;
use isobar_tsdb::db::Db;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use crate::tenant;
use metrics::Metrics;
use request::{Outcome, RequestError};

/// The paths that senders are configured with: Prometheus, Thanos Receive, Cortex and Mimir,
/// old Cortex, and Mimir behind its prefix.
pub const PATHS: [&str; 5] = [
    "/api/v1/write",
    "/api/v1/receive",
    "/api/v1/push",
    "/api/prom/push",
    "/prometheus/api/v1/write",
];

/// Bounds of a request.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most bytes of a body as sent.
    pub body_bytes_max: usize,
    /// Most bytes of a body once it is decompressed.
    pub decoded_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            body_bytes_max: 32 << 20,
            decoded_bytes_max: 128 << 20,
        }
    }
}

/// What the endpoint works with.
pub struct RemoteWrite {
    config: Config,
    db: Arc<Db>,
    pool: Arc<Pool>,
    metadata: Arc<MetadataStore>,
    metrics: Metrics,
}

impl RemoteWrite {
    /// The endpoint over `db`; decoding runs on `pool`. Its metrics join `registry`.
    pub fn new(
        config: Config,
        db: Arc<Db>,
        pool: Arc<Pool>,
        metadata: Arc<MetadataStore>,
        registry: &mut Registry,
    ) -> Self {
        RemoteWrite {
            config,
            db,
            pool,
            metadata,
            metrics: Metrics::new(registry),
        }
    }

    /// All paths of the endpoint.
    pub fn router(self) -> Router {
        let state = Arc::new(self);
        PATHS
            .iter()
            .fold(Router::new(), |router, path| {
                router.route(path, any(handle))
            })
            .with_state(state)
    }
}

async fn handle(
    State(state): State<Arc<RemoteWrite>>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    if method != Method::POST {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("OPTIONS, POST"));
        return response;
    }
    match write(&state, &headers, body).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => {
            state.metrics.refused(refusal.status);
            let mut response = plain(refusal.status, &refusal.text);
            let later = [
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::TOO_MANY_REQUESTS,
            ];
            if later.contains(&refusal.status) {
                response
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
    }
}

/// An answer other than success.
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Refusal {
            status,
            text: text.into(),
        }
    }
}

async fn write(state: &Arc<RemoteWrite>, headers: &HeaderMap, body: Body) -> Result<(), Refusal> {
    check_content(headers)?;
    let tenant = tenant::from_headers(headers)
        .map_err(|text| Refusal::new(StatusCode::BAD_REQUEST, text))?;
    let body = to_bytes(body, state.config.body_bytes_max)
        .await
        .map_err(|e| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                format!(
                    "read body: {e} (bodies of up to {} bytes are taken)",
                    state.config.body_bytes_max
                ),
            )
        })?;

    let (give, take) = oneshot::channel();
    let worker = Arc::clone(state);
    let started = state.pool.start(move || {
        if !give.is_closed() {
            worker.store(&tenant, &body, give);
        }
    });
    started.map_err(refuse_unworked)?;
    // This wakes up once, when all is on disk.
    let stored = take
        .await
        .unwrap_or(Err(StoreError::Unworked(ComputeError::Closed)));
    let (outcome, durable) = stored.map_err(|error| match error {
        StoreError::Unworked(error) => refuse_unworked(error),
        StoreError::Request(error) => refuse_request(error),
    })?;
    state.metrics.stored(&outcome);
    durable.map_err(|error| refuse_request(RequestError::Store(error)))?;
    match outcome.complaint {
        None => Ok(()),
        Some(text) => Err(Refusal::new(StatusCode::BAD_REQUEST, text)),
    }
}

/// Why there is no outcome.
enum StoreError {
    Unworked(ComputeError),
    Request(RequestError),
}

/// What became of a request, and whether that is durable.
type Stored = Result<(Outcome, Result<(), Error>), StoreError>;

impl RemoteWrite {
    /// Stores what a body holds, and tells `give` when it is durable or cannot be. That is the end of it:
    /// nobody waits on a thread of the pool.
    fn store(&self, tenant: &Tenant, body: &[u8], give: oneshot::Sender<Stored>) {
        let max = self.config.decoded_bytes_max;
        let work = || request::store(&self.db, &self.metadata, tenant, body, max);
        let stored = match compute::here(work) {
            Err(error) => Err(StoreError::Unworked(error)),
            Ok(Err(error)) => {
                if matches!(error, RequestError::Store(Error::TooManySamples { .. })) {
                    self.metrics.too_fast(tenant);
                }
                Err(StoreError::Request(error))
            }
            Ok(Ok(outcome)) => match outcome.ticket {
                None => Ok((outcome, Ok(()))),
                Some(ticket) => {
                    let tell = move |durable| {
                        // When the sender has hung up there is nobody to tell.
                        let _gone = give.send(Ok((outcome, durable)));
                    };
                    return self.db.when_durable(ticket, Box::new(tell));
                }
            },
        };
        let _gone = give.send(stored);
    }
}

/// Senders of other protocols are told so with 415, which makes those that can fall back do so.
fn check_content(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("?"))
            .unwrap_or("")
    };
    let content_type = text(header::CONTENT_TYPE);
    let mut parts = content_type.split(';').map(str::trim);
    let kind = parts.next().unwrap_or("");
    let proto = parts.find_map(|part| part.strip_prefix("proto="));
    let known = (kind.is_empty() || kind.eq_ignore_ascii_case("application/x-protobuf"))
        && proto.is_none_or(|name| name.trim_matches('"') == "prometheus.WriteRequest");
    if !known {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "content type {content_type:?} is not taken; send application/x-protobuf (remote write 1.0)"
            ),
        ));
    }
    let encoding = text(header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("snappy") {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("content encoding {encoding:?} is not taken; send snappy"),
        ));
    }
    Ok(())
}

fn refuse_unworked(error: ComputeError) -> Refusal {
    let status = match error {
        ComputeError::QueueFull | ComputeError::Closed => StatusCode::SERVICE_UNAVAILABLE,
        ComputeError::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal::new(status, error.to_string())
}

fn refuse_request(error: RequestError) -> Refusal {
    match error {
        RequestError::Snappy | RequestError::TooLarge { .. } | RequestError::Message(_) => {
            Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
        }
        RequestError::Store(error) => {
            tracing::warn!(%error, "write refused");
            match error {
                Error::TooManySamples { .. } => {
                    Refusal::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
                }
                // As the limits of series: who sends must not try again and again.
                Error::TooManyTenants { .. } => {
                    Refusal::new(StatusCode::BAD_REQUEST, error.to_string())
                }
                Error::Unavailable(_) | Error::Io { .. } | Error::LimitExceeded(_) => {
                    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
                }
                _ => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, format!("{text}\n")).into_response()
}
