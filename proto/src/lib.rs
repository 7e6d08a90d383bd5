//! The wire types of Prometheus and Thanos, and their conversion to `model`.
//!
//! [`wire`] reads and writes protobuf by hand, borrowing from the input. [`remote`] is remote
//! write 1.0 on top of it: the one message that is decoded millions of times a second.

pub mod remote;
pub mod wire;
