//! `rate`, `increase` and `delta` on selectors with the modifiers `anchored` and `smoothed`:
//! no extrapolation, but samples or interpolated values right at the window's edges.

use isobar_model::Columns;

use super::rate::duration_seconds;
use super::window::{Input, Output, advance};
use super::{Edges, RangeFn};
use crate::functions::row::Windows;

/// The functions over each window, which is here wider than the selector's by the lookback.
pub(super) fn rate(
    func: RangeFn,
    input: Input<'_>,
    windows: &Windows,
    edges: Edges,
    out: &mut Output<'_, '_>,
) {
    let (before_ms, after_ms, smoothed) = match edges {
        Edges::Plain => (0, 0, false),
        Edges::Anchored { lookback_ms } => (lookback_ms, 0, false),
        Edges::Smoothed { lookback_ms } => (lookback_ms, lookback_ms, true),
    };
    let range_seconds = duration_seconds(windows.range_ms);
    let (mut from, mut to) = (0, 0);
    let (mut behind_start, mut at_end) = (0, 0);
    for step in 0..windows.count {
        let end_ms = windows.end_ms(step);
        let start_ms = end_ms.saturating_sub(windows.range_ms);
        from = advance(input.timestamps, from, start_ms.saturating_sub(before_ms));
        to = advance(input.timestamps, to, end_ms.saturating_add(after_ms));
        behind_start = advance(input.timestamps, behind_start, start_ms);
        at_end = advance(input.timestamps, at_end, end_ms.saturating_sub(1));
        if from >= to {
            continue;
        }
        let last = to - 1;
        let edges = (behind_start.min(last) - from, at_end.min(last) - from);
        let window = Window {
            timestamps: &input.timestamps[from..to],
            values: &input.values[from..to],
            start_ms,
            end_ms,
            smoothed,
            is_counter: func != RangeFn::Delta,
        };
        if let Some(increase) = window.increase(edges) {
            let is_rate = func == RangeFn::Rate;
            out.set(
                step,
                if is_rate {
                    increase / range_seconds
                } else {
                    increase
                },
            );
        }
    }
}

/// The samples that a range selector with these edges gives by itself: those inside of the window,
/// and a value at its start and at its end.
///
/// # Errors
/// Prometheus' text for histograms, which it does not extend.
pub(crate) fn samples(
    columns: &mut Columns,
    edges: Edges,
    start_ms: i64,
    end_ms: i64,
) -> Result<(), &'static str> {
    let smoothed = match edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored { .. } => false,
        Edges::Smoothed { .. } => true,
    };
    if !columns.histograms.is_empty() {
        return Err(match smoothed {
            true => "smoothed modifier is not supported with histograms",
            false => "anchored modifier is not supported with histograms",
        });
    }
    let (timestamps, values) = (&columns.timestamps, &columns.values);
    let mut extended = Columns::default();
    if let Some(end) = timestamps.len().checked_sub(1) {
        let window = Window {
            timestamps,
            values,
            start_ms,
            end_ms,
            smoothed,
            is_counter: false,
        };
        let first = timestamps[..end].partition_point(|t| *t <= start_ms);
        let first = first.saturating_sub(1);
        let last = match smoothed {
            true => timestamps[..end].partition_point(|t| *t < end_ms),
            false => end,
        };
        if timestamps[last] > start_ms {
            extended.push(start_ms, window.left(first));
            let inside = |i: &usize| timestamps[*i] > start_ms && timestamps[*i] < end_ms;
            for i in (first..=last).filter(inside) {
                extended.push(timestamps[i], values[i]);
            }
            extended.push(end_ms, window.right(last));
        }
    }
    *columns = extended;
    Ok(())
}

struct Window<'a> {
    timestamps: &'a [i64],
    values: &'a [f64],
    start_ms: i64,
    end_ms: i64,
    smoothed: bool,
    is_counter: bool,
}

impl Window<'_> {
    /// Of all samples but the last, `edges` are the first that is later than the start and the
    /// first that is not before the end, or else the last.
    fn increase(&self, edges: (usize, usize)) -> Option<f64> {
        let mut first = edges.0.saturating_sub(1);
        let last = match self.smoothed {
            true => edges.1,
            false => self.timestamps.len() - 1,
        };
        let starts_late = self.smoothed && self.timestamps[first] > self.end_ms;
        if self.timestamps[last] <= self.start_ms || starts_late {
            return None;
        }
        let left = self.left(first);
        let right = self.right(last);
        let mut increase = right - left;
        if self.is_counter {
            // Resets at the edges are part of the interpolated values already.
            if self.timestamps[first] <= self.start_ms {
                first += 1;
            }
            let inner_end = if self.timestamps[last] >= self.end_ms {
                last
            } else {
                last + 1
            };
            let inner = self.values.get(first..inner_end).unwrap_or(&[]);
            increase += corrections(left, inner, right);
        }
        Some(increase)
    }

    fn left(&self, first: usize) -> f64 {
        if self.smoothed && self.timestamps[first] < self.start_ms {
            return self.interpolate(first, self.start_ms);
        }
        self.values[first]
    }

    fn right(&self, last: usize) -> f64 {
        if self.smoothed && last > 0 && self.timestamps[last] > self.end_ms {
            return self.interpolate(last - 1, self.end_ms);
        }
        self.values[last]
    }

    /// The value at `time_ms` on the line between samples `at` and `at + 1`. A counter that is
    /// reset between them starts from zero.
    fn interpolate(&self, at: usize, time_ms: i64) -> f64 {
        let (t1, t2) = (self.timestamps[at], self.timestamps[at + 1]);
        let (mut y1, y2) = (self.values[at], self.values[at + 1]);
        if self.is_counter && y2 < y1 {
            y1 = 0.0;
        }
        y1 + (y2 - y1) * (time_ms - t1) as f64 / (t2 - t1) as f64
    }
}

/// The sum of the values before each fall on the way from `left` over `inner` to `right`.
fn corrections(left: f64, inner: &[f64], right: f64) -> f64 {
    let mut correction = 0.0;
    let mut previous = left;
    for value in inner.iter().chain([&right]) {
        if *value < previous {
            correction += previous;
        }
        previous = *value;
    }
    correction
}
