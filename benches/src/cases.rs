//! The queries with which Prometheus measures its own engine (`promql/bench_test.go`), over the data
//! of [`crate::sets`], and some of our own for what that list leaves out.

use crate::sets::{BEGIN_MS, Set, SetKind};

/// A range query over one set.
#[derive(Debug, Clone)]
pub struct Case {
    /// The query.
    pub query: String,
    /// The first step, unix milliseconds.
    pub start_ms: i64,
    /// The last step, unix milliseconds.
    pub end_ms: i64,
    /// The distance of the steps.
    pub step_ms: i64,
    /// Whether the case is ours and not in Prometheus' list.
    pub own: bool,
}

impl Case {
    /// How many steps are evaluated.
    pub fn steps(&self) -> i64 {
        (self.end_ms - self.start_ms) / self.step_ms + 1
    }
}

/// The cases of a set. `part` divides the numbers of steps as it does the data.
pub fn cases(set: &Set, part: usize) -> Vec<Case> {
    match set.kind {
        SetKind::Range => range_cases(set, part),
        SetKind::Join => JOINS
            .iter()
            .map(|query| last_steps(set, query, 5_000 / part))
            .collect(),
        SetKind::Native => two_hours(set, NATIVE, NATIVE_OWN),
        SetKind::Info => two_hours(set, INFO, &[]),
    }
}

/// Of `rangeQueryCases`; `X` stands for one and for a hundred series. Steps are 1 and 1,000 where
/// none are given.
const RANGES: &[(&str, Option<usize>)] = &[
    ("a_X", None),
    ("rate(a_X[1m])", None),
    ("rate(a_X[1m])", Some(10_000)),
    ("rate(sparse[1m])", Some(10_000)),
    ("rate(a_X[1m] smoothed)", None),
    ("rate(a_X[1m] smoothed)", Some(10_000)),
    ("rate(sparse[1m] smoothed)", Some(10_000)),
    ("double_exponential_smoothing(a_X[1d], 0.3, 0.3)", None),
    ("changes(a_X[1d])", None),
    ("rate(a_X[1d])", None),
    ("absent_over_time(a_X[1d])", None),
    ("-a_X", None),
    ("a_X - b_X", None),
    ("a_X - b_X", Some(10_000)),
    ("a_X and b_X{l=~'.*[0-4]$'}", None),
    ("a_X or b_X{l=~'.*[0-4]$'}", None),
    ("a_X unless b_X{l=~'.*[0-4]$'}", None),
    ("a_X and b_X{l='notfound'}", None),
    ("abs(a_X)", None),
    ("label_replace(a_X, 'l2', '$1', 'l', '(.*)')", None),
    ("label_join(a_X, 'l2', '-', 'l', 'l')", None),
    ("sum(a_X)", None),
    ("avg(a_X)", None),
    ("sum without (l)(h_X)", None),
    ("sum without (le)(h_X)", None),
    ("sum by (l)(h_X)", None),
    ("sum by (le)(h_X)", None),
    ("count_values('value', h_X)", Some(100)),
    ("topk(1, a_X)", None),
    ("topk(5, a_X)", None),
    ("limitk(1, a_X)", None),
    ("limitk(5, a_X)", None),
    ("limit_ratio(0.1, a_X)", None),
    ("limit_ratio(0.5, a_X)", None),
    ("limit_ratio(-0.5, a_X)", None),
    ("rate(a_X[1m]) + rate(b_X[1m])", None),
    ("sum without (l)(rate(a_X[1m]))", None),
    (
        "sum without (l)(rate(a_X[1m])) / sum without (l)(rate(b_X[1m]))",
        None,
    ),
    ("histogram_quantile(0.9, rate(h_X[5m]))", None),
    ("a_X + on(l) group_right a_one", None),
    ("count({__name__!=\"\"})", Some(1)),
    ("count({__name__!=\"\",l=\"\"})", Some(1)),
    ("timestamp(a_X)", None),
];

/// What Prometheus' list leaves out.
const RANGES_OWN: &[(&str, Option<usize>)] = &[
    ("rate(a_X[1m] anchored)", None),
    ("max_over_time(a_X[1d])", None),
    ("quantile_over_time(0.9, a_X[1h])", None),
    ("stddev_over_time(a_X[1h])", None),
    ("max_over_time(rate(a_X[1m])[10m:30s])", None),
    ("avg_over_time(sum(a_X)[1h:1m])", None),
    ("rate(a_X[5m:10s])", None),
    ("histogram_quantile(0.9, sum by (le) (rate(h_X[5m])))", None),
    ("quantile(0.9, a_X)", None),
    ("a_X > 5000 or b_X", None),
    ("predict_linear(a_X[1h], 3600)", None),
];

/// Of `BenchmarkJoinQuery`.
const JOINS: &[&str] = &[
    "rpc_request_success_total + rpc_request_error_total",
    "rpc_request_success_total + ON (job, instance) GROUP_LEFT rpc_request_error_total",
    "rpc_request_success_total AND rpc_request_error_total{instance=~\"0.*\"}",
    "rpc_request_success_total OR rpc_request_error_total{instance=~\"0.*\"}",
    "rpc_request_success_total UNLESS rpc_request_error_total{instance=~\"0.*\"}",
];

/// Of `BenchmarkNativeHistograms` and `BenchmarkNativeHistogramsCustomBuckets`.
const NATIVE: &[&str] = &[
    "sum(native_histogram_series)",
    "sum(rate(native_histogram_series[2m]))",
    "sum(rate(native_histogram_series[20m]))",
    "histogram_count(sum(rate(native_histogram_series[2m])))",
    "histogram_count(sum(rate(native_histogram_series[20m])))",
    "histogram_count(sum(rate(native_histogram_series[2m]))) + histogram_sum(sum(rate(native_histogram_series[2m])))",
    "histogram_count(sum(rate(native_histogram_series[20m]))) + histogram_sum(sum(rate(native_histogram_series[20m])))",
    "sum(native_histogram_custom_bucket_series)",
    "sum(rate(native_histogram_custom_bucket_series[2m]))",
    "sum(rate(native_histogram_custom_bucket_series[20m]))",
    "histogram_count(sum(rate(native_histogram_custom_bucket_series[2m])))",
    "histogram_count(sum(rate(native_histogram_custom_bucket_series[20m])))",
];

/// What Prometheus' list of native histograms leaves out.
const NATIVE_OWN: &[&str] = &[
    "histogram_quantile(0.9, sum(rate(native_histogram_series[5m])))",
    "histogram_quantile(0.9, native_histogram_series{h=~\".0\"})",
];

/// Of `BenchmarkInfoFunction`.
const INFO: &[&str] = &[
    "rate(http_server_request_duration_seconds_count[2m]) * on (job, instance) group_left (k8s_cluster_name) target_info{k8s_cluster_name=\"us-east\"}",
    "info(rate(http_server_request_duration_seconds_count[2m]), {k8s_cluster_name=\"us-east\"})",
    "sum by (k8s_cluster_name, http_status_code) (rate(http_server_request_duration_seconds_count[2m]) * on (job, instance) group_left (k8s_cluster_name) target_info)",
    "sum by (k8s_cluster_name, http_status_code) (info(rate(http_server_request_duration_seconds_count[2m]), {k8s_cluster_name=~\".+\"}))",
];

fn range_cases(set: &Set, part: usize) -> Vec<Case> {
    let mut all = Vec::new();
    for (list, own) in [(RANGES, false), (RANGES_OWN, true)] {
        for (template, steps) in list {
            let sizes: &[&str] = if template.contains('X') {
                &["one", "hundred"]
            } else {
                &[""]
            };
            let steps = steps.map_or(vec![1, 1_000], |it| vec![it]);
            for size in sizes {
                let query = template.replace('X', size);
                all.extend(steps.iter().map(|steps| Case {
                    own,
                    ..last_steps(set, &query, (steps / part).max(1))
                }));
            }
        }
    }
    all
}

/// The last `steps` intervals of a set.
fn last_steps(set: &Set, query: &str, steps: usize) -> Case {
    Case {
        query: query.to_owned(),
        start_ms: set.end_ms() - set.interval_ms * steps as i64,
        end_ms: set.end_ms(),
        step_ms: set.interval_ms,
        own: false,
    }
}

/// The first two hours of a set, by half minutes.
fn two_hours(set: &Set, queries: &[&str], own: &[&str]) -> Vec<Case> {
    let case = |query: &str, own| Case {
        query: query.to_owned(),
        start_ms: BEGIN_MS,
        end_ms: set.end_ms().min(BEGIN_MS + 2 * 3_600_000),
        step_ms: 30_000,
        own,
    };
    let given = queries.iter().map(|it| case(it, false));
    given.chain(own.iter().map(|it| case(it, true))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_as_long_as_that_of_prometheus() {
        let count = |kind: SetKind| {
            let all = cases(&kind.set(1), 1);
            all.iter().filter(|it| !it.own).count()
        };
        // 35 expressions for one and for a hundred series and for 1 and 1,000 steps, 4 for one number
        // of steps, and 4 for one number of series.
        assert_eq!(SetKind::ALL.map(count), [152, 5, 12, 4]);
    }

    #[test]
    fn the_last_step_is_the_end_of_the_data() {
        let set = SetKind::Range.set(1);
        let case = last_steps(&set, "a_one", 1_000);
        assert_eq!((case.steps(), case.end_ms), (1_001, set.end_ms()));
    }
}
