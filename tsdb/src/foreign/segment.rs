//! Segments of Prometheus' write-ahead logs, `wal/00000012`, `wal/checkpoint.00000011/00000000`
//! and `wbl/00000000`: records, cut into fragments, in pages of 32 KiB (Prometheus `tsdb/wlog`).
//!
//! ```text
//! page: ┌──────────┬──────────┬───┬──────────────────┐
//!       │ fragment │ fragment │ … │ zeros to its end │   the last page may be shorter
//!       └──────────┴──────────┴───┴──────────────────┘
//! fragment: type <1b> │ len <2b> │ CRC-32C of data <4b> │ data <len>
//! type: bits 0-2 how it belongs to its record: 1 whole, 2 first, 3 middle, 4 last; 0 page ends
//!       bit 3 the record is compressed by snappy, bit 4 by zstd, the others are 0
//! ```
//!
//! No record goes on in another segment. A segment that ends within a record is one whose writer
//! was killed, which is no damage. What is damaged costs the rest of its page and the record that it
//! belongs to.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::io::Read;

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use crate::encoding::{DecodeError, Decoder, crc32c};

const PAGE_BYTES: usize = 32 << 10;
const KIND_MASK: u8 = 0b0000_0111;
const SNAPPY: u8 = 0b0000_1000;
const ZSTD: u8 = 0b0001_0000;
/// The most bytes of a record, decompressed. Prometheus writes a scrape's samples as one, so there
/// are large ones, but none that is larger than a segment.
pub const RECORD_BYTES_MAX: usize = 128 << 20;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins in the file.
    pub offset: u64,
    /// What is wrong.
    pub why: String,
}

/// Reads the records of a segment one after the other.
pub struct SegmentReader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The fragments of the record so far, and where it began; `None` between records.
    begun: Option<usize>,
    fragments: Vec<u8>,
    /// Whether fragments of a record that is lost may follow.
    adrift: bool,
    record: Vec<u8>,
    zstd: FrameDecoder,
}

/// How a fragment belongs to its record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    Middle,
    Last,
}

struct Fragment<'a> {
    part: Part,
    flags: u8,
    data: &'a [u8],
}

impl<'a> SegmentReader<'a> {
    /// Reads from the beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        SegmentReader {
            bytes,
            at: 0,
            begun: None,
            fragments: Vec::new(),
            adrift: false,
            record: Vec::new(),
            zstd: FrameDecoder::new(),
        }
    }

    /// Where the next fragment is looked for.
    pub fn offset(&self) -> u64 {
        self.at as u64
    }

    /// The next record, decompressed; `None` at the end. After damage reading goes on behind it.
    pub fn next_record(&mut self) -> Option<Result<&[u8], Damage>> {
        loop {
            let at = self.at;
            let fragment = match self.next_fragment() {
                Ok(Some(fragment)) => fragment,
                // Here a record may be torn.
                Ok(None) => return None,
                Err(why) => return Some(Err(self.lose(at, why))),
            };
            if let Err(why) = self.check_order(fragment.part) {
                // This fragment may be the first of a good record.
                let offset = self.begun.take().unwrap_or(at) as u64;
                self.adrift = true;
                if matches!(fragment.part, Part::Whole | Part::First) {
                    self.at = at;
                }
                let why = why.to_owned();
                return Some(Err(Damage { offset, why }));
            }
            if self.adrift && matches!(fragment.part, Part::Middle | Part::Last) {
                continue;
            }
            self.adrift = false;
            let begun = self.begun.take().unwrap_or(at);
            match fragment.part {
                Part::Whole => {
                    self.fragments.clear();
                    return Some(self.finish(fragment.data, false, fragment.flags, begun));
                }
                Part::First => {
                    self.fragments.clear();
                    self.fragments.extend_from_slice(fragment.data);
                    self.begun = Some(begun);
                }
                Part::Middle => {
                    self.fragments.extend_from_slice(fragment.data);
                    self.begun = Some(begun);
                }
                Part::Last => {
                    self.fragments.extend_from_slice(fragment.data);
                    return Some(self.finish(&[], true, fragment.flags, begun));
                }
            }
            if self.fragments.len() > RECORD_BYTES_MAX {
                return Some(Err(self.lose(at, "a record is too long".to_owned())));
            }
        }
    }

    /// Gives up the rest of a page, and the record that was begun.
    fn lose(&mut self, at: usize, why: String) -> Damage {
        let offset = self.begun.take().unwrap_or(at) as u64;
        self.adrift = true;
        self.at = (at / PAGE_BYTES + 1)
            .saturating_mul(PAGE_BYTES)
            .min(self.bytes.len());
        Damage { offset, why }
    }

    fn check_order(&self, part: Part) -> Result<(), &'static str> {
        match (part, self.begun) {
            (Part::Whole | Part::First, Some(_)) => Err("a record has no end"),
            (Part::Middle | Part::Last, None) if !self.adrift => Err("a record has no beginning"),
            _ => Ok(()),
        }
    }

    /// The next fragment; `None` where the file ends, be it within one.
    fn next_fragment(&mut self) -> Result<Option<Fragment<'a>>, String> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let page_left = PAGE_BYTES - self.at % PAGE_BYTES;
            let page = rest.get(..page_left).unwrap_or(rest);
            let Some(&head) = page.first() else {
                return Ok(None);
            };
            if head & KIND_MASK == 0 {
                if page.iter().any(|byte| *byte != 0) {
                    return Err("there is something behind the end of a page".to_owned());
                }
                self.at += page.len();
                continue;
            }
            let is_cut = page.len() < page_left;
            let mut decoder = Decoder::new(page);
            return match fragment(&mut decoder) {
                Ok(fragment) => {
                    self.at += page.len() - decoder.len();
                    Ok(Some(fragment))
                }
                Err(FragmentError::Decode(DecodeError::Truncated)) if is_cut => {
                    self.at = self.bytes.len();
                    Ok(None)
                }
                Err(FragmentError::Decode(DecodeError::Truncated)) => {
                    Err("a fragment reaches beyond its page".to_owned())
                }
                Err(e) => Err(e.to_string()),
            };
        }
    }

    /// The record of `data`, or of the fragments.
    fn finish(
        &mut self,
        data: &[u8],
        joined: bool,
        flags: u8,
        begun: usize,
    ) -> Result<&[u8], Damage> {
        let data = if joined { &self.fragments } else { data };
        decompress(data, flags, &mut self.record, &mut self.zstd).map_err(|why| Damage {
            offset: begun as u64,
            why,
        })?;
        Ok(&self.record)
    }
}

#[derive(Debug, thiserror::Error)]
enum FragmentError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("unknown fragment type {0:#04x}")]
    Type(u8),
}

fn fragment<'a>(decoder: &mut Decoder<'a>) -> Result<Fragment<'a>, FragmentError> {
    let head = decoder.u8()?;
    let part = match head & KIND_MASK {
        1 => Part::Whole,
        2 => Part::First,
        3 => Part::Middle,
        4 => Part::Last,
        _ => return Err(FragmentError::Type(head)),
    };
    let flags = head & !KIND_MASK;
    if flags & !(SNAPPY | ZSTD) != 0 {
        return Err(FragmentError::Type(head));
    }
    let mut len = [0; 2];
    len.copy_from_slice(decoder.bytes(2)?);
    let stored = decoder.be32()?;
    let data = decoder.bytes(usize::from(u16::from_be_bytes(len)))?;
    let computed = crc32c(data);
    if stored != computed && !cfg!(fuzzing) {
        return Err(DecodeError::Checksum { stored, computed }.into());
    }
    Ok(Fragment { part, flags, data })
}

fn decompress(
    data: &[u8],
    flags: u8,
    record: &mut Vec<u8>,
    zstd: &mut FrameDecoder,
) -> Result<(), String> {
    record.clear();
    if data.is_empty() || flags == 0 {
        record.extend_from_slice(data);
        return Ok(());
    }
    if flags & SNAPPY != 0 {
        let len = snap::raw::decompress_len(data).map_err(|e| e.to_string())?;
        if len > RECORD_BYTES_MAX {
            return Err(format!("a record of {len} bytes is too long"));
        }
        record.resize(len, 0);
        let decompressed = snap::raw::Decoder::new().decompress(data, record);
        return decompressed.map(|_| ()).map_err(|e| e.to_string());
    }
    let decoder = StreamingDecoder::new_with_decoder(data, zstd).map_err(|e| e.to_string())?;
    let mut decoder = decoder.take(RECORD_BYTES_MAX as u64 + 1);
    decoder.read_to_end(record).map_err(|e| e.to_string())?;
    match record.len() > RECORD_BYTES_MAX {
        true => Err("a record is too long".to_owned()),
        false => Ok(()),
    }
}

/// Writes records as Prometheus does: for tests and fuzzers.
#[cfg(any(test, fuzzing))]
pub mod write {
    use super::{PAGE_BYTES, SNAPPY};
    use crate::encoding::crc32c;

    const HEADER_BYTES: usize = 7;

    /// Records as a segment, every other one compressed by snappy.
    #[expect(clippy::cast_possible_truncation, reason = "no longer than a page")]
    pub fn segment(records: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, record) in records.iter().enumerate() {
            let (flags, data) = match at % 2 {
                0 => (0, record.clone()),
                _ => {
                    let compressed = snap::raw::Encoder::new().compress_vec(record);
                    (
                        SNAPPY,
                        compressed.expect("a short record can be compressed"),
                    )
                }
            };
            let mut rest = data.as_slice();
            let mut first = true;
            while first || !rest.is_empty() {
                let left = PAGE_BYTES - out.len() % PAGE_BYTES;
                if left < HEADER_BYTES {
                    out.resize(out.len() + left, 0);
                    continue;
                }
                let (now, later) = rest.split_at(rest.len().min(left - HEADER_BYTES));
                let kind = match (first, later.is_empty()) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, false) => 3,
                    (false, true) => 4,
                };
                out.push(kind | flags);
                out.extend_from_slice(&(now.len() as u16).to_be_bytes());
                out.extend_from_slice(&crc32c(now).to_be_bytes());
                out.extend_from_slice(now);
                (rest, first) = (later, false);
            }
        }
        out
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "any bytes will do")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Damage>) {
        let mut reader = SegmentReader::new(bytes);
        let (mut records, mut damages) = (Vec::new(), Vec::new());
        while let Some(record) = reader.next_record() {
            match record {
                Ok(record) => records.push(record.to_vec()),
                Err(damage) => damages.push(damage),
            }
        }
        (records, damages)
    }

    /// Records of which each says its number.
    fn records(lens: &[usize]) -> Vec<Vec<u8>> {
        let numbered = lens.iter().enumerate();
        numbered
            .map(|(at, len)| {
                let mut record = vec![at as u8; *len];
                let bytes = record.iter_mut().enumerate();
                bytes.for_each(|(i, byte)| *byte ^= (i * 31) as u8);
                record
            })
            .collect()
    }

    const LENS: [usize; 9] = [3, 0, 40_000, 1, 32_740, 100_000, 7, 5, 70_000];

    #[test]
    fn records_come_back_whole() {
        let records = records(&LENS);
        let bytes = write::segment(&records);
        assert_eq!(read(&bytes), (records, vec![]));
    }

    #[test]
    fn a_torn_tail_is_no_damage() {
        let records = records(&LENS);
        let bytes = write::segment(&records);
        for len in (0..bytes.len())
            .step_by(97)
            .chain(bytes.len() - 40..bytes.len())
        {
            let (read, damages) = read(&bytes[..len]);
            assert!(records.starts_with(&read), "{len} bytes");
            assert_eq!(damages, [], "{len} bytes");
        }
    }

    #[test]
    fn zeros_at_the_end_are_no_damage() {
        let records = records(&[5, 6]);
        let mut bytes = write::segment(&records);
        bytes.resize(3 * PAGE_BYTES, 0);
        assert_eq!(read(&bytes), (records, vec![]));
    }

    #[test]
    fn compressed_records_are_read_within_bounds() {
        let text = b"hello hello hello ".repeat(40);
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let zstd = ruzstd::encoding::compress_to_vec(text.as_slice(), level);
        let snappy = snap::raw::Encoder::new().compress_vec(&text).unwrap();
        for (flags, compressed) in [(ZSTD, &zstd), (SNAPPY, &snappy)] {
            let mut record = Vec::new();
            let mut decompress = |data: &[u8]| {
                let result = decompress(data, flags, &mut record, &mut FrameDecoder::new());
                result.map(|()| record.clone())
            };
            assert_eq!(decompress(compressed).as_ref(), Ok(&text));
            for len in 1..compressed.len() - 1 {
                assert!(decompress(&compressed[..len]).is_err(), "{flags} {len}");
            }
        }
        // It says that four gigabytes follow.
        let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert!(decompress(&bomb, SNAPPY, &mut Vec::new(), &mut FrameDecoder::new()).is_err());
        let zeros = vec![0; RECORD_BYTES_MAX + 1];
        let bomb = ruzstd::encoding::compress_to_vec(zeros.as_slice(), level);
        let result = decompress(&bomb, ZSTD, &mut Vec::new(), &mut FrameDecoder::new());
        assert_eq!(result.unwrap_err(), "a record is too long");
    }

    proptest! {
        /// A flipped bit costs records, and says so; it invents none.
        #[test]
        fn damage_is_isolated(at in 0usize..250_000, bit in 0u8..8) {
            let records = records(&LENS);
            let mut bytes = write::segment(&records);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let (read, damages) = read(&bytes);
            let mut expected = records.iter();
            for record in &read {
                prop_assert!(expected.any(|it| it == record), "invented");
            }
            prop_assert!(read.len() == records.len() || !damages.is_empty() || at > bytes.len() - 70_100);
            // What lies two pages further on is not touched.
            if at < PAGE_BYTES {
                prop_assert_eq!(read.last(), records.last());
            }
        }
    }
}
