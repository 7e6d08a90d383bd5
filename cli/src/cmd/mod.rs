//! One page per component: flags to configs, configs to running tasks.

pub(crate) mod sidecar;
pub(crate) mod standalone;
pub(crate) mod store;
