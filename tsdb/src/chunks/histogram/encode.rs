//! Writing chunks: histograms of one series as chunks that Prometheus would have written.
//!
//! Samples of a chunk share a layout. Since all samples are there, it is that with all their
//! buckets, and nothing is written twice. Another schema, zero threshold or set of bounds, a change
//! between counter and gauge, a reset and what follows a staleness marker begin a new chunk, as
//! with Prometheus.

use std::collections::BTreeSet;
use std::sync::Arc;

use isobar_model::FloatHistogram;
use isobar_model::histogram::{Buckets, CounterReset, Layout};

use super::Counts;
use super::append::HistogramAppender;
use crate::chunks::Chunk;

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
pub(crate) fn goes_on(before: &FloatHistogram, next: &FloatHistogram) -> bool {
    if before.is_stale() {
        return next.is_stale();
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
pub(crate) fn header(before: Option<&FloatHistogram>, first: &FloatHistogram) -> u8 {
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

/// The layout of a chunk, with the buckets of all its samples.
fn layout_of(run: &[Sample]) -> Layout {
    let live = || run.iter().map(|(_, it)| it).filter(|it| !it.is_stale());
    let side = |side: fn(&FloatHistogram) -> &Buckets| -> Arc<[i32]> {
        let first = live().next().map(|it| side(it).indexes());
        // Mostly all have the same.
        if let Some(first) = first
            && live().all(|it| side(it).indexes() == first)
        {
            return Arc::clone(first);
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
        positive: side(|it| &it.positive),
        negative: side(|it| &it.negative),
        custom: first.map_or_else(|| [].into(), |it| Arc::clone(&it.custom)),
    }
}

fn is_integer(value: f64) -> bool {
    // A negative zero is none: its sign would be lost.
    value.is_sign_positive() && value < INTEGER_MAX && value.fract() == 0.0
}

/// Whether all counts of a histogram can be encoded as integers.
pub(crate) fn is_integral(histogram: &FloatHistogram) -> bool {
    let sides = [histogram.positive.counts(), histogram.negative.counts()];
    let totals = [histogram.count, histogram.zero_count];
    let mut all = totals.iter().chain(sides.into_iter().flatten());
    histogram.is_stale() || all.all(|count| is_integer(*count))
}

/// The chunk of a run; `None` when that is empty.
fn chunk(run: &[Sample], counts: Counts, header: u8) -> Option<Chunk> {
    let integers = counts == Counts::Integer && run.iter().all(|(_, it)| is_integral(it));
    let counts = match integers {
        true => Counts::Integer,
        false => Counts::Float,
    };
    let mut appender = HistogramAppender::with_layout(layout_of(run), counts, header);
    for (time_ms, histogram) in run {
        appender.append(*time_ms, histogram);
    }
    appender.into_chunk()
}

#[cfg(test)]
mod tests {
    use super::super::bits::BitReader;
    use super::super::write::BitWriter;
    use super::*;
    use crate::chunks::Encoding;
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
