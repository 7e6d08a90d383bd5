//! Samples of one series, decoded: brought into order, made one for each time, and encoded again.

use std::sync::Arc;

use isobar_model::sample::is_stale;
use isobar_model::{Columns, FloatHistogram, TimeRange};

use super::Counted;
use crate::Error;
use crate::chunks::histogram::Counts;
use crate::chunks::{Chunk, XorAppender, histogram};
use crate::merge::CHUNK_SAMPLES_MAX;

/// The value of a sample.
#[derive(Debug, Clone)]
pub enum Value {
    /// A float, which may be the staleness marker.
    Float(f64),
    /// A native histogram, and how its counts are to be written.
    Histogram(Arc<FloatHistogram>, Counts),
}

/// Equal when a reader could not tell them apart: buckets that are empty do not count, nor does
/// the kind of a staleness marker.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (a, b) if a.is_stale() || b.is_stale() => a.is_stale() && b.is_stale(),
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Histogram(a, _), Value::Histogram(b, _)) => {
                Arc::ptr_eq(a, b) || a == b || compacted(a) == compacted(b)
            }
            _ => false,
        }
    }
}

impl Value {
    /// Whether it is the staleness marker.
    pub fn is_stale(&self) -> bool {
        match self {
            Value::Float(value) => is_stale(*value),
            Value::Histogram(histogram, _) => histogram.is_stale(),
        }
    }

    /// The memory that it takes beyond its own size.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Value::Float(_) => 0,
            Value::Histogram(histogram, _) => histogram.bytes(),
        }
    }
}

fn compacted(histogram: &FloatHistogram) -> FloatHistogram {
    let mut copy = histogram.clone();
    copy.compact();
    copy
}

/// A sample at a unix time in milliseconds.
pub(super) type Point = (i64, Value);

/// Appends the samples of a chunk.
pub(super) fn decode(
    chunk: &Chunk,
    points: &mut Vec<Point>,
    counted: &mut Counted,
) -> Result<(), Error> {
    let mut columns = Columns::default();
    chunk.decode_into(TimeRange::ALL, &mut columns)?;
    if columns.has_start_times() {
        let known = columns.start_times.iter();
        let known = known.chain(&columns.histogram_start_times);
        counted.start_times_dropped += known.filter(|start_ms| **start_ms != 0).count() as u64;
    }
    let counts = match chunk.histogram_kind() {
        Some(kind) => kind.counts,
        None => Counts::Float,
    };
    let floats = columns.timestamps.into_iter().zip(columns.values);
    points.extend(floats.map(|(ms, value)| (ms, Value::Float(value))));
    let histograms = columns.histograms.into_iter();
    points.extend(histograms.map(|(ms, value)| (ms, Value::Histogram(value, counts))));
    Ok(())
}

/// Brings samples into time order, one for each time: of several the first stays, and the others
/// are counted.
pub(super) fn settle(points: &mut Vec<Point>, counted: &mut Counted) {
    points.sort_by_key(|point| point.0);
    points.dedup_by(|later, first| {
        if later.0 != first.0 {
            return false;
        }
        match later.1 == first.1 {
            true => counted.duplicates += 1,
            false => counted.conflicts += 1,
        }
        true
    });
}

/// The samples, whose times rise, as chunks.
pub(super) fn encode(points: &[Point]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for run in points.chunk_by(|a, b| kind(&a.1) == kind(&b.1)) {
        match kind(&run[0].1) {
            None => chunks.extend(run.chunks(CHUNK_SAMPLES_MAX).filter_map(encode_floats)),
            Some(counts) => {
                let samples: Vec<_> = run.iter().filter_map(histogram_of).collect();
                chunks.extend(histogram::encode(&samples, counts, CHUNK_SAMPLES_MAX));
            }
        }
    }
    chunks
}

fn kind(value: &Value) -> Option<Counts> {
    match value {
        Value::Float(_) => None,
        Value::Histogram(_, counts) => Some(*counts),
    }
}

fn histogram_of(point: &Point) -> Option<(i64, Arc<FloatHistogram>)> {
    match &point.1 {
        Value::Histogram(histogram, _) => Some((point.0, Arc::clone(histogram))),
        Value::Float(_) => None,
    }
}

fn encode_floats(points: &[Point]) -> Option<Chunk> {
    let mut appender = XorAppender::new();
    for (ms, value) in points {
        if let Value::Float(value) = value {
            appender.append(*ms, *value);
        }
    }
    appender.into_chunk()
}

#[cfg(test)]
mod tests {
    use isobar_model::sample::STALE_NAN;

    use super::*;

    fn histogram(count: f64, counts: Counts) -> Value {
        let histogram = FloatHistogram {
            count,
            sum: count,
            zero_count: count,
            ..FloatHistogram::default()
        };
        Value::Histogram(Arc::new(histogram), counts)
    }

    #[test]
    fn the_first_of_a_time_stays() {
        let mut points = vec![
            (5, Value::Float(5.0)),
            (3, Value::Float(STALE_NAN)),
            (5, Value::Float(6.0)),
            (5, histogram(1.0, Counts::Integer)),
            (1, Value::Float(1.0)),
            (
                3,
                Value::Histogram(Arc::new(FloatHistogram::stale()), Counts::Float),
            ),
            (5, Value::Float(5.0)),
        ];
        let mut counted = Counted::default();
        settle(&mut points, &mut counted);
        let times: Vec<i64> = points.iter().map(|point| point.0).collect();
        assert_eq!(times, [1, 3, 5]);
        assert_eq!(points[2].1, Value::Float(5.0));
        assert_eq!((counted.duplicates, counted.conflicts), (2, 2));
    }

    #[test]
    fn kinds_get_chunks_of_their_own() {
        let points = [
            (1, Value::Float(1.0)),
            (2, Value::Float(2.0)),
            (3, histogram(1.0, Counts::Integer)),
            (4, histogram(2.0, Counts::Float)),
            (5, Value::Float(3.0)),
        ];
        let chunks = encode(&points);
        let got: Vec<_> = chunks
            .iter()
            .map(|chunk| (chunk.encoding as u8, chunk.min_ms, chunk.max_ms))
            .collect();
        assert_eq!(got, [(1, 1, 2), (2, 3, 3), (3, 4, 4), (1, 5, 5)]);
        let mut decoded = Vec::new();
        let mut counted = Counted::default();
        for chunk in &chunks {
            decode(chunk, &mut decoded, &mut counted).unwrap();
        }
        assert_eq!(decoded, points);
    }
}
