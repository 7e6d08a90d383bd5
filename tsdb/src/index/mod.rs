//! The index of a block: which series exist, and where their chunks lie (Prometheus
//! `tsdb/docs/format/index.md`).
//!
//! ```text
//! ┌────────────────────────┬──────────────────┐
//! │ magic BAAAD700 <4b>    │ version <1b>     │
//! ├────────────────────────┴──────────────────┤
//! │ symbols: every text once, sorted          │ symbols
//! ├───────────────────────────────────────────┤
//! │ series: labels and chunks, sorted,        │ reader, writer
//! │         each at a multiple of 16          │
//! ├───────────────────────────────────────────┤
//! │ (label indices: not written any more)     │
//! ├───────────────────────────────────────────┤
//! │ postings: for each label pair the series  │ postings
//! ├───────────────────────────────────────────┤
//! │ postings offset table: label pair → list  │ table
//! ├───────────────────────────────────────────┤
//! │ table of contents: six offsets, CRC-32C   │ this file
//! └───────────────────────────────────────────┘
//! ```
//!
//! Version 2 is written; 1 (of 2017) is read as well. They differ in what a number stands for: in
//! version 2 a symbol is its rank and a series its offset divided by 16, in version 1 both are
//! offsets. Version 3 has the layout of version 2.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use crate::Error;
use crate::chunks::ChunkRef;
use crate::encoding::{Decoder, crc32c, put_be32, put_be64};

mod chunk_list;
pub mod parts;
pub mod postings;
pub mod reader;
pub mod select;
mod symbols;
mod table;
pub(crate) mod verify;
pub mod writer;

pub use chunk_list::Fence;
pub use postings::Postings;
pub use reader::{IndexReader, SeriesEntry};
pub use writer::IndexWriter;

const MAGIC: u32 = 0xbaaa_d700;
const HEADER_BYTES: usize = 5;
/// Series begin at multiples of this, and their references count multiples.
const SERIES_ALIGN: usize = 16;
/// Of how many symbols, and of how many values of a label, a reader remembers the place of one.
const FENCE_DISTANCE: usize = 32;

/// A series of one index. Orders like the labels of the series do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(pub u32);

/// A chunk as the index lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Where it lies.
    pub reference: ChunkRef,
    /// Time of the first sample, unix milliseconds.
    pub min_ms: i64,
    /// Time of the last sample, unix milliseconds.
    pub max_ms: i64,
}

/// Which rules a file follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    /// Where a series lies in the file.
    fn offset_of(self, series: SeriesRef) -> u64 {
        match self {
            Version::V1 => u64::from(series.0),
            Version::V2 => u64::from(series.0) * SERIES_ALIGN as u64,
        }
    }
}

/// The offsets of the sections. 0 stands for a section that does not exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Toc {
    symbols: u64,
    series: u64,
    label_indices: u64,
    label_indices_table: u64,
    postings: u64,
    postings_table: u64,
}

impl Toc {
    const BYTES: usize = 6 * 8 + 4;

    fn decode(name: &str, index: &[u8]) -> Result<Self, Error> {
        let place = "table of contents";
        let (_, toc) = index
            .split_last_chunk::<{ Toc::BYTES }>()
            .ok_or_else(|| Error::corrupt_at(name, 0, format!("{place}: the file is too short")))?;
        let at = (index.len() - Toc::BYTES) as u64;
        let decode = || {
            let mut decoder = Decoder::new(toc);
            let content = decoder.bytes(Toc::BYTES - 4)?;
            decoder.checksum(content)?;
            let mut content = Decoder::new(content);
            Ok(Toc {
                symbols: content.be64()?,
                series: content.be64()?,
                label_indices: content.be64()?,
                label_indices_table: content.be64()?,
                postings: content.be64()?,
                postings_table: content.be64()?,
            })
        };
        decode().map_err(|e: crate::encoding::DecodeError| e.at_offset(name, place, at))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Toc::BYTES);
        put_be64(&mut out, self.symbols);
        put_be64(&mut out, self.series);
        put_be64(&mut out, self.label_indices);
        put_be64(&mut out, self.label_indices_table);
        put_be64(&mut out, self.postings);
        put_be64(&mut out, self.postings_table);
        let checksum = crc32c(&out);
        put_be32(&mut out, checksum);
        out
    }
}
