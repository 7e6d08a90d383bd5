//! Any bytes can be read as what a Prometheus leaves: as a segment of its log, as records in one
//! whose pages are right, and as a file of head chunks, whose chunks are decoded.
//!
//! Run with `cargo +nightly fuzz run foreign` in `tsdb/`. Checksums are not looked at then.
#![no_main]

use bytes::Bytes;
use isobar_model::{Columns, FloatHistogram, Labels, TimeRange};
use isobar_tsdb::chunks::histogram::Counts;
use isobar_tsdb::foreign::head_chunks::{self, HeadChunkReader};
use isobar_tsdb::foreign::record::{self, At, RecordSink, SeriesNumber};
use isobar_tsdb::foreign::segment::{self, SegmentReader};
use libfuzzer_sys::fuzz_target;

struct Count(u64);

impl RecordSink for Count {
    fn series(&mut self, _: SeriesNumber, labels: Labels) {
        self.0 += 1;
        assert!(labels.iter().all(|(_, value)| !value.is_empty()));
    }
    fn float(&mut self, _: At, _: f64) {
        self.0 += 1;
    }
    fn histogram(&mut self, _: At, histogram: FloatHistogram, _: Counts) {
        self.0 += 1;
        assert!(histogram.schema <= 8);
    }
    fn unknown_histogram(&mut self, _: At) {
        self.0 += 1;
    }
    fn tombstone(&mut self, _: SeriesNumber, _: TimeRange) {
        self.0 += 1;
    }
    fn exemplar(&mut self, _: At, _: f64, _: Labels) {
        self.0 += 1;
    }
    fn metadata(&mut self, _: SeriesNumber, _: u8, _: &str, _: &str) {
        self.0 += 1;
    }
}

fn read_segment(bytes: &[u8]) -> (u64, u64) {
    let (mut count, mut damages) = (Count(0), 0);
    let mut reader = SegmentReader::new(bytes);
    while let Some(record) = reader.next_record() {
        match record {
            // Not being a record is as good.
            Ok(record) => drop(record::decode(record, &mut count)),
            Err(_) => damages += 1,
        }
    }
    (count.0, damages)
}

fn read_chunks(bytes: Bytes) {
    let Ok(reader) = HeadChunkReader::new(&bytes) else {
        return;
    };
    for chunk in reader.flatten() {
        let mut columns = Columns::default();
        // Any bytes are a chunk or corrupt.
        let _ = chunk.chunk.decode_into(TimeRange::ALL, &mut columns);
    }
}

fuzz_target!(|data: &[u8]| {
    read_segment(data);

    // The same bytes as records: a length before each.
    let mut records = Vec::new();
    let mut rest = data;
    while let Some((len, tail)) = rest.split_first() {
        let (record, tail) = tail.split_at(usize::from(*len).min(tail.len()));
        records.push(record.to_vec());
        rest = tail;
    }
    let whole = segment::write::segment(&records);
    let (_, damages) = read_segment(&whole);
    assert_eq!(damages, 0);

    let mut file = head_chunks::write::file(&[]);
    file.extend_from_slice(data);
    read_chunks(Bytes::from(file));
});
