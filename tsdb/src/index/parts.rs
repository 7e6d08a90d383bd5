//! Parts of an index, for a reader that has fetched some of its bytes and not the whole file: where
//! the sections lie ([`Layout`]), the symbols and the label pairs of their sections, and series one
//! after the other as they lie in the file ([`SeriesWalk`]).
//!
//! Nothing here remembers anything; [`super::IndexReader`] is for an index that is at hand.

use std::ops::Range;

use bytes::Bytes;
use isobar_model::TimeRange;

use super::reader::read_header;
use super::table::{entry, sorted};
use super::{
    HEADER_BYTES, Postings, SERIES_ALIGN, SeriesEntry, SeriesRef, Toc, Version, chunk_list,
};
use crate::Error;
use crate::encoding::{DecodeError, Decoder};

/// Where the sections of an index lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    version: Version,
    /// The length of the file in bytes.
    pub size: u64,
    /// The section of the symbols, with its length and checksum.
    pub symbols: Range<u64>,
    /// The series.
    pub series: Range<u64>,
    /// The lists of series.
    pub postings: Range<u64>,
    /// The section of the postings offset table, with its length and checksum.
    pub table: Range<u64>,
}

impl Layout {
    /// How many bytes of the begin of the file are needed.
    pub const HEAD_BYTES: usize = HEADER_BYTES;
    /// How many bytes of its end are needed.
    pub const TAIL_BYTES: usize = Toc::BYTES;

    /// The layout of the index `name` of `size` bytes that begins with `head` and ends with `tail`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when header or table of contents do not follow the format,
    /// [`Error::Unsupported`] when the version is unknown.
    pub fn decode(name: &str, head: &[u8], tail: &[u8], size: u64) -> Result<Self, Error> {
        let version = read_header(name, head)?;
        let toc = Toc::decode(name, tail)?;
        let toc_begin = size.saturating_sub(Toc::BYTES as u64);
        let mut begins = vec![
            toc.symbols,
            toc.series,
            toc.label_indices,
            toc.postings,
            toc.label_indices_table,
            toc.postings_table,
        ];
        begins.retain(|begin| *begin != 0);
        begins.sort_unstable();
        let outside = |begin: &u64| !(HEADER_BYTES as u64..=toc_begin).contains(begin);
        if let Some(begin) = begins.iter().find(|begin| outside(begin)) {
            let why = format!("table of contents: a section begins at {begin}");
            return Err(Error::corrupt_at(name, toc_begin, why));
        }
        let section = |what: &str, begin: u64| {
            if begin == 0 {
                let why = format!("table of contents: there are no {what}");
                return Err(Error::corrupt_at(name, toc_begin, why));
            }
            let end = begins.iter().copied().find(|other| *other > begin);
            Ok(begin..end.unwrap_or(toc_begin))
        };
        Ok(Layout {
            version,
            size,
            symbols: section("symbols", toc.symbols)?,
            // Without series both sections begin at the same place.
            series: section("series", toc.series)?,
            postings: section("postings", toc.postings)?,
            table: section("label pairs", toc.postings_table)?,
        })
    }

    /// Whether symbols are told by their offset and series lie at any offset, as in version 1.
    pub fn is_v1(&self) -> bool {
        self.version == Version::V1
    }

    /// Where a series lies in the file.
    pub fn offset_of(&self, series: SeriesRef) -> u64 {
        self.version.offset_of(series)
    }

    /// The symbols of the section `bytes`: how many, and each with the number that series write for it.
    ///
    /// # Errors
    /// When the section is cut or its checksum does not match. Texts are checked as they are reached.
    pub fn symbols<'a>(&self, bytes: &'a [u8]) -> Result<SymbolList<'a>, DecodeError> {
        let content = Decoder::new(bytes).section()?;
        let mut decoder = Decoder::new(content);
        let count = decoder.be32()?;
        let begin = self.symbols.start.saturating_add(4 + content.len() as u64);
        Ok(SymbolList {
            decoder,
            end: begin,
            version: self.version,
            count,
            rank: 0,
        })
    }

    /// The label pairs of the section `bytes`, sorted.
    ///
    /// # Errors
    /// When the section is cut or its checksum does not match. Pairs are checked as they are reached.
    pub fn pairs(&self, bytes: &Bytes) -> Result<PairTable, DecodeError> {
        let mut decoder = Decoder::new(Decoder::new(bytes).section()?);
        let count = decoder.be32()?;
        let entries = bytes.slice_ref(decoder.rest());
        let (entries, count) = match self.version {
            Version::V1 => sorted(&entries, count)?,
            Version::V2 => (entries, count),
        };
        Ok(PairTable { entries, count })
    }
}

/// The symbols of an index in their order.
#[derive(Debug, Clone)]
pub struct SymbolList<'a> {
    decoder: Decoder<'a>,
    /// The offset in the file behind the last symbol.
    end: u64,
    version: Version,
    count: u32,
    rank: u32,
}

impl SymbolList<'_> {
    /// How many there are in all.
    pub fn total(&self) -> u32 {
        self.count
    }
}

impl<'a> Iterator for SymbolList<'a> {
    type Item = Result<(u32, &'a str), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rank >= self.count {
            return None;
        }
        let offset = self.end.saturating_sub(self.decoder.len() as u64);
        let rank = self.rank;
        self.rank += 1;
        let text = self.decoder.uvarint_str();
        if text.is_err() {
            self.rank = self.count;
        }
        let number = match self.version {
            Version::V1 => u32::try_from(offset).map_err(|_| DecodeError::NumberTooLarge),
            Version::V2 => Ok(rank),
        };
        Some(text.and_then(|text| Ok((number?, text))))
    }
}

/// The label pairs of an index, and where their lists of series lie.
#[derive(Debug, Clone)]
pub struct PairTable {
    entries: Bytes,
    count: u32,
}

impl PairTable {
    /// How many pairs there are, the empty one of all series among them.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Name, value and offset of the list of each, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = Result<(&str, &str, u64), DecodeError>> {
        let mut decoder = Decoder::new(&self.entries);
        let mut left = self.count;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let read = entry(&mut decoder).and_then(|it| it.ok_or(DecodeError::NumberTooLarge));
            if read.is_err() {
                left = 0;
            }
            Some(read.map(|(_, name, value, offset)| (name, value, offset)))
        })
    }
}

impl<'a> Postings<'a> {
    /// The list that `bytes` begins with, checked.
    ///
    /// # Errors
    /// When it is cut or its checksum does not match.
    pub fn of_bytes(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Postings::decode(bytes, 0)
    }

    /// The series of the list in their order.
    pub fn iter(&self) -> impl Iterator<Item = SeriesRef> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// The first and the last series.
    pub fn ends(&self) -> Option<(SeriesRef, SeriesRef)> {
        Some((self.get(0)?, self.get(self.len() - 1)?))
    }
}

/// One series as it lies in the file.
#[derive(Debug, Clone, Copy)]
pub struct RawSeries<'a> {
    /// Where it begins.
    pub offset: u64,
    /// Labels and chunks, for [`SeriesEntry::decode_labels`].
    pub content: &'a [u8],
}

/// Walks series that lie one behind the other in some bytes of an index of version 2.
#[derive(Debug, Clone)]
pub struct SeriesWalk<'a> {
    bytes: &'a [u8],
    /// Where `bytes` begin in the file.
    begin: u64,
    /// How far the walk is in `bytes`.
    at: usize,
}

impl<'a> SeriesWalk<'a> {
    /// A walk over `bytes`, which lie at `begin` in the file, from the first series on that begins
    /// there.
    pub fn new(bytes: &'a [u8], begin: u64) -> Self {
        SeriesWalk {
            bytes,
            begin,
            at: 0,
        }
    }

    /// The offset in the file behind the last series that was given.
    pub fn offset(&self) -> u64 {
        self.begin.saturating_add(self.at as u64)
    }

    /// The next series, its checksum verified; nothing when the bytes end before it does.
    ///
    /// # Errors
    /// When the bytes of a series do not follow the format.
    #[expect(clippy::should_implement_trait, reason = "it is a fallible walk")]
    pub fn next(&mut self) -> Result<Option<RawSeries<'a>>, DecodeError> {
        let align = SERIES_ALIGN as u64;
        let Some(offset) = self.offset().checked_next_multiple_of(align) else {
            return Ok(None);
        };
        let at = usize::try_from(offset - self.begin).map_err(|_| DecodeError::Truncated)?;
        let Some(rest) = self.bytes.get(at..) else {
            return Ok(None);
        };
        match series_at(rest) {
            Ok((content, len)) => {
                self.at = at + len;
                Ok(Some(RawSeries { offset, content }))
            }
            Err(DecodeError::Truncated) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The content of the series that `bytes` begin with, and the bytes it takes with length and checksum.
///
/// # Errors
/// [`DecodeError::Truncated`] when the bytes end before it does, others when it is damaged.
pub fn series_at(bytes: &[u8]) -> Result<(&[u8], usize), DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let content = decoder.uvarint_bytes()?;
    decoder.checksum(content)?;
    Ok((content, bytes.len() - decoder.len()))
}

impl SeriesEntry {
    /// Reads the labels of a series and gives what lies behind them, for
    /// [`SeriesEntry::decode_chunks`].
    ///
    /// # Errors
    /// When the bytes do not follow the format.
    pub fn decode_labels<'a>(&mut self, content: &'a [u8]) -> Result<Decoder<'a>, DecodeError> {
        self.labels.clear();
        let mut content = Decoder::new(content);
        for _ in 0..content.uvarint()? {
            self.labels
                .push((content.uvarint32()?, content.uvarint32()?));
        }
        Ok(content)
    }

    /// Reads the chunks of a series that overlap `range`.
    ///
    /// # Errors
    /// When the bytes do not follow the format.
    pub fn decode_chunks(
        &mut self,
        mut content: Decoder<'_>,
        range: TimeRange,
    ) -> Result<(), DecodeError> {
        self.chunks.clear();
        self.fences.clear();
        let len = content.len();
        let (chunks, fences) = (&mut self.chunks, &mut self.fences);
        chunk_list::read(&mut content, len, range, chunks, fences)
    }
}
