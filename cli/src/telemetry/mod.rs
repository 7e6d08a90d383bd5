//! What Isobar tells about itself: logs and metrics.

pub(crate) mod component;
pub(crate) mod gateway;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod request_log;
pub(crate) mod selects;
pub(crate) mod self_monitoring;
pub(crate) mod store;
