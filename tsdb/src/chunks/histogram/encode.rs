//! Writing chunks: histograms of one series as chunks that Prometheus would have written.
//!
//! Samples of a chunk share a layout. Since all samples are there, it is that with all their
//! buckets, and nothing is written twice. Another schema, zero threshold or set of bounds, a change
//! between counter and gauge, a reset and what follows a staleness marker begin a new chunk, as
//! with Prometheus.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use isobar_model::FloatHistogram;
use isobar_model::histogram::{Buckets, CUSTOM_SCHEMA, CounterReset};

use super::Counts;
use super::bits::VARBIT_WIDTHS;
use crate::chunks::{Chunk, Encoding};

/// A histogram with its unix time in milliseconds.
type Sample = (i64, Arc<FloatHistogram>);

/// Up to here a float holds every integer.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// The samples, whose times rise, as chunks of at most `samples_max`. With [`Counts::Integer`]
/// chunks of integers are written where all counts are integers.
pub fn encode(samples: &[Sample], counts: Counts, samples_max: usize) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut rest = samples;
    let mut before: Option<&FloatHistogram> = None;
    while let Some(((_, first), _)) = rest.split_first() {
        let header = header(before, first);
        let len = run_len(rest, samples_max.max(1));
        let (run, later) = rest.split_at(len);
        chunks.extend(chunk(run, counts, header));
        before = run.last().map(|(_, last)| last.as_ref());
        rest = later;
    }
    chunks
}

/// How many samples from the first on go into one chunk.
fn run_len(samples: &[Sample], samples_max: usize) -> usize {
    let pairs = samples.windows(2).take(samples_max - 1);
    let joined = pairs.take_while(|pair| match pair {
        [(_, before), (_, next)] => goes_on(before, next),
        _ => false,
    });
    joined.count() + 1
}

/// Whether a sample may stand in the chunk of the one before it.
fn goes_on(before: &FloatHistogram, next: &FloatHistogram) -> bool {
    if before.is_stale() {
        return false;
    }
    next.is_stale() || (same_family(before, next) && (is_gauge(next) || !next.detect_reset(before)))
}

fn same_family(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.custom == b.custom
        && is_gauge(a) == is_gauge(b)
}

fn is_gauge(histogram: &FloatHistogram) -> bool {
    histogram.hint == CounterReset::Gauge
}

/// The flags that tell of resets before the first sample of a chunk.
fn header(before: Option<&FloatHistogram>, first: &FloatHistogram) -> u8 {
    const RESET: u8 = 0x80;
    const NOT_RESET: u8 = 0x40;
    match (first.hint, before) {
        (CounterReset::Gauge, _) => RESET | NOT_RESET,
        (CounterReset::Reset, _) => RESET,
        (CounterReset::NotReset, None) => NOT_RESET,
        (_, Some(before)) if !before.is_stale() && same_family(before, first) => {
            match first.detect_reset(before) {
                true => RESET,
                false => NOT_RESET,
            }
        }
        _ => 0,
    }
}

/// The buckets of all samples of a chunk.
struct Layout<'a> {
    schema: i32,
    zero_threshold: f64,
    sides: [Vec<i32>; 2],
    custom: &'a [f64],
}

impl<'a> Layout<'a> {
    fn of(run: &'a [Sample]) -> Self {
        let live = || run.iter().map(|(_, it)| it).filter(|it| !it.is_stale());
        let side = |side: fn(&FloatHistogram) -> &Buckets| {
            let first = live().next().map(|it| side(it).indexes());
            // Mostly all have the same.
            if let Some(first) = first
                && live().all(|it| side(it).indexes() == first)
            {
                return first.to_vec();
            }
            let all: BTreeSet<i32> = live()
                .flat_map(|it| side(it).indexes().iter().copied())
                .collect();
            all.into_iter().collect()
        };
        let first = live().next();
        Layout {
            schema: first.map_or(0, |it| it.schema),
            zero_threshold: first.map_or(0.0, |it| it.zero_threshold),
            sides: [side(|it| &it.positive), side(|it| &it.negative)],
            custom: first.map_or(&[], |it| &it.custom),
        }
    }

    fn write(&self, bits: &mut BitWriter) {
        zero_threshold(bits, self.zero_threshold);
        bits.varbit_int(self.schema.into());
        for side in &self.sides {
            spans(bits, side);
        }
        if self.schema == CUSTOM_SCHEMA {
            bits.varbit_uint(self.custom.len() as u64);
            for bound in self.custom {
                custom_bound(bits, *bound);
            }
        }
    }

    /// Counts of both sides, one after the other, 0 where a histogram has no bucket.
    fn counts(&self, histogram: &FloatHistogram, counts: &mut Vec<f64>) -> usize {
        counts.clear();
        for (side, buckets) in self
            .sides
            .iter()
            .zip([&histogram.positive, &histogram.negative])
        {
            let mut own = buckets.iter().peekable();
            counts.extend(side.iter().map(|index| {
                let found = own.next_if(|(own, _)| own == index);
                found.map_or(0.0, |(_, count)| count)
            }));
        }
        self.sides.first().map_or(0, Vec::len)
    }
}

/// Runs of indexes that follow on each other.
fn spans(bits: &mut BitWriter, indexes: &[i32]) {
    let follows = |a: &i32, b: &i32| a.checked_add(1) == Some(*b);
    bits.varbit_uint(indexes.chunk_by(follows).count() as u64);
    let mut end = 0_i64;
    for span in indexes.chunk_by(follows) {
        let first = span.first().map_or(0, |index| i64::from(*index));
        bits.varbit_uint(span.len() as u64);
        bits.varbit_int(first - end);
        end = first + span.len() as i64;
    }
}

/// One byte for zero and for powers of two from 2^-243 to 2^10, else a byte and the number.
fn zero_threshold(bits: &mut BitWriter, threshold: f64) {
    let raw = threshold.to_bits();
    if raw == 0 {
        return bits.put(0, 8);
    }
    let (exponent, fraction) = (raw >> 52, raw & ((1 << 52) - 1));
    // A normal power of two 2^e has the biased exponent e + 1023; the byte is e + 244.
    match exponent.checked_sub(1023 - 244) {
        Some(byte @ 1..=254) if fraction == 0 => bits.put(byte, 8),
        _ => {
            bits.put(255, 8);
            bits.put(raw, 64);
        }
    }
}

/// Multiples of a thousandth up to 33554.43 are written as such.
fn custom_bound(bits: &mut BitWriter, bound: f64) {
    let thousandths = bound * 1000.0;
    let whole = thousandths.round();
    if (0.0..=33_554_430.0).contains(&thousandths) && whole / 1000.0 == bound {
        return bits.varbit_uint(to_uint(whole) + 1);
    }
    bits.put(0, 1);
    bits.put(bound.to_bits(), 64);
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the callers have seen that it is an integer from 0 to 2^53"
)]
fn to_uint(value: f64) -> u64 {
    value as u64
}

fn is_integer(value: f64) -> bool {
    // A negative zero is none: its sign would be lost.
    value.is_sign_positive() && value < INTEGER_MAX && value.fract() == 0.0
}

fn all_integers(run: &[Sample]) -> bool {
    run.iter().filter(|(_, it)| !it.is_stale()).all(|(_, it)| {
        let sides = [it.positive.counts(), it.negative.counts()];
        [it.count, it.zero_count]
            .iter()
            .chain(sides.into_iter().flatten())
            .all(|count| is_integer(*count))
    })
}

/// The chunk of a run; `None` when that is empty.
fn chunk(run: &[Sample], counts: Counts, header: u8) -> Option<Chunk> {
    let (first_ms, last_ms) = (run.first()?.0, run.last()?.0);
    let integers = counts == Counts::Integer && all_integers(run);
    let mut bits = BitWriter::default();
    bits.put(run.len() as u64, 16);
    bits.put(header.into(), 8);
    let layout = Layout::of(run);
    layout.write(&mut bits);
    let encoding = if integers {
        integer_samples(&mut bits, run, &layout);
        Encoding::Histogram
    } else {
        float_samples(&mut bits, run, &layout);
        Encoding::FloatHistogram
    };
    Some(Chunk {
        encoding,
        min_ms: first_ms,
        max_ms: last_ms,
        data: Bytes::from(bits.bytes),
    })
}

/// A number of which the change of its change is written.
#[derive(Debug, Clone, Copy, Default)]
struct Delta {
    value: i64,
    delta: i64,
}

impl Delta {
    fn put(&mut self, bits: &mut BitWriter, value: i64) {
        let delta = value.wrapping_sub(self.value);
        bits.varbit_int(delta.wrapping_sub(self.delta));
        *self = Delta { value, delta };
    }
}

fn integer_samples(bits: &mut BitWriter, run: &[Sample], layout: &Layout<'_>) {
    let mut time = Delta::default();
    let mut totals = [Delta::default(); 2];
    let mut sum = XorFloat::default();
    let mut buckets: Vec<Delta> = Vec::new();
    let mut counts = Vec::new();
    for (number, (time_ms, histogram)) in run.iter().enumerate() {
        let middle = layout.counts(histogram, &mut counts);
        let both = [histogram.count, histogram.zero_count].map(|it| to_uint(it).cast_signed());
        // Each bucket is told by its distance to the one before it.
        let mut before = 0_i64;
        let distances = counts.iter().enumerate().map(|(i, count)| {
            let count = to_uint(*count).cast_signed();
            let distance = if i == middle { count } else { count - before };
            before = count;
            distance
        });
        if number == 0 {
            bits.varbit_int(*time_ms);
            time.value = *time_ms;
            for (total, value) in totals.iter_mut().zip(both) {
                total.value = value;
                bits.varbit_uint(value.cast_unsigned());
            }
            sum = XorFloat::of(histogram.sum);
            bits.put(histogram.sum.to_bits(), 64);
            for distance in distances {
                bits.varbit_int(distance);
                buckets.push(Delta {
                    value: distance,
                    delta: 0,
                });
            }
            continue;
        }
        time.put(bits, *time_ms);
        if histogram.is_stale() {
            // Its counts stand for nothing, and no buckets follow.
            bits.put(0, 2);
            sum.put(bits, histogram.sum);
            continue;
        }
        for (total, value) in totals.iter_mut().zip(both) {
            total.put(bits, value);
        }
        sum.put(bits, histogram.sum);
        for (bucket, distance) in buckets.iter_mut().zip(distances) {
            bucket.put(bits, distance);
        }
    }
}

fn float_samples(bits: &mut BitWriter, run: &[Sample], layout: &Layout<'_>) {
    let mut time = Delta::default();
    let mut totals = [XorFloat::default(); 3];
    let mut buckets: Vec<XorFloat> = Vec::new();
    let mut counts = Vec::new();
    for (number, (time_ms, histogram)) in run.iter().enumerate() {
        layout.counts(histogram, &mut counts);
        let all = [histogram.count, histogram.zero_count, histogram.sum];
        if number == 0 {
            bits.varbit_int(*time_ms);
            time.value = *time_ms;
            totals = all.map(XorFloat::of);
            buckets = counts.iter().map(|count| XorFloat::of(*count)).collect();
            for value in all.iter().chain(&counts) {
                bits.put(value.to_bits(), 64);
            }
            continue;
        }
        time.put(bits, *time_ms);
        for (total, value) in totals.iter_mut().zip(all) {
            total.put(bits, value);
        }
        if histogram.is_stale() {
            continue;
        }
        for (bucket, count) in buckets.iter_mut().zip(&counts) {
            bucket.put(bits, *count);
        }
    }
}

/// A float of which the XOR with the one before is written.
#[derive(Debug, Clone, Copy, Default)]
struct XorFloat {
    value: f64,
    /// Leading and trailing zeros of the bits that were written last.
    window: Option<(u32, u32)>,
}

impl XorFloat {
    fn of(value: f64) -> Self {
        XorFloat {
            value,
            window: None,
        }
    }

    fn put(&mut self, bits: &mut BitWriter, value: f64) {
        let change = value.to_bits() ^ self.value.to_bits();
        self.value = value;
        if change == 0 {
            return bits.put(0, 1);
        }
        let leading = change.leading_zeros().min(31);
        let trailing = change.trailing_zeros();
        match self.window {
            Some((before, behind)) if leading >= before && trailing >= behind => {
                bits.put(0b10, 2);
                bits.put(change >> behind, 64 - before - behind);
            }
            _ => {
                self.window = Some((leading, trailing));
                let significant = 64 - leading - trailing;
                bits.put(0b11, 2);
                bits.put(leading.into(), 5);
                // 64 is written as 0.
                bits.put(u64::from(significant & 63), 6);
                bits.put(change >> trailing, significant);
            }
        }
    }
}

/// Writes bits from the most significant on.
#[derive(Debug, Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not written yet.
    free: u32,
}

impl BitWriter {
    /// Appends the `count` low bits of `value`, at most 64.
    fn put(&mut self, value: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = left.min(self.free);
            let part = (value >> (left - taken)) & ((1 << taken) - 1);
            if let Some(last) = self.bytes.last_mut() {
                let [.., low] = (part << (self.free - taken)).to_be_bytes();
                *last |= low;
            }
            self.free -= taken;
            left -= taken;
        }
    }

    /// A varbit number of the class with so many leading ones.
    fn varbit(&mut self, value: u64, ones: u32) {
        let width = VARBIT_WIDTHS.get(ones as usize).copied().unwrap_or(64);
        // Ones, and a zero that ends them unless there are eight.
        let prefix = (1_u64 << ones) - 1;
        match ones {
            8 => self.put(prefix, 8),
            _ => self.put(prefix << 1, ones + 1),
        }
        self.put(value, width);
    }

    fn varbit_uint(&mut self, value: u64) {
        let needed = 64 - value.leading_zeros();
        let class = VARBIT_WIDTHS.iter().zip(0..).find(|(w, _)| needed <= **w);
        self.varbit(value, class.map_or(8, |(_, ones)| ones));
    }

    fn varbit_int(&mut self, value: i64) {
        // A class of `w` bits holds 1 - 2^(w-1) to 2^(w-1).
        let fits = |width: u32| match width {
            0 => value == 0,
            64 => true,
            _ => {
                let most = 1_i64 << (width - 1);
                (1 - most..=most).contains(&value)
            }
        };
        let class = VARBIT_WIDTHS.iter().zip(0..).find(|(w, _)| fits(**w));
        self.varbit(value.cast_unsigned(), class.map_or(8, |(_, ones)| ones));
    }
}

#[cfg(test)]
mod tests {
    use super::super::bits::BitReader;
    use super::*;
    use isobar_model::{Columns, TimeRange};

    #[test]
    fn varbit_numbers_come_back() {
        let mut numbers = vec![0, 1, -1, i64::MAX, i64::MIN];
        for shift in 0..63 {
            let power = 1_i64 << shift;
            numbers.extend([power - 1, power, power + 1, -power, 1 - power]);
        }
        let mut bits = BitWriter::default();
        for number in &numbers {
            bits.varbit_int(*number);
            bits.varbit_uint(number.cast_unsigned());
        }
        let mut reader = BitReader::new(&bits.bytes);
        for number in numbers {
            assert_eq!(reader.varbit_int().unwrap(), number);
            assert_eq!(reader.varbit_uint().unwrap(), number.cast_unsigned());
        }
    }

    fn histogram(indexes: &[i32], counts: &[f64], hint: CounterReset) -> Arc<FloatHistogram> {
        Arc::new(FloatHistogram {
            hint,
            schema: 3,
            zero_threshold: 0.5f64.powi(128),
            zero_count: 2.0,
            count: counts.iter().sum::<f64>() + 2.0,
            sum: counts.iter().sum::<f64>() * 1.7,
            positive: Buckets::of_layout(indexes.into(), counts.to_vec()).unwrap(),
            negative: Buckets::of_layout([-4, 7].into(), vec![0.0, 1.0]).unwrap(),
            custom: [].into(),
        })
    }

    fn check(samples: &[Sample], counts: Counts, expected: &[(Encoding, usize, u8)]) {
        let chunks = encode(samples, counts, 120);
        let told: Vec<_> = chunks
            .iter()
            .map(|chunk| {
                let count = usize::from(chunk.sample_count().unwrap());
                (chunk.encoding, count, chunk.data[2])
            })
            .collect();
        assert_eq!(told, expected);
        let mut columns = Columns::default();
        for chunk in &chunks {
            chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
        }
        let times = |samples: &[Sample]| samples.iter().map(|it| it.0).collect::<Vec<_>>();
        assert_eq!(times(&columns.histograms), times(samples));
        for ((time, got), (_, want)) in columns.histograms.iter().zip(samples) {
            assert_eq!((got.count, got.is_stale()), (want.count, want.is_stale()));
            let some = |it: &FloatHistogram| {
                let live =
                    |buckets: &Buckets| buckets.iter().filter(|it| it.1 != 0.0).collect::<Vec<_>>();
                (live(&it.positive), live(&it.negative), it.sum.to_bits())
            };
            assert_eq!(some(got), some(want), "at {time}");
        }
    }

    #[test]
    fn buckets_that_come_are_in_the_layout_from_the_start() {
        let hint = CounterReset::Unknown;
        let samples = [
            (10, histogram(&[1, 2], &[1.0, 2.0], hint)),
            (20, histogram(&[0, 1, 2, 5], &[1.0, 1.0, 2.0, 3.0], hint)),
            (35, histogram(&[0, 1, 2, 5], &[1.0, 9.0, 2.0, 4.0], hint)),
        ];
        check(&samples, Counts::Integer, &[(Encoding::Histogram, 3, 0)]);
        check(&samples, Counts::Float, &[(Encoding::FloatHistogram, 3, 0)]);
    }

    #[test]
    fn resets_gauges_markers_and_fractions_begin_or_change_chunks() {
        let hint = CounterReset::Unknown;
        let stale = Arc::new(FloatHistogram::stale());
        let samples = [
            (10, histogram(&[1], &[5.0], CounterReset::NotReset)),
            (20, histogram(&[1], &[6.0], hint)),
            (30, histogram(&[1], &[2.0], hint)),
            (40, stale.clone()),
            (50, histogram(&[1], &[3.0], hint)),
            (60, histogram(&[1], &[1.0], CounterReset::Gauge)),
            (70, histogram(&[1], &[0.5], CounterReset::Gauge)),
        ];
        check(
            &samples,
            Counts::Integer,
            &[
                (Encoding::Histogram, 2, 0x40),
                (Encoding::Histogram, 2, 0x80),
                (Encoding::Histogram, 1, 0),
                (Encoding::FloatHistogram, 2, 0xc0),
            ],
        );
        check(
            &[(5, stale)],
            Counts::Float,
            &[(Encoding::FloatHistogram, 1, 0)],
        );
    }

    #[test]
    fn long_runs_are_cut() {
        let samples: Vec<Sample> = (0..250)
            .map(|i| {
                let count = f64::from(i);
                (
                    i64::from(i) * 15_000,
                    histogram(&[i % 2, 9], &[count, count], CounterReset::Gauge),
                )
            })
            .collect();
        let encoding = Encoding::Histogram;
        let expected = [
            (encoding, 120, 0xc0),
            (encoding, 120, 0xc0),
            (encoding, 10, 0xc0),
        ];
        check(&samples, Counts::Integer, &expected);
    }
}
