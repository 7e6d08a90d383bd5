//! Records of Prometheus' write-ahead logs (Prometheus `tsdb/record`): what happened to series that
//! are called by numbers.
//!
//! ```text
//! kind <1b>, then by kind, each entry until the record ends:
//! 1 series       number <8b> │ labels
//! 2 floats       number <8b>, time <8b> of all │ entry: number, time <varint> │ value <8b>
//! 3 tombstones   number <8b> │ first, last time <varint>
//! 4 exemplars    as floats, each followed by labels
//! 5 markers      number <8b> │ chunk <8b>
//! 6 metadata     number <uvarint> │ type <1b> │ fields <uvarint> │ name, value <text>…
//! 7, 9           as floats, histograms of integers in place of values; 9 those of custom buckets
//! 8, 10          likewise, histograms of floats
//! 11, 12, 13     floats, histograms of integers and of floats with start times:
//!                number, time, start time <varint> │ value of the first, then each entry
//!                number since the one before, time since the first <varint> │ start time │ value
//! start time     0 none │ 1 that of the one before │ else since that of the first <varint>
//! labels         count <uvarint> │ name, value <text>…
//! ```

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::sync::Arc;

use isobar_model::histogram::{
    Buckets, CUSTOM_SCHEMA, CounterReset, HistogramError, SCHEMA_MAX, SCHEMA_RESERVED_MAX,
    SCHEMA_RESERVED_MIN, Span,
};
use isobar_model::{FloatHistogram, Labels, TimeRange};

use crate::chunks::histogram::Counts;
use crate::encoding::{DecodeError, Decoder};

/// The number of a series in a log. Several may stand for the same labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesNumber(pub u64);

/// Of what series, when, and since when it counts; 0 when that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The series.
    pub series: SeriesNumber,
    /// Unix milliseconds.
    pub ms: i64,
    /// Unix milliseconds.
    pub start_ms: i64,
}

/// Takes what records hold.
pub trait RecordSink {
    /// A number stands for these labels from here on.
    fn series(&mut self, series: SeriesNumber, labels: Labels);
    /// A sample.
    fn float(&mut self, at: At, value: f64);
    /// A sample.
    fn histogram(&mut self, at: At, histogram: FloatHistogram, counts: Counts);
    /// A histogram of a kind that nobody knows; Prometheus leaves it out.
    fn unknown_histogram(&mut self, at: At);
    /// Samples of a series were deleted.
    fn tombstone(&mut self, series: SeriesNumber, range: TimeRange);
    /// An exemplar.
    fn exemplar(&mut self, at: At, value: f64, labels: Labels);
    /// Metadata of a series: type by its number, unit and help.
    fn metadata(&mut self, series: SeriesNumber, kind: u8, unit: &str, help: &str);
}

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// Its bytes do not follow the format.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It holds something that is no histogram.
    #[error(transparent)]
    Histogram(#[from] HistogramError),
    /// It is of a kind that is not known; Prometheus passes over it.
    #[error("unknown record kind {0}")]
    Kind(u8),
}

/// Gives what a record holds to `sink`, up to an error. A record without bytes holds nothing.
///
/// # Errors
/// See [`RecordError`].
pub fn decode(record: &[u8], sink: &mut impl RecordSink) -> Result<(), RecordError> {
    let Some((kind, content)) = record.split_first() else {
        return Ok(());
    };
    let mut decoder = Decoder::new(content);
    let decoder = &mut decoder;
    match kind {
        1 => all_series(decoder, sink),
        2 => based(decoder, |decoder, at| {
            sink.float(at, float(decoder)?);
            Ok(())
        }),
        3 => tombstones(decoder, sink),
        4 => based(decoder, |decoder, at| {
            let value = float(decoder)?;
            sink.exemplar(at, value, labels(decoder)?);
            Ok(())
        }),
        // Where chunks of late samples are; all chunks are read anyhow.
        5 => Ok(()),
        6 => metadata(decoder, sink),
        7 | 9 => based(decoder, |decoder, at| {
            histogram(decoder, at, Counts::Integer, sink)
        }),
        8 | 10 => based(decoder, |decoder, at| {
            histogram(decoder, at, Counts::Float, sink)
        }),
        11 => chained(decoder, |decoder, at| {
            sink.float(at, float(decoder)?);
            Ok(())
        }),
        12 => chained(decoder, |decoder, at| {
            histogram(decoder, at, Counts::Integer, sink)
        }),
        13 => chained(decoder, |decoder, at| {
            histogram(decoder, at, Counts::Float, sink)
        }),
        kind => Err(RecordError::Kind(*kind)),
    }
}

/// Whether a record is one of series.
pub fn is_series(record: &[u8]) -> bool {
    record.first() == Some(&1)
}

fn all_series(decoder: &mut Decoder<'_>, sink: &mut impl RecordSink) -> Result<(), RecordError> {
    while !decoder.is_empty() {
        let series = SeriesNumber(decoder.be64()?);
        sink.series(series, labels(decoder)?);
    }
    Ok(())
}

/// Entries of which each is told by its distance to one base.
fn based<'a>(
    decoder: &mut Decoder<'a>,
    mut entry: impl FnMut(&mut Decoder<'a>, At) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    if decoder.is_empty() {
        return Ok(());
    }
    let series = decoder.be64()?;
    let ms = decoder.be64()?.cast_signed();
    while !decoder.is_empty() {
        let at = At {
            series: SeriesNumber(series.wrapping_add_signed(decoder.varint()?)),
            ms: ms.wrapping_add(decoder.varint()?),
            start_ms: 0,
        };
        entry(decoder, at)?;
    }
    Ok(())
}

/// Entries of which each is told by its distance to the one before.
fn chained<'a>(
    decoder: &mut Decoder<'a>,
    mut entry: impl FnMut(&mut Decoder<'a>, At) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    if decoder.is_empty() {
        return Ok(());
    }
    let first = At {
        series: SeriesNumber(decoder.varint()?.cast_unsigned()),
        ms: decoder.varint()?,
        start_ms: decoder.varint()?,
    };
    entry(decoder, first)?;
    let mut before = first;
    while !decoder.is_empty() {
        let series = before.series.0.wrapping_add_signed(decoder.varint()?);
        let ms = first.ms.wrapping_add(decoder.varint()?);
        let start_ms = match decoder.u8()? {
            0 => 0,
            1 => before.start_ms,
            _ => first.start_ms.wrapping_add(decoder.varint()?),
        };
        let series = SeriesNumber(series);
        before = At {
            series,
            ms,
            start_ms,
        };
        entry(decoder, before)?;
    }
    Ok(())
}

fn tombstones(decoder: &mut Decoder<'_>, sink: &mut impl RecordSink) -> Result<(), RecordError> {
    while !decoder.is_empty() {
        let series = SeriesNumber(decoder.be64()?);
        let range = TimeRange::new(decoder.varint()?, decoder.varint()?);
        sink.tombstone(series, range);
    }
    Ok(())
}

fn metadata(decoder: &mut Decoder<'_>, sink: &mut impl RecordSink) -> Result<(), RecordError> {
    while !decoder.is_empty() {
        let series = SeriesNumber(decoder.uvarint()?);
        let kind = decoder.u8()?;
        let (mut unit, mut help) = ("", "");
        for _ in 0..decoder.uvarint()? {
            let name = decoder.uvarint_str()?;
            let value = decoder.uvarint_str()?;
            match name {
                "UNIT" => unit = value,
                "HELP" => help = value,
                _ => {}
            }
        }
        sink.metadata(series, kind, unit, help);
    }
    Ok(())
}

fn labels(decoder: &mut Decoder<'_>) -> Result<Labels, RecordError> {
    let count = decoder.uvarint_len()?;
    // Each pair takes two bytes at least.
    let mut pairs = Vec::with_capacity(count.min(decoder.len() / 2));
    for _ in 0..count {
        pairs.push((decoder.uvarint_str()?, decoder.uvarint_str()?));
    }
    let sorted = pairs
        .windows(2)
        .all(|pair| matches!(pair, [(a, _), (b, _)] if a < b));
    if sorted && pairs.iter().all(|(_, value)| !value.is_empty()) {
        return Ok(Labels::from_sorted(pairs, &mut String::new()));
    }
    Ok(Labels::from_pairs(pairs))
}

fn float(decoder: &mut Decoder<'_>) -> Result<f64, DecodeError> {
    decoder.be64().map(f64::from_bits)
}

fn histogram(
    decoder: &mut Decoder<'_>,
    at: At,
    counts: Counts,
    sink: &mut impl RecordSink,
) -> Result<(), RecordError> {
    let hint = match decoder.u8()? {
        1 => CounterReset::Reset,
        2 => CounterReset::NotReset,
        3 => CounterReset::Gauge,
        _ => CounterReset::Unknown,
    };
    let schema = decoder.varint()?;
    let zero_threshold = float(decoder)?;
    let zero_count = count(decoder, counts)?;
    let total = count(decoder, counts)?;
    let sum = float(decoder)?;
    let sides = [spans(decoder)?, spans(decoder)?];
    let buckets = [buckets(decoder, counts)?, buckets(decoder, counts)?];
    let custom = match schema == i64::from(CUSTOM_SCHEMA) {
        true => floats(decoder)?,
        false => Vec::new(),
    };
    let Some(schema) = i32::try_from(schema).ok().filter(|schema| {
        *schema == CUSTOM_SCHEMA || (SCHEMA_RESERVED_MIN..=SCHEMA_RESERVED_MAX).contains(schema)
    }) else {
        sink.unknown_histogram(at);
        return Ok(());
    };
    let [positive_spans, negative_spans] = sides;
    let [positive, negative] = buckets;
    let mut histogram = FloatHistogram {
        hint,
        schema,
        zero_threshold,
        zero_count,
        count: total,
        sum,
        positive: Buckets::from_spans(positive_spans, positive)?,
        negative: Buckets::from_spans(negative_spans, negative)?,
        custom: Arc::from(custom),
    };
    histogram.reduce_to(SCHEMA_MAX);
    sink.histogram(at, histogram, counts);
    Ok(())
}

fn count(decoder: &mut Decoder<'_>, counts: Counts) -> Result<f64, DecodeError> {
    match counts {
        Counts::Integer => decoder.uvarint().map(|count| count as f64),
        Counts::Float => float(decoder),
    }
}

fn spans(decoder: &mut Decoder<'_>) -> Result<Vec<Span>, DecodeError> {
    let count = decoder.uvarint_len()?;
    let mut spans = Vec::with_capacity(count.min(decoder.len() / 2));
    for _ in 0..count {
        let offset = decoder.varint()?;
        spans.push(Span {
            offset: i32::try_from(offset).map_err(|_| DecodeError::NumberTooLarge)?,
            length: decoder.uvarint32()?,
        });
    }
    Ok(spans)
}

/// The counts of the buckets of one side. Integers are told by their distance to the one before.
fn buckets(decoder: &mut Decoder<'_>, counts: Counts) -> Result<Vec<f64>, DecodeError> {
    if counts == Counts::Float {
        return floats(decoder);
    }
    let len = decoder.uvarint_len()?;
    let mut buckets = Vec::with_capacity(len.min(decoder.len()));
    let mut count = 0_i64;
    for _ in 0..len {
        count = count.wrapping_add(decoder.varint()?);
        buckets.push(count as f64);
    }
    Ok(buckets)
}

fn floats(decoder: &mut Decoder<'_>) -> Result<Vec<f64>, DecodeError> {
    let len = decoder.uvarint_len()?;
    let mut floats = Vec::with_capacity(len.min(decoder.len() / 8));
    for _ in 0..len {
        floats.push(float(decoder)?);
    }
    Ok(floats)
}
