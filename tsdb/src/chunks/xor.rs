//! The XOR encoding of floats (encoding 1): what Facebook's Gorilla paper describes, as
//! Prometheus writes it (`tsdb/chunkenc/xor.go`, `tsdb/docs/format/chunks.md`).
//!
//! ```text
//! ┌───────────────────┬──────────────┬─────────────┬──────────────────────┬───────────┬───
//! │ number of samples │ t0 <varint>  │ v0 <8 byte> │ t1-t0 <uvarint>      │ v1 <xor>  │ …
//! │ <2 byte>          │              │             │                      │           │
//! └───────────────────┴──────────────┴─────────────┴──────────────────────┴───────────┴───
//!  … ┬────────────┬──────────┬───
//!    │ t2 <dod>   │ v2 <xor> │ …    bits from here on, the last byte filled up with zeros
//!  … ┴────────────┴──────────┴───
//!
//! <dod>  the change of the distance between times, in milliseconds
//!        0                 none
//!        10   14 bit       -8191 ..= 8192
//!        110  17 bit       -65535 ..= 65536
//!        1110 20 bit       -524287 ..= 524288
//!        1111 64 bit       any
//! <xor>  the bits that differ from the value before
//!        0                 none
//!        10 bits           as many as in the window of the last `11`
//!        11 leading zeros <5 bit>, significant bits <6 bit, 0 stands for 64>, bits
//! ```
//!
//! Decoding is bulk: one loop fills two columns from a 64-bit buffer. What a chunk says beyond
//! its end reads as zeros and is found out once, after the loop.

use bytes::Bytes;
use isobar_model::Columns;

use super::{Chunk, Encoding};
use crate::Error;
use crate::encoding::{Decoder, put_uvarint, put_varint};

/// The most samples a chunk can count.
pub const SAMPLES_MAX: u16 = u16::MAX;

const HEADER_BYTES: usize = 2;
/// More than one sample can take: a prefix and a value of 4 + 64 and of 2 + 5 + 6 + 64 bits, or a
/// varint of ten bytes and a value of eight.
const SAMPLE_BYTES_MAX: usize = 20;
/// The buffer grows by this or an eighth of its length, whichever is more. Ordinary samples take
/// two bytes, so an open chunk of 120 holds little that it does not need.
const GROWTH_BYTES_MIN: usize = 32;
/// The number of leading zeros that says that no window was written yet.
const NO_WINDOW: u8 = 0xff;

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
        let end = decode_columns(data, &mut columns)?;
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

/// The number of samples that a chunk's header announces.
///
/// # Errors
/// [`Error::Corrupt`] when there is no header.
pub fn sample_count(data: &[u8]) -> Result<u16, Error> {
    let header = data
        .first_chunk()
        .ok_or_else(|| corrupt("the header is cut"))?;
    Ok(u16::from_be_bytes(*header))
}

/// Appends all samples to `columns` as they stand, and says whether their times strictly rise
/// (which those of an honest writer do).
///
/// # Errors
/// [`Error::Corrupt`] when the bytes are no XOR chunk; `columns` is left as it was.
pub fn decode(data: &[u8], columns: &mut Columns) -> Result<bool, Error> {
    decode_columns(data, columns).map(|end| end.rising)
}

/// Where decoding stopped: all that an appender has to know besides the last sample.
struct End {
    /// The length of what was read, header included.
    bits: usize,
    delta_ms: i64,
    /// Leading and trailing zeros of the last window, if there was one.
    window: Option<(u8, u8)>,
    rising: bool,
}

fn corrupt(why: &str) -> Error {
    Error::corrupt("XOR chunk", why)
}

fn decode_columns(data: &[u8], columns: &mut Columns) -> Result<End, Error> {
    let count = usize::from(sample_count(data)?);
    // Sample 0 takes at least nine bytes, sample 1 nine bits, the others two bits each. Checked
    // before memory is taken for them.
    let bits_min = match count {
        0 => 0,
        1 => 9 * 8,
        _ => 9 * 8 + 9 + (count - 2) * 2,
    };
    if (data.len() - HEADER_BYTES) * 8 < bits_min {
        return Err(corrupt("the bytes end before the last sample"));
    }
    let start = columns.len();
    columns.timestamps.resize(start + count, 0);
    columns.values.resize(start + count, 0.0);
    let result = decode_slices(
        data,
        &mut columns.timestamps[start..],
        &mut columns.values[start..],
    );
    if result.is_err() {
        columns.timestamps.truncate(start);
        columns.values.truncate(start);
    }
    result
}

/// Fills both slices, which have the length that the header announces.
fn decode_slices(data: &[u8], times: &mut [i64], values: &mut [f64]) -> Result<End, Error> {
    let truncated = |_| corrupt("the bytes end before the last sample");
    let mut head = Decoder::new(data.get(HEADER_BYTES..).unwrap_or_default());
    let mut end = End {
        bits: HEADER_BYTES * 8,
        delta_ms: 0,
        window: None,
        rising: true,
    };

    let (Some((time, times)), Some((value, values))) =
        (times.split_first_mut(), values.split_first_mut())
    else {
        return Ok(end);
    };
    *time = head.varint().map_err(truncated)?;
    let mut bits = head.be64().map_err(truncated)?;
    *value = f64::from_bits(bits);
    let mut now = *time;
    end.bits = (data.len() - head.len()) * 8;

    let (Some((time, times)), Some((value, values))) =
        (times.split_first_mut(), values.split_first_mut())
    else {
        return Ok(end);
    };
    let mut delta = head.uvarint().map_err(truncated)?.cast_signed();
    let mut reader = BitReader::new(head.rest());
    let mut window = Window {
        significant: 64,
        trailing: 0,
        seen: false,
    };
    reader.refill();
    bits ^= window.read_changes(&mut reader)?;
    let mut rising = now.wrapping_add(delta) > now;
    now = now.wrapping_add(delta);
    *time = now;
    *value = f64::from_bits(bits);

    for (time, value) in times.iter_mut().zip(values) {
        reader.refill();
        if reader.buffer >> 62 == 0 {
            reader.skip(2);
        } else {
            delta = delta.wrapping_add(read_delta_of_delta(&mut reader));
            bits ^= window.read_changes(&mut reader)?;
        }
        let next = now.wrapping_add(delta);
        rising &= next > now;
        now = next;
        *time = now;
        *value = f64::from_bits(bits);
    }

    let read = reader.position_bits();
    if read > head.len() * 8 {
        return Err(corrupt("the bytes end before the last sample"));
    }
    end.bits = (data.len() - head.len()) * 8 + read;
    end.delta_ms = delta;
    end.window = window.seen.then(|| {
        (
            (64 - window.significant - window.trailing) as u8,
            window.trailing as u8,
        )
    });
    end.rising = rising;
    Ok(end)
}

/// Reads a change of distance; leaves at least 32 bits in the buffer unless it was the long form,
/// which refills it.
#[inline(always)]
fn read_delta_of_delta(reader: &mut BitReader<'_>) -> i64 {
    let ones = (!reader.buffer).leading_zeros();
    let size = match ones {
        0 => {
            reader.skip(1);
            return 0;
        }
        1 => 14,
        2 => 17,
        3 => 20,
        _ => {
            reader.skip(4);
            let dod = reader.read_wide(64).cast_signed();
            reader.refill();
            return dod;
        }
    };
    reader.skip(ones + 1);
    let raw = reader.read(size);
    // The codes stand for 1 - 2^(size-1) ..= 2^(size-1): two's complement moved by one.
    let shift = 64 - size;
    ((raw.wrapping_sub(1) << shift).cast_signed() >> shift) + 1
}

/// Which bits of the value the short form `10` writes.
struct Window {
    significant: u32,
    trailing: u32,
    seen: bool,
}

impl Window {
    /// Reads the bits in which a value differs from the one before. Needs 13 bits in the buffer.
    #[inline(always)]
    fn read_changes(&mut self, reader: &mut BitReader<'_>) -> Result<u64, Error> {
        if reader.buffer >> 63 == 0 {
            reader.skip(1);
            return Ok(0);
        }
        if reader.buffer >> 62 == 0b10 {
            reader.skip(2);
        } else {
            let leading = (reader.buffer >> 57) as u32 & 0x1f;
            let significant = match (reader.buffer >> 51) as u32 & 0x3f {
                0 => 64,
                some => some,
            };
            reader.skip(13);
            self.trailing = 64u32
                .checked_sub(leading + significant)
                .ok_or_else(|| corrupt("a value has more than 64 bits"))?;
            self.significant = significant;
            self.seen = true;
        }
        Ok(reader.read_wide(self.significant) << self.trailing)
    }
}

/// Reads bits, most significant first. Behind the end it reads zeros.
struct BitReader<'a> {
    bytes: &'a [u8],
    /// The byte that is loaded next.
    next: usize,
    /// The coming bits, left-aligned.
    buffer: u64,
    /// How many of them may be used. What lies behind them is right, too, and loaded again.
    valid: u32,
}

impl<'a> BitReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        BitReader {
            bytes,
            next: 0,
            buffer: 0,
            valid: 0,
        }
    }

    /// The number of bits that were read.
    fn position_bits(&self) -> usize {
        self.next * 8 - self.valid as usize
    }

    /// Fills the buffer to at least 56 bits.
    #[inline(always)]
    fn refill(&mut self) {
        let word = match self.bytes.get(self.next..self.next + 8) {
            Some(&[a, b, c, d, e, f, g, h]) => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => self.last_word(),
        };
        self.buffer |= word >> self.valid;
        self.next += ((63 - self.valid) >> 3) as usize;
        self.valid |= 56;
    }

    /// The last bytes, filled up with zeros.
    #[cold]
    #[inline(never)]
    fn last_word(&self) -> u64 {
        let rest = self.bytes.get(self.next..).unwrap_or_default();
        rest.iter()
            .rev()
            .fold(0, |word, byte| word >> 8 | u64::from(*byte) << 56)
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.valid -= count;
    }

    /// The next `count` bits, of 1 to 56 that must be in the buffer.
    #[inline(always)]
    fn read(&mut self, count: u32) -> u64 {
        let bits = self.buffer >> (64 - count);
        self.skip(count);
        bits
    }

    /// The next `count` bits, of 1 to 64.
    #[inline(always)]
    fn read_wide(&mut self, count: u32) -> u64 {
        if count <= self.valid {
            return self.read(count);
        }
        self.refill();
        if count <= 56 {
            return self.read(count);
        }
        let high = self.read(32);
        self.refill();
        high << (count - 32) | self.read(count - 32)
    }
}

#[cfg(test)]
mod tests {
    use isobar_model::sample::STALE_NAN;

    use super::*;

    fn encode(samples: &[(i64, f64)]) -> XorAppender {
        let mut appender = XorAppender::new();
        for (timestamp_ms, value) in samples {
            appender.append(*timestamp_ms, *value);
        }
        appender
    }

    fn check_round_trip(samples: &[(i64, f64)]) {
        let appender = encode(samples);
        let mut columns = Columns::default();
        let rising = decode(appender.as_bytes(), &mut columns).unwrap();
        let bits: Vec<_> = columns.values.iter().map(|v| v.to_bits()).collect();
        assert_eq!(
            columns.timestamps,
            samples.iter().map(|s| s.0).collect::<Vec<_>>()
        );
        assert_eq!(
            bits,
            samples.iter().map(|s| s.1.to_bits()).collect::<Vec<_>>()
        );
        assert_eq!(rising, samples.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(appender.first_ms(), samples.first().map(|s| s.0));
        assert_eq!(appender.last_ms(), samples.last().map(|s| s.0));
    }

    #[test]
    fn samples_come_back() {
        check_round_trip(&[]);
        check_round_trip(&[(i64::MIN, STALE_NAN)]);
        check_round_trip(&[(-1, 0.0), (i64::MAX, -0.0)]);
        check_round_trip(&[
            (1, 1.0),
            (1, 2.0),
            (0, f64::NAN),
            (5, f64::MIN_POSITIVE / 2.0),
        ]);
        let dods = [
            0, -8191, 8192, -8192, 8193, -65_535, 65_536, -65_536, 65_537,
        ];
        let dods = dods
            .into_iter()
            .chain([-524_287, 524_288, -524_288, 524_289, i64::MAX / 8]);
        let (mut now, mut delta) = (0i64, 0i64);
        let samples: Vec<_> = dods
            .flat_map(|dod| [dod, -dod])
            .map(|dod| {
                delta += dod;
                now = now.wrapping_add(delta);
                (now, now as f64 * 0.1)
            })
            .collect();
        check_round_trip(&samples);
    }

    #[test]
    fn bytes_are_those_of_the_format() {
        let appender = encode(&[(1000, 1.0), (2000, 1.0), (3000, 2.0), (4001, 2.0)]);
        let expected = [
            0,
            4, // four samples
            0xd0,
            0x0f, // varint 1000
            0x3f,
            0xf0,
            0,
            0,
            0,
            0,
            0,
            0, // 1.0
            0xe8,
            0x07, // uvarint 1000
            // 0 (1.0 again) 0 (on time) 11 00001 001011 (11 bits behind a leading zero) …
            0b0011_0000,
            0b1001_0111,
            0b1111_1111,
            // … 11 ones, 10 and 14 bits of 1, 0 (2.0 again)
            0b1110_0000,
            0b0000_0000,
            0b0100_0000,
        ];
        assert_eq!(appender.as_bytes(), expected);
    }

    #[test]
    fn resumes_anywhere_with_the_same_bytes() {
        let samples: Vec<_> = (0..40)
            .map(|i| (i * 15_000 + i % 3, f64::from(i as i32 / 4) * 0.3))
            .collect();
        let whole = encode(&samples);
        for cut in 0..samples.len() {
            let mut resumed = XorAppender::resume(encode(&samples[..cut]).as_bytes()).unwrap();
            for (timestamp_ms, value) in &samples[cut..] {
                resumed.append(*timestamp_ms, *value);
            }
            assert_eq!(resumed.as_bytes(), whole.as_bytes(), "cut at {cut}");
        }
    }

    #[test]
    fn cut_chunks_are_corrupt() {
        let samples: Vec<_> = (0..120).map(|i| (i * 15_000, (i as f64).sqrt())).collect();
        let appender = encode(&samples);
        let bytes = appender.as_bytes();
        let mut columns = Columns::default();
        columns.push(1, 1.0);
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], &mut columns).is_err(), "{len} bytes");
            assert_eq!(columns.len(), 1);
        }
        assert!(decode(bytes, &mut columns).is_ok());
    }

    #[test]
    fn a_full_chunk_holds_65535_samples() {
        let samples: Vec<_> = (0..i64::from(SAMPLES_MAX)).map(|i| (i, 1.0)).collect();
        check_round_trip(&samples);
    }

    #[test]
    fn the_buffer_grows_in_small_steps() {
        let mut appender = XorAppender::new();
        for i in 0..120 {
            appender.append(i * 15_000, (i * i) as f64);
            let held = appender.heap_bytes();
            assert!(
                held <= appender.as_bytes().len() + 2 * GROWTH_BYTES_MIN,
                "{held} bytes"
            );
        }
    }
}
