//! Blocks that Prometheus and Thanos wrote: they open, hold what they say, and are written back
//! as they were.

use std::fs;
use std::process::Command;

use isobar_model::{Columns, TimeRange};
use isobar_tsdb::Error;
use isobar_tsdb::block::{BlockMeta, BlockReader, BlockWriter};
use isobar_tsdb::chunks::histogram::{self, Counts};
use isobar_tsdb::chunks::{Encoding, XorAppender};

use isobar_tsdb::merge::read_samples;

use crate::data::{all_contract_blocks, contract_blocks};

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
                    Encoding::Histogram | Encoding::FloatHistogram => {
                        decoded.unwrap();
                        let times: Vec<_> = columns.histograms.iter().map(|it| it.0).collect();
                        assert_eq!(times.first(), Some(&chunk.min_ms));
                        assert_eq!(times.last(), Some(&chunk.max_ms));
                        assert_eq!(times.len(), usize::from(chunk.sample_count().unwrap()));
                        histograms += times.len() as u64;
                    }
                    encoding => {
                        assert!(matches!(decoded, Err(Error::Unsupported(_))));
                        assert_eq!(encoding, Encoding::Aggregate);
                        aggregates += 1;
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

/// Needs a promtool that prints histograms, which Debian's does not.
#[test]
fn histograms_are_those_of_promtool() {
    let blocks = contract_blocks("promql/data");
    let Some(dir) = blocks.first() else { return };
    let parent = tempfile::tempdir().unwrap();
    let copy = parent.path().join(dir.file_name().unwrap());
    fs::create_dir_all(copy.join("chunks")).unwrap();
    fs::create_dir(parent.path().join("wal")).unwrap();
    for file in ["meta.json", "index", "chunks/000001"] {
        fs::copy(dir.join(file), copy.join(file)).unwrap();
    }
    let mut dump = Command::new("promtool3");
    let Ok(output) = dump.args(["tsdb", "dump"]).arg(parent.path()).output() else {
        println!("skipped: promtool3 not found");
        return;
    };
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut want: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(" {count:"))
        .collect();

    let mut lines = Vec::new();
    let block = BlockReader::open(dir).unwrap();
    for series in block.select(&[], TimeRange::ALL).unwrap() {
        let series = series.unwrap();
        let mut columns = Columns::default();
        read_samples(&series.chunks, TimeRange::ALL, &mut columns).unwrap();
        for (time, histogram) in &columns.histograms {
            lines.push(format!("{} {histogram} {time}", series.labels));
        }
    }
    assert_eq!(lines.len() as u64, block.meta().stats.num_histogram_samples);
    let mut got: Vec<&str> = lines.iter().map(String::as_str).collect();
    // By labels and time: the rest of the line may differ in how numbers are written.
    let key = |line: &&str| {
        let (head, rest) = line.split_once(" {count:").unwrap();
        format!("{head} {}", rest.rsplit_once(' ').unwrap().1)
    };
    got.sort_by_cached_key(key);
    want.sort_by_cached_key(key);
    for (got, want) in got.iter().zip(&want) {
        assert_eq!(parts(got), parts(want));
    }
    assert_eq!(got.len(), want.len());
    println!("{} histogram samples are those of promtool", got.len());
}

/// The parts of a line, numbers in one form: integer histograms print theirs in another.
fn parts(line: &str) -> Vec<String> {
    let parts = line.split([' ', ',', ':', '[', ']', '(', ')', '}']);
    let one_form = |part: &str| match part.parse::<f64>() {
        Ok(number) => format!("{number:e}"),
        Err(_) => part.to_owned(),
    };
    parts.map(one_form).collect()
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
fn histogram_chunks_are_encoded_as_prometheus_encodes_them() {
    let mut compared = 0;
    for dir in all_contract_blocks() {
        let block = BlockReader::open(&dir).unwrap();
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            for chunk in series.unwrap().chunks {
                let counts = match chunk.encoding {
                    Encoding::Histogram => Counts::Integer,
                    Encoding::FloatHistogram => Counts::Float,
                    _ => continue,
                };
                let mut columns = Columns::default();
                chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
                let written = histogram::encode(&columns.histograms, counts, usize::MAX);
                let [written] = written.as_slice() else {
                    panic!("{} chunks of one", written.len());
                };
                // What is known of resets before the chunk is not decoded.
                assert_eq!(written.data[..2], chunk.data[..2]);
                assert_eq!(written.data[3..], chunk.data[3..]);
                assert_eq!(written.encoding, chunk.encoding);
                compared += 1;
            }
        }
    }
    println!("{compared} histogram chunks were written as they were");
    assert!(compared > 0 || all_contract_blocks().is_empty());
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
