//! One file of the log: writing frames, and reading them back past any damage.

use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::encoding::{Crc32c, crc32c};

use super::record::Kind;

const MAGIC: &[u8; 8] = b"ISOBARW1";
/// Magic, nonce and checksum.
pub(crate) const HEADER_BYTES: usize = 16;
/// Nonce, length, kind and checksum.
const FRAME_BYTES: usize = 13;
/// The most bytes of a payload. Writers split what is larger.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;
const READ_BYTES: usize = 128 << 10;

/// A number that nobody who writes labels can guess.
pub(crate) fn random_nonce() -> u32 {
    (std::hash::RandomState::new().build_hasher().finish() >> 16) as u32
}

/// Turns payloads into the bytes of one file.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    nonce: u32,
    /// Where the next frame begins.
    offset: u64,
}

impl FrameWriter {
    /// Begins a file: `out` gets its header.
    pub(crate) fn begin(nonce: u32, out: &mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&nonce.to_le_bytes());
        let checksum = crc32c(&out[start..]);
        out.extend_from_slice(&checksum.to_le_bytes());
        FrameWriter {
            nonce,
            offset: HEADER_BYTES as u64,
        }
    }

    /// The length of the file so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends a frame to `out`.
    pub(crate) fn put(&mut self, kind: u8, payload: &[u8], out: &mut Vec<u8>) {
        debug_assert!(
            payload.len() <= PAYLOAD_BYTES_MAX,
            "writers split what is larger"
        );
        let len = payload.len() as u32;
        out.extend_from_slice(&self.nonce.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.push(kind);
        let checksum = frame_checksum(self.nonce, self.offset, kind, payload);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(payload);
        self.offset += (FRAME_BYTES + payload.len()) as u64;
    }
}

/// A whole file of the log with these records, as a writer would leave it.
///
/// # Panics
/// When a payload is larger than [`PAYLOAD_BYTES_MAX`].
pub fn encode(nonce: u32, records: &[(Kind, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = FrameWriter::begin(nonce, &mut out);
    for (kind, payload) in records {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a record has a bound");
        writer.put(*kind as u8, payload, &mut out);
    }
    out
}

/// The bytes that a payload takes in the file.
pub(crate) fn frame_bytes(payload: &[u8]) -> u64 {
    (FRAME_BYTES + payload.len()) as u64
}

fn frame_checksum(nonce: u32, offset: u64, kind: u8, payload: &[u8]) -> u32 {
    let mut prefix = [0; 17];
    prefix[..4].copy_from_slice(&nonce.to_le_bytes());
    prefix[4..12].copy_from_slice(&offset.to_le_bytes());
    prefix[12] = kind;
    prefix[13..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let mut digest = Crc32c::new();
    digest.update(&prefix);
    digest.update(payload);
    digest.finish()
}

/// What stands next in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A whole record.
    Record(Kind, &'a [u8]),
    /// Bytes that are no record, and behind which one follows.
    Damage {
        /// Offset of the first damaged byte.
        from: u64,
        /// Offset of the next record.
        to: u64,
    },
    /// Bytes that are no record up to the end of the file.
    TornTail {
        /// Offset of the first of them.
        from: u64,
        /// The length of the file.
        to: u64,
    },
}

/// Reads a file of the log in bounded memory.
#[derive(Debug)]
pub struct SegmentReader<R> {
    source: R,
    path: PathBuf,
    nonce: u32,
    buffer: Vec<u8>,
    /// Where in `buffer` the next frame begins, and its offset in the file.
    at: usize,
    offset: u64,
    ended: bool,
}

impl SegmentReader<File> {
    /// Opens a file of the log.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        SegmentReader::new(file, path)
    }
}

impl<R: Read> SegmentReader<R> {
    /// Reads the header. A damaged one is made up for by the first record's nonce.
    ///
    /// # Errors
    /// When `source` cannot be read.
    pub fn new(source: R, path: &Path) -> Result<Self, Error> {
        let mut reader = SegmentReader {
            source,
            path: path.to_owned(),
            nonce: 0,
            buffer: Vec::new(),
            at: 0,
            offset: 0,
            ended: false,
        };
        reader.fill(HEADER_BYTES + FRAME_BYTES)?;
        let header = reader.buffer.get(..HEADER_BYTES).unwrap_or_default();
        let number = |bytes: Option<&[u8]>| {
            bytes
                .and_then(<[u8]>::first_chunk)
                .map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let whole = header.starts_with(MAGIC)
            && number(header.get(12..)) == crc32c(header.get(..12).unwrap_or_default());
        reader.nonce = number(if whole {
            header.get(8..)
        } else {
            reader.buffer.get(HEADER_BYTES..)
        });
        reader.advance(HEADER_BYTES.min(reader.buffer.len()));
        Ok(reader)
    }

    /// The file's name, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next record or damage; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "the item borrows from the reader"
    )]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, Error> {
        self.fill(FRAME_BYTES)?;
        if self.rest().is_empty() {
            return Ok(None);
        }
        let from = self.offset;
        let mut zeros = true;
        if let Some((kind, len)) = self.frame()? {
            let start = self.at + FRAME_BYTES;
            self.advance(FRAME_BYTES + len);
            return Ok(Some(Item::Record(kind, &self.buffer[start..start + len])));
        }
        loop {
            zeros &= self.rest().first() == Some(&0);
            self.advance(1);
            zeros &= self.seek_nonce()?;
            if self.rest().is_empty() {
                // The writer puts them there ahead of records.
                if zeros {
                    return Ok(None);
                }
                return Ok(Some(Item::TornTail {
                    from,
                    to: self.offset,
                }));
            }
            if self.frame()?.is_some() {
                return Ok(Some(Item::Damage {
                    from,
                    to: self.offset,
                }));
            }
        }
    }

    /// Kind and payload length of the record that begins here, if one does.
    fn frame(&mut self) -> Result<Option<(Kind, usize)>, Error> {
        self.fill(FRAME_BYTES)?;
        let Some(head) = self.rest().first_chunk::<FRAME_BYTES>() else {
            return Ok(None);
        };
        let [n0, n1, n2, n3, l0, l1, l2, l3, kind, c0, c1, c2, c3] = *head;
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let checksum = u32::from_le_bytes([c0, c1, c2, c3]);
        let Some(known) = Kind::from_u8(kind) else {
            return Ok(None);
        };
        if u32::from_le_bytes([n0, n1, n2, n3]) != self.nonce || len > PAYLOAD_BYTES_MAX {
            return Ok(None);
        }
        self.fill(FRAME_BYTES + len)?;
        let Some(payload) = self.rest().get(FRAME_BYTES..FRAME_BYTES + len) else {
            return Ok(None);
        };
        let whole = frame_checksum(self.nonce, self.offset, kind, payload) == checksum;
        Ok(whole.then_some((known, len)))
    }

    /// Moves to the next place that holds the nonce, or to the end, and says whether there were only
    /// zeros on the way.
    fn seek_nonce(&mut self) -> Result<bool, Error> {
        let nonce = self.nonce.to_le_bytes();
        let mut zeros = true;
        loop {
            self.fill(FRAME_BYTES)?;
            if let Some(found) = self
                .rest()
                .windows(nonce.len())
                .position(|four| four == nonce)
            {
                zeros &= self.skip(found);
                return Ok(zeros);
            }
            let keep = if self.ended { 0 } else { nonce.len() - 1 };
            zeros &= self.skip(self.rest().len().saturating_sub(keep));
            if self.ended {
                return Ok(zeros);
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// Advances, and says whether all that was skipped are zeros.
    fn skip(&mut self, by: usize) -> bool {
        let skipped = self.rest().get(..by).unwrap_or_default();
        let zeros = skipped.iter().all(|byte| *byte == 0);
        self.advance(by);
        zeros
    }

    fn advance(&mut self, by: usize) {
        self.at += by;
        self.offset += by as u64;
    }

    /// Reads until `need` bytes are there, or all that the file has.
    fn fill(&mut self, need: usize) -> Result<(), Error> {
        if self.ended || self.rest().len() >= need {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        while self.buffer.len() < need && !self.ended {
            let len = self.buffer.len();
            self.buffer.resize(len + READ_BYTES.max(need - len), 0);
            let read = self.source.read(&mut self.buffer[len..]);
            let count = *read.as_ref().unwrap_or(&0);
            self.buffer.truncate(len + count);
            match read {
                Ok(0) => self.ended = true,
                Err(e) if e.kind() != ErrorKind::Interrupted => {
                    return Err(Error::io("read", &self.path, e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let records: Vec<_> = payloads
            .iter()
            .map(|payload| (Kind::Samples, *payload))
            .collect();
        encode(0xfeed_beef, &records)
    }

    fn read(bytes: &[u8]) -> Vec<String> {
        let mut reader = SegmentReader::new(bytes, Path::new("test")).unwrap();
        let mut out = Vec::new();
        while let Some(item) = reader.next().unwrap() {
            out.push(match item {
                Item::Record(_, payload) => String::from_utf8_lossy(payload).into_owned(),
                Item::Damage { from, to } => format!("damage {from}..{to}"),
                Item::TornTail { from, to } => format!("torn {from}..{to}"),
            });
        }
        out
    }

    #[test]
    fn damage_costs_the_record_it_hits() {
        let whole = file(&[b"one", b"two", b"three"]);
        assert_eq!(read(&whole), ["one", "two", "three"]);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            let expected: &[&str] = match at {
                0..16 => &["one", "two", "three"],
                16..32 => &["damage 16..32", "two", "three"],
                32..48 => &["one", "damage 32..48", "three"],
                _ => &["one", "two", "torn 48..66"],
            };
            assert_eq!(read(&bytes), expected, "flipped byte {at}");
        }
    }

    #[test]
    fn a_cut_file_ends_in_a_torn_tail() {
        let whole = file(&[b"one", b"two"]);
        for len in 0..whole.len() {
            let expected: Vec<String> = match len {
                0..=16 => vec![],
                17..32 => vec![format!("torn 16..{len}")],
                32 => vec!["one".into()],
                _ => vec!["one".into(), format!("torn 32..{len}")],
            };
            assert_eq!(read(&whole[..len]), expected, "cut to {len}");
        }
    }

    #[test]
    fn zeros_behind_the_records_are_no_damage() {
        let mut bytes = file(&[b"one", b"two"]);
        let end = bytes.len();
        bytes.resize(end + 2 * READ_BYTES, 0);
        assert_eq!(read(&bytes), ["one", "two"]);
        for at in [end, end + 1, end + READ_BYTES, end + 2 * READ_BYTES - 1] {
            let mut damaged = bytes.clone();
            damaged[at] = 1;
            let torn = format!("torn {end}..{}", bytes.len());
            assert_eq!(read(&damaged), ["one", "two", &torn]);
        }
    }

    #[test]
    fn a_record_inside_a_payload_is_not_found() {
        let inner = file(&[b"inner"]);
        let mut bytes = file(&[&inner, b"next"]);
        bytes[16 + 8] ^= 0xff;
        let next = 16 + FRAME_BYTES + inner.len();
        assert_eq!(read(&bytes), [format!("damage 16..{next}"), "next".into()]);
    }

    #[test]
    fn records_larger_than_the_read_buffer() {
        let large = vec![b'x'; 3 * READ_BYTES];
        let mut bytes = file(&[&large, b"small", &large]);
        assert_eq!(
            read(&bytes).iter().map(String::len).collect::<Vec<_>>(),
            [large.len(), 5, large.len()]
        );
        bytes[100] ^= 1;
        assert_eq!(
            read(&bytes)[0],
            format!("damage 16..{}", 16 + FRAME_BYTES + large.len())
        );
    }
}
