//! Functions over windows of samples (`rate`, `sum_over_time`, …): one series at a time, all
//! windows of the query in one call to [`apply`].
//!
//! What holds for all of them:
//! - The samples carry no staleness markers: the caller removes them first. Other NaNs and the
//!   infinities are ordinary values.
//! - A window without samples has no result. Some functions need two samples.
//! - Samples outside of all windows are harmless; they are not looked at.
//! - Start times of samples, where there are any, count for `rate`, `increase`, `irate` and
//!   `resets`; the caller takes them out when they are not to be used.
//! - Results are those of Prometheus 3.14's `promql/functions.go`.
//!
//! Two indices slide over the samples, so that finding all windows costs O(samples + windows).
//! `rate` and its like, `min`, `max`, the counting functions and the sums of long windows need no
//! more than that in all. Sums of short windows, variances, regressions and quantiles visit each
//! window's samples: their last digits depend on where a window begins.

use isobar_model::Columns;

use super::row::{Row, Windows};

mod batch;
mod window;

mod rate;
pub(crate) mod started;

mod counts;
pub(crate) mod extended;
mod extreme;
mod fold;
mod order;
mod trend;
mod xrate;

pub use xrate::EXTENDED_LOOKBACK_MS;

/// A function over a window of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeFn {
    /// `rate`: increase of a counter per second, extrapolated to the window.
    Rate,
    /// `increase`: increase of a counter, extrapolated to the window.
    Increase,
    /// `delta`: difference of a gauge, extrapolated to the window.
    Delta,
    /// `irate`: increase per second between the last two samples.
    Irate,
    /// `idelta`: difference of the last two samples.
    Idelta,
    /// `deriv`: slope per second by linear regression.
    Deriv,
    /// `predict_linear(v, seconds)`: value that the regression gives that much later than the step.
    PredictLinear,
    /// `double_exponential_smoothing(v, smoothing, trend)`.
    DoubleExponentialSmoothing,
    /// `changes`: how often the value changed.
    Changes,
    /// `resets`: how often the value fell.
    Resets,
    /// `avg_over_time`
    Avg,
    /// `sum_over_time`
    Sum,
    /// `min_over_time`
    Min,
    /// `max_over_time`
    Max,
    /// `count_over_time`
    Count,
    /// `first_over_time`
    First,
    /// `last_over_time`
    Last,
    /// `present_over_time`: 1 for each window with samples.
    Present,
    /// `absent_over_time`: also 1 for each window with samples; the caller merges all series and
    /// answers 1 where none has any.
    Absent,
    /// `stddev_over_time`
    Stddev,
    /// `stdvar_over_time`
    Stdvar,
    /// `quantile_over_time(q, v)`
    Quantile,
    /// `mad_over_time`: median of the absolute deviations from the median.
    Mad,
    /// `ts_of_first_over_time`, unix seconds as the following.
    TsOfFirst,
    /// `ts_of_last_over_time`
    TsOfLast,
    /// `ts_of_min_over_time`: of the last of equal minima.
    TsOfMin,
    /// `ts_of_max_over_time`: of the last of equal maxima.
    TsOfMax,
    /// Thanos' `xrate`. This and the following read [`EXTENDED_LOOKBACK_MS`] more before the
    /// first window.
    Xrate,
    /// Thanos' `xincrease`
    Xincrease,
    /// Thanos' `xdelta`
    Xdelta,
}

impl RangeFn {
    /// The function of that name in queries.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => RangeFn::Rate,
            "increase" => RangeFn::Increase,
            "delta" => RangeFn::Delta,
            "irate" => RangeFn::Irate,
            "idelta" => RangeFn::Idelta,
            "deriv" => RangeFn::Deriv,
            "predict_linear" => RangeFn::PredictLinear,
            "double_exponential_smoothing" => RangeFn::DoubleExponentialSmoothing,
            "changes" => RangeFn::Changes,
            "resets" => RangeFn::Resets,
            "avg_over_time" => RangeFn::Avg,
            "sum_over_time" => RangeFn::Sum,
            "min_over_time" => RangeFn::Min,
            "max_over_time" => RangeFn::Max,
            "count_over_time" => RangeFn::Count,
            "first_over_time" => RangeFn::First,
            "last_over_time" => RangeFn::Last,
            "present_over_time" => RangeFn::Present,
            "absent_over_time" => RangeFn::Absent,
            "stddev_over_time" => RangeFn::Stddev,
            "stdvar_over_time" => RangeFn::Stdvar,
            "quantile_over_time" => RangeFn::Quantile,
            "mad_over_time" => RangeFn::Mad,
            "ts_of_first_over_time" => RangeFn::TsOfFirst,
            "ts_of_last_over_time" => RangeFn::TsOfLast,
            "ts_of_min_over_time" => RangeFn::TsOfMin,
            "ts_of_max_over_time" => RangeFn::TsOfMax,
            "xrate" => RangeFn::Xrate,
            "xincrease" => RangeFn::Xincrease,
            "xdelta" => RangeFn::Xdelta,
            _ => return None,
        })
    }

    /// The place of the range vector among the function's arguments.
    pub fn range_arg(self) -> usize {
        usize::from(self == RangeFn::Quantile)
    }

    /// How many numbers the function takes besides the range vector, in the order of its
    /// arguments: [`RangeArgs::params`].
    pub fn param_count(self) -> usize {
        match self {
            RangeFn::Quantile | RangeFn::PredictLinear => 1,
            RangeFn::DoubleExponentialSmoothing => 2,
            _ => 0,
        }
    }

    /// Whether the result keeps the metric's name.
    pub fn keeps_metric_name(self) -> bool {
        matches!(self, RangeFn::First | RangeFn::Last)
    }

    /// Whether Prometheus hints at metrics whose names do not look like counters' ("metric might
    /// not be a counter, …"): once per series that has a result anywhere.
    pub fn wants_counter_name(self) -> bool {
        matches!(self, RangeFn::Rate | RangeFn::Increase)
    }

    /// Whether the last sample before a window counts for it.
    pub fn is_extended(self) -> bool {
        matches!(self, RangeFn::Xrate | RangeFn::Xincrease | RangeFn::Xdelta)
    }

    /// Whether the function may stand on a range vector selector with this modifier.
    pub fn allows(self, edges: Edges) -> bool {
        match edges {
            Edges::Plain => true,
            Edges::Smoothed { .. } => {
                matches!(self, RangeFn::Rate | RangeFn::Increase | RangeFn::Delta)
            }
            Edges::Anchored { .. } => {
                self.allows(Edges::Smoothed { lookback_ms: 0 })
                    || matches!(self, RangeFn::Changes | RangeFn::Resets)
            }
        }
    }
}

/// How samples around the edges of a window are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Edges {
    /// The window's own samples only.
    #[default]
    Plain,
    /// Modifier `anchored`: also the last sample at or before the window's start. The caller
    /// reads `lookback_ms` more before the first window.
    Anchored {
        /// How far before a window its anchor may lie, in milliseconds.
        lookback_ms: i64,
    },
    /// Modifier `smoothed`: the values at the edges are interpolated with the samples next to
    /// them outside. The caller reads `lookback_ms` more on both sides.
    Smoothed {
        /// How far from a window these samples may lie, in milliseconds.
        lookback_ms: i64,
    },
}

/// A number that a function is given besides its samples.
#[derive(Debug, Clone, Copy)]
pub enum Param<'a> {
    /// The same at all steps.
    Const(f64),
    /// One number for each step.
    PerStep(&'a [f64]),
}

impl Param<'_> {
    /// The number at step `step`.
    #[inline]
    pub fn at(&self, step: usize) -> f64 {
        match self {
            Param::Const(value) => *value,
            Param::PerStep(values) => values[step],
        }
    }
}

/// What a function is given besides its samples.
#[derive(Debug, Clone, Copy)]
pub struct RangeArgs<'a> {
    /// [`RangeFn::param_count`] of these are read.
    pub params: [Param<'a>; 2],
    /// How the edges of windows are treated. [`RangeFn::allows`] must hold for it.
    pub edges: Edges,
    /// The time of the first step in unix milliseconds, before any offset or `@` of the selector.
    /// Only `predict_linear` reads it.
    pub first_step_ms: i64,
    /// The distance between steps in milliseconds.
    pub step_ms: i64,
}

impl RangeArgs<'_> {
    /// The arguments of a function without parameters, for steps at the ends of the windows.
    pub fn plain(windows: &Windows) -> RangeArgs<'static> {
        RangeArgs {
            params: [Param::Const(0.0); 2],
            edges: Edges::Plain,
            first_step_ms: windows.first_end_ms,
            step_ms: windows.step_ms,
        }
    }
}

/// What was noticed on the way, for annotations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Notes {
    /// Whether any window has a result. With [`RangeFn::wants_counter_name`] the caller then
    /// looks at the metric's name.
    pub any_result: bool,
    /// Values of `q` that are no quantiles, met at windows with samples, in the order of the
    /// steps, repetitions in a row left out: "quantile value should be between 0 and 1, got …".
    pub invalid_quantiles: Vec<f64>,
    /// Steps whose windows hold samples that count over times that overlap: "sample has start
    /// time that overlaps with previous sample timestamp …".
    pub overlapping: Vec<usize>,
}

/// Why a function cannot be computed; the query fails with this text.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RangeError {
    /// The first parameter of `double_exponential_smoothing`.
    #[error("invalid smoothing factor. Expected: 0 < sf < 1, got: {0:.6}")]
    SmoothingFactor(GoFloat),
    /// The second parameter of `double_exponential_smoothing`.
    #[error("invalid trend factor. Expected: 0 < tf < 1, got: {0:.6}")]
    TrendFactor(GoFloat),
    /// Thanos' functions know no histograms; the text is its engine's.
    #[error("native histograms are not supported in extended range functions")]
    ExtendedHistograms,
}

/// A number that prints as with Go's `%f`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GoFloat(pub f64);

impl std::fmt::Display for GoFloat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            value => write!(f, "{value:.6}"),
        }
    }
}

/// Memory that calls reuse. One for each thread.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Indices of samples: of counter resets, or of a monotonic queue.
    indices: Vec<usize>,
    /// Values of a window, to be reordered.
    values: Vec<f64>,
    /// Compensated sums.
    pairs: Vec<(f64, f64)>,
}

/// Computes `func` over all windows of one series and sets those steps of `out` that have a
/// result. The presence bits of `out` must be clear before.
///
/// # Errors
/// `double_exponential_smoothing` fails when a factor is out of range at a step whose window has
/// samples, Thanos' functions when there are histograms.
pub fn apply(
    func: RangeFn,
    samples: &Columns,
    windows: &Windows,
    args: &RangeArgs<'_>,
    out: &mut Row<'_>,
    scratch: &mut Scratch,
) -> Result<Notes, RangeError> {
    let input = window::Input {
        timestamps: &samples.timestamps,
        values: &samples.values,
        start_times: &samples.start_times,
    };
    let mut out = window::Output::new(out);
    let mut invalid_quantiles = Vec::new();
    let mut overlapping = Vec::new();
    match (func, args.edges) {
        (RangeFn::Xrate | RangeFn::Xincrease | RangeFn::Xdelta, _) => {
            if !samples.histograms.is_empty() {
                return Err(RangeError::ExtendedHistograms);
            }
            xrate::extended(func, input, windows, &mut out, scratch);
        }
        (RangeFn::Changes | RangeFn::Resets, _) => {
            counts::transitions(func, input, windows, args.edges, &mut out, scratch);
        }
        (_, Edges::Anchored { .. } | Edges::Smoothed { .. }) => {
            extended::rate(func, input, windows, args.edges, &mut out);
        }
        (RangeFn::Rate | RangeFn::Increase, _) if !input.start_times.is_empty() => {
            overlapping = started::extrapolated(func, input, windows, &mut out, scratch);
        }
        (RangeFn::Irate, _) if !input.start_times.is_empty() => {
            started::instant(input, windows, &mut out);
        }
        (RangeFn::Rate | RangeFn::Increase | RangeFn::Delta, _) => {
            rate::extrapolated(func, input, windows, &mut out, scratch);
        }
        (RangeFn::Irate | RangeFn::Idelta, _) => rate::instant(func, input, windows, &mut out),
        (RangeFn::Deriv | RangeFn::PredictLinear, _) => {
            trend::regression(func, input, windows, args, &mut out);
        }
        (RangeFn::DoubleExponentialSmoothing, _) => {
            trend::smoothing(input, windows, args, &mut out)?;
        }
        (RangeFn::Min | RangeFn::Max | RangeFn::TsOfMin | RangeFn::TsOfMax, _) => {
            extreme::over_time(func, input, windows, &mut out, scratch);
        }
        (RangeFn::Avg | RangeFn::Sum | RangeFn::Stddev | RangeFn::Stdvar, _) => {
            fold::over_time(func, input, windows, &mut out, scratch);
        }
        (RangeFn::Quantile, _) => {
            let q = &args.params[0];
            order::quantiles(input, windows, q, &mut out, scratch, &mut invalid_quantiles);
        }
        (RangeFn::Mad, _) => order::deviations(input, windows, &mut out, scratch),
        (
            RangeFn::Count
            | RangeFn::First
            | RangeFn::Last
            | RangeFn::Present
            | RangeFn::Absent
            | RangeFn::TsOfFirst
            | RangeFn::TsOfLast,
            _,
        ) => counts::simple(func, input, windows, &mut out),
    }
    Ok(Notes {
        any_result: out.any_result(),
        invalid_quantiles,
        overlapping,
    })
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;
