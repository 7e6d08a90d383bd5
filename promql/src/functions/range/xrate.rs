//! `xrate`, `xincrease` and `xdelta` of Thanos' engine: like their namesakes, but with the last
//! sample before a window and without extrapolation.
//!
//! Which sample stands before a window depends on how Thanos' engine walks from step to step. It
//! reads one sample ahead; one that it read ahead and that then lies before the next window, or
//! on its edge, is lost. So steps that are farther apart than the range is long can see an older
//! sample there than an instant query does. We answer the same.
//!
//! Samples are those that are stored. Thanos' querier hands its engine others for `xrate` and
//! `xincrease`, as for `rate`: without NaN, and lifted where they fall, so that counters that were
//! downsampled are told their resets (`ApplyCounterResetsSeriesIterator`). For counters that makes
//! no difference but rounding; what falls below zero or holds NaN has other results there.

use super::window::{Input, Output};
use super::{RangeFn, Scratch};
use crate::functions::row::Windows;

/// How far before its window a sample is still used, in milliseconds.
const LOOKBACK_MS: i64 = 60 * 60 * 1000;
/// How far before the first window samples are to be read, in milliseconds: the bound is
/// inclusive here, and that of windows is not.
pub const EXTENDED_LOOKBACK_MS: i64 = LOOKBACK_MS + 1;

/// The functions over each window. The samples are all those not older than [`LOOKBACK_MS`]
/// before the first window's start.
pub(super) fn extended(
    func: RangeFn,
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    scratch: &mut Scratch,
) {
    let Some(appeared_ms) = input.timestamps.first() else {
        return;
    };
    let mut buffer = Buffer::new(input, &mut scratch.indices);
    for step in 0..windows.count {
        let end_ms = windows.end_ms(step);
        let start_ms = end_ms.saturating_sub(windows.range_ms);
        buffer.advance(start_ms, end_ms);
        let window = Window {
            input,
            samples: buffer.samples(),
            start_ms,
            end_ms,
            range_ms: windows.range_ms,
            is_new: end_ms <= appeared_ms.saturating_add(windows.range_ms),
        };
        if let Some(value) = window.value(func) {
            out.set(step, value);
        }
    }
}

/// The samples of a window and the one before, as indices.
struct Buffer<'a> {
    input: Input<'a>,
    items: &'a mut Vec<usize>,
    from: usize,
    /// The sample that was read ahead.
    ahead: Option<usize>,
    next: usize,
}

impl<'a> Buffer<'a> {
    fn new(input: Input<'a>, items: &'a mut Vec<usize>) -> Self {
        items.clear();
        Buffer {
            input,
            items,
            from: 0,
            ahead: None,
            next: 0,
        }
    }

    fn samples(&self) -> &[usize] {
        &self.items[self.from..]
    }

    /// Moves on to the window `start_ms < t <= end_ms`.
    fn advance(&mut self, start_ms: i64, end_ms: i64) {
        let times = self.input.timestamps;
        let before = self.from;
        while let Some(item) = self.items.get(self.from)
            && times[*item] <= start_ms
        {
            self.from += 1;
        }
        if self.from > before && times[self.items[self.from - 1]] > start_ms - LOOKBACK_MS {
            self.from -= 1;
        }
        if self.ahead.is_some_and(|at| times[at] > end_ms) {
            return;
        }
        let mut new_after_ms = start_ms.max(self.last_ms().saturating_add(1));
        if let Some(at) = self.ahead.take()
            && times[at] > new_after_ms
        {
            self.items.push(at);
            new_after_ms = times[at] + 1;
        }
        let mut has_any = !self.samples().is_empty();
        while let Some(time_ms) = times.get(self.next) {
            let at = self.next;
            self.next += 1;
            if *time_ms > end_ms {
                self.ahead = Some(at);
                return;
            }
            match self.items.last_mut() {
                Some(last) if has_any && *time_ms <= new_after_ms => *last = at,
                _ => self.items.push(at),
            }
            has_any = true;
        }
    }

    fn last_ms(&self) -> i64 {
        let last = self.samples().last();
        last.map_or(i64::MIN, |at| self.input.timestamps[*at])
    }
}

struct Window<'a> {
    input: Input<'a>,
    samples: &'a [usize],
    start_ms: i64,
    end_ms: i64,
    range_ms: i64,
    /// Whether the series began less than a range ago.
    is_new: bool,
}

impl Window<'_> {
    fn value(&self, func: RangeFn) -> Option<f64> {
        let is_counter = func != RangeFn::Xdelta;
        let is_increase = func == RangeFn::Xincrease;
        let time = |i: usize| self.input.timestamps[self.samples[i]];
        let value = |i: usize| self.input.values[self.samples[i]];
        let last = self.samples.len().checked_sub(1)?;
        // A counter that was never seen otherwise is taken to have come from zero.
        let is_flat = (1..=last).all(|i| value(i) == value(i - 1));
        if is_increase && self.is_new && is_flat {
            return Some(value(0));
        }
        let mut first = 0;
        let interval = |first: usize| (time(last) - time(first)) as f64 / (last - first) as f64;
        let mut average_ms = interval(0);
        if !is_increase && (self.start_ms - time(0)) as f64 > average_ms {
            if last < 2 {
                return Some(0.0);
            }
            first = 1;
            average_ms = interval(1);
        }
        let mut increase = value(last) - value(first);
        if is_counter {
            let resets = (first + 1..=last).filter(|i| value(*i) < value(i - 1));
            increase += resets.fold(0.0, |sum, i| sum + value(i - 1));
        }
        // Thanos cuts ranges to whole seconds.
        let range_seconds = (self.range_ms / 1000) as f64;
        let covers =
            time(first) <= self.start_ms && ((self.end_ms - time(last)) as f64) < average_ms;
        if !is_increase && covers {
            let sampled_seconds = (time(last) - time(first)) as f64 / 1000.0;
            increase *= range_seconds / sampled_seconds;
        }
        Some(match func {
            RangeFn::Xrate => increase / range_seconds,
            _ => increase,
        })
    }
}

#[cfg(test)]
mod tests {
    use isobar_model::Columns;

    use super::super::{RangeArgs, Row, apply};
    use super::*;

    const GAP: f64 = f64::NAN;

    /// Samples `every` seconds apart, from 0 on; NaN stands for none.
    fn columns(every: i64, values: &[f64]) -> Columns {
        let mut columns = Columns::default();
        for (i, value) in values.iter().enumerate().filter(|it| !it.1.is_nan()) {
            columns.push(i as i64 * every * 1000, *value);
        }
        columns
    }

    /// The values of `name(series[range])` at `count` steps from `start` on, in seconds.
    fn check(name: &str, series: &Columns, range: i64, steps: (i64, i64, usize), wanted: &[f64]) {
        let (start, step, count) = steps;
        let windows = Windows {
            first_end_ms: start * 1000,
            step_ms: step * 1000,
            count,
            range_ms: range * 1000,
        };
        let (mut values, mut present) = (vec![f64::NAN; count], vec![0; count.div_ceil(64)]);
        let mut row = Row {
            values: &mut values,
            present: &mut present,
        };
        let func = RangeFn::from_name(name).unwrap();
        let args = RangeArgs::plain(&windows);
        apply(
            func,
            series,
            &windows,
            &args,
            &mut row,
            &mut Scratch::default(),
        )
        .unwrap();
        let agree = |(found, wanted): (&f64, &f64)| (found - wanted).abs() < 1e-12;
        assert!(
            values.iter().zip(wanted).all(agree) && wanted.len() == count,
            "{name}[{range}s] from {start}: {values:?}, not {wanted:?}"
        );
    }

    fn check_at(name: &str, series: &Columns, range: i64, time: i64, wanted: f64) {
        check(name, series, range, (time, 0, 1), &[wanted]);
    }

    #[test]
    fn steps_before_in_and_beyond_the_range() {
        let series = columns(10, &[1.0, 5.0, 10.0, 20.0, GAP, 40.0]);
        // The sample that was read ahead at the first step is lost at the second.
        check("xincrease", &series, 10, (0, 20, 4), &[1.0, 9.0, 0.0, 0.0]);
        let each = [1.0, 4.0, 5.0, 10.0, 0.0, 20.0, 0.0];
        check("xincrease", &series, 10, (0, 10, 7), &each);
        let both = [1.0, 4.0, 9.0, 15.0, 10.0, 20.0, 20.0];
        check("xincrease", &series, 20, (0, 10, 7), &both);
        check_at("xincrease", &series, 10, 20, 5.0);
    }

    #[test]
    fn increases_and_rates() {
        let ramp: Vec<f64> = (0..11).map(|i| f64::from(i) * 10.0).collect();
        let foo = columns(5, &ramp);
        let bar = columns(5, &[&ramp[..6], &ramp[..5]].concat());
        for (range, time, a, b) in [
            (50, 50, 100.0, 90.0),
            (5, 50, 10.0, 10.0),
            (10, 50, 20.0, 20.0),
            (3, 50, 10.0, 10.0),
            (5, 17, 10.0, 10.0),
            (10, 17, 20.0, 20.0),
        ] {
            check_at("xincrease", &foo, range, time, a);
            check_at("xincrease", &bar, range, time, b);
        }
        for (range, a, b) in [
            (50, 2.0, 1.8),
            (100, 1.0, 0.9),
            (5, 2.0, 2.0),
            (3, 2.0, 2.0),
        ] {
            check_at("xrate", &foo, range, 50, a);
            check_at("xrate", &bar, range, 50, b);
        }
        let resets = columns(300, &[0.0, 1.0, 2.0, 3.0, 2.0, 3.0, 4.0]);
        check_at("xincrease", &resets, 1800, 1800, 7.0);
        let step = columns(30, &[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
        check_at("xincrease", &step, 121, 240, 1.0);
        check_at("xincrease", &step, 120, 240, 0.0);
        let lonely = columns(300, &[GAP, GAP, GAP, 5.0]);
        check_at("xincrease", &lonely, 4500, 4500, 5.0);
    }

    #[test]
    fn differences_are_stretched_to_the_range() {
        let up = columns(300, &[0.0, 50.0, 300.0, 150.0, 200.0]);
        let down = columns(300, &[200.0, 150.0, 300.0, 50.0, 0.0]);
        for (range, wanted) in [(1200, 200.0), (1140, 190.0), (60, 10.0)] {
            check_at("xdelta", &up, range, 1200, wanted);
            check_at("xdelta", &down, range, 1200, -wanted);
        }
    }

    #[test]
    fn rates_of_series_that_begin_or_end_in_the_range() {
        let foo = columns(5, &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
        let bar = columns(5, &(1..12).map(f64::from).collect::<Vec<_>>());
        for (range, time, a, b) in [
            (50, 25, 0.02, 0.1),
            (50, 24, 0.02, 0.08),
            (50, 26, 0.02, 0.1),
            (50, 75, 0.02, 0.1),
            (50, 74, 0.02, 0.12),
            (50, 76, 0.02, 0.1),
            (10, 9, 0.0, 0.1),
            (10, 19, 0.1, 0.2),
            (10, 29, 0.0, 0.2),
            (10, 49, 0.1, 0.2),
        ] {
            check_at("xrate", &foo, range, time, a);
            check_at("xrate", &bar, range, time, b);
        }
        check_at("xincrease", &foo, 5, 1, 1.0);
        check_at("xincrease", &foo, 10, 55, 0.0);
        check_at("xincrease", &bar, 10, 55, 1.0);
    }
}
