//! Endpoints that take a query.

use isobar_model::Warnings;
use isobar_promql::parse::ast::Expr;
use isobar_promql::parse::{parse_expr_with, pretty};
use isobar_promql::value::{QueryResult, StepStats, Value};
use serde::Serialize;

use super::body::Memory;
use super::error::ApiError;
use super::json::answer::Data;
use super::respond::{Reply, to_json};
use super::time::{Moment, quoted};
use super::{Call, ast, explain};
use crate::engine::{Answer, QueryOptions, Steps};

/// Most points of a series that a range query may give.
const POINTS_MAX: i64 = 11_000;
/// What is said when a limit cut an answer.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

pub(super) async fn query(call: Call) -> Result<Reply, ApiError> {
    let limit = call.params.limit()?;
    let (steps, options) = instant(&call)?;
    run(call, steps, options, limit).await
}

/// The time of an instant query.
pub(super) fn instant(call: &Call) -> Result<(Steps, QueryOptions), ApiError> {
    let now = Moment::from_ms(call.app.clock.now_ms());
    let time = call.params.time_or("time", now)?;
    Ok((Steps::instant(time.step_ms()), options(call)?))
}

pub(super) async fn query_range(call: Call) -> Result<Reply, ApiError> {
    let limit = call.params.limit()?;
    let (steps, options) = range(&call)?;
    run(call, steps, options, limit).await
}

/// The times of a range query.
pub(super) fn range(call: &Call) -> Result<(Steps, QueryOptions), ApiError> {
    let start = call.params.time("start")?;
    let end = call.params.time("end")?;
    if end < start {
        return Err(ApiError::parameter(
            "end",
            "end timestamp must not be before start time",
        ));
    }
    let step = super::time::parse_duration(call.params.get("step"))
        .map_err(|why| ApiError::parameter("step", why))?;
    if step.0 <= 0 {
        return Err(ApiError::parameter(
            "step",
            "zero or negative query resolution step widths are not accepted. \
             Try a positive integer",
        ));
    }
    if end.since(start).0 / step.0 > POINTS_MAX {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. \
             Try decreasing the query resolution (?step=XX)",
        ));
    }
    let options = options(call)?;
    let steps = Steps {
        start_ms: start.step_ms(),
        end_ms: end.step_ms(),
        step_ms: step.ms().max(1),
    };
    Ok((steps, options))
}

fn options(call: &Call) -> Result<QueryOptions, ApiError> {
    let params = &call.params;
    let timeout = params
        .duration("timeout")
        .map_err(|why| ApiError::parameter("timeout", why))?;
    let lookback = params.duration("lookback_delta").map_err(|why| {
        ApiError::bad_data(format!("error parsing lookback delta duration: {why}"))
    })?;
    Ok(QueryOptions {
        timeout: timeout.map(|timeout| timeout.std()),
        lookback_ms: lookback.map(|lookback| lookback.ms()),
        replica_labels: params.replica_labels()?,
        analyze: matches!(params.get("analyze"), "true" | "1"),
        step_stats: params.get("stats") == "all",
    })
}

async fn run(
    call: Call,
    steps: Steps,
    options: QueryOptions,
    limit: Option<usize>,
) -> Result<Reply, ApiError> {
    let query = call.params.get("query").to_owned();
    let stats = call.params.get("stats").to_owned();
    let gzip = call.gzip;
    call.app
        .engine
        .run(query, steps, options, move |answer| {
            finish(answer, limit, &stats, gzip)
        })
        .await?
}

/// Cuts the answer to `limit` series and begins to write it.
fn finish(
    answer: Answer,
    limit: Option<usize>,
    stats: &str,
    gzip: bool,
) -> Result<Reply, ApiError> {
    let written = match stats {
        "" => None,
        _ => Some(to_json(&Stats::from(&answer))?),
    };
    let analysis = answer
        .analysis
        .as_ref()
        .map(explain::analysis)
        .transpose()?;
    let Answer { result, .. } = answer;
    let memory = Memory::of(result.memory);
    let (mut value, mut warnings) = (result.value, result.warnings);
    if limit.is_some_and(|limit| truncate(&mut value, limit)) {
        warnings.warn(TRUNCATED);
    }
    if !matches!(stats, "" | "true" | "all") {
        warnings.warn(format!(
            "value {} for parameter \"stats\" is deprecated and will be rejected in the next \
             major release, use \"true\" or \"all\"",
            quoted(stats)
        ));
    }
    Reply::begin(
        Data::Query {
            value,
            stats: written,
            analysis,
        },
        &warnings,
        gzip,
        Some(memory),
    )
}

/// Keeps the first `limit` series; true when there were more.
fn truncate(value: &mut Value, limit: usize) -> bool {
    fn cut<T>(series: &mut Vec<T>, limit: usize) -> bool {
        let more = series.len() > limit;
        series.truncate(limit);
        more
    }
    match value {
        Value::Vector(samples) => cut(samples, limit),
        Value::Matrix(series) => cut(series, limit),
        Value::Scalar { .. } | Value::String { .. } => false,
    }
}

/// The statistics of an answer, times in seconds.
#[derive(Serialize)]
struct Stats {
    timings: TimingStats,
    samples: SampleStats,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimingStats {
    eval_total_time: f64,
    result_sort_time: f64,
    query_preparation_time: f64,
    inner_eval_time: f64,
    exec_queue_time: f64,
    exec_total_time: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SampleStats {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    total_queryable_samples_per_step: Vec<(serde_json::Number, u64)>,
    total_queryable_samples: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_read_per_step: Vec<(serde_json::Number, u64)>,
    samples_read: u64,
    peak_samples: u64,
}

impl From<&Answer> for Stats {
    fn from(answer: &Answer) -> Self {
        let Answer {
            result, timings, ..
        } = answer;
        let evaluation = timings.prepared + timings.evaluated;
        Stats {
            timings: TimingStats {
                eval_total_time: evaluation.as_secs_f64(),
                // Results come out of the evaluator in order.
                result_sort_time: 0.0,
                query_preparation_time: timings.prepared.as_secs_f64(),
                inner_eval_time: timings.evaluated.as_secs_f64(),
                exec_queue_time: timings.queued.as_secs_f64(),
                exec_total_time: (timings.queued + evaluation).as_secs_f64(),
            },
            samples: SampleStats {
                total_queryable_samples_per_step: per_step(result, |it| &it.queryable),
                total_queryable_samples: result.stats.samples_queryable,
                samples_read_per_step: per_step(result, |it| &it.new),
                samples_read: result.stats.samples_new,
                peak_samples: result.stats.samples_peak,
            },
        }
    }
}

/// What each step cost with its time in seconds; empty where nobody asked for it.
fn per_step(
    result: &QueryResult,
    counts: impl Fn(&StepStats) -> &Vec<u64>,
) -> Vec<(serde_json::Number, u64)> {
    let Some(stats) = &result.step_stats else {
        return Vec::new();
    };
    let steps = counts(stats).iter().enumerate();
    steps
        .filter_map(|(i, count)| {
            let time_ms = stats.start_ms + stats.step_ms * i as i64;
            let time = match time_ms % 1000 {
                0 => Some((time_ms / 1000).into()),
                _ => serde_json::Number::from_f64(time_ms as f64 / 1000.0),
            };
            Some((time?, *count))
        })
        .collect()
}

/// Parses the query on the pool and makes an answer from it there.
async fn parsed(
    call: Call,
    refuse: fn(String) -> ApiError,
    answer: fn(&Expr) -> Result<Option<Data>, ApiError>,
) -> Result<Reply, ApiError> {
    let query = call.params.get("query").to_owned();
    let gzip = call.gzip;
    let features = call.app.engine.config().features;
    call.app
        .engine
        .pool()
        .run(move || {
            let expr = parse_expr_with(&query, &features).map_err(|e| refuse(e.to_string()))?;
            match answer(&expr)? {
                Some(data) => Reply::begin(data, &Warnings::default(), gzip, None),
                None => Ok(Reply::Empty),
            }
        })
        .await?
}

fn refuse_query(why: String) -> ApiError {
    ApiError::parameter("query", why)
}

pub(super) async fn format_query(call: Call) -> Result<Reply, ApiError> {
    parsed(call, refuse_query, |expr| {
        Ok(Some(Data::Json(to_json(&pretty(expr))?)))
    })
    .await
}

pub(super) async fn parse_query(call: Call) -> Result<Reply, ApiError> {
    parsed(call, refuse_query, |expr| {
        Ok(Some(Data::Json(ast::expression(expr)?)))
    })
    .await
}
