//! The Store API in process: typed values and shared bytes, never protobuf.
//!
//! Everything readable is a [`Store`]: the head, a block, a bucket, a remote endpoint, and the
//! fan-out over many of them. A deployment is a composition of stores.

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use isobar_model::{Matcher, SelectHints, TimeRange, Warnings};
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
}

/// Sorted, unique texts with the remarks of the store.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Label names or values.
    pub values: Vec<String>,
    /// What the caller should know about their completeness.
    pub warnings: Warnings,
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
            Error::TooManySamples { .. } => StoreError::LimitExceeded(error.to_string()),
            Error::Io { ref source, .. } => StoreError::Unavailable(format!("{error}: {source}")),
            Error::Locked { .. } | Error::Unavailable(_) => {
                StoreError::Unavailable(error.to_string())
            }
        }
    }
}
