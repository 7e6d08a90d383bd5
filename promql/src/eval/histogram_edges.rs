//! `rate` and its kin over native histograms with the modifiers `anchored` and `smoothed`: no
//! extrapolation, but samples or interpolated histograms right at the window's edges.

use std::sync::Arc;

use isobar_model::FloatHistogram;
use isobar_model::histogram::{Added, CounterReset, HistogramError};

use super::histogram_windows::{Point, Remarks, Window, reconciled, seconds_of_range};
use crate::functions::range::RangeFn;

/// Histograms did not go together.
pub(super) struct Mixed;

impl From<HistogramError> for Mixed {
    fn from(_: HistogramError) -> Self {
        Mixed
    }
}

/// The histogram at `time_ms` on the line between two. A counter that is reset between them
/// starts from zero.
pub(super) fn interpolate(
    before: &Point,
    after: &Point,
    time_ms: i64,
    is_counter: bool,
    remarks: &mut Remarks,
) -> Result<FloatHistogram, Mixed> {
    if time_ms == before.0 {
        return Ok(FloatHistogram::clone(&before.1));
    }
    let mut result = FloatHistogram::clone(&after.1);
    if time_ms == after.0 {
        return Ok(result);
    }
    let fraction = (time_ms - before.0) as f64 / (after.0 - before.0) as f64;
    if is_counter && after.1.detect_reset(&before.1) {
        result.mul(fraction);
        return Ok(result);
    }
    note(result.sub(&before.1)?, "subtraction", remarks);
    result.mul(fraction);
    note(result.add(&before.1)?, "addition", remarks);
    Ok(result)
}

fn note(added: Added, operation: &str, remarks: &mut Remarks) {
    if added.bounds_reconciled {
        remarks.push(reconciled(operation));
    }
}

impl Window<'_> {
    /// The result of `rate`, `increase` or `delta`; `None` where there is none.
    pub(super) fn extended(
        &self,
        func: RangeFn,
        range_ms: i64,
        smoothed: bool,
        remarks: &mut Remarks,
    ) -> Option<FloatHistogram> {
        match self.extended_or_mixed(func, range_ms, smoothed, remarks) {
            Ok(result) => result,
            Err(Mixed) => {
                remarks.push((true, self.mixed_schemas()));
                None
            }
        }
    }

    fn extended_or_mixed(
        &self,
        func: RangeFn,
        range_ms: i64,
        smoothed: bool,
        remarks: &mut Remarks,
    ) -> Result<Option<FloatHistogram>, Mixed> {
        let h = self.histograms;
        let is_counter = func != RangeFn::Delta;
        let mut last = h.len() - 1;
        let first = h[..last].partition_point(|it| it.0 <= self.start_ms);
        let first = first.saturating_sub(1);
        if smoothed {
            last = h[..last].partition_point(|it| it.0 < self.end_ms);
        }
        let starts_late = smoothed && h[first].0 > self.end_ms;
        if h[last].0 <= self.start_ms || starts_late {
            return Ok(None);
        }
        for (_, histogram) in &h[first..=last.max(first)] {
            if histogram.is_custom() != h[first].1.is_custom() {
                return Err(Mixed);
            }
            if is_counter && histogram.hint == CounterReset::Gauge {
                remarks.push((true, self.not_a("counter")));
            }
        }
        let left = match smoothed && h[first].0 < self.start_ms {
            true => interpolate(&h[first], &h[first + 1], self.start_ms, is_counter, remarks)?,
            false => FloatHistogram::clone(&h[first].1),
        };
        let right = match smoothed && last > 0 && h[last].0 > self.end_ms {
            true => interpolate(&h[last - 1], &h[last], self.end_ms, is_counter, remarks)?,
            false => FloatHistogram::clone(&h[last].1),
        };
        let gauge = |it: &FloatHistogram| it.hint == CounterReset::Gauge;
        if !is_counter && (!gauge(&left) || !gauge(&right)) {
            remarks.push((true, self.not_a("gauge")));
        }
        let mut result = right.clone();
        note(result.sub(&left)?, "subtraction", remarks);
        if is_counter
            && let Some(lost) = self.lost((first, last), &left, &right, smoothed, remarks)?
        {
            note(result.add(&lost)?, "addition", remarks);
        }
        if func == RangeFn::Rate {
            result.div(seconds_of_range(range_ms));
        }
        result.hint = CounterReset::Gauge;
        result.compact();
        Ok(Some(result))
    }

    /// What resets between the edges took away.
    fn lost(
        &self,
        (first, last): (usize, usize),
        left: &FloatHistogram,
        right: &FloatHistogram,
        smoothed: bool,
        remarks: &mut Remarks,
    ) -> Result<Option<FloatHistogram>, Mixed> {
        let h = self.histograms;
        let mut from = first + 1;
        let mut before = left;
        // A reset that the left edge was interpolated over is part of it already.
        if smoothed && h[first].0 < self.start_ms && h[first + 1].1.detect_reset(&h[first].1) {
            before = &h[first + 1].1;
            from += 1;
        }
        if from > last {
            return Ok(None);
        }
        let mut lost: Option<FloatHistogram> = None;
        let inner = h[from..last].iter().map(|it| Arc::as_ref(&it.1));
        for now in inner.chain([right]) {
            if now.detect_reset(before) {
                match &mut lost {
                    None => lost = Some(before.clone()),
                    Some(lost) => note(lost.add(before)?, "addition", remarks),
                }
            }
            before = now;
        }
        Ok(lost)
    }
}
