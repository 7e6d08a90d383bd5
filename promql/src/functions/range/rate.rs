//! `rate`, `increase`, `delta` with extrapolation to the window's edges; `irate` and `idelta`.

use super::window::{Input, Output};
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
    let edges = Extrapolation::new(func, windows);
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
            end_reset += resets[end_reset..]
                .iter()
                .take_while(|i| **i <= last)
                .count();
            first_reset += resets[first_reset..]
                .iter()
                .take_while(|i| **i <= first)
                .count();
            for reset in &resets[first_reset.min(end_reset)..end_reset] {
                increase += values[reset - 1];
            }
        }
        let samples = Ends {
            first_ms: input.timestamps[first],
            last_ms: input.timestamps[last],
            first: values[first],
            intervals: (last - first) as f64,
        };
        out.set(
            step,
            edges.extrapolate(increase, samples, windows.end_ms(step)),
        );
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

/// The first and last sample of a window.
struct Ends {
    first_ms: i64,
    last_ms: i64,
    first: f64,
    /// The number of samples but one.
    intervals: f64,
}

/// How to get from the increase between a window's samples to that of the whole window.
struct Extrapolation {
    is_counter: bool,
    is_rate: bool,
    range_ms: i64,
    range_seconds: f64,
}

impl Extrapolation {
    fn new(func: RangeFn, windows: &Windows) -> Self {
        Extrapolation {
            is_counter: func != RangeFn::Delta,
            is_rate: func == RangeFn::Rate,
            range_ms: windows.range_ms,
            range_seconds: duration_seconds(windows.range_ms),
        }
    }

    /// The increase is stretched to the window's edge where the samples come close to it, that
    /// is, within 1.1 average intervals; elsewhere by half an interval. A counter is not
    /// stretched back beyond the moment at which it would have been zero.
    #[inline(always)]
    fn extrapolate(&self, increase: f64, samples: Ends, end_ms: i64) -> f64 {
        let mut to_start = seconds(samples.first_ms - (end_ms - self.range_ms));
        let mut to_end = seconds(end_ms - samples.last_ms);
        let sampled = seconds(samples.last_ms - samples.first_ms);
        let average = sampled / samples.intervals;
        let threshold = average * 1.1;
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if self.is_counter && increase > 0.0 && samples.first >= 0.0 {
            let to_zero = sampled * (samples.first / increase);
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let mut factor = (sampled + to_start + to_end) / sampled;
        if self.is_rate {
            factor /= self.range_seconds;
        }
        increase * factor
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
