//! Range functions against a naive model: each window by itself, from the definition.

use isobar_model::Columns;

use super::{Edges, Notes, Param, RangeArgs, RangeError, RangeFn, Row, Scratch, Windows, apply};

const ALL: [&str; 27] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "deriv",
    "predict_linear",
    "double_exponential_smoothing",
    "changes",
    "resets",
    "avg_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "first_over_time",
    "last_over_time",
    "present_over_time",
    "absent_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "quantile_over_time",
    "mad_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_min_over_time",
    "ts_of_max_over_time",
];

/// A small generator of reproducible numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Columns of one of several kinds: gauges, counters with and without resets, few distinct
/// values, values of very different size, and any of them with NaN and infinities; with gaps.
fn columns(random: &mut Random) -> Columns {
    let kind = random.below(6);
    let odd_values = random.below(3) == 0;
    let interval = random.pick(&[1, 1000, 15_000, 60_000]);
    let mut columns = Columns::default();
    let mut time = 1_700_000_000_000 - random.below(500_000) as i64;
    let mut counter = random.unit() * 1e6;
    for _ in 0..random.below(700) {
        time += match random.below(40) {
            0 => interval * (1 + random.below(30) as i64),
            1..4 => 1 + random.below(interval as u64 * 2) as i64,
            _ => interval,
        };
        let value = match kind {
            0 => random.unit() * 100.0 - 50.0,
            1 => {
                counter += random.below(50) as f64;
                counter
            }
            2 => {
                counter = if random.below(8) == 0 {
                    0.0
                } else {
                    counter + random.unit()
                };
                counter
            }
            3 => random.below(3) as f64 - 1.0,
            4 => (random.unit() - 0.5) * 10f64.powi(random.below(40) as i32 - 20),
            _ => 42.5,
        };
        let odd = odd_values && random.below(12) == 0;
        columns.push(
            time,
            if odd {
                random.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY])
            } else {
                value
            },
        );
    }
    columns
}

fn windows(random: &mut Random) -> Windows {
    Windows {
        first_end_ms: 1_700_000_000_000 - 1_000_000 + random.below(1_500_000) as i64,
        step_ms: random.pick(&[0, 1, 1000, 7001, 15_000, 60_000, 300_000]),
        count: 1 + random.below(150) as usize,
        range_ms: random.pick(&[1, 1500, 30_000, 60_000, 300_000, 3_600_000]),
    }
}

fn run(
    func: RangeFn,
    samples: &Columns,
    windows: &Windows,
    args: &RangeArgs<'_>,
) -> Result<(Vec<Option<f64>>, Notes), RangeError> {
    let mut values = vec![0.0; windows.count];
    let mut present = vec![0; windows.count.div_ceil(64)];
    let mut row = Row {
        values: &mut values,
        present: &mut present,
    };
    // Left over from another series.
    let mut scratch = Scratch {
        indices: vec![7; 9],
        values: vec![1.0],
        pairs: vec![(1.0, 2.0)],
    };
    let notes = apply(func, samples, windows, args, &mut row, &mut scratch)?;
    Ok((
        (0..windows.count).map(|step| row.get(step)).collect(),
        notes,
    ))
}

/// Windows of samples, as pairs of time and value.
fn naive(
    func: RangeFn,
    samples: &Columns,
    windows: &Windows,
    args: &RangeArgs<'_>,
) -> Vec<Option<f64>> {
    let all: Vec<(i64, f64)> = samples
        .timestamps
        .iter()
        .copied()
        .zip(samples.values.iter().copied())
        .collect();
    (0..windows.count)
        .map(|step| {
            let end = windows.first_end_ms + windows.step_ms * step as i64;
            let start = end - windows.range_ms;
            let (before, after) = match args.edges {
                Edges::Plain => (0, 0),
                Edges::Anchored { lookback_ms } => (lookback_ms, 0),
                Edges::Smoothed { lookback_ms } => (lookback_ms, lookback_ms),
            };
            let window: Vec<(i64, f64)> = all
                .iter()
                .copied()
                .filter(|(t, _)| start - before < *t && *t <= end + after)
                .collect();
            if window.is_empty() {
                return None;
            }
            match args.edges {
                Edges::Plain => plain(func, &window, start, end, step, args),
                edges => extended(func, &window, start, end, edges),
            }
        })
        .collect()
}

/// The function over one window that has samples.
fn plain(
    func: RangeFn,
    window: &[(i64, f64)],
    start: i64,
    end: i64,
    step: usize,
    args: &RangeArgs<'_>,
) -> Option<f64> {
    let values: Vec<f64> = window.iter().map(|(_, v)| *v).collect();
    let count = values.len() as f64;
    let (first, last) = (window[0], window[window.len() - 1]);
    let two = window.len() >= 2;
    let pairs = || window.windows(2).map(|pair| (pair[0].1, pair[1].1));
    Some(match func {
        RangeFn::Rate | RangeFn::Increase | RangeFn::Delta => {
            if !two {
                return None;
            }
            extrapolated(func, window, start, end)
        }
        RangeFn::Irate | RangeFn::Idelta if !two => return None,
        RangeFn::Idelta => last.1 - values[values.len() - 2],
        RangeFn::Irate => {
            let (time, before) = window[window.len() - 2];
            let difference = if last.1 < before {
                last.1
            } else {
                last.1 - before
            };
            difference / ((last.0 - time) as f64 / 1000.0)
        }
        RangeFn::Deriv | RangeFn::PredictLinear => {
            if !two {
                return None;
            }
            let origin = if func == RangeFn::Deriv {
                first.0
            } else {
                args.first_step_ms + args.step_ms * step as i64
            };
            let (slope, intercept) = line(window, origin);
            if func == RangeFn::Deriv {
                slope
            } else {
                slope * args.params[0].at(step) + intercept
            }
        }
        RangeFn::DoubleExponentialSmoothing => {
            if !two {
                return None;
            }
            let (sf, tf) = (args.params[0].at(step), args.params[1].at(step));
            let (mut level, mut trend) = (values[0], values[1] - values[0]);
            let mut previous = 0.0;
            for (i, value) in values[1..].iter().enumerate() {
                if i > 0 {
                    trend = tf * (level - previous) + (1.0 - tf) * trend;
                }
                previous = level;
                level = sf * value + (1.0 - sf) * (level + trend);
            }
            level
        }
        RangeFn::Changes => pairs()
            .filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan()))
            .count() as f64,
        RangeFn::Resets => pairs().filter(|(a, b)| b < a).count() as f64,
        RangeFn::Sum => kahan(&values),
        RangeFn::Avg => kahan(&values) / count,
        RangeFn::Stddev => variance(&values).sqrt(),
        RangeFn::Stdvar => variance(&values),
        RangeFn::Min | RangeFn::Max | RangeFn::TsOfMin | RangeFn::TsOfMax => {
            let mut best = first;
            for (time, value) in window {
                let better = match func {
                    RangeFn::Min => *value < best.1,
                    RangeFn::Max => *value > best.1,
                    RangeFn::TsOfMin => *value <= best.1,
                    _ => *value >= best.1,
                };
                if better || best.1.is_nan() {
                    best = (*time, *value);
                }
            }
            match func {
                RangeFn::Min | RangeFn::Max => best.1,
                _ => best.0 as f64 / 1000.0,
            }
        }
        RangeFn::Count => count,
        RangeFn::First => first.1,
        RangeFn::Last => last.1,
        RangeFn::Present | RangeFn::Absent => 1.0,
        RangeFn::Quantile => quantile(args.params[0].at(step), &values),
        RangeFn::Mad => {
            if values.iter().any(|v| v.is_nan()) {
                return Some(f64::NAN);
            }
            let median = quantile(0.5, &values);
            let deviations: Vec<f64> = values.iter().map(|v| (v - median).abs()).collect();
            quantile(0.5, &deviations)
        }
        RangeFn::TsOfFirst => first.0 as f64 / 1000.0,
        RangeFn::TsOfLast => last.0 as f64 / 1000.0,
        // They depend on more than the window; they are tested beside their code.
        RangeFn::Xrate | RangeFn::Xincrease | RangeFn::Xdelta => return None,
    })
}

fn extrapolated(func: RangeFn, window: &[(i64, f64)], start: i64, end: i64) -> f64 {
    let (first, last) = (window[0], window[window.len() - 1]);
    let mut result = last.1 - first.1;
    if func != RangeFn::Delta {
        for pair in window.windows(2) {
            if pair[1].1 < pair[0].1 {
                result += pair[0].1;
            }
        }
    }
    let mut to_start = (first.0 - start) as f64 / 1000.0;
    let mut to_end = (end - last.0) as f64 / 1000.0;
    let sampled = (last.0 - first.0) as f64 / 1000.0;
    let average = sampled / (window.len() - 1) as f64;
    if to_start >= average * 1.1 {
        to_start = average / 2.0;
    }
    if func != RangeFn::Delta && result > 0.0 && first.1 >= 0.0 {
        to_start = to_start.min(sampled * (first.1 / result));
    }
    if to_end >= average * 1.1 {
        to_end = average / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if func == RangeFn::Rate {
        factor /= (end - start) as f64 / 1000.0;
    }
    result * factor
}

fn extended(
    func: RangeFn,
    window: &[(i64, f64)],
    start: i64,
    end: i64,
    edges: Edges,
) -> Option<f64> {
    let counter = func != RangeFn::Delta;
    let last_before = window.iter().rposition(|(t, _)| *t <= start);
    let inside: Vec<f64> = window
        .iter()
        .filter(|(t, _)| start < *t && *t < end)
        .map(|(_, v)| *v)
        .collect();
    if matches!(func, RangeFn::Changes | RangeFn::Resets) {
        let from = last_before.unwrap_or(0);
        if window[window.len() - 1].0 <= start {
            return None;
        }
        return plain(
            func,
            &window[from..],
            start,
            end,
            0,
            &RangeArgs {
                params: [Param::Const(0.0); 2],
                edges: Edges::Plain,
                first_step_ms: 0,
                step_ms: 0,
            },
        );
    }
    let between = |a: (i64, f64), b: (i64, f64), t: i64| {
        let from = if counter && b.1 < a.1 { 0.0 } else { a.1 };
        from + (b.1 - from) * (t - a.0) as f64 / (b.0 - a.0) as f64
    };
    let at_start = window.iter().find(|(t, _)| *t == start);
    let at_end = window.iter().find(|(t, _)| *t == end);
    let (left, right) = if matches!(edges, Edges::Anchored { .. }) {
        if window[window.len() - 1].0 <= start {
            return None;
        }
        (
            window[last_before.unwrap_or(0)].1,
            window[window.len() - 1].1,
        )
    } else {
        let first_after = window.iter().position(|(t, _)| *t > start)?;
        let left = match (at_start, last_before) {
            (Some(sample), _) => sample.1,
            (None, Some(before)) => between(window[before], window[before + 1], start),
            (None, None) => window[first_after].1,
        };
        if last_before.is_none() && window[0].0 > end {
            return None;
        }
        let right = match (at_end, window.iter().position(|(t, _)| *t > end)) {
            (Some(sample), _) => sample.1,
            (None, Some(0)) => return None,
            (None, Some(after)) => between(window[after - 1], window[after], end),
            (None, None) => window[window.len() - 1].1,
        };
        (left, right)
    };
    let mut result = right - left;
    if counter {
        let mut lost = 0.0;
        let mut previous = left;
        for value in inside.into_iter().chain([right]) {
            if value < previous {
                lost += previous;
            }
            previous = value;
        }
        result += lost;
    }
    Some(if func == RangeFn::Rate {
        result / ((end - start) as f64 / 1000.0)
    } else {
        result
    })
}

/// Two-fold summation in the order of the values.
fn kahan(values: &[f64]) -> f64 {
    let (mut sum, mut rest) = (0.0, 0.0);
    for value in values {
        let next: f64 = sum + value;
        if next.is_infinite() {
            rest = 0.0;
        } else if f64::abs(sum) >= value.abs() {
            rest += (sum - next) + value;
        } else {
            rest += (value - next) + sum;
        }
        sum = next;
    }
    if sum.is_infinite() { sum } else { sum + rest }
}

fn variance(values: &[f64]) -> f64 {
    let mean = kahan(values) / values.len() as f64;
    let squares: Vec<f64> = values.iter().map(|v| (v - mean) * (v - mean)).collect();
    kahan(&squares) / values.len() as f64
}

fn line(window: &[(i64, f64)], origin: i64) -> (f64, f64) {
    let first = window[0].1;
    if window[1..].iter().all(|(_, v)| *v == first) {
        return if first.is_infinite() {
            (f64::NAN, f64::NAN)
        } else {
            (0.0, first)
        };
    }
    let sum = |term: &dyn Fn(f64, f64) -> f64| {
        let terms: Vec<f64> = window
            .iter()
            .map(|(t, v)| term((t - origin) as f64 / 1000.0, *v))
            .collect();
        kahan(&terms)
    };
    let n = window.len() as f64;
    let (x, y) = (sum(&|x, _| x), sum(&|_, y| y));
    let slope = (sum(&|x, y| x * y) - x * y / n) / (sum(&|x, _| x * x) - x * x / n);
    (slope, y / n - slope * x / n)
}

fn quantile(q: f64, values: &[f64]) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        };
    }
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_nan()).collect();
    let mut numbers: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    numbers.sort_by(f64::total_cmp);
    sorted.extend(numbers);
    let rank = q * (sorted.len() - 1) as f64;
    let lower = rank.floor();
    let upper = (lower + 1.0).min((sorted.len() - 1) as f64);
    let weight = rank - lower;
    sorted[lower as usize] * (1.0 - weight) + sorted[upper as usize] * weight
}

/// Whether two results agree to twelve digits, or closer to `scale` than that.
fn agree(a: Option<f64>, b: Option<f64>, scale: f64) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            a == b
                || a.is_nan() && b.is_nan()
                || (a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(scale)
        }
        _ => false,
    }
}

/// Means and variances are defined here in another way than they are computed; where values
/// cancel out, both are off by this much.
fn scale(func: RangeFn, samples: &Columns) -> f64 {
    let largest = samples
        .values
        .iter()
        .filter(|v| v.is_finite())
        .fold(0.0, |m, v| v.abs().max(m));
    match func {
        RangeFn::Avg | RangeFn::Stddev => largest,
        RangeFn::Stdvar => largest * largest,
        _ => 0.0,
    }
}

fn check(seed: u64, name: &str, edges: impl Fn(&mut Random) -> Edges) {
    let mut random = Random(seed);
    let samples = columns(&mut random);
    let windows = windows(&mut random);
    let per_step: Vec<f64> = (0..windows.count).map(|_| random.unit()).collect();
    let odd: Vec<f64> = (0..windows.count)
        .map(|_| random.pick(&[-1.0, 0.0, 1.0, 2.0]))
        .collect();
    let func = RangeFn::from_name(name).expect("a name from the list");
    let params = match random.below(3) {
        0 if func == RangeFn::Quantile => [Param::PerStep(&odd); 2],
        0 | 1 => [Param::PerStep(&per_step), Param::Const(0.25)],
        _ => [Param::Const(0.5), Param::Const(0.75)],
    };
    let offset = random.pick(&[0, 0, 60_000]);
    let args = RangeArgs {
        params,
        edges: edges(&mut random),
        first_step_ms: windows.first_end_ms + offset,
        step_ms: windows.step_ms,
    };
    if params
        .iter()
        .any(|p| matches!(p, Param::PerStep(v) if v.contains(&0.0)))
        && func == RangeFn::DoubleExponentialSmoothing
    {
        return;
    }
    let (got, notes) = run(func, &samples, &windows, &args).expect("factors are in range");
    let want = naive(func, &samples, &windows, &args);
    for (step, (got, want)) in got.iter().zip(&want).enumerate() {
        assert!(
            agree(*got, *want, scale(func, &samples)),
            "{name} seed {seed} step {step}: got {got:?}, want {want:?}; {windows:?}, {args:?}"
        );
    }
    assert_eq!(
        notes.any_result,
        want.iter().any(Option::is_some),
        "{name} seed {seed}"
    );
}

#[test]
fn all_functions_agree_with_the_model() {
    for name in ALL {
        for seed in 0..60 {
            check(seed, name, |_| Edges::Plain);
        }
    }
}

#[test]
fn extended_edges_agree_with_the_model() {
    for name in ["rate", "increase", "delta", "changes", "resets"] {
        for seed in 1000..1060 {
            check(seed, name, |random| Edges::Anchored {
                lookback_ms: random.pick(&[0, 1000, 300_000]),
            });
        }
    }
    for name in ["rate", "increase", "delta"] {
        for seed in 2000..2060 {
            check(seed, name, |random| Edges::Smoothed {
                lookback_ms: random.pick(&[0, 1000, 300_000]),
            });
        }
    }
}

#[test]
fn notes_name_odd_quantiles_only_where_there_are_samples() {
    let mut samples = Columns::default();
    samples.push(0, 1.0);
    samples.push(1000, 2.0);
    let windows = Windows {
        first_end_ms: 0,
        step_ms: 1000,
        count: 4,
        range_ms: 1000,
    };
    let q = [2.0, 2.0, f64::NAN, -1.0];
    let args = RangeArgs {
        params: [Param::PerStep(&q); 2],
        ..RangeArgs::plain(&windows)
    };
    let (values, notes) = run(RangeFn::Quantile, &samples, &windows, &args).expect("no error");
    assert_eq!(
        values,
        [Some(f64::INFINITY), Some(f64::INFINITY), None, None]
    );
    assert_eq!(notes.invalid_quantiles, [2.0]);
}

#[test]
fn smoothing_factors_are_checked_where_there_are_samples() {
    let mut samples = Columns::default();
    samples.push(0, 1.0);
    for (factors, want) in [
        (
            [1.0, 0.5],
            "invalid smoothing factor. Expected: 0 < sf < 1, got: 1.000000",
        ),
        (
            [0.5, f64::INFINITY],
            "invalid trend factor. Expected: 0 < tf < 1, got: +Inf",
        ),
    ] {
        for (first_end_ms, fails) in [(0, true), (5000, false)] {
            let windows = Windows {
                first_end_ms,
                step_ms: 0,
                count: 1,
                range_ms: 1000,
            };
            let params = factors.map(Param::Const);
            let args = RangeArgs {
                params,
                ..RangeArgs::plain(&windows)
            };
            let result = run(
                RangeFn::DoubleExponentialSmoothing,
                &samples,
                &windows,
                &args,
            );
            assert_eq!(
                result.err().map(|e| e.to_string()),
                fails.then(|| want.to_owned())
            );
        }
    }
}
