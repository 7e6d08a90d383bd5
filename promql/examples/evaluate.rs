//! How long does evaluating take, apart from reading?
//!
//! 10,000 counters with a sample every 15 s lie in memory; each query is asked over an hour in
//! 240 steps with one thread and with two, and the best of seven runs each is printed.
//!
//! ```text
//! cargo run --release -p isobar-promql --example evaluate [QUERY…]
//! ```

#![expect(clippy::print_stdout, reason = "it prints its table")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use isobar_model::series::{Samples, Select, Series, SeriesSource, SeriesStream};
use isobar_model::{Columns, Labels, SelectError, TimeRange};
use isobar_promql::eval::evaluate;
use isobar_promql::limits::{CancelToken, Limits, Threads};
use isobar_promql::parse::parse_expr;
use isobar_promql::plan::{PlanParams, plan};

const SERIES: usize = 10_000;
const STEPS: i64 = 240;
const STEP_MS: i64 = 15_000;
const START_MS: i64 = 1_700_000_000_000;
const RUNS: usize = 7;

const QUERIES: [&str; 8] = [
    "sum by (job) (rate(requests_total[5m]))",
    "sum by (pod) (rate(requests_total[5m]))",
    "rate(requests_total[5m])",
    "sum by (job) (requests_total)",
    "max_over_time(requests_total[5m])",
    "topk(5, requests_total)",
    "requests_total / on (pod) requests_total",
    "quantile by (job) (0.9, requests_total)",
];

fn main() -> Result<(), Box<dyn Error>> {
    let memory = Memory::new();
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let queries = match asked.is_empty() {
        true => QUERIES.iter().map(|query| (*query).to_owned()).collect(),
        false => asked,
    };
    for query in queries {
        let expr = parse_expr(&query)?;
        let params = PlanParams {
            query: &query,
            start_ms: START_MS,
            end_ms: START_MS + (STEPS - 1) * STEP_MS,
            step_ms: STEP_MS,
            ..PlanParams::default()
        };
        let mut best_ms = [f64::INFINITY; 2];
        for (threads, best_ms) in (1..).zip(&mut best_ms) {
            let limits = Limits {
                threads: Threads::new(threads),
                ..Limits::default()
            };
            for _ in 0..RUNS {
                let started = Instant::now();
                let plan = plan(&expr, &params)?;
                evaluate(&plan, &memory, &limits, &CancelToken::default())?;
                *best_ms = best_ms.min(started.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [one, two] = best_ms;
        println!("{one:9.2} ms {two:9.2} ms  {:4.2} ×  {query}", one / two);
    }
    Ok(())
}

/// Counters that all rise by chance.
struct Memory(Vec<(Labels, Arc<Columns>)>);

impl Memory {
    fn new() -> Self {
        let mut random = 1_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let series = (0..SERIES).map(|i| {
            let labels = Labels::from_pairs([
                ("__name__", "requests_total".to_owned()),
                ("cluster", "eu-west-1".to_owned()),
                ("code", format!("{}", 200 + i % 5)),
                ("instance", format!("10.0.{}.{}:8080", i / 256, i % 256)),
                ("job", format!("job-{}", i % 10)),
                ("namespace", format!("ns-{}", i % 37)),
                ("pod", format!("pod-{i:05}")),
            ]);
            let mut columns = Columns::default();
            let (mut value, jitter_ms) = (0, next(15_000) as i64);
            for sample in -20..STEPS {
                value += next(100);
                columns.push(START_MS + sample * STEP_MS + jitter_ms, value as f64);
            }
            (labels, Arc::new(columns))
        });
        let mut series: Vec<_> = series.collect();
        series.sort_by(|a, b| a.0.cmp(&b.0));
        Memory(series)
    }
}

impl SeriesSource for Memory {
    fn open(&self, _: usize, _: &Select) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        Ok(Box::new(All(self.0.iter())))
    }
}

struct All<'a>(std::slice::Iter<'a, (Labels, Arc<Columns>)>);

impl SeriesStream for All<'_> {
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError> {
        let before = batch.len();
        for (labels, columns) in self.0.by_ref().take(256) {
            let samples = Box::new(Shared(Arc::clone(columns)));
            batch.push(Series {
                labels: labels.clone(),
                samples,
            });
        }
        Ok(batch.len() > before)
    }
}

struct Shared(Arc<Columns>);

impl Samples for Shared {
    fn read(&self, range: TimeRange, columns: &mut Columns) -> Result<(), SelectError> {
        self.0.read(range, columns)
    }

    fn count_estimate(&self) -> usize {
        self.0.count_estimate()
    }

    fn encoded_bytes(&self) -> u64 {
        self.0.encoded_bytes()
    }
}
