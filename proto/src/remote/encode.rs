//! Writing requests: for tests, for benchmarks, and for whoever sends on what came in.

use isobar_model::histogram::Buckets;
use isobar_model::{Columns, Exemplar, FloatHistogram, Labels, metric_kind};

use super::MetricMetadata;
use crate::wire::{put_bytes, put_double, put_raw_double, put_varint};

/// Appends a series to an encoded `WriteRequest`.
pub fn encode_series(out: &mut Vec<u8>, labels: &Labels, samples: &Columns) {
    let mut series = Vec::new();
    let mut part = Vec::new();
    put_labels(&mut series, labels);
    for (timestamp_ms, value) in samples.timestamps.iter().zip(&samples.values) {
        part.clear();
        put_double(&mut part, 1, *value);
        put_varint(&mut part, 2, timestamp_ms.cast_unsigned());
        put_bytes(&mut series, 2, &part);
    }
    for (timestamp_ms, histogram) in &samples.histograms {
        put_bytes(&mut series, 4, &encode_histogram(*timestamp_ms, histogram));
    }
    put_bytes(out, 1, &series);
}

/// Appends exemplars of a series to an encoded `WriteRequest`.
pub fn encode_exemplars(out: &mut Vec<u8>, labels: &Labels, exemplars: &[Exemplar]) {
    let mut series = Vec::new();
    put_labels(&mut series, labels);
    for exemplar in exemplars {
        let mut part = Vec::new();
        put_labels(&mut part, &exemplar.labels);
        put_double(&mut part, 2, exemplar.value);
        put_varint(&mut part, 3, exemplar.timestamp_ms.cast_unsigned());
        put_bytes(&mut series, 3, &part);
    }
    put_bytes(out, 1, &series);
}

fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    for (name, value) in labels.iter() {
        let mut part = Vec::new();
        put_bytes(&mut part, 1, name.as_bytes());
        put_bytes(&mut part, 2, value.as_bytes());
        put_bytes(out, 1, &part);
    }
}

/// A histogram whose counts are floats.
fn encode_histogram(timestamp_ms: i64, histogram: &FloatHistogram) -> Vec<u8> {
    let mut out = Vec::new();
    // Zero has to be written all the same: the field says that counts are floats.
    put_raw_double(&mut out, 2, histogram.count);
    put_double(&mut out, 3, histogram.sum);
    put_varint(&mut out, 4, zigzag(histogram.schema.into()));
    put_double(&mut out, 5, histogram.zero_threshold);
    put_raw_double(&mut out, 7, histogram.zero_count);
    for (field, side) in [(8, &histogram.negative), (11, &histogram.positive)] {
        put_spans(&mut out, field, side);
        put_doubles(&mut out, field + 2, side.counts());
    }
    put_varint(&mut out, 14, histogram.hint as u64);
    put_varint(&mut out, 15, timestamp_ms.cast_unsigned());
    put_doubles(&mut out, 16, &histogram.custom);
    out
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

fn put_spans(out: &mut Vec<u8>, field: u32, buckets: &Buckets) {
    let follows = |a: &i32, b: &i32| a.checked_add(1) == Some(*b);
    let mut end = 0_i64;
    for run in buckets.indexes().chunk_by(follows) {
        let first = run.first().map_or(0, |index| i64::from(*index));
        let mut span = Vec::new();
        put_varint(&mut span, 1, zigzag(first - end));
        put_varint(&mut span, 2, run.len() as u64);
        put_bytes(out, field, &span);
        end = first + run.len() as i64;
    }
}

fn put_doubles(out: &mut Vec<u8>, field: u32, numbers: &[f64]) {
    if !numbers.is_empty() {
        let bytes: Vec<u8> = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
        put_bytes(out, field, &bytes);
    }
}

/// Appends a description of a metric to an encoded `WriteRequest`.
pub fn encode_metadata(out: &mut Vec<u8>, metadata: &MetricMetadata<'_>) {
    let mut part = Vec::new();
    let kind = metric_kind::code(metadata.kind);
    put_varint(&mut part, 1, kind);
    put_bytes(&mut part, 2, metadata.metric.as_bytes());
    put_bytes(&mut part, 4, metadata.help.as_bytes());
    put_bytes(&mut part, 5, metadata.unit.as_bytes());
    put_bytes(out, 3, &part);
}
