//! Encodes samples one by one.

use bytes::Bytes;
use isobar_model::Columns;

use super::decode::{Scratch, decode_columns};
use super::{HEADER_BYTES, NO_WINDOW, SAMPLES_MAX};
use crate::Error;
use crate::chunks::{Chunk, Encoding};
use crate::encoding::{Decoder, put_uvarint, put_varint};

/// More than one sample can take: a prefix and a value of 4 + 64 and of 2 + 5 + 6 + 64 bits, or a
/// varint of ten bytes and a value of eight.
const SAMPLE_BYTES_MAX: usize = 20;
/// The buffer grows by this or an eighth of its length, whichever is more. Ordinary samples take
/// two bytes, so an open chunk of 120 holds little that it does not need.
const GROWTH_BYTES_MIN: usize = 32;

/// Encodes samples one by one. Small, because each active series holds one.
#[derive(Debug, Clone)]
pub struct XorAppender {
    bytes: Vec<u8>,
    last_ms: i64,
    last_value: f64,
    /// Distance of the last two times.
    delta_ms: i64,
    /// Unused low bits of the last byte.
    free_bits: u8,
    leading: u8,
    trailing: u8,
}

const _: () = assert!(
    size_of::<XorAppender>() <= 64,
    "lives once per active series"
);

impl XorAppender {
    /// An appender to a chunk without samples.
    pub fn new() -> Self {
        let mut bytes = Vec::with_capacity(GROWTH_BYTES_MIN);
        bytes.extend_from_slice(&[0; HEADER_BYTES]);
        XorAppender {
            bytes,
            last_ms: i64::MIN,
            last_value: 0.0,
            delta_ms: 0,
            free_bits: 0,
            leading: NO_WINDOW,
            trailing: 0,
        }
    }

    /// An appender that goes on where an encoded chunk ends, as if it had encoded it itself.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bytes are no XOR chunk.
    pub fn resume(data: &[u8]) -> Result<Self, Error> {
        let mut columns = Columns::default();
        let end = decode_columns(data, &mut columns, &mut Scratch::default())?;
        let (Some(last_ms), Some(last_value)) = (
            columns.timestamps.last().copied(),
            columns.values.last().copied(),
        ) else {
            return Ok(XorAppender::new());
        };
        let mut bytes = Vec::with_capacity(end.bits.div_ceil(8) + GROWTH_BYTES_MIN);
        bytes.extend_from_slice(data.get(..end.bits.div_ceil(8)).unwrap_or(data));
        let free_bits = (end.bits.next_multiple_of(8) - end.bits) as u8;
        if let Some(last) = bytes.last_mut() {
            *last &= 0xff << free_bits;
        }
        let (leading, trailing) = end.window.unwrap_or((NO_WINDOW, 0));
        let delta_ms = end.delta_ms;
        Ok(XorAppender {
            bytes,
            last_ms,
            last_value,
            delta_ms,
            free_bits,
            leading,
            trailing,
        })
    }

    /// Appends a sample. Times are expected to rise; the encoding itself takes any.
    ///
    /// # Panics
    /// When the chunk has [`SAMPLES_MAX`] samples already.
    pub fn append(&mut self, timestamp_ms: i64, value: f64) {
        let samples = self.sample_count();
        assert!(samples < SAMPLES_MAX, "a chunk is cut before it is full");
        self.make_room();
        let delta_ms = timestamp_ms.wrapping_sub(self.last_ms);
        match samples {
            0 => {
                put_varint(&mut self.bytes, timestamp_ms);
                self.bytes.extend_from_slice(&value.to_bits().to_be_bytes());
            }
            1 => {
                put_uvarint(&mut self.bytes, delta_ms.cast_unsigned());
                self.put_value(value);
            }
            _ => {
                self.put_delta_of_delta(delta_ms.wrapping_sub(self.delta_ms));
                self.put_value(value);
            }
        }
        self.delta_ms = if samples == 0 { 0 } else { delta_ms };
        self.last_ms = timestamp_ms;
        self.last_value = value;
        self.bytes[..HEADER_BYTES].copy_from_slice(&(samples + 1).to_be_bytes());
    }

    /// The number of samples.
    pub fn sample_count(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// Whether there is no sample yet.
    pub fn is_empty(&self) -> bool {
        self.sample_count() == 0
    }

    /// The time of the first sample, when there is one.
    pub fn first_ms(&self) -> Option<i64> {
        if self.is_empty() {
            return None;
        }
        Some(
            Decoder::new(&self.bytes[HEADER_BYTES..])
                .varint()
                .expect("it was written here"),
        )
    }

    /// The time of the last sample, when there is one.
    pub fn last_ms(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.last_ms)
    }

    /// The value of the last sample; 0 when there is none.
    pub fn last_value(&self) -> f64 {
        self.last_value
    }

    /// The encoded samples, readable at any time.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The heap memory held, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// A copy of what was appended so far; nothing when there is no sample.
    pub fn to_chunk(&self) -> Option<Chunk> {
        let min_ms = self.first_ms()?;
        let data = Bytes::copy_from_slice(&self.bytes);
        Some(Chunk {
            encoding: Encoding::Xor,
            min_ms,
            max_ms: self.last_ms,
            data,
        })
    }

    /// What was appended, in a buffer of exactly its size; nothing when there is no sample.
    pub fn into_chunk(self) -> Option<Chunk> {
        let min_ms = self.first_ms()?;
        let data = Bytes::from(self.bytes.into_boxed_slice());
        Some(Chunk {
            encoding: Encoding::Xor,
            min_ms,
            max_ms: self.last_ms,
            data,
        })
    }

    fn make_room(&mut self) {
        if self.bytes.capacity() - self.bytes.len() < SAMPLE_BYTES_MAX {
            self.bytes
                .reserve_exact(GROWTH_BYTES_MIN.max(self.bytes.len() / 8));
        }
    }

    fn put_delta_of_delta(&mut self, dod: i64) {
        const fn mask(bits: u32) -> u64 {
            (1 << bits) - 1
        }
        let raw = dod.cast_unsigned();
        match dod {
            0 => self.put_bits(0, 1),
            -8191..=8192 => self.put_bits(0b10 << 14 | raw & mask(14), 16),
            -65_535..=65_536 => self.put_bits(0b110 << 17 | raw & mask(17), 20),
            -524_287..=524_288 => self.put_bits(0b1110 << 20 | raw & mask(20), 24),
            _ => {
                self.put_bits(0b1111, 4);
                self.put_bits(raw, 64);
            }
        }
    }

    fn put_value(&mut self, value: f64) {
        let differing = value.to_bits() ^ self.last_value.to_bits();
        if differing == 0 {
            return self.put_bits(0, 1);
        }
        // Both counts are at most 63 here, and five bits are there for the first.
        let leading = (differing.leading_zeros() as u8).min(31);
        let trailing = differing.trailing_zeros() as u8;
        if self.leading != NO_WINDOW && leading >= self.leading && trailing >= self.trailing {
            let significant = u32::from(64 - self.leading - self.trailing);
            self.put_bits(0b10, 2);
            return self.put_bits(differing >> self.trailing, significant);
        }
        (self.leading, self.trailing) = (leading, trailing);
        let significant = 64 - u64::from(leading) - u64::from(trailing);
        self.put_bits(
            0b11 << 11 | u64::from(leading) << 6 | significant & 0x3f,
            13,
        );
        self.put_bits(differing >> trailing, significant as u32);
    }

    /// Appends the low `count` bits (1 to 64) of `bits`, which has no others.
    fn put_bits(&mut self, bits: u64, count: u32) {
        let free = u32::from(self.free_bits);
        let mut left_aligned = bits << (64 - count);
        let mut count = count;
        if free > 0 {
            if let Some(last) = self.bytes.last_mut() {
                *last |= (left_aligned >> (64 - free)) as u8;
            }
            if count <= free {
                self.free_bits = (free - count) as u8;
                return;
            }
            left_aligned <<= free;
            count -= free;
        }
        let whole = count.div_ceil(8);
        self.bytes
            .extend_from_slice(&left_aligned.to_be_bytes()[..whole as usize]);
        self.free_bits = (whole * 8 - count) as u8;
    }
}

impl Default for XorAppender {
    fn default() -> Self {
        XorAppender::new()
    }
}
