//! Everything between stored samples and the Store API.
//!
//! [`api`] is the one trait through which all series are read, whatever holds them; [`arrange`] changes
//! the labels of a store's series and keeps their order. [`local`] is
//! a database on a local disk as such a store, [`admin`] what can be done to its data. [`metadata`] keeps what senders say about metrics,
//! [`exemplars`] is where exemplars are read from.
//! [`block`] is what a bucket holds: blocks, as Thanos lays them out.
//! [`grpc`] is the Store API on the wire.
//! [`prometheus`] is a running Prometheus as a store.
//! [`compute`] is the pool on which decoding, merging and evaluating run.

pub mod admin;
pub mod api;
pub mod arrange;
pub mod block;
pub mod bucket;
pub mod cache;
pub mod card;
pub mod compute;
pub mod exemplars;
mod files;
pub mod gateway;
pub mod grpc;
pub mod local;
pub mod metadata;
pub mod prometheus;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod union;

pub use api::{LabelsRequest, SeriesRequest, Store, StoreError, StoreInfo, StoredSet};
