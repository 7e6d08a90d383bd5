//! Encodes histograms one by one into a chunk.
//!
//! All samples of a chunk share a layout. A sample with a bucket that the layout lacks makes the
//! chunk be written again with it, as Prometheus does; so the bytes are those that
//! [`super::encode`] gives for the same samples.

use std::sync::Arc;

use bytes::Bytes;
use isobar_model::histogram::{Buckets, CUSTOM_SCHEMA, CounterReset, Layout};
use isobar_model::sample::is_stale;
use isobar_model::{Columns, FloatHistogram, TimeRange};

use super::write::{BitWriter, Delta, XorFloat};
use super::{Counts, HEADER_BYTES, corrupt};
use crate::Error;
use crate::chunks::{Chunk, Encoding, xor};

/// The most samples that a chunk's header can tell.
const SAMPLES_MAX: u16 = u16::MAX;

/// A chunk of histograms that is being written. Which samples may stand in one chunk is for the
/// caller to know ([`super::goes_on`]).
#[derive(Debug)]
pub(crate) struct HistogramAppender {
    bits: BitWriter,
    layout: Layout,
    first_ms: i64,
    samples: u16,
    time: Delta,
    sum: XorFloat,
    numbers: Numbers,
}

/// Count and zero count, and the buckets of both sides one after the other, as written last.
#[derive(Debug)]
enum Numbers {
    /// Each bucket is the distance to the one before it.
    Integer {
        totals: [Delta; 2],
        buckets: Box<[Delta]>,
    },
    Float {
        totals: [XorFloat; 2],
        buckets: Box<[XorFloat]>,
    },
}

impl HistogramAppender {
    /// An empty chunk with the buckets of `first`, its first sample. `header` holds the flags that
    /// tell of resets. With [`Counts::Integer`] all counts have to be integers.
    pub(crate) fn new(first: &FloatHistogram, counts: Counts, header: u8) -> Self {
        let layout = match first.is_stale() {
            true => Layout::default(),
            false => Layout {
                schema: first.schema,
                zero_threshold: first.zero_threshold,
                positive: Arc::clone(first.positive.indexes()),
                negative: Arc::clone(first.negative.indexes()),
                custom: Arc::clone(&first.custom),
            },
        };
        HistogramAppender::with_layout(layout, counts, header)
    }

    /// An empty chunk whose buckets are known.
    pub(super) fn with_layout(layout: Layout, counts: Counts, header: u8) -> Self {
        let mut bits = BitWriter::default();
        bits.put(0, 16);
        bits.put(header.into(), 8);
        write_layout(&layout, &mut bits);
        let buckets = layout.positive.len() + layout.negative.len();
        let numbers = match counts {
            Counts::Integer => Numbers::Integer {
                totals: [Delta::default(); 2],
                buckets: vec![Delta::default(); buckets].into(),
            },
            Counts::Float => Numbers::Float {
                totals: [XorFloat::default(); 2],
                buckets: vec![XorFloat::default(); buckets].into(),
            },
        };
        HistogramAppender {
            bits,
            layout,
            first_ms: 0,
            samples: 0,
            time: Delta::default(),
            sum: XorFloat::default(),
            numbers,
        }
    }

    /// Goes on where an encoded chunk ends; gives its last sample too. `None` when it has none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the bytes are no chunk of histograms without start times, or its
    /// times do not rise.
    pub(crate) fn resume(chunk: &Chunk) -> Result<Option<(Self, Arc<FloatHistogram>)>, Error> {
        let counts = match chunk.encoding {
            Encoding::Histogram => Counts::Integer,
            Encoding::FloatHistogram => Counts::Float,
            _ => return Err(corrupt("its encoding is none that can be gone on with")),
        };
        let count = xor::sample_count(&chunk.data)?;
        let header = chunk.data.get(HEADER_BYTES - 1).copied();
        let header = header.ok_or_else(|| corrupt("the header is cut"))?;
        let mut columns = Columns::default();
        chunk.decode_into(TimeRange::ALL, &mut columns)?;
        let samples = columns.histograms;
        if samples.len() != usize::from(count) {
            return Err(corrupt("its times do not rise"));
        }
        let Some((_, last)) = samples.last() else {
            return Ok(None);
        };
        // The samples of a chunk share their layout, but staleness markers have none.
        let live = samples.iter().map(|it| &it.1).find(|it| !it.is_stale());
        let mut appender = HistogramAppender::new(live.unwrap_or(last), counts, header);
        for (time_ms, histogram) in &samples {
            appender.append(*time_ms, histogram);
        }
        let last = Arc::clone(last);
        Ok(Some((appender, last)))
    }

    /// Adds a sample.
    ///
    /// # Panics
    /// When the chunk has as many samples as its header can tell.
    pub(crate) fn append(&mut self, time_ms: i64, histogram: &FloatHistogram) {
        assert!(
            self.samples < SAMPLES_MAX,
            "a chunk is cut before it is full"
        );
        if !histogram.is_stale() {
            let positive = extended(&self.layout.positive, &histogram.positive);
            let negative = extended(&self.layout.negative, &histogram.negative);
            if positive.is_some() || negative.is_some() {
                self.write_again(positive, negative);
            }
        }
        self.put(time_ms, histogram);
    }

    /// Writes all samples again, in more buckets.
    fn write_again(&mut self, positive: Option<Arc<[i32]>>, negative: Option<Arc<[i32]>>) {
        let mut layout = self.layout.clone();
        layout.positive = positive.unwrap_or(layout.positive);
        layout.negative = negative.unwrap_or(layout.negative);
        let header = self.bits.bytes.get(HEADER_BYTES - 1).copied();
        let mut again =
            HistogramAppender::with_layout(layout, self.counts(), header.unwrap_or_default());
        let mut columns = Columns::default();
        if let Some(chunk) = self.to_chunk() {
            let decoded = chunk.decode_into(TimeRange::ALL, &mut columns);
            decoded.expect("what was encoded here decodes");
        }
        for (time_ms, histogram) in &columns.histograms {
            again.put(*time_ms, histogram);
        }
        *self = again;
    }

    fn put(&mut self, time_ms: i64, histogram: &FloatHistogram) {
        let first = self.samples == 0;
        let bits = &mut self.bits;
        match first {
            true => {
                self.first_ms = time_ms;
                bits.varbit_int(time_ms);
                self.time.value = time_ms;
            }
            false => self.time.put(bits, time_ms),
        }
        let stale = histogram.is_stale();
        match &mut self.numbers {
            Numbers::Integer { totals, buckets } => {
                let both = [histogram.count, histogram.zero_count].map(to_int);
                for (total, value) in totals.iter_mut().zip(both) {
                    match (first, stale) {
                        (true, _) => {
                            total.value = value;
                            bits.varbit_uint(value.cast_unsigned());
                        }
                        // Its counts stand for nothing.
                        (false, true) => bits.put(0, 1),
                        (false, false) => total.put(bits, value),
                    }
                }
                put_float(&mut self.sum, bits, first, histogram.sum);
                if stale {
                    self.end_sample();
                    return;
                }
                let counts = counts_of(&self.layout, histogram);
                let middle = self.layout.positive.len();
                let mut before = 0_i64;
                for (at, (bucket, count)) in buckets.iter_mut().zip(counts).enumerate() {
                    let count = to_int(count);
                    let distance = match at == middle {
                        true => count,
                        false => count.wrapping_sub(before),
                    };
                    before = count;
                    match first {
                        true => {
                            bucket.value = distance;
                            bits.varbit_int(distance);
                        }
                        false => bucket.put(bits, distance),
                    }
                }
            }
            Numbers::Float { totals, buckets } => {
                let both = [histogram.count, histogram.zero_count];
                for (total, value) in totals.iter_mut().zip(both) {
                    put_float(total, bits, first, value);
                }
                put_float(&mut self.sum, bits, first, histogram.sum);
                if !stale {
                    let counts = counts_of(&self.layout, histogram);
                    for (bucket, count) in buckets.iter_mut().zip(counts) {
                        put_float(bucket, bits, first, count);
                    }
                }
            }
        }
        self.end_sample();
    }

    fn end_sample(&mut self) {
        self.samples += 1;
        if let Some(count) = self.bits.bytes.first_chunk_mut::<2>() {
            *count = self.samples.to_be_bytes();
        }
    }

    /// The last sample, but for its hint. Buckets of the chunk that it did not have are there with no
    /// observations. `None` when there is no sample.
    pub(crate) fn newest(&self) -> Option<FloatHistogram> {
        self.range()?;
        let sum = self.sum.value;
        if is_stale(sum) {
            return Some(FloatHistogram::stale());
        }
        let layout = &self.layout;
        let middle = layout.positive.len();
        let ([count, zero_count], mut positive) = match &self.numbers {
            Numbers::Integer { totals, buckets } => {
                let mut before = 0_i64;
                let counts = buckets.iter().enumerate().map(|(at, bucket)| {
                    let base = if at == middle { 0 } else { before };
                    before = base.wrapping_add(bucket.value);
                    before as f64
                });
                let counts = counts.collect::<Vec<f64>>();
                (totals.map(|total| total.value as f64), counts)
            }
            Numbers::Float { totals, buckets } => {
                let counts = buckets.iter().map(|bucket| bucket.value).collect();
                (totals.map(|total| total.value), counts)
            }
        };
        let negative = positive.split_off(middle.min(positive.len()));
        Some(FloatHistogram {
            hint: CounterReset::Unknown,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count,
            count,
            sum,
            positive: Buckets::of_layout(Arc::clone(&layout.positive), positive)?,
            negative: Buckets::of_layout(Arc::clone(&layout.negative), negative)?,
            custom: Arc::clone(&layout.custom),
        })
    }

    /// The bytes of the chunk as it is.
    pub(crate) fn byte_count(&self) -> usize {
        self.bits.bytes.len()
    }

    /// The number of samples.
    pub(crate) fn sample_count(&self) -> u16 {
        self.samples
    }

    /// How counts are encoded.
    pub(crate) fn counts(&self) -> Counts {
        match &self.numbers {
            Numbers::Integer { .. } => Counts::Integer,
            Numbers::Float { .. } => Counts::Float,
        }
    }

    /// The times of the first and the last sample; `None` when there is none.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        (self.samples > 0).then(|| TimeRange::new(self.first_ms, self.time.value))
    }

    /// A copy of what is written; `None` when that is nothing.
    pub(crate) fn to_chunk(&self) -> Option<Chunk> {
        self.chunk_of(|| Bytes::copy_from_slice(&self.bits.bytes))
    }

    /// What is written; `None` when that is nothing.
    pub(crate) fn into_chunk(mut self) -> Option<Chunk> {
        let mut bytes = std::mem::take(&mut self.bits.bytes);
        bytes.shrink_to_fit();
        self.chunk_of(|| Bytes::from(bytes))
    }

    fn chunk_of(&self, data: impl FnOnce() -> Bytes) -> Option<Chunk> {
        let range = self.range()?;
        Some(Chunk {
            encoding: match self.counts() {
                Counts::Integer => Encoding::Histogram,
                Counts::Float => Encoding::FloatHistogram,
            },
            min_ms: range.min_ms,
            max_ms: range.max_ms,
            data: data(),
        })
    }

    /// The memory held outside of itself, in bytes. Layouts that samples share count here too.
    pub(crate) fn heap_bytes(&self) -> usize {
        let numbers = match &self.numbers {
            Numbers::Integer { buckets, .. } => size_of_val(&**buckets),
            Numbers::Float { buckets, .. } => size_of_val(&**buckets),
        };
        let layout = &self.layout;
        let indexes = size_of_val(&*layout.positive) + size_of_val(&*layout.negative);
        self.bits.bytes.capacity() + numbers + indexes + size_of_val(&*layout.custom)
    }
}

/// All of `known` and the buckets of `more`; `None` when all are known.
fn extended(known: &Arc<[i32]>, more: &Buckets) -> Option<Arc<[i32]>> {
    let more = more.indexes();
    if Arc::ptr_eq(known, more) || known == more {
        return None;
    }
    let mut rest = known.iter().peekable();
    let all_known = more.iter().all(|index| {
        while rest.next_if(|it| *it < index).is_some() {}
        rest.next_if(|it| *it == index).is_some()
    });
    if all_known {
        return None;
    }
    let mut all: Vec<i32> = known.iter().chain(more.iter()).copied().collect();
    all.sort_unstable();
    all.dedup();
    Some(all.into())
}

fn put_float(before: &mut XorFloat, bits: &mut BitWriter, first: bool, value: f64) {
    match first {
        true => {
            *before = XorFloat::of(value);
            bits.put(value.to_bits(), 64);
        }
        false => before.put(bits, value),
    }
}

/// Counts of both sides, one after the other, 0 where a histogram has no bucket of the layout.
fn counts_of<'a>(layout: &'a Layout, histogram: &'a FloatHistogram) -> impl Iterator<Item = f64> {
    let side = |indexes: &'a Arc<[i32]>, buckets: &'a Buckets| {
        let mut own = buckets.iter().peekable();
        indexes.iter().map(move |index| {
            let found = own.next_if(|(own, _)| own == index);
            found.map_or(0.0, |(_, count)| count)
        })
    };
    side(&layout.positive, &histogram.positive).chain(side(&layout.negative, &histogram.negative))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the callers have seen that it is an integer from 0 to 2^53"
)]
fn to_int(value: f64) -> i64 {
    value as i64
}

fn write_layout(layout: &Layout, bits: &mut BitWriter) {
    zero_threshold(bits, layout.zero_threshold);
    bits.varbit_int(layout.schema.into());
    spans(bits, &layout.positive);
    spans(bits, &layout.negative);
    if layout.schema == CUSTOM_SCHEMA {
        bits.varbit_uint(layout.custom.len() as u64);
        for bound in layout.custom.iter() {
            custom_bound(bits, *bound);
        }
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
        return bits.varbit_uint(to_int(whole).cast_unsigned() + 1);
    }
    bits.put(0, 1);
    bits.put(bound.to_bits(), 64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunks::histogram::encode;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_by_one_gives_the_same_bytes_and_so_does_going_on(
            samples in prop::collection::vec(
                (1_i64..100_000, prop::collection::btree_map(-20_i32..20, 0_u32..1000, 0..9)),
                1..60,
            ),
            float_counts in any::<bool>(),
            stop in any::<prop::sample::Index>(),
        ) {
            let (counts, share) = match float_counts {
                true => (Counts::Float, 0.37),
                false => (Counts::Integer, 1.0),
            };
            let mut time_ms = 0;
            let samples: Vec<(i64, Arc<FloatHistogram>)> = samples
                .into_iter()
                .map(|(step, buckets)| {
                    time_ms += step;
                    let (indexes, numbers): (Vec<i32>, Vec<u32>) = buckets.into_iter().unzip();
                    let numbers: Vec<f64> = numbers.iter().map(|it| f64::from(*it) * share).collect();
                    let histogram = FloatHistogram {
                        // Gauges may fall, so all samples are of one chunk.
                        hint: CounterReset::Gauge,
                        schema: 1,
                        // The sum of nothing is -0, which is no integer.
                        count: 0.0 + numbers.iter().sum::<f64>(),
                        sum: time_ms as f64 * 0.3,
                        positive: Buckets::of_layout(indexes.into(), numbers).unwrap(),
                        ..FloatHistogram::default()
                    };
                    (time_ms, Arc::new(histogram))
                })
                .collect();
            let expected = encode(&samples, counts, 120);
            let stop = stop.index(samples.len());
            let mut appender = HistogramAppender::new(&samples[0].1, counts, 0xc0);
            for (at, (time_ms, histogram)) in samples.iter().enumerate() {
                if at > 0 && at == stop {
                    let chunk = appender.to_chunk().unwrap();
                    appender = HistogramAppender::resume(&chunk).unwrap().unwrap().0;
                }
                appender.append(*time_ms, histogram);
                let mut newest = appender.newest().unwrap();
                newest.compact();
                let mut sent = (**histogram).clone();
                sent.compact();
                prop_assert_eq!(newest, sent);
            }
            prop_assert_eq!(appender.into_chunk(), expected.into_iter().next());
        }
    }
}
