//! The Store API in process: typed values and shared bytes, never protobuf.
//!
//! Everything readable is a [`Store`]: the head, a block, a bucket, a remote endpoint, and the
//! fan-out over many of them. A deployment is a composition of stores.

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use isobar_model::{Labels, Matcher, SelectHints, TimeRange, Warnings};
use isobar_tsdb::SeriesChunks;

pub use isobar_tsdb::db::SelectEstimate;

/// Asks for series with their chunks.
#[derive(Debug, Clone)]
pub struct SeriesRequest {
    /// All of them must match.
    pub matchers: Vec<Matcher>,
    /// The times of interest; chunks outside are not given.
    pub range: TimeRange,
    /// What the caller is going to do with the series.
    pub hints: SelectHints,
    /// Whether only the labels are wanted: chunk lists come back empty.
    pub skip_chunks: bool,
    /// Most series to give; 0 for no bound.
    pub limit: usize,
    /// The widest window, in milliseconds, of downsampled data that may stand for raw data; 0 for
    /// raw data only.
    pub resolution_ms_max: i64,
    /// The aggregates of downsampled data that are looked at; empty for all of them. A store may
    /// give more.
    pub aggregates: Vec<Aggregate>,
    /// Labels that tell replicas apart: they are taken away, series come in the order of what is
    /// left, and those that are the same then are one.
    pub without_labels: Vec<String>,
    /// The part of the series that is wanted, when several callers share the work.
    pub shard: Option<Shard>,
    /// Only data of blocks whose ULID, as the label `__block_id`, matches all of them.
    pub block_matchers: Vec<Matcher>,
    /// What to do when a part of the data cannot be read.
    pub on_failure: OnFailure,
}

impl SeriesRequest {
    /// Asks for all raw series that match, with nothing taken away.
    pub fn new(matchers: Vec<Matcher>, range: TimeRange) -> Self {
        SeriesRequest {
            matchers,
            range,
            hints: SelectHints::default(),
            skip_chunks: false,
            limit: 0,
            resolution_ms_max: 0,
            aggregates: Vec::new(),
            without_labels: Vec::new(),
            shard: None,
            block_matchers: Vec::new(),
            on_failure: OnFailure::Warn,
        }
    }
}

/// What is kept of the samples in a window of downsampled data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// The number of samples.
    Count,
    /// Their sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The last value of a counter, as if it had never been reset.
    Counter,
}

/// One of several disjoint parts of all series, told apart by a hash of some of their labels, as
/// Thanos does it: a caller that asks for every part gets every series once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Which part: less than `count`.
    pub index: u64,
    /// How many parts there are, at least 1.
    pub count: u64,
    /// Whether `labels` are those that are hashed, rather than those that are not.
    pub by: bool,
    /// Names of labels.
    pub labels: Vec<String>,
}

/// What a store does when it cannot read a part of what was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Give what there is, with a warning that says what is missing.
    #[default]
    Warn,
    /// Fail.
    Abort,
}

/// Asks for label names, or for the values of one.
#[derive(Debug, Clone)]
pub struct LabelsRequest {
    /// Only labels of series that match all of them; empty for all series.
    pub matchers: Vec<Matcher>,
    /// Only labels of series that may have samples in this range.
    pub range: TimeRange,
    /// Most texts to give; 0 for no bound.
    pub limit: usize,
    /// Labels that tell replicas apart, and which are not named.
    pub without_labels: Vec<String>,
    /// Only data of blocks whose ULID, as the label `__block_id`, matches all of them.
    pub block_matchers: Vec<Matcher>,
    /// What to do when a part of the data cannot be read.
    pub on_failure: OnFailure,
}

impl LabelsRequest {
    /// Asks for all texts of the series that match.
    pub fn new(matchers: Vec<Matcher>, range: TimeRange) -> Self {
        LabelsRequest {
            matchers,
            range,
            limit: 0,
            without_labels: Vec::new(),
            block_matchers: Vec::new(),
            on_failure: OnFailure::Warn,
        }
    }
}

/// What a store holds, so that whoever asks many of them knows whom to ask.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreInfo {
    /// The external labels of its data, and for which times there are some: one entry for each
    /// stretch. Empty when the store has no data, or data without such labels.
    pub sets: Vec<StoredSet>,
    /// All times of which it may have samples; none while there are no data.
    pub range: Option<TimeRange>,
}

/// Data with the same external labels.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSet {
    /// The external labels.
    pub labels: Labels,
    /// The times for which there are samples.
    pub range: TimeRange,
}

/// Sorted, unique texts with the remarks of the store.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Label names or values.
    pub values: Vec<String>,
    /// What the caller should know about their completeness.
    pub warnings: Warnings,
    /// The ULIDs of the blocks that were looked at, where the store is one of blocks.
    pub queried_blocks: Option<Vec<String>>,
}

/// One step of an answer to a [`SeriesRequest`].
#[derive(Debug)]
pub enum SeriesBatch {
    /// The next series in label order.
    Series(Vec<SeriesChunks>),
    /// A remark on the answer as a whole.
    Warnings(Warnings),
}

/// Series in label order, each label set once, in bounded batches. Polling may decode and
/// compute: streams are drained on the compute pool, and by an async worker only when they are short.
pub type SeriesStream = BoxStream<'static, Result<SeriesBatch, StoreError>>;

/// Anything that series can be read from.
pub trait Store: Send + Sync + 'static {
    /// What the store holds at the moment.
    fn info(&self) -> StoreInfo;

    /// The times of which it may have samples, as [`Store::info`] says; asked with every query.
    fn range(&self) -> Option<TimeRange> {
        self.info().range
    }

    /// The series that match, with their chunks.
    fn series(&self, request: SeriesRequest) -> SeriesStream;

    /// How much the series that match are going to be, where the store can say so without
    /// reading them. It may compute, but waits for nothing.
    fn estimate(&self, matchers: &[Matcher], range: TimeRange) -> Option<SelectEstimate> {
        let _unknown = (matchers, range);
        None
    }

    /// The names of all labels of the series that match.
    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>>;

    /// The values that label `name` has in the series that match.
    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>>;
}

/// Why a store could not answer, by what a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What is asked for makes no sense to this store.
    #[error("{0}")]
    Invalid(String),
    /// Stored bytes do not follow their format.
    #[error("{0}")]
    Corrupt(String),
    /// The data are of a kind that is not read yet.
    #[error("{0}")]
    Unsupported(String),
    /// A limit stands in the way; the text names it and its value.
    #[error("{0}")]
    LimitExceeded(String),
    /// The store cannot be reached, is overloaded or is shutting down; asking again may help.
    #[error("{0}")]
    Unavailable(String),
    /// The caller gave up.
    #[error("the request was canceled")]
    Cancelled,
}

impl From<isobar_tsdb::Error> for StoreError {
    fn from(error: isobar_tsdb::Error) -> Self {
        use isobar_tsdb::Error;
        match error {
            Error::Corrupt { .. } => StoreError::Corrupt(error.to_string()),
            Error::Unsupported(text) => StoreError::Unsupported(text),
            Error::LimitExceeded(text) => StoreError::LimitExceeded(text),
            Error::TooManySamples { .. } | Error::TooManyTenants { .. } => {
                StoreError::LimitExceeded(error.to_string())
            }
            Error::Io { ref source, .. } => StoreError::Unavailable(format!("{error}: {source}")),
            Error::Locked { .. } | Error::Unavailable(_) => {
                StoreError::Unavailable(error.to_string())
            }
        }
    }
}
