//! Counts and times each request under the name of its endpoint.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::App;

/// The names that differ from the path, as Thanos has them.
const NAMES: [(&str, &str); 5] = [
    ("/api/v1/label/{name}/values", "label_values"),
    ("/api/v1/labels", "label_names"),
    ("/api/v1/query_exemplars", "exemplars"),
    ("/-/healthy", "healthy"),
    ("/-/ready", "ready"),
];

pub(super) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let handler = path
        .as_ref()
        .map_or("unknown", |path| handler(path.as_str()));
    let method = request.method().clone();
    let response = next.run(request).await;
    app.metrics.observe(
        response.status().as_u16(),
        handler,
        method.as_str(),
        begun.elapsed(),
    );
    response
}

/// The name of the endpoint behind a route.
fn handler(path: &str) -> &str {
    match NAMES.iter().find(|(known, _)| *known == path) {
        Some((_, name)) => name,
        None => path
            .strip_prefix("/api/v1/")
            .unwrap_or(path.trim_start_matches('/')),
    }
}
