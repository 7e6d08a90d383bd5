//! Endpoints that change data: off unless the server was given an [`Admin`].

use std::sync::Arc;

use isobar_model::TimeRange;
use isobar_promql::parse::parse_metric_selector;
use isobar_store::StoreError;
use isobar_store::admin::Admin;
use serde::Serialize;

use super::Call;
use super::error::{ApiError, ErrorType};
use super::params::parse_bool;
use super::respond::Reply;
use super::time::{Moment, quoted};

pub(super) async fn delete_series(call: Call) -> Result<Reply, ApiError> {
    let admin = admin(&call)?;
    if let Some(why) = call.params.malformed() {
        return Err(ApiError::bad_data(format!(
            "error parsing form values: {why}"
        )));
    }
    if call.params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let start = call.params.time_or("start", Moment::MIN)?;
    let end = call.params.time_or("end", Moment::MAX)?;
    let range = TimeRange::new(start.ms(), end.ms());
    let texts = call.params.all("match[]");
    // All are read before anything is deleted, where Prometheus reads and deletes by turns.
    let sets = texts
        .map(|text| parse_metric_selector(text).map_err(|why| ApiError::parameter("match[]", why)))
        .collect::<Result<Vec<_>, _>>()?;
    blocking(move || {
        for matchers in &sets {
            admin.delete_series(matchers, range)?;
        }
        Ok(())
    })
    .await?;
    Ok(Reply::Empty)
}

pub(super) async fn clean_tombstones(call: Call) -> Result<Reply, ApiError> {
    let admin = admin(&call)?;
    blocking(move || admin.clean_tombstones()).await?;
    Ok(Reply::Empty)
}

pub(super) async fn snapshot(call: Call) -> Result<Reply, ApiError> {
    #[derive(Serialize)]
    struct Snapshot {
        name: String,
    }
    let admin = admin(&call)?;
    let skip_head = match call.params.get("skip_head") {
        "" => false,
        text => parse_bool(text).ok_or_else(|| {
            let why = format!(
                "strconv.ParseBool: parsing {}: invalid syntax",
                quoted(text)
            );
            ApiError::parameter("skip_head", format!("unable to parse boolean: {why}"))
        })?,
    };
    let name = blocking(move || admin.snapshot(!skip_head)).await?;
    Reply::small(&Snapshot { name })
}

fn admin(call: &Call) -> Result<Arc<dyn Admin>, ApiError> {
    let admin = call.app.admin.as_ref().map(Arc::clone);
    admin.ok_or_else(|| ApiError::new(ErrorType::Disabled, "admin APIs disabled"))
}

/// Runs what may take long, to its end even when the caller is gone. What fails is the server's fault.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    let internal = |why: String| ApiError::new(ErrorType::Internal, why);
    done.map_err(|error| internal(error.to_string()))?
        .map_err(|error| internal(error.to_string()))
}
