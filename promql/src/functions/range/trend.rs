//! Linear regression (`deriv`, `predict_linear`) and double exponential smoothing.

use super::window::{Input, Output};
use super::{GoFloat, RangeArgs, RangeError, RangeFn, batch};
use crate::functions::row::Windows;
use crate::functions::sum::KahanSum;

/// `deriv` and `predict_linear`: a line through the samples of each window by least squares.
pub(super) fn regression(
    func: RangeFn,
    input: Input<'_>,
    windows: &Windows,
    args: &RangeArgs<'_>,
    out: &mut Output<'_, '_>,
) {
    for (step, window) in input.slide(windows) {
        if window.len() < 2 {
            continue;
        }
        let (timestamps, values) = (&input.timestamps[window.clone()], &input.values[window]);
        let value = if func == RangeFn::Deriv {
            // A nearby time as origin keeps digits.
            Line::through(timestamps, values, timestamps[0]).slope
        } else {
            let step_ms = args.first_step_ms + args.step_ms * step as i64;
            let line = Line::through(timestamps, values, step_ms);
            line.slope * args.params[0].at(step) + line.intercept
        };
        out.set(step, value);
    }
}

struct Line {
    /// Per second.
    slope: f64,
    /// The value at the origin.
    intercept: f64,
}

impl Line {
    fn through(timestamps: &[i64], values: &[f64], origin_ms: i64) -> Line {
        let first = values[0];
        if values[1..].iter().all(|value| *value == first) {
            return if first.is_infinite() {
                Line {
                    slope: f64::NAN,
                    intercept: f64::NAN,
                }
            } else {
                Line {
                    slope: 0.0,
                    intercept: first,
                }
            };
        }
        let [mut sum_x, mut sum_y, mut sum_xy, mut sum_x2] = [KahanSum::default(); 4];
        for (time, y) in timestamps.iter().zip(values) {
            let x = (time - origin_ms) as f64 / 1e3;
            sum_x.add(x);
            sum_y.add(*y);
            sum_xy.add(x * y);
            sum_x2.add(x * x);
        }
        let n = values.len() as f64;
        let (x, y) = (sum_x.value(), sum_y.value());
        let covariance = sum_xy.value() - x * y / n;
        let variance = sum_x2.value() - x * x / n;
        let slope = covariance / variance;
        Line {
            slope,
            intercept: y / n - slope * x / n,
        }
    }
}

/// `double_exponential_smoothing` (Holt's linear trend method) over each window.
pub(super) fn smoothing(
    input: Input<'_>,
    windows: &Windows,
    args: &RangeArgs<'_>,
    out: &mut Output<'_, '_>,
) -> Result<(), RangeError> {
    for (step, _) in input.slide(windows) {
        let (smoothing, trend) = (args.params[0].at(step), args.params[1].at(step));
        if smoothing <= 0.0 || smoothing >= 1.0 {
            return Err(RangeError::SmoothingFactor(GoFloat(smoothing)));
        }
        if trend <= 0.0 || trend >= 1.0 {
            return Err(RangeError::TrendFactor(GoFloat(trend)));
        }
    }
    let begin = |step, values: &[f64]| {
        let [first, second, ..] = *values else {
            return None;
        };
        let mut level = Level {
            smoothing: args.params[0].at(step),
            trend: args.params[1].at(step),
            before: 0.0,
            smoothed: first,
            slope: second - first,
        };
        level.smooth(second);
        Some((level, 2))
    };
    batch::fold_from(input, windows, out, begin, Level::add, |level| {
        level.smoothed
    });
    Ok(())
}

/// Where the smoothed values are after some samples.
#[derive(Clone, Copy)]
struct Level {
    smoothing: f64,
    trend: f64,
    before: f64,
    smoothed: f64,
    slope: f64,
}

impl Level {
    #[inline(always)]
    fn add(&mut self, value: f64) {
        self.slope = self.trend * (self.smoothed - self.before) + (1.0 - self.trend) * self.slope;
        self.smooth(value);
    }

    #[inline(always)]
    fn smooth(&mut self, value: f64) {
        let next = self.smoothing * value + (1.0 - self.smoothing) * (self.smoothed + self.slope);
        (self.before, self.smoothed) = (self.smoothed, next);
    }
}
