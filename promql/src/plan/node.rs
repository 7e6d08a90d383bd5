//! The nodes of a logical plan: what is computed, over which steps, from which select.
//!
//! Everything that depends on the query alone is resolved here: times of every step, windows,
//! constant parameters, the labels of `absent`. What depends on the series is left to
//! [`crate::eval`].

use isobar_model::{Labels, Matcher, TimeRange};

use crate::functions::histogram::HistogramFn;
use crate::functions::labels::{LabelJoin, LabelReplace};
use crate::functions::range::{Edges, RangeFn};
use crate::functions::row::Windows;
use crate::functions::scalar::ScalarFn;
use crate::parse::ast::{AggregateOp, BinaryOp, VectorMatching};

/// The steps over which a node is evaluated: `start_ms + i * step_ms` for `i < count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Unix milliseconds of the first step.
    pub(crate) start_ms: i64,
    /// Distance between steps in milliseconds, at least 1.
    pub(crate) step_ms: i64,
    /// The number of steps.
    pub(crate) count: usize,
    /// Whether the range that was asked for is one moment (an instant query, or a range whose
    /// start is its end). Some functions sort or warn depending on it.
    pub(crate) single: bool,
}

impl Grid {
    /// The grid of `start_ms..=end_ms`.
    pub(crate) fn new(start_ms: i64, end_ms: i64, step_ms: i64) -> Self {
        let step_ms = step_ms.max(1);
        let count = match usize::try_from((end_ms - start_ms).div_euclid(step_ms)) {
            Ok(steps) => steps + 1,
            Err(_) => 0,
        };
        Grid {
            start_ms,
            step_ms,
            count,
            single: start_ms == end_ms,
        }
    }

    /// The grid that holds only the first step.
    pub(crate) fn first(&self) -> Self {
        Grid {
            count: self.count.min(1),
            single: true,
            ..*self
        }
    }

    /// Unix milliseconds of step `i`.
    pub(crate) fn time_ms(&self, i: usize) -> i64 {
        self.start_ms + self.step_ms * i as i64
    }
}

/// What is known of the metric names in a node's output before it is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// No series has a name.
    None,
    /// All series have the same name.
    One,
    /// Series may have different names, or some a name and some none.
    Any,
}

/// A node whose value is an instant vector at each step.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it computes.
    pub(crate) kind: Kind,
    /// When.
    pub(crate) grid: Grid,
    /// The place in the order of evaluation; of two equal remarks the one with the higher rank
    /// gives its position.
    pub(crate) rank: u32,
    /// What is known of the names.
    pub(crate) names: Names,
}

/// What a node computes.
#[derive(Debug)]
pub(crate) enum Kind {
    /// No series at all.
    Empty,
    /// An instant selector.
    Select(InstantSelect),
    /// `timestamp(selector)`
    SampleTime(InstantSelect),
    /// `start_timestamp(selector)`
    StartTime(InstantSelect),
    /// A function over windows.
    Range(Box<RangeCall>),
    /// A function of one number, and of parameters.
    Map(Box<Map>),
    /// A binary operation with a scalar.
    WithScalar(Box<WithScalar>),
    /// Unary minus.
    Negate(Box<Node>),
    /// A binary operation between vectors.
    Match(Box<Match>),
    /// `and`, `or`, `unless`.
    Set(Box<Set>),
    /// An aggregation that gives one series for each group.
    Fold(Box<Aggregation>),
    /// An aggregation that gives some of its input series.
    Pick(Box<Aggregation>),
    /// `count_values`
    CountValues(Box<CountValues>),
    /// `absent` and `absent_over_time`: 1 with these labels where the input has no sample.
    Absent {
        /// The labels of the result.
        labels: Labels,
        /// The input.
        input: Box<Node>,
    },
    /// `vector(…)` and the date functions without argument.
    FromScalar(Scalar),
    /// Evaluated at the first step and repeated.
    Hold(Box<Node>),
    /// `sort` and its kin.
    Sort(Box<Sort>),
    /// `label_replace` and `label_join`.
    Relabel(Box<Relabel>),
    /// `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`.
    Buckets(Box<Buckets>),
    /// `info`
    Info(Box<Info>),
    /// The rows of the shared node of that number.
    Shared(usize),
}

/// An instant selector with its times resolved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstantSelect {
    /// Number of the select.
    pub(crate) select: usize,
    /// Where the first step looks: `offset` and `@` applied.
    pub(crate) first_ms: i64,
    /// How far the next step looks ahead; 0 with `@`.
    pub(crate) step_ms: i64,
    /// How far a step looks back; a sample exactly that old is not seen.
    pub(crate) lookback_ms: i64,
    /// Modifier `smoothed`: between two samples the value is interpolated.
    pub(crate) smoothed: bool,
    /// Whether of histograms only counts and sums are used.
    pub(crate) stats: bool,
    /// Offset in the query, for remarks.
    pub(crate) at: usize,
    /// Nothing later than this is seen.
    pub(crate) until_ms: Option<i64>,
    /// Number of the [`Counting`](super::counting::Counting) of its samples.
    pub(crate) counting: usize,
}

impl InstantSelect {
    /// The times of the samples that `count` steps look at.
    pub(crate) fn samples_needed(&self, count: usize) -> TimeRange {
        let last_ms = self.first_ms + self.step_ms * (count as i64 - 1).max(0);
        let last_ms = self.until_ms.unwrap_or(last_ms);
        let after_ms = if self.smoothed { self.lookback_ms } else { 0 };
        TimeRange::new(
            self.first_ms.saturating_sub(self.lookback_ms - 1),
            last_ms.saturating_add(after_ms),
        )
    }
}

/// Where the samples of a window come from.
#[derive(Debug)]
pub(crate) enum WindowSource {
    /// A range selector.
    Select(usize),
    /// A subquery; the node is evaluated on the inner grid.
    Subquery(Node),
}

/// A function over windows.
#[derive(Debug)]
pub(crate) struct RangeCall {
    /// The function.
    pub(crate) func: RangeFn,
    /// How the edges of windows are treated.
    pub(crate) edges: Edges,
    /// The samples.
    pub(crate) source: WindowSource,
    /// The windows, one for each step.
    pub(crate) windows: Windows,
    /// Number of the [`Counting`](super::counting::Counting) of its samples.
    pub(crate) counting: usize,
    /// The other arguments in order.
    pub(crate) params: Vec<Scalar>,
    /// Whether of histograms only counts and sums are used.
    pub(crate) stats: bool,
    /// Whether start times of samples are used.
    pub(crate) start_times: bool,
    /// Offset in the query of the range argument, for remarks.
    pub(crate) range_at: usize,
    /// Offset in the query of the first argument, for remarks.
    pub(crate) first_at: usize,
}

/// A function of one number, applied to each value.
#[derive(Debug)]
pub(crate) struct Map {
    /// The function.
    pub(crate) func: MapFn,
    /// The vector.
    pub(crate) input: Node,
}

/// The functions of one number, with their parameters.
#[derive(Debug)]
pub(crate) enum MapFn {
    /// One without parameters.
    Plain(ScalarFn),
    /// One of native histograms.
    Histogram(HistogramFn),
    /// `round` to a multiple of this.
    Round(Scalar),
    /// `clamp`, `clamp_min`, `clamp_max` between these.
    Clamp(Scalar, Scalar),
    /// `timestamp` of anything but a selector: the time of the step.
    StepTime,
}

/// A binary operation between a vector and a scalar.
#[derive(Debug)]
pub(crate) struct WithScalar {
    /// The operator.
    pub(crate) op: BinaryOp,
    /// Whether a comparison gives 0 and 1.
    pub(crate) return_bool: bool,
    /// Whether the scalar stands on the left.
    pub(crate) scalar_left: bool,
    /// The vector.
    pub(crate) input: Node,
    /// The scalar.
    pub(crate) scalar: Scalar,
    /// Offset in the query of the operation, for remarks.
    pub(crate) at: usize,
}

/// An arithmetic or comparison operation between two vectors.
#[derive(Debug)]
pub(crate) struct Match {
    /// The operator.
    pub(crate) op: BinaryOp,
    /// Whether a comparison gives 0 and 1.
    pub(crate) return_bool: bool,
    /// How elements are matched.
    pub(crate) matching: VectorMatching,
    /// Left operand.
    pub(crate) lhs: Node,
    /// Right operand.
    pub(crate) rhs: Node,
    /// Whether the side that streams past the other is not read when that is empty.
    pub(crate) skips_many: bool,
    /// Offset in the query of the operation, for remarks.
    pub(crate) at: usize,
}

/// Which side of a set operation is not read when the other is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skips {
    /// Both are read.
    Nothing,
    /// The left one.
    Left,
    /// The right one. It is read when the first rows of the left one are there.
    Right,
}

/// A set operation.
#[derive(Debug)]
pub(crate) struct Set {
    /// The operator.
    pub(crate) op: BinaryOp,
    /// How elements are matched.
    pub(crate) matching: VectorMatching,
    /// Left operand.
    pub(crate) lhs: Node,
    /// Right operand.
    pub(crate) rhs: Node,
    /// What need not be read.
    pub(crate) skips: Skips,
}

/// An aggregation.
#[derive(Debug)]
pub(crate) struct Aggregation {
    /// The operator.
    pub(crate) op: AggregateOp,
    /// The input.
    pub(crate) input: Node,
    /// The parameter.
    pub(crate) param: Option<Scalar>,
    /// The labels that make or do not make the group, sorted.
    pub(crate) grouping: Vec<String>,
    /// Whether `grouping` names the labels to drop.
    pub(crate) without: bool,
    /// Offset in the query of the parameter, for remarks.
    pub(crate) param_at: usize,
    /// Offset in the query of the input, for remarks.
    pub(crate) input_at: usize,
    /// Offset in the query of the aggregation, for remarks.
    pub(crate) at: usize,
}

/// `count_values`
#[derive(Debug)]
pub(crate) struct CountValues {
    /// The input.
    pub(crate) input: Node,
    /// The label that takes the value.
    pub(crate) label: String,
    /// The labels that make or do not make the group, `label` among them where it must be.
    pub(crate) grouping: Vec<String>,
    /// Whether `grouping` names the labels to drop.
    pub(crate) without: bool,
}

/// How a vector is sorted.
#[derive(Debug)]
pub(crate) struct Sort {
    /// The input.
    pub(crate) input: Node,
    /// By these labels, or by value when `None`.
    pub(crate) labels: Option<Vec<String>>,
    /// Largest first.
    pub(crate) descending: bool,
    /// Offset in the query, for remarks.
    pub(crate) at: usize,
}

/// `label_replace` and `label_join`.
#[derive(Debug)]
pub(crate) struct Relabel {
    /// The input.
    pub(crate) input: Node,
    /// What is changed.
    pub(crate) change: Change,
}

/// What a relabelling changes.
#[derive(Debug)]
pub(crate) enum Change {
    /// `label_replace`
    Replace(LabelReplace),
    /// `label_join`
    Join(LabelJoin),
}

impl Change {
    /// The label that is written.
    pub(crate) fn target(&self) -> &str {
        match self {
            Change::Replace(replace) => replace.dst(),
            Change::Join(join) => join.dst(),
        }
    }
}

/// Which of the functions over classic histograms.
#[derive(Debug)]
pub(crate) enum BucketFunc {
    /// `histogram_quantile`
    Quantile(Scalar),
    /// `histogram_quantiles`: the label, and the quantiles with their offsets in the query.
    Quantiles(String, Vec<(Scalar, usize)>),
    /// `histogram_fraction`
    Fraction(Scalar, Scalar),
}

/// A function over the buckets of classic histograms.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Which.
    pub(crate) func: BucketFunc,
    /// The buckets.
    pub(crate) input: Node,
    /// Offset in the query of the quantile, for remarks.
    pub(crate) quantile_at: usize,
    /// Offset in the query of the buckets, for remarks.
    pub(crate) input_at: usize,
}

/// `info`: a vector that takes on labels of info series.
#[derive(Debug)]
pub(crate) struct Info {
    /// The vector.
    pub(crate) input: Node,
    /// The info series.
    pub(crate) series: InstantSelect,
    /// What the name of an info series matches; of the input, such series stay as they are.
    pub(crate) names: Vec<Matcher>,
    /// The matchers of the other labels. Where there are any, only labels that they name are
    /// taken on.
    pub(crate) data: Vec<Matcher>,
}

/// A number for each step.
#[derive(Debug)]
pub(crate) enum Scalar {
    /// The same number at each step.
    Const(f64),
    /// The time of the step in seconds.
    Time,
    /// A date function of the time of the step.
    Date(ScalarFn),
    /// `scalar(…)`
    Of(Box<Node>),
    /// A binary operation.
    Binary(BinaryOp, Box<Scalar>, Box<Scalar>),
    /// Unary minus.
    Negate(Box<Scalar>),
    /// `max_of`
    MaxOf(Box<Scalar>, Box<Scalar>),
    /// `min_of`
    MinOf(Box<Scalar>, Box<Scalar>),
    /// Evaluated at the first step and repeated.
    Hold(Box<Scalar>),
}
