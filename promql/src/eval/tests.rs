//! Tests of planner and evaluator over series in memory. What is expected was checked against
//! Prometheus 3.14; the wide tests are `tests/conformance` and, in `query`,
//! `tests/recorded.rs`.

use std::sync::Arc;

use isobar_model::{Columns, FloatHistogram, Labels};

use super::testing::Memory;
use super::{EvalError, evaluate};
use crate::features::Features;
use crate::limits::{CancelReason, CancelToken, Limits};
use crate::parse::parse_expr;
use crate::plan::{Plan, PlanError, PlanParams, plan};
use crate::value::{QueryResult, Value};

/// A sample every 15 s from 0 on.
const SERIES: &str = r#"
    m_total{a="1",b="1"} 0 15 30 45 60 75 90
    m_total{a="1",b="2"} 0 30 60 90 120 150 180
    m_total{a="2",b="1"} 0 15 30 0 15 30 45
    g{a="1"} 1 2 _ 4 s _ 7
    g{a="2"} 5 5 5 5 5 5 5
    h_bucket{le="1"} 0 1 2 3 4 5 6
    h_bucket{le="2"} 0 2 4 6 8 10 12
    h_bucket{le="+Inf"} 0 2 4 6 8 10 12
    h_bucket{le="odd"} 0 0 0 0 0 0 0
"#;

fn plan_of(query: &str, start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Plan, PlanError> {
    let expr = parse_expr(query).expect(query);
    let params = PlanParams {
        query,
        start_ms,
        end_ms,
        step_ms,
        ..PlanParams::default()
    };
    plan(&expr, &params)
}

fn ask(plan: &Plan, limits: &Limits) -> Result<QueryResult, EvalError> {
    let source = Memory::read(SERIES, 15_000);
    evaluate(plan, &source, limits, &CancelToken::default())
}

fn print(result: &QueryResult) -> String {
    let mut lines: Vec<String> = match &result.value {
        Value::Matrix(series) => series
            .iter()
            .map(|s| {
                let times = s.columns.timestamps.iter().map(|t| t / 1000);
                let samples = times.zip(&s.columns.values);
                let samples: Vec<String> = samples.map(|(t, v)| format!("{v}@{t}")).collect();
                format!("{} {}", s.labels, samples.join(" "))
            })
            .collect(),
        Value::Vector(samples) => samples
            .iter()
            .map(|s| format!("{} {}", s.labels, s.value))
            .collect(),
        Value::Scalar { value, .. } => vec![value.to_string()],
        Value::String { value, .. } => vec![format!("{value:?}")],
    };
    lines.extend(result.warnings.warnings().iter().cloned());
    lines.extend(result.warnings.infos().iter().cloned());
    lines.join("\n")
}

/// At 60 s.
fn check(query: &str, expected: &str) {
    let result = plan_of(query, 60_000, 60_000, 0)
        .map_err(|e| e.to_string())
        .and_then(|plan| ask(&plan, &Limits::default()).map_err(|e| e.to_string()));
    let got = result.map_or_else(|error| error, |result| print(&result));
    assert_eq!(got, lines(expected), "{query}");
}

/// At 60, 75 and 90 s.
fn check_range(query: &str, expected: &str) {
    let result = plan_of(query, 60_000, 90_000, 15_000)
        .map_err(|e| e.to_string())
        .and_then(|plan| ask(&plan, &Limits::default()).map_err(|e| e.to_string()));
    let got = result.map_or_else(|error| error, |result| print(&result));
    assert_eq!(got, lines(expected), "{query}");
}

fn lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines.join("\n")
}

#[test]
fn selectors_see_the_last_sample_until_it_is_stale() {
    check("g", r#"{__name__="g", a="2"} 5"#);
    check_range(
        "g",
        r#"{__name__="g", a="1"} 7@90
           {__name__="g", a="2"} 5@60 5@75 5@90"#,
    );
    check(r#"g{a="1"} offset 15s"#, r#"{__name__="g", a="1"} 4"#);
    check_range(
        r#"g{a="1"} @ 45"#,
        r#"{__name__="g", a="1"} 4@60 4@75 4@90"#,
    );
    check(r#"g{a="1"}[45s]"#, r#"{__name__="g", a="1"} 4@45"#);
    check(r#"timestamp(g{a="1"} offset 20s)"#, r#"{a="1"} 15"#);
}

#[test]
fn windows_are_open_on_the_left() {
    check(
        "count_over_time(m_total{b=\"2\"}[30s])",
        r#"{a="1", b="2"} 2"#,
    );
    check(
        "last_over_time(g[1m])",
        "{__name__=\"g\", a=\"1\"} 4\n{__name__=\"g\", a=\"2\"} 5",
    );
    check("max_over_time(sum(m_total)[30s:15s])", "{} 195");
    check("sum_over_time(vector(time())[30s:10s])", "{} 150");
}

#[test]
fn functions_of_thanos_see_the_sample_before_the_window() {
    check("xincrease(m_total{b=\"2\"}[29s])", r#"{a="1", b="2"} 60"#);
    check("xrate(m_total{b=\"2\"}[30s])", r#"{a="1", b="2"} 2"#);
    check(
        "xdelta(g[1m] anchored)",
        "anchored modifier can only be used with: changes, delta, increase, rate, resets - not \
         with xdelta",
    );
    check("xdelta(g[1m:])", "xdelta is not supported on subqueries");
}

#[test]
fn range_vectors_reach_to_their_edges() {
    check(
        r#"g{a="1"}[45s] anchored"#,
        r#"{__name__="g", a="1"} 2@15 4@45 4@60"#,
    );
    check(
        r#"g{a="1"}[15s] smoothed offset 15s"#,
        r#"{__name__="g", a="1"} 3@30 4@45"#,
    );
}

#[test]
fn delayed_names_go_when_the_query_is_done() {
    let features = Features {
        delayed_name_removal: true,
        ..Features::default()
    };
    for (query, expected) in [
        (
            r#"max_over_time(m_total{a="1",b="1"}[1m]) > 0"#,
            r#"{a="1", b="1"} 60"#,
        ),
        (
            r#"sum by (__name__) (max_over_time(m_total{a="1"}[1m]))"#,
            "{} 180",
        ),
        (
            r#"label_replace(-g, "was", "$1", "__name__", "(.*)")"#,
            r#"{a="2", was="g"} -5"#,
        ),
        (
            r#"label_replace(-g, "__name__", "new", "", "")"#,
            r#"{__name__="new", a="2"} -5"#,
        ),
        (r#"-g or -{__name__="g",a="2"}"#, r#"{a="2"} -5"#),
        (
            r#"-{a="2",__name__=~"g|m_total"} or on (b) -m_total"#,
            "{a=\"2\"} -5\n{a=\"2\", b=\"1\"} -15\n{a=\"1\", b=\"2\"} -120",
        ),
    ] {
        let params = PlanParams {
            query,
            start_ms: 60_000,
            end_ms: 60_000,
            features,
            ..PlanParams::default()
        };
        let plan = plan(&parse_expr(query).expect(query), &params).expect(query);
        let got = ask(&plan, &Limits::default()).map_or_else(|e| e.to_string(), |it| print(&it));
        assert_eq!(got, expected, "{query}");
    }
}

#[test]
fn rates_are_summed_by_label() {
    check_range(
        "sum by (a) (increase(m_total[1m]))",
        r#"{a="1"} 180@60 180@75 180@90
           {a="2"} 40@60 40@75 45@90"#,
    );
    check(
        "increase(g{a=\"2\"}[1m])",
        r#"{a="2"} 0
           PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "g" (1:10)"#,
    );
}

#[test]
fn aggregations() {
    check("sum(m_total)", "{} 195");
    check("avg without (b) (m_total)", "{a=\"1\"} 90\n{a=\"2\"} 15");
    check("max by (b) (m_total)", "{b=\"1\"} 60\n{b=\"2\"} 120");
    check("count(m_total > 20)", "{} 2");
    check("stdvar(m_total)", "{} 1850");
    check("quantile(0.5, m_total)", "{} 60");
    check(
        "topk(1, m_total)",
        r#"{__name__="m_total", a="1", b="2"} 120"#,
    );
    check(
        "bottomk by (a) (1, m_total)",
        "{__name__=\"m_total\", a=\"1\", b=\"1\"} 60\n{__name__=\"m_total\", a=\"2\", b=\"1\"} 15",
    );
    check(
        "count_values(\"v\", m_total % 30)",
        "{v=\"0\"} 2\n{v=\"15\"} 1",
    );
    check(
        "quantile(2, m_total)",
        "{} inf\nPromQL warning: quantile value should be between 0 and 1, got 2 (1:10)",
    );
}

#[test]
fn matching() {
    check(
        "m_total / on (a) group_left sum by (a) (m_total)",
        r#"{a="1", b="1"} 0.3333333333333333
           {a="1", b="2"} 0.6666666666666666
           {a="2", b="1"} 1"#,
    );
    check("g * on (a) m_total{b=\"1\"}", r#"{a="2"} 75"#);
    check(
        "sum by (a) (m_total) * on () m_total{a=\"1\"}",
        "found duplicate series for the match group {} on the right hand-side of the operation: [{__name__=\"m_total\", a=\"1\", b=\"1\"}, {__name__=\"m_total\", a=\"1\", b=\"2\"}];many-to-many matching not allowed: matching labels must be unique on one side",
    );
    check(
        "m_total * on () sum(m_total)",
        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
    );
    check(
        "m_total and on (a) g",
        r#"{__name__="m_total", a="2", b="1"} 15"#,
    );
    check("sum(m_total) or on () vector(1)", "{} 195");
    check_range("sum(g{a=\"1\"}) or vector(0)", "{} 0@60 0@75 7@90");
    check(
        "m_total unless on (a) g{a=\"2\"}",
        "{__name__=\"m_total\", a=\"1\", b=\"1\"} 60\n{__name__=\"m_total\", a=\"1\", b=\"2\"} 120",
    );
}

#[test]
fn names_are_dropped_and_must_not_collide() {
    check("-g", "{a=\"2\"} -5");
    check("g > bool 1", "{a=\"2\"} 1");
    check("g > 1", "{__name__=\"g\", a=\"2\"} 5");
    check(
        "abs({__name__=~\"g|m_total\", a=\"2\"})",
        "{a=\"2\"} 5\n{a=\"2\", b=\"1\"} 15",
    );
    check(
        "label_replace(m_total{a=\"1\"}, \"b\", \"\", \"\", \"\")",
        "vector cannot contain metrics with the same labelset",
    );
}

#[test]
fn floats_and_histograms_of_one_label_set() {
    let names = |name| Labels::from_pairs([("__name__", name), ("a", "1")]);
    let (mut floats, mut histograms) = (Columns::default(), Columns::default());
    for time_ms in [60_000, 75_000] {
        floats.push(time_ms, 1.0);
        let histogram = Arc::new(FloatHistogram::default());
        histograms.histograms.push((time_ms, histogram));
    }
    let again = (names("h"), histograms.clone());
    let both = Memory(vec![(names("f"), floats), again.clone()]);
    let twice = Memory(vec![again, (names("i"), histograms)]);
    let ask = |query: &str, source: &Memory, end_ms, delayed| {
        let params = PlanParams {
            query,
            start_ms: 60_000,
            end_ms,
            step_ms: 15_000,
            lookback_ms: 10_000,
            features: Features {
                delayed_name_removal: delayed,
                ..Features::default()
            },
            ..PlanParams::default()
        };
        let params = match end_ms {
            60_000 => PlanParams {
                step_ms: 0,
                ..params
            },
            _ => params,
        };
        let plan = plan(&parse_expr(query).expect(query), &params).expect(query);
        let result = evaluate(&plan, source, &Limits::default(), &CancelToken::default());
        match result.map(|it| it.value) {
            Ok(Value::Matrix(series)) => {
                let told = |it: &crate::value::MatrixSeries| {
                    let histograms = it.columns.histograms.len();
                    format!("{} {} + {histograms}", it.labels, it.columns.values.len())
                };
                series.iter().map(told).collect::<Vec<_>>().join(", ")
            }
            Ok(Value::Vector(samples)) => {
                let told = |it: &crate::value::VectorSample| match it.histogram {
                    Some(_) => "histogram".to_owned(),
                    None => it.value.to_string(),
                };
                samples.iter().map(told).collect::<Vec<_>>().join(", ")
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        }
    };
    let collide = "vector cannot contain metrics with the same labelset";
    for (query, range, instant, later) in [
        ("-{a='1'}", "{a=\"1\"} 2 + 2", "histogram", "histogram"),
        ("-(-{a='1'})", "{a=\"1\"} 2 + 2", "histogram", "histogram"),
        ("abs(-{a='1'})", "{a=\"1\"} 2 + 0", "1", "1"),
        ("sum(-{a='1'})", "{} 2 + 0", "-1", ""),
        ("{a='1'} * 1", collide, collide, "histogram"),
        (
            "label_replace({a='1'}, '__name__', '', '', '')",
            "{a=\"1\"} 2 + 2",
            "histogram",
            "histogram",
        ),
    ] {
        assert_eq!(ask(query, &both, 75_000, false), range, "{query}");
        assert_eq!(ask(query, &both, 60_000, false), instant, "{query}");
        assert_eq!(ask(query, &both, 60_000, true), later, "{query}");
    }
    for (end_ms, delayed) in [(75_000, false), (60_000, false), (60_000, true)] {
        assert_eq!(ask("-{a='1'}", &twice, end_ms, delayed), collide);
    }
}

#[test]
fn buckets() {
    check(
        "histogram_quantile(0.75, h_bucket)",
        r#"{} 1.5
           PromQL warning: bucket label "le" is missing or has a malformed value of "odd" (1:26)"#,
    );
}

#[test]
fn absent_scalar_and_sorting() {
    check("absent(nope{a=\"1\", b=~\"2\"})", "{a=\"1\"} 1");
    check("absent(nope{a!=\"2\", a=\"1\", b=\"2\"})", "{b=\"2\"} 1");
    check("absent(g)", "");
    check_range("absent_over_time(g{a=\"1\"}[15s])", "{a=\"1\"} 1@60 1@75");
    check("scalar(g)", "5");
    check("scalar(m_total)", "NaN");
    check(
        "sort_desc(m_total)",
        "{__name__=\"m_total\", a=\"1\", b=\"2\"} 120\n{__name__=\"m_total\", a=\"1\", b=\"1\"} 60\n{__name__=\"m_total\", a=\"2\", b=\"1\"} 15",
    );
    check_range(
        "sort(sum(m_total))",
        "{} 195@60 255@75 315@90\nPromQL warning: sort is ineffective for range queries since results are always ordered by labels (1:1)",
    );
}

#[test]
fn what_is_refused() {
    check_range(
        "g[1m]",
        "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
    );
    check(
        "rate(g[step() - 15s])",
        "7:19: duration must be greater than 0",
    );
}

#[test]
fn selects_say_what_is_needed() {
    let of = |query: &str| {
        let plan = plan_of(query, 60_000, 90_000, 15_000).expect(query);
        let selects = plan.selects().iter().map(|s| {
            let hints = &s.hints;
            let by = if hints.by { "by" } else { "" };
            format!(
                "{}..={} {} {}{:?}",
                s.range.min_ms, s.range.max_ms, hints.func, by, hints.grouping
            )
        });
        selects.collect::<Vec<_>>().join("; ")
    };
    assert_eq!(of("g"), "-239999..=90000  []");
    assert_eq!(of("rate(g[1m])"), "1..=90000 rate []");
    assert_eq!(
        of("sum by (a) (g offset 1m)"),
        "-299999..=30000 sum by[\"a\"]"
    );
    assert_eq!(
        of("sum_over_time(g[1m:30s])"),
        "-269999..=90000 sum_over_time []"
    );
    assert_eq!(of("g @ 10 + g @ 20"), "-289999..=20000  []");
    assert_eq!(of("rate(g[1m]) / sum(g)"), "-239999..=90000  []");
}

#[test]
fn a_query_can_be_called_off() {
    let plan = plan_of("sum(m_total)", 0, 0, 0).expect("plan");
    let cancel = CancelToken::default();
    cancel.cancel(CancelReason::Timeout);
    let source = Memory::read(SERIES, 15_000);
    let error = evaluate(&plan, &source, &Limits::default(), &cancel).expect_err("called off");
    assert_eq!(error.to_string(), "query timed out in query execution");
}

#[test]
fn bounds_hold() {
    let too_many = "query processing would load too many samples into memory in query execution";
    for (query, limits, expected) in [
        (
            "m_total",
            Limits {
                samples_max: 8,
                ..Limits::default()
            },
            too_many,
        ),
        (
            "m_total",
            Limits {
                samples_max: 9,
                ..Limits::default()
            },
            "",
        ),
        (
            "m_total",
            Limits {
                series_max: 2,
                ..Limits::default()
            },
            "query selects more than 2 series",
        ),
        (
            "sum_over_time(m_total[1y:1ms])",
            Limits::default(),
            "query has 31536030003 steps, inner steps of subqueries included, more than the \
             limit of 1000000",
        ),
    ] {
        let plan = plan_of(query, 60_000, 90_000, 15_000).expect(query);
        let error = ask(&plan, &limits)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert_eq!(error, expected);
    }
}

#[test]
fn counters() {
    let plan = plan_of("rate(m_total[1m])", 60_000, 90_000, 15_000).expect("plan");
    let stats = ask(&plan, &Limits::default()).expect("answer").stats;
    assert_eq!(
        (stats.series, stats.samples_read, stats.samples_queryable),
        (3, 18, 36)
    );
}

#[test]
fn each_step_is_told_what_it_cost() {
    for (query, queryable, new) in [
        ("g", [1, 2], [1, 2]),
        ("rate(m_total[1m])", [12, 12], [12, 6]),
        ("g{a=\"2\"} @ 30", [1, 1], [1, 0]),
        // What lies between the windows of a subquery is not counted.
        ("sum_over_time(g{a=\"2\"}[15s:5s])", [3, 3], [3, 3]),
        (
            "sum_over_time(g{a=\"2\"}[1m:30s] offset 15s)",
            [2, 2],
            [2, 1],
        ),
    ] {
        let plan = Plan {
            step_stats: true,
            ..plan_of(query, 60_000, 90_000, 30_000).expect(query)
        };
        let result = ask(&plan, &Limits::default()).expect(query);
        let steps = result.step_stats.expect("told");
        assert_eq!(
            (steps.queryable, steps.new),
            (queryable.to_vec(), new.to_vec()),
            "{query}"
        );
        let sums = [queryable, new].map(|it| it.iter().sum());
        assert_eq!(
            [result.stats.samples_queryable, result.stats.samples_new],
            sums,
            "{query}"
        );
    }
}
