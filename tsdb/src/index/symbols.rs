//! The symbol table: every label name and value once, sorted by bytes.
//!
//! ```text
//! len <4b> │ number of symbols <4b> │ (len <uvarint> │ text)… │ CRC-32C <4b>
//! ```
//!
//! A reader remembers where every 32nd symbol begins and walks from there.

use bytes::Bytes;

use super::{FENCE_DISTANCE, Version};
use crate::Error;
use crate::encoding::{DecodeError, Decoder};

/// The symbols of an index that is in memory or mapped.
#[derive(Debug)]
pub(super) struct Symbols {
    index: Bytes,
    version: Version,
    count: u32,
    /// Where the table begins.
    offset: u64,
    /// Offsets in the file of every 32nd symbol.
    fences: Vec<u64>,
    /// The offset in the file behind the last symbol.
    end: usize,
}

impl Symbols {
    /// Checks the whole table at `offset`.
    pub(super) fn open(
        name: &str,
        index: Bytes,
        version: Version,
        offset: u64,
    ) -> Result<Self, Error> {
        let (count, fences, end) =
            scan(&index, offset).map_err(|e| e.at_offset(name, "symbols", offset))?;
        Ok(Symbols {
            index,
            version,
            count,
            offset,
            fences,
            end,
        })
    }

    /// Where the table begins in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The number of symbols.
    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// The heap memory held, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.fences.capacity() * size_of::<u64>()
    }

    /// The text that a series means by `symbol`.
    pub(super) fn get(&self, symbol: u32) -> Result<&str, DecodeError> {
        let (fence, steps) = match self.version {
            Version::V1 => (u64::from(symbol), 0),
            Version::V2 if symbol >= self.count => return Err(DecodeError::NumberTooLarge),
            Version::V2 => {
                let at = symbol as usize;
                let fence = self.fences.get(at / FENCE_DISTANCE);
                (*fence.ok_or(DecodeError::Truncated)?, at % FENCE_DISTANCE)
            }
        };
        let texts = self.index.get(..self.end).unwrap_or_default();
        let mut decoder = Decoder::at(texts, fence)?;
        for _ in 0..steps {
            decoder.uvarint_bytes()?;
        }
        decoder.uvarint_str()
    }

    /// The number of `text`, as series write it, when it is a symbol.
    pub(super) fn find(&self, text: &str) -> Result<Option<u32>, DecodeError> {
        let texts = self.index.get(..self.end).unwrap_or_default();
        let mut failure = None;
        let behind = self.fences.partition_point(|fence| {
            let first = Decoder::at(texts, *fence).and_then(|mut it| it.uvarint_bytes());
            first.map_or_else(
                |e| {
                    failure = Some(e);
                    false
                },
                |first| first <= text.as_bytes(),
            )
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        let Some(block) = behind.checked_sub(1) else {
            return Ok(None);
        };
        let mut decoder = Decoder::at(texts, self.fences.get(block).copied().unwrap_or(0))?;
        let from = block * FENCE_DISTANCE;
        for rank in from..(from + FENCE_DISTANCE).min(self.count as usize) {
            let offset = self.end - decoder.len();
            let symbol = decoder.uvarint_bytes()?;
            if symbol >= text.as_bytes() {
                let number = match self.version {
                    Version::V1 => offset,
                    Version::V2 => rank,
                };
                let number = u32::try_from(number).map_err(|_| DecodeError::NumberTooLarge)?;
                return Ok((symbol == text.as_bytes()).then_some(number));
            }
        }
        Ok(None)
    }

    /// All symbols in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<&str, DecodeError>> {
        let texts = self.index.get(..self.end).unwrap_or_default();
        let first = self.fences.first().copied().unwrap_or(0);
        let mut decoder = Decoder::at(texts, first).unwrap_or(Decoder::new(&[]));
        (0..self.count).map(move |_| decoder.uvarint_str())
    }
}

fn scan(index: &[u8], offset: u64) -> Result<(u32, Vec<u64>, usize), DecodeError> {
    let content = Decoder::at(index, offset)?.section()?;
    let begin = usize::try_from(offset).map_err(|_| DecodeError::Truncated)? + 4;
    let mut decoder = Decoder::new(content);
    let count = decoder.be32()?;
    let mut fences = Vec::new();
    for i in 0..count as usize {
        if i % FENCE_DISTANCE == 0 {
            fences.push((begin + content.len() - decoder.len()) as u64);
        }
        decoder.uvarint_bytes()?;
    }
    fences.shrink_to_fit();
    Ok((count, fences, begin + content.len() - decoder.len()))
}
