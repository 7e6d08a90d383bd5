//! The messages and services of Thanos, and [`Series`], which is written by hand.
//! Source: the `.proto` files below `pkg` of Thanos.

mod series;

pub use crate::generated::thanos::*;
pub use series::{Series, SeriesLabels};

/// What travels in the hints of the Store API, wrapped as `google.protobuf.Any`.
pub mod hints {
    pub use crate::generated::hintspb::*;
}

/// Prometheus' samples as Thanos' services carry them.
pub mod samples {
    pub use crate::generated::prometheus_copy::*;
}

/// The definitions of all services as an encoded `FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("../gen/descriptors.bin");
