//! Prometheus' messages, as far as they are not decoded by hand: remote read.
//! Source: `prompb/remote.proto` and `prompb/types.proto` of Prometheus.

pub use crate::generated::prometheus::*;
