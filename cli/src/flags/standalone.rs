//! The flags of `isobar standalone`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::bucket::BucketFlags;
use super::features::FeatureFlags;
use super::limits::LimitFlags;
use super::replicas::ReplicaFlags;
use super::server::{GrpcTlsFlags, ListenAddress, WebConfigFlags};
use super::units::{FlagBytes, FlagDuration, FlagMemory};

/// Run everything in one process: take samples by remote write, keep them, answer queries.
#[derive(Debug, Clone, Args)]
pub(crate) struct StandaloneFlags {
    /// Directory for all data. It is made when it does not exist. An existing directory of
    /// Prometheus blocks can be named too; such blocks stay where they are.
    #[arg(long, value_name = "DIR", default_value = "./isobar-data")]
    pub(crate) data_dir: PathBuf,

    /// Where to listen for HTTP: remote write, queries, metrics and the start page.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10902")]
    pub(crate) http_address: ListenAddress,

    /// Where to listen for gRPC: the Store API, so that a Thanos Query can ask this instance.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10901")]
    pub(crate) grpc_address: ListenAddress,

    #[command(flatten)]
    pub(crate) web: WebConfigFlags,

    #[command(flatten)]
    pub(crate) grpc_tls: GrpcTlsFlags,

    /// Store Isobar's own metrics every 15 seconds, as tenant "isobar", so that there is
    /// something to query from the start. [default]
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "no_self_monitoring")]
    pub(crate) self_monitoring: bool,

    /// Do not store Isobar's own metrics.
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "self_monitoring")]
    pub(crate) no_self_monitoring: bool,

    /// Delete blocks this much older than the newest one. 0 keeps them for ever. What is in the
    /// bucket of --objstore.config is left to a compactor.
    #[arg(
        long = "tsdb.retention",
        value_name = "DURATION",
        default_value = "15d",
        help_heading = "Storage"
    )]
    pub(crate) retention: FlagDuration,

    /// How long a block that is in the bucket stays on the local disk, too, where it is read faster,
    /// counted from the newest. With 0s it leaves as soon as it is in the bucket. The bucket is a
    /// directory below --data-dir unless --objstore.config names another; with
    /// --web.enable-admin-api there is none, since what is deleted would come back from there.
    #[arg(
        long = "tsdb.local-retention",
        value_name = "DURATION",
        default_value = "1d",
        help_heading = "Storage"
    )]
    pub(crate) local_retention: FlagDuration,

    /// Delete the oldest blocks while all blocks together are larger than this. 0 is no bound.
    #[arg(
        long = "tsdb.max-retention-bytes",
        value_name = "BYTES",
        default_value = "0",
        help_heading = "Storage"
    )]
    pub(crate) retention_bytes: FlagBytes,

    /// Most exemplars of each tenant that are kept in memory; the oldest make room. Those that are
    /// in memory when a block is cut are kept with it. 0 keeps none.
    #[arg(
        long = "tsdb.max-exemplars",
        value_name = "COUNT",
        default_value = "0",
        help_heading = "Storage"
    )]
    pub(crate) exemplars_max: usize,

    /// Take samples that are older than the newest of their series, when they are not older than
    /// the newest of their tenant by more than this. 0 takes samples in order only.
    #[arg(
        long = "tsdb.out-of-order.time-window",
        value_name = "DURATION",
        default_value = "2h",
        help_heading = "Storage"
    )]
    pub(crate) late_window: FlagDuration,

    #[command(flatten)]
    pub(crate) bucket: BucketFlags,

    #[command(flatten)]
    pub(crate) limits: LimitFlags,

    /// When a write is acknowledged: "always" waits until it is on disk, "interval" does not and
    /// may lose up to a second of samples when the machine (not only the process) fails.
    #[arg(
        long = "wal.sync",
        value_name = "WHEN",
        default_value = "always",
        help_heading = "Storage"
    )]
    pub(crate) wal_sync: WalSync,

    /// Memory that series being written to and all queries together may hold. With % it is a share of
    /// the memory that the process may use: what its control group allows, else what the machine has.
    /// Queries get what the head leaves, at least a quarter; a head that takes the rest refuses new
    /// series.
    #[arg(long = "memory.budget", value_name = "BYTES", default_value = "75%")]
    pub(crate) memory_budget: FlagMemory,

    /// Give up a query after this time.
    #[arg(
        long = "query.timeout",
        value_name = "DURATION",
        default_value = "2m",
        help_heading = "Queries"
    )]
    pub(crate) query_timeout: FlagDuration,

    /// Most queries that are evaluated or wait for it at one time; further ones are refused.
    #[arg(long = "query.max-concurrent", value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Queries")]
    pub(crate) query_max_concurrent: u32,

    /// Most samples that one query may hold in memory.
    #[arg(
        long = "query.max-samples",
        value_name = "COUNT",
        default_value = "50000000",
        help_heading = "Queries"
    )]
    pub(crate) query_max_samples: u64,

    /// Most memory that one query may hold, as a share of --memory.budget when it ends in %.
    #[arg(
        long = "query.max-memory",
        value_name = "BYTES",
        default_value = "25%",
        help_heading = "Queries"
    )]
    pub(crate) query_max_memory: FlagMemory,

    /// Most series that the selectors of one query may select.
    #[arg(
        long = "query.max-series",
        value_name = "COUNT",
        default_value = "10000000",
        help_heading = "Queries"
    )]
    pub(crate) query_max_series: u64,

    /// Most steps at which the parts of one query are evaluated, those of its subqueries included.
    #[arg(
        long = "query.max-steps",
        value_name = "COUNT",
        default_value = "1000000",
        help_heading = "Queries"
    )]
    pub(crate) query_max_steps: u64,

    /// How long a series keeps its last value for instant selectors.
    #[arg(
        long = "query.lookback-delta",
        value_name = "DURATION",
        default_value = "5m",
        help_heading = "Queries"
    )]
    pub(crate) query_lookback: FlagDuration,

    /// Let clients delete samples and take snapshots: /api/v1/admin/tsdb/….
    #[arg(long = "web.enable-admin-api", action = ArgAction::SetTrue)]
    pub(crate) enable_admin_api: bool,

    /// Which series are replicas of each other.
    #[command(flatten)]
    pub(crate) replicas: ReplicaFlags,

    /// Which parts of PromQL are on.
    #[command(flatten)]
    pub(crate) features: FeatureFlags,

    /// How long to wait for running requests at shutdown.
    #[arg(
        long = "http-grace-period",
        value_name = "DURATION",
        default_value = "2m"
    )]
    pub(crate) http_grace_period: FlagDuration,
}

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WalSync {
    /// When it is on disk.
    Always,
    /// At once; the disk follows within a second.
    Interval,
}

impl StandaloneFlags {
    /// Whether Isobar's own metrics are stored.
    pub(crate) fn monitors_itself(&self) -> bool {
        !self.no_self_monitoring
    }

    /// All flags with their values in effect, as `/api/v1/status/flags` shows them.
    pub(crate) fn listed(&self) -> Vec<(&'static str, String)> {
        let mut listed = vec![
            ("data-dir", self.data_dir.display().to_string()),
            ("deduplication.func", self.replicas.function()),
            ("disable-feature", self.features.disabled()),
            ("enable-feature", self.features.enabled()),
            ("grpc-address", self.grpc_address.to_string()),
            ("http-address", self.http_address.to_string()),
            ("http.config", self.web.http_config.clone()),
            ("http-grace-period", self.http_grace_period.to_string()),
            ("memory.budget", self.memory_budget.to_string()),
            (
                "query.enable-x-functions",
                self.features.features().x_functions.to_string(),
            ),
            ("query.lookback-delta", self.query_lookback.to_string()),
            (
                "query.max-concurrent",
                self.query_max_concurrent.to_string(),
            ),
            ("query.max-memory", self.query_max_memory.to_string()),
            ("query.max-samples", self.query_max_samples.to_string()),
            ("query.max-series", self.query_max_series.to_string()),
            ("query.max-steps", self.query_max_steps.to_string()),
            ("query.replica-label", self.replicas.labels()),
            ("query.timeout", self.query_timeout.to_string()),
            ("self-monitoring", self.monitors_itself().to_string()),
            ("tsdb.local-retention", self.local_retention.to_string()),
            ("tsdb.max-exemplars", self.exemplars_max.to_string()),
            ("tsdb.max-retention-bytes", self.retention_bytes.to_string()),
            ("tsdb.retention", self.retention.to_string()),
            (
                "tsdb.out-of-order.time-window",
                self.late_window.to_string(),
            ),
            ("wal.sync", format!("{:?}", self.wal_sync).to_lowercase()),
            ("web.enable-admin-api", self.enable_admin_api.to_string()),
        ];
        listed.extend(self.bucket.listed());
        listed.extend(self.limits.listed());
        listed.extend(self.grpc_tls.listed());
        listed.sort_unstable();
        listed
    }
}
