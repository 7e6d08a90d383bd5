//! Blocks that Prometheus and Thanos wrote: they open, hold what they say, and are written back
//! as they were.

use std::fs;

use isobar_model::{Columns, TimeRange};
use isobar_tsdb::Error;
use isobar_tsdb::block::{BlockMeta, BlockReader, BlockWriter};
use isobar_tsdb::chunks::{Encoding, XorAppender};

use crate::data::all_contract_blocks;

#[test]
fn blocks_hold_what_their_meta_says() {
    for dir in all_contract_blocks() {
        let block = BlockReader::open(&dir).unwrap();
        let stats = &block.meta().stats;
        let (mut series_count, mut chunks, mut floats, mut histograms) = (0, 0, 0, 0);
        let mut aggregates = 0;
        let mut last = None;
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let series = series.unwrap();
            series_count += 1;
            chunks += series.chunks.len() as u64;
            for chunk in &series.chunks {
                let mut columns = Columns::default();
                let decoded = chunk.decode_into(TimeRange::ALL, &mut columns);
                match chunk.encoding {
                    Encoding::Xor => {
                        decoded.unwrap();
                        assert_eq!(columns.timestamps.first(), Some(&chunk.min_ms));
                        assert_eq!(columns.timestamps.last(), Some(&chunk.max_ms));
                        floats += columns.len() as u64;
                    }
                    encoding => {
                        assert!(matches!(decoded, Err(Error::Unsupported(_))));
                        match encoding {
                            Encoding::Aggregate => aggregates += 1,
                            _ => histograms += u64::from(chunk.sample_count().unwrap()),
                        }
                    }
                }
            }
            assert!(last < Some(series.labels.clone()), "{}", series.labels);
            last = Some(series.labels);
        }
        assert_eq!(series_count, stats.num_series, "{}", dir.display());
        assert_eq!(chunks, stats.num_chunks, "{}", dir.display());
        if aggregates == 0 {
            assert_eq!(floats, stats.num_float_samples, "{}", dir.display());
            assert_eq!(histograms, stats.num_histogram_samples, "{}", dir.display());
        }
    }
}

#[test]
fn blocks_are_written_back_as_they_were() {
    for dir in all_contract_blocks() {
        let block = BlockReader::open(&dir).unwrap();
        let copy = tempfile::tempdir().unwrap();
        // Prometheus takes the symbols of a whole head, so a block may have more than it needs.
        let symbols = block.index().symbols();
        let mut writer = BlockWriter::create(copy.path(), block.meta().clone(), symbols).unwrap();
        writer
            .add_all(block.select(&[], TimeRange::ALL).unwrap())
            .unwrap();
        writer.finish().unwrap().unwrap();
        let written = copy.path().join(block.meta().ulid.to_string());
        for file in ["index", "chunks/000001"] {
            let same = fs::read(dir.join(file)).unwrap() == fs::read(written.join(file)).unwrap();
            assert!(same, "{file} of {}", dir.display());
        }
        assert_eq!(
            fs::read_dir(copy.path()).unwrap().count(),
            1,
            "nothing else is left"
        );
    }
}

#[test]
fn chunks_are_encoded_as_prometheus_encodes_them() {
    let mut columns = Columns::default();
    for dir in all_contract_blocks() {
        let block = BlockReader::open(&dir).unwrap();
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let chunks = series.unwrap().chunks;
            for chunk in chunks
                .iter()
                .filter(|chunk| chunk.encoding == Encoding::Xor)
            {
                columns.clear();
                chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
                let mut appender = XorAppender::new();
                for (timestamp_ms, value) in columns.timestamps.iter().zip(&columns.values) {
                    appender.append(*timestamp_ms, *value);
                }
                assert_eq!(appender.as_bytes(), chunk.data);
            }
        }
    }
}

#[test]
fn metas_are_written_back_with_all_their_fields() {
    for dir in all_contract_blocks() {
        let path = dir.join("meta.json");
        let text = fs::read_to_string(&path).unwrap();
        let written = BlockMeta::decode("meta.json", text.as_bytes())
            .unwrap()
            .encode();
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(&written), parse(&text), "{}", path.display());
        assert_eq!(
            written.lines().count(),
            text.lines().count(),
            "{}",
            path.display()
        );
    }
}
