//! The card of a block: all that a reader needs to know of its index before it reads series, in
//! pages that are read one by one. A card is made from a few ranges of the index ([`build`]), lies
//! at `cards/<ulid>` in the data directory and, where that is wanted, at `isobar/cards/<ulid>` in the
//! bucket. It can always be made again.
//!
//! ```text
//! ┌─────────────────┬───────────────────────┬─────────────────────┬────────────────────┐
//! │ root, 192 bytes │ pages of three trees  │ page of the filter  │ pages of the tree  │
//! │                 │ and their fences      │ of metric names     │ of metrics         │
//! └─────────────────┴───────────────────────┴─────────────────────┴────────────────────┘
//! ```
//!
//! The tree of metrics may come later ([`build::complete`]): then the card grows and has another root, and
//! all its pages stay where they are. In cards of before it lies in front of the filter.
//!
//! All numbers are little-endian. A page is `payload │ CRC-32C <4b>`; the checksum is that of the
//! page's offset in the file, as 8 bytes, followed by the payload. Whoever refers to a page knows its
//! offset and its length with the checksum. A payload is about 4 KiB, or longer when one entry is.
//!
//! The root, which is all that stays in memory of a block ([`Root`]):
//!
//! ```text
//!   0 magic "ISOCARD1"            8    56 end of the postings          8
//!   8 version of the card, 1      1    64 offset of the list of all    8
//!   9 version of the index        1    72 length of that list          8
//!  10 1 when metrics may be added 1    80 symbols, label names, label
//!  11 zeros                       1       pairs, metrics               4 × 4
//!  12 ULID, big-endian           16
//!  28 zeros                       4    96 four trees, see below        4 × 16
//!  32 length of the index         8   160 the filter, a place          16
//!  40 begin of the series         8   176 length of the card           8
//!  48 end of the series           8   184 zeros                        4
//!                                     188 CRC-32C of all before        4
//! place: offset <8b> │ length <4b> │ zeros <4b>          (all 0: nothing there)
//! ```
//!
//! A tree finds the page with an entry. Its place is that of its root page; a page of level 0 has
//! entries, one of level n has fences of pages of level n − 1:
//!
//! ```text
//! page:  kind <1b> │ level <1b> │ count <2b> │ entries or fences
//! fence: a <4b> │ b <4b> │ offset <8b> │ length <4b> │ end of its text <4b>     count times,
//!        then the texts of all fences, one behind the other
//! ```
//!
//! `a` and `b` are the key of the first entry below the fence. The kinds, with the entries of their
//! leaves, in which each number tells the distance from the entry before (0 before the first):
//!
//! | kind | key | entry |
//! | --- | --- | --- |
//! | 1 symbols | symbol | `first symbol <4b>`, then for every 16th entry its offset behind these `<4b>`, then entries: `shared <uvarint>` (missing from every 16th), `len <uvarint>`, text without what it shares with the one before |
//! | 2 names | symbol | `name <uvarint>`, `number of values <uvarint>` |
//! | 3 pairs | symbols of name and value | `name <uvarint>`, `value <uvarint>` (not a distance when the name is another), `offset <varint>` from the end of the list before, `length <uvarint>` |
//! | 4 metrics | symbol of the name's value | `value <uvarint>`, `begin <varint>` from the end of the one before, `length <uvarint>`, `series <uvarint>` |
//!
//! A symbol is the number that series write: its rank, or in an index of version 1 its offset. The
//! text of a fence of symbols is the shortest that is behind all texts in front of it. A pair says
//! where its list of series lies in the index, a metric from the begin of its first series to where
//! some other series begins behind its last one, in bytes of the index: series of others may lie in
//! between where a label sorts before `__name__`. Metrics are absent altogether where the lists of
//! series do not lie together, and from version 1.
//!
//! The filter is `5 <1b> │ hashes <1b> │ zeros <2b> │ bits <4b> │ bits, rounded up to bytes`: a
//! Bloom filter of metric names. Bit number `h1 + i × (h2 | 1)` modulo the number of bits is set for
//! `i` from 0 to hashes − 1, with `h1` and `h2` the lower and upper half of the name's XXH3 (64 bit).

use std::sync::Arc;

use bytes::Bytes;
use isobar_tsdb::Error;
use isobar_tsdb::encoding::{Crc32c, Decoder, crc32c};
use ulid::Ulid;

mod at_hand;
pub mod build;
mod filter;
mod page;
mod read;
mod tree;
pub mod write;

pub use read::{Extent, LabelName, Lookup, Pair};

const MAGIC: &[u8; 8] = b"ISOCARD1";
const VERSION: u8 = 1;
/// The length of a root in bytes.
pub const ROOT_BYTES: usize = 192;
/// A payload is closed when it has grown to this.
const PAGE_BYTES: usize = 4096;
/// More than any page of a sound card takes: a text of an index, and what surrounds it.
const PAGE_BYTES_MAX: u32 = 64 << 20;
const CHECKSUM_BYTES: usize = 4;

/// Where a page or a tree lies in a card.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Its offset.
    offset: u64,
    /// Its length with the checksum; 0 when it does not exist.
    len: u32,
}

impl Place {
    /// Its offset in the card.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its length in bytes, checksum included.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no such page.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What stays in memory of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The block.
    pub ulid: Ulid,
    /// Whether the index is of version 1.
    pub index_v1: bool,
    /// Whether it lacks the extents of metrics, which can be added.
    pub lacks_extents: bool,
    /// The length of the index in bytes.
    pub index_bytes: u64,
    /// The offset of the series in the index.
    pub series_begin: u64,
    /// The offset behind them.
    pub series_end: u64,
    /// The offset behind the lists of series.
    pub postings_end: u64,
    /// Where the list of all series lies in the index.
    pub all_offset: u64,
    /// Its length in bytes.
    pub all_bytes: u64,
    /// How many symbols there are.
    pub symbols: u32,
    /// How many label names.
    pub names: u32,
    /// How many label pairs.
    pub pairs: u32,
    /// How many metrics whose extent is known.
    pub metrics: u32,
    /// The length of the card in bytes.
    pub card_bytes: u64,
    trees: [Place; 4],
    filter: Place,
}

impl Root {
    /// Reads the root that a card begins with; `name` stands for the card in errors.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it does not follow the format or is of another version.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        let corrupt = |why: &str| Error::corrupt_at(name, 0, format!("root: {why}"));
        let bytes: &[u8; ROOT_BYTES] = bytes
            .first_chunk()
            .ok_or_else(|| corrupt("the bytes end too early"))?;
        let (content, stored) = bytes.split_at(ROOT_BYTES - CHECKSUM_BYTES);
        if crc32c(content).to_le_bytes() != stored {
            return Err(corrupt("checksum mismatch"));
        }
        let decode = || {
            let mut d = Decoder::new(content);
            if d.bytes(8)? != MAGIC {
                return Ok(Err("it is no card"));
            }
            if d.u8()? != VERSION {
                return Ok(Err("another version"));
            }
            let index_v1 = d.u8()? == 1;
            let lacks_extents = d.u8()? == 1;
            d.bytes(1)?;
            let ulid = d.bytes(16)?.first_chunk().copied().unwrap_or_default();
            d.bytes(4)?;
            let root = Root {
                ulid: Ulid::from_bytes(ulid),
                index_v1,
                lacks_extents,
                index_bytes: le64(&mut d)?,
                series_begin: le64(&mut d)?,
                series_end: le64(&mut d)?,
                postings_end: le64(&mut d)?,
                all_offset: le64(&mut d)?,
                all_bytes: le64(&mut d)?,
                symbols: le32(&mut d)?,
                names: le32(&mut d)?,
                pairs: le32(&mut d)?,
                metrics: le32(&mut d)?,
                trees: [
                    place(&mut d)?,
                    place(&mut d)?,
                    place(&mut d)?,
                    place(&mut d)?,
                ],
                filter: place(&mut d)?,
                card_bytes: le64(&mut d)?,
            };
            Ok(Ok(root))
        };
        let root =
            decode().map_err(|e: isobar_tsdb::encoding::DecodeError| corrupt(&e.to_string()))?;
        let root = root.map_err(corrupt)?;
        let places = root.trees.iter().chain([&root.filter]);
        for place in places.filter(|place| !place.is_empty()) {
            let end = place.offset.checked_add(u64::from(place.len));
            if end.is_none_or(|end| end > root.card_bytes) {
                return Err(corrupt("a page lies behind the end"));
            }
        }
        Ok(root)
    }

    fn encode(&self) -> [u8; ROOT_BYTES] {
        let mut out = Vec::with_capacity(ROOT_BYTES);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.push(if self.index_v1 { 1 } else { 2 });
        out.extend_from_slice(&[u8::from(self.lacks_extents), 0]);
        out.extend_from_slice(&self.ulid.to_bytes());
        out.extend_from_slice(&[0; 4]);
        for number in [
            self.index_bytes,
            self.series_begin,
            self.series_end,
            self.postings_end,
            self.all_offset,
            self.all_bytes,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.symbols, self.names, self.pairs, self.metrics] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for place in self.trees.iter().chain([&self.filter]) {
            out.extend_from_slice(&place.offset.to_le_bytes());
            out.extend_from_slice(&place.len.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
        }
        out.extend_from_slice(&self.card_bytes.to_le_bytes());
        out.resize(ROOT_BYTES - CHECKSUM_BYTES, 0);
        let checksum = crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        let mut root = [0; ROOT_BYTES];
        root.copy_from_slice(&out);
        root
    }
}

fn place(d: &mut Decoder<'_>) -> Result<Place, isobar_tsdb::encoding::DecodeError> {
    let place = Place {
        offset: le64(d)?,
        len: le32(d)?,
    };
    d.bytes(4)?;
    Ok(place)
}

fn le32(d: &mut Decoder<'_>) -> Result<u32, isobar_tsdb::encoding::DecodeError> {
    Ok(u32::from_le_bytes(
        d.bytes(4)?.first_chunk().copied().unwrap_or_default(),
    ))
}

fn le64(d: &mut Decoder<'_>) -> Result<u64, isobar_tsdb::encoding::DecodeError> {
    Ok(u64::from_le_bytes(
        d.bytes(8)?.first_chunk().copied().unwrap_or_default(),
    ))
}

/// Where the pages of a card come from.
pub trait Pages: Send + Sync {
    /// The payload of a page: through [`check_page`] once, and from memory after that.
    ///
    /// # Errors
    /// When it cannot be read or its checksum does not match.
    fn page(&self, place: Place) -> Result<Bytes, Error>;

    /// The payload of a page, when it is in memory.
    fn page_at_hand(&self, place: Place) -> Option<Bytes>;
}

/// The payload of the page `bytes`, which lies at `offset` in the card `name`.
///
/// # Errors
/// [`Error::Corrupt`] when the checksum does not match.
pub fn check_page(name: &str, offset: u64, bytes: Bytes) -> Result<Bytes, Error> {
    let matches = bytes
        .len()
        .checked_sub(CHECKSUM_BYTES)
        .and_then(|len| bytes.split_at_checked(len))
        .is_some_and(|(payload, stored)| page_checksum(offset, payload).to_le_bytes() == stored);
    if !matches {
        let why = format!("page at {offset}: checksum mismatch");
        return Err(Error::corrupt_at(name, offset, why));
    }
    Ok(bytes.slice(..bytes.len() - CHECKSUM_BYTES))
}

fn page_checksum(offset: u64, payload: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(&offset.to_le_bytes());
    crc.update(payload);
    crc.finish()
}

/// A card that is open: its root, and where its pages come from.
#[derive(Clone)]
pub struct Card {
    name: Arc<str>,
    root: Arc<Root>,
    pages: Arc<dyn Pages>,
}

impl Card {
    /// The card `name`, with its root and its pages.
    pub fn new(name: impl Into<Arc<str>>, root: Arc<Root>, pages: Arc<dyn Pages>) -> Self {
        Card {
            name: name.into(),
            root,
            pages,
        }
    }

    /// A card that is in memory as a whole.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its root does not follow the format.
    pub fn in_memory(name: &str, bytes: Bytes) -> Result<Self, Error> {
        let root = Root::decode(name, &bytes)?;
        let pages = InMemory {
            name: name.to_owned(),
            bytes,
        };
        Ok(Card::new(name, Arc::new(root), Arc::new(pages)))
    }

    /// What is known of the block without reading a page.
    pub fn root(&self) -> &Root {
        &self.root
    }

    fn corrupt(&self, place: Place, why: impl std::fmt::Display) -> Error {
        let offset = place.offset;
        Error::corrupt_at(&*self.name, offset, format!("page at {offset}: {why}"))
    }

    fn page(&self, place: Place) -> Result<Bytes, Error> {
        if place.len > PAGE_BYTES_MAX || place.offset < ROOT_BYTES as u64 {
            return Err(self.corrupt(place, "no page can lie there"));
        }
        self.pages.page(place)
    }
}

struct InMemory {
    name: String,
    bytes: Bytes,
}

impl Pages for InMemory {
    fn page(&self, place: Place) -> Result<Bytes, Error> {
        let begin = usize::try_from(place.offset).unwrap_or(usize::MAX);
        let end = begin.saturating_add(place.len as usize);
        if end > self.bytes.len() {
            let why = format!("page at {}: it lies behind the end", place.offset);
            return Err(Error::corrupt_at(&self.name, place.offset, why));
        }
        check_page(&self.name, place.offset, self.bytes.slice(begin..end))
    }

    fn page_at_hand(&self, place: Place) -> Option<Bytes> {
        self.page(place).ok()
    }
}

/// The whole of a card as it is before the extents of metrics are added.
#[cfg(test)]
pub(crate) fn without_extents(card: &[u8]) -> Vec<u8> {
    let mut root = Root::decode("card", card).unwrap();
    root.card_bytes = root.filter.offset + u64::from(root.filter.len);
    (root.lacks_extents, root.metrics) = (true, 0);
    root.trees[3] = Place::default();
    let mut lacking = card[..root.card_bytes as usize].to_vec();
    lacking[..ROOT_BYTES].copy_from_slice(&root.encode());
    lacking
}

#[cfg(test)]
mod tests;
