//! Calls of the gRPC server as metrics, by the names that Go's middleware gives them, logged where that is
//! wanted, and panics caught.
//!
//! Messages are counted where they pass: a body is a sequence of messages, each behind five bytes, a flag and
//! a length.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{self, Next};
use axum::response::Response;
use futures::FutureExt;
use http_body::{Body as HttpBody, Frame};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};

use super::request_log::{Fields, Logged, RequestLog};

/// Seconds, as Go's middleware has them.
const BUCKETS: [f64; 14] = [
    0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0,
];
/// Methods that answer with a stream.
const STREAMS: [&str; 9] = [
    "Series",
    "Rules",
    "Targets",
    "MetricMetadata",
    "Exemplars",
    "TSDBStatistics",
    "Query",
    "QueryRange",
    "Watch",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    grpc_method: String,
    grpc_service: String,
    grpc_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    grpc_code: &'static str,
    grpc_method: String,
    grpc_service: String,
    grpc_type: &'static str,
}

/// The numbers; clones count together.
#[derive(Debug, Clone)]
pub(crate) struct GrpcMetrics {
    started: Family<Call, Counter>,
    handled: Family<Ended, Counter>,
    received: Family<Call, Counter>,
    sent: Family<Call, Counter>,
    seconds: Family<Call, Histogram, fn() -> Histogram>,
    panics: Counter,
    log: RequestLog,
}

impl GrpcMetrics {
    /// All at zero, in `registry`.
    pub(crate) fn new(registry: &mut Registry, log: RequestLog) -> Self {
        let metrics = GrpcMetrics {
            started: Family::default(),
            handled: Family::default(),
            received: Family::default(),
            sent: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            panics: Counter::default(),
            log,
        };
        registry.register(
            "grpc_server_started",
            "Total number of RPCs started on the server",
            metrics.started.clone(),
        );
        registry.register(
            "grpc_server_handled",
            "Total number of RPCs completed on the server, regardless of success or failure",
            metrics.handled.clone(),
        );
        registry.register(
            "grpc_server_msg_received",
            "Total number of RPC stream messages received on the server",
            metrics.received.clone(),
        );
        registry.register(
            "grpc_server_msg_sent",
            "Total number of gRPC stream messages sent by the server",
            metrics.sent.clone(),
        );
        registry.register(
            "grpc_server_handling_seconds",
            "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server",
            metrics.seconds.clone(),
        );
        registry.register(
            "grpc_req_panics_recovered",
            "Total number of gRPC requests recovered from internal panic",
            metrics.panics.clone(),
        );
        metrics
    }

    /// `routes`, whose calls are counted from now on.
    pub(crate) fn count(&self, routes: Routes) -> Routes {
        let counting = middleware::from_fn_with_state(self.clone(), run);
        Routes::from(routes.into_axum_router().layer(counting))
    }
}

impl Call {
    /// Of a path such as `/thanos.Store/Series`. What no service of ours may be called is not told apart.
    fn of(path: &str) -> Self {
        let (service, method) = path
            .strip_prefix('/')
            .and_then(|it| it.split_once('/'))
            .filter(|(service, _)| service.starts_with("thanos.") || service.starts_with("grpc."))
            .unwrap_or(("unknown", "unknown"));
        let kind = match method {
            "ServerReflectionInfo" => "bidi_stream",
            method if STREAMS.contains(&method) => "server_stream",
            _ => "unary",
        };
        Call {
            grpc_method: method.to_owned(),
            grpc_service: service.to_owned(),
            grpc_type: kind,
        }
    }
}

async fn run(State(metrics): State<GrpcMetrics>, request: Request, next: Next) -> Response {
    let call = Call::of(request.uri().path());
    metrics.started.get_or_create(&call).inc();
    let received = metrics.received.get_or_create(&call).clone();
    let sent = metrics.sent.get_or_create(&call).clone();
    let logged = metrics.log.grpc(&call.grpc_service, &call.grpc_method, || {
        fields(&request, &call)
    });
    let mut running = Running {
        code: Code::Cancelled,
        logged,
        began: Instant::now(),
        call,
        metrics,
    };
    let request = request.map(|body| Body::new(Counting::new(body, received, None)));
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answer.unwrap_or_else(|_reported| {
        running.metrics.panics.inc();
        Status::internal("internal error: the call panicked").into_http()
    });
    running.see(response.headers());
    response.map(|body| Body::new(Counting::new(body, sent, Some(running))))
}

/// What is logged of a call.
fn fields(request: &Request, call: &Call) -> Fields {
    let id = request.headers().get("request-id");
    let id = id.or_else(|| request.headers().get("x-request-id"));
    let info = request.extensions().get::<TcpConnectInfo>();
    let remote = info.and_then(TcpConnectInfo::remote_addr);
    Fields::Grpc {
        service: call.grpc_service.clone(),
        method: call.grpc_method.clone(),
        kind: call.grpc_type,
        request_id: id.and_then(|it| it.to_str().ok()).unwrap_or("").to_owned(),
        remote: remote.map_or_else(String::new, |it| it.to_string()),
    }
}

/// A call whose answer is on its way. When it is dropped, the call has ended.
struct Running {
    metrics: GrpcMetrics,
    call: Call,
    /// How it ended as far as is known: given up, unless the status was sent.
    code: Code,
    began: Instant,
    logged: Option<Logged>,
}

impl Running {
    /// Looks for the status in headers or trailers.
    fn see(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = status.code();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        if let Some(logged) = &self.logged {
            logged.ended(self.code, name(self.code), took);
        }
        self.metrics
            .seconds
            .get_or_create(&self.call)
            .observe(took.as_secs_f64());
        let ended = Ended {
            grpc_code: name(self.code),
            grpc_method: std::mem::take(&mut self.call.grpc_method),
            grpc_service: std::mem::take(&mut self.call.grpc_service),
            grpc_type: self.call.grpc_type,
        };
        self.metrics.handled.get_or_create(&ended).inc();
    }
}

/// A code as Go writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// A body whose messages are counted.
struct Counting {
    body: Body,
    messages: Counter,
    split: Split,
    running: Option<Running>,
}

impl Counting {
    fn new(body: Body, messages: Counter, running: Option<Running>) -> Self {
        Counting {
            body,
            messages,
            split: Split::default(),
            running,
        }
    }
}

impl HttpBody for Counting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let body = Pin::new(&mut this.body);
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx)));
        let polled = match polled {
            Ok(polled) => polled,
            Err(_reported) => {
                if let Some(running) = &mut this.running {
                    running.metrics.panics.inc();
                    running.code = Code::Internal;
                }
                this.body = Body::empty();
                let error = "internal error: the call panicked";
                return Poll::Ready(Some(Err(axum::Error::new(error))));
            }
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if let Some(bytes) = frame.data_ref() {
                this.messages.inc_by(this.split.push(bytes));
            } else if let (Some(trailers), Some(running)) =
                (frame.trailers_ref(), &mut this.running)
            {
                running.see(trailers);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Finds the ends of messages in bytes that come in pieces.
#[derive(Debug, Default)]
struct Split {
    /// Bytes of the flag and length that were seen.
    head: usize,
    length: u32,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Split {
    /// How many messages end in the next piece.
    fn push(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        loop {
            if self.head < 5 {
                let Some((byte, rest)) = bytes.split_first() else {
                    return ended;
                };
                if self.head > 0 {
                    self.length = self.length << 8 | u32::from(*byte);
                }
                self.head += 1;
                self.left = self.length as usize;
                bytes = rest;
                if self.head < 5 {
                    continue;
                }
            }
            let taken = self.left.min(bytes.len());
            self.left -= taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.left > 0 {
                return ended;
            }
            ended += 1;
            *self = Split::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_any_pieces() {
        let mut body = Vec::new();
        for length in [0u32, 3, 300, 1] {
            body.push(0);
            body.extend(length.to_be_bytes());
            body.extend(std::iter::repeat_n(9, length as usize));
        }
        for size in [1, 2, 5, 7, 64, 1000] {
            let mut split = Split::default();
            let count: u64 = body.chunks(size).map(|piece| split.push(piece)).sum();
            assert_eq!(count, 4, "in pieces of {size}");
        }
        assert_eq!(Split::default().push(&body[..body.len() - 1]), 3);
    }

    #[test]
    fn calls_by_path() {
        let check = |path: &str, expected: [&str; 3]| {
            let call = Call::of(path);
            let got = [&call.grpc_service, &call.grpc_method, call.grpc_type];
            assert_eq!(got, expected, "{path}");
        };
        check(
            "/thanos.Store/Series",
            ["thanos.Store", "Series", "server_stream"],
        );
        check(
            "/thanos.info.Info/Info",
            ["thanos.info.Info", "Info", "unary"],
        );
        check("/whatever/comes", ["unknown", "unknown", "unary"]);
        check("", ["unknown", "unknown", "unary"]);
    }
}
