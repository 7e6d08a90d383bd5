//! What a query answers.

use std::ops::{Deref, Range};
use std::sync::Arc;

use isobar_model::{Columns, FloatHistogram, Labels, Reservation, Warnings};

use crate::plan::node::Grid;

/// The value of a query.
#[derive(Debug, Clone)]
pub enum Value {
    /// One number; of a range query a matrix is made instead.
    Scalar {
        /// Unix time in milliseconds.
        timestamp_ms: i64,
        /// The number.
        value: f64,
    },
    /// A string.
    String {
        /// Unix time in milliseconds.
        timestamp_ms: i64,
        /// The text.
        value: String,
    },
    /// One sample per series, all at the time of the query, in the order that the query gives.
    Vector(Vec<VectorSample>),
    /// Samples per series, sorted by labels. No series is without samples.
    Matrix(Vec<MatrixSeries>),
}

/// One element of an instant vector.
#[derive(Debug, Clone)]
pub struct VectorSample {
    /// The labels.
    pub labels: Labels,
    /// Unix time in milliseconds.
    pub timestamp_ms: i64,
    /// The value; 0 when there is a histogram.
    pub value: f64,
    /// The native histogram, if the sample is one.
    pub histogram: Option<Arc<FloatHistogram>>,
}

/// One series of a matrix.
#[derive(Debug, Clone)]
pub struct MatrixSeries {
    /// The labels.
    pub labels: Labels,
    /// The samples in time order.
    pub columns: Points,
}

/// The samples of a series in an answer.
#[derive(Debug, Clone, Default)]
pub struct Points {
    /// The times of the floats.
    pub timestamps: Times,
    /// The floats, one for each time.
    pub values: Vec<f64>,
    /// The histograms with their unix times in milliseconds.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
}

impl Points {
    /// The number of floats.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no float.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl From<Columns> for Points {
    fn from(columns: Columns) -> Self {
        Points {
            timestamps: columns.timestamps.into(),
            values: columns.values,
            histograms: columns.histograms,
        }
    }
}

/// Ascending unix times in milliseconds. Series that have a value at each step, or at each from
/// one step to another, share those of the query.
#[derive(Debug, Clone, Default)]
pub struct Times {
    all: Arc<[i64]>,
    own: Range<usize>,
}

impl Times {
    /// Those of `all` with the indices of `own`.
    pub(crate) fn shared(all: &Arc<[i64]>, own: Range<usize>) -> Self {
        assert!(own.start <= own.end && own.end <= all.len());
        Times {
            all: Arc::clone(all),
            own,
        }
    }
}

impl From<Vec<i64>> for Times {
    fn from(all: Vec<i64>) -> Self {
        Times {
            own: 0..all.len(),
            all: all.into(),
        }
    }
}

impl Deref for Times {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        &self.all[self.own.clone()]
    }
}

/// What evaluating cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueryStats {
    /// Samples that the operators looked at, each as often as a window held it
    /// (Prometheus' `totalQueryableSamples`). A histogram counts as many, by its size.
    pub samples_queryable: u64,
    /// Samples decoded from storage.
    pub samples_read: u64,
    /// Samples that steps looked at and the steps before had not (Prometheus' `samplesRead`).
    pub samples_new: u64,
    /// The most samples held at one time.
    pub samples_peak: u64,
    /// The most bytes reserved at one time.
    pub bytes_peak: u64,
    /// Series that the selects gave.
    pub series: u64,
}

/// What each step of a query cost, in their order; see [`QueryStats`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepStats {
    /// The first step in unix milliseconds.
    pub start_ms: i64,
    /// The distance between steps in milliseconds.
    pub step_ms: i64,
    /// Samples looked at (Prometheus' `totalQueryableSamplesPerStep`).
    pub queryable: Vec<u64>,
    /// Samples that the steps before had not looked at (Prometheus' `samplesReadPerStep`).
    pub new: Vec<u64>,
}

impl StepStats {
    /// Zeros for the steps of `grid`.
    pub(crate) fn of(grid: Grid) -> Self {
        StepStats {
            start_ms: grid.start_ms,
            step_ms: grid.step_ms,
            queryable: vec![0; grid.count],
            new: vec![0; grid.count],
        }
    }
}

/// A query's value with everything that goes with it.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// The value.
    pub value: Value,
    /// Warnings and infos.
    pub warnings: Warnings,
    /// What it cost.
    pub stats: QueryStats,
    /// What each step cost, where that was asked for ([`crate::plan::PlanParams::step_stats`]).
    pub step_stats: Option<StepStats>,
    /// Stands for the memory of the value as long as that is there.
    pub memory: Arc<Reservation>,
}
