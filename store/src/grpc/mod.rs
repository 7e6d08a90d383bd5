//! The Store API over gRPC: any [`Store`](crate::Store) as `thanos.Store`, and `thanos.info.Info`.
//!
//! [`request`] turns messages into requests, [`answer`] series into messages, [`status`] errors into
//! gRPC's codes; [`service`] and [`info`] are the services. [`remote`] is the other side: a server of the
//! Store API as a store. [`snappy`] is the compression that Thanos
//! uses between its own.

pub mod answer;
pub mod info;
pub mod remote;
pub mod request;
pub mod service;
pub mod snappy;
pub mod status;

pub use info::{Apis, InfoService};
pub use remote::RemoteStore;
pub use service::{RequestLimits, StoreService};
