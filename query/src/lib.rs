//! Asks stores for series and answers PromQL over them, in process and over HTTP.
//!
//! In reading order: [`engine`] runs queries, [`explain`] tells how and `quick` on which thread; `select` is how their selects reach a store;
//! [`http`] is Prometheus' HTTP API on top; [`status`] is what the API tells about the process,
//! filled in by whoever runs it; [`metrics`] is what all of this says about itself.
//!
//! This crate binds no socket and parses no flag: it hands out a router.

pub mod engine;
pub mod explain;
pub mod http;
pub mod metrics;
pub mod replicas;
pub mod status;

mod quick;
mod select;

pub use engine::{Config, Engine};
pub use http::{App, router};
