//! Decodes whole chunks into columns.
//!
//! What costs here is branches that are guessed wrong, about one in four samples of scraped data,
//! and after that the number of instructions; the chain of places at which samples begin costs
//! little, because a processor that guesses right runs ahead of it. Hence:
//! - Samples that are on time and repeat a value take two zero bits each. A run of them is one
//!   step: four or [`RUN_MAX`] are written whatever its length, and what is too much is overwritten.
//! - Bits are taken from the word that was loaded for a sample as long as it has them.
//! - Samples go to a block of fixed size, where no index needs a check, and from there as a whole to
//!   the columns, which then need not be filled with zeros before.
//!
//! Over the float chunks of a block of scraped data (2.24 bytes a sample) on one core of an EPYC
//! that is 342 M samples/s by `examples/decode.rs`, where a plain loop over samples makes 235 and
//! Prometheus' iterator 84 (each the best of many short rounds). Tried and slower: two or four
//! chunks in one loop (215, 245: twice the state does not fit the registers, and guesses for one
//! chunk disturb those for the other), the same without branches on the data (171: some 60
//! instructions a sample), windows chosen without a branch (306).

use isobar_model::Columns;

use super::{HEADER_BYTES, corrupt};
use crate::Error;
use crate::encoding::Decoder;

/// Samples that are decoded before they go to the columns; a power of two, and enough for the
/// chunks that Prometheus writes.
const BLOCK: usize = 128;
/// The most samples of a run that are taken at once. Their bits and those of a whole sample's
/// prefixes fit the word that is loaded.
const RUN_MAX: usize = 8;

/// Where samples are decoded. Reused from chunk to chunk, so that it is filled with zeros once.
pub struct Scratch {
    times: [i64; BLOCK + RUN_MAX],
    values: [f64; BLOCK + RUN_MAX],
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch {
            times: [0; BLOCK + RUN_MAX],
            values: [0.0; BLOCK + RUN_MAX],
        }
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
    decode_with(data, columns, &mut Scratch::default())
}

/// As [`decode`], for many chunks: they share the scratch.
///
/// # Errors
/// As [`decode`].
pub fn decode_with(
    data: &[u8],
    columns: &mut Columns,
    scratch: &mut Scratch,
) -> Result<bool, Error> {
    decode_columns(data, columns, scratch).map(|end| end.rising)
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

pub(super) fn decode_columns(
    data: &[u8],
    columns: &mut Columns,
    scratch: &mut Scratch,
) -> Result<End, Error> {
    let count = usize::from(sample_count(data)?);
    // Sample 0 takes at least nine bytes, sample 1 nine bits, the others two bits each. Checked
    // before memory is taken for them.
    let bits_min = match count {
        0 => 0,
        1 => 9 * 8,
        _ => 9 * 8 + 9 + (count - 2) * 2,
    };
    if (data.len() - HEADER_BYTES) * 8 < bits_min {
        return Err(truncated(()));
    }
    let start = columns.len();
    let mut state = State::default();
    let bits = match decode_blocks(data, count, &mut state, columns, scratch) {
        Ok(bits) => bits,
        Err(error) => {
            columns.timestamps.truncate(start);
            columns.values.truncate(start);
            return Err(error);
        }
    };
    let times = columns.timestamps.get(start..).unwrap_or_default();
    Ok(End {
        bits,
        delta_ms: state.delta,
        window: state.window(),
        rising: state.rises(times) || times.is_sorted_by(|a, b| a < b),
    })
}

fn truncated<E>(_: E) -> Error {
    corrupt("the bytes end before the last sample")
}

/// Appends all samples, and says how many bits were read.
fn decode_blocks(
    data: &[u8],
    count: usize,
    state: &mut State,
    columns: &mut Columns,
    scratch: &mut Scratch,
) -> Result<usize, Error> {
    if count == 0 {
        return Ok(HEADER_BYTES * 8);
    }
    let mut head = Decoder::new(data.get(HEADER_BYTES..).unwrap_or_default());
    state.now = head.varint().map_err(truncated)?;
    let Some((value, rest)) = head.rest().split_first_chunk() else {
        return Err(truncated(()));
    };
    state.bits = u64::from_be_bytes(*value);
    let mut head = Decoder::new(rest);
    scratch.put(0, state);
    let mut done = 1;
    if count > 1 {
        state.delta = head.uvarint().map_err(truncated)?.cast_signed();
        state.see_distance(state.delta);
        state.now = state.now.wrapping_add(state.delta);
    }
    let reader = BitReader::new(head.rest());
    if count > 1 {
        if !state.read_value(reader, reader.peek(0), 0) {
            return Err(too_wide());
        }
        scratch.put(1, state);
        done = 2;
    }
    let mut left = count;
    while left > 0 {
        let end = left.min(BLOCK);
        if !state.fill(reader, scratch, done, end) {
            return Err(too_wide());
        }
        columns
            .timestamps
            .extend_from_slice(scratch.times.get(..end).unwrap_or_default());
        columns
            .values
            .extend_from_slice(scratch.values.get(..end).unwrap_or_default());
        left -= end;
        done = 0;
    }
    if state.at > head.len() * 8 {
        return Err(truncated(()));
    }
    Ok((data.len() - head.len()) * 8 + state.at)
}

fn too_wide() -> Error {
    corrupt("a value has more than 64 bits")
}

impl Scratch {
    #[inline(always)]
    fn put(&mut self, at: usize, state: &State) {
        let at = at % BLOCK;
        self.times[at] = state.now;
        self.values[at] = f64::from_bits(state.bits);
    }
}

/// The last sample read, and where the next one begins.
#[derive(Clone, Copy)]
struct State {
    /// The bits read.
    at: usize,
    now: i64,
    delta: i64,
    /// The bits of the value.
    bits: u64,
    /// How many bits of a value the last window has, and the zeros behind them: [`NO_WINDOW`] as
    /// long as there was none, which is shifted by as if it were 0.
    significant: u32,
    trailing: u32,
    /// All distances less one, ORed: without high bits they are positive and of a usual size.
    distances: u64,
}

/// See [`State::trailing`].
const NO_WINDOW: u32 = 64;
/// Bits of a distance for which 2^16 of them together cannot overflow.
const DISTANCE_BITS: u32 = 47;

impl Default for State {
    fn default() -> Self {
        State {
            at: 0,
            now: 0,
            delta: 0,
            bits: 0,
            significant: 64,
            trailing: NO_WINDOW,
            distances: 0,
        }
    }
}

impl State {
    fn window(&self) -> Option<(u8, u8)> {
        let leading = 64u32.checked_sub(self.significant + self.trailing)?;
        Some((leading as u8, self.trailing as u8))
    }

    /// Whether the times, which were read, are known to rise.
    fn rises(&self, times: &[i64]) -> bool {
        self.distances >> DISTANCE_BITS == 0 && (times.len() < 2 || times.first() < times.last())
    }

    /// Takes a distance into account that times have.
    #[inline(always)]
    fn see_distance(&mut self, delta: i64) {
        self.distances |= delta.wrapping_sub(1).cast_unsigned();
    }

    /// Decodes samples into the places `from..to` of the scratch, none of which is behind
    /// [`BLOCK`]. False when a value has too many bits.
    #[inline(never)]
    fn fill(
        &mut self,
        reader: BitReader<'_>,
        scratch: &mut Scratch,
        from: usize,
        to: usize,
    ) -> bool {
        // A copy is kept in registers.
        let mut state = *self;
        let mut next = from;
        while next < to {
            let mut word = reader.peek(state.at);
            // Bits of the word that were used.
            let mut used = 0;
            if word >> 62 == 0 {
                let run = state.put_run(scratch, next, word).min(to - next);
                state.now = state.now.wrapping_add(state.delta.wrapping_mul(run as i64));
                next += run;
                if run == RUN_MAX || next == to {
                    state.at += 2 * run;
                    continue;
                }
                used = 2 * run as u32;
                word <<= used;
            }
            if word >> 63 == 0 {
                state.now = state.now.wrapping_add(state.delta);
                if !state.read_changes(reader, word << 1, used + 1) {
                    return false;
                }
            } else {
                if word >> 62 == 0b10 {
                    state.delta = state.delta.wrapping_add(short_change(word));
                    word <<= 2 + 14;
                    used += 2 + 14;
                } else {
                    let at = state.at + used as usize;
                    let (change, bits) = long_change(reader, at, word);
                    state.delta = state.delta.wrapping_add(change);
                    state.at = at + bits;
                    word = reader.peek(state.at);
                    used = 0;
                }
                // Not in the copy: there it would cost a register.
                self.see_distance(state.delta);
                state.now = state.now.wrapping_add(state.delta);
                if !state.read_value(reader, word, used) {
                    return false;
                }
            }
            scratch.put(next, &state);
            next += 1;
        }
        state.distances = self.distances;
        *self = state;
        true
    }

    /// Writes a run of samples that are on time and have the same value, and says how many there
    /// are by `word`.
    #[inline(always)]
    fn put_run(&self, scratch: &mut Scratch, at: usize, word: u64) -> usize {
        let end = 1 << (63 - 2 * RUN_MAX);
        let run = (word | end).leading_zeros() as usize / 2;
        let at = at % BLOCK;
        let mut now = self.now;
        let value = f64::from_bits(self.bits);
        for place in at..at + RUN_MAX / 2 {
            now = now.wrapping_add(self.delta);
            scratch.times[place] = now;
            scratch.values[place] = value;
        }
        if run > RUN_MAX / 2 {
            for place in at + RUN_MAX / 2..at + RUN_MAX {
                now = now.wrapping_add(self.delta);
                scratch.times[place] = now;
                scratch.values[place] = value;
            }
        }
        run
    }

    /// Reads how a value differs from the one before. `word` holds the bits at `at`, less `used`
    /// of them; 13 are needed. False when they are too many.
    #[inline(always)]
    fn read_value(&mut self, reader: BitReader<'_>, word: u64, used: u32) -> bool {
        if word.cast_signed() < 0 {
            return self.read_changes(reader, word, used);
        }
        self.at += used as usize + 1;
        true
    }

    /// As [`State::read_value`], for a value that does differ: `word` begins with the one bit that
    /// says so.
    #[inline(always)]
    fn read_changes(&mut self, reader: BitReader<'_>, word: u64, used: u32) -> bool {
        let mut bits = word << 2;
        let mut used = used + 2;
        if word >> 62 & 1 == 1 {
            let window = (word >> 51) as u32;
            // 0 stands for 64.
            self.significant = (window.wrapping_sub(1) & 0x3f) + 1;
            let leading = window >> 6 & 0x1f;
            self.trailing = 64u32.wrapping_sub(leading).wrapping_sub(self.significant);
            bits <<= 5 + 6;
            used += 5 + 6;
            if self.trailing > 64 {
                return false;
            }
        }
        let end = used + self.significant;
        if end > PEEKED_BITS {
            bits = reader.left_aligned(self.at + used as usize, self.significant);
        }
        let changes = bits >> (64 - self.significant);
        self.bits ^= changes.wrapping_shl(self.trailing);
        self.at += end as usize;
        true
    }
}

/// The change of distance of code `10`, with which `word` begins.
#[inline(always)]
fn short_change(word: u64) -> i64 {
    const LARGEST: i64 = 1 << 13;
    let change = (word << 2).cast_signed() >> (64 - 14);
    // The code of -2^13 in two's complement stands for 2^13.
    if change == -LARGEST { LARGEST } else { change }
}

/// The change of distance of the other codes, `word` beginning with the one at `at`, and how many
/// bits it has.
#[cold]
#[inline(never)]
fn long_change(reader: BitReader<'_>, at: usize, word: u64) -> (i64, usize) {
    let (prefix, size) = match (!word).leading_zeros() {
        2 => (3, 17),
        3 => (4, 20),
        _ => return (reader.read(at + 4, 64).cast_signed(), 4 + 64),
    };
    let raw = word << prefix >> (64 - size);
    // The codes stand for 1 - 2^(size-1) ..= 2^(size-1): two's complement moved by one.
    let unused = 64 - size;
    let change = ((raw.wrapping_sub(1) << unused).cast_signed() >> unused) + 1;
    (change, (prefix + size) as usize)
}

/// The bits that [`BitReader::peek`] gives at least.
const PEEKED_BITS: u32 = 57;

/// Gives the bits at any place, most significant first. Behind the end there are zeros.
///
/// There is no buffer that is used up: a place is a number, and while branches are guessed right
/// the next ones are known before the bits at this one have arrived.
#[derive(Clone, Copy)]
pub(in crate::chunks) struct BitReader<'a> {
    bytes: &'a [u8],
}

impl<'a> BitReader<'a> {
    pub(in crate::chunks) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes }
    }

    /// The bits from `at` on, left-aligned; at least [`PEEKED_BITS`] of them.
    #[inline(always)]
    pub(in crate::chunks) fn peek(self, at: usize) -> u64 {
        let byte = at / 8;
        match self.bytes.get(byte..byte + 8) {
            Some(&[a, b, c, d, e, f, g, h]) => {
                u64::from_be_bytes([a, b, c, d, e, f, g, h]) << (at % 8)
            }
            _ => self.peek_at_end(at),
        }
    }

    /// As [`BitReader::peek`], where fewer than eight bytes are left; zeros follow.
    #[cold]
    #[inline(never)]
    fn peek_at_end(self, at: usize) -> u64 {
        let Some(last) = self.bytes.last_chunk() else {
            return self.peek_in_few(at);
        };
        let skipped = at - (self.bytes.len() * 8 - 64);
        u32::try_from(skipped)
            .ok()
            .and_then(|skipped| u64::from_be_bytes(*last).checked_shl(skipped))
            .unwrap_or(0)
    }

    /// As [`BitReader::peek_at_end`], where there are fewer than eight bytes in all.
    #[cold]
    #[inline(never)]
    fn peek_in_few(self, at: usize) -> u64 {
        let rest = self.bytes.get(at / 8..).unwrap_or_default();
        let word = rest
            .iter()
            .rev()
            .fold(0, |word, byte| word >> 8 | u64::from(*byte) << 56);
        word << (at % 8)
    }

    /// `count` bits, of 1 to 64, from `at` on.
    #[inline(always)]
    pub(in crate::chunks) fn read(self, at: usize, count: u32) -> u64 {
        self.left_aligned(at, count) >> (64 - count)
    }

    /// `count` bits, of 1 to 64, from `at` on, left-aligned; others may follow.
    #[inline(always)]
    fn left_aligned(self, at: usize, count: u32) -> u64 {
        match count <= PEEKED_BITS {
            true => self.peek(at),
            false => self.peek_wide(at),
        }
    }

    /// All 64 bits from `at` on.
    #[cold]
    #[inline(never)]
    fn peek_wide(self, at: usize) -> u64 {
        self.peek(at) >> 32 << 32 | self.peek(at + 32) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format, bit by bit.
    struct Naive<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Naive<'_> {
        fn bits(&mut self, count: usize) -> Option<u64> {
            let mut bits = (self.at..self.at + count).map(|at| {
                let byte = self.bytes.get(at / 8)?;
                Some(u64::from(byte >> (7 - at % 8) & 1))
            });
            self.at += count;
            bits.try_fold(0, |all, bit| Some(all << 1 | bit?))
        }

        fn prefix(&mut self, most: usize) -> Option<usize> {
            for ones in 0..most {
                if self.bits(1)? == 0 {
                    return Some(ones);
                }
            }
            Some(most)
        }

        fn change(&mut self) -> Option<i64> {
            let size = match self.prefix(4)? {
                0 => return Some(0),
                1 => 14,
                2 => 17,
                3 => 20,
                _ => return Some(self.bits(64)?.cast_signed()),
            };
            let read = self.bits(size)?.cast_signed();
            Some(if read > 1 << (size - 1) {
                read - (1 << size)
            } else {
                read
            })
        }
    }

    fn naive(data: &[u8]) -> Option<Vec<(i64, u64)>> {
        let count = sample_count(data).ok()?;
        let mut head = Decoder::new(&data[HEADER_BYTES..]);
        let mut samples = Vec::new();
        let (mut now, mut value, mut delta) = (0i64, 0, 0i64);
        let (mut significant, mut trailing) = (64, 0);
        let mut bits = Naive { bytes: &[], at: 0 };
        for number in 0..count {
            match number {
                0 => {
                    now = head.varint().ok()?;
                    value = head.be64().ok()?;
                    samples.push((now, value));
                    continue;
                }
                1 => {
                    delta = head.uvarint().ok()?.cast_signed();
                    bits.bytes = head.rest();
                }
                _ => delta = delta.wrapping_add(bits.change()?),
            }
            now = now.wrapping_add(delta);
            let control = bits.prefix(2)?;
            if control == 2 {
                let leading = bits.bits(5)?;
                significant = match bits.bits(6)? {
                    0 => 64,
                    some => some,
                };
                trailing = 64u64.checked_sub(leading + significant)?;
            }
            if control > 0 {
                value ^= bits.bits(significant as usize)? << trailing;
            }
            samples.push((now, value));
        }
        Some(samples)
    }

    /// Compares with [`naive`], behind samples that stay.
    fn check(data: &[u8]) -> bool {
        let mut columns = Columns::default();
        columns.push(-1, 1.0);
        let decoded = decode(data, &mut columns);
        let bits = columns.values.iter().map(|value| value.to_bits());
        let got: Vec<_> = columns
            .timestamps
            .iter()
            .copied()
            .zip(bits)
            .skip(1)
            .collect();
        let want = naive(data);
        assert_eq!(got, want.clone().unwrap_or_default(), "{data:?}");
        match (decoded, &want) {
            (Ok(rising), Some(want)) => {
                assert_eq!(rising, want.is_sorted_by(|a, b| a.0 < b.0), "{data:?}");
            }
            (decoded, want) => assert_eq!(decoded.is_ok(), want.is_some(), "{data:?}"),
        }
        want.is_some()
    }

    #[test]
    fn any_bytes_are_read_as_the_format_says() {
        let mut seed = 1u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 33
        };
        let mut read = 0;
        for _ in 0..4_000 {
            // Few ones make long runs, many long codes.
            let density = random() % 9;
            let mut byte =
                || (0..8).fold(0, |byte, _| byte << 1 | u8::from(random() % 8 < density));
            let body: Vec<u8> = (0..260).map(|_| byte()).collect();
            let count = random() % 400;
            let mut data = (count as u16).to_be_bytes().to_vec();
            // Times and distances that are short, and some that are long.
            data.extend_from_slice(&[random() as u8 & 0x7f, 0, 0, 0, 0, 0, 0, 0, 0]);
            data.push(random() as u8 & 0x7f);
            data.extend_from_slice(&body);
            read += usize::from(check(&data));
            read += usize::from(check(&body));
        }
        assert!(read > 500, "{read} were chunks");
    }

    #[test]
    fn times_that_wrap_around_do_not_rise() {
        for deltas in [[i64::MAX; 3], [1 << 62; 3], [1 << 46; 3], [0; 3], [-1; 3]] {
            let mut appender = super::super::XorAppender::new();
            let mut now = i64::MAX - (1 << 47);
            appender.append(now, 1.0);
            for delta in deltas {
                now = now.wrapping_add(delta);
                appender.append(now, 1.0);
            }
            assert!(check(appender.as_bytes()), "{deltas:?}");
        }
    }
}
