//! Sums, means and variances over windows, with compensated arithmetic.

use super::RangeFn;
use super::window::{Input, Output};
use crate::functions::row::Windows;
use crate::functions::sum::{KahanMean, KahanVariance, kahan_inc};

/// `sum_over_time`, `avg_over_time`, `stddev_over_time` and `stdvar_over_time`.
pub(super) fn over_time(
    func: RangeFn,
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
) {
    match func {
        RangeFn::Sum => input.fold(windows, out, |_, values| sum(values)),
        RangeFn::Avg => input.fold(windows, out, |_, values| mean(values)),
        RangeFn::Stddev => input.fold(windows, out, |_, values| variance(values).sqrt()),
        _ => input.fold(windows, out, |_, values| variance(values)),
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

fn variance(values: &[f64]) -> f64 {
    let mut variance = KahanVariance::default();
    values.iter().for_each(|value| variance.add(*value));
    variance.value()
}

#[inline(always)]
fn pair(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((0.0, 0.0), |(sum, c), value| kahan_inc(*value, sum, c))
}
