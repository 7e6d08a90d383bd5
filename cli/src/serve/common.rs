//! What every component answers over HTTP, as Thanos does: health, readiness, `/metrics`, and what is known
//! about the process below `/api/v1/status`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use isobar_model::time::rfc3339;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::telemetry::http::HttpRequests;
use crate::telemetry::metrics;

/// Headers that let pages of other sites ask, as Thanos sends them.
const CORS: [(&str, &str); 4] = [
    (
        "access-control-allow-headers",
        "Accept, Accept-Encoding, Authorization, Content-Type, Origin",
    ),
    ("access-control-allow-methods", "GET, POST, OPTIONS"),
    ("access-control-allow-origin", "*"),
    ("access-control-expose-headers", "Date"),
];

/// What the common endpoints tell.
pub(crate) struct Common {
    /// Whether the component is ready.
    pub(crate) ready: Arc<AtomicBool>,
    /// Its metrics.
    pub(crate) registry: Arc<Registry>,
    /// Names and values of its flags.
    pub(crate) flags: BTreeMap<String, String>,
    /// When the process started, unix milliseconds.
    pub(crate) started_ms: i64,
    /// Whether pages of other sites may ask.
    pub(crate) cors: bool,
    /// Counts and logs requests to the API.
    pub(crate) requests: HttpRequests,
}

/// The endpoints, with those of the component below `/api/v1`.
pub(crate) fn router(common: Common, api: Router) -> Router {
    let Common {
        ready,
        registry,
        flags,
        started_ms,
        cors,
        requests,
    } = common;
    let is_ready = move || async move {
        match ready.load(Ordering::Acquire) {
            true => (StatusCode::OK, "OK"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "Not OK"),
        }
    };
    let show = move |headers: HeaderMap| async move { show_metrics(&registry, &headers) };
    let flags = Arc::new(json!(flags));
    let list = move || async move { success(&flags) };
    let runtime = move || async move { success(&runtime_info(started_ms)) };
    let build = || async {
        success(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "revision": "",
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
        }))
    };
    let api = api
        .route("/status/flags", get(list))
        .route("/status/runtimeinfo", get(runtime))
        .route("/status/buildinfo", get(build));
    let api = requests.watch(api);
    let api = match cors {
        true => api.layer(middleware::from_fn(allow_others)),
        false => api,
    };
    Router::new()
        .route("/-/healthy", get(|| async { "OK" }))
        .route("/-/ready", get(is_ready))
        .route("/metrics", get(show))
        .nest("/api/v1", api)
        .fallback(not_found)
}

/// As Go's server says it.
async fn not_found() -> Response {
    let headers = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (StatusCode::NOT_FOUND, headers, "404 page not found\n").into_response()
}

async fn allow_others(request: Request, next: Next) -> Response {
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    for (name, value) in CORS {
        let headers = response.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// An answer with data.
pub(crate) fn success(data: &Value) -> Response {
    api_answer(StatusCode::OK, &json!({"status": "success", "data": data}))
}

/// An answer to what was only to be done.
pub(crate) fn done() -> Response {
    api_answer(StatusCode::OK, &json!({"status": "success"}))
}

/// The answer to a request that makes no sense or cannot be met.
pub(crate) fn bad_data(why: &str) -> Response {
    let body = json!({"status": "error", "errorType": "bad_data", "error": why});
    api_answer(StatusCode::BAD_REQUEST, &body)
}

fn api_answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, body.to_string()).into_response()
}

/// As Thanos has it; what is Go's is empty or 0.
fn runtime_info(started_ms: i64) -> Value {
    let folder = std::env::current_dir().map(|it| it.display().to_string());
    json!({
        "startTime": rfc3339(started_ms),
        "CWD": folder.unwrap_or_default(),
        "goroutineCount": 0,
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, usize::from),
        "GOGC": "",
        "GODEBUG": "",
        "GOMEMLIMIT": 0,
    })
}

/// The registry in the format that is asked for.
pub(crate) fn show_metrics(registry: &Registry, headers: &HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    match metrics::render(registry, accept) {
        Ok((kind, text)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "own metrics cannot be formatted");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
