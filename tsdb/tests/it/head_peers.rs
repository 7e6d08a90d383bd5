//! Directories that Isobar keeps are read by Prometheus' tools, and foreign blocks by Isobar.

use std::collections::BTreeSet;
use std::fs;

use isobar_model::{Matcher, Tenant, TimeRange};
use isobar_tsdb::db::{Cut, Db};

use crate::data::contract_blocks;
use crate::promtool::promtool;
use crate::support::{TestSeries, config, copy_dir, dump, dump_all, open, write};

#[test]
fn promtool_reads_the_blocks_of_a_head() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let minute = 60_000;
    for t in 0..400 {
        let series: Vec<TestSeries> = (0..20)
            .filter(|s| s % 7 != 3 || t % 100 < 30)
            .map(|s| {
                let labels = format!("__name__=m{},s=v{s},text=é {s}", s % 3);
                TestSeries::new(
                    &labels,
                    &[(1_700_000_000_000 + t * minute, (t * s) as f64 * 0.5)],
                )
            })
            .collect();
        assert!(write(&db, "default-tenant", &series).is_empty());
    }
    let written = db.cut_now(Cut::All).unwrap().blocks_cut;
    assert_eq!(db.head_stats(None).series, 0);
    let path = dir.path().to_str().unwrap();
    let Some(list) = promtool(&["tsdb", "list", path]) else {
        return;
    };
    for block in db.blocks().iter() {
        let meta = block.meta();
        assert!(written.contains(&meta.ulid));
        let line = list
            .lines()
            .find(|line| line.starts_with(&meta.ulid.to_string()))
            .unwrap();
        let columns: Vec<_> = line.split_whitespace().collect();
        assert!(
            columns.contains(&meta.stats.num_samples.to_string().as_str()),
            "{line}"
        );
        promtool(&["tsdb", "analyze", path, &meta.ulid.to_string()]).unwrap();
    }
    // It takes blocks without a log for no data directory.
    fs::create_dir(dir.path().join("wal")).unwrap();
    let dumped = promtool(&["tsdb", "dump", path]).unwrap();
    let mut expected = Vec::new();
    for line in dump_all(&db) {
        let (labels, samples) = line.split_once("} ").unwrap();
        expected.extend(samples.split(' ').map(|sample| {
            let (t, value) = sample.split_once(':').unwrap();
            format!("{labels}}} {value} {t}")
        }));
    }
    assert_eq!(dumped.lines().count(), expected.len());
    let dumped: BTreeSet<&str> = dumped.lines().collect();
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    assert_eq!(dumped, expected);
}

#[test]
fn foreign_blocks_are_served_as_the_default_tenants() {
    let blocks = contract_blocks("ha");
    if blocks.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for block in &blocks {
        copy_dir(block, &dir.path().join(block.file_name().unwrap()));
    }
    let (config, events) = config(dir.path());
    let db = Db::open(config).unwrap();
    assert_eq!(events.lock().unwrap().len(), 0);
    assert_eq!(db.blocks().len(), blocks.len());
    let up = [Matcher::equal("__name__", "up")];
    let found = dump(&db, Some("default-tenant"), &up, TimeRange::ALL);
    assert!(!found.is_empty());
    assert_eq!(dump(&db, Some("other"), &up, TimeRange::ALL).len(), 0);
    let names = db.label_names(None, &up, TimeRange::ALL).unwrap();
    assert!(names.contains(&"__name__".to_owned()));
    // The times of foreign blocks do not limit what the head takes.
    let series = [TestSeries::new(
        "__name__=up,job=new",
        &[(1_700_006_500_000, 1.0)],
    )];
    assert!(write(&db, "default-tenant", &series).is_empty());
    assert_eq!(dump(&db, None, &up, TimeRange::ALL).len(), found.len() + 1);
    drop(db);
    let db = open(dir.path());
    assert_eq!(dump(&db, None, &up, TimeRange::ALL).len(), found.len() + 1);
    let job = db
        .label_values(Some(&Tenant::default()), "job", &up, TimeRange::ALL)
        .unwrap();
    assert!(job.contains(&"new".to_owned()));
}

#[test]
fn retention_removes_the_oldest_blocks() {
    let hour = 3_600_000;
    let filled = |retention_hours: Option<u64>, retention_size: Option<u64>| {
        let dir = tempfile::tempdir().unwrap();
        let (mut config, events) = config(dir.path());
        config.sync = isobar_tsdb::db::Sync::Interval(std::time::Duration::from_secs(1));
        let hours = |hours| std::time::Duration::from_secs(hours * 3600);
        config.retention_time = retention_hours.map(hours);
        config.retention_size = retention_size;
        let db = Db::open(config).unwrap();
        for t in 0..48 {
            write(
                &db,
                "t",
                &[TestSeries::new("a=1", &[(t * hour / 2, t as f64)])],
            );
        }
        db.maintain().unwrap();
        db.maintain().unwrap();
        let starts: Vec<i64> = db
            .blocks()
            .iter()
            .map(|block| block.meta().min_ms / hour)
            .collect();
        let expired = events
            .lock()
            .unwrap()
            .iter()
            .filter(|e| e.contains(" removed: "))
            .count();
        (starts, expired)
    };
    assert_eq!(filled(None, None), ((0..11).map(|i| i * 2).collect(), 0));
    // The newest block ends at hour 22; what ends ten hours before that goes.
    assert_eq!(filled(Some(10), None), (vec![12, 14, 16, 18, 20], 6));
    assert_eq!(filled(None, Some(0)), (vec![], 11));
}
