//! Prometheus 3.14's HTTP API: paths, parameters, statuses, texts and JSON are its own.
//!
//! In reading order: this file is the table of endpoints and what happens around each of them;
//! [`queries`], [`explain`], [`series`], [`process`] and [`admin`] are the endpoints; [`params`] and [`time`] read
//! requests; [`error`], [`respond`], [`body`] and [`json`] write answers; [`ast`] is the JSON of
//! `parse_query`; [`observe`] counts requests.
//!
//! Where Go's server and router show through (404 and 405 texts, OPTIONS), so they do here.

mod admin;
mod ast;
mod body;
mod error;
mod exemplars;
mod explain;
mod json;
mod observe;
mod params;
mod process;
mod queries;
mod respond;
mod series;
mod time;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{MethodRouter, any};
use isobar_model::Clock;
use isobar_store::admin::Admin;
use isobar_store::exemplars::ExemplarSource;
use isobar_store::metadata::MetadataStore;

use crate::engine::Engine;
use crate::metrics::HttpMetrics;
use crate::status::StatusSource;
use error::ApiError;
use params::Params;
use respond::Reply;

/// What the API needs to answer.
pub struct App {
    /// Answers queries; its store is asked for series and labels too.
    pub engine: Arc<Engine>,
    /// What senders say about metrics.
    pub metadata: Arc<MetadataStore>,
    /// Answers queries for exemplars.
    pub exemplars: Arc<dyn ExemplarSource>,
    /// What may be done to the data; `None` where the admin API is off.
    pub admin: Option<Arc<dyn Admin>>,
    /// What is told about the process.
    pub status: Arc<dyn StatusSource>,
    /// The time of queries that name none.
    pub clock: Clock,
    /// Whether requests are taken at present.
    pub readiness: Readiness,
    /// Request metrics.
    pub metrics: HttpMetrics,
    /// The name in the texts of `/-/healthy` and `/-/ready`: `<name> is Healthy.`
    pub name: String,
}

/// Whether a server takes requests. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const READY: u8 = 1;
const STOPPING: u8 = 2;

impl Readiness {
    /// From now on requests are taken.
    pub fn set_ready(&self) {
        self.0.store(READY, Ordering::SeqCst);
    }

    /// From now on requests are refused, for good.
    pub fn set_stopping(&self) {
        self.0.store(STOPPING, Ordering::SeqCst);
    }

    /// Whether requests are taken.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::SeqCst) == READY
    }

    /// The response to those that come at another time.
    fn refusal(&self) -> Option<Response> {
        let stopping = match self.0.load(Ordering::SeqCst) {
            READY => return None,
            STARTING => "false",
            _ => "true",
        };
        let mut response = respond::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
        response
            .headers_mut()
            .insert("x-prometheus-stopping", HeaderValue::from_static(stopping));
        Some(response)
    }
}

/// The API as a router, with Go's 404 for everything that it does not know. It may be merged
/// into a router without a fallback of its own.
pub fn router(app: Arc<App>) -> Router {
    // Nested routers would take the prefix off each request and put it back on.
    Router::new()
        .route("/api/v1/query", both(queries::query))
        .route("/api/v1/query_range", both(queries::query_range))
        .route("/api/v1/query_explain", both(explain::query_explain))
        .route(
            "/api/v1/query_range_explain",
            both(explain::query_range_explain),
        )
        .route("/api/v1/query_exemplars", both(exemplars::query_exemplars))
        .route("/api/v1/format_query", both(queries::format_query))
        .route("/api/v1/parse_query", both(queries::parse_query))
        .route("/api/v1/series", both(series::series))
        .route("/api/v1/labels", both(series::label_names))
        .route("/api/v1/label/{name}/values", both(series::label_values))
        .route("/api/v1/metadata", both(process::metadata))
        .route("/api/v1/status/buildinfo", both(process::build_info))
        .route("/api/v1/status/runtimeinfo", both(process::runtime_info))
        .route("/api/v1/status/flags", both(process::flags))
        .route("/api/v1/status/tsdb", both(process::tsdb))
        .route(
            "/api/v1/admin/tsdb/delete_series",
            changing(admin::delete_series),
        )
        .route(
            "/api/v1/admin/tsdb/clean_tombstones",
            changing(admin::clean_tombstones),
        )
        .route("/api/v1/admin/tsdb/snapshot", changing(admin::snapshot))
        .route("/version", any(process::version))
        .route("/-/healthy", any(process::healthy))
        .route("/-/ready", any(process::ready))
        .fallback(unknown)
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&app),
            observe::observe,
        ))
        .with_state(app)
}

/// A request as the endpoints of the API see it.
pub(crate) struct Call {
    app: Arc<App>,
    params: Params,
    /// The path as it came, escapes and all.
    path: String,
    /// Whether the answer is to be compressed.
    gzip: bool,
}

/// An endpoint that reads.
///
/// GET and POST everywhere, also where Prometheus has GET only: Grafana posts to
/// `label/<name>/values` for ad-hoc filters, with the parameters in the URL.
fn both<F, Fut>(endpoint: F) -> MethodRouter<Arc<App>>
where
    F: Fn(Call) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, ApiError>> + Send + 'static,
{
    of_methods([Method::GET, Method::POST], "GET, OPTIONS, POST", endpoint)
}

/// An endpoint that changes something.
fn changing<F, Fut>(endpoint: F) -> MethodRouter<Arc<App>>
where
    F: Fn(Call) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, ApiError>> + Send + 'static,
{
    of_methods([Method::POST, Method::PUT], "OPTIONS, POST, PUT", endpoint)
}

/// An endpoint of the API with everything around it: methods, readiness, parameters, headers.
fn of_methods<F, Fut>(
    methods: [Method; 2],
    allow: &'static str,
    endpoint: F,
) -> MethodRouter<Arc<App>>
where
    F: Fn(Call) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, ApiError>> + Send + 'static,
{
    any(move |State(app): State<Arc<App>>, request: Request| {
        let endpoint = endpoint.clone();
        let allowed = methods.contains(request.method());
        async move {
            if request.method() == Method::OPTIONS {
                return options(&request);
            }
            if !allowed {
                return not_allowed(allow);
            }
            if let Some(refusal) = app.readiness.refusal() {
                return refusal;
            }
            let (parts, body) = request.into_parts();
            let gzip = respond::takes_gzip(&parts.headers);
            let pool = Arc::clone(app.engine.pool());
            let reply = match Params::read(&parts, body).await {
                Ok(params) => {
                    let path = parts.uri.path().to_owned();
                    endpoint(Call {
                        app,
                        params,
                        path,
                        gzip,
                    })
                    .await
                }
                Err(error) => Err(error),
            };
            let mut response = respond::api_response(reply, gzip, &pool);
            respond::add_cors(&mut response, parts.headers.get(header::ORIGIN));
            response
        }
    })
}

fn options(request: &Request) -> Response {
    let mut response = respond::empty(StatusCode::NO_CONTENT);
    respond::add_cors(&mut response, request.headers().get(header::ORIGIN));
    response
}

fn not_allowed(allow: &'static str) -> Response {
    let mut response = respond::refusal(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// What no route knows.
async fn unknown(request: Request) -> Response {
    if request.method() == Method::OPTIONS && request.uri().path().starts_with("/api/v1/") {
        return options(&request);
    }
    respond::refusal(StatusCode::NOT_FOUND, "404 page not found\n")
}
