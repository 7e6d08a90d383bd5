//! The payload of a record of native histograms.
//!
//! ```text
//! Histograms  to the end: id - last id <varint>, time - last time <varint>, flags <1b>,
//!             and unless it is a staleness marker:
//!             schema <varint>, zero threshold <8b>, [bounds], sum <8b>, count, zero count,
//!             positive buckets, negative buckets
//!             flags   = hint | float counts << 2 | staleness marker << 3 | own bounds << 4
//!             bounds  = number <uvarint>, <8b>…
//!             buckets = runs <uvarint>, (gap <varint>, length <uvarint>)…, counts
//!             count   = 8 bytes where counts are floats, else <varint>, in buckets the distance to
//!                       the one before
//! ```
//!
//! A sample's own numbers are all there: a lost record changes no value but its own.

use std::sync::Arc;

use isobar_model::FloatHistogram;
use isobar_model::histogram::{Buckets, CUSTOM_SCHEMA, CounterReset, Span};

use crate::chunks::histogram::{Counts, is_integral};
use crate::encoding::{DecodeError, Decoder, put_uvarint, put_varint};

const FLOAT_COUNTS: u8 = 1 << 2;
const STALE: u8 = 1 << 3;
const OWN_BOUNDS: u8 = 1 << 4;

/// Assembles the payload of a histograms record.
#[derive(Debug, Default)]
pub(crate) struct HistogramsEncoder {
    bytes: Vec<u8>,
    last_id: u32,
    last_ms: i64,
}

impl HistogramsEncoder {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        (self.last_id, self.last_ms) = (0, 0);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn put(
        &mut self,
        id: u32,
        timestamp_ms: i64,
        histogram: &FloatHistogram,
        counts: Counts,
    ) {
        let out = &mut self.bytes;
        put_varint(out, i64::from(id) - i64::from(self.last_id));
        put_varint(out, timestamp_ms.wrapping_sub(self.last_ms));
        (self.last_id, self.last_ms) = (id, timestamp_ms);
        let floats = counts == Counts::Float || !is_integral(histogram);
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        out.push(
            histogram.hint as u8
                | flag(floats, FLOAT_COUNTS)
                | flag(histogram.is_stale(), STALE)
                | flag(histogram.is_custom(), OWN_BOUNDS),
        );
        if histogram.is_stale() {
            return;
        }
        put_varint(out, i64::from(histogram.schema));
        put_float(out, histogram.zero_threshold);
        if histogram.is_custom() {
            put_uvarint(out, histogram.custom.len() as u64);
            histogram
                .custom
                .iter()
                .for_each(|bound| put_float(out, *bound));
        }
        put_float(out, histogram.sum);
        for total in [histogram.count, histogram.zero_count] {
            match floats {
                true => put_float(out, total),
                false => put_varint(out, total as i64),
            }
        }
        for side in [&histogram.positive, &histogram.negative] {
            put_buckets(out, side, floats);
        }
    }
}

fn put_float(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn put_buckets(out: &mut Vec<u8>, buckets: &Buckets, floats: bool) {
    let follows = |a: &i32, b: &i32| a.checked_add(1) == Some(*b);
    let runs = || buckets.indexes().chunk_by(follows);
    put_uvarint(out, runs().count() as u64);
    let mut end = 0_i64;
    for run in runs() {
        let first = run.first().map_or(0, |index| i64::from(*index));
        put_varint(out, first - end);
        put_uvarint(out, run.len() as u64);
        end = first + run.len() as i64;
    }
    let mut before = 0_i64;
    for count in buckets.counts() {
        match floats {
            true => put_float(out, *count),
            false => {
                let count = *count as i64;
                put_varint(out, count - before);
                before = count;
            }
        }
    }
}

/// Reads a histograms record: `each` gets id, time in unix milliseconds, the histogram and how its
/// counts are encoded. The histograms have passed [`FloatHistogram::checked`].
///
/// # Errors
/// When the payload does not follow its format; what came before the error was given to `each`.
pub fn read_histograms(
    payload: &[u8],
    mut each: impl FnMut(u32, i64, Arc<FloatHistogram>, Counts),
) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(payload);
    let (mut id, mut timestamp_ms) = (0_i64, 0_i64);
    while !decoder.is_empty() {
        let step = decoder.varint()?;
        id = id.checked_add(step).ok_or(DecodeError::NumberTooLarge)?;
        timestamp_ms = timestamp_ms.wrapping_add(decoder.varint()?);
        let flags = decoder.u8()?;
        let counts = match flags & FLOAT_COUNTS != 0 {
            true => Counts::Float,
            false => Counts::Integer,
        };
        let histogram = read_histogram(&mut decoder, flags, counts)?;
        let id = u32::try_from(id).map_err(|_| DecodeError::NumberTooLarge)?;
        each(id, timestamp_ms, Arc::new(histogram), counts);
    }
    Ok(())
}

fn read_histogram(
    decoder: &mut Decoder<'_>,
    flags: u8,
    counts: Counts,
) -> Result<FloatHistogram, DecodeError> {
    if flags & STALE != 0 {
        return Ok(FloatHistogram::stale());
    }
    let schema = i32::try_from(decoder.varint()?).map_err(|_| DecodeError::NumberTooLarge)?;
    let zero_threshold = float(decoder)?;
    if (flags & OWN_BOUNDS != 0) != (schema == CUSTOM_SCHEMA) {
        return Err(DecodeError::NumberTooLarge);
    }
    let custom: Arc<[f64]> = match schema {
        CUSTOM_SCHEMA => {
            let bounds = floats(decoder)?;
            bounds.into()
        }
        _ => [].into(),
    };
    let sum = float(decoder)?;
    let mut total = || match counts {
        Counts::Float => float(decoder),
        Counts::Integer => decoder.varint().map(|count| count as f64),
    };
    let (count, zero_count) = (total()?, total()?);
    let positive = buckets(decoder, counts)?;
    let negative = buckets(decoder, counts)?;
    let histogram = FloatHistogram {
        hint: match flags & 3 {
            0 => CounterReset::Unknown,
            1 => CounterReset::Reset,
            2 => CounterReset::NotReset,
            _ => CounterReset::Gauge,
        },
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive,
        negative,
        custom,
    };
    // The checksum was right, so this is none of ours.
    histogram.checked().map_err(|_| DecodeError::NumberTooLarge)
}

fn float(decoder: &mut Decoder<'_>) -> Result<f64, DecodeError> {
    let bytes = decoder.bytes(8)?;
    let bits = bytes.try_into().map_err(|_| DecodeError::Truncated)?;
    Ok(f64::from_bits(u64::from_le_bytes(bits)))
}

fn floats(decoder: &mut Decoder<'_>) -> Result<Vec<f64>, DecodeError> {
    let count = decoder.uvarint_len()?;
    let mut floats = Vec::with_capacity(count.min(decoder.len() / 8));
    for _ in 0..count {
        floats.push(float(decoder)?);
    }
    Ok(floats)
}

fn buckets(decoder: &mut Decoder<'_>, counts: Counts) -> Result<Buckets, DecodeError> {
    let runs = decoder.uvarint_len()?;
    let mut spans = Vec::with_capacity(runs.min(decoder.len()));
    let mut total = 0_usize;
    for _ in 0..runs {
        let gap = decoder.varint()?;
        let offset = i32::try_from(gap).map_err(|_| DecodeError::NumberTooLarge)?;
        let length = decoder.uvarint32()?;
        total = total.saturating_add(length as usize);
        spans.push(Span { offset, length });
    }
    // Each count takes a byte at least.
    if total > decoder.len() {
        return Err(DecodeError::Truncated);
    }
    let mut numbers = Vec::with_capacity(total);
    let mut before = 0_i64;
    for _ in 0..total {
        numbers.push(match counts {
            Counts::Float => float(decoder)?,
            Counts::Integer => {
                before = before.wrapping_add(decoder.varint()?);
                before as f64
            }
        });
    }
    Buckets::from_spans(spans, numbers).map_err(|_| DecodeError::NumberTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn side() -> impl Strategy<Value = Vec<(i32, u32)>> {
        prop::collection::vec((1_i32..5, 0_u32..2_000_000), 0..8)
    }

    fn buckets_of(side: &[(i32, u32)], share: f64) -> Buckets {
        let mut index = -7;
        let (indexes, counts): (Vec<_>, Vec<_>) = side
            .iter()
            .map(|(gap, count)| {
                index += gap;
                (index, f64::from(*count) * share)
            })
            .unzip();
        Buckets::of_layout(indexes.into(), counts).unwrap()
    }

    proptest! {
        #[test]
        fn histograms_come_back(
            samples in prop::collection::vec(
                (any::<u32>(), any::<i64>(), 0_u8..4, 0_u8..3, side(), side(), any::<f64>()),
                1..6,
            )
        ) {
            let mut encoder = HistogramsEncoder::default();
            let mut written = Vec::new();
            for (id, time_ms, hint, kind, positive, negative, sum) in samples {
                let (custom, share) = (kind == 1, if kind == 2 { 0.3 } else { 1.0 });
                let positive = match custom {
                    true => Buckets::of_layout([0, 2].into(), vec![1.0, 5.0]).unwrap(),
                    false => buckets_of(&positive, share),
                };
                let histogram = FloatHistogram {
                    hint: [
                        CounterReset::Unknown,
                        CounterReset::Reset,
                        CounterReset::NotReset,
                        CounterReset::Gauge,
                    ][usize::from(hint)],
                    schema: if custom { CUSTOM_SCHEMA } else { 3 },
                    zero_threshold: if custom { 0.0 } else { 1e-9 },
                    zero_count: if custom { 0.0 } else { 4.0 * share },
                    count: 17.0 * share,
                    sum,
                    positive,
                    negative: if custom { Buckets::default() } else { buckets_of(&negative, share) },
                    custom: if custom { [0.5, 1.0].into() } else { [].into() },
                };
                let counts = if kind == 2 { Counts::Float } else { Counts::Integer };
                encoder.put(id, time_ms, &histogram, counts);
                written.push((id, time_ms, Arc::new(histogram), hint, counts));
            }
            encoder.put(3, 4, &FloatHistogram::stale(), Counts::Float);
            written.push((3, 4, Arc::new(FloatHistogram::stale()), 0, Counts::Float));
            let mut read = Vec::new();
            read_histograms(encoder.as_bytes(), |id, time_ms, histogram, counts| {
                let hint = histogram.hint as u8;
                read.push((id, time_ms, histogram, hint, counts));
            }).unwrap();
            prop_assert_eq!(&read, &written);
            for cut in 1..encoder.as_bytes().len() {
                let mut count = 0;
                let _cut = read_histograms(&encoder.as_bytes()[..cut], |_, _, _, _| count += 1);
                prop_assert!(count < written.len());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any = read_histograms(&bytes, |_, _, _, _| {});
        }
    }
}
