//! The payloads of records.
//!
//! ```text
//! Series   tenant <str>, then to the end: id <uvarint>, pairs <uvarint>, (name <str>, value <str>)…
//! Samples  to the end: head <uvarint>, [time - last time <varint>], value
//!          head = zigzag(id - last id) << 2 | other time << 1 | whole number
//!          value = <varint> when it is a whole number, otherwise its 8 bytes
//! Chunks   to the end: id <uvarint>, chunks <uvarint>,
//!          (encoding <1b>, min <varint>, max - min <uvarint>, len <uvarint>, bytes)…
//! Tenant   name <str>, end of its blocks <varint>, newest sample <varint>
//! End      records before this one <uvarint>
//! Late     epoch <uvarint>, then as Samples
//! LateChunks  epoch of the head <uvarint>, then to the end: id <uvarint>, epoch <uvarint>,
//!          chunk as in Chunks
//! Filed    to the end: id <uvarint>, chunks <uvarint>,
//!          (encoding <1b>, min <varint>, max - min <uvarint>, file <uvarint>, offset <uvarint>)…
//! Histograms, Exemplars, Metadata: see [`histograms`], [`exemplars`], [`metadata`]
//! LateHistograms  epoch <uvarint>, then as Histograms
//! ```
//!
//! A samples record stands on its own: it says nothing relative to another record, so a lost
//! record changes no value but its own.

mod exemplars;
mod histograms;
mod metadata;

use bytes::Bytes;
use isobar_model::{Labels, TimeRange};

use crate::chunks::{Chunk, Encoding};
use crate::encoding::{DecodeError, Decoder, put_uvarint, put_uvarint_str, put_varint};

pub(crate) use exemplars::ExemplarsEncoder;
pub use exemplars::read_exemplars;
pub(crate) use histograms::HistogramsEncoder;
pub use histograms::read_histograms;
pub(crate) use metadata::MetadataEncoder;
pub use metadata::read_metadata;

/// The kind of a record, as it stands in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// New series of a tenant.
    Series = 1,
    /// Samples.
    Samples = 2,
    /// Chunks of series (snapshots only).
    Chunks = 3,
    /// The times of a tenant (snapshots only).
    Tenant = 4,
    /// The end of a snapshot.
    End = 5,
    /// Native histograms.
    Histograms = 6,
    /// Exemplars of a tenant.
    Exemplars = 7,
    /// What is said about metrics of a tenant.
    Metadata = 8,
    /// Samples that were deleted.
    Tombstones = 9,
    /// Samples that came late.
    Late = 10,
    /// Chunks of late samples, and the epoch of the head (snapshots only).
    LateChunks = 11,
    /// Where chunks of series lie in files (snapshots only).
    Filed = 12,
    /// Native histograms that came late.
    LateHistograms = 13,
}

impl Kind {
    /// The kind with this number.
    pub fn from_u8(code: u8) -> Option<Self> {
        Some(match code {
            1 => Kind::Series,
            2 => Kind::Samples,
            3 => Kind::Chunks,
            4 => Kind::Tenant,
            5 => Kind::End,
            6 => Kind::Histograms,
            7 => Kind::Exemplars,
            8 => Kind::Metadata,
            9 => Kind::Tombstones,
            10 => Kind::Late,
            11 => Kind::LateChunks,
            12 => Kind::Filed,
            13 => Kind::LateHistograms,
            _ => return None,
        })
    }
}

/// Begins the payload of a series record.
pub(crate) fn put_series_tenant(out: &mut Vec<u8>, tenant: &str) {
    put_uvarint_str(out, tenant);
}

/// Adds a series to the payload of a series record.
pub(crate) fn put_series(out: &mut Vec<u8>, id: u32, labels: &Labels) {
    put_uvarint(out, u64::from(id));
    put_uvarint(out, labels.len() as u64);
    for (name, value) in labels.iter() {
        put_uvarint_str(out, name);
        put_uvarint_str(out, value);
    }
}

/// Reads a series record: `tenant` once, then `each` for every series.
///
/// # Errors
/// When the payload does not follow its format.
pub fn read_series<'a>(
    payload: &'a [u8],
    mut each: impl FnMut(&'a str, u32, Labels),
) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(payload);
    let tenant = decoder.uvarint_str()?;
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let mut text = String::new();
    while !decoder.is_empty() {
        let id = decoder.uvarint32()?;
        let count = decoder.uvarint_len()?;
        pairs.clear();
        for _ in 0..count {
            pairs.push((decoder.uvarint_str()?, decoder.uvarint_str()?));
        }
        let sorted = pairs
            .windows(2)
            .all(|two| matches!(two, [a, b] if a.0 < b.0));
        if !sorted || pairs.iter().any(|(_, value)| value.is_empty()) {
            return Err(DecodeError::Truncated);
        }
        each(
            tenant,
            id,
            Labels::from_sorted(pairs.iter().copied(), &mut text),
        );
    }
    Ok(())
}

/// Assembles the payload of a samples record.
#[derive(Debug, Default)]
pub(crate) struct SamplesEncoder {
    bytes: Vec<u8>,
    last_id: u32,
    last_ms: i64,
}

impl SamplesEncoder {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        (self.last_id, self.last_ms) = (0, 0);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    pub(crate) fn put(&mut self, id: u32, timestamp_ms: i64, value: f64) {
        let step = i64::from(id) - i64::from(self.last_id);
        let zigzag = ((step << 1) ^ (step >> 63)).cast_unsigned();
        let other_time = timestamp_ms != self.last_ms;
        let whole = whole_number(value);
        let head = zigzag << 2 | u64::from(other_time) << 1 | u64::from(whole.is_some());
        put_uvarint(&mut self.bytes, head);
        if other_time {
            put_varint(&mut self.bytes, timestamp_ms.wrapping_sub(self.last_ms));
        }
        match whole {
            Some(whole) => put_varint(&mut self.bytes, whole),
            None => self.bytes.extend_from_slice(&value.to_bits().to_le_bytes()),
        }
        (self.last_id, self.last_ms) = (id, timestamp_ms);
    }
}

/// The value as an integer, when that is shorter and gives the same bits back.
#[inline]
fn whole_number(value: f64) -> Option<i64> {
    const LIMIT: f64 = (1i64 << 48) as f64;
    let whole = value as i64;
    (value.abs() < LIMIT && (whole as f64).to_bits() == value.to_bits()).then_some(whole)
}

/// Reads a samples record: `each` gets id, time in unix milliseconds and value.
///
/// # Errors
/// When the payload does not follow its format; what came before the error was given to `each`.
pub fn read_samples(
    payload: &[u8],
    mut each: impl FnMut(u32, i64, f64),
) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(payload);
    let (mut id, mut timestamp_ms) = (0i64, 0i64);
    while !decoder.is_empty() {
        let head = decoder.uvarint()?;
        let zigzag = head >> 2;
        let step = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
        id = id.checked_add(step).ok_or(DecodeError::NumberTooLarge)?;
        let id = u32::try_from(id).map_err(|_| DecodeError::NumberTooLarge)?;
        if head & 2 != 0 {
            timestamp_ms = timestamp_ms.wrapping_add(decoder.varint()?);
        }
        let value = if head & 1 != 0 {
            decoder.varint()? as f64
        } else {
            let bits = decoder
                .bytes(8)?
                .try_into()
                .map_err(|_| DecodeError::Truncated)?;
            f64::from_bits(u64::from_le_bytes(bits))
        };
        each(id, timestamp_ms, value);
    }
    Ok(())
}

/// Adds the chunks of a series to the payload of a chunks record.
pub(crate) fn put_chunks(out: &mut Vec<u8>, id: u32, chunks: &[Chunk]) {
    put_uvarint(out, u64::from(id));
    put_uvarint(out, chunks.len() as u64);
    chunks.iter().for_each(|chunk| put_chunk(out, chunk));
}

fn put_chunk(out: &mut Vec<u8>, chunk: &Chunk) {
    out.push(chunk.encoding as u8);
    put_varint(out, chunk.min_ms);
    put_uvarint(out, chunk.max_ms.wrapping_sub(chunk.min_ms).cast_unsigned());
    put_uvarint(out, chunk.data.len() as u64);
    out.extend_from_slice(&chunk.data);
}

fn read_chunk(decoder: &mut Decoder<'_>) -> Result<Chunk, DecodeError> {
    let encoding = Encoding::from_u8(decoder.u8()?).ok_or(DecodeError::NumberTooLarge)?;
    let min_ms = decoder.varint()?;
    let max_ms = min_ms.wrapping_add(decoder.uvarint()?.cast_signed());
    let data = Bytes::copy_from_slice(decoder.uvarint_bytes()?);
    Ok(Chunk {
        encoding,
        min_ms,
        max_ms,
        data,
    })
}

/// Reads a chunks record: `each` gets an id and one of its chunks, in time order.
///
/// # Errors
/// When the payload does not follow its format; what came before the error was given to `each`.
pub fn read_chunks(payload: &[u8], mut each: impl FnMut(u32, Chunk)) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(payload);
    while !decoder.is_empty() {
        let id = decoder.uvarint32()?;
        for _ in 0..decoder.uvarint_len()? {
            each(id, read_chunk(&mut decoder)?);
        }
    }
    Ok(())
}

/// Adds the epoch before the payload of a late record, or begins one of late chunks.
pub(crate) fn put_epoch(out: &mut Vec<u8>, epoch: u64) {
    put_uvarint(out, epoch);
}

/// Reads the epoch of a late record; the rest is as in a samples record.
///
/// # Errors
/// When the payload does not follow its format.
pub fn read_late(payload: &[u8]) -> Result<(u64, &[u8]), DecodeError> {
    let mut decoder = Decoder::new(payload);
    let epoch = decoder.uvarint()?;
    Ok((epoch, decoder.rest()))
}

/// Adds a chunk to the payload of a late chunks record.
pub(crate) fn put_late_chunk(out: &mut Vec<u8>, id: u32, epoch: u64, chunk: &Chunk) {
    put_uvarint(out, u64::from(id));
    put_uvarint(out, epoch);
    put_chunk(out, chunk);
}

/// Reads a late chunks record: `each` gets an id, an epoch and a chunk. Gives the head's epoch.
///
/// # Errors
/// When the payload does not follow its format; what came before the error was given to `each`.
pub fn read_late_chunks(
    payload: &[u8],
    mut each: impl FnMut(u32, u64, Chunk),
) -> Result<u64, DecodeError> {
    let mut decoder = Decoder::new(payload);
    let head = decoder.uvarint()?;
    while !decoder.is_empty() {
        let (id, epoch) = (decoder.uvarint32()?, decoder.uvarint()?);
        each(id, epoch, read_chunk(&mut decoder)?);
    }
    Ok(head)
}

/// A chunk that lies in a file of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FiledChunk {
    /// The number of its encoding.
    pub encoding: u8,
    /// The times of its first and last sample, unix milliseconds.
    pub range: TimeRange,
    /// The number of the file.
    pub file: u32,
    /// Where it begins there.
    pub offset: u32,
}

/// Adds the filed chunks of a series to the payload of a filed record.
pub(crate) fn put_filed(
    out: &mut Vec<u8>,
    id: u32,
    chunks: impl ExactSizeIterator<Item = FiledChunk>,
) {
    put_uvarint(out, u64::from(id));
    put_uvarint(out, chunks.len() as u64);
    for chunk in chunks {
        let TimeRange { min_ms, max_ms } = chunk.range;
        out.push(chunk.encoding);
        put_varint(out, min_ms);
        put_uvarint(out, max_ms.wrapping_sub(min_ms).cast_unsigned());
        put_uvarint(out, u64::from(chunk.file));
        put_uvarint(out, u64::from(chunk.offset));
    }
}

/// Reads a filed record: `each` gets an id and one of its chunks, in time order.
///
/// # Errors
/// When the payload does not follow its format; what came before the error was given to `each`.
pub fn read_filed(
    payload: &[u8],
    mut each: impl FnMut(u32, FiledChunk),
) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(payload);
    while !decoder.is_empty() {
        let id = decoder.uvarint32()?;
        for _ in 0..decoder.uvarint_len()? {
            let encoding = decoder.u8()?;
            let min_ms = decoder.varint()?;
            let max_ms = min_ms.wrapping_add(decoder.uvarint()?.cast_signed());
            let (file, offset) = (decoder.uvarint32()?, decoder.uvarint32()?);
            let range = TimeRange::new(min_ms, max_ms);
            each(
                id,
                FiledChunk {
                    encoding,
                    range,
                    file,
                    offset,
                },
            );
        }
    }
    Ok(())
}

/// Begins the payload of a tombstones record: the times whose samples are deleted.
pub(crate) fn put_tombstones_range(out: &mut Vec<u8>, range: TimeRange) {
    put_varint(out, range.min_ms);
    put_varint(out, range.max_ms);
}

/// Adds a series to the payload of a tombstones record.
pub(crate) fn put_tombstone(out: &mut Vec<u8>, id: u32) {
    put_uvarint(out, u64::from(id));
}

/// Reads a tombstones record: `each` gets an id and the times of which its samples are deleted.
///
/// # Errors
/// When the payload does not follow its format; what came before the error was given to `each`.
pub fn read_tombstones(
    payload: &[u8],
    mut each: impl FnMut(u32, TimeRange),
) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(payload);
    let range = TimeRange::new(decoder.varint()?, decoder.varint()?);
    while !decoder.is_empty() {
        each(decoder.uvarint32()?, range);
    }
    Ok(())
}

/// The times of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantTimes<'a> {
    /// The tenant's name.
    pub tenant: &'a str,
    /// What is older lies in blocks.
    pub cut_until_ms: i64,
    /// The newest sample that was ever taken.
    pub max_ms: i64,
}

/// The payload of a tenant record.
pub(crate) fn put_tenant(out: &mut Vec<u8>, times: &TenantTimes<'_>) {
    put_uvarint_str(out, times.tenant);
    put_varint(out, times.cut_until_ms);
    put_varint(out, times.max_ms);
}

/// Reads a tenant record.
///
/// # Errors
/// When the payload does not follow its format.
pub fn read_tenant(payload: &[u8]) -> Result<TenantTimes<'_>, DecodeError> {
    let mut decoder = Decoder::new(payload);
    let tenant = decoder.uvarint_str()?;
    Ok(TenantTimes {
        tenant,
        cut_until_ms: decoder.varint()?,
        max_ms: decoder.varint()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_back() {
        let samples = [
            (0u32, 0i64, 0.0f64),
            (16, 0, 5.0),
            (3, 1_700_000_000_000, -0.0),
            (
                u32::MAX,
                1_700_000_000_000,
                f64::from_bits(0x7ff0_0000_0000_0002),
            ),
            (0, i64::MIN, 0.1),
            (1, i64::MAX, -281_474_976_710_655.0),
            (1, 7, f64::INFINITY),
        ];
        let mut encoder = SamplesEncoder::default();
        samples
            .iter()
            .for_each(|(id, t, v)| encoder.put(*id, *t, *v));
        let mut read = Vec::new();
        read_samples(encoder.as_bytes(), |id, t, v| {
            read.push((id, t, v.to_bits()))
        })
        .unwrap();
        assert_eq!(read, samples.map(|(id, t, v)| (id, t, v.to_bits())));
        for cut in 1..encoder.as_bytes().len() {
            let mut count = 0;
            let _ = read_samples(&encoder.as_bytes()[..cut], |_, _, _| count += 1);
            assert!(count < samples.len());
        }
    }

    #[test]
    fn series_and_chunks_come_back() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "é")]);
        let mut payload = Vec::new();
        put_series_tenant(&mut payload, "t");
        put_series(&mut payload, 77, &labels);
        put_series(&mut payload, 3, &Labels::empty());
        let mut read = Vec::new();
        read_series(&payload, |tenant, id, labels| {
            read.push((tenant.to_owned(), id, labels))
        })
        .unwrap();
        assert_eq!(
            read,
            [
                ("t".to_owned(), 77, labels),
                ("t".to_owned(), 3, Labels::empty())
            ]
        );

        let data = Bytes::from_static(b"data");
        let chunk = Chunk {
            encoding: Encoding::Xor,
            min_ms: -5,
            max_ms: i64::MAX,
            data,
        };
        let mut payload = Vec::new();
        put_chunks(&mut payload, 9, &[chunk.clone(), chunk.clone()]);
        let mut read = Vec::new();
        read_chunks(&payload, |id, chunk| read.push((id, chunk))).unwrap();
        assert_eq!(read, [(9, chunk.clone()), (9, chunk.clone())]);

        let mut payload = Vec::new();
        put_epoch(&mut payload, u64::MAX);
        put_late_chunk(&mut payload, 9, 4, &chunk);
        let mut read = Vec::new();
        let head = read_late_chunks(&payload, |id, epoch, chunk| read.push((id, epoch, chunk)));
        assert_eq!((head, read), (Ok(u64::MAX), vec![(9, 4, chunk.clone())]));

        let filed = FiledChunk {
            encoding: 1,
            range: TimeRange::new(i64::MIN, i64::MAX),
            file: u32::MAX,
            offset: 8,
        };
        let mut payload = Vec::new();
        put_filed(&mut payload, 5, [filed, filed].into_iter());
        let mut read = Vec::new();
        read_filed(&payload, |id, chunk| read.push((id, chunk))).unwrap();
        assert_eq!(read, [(5, filed), (5, filed)]);

        let times = TenantTimes {
            tenant: "x",
            cut_until_ms: i64::MIN,
            max_ms: 5,
        };
        let mut payload = Vec::new();
        put_tenant(&mut payload, &times);
        assert_eq!(read_tenant(&payload), Ok(times));
    }
}
