//! `/api/v1/blocks`: the blocks that a component serves, and marks for them. Source: `pkg/api/blocks/v1.go` of
//! Thanos, whose answers are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use isobar_model::Clock;
use isobar_model::time::rfc3339;
use isobar_store::block::KnownMeta;
use isobar_store::block::marks::{self, DeletionMark, NoCompactMark};
use isobar_store::block::paths::BlockId;
use isobar_store::bucket::Bucket;
use parking_lot::RwLock;
use serde_json::{Value, json};
use ulid::Ulid;

use crate::serve::common;

/// What the last looks at the bucket have shown.
#[derive(Default)]
pub(crate) struct Loaded {
    /// The blocks that are served.
    pub(crate) blocks: Vec<Arc<KnownMeta>>,
    /// When they were found, unix milliseconds.
    pub(crate) refreshed_ms: Option<i64>,
    /// Why the last look did not work.
    pub(crate) error: Option<String>,
}

/// What the endpoints need.
#[derive(Clone)]
pub(crate) struct BlocksApi {
    /// The blocks that are shown.
    pub(crate) loaded: Arc<RwLock<Loaded>>,
    /// The external label by which pages group them.
    pub(crate) label: String,
    /// Where marks are put.
    pub(crate) bucket: Bucket,
    /// When they are put.
    pub(crate) clock: Clock,
    /// Whether blocks may be marked.
    pub(crate) may_mark: bool,
}

impl BlocksApi {
    /// The endpoints, below `/api/v1`.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/blocks", get(list))
            .route("/blocks/mark", post(mark))
            .with_state(self)
    }

    /// Puts the mark that is asked for.
    async fn mark(&self, params: &BTreeMap<String, String>) -> Result<(), String> {
        if !self.may_mark {
            return Err("Admin operations are disabled".to_owned());
        }
        let param = |name: &str| params.get(name).map_or("", String::as_str);
        let (id, action, detail) = (param("id"), param("action"), param("detail"));
        if id.is_empty() {
            return Err("ID cannot be empty".to_owned());
        }
        if action.is_empty() {
            return Err("Action cannot be empty".to_owned());
        }
        let block: BlockId =
            Ulid::from_string(id).map_err(|why| format!("ULID {id:?} is not valid: {why}"))?;
        let now_s = self.clock.now_ms() / 1000;
        let bucket = &self.bucket.store;
        let put = match action {
            "DELETION" => {
                let mark = DeletionMark::new(block, now_s, detail);
                marks::put(bucket, block, &mark).await
            }
            "NO_COMPACTION" => {
                let mark = NoCompactMark::new(block, now_s, NoCompactMark::MANUAL, detail);
                marks::put(bucket, block, &mark).await
            }
            _ => return Err(format!("not supported marker {action}")),
        };
        match put {
            Ok(true) => tracing::info!(%block, action, "block marked"),
            Ok(false) => tracing::warn!(%block, action, "the block has this mark already"),
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }
}

async fn list(
    State(api): State<BlocksApi>,
    Query(params): Query<BTreeMap<String, String>>,
) -> Response {
    let is_loaded = params.get("view").is_some_and(|view| view == "loaded");
    let (mut metas, mut refreshed) = (Vec::new(), "0001-01-01T00:00:00Z".to_owned());
    let mut error = Value::Null;
    // The other view is that of a compactor, which sees all blocks of the bucket.
    if is_loaded {
        let loaded = api.loaded.read();
        metas.clone_from(&loaded.blocks);
        refreshed = loaded.refreshed_ms.map_or(refreshed, rfc3339);
        error = loaded.error.clone().map_or(Value::Null, Value::String);
    }
    // Their texts are on disk.
    let read = tokio::task::spawn_blocking(move || {
        let texts = metas.iter().map(|meta| {
            let whole = meta.whole()?;
            Ok(serde_json::from_slice(&whole.encode())?)
        });
        texts.collect::<std::io::Result<Vec<Value>>>()
    });
    let read = read.await.map_err(std::io::Error::other);
    let blocks = read.and_then(|blocks| blocks).unwrap_or_else(|why| {
        error = Value::String(format!("known blocks cannot be read: {why}"));
        Vec::new()
    });
    common::success(&json!({
        "label": api.label,
        "blocks": blocks,
        "refreshedAt": refreshed,
        "err": error,
    }))
}

async fn mark(
    State(api): State<BlocksApi>,
    Query(mut params): Query<BTreeMap<String, String>>,
    form: Result<Form<BTreeMap<String, String>>, FormRejection>,
) -> Response {
    match form {
        // As in Go, what stands in the body counts more.
        Ok(Form(form)) => params.extend(form),
        Err(FormRejection::InvalidFormContentType(_)) => {}
        Err(why) => return common::bad_data(&why.to_string()),
    }
    match api.mark(&params).await {
        Ok(()) => common::done(),
        Err(why) => common::bad_data(&why),
    }
}
