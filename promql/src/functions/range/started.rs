//! Counters whose samples say since when they count (Prometheus' feature `use-start-timestamps`):
//! a start time tells of resets that the values do not show, and of the zero that a counter began
//! with. `rate`, `increase`, `irate` and `resets` use them; all others do as if there were none.
//!
//! Series without start times do not come here.

use super::rate::{Extrapolation, Layout};
use super::window::{Input, Output, advance_index};
use super::{RangeFn, Scratch};
use crate::functions::row::Windows;

/// A sample's time and since when it counts, both in unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) time_ms: i64,
    /// 0 when it is not known.
    pub(crate) start_ms: i64,
}

impl Started {
    /// Whether the counter was reset between the sample `before` and this one, by their start
    /// times alone.
    pub(crate) fn is_reset(self, before: Started) -> bool {
        // A start that is not before its sample is invalid, or OpenTelemetry's "unknown".
        if self.start_ms == 0 || self.start_ms >= self.time_ms || self.start_ms < before.time_ms {
            return false;
        }
        // At the sample before begins an increment, or a total of which OpenTelemetry does not
        // know the start. The sample before was then the first and is marked as such.
        self.start_ms > before.time_ms || before.start_ms != 0 && before.start_ms < before.time_ms
    }

    /// Whether the times over which the two samples count overlap without being the same counter.
    pub(crate) fn overlaps(self, before: Started) -> bool {
        self.start_ms != 0 && self.start_ms < before.time_ms && self.start_ms != before.start_ms
    }

    /// Whether this, as the first sample of a window that begins at `window_start_ms`, began to
    /// count within the window.
    pub(crate) fn begins_within(self, window_start_ms: i64) -> bool {
        self.start_ms != 0 && self.start_ms > window_start_ms && self.start_ms < self.time_ms
    }
}

/// Sample `i` of `input`.
fn sample(input: Input<'_>, i: usize) -> Started {
    Started {
        time_ms: input.timestamps[i],
        start_ms: input.start_times.get(i).copied().unwrap_or(0),
    }
}

/// Whether the counter was reset between samples `i - 1` and `i`.
pub(super) fn is_reset(input: Input<'_>, i: usize) -> bool {
    input.values[i] < input.values[i - 1] || sample(input, i).is_reset(sample(input, i - 1))
}

/// `rate` and `increase`. Gives the steps whose windows hold samples that overlap.
pub(super) fn extrapolated(
    func: RangeFn,
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    scratch: &mut Scratch,
) -> Vec<usize> {
    let mut edges = Extrapolation::new(func, windows);
    let values = input.values;
    let resets = &mut scratch.indices;
    resets.clear();
    resets.extend((1..values.len()).filter(|i| is_reset(input, *i)));
    let overlapping = |i: &usize| sample(input, *i).overlaps(sample(input, i - 1));
    let overlaps: Vec<usize> = (1..values.len()).filter(overlapping).collect();
    let mut overlapping_steps = Vec::new();
    let (mut first_reset, mut end_reset) = (0, 0);
    let (mut first_overlap, mut end_overlap) = (0, 0);
    for (step, window) in input.slide(windows) {
        let (first, last) = (window.start, window.end - 1);
        let mut increase = values[last] - values[first];
        end_reset = advance_index(resets, end_reset, last);
        first_reset = advance_index(resets, first_reset, first);
        for reset in &resets[first_reset.min(end_reset)..end_reset] {
            increase += values[reset - 1];
        }
        end_overlap = advance_index(&overlaps, end_overlap, last);
        first_overlap = advance_index(&overlaps, first_overlap, first);
        if first_overlap < end_overlap {
            overlapping_steps.push(step);
        }
        let end_ms = windows.end_ms(step);
        let start_ms = end_ms - windows.range_ms;
        let begin = sample(input, first);
        let after_ms = end_ms - input.timestamps[last];
        let intervals = last - first;
        if begin.begins_within(start_ms) {
            increase += values[first];
            let sampled_ms = input.timestamps[last] - begin.start_ms;
            let between_ms = input.timestamps[last] - begin.time_ms;
            out.set(
                step,
                increase * edges.factor_from_zero(sampled_ms, between_ms, after_ms, intervals),
            );
        } else if intervals > 0 {
            edges.see(Layout {
                before_ms: begin.time_ms - start_ms,
                sampled_ms: input.timestamps[last] - begin.time_ms,
                after_ms,
                intervals,
            });
            out.set(step, edges.extrapolate(increase, values[first]));
        }
    }
    overlapping_steps
}

/// `irate` between the last two samples of each window.
pub(super) fn instant(input: Input<'_>, windows: &Windows, out: &mut Output<'_, '_>) {
    for (step, window) in input.slide(windows) {
        if window.len() < 2 {
            continue;
        }
        let last = window.end - 1;
        let mut increase = input.values[last];
        if !is_reset(input, last) {
            increase -= input.values[last - 1];
        }
        let interval_ms = input.timestamps[last] - input.timestamps[last - 1];
        out.set(step, increase / (interval_ms as f64 / 1000.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: (i64, i64), now: (i64, i64), is_reset: bool, overlaps: bool) {
        let started = |(start_ms, time_ms)| Started { time_ms, start_ms };
        let (before, now) = (started(before), started(now));
        assert_eq!(now.is_reset(before), is_reset, "{before:?} {now:?}");
        assert_eq!(now.overlaps(before), overlaps, "{before:?} {now:?}");
    }

    #[test]
    fn resets_and_overlaps() {
        // Nothing is known.
        check((0, 100), (0, 200), false, false);
        check((50, 100), (0, 200), false, false);
        // The same total goes on.
        check((50, 100), (50, 200), false, false);
        // It began anew.
        check((50, 100), (101, 200), true, false);
        check((0, 100), (101, 200), true, false);
        // Increments, and totals without a known start.
        check((50, 100), (100, 200), true, false);
        check((0, 100), (100, 200), false, false);
        check((100, 100), (100, 200), false, false);
        check((150, 100), (100, 200), false, false);
        // Starts that are no starts.
        check((50, 100), (200, 200), false, false);
        check((50, 100), (250, 200), false, false);
        // Two totals at the same time.
        check((50, 100), (99, 200), false, true);
        check((0, 100), (99, 200), false, true);
    }
}
