//! The samples of a chunk.

use isobar_model::histogram::{CUSTOM_SCHEMA, CounterReset, Layout, PackedHistograms, SCHEMA_MAX};
use isobar_model::sample::is_stale;
use isobar_model::{Columns, FloatHistogram, TimeRange};

use super::bits::{BitReader, XorFloat};
use super::{HEADER_BYTES, corrupt, layout};
use crate::Error;
use crate::chunks::start_times::StartTimes;

/// How counts are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// As integers, encodings 2 and 5.
    Integer,
    /// As floats, encodings 3 and 6.
    Float,
}

/// What a chunk of histograms holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// How counts are encoded.
    pub counts: Counts,
    /// Whether there are start times, encodings 5 and 6.
    pub start_times: bool,
}

/// Appends the samples whose times lie in `range` to the histograms of `columns`, and says whether
/// the times of all strictly rise.
///
/// # Errors
/// [`Error::Corrupt`] when the bytes are no such chunk; `columns` is left as it was.
pub fn decode(
    data: &[u8],
    kind: Kind,
    range: TimeRange,
    columns: &mut Columns,
) -> Result<bool, Error> {
    let mut packed = PackedHistograms::default();
    let mut start_times = Vec::new();
    let mut into = Into {
        packed: &mut packed,
        start_times: Some(&mut start_times),
        stats: None,
    };
    let rising = into.decode(data, kind, range)?;
    if !start_times.is_empty() {
        // What is missing in front stands for unknown ones.
        let before = columns.histograms.len();
        columns.histogram_start_times.resize(before, 0);
        columns.histogram_start_times.append(&mut start_times);
    }
    columns.histograms.extend(packed.iter());
    Ok(rising)
}

/// As [`decode`], without start times, to packed histograms; with `stats` only counts and sums.
///
/// # Errors
/// [`Error::Corrupt`] when the bytes are no such chunk; then `packed` is of no use any more.
pub fn decode_packed(
    data: &[u8],
    kind: Kind,
    range: TimeRange,
    stats: Option<&mut Stats>,
    packed: &mut PackedHistograms,
) -> Result<bool, Error> {
    let mut into = Into {
        packed,
        start_times: None,
        stats,
    };
    into.decode(data, kind, range)
}

/// For histograms that are left only counts and sums: what was before the next chunk. With it the
/// hints can say of each sample whether there was a reset.
#[derive(Debug, Default)]
pub struct Stats {
    /// The last one that was no staleness marker, with its buckets.
    before: Option<FloatHistogram>,
}

/// Where samples go.
struct Into<'a> {
    packed: &'a mut PackedHistograms,
    start_times: Option<&'a mut Vec<i64>>,
    stats: Option<&'a mut Stats>,
}

impl Into<'_> {
    fn decode(&mut self, data: &[u8], kind: Kind, range: TimeRange) -> Result<bool, Error> {
        let Some(([count_high, count_low, third], rest)) = data.split_first_chunk::<HEADER_BYTES>()
        else {
            return Err(corrupt("the header is cut"));
        };
        let (count_high, flags, mut start_times) = match kind.start_times {
            true => (count_high & 0x3f, count_high, StartTimes::new(*third)),
            false => (*count_high, third, None),
        };
        let count = u16::from_be_bytes([count_high, *count_low]);
        if count == 0 {
            return Ok(true);
        }
        let gauge = flags & 0xc0 == 0xc0;
        let mut bits = BitReader::new(rest);
        let mut layout = layout::decode(&mut bits)?;
        if layout.schema == CUSTOM_SCHEMA {
            layout.zero_threshold = 0.0;
        }
        let layout = layout;
        let mut run = OpenRun {
            rest: match gauge {
                true => CounterReset::Gauge,
                false => CounterReset::NotReset,
            },
            has_zero: layout.schema != CUSTOM_SCHEMA,
            layout: &layout,
            begun: false,
            live: None,
        };
        let mut state = State::new(&layout, kind.counts);
        let mut rising = true;
        let mut last = None;
        for number in 0..count {
            match number {
                0 => state.first(&mut bits)?,
                _ => state.next(&mut bits)?,
            }
            let time_ms = state.time_ms;
            if let Some(start_times) = &mut start_times {
                match last {
                    None => start_times.first(time_ms, || bits.varint())?,
                    Some(before_ms) => {
                        start_times.next(number.into(), before_ms, || bits.varbit_int())?;
                    }
                }
            }
            rising &= last.is_none_or(|last| last < time_ms);
            last = Some(time_ms);
            if !range.contains(time_ms) {
                continue;
            }
            if let (Some(into), Some(start_times)) = (&mut self.start_times, &start_times) {
                into.push(start_times.start_ms);
            }
            self.push(&state, &mut run, number == 0)?;
        }
        if let (Some(stats), Some(totals)) = (&mut self.stats, run.live) {
            stats.before = Some(state.histogram(&layout, totals));
        }
        Ok(rising)
    }

    /// Adds the sample that was read last.
    fn push(&mut self, state: &State, run: &mut OpenRun<'_>, first: bool) -> Result<(), Error> {
        let stale = is_stale(state.sum.value);
        let totals = match stale {
            true => [0.0, 0.0, state.sum.value],
            false => state.totals(run.has_zero),
        };
        if !stale && run.live.is_none() {
            let empty = run.layout.histogram([0.0; 3], Vec::new(), Vec::new());
            empty
                .checked()
                .map_err(|error| corrupt(error.to_string()))?;
        }
        if !run.begun {
            run.begun = true;
            // Whether the chunk before this one is the one that was before it when it was written
            // is not known, so nothing is known of the first sample.
            let hint = match run.rest {
                CounterReset::NotReset if first => CounterReset::Unknown,
                rest => rest,
            };
            match &self.stats {
                None => self.packed.begin(run.layout.clone(), hint, run.rest),
                Some(stats) => {
                    let layout = Layout {
                        schema: run.layout.schema.min(SCHEMA_MAX),
                        ..Layout::default()
                    };
                    let hint = match &stats.before {
                        Some(before) if hint == CounterReset::Unknown && !stale => {
                            match state.histogram(run.layout, totals).detect_reset(before) {
                                true => CounterReset::Reset,
                                false => CounterReset::NotReset,
                            }
                        }
                        _ => hint,
                    };
                    self.packed.begin(layout, hint, run.rest);
                }
            }
        }
        if !stale {
            run.live = Some(totals);
        }
        if self.stats.is_some() {
            let totals = [totals[0], 0.0, totals[2]];
            let none = std::iter::empty;
            self.packed.push(state.time_ms, totals, none(), none());
            return Ok(());
        }
        let middle = run.layout.positive.len();
        match &state.numbers {
            Numbers::Integer { buckets, .. } => {
                let (positive, negative) = buckets.split_at_checked(middle).unwrap_or_default();
                let (positive, negative) = (running(positive), running(negative));
                self.packed.push(state.time_ms, totals, positive, negative);
            }
            Numbers::Float { buckets, .. } => {
                // Both sides one after the other, as they lie in a row.
                let counts = buckets.iter().map(|it| it.value);
                self.packed
                    .push(state.time_ms, totals, counts, std::iter::empty());
            }
        }
        Ok(())
    }
}

/// What is told of the samples of a chunk that lie in the range.
struct OpenRun<'a> {
    layout: &'a Layout,
    /// The hint of all but the first sample.
    rest: CounterReset,
    has_zero: bool,
    begun: bool,
    /// Count, zero count and sum of the last sample that was no staleness marker.
    live: Option<[f64; 3]>,
}

/// The last sample read.
struct State {
    time_ms: i64,
    sum: XorFloat,
    numbers: Numbers,
}

/// Count, zero count, and the buckets of both sides one after the other; with the distances, by
/// which they changed last, apart.
enum Numbers {
    Integer {
        totals: [i64; 2],
        /// Of the time, the count and the zero count.
        total_deltas: [i64; 3],
        buckets: Vec<i64>,
        deltas: Vec<i64>,
    },
    Float {
        time_delta: i64,
        totals: [XorFloat; 2],
        buckets: Vec<XorFloat>,
    },
}

impl State {
    fn new(layout: &Layout, counts: Counts) -> Self {
        let buckets = layout.positive.len() + layout.negative.len();
        State {
            time_ms: 0,
            sum: XorFloat::default(),
            numbers: match counts {
                Counts::Integer => Numbers::Integer {
                    totals: [0; 2],
                    total_deltas: [0; 3],
                    buckets: vec![0; buckets],
                    deltas: vec![0; buckets],
                },
                Counts::Float => Numbers::Float {
                    time_delta: 0,
                    totals: [XorFloat::default(); 2],
                    buckets: vec![XorFloat::default(); buckets],
                },
            },
        }
    }

    fn first(&mut self, bits: &mut BitReader<'_>) -> Result<(), Error> {
        self.time_ms = bits.varbit_int()?;
        match &mut self.numbers {
            Numbers::Integer {
                totals, buckets, ..
            } => {
                for total in totals {
                    *total = bits.varbit_uint()?.cast_signed();
                }
                self.sum = XorFloat::of(bits.float()?);
                for bucket in buckets {
                    *bucket = bits.varbit_int()?;
                }
            }
            Numbers::Float {
                totals, buckets, ..
            } => {
                for total in totals {
                    *total = XorFloat::of(bits.float()?);
                }
                self.sum = XorFloat::of(bits.float()?);
                for bucket in buckets {
                    *bucket = XorFloat::of(bits.float()?);
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn next(&mut self, bits: &mut BitReader<'_>) -> Result<(), Error> {
        match &mut self.numbers {
            Numbers::Integer {
                totals,
                total_deltas,
                buckets,
                deltas,
            } => {
                bits.add_to_each(total_deltas)?;
                let [time, count, zero_count] = *total_deltas;
                self.time_ms = self.time_ms.wrapping_add(time);
                totals[0] = totals[0].wrapping_add(count);
                totals[1] = totals[1].wrapping_add(zero_count);
                self.sum.read(bits)?;
                if is_stale(self.sum.value) {
                    return Ok(());
                }
                bits.add_to_each(deltas)?;
                for (bucket, delta) in buckets.iter_mut().zip(&*deltas) {
                    *bucket = bucket.wrapping_add(*delta);
                }
                Ok(())
            }
            Numbers::Float {
                time_delta,
                totals,
                buckets,
            } => {
                *time_delta = time_delta.wrapping_add(bits.varbit_int()?);
                self.time_ms = self.time_ms.wrapping_add(*time_delta);
                totals.iter_mut().try_for_each(|it| it.read(bits))?;
                self.sum.read(bits)?;
                if is_stale(self.sum.value) {
                    return Ok(());
                }
                buckets.iter_mut().try_for_each(|it| it.read(bits))
            }
        }
    }

    /// Count, zero count and sum.
    fn totals(&self, has_zero: bool) -> [f64; 3] {
        let [count, zero_count] = match &self.numbers {
            Numbers::Integer { totals, .. } => totals.map(|it| it.cast_unsigned() as f64),
            Numbers::Float { totals, .. } => totals.map(|it| it.value),
        };
        let zero_count = if has_zero { zero_count } else { 0.0 };
        [count, zero_count, self.sum.value]
    }

    /// The last sample that was no staleness marker, when `totals` are its.
    fn histogram(&self, layout: &Layout, totals: [f64; 3]) -> FloatHistogram {
        let middle = layout.positive.len();
        let (positive, negative) = match &self.numbers {
            Numbers::Integer { buckets, .. } => {
                let (positive, negative) = buckets.split_at_checked(middle).unwrap_or_default();
                (running(positive).collect(), running(negative).collect())
            }
            Numbers::Float { buckets, .. } => {
                let mut counts = buckets.iter().map(|it| it.value);
                (counts.by_ref().take(middle).collect(), counts.collect())
            }
        };
        let mut histogram = layout.histogram(totals, positive, negative);
        histogram.reduce_to(SCHEMA_MAX);
        histogram
    }
}

/// Counts of which each is given by its distance to the one before.
fn running(buckets: &[i64]) -> impl Iterator<Item = f64> + '_ {
    let mut count = 0_i64;
    buckets.iter().map(move |distance| {
        count = count.wrapping_add(*distance);
        count as f64
    })
}
