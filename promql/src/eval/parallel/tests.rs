//! Answers do not depend on the number of threads, and nothing waits for ever.

use isobar_model::series::{Select, SeriesSource, SeriesStream};
use isobar_model::{Columns, Labels, SelectError};

use crate::eval::testing::Memory;
use crate::eval::{EvalError, evaluate};
use crate::limits::{CancelToken, Limits, Threads};
use crate::parse::parse_expr;
use crate::plan::{PlanParams, plan};
use crate::value::QueryResult;

const SERIES: usize = 3000;

/// Numbers without a pattern, some missing, some stale, counters and gauges.
fn memory() -> Memory {
    let mut random = 7_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let series = (0..SERIES).map(|i| {
        let labels = Labels::from_pairs([
            ("__name__", if i % 3 == 0 { "b" } else { "a" }.to_owned()),
            ("g", (i % 7).to_string()),
            ("i", i.to_string()),
        ]);
        let mut columns = Columns::default();
        for at in 0..60 {
            match next(20) {
                0 => {}
                1 => columns.push(at * 15_000, isobar_model::sample::STALE_NAN),
                _ => columns.push(at * 15_000, next(1000) as f64 / 7.0),
            }
        }
        (labels, columns)
    });
    let mut series: Vec<_> = series.collect();
    series.sort_by(|a, b| a.0.cmp(&b.0));
    Memory(series)
}

fn ask(query: &str, source: &dyn SeriesSource, threads: usize) -> Result<QueryResult, EvalError> {
    let expr = parse_expr(query).expect(query);
    let params = PlanParams {
        query,
        start_ms: 0,
        end_ms: 900_000,
        step_ms: 10_000,
        ..PlanParams::default()
    };
    let limits = Limits {
        threads: Threads::new(threads),
        ..Limits::default()
    };
    let plan = plan(&expr, &params).expect(query);
    let result = evaluate(&plan, source, &limits, &CancelToken::default());
    assert_eq!(limits.threads.free(), threads as isize, "{query}");
    result
}

#[test]
fn answers_do_not_depend_on_the_number_of_threads() {
    let memory = memory();
    for query in [
        "a",
        "{g=~\".+\"}",
        "rate(a[1m])",
        "rate({g=~\"[12]\"}[1m])",
        "sum by (g) (rate(a[1m]))",
        "avg(a) + scalar(b{i=\"0\"})",
        "sum(abs(-a) * 3 > 100)",
        "stddev by (g) (a)",
        "a and on (i) (b or a > 50)",
        "max_over_time(rate(a[1m])[3m:30s])",
        "a / on (g, i) a",
        "timestamp(a)",
        "topk(3, a)",
        "sum(quantile_over_time(2, a[1m]))",
        "sum(a @ 300)",
        "sum(rate({i=~\".+\"}[1m]))",
        "quantile by (g) (0.3, a)",
        "quantile(0.9, a)",
        "histogram_quantile(0.7, label_replace(a, \"le\", \"$1\", \"g\", \"(.*)\"))",
        "a * on (i) group_left rate(a[2m])",
        "a - b",
        "a > bool b",
        "a or b",
        "b or on (g) a",
        "sum by (g) (a or on (i) b or rate(b[1m]))",
        "a{g=\"1\"} or a",
    ] {
        // More threads hold more at a time.
        let told = |threads| {
            let mut result = ask(query, &memory, threads).expect(query);
            result.stats.bytes_peak = 0;
            format!(
                "{:?} {:?} {:?}",
                result.value, result.warnings, result.stats
            )
        };
        let alone = told(1);
        for threads in [2, 3, 8] {
            let together = told(threads);
            assert!(alone == together, "{query} with {threads} threads");
        }
    }
}

#[test]
fn memory_is_reserved_and_given_back() {
    let source = memory();
    let ask = |query: &str, query_memory_max: u64, threads: usize| {
        let expr = parse_expr(query).expect(query);
        let params = PlanParams {
            query,
            start_ms: 0,
            end_ms: 900_000,
            step_ms: 10_000,
            ..PlanParams::default()
        };
        let limits = Limits {
            query_memory_max,
            threads: Threads::new(threads),
            ..Limits::default()
        };
        let plan = plan(&expr, &params).expect(query);
        let result = evaluate(&plan, &source, &limits, &CancelToken::default());
        let told = match &result {
            Ok(result) => {
                assert_eq!(limits.memory.held(), result.memory.bytes(), "{query}");
                "enough".to_owned()
            }
            Err(error) => error.to_string(),
        };
        drop(result);
        assert_eq!(limits.memory.held(), 0, "{query}");
        told
    };
    // 3,000 rows of 91 steps take 2.2 MB, with their times twice that.
    for (query, who) in [
        ("{g=~\".+\"}", "the answer"),
        ("sum by (i) ({g=~\".+\"})", "an aggregation"),
        ("topk by (i) (1, {g=~\".+\"})", "an aggregation"),
        ("quantile(0.5, {g=~\".+\"})", "an aggregation"),
        ("count_values(\"v\", {g=~\".+\"})", "count_values"),
        ("sum(a + on (i) a)", "rows that are kept"),
        ("sum(a or on (i) {g=~\".+\"})", "a set operation"),
        (
            "sum(label_replace(a, \"x\", \"$1\", \"i\", \"(.*)\"))",
            "relabelling",
        ),
        ("sum(abs(a or b))", "a set operation"),
    ] {
        for threads in [1, 2] {
            let told = ask(query, 1 << 20, threads);
            let expected =
                format!("the memory of one query is limited to 1.0 MiB: {who} asked for ");
            assert!(told.starts_with(&expected), "{query}: {told}");
            assert_eq!(ask(query, 1 << 30, threads), "enough");
        }
    }
    // What does not keep its input needs no more than the tiles under way.
    assert_eq!(ask("sum by (g) (rate(a[1m]))", 1 << 20, 1), "enough");
    assert_eq!(ask("sum by (g) (rate(a[1m]))", 3 << 20, 2), "enough");
    assert_eq!(ask("sum by (g) (a or b)", 1 << 20, 1), "enough");
}

/// Gives some series and then fails.
struct Failing(Memory);

struct FailingStream<'a>(Box<dyn SeriesStream + 'a>, usize);

impl SeriesSource for Failing {
    fn open(
        &self,
        index: usize,
        select: &Select,
    ) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        Ok(Box::new(FailingStream(self.0.open(index, select)?, 0)))
    }
}

impl SeriesStream for FailingStream<'_> {
    fn next_batch(&mut self, batch: &mut Vec<isobar_model::Series>) -> Result<bool, SelectError> {
        self.1 += 1;
        match self.1 {
            15 => Err(SelectError::Unavailable("gone".to_owned())),
            _ => self.0.next_batch(batch),
        }
    }
}

#[test]
fn an_error_on_the_way_ends_the_query() {
    let error = ask("sum(rate(a[1m]))", &Failing(memory()), 3).unwrap_err();
    assert_eq!(error.to_string(), "expanding series: gone");
    // Names that become the same, found by whichever thread.
    let same = Memory(
        memory()
            .0
            .into_iter()
            .flat_map(|(labels, columns)| {
                let mut renamed: Vec<(&str, &str)> = labels.iter().collect();
                renamed[0].1 = "c";
                let renamed = Labels::from_pairs(renamed);
                [(labels, columns.clone()), (renamed, columns)]
            })
            .collect(),
    );
    for threads in [1, 3] {
        let error = ask("sum(rate({i=~\".+\"}[1m]))", &same, threads).unwrap_err();
        let text = "vector cannot contain metrics with the same labelset";
        assert_eq!(error.to_string(), text);
    }
}

struct Panicking;

impl isobar_model::series::Samples for Panicking {
    fn read(&self, _: isobar_model::TimeRange, _: &mut Columns) -> Result<(), SelectError> {
        panic!("on purpose");
    }

    fn count_estimate(&self) -> usize {
        100_000
    }
}

struct PanickingSource;

impl SeriesSource for PanickingSource {
    fn open(&self, _: usize, _: &Select) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        Ok(Box::new(PanickingStream(0)))
    }
}

struct PanickingStream(usize);

impl SeriesStream for PanickingStream {
    fn next_batch(&mut self, batch: &mut Vec<isobar_model::Series>) -> Result<bool, SelectError> {
        self.0 += 1;
        batch.push(isobar_model::Series {
            labels: Labels::from_pairs([("i", self.0.to_string())]),
            samples: Box::new(Panicking),
        });
        Ok(self.0 < 100)
    }
}

#[test]
fn a_panic_ends_the_query_and_nothing_waits() {
    let outcome = std::panic::catch_unwind(|| ask("sum(rate(a[1m]))", &PanickingSource, 3));
    assert!(outcome.is_err());
}
