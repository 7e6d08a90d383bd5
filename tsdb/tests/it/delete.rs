//! Deleting: from head and blocks, at once and for good, over restarts, crashes, cuts and copies.

use std::collections::BTreeMap;
use std::path::Path;

use isobar_model::{Matcher, Tenant, TimeRange};
use isobar_tsdb::Db;
use isobar_tsdb::block::BlockReader;
use isobar_tsdb::block::tools::verify;
use isobar_tsdb::db::Cut;

use crate::golden;
use crate::support::{TestSeries, config, copy_dir, dump, dump_all, open, write};

const HOUR_MS: i64 = 3_600_000;

/// Samples of `job=a` and `job=b`, one a minute, whose values are their numbers.
fn fill(db: &Db, minutes: std::ops::Range<i64>) {
    for at in minutes {
        let samples = [(at * 60_000, at as f64)];
        let series =
            ["a", "b"].map(|job| TestSeries::new(&format!("__name__=up,job={job}"), &samples));
        let append = db.append(&Tenant::new("t").unwrap(), &series).unwrap();
        assert_eq!(append.appended, 2);
    }
}

fn job(value: &str) -> Vec<Matcher> {
    vec![Matcher::equal("job", value)]
}

/// The minutes of which `job` has samples.
fn minutes(db: &Db, value: &str) -> Vec<i64> {
    let lines = dump(db, None, &job(value), TimeRange::ALL);
    let samples = lines.iter().flat_map(|line| line.split(' ').skip(2));
    let times = samples.map(|it| it.split_once(':').unwrap().0.parse::<i64>().unwrap());
    times.map(|time_ms| time_ms / 60_000).collect()
}

fn range(from_minute: i64, to_minute: i64) -> TimeRange {
    TimeRange::new(from_minute * 60_000, to_minute * 60_000)
}

#[test]
fn deleted_samples_are_gone_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    // Two blocks and a part of a third.
    fill(&db, 0..300);
    db.cut_now(Cut::Complete).unwrap();
    assert_eq!(db.blocks().len(), 2);
    let kept: Vec<i64> = (0..100).chain(251..300).collect();
    let check = |db: &Db| {
        assert_eq!(minutes(db, "a"), kept);
        assert_eq!(minutes(db, "b").len(), 300);
    };
    db.delete_series(None, &job("a"), range(100, 250)).unwrap();
    check(&db);
    let crashed = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), crashed.path());
    check(&open(crashed.path()));
    // Prometheus' tools see what is deleted of a block.
    let stones: Vec<u64> = db
        .blocks()
        .iter()
        .map(|it| it.meta().stats.num_tombstones)
        .collect();
    assert_eq!(stones, [1, 1]);
    for block in db.blocks().iter() {
        let report = verify(block.reader().dir()).unwrap();
        assert!(report.is_clean(), "{:?}", report.findings);
    }

    db.shorten_log().unwrap();
    drop(db);
    let db = open(dir.path());
    check(&db);
    let copies = db.clean_tombstones().unwrap();
    check(&db);
    assert_eq!((copies.len(), db.blocks().len()), (2, 2));
    assert_eq!(db.clean_tombstones().unwrap(), []);
    for block in db.blocks().iter() {
        assert!(copies.contains(&block.meta().ulid));
        assert_eq!(block.meta().stats.num_tombstones, 0);
        assert_eq!(block.tenant().as_str(), "t");
        assert!(verify(block.reader().dir()).unwrap().is_clean());
    }
    drop(db);
    let db = open(dir.path());
    check(&db);
    db.cut_now(Cut::All).unwrap();
    check(&db);
    fill(&db, 300..310);
    assert_eq!(minutes(&db, "a").len(), kept.len() + 10);
}

#[test]
fn only_what_matches_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    fill(&db, 0..10);
    write(
        &db,
        "other",
        &[TestSeries::new("__name__=up,job=a", &[(1, 1.0)])],
    );
    let t = Tenant::new("t").unwrap();
    db.delete_series(Some(&t), &job("c"), TimeRange::ALL)
        .unwrap();
    db.delete_series(Some(&t), &job("a"), range(20, 30))
        .unwrap();
    assert_eq!(dump_all(&db).len(), 2);
    db.delete_series(Some(&t), &job("a"), TimeRange::ALL)
        .unwrap();
    assert_eq!(minutes(&db, "a"), [0]);
    assert_eq!(db.head_stats(Some(&t)).series, 1);
    // What was deleted may come again, with other values.
    let again = TestSeries::new("__name__=up,job=a", &[(540_000, 7.0)]);
    assert!(write(&db, "t", &[again]).is_empty());
    drop(db);
    let lines = dump_all(&open(dir.path()));
    assert_eq!(lines[0], r#"{__name__="up", job="a"} 1:1 540000:7"#);
}

#[test]
fn a_block_without_samples_goes() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    fill(&db, 0..130);
    db.cut_now(Cut::Complete).unwrap();
    assert_eq!(db.blocks().len(), 1);
    db.delete_series(None, &[Matcher::equal("__name__", "up")], range(0, 119))
        .unwrap();
    assert_eq!(db.clean_tombstones().unwrap(), []);
    assert!(db.blocks().is_empty());
    drop(db);
    let db = open(dir.path());
    assert_eq!(minutes(&db, "a"), (120..130).collect::<Vec<_>>());
    assert!(db.blocks().is_empty());
}

#[test]
fn a_crash_between_copy_and_removal_leaves_one_block() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    fill(&db, 0..130);
    db.cut_now(Cut::Complete).unwrap();
    db.delete_series(None, &job("a"), range(10, 20)).unwrap();
    let old = db.blocks()[0].reader().dir().to_owned();
    let kept = tempfile::tempdir().unwrap();
    copy_dir(&old, kept.path());
    let copies = db.clean_tombstones().unwrap();
    drop(db);
    copy_dir(kept.path(), &old);
    let (config, events) = config(dir.path());
    let db = Db::open(config).unwrap();
    let names: Vec<_> = db.blocks().iter().map(|it| it.meta().ulid).collect();
    assert_eq!(names, copies);
    assert!(!old.exists());
    assert!(
        events.lock().unwrap().iter().any(|it| it.contains("left")),
        "{events:?}"
    );
    assert_eq!(minutes(&db, "a").len(), 119);
}

#[test]
fn a_snapshot_is_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    fill(&db, 0..200);
    db.cut_now(Cut::Complete).unwrap();
    write(&db, "other", &[TestSeries::new("__name__=x", &[(5, 1.0)])]);
    db.delete_series(None, &job("a"), range(10, 150)).unwrap();
    let whole = db.snapshot(true).unwrap();
    let blocks = db.snapshot(false).unwrap();
    assert_ne!(whole, blocks);
    assert_eq!(&whole[..9], "21000101T");
    assert_eq!(whole.len(), "20260101T000000Z-".len() + 16);
    let opened = |name: &str| {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&dir.path().join("snapshots").join(name), copy.path());
        let db = open(copy.path());
        (dump_all(&db), db.blocks().len(), copy)
    };
    let (lines, count, _dir) = opened(&whole);
    assert_eq!(lines, dump_all(&db));
    assert_eq!(count, 3);
    let (lines, count, _dir) = opened(&blocks);
    assert_eq!((lines.len(), count), (2, 1));
    // What is deleted later stays in the snapshot.
    let before = dump_all(&db);
    db.delete_series(None, &[], TimeRange::ALL).unwrap();
    db.clean_tombstones().unwrap();
    assert_eq!(dump_all(&db), [""; 0]);
    assert_eq!(opened(&whole).0, before);
}

/// A chunk with start times is written again without them where samples of it are deleted.
#[test]
fn samples_with_start_times_are_deleted() {
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/start_times/block"
    );
    let ulid = BlockReader::open(golden).unwrap().meta().ulid.to_string();
    let dir = tempfile::tempdir().unwrap();
    copy_dir(Path::new(golden), &dir.path().join(ulid));
    let db = open(dir.path());
    let lines = |db: &Db| golden::dump_all(db.blocks()[0].reader());
    let before = lines(&db);
    let time = |line: &str| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap();
    let mut times: Vec<i64> = before.lines().map(time).collect();
    times.sort_unstable();
    let range = TimeRange::new(times[times.len() / 3], times[times.len() / 2]);
    db.delete_series(None, &[], range).unwrap();
    let left: Vec<&str> = before
        .lines()
        .filter(|it| !range.contains(time(it)))
        .collect();
    assert!(!left.is_empty() && left.len() < times.len());
    assert_eq!(lines(&db).lines().collect::<Vec<_>>(), left);
    db.clean_tombstones().unwrap();
    assert_eq!(lines(&db).lines().collect::<Vec<_>>(), left);
    let report = verify(db.blocks()[0].reader().dir()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
}

/// Small and the same everywhere.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self, below: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % below.cast_unsigned()).cast_signed()
    }
}

type Model = BTreeMap<String, BTreeMap<i64, i64>>;

fn lines(model: &Model) -> Vec<String> {
    let series = model.iter().filter(|(_, samples)| !samples.is_empty());
    let line = |(labels, samples): (&String, &BTreeMap<i64, i64>)| {
        let samples: Vec<_> = samples.iter().map(|(t, v)| format!("{t}:{v}")).collect();
        format!("{{job=\"{labels}\"}} {}", samples.join(" "))
    };
    series.map(line).collect()
}

fn crash(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir, copy.path());
    copy
}

/// Random writes, deletions, cuts, copies, restarts and crashes, against a map.
#[test]
fn like_a_map() {
    for seed in 0..6u64 {
        let mut seeded = Seeded(seed);
        let mut dir = tempfile::tempdir().unwrap();
        let mut db = open(dir.path());
        let mut model = Model::new();
        let mut now_ms = 0;
        for step in 0..250 {
            match seeded.next(20) {
                0..=9 => {
                    let labels = ["a", "b", "c"][seeded.next(3) as usize];
                    let samples = seeded.next(40);
                    for _ in 0..samples {
                        now_ms += seeded.next(120_000);
                        // Now and then again what may have been deleted.
                        let t = now_ms
                            - if seeded.next(8) == 0 {
                                seeded.next(HOUR_MS)
                            } else {
                                0
                            };
                        let value = i64::from(step);
                        let tenant = Tenant::new("t").unwrap();
                        let series =
                            TestSeries::new(&format!("job={labels}"), &[(t, value as f64)]);
                        let append = db.append(&tenant, &[series]).unwrap();
                        if append.appended == 1 {
                            let samples = model.entry(labels.to_owned()).or_default();
                            assert!(
                                samples.insert(t, value).is_none(),
                                "seed {seed} step {step}"
                            );
                        }
                    }
                }
                10..=13 => {
                    let value = ["a", "b", "c"][seeded.next(3) as usize];
                    let from_ms = now_ms - seeded.next(6 * HOUR_MS);
                    let to_ms = from_ms + seeded.next(2 * HOUR_MS);
                    let range = TimeRange::new(from_ms, to_ms);
                    db.delete_series(None, &job(value), range).unwrap();
                    if let Some(samples) = model.get_mut(value) {
                        samples.retain(|t, _| !range.contains(*t));
                    }
                }
                14 => drop(db.cut_now(Cut::Complete).unwrap()),
                15 => drop(db.maintain().unwrap()),
                16 => drop(db.clean_tombstones().unwrap()),
                17 => drop(db.file_chunks().unwrap()),
                18 => {
                    drop(db);
                    db = open(dir.path());
                }
                _ => {
                    db.shorten_log().unwrap();
                    let copy = crash(dir.path());
                    drop(db);
                    dir = copy;
                    db = open(dir.path());
                }
            }
            assert_eq!(dump_all(&db), lines(&model), "seed {seed} step {step}");
        }
        db.cut_now(Cut::All).unwrap();
        assert_eq!(dump_all(&db), lines(&model), "seed {seed}");
        for block in db.blocks().iter() {
            let report = verify(block.reader().dir()).unwrap();
            assert!(report.is_clean(), "seed {seed}: {:?}", report.findings);
        }
    }
}

#[test]
fn a_series_that_was_deleted_does_not_lead_to_who_has_its_id_now() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let names = |prefix: &str| -> Vec<TestSeries> {
        let labels = (0..64).map(|i| format!("__name__={prefix}{i}"));
        labels
            .map(|labels| TestSeries::new(&labels, &[(1000, 1.0)]))
            .collect()
    };
    write(&db, "t", &names("old"));
    db.delete_series(None, &[], TimeRange::ALL).unwrap();
    // Freed ids are handed out again after this.
    db.shorten_log().unwrap();
    write(&db, "t", &names("new"));
    write(&db, "t", &names("old"));
    let lines = dump_all(&db);
    assert_eq!(lines.len(), 128);
    assert!(lines.iter().all(|line| line.ends_with(" 1000:1")));
}
