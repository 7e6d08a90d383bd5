//! The messages and services of Thanos. [`SeriesResponse`] is written by hand.
//! Source: the `.proto` files below `pkg` of Thanos.

pub mod series_response;
mod writer;

pub use crate::generated::thanos::*;
pub use series_response::SeriesResponse;
pub use writer::{ChunkContent, ChunkData, ChunkParts, SeriesWriter};

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
