//! Any bytes can be read as a log: as a damaged file, and as records whose checksums are right.
//!
//! Run with `cargo +nightly fuzz run wal` in `tsdb/`.
#![no_main]

use isobar_tsdb::wal::inspect;
use isobar_tsdb::wal::record::Kind;
use isobar_tsdb::wal::segment;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    inspect(data);

    // The same bytes as payloads: a kind and a length before each.
    let mut records = Vec::new();
    let mut rest = data;
    while let Some((&[kind, len], tail)) = rest.split_first_chunk() {
        let (payload, tail) = tail.split_at(usize::from(len).min(tail.len()));
        records.extend(Kind::from_u8(kind % 14).map(|kind| (kind, payload)));
        rest = tail;
    }
    let whole = segment::encode(0x0102_0304, &records);
    let (counts, damaged) = inspect(&whole);
    assert!(damaged <= records.len() as u64);

    // Cut anywhere, no more comes back than was there.
    let cut = &whole[..whole.len() - data.len() % whole.len()];
    let (fewer, _) = inspect(cut);
    assert!(fewer.series <= counts.series);
});
