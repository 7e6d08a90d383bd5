//! The flags of `isobar sidecar`.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::bucket::BucketFlags;
use super::content::content_flags;
use super::requests::{RequestLimitFlags, RequestLogFlags};
use super::server::{GrpcFlags, HttpFlags};
use super::time::FlagTime;
use super::units::FlagDuration;

/// Stand beside a Prometheus: serve its data over the Store API, reload its configuration.
#[derive(Debug, Clone, Args)]
pub(crate) struct SidecarFlags {
    #[command(flatten)]
    pub(crate) http: HttpFlags,

    #[command(flatten)]
    pub(crate) grpc: GrpcFlags,

    #[command(flatten)]
    pub(crate) prometheus: PrometheusFlags,

    /// Data directory of Prometheus. Nothing is written anywhere else, but for --reloader.config-envsubst-file.
    #[arg(
        long = "tsdb.path",
        value_name = "DIR",
        default_value = "./data",
        help_heading = "Prometheus"
    )]
    pub(crate) tsdb_path: PathBuf,

    /// Show no data before this: a date (RFC 3339), or how far from now, such as -1d or -2h45m.
    #[arg(
        long = "min-time",
        value_name = "TIME",
        default_value = "0000-01-01T00:00:00Z",
        allow_hyphen_values = true,
        help_heading = "Prometheus"
    )]
    pub(crate) min_time: FlagTime,

    #[command(flatten)]
    pub(crate) reloader: ReloaderFlags,

    #[command(flatten)]
    pub(crate) shipper: ShipperFlags,

    #[command(flatten)]
    pub(crate) limits: RequestLimitFlags,

    #[command(flatten)]
    pub(crate) request_log: RequestLogFlags,
}

content_flags! {
    /// How to connect to Prometheus, as YAML: basic_auth, bearer_token, bearer_token_file, proxy_url,
    /// tls_config, transport_config.
    HttpClientFlags, "prometheus.http-client", "Prometheus"
}

/// Where Prometheus is and how it is asked.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Prometheus")]
pub(crate) struct PrometheusFlags {
    /// URL of Prometheus' API, with the prefix of its paths if there is one.
    #[arg(
        long = "prometheus.url",
        value_name = "URL",
        default_value = "http://localhost:9090"
    )]
    pub(crate) url: String,

    /// How long to wait for the external labels of Prometheus before uploading is given up, and the sidecar
    /// stops with an error. As in Thanos it means uploads only: without a bucket the sidecar waits for
    /// Prometheus for as long as that takes, and says each minute what it waits for.
    #[arg(
        long = "prometheus.ready_timeout",
        value_name = "DURATION",
        default_value = "10m"
    )]
    pub(crate) ready_timeout: FlagDuration,

    /// How often to look for new external labels, and whether Prometheus is there.
    #[arg(
        long = "prometheus.get_config_interval",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub(crate) get_config_interval: FlagDuration,

    /// How long such a look may take.
    #[arg(
        long = "prometheus.get_config_timeout",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub(crate) get_config_timeout: FlagDuration,

    #[command(flatten)]
    pub(crate) http_client: HttpClientFlags,
}

/// Which files are watched for Prometheus.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Reloader")]
pub(crate) struct ReloaderFlags {
    /// Configuration of Prometheus to be watched.
    #[arg(
        id = "watched_config_file",
        long = "reloader.config-file",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) config_file: String,

    /// Where to write that configuration with each $(VAR) replaced by what the environment says, and
    /// unpacked if it was packed with gzip.
    #[arg(
        long = "reloader.config-envsubst-file",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) output_file: String,

    /// Directory with rules to be watched; can be repeated.
    #[arg(long = "reloader.rule-dir", value_name = "DIR")]
    pub(crate) rule_dirs: Vec<PathBuf>,

    /// How often everything is read again, should a change have gone unnoticed. 0 writes the
    /// configuration once and watches nothing.
    #[arg(
        long = "reloader.watch-interval",
        value_name = "DURATION",
        default_value = "3m"
    )]
    pub(crate) watch_interval: FlagDuration,

    /// How long to wait before Prometheus is told again, when that did not work.
    #[arg(
        long = "reloader.retry-interval",
        value_name = "DURATION",
        default_value = "5s"
    )]
    pub(crate) retry_interval: FlagDuration,

    /// How Prometheus is told: by a request (it needs --web.enable-lifecycle) or by a signal.
    #[arg(
        long = "reloader.method",
        value_name = "METHOD",
        default_value = "http"
    )]
    pub(crate) method: ReloadMethod,

    /// Name of the process that gets the signal.
    #[arg(
        long = "reloader.process-name",
        value_name = "NAME",
        default_value = "prometheus"
    )]
    pub(crate) process_name: String,
}

/// How Prometheus is told to read its configuration again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReloadMethod {
    /// By a request.
    Http,
    /// By SIGHUP to its process.
    Signal,
}

/// Which blocks are uploaded, and where.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Upload")]
pub(crate) struct ShipperFlags {
    /// Where blocks go; without a bucket nothing is uploaded.
    #[command(flatten)]
    pub(crate) bucket: BucketFlags,

    /// Upload blocks that Prometheus has compacted, too: for what is there when the sidecar is new.
    #[arg(long = "shipper.upload-compacted", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) upload_compacted: bool,

    /// Upload although Prometheus may compact blocks before they are uploaded.
    #[arg(long = "shipper.ignore-unequal-block-size", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub(crate) ignore_unequal_block_size: bool,

    /// Upload younger blocks although an older one could not be uploaded.
    #[arg(long = "shipper.allow-out-of-order-uploads", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub(crate) allow_out_of_order: bool,

    /// Go on without blocks that cannot be read.
    #[arg(long = "shipper.skip-corrupted-blocks", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set, hide = true)]
    pub(crate) skip_corrupted: bool,

    /// Hash to note for each file of a block: SHA256, or none.
    #[arg(
        long = "hash-func",
        value_name = "FUNCTION",
        default_value = "",
        hide_default_value = true,
        value_parser = ["SHA256", ""]
    )]
    pub(crate) hash_func: String,

    /// File in the data directory that says which blocks are uploaded.
    #[arg(
        long = "shipper.meta-file-name",
        value_name = "NAME",
        default_value = "thanos.shipper.json"
    )]
    pub(crate) meta_file_name: String,

    /// How many blocks are uploaded at a time; 0 for one after the other.
    #[arg(
        long = "shipper.upload-concurrency",
        value_name = "COUNT",
        default_value = "0"
    )]
    pub(crate) upload_concurrency: i64,
}
