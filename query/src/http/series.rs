//! Endpoints about series and their labels.

use std::sync::Arc;

use isobar_model::{Labels, Matcher, Reservation, SelectHints, TimeRange, Warnings};
use isobar_promql::limits::{CancelReason, CancelToken};
use isobar_promql::parse::parse_metric_selector;
use isobar_store::api::{Names, SeriesBatch};
use isobar_store::{LabelsRequest, SeriesRequest, Store, StoreError};
use isobar_tsdb::SeriesChunks;
use tokio::runtime::Handle;

use super::Call;
use super::error::ApiError;
use super::json::answer::Data;
use super::params::{Params, percent_decode};
use super::queries::TRUNCATED;
use super::respond::Reply;
use super::time::quoted;
use crate::select::BatchReader;

pub(super) async fn series(call: Call) -> Result<Reply, ApiError> {
    if let Some(why) = call.params.malformed() {
        return Err(ApiError::bad_data(format!(
            "error parsing form values: {why}"
        )));
    }
    if call.params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let limit = call.params.limit()?;
    let range = call.params.time_range()?;
    let sets = matcher_sets(&call.params).map_err(|why| ApiError::parameter("match[]", why))?;
    let mut deduplication = call.app.engine.config().deduplication.clone();
    if let Some(labels) = call.params.replica_labels()? {
        deduplication.labels = labels.into();
    }
    work(call, move |store, runtime, cancel, gzip, mut memory| {
        let mut warnings = Warnings::default();
        let mut series = Vec::new();
        let single = sets.len() == 1;
        for matchers in sets {
            let request = SeriesRequest {
                hints: SelectHints {
                    func: "series".into(),
                    ..SelectHints::default()
                },
                skip_chunks: true,
                // How many are left when replicas are one is not known before.
                limit: match limit {
                    Some(limit) if deduplication.is_off() => limit.saturating_add(1),
                    _ => 0,
                },
                ..SeriesRequest::new(matchers, range)
            };
            read_series(
                store.series(request),
                runtime,
                cancel,
                &mut series,
                &mut memory,
                &mut warnings,
            )?;
        }
        if !deduplication.is_off() {
            for labels in &mut series {
                *labels = deduplication.strip(labels);
            }
        }
        if !single || !deduplication.is_off() {
            series.sort_unstable();
            series.dedup();
        }
        cut(&mut series, limit, &mut warnings);
        Reply::begin(Data::Series(series), &warnings, gzip, Some(memory.into()))
    })
    .await
}

fn read_series(
    stream: isobar_store::api::SeriesStream,
    runtime: &Handle,
    cancel: &CancelToken,
    series: &mut Vec<Labels>,
    memory: &mut Reservation,
    warnings: &mut Warnings,
) -> Result<(), ApiError> {
    let mut batches = BatchReader::new(stream, cancel);
    let mut bytes = memory.bytes() as usize;
    while let Some(batch) = batches.next(runtime)? {
        match batch {
            SeriesBatch::Series(batch) => {
                // Without a replica's label there may be a copy of each.
                let size =
                    |one: &SeriesChunks| 2 * one.labels.as_bytes().len() + 2 * size_of::<Labels>();
                bytes += batch.iter().map(size).sum::<usize>();
                memory.grow_to(bytes)?;
                series.extend(batch.into_iter().map(|one| one.labels));
            }
            SeriesBatch::Warnings(more) => warnings.merge(more),
        }
    }
    Ok(())
}

pub(super) async fn label_names(call: Call) -> Result<Reply, ApiError> {
    let limit = call.params.limit()?;
    let range = call.params.time_range()?;
    let sets = matcher_sets(&call.params).map_err(ApiError::bad_data)?;
    names(call, sets, range, limit, |store, request| {
        store.label_names(request)
    })
    .await
}

pub(super) async fn label_values(call: Call) -> Result<Reply, ApiError> {
    let name = label_name(&call.path)?;
    let limit = call.params.limit()?;
    let range = call.params.time_range()?;
    let sets = matcher_sets(&call.params).map_err(ApiError::bad_data)?;
    let ask = move |store: &dyn Store, request| store.label_values(name.clone(), request);
    names(call, sets, range, limit, ask).await
}

/// Asks for names or values once for each set of matchers, and once without when there is none.
async fn names(
    call: Call,
    mut sets: Vec<Vec<Matcher>>,
    range: TimeRange,
    limit: Option<usize>,
    ask: impl Fn(
        &dyn Store,
        LabelsRequest,
    ) -> futures::future::BoxFuture<'static, Result<Names, StoreError>>
    + Send
    + 'static,
) -> Result<Reply, ApiError> {
    if sets.is_empty() {
        sets.push(Vec::new());
    }
    work(call, move |store, runtime, _cancel, gzip, mut memory| {
        let mut warnings = Warnings::default();
        let (mut values, mut bytes) = (Vec::new(), 0);
        for matchers in sets {
            let limit = limit.map_or(0, |limit| limit.saturating_add(1));
            let request = LabelsRequest {
                limit,
                ..LabelsRequest::new(matchers, range)
            };
            let names = runtime.block_on(ask(store, request))?;
            warnings.merge(names.warnings);
            let size = |name: &String| name.len() + 2 * size_of::<String>();
            bytes += names.values.iter().map(size).sum::<usize>();
            memory.grow_to(bytes)?;
            values.extend(names.values);
        }
        if !values.is_sorted_by(|a, b| a < b) {
            values.sort_unstable();
            values.dedup();
        }
        cut(&mut values, limit, &mut warnings);
        Reply::begin(Data::Names(values), &warnings, gzip, Some(memory.into()))
    })
    .await
}

/// Runs `read` on the pool, within the time that a query may take; a caller who leaves calls it
/// off.
async fn work(
    call: Call,
    read: impl FnOnce(&dyn Store, &Handle, &CancelToken, bool, Reservation) -> Result<Reply, ApiError>
    + Send
    + 'static,
) -> Result<Reply, ApiError> {
    struct CancelOnDrop(CancelToken);
    impl Drop for CancelOnDrop {
        fn drop(&mut self) {
            self.0.cancel(CancelReason::Cancelled);
        }
    }
    let engine = &call.app.engine;
    let store = Arc::clone(engine.store());
    let runtime = Handle::current();
    let guard = CancelOnDrop(CancelToken::default());
    let cancel = guard.0.clone();
    let gzip = call.gzip;
    let memory = engine.config().limits.query_memory();
    let memory = memory.reservation("series and names");
    let job = engine
        .pool()
        .run(move || read(store.as_ref(), &runtime, &cancel, gzip, memory));
    match tokio::time::timeout(engine.config().timeout, job).await {
        Ok(reply) => reply?,
        Err(_late) => Err(crate::engine::QueryError::Timeout("select").into()),
    }
}

/// Keeps the first `limit` items and says so when there were more.
fn cut<T>(items: &mut Vec<T>, limit: Option<usize>, warnings: &mut Warnings) {
    if let Some(limit) = limit
        && items.len() > limit
    {
        items.truncate(limit);
        warnings.warn(TRUNCATED);
    }
}

/// The matchers of each `match[]`, none of which may match every series there is.
fn matcher_sets(params: &Params) -> Result<Vec<Vec<Matcher>>, String> {
    let sets = params
        .all("match[]")
        .map(|text| parse_metric_selector(text).map_err(|error| error.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    if sets
        .iter()
        .any(|set| set.iter().all(Matcher::matches_empty))
    {
        return Err("match[] must contain at least one non-empty matcher".into());
    }
    Ok(sets)
}

/// The label's name in `…/label/<name>/values`.
fn label_name(path: &str) -> Result<String, ApiError> {
    let encoded = path.rsplit('/').nth(1).unwrap_or_default();
    let refuse = |name: String| ApiError::bad_data(format!("invalid label name: {name}"));
    let bytes = percent_decode(encoded.as_bytes()).map_err(|_| refuse(quoted(encoded)))?;
    let name = String::from_utf8(bytes).map_err(|error| refuse(quoted_bytes(error.as_bytes())))?;
    let name = match name.strip_prefix("U__").and_then(unescape) {
        Some(unescaped) => unescaped,
        None => name,
    };
    if name.is_empty() {
        Err(refuse(quoted("")))
    } else {
        Ok(name)
    }
}

/// Bytes in double quotes, those that are no characters as `\xff`.
fn quoted_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        out.push_str(quoted(chunk.valid()).trim_matches('"'));
        chunk
            .invalid()
            .iter()
            .for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out.push('"');
    out
}

/// The name behind the prefix of the escaping for names beyond ASCII: `__` is an underscore and
/// `_1f600_` a code point. `None` when it is no such text; the name then stands as it is.
fn unescape(escaped: &str) -> Option<String> {
    let mut name = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((plain, behind)) = rest.split_once('_') {
        name.push_str(plain);
        let (code, behind) = behind.split_once('_')?;
        if code.is_empty() {
            name.push('_');
        } else if code.len() <= 6 && code.bytes().all(|b| b.is_ascii_hexdigit()) {
            name.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        } else {
            return None;
        }
        rest = behind;
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_names_in_paths() {
        let name = |segment: &str| {
            label_name(&format!("/api/v1/label/{segment}/values")).map_err(|error| error.text)
        };
        for (segment, expected) in [
            ("job", "job"),
            ("a%2Fb", "a/b"),
            ("U__http_2e_status__code", "http.status_code"),
            ("U___1F600_", "😀"),
            ("U__bad_", "U__bad_"),
            ("U__bad_xyz_", "U__bad_xyz_"),
            ("U__bad_d800_", "U__bad_d800_"),
        ] {
            assert_eq!(name(segment), Ok(expected.into()), "{segment}");
        }
        for (segment, expected) in [("", r#""""#), ("%ff", r#""\xff""#), ("U__", r#""""#)] {
            assert_eq!(
                name(segment),
                Err(format!("invalid label name: {expected}")),
                "{segment}"
            );
        }
    }
}
