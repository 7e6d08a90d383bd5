//! Sums, means and variances over windows, with compensated arithmetic.

use std::ops::Range;

use super::window::{Input, Output};
use super::{RangeFn, Scratch, batch};
use crate::functions::row::Windows;
use crate::functions::sum::{KahanMean, KahanVariance, kahan_inc};

/// From this many samples on, a window's sum is put together from those of its parts.
const LONG_SUM: usize = 128;
/// The same for means. A mean divides sum and compensation apart, and where one ends and the
/// other begins depends on the order of the additions, so its last digit may come out another:
/// that is accepted only where there is more to gain.
const LONG_MEAN: usize = 512;
/// Up to here sums cannot overflow.
const MODERATE: f64 = 1e290;

/// `sum_over_time`, `avg_over_time`, `stddev_over_time` and `stdvar_over_time`.
pub(super) fn over_time(
    func: RangeFn,
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    scratch: &mut Scratch,
) {
    match func {
        RangeFn::Sum => {
            let long = |(sum, c), _| sum + c;
            sums(input, windows, out, scratch, LONG_SUM, sum, long);
        }
        RangeFn::Avg => {
            let long = |(sum, c), count| sum / count + c / count;
            sums(input, windows, out, scratch, LONG_MEAN, mean, long);
        }
        RangeFn::Stddev => variances(input, windows, out, f64::sqrt),
        _ => variances(input, windows, out, |variance| variance),
    }
}

fn variances(
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    result: impl Fn(f64) -> f64,
) {
    batch::fold(input, windows, out, KahanVariance::add, |sums| {
        result(sums.value())
    });
}

/// Sums of short windows are computed as Prometheus does, sample by sample, to the last bit.
/// Those of long windows come from [`Parts`], which costs the same for any length and differs
/// by a rounding of the compensation at most.
fn sums(
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    scratch: &mut Scratch,
    long_from: usize,
    short: impl Fn(&[f64]) -> f64,
    long: impl Fn((f64, f64), f64) -> f64,
) {
    let values = input.values;
    let moderate = values.len() >= long_from && values.iter().all(|value| value.abs() < MODERATE);
    let mut parts = Parts::new(&mut scratch.pairs);
    for (step, window) in input.slide(windows) {
        let value = if moderate && window.len() >= long_from {
            let count = window.len() as f64;
            long(parts.sum(values, window), count)
        } else {
            short(&values[window])
        };
        out.set(step, value);
    }
}

/// Sums over a window that slides forward, without ever taking a value away: the window is cut
/// in two. Of the first part, the sums from each sample to the cut are known; of the second, the
/// running sum. When the first part is used up, the cut moves to the window's end. Each sample is
/// so added twice.
struct Parts<'s> {
    /// Sums from each sample of the first part to the cut, last sample first.
    first: &'s mut Vec<(f64, f64)>,
    /// The sum from the cut to `end`.
    second: (f64, f64),
    cut: usize,
    end: usize,
}

impl<'s> Parts<'s> {
    fn new(first: &'s mut Vec<(f64, f64)>) -> Self {
        first.clear();
        Parts {
            first,
            second: (0.0, 0.0),
            cut: 0,
            end: 0,
        }
    }

    fn sum(&mut self, values: &[f64], window: Range<usize>) -> (f64, f64) {
        if window.start >= self.cut {
            self.first.clear();
            let mut sum = (0.0, 0.0);
            for value in values[window.clone()].iter().rev() {
                sum = kahan_inc(*value, sum.0, sum.1);
                self.first.push(sum);
            }
            self.second = (0.0, 0.0);
            (self.cut, self.end) = (window.end, window.end);
        }
        for value in &values[self.end..window.end.max(self.end)] {
            self.second = kahan_inc(*value, self.second.0, self.second.1);
        }
        self.end = self.end.max(window.end);
        let first = self.first[self.cut - 1 - window.start];
        kahan_inc(self.second.0, first.0, first.1 + self.second.1)
    }
}

fn sum(values: &[f64]) -> f64 {
    let (sum, compensation) = pair(values);
    if sum.is_infinite() {
        sum
    } else {
        sum + compensation
    }
}

/// A sum that is finite in the end was so all the way, and the mean is a quotient; else each step
/// has to be looked at.
fn mean(values: &[f64]) -> f64 {
    let (sum, compensation) = pair(values);
    if sum.is_finite() {
        let count = values.len() as f64;
        return sum / count + compensation / count;
    }
    let mut mean = KahanMean::default();
    values.iter().for_each(|value| mean.add(*value));
    mean.value()
}

#[inline(always)]
fn pair(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((0.0, 0.0), |(sum, c), value| kahan_inc(*value, sum, c))
}
