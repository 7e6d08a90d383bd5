//! Many sources of series, each sorted by labels, as one.

use isobar_model::Labels;

use crate::Error;
use crate::chunks::Chunk;

/// A series with its chunks, ordered by their first time. Chunks may overlap where the series
/// was merged from several sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesChunks {
    /// The labels.
    pub labels: Labels,
    /// The chunks.
    pub chunks: Vec<Chunk>,
}

/// Series in label order, each label set once. Owns what it reads from.
pub type SeriesIter = Box<dyn Iterator<Item = Result<SeriesChunks, Error>> + Send>;
