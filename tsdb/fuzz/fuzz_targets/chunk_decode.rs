//! Any bytes decode to the announced number of samples or to an error, in every encoding; what
//! decodes as XOR can be appended to, and histograms can be written again.
//!
//! Run with `cargo +nightly fuzz run chunk_decode` in `tsdb/`.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use isobar_model::histogram::Buckets;
use isobar_model::{Columns, FloatHistogram, TimeRange};
use isobar_tsdb::chunks::histogram::{Counts, encode};
use isobar_tsdb::chunks::{Chunk, Encoding, XorAppender, xor, xor2};
use libfuzzer_sys::fuzz_target;

const ENCODINGS: [Encoding; 6] = [
    Encoding::Xor,
    Encoding::Histogram,
    Encoding::FloatHistogram,
    Encoding::Xor2,
    Encoding::HistogramSt,
    Encoding::FloatHistogramSt,
];

fuzz_target!(|data: &[u8]| {
    append_to_xor(data);
    let mut columns = Columns::default();
    match xor2::decode(data, &mut columns) {
        Ok(_) => {
            let count = usize::from(xor::sample_count(data).unwrap());
            assert_eq!((columns.len(), columns.values.len()), (count, count));
            assert!([0, count].contains(&columns.start_times.len()));
        }
        Err(_) => assert!(columns.is_empty() && !columns.has_start_times()),
    }
    for encoding in ENCODINGS {
        decode(encoding, data);
    }
});

fn append_to_xor(data: &[u8]) {
    let mut columns = Columns::default();
    if xor::decode(data, &mut columns).is_err() {
        assert!(columns.is_empty());
        assert!(XorAppender::resume(data).is_err());
        return;
    }
    assert_eq!(columns.len(), usize::from(xor::sample_count(data).unwrap()));
    if columns.len() < usize::from(xor::SAMPLES_MAX) {
        let mut appender = XorAppender::resume(data).unwrap();
        appender.append(7, 7.0);
        let mut again = Columns::default();
        xor::decode(appender.as_bytes(), &mut again).unwrap();
        assert_eq!(again.timestamps.pop(), Some(7));
        assert_eq!(again.timestamps, columns.timestamps);
    }
}

/// Whatever is decoded lies in the range, in order, and start times have their samples.
fn decode(encoding: Encoding, data: &[u8]) {
    let chunk = Chunk {
        encoding,
        min_ms: 0,
        max_ms: 0,
        data: Bytes::copy_from_slice(data),
    };
    let range = TimeRange::new(-1000, 1_000_000);
    let mut columns = Columns::default();
    if chunk.decode_into(range, &mut columns).is_err() {
        assert_eq!(columns, Columns::default());
        return;
    }
    let times = &columns.timestamps;
    assert!(times.is_sorted_by(|a, b| a < b));
    assert!(times.iter().all(|time| range.contains(*time)));
    let histograms = &columns.histograms;
    assert!(histograms.is_sorted_by(|a, b| a.0 < b.0));
    assert!(histograms.iter().all(|it| range.contains(it.0)));
    assert!(columns.start_times.len() <= times.len());
    assert!(columns.histogram_start_times.len() <= histograms.len());
    write_again(histograms);
}

/// Histograms that are written again are the same, but for buckets that are empty.
fn write_again(histograms: &[(i64, Arc<FloatHistogram>)]) {
    for counts in [Counts::Integer, Counts::Float] {
        let mut again = Columns::default();
        for chunk in encode(histograms, counts, 120) {
            chunk.decode_into(TimeRange::ALL, &mut again).unwrap();
        }
        assert_eq!(again.histograms.len(), histograms.len());
        for ((time, got), (wanted_time, wanted)) in again.histograms.iter().zip(histograms) {
            assert_eq!((time, told(got)), (wanted_time, told(wanted)));
        }
    }
}

fn told(histogram: &FloatHistogram) -> String {
    let side = |buckets: &Buckets| {
        let full = buckets.iter().filter(|(_, count)| count.to_bits() != 0);
        full.map(|(index, count)| format!("{index}:{:x} ", count.to_bits()))
            .collect::<String>()
    };
    let numbers = [histogram.count, histogram.zero_count, histogram.sum];
    format!(
        "{:x?} {} {}",
        numbers.map(f64::to_bits),
        side(&histogram.positive),
        side(&histogram.negative)
    )
}
