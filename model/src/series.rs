//! How series reach an evaluator: it names its selects, a [`SeriesSource`] opens each of them as
//! a stream of batches, and each series decodes itself into columns on demand.
//!
//! The interface is synchronous. A source that has to wait (for a disk, for the network) blocks
//! the calling thread, which belongs to the compute pool and never to an async runtime.

use std::ops::Range;
use std::sync::Arc;

use crate::histogram::PackedHistograms;
use crate::{FloatHistogram, Labels, Matcher, TimeRange, Warnings};

/// The samples of one series, floats in columns of equal length and histograms apart from them,
/// each in strictly increasing time order. No time is in both.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns {
    /// Unix times in milliseconds.
    pub timestamps: Vec<i64>,
    /// Values, staleness markers included.
    pub values: Vec<f64>,
    /// Histograms with their unix times in milliseconds, staleness markers included.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
    /// All histograms, instead of `histograms`: only after [`Samples::read_packed`].
    pub packed: PackedHistograms,
    /// Since when each float sample counts, in unix milliseconds, 0 where that is not known. It may
    /// end before the samples do: nothing is known of the rest. Empty as a rule, so it costs nothing.
    pub start_times: Vec<i64>,
    /// As `start_times`, for the histograms.
    pub histogram_start_times: Vec<i64>,
}

impl Columns {
    /// Forgets all samples and keeps the memory.
    pub fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
        self.histograms.clear();
        self.packed.clear();
        self.forget_start_times();
    }

    /// Forgets since when samples count.
    pub fn forget_start_times(&mut self) {
        self.start_times.clear();
        self.histogram_start_times.clear();
    }

    /// Whether it is known of any sample since when it counts.
    pub fn has_start_times(&self) -> bool {
        !self.start_times.is_empty() || !self.histogram_start_times.is_empty()
    }

    /// Gives each sample its entry in the columns of start times, unless such a column is empty.
    pub fn level_start_times(&mut self) {
        if !self.start_times.is_empty() {
            self.start_times.resize(self.timestamps.len(), 0);
        }
        if !self.histogram_start_times.is_empty() {
            self.histogram_start_times.resize(self.histograms.len(), 0);
        }
    }

    /// The bytes that the samples take.
    pub fn bytes(&self) -> usize {
        let columns = self.timestamps.capacity()
            + self.values.capacity()
            + self.start_times.capacity()
            + self.histogram_start_times.capacity();
        let histograms = self.histograms.iter().map(|(_, it)| it.bytes() + 32);
        8 * columns + histograms.sum::<usize>() + self.packed.bytes()
    }

    /// Whether there is any histogram.
    pub fn has_histograms(&self) -> bool {
        !self.histograms.is_empty() || !self.packed.is_empty()
    }

    /// The number of samples of all kinds.
    pub fn sample_count(&self) -> usize {
        self.len() + self.histograms.len() + self.packed.len()
    }

    /// Gives back the memory that no sample takes.
    pub fn shrink_to_fit(&mut self) {
        self.timestamps.shrink_to_fit();
        self.values.shrink_to_fit();
        self.start_times.shrink_to_fit();
        self.histogram_start_times.shrink_to_fit();
        self.histograms.shrink_to_fit();
    }

    /// The number of float samples.
    pub fn len(&self) -> usize {
        self.timestamps.len()
    }

    /// Whether there is no float sample.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Appends a float sample, which must be later than the last.
    pub fn push(&mut self, timestamp_ms: i64, value: f64) {
        self.timestamps.push(timestamp_ms);
        self.values.push(value);
    }
}

/// The samples of one series, still encoded.
pub trait Samples: Send + Sync {
    /// Appends the samples whose time lies in `range` to `columns`, in time order and with one
    /// value for each time. More samples than asked for are never given.
    ///
    /// # Errors
    /// When the encoded bytes are corrupt or of a kind that is not understood.
    fn read(&self, range: TimeRange, columns: &mut Columns) -> Result<(), SelectError>;

    /// As [`Samples::read`] for empty columns when all samples are histograms, which come packed and
    /// without start times; false, and nothing read, when some are not or it cannot be done.
    ///
    /// With `stats` they are left their counts and sums, and their hints say of each whether its
    /// counter was reset since the one before it, as far as that was read: without buckets nobody
    /// else could.
    ///
    /// # Errors
    /// As [`Samples::read`].
    fn read_packed(
        &self,
        _range: TimeRange,
        _stats: bool,
        _columns: &mut Columns,
    ) -> Result<bool, SelectError> {
        Ok(false)
    }

    /// About how many samples reading takes a look at.
    fn count_estimate(&self) -> usize;

    /// The length of the encoded samples in bytes; 0 when they are not encoded.
    fn encoded_bytes(&self) -> u64 {
        0
    }

    /// The same series as each of several collectors saw it, at least two, always in the same
    /// order; empty when there is but one. Whoever computes windows asks each of them by itself;
    /// [`Samples::read`] then gives the samples of the one that has most in the range.
    fn replicas(&self) -> &[Box<dyn Samples>] {
        &[]
    }
}

/// A series that several collectors saw, each in its own way.
pub struct Replicas(Vec<Box<dyn Samples>>);

impl Replicas {
    /// The samples of each collector; what one collector saw is passed on as it is.
    pub fn of(mut replicas: Vec<Box<dyn Samples>>) -> Box<dyn Samples> {
        match replicas.pop() {
            None => Box::new(Columns::default()),
            Some(only) if replicas.is_empty() => only,
            Some(last) => {
                replicas.push(last);
                Box::new(Replicas(replicas))
            }
        }
    }
}

impl Samples for Replicas {
    fn read(&self, range: TimeRange, columns: &mut Columns) -> Result<(), SelectError> {
        let mut most: Option<(usize, &dyn Samples)> = None;
        for replica in &self.0 {
            let mut own = Columns::default();
            replica.read(range, &mut own)?;
            let count = own.len() + own.histograms.len();
            if most.is_none_or(|most| most.0 < count) {
                most = Some((count, replica.as_ref()));
            }
        }
        match most {
            Some((_, replica)) => replica.read(range, columns),
            None => Ok(()),
        }
    }

    fn count_estimate(&self) -> usize {
        self.0.iter().map(|it| it.count_estimate()).sum()
    }

    fn encoded_bytes(&self) -> u64 {
        self.0.iter().map(|it| it.encoded_bytes()).sum()
    }

    fn replicas(&self) -> &[Box<dyn Samples>] {
        &self.0
    }
}

/// Samples that are decoded already.
impl Samples for Columns {
    fn read(&self, range: TimeRange, columns: &mut Columns) -> Result<(), SelectError> {
        let from = self.timestamps.partition_point(|t| *t < range.min_ms);
        let to = self
            .timestamps
            .partition_point(|t| *t <= range.max_ms)
            .max(from);
        columns
            .timestamps
            .extend_from_slice(&self.timestamps[from..to]);
        columns.values.extend_from_slice(&self.values[from..to]);
        let histograms = self.histograms.as_slice();
        let first = histograms.partition_point(|it| it.0 < range.min_ms);
        let end = histograms
            .partition_point(|it| it.0 <= range.max_ms)
            .max(first);
        if self.has_start_times() {
            let before = columns.timestamps.len() - (to - from);
            let into = &mut columns.start_times;
            append_start_times(&self.start_times, from..to, before, into);
            let before = columns.histograms.len();
            let into = &mut columns.histogram_start_times;
            append_start_times(&self.histogram_start_times, first..end, before, into);
        }
        columns
            .histograms
            .extend_from_slice(&histograms[first..end]);
        Ok(())
    }

    fn count_estimate(&self) -> usize {
        self.timestamps.len() + self.histograms.len()
    }
}

/// Appends the entries of `range`, as far as there are any, behind `before` others.
fn append_start_times(from: &[i64], range: Range<usize>, before: usize, to: &mut Vec<i64>) {
    let range = range.start.min(from.len())..range.end.min(from.len());
    if !range.is_empty() {
        to.resize(before, 0);
        to.extend_from_slice(&from[range]);
    }
}

/// One series of a select.
pub struct Series {
    /// The labels, the metric's name among them.
    pub labels: Labels,
    /// The samples.
    pub samples: Box<dyn Samples>,
}

/// What a source may use to read less than the matchers and the range ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SelectHints {
    /// Distance between steps in milliseconds; 0 for an instant query.
    pub step_ms: i64,
    /// The window of a range selector in milliseconds; 0 for an instant selector.
    pub range_ms: i64,
    /// The function or aggregation right around the selector, `""` when there is none.
    pub func: String,
    /// The labels of the aggregation right around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` names the labels to keep rather than to drop.
    pub by: bool,
    /// All labels besides the name that anybody looks at, sorted, where that is known. The source
    /// may leave the others out; series that are the same then stay apart all the same.
    pub labels: Option<Vec<String>>,
}

/// A selector with all that a source needs to answer it.
#[derive(Debug, Clone)]
pub struct Select {
    /// All of them must match.
    pub matchers: Vec<Matcher>,
    /// The times of the samples that are needed, lookback and window included.
    pub range: TimeRange,
    /// What is done with the series.
    pub hints: SelectHints,
}

/// Opens the selects of a plan. Shared by all threads that evaluate the plan.
pub trait SeriesSource: Sync {
    /// Opens select number `index` of the plan. Called at most once for each.
    ///
    /// # Errors
    /// When the store behind it cannot answer.
    fn open(
        &self,
        index: usize,
        select: &Select,
    ) -> Result<Box<dyn SeriesStream + '_>, SelectError>;
}

/// The series of one select, sorted by labels, each label set once.
pub trait SeriesStream: Send {
    /// Appends the next few series to `batch`; false when there was none left to append.
    ///
    /// # Errors
    /// When the store fails on the way. No further call is made then.
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError>;

    /// The bytes of memory that the samples of the series of the last call keep, as long as these live: 0
    /// where they lie in mapped files. Whoever keeps the series reserves them.
    fn heap_bytes(&self) -> usize {
        0
    }

    /// Takes the remarks of the store, complete once [`SeriesStream::next_batch`] has given false.
    fn take_warnings(&mut self) -> Warnings {
        Warnings::default()
    }
}

/// Why a select could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// Bytes that are read do not follow their format.
    #[error("corrupt data: {0}")]
    Corrupt(String),
    /// The data are of a kind that cannot be read yet.
    #[error("{0}")]
    Unsupported(String),
    /// A limit stands in the way; the text names it and its value.
    #[error("{0}")]
    LimitExceeded(String),
    /// The source cannot be reached or is shutting down; asking again may help.
    #[error("{0}")]
    Unavailable(String),
    /// The caller gave up.
    #[error("query was canceled")]
    Cancelled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times_stay_with_their_samples() {
        let histogram = Arc::new(FloatHistogram::default());
        let all = Columns {
            timestamps: vec![10, 20, 30, 40],
            values: vec![1.0; 4],
            histograms: vec![(15, histogram.clone()), (25, histogram)],
            start_times: vec![0, 15, 25],
            histogram_start_times: vec![0, 21],
            ..Columns::default()
        };
        let mut read = Columns::default();
        all.read(TimeRange::new(0, 10), &mut read).unwrap();
        assert_eq!(read.start_times, [0]);
        read.clear();
        read.push(5, 0.0);
        all.read(TimeRange::new(20, 40), &mut read).unwrap();
        assert_eq!(read.timestamps, [5, 20, 30, 40]);
        assert_eq!(read.start_times, [0, 15, 25]);
        assert_eq!(read.histogram_start_times, [21]);
        read.level_start_times();
        assert_eq!(read.start_times, [0, 15, 25, 0]);
        read.clear();
        all.read(TimeRange::new(35, 40), &mut read).unwrap();
        assert!(!read.has_start_times());
    }
}
