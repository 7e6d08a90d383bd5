//! What do the rewrites of a plan cost, and what do they save? And what does the canonical form
//! cost?
//!
//! 10,000 counters with a sample every 15 s lie in memory, in 100 jobs; each query is planned and
//! asked over an hour in 240 steps with one thread, without rewrites and with them. The best of
//! seven runs each is printed. Finding the series costs next to nothing here: what a store saves
//! comes on top.
//!
//! ```text
//! cargo run --release -p isobar-promql --example rewrites
//! ```

#![expect(clippy::print_stdout, reason = "it prints its table")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isobar_model::series::{Samples, Select, Series, SeriesSource, SeriesStream};
use isobar_model::{Columns, Labels, SelectError, TimeRange};
use isobar_promql::eval::{Measures, evaluate_measured};
use isobar_promql::limits::{CancelToken, Limits};
use isobar_promql::parse::parse_expr;
use isobar_promql::plan::{PlanParams, Rewrites, canonical, plan_with};

const SERIES: usize = 10_000;
const STEPS: i64 = 240;
const STEP_MS: i64 = 15_000;
const START_MS: i64 = 1_700_000_000_000;
const RUNS: usize = 7;

const QUERIES: [&str; 8] = [
    r#"used{job="job-1"} / size"#,
    r#"used and on (job) up{job="job-1"}"#,
    "used and none",
    "used / none",
    "used > 1e9 and size",
    "used - used offset 5m",
    "sum by (job) (rate(used[5m])) / sum by (job) (rate(used[1h]))",
    "sum by (job) (rate(used[5m]))",
];

fn main() -> Result<(), Box<dyn Error>> {
    let memory = Memory::new();
    println!("µs to plan, rewritten, form | ms to evaluate, rewritten, measured | query");
    for query in QUERIES {
        let params = PlanParams {
            query,
            start_ms: START_MS,
            end_ms: START_MS + (STEPS - 1) * STEP_MS,
            step_ms: STEP_MS,
            ..PlanParams::default()
        };
        let expr = parse_expr(query)?;
        let plan = |rewrites: &Rewrites<'_>| plan_with(&expr, &params, rewrites);
        let (before, after) = (plan(&Rewrites::NONE)?, plan(&Rewrites::default())?);
        let ask = |plan, measures: Option<&Measures>| {
            let (limits, cancel) = (Limits::default(), CancelToken::default());
            evaluate_measured(plan, &memory, &limits, &cancel, measures)
        };
        let measures = Measures::of(&after);
        let planning = [
            best(|| plan(&Rewrites::NONE).map(drop))?,
            best(|| plan(&Rewrites::default()).map(drop))?,
            best(|| canonical(&expr, &params).map(drop))?,
        ];
        let evaluating = [
            best(|| ask(&before, None).map(drop))?,
            best(|| ask(&after, None).map(drop))?,
            best(|| ask(&after, Some(&measures)).map(drop))?,
        ];
        for time in planning {
            print!("{:>7.2}", time.as_secs_f64() * 1e6);
        }
        print!(" |");
        for time in evaluating {
            print!("{:>8.2}", time.as_secs_f64() * 1e3);
        }
        println!(" | {query}");
    }
    Ok(())
}

fn best<E>(mut run: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let begun = Instant::now();
        run()?;
        best = best.min(begun.elapsed());
    }
    Ok(best)
}

struct Memory(Vec<(Labels, Arc<Columns>)>);

impl Memory {
    fn new() -> Self {
        let samples = |seed: usize| {
            let mut columns = Columns::default();
            for at in -300..STEPS {
                columns.push(START_MS + at * STEP_MS, (seed as f64) + (at + 300) as f64);
            }
            Arc::new(columns)
        };
        let mut series = Vec::new();
        for i in 0..SERIES {
            let name = ["size", "used", "up"][if i < 100 { 2 } else { i % 2 }];
            let labels = Labels::from_pairs([
                ("__name__", name),
                ("job", &format!("job-{}", i / 2 % 100)),
                ("pod", &format!("pod-{:05}", i / 2)),
            ]);
            series.push((labels, samples(i)));
        }
        series.sort_by(|a, b| a.0.cmp(&b.0));
        Memory(series)
    }
}

impl SeriesSource for Memory {
    fn open(
        &self,
        _index: usize,
        select: &Select,
    ) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        let matches = |labels: &Labels| {
            let mut matchers = select.matchers.iter();
            matchers.all(|matcher| matcher.matches(labels.get(matcher.name())))
        };
        let chosen = self.0.iter().filter(|it| matches(&it.0));
        Ok(Box::new(Stream(chosen.cloned().collect())))
    }
}

struct Stream(Vec<(Labels, Arc<Columns>)>);

impl SeriesStream for Stream {
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError> {
        let more = !self.0.is_empty();
        batch.extend(self.0.drain(..).map(|(labels, samples)| Series {
            labels,
            samples: Box::new(Shared(samples)),
        }));
        Ok(more)
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
}
