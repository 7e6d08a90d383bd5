//! Chunks: runs of samples of one series, encoded.
//!
//! [`xor`] is the encoding of floats, [`xor2`] the newer one, [`histogram`] that of native
//! histograms; [`segment`] the files in which a block keeps its chunks. Downsampled aggregates are
//! carried and copied as they are, but not decoded yet.

use std::sync::Arc;

use bytes::Bytes;
use isobar_model::{Columns, FloatHistogram, TimeRange};

use crate::Error;

pub mod aggregate;
pub mod histogram;
pub mod segment;
mod start_times;
pub mod xor;
pub mod xor2;

use histogram::{Counts, Kind};
pub use segment::{ChunkRef, SegmentReader, SegmentWriter};
pub use xor::{Scratch, XorAppender};

/// How a chunk's bytes are encoded. The numbers are those of the block format
/// (Prometheus `tsdb/chunkenc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Floats, Gorilla-style.
    Xor = 1,
    /// Integer native histograms.
    Histogram = 2,
    /// Float native histograms.
    FloatHistogram = 3,
    /// Floats with start timestamps.
    Xor2 = 4,
    /// Integer native histograms with start timestamps.
    HistogramSt = 5,
    /// Float native histograms with start timestamps.
    FloatHistogramSt = 6,
    /// The aggregates of Thanos' downsampled blocks: up to five chunks in one.
    Aggregate = 0xff,
}

impl Encoding {
    /// The encoding with this number in the block format.
    pub fn from_u8(code: u8) -> Option<Self> {
        Some(match code {
            1 => Encoding::Xor,
            2 => Encoding::Histogram,
            3 => Encoding::FloatHistogram,
            4 => Encoding::Xor2,
            5 => Encoding::HistogramSt,
            6 => Encoding::FloatHistogramSt,
            0xff => Encoding::Aggregate,
            _ => return None,
        })
    }

    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Xor => "XOR",
            Encoding::Histogram => "histogram",
            Encoding::FloatHistogram => "float histogram",
            Encoding::Xor2 => "XOR2",
            Encoding::HistogramSt => "histogram with start timestamps",
            Encoding::FloatHistogramSt => "float histogram with start timestamps",
            Encoding::Aggregate => "downsampled aggregates",
        }
    }
}

/// An encoded chunk and the times of its first and last sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// How `data` is encoded.
    pub encoding: Encoding,
    /// Time of the first sample, unix milliseconds.
    pub min_ms: i64,
    /// Time of the last sample, unix milliseconds.
    pub max_ms: i64,
    /// The encoded samples, without length, encoding byte and checksum.
    pub data: Bytes,
}

impl Chunk {
    /// The times from the first to the last sample.
    pub fn range(&self) -> TimeRange {
        TimeRange::new(self.min_ms, self.max_ms)
    }

    /// The number of samples, floats or histograms.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is no header, [`Error::Unsupported`] for aggregates.
    pub fn sample_count(&self) -> Result<u16, Error> {
        match self.encoding {
            Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram | Encoding::Xor2 => {
                xor::sample_count(&self.data)
            }
            // The two high bits say whether a counter was reset.
            Encoding::HistogramSt | Encoding::FloatHistogramSt => {
                Ok(xor::sample_count(&self.data)? & 0x3fff)
            }
            Encoding::Aggregate => Err(self.unsupported()),
        }
    }

    /// Appends the samples whose time lies in `range` to `columns`. Their times strictly rise:
    /// should the bytes hold them in disorder, they are sorted, and the first of equal times stays.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bytes do not follow the encoding, [`Error::Unsupported`] when
    /// the encoding is not decoded yet; `columns` is left as it was.
    pub fn decode_into(&self, range: TimeRange, columns: &mut Columns) -> Result<(), Error> {
        self.decode_with(range, columns, &mut Scratch::default())
    }

    /// As [`Chunk::decode_into`], for many chunks: they share the scratch.
    ///
    /// # Errors
    /// As [`Chunk::decode_into`].
    pub fn decode_with(
        &self,
        range: TimeRange,
        columns: &mut Columns,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        if let Some(kind) = self.histogram_kind() {
            let start = columns.histograms.len();
            let rising = histogram::decode(&self.data, kind, range, columns)?;
            if !rising {
                sort_histograms_from(start, columns);
            }
            return Ok(());
        }
        let start = columns.len();
        let rising = match self.encoding {
            Encoding::Xor => xor::decode_with(&self.data, columns, scratch)?,
            Encoding::Xor2 => xor2::decode(&self.data, columns)?,
            _ => return Err(self.unsupported()),
        };
        if !rising {
            sort_from(start, columns);
        }
        trim_from(start, range, columns);
        Ok(())
    }

    /// Appends all samples as the bytes hold them, and says whether their times strictly rise.
    ///
    /// # Errors
    /// As [`Chunk::decode_into`].
    pub(crate) fn decode_as_is(&self, columns: &mut Columns) -> Result<bool, Error> {
        match (self.histogram_kind(), self.encoding) {
            (Some(kind), _) => histogram::decode(&self.data, kind, TimeRange::ALL, columns),
            (None, Encoding::Xor) => xor::decode(&self.data, columns),
            (None, Encoding::Xor2) => xor2::decode(&self.data, columns),
            (None, _) => Err(self.unsupported()),
        }
    }

    /// What a chunk of histograms holds; `None` for any other.
    pub(crate) fn histogram_kind(&self) -> Option<Kind> {
        let (counts, start_times) = match self.encoding {
            Encoding::Histogram => (Counts::Integer, false),
            Encoding::FloatHistogram => (Counts::Float, false),
            Encoding::HistogramSt => (Counts::Integer, true),
            Encoding::FloatHistogramSt => (Counts::Float, true),
            Encoding::Xor | Encoding::Xor2 | Encoding::Aggregate => return None,
        };
        Some(Kind {
            counts,
            start_times,
        })
    }

    /// Fails when the samples, decoded, could not be encoded again.
    ///
    /// # Errors
    /// [`Error::Unsupported`]
    pub(crate) fn check_encodable(&self) -> Result<(), Error> {
        match self.encoding {
            Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram => Ok(()),
            _ => Err(Error::Unsupported(format!(
                "chunk encoding {} ({}) is not encoded yet",
                self.encoding as u8,
                self.encoding.name()
            ))),
        }
    }

    fn unsupported(&self) -> Error {
        let code = self.encoding as u8;
        Error::Unsupported(format!(
            "chunk encoding {code} ({}) is not decoded yet",
            self.encoding.name()
        ))
    }
}

/// A histogram with its time, and since when it counts.
pub(crate) type StartedHistogram = ((i64, Arc<FloatHistogram>), i64);

/// Sorts the floats from index `start` on by time; the first of equal times stays.
pub(crate) fn sort_from(start: usize, columns: &mut Columns) {
    let start_times = split_start_times(&mut columns.start_times, start);
    let times = columns.timestamps.drain(start..);
    let samples = times.zip(columns.values.drain(start..)).zip(start_times);
    let mut samples: Vec<_> = samples.collect();
    samples.sort_by_key(|((timestamp_ms, _), _)| *timestamp_ms);
    samples.dedup_by_key(|((timestamp_ms, _), _)| *timestamp_ms);
    for ((timestamp_ms, value), start_ms) in samples {
        if start_ms != 0 {
            let before = columns.len();
            columns.start_times.resize(before, 0);
            columns.start_times.push(start_ms);
        }
        columns.push(timestamp_ms, value);
    }
}

/// Sorts the histograms from index `start` on by time; the first of equal times stays.
fn sort_histograms_from(start: usize, columns: &mut Columns) {
    let mut samples = take_histograms(start, columns);
    samples.sort_by_key(|(sample, _)| sample.0);
    samples.dedup_by_key(|(sample, _)| sample.0);
    append_histograms(samples, columns);
}

/// Takes the histograms from index `start` on out of the columns.
pub(crate) fn take_histograms(start: usize, columns: &mut Columns) -> Vec<StartedHistogram> {
    let start_times = split_start_times(&mut columns.histogram_start_times, start);
    let histograms = columns.histograms.drain(start..);
    histograms.zip(start_times).collect()
}

/// Puts histograms behind those that are there.
pub(crate) fn append_histograms(
    samples: impl IntoIterator<Item = StartedHistogram>,
    columns: &mut Columns,
) {
    for (sample, start_ms) in samples {
        // What is missing in front of a start time stands for unknown ones.
        if start_ms != 0 {
            let before = columns.histograms.len();
            columns.histogram_start_times.resize(before, 0);
            columns.histogram_start_times.push(start_ms);
        }
        columns.histograms.push(sample);
    }
}

/// Takes the start times from index `start` on out of their column; zeros follow without end.
fn split_start_times(column: &mut Vec<i64>, start: usize) -> impl Iterator<Item = i64> {
    let taken = column.split_off(start.min(column.len()));
    taken.into_iter().chain(std::iter::repeat(0))
}

/// Drops the samples outside of `range` from index `start` on, where times rise.
fn trim_from(start: usize, range: TimeRange, columns: &mut Columns) {
    let times = columns.timestamps.get(start..).unwrap_or_default();
    if times.last().is_some_and(|last| *last > range.max_ms) {
        let end = start + times.partition_point(|time| *time <= range.max_ms);
        columns.timestamps.truncate(end);
        columns.values.truncate(end);
        columns.start_times.truncate(end);
    }
    let times = columns.timestamps.get(start..).unwrap_or_default();
    if times.first().is_some_and(|first| *first < range.min_ms) {
        let begin = start + times.partition_point(|time| *time < range.min_ms);
        columns.timestamps.drain(start..begin);
        columns.values.drain(start..begin);
        let known = columns.start_times.len();
        columns
            .start_times
            .drain(start.min(known)..begin.min(known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(samples: &[(i64, f64)], range: TimeRange, expected: &[(i64, f64)]) {
        let mut appender = XorAppender::new();
        samples
            .iter()
            .for_each(|(timestamp_ms, value)| appender.append(*timestamp_ms, *value));
        let mut columns = Columns::default();
        columns.push(i64::MIN, 0.0);
        appender
            .into_chunk()
            .unwrap()
            .decode_into(range, &mut columns)
            .unwrap();
        let got: Vec<_> = columns
            .timestamps
            .into_iter()
            .zip(columns.values)
            .skip(1)
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn only_samples_of_the_range_are_given() {
        let samples = [(10, 1.0), (20, 2.0), (30, 3.0)];
        check(&samples, TimeRange::ALL, &samples);
        check(&samples, TimeRange::new(10, 30), &samples);
        check(&samples, TimeRange::new(11, 29), &samples[1..2]);
        check(&samples, TimeRange::new(31, 40), &[]);
        check(&samples, TimeRange::new(0, 9), &[]);
        check(&samples, TimeRange::new(20, 10), &[]);
    }

    #[test]
    fn disorder_is_put_right() {
        let samples = [(20, 2.0), (10, 1.0), (20, 5.0), (30, 3.0)];
        check(&samples, TimeRange::ALL, &[(10, 1.0), (20, 2.0), (30, 3.0)]);
    }

    #[test]
    fn what_cannot_be_decoded_is_named() {
        let data = Bytes::from_static(&[0, 1, 0]);
        let mut chunk = Chunk {
            encoding: Encoding::Aggregate,
            min_ms: 0,
            max_ms: 0,
            data,
        };
        let error = chunk
            .decode_into(TimeRange::ALL, &mut Columns::default())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "chunk encoding 255 (downsampled aggregates) is not decoded yet"
        );
        chunk.encoding = Encoding::HistogramSt;
        assert_eq!(chunk.sample_count().unwrap(), 1);
    }

    #[test]
    fn start_times_are_sorted_and_trimmed_with_their_samples() {
        let mut columns = Columns {
            timestamps: vec![1, 30, 10, 20],
            values: vec![0.0; 4],
            start_times: vec![0, 25, 0, 15],
            ..Columns::default()
        };
        sort_from(1, &mut columns);
        assert_eq!(columns.timestamps, [1, 10, 20, 30]);
        assert_eq!(columns.start_times, [0, 0, 15, 25]);
        trim_from(1, TimeRange::new(20, 25), &mut columns);
        assert_eq!(columns.timestamps, [1, 20]);
        assert_eq!(columns.start_times, [0, 15]);
    }
}
