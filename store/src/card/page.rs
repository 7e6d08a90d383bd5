//! The leaves of a card's trees, decoded from their payload.

use isobar_tsdb::encoding::{DecodeError, Decoder, put_uvarint, put_varint};

use super::le32;

/// Which tree a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Symbols = 1,
    Names = 2,
    Pairs = 3,
    Metrics = 4,
}

/// Of how many symbols one is written in full.
const RESTART: usize = 16;

/// What a page begins with: the level and the number of entries.
pub(super) fn header<'a>(
    kind: Kind,
    payload: &'a [u8],
) -> Result<(u8, usize, Decoder<'a>), DecodeError> {
    let mut decoder = Decoder::new(payload);
    if decoder.u8()? != kind as u8 {
        return Err(DecodeError::NumberTooLarge);
    }
    let level = decoder.u8()?;
    let count = u16::from_le_bytes(decoder.bytes(2)?.first_chunk().copied().unwrap_or_default());
    Ok((level, usize::from(count), decoder))
}

/// The head of a page that is being written.
pub(super) fn put_header(out: &mut Vec<u8>, kind: Kind, level: u8, count: u16) {
    out.push(kind as u8);
    out.push(level);
    out.extend_from_slice(&count.to_le_bytes());
}

/// A leaf of symbols.
#[derive(Debug, Clone, Copy)]
pub(super) struct SymbolLeaf<'a> {
    first: u32,
    count: usize,
    restarts: &'a [[u8; 4]],
    entries: &'a [u8],
    v1: bool,
}

impl<'a> SymbolLeaf<'a> {
    pub(super) fn decode(payload: &'a [u8], v1: bool) -> Result<Self, DecodeError> {
        let (level, count, mut decoder) = header(Kind::Symbols, payload)?;
        if level != 0 {
            return Err(DecodeError::NumberTooLarge);
        }
        let first = le32(&mut decoder)?;
        let restarts = decoder.bytes(count.div_ceil(RESTART) * 4)?;
        Ok(SymbolLeaf {
            first,
            count,
            restarts: restarts.as_chunks().0,
            entries: decoder.rest(),
            v1,
        })
    }

    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// A walk that begins at a restart.
    fn walk(&self, restart: usize) -> Result<SymbolWalk<'a>, DecodeError> {
        let offset = self.restarts.get(restart).ok_or(DecodeError::Truncated)?;
        Ok(SymbolWalk {
            decoder: Decoder::at(self.entries, u32::from_le_bytes(*offset).into())?,
            at: restart * RESTART,
            count: self.count,
            number: self.first,
            v1: self.v1,
            text: Vec::new(),
        })
    }

    /// Leaves the text of `symbol` in `text`; false when it is not in this leaf.
    pub(super) fn get(&self, symbol: u32, text: &mut Vec<u8>) -> Result<bool, DecodeError> {
        let Some(distance) = symbol.checked_sub(self.first) else {
            return Ok(false);
        };
        let distance = distance as usize;
        if !self.v1 && distance >= self.count {
            return Ok(false);
        }
        let restart = if self.v1 { 0 } else { distance / RESTART };
        let mut walk = self.walk(restart)?;
        walk.text = std::mem::take(text);
        while let Some(number) = walk.next()? {
            if number >= symbol {
                *text = walk.text;
                return Ok(number == symbol);
            }
        }
        *text = walk.text;
        Ok(false)
    }

    /// The number of the symbol `text`.
    pub(super) fn find(&self, text: &[u8]) -> Result<Option<u32>, DecodeError> {
        let mut failure = None;
        let mut at = 0;
        let behind = self.restarts.partition_point(|offset| {
            let first = Decoder::at(self.entries, u32::from_le_bytes(*offset).into())
                .and_then(|mut it| it.uvarint_bytes());
            first.map_or_else(
                |e| {
                    failure = Some(e);
                    false
                },
                |first| first <= text,
            )
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        if !self.v1 {
            at = behind.saturating_sub(1);
        }
        let mut walk = self.walk(at)?;
        while let Some(number) = walk.next()? {
            if walk.text.as_slice() >= text {
                return Ok((walk.text == text).then_some(number));
            }
        }
        Ok(None)
    }
}

struct SymbolWalk<'a> {
    decoder: Decoder<'a>,
    at: usize,
    count: usize,
    /// In version 1, the number of the next symbol.
    number: u32,
    v1: bool,
    text: Vec<u8>,
}

impl SymbolWalk<'_> {
    /// Moves on, leaves the text in place and gives its number.
    fn next(&mut self) -> Result<Option<u32>, DecodeError> {
        if self.at >= self.count {
            return Ok(None);
        }
        let shared = if self.at.is_multiple_of(RESTART) {
            0
        } else {
            self.decoder.uvarint_len()?
        };
        if shared > self.text.len() {
            return Err(DecodeError::Truncated);
        }
        let suffix = self.decoder.uvarint_bytes()?;
        self.text.truncate(shared);
        self.text.extend_from_slice(suffix);
        let number = if self.v1 {
            let number = self.number;
            let next = v1_next(number, self.text.len());
            self.number = next.ok_or(DecodeError::NumberTooLarge)?;
            number
        } else {
            let at = u32::try_from(self.at).map_err(|_| DecodeError::NumberTooLarge)?;
            self.number
                .checked_add(at)
                .ok_or(DecodeError::NumberTooLarge)?
        };
        self.at += 1;
        Ok(Some(number))
    }
}

/// Where the symbol behind one of `len` bytes at `offset` lies in an index.
pub(super) fn v1_next(offset: u32, len: usize) -> Option<u32> {
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(7).max(1);
    offset
        .checked_add(digits)?
        .checked_add(u32::try_from(len).ok()?)
}

/// A leaf of symbols that is being written.
#[derive(Default)]
pub(super) struct SymbolLeafWriter {
    first: u32,
    count: u16,
    restarts: Vec<u8>,
    entries: Vec<u8>,
    last: Vec<u8>,
}

impl SymbolLeafWriter {
    pub(super) fn bytes(&self) -> usize {
        8 + self.restarts.len() + self.entries.len()
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    pub(super) fn push(&mut self, symbol: u32, text: &[u8]) {
        if self.count == 0 {
            self.first = symbol;
        }
        if usize::from(self.count).is_multiple_of(RESTART) {
            let offset = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
            self.restarts.extend_from_slice(&offset.to_le_bytes());
            put_uvarint(&mut self.entries, text.len() as u64);
            self.entries.extend_from_slice(text);
        } else {
            let shared = self
                .last
                .iter()
                .zip(text)
                .take_while(|(a, b)| a == b)
                .count();
            put_uvarint(&mut self.entries, shared as u64);
            put_uvarint(&mut self.entries, (text.len() - shared) as u64);
            self.entries
                .extend_from_slice(text.get(shared..).unwrap_or_default());
        }
        text.clone_into(&mut self.last);
        self.count += 1;
    }

    /// The payload, the first symbol, and the last text; ready for the next leaf.
    pub(super) fn take(&mut self) -> (Vec<u8>, u32, Vec<u8>) {
        let this = std::mem::take(self);
        let mut out = Vec::with_capacity(this.bytes());
        put_header(&mut out, Kind::Symbols, 0, this.count);
        out.extend_from_slice(&this.first.to_le_bytes());
        out.extend_from_slice(&this.restarts);
        out.extend_from_slice(&this.entries);
        (out, this.first, this.last)
    }
}

/// A label pair and its list of series in the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pair {
    /// The symbol of the name.
    pub name: u32,
    /// The symbol of the value.
    pub value: u32,
    /// Where the list lies.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

impl Pair {
    /// About how many series the list has.
    pub fn series(&self) -> u64 {
        self.bytes.saturating_sub(12) / 4
    }

    pub(super) fn put(&self, before: &Pair, out: &mut Vec<u8>) {
        put_uvarint(out, u64::from(self.name.wrapping_sub(before.name)));
        let value = match self.name == before.name {
            true => self.value.wrapping_sub(before.value),
            false => self.value,
        };
        put_uvarint(out, u64::from(value));
        let expected = before.offset.wrapping_add(before.bytes);
        put_varint(out, self.offset.wrapping_sub(expected).cast_signed());
        put_uvarint(out, self.bytes);
    }

    pub(super) fn read(decoder: &mut Decoder<'_>, before: &Pair) -> Result<Pair, DecodeError> {
        let distance = decoder.uvarint32()?;
        let value = decoder.uvarint32()?;
        let base = if distance == 0 { before.value } else { 0 };
        let expected = before.offset.wrapping_add(before.bytes);
        Ok(Pair {
            name: before.name.wrapping_add(distance),
            value: base.wrapping_add(value),
            offset: expected.wrapping_add(decoder.varint()?.cast_unsigned()),
            bytes: decoder.uvarint()?,
        })
    }
}

/// Where the series of a metric lie in the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// The symbol of the metric's name.
    pub value: u32,
    /// Where its first series begins.
    pub begin: u64,
    /// Where some other series begins behind its last one, or the series end.
    pub end: u64,
    /// How many it has.
    pub series: u64,
}

impl Extent {
    pub(super) fn put(&self, before: &Extent, out: &mut Vec<u8>) {
        put_uvarint(out, u64::from(self.value.wrapping_sub(before.value)));
        put_varint(out, self.begin.wrapping_sub(before.end).cast_signed());
        put_uvarint(out, self.end.saturating_sub(self.begin));
        put_uvarint(out, self.series);
    }

    pub(super) fn read(decoder: &mut Decoder<'_>, before: &Extent) -> Result<Self, DecodeError> {
        let value = before.value.wrapping_add(decoder.uvarint32()?);
        let begin = before.end.wrapping_add(decoder.varint()?.cast_unsigned());
        let end = begin.checked_add(decoder.uvarint()?);
        Ok(Extent {
            value,
            begin,
            end: end.ok_or(DecodeError::NumberTooLarge)?,
            series: decoder.uvarint()?,
        })
    }
}

/// A label name, and how many values it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LabelName {
    /// The symbol of the name.
    pub name: u32,
    /// How many values it has.
    pub values: u32,
}

impl LabelName {
    pub(super) fn put(&self, before: &LabelName, out: &mut Vec<u8>) {
        put_uvarint(out, u64::from(self.name.wrapping_sub(before.name)));
        put_uvarint(out, u64::from(self.values));
    }

    pub(super) fn read(decoder: &mut Decoder<'_>, before: &LabelName) -> Result<Self, DecodeError> {
        Ok(LabelName {
            name: before.name.wrapping_add(decoder.uvarint32()?),
            values: decoder.uvarint32()?,
        })
    }
}
