//! Files of chunks that Prometheus' head has completed, `chunks_head/000001` (Prometheus
//! `tsdb/chunks/head_chunks.go`, `tsdb/docs/format/head_chunks.md`).
//!
//! ```text
//! ┌─────────────────────┬─────────────┬────────────┬─────────┬───┬─────────────────┐
//! │ magic 0130BC91 <4b> │ version <1b>│ zeros <3b> │ chunk 1 │ … │ zeros, if ever  │
//! └─────────────────────┴─────────────┴────────────┴─────────┴───┴─────────────────┘
//! chunk: series <8b> │ first, last time <8b> │ encoding <1b> │ len <uvarint> │ data │ CRC-32C <4b>
//! ```
//!
//! The high bit of the encoding says that the samples came late. The checksum is that of all in
//! front of it. Where a chunk is damaged, the next one is searched for.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use bytes::Bytes;

use super::record::SeriesNumber;
use super::segment::Damage;
use crate::chunks::{Chunk, Encoding};
use crate::encoding::{DecodeError, Decoder, crc32c};

const MAGIC: u32 = 0x0130_bc91;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;
const LATE: u8 = 0x80;
/// No chunk is longer: it has at most some hundred samples.
const DATA_BYTES_MAX: usize = 1 << 24;
/// How many times the bytes of a file are put into checksums while the next chunk is searched for.
const SEARCH_FACTOR: usize = 8;

/// A chunk of the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadChunk {
    /// The number of its series in the log.
    pub series: SeriesNumber,
    /// Whether its samples came late: it may overlap with others.
    pub late: bool,
    /// Where it begins in the file.
    pub offset: u64,
    /// The chunk. What the bytes hold was not looked at.
    pub chunk: Chunk,
}

/// Reads the chunks of a file one after the other.
pub struct HeadChunkReader<'a> {
    bytes: &'a Bytes,
    at: usize,
    search_bytes_left: usize,
}

impl<'a> HeadChunkReader<'a> {
    /// Reads a file from its beginning.
    ///
    /// # Errors
    /// When it is no such file. One that is shorter than its header has no chunks, nor has one of
    /// zeros: so a crash leaves it.
    pub fn new(bytes: &'a Bytes) -> Result<Self, Damage> {
        let mut reader = HeadChunkReader {
            bytes,
            at: bytes.len(),
            search_bytes_left: bytes.len().saturating_mul(SEARCH_FACTOR),
        };
        let Some(header) = bytes.get(..HEADER_BYTES) else {
            return Ok(reader);
        };
        let mut decoder = Decoder::new(header);
        if let (Ok(magic), Ok(version)) = (decoder.be32(), decoder.u8())
            && (magic, version) != (MAGIC, VERSION)
        {
            if bytes.iter().all(|byte| *byte == 0) {
                return Ok(reader);
            }
            let why = format!("magic number {magic:08x}, version {version}");
            return Err(Damage { offset: 0, why });
        }
        reader.at = HEADER_BYTES;
        Ok(reader)
    }

    fn read(&self, at: usize) -> Result<(HeadChunk, usize), ReadError> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let mut decoder = Decoder::new(rest);
        let series = decoder.be64()?;
        let min_ms = decoder.be64()?.cast_signed();
        let max_ms = decoder.be64()?.cast_signed();
        let code = decoder.u8()?;
        let len = decoder.uvarint_len()?;
        if len > DATA_BYTES_MAX || min_ms > max_ms {
            return Err(ReadError::Implausible);
        }
        let encoding = Encoding::from_u8(code & !LATE).ok_or(ReadError::Encoding(code))?;
        let data = decoder.bytes(len)?;
        let stored = decoder.be32()?;
        let end = rest.len() - decoder.len();
        let checked = rest.get(..end - 4).unwrap_or_default();
        let computed = crc32c(checked);
        if stored != computed && !cfg!(fuzzing) {
            let checked_bytes = checked.len();
            return Err(ReadError::Checksum {
                stored,
                computed,
                checked_bytes,
            });
        }
        let chunk = Chunk {
            encoding,
            min_ms,
            max_ms,
            data: self.bytes.slice_ref(data),
        };
        let chunk = HeadChunk {
            series: SeriesNumber(series),
            late: code & LATE != 0,
            offset: at as u64,
            chunk,
        };
        Ok((chunk, at + end))
    }

    /// Where the next chunk begins that can be read, behind `at`.
    fn search(&mut self, at: usize) -> Option<usize> {
        for at in at + 1..self.bytes.len() {
            // Series are numbered from 1 on and never reach 2^48.
            let number = self.bytes.get(at..at + 8)?;
            if !number.starts_with(&[0, 0]) || number == [0; 8] {
                continue;
            }
            match self.read(at) {
                Ok(_) => return Some(at),
                Err(ReadError::Checksum { checked_bytes, .. }) => {
                    self.search_bytes_left = self.search_bytes_left.checked_sub(checked_bytes)?;
                }
                Err(_) => {}
            }
        }
        None
    }

    /// Whether the chunks end here: at the end of the file or at zeros.
    fn is_end(&self) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let head = rest.get(..24).unwrap_or(rest);
        head.iter().all(|byte| *byte == 0)
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("unknown encoding {0:#04x}")]
    Encoding(u8),
    #[error("a chunk has impossible times or length")]
    Implausible,
    #[error("checksum {stored:08x}, computed {computed:08x}")]
    Checksum {
        stored: u32,
        computed: u32,
        checked_bytes: usize,
    },
}

impl Iterator for HeadChunkReader<'_> {
    type Item = Result<HeadChunk, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_end() {
            return None;
        }
        let at = self.at;
        let error = match self.read(at) {
            Ok((chunk, end)) => {
                self.at = end;
                return Some(Ok(chunk));
            }
            Err(error) => error,
        };
        let torn = matches!(error, ReadError::Decode(DecodeError::Truncated));
        let found = self.search(at);
        self.at = found.unwrap_or(self.bytes.len());
        // The last chunk may be cut by a crash.
        if torn && found.is_none() {
            return None;
        }
        Some(Err(Damage {
            offset: at as u64,
            why: error.to_string(),
        }))
    }
}

/// Writes chunks as Prometheus does: for tests and fuzzers.
#[cfg(any(test, fuzzing))]
pub mod write {
    use super::{HeadChunk, LATE, MAGIC, VERSION};
    use crate::encoding::{crc32c, put_be32, put_be64, put_uvarint};

    /// Chunks as a file. Their offsets are not used.
    pub fn file(chunks: &[HeadChunk]) -> Vec<u8> {
        let mut out = Vec::new();
        put_be32(&mut out, MAGIC);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        for it in chunks {
            let begin = out.len();
            put_be64(&mut out, it.series.0);
            put_be64(&mut out, it.chunk.min_ms.cast_unsigned());
            put_be64(&mut out, it.chunk.max_ms.cast_unsigned());
            out.push(it.chunk.encoding as u8 | if it.late { LATE } else { 0 });
            put_uvarint(&mut out, it.chunk.data.len() as u64);
            out.extend_from_slice(&it.chunk.data);
            let checksum = crc32c(out.get(begin..).unwrap_or_default());
            put_be32(&mut out, checksum);
        }
        out
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers are small")]
mod tests {
    use super::*;

    fn chunks() -> Vec<HeadChunk> {
        let chunk = |number: u64| HeadChunk {
            series: SeriesNumber(number),
            late: number.is_multiple_of(3),
            offset: 0,
            chunk: Chunk {
                encoding: Encoding::Xor,
                min_ms: number as i64 * 1000,
                max_ms: number as i64 * 1000 + 500,
                data: Bytes::from(vec![number as u8; 40 + number as usize]),
            },
        };
        (1..8).map(chunk).collect()
    }

    /// The numbers of the series of the chunks, and where damage begins.
    fn read(bytes: &[u8]) -> (Vec<u64>, Vec<u64>) {
        let bytes = Bytes::copy_from_slice(bytes);
        let (mut series, mut damages) = (Vec::new(), Vec::new());
        match HeadChunkReader::new(&bytes) {
            Ok(reader) => {
                for chunk in reader {
                    match chunk {
                        Ok(mut chunk) => {
                            chunk.offset = 0;
                            let expected = &chunks()[chunk.series.0 as usize - 1];
                            assert_eq!(chunk, *expected);
                            series.push(chunk.series.0);
                        }
                        Err(damage) => damages.push(damage.offset),
                    }
                }
            }
            Err(damage) => damages.push(damage.offset),
        }
        (series, damages)
    }

    #[test]
    fn chunks_come_back() {
        let mut bytes = write::file(&chunks());
        assert_eq!(read(&bytes), ((1..8).collect(), vec![]));
        bytes.resize(100_000, 0);
        assert_eq!(read(&bytes), ((1..8).collect(), vec![]));
        assert_eq!(read(&[0; 4096]), (vec![], vec![]));
    }

    #[test]
    fn a_torn_tail_is_no_damage() {
        let bytes = write::file(&chunks());
        for len in 0..bytes.len() {
            let (series, damages) = read(&bytes[..len]);
            assert!(
                (1..8).collect::<Vec<_>>().starts_with(&series),
                "{len} bytes"
            );
            assert!(damages.is_empty(), "{len} bytes");
        }
    }

    #[test]
    fn damage_costs_one_chunk() {
        let bytes = write::file(&chunks());
        let last = bytes.len() - 76;
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x11;
            let (series, damages) = read(&damaged);
            match at {
                0..5 => assert_eq!((series.len(), damages.len()), (0, 1), "byte {at}"),
                5..8 => assert_eq!((series.len(), damages.len()), (7, 0), "byte {at}"),
                _ => {
                    assert_eq!(series.len(), 6, "byte {at}");
                    assert!(damages.len() == 1 || at > last, "byte {at}");
                }
            }
        }
    }
}
