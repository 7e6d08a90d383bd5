//! What a component does with requests to it, by the flags that Thanos' components share: how much they may
//! ask for, and which are logged.

use clap::Args;

use super::content::content_flags;

/// How much one request may be answered with.
#[derive(Debug, Clone, Args)]
pub(crate) struct RequestLimitFlags {
    /// Most series that one request may be answered with. 0 is no bound.
    #[arg(
        long = "store.limits.request-series",
        value_name = "COUNT",
        default_value = "0",
        help_heading = "Limits"
    )]
    pub(crate) request_series: u64,

    /// Most samples that one request may be answered with, where each chunk counts as 120. 0 is no bound.
    #[arg(
        long = "store.limits.request-samples",
        value_name = "COUNT",
        default_value = "0",
        help_heading = "Limits"
    )]
    pub(crate) request_samples: u64,
}

content_flags! {
    /// YAML that says which requests are logged, as Thanos has it: options with level and decision, for
    /// all or for http and grpc, and lists of paths and methods. Without it none is.
    RequestLogFlags, "request.logging-config", "Logging"
}
