//! Decodes whole chunks into columns.

use isobar_model::Columns;

use super::{HEADER_BYTES, corrupt};
use crate::Error;
use crate::encoding::Decoder;

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
pub(super) struct End {
    /// The length of what was read, header included.
    pub(super) bits: usize,
    pub(super) delta_ms: i64,
    /// Leading and trailing zeros of the last window, if there was one.
    pub(super) window: Option<(u8, u8)>,
    rising: bool,
}

pub(super) fn decode_columns(data: &[u8], columns: &mut Columns) -> Result<End, Error> {
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
