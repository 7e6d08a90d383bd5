//! How many samples the windows of a function look at, as Prometheus counts them.

use isobar_model::Columns;

use super::tally::Tally;
use super::tile::weights;
use crate::functions::range::Edges;
use crate::functions::row::Windows;
use crate::plan::node::{RangeCall, WindowSource};

/// What the windows look at in a series; histograms count as many, by their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looked {
    /// Each sample as often as windows hold it.
    pub(super) all: u64,
    /// Each sample once, and none between windows.
    pub(super) new: u64,
}

impl Looked {
    /// What `windows` look at in `columns`.
    fn at(columns: &Columns, windows: Windows) -> Self {
        let times = columns.timestamps.as_slice();
        let between = |after_ms, until_ms| count_between(times, after_ms, until_ms);
        let mut floats = Looked::of(&windows, samples_in_windows(times, &windows), between);
        for (times, weight) in columns.packed.weights() {
            let between = |after_ms, until_ms| count_between(times, after_ms, until_ms);
            let run = Looked::of(&windows, samples_in_windows(times, &windows), between);
            floats.all += weight * run.all;
            floats.new += weight * run.new;
        }
        if columns.histograms.is_empty() {
            return floats;
        }
        let times: Vec<i64> = columns.histograms.iter().map(|it| it.0).collect();
        let mut sum = 0;
        let weights = weights(columns.histograms.iter().map(|it| it.1.as_ref()));
        let sums: Vec<u64> = std::iter::once(0)
            .chain(weights.map(|weight| {
                sum += weight;
                sum
            }))
            .collect();
        let between = |after_ms, until_ms| {
            let from = times.partition_point(|t| *t <= after_ms);
            let to = times.partition_point(|t| *t <= until_ms).max(from);
            sums[to] - sums[from]
        };
        let all = (0..windows.count).map(|i| {
            let end_ms = windows.end_ms(i);
            between(end_ms.saturating_sub(windows.range_ms), end_ms)
        });
        let histograms = Looked::of(&windows, all.sum(), between);
        Looked {
            all: floats.all + histograms.all,
            new: floats.new + histograms.new,
        }
    }

    fn of(windows: &Windows, all: u64, between: impl Fn(i64, i64) -> u64) -> Self {
        let end_ms = windows.first_end_ms;
        let first = || between(end_ms.saturating_sub(windows.range_ms), end_ms);
        let new = if windows.step_ms == 0 {
            first()
        } else if windows.step_ms > windows.range_ms {
            all
        } else {
            first() + between(end_ms, windows.end_ms(windows.count.saturating_sub(1)))
        };
        Looked { all, new }
    }
}

/// Counts in `tally` what the windows of a function look at in `columns`. The edges of windows
/// belong to them.
pub(super) fn count(tally: &mut Tally<'_>, columns: &Columns, call: &RangeCall) {
    let (before_ms, after_ms) = match call.edges {
        Edges::Plain => (0, 0),
        Edges::Anchored { lookback_ms } => (lookback_ms, 0),
        Edges::Smoothed { lookback_ms } => (lookback_ms, lookback_ms),
    };
    let windows = Windows {
        first_end_ms: call.windows.first_end_ms.saturating_add(after_ms),
        range_ms: call.windows.range_ms.saturating_add(before_ms + after_ms),
        ..call.windows
    };
    // What a subquery gives was counted where it was read.
    let counts_new = matches!(call.source, WindowSource::Select(_));
    let counted = |looked: Looked| (looked.all, if counts_new { looked.new } else { 0 });
    if !tally.by_step() {
        let (all, new) = counted(Looked::at(columns, windows));
        tally.queryable += all;
        tally.new += new;
        return;
    }
    for step in 0..windows.count {
        let end_ms = windows.end_ms(step);
        let window = |range_ms| Windows {
            first_end_ms: end_ms,
            step_ms: 1,
            count: 1,
            range_ms,
        };
        let (all, mut new) = counted(Looked::at(columns, window(windows.range_ms)));
        if step > 0 && new > 0 {
            let range_ms = windows.range_ms.min(windows.step_ms);
            new = Looked::at(columns, window(range_ms)).new;
        }
        tally.add_at(step, all, new);
    }
}

fn count_between(times: &[i64], after_ms: i64, until_ms: i64) -> u64 {
    let from = times.partition_point(|t| *t <= after_ms);
    let to = times.partition_point(|t| *t <= until_ms);
    to.saturating_sub(from) as u64
}

/// How many samples all windows hold together, each sample as often as windows hold it.
fn samples_in_windows(timestamps: &[i64], windows: &Windows) -> u64 {
    let count = windows.count as i64;
    if windows.step_ms == 0 {
        return timestamps.len() as u64 * windows.count as u64;
    }
    // Windows `i` with `t <= end(i) < t + range`.
    let holding = |t: i64| {
        let first = (t - windows.first_end_ms + windows.step_ms - 1).div_euclid(windows.step_ms);
        let end = (t + windows.range_ms - windows.first_end_ms + windows.step_ms - 1)
            .div_euclid(windows.step_ms);
        (end.clamp(0, count) - first.clamp(0, count)) as u64
    };
    if windows.range_ms % windows.step_ms != 0 {
        return timestamps.iter().map(|t| holding(*t)).sum();
    }
    // Away from the edges each sample lies in the same number of windows.
    let last_ms = windows.end_ms(windows.count - 1);
    let inner = timestamps.partition_point(|t| *t <= windows.first_end_ms - windows.step_ms);
    let outer = timestamps
        .partition_point(|t| *t <= last_ms - windows.range_ms)
        .max(inner);
    let edges = timestamps[..inner].iter().chain(&timestamps[outer..]);
    let each = (windows.range_ms / windows.step_ms) as u64;
    edges.map(|t| holding(*t)).sum::<u64>() + (outer - inner) as u64 * each
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_counted_for_each_window() {
        for (step_ms, range_ms) in [(15, 60), (20, 30), (50, 20), (60, 60)] {
            let windows = Windows {
                first_end_ms: 100,
                step_ms,
                count: 7,
                range_ms,
            };
            let timestamps: Vec<i64> = (0..90).map(|i| i * 7).collect();
            let naive: usize = (0..7)
                .map(|i| {
                    let end = windows.end_ms(i);
                    timestamps
                        .iter()
                        .filter(|t| **t <= end && **t > end - range_ms)
                        .count()
                })
                .sum();
            assert_eq!(samples_in_windows(&timestamps, &windows), naive as u64);
        }
    }
}
