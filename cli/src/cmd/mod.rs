//! One page per component: flags to configs, configs to running tasks.

pub(crate) mod sidecar;
pub(crate) mod standalone;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::registry::Registry;

use crate::telemetry::metrics;

/// `/metrics`.
fn show_metrics(registry: &Registry, headers: &HeaderMap) -> Response {
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
