//! The XOR2 encoding of floats (encoding 4), which also tells since when samples count: Prometheus
//! 3.14's `tsdb/chunkenc/xor2.go`. It is read, not written.
//!
//! ```text
//! ┌───────────────────┬─────────────┬─────────────┬─────────────┬────────┬────────────────┬──
//! │ number of samples │ start times │ t0 <varint> │ v0 <8 byte> │ start0 │ t1-t0 <uvarint>│ …
//! │ <2 byte>          │ <1 byte>    │             │             │        │                │
//! └───────────────────┴─────────────┴─────────────┴─────────────┴────────┴────────────────┴──
//!  … ┬──────────┬────────┬─────────┬────────┬───
//!    │ v1 <xor> │ start1 │ <joint> │ start2 │ …   bits from here on, the last byte filled up
//!  … ┴──────────┴────────┴─────────┴────────┴───
//!
//! <joint>  time and value of a sample behind the second
//!          0                    on time, the value before
//!          10 <changed>         on time, another value
//!          110  13 bit <xor>    the distance between times changes by that much
//!          1110 20 bit <xor>
//!          11110 64 bit <xor>
//!          11111                on time, a staleness marker
//! <xor>    0                    the value before
//!          10 bits              as many as in the last window
//!          110 leading zeros <5 bit>, significant bits <6 bit, 0 stands for 64>, bits
//!          111                  a staleness marker
//! <changed>  0 and 1 stand for the 10 and 110 of <xor>
//! ```
//!
//! The value before is that of the last sample that was no staleness marker. How start times are
//! written is told in [`super::start_times`].

use isobar_model::Columns;
use isobar_model::sample::{STALE_NAN, is_stale};

use super::histogram::{VARBIT_WIDTHS, varbit_signed};
use super::start_times::StartTimes;
use super::xor::{BitReader, sample_count};
use crate::Error;
use crate::encoding::Decoder;

/// The number of samples and the byte about start times.
const HEADER_BYTES: usize = 3;

#[cold]
#[inline(never)]
fn corrupt(why: &str) -> Error {
    Error::corrupt("XOR2 chunk", why)
}

fn truncated<E>(_: E) -> Error {
    corrupt("the bytes end before the last sample")
}

/// Appends all samples to `columns` as they stand, and says whether their times strictly rise.
///
/// # Errors
/// [`Error::Corrupt`] when the bytes are no XOR2 chunk; `columns` is left as it was.
pub fn decode(data: &[u8], columns: &mut Columns) -> Result<bool, Error> {
    let count = usize::from(sample_count(data)?);
    let Some((header, body)) = data.split_first_chunk::<HEADER_BYTES>() else {
        return Err(corrupt("the header is cut"));
    };
    // Sample 0 takes at least nine bytes, sample 1 nine bits, the others one bit each. Checked
    // before memory is taken for them.
    let bits_min = match count {
        0 => return Ok(true),
        1 => 9 * 8,
        _ => 9 * 8 + 9 + (count - 2),
    };
    if body.len() * 8 < bits_min {
        return Err(truncated(()));
    }
    let (start, starts) = (columns.len(), columns.start_times.len());
    columns.timestamps.reserve(count);
    columns.values.reserve(count);
    let result = match StartTimes::new(header[2]) {
        None => decode_samples::<false>(body, count, &mut StartTimes::none(), columns),
        Some(mut start_times) => {
            columns.start_times.resize(start, 0);
            columns.start_times.reserve(count);
            decode_samples::<true>(body, count, &mut start_times, columns)
        }
    };
    if result.is_err() {
        columns.timestamps.truncate(start);
        columns.values.truncate(start);
        columns.start_times.truncate(starts);
    }
    result
}

fn decode_samples<const STARTS: bool>(
    body: &[u8],
    count: usize,
    start_times: &mut StartTimes,
    columns: &mut Columns,
) -> Result<bool, Error> {
    let mut head = Decoder::new(body);
    let mut now = head.varint().map_err(truncated)?;
    let bits = head.be64().map_err(truncated)?;
    if STARTS {
        start_times.first(now, || head.varint().map_err(truncated))?;
        columns.start_times.push(start_times.start_ms);
    }
    columns.push(now, f64::from_bits(bits));
    if count == 1 {
        return Ok(true);
    }
    let mut delta = head.uvarint().map_err(truncated)?.cast_signed();
    let mut state = State {
        reader: BitReader::new(head.rest()),
        at: 0,
        // A marker does not count as the value before.
        value: if is_stale(f64::from_bits(bits)) {
            0
        } else {
            bits
        },
        significant: 64,
        trailing: 0,
    };
    let mut rising = true;
    for number in 1..count {
        let value = match number {
            1 => state.changes()?,
            _ => state.joint(&mut delta)?,
        };
        let before = now;
        now = now.wrapping_add(delta);
        rising &= before < now;
        columns.push(now, value);
        if STARTS {
            start_times.next(number, before, || Ok(state.varbit()))?;
            columns.start_times.push(start_times.start_ms);
        }
        // Behind the end there are zeros, of which as many as you like are samples.
        if state.at > head.len() * 8 {
            return Err(truncated(()));
        }
    }
    Ok(rising)
}

/// Where decoding stands.
struct State<'a> {
    reader: BitReader<'a>,
    at: usize,
    /// The bits of the last value that was no staleness marker.
    value: u64,
    /// The last window.
    significant: u32,
    trailing: u32,
}

impl State<'_> {
    /// Reads time and value of a sample behind the second.
    #[inline(always)]
    fn joint(&mut self, delta: &mut i64) -> Result<f64, Error> {
        let word = self.reader.peek(self.at);
        let ones = (!word).leading_zeros().min(5);
        let width = match ones {
            0 => {
                self.at += 1;
                return Ok(f64::from_bits(self.value));
            }
            1 => {
                self.at += 2;
                return self.changed(word << 2);
            }
            2 => 13,
            3 => 20,
            4 => 64,
            _ => {
                self.at += 5;
                return Ok(STALE_NAN);
            }
        };
        self.at += ones as usize + 1;
        let unused = 64 - width;
        let dod = (self.reader.read(self.at, width) << unused).cast_signed() >> unused;
        self.at += width as usize;
        *delta = delta.wrapping_add(dod);
        self.changes()
    }

    /// Reads an `<xor>`.
    #[inline(always)]
    fn changes(&mut self) -> Result<f64, Error> {
        let word = self.reader.peek(self.at);
        match (!word).leading_zeros() {
            0 => {
                self.at += 1;
                Ok(f64::from_bits(self.value))
            }
            1 => {
                self.at += 2;
                Ok(self.differing_bits())
            }
            2 => {
                self.at += 3;
                self.window(word << 3)?;
                Ok(self.differing_bits())
            }
            _ => {
                self.at += 3;
                Ok(STALE_NAN)
            }
        }
    }

    /// Reads a `<changed>`, whose bits `word` begins with.
    #[inline(always)]
    fn changed(&mut self, word: u64) -> Result<f64, Error> {
        self.at += 1;
        if word >> 63 == 1 {
            self.window(word << 1)?;
        }
        Ok(self.differing_bits())
    }

    /// Reads a window, with which `word` begins.
    #[inline(always)]
    fn window(&mut self, word: u64) -> Result<(), Error> {
        let leading = (word >> 59) as u32;
        let significant = match (word >> 53) as u32 & 0x3f {
            0 => 64,
            some => some,
        };
        self.at += 5 + 6;
        self.trailing = 64u32
            .checked_sub(leading + significant)
            .ok_or_else(|| corrupt("a value has more than 64 bits"))?;
        self.significant = significant;
        Ok(())
    }

    #[inline(always)]
    fn differing_bits(&mut self) -> f64 {
        let bits = self.reader.read(self.at, self.significant);
        self.at += self.significant as usize;
        self.value ^= bits << self.trailing;
        f64::from_bits(self.value)
    }

    /// Reads a varbit number.
    fn varbit(&mut self) -> i64 {
        let ones = (!self.reader.peek(self.at)).leading_zeros().min(8);
        // A zero ends the ones unless there are eight.
        self.at += (ones as usize + 1).min(8);
        let width = VARBIT_WIDTHS.get(ones as usize).copied().unwrap_or(64);
        if width == 0 {
            return 0;
        }
        let bits = self.reader.read(self.at, width);
        self.at += width as usize;
        varbit_signed(bits, width)
    }
}
