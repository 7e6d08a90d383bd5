//! What PromQL functions compute, apart from how tiles flow.
//!
//! [`signature`] is the one table of functions: names, argument types, what they return.
//! [`range`] computes functions over windows of samples, one series at a time and all steps at
//! once. [`quantile`] serves `quantile`, `quantile_over_time` and `histogram_quantile`.
//! [`scalar`] holds the functions of one number, [`calendar`] those of a date among them;
//! [`arithmetic`] what the binary operators compute, with Go's logarithms and powers; [`sum`] the compensated sums that functions
//! and aggregations share; [`labels`] the functions that change label sets.

pub mod row;
pub mod signature;

pub mod range;

pub mod arithmetic;
pub mod calendar;
pub mod histogram;
pub mod labels;
pub mod quantile;
pub mod scalar;
pub mod sum;
