//! What a query answers.

use std::sync::Arc;

use isobar_model::{FloatHistogram, Labels, Reservation, Warnings};

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
    pub columns: isobar_model::Columns,
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

/// A query's value with everything that goes with it.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// The value.
    pub value: Value,
    /// Warnings and infos.
    pub warnings: Warnings,
    /// What it cost.
    pub stats: QueryStats,
    /// Stands for the memory of the value as long as that is there.
    pub memory: Arc<Reservation>,
}
