//! Native histograms of remote write.
//!
//! ```text
//! Histogram   1 uint64 count | 2 double count   3 double sum   4 sint32 schema
//!             5 double zero threshold   6 uint64 zero count | 7 double zero count
//!             8 negative spans   9 sint64 negative deltas   10 double negative counts
//!             11 positive spans  12 sint64 positive deltas  13 double positive counts
//!             14 reset hint   15 int64 timestamp (unix ms)   16 double custom bounds
//! BucketSpan  1 sint32 offset   2 uint32 length
//! ```
//!
//! Checks and their texts are Prometheus' (`model/histogram`, `Validate`); schemas finer than 8 are
//! made coarser, as its remote write receiver does.

use isobar_model::FloatHistogram;
use isobar_model::histogram::{
    Buckets, CUSTOM_SCHEMA, CounterReset, SCHEMA_MAX, SCHEMA_MIN, SCHEMA_RESERVED_MAX, Span,
};

use crate::wire::{Reader, Value, WireError};

/// A histogram sample of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSample {
    /// Unix time in milliseconds.
    pub timestamp_ms: i64,
    /// Whether counts were sent as floats.
    pub float_counts: bool,
    /// The histogram, or what is wrong with it in Prometheus' words.
    pub histogram: Result<FloatHistogram, String>,
}

/// The fields of a histogram as they were sent.
#[derive(Debug, Default)]
struct Fields {
    count: Count,
    zero_count: Count,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    positive: Side,
    negative: Side,
    reset_hint: u64,
    timestamp_ms: i64,
    custom: Vec<f64>,
}

#[derive(Debug, Clone, Copy)]
enum Count {
    Integer(u64),
    Float(f64),
}

impl Default for Count {
    fn default() -> Self {
        Count::Integer(0)
    }
}

impl Count {
    fn integer(self) -> u64 {
        match self {
            Count::Integer(count) => count,
            Count::Float(_) => 0,
        }
    }

    fn float(self) -> f64 {
        match self {
            Count::Integer(_) => 0.0,
            Count::Float(count) => count,
        }
    }
}

#[derive(Debug, Default)]
struct Side {
    spans: Vec<Span>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// Whether the bytes are a histogram message, without keeping anything of it.
pub(super) fn walk(message: &[u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field()? {
        match field {
            1 | 4 | 6 | 14 | 15 => drop(value.varint(field)?),
            2 | 3 | 5 | 7 => drop(value.double(field)?),
            8 | 11 => drop(span(value.bytes(field)?)?),
            9 | 12 => each_varint(field, value, |_| ())?,
            10 | 13 | 16 => each_double(field, value, |_| ())?,
            _ => {}
        }
    }
    Ok(())
}

/// Decodes a histogram and checks it.
pub(super) fn decode(message: &[u8]) -> Result<HistogramSample, WireError> {
    let mut fields = Fields::default();
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => fields.count = Count::Integer(value.varint(1)?),
            2 => fields.count = Count::Float(value.double(2)?),
            3 => fields.sum = value.double(3)?,
            4 => fields.schema = low32(zigzag(value.varint(4)?)),
            5 => fields.zero_threshold = value.double(5)?,
            6 => fields.zero_count = Count::Integer(value.varint(6)?),
            7 => fields.zero_count = Count::Float(value.double(7)?),
            8 => fields.negative.spans.push(span(value.bytes(8)?)?),
            9 => each_varint(9, value, |it| fields.negative.deltas.push(zigzag(it)))?,
            10 => each_double(10, value, |it| fields.negative.counts.push(it))?,
            11 => fields.positive.spans.push(span(value.bytes(11)?)?),
            12 => each_varint(12, value, |it| fields.positive.deltas.push(zigzag(it)))?,
            13 => each_double(13, value, |it| fields.positive.counts.push(it))?,
            14 => fields.reset_hint = value.varint(14)?,
            15 => fields.timestamp_ms = value.varint(15)?.cast_signed(),
            16 => each_double(16, value, |it| fields.custom.push(it))?,
            _ => {}
        }
    }
    let float_counts = matches!(fields.count, Count::Float(_));
    Ok(HistogramSample {
        timestamp_ms: fields.timestamp_ms,
        float_counts,
        histogram: match float_counts {
            true => fields.float_histogram(),
            false => fields.integer_histogram(),
        },
    })
}

fn span(message: &[u8]) -> Result<Span, WireError> {
    let mut span = Span {
        offset: 0,
        length: 0,
    };
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => span.offset = low32(zigzag(value.varint(1)?)),
            2 => span.length = low32(value.varint(2)?.cast_signed()).cast_unsigned(),
            _ => {}
        }
    }
    Ok(span)
}

/// Protobuf's 32-bit numbers are the low bits of what stands in the message.
#[expect(
    clippy::cast_possible_truncation,
    reason = "protobuf cuts them off too"
)]
fn low32(number: i64) -> i32 {
    number as i32
}

fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// The numbers of a repeated field, packed or one by one.
fn each_varint(field: u32, value: Value<'_>, mut each: impl FnMut(u64)) -> Result<(), WireError> {
    match value {
        Value::Varint(number) => each(number),
        _ => {
            let mut reader = Reader::new(value.bytes(field)?);
            while !reader.left().is_empty() {
                each(reader.varint()?);
            }
        }
    }
    Ok(())
}

fn each_double(field: u32, value: Value<'_>, mut each: impl FnMut(f64)) -> Result<(), WireError> {
    match value {
        Value::Fixed64(bits) => each(f64::from_bits(bits)),
        _ => {
            let (all, rest) = value.bytes(field)?.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(WireError::Truncated(rest.len()));
            }
            all.iter()
                .for_each(|bytes| each(f64::from_bits(u64::from_le_bytes(*bytes))));
        }
    }
    Ok(())
}

const NEGATIVE_BUCKET: &str = "histogram has a bucket whose observation count is negative";

impl Fields {
    fn integer_histogram(self) -> Result<FloatHistogram, String> {
        let (positive, negative) = (&self.positive, &self.negative);
        let zero_count = self.zero_count.integer();
        self.check_layout(
            positive.deltas.len(),
            negative.deltas.len(),
            zero_count != 0,
        )?;
        let (negative_counts, negative_sum) = of_deltas(&negative.deltas, "negative")?;
        let (positive_counts, positive_sum) = of_deltas(&positive.deltas, "positive")?;
        let count = self.count.integer();
        let found = negative_sum
            .wrapping_add(positive_sum)
            .wrapping_add(zero_count);
        let told = format!("{found} observations found in buckets, but the Count field is {count}");
        if self.sum.is_nan() && found > count {
            return Err(format!(
                "{told}: histogram's observation count should be at least the number of \
                 observations found in the buckets"
            ));
        }
        if !self.sum.is_nan() && found != count {
            return Err(format!(
                "{told}: histogram's observation count should equal the number of observations \
                 found in the buckets (in absence of NaN)"
            ));
        }
        let totals = [count, zero_count].map(|it| it as f64);
        self.histogram(totals, positive_counts, negative_counts)
    }

    fn float_histogram(mut self) -> Result<FloatHistogram, String> {
        let (positive, negative) = (&self.positive, &self.negative);
        let (count, zero_count) = (self.count.float(), self.zero_count.float());
        self.check_layout(
            positive.counts.len(),
            negative.counts.len(),
            zero_count != 0.0,
        )?;
        let check = |counts: &[f64], side: &str| {
            let bad = counts.iter().zip(1..).find(|(count, _)| **count < 0.0);
            bad.map_or(Ok(()), |(count, number)| {
                Err(format!(
                    "{side} side: bucket number {number} has observation count of {count}: \
                     {NEGATIVE_BUCKET}"
                ))
            })
        };
        check(&negative.counts, "negative")?;
        if zero_count < 0.0 {
            return Err(format!(
                "zero bucket has observation count of {zero_count}: {NEGATIVE_BUCKET}"
            ));
        }
        if count < 0.0 {
            return Err(format!(
                "observation count is  {count}: histogram's observation count is negative"
            ));
        }
        check(&positive.counts, "positive")?;
        let positive_counts = std::mem::take(&mut self.positive.counts);
        let negative_counts = std::mem::take(&mut self.negative.counts);
        self.histogram([count, zero_count], positive_counts, negative_counts)
    }

    /// What does not depend on counts being integers or floats.
    fn check_layout(
        &self,
        positive_buckets: usize,
        negative_buckets: usize,
        any_zero: bool,
    ) -> Result<(), String> {
        if self.schema == CUSTOM_SCHEMA {
            self.check_custom(positive_buckets)
                .map_err(|why| format!("custom buckets: {why}"))?;
            let refusals = [
                (any_zero, "must have zero count of 0"),
                (self.zero_threshold != 0.0, "must have zero threshold of 0"),
                (
                    !self.negative.spans.is_empty(),
                    "must not have negative spans",
                ),
                (negative_buckets > 0, "must not have negative buckets"),
            ];
            let bad = refusals.iter().find(|(is, _)| *is);
            return bad.map_or(Ok(()), |(_, why)| Err(format!("custom buckets: {why}")));
        }
        if !(SCHEMA_MIN..=SCHEMA_RESERVED_MAX).contains(&self.schema) {
            return Err(format!(
                "histogram has an invalid schema, which must be between {SCHEMA_MIN} and \
                 {SCHEMA_MAX} for exponential buckets, or {CUSTOM_SCHEMA} for custom buckets, got \
                 schema {}",
                self.schema
            ));
        }
        check_spans(&self.positive.spans, positive_buckets, 1)
            .map_err(|why| format!("positive side: {why}"))?;
        check_spans(&self.negative.spans, negative_buckets, 1)
            .map_err(|why| format!("negative side: {why}"))?;
        if !self.custom.is_empty() {
            return Err("histogram with exponential schema must not have custom bounds".into());
        }
        Ok(())
    }

    fn check_custom(&self, buckets: usize) -> Result<(), String> {
        if self.custom.iter().any(|bound| bound.is_nan()) {
            return Err("histogram custom bounds must not be NaN".into());
        }
        let falling = self.custom.array_windows().find(|[a, b]| b <= a);
        if let Some([before, bound]) = falling {
            return Err(format!(
                "previous bound is {before:.6} and current is {bound:.6}: histogram custom bounds \
                 must be in strictly increasing order"
            ));
        }
        if self.custom.last() == Some(&f64::INFINITY) {
            return Err(
                "last +Inf bound must not be explicitly defined: histogram custom bounds must be \
                 finite"
                    .into(),
            );
        }
        check_spans(&self.positive.spans, buckets, 0)?;
        let reach = |span: &Span| i64::from(span.length) + i64::from(span.offset);
        let length: i64 = self.positive.spans.iter().map(reach).sum();
        let bounds = self.custom.len();
        if i64::try_from(bounds).is_ok_and(|bounds| bounds + 1 < length) {
            return Err(format!(
                "only {bounds} custom bounds defined which is insufficient to cover total span \
                 length of {length}: histogram custom bounds are too few"
            ));
        }
        Ok(())
    }

    fn histogram(
        self,
        [count, zero_count]: [f64; 2],
        positive: Vec<f64>,
        negative: Vec<f64>,
    ) -> Result<FloatHistogram, String> {
        if isobar_model::sample::is_stale(self.sum) {
            return Ok(FloatHistogram::stale());
        }
        let side = |side: Side, counts| {
            Buckets::from_spans(side.spans, counts).map_err(|error| error.to_string())
        };
        let histogram = FloatHistogram {
            hint: match self.reset_hint {
                1 => CounterReset::Reset,
                2 => CounterReset::NotReset,
                3 => CounterReset::Gauge,
                _ => CounterReset::Unknown,
            },
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count,
            count,
            sum: self.sum,
            positive: side(self.positive, positive)?,
            negative: side(self.negative, negative)?,
            custom: self.custom.into(),
        };
        histogram.checked().map_err(|error| error.to_string())
    }
}

/// Spans from the one with index `steps_from` on must not step back.
fn check_spans(spans: &[Span], buckets: usize, steps_from: usize) -> Result<(), String> {
    let mut steps = spans.iter().enumerate().skip(steps_from);
    if let Some((at, span)) = steps.find(|(_, span)| span.offset < 0) {
        return Err(format!(
            "span number {} with offset {}: histogram has a span whose offset is negative",
            at + 1,
            span.offset
        ));
    }
    let needed: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if needed != buckets as u64 {
        return Err(format!(
            "spans need {needed} buckets, have {buckets} buckets: histogram spans specify \
             different number of buckets than provided"
        ));
    }
    Ok(())
}

/// The counts that deltas tell, and their sum.
fn of_deltas(deltas: &[i64], side: &str) -> Result<(Vec<f64>, u64), String> {
    let (mut last, mut sum) = (0_i64, 0_u64);
    let mut counts = Vec::with_capacity(deltas.len());
    for (delta, number) in deltas.iter().zip(1..) {
        last = last.wrapping_add(*delta);
        let Ok(count) = u64::try_from(last) else {
            return Err(format!(
                "{side} side: bucket number {number} has observation count of {last}: \
                 {NEGATIVE_BUCKET}"
            ));
        };
        sum = sum.wrapping_add(count);
        counts.push(count as f64);
    }
    Ok((counts, sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{put_bytes, put_double, put_varint};

    fn spans(spans: &[(i64, u64)], field: u32, out: &mut Vec<u8>) {
        for (offset, length) in spans {
            let mut span = Vec::new();
            put_varint(&mut span, 1, (offset << 1 ^ offset >> 63).cast_unsigned());
            put_varint(&mut span, 2, *length);
            put_bytes(out, field, &span);
        }
    }

    fn packed(numbers: &[i64], field: u32, out: &mut Vec<u8>) {
        // Single bytes will do.
        let bytes: Vec<u8> = numbers
            .iter()
            .map(|it| u8::try_from(it << 1 ^ it >> 63).unwrap())
            .collect();
        put_bytes(out, field, &bytes);
    }

    fn doubles(numbers: &[f64], field: u32, out: &mut Vec<u8>) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
        put_bytes(out, field, &bytes);
    }

    fn schema(schema: i64, out: &mut Vec<u8>) {
        put_varint(out, 4, (schema << 1 ^ schema >> 63).cast_unsigned());
    }

    fn check(message: &[u8], expected: Result<&str, &str>) {
        walk(message).unwrap();
        let got = decode(message).unwrap().histogram;
        let text = got.map(|it| {
            let side = |it: &Buckets| format!("{:?}", it.iter().collect::<Vec<_>>());
            format!(
                "schema {} count {} zero {} sum {} {} {} {:?}",
                it.schema,
                it.count,
                it.zero_count,
                it.sum,
                side(&it.positive),
                side(&it.negative),
                it.custom
            )
        });
        assert_eq!(text.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn integers_floats_and_own_bounds_are_read() {
        let mut message = Vec::new();
        put_varint(&mut message, 1, 9);
        put_double(&mut message, 3, 18.5);
        schema(1, &mut message);
        put_varint(&mut message, 6, 2);
        spans(&[(-3, 2), (1, 1)], 11, &mut message);
        packed(&[1, 1, -1], 12, &mut message);
        spans(&[(0, 1)], 8, &mut message);
        packed(&[3], 9, &mut message);
        put_varint(&mut message, 15, 7);
        let told =
            "schema 1 count 9 zero 2 sum 18.5 [(-3, 1.0), (-2, 2.0), (0, 1.0)] [(0, 3.0)] []";
        check(&message, Ok(told));
        assert_eq!(decode(&message).unwrap().timestamp_ms, 7);

        let mut message = Vec::new();
        put_double(&mut message, 2, 4.5);
        schema(CUSTOM_SCHEMA.into(), &mut message);
        spans(&[(1, 2)], 11, &mut message);
        doubles(&[1.5, 3.0], 13, &mut message);
        doubles(&[0.5, 1.0], 16, &mut message);
        let told = "schema -53 count 4.5 zero 0 sum 0 [(1, 1.5), (2, 3.0)] [] [0.5, 1.0]";
        check(&message, Ok(told));
        assert!(decode(&message).unwrap().float_counts);
    }

    #[test]
    fn fine_schemas_are_made_coarser_and_others_refused() {
        let of_schema = |number: i64| {
            let mut message = Vec::new();
            put_varint(&mut message, 1, 3);
            schema(number, &mut message);
            spans(&[(1, 2)], 11, &mut message);
            packed(&[1, 1], 12, &mut message);
            message
        };
        check(
            &of_schema(9),
            Ok("schema 8 count 3 zero 0 sum 0 [(1, 3.0)] [] []"),
        );
        let refused = "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema";
        check(&of_schema(-5), Err(&format!("{refused} -5")));
        check(&of_schema(53), Err(&format!("{refused} 53")));
    }

    #[test]
    fn contradictions_are_told_as_prometheus_does() {
        type Put = fn(&mut Vec<u8>);
        let cases: [(Put, &str); 10] = [
            (
                |out| spans(&[(0, 1), (-1, 1)], 11, out),
                "positive side: span number 2 with offset -1: histogram has a span whose offset is negative",
            ),
            (
                |out| spans(&[(0, 2)], 8, out),
                "negative side: spans need 2 buckets, have 0 buckets: histogram spans specify different number of buckets than provided",
            ),
            (
                |out| {
                    spans(&[(0, 2)], 11, out);
                    packed(&[1, -2], 12, out);
                },
                "positive side: bucket number 2 has observation count of -1: histogram has a bucket whose observation count is negative",
            ),
            (
                |out| put_varint(out, 6, 3),
                "3 observations found in buckets, but the Count field is 0: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)",
            ),
            (
                |out| {
                    put_varint(out, 6, 3);
                    put_double(out, 3, f64::NAN);
                },
                "3 observations found in buckets, but the Count field is 0: histogram's observation count should be at least the number of observations found in the buckets",
            ),
            (
                |out| put_double(out, 2, -1.5),
                "observation count is  -1.5: histogram's observation count is negative",
            ),
            (
                |out| doubles(&[1.0], 16, out),
                "histogram with exponential schema must not have custom bounds",
            ),
            (
                |out| {
                    schema(-53, out);
                    doubles(&[2.0, 1.0], 16, out);
                },
                "custom buckets: previous bound is 2.000000 and current is 1.000000: histogram custom bounds must be in strictly increasing order",
            ),
            (
                |out| {
                    schema(-53, out);
                    spans(&[(0, 2)], 11, out);
                    packed(&[1, 0], 12, out);
                },
                "custom buckets: only 0 custom bounds defined which is insufficient to cover total span length of 2: histogram custom bounds are too few",
            ),
            (
                |out| {
                    schema(-53, out);
                    put_varint(out, 6, 1);
                },
                "custom buckets: must have zero count of 0",
            ),
        ];
        for (put, expected) in cases {
            let mut message = Vec::new();
            put(&mut message);
            check(&message, Err(expected));
        }
    }

    #[test]
    fn markers_have_nothing_but_their_sum() {
        let mut message = Vec::new();
        put_double(&mut message, 3, isobar_model::sample::STALE_NAN);
        let got = decode(&message).unwrap().histogram.unwrap();
        assert!(got.is_stale());
    }
}
