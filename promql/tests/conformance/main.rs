//! Runs Prometheus' PromQL scripts, and our own beside them, against our evaluator; and Prometheus'
//! parser cases against our parser.
//!
//! An eval passes when its value and its remarks are as expected, also with `@` put on all its
//! selectors and evaluated at other times, and in the middle of a range query, as Prometheus'
//! own runner checks.
//!
//! The last lines are `conformance: N of M evals passed` and `parse: N of M cases passed`. To have
//! them shown always, this is a program of its own rather than a test in a harness.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../common/mod.rs"]
mod common;
mod parse_cases;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use common::histogram;
use common::memory::Memory;
use common::script::{self, Command, Eval, Pattern};
use isobar_model::sample::is_stale;
use isobar_model::{FloatHistogram, Labels};
use isobar_promql::eval::evaluate;
use isobar_promql::features::Features;
use isobar_promql::limits::{CancelToken, Limits};
use isobar_promql::parse::ast::At;
use isobar_promql::parse::series::SequenceValue;
use isobar_promql::parse::{Expr, parse_expr};
use isobar_promql::plan::{PlanParams, plan};
use isobar_promql::value::{MatrixSeries, QueryResult, QueryStats, Value, VectorSample};

/// Functions whose value depends on more than the samples that `@` pins.
const TIME_DEPENDENT: &[&str] = &[
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
];

fn main() -> ExitCode {
    let mut scripts = common::own_scripts();
    let folder = common::promqltest_folder();
    let prometheus = common::scripts();
    if prometheus.is_empty() {
        println!("skipped: no scripts in {}", folder.display());
    }
    scripts.extend(prometheus);
    let (mut passed, mut evals) = (0, 0);
    for (name, text) in &scripts {
        let (passed_here, evals_here) = run_script(name, text);
        println!("{name}: {passed_here} of {evals_here}");
        passed += passed_here;
        evals += evals_here;
    }
    println!("conformance: {passed} of {evals} evals passed");
    let parses = parse_cases::run();
    ExitCode::from(u8::from(passed < evals || !parses))
}

/// Runs a script; gives how many of how many evals passed.
fn run_script(name: &str, text: &str) -> (usize, usize) {
    let commands = match script::read(text) {
        Ok(commands) => commands,
        Err(error) => {
            println!("{name}: {error}");
            return (0, 1);
        }
    };
    let (mut passed, mut evals) = (0, 0);
    let mut memory = Memory::default();
    for command in commands {
        match command {
            Command::Clear => memory.clear(),
            Command::Load(load) => memory.load(&load),
            Command::Eval(eval) => {
                evals += 1;
                let mut both = || run(&eval, &memory).and_then(|()| run_packed(&eval, &mut memory));
                match catch_unwind(AssertUnwindSafe(&mut both)) {
                    Ok(Ok(())) => passed += 1,
                    Ok(Err(e)) => println!("{name}:{}: {}: {e}", eval.line, eval.query),
                    Err(_) => println!("{name}:{}: {}: PANIC", eval.line, eval.query),
                }
            }
        }
    }
    (passed, evals)
}

/// Histograms that come packed give what single ones give, remarks and counts included.
fn run_packed(eval: &Eval, memory: &mut Memory) -> Result<(), String> {
    let times = match eval.is_range {
        true => (eval.start_ms, eval.end_ms, eval.step_ms),
        false => (eval.end_ms - 120_000, eval.end_ms + 60_000, 60_000),
    };
    let mut ask = |packs| {
        memory.packs = packs;
        let answer = with_features(&eval.query, memory, times, Features::default());
        let counts = |it: QueryStats| (it.samples_queryable, it.samples_read, it.samples_new);
        let told = |it: QueryResult| (it.value, it.warnings, counts(it.stats));
        format!("{:?}", answer.map(told))
    };
    let (packed, single) = (ask(true), ask(false));
    match packed == single {
        true => Ok(()),
        false => Err(format!("packed {packed}, single {single}")),
    }
}

/// Evaluates at the times given: the first, the last and the step.
fn query(text: &str, memory: &Memory, times: (i64, i64, i64)) -> Result<QueryResult, String> {
    // As Prometheus' runner has it.
    let features = Features {
        delayed_name_removal: true,
        start_timestamps: true,
        ..Features::default()
    };
    with_features(text, memory, times, features)
}

fn with_features(
    text: &str,
    memory: &Memory,
    times: (i64, i64, i64),
    features: Features,
) -> Result<QueryResult, String> {
    let (start_ms, end_ms, step_ms) = times;
    let expr = parse_expr(text).map_err(|e| e.to_string())?;
    let params = PlanParams {
        query: text,
        start_ms,
        end_ms,
        step_ms,
        features,
        ..PlanParams::default()
    };
    let plan = plan(&expr, &params).map_err(|e| e.to_string())?;
    evaluate(&plan, memory, &Limits::default(), &CancelToken::default()).map_err(|e| e.to_string())
}

fn run(eval: &Eval, memory: &Memory) -> Result<(), String> {
    if eval.is_range {
        let result = query(
            &eval.query,
            memory,
            (eval.start_ms, eval.end_ms, eval.step_ms),
        );
        return check(eval, result).map(|_| ());
    }
    let time = eval.end_ms;
    run_instant(eval, &eval.query, time, memory)?;
    let Some(pinned) = pinned(&eval.query, time) else {
        return Ok(());
    };
    let times = match time {
        0 => vec![-1000, 0, 1000],
        _ => vec![-10 * time, 0, time / 5, time, 10 * time],
    };
    for time in times {
        run_instant(eval, &pinned, time, memory)
            .map_err(|e| format!("as {pinned} at {time} ms: {e}"))?;
    }
    Ok(())
}

fn run_instant(eval: &Eval, text: &str, time: i64, memory: &Memory) -> Result<(), String> {
    let Some(value) = check(eval, query(text, memory, (time, time, 0)))? else {
        return Ok(());
    };
    let depends_on_range = ["start()", "end()", "step()", "range()"]
        .iter()
        .any(|f| text.contains(f));
    if depends_on_range || eval.range_vector || eval.string.is_some() || eval.ordered {
        return Ok(());
    }
    const MINUTE: i64 = 60_000;
    let in_range = |e| format!("in a range query: {e}");
    let times = (time - MINUTE, time + MINUTE, MINUTE);
    let Value::Matrix(series) = query(text, memory, times).map_err(in_range)?.value else {
        return Err(in_range("no matrix".to_owned()));
    };
    check_sorted(&series).map_err(in_range)?;
    let samples = series.iter().filter_map(|series| {
        let columns = &series.columns;
        let at = columns.timestamps.binary_search(&time).ok();
        let histogram = columns.histograms.iter().find(|it| it.0 == time);
        if at.is_none() && histogram.is_none() {
            return None;
        }
        Some(VectorSample {
            labels: series.labels.clone(),
            timestamp_ms: time,
            value: at.map_or(0.0, |at| columns.values[at]),
            histogram: histogram.map(|it| it.1.clone()),
        })
    });
    let middle = match value {
        Value::Scalar { .. } => Value::Scalar {
            timestamp_ms: time,
            value: samples
                .map(|s| s.value)
                .next()
                .ok_or("no value in a range query")?,
        },
        _ => Value::Vector(samples.collect()),
    };
    check_value(eval, &middle).map_err(in_range)
}

/// The query with `@` on all its selectors, unless its value depends on the time all the same.
fn pinned(query: &str, time: i64) -> Option<String> {
    let mut expr = parse_expr(query).ok()?;
    pin(&mut expr, time).then(|| expr.to_string())
}

fn pin(expr: &mut Expr, time: i64) -> bool {
    let set = |at: &mut Option<At>| match at {
        None => {
            *at = Some(At::Timestamp(time));
            true
        }
        Some(At::Timestamp(_)) => true,
        // Prometheus' runner would write both, of which none but the time is printed.
        Some(At::Preprocessor(_)) => false,
    };
    match expr {
        Expr::VectorSelector(e) => set(&mut e.at),
        Expr::MatrixSelector(e) => set(&mut e.selector.at),
        Expr::Subquery(e) => {
            // What is inside of a pinned subquery is left alone.
            set(&mut e.at) && !has_time_dependent(&e.expr)
        }
        Expr::Aggregate(e) => {
            let pinned = pin(&mut e.expr, time);
            e.param.as_mut().is_none_or(|param| pin(param, time)) && pinned
        }
        Expr::Binary(e) => pin(&mut e.lhs, time) & pin(&mut e.rhs, time),
        Expr::Call(e) => {
            let safe = !TIME_DEPENDENT.contains(&e.func.name);
            e.args
                .iter_mut()
                .fold(safe, |all, arg| pin(arg, time) & all)
        }
        Expr::Paren(e) => pin(&mut e.expr, time),
        Expr::Unary(e) => pin(&mut e.expr, time),
        Expr::Number(_) | Expr::String(_) => true,
    }
}

fn has_time_dependent(expr: &Expr) -> bool {
    let text = expr.to_string();
    TIME_DEPENDENT
        .iter()
        .any(|name| text.contains(&format!("{name}(")))
}

/// Checks remarks and value, and gives the value when there was to be one.
fn check(eval: &Eval, result: Result<QueryResult, String>) -> Result<Option<Value>, String> {
    let result = match (result, eval.fail.first()) {
        (Err(e), Some(wanted)) if e.contains("not evaluated yet") || !wanted.matches(&e) => {
            return Err(format!("other error: {e}"));
        }
        (Err(_), Some(_)) => return Ok(None),
        (Err(e), None) => return Err(format!("error: {e}")),
        (Ok(_), Some(_)) => return Err("no error".to_owned()),
        (Ok(result), None) => result,
    };
    check_remarks(
        "warning",
        &eval.warn,
        eval.no_warn,
        result.warnings.warnings(),
    )?;
    check_remarks("info", &eval.info, eval.no_info, result.warnings.infos())?;
    check_value(eval, &result.value)?;
    Ok(Some(result.value))
}

fn check_remarks(
    kind: &str,
    wanted: &[Pattern],
    unwanted: bool,
    found: &[String],
) -> Result<(), String> {
    if unwanted && !found.is_empty() {
        return Err(format!("{kind} not expected: {found:?}"));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    if !wanted
        .iter()
        .all(|pattern| found.iter().any(|text| pattern.matches(text)))
    {
        return Err(format!("{kind} expected, found {found:?}"));
    }
    match found
        .iter()
        .find(|text| !wanted.iter().any(|pattern| pattern.matches(text)))
    {
        None => Ok(()),
        Some(text) => Err(format!("{kind} not expected: {text}")),
    }
}

fn check_value(eval: &Eval, value: &Value) -> Result<(), String> {
    match value {
        Value::String { value, .. } => match &eval.string {
            Some(wanted) if wanted == value => Ok(()),
            wanted => Err(format!("string {value:?}, expected {wanted:?}")),
        },
        Value::Scalar { value, .. } => match eval.scalar {
            Some(wanted) if same(*value, wanted) => Ok(()),
            wanted => Err(format!("scalar {value}, expected {wanted:?}")),
        },
        Value::Vector(samples) => check_vector(eval, samples),
        Value::Matrix(series) => {
            check_sorted(series)?;
            check_matrix(eval, series)
        }
    }
}

fn check_vector(eval: &Eval, samples: &[VectorSample]) -> Result<(), String> {
    let mut wanted: BTreeMap<&Labels, (usize, &SequenceValue)> = BTreeMap::new();
    for (position, (labels, values)) in eval.series.iter().enumerate() {
        let Some(value) = values.first() else {
            return Err(format!("no value for {labels}"));
        };
        wanted.insert(labels, (position, value));
    }
    for (position, sample) in samples.iter().enumerate() {
        let (labels, value) = (&sample.labels, sample.value);
        let Some((expected_position, expected)) = wanted.remove(labels) else {
            return Err(format!("{labels} {value} not expected"));
        };
        if eval.ordered && position != expected_position {
            return Err(format!(
                "{labels} stands at {position}, expected at {expected_position}"
            ));
        }
        match (expected, &sample.histogram) {
            (SequenceValue::Float(expected), None) if same(value, *expected) => {}
            (SequenceValue::Histogram { .. }, Some(found)) => {
                same_histogram(found, expected).map_err(|e| format!("{labels} {e}"))?;
            }
            (expected, Some(found)) => {
                return Err(format!("{labels} {found}, expected {expected:?}"));
            }
            (expected, None) => return Err(format!("{labels} {value}, expected {expected:?}")),
        }
    }
    match wanted.keys().next() {
        None => Ok(()),
        Some(labels) => Err(format!("{labels} expected, not found")),
    }
}

fn check_matrix(eval: &Eval, series: &[MatrixSeries]) -> Result<(), String> {
    let mut wanted: BTreeMap<&Labels, &Vec<SequenceValue>> = eval
        .series
        .iter()
        .map(|(labels, values)| (labels, values))
        .collect();
    for MatrixSeries { labels, columns } in series {
        let Some(values) = wanted.remove(labels) else {
            return Err(format!("{labels} not expected, with {:?}", columns.values));
        };
        let mut expected = Vec::new();
        let mut histograms = columns.histograms.iter();
        for (i, value) in values.iter().enumerate() {
            match value {
                SequenceValue::Omitted => {}
                SequenceValue::Float(value) => {
                    expected.push((eval.start_ms + i as i64 * eval.step_ms, *value));
                }
                SequenceValue::Histogram { .. } => {
                    let time = eval.start_ms + i as i64 * eval.step_ms;
                    match histograms.next() {
                        Some((at, found)) if *at == time => {
                            same_histogram(found, value).map_err(|e| format!("{labels} {e}"))?;
                        }
                        _ => return Err(format!("{labels} no histogram at {time}")),
                    }
                }
            }
        }
        if let Some((time, found)) = histograms.next() {
            return Err(format!("{labels} {found} at {time} not expected"));
        }
        let times = columns.timestamps.iter().copied();
        let found: Vec<(i64, f64)> = times.zip(columns.values.iter().copied()).collect();
        let agree = found.len() == expected.len()
            && found
                .iter()
                .zip(&expected)
                .all(|(a, b)| a.0 == b.0 && same(a.1, b.1));
        if !agree {
            return Err(format!("{labels} {found:?}, expected {expected:?}"));
        }
    }
    match wanted.keys().next() {
        None => Ok(()),
        Some(labels) => Err(format!("{labels} expected, not found")),
    }
}

fn check_sorted(series: &[MatrixSeries]) -> Result<(), String> {
    match series.is_sorted_by(|a, b| a.labels < b.labels) {
        true => Ok(()),
        false => Err("series are not sorted".to_owned()),
    }
}

/// Whether a histogram is the one that a script expects, but for rounding and empty buckets.
fn same_histogram(found: &FloatHistogram, wanted: &SequenceValue) -> Result<(), String> {
    let Some((mut wanted, has_hint)) = histogram::of_sequence(wanted)? else {
        return Err("no histogram expected".to_owned());
    };
    let mut compact = found.clone();
    compact.compact();
    wanted.compact();
    let sides = [
        (&compact.positive, &wanted.positive),
        (&compact.negative, &wanted.negative),
    ];
    let agree = compact.schema == wanted.schema
        && same(compact.count, wanted.count)
        && same(compact.sum, wanted.sum)
        && same(compact.zero_count, wanted.zero_count)
        && compact.zero_threshold == wanted.zero_threshold
        && (!compact.is_custom() || compact.custom == wanted.custom)
        && (!has_hint || compact.hint == wanted.hint)
        && sides.iter().all(|(a, b)| {
            a.indexes() == b.indexes()
                && a.counts().iter().zip(b.counts()).all(|(a, b)| same(*a, *b))
        });
    match agree {
        true => Ok(()),
        false => Err(format!(
            "{compact} ({:?}), expected {wanted} ({:?})",
            compact.hint, wanted.hint
        )),
    }
}

/// Whether two values are equal but for rounding, as Prometheus' runner compares them.
fn same(a: f64, b: f64) -> bool {
    const EPSILON: f64 = 0.000_001;
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < EPSILON
}
