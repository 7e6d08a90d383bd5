//! Endpoints about the process: health, version, status, and what is known about metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use super::error::{ApiError, ErrorType};
use super::params::parse_integer;
use super::respond::{self, Reply};
use super::{App, Call, not_allowed};

/// Most entries in each list of `status/tsdb`.
const TSDB_LIMIT_MAX: i64 = 10_000;
const TSDB_LIMIT: usize = 10;

pub(super) async fn healthy(State(app): State<Arc<App>>, request: Request) -> Response {
    plain(&request, || {
        respond::text(StatusCode::OK, format!("{} is Healthy.\n", app.name))
    })
}

pub(super) async fn ready(State(app): State<Arc<App>>, request: Request) -> Response {
    plain(&request, || {
        app.readiness
            .refusal()
            .unwrap_or_else(|| respond::text(StatusCode::OK, format!("{} is Ready.\n", app.name)))
    })
}

/// Answers GET, and HEAD without a body.
fn plain(request: &Request, answer: impl FnOnce() -> Response) -> Response {
    match *request.method() {
        Method::GET => answer(),
        Method::HEAD => respond::empty(answer().status()),
        _ => other_method(request, "GET, HEAD, OPTIONS"),
    }
}

/// Tells the methods that there are: as a refusal, unless that was the question.
fn other_method(request: &Request, allow: &'static str) -> Response {
    if request.method() != Method::OPTIONS {
        return not_allowed(allow);
    }
    let mut response = respond::empty(StatusCode::OK);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

pub(super) async fn version(State(app): State<Arc<App>>, request: Request) -> Response {
    if request.method() != Method::GET {
        return other_method(&request, "GET, OPTIONS");
    }
    match respond::to_json(&app.status.build()) {
        Ok(mut json) => {
            json.push(b'\n');
            respond::text(StatusCode::OK, json)
        }
        Err(error) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, error.text),
    }
}

pub(super) async fn build_info(call: Call) -> Result<Reply, ApiError> {
    Reply::small(&call.app.status.build())
}

pub(super) async fn runtime_info(call: Call) -> Result<Reply, ApiError> {
    Reply::small(&call.app.status.runtime())
}

pub(super) async fn flags(call: Call) -> Result<Reply, ApiError> {
    Reply::small(&call.app.status.flags())
}

pub(super) async fn tsdb(call: Call) -> Result<Reply, ApiError> {
    let limit = match call.params.get("limit") {
        "" => TSDB_LIMIT,
        text => match parse_integer(text).ok().filter(|limit| *limit > 0) {
            None => return Err(ApiError::bad_data("limit must be a positive number")),
            Some(limit) if limit > TSDB_LIMIT_MAX => {
                let why = format!("limit must not exceed {TSDB_LIMIT_MAX}");
                return Err(ApiError::bad_data(why));
            }
            Some(limit) => usize::try_from(limit).unwrap_or(TSDB_LIMIT),
        },
    };
    let status = Arc::clone(&call.app.status);
    let told = call
        .app
        .engine
        .pool()
        .run(move || status.tsdb(limit))
        .await?;
    Reply::small(&told.map_err(|why| ApiError::new(ErrorType::Internal, why))?)
}

pub(super) async fn metadata(call: Call) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Described {
        #[serde(rename = "type")]
        kind: String,
        unit: String,
        help: String,
    }
    let number = |name: &str| match call.params.get(name) {
        "" => Ok(-1),
        text => {
            parse_integer(text).map_err(|_| ApiError::bad_data(format!("{name} must be a number")))
        }
    };
    // Zero metrics may be asked for, zero descriptions of a metric may not.
    let limit = usize::try_from(number("limit")?).ok();
    let per_metric = usize::try_from(number("limit_per_metric")?)
        .ok()
        .filter(|n| *n > 0);
    let metric = Some(call.params.get("metric")).filter(|metric| !metric.is_empty());
    let mut listed = call.app.metadata.list(metric, limit, per_metric);
    listed.truncate(limit.unwrap_or(usize::MAX));
    let by_metric: BTreeMap<String, Vec<Described>> = listed
        .into_iter()
        .map(|(name, all)| {
            let all = all.into_iter().map(|one| Described {
                kind: one.kind,
                unit: one.unit,
                help: one.help,
            });
            (name, all.collect())
        })
        .collect();
    Reply::small(&by_metric)
}
