//! Requests to the HTTP API of a component: counted by the names that Thanos gives, and logged where that is
//! wanted.

use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::request_log::{Fields, RequestLog};

/// Seconds, as Thanos has them.
const SECONDS: [f64; 14] = [
    0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Running {
    handler: String,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    code: u16,
    handler: String,
    method: &'static str,
}

type Histograms = Family<Answered, Histogram, fn() -> Histogram>;

/// The numbers, and what is logged; clones count together.
#[derive(Debug, Clone)]
pub(crate) struct HttpRequests {
    running: Family<Running, Gauge>,
    answered: Family<Answered, Counter>,
    seconds: Histograms,
    request_bytes: Histograms,
    response_bytes: Histograms,
    log: RequestLog,
}

impl HttpRequests {
    /// All at zero, in `registry`.
    pub(crate) fn new(registry: &mut Registry, log: RequestLog) -> Self {
        let bytes = || Histogram::new(exponential_buckets(1024.0, 2.0, 12));
        let requests = HttpRequests {
            running: Family::default(),
            answered: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            request_bytes: Family::new_with_constructor(bytes),
            response_bytes: Family::new_with_constructor(bytes),
            log,
        };
        registry.register(
            "http_inflight_requests",
            "Current number of HTTP requests the handler is responding to",
            requests.running.clone(),
        );
        registry.register(
            "http_requests",
            "Tracks the number of HTTP requests",
            requests.answered.clone(),
        );
        for (name, help, histograms) in [
            (
                "http_request_duration_seconds",
                "Tracks the latencies for HTTP requests",
                &requests.seconds,
            ),
            (
                "http_request_size_bytes",
                "Tracks the size of HTTP requests",
                &requests.request_bytes,
            ),
            (
                "http_response_size_bytes",
                "Tracks the size of HTTP responses",
                &requests.response_bytes,
            ),
        ] {
            registry.register(name, help, histograms.clone());
        }
        requests
    }

    /// The routes with their requests counted; what is none of them is not.
    pub(crate) fn watch(&self, routes: Router) -> Router {
        routes.route_layer(middleware::from_fn_with_state(self.clone(), run))
    }
}

async fn run(
    State(requests): State<HttpRequests>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let handler = path.as_str().trim_start_matches("/api/v1/");
    let handler = handler.replace('/', "_");
    let method = method(request.method().as_str());
    let is_running = Running {
        handler: handler.clone(),
        method,
    };
    let logged = requests.log.http(path.as_str(), port(&request), || {
        fields(&request, path.as_str(), &handler)
    });
    let size = size(&request);
    let answer = {
        let _running = InFlight::new(requests.running.get_or_create(&is_running).clone());
        next.run(request).await
    };
    let took = began.elapsed();
    let code = answer.status().as_u16();
    let labels = Answered {
        code,
        handler,
        method,
    };
    requests.answered.get_or_create(&labels).inc();
    for (histograms, value) in [
        (&requests.seconds, took.as_secs_f64()),
        (&requests.request_bytes, size as f64),
        // Answers are made as a whole here.
        (
            &requests.response_bytes,
            answer.body().size_hint().lower() as f64,
        ),
    ] {
        histograms.get_or_create(&labels).observe(value);
    }
    if let Some(logged) = logged {
        logged.answered(code, took);
    }
    answer
}

/// A request that is being answered.
struct InFlight(Gauge);

impl InFlight {
    fn new(running: Gauge) -> Self {
        running.inc();
        InFlight(running)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn method(name: &str) -> &'static str {
    match name {
        "GET" => "get",
        "POST" => "post",
        "HEAD" => "head",
        "OPTIONS" => "options",
        _ => "unknown",
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|it| it.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// The port that the client has asked.
fn port(request: &Request) -> Option<u16> {
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    host.rsplit_once(':')?.1.parse().ok()
}

/// What is logged of a request to `path`, of which the request itself holds only the end.
fn fields(request: &Request, path: &str, handler: &str) -> Fields {
    let headers = request.headers();
    let remote = match text(headers, "x-forwarded-for") {
        forwarded if !forwarded.is_empty() => forwarded,
        _ => {
            let info = request.extensions().get::<ConnectInfo<Remote>>();
            info.map_or_else(String::new, |it| it.0.0.to_string())
        }
    };
    Fields::Http {
        method: match request.uri().query() {
            Some(query) => format!("{} {path}?{query}", request.method()),
            None => format!("{} {path}", request.method()),
        },
        handler: handler.to_owned(),
        request_id: text(headers, "x-request-id"),
        user_agent: text(headers, "user-agent"),
        remote,
    }
}

/// About how many bytes a request has.
fn size(request: &Request) -> u64 {
    let line = request.method().as_str().len() + request.uri().to_string().len();
    let headers = request.headers().iter();
    let headers: usize = headers.map(|(n, v)| n.as_str().len() + v.len()).sum();
    (line + headers) as u64 + request.body().size_hint().lower()
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(pub(crate) SocketAddr);
