//! `rate`, `increase`, `delta` with extrapolation to the window's edges; `irate` and `idelta`.

use super::window::{Input, Output, advance_index};
use super::{RangeFn, Scratch};
use crate::functions::row::Windows;

/// `rate`, `increase` and `delta` over the samples of each window.
///
/// A counter's increase is the difference of the last and first sample plus, for each reset in
/// between, the value before it. The resets of a series are found in one scan; without any, a
/// window costs the same whatever it holds. With some, those inside a window are added anew for
/// each window: a difference of prefix sums would be cheaper but lose digits.
pub(super) fn extrapolated(
    func: RangeFn,
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    scratch: &mut Scratch,
) {
    let mut edges = Extrapolation::new(func, windows);
    let values = input.values;
    let resets = &mut scratch.indices;
    resets.clear();
    if edges.is_counter && has_reset(values) {
        resets.extend((1..values.len()).filter(|i| values[*i] < values[i - 1]));
    }
    let (mut first_reset, mut end_reset) = (0, 0);
    for (step, window) in input.slide(windows) {
        let (first, last) = (window.start, window.end - 1);
        if first == last {
            continue;
        }
        let mut increase = values[last] - values[first];
        if !resets.is_empty() {
            end_reset = advance_index(resets, end_reset, last);
            first_reset = advance_index(resets, first_reset, first);
            for reset in &resets[first_reset.min(end_reset)..end_reset] {
                increase += values[reset - 1];
            }
        }
        let end_ms = windows.end_ms(step);
        let (first_ms, last_ms) = (input.timestamps[first], input.timestamps[last]);
        edges.see(Layout {
            before_ms: first_ms - (end_ms - windows.range_ms),
            sampled_ms: last_ms - first_ms,
            after_ms: end_ms - last_ms,
            intervals: last - first,
        });
        out.set(step, edges.extrapolate(increase, values[first]));
    }
}

/// Whether a value is less than the one before.
fn has_reset(values: &[f64]) -> bool {
    // Without an early exit the compiler compares several at a time.
    values.chunks(256).enumerate().any(|(i, chunk)| {
        let before = if i == 0 {
            chunk[0]
        } else {
            values[i * 256 - 1]
        };
        chunk[0] < before
            || chunk
                .windows(2)
                .fold(false, |any, pair| any | (pair[1] < pair[0]))
    })
}

/// How samples lie in a window, in milliseconds.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Layout {
    /// From the window's start to the first sample.
    pub(super) before_ms: i64,
    /// From the first to the last sample.
    pub(super) sampled_ms: i64,
    /// From the last sample to the window's end.
    pub(super) after_ms: i64,
    /// The number of samples but one.
    pub(super) intervals: usize,
}

/// How to get from the increase between a window's samples to that of the whole window.
///
/// Windows that are a multiple of the scrape interval apart have the same layout one after the
/// other, so what depends on it alone is kept; that saves most of the divisions.
pub(super) struct Extrapolation {
    is_counter: bool,
    is_rate: bool,
    range_seconds: f64,
    layout: Layout,
    /// Seconds between the first and last sample.
    sampled: f64,
    /// Seconds by which the increase is stretched at either side.
    to_start: f64,
    to_end: f64,
    /// What an increase is multiplied by, unless the counter would have been below zero.
    factor: f64,
}

impl Extrapolation {
    pub(super) fn new(func: RangeFn, windows: &Windows) -> Self {
        Extrapolation {
            is_counter: func != RangeFn::Delta,
            is_rate: func == RangeFn::Rate,
            range_seconds: duration_seconds(windows.range_ms),
            layout: Layout {
                before_ms: -1,
                sampled_ms: -1,
                after_ms: -1,
                intervals: 0,
            },
            sampled: f64::NAN,
            to_start: f64::NAN,
            to_end: f64::NAN,
            factor: f64::NAN,
        }
    }

    /// The increase is stretched to the window's edge where the samples come close to it, that
    /// is, within 1.1 average intervals; elsewhere by half an interval.
    #[inline(always)]
    pub(super) fn see(&mut self, layout: Layout) {
        if layout == self.layout {
            return;
        }
        self.layout = layout;
        self.sampled = seconds(layout.sampled_ms);
        let average = self.sampled / layout.intervals as f64;
        let threshold = average * 1.1;
        let stretch = |gap: f64| {
            if gap >= threshold { average / 2.0 } else { gap }
        };
        self.to_start = stretch(seconds(layout.before_ms));
        self.to_end = stretch(seconds(layout.after_ms));
        self.factor = self.factor(self.to_start);
    }

    /// What an increase is multiplied by that begins with a zero `sampled_ms` before the window's
    /// last sample, of which the samples cover `between_ms`. Nothing is stretched to the left.
    pub(super) fn factor_from_zero(
        &self,
        sampled_ms: i64,
        between_ms: i64,
        after_ms: i64,
        intervals: usize,
    ) -> f64 {
        let average = match intervals {
            0 => 0.0,
            intervals => seconds(between_ms) / intervals as f64,
        };
        let mut to_end = seconds(after_ms);
        if to_end >= average * 1.1 {
            to_end = average / 2.0;
        }
        let sampled = seconds(sampled_ms);
        let factor = (sampled + 0.0 + to_end) / sampled;
        if self.is_rate {
            factor / self.range_seconds
        } else {
            factor
        }
    }

    #[inline(always)]
    fn factor(&self, to_start: f64) -> f64 {
        let factor = (self.sampled + to_start + self.to_end) / self.sampled;
        if self.is_rate {
            factor / self.range_seconds
        } else {
            factor
        }
    }

    /// A counter is not stretched back beyond the moment at which it would have been zero.
    #[inline(always)]
    pub(super) fn extrapolate(&self, increase: f64, first: f64) -> f64 {
        if self.is_counter && increase > 0.0 && first >= 0.0 {
            let to_zero = self.sampled * (first / increase);
            if to_zero < self.to_start {
                return increase * self.factor(to_zero);
            }
        }
        increase * self.factor
    }
}

#[inline(always)]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// Seconds of a duration, rounded as Go's `Duration.Seconds` rounds them.
pub(super) fn duration_seconds(milliseconds: i64) -> f64 {
    let nanoseconds = (milliseconds % 1000) * 1_000_000;
    (milliseconds / 1000) as f64 + nanoseconds as f64 / 1e9
}

/// `irate` and `idelta` between the last two samples of each window.
pub(super) fn instant(
    func: RangeFn,
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
) {
    let is_rate = func == RangeFn::Irate;
    for (step, window) in input.slide(windows) {
        if window.len() < 2 {
            continue;
        }
        let last = window.end - 1;
        let (before, value) = (input.values[last - 1], input.values[last]);
        let difference = if is_rate && value < before {
            value
        } else {
            value - before
        };
        let interval = seconds(input.timestamps[last] - input.timestamps[last - 1]);
        out.set(
            step,
            if is_rate {
                difference / interval
            } else {
                difference
            },
        );
    }
}
