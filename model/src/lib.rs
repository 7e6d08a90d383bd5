//! The vocabulary that every part of Isobar shares: labels, matchers, time, samples and the
//! interface through which series reach an evaluator.
//!
//! This crate is synchronous and touches neither files nor the network. It knows no encoding:
//! chunks, blocks and protobuf belong to `tsdb` and `proto`.

pub mod budget;
pub mod exemplar;
pub mod go_math;
pub mod histogram;
pub mod labels;
pub mod matcher;
pub mod metric_kind;
pub mod regexp;
pub mod sample;
pub mod series;
pub mod tenant;
pub mod time;
pub mod warnings;

pub use budget::{Budget, OverBudget, Reservation};
pub use exemplar::Exemplar;
pub use histogram::FloatHistogram;
pub use labels::{Labels, LabelsBuilder};
pub use matcher::{MatchOp, Matcher};
pub use sample::Sample;
pub use series::{Columns, SelectError, SelectHints, Series, SeriesSource, SeriesStream};
pub use tenant::Tenant;
pub use time::{Clock, TimeRange};
pub use warnings::Warnings;
