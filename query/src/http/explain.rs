//! Plans as JSON, as Thanos writes them: `query_explain` and `query_range_explain` answer a tree
//! of names, `analyze=true` adds `analysis` to a query's data.
//!
//! The fields `name`, `children`, `executionTime`, `peakSamples` and `totalSamples` are Thanos';
//! times are texts as Go's `time.Duration` prints them. The others are ours.

use std::time::Duration;

use isobar_promql::eval::OperatorStats;
use isobar_promql::plan::explain::PlanNode;
use serde::Serialize;

use super::Call;
use super::error::ApiError;
use super::params::Params;
use super::queries;
use super::respond::{Reply, to_json};
use crate::explain::Explanation;

/// The engines that Thanos has. Here both names mean the only one.
const ENGINES: [&str; 3] = ["", "prometheus", "thanos"];

pub(super) async fn query_explain(call: Call) -> Result<Reply, ApiError> {
    check_engine(&call.params)?;
    let (steps, options) = queries::instant(&call)?;
    explain(call, steps, options).await
}

pub(super) async fn query_range_explain(call: Call) -> Result<Reply, ApiError> {
    check_engine(&call.params)?;
    let (steps, options) = queries::range(&call)?;
    explain(call, steps, options).await
}

fn check_engine(params: &Params) -> Result<(), ApiError> {
    match params.get("engine") {
        known if ENGINES.contains(&known) => Ok(()),
        other => Err(ApiError::bad_data(format!("'{other}' bad engine"))),
    }
}

async fn explain(
    call: Call,
    steps: crate::engine::Steps,
    options: crate::engine::QueryOptions,
) -> Result<Reply, ApiError> {
    let query = call.params.get("query").to_owned();
    let explanation = call.app.engine.explain(query, steps, options).await?;
    Reply::small(&Explained::of(&explanation, &explanation.root))
}

/// The measures of a query as JSON.
pub(super) fn analysis(explanation: &Explanation) -> Result<Vec<u8>, ApiError> {
    let mut root = Analyzed::of(explanation, &explanation.root);
    root.wall_time = explanation.evaluated.map(go_duration).unwrap_or_default();
    let whole = root.execution;
    root.tell_shares(whole);
    to_json(&root)
}

/// What the store expects a select to give.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Estimate {
    estimated_series: u64,
    estimated_samples: u64,
    estimated_bytes: u64,
}

impl Estimate {
    fn of(explanation: &Explanation, node: &PlanNode) -> Option<Self> {
        let estimate = (*explanation.estimates.get(node.select?)?)?;
        Some(Estimate {
            estimated_series: estimate.series,
            estimated_samples: estimate.samples,
            estimated_bytes: estimate.bytes,
        })
    }
}

#[derive(Serialize)]
struct Explained<'a> {
    name: &'a str,
    #[serde(flatten)]
    estimate: Option<Estimate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<Explained<'a>>,
}

impl<'a> Explained<'a> {
    fn of(explanation: &Explanation, node: &'a PlanNode) -> Self {
        let children = node.children.iter();
        Explained {
            name: &node.name,
            estimate: Estimate::of(explanation, node),
            children: children.map(|it| Explained::of(explanation, it)).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Analyzed<'a> {
    name: &'a str,
    /// Here and below, of all threads together.
    execution_time: String,
    #[serde(skip)]
    execution: Duration,
    /// From the beginning of the evaluation to its end, of the root.
    #[serde(skip_serializing_if = "String::is_empty")]
    wall_time: String,
    /// Here alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    own_time: String,
    #[serde(skip)]
    own: Duration,
    /// The share of it in that of the query.
    #[serde(skip_serializing_if = "String::is_empty")]
    own_share: String,
    /// The part of it in which the store was waited for.
    #[serde(skip_serializing_if = "String::is_empty")]
    store_time: String,
    /// The part of it in which samples were decoded.
    #[serde(skip_serializing_if = "String::is_empty")]
    decode_time: String,
    /// Here and below.
    #[serde(skip_serializing_if = "is_zero")]
    peak_samples: u64,
    /// Looked at, here and below.
    #[serde(skip_serializing_if = "is_zero")]
    total_samples: u64,
    /// That came out.
    series: u64,
    /// That came out.
    samples: u64,
    #[serde(skip_serializing_if = "is_zero")]
    series_read: u64,
    #[serde(skip_serializing_if = "is_zero")]
    samples_read: u64,
    #[serde(skip_serializing_if = "is_zero")]
    bytes_read: u64,
    #[serde(flatten)]
    estimate: Option<Estimate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<Analyzed<'a>>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Analyzed<'a> {
    fn of(explanation: &Explanation, node: &'a PlanNode) -> Self {
        let stats = match (&explanation.measures, node.operator) {
            (Some(measures), Some(operator)) => measures.get(operator),
            _ => OperatorStats::default(),
        };
        let children = node.children.iter();
        let children: Vec<_> = children.map(|it| Analyzed::of(explanation, it)).collect();
        let time = |time: Duration| match time.is_zero() {
            true => String::new(),
            false => go_duration(time),
        };
        // What comes out of the root is what comes out of its operator.
        let (series, samples) = match (node.operator, children.first()) {
            (Some(0), Some(only)) => (only.series, only.samples),
            _ => (stats.series, stats.samples),
        };
        let execution = children
            .iter()
            .fold(stats.own, |sum, it| sum + it.execution);
        Analyzed {
            name: &node.name,
            execution_time: go_duration(execution),
            execution,
            wall_time: String::new(),
            own: stats.own,
            own_share: String::new(),
            own_time: time(stats.own),
            store_time: time(stats.store),
            decode_time: time(stats.decode),
            peak_samples: children
                .iter()
                .fold(stats.samples_peak, |peak, it| peak.max(it.peak_samples)),
            total_samples: children
                .iter()
                .fold(stats.samples_queryable, |sum, it| sum + it.total_samples),
            series,
            samples,
            series_read: stats.series_read,
            samples_read: stats.samples_read,
            bytes_read: stats.bytes_read,
            estimate: Estimate::of(explanation, node),
            children,
        }
    }
}

impl Analyzed<'_> {
    /// Shares from one percent on.
    fn tell_shares(&mut self, whole: Duration) {
        let share = 100.0 * self.own.as_secs_f64() / whole.as_secs_f64();
        if share >= 1.0 {
            self.own_share = format!("{share:.0}%");
        }
        self.children
            .iter_mut()
            .for_each(|it| it.tell_shares(whole));
    }
}

/// A time as Go prints it: `1m0.5s`, `4.608377ms`, `12µs`.
fn go_duration(time: Duration) -> String {
    let ns = time.as_nanos();
    let unit = |unit_ns: u128, name: &str| {
        let (whole, rest) = (ns / unit_ns, ns % unit_ns);
        let width = unit_ns.ilog10() as usize;
        let fraction = format!("{rest:0width$}");
        match fraction.trim_end_matches('0') {
            "" => format!("{whole}{name}"),
            fraction => format!("{whole}.{fraction}{name}"),
        }
    };
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => unit(1_000, "µs"),
        1_000_000..1_000_000_000 => unit(1_000_000, "ms"),
        _ => {
            let minutes = time.as_secs() / 60;
            let seconds = go_seconds(Duration::from_nanos_u128(ns % 60_000_000_000));
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

fn go_seconds(time: Duration) -> String {
    let fraction = format!("{:09}", time.subsec_nanos());
    match fraction.trim_end_matches('0') {
        "" => format!("{}s", time.as_secs()),
        fraction => format!("{}.{fraction}s", time.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_go_prints_them() {
        for (ns, expected) in [
            (0, "0s"),
            (999, "999ns"),
            (12_000, "12µs"),
            (1_500, "1.5µs"),
            (4_608_377, "4.608377ms"),
            (1_000_000_000, "1s"),
            (60_500_000_000, "1m0.5s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(ns)), expected);
        }
    }
}
