//! Which of several replicas a window is computed from.
//!
//! Collectors of the same targets each miss something: scrapes fail, processes restart, machines
//! go away. For each window the replica is chosen that has seen most of it:
//!
//! - *Interval*: the lower quartile of the distances of a replica's samples, at most 128 of them
//!   looked at. It stands for the scrape interval and does not grow with the gaps.
//! - *Gap*: a distance of more than one and a half intervals, between two samples or between a
//!   sample and the edge of the window. It costs its length less one interval, so jitter costs
//!   nothing and each missed scrape costs one interval.
//! - *Coverage* of a window: first whether it holds two samples, one or none, as some functions
//!   need two; then what its gaps cost together. For an instant selector only the gap behind the
//!   newest sample counts, and a staleness marker counts as no sample.
//! - *Sticky*: the replica of the window before is kept unless another one is better by more than
//!   half an interval, or has more of the two samples. It begins with the first, in the order
//!   of the replicas' labels.
//!
//! Sums of gaps up to each sample are kept, so the cost of a window is a difference of two of
//! them: O(samples + windows) in all. A replica without any gap is recognised in one pass over
//! its times ([`is_complete`]); no other can be better, so the others are not even decoded then.

use std::borrow::Cow;

use isobar_model::Columns;
use isobar_model::sample::is_stale;

use crate::functions::row::Windows;

/// How many distances are looked at to find the interval.
const DISTANCES_MAX: usize = 128;

/// What counts of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// All of its samples.
    All,
    /// The newest sample, unless that is a staleness marker.
    Newest,
}

/// The times at which a replica has samples.
pub(super) struct Coverage<'a> {
    times: Cow<'a, [i64]>,
    /// Which samples are staleness markers; empty when none is.
    stale: Vec<bool>,
    interval_ms: i64,
    /// What gaps cost from the first sample to each.
    lost_ms: Vec<i64>,
}

impl<'a> Coverage<'a> {
    pub(super) fn new(columns: &'a Columns) -> Self {
        let floats = columns.timestamps.as_slice();
        let mut stale = Vec::new();
        let times = if columns.histograms.is_empty() {
            if columns.values.iter().any(|value| is_stale(*value)) {
                stale.extend(columns.values.iter().map(|value| is_stale(*value)));
            }
            Cow::Borrowed(floats)
        } else {
            let values = columns.values.iter().map(|value| is_stale(*value));
            let histograms = columns.histograms.iter();
            let mut all: Vec<(i64, bool)> = floats.iter().copied().zip(values).collect();
            all.extend(histograms.map(|it| (it.0, it.1.is_stale())));
            all.sort_by_key(|it| it.0);
            stale.extend(all.iter().map(|it| it.1));
            Cow::Owned(all.iter().map(|it| it.0).collect())
        };
        let interval_ms = interval(&times);
        let mut lost_ms = Vec::with_capacity(times.len());
        let (mut lost, mut before) = (0_i64, None);
        for time_ms in times.iter() {
            let distance = before.map_or(0, |before| time_ms.saturating_sub(before));
            lost = lost.saturating_add(gap(distance, interval_ms));
            before = Some(*time_ms);
            lost_ms.push(lost);
        }
        Coverage {
            times,
            stale,
            interval_ms,
            lost_ms,
        }
    }

    /// How well the window `start_ms < t <= end_ms` is covered, whose samples are `from..to`.
    fn of(&self, from: usize, to: usize, start_ms: i64, end_ms: i64, measure: Measure) -> Standing {
        let window = self.times.get(from..to).unwrap_or_default();
        let (Some(first), Some(last)) = (window.first(), window.last()) else {
            return Standing::NONE;
        };
        let after = gap(end_ms.saturating_sub(*last), self.interval_ms);
        match measure {
            Measure::Newest if self.stale.get(to - 1) == Some(&true) => Standing::NONE,
            Measure::Newest => Standing {
                samples: 1,
                lost_ms: after,
            },
            Measure::All => {
                let before = gap(first.saturating_sub(start_ms), self.interval_ms);
                let between = self.lost_ms[to - 1].saturating_sub(self.lost_ms[from]);
                Standing {
                    samples: window.len().min(2),
                    lost_ms: before.saturating_add(between).saturating_add(after),
                }
            }
        }
    }
}

/// How well a window is covered.
#[derive(Clone, Copy)]
struct Standing {
    /// Its samples, at most two.
    samples: usize,
    /// What its gaps cost.
    lost_ms: i64,
}

impl Standing {
    const NONE: Standing = Standing {
        samples: 0,
        lost_ms: i64::MAX,
    };

    fn is_better(self, than: Standing, by_ms: i64) -> bool {
        self.samples > than.samples
            || self.samples == than.samples && than.lost_ms.saturating_sub(self.lost_ms) > by_ms
    }
}

/// The usual distance of samples; 0 when there are fewer than two.
fn interval(times: &[i64]) -> i64 {
    let stride = times.len().div_ceil(DISTANCES_MAX).max(1);
    let pairs = times.windows(2).step_by(stride);
    let mut distances: Vec<i64> = pairs.map(|it| it[1].saturating_sub(it[0])).collect();
    if distances.is_empty() {
        return 0;
    }
    let quartile = distances.len() / 4;
    *distances.select_nth_unstable(quartile).1
}

/// What a distance of samples costs.
fn gap(distance_ms: i64, interval_ms: i64) -> i64 {
    if distance_ms > interval_ms.saturating_add(interval_ms / 2) {
        distance_ms - interval_ms
    } else {
        0
    }
}

/// Whether no replica could cover any window better than this one. Says no when in doubt, and
/// always where there are histograms.
pub(super) fn is_complete(columns: &Columns, windows: &Windows, measure: Measure) -> bool {
    let times = columns.timestamps.as_slice();
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return false;
    };
    let interval_ms = interval(times);
    if !columns.histograms.is_empty() || interval_ms == 0 || windows.count == 0 {
        return false;
    }
    let no_gap = |from_ms: i64, to_ms: i64| gap(to_ms.saturating_sub(from_ms), interval_ms) == 0;
    let last_end_ms = windows.end_ms(windows.count - 1);
    let edges = match measure {
        // Two samples lie in each window then.
        Measure::All => {
            let start_ms = windows.first_end_ms.saturating_sub(windows.range_ms);
            no_gap(start_ms, *first) && windows.range_ms / 3 >= interval_ms
        }
        Measure::Newest => {
            let stale = columns
                .values
                .iter()
                .fold(false, |any, v| any | is_stale(*v));
            *first <= windows.first_end_ms && windows.range_ms / 2 >= interval_ms && !stale
        }
    };
    let widest = times
        .windows(2)
        .fold(0, |widest, it| widest.max(it[1].saturating_sub(it[0])));
    edges && no_gap(0, widest) && no_gap(*last, last_end_ms)
}

/// The replica for each window.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// Its number.
    pub(super) replicas: Vec<u32>,
    /// Whether another one has samples in the window too.
    pub(super) others: Vec<bool>,
}

/// Chooses a replica for each window.
pub(super) fn choose(
    all: &[Coverage<'_>],
    windows: &Windows,
    measure: Measure,
    choice: &mut Choice,
) {
    choice.replicas.clear();
    choice.others.clear();
    let mut samples = vec![(0, 0); all.len()];
    let mut standings = vec![Standing::NONE; all.len()];
    let mut current = 0;
    for step in 0..windows.count {
        let end_ms = windows.end_ms(step);
        let start_ms = end_ms.saturating_sub(windows.range_ms);
        let mut best = 0;
        for (i, coverage) in all.iter().enumerate() {
            let (from, to) = &mut samples[i];
            *to = advance(&coverage.times, *to, end_ms);
            *from = advance(&coverage.times, *from, start_ms);
            standings[i] = coverage.of(*from, *to, start_ms, end_ms, measure);
            if standings[i].is_better(standings[best], 0) {
                best = i;
            }
        }
        if standings[best].is_better(standings[current], all[best].interval_ms / 2) {
            current = best;
        }
        let is_other = |(i, (from, to)): (usize, &(usize, usize))| i != current && from < to;
        choice.replicas.push(current as u32);
        choice.others.push(samples.iter().enumerate().any(is_other));
    }
}

/// The first index from `at` on whose time is later than `time_ms`.
fn advance(times: &[i64], mut at: usize, time_ms: i64) -> usize {
    while times.get(at).is_some_and(|it| *it <= time_ms) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1000;

    fn columns(times: impl IntoIterator<Item = i64>) -> Columns {
        let mut columns = Columns::default();
        times.into_iter().for_each(|t| columns.push(t * S, 1.0));
        columns
    }

    fn windows(first_end: i64, step: i64, count: usize, range: i64) -> Windows {
        Windows {
            first_end_ms: first_end * S,
            step_ms: step * S,
            count,
            range_ms: range * S,
        }
    }

    fn check(replicas: &[Columns], windows: Windows, measure: Measure, expected: &str) {
        let all: Vec<_> = replicas.iter().map(Coverage::new).collect();
        let mut choice = Choice::default();
        choose(&all, &windows, measure, &mut choice);
        let got: String = choice.replicas.iter().map(|it| it.to_string()).collect();
        assert_eq!(got, expected);
    }

    fn each(from: i64, to: i64) -> impl Iterator<Item = i64> {
        (from..to).step_by(15)
    }

    #[test]
    fn the_first_is_kept_without_need_to_change() {
        let (a, b) = (columns(each(0, 600)), columns(each(7, 600)));
        check(&[a, b], windows(60, 60, 10, 60), Measure::All, "0000000000");
        let jitter = |i: i64| i * 15 + [0, 2, -2, 1, -1][i as usize % 5];
        let a = columns((0..40).map(jitter));
        check(
            &[a, columns(each(7, 600))],
            windows(60, 15, 20, 60),
            Measure::All,
            &"0".repeat(20),
        );
    }

    #[test]
    fn a_gap_is_a_reason_to_change_and_its_end_is_none() {
        let a = columns(each(0, 150).chain(each(240, 600)));
        let b = columns(each(7, 600));
        check(&[a, b], windows(60, 60, 9, 60), Measure::All, "001111111");
        // When the other one has a gap too, it goes back.
        let a = columns(each(0, 150).chain(each(240, 600)));
        let b = columns(each(7, 400).chain(each(487, 600)));
        check(&[a, b], windows(60, 60, 9, 60), Measure::All, "001111000");
    }

    #[test]
    fn two_samples_are_better_than_one() {
        let (a, b) = (columns([30, 90]), columns([1, 2, 61, 62]));
        check(&[a, b], windows(60, 60, 2, 60), Measure::All, "11");
    }

    #[test]
    fn the_newest_sample_is_looked_for() {
        let a = columns(each(0, 100).chain(each(240, 600)));
        let b = columns(each(7, 600));
        check(&[a, b], windows(90, 15, 5, 300), Measure::Newest, "00111");
        let mut a = columns(each(0, 100));
        a.push(100 * S, isobar_model::sample::STALE_NAN);
        let b = columns(each(7, 600));
        check(&[a, b], windows(90, 5, 5, 300), Measure::Newest, "00111");
    }

    #[test]
    fn without_a_gap_there_is_nothing_better() {
        let check = |columns: &Columns, windows: Windows, measure, expected| {
            assert_eq!(is_complete(columns, &windows, measure), expected);
        };
        let whole = columns(each(7, 607));
        check(&whole, windows(60, 60, 10, 60), Measure::All, true);
        check(&whole, windows(60, 60, 11, 60), Measure::All, false);
        check(&whole, windows(40, 60, 10, 60), Measure::All, false);
        check(&whole, windows(60, 60, 10, 30), Measure::All, false);
        check(&whole, windows(7, 60, 10, 300), Measure::Newest, true);
        check(&whole, windows(6, 60, 10, 300), Measure::Newest, false);
        let missed = columns(each(7, 300).chain(each(322, 607)));
        check(&missed, windows(60, 60, 10, 60), Measure::All, false);
        check(
            &Columns::default(),
            windows(60, 60, 10, 60),
            Measure::All,
            false,
        );
        check(&columns([60]), windows(60, 60, 1, 60), Measure::All, false);
    }
}
