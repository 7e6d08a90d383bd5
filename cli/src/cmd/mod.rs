//! One page per component: flags to configs, configs to running tasks.

pub(crate) mod standalone;
