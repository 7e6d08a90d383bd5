//! What a block does besides holding series: old formats, deletions, missing parts.

use std::fs;
use std::path::Path;

use isobar_model::{Labels, MatchOp, Matcher, TimeRange};
use isobar_tsdb::Error;
use isobar_tsdb::block::{BlockMeta, BlockReader, BlockWriter};
use isobar_tsdb::index::SeriesRef;
use isobar_tsdb::merge::{SeriesIter, merge};
use isobar_tsdb::tombstones::Tombstones;
use ulid::Ulid;

use crate::data::{Data, read_block, write_block};

fn data(series: i64, samples: i64) -> Data {
    let series = (0..series).map(|i| {
        let labels = Labels::from_pairs([("__name__", "metric"), ("number", &i.to_string())]);
        (
            labels,
            (0..samples)
                .map(|at| (at * 1000, (at + i) as u64))
                .collect(),
        )
    });
    series.collect()
}

#[test]
fn an_index_of_version_1_is_read() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/index_format_v1");
    let block = BlockReader::open(dir).unwrap();
    let mut read = Data::new();
    read_block(&block, &mut read);
    assert_eq!(read.len(), 102);
    assert!(read.values().all(|samples| samples.len() == 1));
    let names = block.label_names(&[], TimeRange::ALL).unwrap();
    assert_eq!(names, ["bar", "foo"]);
    for name in &names {
        let values = block.label_values(name, &[], TimeRange::ALL).unwrap();
        assert!(values.is_sorted() && !values.is_empty());
        for value in values {
            let matcher = Matcher::equal(name.as_str(), value.as_str());
            let selected = block
                .select(std::slice::from_ref(&matcher), TimeRange::ALL)
                .unwrap();
            let selected: Vec<_> = selected.map(|series| series.unwrap().labels).collect();
            let matching = read.keys().filter(|labels| labels.get(name) == value);
            assert_eq!(
                selected.iter().collect::<Vec<_>>(),
                matching.collect::<Vec<_>>()
            );
            let other = Matcher::new("nothing", MatchOp::NotEqual, "x").unwrap();
            let found = block
                .label_values(name, &[matcher, other], TimeRange::ALL)
                .unwrap();
            assert_eq!(found, [value]);
        }
    }
}

#[test]
fn deleted_samples_are_not_given() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = data(4, 400);
    let block = write_block(dir.path(), Ulid::from_parts(1, 1), &data).unwrap();
    let refs: Vec<SeriesRef> = block.index().all_postings().unwrap().into_vec();
    let mut tombstones = Tombstones::default();
    let deleted = [
        (0, TimeRange::new(100_500, 200_000)),
        (1, TimeRange::new(i64::MIN, 5_000)),
        (1, TimeRange::new(390_000, i64::MAX)),
        (2, TimeRange::ALL),
    ];
    for (series, range) in deleted {
        tombstones.add(refs[series], range);
    }
    fs::write(block.dir().join("tombstones"), tombstones.encode()).unwrap();

    for (series, range) in deleted {
        let samples = data.values_mut().nth(series).unwrap();
        samples.retain(|sample| !range.contains(sample.0));
    }
    data.retain(|_, samples| !samples.is_empty());
    let mut read = Data::new();
    read_block(&BlockReader::open(block.dir()).unwrap(), &mut read);
    assert!(read == data, "deleted samples are given or others are not");
}

#[test]
fn blocks_are_merged_into_one() {
    let dir = tempfile::tempdir().unwrap();
    let part = |keep: &dyn Fn(usize, i64) -> bool| -> Data {
        let series = data(5, 700)
            .into_iter()
            .enumerate()
            .map(|(i, (labels, mut samples))| {
                samples.retain(|sample| keep(i, sample.0 / 1000));
                (labels, samples)
            });
        series.filter(|(_, samples)| !samples.is_empty()).collect()
    };
    let parts = [
        part(&|i, at| i != 3 && at < 300),
        part(&|i, at| i > 1 && (200..500).contains(&at)),
        part(&|_, at| at >= 450),
    ];
    let blocks: Vec<_> = (1..)
        .zip(&parts)
        .map(|(i, part)| write_block(dir.path(), Ulid::from_parts(i, 1), part).unwrap())
        .collect();
    let sources: Vec<SeriesIter> = blocks
        .iter()
        .map(|block| block.select(&[], TimeRange::ALL).unwrap())
        .collect();
    let meta = BlockMeta::new(Ulid::from_parts(9, 9), 0, 700_000);
    let symbols = ["0", "1", "2", "3", "4", "__name__", "metric", "number"];
    let mut writer = BlockWriter::create(dir.path(), meta, symbols.map(Ok)).unwrap();
    writer.add_all(merge(sources)).unwrap();
    let meta = writer.finish().unwrap().unwrap();

    let mut expected = Data::new();
    for (labels, samples) in parts.into_iter().flatten() {
        expected.entry(labels).or_default().extend(samples);
    }
    for samples in expected.values_mut() {
        samples.sort_unstable();
        samples.dedup();
    }
    let mut read = Data::new();
    read_block(
        &BlockReader::open(dir.path().join(meta.ulid.to_string())).unwrap(),
        &mut read,
    );
    assert!(read == expected, "samples differ");
    assert_eq!(
        meta.stats.num_samples,
        expected.values().map(Vec::len).sum::<usize>() as u64
    );
}

#[test]
fn nothing_is_left_of_a_block_that_was_not_finished() {
    let dir = tempfile::tempdir().unwrap();
    let entries = || fs::read_dir(dir.path()).unwrap().count();
    let create = || {
        let meta = BlockMeta::new(Ulid::from_parts(1, 1), 0, 1);
        BlockWriter::create(dir.path(), meta, ["a", "b"].map(Ok)).unwrap()
    };
    let writer = create();
    assert_eq!(entries(), 1);
    drop(writer);
    assert_eq!(entries(), 0);
    assert_eq!(create().finish().unwrap(), None);
    assert_eq!(entries(), 0);

    let mut writer = create();
    let columns = isobar_model::Columns {
        timestamps: vec![1],
        values: vec![1.0],
        ..isobar_model::Columns::default()
    };
    let counts = isobar_tsdb::chunks::histogram::Counts::Integer;
    let chunks = isobar_tsdb::merge::encode(&columns, counts);
    let unknown = writer.add(&Labels::from_pairs([("a", "c")]), &chunks);
    assert!(matches!(unknown, Err(Error::Corrupt { .. })));
    let mut writer = create();
    writer
        .add(&Labels::from_pairs([("a", "b")]), &chunks)
        .unwrap();
    let twice = writer.add(&Labels::from_pairs([("a", "b")]), &chunks);
    assert!(matches!(twice, Err(Error::Corrupt { .. })));
}

#[test]
fn missing_and_foreign_files_are_named() {
    let check = |file: &str, damage: &dyn Fn(&Path), expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        let block = write_block(dir.path(), Ulid::from_parts(1, 1), &data(2, 2)).unwrap();
        damage(&block.dir().join(file));
        let error = BlockReader::open(block.dir()).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(expected), "{error}");
    };
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    let empty = |path: &Path| fs::write(path, "").unwrap();
    let text = |path: &Path| fs::write(path, "certainly no block").unwrap();
    check("index", &remove, "open");
    check("index", &empty, "header");
    check("index", &text, "magic number 63657274");
    check("meta.json", &remove, "read");
    check("meta.json", &empty, "EOF");
    check("tombstones", &empty, "header");
    check("tombstones", &text, "magic number");
}
