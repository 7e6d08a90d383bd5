//! Quantiles and median deviations over windows.

use super::window::{Input, Output};
use super::{Param, Scratch};
use crate::functions::quantile::{is_valid_quantile, quantile};
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
    let buffer = &mut scratch.values;
    input.fold(windows, out, |step, values| {
        let q = q.at(step);
        let is_new = || {
            invalid
                .last()
                .is_none_or(|last| last.to_bits() != q.to_bits())
        };
        if !is_valid_quantile(q) && is_new() {
            invalid.push(q);
        }
        buffer.clear();
        buffer.extend_from_slice(values);
        quantile(q, buffer)
    });
}

/// `mad_over_time`: the median of the distances from the median; NaN where a value is NaN.
pub(super) fn deviations(
    input: Input<'_>,
    windows: &Windows,
    out: &mut Output<'_, '_>,
    scratch: &mut Scratch,
) {
    let buffer = &mut scratch.values;
    input.fold(windows, out, |_, values| {
        if values.iter().any(|value| value.is_nan()) {
            return f64::NAN;
        }
        buffer.clear();
        buffer.extend_from_slice(values);
        let median = quantile(0.5, buffer);
        buffer
            .iter_mut()
            .for_each(|value| *value = (*value - median).abs());
        quantile(0.5, buffer)
    });
}
