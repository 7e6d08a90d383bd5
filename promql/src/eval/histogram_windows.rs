//! Functions over windows that hold native histograms.
//!
//! The floats of a series are computed first as if it had no histograms. Here the windows that do
//! hold some are put right: they get a histogram, another number, or nothing, as Prometheus 3.14
//! has it for each function.

use std::ops::Range;
use std::sync::Arc;

use isobar_model::histogram::CounterReset;
use isobar_model::{Columns, FloatHistogram};

use super::histogram_rates::{self, Rates};
use super::remarks::quoted;
use super::tile::HistogramRow;
use crate::functions::range::started::Started;
use crate::functions::range::{Edges, RangeFn};
use crate::functions::row::{Row, Windows};

/// A histogram and its time.
pub(super) type Point = (i64, Arc<FloatHistogram>);
/// Texts of remarks, and whether each is a warning.
pub(super) type Remarks = Vec<(bool, String)>;

/// A histogram as a sample of a subquery: what its hint says of resets holds between other samples.
pub(super) fn of_subquery(histogram: &Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    let mut histogram = Arc::clone(histogram);
    if matches!(histogram.hint, CounterReset::Reset | CounterReset::NotReset) {
        Arc::make_mut(&mut histogram).hint = CounterReset::Unknown;
    }
    histogram
}

/// One window of a series.
pub(super) struct Window<'a> {
    times: &'a [i64],
    values: &'a [f64],
    pub(super) histograms: &'a [Point],
    /// Start times of the floats and of the histograms; either may be empty.
    start_times: &'a [i64],
    histogram_start_times: &'a [i64],
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    name: &'a str,
}

/// What a window gives.
enum Outcome {
    /// What its floats give.
    Floats,
    Nothing,
    Value(f64),
    Histogram(FloatHistogram),
    /// One of its histograms as it is.
    Same(Arc<FloatHistogram>),
}

/// Puts right the windows that hold histograms; gives the steps that have one now.
pub(super) fn apply(
    func: RangeFn,
    columns: &Columns,
    windows: &Windows,
    edges: Edges,
    name: &str,
    row: &mut Row<'_>,
    remarks: &mut Remarks,
) -> HistogramRow {
    if !columns.packed.is_empty() {
        return histogram_rates::apply(func, &columns.packed, windows, name, remarks);
    }
    let is_rate = matches!(func, RangeFn::Rate | RangeFn::Increase | RangeFn::Delta);
    let all: &[Point] = match is_rate && edges == Edges::Plain {
        true => &columns.histograms,
        false => &[],
    };
    let start_times = &columns.histogram_start_times;
    let rates = Rates::new(all, start_times, func, windows.range_ms, name);
    let mut result = HistogramRow::new();
    let mut floats = 0..0;
    let mut histograms = 0..0;
    let (before_ms, after_ms) = match edges {
        Edges::Plain => (0, 0),
        Edges::Anchored { lookback_ms } => (lookback_ms, 0),
        Edges::Smoothed { lookback_ms } => (lookback_ms, lookback_ms),
    };
    for step in 0..windows.count {
        let end_ms = windows.end_ms(step);
        let start_ms = end_ms - windows.range_ms;
        let (from, to) = (start_ms - before_ms, end_ms + after_ms);
        slide(&mut floats, columns.timestamps.len(), from, to, |i| {
            columns.timestamps[i]
        });
        slide(&mut histograms, columns.histograms.len(), from, to, |i| {
            columns.histograms[i].0
        });
        if histograms.is_empty() {
            continue;
        }
        let window = Window {
            times: &columns.timestamps[floats.clone()],
            values: &columns.values[floats.clone()],
            histograms: &columns.histograms[histograms.clone()],
            start_times: entries(&columns.start_times, &floats),
            histogram_start_times: entries(&columns.histogram_start_times, &histograms),
            start_ms,
            end_ms,
            name,
        };
        let outcome = match edges {
            Edges::Plain => window.outcome(func, &rates, histograms.clone(), remarks),
            _ if matches!(func, RangeFn::Changes | RangeFn::Resets) => window.anchored(func),
            _ if !window.values.is_empty() => {
                remarks.push((true, window.mixed()));
                Outcome::Nothing
            }
            _ => {
                let smoothed = matches!(edges, Edges::Smoothed { .. });
                match window.extended(func, windows.range_ms, smoothed, remarks) {
                    Some(histogram) => Outcome::Histogram(histogram),
                    None => Outcome::Nothing,
                }
            }
        };
        if !matches!(outcome, Outcome::Floats) {
            row.present[step / 64] &= !(1 << (step % 64));
        }
        match outcome {
            Outcome::Floats | Outcome::Nothing => {}
            Outcome::Value(value) => row.set(step, value),
            Outcome::Histogram(histogram) => result.push((step, Arc::new(histogram))),
            Outcome::Same(histogram) => result.push((step, histogram)),
        }
    }
    result
}

/// The entries of a column that may be empty.
fn entries<'a>(column: &'a [i64], range: &Range<usize>) -> &'a [i64] {
    column.get(range.clone()).unwrap_or_default()
}

/// Moves a range over samples to those with `start_ms < t <= end_ms`.
pub(super) fn slide(
    range: &mut Range<usize>,
    len: usize,
    start_ms: i64,
    end_ms: i64,
    time: impl Fn(usize) -> i64,
) {
    while range.end < len && time(range.end) <= end_ms {
        range.end += 1;
    }
    while range.start < range.end && time(range.start) <= start_ms {
        range.start += 1;
    }
}

impl Window<'_> {
    /// `rates` are those of the series, of which the window has the histograms `at`.
    fn outcome(
        &self,
        func: RangeFn,
        rates: &Rates<'_, &[Point]>,
        at: Range<usize>,
        remarks: &mut Remarks,
    ) -> Outcome {
        let mixed = !self.values.is_empty();
        let first = &self.histograms[0];
        let last = &self.histograms[self.histograms.len() - 1];
        let float_first = self.times.first().is_some_and(|t| *t < first.0);
        let float_last = self.times.last().is_some_and(|t| *t > last.0);
        match func {
            RangeFn::Count => Outcome::Value((self.values.len() + self.histograms.len()) as f64),
            RangeFn::Present | RangeFn::Absent => Outcome::Value(1.0),
            RangeFn::First if float_first => Outcome::Floats,
            RangeFn::First => Outcome::Same(Arc::clone(&first.1)),
            RangeFn::Last if float_last => Outcome::Floats,
            RangeFn::Last => Outcome::Same(Arc::clone(&last.1)),
            RangeFn::TsOfFirst if float_first => Outcome::Floats,
            RangeFn::TsOfFirst => Outcome::Value(first.0 as f64 / 1000.0),
            RangeFn::TsOfLast if float_last => Outcome::Floats,
            RangeFn::TsOfLast => Outcome::Value(last.0 as f64 / 1000.0),
            RangeFn::Changes | RangeFn::Resets => self.transitions(func),
            RangeFn::Irate | RangeFn::Idelta => self.instant(func == RangeFn::Irate, remarks),
            RangeFn::Rate | RangeFn::Increase | RangeFn::Delta | RangeFn::Sum | RangeFn::Avg
                if mixed =>
            {
                remarks.push((true, self.mixed()));
                Outcome::Nothing
            }
            RangeFn::Rate | RangeFn::Increase | RangeFn::Delta => {
                let times = (self.start_ms, self.end_ms);
                match rates.window(at, times, remarks) {
                    Some(histogram) => Outcome::Histogram(histogram),
                    None => Outcome::Nothing,
                }
            }
            RangeFn::Sum | RangeFn::Avg => self.fold(func == RangeFn::Avg, remarks),
            RangeFn::Deriv
            | RangeFn::PredictLinear
            | RangeFn::DoubleExponentialSmoothing
            | RangeFn::Min
            | RangeFn::Max
            | RangeFn::Stddev
            | RangeFn::Stdvar
            | RangeFn::Quantile
            | RangeFn::Mad
            | RangeFn::TsOfMin
            | RangeFn::TsOfMax
            | RangeFn::Xrate
            | RangeFn::Xincrease
            | RangeFn::Xdelta => {
                if mixed {
                    let text = "ignored histograms in a range containing both floats and \
                                histograms for metric name";
                    remarks.push((false, format!("{text} {}", quoted(self.name))));
                }
                Outcome::Floats
            }
        }
    }

    fn mixed(&self) -> String {
        mixed(self.name)
    }

    pub(super) fn mixed_schemas(&self) -> String {
        mixed_schemas(self.name)
    }

    pub(super) fn not_a(&self, kind: &str) -> String {
        not_a(kind, self.name)
    }

    /// The time of a float and since when it counts.
    fn float(&self, at: usize) -> Started {
        Started {
            time_ms: self.times[at],
            start_ms: self.start_times.get(at).copied().unwrap_or(0),
        }
    }

    /// The time of a histogram and since when it counts.
    fn histogram(&self, at: usize) -> Started {
        Started {
            time_ms: self.histograms[at].0,
            start_ms: self.histogram_start_times.get(at).copied().unwrap_or(0),
        }
    }

    /// Whether the histogram at `at` was reset, by its start time or by what it counts, since
    /// `before`, which came right before it.
    fn is_reset(&self, at: usize, before: &FloatHistogram) -> bool {
        self.histogram(at).is_reset(self.histogram(at - 1))
            || self.histograms[at].1.detect_reset(before)
    }

    /// `changes` and `resets` from the last sample before the window on.
    fn anchored(&self, func: RangeFn) -> Outcome {
        let floats = self.times.partition_point(|t| *t <= self.start_ms);
        let histograms = self.histograms.partition_point(|it| it.0 <= self.start_ms);
        if floats == self.times.len() && histograms == self.histograms.len() {
            return Outcome::Nothing;
        }
        let last_float = floats.checked_sub(1).map(|at| self.times[at]);
        let last_histogram = histograms.checked_sub(1).map(|at| self.histograms[at].0);
        let (floats, histograms) = match (last_float, last_histogram) {
            (None, None) => (0, 0),
            (float, histogram) if float >= histogram => (floats - 1, histograms),
            _ => (floats, histograms - 1),
        };
        let window = Window {
            times: &self.times[floats..],
            values: &self.values[floats..],
            histograms: &self.histograms[histograms..],
            start_times: entries(self.start_times, &(floats..self.times.len())),
            histogram_start_times: entries(
                self.histogram_start_times,
                &(histograms..self.histograms.len()),
            ),
            ..*self
        };
        window.transitions(func)
    }

    /// `changes` and `resets`.
    fn transitions(&self, func: RangeFn) -> Outcome {
        #[derive(Clone, Copy)]
        enum Sample<'a> {
            Float(f64),
            Histogram(&'a FloatHistogram),
        }
        let floats = self.values.iter().enumerate();
        let floats = floats.map(|(at, value)| (self.float(at), Sample::Float(*value)));
        let histograms = self.histograms.iter().enumerate();
        let histograms =
            histograms.map(|(at, (_, value))| (self.histogram(at), Sample::Histogram(value)));
        let mut all: Vec<_> = floats.chain(histograms).collect();
        all.sort_by_key(|it| it.0.time_ms);
        let resets = func == RangeFn::Resets;
        let counts = all.windows(2).filter(|pair| match (pair[0].1, pair[1].1) {
            (Sample::Float(before), Sample::Float(now)) if resets => {
                now < before || pair[1].0.is_reset(pair[0].0)
            }
            (Sample::Float(before), Sample::Float(now)) => {
                now != before && !(now.is_nan() && before.is_nan())
            }
            (Sample::Histogram(before), Sample::Histogram(now)) if resets => {
                pair[1].0.is_reset(pair[0].0) || now.detect_reset(before)
            }
            (Sample::Histogram(before), Sample::Histogram(now)) => now != before,
            _ => true,
        });
        Outcome::Value(counts.count() as f64)
    }

    /// `irate` and `idelta`: the last two samples, of whatever kind.
    fn instant(&self, is_rate: bool, remarks: &mut Remarks) -> Outcome {
        let count = self.histograms.len();
        let last = &self.histograms[count - 1];
        let before = count.checked_sub(2).map(|at| &self.histograms[at]);
        let floats_from = before.map_or(i64::MIN, |it| it.0);
        let floats_between = self.times.iter().filter(|t| **t > floats_from).count();
        let floats_after = self.times.iter().filter(|t| **t > last.0).count();
        let Some(before) = before.filter(|_| floats_between == 0) else {
            if floats_after >= 2 {
                return Outcome::Floats;
            }
            if floats_between == 0 {
                return Outcome::Nothing;
            }
            remarks.push((true, self.mixed()));
            return Outcome::Nothing;
        };
        let seconds = (last.0 - before.0) as f64 / 1000.0;
        let (now, before) = (&last.1, &before.1);
        let gauge = |it: &FloatHistogram| it.hint == CounterReset::Gauge;
        if is_rate && (gauge(now) || gauge(before)) {
            remarks.push((true, self.not_a("counter")));
        }
        if !is_rate && (!gauge(now) || !gauge(before)) {
            remarks.push((true, self.not_a("gauge")));
        }
        let mut result = FloatHistogram::clone(now);
        if !is_rate || !self.is_reset(count - 1, before) {
            match result.sub(before) {
                Err(_) => {
                    remarks.push((true, self.mixed_schemas()));
                    return Outcome::Nothing;
                }
                Ok(added) if added.bounds_reconciled => remarks.push(reconciled("subtraction")),
                Ok(_) => {}
            }
        }
        result.hint = CounterReset::Gauge;
        result.compact();
        if is_rate {
            result.div(seconds);
        }
        Outcome::Histogram(result)
    }

    /// `sum_over_time` and `avg_over_time`.
    fn fold(&self, mean: bool, remarks: &mut Remarks) -> Outcome {
        let mut fold = super::histogram_fold::Fold::new(&self.histograms[0].1, mean);
        for (_, histogram) in &self.histograms[1..] {
            if fold.add(histogram).is_err() {
                remarks.push((true, self.mixed_schemas()));
                return Outcome::Nothing;
            }
        }
        if fold.resets_collide() {
            remarks.push((true, collision("aggregation")));
        }
        if fold.bounds_reconciled {
            remarks.push(reconciled("aggregation"));
        }
        Outcome::Histogram(fold.value())
    }
}

/// The warning about floats among histograms.
pub(super) fn mixed(name: &str) -> String {
    let text = "encountered a mix of histograms and floats for metric name";
    format!("{text} {}", quoted(name))
}

/// The warning about two kinds of buckets.
pub(super) fn mixed_schemas(name: &str) -> String {
    let text = "vector contains a mix of histograms with exponential and custom buckets schemas \
                for metric name";
    format!("{text} {}", quoted(name))
}

/// The warning about histograms that are no counters, or no gauges.
pub(super) fn not_a(kind: &str, name: &str) -> String {
    let text = format!("this native histogram metric is not a {kind}:");
    format!("{text} {}", quoted(name))
}

/// The length of a window in seconds, as Go's `time.Duration` gives it.
pub(super) fn seconds_of_range(range_ms: i64) -> f64 {
    let whole = (range_ms / 1000) as f64;
    whole + (range_ms % 1000) as f64 * 1e6 / 1e9
}

/// The info about custom buckets that differ.
pub(super) fn reconciled(operation: &str) -> (bool, String) {
    let text = format!("mismatched custom buckets were reconciled during {operation}");
    (false, text)
}

/// The warning about hints that contradict each other.
pub(super) fn collision(operation: &str) -> String {
    format!("conflicting counter resets during histogram {operation}")
}
