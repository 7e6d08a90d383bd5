//! Quantiles and median deviations over windows.

use std::cmp::Ordering;
use std::ops::Range;

use super::window::{Input, Output};
use super::{Param, Scratch};
use crate::functions::quantile::{is_valid_quantile, nan_first, quantile, quantile_sorted};
use crate::functions::row::Windows;

/// `quantile_over_time`. Values of `q` that are no quantiles are added to `invalid`.
pub(super) fn quantiles(
    input: Input<'_>,
    windows: &Windows,
    q: &Param<'_>,
    out: &mut Output<'_, '_>,
    scratch: &mut Scratch,
    invalid: &mut Vec<f64>,
) {
    let mut sorted = Sorted::new(&mut scratch.values);
    for (step, window) in input.slide(windows) {
        let q = q.at(step);
        let is_new = || {
            invalid
                .last()
                .is_none_or(|last| last.to_bits() != q.to_bits())
        };
        if !is_valid_quantile(q) && is_new() {
            invalid.push(q);
        }
        out.set(step, quantile_sorted(q, sorted.slide(input.values, window)));
    }
}

/// `mad_over_time`: the median of the distances from the median; NaN where a value is NaN.
pub(super) fn deviations(
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    scratch: &mut Scratch,
) {
    let mut sorted = Sorted::new(&mut scratch.values);
    for (step, window) in input.slide(windows) {
        out.set(step, deviation(sorted.slide(input.values, window)));
    }
}

fn deviation(sorted: &[f64]) -> f64 {
    // NaN comes first.
    if sorted[0].is_nan() {
        return f64::NAN;
    }
    let median = quantile_sorted(0.5, sorted);
    if !median.is_finite() {
        let mut distances: Vec<f64> = sorted.iter().map(|value| (value - median).abs()).collect();
        return quantile(0.5, &mut distances);
    }
    // Going outwards from the median on both sides, the distances come in ascending order.
    let mut above = sorted.partition_point(|value| *value < median);
    let mut below = above;
    let mut next = || {
        let up = sorted.get(above).map(|value| value - median);
        let down = below.checked_sub(1).map(|i| median - sorted[i]);
        match (up, down) {
            (Some(up), Some(down)) if up > down => {
                below -= 1;
                Some(down)
            }
            (Some(up), _) => {
                above += 1;
                Some(up)
            }
            (None, _) => {
                below = below.saturating_sub(1);
                down
            }
        }
    };
    let lower = (sorted.len() - 1) / 2;
    (0..lower).for_each(|_| {
        next();
    });
    let lower = next().unwrap_or(0.0);
    // As everywhere, the value above counts even with weight zero: it may be infinite.
    let upper = next().unwrap_or(lower);
    let weight = if sorted.len() % 2 == 1 { 0.0 } else { 0.5 };
    lower * (1.0 - weight) + upper * weight
}

/// Windows of fewer samples are sorted anew each time.
const SHORT: usize = 64;

/// The values of a sliding window in the order of [`nan_first`]. What leaves and enters is found
/// by bisection; the values in between are moved, which is cheap up to many thousands.
struct Sorted<'s> {
    values: &'s mut Vec<f64>,
    window: Range<usize>,
}

impl<'s> Sorted<'s> {
    fn new(values: &'s mut Vec<f64>) -> Self {
        values.clear();
        Sorted {
            values,
            window: 0..0,
        }
    }

    /// Moves on to `window` of the series' values.
    fn slide(&mut self, all: &[f64], window: Range<usize>) -> &[f64] {
        let changes = (window.start - self.window.start) + (window.end - self.window.end);
        if window.start >= self.window.end || changes > window.len() / 2 || window.len() < SHORT {
            self.values.clear();
            self.values.extend_from_slice(&all[window.clone()]);
            self.values.sort_unstable_by(nan_first);
        } else {
            for value in &all[self.window.start..window.start] {
                let at = self.place(value);
                self.values.remove(at);
            }
            for value in &all[self.window.end..window.end] {
                let at = self.place(value);
                self.values.insert(at, *value);
            }
        }
        self.window = window;
        self.values
    }

    /// The place of the first value that is not less.
    fn place(&self, value: &f64) -> usize {
        self.values
            .partition_point(|other| nan_first(other, value) == Ordering::Less)
    }
}
