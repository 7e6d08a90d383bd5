//! Directories as Prometheus and Thanos Receive leave them, made by hand: what becomes of each
//! thing in them, and what a crash at any change of the files leaves.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use isobar_model::{Clock, Columns, TimeRange};
use proptest::prelude::*;

use super::head_chunks::{self, HeadChunk, HeadChunkReader};
use super::record::{self, At, RecordSink, SeriesNumber};
use super::segment::{self, SegmentReader};
use crate::Db;
use crate::chunks::{Chunk, XorAppender};
use crate::db::DbConfig;
use crate::encoding::{put_be64, put_uvarint, put_uvarint_str, put_varint};
use crate::merge::read_samples;

const HOUR_MS: i64 = 3_600_000;

fn series(number: u64, name: &str) -> Vec<u8> {
    let mut out = vec![1];
    put_be64(&mut out, number);
    put_uvarint(&mut out, 1);
    put_uvarint_str(&mut out, "__name__");
    put_uvarint_str(&mut out, name);
    out
}

fn floats(samples: &[(u64, i64, f64)]) -> Vec<u8> {
    let mut out = vec![2];
    put_be64(&mut out, 7);
    put_be64(&mut out, 1000);
    for (number, ms, value) in samples {
        put_varint(&mut out, number.cast_signed() - 7);
        put_varint(&mut out, ms - 1000);
        put_be64(&mut out, value.to_bits());
    }
    out
}

/// Samples with start times, as Prometheus 3.14 may write them.
fn chained(samples: &[(u64, i64, i64, f64)]) -> Vec<u8> {
    let mut out = vec![11];
    let (first, mut before) = (samples[0], samples[0]);
    for (at, sample) in samples.iter().enumerate() {
        if at == 0 {
            put_varint(&mut out, sample.0.cast_signed());
            put_varint(&mut out, sample.1);
            put_varint(&mut out, sample.2);
        } else {
            put_varint(&mut out, sample.0.cast_signed() - before.0.cast_signed());
            put_varint(&mut out, sample.1 - first.1);
            match sample.2 {
                0 => out.push(0),
                start_ms if start_ms == before.2 => out.push(1),
                start_ms => {
                    out.push(2);
                    put_varint(&mut out, start_ms - first.2);
                }
            }
        }
        put_be64(&mut out, sample.3.to_bits());
        before = *sample;
    }
    out
}

fn exemplar(number: u64, ms: i64, trace: &str) -> Vec<u8> {
    let mut out = floats(&[(number, ms, 0.5)]);
    out[0] = 4;
    put_uvarint(&mut out, 1);
    put_uvarint_str(&mut out, "trace");
    put_uvarint_str(&mut out, trace);
    out
}

fn metadata(number: u64, help: &str) -> Vec<u8> {
    let mut out = vec![6];
    put_uvarint(&mut out, number);
    out.push(1);
    put_uvarint(&mut out, 2);
    for text in ["HELP", help, "MOOD", "fine"] {
        put_uvarint_str(&mut out, text);
    }
    out
}

fn tombstone(number: u64, min_ms: i64, max_ms: i64) -> Vec<u8> {
    let mut out = vec![3];
    put_be64(&mut out, number);
    put_varint(&mut out, min_ms);
    put_varint(&mut out, max_ms);
    out
}

fn chunk(number: u64, late: bool, samples: &[(i64, f64)]) -> HeadChunk {
    let mut appender = XorAppender::new();
    samples
        .iter()
        .for_each(|(ms, value)| appender.append(*ms, *value));
    HeadChunk {
        series: SeriesNumber(number),
        late,
        offset: 0,
        chunk: appender.into_chunk().unwrap(),
    }
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A directory with something of everything.
fn leave(dir: &Path) {
    let checkpoint = [series(1, "a"), floats(&[(1, 50, 0.5)])];
    let old = [series(1, "a"), floats(&[(1, 1, 99.0)])];
    let log = [
        series(2, "b"),
        // In the chunk below, behind it, and of a series that nobody knows.
        floats(&[
            (1, 200, 2.0),
            (1, 400, 4.0),
            (1, 4 * HOUR_MS, 5.0),
            (77, 1, 1.0),
        ]),
        // Another number for a series that is there.
        series(3, "a"),
        floats(&[
            (3, 4 * HOUR_MS + 1, 6.0),
            (2, 10, 1.0),
            (2, 20, 2.0),
            (2, 30, 3.0),
        ]),
        tombstone(2, 15, 25),
        exemplar(1, 399, "x"),
        exemplar(1, 399, "x"),
        metadata(2, "what it is"),
        chained(&[
            (2, 40, 0, 4.0),
            (2, 50, 35, 5.0),
            (1, 4 * HOUR_MS + 2, 35, 7.0),
        ]),
    ];
    put(
        &dir.join("wal/checkpoint.00000004/00000000"),
        &segment::write::segment(&checkpoint),
    );
    put(&dir.join("wal/checkpoint.00000002/00000000"), b"older");
    put(&dir.join("wal/00000003"), &segment::write::segment(&old));
    put(&dir.join("wal/00000005"), &segment::write::segment(&log));
    let late = [floats(&[(2, 5, 0.5), (1, 350, 3.5)])];
    put(&dir.join("wbl/00000000"), &segment::write::segment(&late));
    let chunks = [
        chunk(1, false, &[(100, 1.0), (200, 2.0), (300, 3.0)]),
        chunk(2, true, &[(5, 0.5), (7, 0.7)]),
        chunk(88, false, &[(1, 1.0)]),
    ];
    put(
        &dir.join("chunks_head/000001"),
        &head_chunks::write::file(&chunks),
    );
}

const LEFT: [&str; 2] = [
    "default-tenant {__name__=\"a\"} 50:0.5 100:1 200:2 300:3 350:3.5 400:4 14400000:5 14400001:6 \
     14400002:7",
    "default-tenant {__name__=\"b\"} 5:0.5 7:0.7 10:1 30:3 40:4 50:5",
];

fn open(dir: &Path) -> (Db, Vec<String>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let mut config = DbConfig::new(dir);
    config.clock = Clock::manual(4_102_444_800_000);
    let root = dir.display().to_string();
    config.events = Arc::new(move |event| {
        let text = event.to_string().replace(&root, "DIR");
        sink.lock().unwrap().push(text);
    });
    let db = Db::open(config).unwrap();
    let events = events.lock().unwrap().clone();
    (db, events)
}

fn contents(db: &Db) -> Vec<String> {
    let mut lines = Vec::new();
    let tenants: BTreeSet<_> = db.blocks().iter().map(|it| it.tenant().clone()).collect();
    for tenant in tenants {
        for series in db.select(Some(&tenant), &[], TimeRange::ALL).unwrap() {
            let series = series.unwrap();
            let mut columns = Columns::default();
            read_samples(&series.chunks, TimeRange::ALL, &mut columns).unwrap();
            let samples = columns.timestamps.iter().zip(&columns.values);
            let samples: Vec<_> = samples.map(|(t, v)| format!("{t}:{v}")).collect();
            lines.push(format!("{tenant} {} {}", series.labels, samples.join(" ")));
        }
    }
    lines
}

#[test]
fn all_that_a_head_left_becomes_blocks() {
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path());
    let (db, events) = open(dir.path());
    assert_eq!(contents(&db), LEFT);
    assert_eq!(
        events,
        [
            "DIR/ taken over for default-tenant: 2 blocks; of its log 2 series, 15 samples, 0 \
             histograms, 1 exemplars",
            "not taken over from DIR/: 2 samples of series without labels, 2 start times of samples"
        ]
    );
    let all = [vec![]];
    let found = db.exemplars(None, &all, TimeRange::ALL);
    let (labels, exemplars) = &found.series[0];
    assert_eq!((labels.metric_name(), exemplars.len()), ("a", 1));
    assert_eq!(exemplars[0].labels.get("trace"), "x");
    let said = db.metadata().list(None, None, None, None);
    assert_eq!(
        (said[0].0.as_str(), said[0].1[0].kind.as_str()),
        ("b", "counter")
    );
    assert_eq!(said[0].1[0].help, "what it is");
    drop(db);
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("wal") || name.contains("imp"))
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    // Prometheus comes back and writes a log of its own.
    let log = [
        series(1, "c"),
        floats(&[(1, 1, 1.0), (1, 5 * HOUR_MS, 1.0)]),
    ];
    put(
        &dir.path().join("wal/00000000"),
        &segment::write::segment(&log),
    );
    let (db, events) = open(dir.path());
    // What is older than the newest block was in it.
    assert_eq!(
        contents(&db)[2..],
        ["default-tenant {__name__=\"c\"} 18000000:1"]
    );
    assert_eq!(events.len(), 1);
    assert!(dir.path().join("wal.imported.2").is_dir());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Opens what is there before each change that taking over makes.
fn check_crashes(leave: impl Fn(&Path), expected: &[&str]) -> usize {
    // In memory, where there is such a place: a disk takes its time for hundreds of syncs.
    let dirs = tempfile::tempdir_in("/dev/shm");
    let dirs = dirs.or_else(|_| tempfile::tempdir()).unwrap();
    let dir = dirs.path().join("data");
    leave(&dir);
    let count = Arc::new(AtomicUsize::new(0));
    let (counter, from, to) = (Arc::clone(&count), dir.clone(), dirs.path().to_owned());
    let watching = crate::disk::watch(
        &dir,
        Arc::new(move |_| {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            copy(&from, &to.join(number.to_string()));
            Ok(())
        }),
    );
    let (db, _) = open(&dir);
    drop(watching);
    assert_eq!(contents(&db), expected);
    let blocks = db.blocks().len();
    let count = count.load(Ordering::Relaxed);
    for number in 0..count {
        let dir = dirs.path().join(number.to_string());
        let (db, _) = open(&dir);
        assert_eq!(contents(&db), expected, "crash {number}");
        assert_eq!(db.blocks().len(), blocks, "crash {number}");
        assert!(!dir.join("isobar-import").exists(), "crash {number}");
        drop(db);
        let (db, events) = open(&dir);
        assert_eq!(contents(&db), expected, "crash {number}, again");
        assert!(events.is_empty(), "crash {number}: {events:?}");
    }
    count
}

#[test]
fn a_crash_makes_no_block_twice() {
    let count = check_crashes(leave, &LEFT);
    assert!(count > 30, "{count} changes");
}

/// Two tenants, one of them with a block and a log, the other with a block alone.
fn leave_tenants(dir: &Path) {
    let made = dir.with_extension("made");
    leave(&made);
    let (db, _) = open(&made);
    let blocks: Vec<_> = db
        .blocks()
        .iter()
        .map(|it| it.reader().dir().to_owned())
        .collect();
    drop(db);
    for (tenant, block) in ["team a", "b.c"].into_iter().zip(&blocks) {
        let to = dir.join(tenant).join(block.file_name().unwrap());
        copy(block, &to);
        let meta = fs::read_to_string(to.join("meta.json")).unwrap();
        let meta: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&meta).unwrap();
        let mut meta = meta;
        meta.remove("isobar");
        meta.insert(
            "thanos".into(),
            serde_json::json!({ "labels": { "x": "y" } }),
        );
        put(
            &to.join("meta.json"),
            serde_json::to_string(&meta).unwrap().as_bytes(),
        );
    }
    let log = [
        series(1, "c"),
        floats(&[(1, 1, 1.0), (1, 5 * HOUR_MS, 1.0)]),
    ];
    put(
        &dir.join("team a/wal/00000000"),
        &segment::write::segment(&log),
    );
    put(&dir.join("lost+found/x"), b"");
}

#[test]
fn tenants_of_receive_move_up() {
    let expected = [
        "b.c {__name__=\"a\"} 14400000:5 14400001:6 14400002:7",
        "team a {__name__=\"a\"} 50:0.5 100:1 200:2 300:3 350:3.5 400:4",
        "team a {__name__=\"b\"} 5:0.5 7:0.7 10:1 30:3 40:4 50:5",
        "team a {__name__=\"c\"} 18000000:1",
    ];
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("data");
    leave_tenants(&dir);
    let (db, events) = open(&dir);
    assert_eq!(contents(&db), expected);
    assert_eq!(events.len(), 2, "{events:?}");
    for block in db
        .blocks()
        .iter()
        .filter(|it| it.meta().other.contains_key("thanos"))
    {
        assert_eq!(block.meta().other["thanos"]["labels"]["x"], "y");
        assert!(!block.cut_here);
    }
    assert!(dir.join("team a.imported/wal/00000000").exists());
    assert!(dir.join("b.c.imported").is_dir() && dir.join("lost+found").is_dir());
    let count = check_crashes(leave_tenants, &expected);
    assert!(count > 30, "{count} changes");
}

#[test]
fn damage_is_told_and_costs_little() {
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path());
    let path = dir.path().join("chunks_head/000001");
    let mut bytes = fs::read(&path).unwrap();
    // Within the first chunk: what the log has of its times is taken in its place.
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    let path = dir.path().join("wbl/00000000");
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (db, events) = open(dir.path());
    let expected = [
        "default-tenant {__name__=\"a\"} 50:0.5 200:2 400:4 14400000:5 14400001:6 14400002:7",
        LEFT[1],
    ];
    assert_eq!(contents(&db), expected);
    assert!(events[0].starts_with("damage in DIR/chunks_head/000001 at offset 8"));
    assert!(events[1].starts_with("damage in DIR/wbl/00000000 at offset 0"));
}

/// Takes whatever comes.
struct Anything(u64);

impl RecordSink for Anything {
    fn series(&mut self, _: SeriesNumber, _: isobar_model::Labels) {
        self.0 += 1;
    }
    fn float(&mut self, _: At, _: f64) {
        self.0 += 1;
    }
    fn histogram(
        &mut self,
        _: At,
        _: isobar_model::FloatHistogram,
        _: crate::chunks::histogram::Counts,
    ) {
        self.0 += 1;
    }
    fn unknown_histogram(&mut self, _: At) {
        self.0 += 1;
    }
    fn tombstone(&mut self, _: SeriesNumber, _: TimeRange) {
        self.0 += 1;
    }
    fn exemplar(&mut self, _: At, _: f64, _: isobar_model::Labels) {
        self.0 += 1;
    }
    fn metadata(&mut self, _: SeriesNumber, _: u8, _: &str, _: &str) {
        self.0 += 1;
    }
}

proptest! {
    /// Any bytes are read: as a segment, as a record of each kind, as chunks.
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for kind in 0..20 {
            let mut record = bytes.clone();
            record.insert(0, kind);
            let mut all = Anything(0);
            // An error is as good.
            let _ = record::decode(&record, &mut all);
            prop_assert!(all.0 <= bytes.len() as u64);
        }
        let mut reader = SegmentReader::new(&bytes);
        while reader.next_record().is_some() {}
        let mut file = head_chunks::write::file(&[]);
        file.extend_from_slice(&bytes);
        let file = bytes::Bytes::from(file);
        if let Ok(reader) = HeadChunkReader::new(&file) {
            let chunks: Vec<Chunk> = reader.flatten().map(|it| it.chunk).collect();
            prop_assert!(chunks.len() <= bytes.len());
        }
    }
}
