//! Any bytes are an index that can be walked, or give errors. Checksums count as right here, so
//! that what lies behind them is reached.
//!
//! Run with `cargo +nightly fuzz run index` in `tsdb/`.
#![no_main]

use bytes::Bytes;
use isobar_model::{MatchOp, Matcher};
use isobar_tsdb::Error;
use isobar_tsdb::index::{IndexReader, SeriesEntry};
use libfuzzer_sys::fuzz_target;

fn walk(data: &[u8]) -> Result<(), Error> {
    let index = IndexReader::open("index", Bytes::copy_from_slice(data))?;
    for symbol in index.symbols() {
        let _ = index.find_symbol(symbol?);
    }
    let mut entry = SeriesEntry::default();
    for name in index.label_names() {
        for value in index.label_values(name, "")? {
            let (value, offset) = value?;
            let _ = index.postings(name, value)?;
            for series in index.postings_at(offset)?.into_vec().into_iter().take(100) {
                if index.series(series, &mut entry).is_ok() {
                    for (name, value) in &entry.labels {
                        let _ = (index.symbol(*name), index.symbol(*value));
                    }
                }
            }
        }
        for (op, value) in [
            (MatchOp::Equal, "a"),
            (MatchOp::NotEqual, ""),
            (MatchOp::Regexp, "a.*|b"),
            (MatchOp::NotRegexp, "a|b"),
        ] {
            let matchers = [Matcher::new(name, op, value).unwrap()];
            let _ = index.matching(&matchers);
            let _ = index.matching_label_names(&matchers);
            let _ = index.matching_label_values(name, &matchers);
            let _ = index.matching_label_values("b", &matchers);
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = walk(data);
});
