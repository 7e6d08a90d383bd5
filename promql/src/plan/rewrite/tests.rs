//! Generated queries answer the same with each rewrite as without any; and what rewrites save.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use isobar_model::series::{Select, SeriesSource, SeriesStream};
use isobar_model::{Columns, FloatHistogram, Labels, SelectError};

use super::super::{Canonical, PlanParams, canonical, plan_with};
use super::Rewrites;
use crate::eval::evaluate;
use crate::eval::testing::Memory;
use crate::features::Features;
use crate::limits::{CancelToken, Limits};
use crate::parse::parse_expr_with;

/// Queries in a run; `ISOBAR_REWRITE_QUERIES` asks for more.
const QUERIES: usize = 1_500;

struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % count as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

/// Series of a few names whose labels overlap, some with gaps, some with histograms.
fn series(random: &mut Random) -> Memory {
    let mut all = Vec::new();
    for name in ["a", "b", "c_total", "h", "few"] {
        for x in ["1", "2", "3"] {
            for y in ["", "1", "2"] {
                if random.below(10) < 2 || (name == "few" && x != "2") {
                    continue;
                }
                let labels = Labels::from_pairs([("__name__", name), ("x", x), ("y", y)]);
                let mut columns = Columns::default();
                for at in 0..60 {
                    let time_ms = at * 15_000;
                    match random.below(20) {
                        0 | 1 => {}
                        2 => columns.push(time_ms, isobar_model::sample::STALE_NAN),
                        n if name == "h" && (n < 16 || at % 2 == 0) => {
                            let histogram = FloatHistogram {
                                count: at as f64,
                                sum: random.below(9) as f64,
                                zero_count: at as f64,
                                ..FloatHistogram::default()
                            };
                            columns.histograms.push((time_ms, Arc::new(histogram)));
                        }
                        _ => columns.push(time_ms, random.below(4) as f64),
                    }
                }
                all.push((labels, columns));
            }
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Memory(all)
}

fn selector(random: &mut Random) -> String {
    let name = random.of(&["a", "b", "c_total", "h", "few", "none", ""]);
    let count = usize::from(name.is_empty()) + random.below(3);
    let mut matchers: Vec<&str> = (0..count)
        .map(|_| {
            random.of(&[
                r#"x="1""#,
                r#"x=~"1|2""#,
                r#"x!="3""#,
                r#"y="1""#,
                r#"y="""#,
                r#"y=~".+""#,
                r#"x="2""#,
            ])
        })
        .collect();
    if name.is_empty() {
        matchers.push(random.of(&[r#"__name__=~"a|b""#, r#"__name__!="h",x=~".+""#]));
    }
    format!("{name}{{{}}}", matchers.join(","))
}

fn modifiers(random: &mut Random) -> &'static str {
    random.of(&[
        "",
        "",
        "",
        "",
        " offset 1m",
        " offset 5m",
        " @ 300",
        " @ end()",
    ])
}

fn scalar(random: &mut Random, depth: usize) -> String {
    match random.below(6) {
        0 if depth > 0 => format!("scalar({})", vector(random, depth - 1)),
        1 => "time()".to_owned(),
        2 => "scalar(vector(2))".to_owned(),
        _ => random.of(&["0", "1", "2", "1.5", "-1"]).to_owned(),
    }
}

fn vector(random: &mut Random, depth: usize) -> String {
    let pick = match depth {
        0 => random.below(5),
        _ => random.below(30),
    };
    let labels = random.of(&["x", "x, y", "y", "", "x, y, __name__"]);
    let mut inner = || vector(random, depth.saturating_sub(1));
    match pick {
        0..=3 => format!("{}{}", selector(random), modifiers(random)),
        4 => {
            let func = random.of(&["rate", "max_over_time", "last_over_time", "count_over_time"]);
            format!("{func}({}[1m]{})", selector(random), modifiers(random))
        }
        5 => match random.below(3) {
            0 => format!("vector({})", scalar(random, depth - 1)),
            1 => format!(
                "vector({}) * {}",
                random.of(&["2", "-0", "1e300"]),
                scalar(random, 0)
            ),
            _ => format!(
                "{}(vector(-1.5))",
                random.of(&["abs", "sqrt", "hour", "ceil"])
            ),
        },
        6..=8 => {
            let inner = inner();
            let func = random.of(&["abs", "-", "sort", "timestamp", "round", "last_over_time"]);
            match func {
                "last_over_time" => format!("last_over_time(({inner})[2m:30s])"),
                func => format!("{func}({inner})"),
            }
        }
        9..=12 => {
            let inner = inner();
            let op = random.of(&["sum", "count", "min", "group", "topk", "avg"]);
            let by = random.of(&["by", "without"]);
            let param = if op == "topk" { "1, " } else { "" };
            format!("{op} {by} ({labels}) ({param}{inner})")
        }
        13..=16 => {
            let inner = inner();
            let op = random.of(&["+", "*", ">", "== bool", "<="]);
            match random.below(3) {
                0 => format!("({}) {op} ({inner})", scalar(random, depth - 1)),
                _ => format!("({inner}) {op} ({})", scalar(random, depth - 1)),
            }
        }
        17 => format!(r#"label_replace({}, "x", "$1", "y", "(.*)")"#, inner()),
        _ => {
            let (mut left, mut right) = (inner(), inner());
            if random.below(4) == 0 {
                // The same aggregation twice.
                let op = random.of(&["sum", "avg", "max", "count"]);
                let twice = format!("{op} by ({labels}) ({left})");
                let mut around = || random.of(&["", "-", "abs", "histogram_count", "sum"]);
                left = format!("{}({twice})", around());
                right = format!("{}({twice})", around());
            }
            let on = match random.below(4) {
                0 => format!(" on ({labels})"),
                1 => format!(" ignoring ({labels})"),
                _ => String::new(),
            };
            if random.below(2) == 0 {
                let op = random.of(&["and", "unless", "or"]);
                return format!("({left}) {op}{on} ({right})");
            }
            let op = random.of(&["+", "/", ">", "==", "!= bool"]);
            let group = match (on.is_empty(), random.below(4)) {
                (false, 0) => random.of(&[" group_left ()", " group_left (z)"]),
                (false, 1) => " group_right ()",
                _ => "",
            };
            let fill = random.of(&["", "", "", "", " fill (0)", " fill_left (1)"]);
            format!("({left}) {op}{on}{group}{fill} ({right})")
        }
    }
}

/// Counts the series that selects give.
struct Counting<'a>(&'a Memory, RefCell<u64>);

// Evaluated with one thread.
struct Locked<'a>(std::sync::Mutex<Counting<'a>>);

impl SeriesSource for Locked<'_> {
    fn open(
        &self,
        index: usize,
        select: &Select,
    ) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        let counting = self.0.lock().expect("one thread");
        let matches = |labels: &Labels| {
            let mut matchers = select.matchers.iter();
            matchers.all(|m| m.matches(labels.get(m.name())))
        };
        let count = counting.0.0.iter().filter(|it| matches(&it.0)).count();
        *counting.1.borrow_mut() += count as u64;
        let memory: &Memory = counting.0;
        // The series live longer than the lock.
        memory.open(index, select)
    }
}

/// The answer as text, and how many series were scanned for it.
fn answer(
    query: &str,
    memory: &Memory,
    rewrites: &Rewrites<'_>,
    (step_ms, features): (i64, Features),
) -> (String, u64) {
    let params = PlanParams {
        query,
        start_ms: 400_000,
        end_ms: if step_ms == 0 { 400_000 } else { 700_000 },
        step_ms,
        features,
        ..PlanParams::default()
    };
    let expr = match parse_expr_with(query, &features) {
        Ok(expr) => expr,
        Err(error) => return (format!("{error}"), 0),
    };
    let plan = match plan_with(&expr, &params, rewrites) {
        Ok(plan) => plan,
        Err(error) => return (format!("{error}"), 0),
    };
    let source = Locked(std::sync::Mutex::new(Counting(memory, RefCell::new(0))));
    let result = evaluate(&plan, &source, &Limits::default(), &CancelToken::default());
    let text = match result {
        Ok(result) => format!("{:?} {:?}", result.value, result.warnings),
        Err(error) => format!("error {error}"),
    };
    let counting = source.0.into_inner().expect("one thread");
    (text, counting.1.into_inner())
}

#[test]
fn rewrites_change_no_answer() {
    let queries = std::env::var("ISOBAR_REWRITE_QUERIES");
    let queries = queries.map_or(QUERIES, |count| count.parse().expect("a number"));
    let seed = 20_231_115;
    let mut random = Random(seed);
    let memory = series(&mut random);
    let (mut before, mut after, mut errors, mut values, mut fewer) = (0, 0, 0, 0, 0);
    for number in 0..queries {
        let query = vector(&mut random, 3);
        let features = Features {
            delayed_name_removal: random.below(8) == 0,
            ..Features::default()
        };
        for step_ms in [0, 60_000] {
            let times = (step_ms, features);
            let (expected, all) = answer(&query, &memory, &Rewrites::NONE, times);
            let (given, some) = answer(&query, &memory, &Rewrites::default(), times);
            assert!(
                expected == given,
                "query {number} of seed {seed}, step {step_ms}: {query}\nexpected {expected}\n\
                 given    {given}"
            );
            before += all;
            after += some;
            fewer += u64::from(some < all);
            errors += u64::from(expected.starts_with("error"));
            values += u64::from(expected.contains("labels"));
        }
    }
    println!(
        "rewrites: {queries} queries, twice each: {values} with values, {errors} with errors, \
         {fewer} read less: {after} of {before} series"
    );
    assert!(fewer > 0 && errors > 0 && values > 0 && after < before);
}

#[test]
fn what_is_saved() {
    let mut random = Random(7);
    let memory = series(&mut random);
    let times = (60_000, Features::default());
    for (query, all, some) in [
        (r#"a{x="1"} / b"#, 11, 6),
        (r#"a and b{x="1"}"#, 12, 6),
        (r#"rate(a[1m]) / rate(a[5m])"#, 18, 9),
        // Nothing to be had: an empty right side takes nothing away, and `b` may have two elements
        // for one of `a`, which has to be told; joins stream past the right side, so it comes first.
        (r#"a unless none"#, 9, 9),
        (r#"(a > 100) / b"#, 17, 17),
        (r#"a{x="1"} / on (x) b"#, 11, 11),
        (r#"a and none"#, 9, 0),
        (r#"a / none"#, 9, 0),
        (r#"(a > 100) and b"#, 17, 9),
        (r#"a - a offset 5m"#, 18, 9),
        (r#"a{x="1",y="1"} - a{y="1",x="1"}"#, 2, 1),
    ] {
        let before = answer(query, &memory, &Rewrites::NONE, times).1;
        let after = answer(query, &memory, &Rewrites::default(), times).1;
        assert_eq!((before, after), (all, some), "{query}");
    }
}

#[test]
fn aggregations_that_come_twice_are_computed_once() {
    for (query, shared, readers) in [
        (
            "histogram_count(sum(rate(a[1m]))) + histogram_sum(sum(rate(a[1m])))",
            1,
            vec![1],
        ),
        ("sum(a) / (sum(a) + sum(b))", 1, vec![1, 1]),
        (
            "sum by (x) (sum(a)) or sum by (x) (sum(a)) or sum(a)",
            2,
            vec![2],
        ),
        // At other times, with other labels, and where remarks are merged.
        ("sum(a) - sum(a offset 1m)", 0, vec![2]),
        ("sum(a) + sum by (x) (a)", 0, vec![2]),
        ("max_over_time(sum(a)[5m:1m]) - sum(a)", 0, vec![2]),
        (
            "sum(histogram_quantile(0.9, a)) - sum(histogram_quantile(0.9, a))",
            0,
            vec![2],
        ),
        ("a - a", 0, vec![2]),
    ] {
        let expr = parse_expr_with(query, &Features::default()).expect(query);
        let plan = plan_with(&expr, &PlanParams::default(), &Rewrites::default()).expect(query);
        assert_eq!(
            (plan.shared.len(), &plan.readers),
            (shared, &readers),
            "{query}"
        );
    }
}

#[test]
fn selects_tell_which_labels_are_looked_at() {
    let labels = |query: &str| {
        let features = Features::default();
        let expr = parse_expr_with(query, &features).expect(query);
        let plan = plan_with(&expr, &PlanParams::default(), &Rewrites::default()).expect(query);
        let one = |select: &Select| match &select.hints.labels {
            Some(labels) => format!("({})", labels.join(",")),
            None => "all".to_owned(),
        };
        plan.selects().iter().map(one).collect::<Vec<_>>().join(" ")
    };
    for (query, expected) in [
        ("a", "all"),
        ("sum(a)", "()"),
        ("sum by (y, x) (rate(a[5m]))", "(x,y)"),
        ("sum by (x) (abs(-(a > 1)) * 2)", "(x)"),
        ("sum by (x) (topk by (y) (1, a))", "(x,y)"),
        ("sum by (__name__) (a)", "()"),
        ("sum(limit_ratio(0.5, a))", "all"),
        ("sum without (x) (a)", "all"),
        ("topk(1, a)", "all"),
        // Series that are the same without their names are an error, and are told by all labels.
        (r#"sum(rate({__name__=~"a|b"}[5m]))"#, "all"),
        ("sum(a / b)", "all all"),
        ("sum(a) / sum by (x) (b)", "() (x)"),
        ("sum(histogram_quantile(0.9, a))", "all"),
        (r#"sum(label_replace(a, "x", "$1", "y", "(.*)"))"#, "all"),
        ("sum(max_over_time(a[5m:1m]))", "all"),
        ("sum(sum_over_time(count by (x) (a)[5m:1m]))", "(x)"),
        ("topk(scalar(b), a)", "all all"),
        ("sum by (x) (a) + count(a)", "all"),
    ] {
        assert_eq!(labels(query), expected, "{query}");
    }
}

/// Remarks of two texts differ in their places alone.
fn without_places(answer: &str) -> String {
    let mut kept = String::new();
    for part in answer.split_inclusive(')') {
        let place = part.rfind('(').filter(|at| {
            let inside = &part[at + 1..part.len() - 1];
            part.ends_with(')') && inside.contains(':') && !inside.contains(' ')
        });
        kept.push_str(place.map_or(part, |at| &part[..at]));
    }
    kept
}

#[test]
fn queries_of_one_form_answer_the_same() {
    let mut random = Random(99);
    let memory = series(&mut random);
    let times = (60_000, Features::default());
    let mut by_form: HashMap<Canonical, (String, String)> = HashMap::new();
    let mut pairs = 0;
    let mut queries = Vec::new();
    for _ in 0..4_000 {
        queries.push(vector(&mut random, 1));
    }
    for _ in 0..300 {
        let query = vector(&mut random, 3);
        let paraphrase = query
            .replace("[1m", "[60s")
            .replace("offset 5m", "offset (4m + 60)")
            .replace("(x, y)", "(y, x)")
            .replace("a{", "{__name__=\"a\",")
            .replace("2m:30s", "120:30");
        queries.extend([query, format!("(({paraphrase}))")]);
    }
    for query in queries {
        let expr = parse_expr_with(&query, &times.1).expect(&query);
        let params = PlanParams {
            start_ms: 400_000,
            end_ms: 700_000,
            step_ms: 60_000,
            ..PlanParams::default()
        };
        let form = canonical(&expr, &params).expect(&query);
        match by_form.get(&form) {
            Some((known, _)) if *known == query => {}
            Some((known, expected)) => {
                let given = answer(&query, &memory, &Rewrites::default(), times).0;
                assert_eq!(without_places(&given), *expected, "{known} and {query}");
                pairs += 1;
            }
            None => {
                let given = answer(&query, &memory, &Rewrites::default(), times).0;
                by_form.insert(form, (query, without_places(&given)));
            }
        }
    }
    assert!(pairs > 300, "{pairs} pairs of {} forms", by_form.len());
}
