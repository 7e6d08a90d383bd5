//! What is done to whole blocks: checked, copied, printed and counted, beside what promtool says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use isobar_model::histogram::CounterReset;
use isobar_model::{Labels, Matcher, TimeRange};
use isobar_tsdb::block::tools::{Rewrite, dump, rewrite, stats, verify};
use isobar_tsdb::block::{BlockMeta, BlockReader};
use isobar_tsdb::db::Cut;
use isobar_tsdb::encoding::crc32c;
use isobar_tsdb::head::incoming::Counts;
use isobar_tsdb::index::SeriesRef;
use isobar_tsdb::tombstones::Tombstones;
use ulid::Ulid;

use crate::data::{Data, all_contract_blocks, read_block, write_block};
use crate::golden::golden_blocks;
use crate::support::{TestSeries, copy_dir, histogram, open, write};

/// Runs the promtool of Prometheus 3; nothing when it is not there.
fn promtool3(args: &[&str]) -> Option<String> {
    let Ok(output) = Command::new("promtool3").args(args).output() else {
        println!("skipped: promtool3 not found");
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {args:?}: {errors}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// A data directory with nothing but a copy of one block.
fn alone(block: &Path) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let copy = parent.path().join(block.file_name().unwrap());
    copy_dir(block, &copy);
    // It takes blocks without a log for no data directory.
    fs::create_dir(parent.path().join("wal")).unwrap();
    (parent, copy)
}

/// A block of two series whose samples lie at 0, 1000, … for `samples` seconds.
fn small(parent: &Path, samples: i64) -> Arc<BlockReader> {
    let mut data = Data::new();
    for number in ["1", "2"] {
        let labels = Labels::from_pairs([("__name__", "metric"), ("number", number)]);
        let samples = (0..samples).map(|at| (at * 1000, (at as f64).to_bits()));
        data.insert(labels, samples.collect());
    }
    write_block(parent, Ulid::from_parts(1, 1), &data).unwrap()
}

/// A block that a head cut: floats and histograms, whole and not.
fn cut_block(dir: &Path) -> PathBuf {
    let db = open(dir);
    for at in 0..300i64 {
        let t = at * 15_000;
        let of = |counts| histogram((at * 3 + 1) as f64, counts, CounterReset::Unknown);
        let series = [
            TestSeries::new("__name__=up,job=a", &[(t, at as f64)]),
            TestSeries::new("__name__=up,job=b", &[(t, (at as f64).sqrt())]),
            TestSeries::of_histograms("__name__=h,counts=whole", &[(t, of(Counts::Integer))]),
            TestSeries::of_histograms("__name__=h,counts=float", &[(t, of(Counts::Float))]),
        ];
        assert_eq!(write(&db, "t", &series), [""; 0]);
    }
    db.cut_now(Cut::All).unwrap();
    db.blocks()[0].reader().dir().to_owned()
}

fn is_downsampled(block: &Path) -> bool {
    let json = fs::read(block.join("meta.json")).unwrap();
    let meta = BlockMeta::decode("meta.json", &json).unwrap();
    let thanos = meta.other.get("thanos").and_then(|it| it.get("downsample"));
    thanos.is_some_and(|it| it["resolution"] != 0)
}

#[test]
fn blocks_of_prometheus_and_thanos_are_clean() {
    let mut samples = 0;
    for dir in all_contract_blocks() {
        let report = verify(&dir).unwrap();
        let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(findings, [""; 0], "{}", dir.display());
        samples += report.read.num_samples;
    }
    println!("{samples} samples verified");
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let block = small(dir.path(), 3);
    assert!(verify(block.dir()).unwrap().is_clean());
    let name = block.meta().ulid.to_string();
    let check = |file: &str, change: &dyn Fn(&mut Vec<u8>), expected: &[&str]| {
        let (_parent, copy) = alone(block.dir());
        let path = copy.join(file);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let report = verify(&copy).unwrap();
        let found: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        let expected: Vec<_> = expected.iter().map(|it| format!("{name}/{it}")).collect();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found.starts_with(expected), "{found:#?}, not {expected}");
        }
    };
    check(
        "chunks/000001",
        &|it| it[12] ^= 1,
        &["chunks/000001 at 8: chunk: checksum"],
    );
    check(
        "chunks/000001",
        &|it| it[0] ^= 1,
        &["chunks/000001 at 0: header: magic number 84bd40dd"],
    );
    check("chunks/000001", &|it| it.push(0), &["chunks/000001 at"]);
    // A chunk without a byte, and the rest of the one that was there.
    check(
        "chunks/000001",
        &|it| {
            it[8..10].copy_from_slice(&[0, 1]);
            let checksum = crc32c(&[1]).to_be_bytes();
            it[10..14].copy_from_slice(&checksum);
        },
        &["chunks/000001 at 8: chunk: ", "chunks/000001 at 14: "],
    );
    check("index", &|it| it[0] ^= 1, &["index at 0: header: magic"]);
    check(
        "index",
        &|it| {
            let at = it.len() - 9;
            it[at] ^= 1
        },
        &["index at"],
    );
    check(
        "tombstones",
        &|it| it[7] ^= 1,
        &["tombstones at 5: stones at 5: checksum"],
    );
    check("meta.json", &|it| it.truncate(9), &["meta.json at 8: EOF"]);
    let change = |from: &'static str, to: &'static str| {
        move |it: &mut Vec<u8>| {
            let text = String::from_utf8(it.clone()).unwrap();
            assert!(text.contains(from), "{text}");
            *it = text.replace(from, to).into_bytes();
        }
    };
    check(
        "meta.json",
        &change("\"numSamples\": 6", "\"numSamples\": 7"),
        &["meta.json: says 7 samples, there are 6"],
    );
    check(
        "meta.json",
        &change("\"maxTime\": 2001", "\"maxTime\": 2000"),
        &[
            "index at 48: series: a chunk from 0 to 2000",
            "index at 64: series: a chunk from 0 to 2000",
        ],
    );
}

#[test]
fn a_dump_is_that_of_promtool() {
    const CHUNKS_BYTES_MAX: u64 = 800_000;
    let mut compared = 0;
    let golden = golden_blocks().map(|(_, dir)| dir);
    let here = tempfile::tempdir().unwrap();
    let ours = [cut_block(here.path())];
    assert!(verify(&ours[0]).unwrap().is_clean());
    for dir in all_contract_blocks().into_iter().chain(golden).chain(ours) {
        // The larger ones hold nothing else.
        let bytes = fs::metadata(dir.join("chunks/000001")).unwrap().len();
        if is_downsampled(&dir) || bytes > CHUNKS_BYTES_MAX {
            continue;
        }
        let (parent, copy) = alone(&dir);
        let Some(theirs) = promtool3(&["tsdb", "dump", parent.path().to_str().unwrap()]) else {
            return;
        };
        let mut ours = Vec::new();
        let block = BlockReader::open(copy).unwrap();
        dump(&block, &[], TimeRange::ALL, &mut ours).unwrap();
        let ours = String::from_utf8(ours).unwrap();
        for (ours, theirs) in ours.lines().zip(theirs.lines()) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours.lines().count(), theirs.lines().count());
        compared += ours.lines().count();
    }
    println!("{compared} lines equal");
}

/// The lines of an analysis, section by section, sorted where promtool leaves their order open.
fn sections(analysis: &str) -> BTreeMap<&str, Vec<&str>> {
    let (mut sections, mut title) = (BTreeMap::new(), "");
    let rankings = analysis.split("\nCompaction analysis").next().unwrap();
    for line in rankings.lines() {
        match line.ends_with(':') {
            true => title = line,
            false => sections.entry(title).or_insert_with(Vec::new).push(line),
        }
    }
    sections
        .values_mut()
        .for_each(|lines| lines.sort_unstable());
    sections
}

#[test]
fn an_analysis_is_that_of_promtool() {
    let dir = tempfile::tempdir().unwrap();
    let mut blocks = all_contract_blocks();
    blocks.push(small(dir.path(), 300).dir().to_owned());
    blocks.extend(golden_blocks().map(|(_, dir)| dir));
    let here = tempfile::tempdir().unwrap();
    blocks.push(cut_block(here.path()));
    for dir in blocks {
        if is_downsampled(&dir) {
            continue;
        }
        let (parent, copy) = alone(&dir);
        let block = BlockReader::open(copy).unwrap();
        let ulid = block.meta().ulid.to_string();
        let path = parent.path().to_str().unwrap();
        let args = [
            "tsdb",
            "analyze",
            "--extended",
            "--limit=1000000",
            path,
            &ulid,
        ];
        let Some(theirs) = promtool3(&args) else {
            return;
        };
        let ours = stats(&block).unwrap().text(1_000_000);
        let (ours, bytes) = ours.split_once("Bytes:\n").unwrap();
        assert!(bytes.contains(" postings\n"), "{bytes}");
        assert_eq!(sections(ours), sections(&theirs), "{}", dir.display());
        let chunks = |text: &str| {
            text.split_once("\nCompaction analysis")
                .unwrap()
                .1
                .to_owned()
        };
        assert_eq!(chunks(ours), chunks(&theirs), "{}", dir.display());
        let sizes = stats(&block).unwrap().section_bytes;
        let index: u64 = sizes
            .iter()
            .filter(|it| it.0 != "chunks")
            .map(|it| it.1)
            .sum();
        // Header and table of contents are in no section.
        assert_eq!(
            index + 5 + 52,
            fs::metadata(dir.join("index")).unwrap().len()
        );
    }
}

#[test]
fn a_copy_has_the_same_bytes() {
    for dir in all_contract_blocks() {
        let block = BlockReader::open(&dir).unwrap();
        let parent = tempfile::tempdir().unwrap();
        let ulid = Ulid::from_parts(7, 7);
        let meta = rewrite(&block, parent.path(), ulid, &Rewrite::default())
            .unwrap()
            .unwrap();
        let copy = parent.path().join(ulid.to_string());
        for file in ["index", "chunks/000001"] {
            let same = fs::read(dir.join(file)).unwrap() == fs::read(copy.join(file)).unwrap();
            assert!(same, "{} {file}", dir.display());
        }
        assert_eq!(meta.stats, block.meta().stats);
        assert_eq!(meta.compaction.parents[0].ulid, block.meta().ulid);
        assert!(verify(&copy).unwrap().is_clean());
    }
}

#[test]
fn what_is_deleted_or_not_asked_for_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let block = small(dir.path(), 300);
    let mut tombstones = Tombstones::default();
    let first: SeriesRef = block.index().all_postings().unwrap().into_vec()[0];
    tombstones.add(first, TimeRange::new(10_000, 19_999));
    fs::write(block.dir().join("tombstones"), tombstones.encode()).unwrap();
    let block = BlockReader::open(block.dir()).unwrap();
    let check = |what: Rewrite, expected: &[(&str, usize)]| {
        let to = tempfile::tempdir().unwrap();
        let ulid = Ulid::from_parts(2, 2);
        let written = rewrite(&block, to.path(), ulid, &what).unwrap();
        assert_eq!(written.is_some(), !expected.is_empty());
        if expected.is_empty() {
            return;
        }
        let copy = BlockReader::open(to.path().join(ulid.to_string())).unwrap();
        assert!(copy.tombstones().is_empty());
        let report = verify(copy.dir()).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
        let mut read = Data::new();
        read_block(&copy, &mut read);
        let found = read
            .iter()
            .map(|(labels, samples)| (labels.get("number"), samples.len()));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    };
    check(Rewrite::default(), &[("1", 290), ("2", 300)]);
    let matchers = vec![Matcher::equal("number", "2")];
    check(
        Rewrite {
            matchers,
            ..Rewrite::default()
        },
        &[("2", 300)],
    );
    let range = TimeRange::new(15_000, 130_000);
    check(
        Rewrite {
            range,
            ..Rewrite::default()
        },
        &[("1", 111), ("2", 116)],
    );
    let range = TimeRange::new(400_000, i64::MAX);
    check(
        Rewrite {
            range,
            ..Rewrite::default()
        },
        &[],
    );
}
