//! Chunks: runs of samples of one series, encoded.

use bytes::Bytes;

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
            _ => return None,
        })
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
