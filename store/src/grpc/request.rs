//! The messages of a caller as requests.

use isobar_model::{Matcher, SelectHints, TimeRange};
use isobar_proto::convert;
use isobar_proto::thanos::{self, Aggr, PartialResponseStrategy, hints};
use prost::{Message, Name};
use prost_types::Any;

use crate::StoreError;
use crate::api::{Aggregate, LabelsRequest, OnFailure, SeriesRequest, Shard};

/// Where the names of messages in an `Any` begin.
const TYPE_URL: &str = "type.googleapis.com/";

/// A request for series.
///
/// # Errors
/// [`StoreError::Invalid`] that says what is wrong with it.
pub fn series(wire: &thanos::SeriesRequest) -> Result<SeriesRequest, StoreError> {
    let hints: hints::SeriesRequestHints =
        unpack(wire.hints.as_ref(), "unmarshal series request hints")?;
    let aggregate = |number: &i32| match Aggr::try_from(*number) {
        Ok(Aggr::Count) => Some(Aggregate::Count),
        Ok(Aggr::Sum) => Some(Aggregate::Sum),
        Ok(Aggr::Min) => Some(Aggregate::Min),
        Ok(Aggr::Max) => Some(Aggregate::Max),
        Ok(Aggr::Counter) => Some(Aggregate::Counter),
        Ok(Aggr::Raw) | Err(_) => None,
    };
    Ok(SeriesRequest {
        hints: select_hints(wire),
        skip_chunks: wire.skip_chunks,
        limit: limit(wire.limit),
        resolution_ms_max: wire.max_resolution_window,
        aggregates: wire.aggregates.iter().filter_map(aggregate).collect(),
        without_labels: wire.without_replica_labels.clone(),
        shard: wire.shard_info.as_ref().map(shard).transpose()?.flatten(),
        block_matchers: block_matchers(&hints.block_matchers)?,
        on_failure: on_failure(
            wire.partial_response_disabled,
            wire.partial_response_strategy,
        ),
        ..SeriesRequest::new(
            matchers(&wire.matchers)?,
            TimeRange::new(wire.min_time, wire.max_time),
        )
    })
}

/// A request for label names.
///
/// # Errors
/// As [`series`].
pub fn label_names(wire: &thanos::LabelNamesRequest) -> Result<LabelsRequest, StoreError> {
    let hints: hints::LabelNamesRequestHints =
        unpack(wire.hints.as_ref(), "unmarshal label names request hints")?;
    Ok(LabelsRequest {
        limit: limit(wire.limit),
        without_labels: wire.without_replica_labels.clone(),
        block_matchers: block_matchers(&hints.block_matchers)?,
        on_failure: on_failure(
            wire.partial_response_disabled,
            wire.partial_response_strategy,
        ),
        ..LabelsRequest::new(
            matchers(&wire.matchers)?,
            TimeRange::new(wire.start, wire.end),
        )
    })
}

/// A request for the values of a label.
///
/// # Errors
/// As [`series`].
pub fn label_values(wire: &thanos::LabelValuesRequest) -> Result<LabelsRequest, StoreError> {
    let hints: hints::LabelValuesRequestHints =
        unpack(wire.hints.as_ref(), "unmarshal label values request hints")?;
    Ok(LabelsRequest {
        limit: limit(wire.limit),
        without_labels: wire.without_replica_labels.clone(),
        block_matchers: block_matchers(&hints.block_matchers)?,
        on_failure: on_failure(
            wire.partial_response_disabled,
            wire.partial_response_strategy,
        ),
        ..LabelsRequest::new(
            matchers(&wire.matchers)?,
            TimeRange::new(wire.start, wire.end),
        )
    })
}

fn matchers(wire: &[thanos::LabelMatcher]) -> Result<Vec<Matcher>, StoreError> {
    convert::matchers(wire).map_err(StoreError::Invalid)
}

fn block_matchers(wire: &[thanos::LabelMatcher]) -> Result<Vec<Matcher>, StoreError> {
    convert::matchers(wire).map_err(|why| {
        StoreError::Invalid(format!("translate request hints labels matchers: {why}"))
    })
}

/// What an `Any` holds; nothing set when there is none.
fn unpack<M: Message + Name + Default>(any: Option<&Any>, what: &str) -> Result<M, StoreError> {
    let Some(any) = any else {
        return Ok(M::default());
    };
    let wanted = M::full_name();
    if any.type_url.rsplit('/').next() != Some(wanted.as_str()) {
        let got = &any.type_url;
        let text = format!("{what}: mismatched message type: got {got:?} want {wanted:?}");
        return Err(StoreError::Invalid(text));
    }
    M::decode(any.value.as_slice()).map_err(|why| StoreError::Invalid(format!("{what}: {why}")))
}

/// A message in an `Any`.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: format!("{TYPE_URL}{}", M::full_name()),
        value: message.encode_to_vec(),
    }
}

/// Numbers below 1 are no bound.
fn limit(wire: i64) -> usize {
    usize::try_from(wire).unwrap_or(0)
}

fn on_failure(disabled: bool, strategy: i32) -> OnFailure {
    if disabled || strategy == i32::from(PartialResponseStrategy::Abort) {
        OnFailure::Abort
    } else {
        OnFailure::Warn
    }
}

/// `None` where everything is wanted.
fn shard(wire: &thanos::ShardInfo) -> Result<Option<Shard>, StoreError> {
    if wire.total_shards < 1 {
        return Ok(None);
    }
    let (Ok(index), Ok(count)) = (
        u64::try_from(wire.shard_index),
        u64::try_from(wire.total_shards),
    ) else {
        let text = format!("shard index {} is below zero", wire.shard_index);
        return Err(StoreError::Invalid(text));
    };
    Ok(Some(Shard {
        index,
        count,
        by: wire.by,
        labels: wire.labels.clone(),
    }))
}

fn select_hints(wire: &thanos::SeriesRequest) -> SelectHints {
    let mut hints = SelectHints {
        step_ms: wire.step,
        range_ms: wire.range,
        ..SelectHints::default()
    };
    if let Some(given) = &wire.query_hints {
        hints.step_ms = given.step_millis;
        if let Some(func) = &given.func {
            hints.func.clone_from(&func.name);
        }
        if let Some(grouping) = &given.grouping {
            hints.by = grouping.by;
            hints.grouping.clone_from(&grouping.labels);
        }
        hints.range_ms = given.range.as_ref().map_or(0, |range| range.millis);
    }
    hints
}
