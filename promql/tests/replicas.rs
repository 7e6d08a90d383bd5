//! Series that several collectors saw, with all that goes wrong between them: jitter, missed
//! scrapes, outages, restarts of collectors and targets, ends, changes to histograms and back.
//!
//! Seeded cases, some with two collectors and some with three. Each function is evaluated over all
//! collectors together and over each one alone. At each step
//!
//! - the value is, to the last bit, one that a collector alone gives at that step: so no reset is
//!   invented, and no increase is larger than the largest that was seen;
//! - there is a value whenever a collector alone has one;
//! - a first collector without gaps is never left; one collector alone is as good as a series
//!   without replicas.
//!
//! A failure names the seed of its case.

use std::collections::BTreeMap;
use std::sync::Arc;

use isobar_model::sample::STALE_NAN;
use isobar_model::series::{Replicas, Samples, Select, Series, SeriesSource, SeriesStream};
use isobar_model::{Columns, FloatHistogram, Labels, SelectError};
use isobar_promql::eval::evaluate;
use isobar_promql::limits::{CancelToken, Limits};
use isobar_promql::parse::parse_expr;
use isobar_promql::plan::{PlanParams, plan};
use isobar_promql::value::Value;

const CASES: u64 = 1000;
const SCRAPE_MS: i64 = 15_000;
const HOUR_MS: i64 = 3_600_000;

/// Around `x`, a selector of one series.
const QUERIES: &[&str] = &[
    "x",
    "x offset 90s",
    "x @ 1800",
    "timestamp(x)",
    "x smoothed",
    "rate(x[2m])",
    "rate(x[31s])",
    "increase(x[5m])",
    "increase(x[5m] anchored)",
    "rate(x[2m] smoothed)",
    "increase(x[10m] @ 1800)",
    "irate(x[1m])",
    "delta(x[3m])",
    "idelta(x[1m])",
    "resets(x[10m])",
    "changes(x[7m])",
    "deriv(x[2m])",
    "predict_linear(x[2m], 60)",
    "double_exponential_smoothing(x[2m], 0.5, 0.1)",
    "avg_over_time(x[20m])",
    "sum_over_time(x[45s])",
    "min_over_time(x[3m])",
    "count_over_time(x[2m])",
    "last_over_time(x[30s])",
    "first_over_time(x[1m])",
    "stddev_over_time(x[4m])",
    "quantile_over_time(0.9, x[3m])",
    "mad_over_time(x[3m])",
    "ts_of_max_over_time(x[3m])",
    "present_over_time(x[1m])",
    "histogram_count(x)",
    "xrate(x[2m])",
];

/// Numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `end`.
    fn below(&mut self, end: i64) -> i64 {
        (self.next() % end.max(1) as u64) as i64
    }

    fn one_in(&mut self, count: i64) -> bool {
        self.below(count) == 0
    }
}

/// What is measured, as anyone could see it.
struct Target {
    restarts: Vec<i64>,
    /// From when on it is a histogram, and until when.
    histogram: std::ops::Range<i64>,
    ends_ms: i64,
}

impl Target {
    fn new(random: &mut Random) -> Self {
        let mut restarts: Vec<_> = (0..random.below(5))
            .map(|_| random.below(HOUR_MS))
            .collect();
        restarts.sort_unstable();
        let histogram = match random.below(8) {
            0 => 0..2 * HOUR_MS,
            1 => random.below(HOUR_MS)..2 * HOUR_MS,
            2 => {
                let from = random.below(HOUR_MS);
                from..from + random.below(HOUR_MS / 4)
            }
            _ => 0..0,
        };
        let ends_ms = if random.one_in(4) {
            random.below(HOUR_MS)
        } else {
            2 * HOUR_MS
        };
        Target {
            restarts,
            histogram,
            ends_ms,
        }
    }

    fn count(&self, at_ms: i64, restarts: &[i64]) -> f64 {
        let since = restarts.iter().rev().find(|it| **it <= at_ms);
        let running_ms = at_ms - since.unwrap_or(&-HOUR_MS);
        (running_ms as f64 / 700.0).floor()
    }
}

/// What one collector saw of it.
fn collect(target: &Target, random: &mut Random, flawless: bool) -> Columns {
    let mut columns = Columns::default();
    // It may hear of a restart later than others, or never by itself.
    let mut restarts = target.restarts.clone();
    restarts
        .iter_mut()
        .for_each(|it| *it += random.below(40_000));
    restarts.sort_unstable();
    let jitter_ms = if flawless {
        1
    } else {
        [1, 20, 900][random.below(3) as usize]
    };
    let mut phase_ms = random.below(SCRAPE_MS);
    let mut away_until_ms = 0;
    let mut is_live = false;
    for scrape in 0..HOUR_MS / SCRAPE_MS + 10 {
        let at_ms = scrape * SCRAPE_MS + phase_ms + random.below(jitter_ms);
        let stale = |columns: &mut Columns| {
            let last = columns
                .timestamps
                .last()
                .max(columns.histograms.last().map(|it| &it.0));
            if last.is_some_and(|last| *last < at_ms) {
                columns.push(at_ms, STALE_NAN);
            }
        };
        if at_ms >= target.ends_ms {
            if is_live {
                stale(&mut columns);
            }
            break;
        }
        if at_ms < away_until_ms {
            continue;
        }
        if !flawless {
            match random.below(60) {
                // A scrape fails: the series ends for a moment.
                0 => {
                    if is_live {
                        stale(&mut columns);
                    }
                    is_live = false;
                    continue;
                }
                // It is lost without a trace.
                1 | 2 => continue,
                // The collector goes away.
                3 => {
                    away_until_ms = at_ms + random.below(500_000);
                    phase_ms = random.below(SCRAPE_MS);
                    continue;
                }
                _ => {}
            }
        }
        let count = target.count(at_ms, &restarts);
        is_live = true;
        if target.histogram.contains(&at_ms) {
            let histogram = FloatHistogram {
                zero_threshold: 0.001,
                zero_count: count,
                count,
                sum: count * 1.5,
                ..FloatHistogram::default()
            };
            columns.histograms.push((at_ms, Arc::new(histogram)));
        } else {
            columns.push(at_ms, count);
        }
    }
    columns
}

/// A series as `replicas` saw it.
struct One<'a>(&'a [Columns]);

impl SeriesSource for One<'_> {
    fn open(&self, _: usize, _: &Select) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        Ok(Box::new(Stream(Some(self.0))))
    }
}

struct Stream<'a>(Option<&'a [Columns]>);

impl SeriesStream for Stream<'_> {
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError> {
        let Some(replicas) = self.0.take() else {
            return Ok(false);
        };
        let boxed = |columns: &Columns| -> Box<dyn Samples> { Box::new(columns.clone()) };
        batch.push(Series {
            labels: Labels::from_pairs([("__name__", "x"), ("job", "j")]),
            samples: Replicas::of(replicas.iter().map(boxed).collect()),
        });
        Ok(true)
    }
}

/// Values by time, as text that tells them apart to the last bit.
type Steps = BTreeMap<i64, String>;

fn ask(query: &str, (start_ms, end_ms, step_ms): (i64, i64, i64), replicas: &[Columns]) -> Steps {
    let expr = parse_expr(query).expect("a query");
    let params = PlanParams {
        query,
        start_ms,
        end_ms,
        step_ms,
        ..PlanParams::default()
    };
    let plan = plan(&expr, &params).expect("a plan");
    let source = One(replicas);
    let result = evaluate(&plan, &source, &Limits::default(), &CancelToken::default());
    let Value::Matrix(series) = result.expect("a value").value else {
        panic!("{query} gives no matrix");
    };
    let mut steps = Steps::new();
    for columns in series.into_iter().map(|it| it.columns) {
        let floats = columns.timestamps.iter().zip(&columns.values);
        steps.extend(floats.map(|(t, v)| (*t, format!("{v:?} {:x}", v.to_bits()))));
        steps.extend(
            columns
                .histograms
                .iter()
                .map(|it| (it.0, format!("{:?}", it.1))),
        );
    }
    steps
}

#[test]
fn each_value_is_one_that_a_collector_alone_gives() {
    let (mut values, mut switched) = (0, 0);
    for seed in 0..CASES {
        let mut random = Random(seed);
        let target = Target::new(&mut random);
        let flawless = random.one_in(5);
        let count = 2 + random.below(2);
        let replicas: Vec<_> = (0..count)
            .map(|i| collect(&target, &mut random, flawless && i == 0))
            .collect();
        let start_ms = random.below(HOUR_MS / 2) + 400_000;
        let step_ms = [1_000, 15_000, 60_000, 400_000][random.below(4) as usize] + random.below(2);
        let grid = (start_ms, start_ms + step_ms * random.below(80), step_ms);
        for _ in 0..4 {
            let query = QUERIES[random.below(QUERIES.len() as i64) as usize];
            if query.starts_with('x') && query.contains('[') && !target.histogram.is_empty() {
                // Histograms are an error there.
                continue;
            }
            let name = format!("seed {seed}: {query} over {grid:?}");
            let joined = ask(query, grid, &replicas);
            let alone: Vec<Steps> = replicas
                .iter()
                .map(|it| ask(query, grid, std::slice::from_ref(it)))
                .collect();
            for time_ms in (grid.0..=grid.1).step_by(step_ms as usize) {
                let given = joined.get(&time_ms);
                let real: Vec<_> = alone.iter().filter_map(|it| it.get(&time_ms)).collect();
                match given {
                    None => assert!(
                        real.is_empty(),
                        "{name} has no value at {time_ms}: {real:?}"
                    ),
                    Some(given) => {
                        assert!(
                            real.contains(&given),
                            "{name} at {time_ms}: {given}, {real:?}"
                        );
                        values += 1;
                        switched += usize::from(alone[0].get(&time_ms) != Some(given));
                    }
                }
            }
            let runs_on = target.ends_ms > HOUR_MS && grid.1 <= HOUR_MS;
            let whole = flawless && runs_on && target.histogram.is_empty();
            if whole && query != "rate(x[31s])" && query != "last_over_time(x[30s])" {
                assert_eq!(joined, alone[0], "{name} leaves a replica without gaps");
            }
        }
    }
    println!("{values} values, {switched} of them not from the first replica");
    assert!(values > 50_000 && switched > 10_000);
}

/// The samples of a range selector that stands alone are those of the collector that has most.
#[test]
fn samples_are_those_of_one_collector() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let target = Target::new(&mut random);
        let replicas = [(); 3].map(|()| collect(&target, &mut random, false));
        let at_ms = random.below(HOUR_MS);
        let samples = |replicas: &[Columns]| ask("x[10m]", (at_ms, at_ms, 0), replicas);
        let given = samples(&replicas);
        let real = replicas
            .each_ref()
            .map(|it| samples(std::slice::from_ref(it)));
        assert!(real.contains(&given), "seed {seed} at {at_ms}: {given:?}");
        assert!(
            !given.is_empty() || real.iter().all(BTreeMap::is_empty),
            "seed {seed}"
        );
    }
}

/// A counter that two collectors see restart at different moments falls once in each, and so once
/// in what is shown, where all their samples in one row would fall again and again.
#[test]
fn a_restart_is_one_reset() {
    let see = |phase_ms: i64, restart_ms: i64| {
        let mut columns = Columns::default();
        for scrape in 0..240 {
            let at_ms = scrape * SCRAPE_MS + phase_ms;
            let since_ms = if at_ms < restart_ms {
                -HOUR_MS
            } else {
                restart_ms
            };
            columns.push(at_ms, ((at_ms - since_ms) / 1000) as f64);
        }
        columns
    };
    let replicas = [see(0, 1_800_000), see(7_000, 1_860_000)];
    let grid = (HOUR_MS / 2, HOUR_MS, 60_000);
    for (time_ms, value) in ask("resets(x[1h])", grid, &replicas) {
        let expected = if time_ms < 1_815_000 { 0.0 } else { 1.0 };
        assert!(value.starts_with(&format!("{expected:?} ")) || time_ms < 1_870_000);
    }
    let increases = ask("increase(x[5m])", grid, &replicas);
    assert_eq!(increases, ask("increase(x[5m])", grid, &replicas[..1]));
}
