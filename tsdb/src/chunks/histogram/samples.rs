//! The samples of a chunk.

use std::sync::Arc;

use isobar_model::histogram::{Buckets, CounterReset};
use isobar_model::sample::is_stale;
use isobar_model::{Columns, FloatHistogram, TimeRange};

use super::bits::{BitReader, XorFloat};
use super::layout::Layout;
use super::{HEADER_BYTES, corrupt};
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
    let start = columns.histograms.len();
    let starts = columns.histogram_start_times.len();
    let result = decode_all(data, kind, range, columns);
    if result.is_err() {
        columns.histograms.truncate(start);
        columns.histogram_start_times.truncate(starts);
    }
    result
}

fn decode_all(
    data: &[u8],
    kind: Kind,
    range: TimeRange,
    columns: &mut Columns,
) -> Result<bool, Error> {
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
    if start_times.is_some() {
        let before = columns.histograms.len();
        columns.histogram_start_times.resize(before, 0);
    }
    let gauge = flags & 0xc0 == 0xc0;
    let mut bits = BitReader::new(rest);
    let layout = Layout::decode(&mut bits)?;
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
        // Whether the chunk before this one is the one that was before it when it was written
        // is not known, so nothing is known of the first sample.
        let hint = match (gauge, number) {
            (true, _) => CounterReset::Gauge,
            (false, 0) => CounterReset::Unknown,
            (false, _) => CounterReset::NotReset,
        };
        let histogram = Arc::new(state.histogram(&layout, hint)?);
        columns.histograms.push((time_ms, histogram));
        if let Some(start_times) = &start_times {
            columns.histogram_start_times.push(start_times.start_ms);
        }
    }
    Ok(rising)
}

/// The last sample read.
struct State {
    time_ms: i64,
    time_delta: i64,
    sum: XorFloat,
    numbers: Numbers,
}

/// Count, zero count, and the buckets of both sides one after the other.
enum Numbers {
    Integer {
        totals: [Delta; 2],
        buckets: Vec<Delta>,
    },
    Float {
        totals: [XorFloat; 2],
        buckets: Vec<XorFloat>,
    },
}

/// An integer and how it last changed.
#[derive(Debug, Clone, Copy, Default)]
struct Delta {
    value: i64,
    delta: i64,
}

impl Delta {
    fn read(&mut self, bits: &mut BitReader<'_>) -> Result<(), Error> {
        self.delta = self.delta.wrapping_add(bits.varbit_int()?);
        self.value = self.value.wrapping_add(self.delta);
        Ok(())
    }
}

impl State {
    fn new(layout: &Layout, counts: Counts) -> Self {
        let buckets = layout.positive.len() + layout.negative.len();
        State {
            time_ms: 0,
            time_delta: 0,
            sum: XorFloat::default(),
            numbers: match counts {
                Counts::Integer => Numbers::Integer {
                    totals: [Delta::default(); 2],
                    buckets: vec![Delta::default(); buckets],
                },
                Counts::Float => Numbers::Float {
                    totals: [XorFloat::default(); 2],
                    buckets: vec![XorFloat::default(); buckets],
                },
            },
        }
    }

    fn first(&mut self, bits: &mut BitReader<'_>) -> Result<(), Error> {
        self.time_ms = bits.varbit_int()?;
        match &mut self.numbers {
            Numbers::Integer { totals, buckets } => {
                for total in totals {
                    total.value = bits.varbit_uint()?.cast_signed();
                }
                self.sum = XorFloat::of(bits.float()?);
                for bucket in buckets {
                    bucket.value = bits.varbit_int()?;
                }
            }
            Numbers::Float { totals, buckets } => {
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

    fn next(&mut self, bits: &mut BitReader<'_>) -> Result<(), Error> {
        self.time_delta = self.time_delta.wrapping_add(bits.varbit_int()?);
        self.time_ms = self.time_ms.wrapping_add(self.time_delta);
        match &mut self.numbers {
            Numbers::Integer { totals, buckets } => {
                totals.iter_mut().try_for_each(|it| it.read(bits))?;
                self.sum.read(bits)?;
                if is_stale(self.sum.value) {
                    return Ok(());
                }
                buckets.iter_mut().try_for_each(|it| it.read(bits))
            }
            Numbers::Float { totals, buckets } => {
                totals.iter_mut().try_for_each(|it| it.read(bits))?;
                self.sum.read(bits)?;
                if is_stale(self.sum.value) {
                    return Ok(());
                }
                buckets.iter_mut().try_for_each(|it| it.read(bits))
            }
        }
    }

    fn histogram(&self, layout: &Layout, hint: CounterReset) -> Result<FloatHistogram, Error> {
        if is_stale(self.sum.value) {
            return Ok(FloatHistogram::stale());
        }
        let middle = layout.positive.len();
        let (count, zero_count, positive, negative) = match &self.numbers {
            Numbers::Integer {
                totals: [count, zero],
                buckets,
            } => {
                let (positive, negative) = buckets.split_at(middle);
                let total = |it: &Delta| it.value.cast_unsigned() as f64;
                (
                    total(count),
                    total(zero),
                    running(positive),
                    running(negative),
                )
            }
            Numbers::Float {
                totals: [count, zero],
                buckets,
            } => {
                let (positive, negative) = buckets.split_at(middle);
                let side = |it: &[XorFloat]| it.iter().map(|it| it.value).collect();
                (count.value, zero.value, side(positive), side(negative))
            }
        };
        let side = |indexes: &Arc<[i32]>, counts| {
            Buckets::of_layout(Arc::clone(indexes), counts)
                .ok_or_else(|| corrupt("not one count for each bucket"))
        };
        let histogram = FloatHistogram {
            hint,
            schema: layout.schema,
            zero_threshold: layout.zero_threshold,
            zero_count,
            count,
            sum: self.sum.value,
            positive: side(&layout.positive, positive)?,
            negative: side(&layout.negative, negative)?,
            custom: Arc::clone(&layout.custom),
        };
        histogram
            .checked()
            .map_err(|error| corrupt(error.to_string()))
    }
}

/// Counts of which each is given by its distance to the one before.
fn running(buckets: &[Delta]) -> Vec<f64> {
    let counts = buckets.iter().scan(0_i64, |count, it| {
        *count = count.wrapping_add(it.value);
        Some(*count as f64)
    });
    counts.collect()
}
