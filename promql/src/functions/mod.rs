//! What PromQL functions compute, apart from how tiles flow.
//!
//! [`signature`] is the one table of functions: names, argument types, what they return.
//! [`range`] computes functions over windows of samples, one series at a time and all steps at
//! once. [`quantile`] serves `quantile`, `quantile_over_time` and `histogram_quantile`.
//! [`scalar`] holds the functions of one number, [`labels`] those that change label sets.

pub mod row;
pub mod signature;
