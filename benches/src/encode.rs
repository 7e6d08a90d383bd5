//! Turns the series of some pods into remote write 1.0 requests, with next to no work per sample.
//!
//! ```text
//! WriteRequest  { repeated TimeSeries timeseries = 1 }
//! TimeSeries    { repeated Label labels = 1; repeated Sample samples = 2;
//!                 repeated Histogram histograms = 4 }
//! Label         { string name = 1; string value = 2 }
//! Sample        { double value = 1; int64 timestamp = 2 }
//! ```
//!
//! The labels of a series are encoded once; each request copies them and appends the new samples, as
//! a sender does that keeps its series. The body is compressed with snappy's block format.

use anyhow::Context;

use crate::data::{Pod, SERIES_PER_POD};

/// Field numbers with their wire types, as they stand on the wire.
const SERIES_TAG: u8 = 1 << 3 | 2;
const LABEL_TAG: u8 = 1 << 3 | 2;
const SAMPLE_TAG: u8 = 2 << 3 | 2;
const HISTOGRAM_TAG: u8 = 4 << 3 | 2;
const NAME_TAG: u8 = 1 << 3 | 2;
const TEXT_TAG: u8 = 2 << 3 | 2;
const VALUE_TAG: u8 = 1 << 3 | 1;
const TIMESTAMP_TAG: u8 = 2 << 3;

/// The pods whose series travel together in one request.
pub struct Batch {
    pods: Vec<Pod>,
    /// The encoded labels of all series, one after the other, and where each ends.
    labels: Vec<u8>,
    label_ends: Vec<usize>,
    values: Vec<[f64; SERIES_PER_POD]>,
    samples: Vec<u8>,
    body: Vec<u8>,
    compressed: Vec<u8>,
}

impl Batch {
    /// A batch of these pods.
    pub fn new(pods: Vec<Pod>) -> Batch {
        let mut batch = Batch {
            pods,
            labels: Vec::new(),
            label_ends: Vec::new(),
            values: Vec::new(),
            samples: Vec::new(),
            body: Vec::new(),
            compressed: Vec::new(),
        };
        batch.encode_labels();
        batch
    }

    /// Puts another pod in the place of one.
    pub fn replace(&mut self, at: usize, pod: Pod) {
        if let Some(place) = self.pods.get_mut(at) {
            *place = pod;
            self.encode_labels();
        }
    }

    fn encode_labels(&mut self) {
        self.labels.clear();
        self.label_ends.clear();
        for series in self.pods.iter().flat_map(Pod::labels) {
            encode_labels(&series, &mut self.labels);
            self.label_ends.push(self.labels.len());
        }
    }

    /// The number of series in each request.
    pub fn series(&self) -> usize {
        self.label_ends.len()
    }

    /// The compressed body of the next request: a sample of each series for each of `steps_ms`, the
    /// times at which the scrape intervals begin.
    pub fn next_request(&mut self, steps_ms: &[i64]) -> anyhow::Result<&[u8]> {
        self.body.clear();
        let mut ends = self.label_ends.iter();
        let mut label_start = 0;
        for pod in &mut self.pods {
            self.values.clear();
            self.values
                .extend(steps_ms.iter().map(|it| *pod.step(it / 1000)));
            for series in 0..SERIES_PER_POD {
                self.samples.clear();
                for (step_ms, values) in steps_ms.iter().zip(&self.values) {
                    encode_sample(values[series], step_ms + pod.offset_ms(), &mut self.samples);
                }
                let label_end = *ends.next().context("more series than label ends")?;
                let labels = &self.labels[label_start..label_end];
                label_start = label_end;
                put_series(labels, &self.samples, &mut self.body);
            }
        }
        self.compressed
            .resize(snap::raw::max_compress_len(self.body.len()), 0);
        let length = snap::raw::Encoder::new()
            .compress(&self.body, &mut self.compressed)
            .context("compress a request")?;
        Ok(&self.compressed[..length])
    }
}

/// Appends one series: its labels and samples as they stand on the wire.
pub(crate) fn put_series(labels: &[u8], samples: &[u8], out: &mut Vec<u8>) {
    out.push(SERIES_TAG);
    put_varint((labels.len() + samples.len()) as u64, out);
    out.extend_from_slice(labels);
    out.extend_from_slice(samples);
}

/// Appends the labels, which are sorted, as fields of a series.
pub(crate) fn encode_labels(labels: &[(&'static str, String)], out: &mut Vec<u8>) {
    let mut label = Vec::new();
    for (name, value) in labels {
        label.clear();
        put_bytes(NAME_TAG, name.as_bytes(), &mut label);
        put_bytes(TEXT_TAG, value.as_bytes(), &mut label);
        put_bytes(LABEL_TAG, &label, out);
    }
}

/// Appends a float sample as a field of a series.
pub(crate) fn encode_sample(value: f64, timestamp_ms: i64, out: &mut Vec<u8>) {
    let mut sample = [0u8; 20];
    sample[0] = VALUE_TAG;
    sample[1..9].copy_from_slice(&value.to_le_bytes());
    sample[9] = TIMESTAMP_TAG;
    let mut length = 10;
    let mut rest = timestamp_ms.cast_unsigned();
    while rest >= 0x80 {
        sample[length] = rest as u8 | 0x80;
        rest >>= 7;
        length += 1;
    }
    sample[length] = rest as u8;
    put_bytes(SAMPLE_TAG, &sample[..=length], out);
}

/// A native histogram with whole counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct HistogramSample {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) schema: i32,
    pub(crate) zero_threshold: f64,
    pub(crate) zero_count: u64,
    /// Offset and length of each span.
    pub(crate) positive_spans: &'static [(i32, u32)],
    pub(crate) positive_deltas: Vec<i64>,
    pub(crate) negative_spans: &'static [(i32, u32)],
    pub(crate) negative_deltas: Vec<i64>,
    pub(crate) custom_values: &'static [f64],
}

/// Appends a histogram as a field of a series: message `Histogram` of `prompb/types.proto`.
pub(crate) fn encode_histogram(it: &HistogramSample, timestamp_ms: i64, out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(96);
    put_number(1, it.count, &mut body);
    put_double(3, it.sum, &mut body);
    put_number(4, zigzag(i64::from(it.schema)), &mut body);
    put_double(5, it.zero_threshold, &mut body);
    put_number(6, it.zero_count, &mut body);
    put_spans(8, it.negative_spans, &mut body);
    put_deltas(9, &it.negative_deltas, &mut body);
    put_spans(11, it.positive_spans, &mut body);
    put_deltas(12, &it.positive_deltas, &mut body);
    put_number(15, timestamp_ms.cast_unsigned(), &mut body);
    if !it.custom_values.is_empty() {
        let bytes: Vec<u8> = it
            .custom_values
            .iter()
            .flat_map(|it| it.to_le_bytes())
            .collect();
        put_key(16, 2, &mut body);
        put_varint(bytes.len() as u64, &mut body);
        body.extend_from_slice(&bytes);
    }
    put_bytes(HISTOGRAM_TAG, &body, out);
}

fn put_spans(field: u8, spans: &[(i32, u32)], out: &mut Vec<u8>) {
    for (offset, length) in spans {
        let mut span = Vec::with_capacity(8);
        put_number(1, zigzag(i64::from(*offset)), &mut span);
        put_number(2, u64::from(*length), &mut span);
        put_key(field, 2, out);
        put_varint(span.len() as u64, out);
        out.extend_from_slice(&span);
    }
}

fn put_deltas(field: u8, deltas: &[i64], out: &mut Vec<u8>) {
    if deltas.is_empty() {
        return;
    }
    let mut packed = Vec::with_capacity(16);
    for delta in deltas {
        put_varint(zigzag(*delta), &mut packed);
    }
    put_key(field, 2, out);
    put_varint(packed.len() as u64, out);
    out.extend_from_slice(&packed);
}

fn put_key(field: u8, wire_type: u8, out: &mut Vec<u8>) {
    put_varint(u64::from(field) << 3 | u64::from(wire_type), out);
}

fn put_number(field: u8, value: u64, out: &mut Vec<u8>) {
    put_key(field, 0, out);
    put_varint(value, out);
}

fn put_double(field: u8, value: f64, out: &mut Vec<u8>) {
    put_key(field, 1, out);
    out.extend_from_slice(&value.to_le_bytes());
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn put_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_labels_and_samples_as_the_wire_has_them() {
        let mut out = Vec::new();
        encode_labels(&[("__name__", "up".to_owned())], &mut out);
        assert_eq!(out, b"\x0a\x0e\x0a\x08__name__\x12\x02up");
        out.clear();
        encode_sample(1.0, 300, &mut out);
        assert_eq!(
            out,
            b"\x12\x0c\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x10\xac\x02"
        );
    }

    #[test]
    fn a_request_holds_every_series_once() {
        let mut batch = Batch::new(vec![Pod::new(1, 0, 15_000, 0), Pod::new(1, 1, 15_000, 0)]);
        let length = batch.next_request(&[0, 15_000]).unwrap().len();
        let mut raw = vec![0; batch.body.len()];
        snap::raw::Decoder::new()
            .decompress(&batch.compressed[..length], &mut raw)
            .unwrap();
        let (mut at, mut series) = (0, 0);
        while at < raw.len() {
            assert_eq!(raw[at], SERIES_TAG);
            let (low, high) = (usize::from(raw[at + 1] & 0x7f), usize::from(raw[at + 2]));
            at += 3 + (low | high << 7);
            series += 1;
        }
        assert_eq!((at, series, batch.series()), (raw.len(), 200, 200));
    }
}
