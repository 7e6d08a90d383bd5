//! What the API tells about the process: build, flags, runtime, cardinality. The binary knows
//! these things and fills them in.

use std::collections::BTreeMap;

use serde::Serialize;

/// Tells what the status endpoints answer. Called for each request.
pub trait StatusSource: Send + Sync + 'static {
    /// How the binary was built.
    fn build(&self) -> BuildInfo;

    /// All flags with their values.
    fn flags(&self) -> BTreeMap<String, String>;

    /// The state of the process.
    fn runtime(&self) -> RuntimeInfo;

    /// Where the series are, at most `limit` entries in each list.
    ///
    /// # Errors
    /// A text that says why it cannot be told.
    fn tsdb(&self, limit: usize) -> Result<TsdbStatus, String>;
}

/// How the binary was built. Grafana takes only texts here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildInfo {
    /// The version.
    pub version: String,
    /// The commit.
    pub revision: String,
    /// The branch.
    pub branch: String,
    /// Who built it.
    pub build_user: String,
    /// When.
    pub build_date: String,
    /// The compiler's version; the name is Prometheus'.
    pub go_version: String,
}

/// The state of the process. Times are RFC 3339.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeInfo {
    /// When the process started.
    pub start_time: String,
    /// The working directory.
    #[serde(rename = "CWD")]
    pub cwd: String,
    /// The machine's name.
    pub hostname: String,
    /// The time now.
    pub server_time: String,
    /// Whether the configuration was read without a mistake.
    pub reload_config_success: bool,
    /// When the configuration was read.
    pub last_config_time: String,
    /// How many damages the write-ahead log had.
    pub corruption_count: i64,
    /// Tasks or threads; the name is Prometheus'.
    pub goroutine_count: u64,
    /// Threads that run at one time.
    #[serde(rename = "GOMAXPROCS")]
    pub threads_max: u64,
    /// The memory limit in bytes.
    #[serde(rename = "GOMEMLIMIT")]
    pub memory_limit_bytes: i64,
    /// Has no meaning here and is empty.
    #[serde(rename = "GOGC")]
    pub gogc: String,
    /// Has no meaning here and is empty.
    #[serde(rename = "GODEBUG")]
    pub godebug: String,
    /// How long and how much is kept, such as `15d or 10GiB`.
    pub storage_retention: String,
}

/// Where the series are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TsdbStatus {
    /// Counts of the head.
    pub head_stats: HeadStats,
    /// The metrics with the most series.
    pub series_count_by_metric_name: Vec<Count>,
    /// The labels with the most values.
    pub label_value_count_by_label_name: Vec<Count>,
    /// The labels whose values take the most bytes.
    pub memory_in_bytes_by_label_name: Vec<Count>,
    /// The `name=value` pairs with the most series.
    pub series_count_by_label_value_pair: Vec<Count>,
}

/// Counts of the head.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeadStats {
    /// Series.
    pub num_series: u64,
    /// Different label pairs.
    pub num_label_pairs: u64,
    /// Chunks.
    pub chunk_count: i64,
    /// The first time, unix milliseconds.
    pub min_time: i64,
    /// The last time, unix milliseconds.
    pub max_time: i64,
}

/// A name and how many it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The name.
    pub name: String,
    /// The number.
    pub value: u64,
}
