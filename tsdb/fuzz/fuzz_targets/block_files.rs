//! Any bytes are a `meta.json`, a tombstones file or a chunk segment, or give errors; what was
//! understood is written and understood again.
//!
//! Run with `cargo +nightly fuzz run block_files` in `tsdb/`.
#![no_main]

use bytes::Bytes;
use isobar_tsdb::block::BlockMeta;
use isobar_tsdb::chunks::{ChunkRef, SegmentReader};
use isobar_tsdb::tombstones::Tombstones;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(meta) = BlockMeta::decode("meta.json", data) {
        let again = BlockMeta::decode("meta.json", meta.encode().as_bytes()).unwrap();
        assert_eq!(again, meta);
    }
    if let Ok(tombstones) = Tombstones::decode("tombstones", data) {
        let again = Tombstones::decode("tombstones", &tombstones.encode()).unwrap();
        assert_eq!(again, tombstones);
    }
    if let Ok(segments) = SegmentReader::new("chunks", vec![Bytes::copy_from_slice(data)]) {
        for offset in 0..=data.len() as u32 {
            let _ = segments.chunk(ChunkRef::new(0, offset));
        }
        assert!(segments.chunk(ChunkRef::new(1, 8)).is_err());
    }
});
