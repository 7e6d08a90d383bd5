//! Any bytes decode to the announced number of samples or to an error, and what decodes can be
//! appended to.
//!
//! Run with `cargo +nightly fuzz run chunk_decode` in `tsdb/`.
#![no_main]

use bytes::Bytes;
use isobar_model::{Columns, TimeRange};
use isobar_tsdb::chunks::{Chunk, Encoding, XorAppender, xor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
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
    let data = Bytes::copy_from_slice(data);
    let chunk = Chunk {
        encoding: Encoding::Xor,
        min_ms: 0,
        max_ms: 0,
        data,
    };
    columns.clear();
    chunk
        .decode_into(TimeRange::new(-1000, 1_000_000), &mut columns)
        .unwrap();
    assert!(columns.timestamps.is_sorted_by(|a, b| a < b));
    assert!(
        columns
            .timestamps
            .iter()
            .all(|time| (-1000..=1_000_000).contains(time))
    );
});
