//! The wire types of Prometheus and Thanos, and their conversion to `model`.
//!
//! [`wire`] reads and writes protobuf by hand, borrowing from the input. [`remote`] is remote
//! write 1.0 on top of it: the one message that is decoded millions of times a second.
//!
//! [`thanos`] and [`prometheus`] are generated from the definitions in `definitions/`, which state
//! the numbers and types of Thanos' and Prometheus' own; a test keeps the code fresh.

pub mod convert;
mod generated;
pub mod prometheus;
pub mod remote;
pub mod thanos;
pub mod wire;
