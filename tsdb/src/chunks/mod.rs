//! Chunks: runs of samples of one series, encoded.
//!
//! [`xor`] is the encoding of floats, [`histogram`] that of native histograms; [`segment`] the
//! files in which a block keeps its chunks. The other encodings are carried and copied as they
//! are, but not decoded yet.

use bytes::Bytes;
use isobar_model::{Columns, TimeRange};

use crate::Error;

pub mod histogram;
pub mod segment;
pub mod xor;

use histogram::Counts;
pub use segment::{ChunkRef, SegmentReader, SegmentWriter};
pub use xor::XorAppender;

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
        match self.encoding {
            Encoding::Xor => {}
            Encoding::Histogram => return self.decode_histograms(Counts::Integer, range, columns),
            Encoding::FloatHistogram => {
                return self.decode_histograms(Counts::Float, range, columns);
            }
            _ => return Err(self.unsupported()),
        }
        let start = columns.len();
        let rising = xor::decode(&self.data, columns)?;
        if !rising {
            sort_from(start, columns);
        }
        trim_from(start, range, columns);
        Ok(())
    }

    fn decode_histograms(
        &self,
        counts: Counts,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), Error> {
        let start = columns.histograms.len();
        let rising = histogram::decode(&self.data, counts, range, &mut columns.histograms)?;
        if !rising {
            let mut samples = columns.histograms.split_off(start);
            samples.sort_by_key(|sample| sample.0);
            samples.dedup_by_key(|sample| sample.0);
            columns.histograms.append(&mut samples);
        }
        Ok(())
    }

    /// Fails when the samples, decoded, could not be encoded again.
    ///
    /// # Errors
    /// [`Error::Unsupported`]
    pub(crate) fn check_encodable(&self) -> Result<(), Error> {
        match self.encoding {
            Encoding::Xor => Ok(()),
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

/// Sorts the samples from index `start` on by time; the first of equal times stays.
pub(crate) fn sort_from(start: usize, columns: &mut Columns) {
    let times = columns.timestamps.drain(start..);
    let mut samples: Vec<_> = times.zip(columns.values.drain(start..)).collect();
    samples.sort_by_key(|sample| sample.0);
    samples.dedup_by_key(|sample| sample.0);
    samples
        .into_iter()
        .for_each(|(timestamp_ms, value)| columns.push(timestamp_ms, value));
}

/// Drops the samples outside of `range` from index `start` on, where times rise.
fn trim_from(start: usize, range: TimeRange, columns: &mut Columns) {
    let times = columns.timestamps.get(start..).unwrap_or_default();
    if times.last().is_some_and(|last| *last > range.max_ms) {
        let end = start + times.partition_point(|time| *time <= range.max_ms);
        columns.timestamps.truncate(end);
        columns.values.truncate(end);
    }
    let times = columns.timestamps.get(start..).unwrap_or_default();
    if times.first().is_some_and(|first| *first < range.min_ms) {
        let begin = start + times.partition_point(|time| *time < range.min_ms);
        columns.timestamps.drain(start..begin);
        columns.values.drain(start..begin);
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
        let chunk = Chunk {
            encoding: Encoding::HistogramSt,
            min_ms: 0,
            max_ms: 0,
            data,
        };
        let error = chunk
            .decode_into(TimeRange::ALL, &mut Columns::default())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "chunk encoding 5 (histogram with start timestamps) is not decoded yet"
        );
        assert_eq!(chunk.sample_count().unwrap(), 1);
    }
}
