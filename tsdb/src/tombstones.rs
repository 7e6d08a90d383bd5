//! Tombstones: what was deleted from a block that stands unchanged (Prometheus
//! `tsdb/docs/format/tombstones.md`).
//!
//! ```text
//! magic 0130BA30 <4b> │ version 1 <1b> │ stone… │ CRC-32C of the stones <4b>
//! stone: series <uvarint> │ first time <varint> │ last time <varint>
//! ```

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;

use isobar_model::TimeRange;

use crate::Error;
use crate::encoding::{DecodeError, Decoder, crc32c, put_be32, put_uvarint, put_varint};
use crate::index::SeriesRef;

const MAGIC: u32 = 0x0130_ba30;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// The deleted times of the series of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tombstones {
    /// For each series times that neither overlap nor touch, in order.
    series: BTreeMap<SeriesRef, Vec<TimeRange>>,
}

impl Tombstones {
    /// Reads the content of a tombstones file; `name` stands for it in errors.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bytes do not follow the format.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        let mut header = Decoder::new(bytes);
        let magic = header.be32().map_err(|e| e.at_offset(name, "header", 0))?;
        if magic != MAGIC {
            return Err(Error::corrupt_at(
                name,
                0,
                format!("header: magic number {magic:08x}"),
            ));
        }
        let version = header.u8().map_err(|e| e.at_offset(name, "header", 4))?;
        if version != VERSION {
            return Err(Error::corrupt_at(
                name,
                4,
                format!("header: format version {version}"),
            ));
        }
        decode_stones(header.rest()).map_err(|e| e.at_offset(name, "stones", HEADER_BYTES as u64))
    }

    /// The content of a tombstones file.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_be32(&mut out, MAGIC);
        out.push(VERSION);
        for (series, ranges) in &self.series {
            for range in ranges {
                put_uvarint(&mut out, u64::from(series.0));
                put_varint(&mut out, range.min_ms);
                put_varint(&mut out, range.max_ms);
            }
        }
        let checksum = crc32c(out.get(HEADER_BYTES..).unwrap_or_default());
        put_be32(&mut out, checksum);
        out
    }

    /// Marks times of a series as deleted. An empty range marks none.
    pub fn add(&mut self, series: SeriesRef, range: TimeRange) {
        if range.min_ms > range.max_ms {
            return;
        }
        let ranges = self.series.entry(series).or_default();
        // Those that overlap or touch the new one become one with it.
        let from = ranges.partition_point(|it| it.max_ms < range.min_ms.saturating_sub(1));
        let to = ranges.partition_point(|it| it.min_ms <= range.max_ms.saturating_add(1));
        let joined = ranges
            .get(from..to)
            .unwrap_or_default()
            .iter()
            .fold(range, |joined, it| joined.union(it));
        ranges.splice(from..to.max(from), [joined]);
    }

    /// The deleted times of a series, in order.
    pub fn get(&self, series: SeriesRef) -> &[TimeRange] {
        self.series.get(&series).map_or(&[], Vec::as_slice)
    }

    /// The series of which something is deleted, in order.
    pub fn series(&self) -> impl Iterator<Item = SeriesRef> {
        self.series.keys().copied()
    }

    /// The number of ranges.
    pub fn len(&self) -> usize {
        self.series.values().map(Vec::len).sum()
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

fn decode_stones(bytes: &[u8]) -> Result<Tombstones, DecodeError> {
    let content = bytes.len().checked_sub(4).ok_or(DecodeError::Truncated)?;
    let mut decoder = Decoder::new(bytes);
    let stones = decoder.bytes(content)?;
    decoder.checksum(stones)?;
    let mut stones = Decoder::new(stones);
    let mut tombstones = Tombstones::default();
    while !stones.is_empty() {
        let series = SeriesRef(stones.uvarint32()?);
        tombstones.add(series, TimeRange::new(stones.varint()?, stones.varint()?));
    }
    Ok(tombstones)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ranges: &[(i64, i64)], expected: &[(i64, i64)]) {
        let mut tombstones = Tombstones::default();
        for (min_ms, max_ms) in ranges {
            tombstones.add(SeriesRef(7), TimeRange::new(*min_ms, *max_ms));
        }
        let joined: Vec<_> = tombstones
            .get(SeriesRef(7))
            .iter()
            .map(|it| (it.min_ms, it.max_ms))
            .collect();
        assert_eq!(joined, expected);
        assert_eq!(
            Tombstones::decode("t", &tombstones.encode()).unwrap(),
            tombstones
        );
    }

    #[test]
    fn ranges_join() {
        check(&[(1, 3), (7, 9)], &[(1, 3), (7, 9)]);
        check(&[(7, 9), (1, 3), (5, 5)], &[(1, 3), (5, 5), (7, 9)]);
        check(&[(7, 9), (1, 3), (4, 6)], &[(1, 9)]);
        check(&[(1, 3), (7, 9), (2, 8)], &[(1, 9)]);
        check(&[(1, 10), (2, 3)], &[(1, 10)]);
        check(&[(5, 4)], &[]);
        check(
            &[(i64::MIN, -1), (1, i64::MAX)],
            &[(i64::MIN, -1), (1, i64::MAX)],
        );
        check(&[(i64::MIN, 0), (1, i64::MAX)], &[(i64::MIN, i64::MAX)]);
    }

    #[test]
    fn an_empty_file_is_that_of_prometheus() {
        let bytes = Tombstones::default().encode();
        assert_eq!(bytes, [0x01, 0x30, 0xba, 0x30, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn damage_is_corrupt() {
        let mut tombstones = Tombstones::default();
        tombstones.add(
            SeriesRef(300),
            TimeRange::new(1_700_000_000_000, 1_700_000_060_000),
        );
        tombstones.add(SeriesRef(301), TimeRange::new(-5, 5));
        let bytes = tombstones.encode();
        for len in 0..bytes.len() {
            let result = Tombstones::decode("t", &bytes[..len]);
            assert!(matches!(result, Err(Error::Corrupt { .. })), "{len} bytes");
        }
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x10;
            let result = Tombstones::decode("t", &damaged);
            assert!(matches!(result, Err(Error::Corrupt { .. })), "byte {i}");
        }
    }
}
