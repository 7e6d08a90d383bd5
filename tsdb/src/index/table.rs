//! The postings offset table: for each label pair where its postings lie.
//!
//! ```text
//! len <4b> │ number of entries <4b> │ entry… │ CRC-32C <4b>
//! entry: 2 <1b> │ len <uvarint> │ name │ len <uvarint> │ value │ offset <uvarint>
//! ```
//!
//! Entries are sorted by name and value (in version 1 only grouped, so they are sorted here). The
//! first is the empty pair, which lists all series. A reader remembers, for each name, where its
//! entries begin and end and where every 32nd of them lies.

use bytes::Bytes;

use super::{FENCE_DISTANCE, Version};
use crate::Error;
use crate::encoding::{DecodeError, Decoder};

/// The table of an index that is in memory or mapped.
#[derive(Debug)]
pub(super) struct PostingsTable {
    /// The entries, without their number.
    entries: Bytes,
    /// Sorted by name.
    names: Vec<Name>,
    /// Where the table begins in the file.
    offset: u64,
}

#[derive(Debug)]
struct Name {
    name: Box<str>,
    /// The number of bytes between the begin of an entry and its value, the same for all values.
    prefix_bytes: u32,
    /// Offsets of every 32nd entry in [`PostingsTable::entries`].
    fences: Box<[u32]>,
    /// The offset behind the last.
    end: u32,
    /// The number of values.
    count: u32,
}

impl PostingsTable {
    /// Checks the whole table at `offset`.
    pub(super) fn open(
        name: &str,
        index: &Bytes,
        version: Version,
        offset: u64,
    ) -> Result<Self, Error> {
        let open = || {
            let content = Decoder::at(index, offset)?.section()?;
            let mut decoder = Decoder::new(content);
            let count = decoder.be32()?;
            let entries = index.slice_ref(decoder.rest());
            match version {
                Version::V1 => Ok(sorted(&entries, count)?),
                Version::V2 => Ok((entries, count)),
            }
        };
        let place = "postings offset table";
        let (entries, count) = open().map_err(|e: DecodeError| e.at_offset(name, place, offset))?;
        let names = scan(&entries, count).map_err(|e| e.at_offset(name, place, offset))?;
        let Some(names) = names else {
            return Err(Error::corrupt_at(
                name,
                offset,
                format!("{place} at {offset}: entries are not sorted pairs"),
            ));
        };
        Ok(PostingsTable {
            entries,
            names,
            offset,
        })
    }

    /// Where the table begins in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// All label names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names
            .iter()
            .map(|name| &*name.name)
            .filter(|name| !name.is_empty())
    }

    /// The number of values of a label.
    pub(super) fn value_count(&self, name: &str) -> usize {
        self.name(name).map_or(0, |name| name.count as usize)
    }

    /// The heap memory held, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let of_name = |name: &Name| size_of::<Name>() + name.name.len() + name.fences.len() * 4;
        self.names.iter().map(of_name).sum()
    }

    /// The offset of the postings of a label pair.
    pub(super) fn find(&self, name: &str, value: &str) -> Result<Option<u64>, DecodeError> {
        let mut entries = self.values_from(name, value)?;
        Ok(match entries.next().transpose()? {
            Some((found, offset)) if found == value => Some(offset),
            _ => None,
        })
    }

    /// The values of a label with the offsets of their postings, in order.
    pub(super) fn values(&self, name: &str) -> Values<'_> {
        match self.name(name) {
            Some(found) => self.walk(found, 0),
            None => Values {
                decoder: Decoder::new(&[]),
                prefix_bytes: 0,
            },
        }
    }

    /// As [`PostingsTable::values`], beginning at the first that is not before `value`.
    pub(super) fn values_from(&self, name: &str, value: &str) -> Result<Values<'_>, DecodeError> {
        let Some(found) = self.name(name) else {
            return Ok(self.values(name));
        };
        let mut failure = None;
        let behind = found.fences.partition_point(|fence| {
            let first = self
                .walk_at(found, *fence)
                .next()
                .unwrap_or(Err(DecodeError::Truncated));
            first.map_or_else(
                |e| {
                    failure = Some(e);
                    false
                },
                |(first, _)| first <= value,
            )
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        let mut values = self.walk(found, behind.saturating_sub(1));
        loop {
            let here = values;
            match values.next().transpose()? {
                Some((candidate, _)) if candidate < value => {}
                _ => return Ok(here),
            }
        }
    }

    fn name(&self, name: &str) -> Option<&Name> {
        let at = self
            .names
            .binary_search_by(|candidate| (*candidate.name).cmp(name))
            .ok()?;
        self.names.get(at)
    }

    fn walk(&self, name: &Name, fence: usize) -> Values<'_> {
        self.walk_at(name, name.fences.get(fence).copied().unwrap_or(name.end))
    }

    fn walk_at(&self, name: &Name, offset: u32) -> Values<'_> {
        let bytes = self
            .entries
            .get(offset as usize..name.end as usize)
            .unwrap_or_default();
        Values {
            decoder: Decoder::new(bytes),
            prefix_bytes: name.prefix_bytes as usize,
        }
    }
}

/// Walks the values of one label.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    decoder: Decoder<'a>,
    prefix_bytes: usize,
}

impl<'a> Values<'a> {
    fn entry(&mut self) -> Result<(&'a str, u64), DecodeError> {
        self.decoder.bytes(self.prefix_bytes)?;
        Ok((self.decoder.uvarint_str()?, self.decoder.uvarint()?))
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Result<(&'a str, u64), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.decoder.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.decoder = Decoder::new(&[]);
        }
        Some(entry)
    }
}

/// Reads one entry: the bytes in front of its value, name, value and offset.
pub(super) fn entry<'a>(
    decoder: &mut Decoder<'a>,
) -> Result<Option<(usize, &'a str, &'a str, u64)>, DecodeError> {
    let begin = decoder.len();
    if decoder.uvarint()? != 2 {
        return Ok(None);
    }
    let name = decoder.uvarint_str()?;
    let prefix = begin - decoder.len();
    Ok(Some((
        prefix,
        name,
        decoder.uvarint_str()?,
        decoder.uvarint()?,
    )))
}

/// Finds the names. Nothing when entries are no pairs or out of order.
fn scan(entries: &[u8], count: u32) -> Result<Option<Vec<Name>>, DecodeError> {
    let mut names: Vec<Name> = Vec::new();
    let mut fences = Vec::new();
    let mut last = None;
    let mut decoder = Decoder::new(entries);
    let offset = |decoder: &Decoder<'_>| {
        u32::try_from(entries.len() - decoder.len()).map_err(|_| DecodeError::NumberTooLarge)
    };
    for _ in 0..count {
        let begin = offset(&decoder)?;
        let Some((prefix, name, value, _)) = entry(&mut decoder)? else {
            return Ok(None);
        };
        if last.is_some_and(|last| last >= (name, value)) {
            return Ok(None);
        }
        if last.is_none_or(|(last, _)| last != name) {
            close(&mut names, &mut fences);
            let prefix_bytes = u32::try_from(prefix).map_err(|_| DecodeError::NumberTooLarge)?;
            let name = name.into();
            names.push(Name {
                name,
                prefix_bytes,
                fences: Box::default(),
                end: 0,
                count: 0,
            });
        }
        last = Some((name, value));
        if let Some(open) = names.last_mut() {
            if open.prefix_bytes as usize != prefix {
                return Ok(None);
            }
            if (open.count as usize).is_multiple_of(FENCE_DISTANCE) {
                fences.push(begin);
            }
            open.count += 1;
            open.end = offset(&decoder)?;
        }
    }
    close(&mut names, &mut fences);
    names.shrink_to_fit();
    Ok(Some(names))
}

fn close(names: &mut [Name], fences: &mut Vec<u32>) {
    if let Some(last) = names.last_mut() {
        last.fences = std::mem::take(fences).into_boxed_slice();
    }
}

/// The entries of a version 1 table, sorted. What is no pair is left for [`scan`] to find.
pub(super) fn sorted(entries: &[u8], count: u32) -> Result<(Bytes, u32), DecodeError> {
    let mut decoder = Decoder::new(entries);
    let mut found = Vec::new();
    for _ in 0..count {
        let begin = decoder.rest();
        let Some((_, name, value, _)) = entry(&mut decoder)? else {
            return Ok((Bytes::copy_from_slice(entries), count));
        };
        found.push((
            name,
            value,
            begin.get(..begin.len() - decoder.len()).unwrap_or_default(),
        ));
    }
    found.sort_unstable();
    let sorted: Vec<u8> = found
        .into_iter()
        .flat_map(|(_, _, bytes)| bytes)
        .copied()
        .collect();
    Ok((Bytes::from(sorted), count))
}
