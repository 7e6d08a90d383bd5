//! The flags of `isobar store`, which are those of `thanos store`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::bucket::BucketFlags;
use super::content::content_flags;
use super::requests::{RequestLimitFlags, RequestLogFlags};
use super::server::{GrpcFlags, HttpFlags};
use super::time::FlagTime;
use super::units::{FlagBytes, FlagDuration, FlagMemory};

/// Give access to the blocks of a bucket through the Store API.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreFlags {
    #[command(flatten)]
    pub(crate) http: HttpFlags,

    #[command(flatten)]
    pub(crate) grpc: GrpcFlags,

    #[command(flatten)]
    pub(crate) bucket: BucketFlags,

    /// Directory for what is kept of the bucket: cards of blocks, pages that were read. All of it can be
    /// deleted while nothing runs.
    #[arg(
        long = "data-dir",
        value_name = "DIR",
        default_value = "./data",
        help_heading = "Cache"
    )]
    pub(crate) data_dir: PathBuf,

    /// Memory for pages of blocks that were read; at most five sixteenths of --memory.budget.
    #[arg(
        long = "index-cache-size",
        value_name = "BYTES",
        default_value = "250MB",
        help_heading = "Cache"
    )]
    pub(crate) index_cache_size: FlagBytes,

    /// Room in the data directory for pages of blocks that were read; Isobar's own. 0 keeps none there.
    #[arg(
        long = "cache.disk-size",
        value_name = "BYTES",
        default_value = "2GB",
        help_heading = "Cache"
    )]
    pub(crate) disk_cache_size: FlagBytes,

    /// Memory of the process; Isobar's own. With % it is a share of what the process may use. The index cache
    /// has at most five sixteenths of it, requests together have the rest but for three. Large requests wait
    /// for each other; what goes beyond fails with an error that says so, and nothing else suffers.
    #[arg(
        long = "memory.budget",
        value_name = "BYTES",
        default_value = "75%",
        help_heading = "Limits"
    )]
    pub(crate) memory_budget: FlagMemory,

    #[command(flatten)]
    pub(crate) index_cache_config: IndexCacheFlags,

    #[command(flatten)]
    pub(crate) caching_bucket: CachingBucketFlags,

    /// Accepted, has no meaning here: cards of blocks take the place of index headers.
    #[arg(long = "cache-index-header", value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Cache")]
    pub(crate) cache_index_header: bool,

    /// Write cards of blocks that were made here to the bucket, at isobar/cards/, where other gateways find
    /// them; Isobar's own. Without it the bucket is only read.
    #[arg(long = "cards.publish", value_name = "BOOL", default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Cache")]
    pub(crate) publish_cards: bool,

    /// Most memory that one request may take; at most half of what requests have of --memory.budget.
    #[arg(
        long = "chunk-pool-size",
        value_name = "BYTES",
        default_value = "2GB",
        help_heading = "Limits"
    )]
    pub(crate) chunk_pool_size: FlagBytes,

    #[command(flatten)]
    pub(crate) limits: RequestLimitFlags,

    /// Most series that one request may touch. 0 is no bound.
    #[arg(
        long = "store.grpc.touched-series-limit",
        value_name = "COUNT",
        default_value = "0",
        help_heading = "Limits"
    )]
    pub(crate) touched_series: u64,

    /// Most samples that one request may touch, each chunk counted as 120. 0 is no bound.
    #[arg(
        long = "store.grpc.series-sample-limit",
        value_name = "COUNT",
        default_value = "0",
        help_heading = "Limits"
    )]
    pub(crate) series_samples: u64,

    /// Most bytes that one request may fetch from the bucket. 0 is no bound.
    #[arg(
        long = "store.grpc.downloaded-bytes-limit",
        value_name = "BYTES",
        default_value = "0",
        help_heading = "Limits"
    )]
    pub(crate) downloaded_bytes: FlagBytes,

    /// Most requests for series that run at one time; others wait.
    #[arg(
        long = "store.grpc.series-max-concurrency",
        value_name = "COUNT",
        default_value = "20",
        help_heading = "Limits"
    )]
    pub(crate) series_concurrency: usize,

    /// How often the bucket is looked at for new blocks.
    #[arg(
        long = "sync-block-duration",
        value_name = "DURATION",
        default_value = "15m",
        help_heading = "Blocks"
    )]
    pub(crate) sync_interval: FlagDuration,

    /// How blocks are found: "concurrent" lists the top of the bucket and then each block, "recursive"
    /// lists everything at once.
    #[arg(
        long = "block-discovery-strategy",
        value_name = "WAY",
        default_value = "concurrent",
        help_heading = "Blocks"
    )]
    pub(crate) discovery: DiscoveryWay,

    /// Accepted, has no meaning here: nothing of a block is read before it is asked for.
    #[arg(
        long = "block-sync-concurrency",
        value_name = "COUNT",
        default_value = "20",
        help_heading = "Blocks"
    )]
    pub(crate) block_sync_concurrency: usize,

    /// How many `meta.json` are read at one time.
    #[arg(
        long = "block-meta-fetch-concurrency",
        value_name = "COUNT",
        default_value = "32",
        help_heading = "Blocks"
    )]
    pub(crate) meta_concurrency: usize,

    /// Serve only blocks with samples after this time: RFC 3339, or a duration before now such as -30d.
    #[arg(
        long = "min-time",
        value_name = "TIME",
        default_value = "0000-01-01T00:00:00Z",
        allow_hyphen_values = true,
        help_heading = "Blocks"
    )]
    pub(crate) min_time: FlagTime,

    /// Serve only blocks with samples before this time.
    #[arg(
        long = "max-time",
        value_name = "TIME",
        default_value = "9999-12-31T23:59:59Z",
        allow_hyphen_values = true,
        help_heading = "Blocks"
    )]
    pub(crate) max_time: FlagTime,

    #[command(flatten)]
    pub(crate) relabel_config: SelectorFlags,

    /// How old a block must be to be served, unless a compactor wrote it.
    #[arg(
        long = "consistency-delay",
        value_name = "DURATION",
        default_value = "0s",
        help_heading = "Blocks"
    )]
    pub(crate) consistency_delay: FlagDuration,

    /// Leave out blocks that were marked for deletion longer ago than this.
    #[arg(
        long = "ignore-deletion-marks-delay",
        value_name = "DURATION",
        default_value = "24h",
        help_heading = "Blocks"
    )]
    pub(crate) ignore_deletion_marks_delay: FlagDuration,

    #[command(flatten)]
    pub(crate) parquet_config: ParquetFlags,

    #[command(flatten)]
    pub(crate) unused: UnusedStoreFlags,

    /// Do not serve web pages.
    #[arg(long = "web.disable", value_name = "BOOL", default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Web")]
    pub(crate) web_disable: bool,

    /// Path in front of links in web pages. Accepted, has no meaning until there are pages.
    #[arg(
        long = "web.external-prefix",
        value_name = "PATH",
        default_value = "",
        hide_default_value = true,
        help_heading = "Web"
    )]
    pub(crate) external_prefix: String,

    /// Header that holds that path. Accepted, has no meaning until there are pages.
    #[arg(
        long = "web.prefix-header",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true,
        help_heading = "Web"
    )]
    pub(crate) prefix_header: String,

    /// Do not let pages of other sites ask the HTTP API.
    #[arg(long = "web.disable-cors", value_name = "BOOL", default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Web")]
    pub(crate) disable_cors: bool,

    /// External label by which the page of blocks is grouped.
    #[arg(long = "bucket-web-label", value_name = "NAME", help_heading = "Web")]
    pub(crate) bucket_web_label: Option<String>,

    /// Do not let the HTTP API mark blocks.
    #[arg(long = "disable-admin-operations", value_name = "BOOL", default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Web")]
    pub(crate) disable_admin_operations: bool,

    #[command(flatten)]
    pub(crate) request_log: RequestLogFlags,
}

content_flags! {
    /// YAML of Thanos' index cache: IN-MEMORY with `max_size` sets --index-cache-size. MEMCACHED and REDIS
    /// are not there yet.
    IndexCacheFlags, "index-cache.config", "Cache"
}

content_flags! {
    /// Accepted, has no meaning here: what is read of the bucket is cached by pages.
    CachingBucketFlags, "store.caching-bucket.config", "Cache", hide = true
}

content_flags! {
    /// YAML with relabeling rules over external labels, which choose the blocks to serve.
    SelectorFlags, "selector.relabel-config", "Blocks"
}

content_flags! {
    /// Accepted, has no meaning here: there are no Parquet blocks beside the others.
    ParquetFlags, "objstore-parquet.config", "Blocks"
}

/// Flags about Thanos' index headers and caches, which have no counterpart here.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Accepted, without meaning here")]
pub(crate) struct UnusedStoreFlags {
    /// Thanos: series in one read.
    #[arg(
        long = "debug.series-batch-size",
        value_name = "COUNT",
        default_value = "10000",
        hide = true
    )]
    pub(crate) series_batch_size: i64,

    /// Thanos: expected size of a series.
    #[arg(
        long = "debug.estimated-max-series-size",
        value_name = "BYTES",
        default_value = "65536",
        hide = true
    )]
    pub(crate) series_size: u64,

    /// Thanos: expected size of a chunk.
    #[arg(
        long = "debug.estimated-max-chunk-size",
        value_name = "BYTES",
        default_value = "16000",
        hide = true
    )]
    pub(crate) chunk_size: u64,

    /// Thanos: which offsets of an index header are in memory.
    #[arg(
        long = "store.index-header-posting-offsets-in-mem-sampling",
        value_name = "COUNT",
        default_value = "32",
        hide = true
    )]
    pub(crate) sampling: i64,

    /// Thanos: read index headers when they are asked for.
    #[arg(long = "store.enable-index-header-lazy-reader", value_name = "BOOL", default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) lazy_reader: bool,

    /// Thanos: forget index headers that nobody asks for.
    #[arg(
        long = "store.index-header-lazy-reader-idle-timeout",
        value_name = "DURATION",
        default_value = "5m",
        hide = true
    )]
    pub(crate) lazy_reader_timeout: FlagDuration,

    /// Thanos: leave long lists of series out.
    #[arg(long = "store.enable-lazy-expanded-postings", value_name = "BOOL", default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) lazy_postings: bool,

    /// Thanos: how long such a list is.
    #[arg(
        long = "store.posting-group-max-key-series-ratio",
        value_name = "RATIO",
        default_value = "100"
    )]
    pub(crate) posting_ratio: f64,

    /// Thanos: when index headers are fetched.
    #[arg(
        long = "store.index-header-lazy-download-strategy",
        value_name = "WAY",
        default_value = "eager"
    )]
    pub(crate) lazy_download: LazyDownload,

    /// Thanos: how many matchers are kept.
    #[arg(long = "matcher-cache-size", value_name = "COUNT", default_value = "0")]
    pub(crate) matcher_cache: i64,
}

/// How blocks are found in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiscoveryWay {
    /// The top of the bucket, then each block.
    Concurrent,
    /// Everything at once.
    Recursive,
}

/// When Thanos fetches index headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LazyDownload {
    /// At the start.
    Eager,
    /// When they are asked for.
    Lazy,
}
