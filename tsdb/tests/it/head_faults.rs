//! Disks that are full, files that are cut or flipped: what is hit is named, the rest lives on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isobar_model::{Tenant, TimeRange};
use isobar_tsdb::Error;
use isobar_tsdb::db::{Cut, Db};

use crate::support::{TestSeries, config, copy_dir, dump, dump_all, open, write};

fn wal_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir.join("isobar-wal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| fs::metadata(path).unwrap().len() > 200);
    files.sort();
    files
}

/// A database with some series in its log, closed.
fn written(dir: &Path, snapshot: bool) -> Vec<String> {
    let db = open(dir);
    for t in 0..40 {
        for s in 0..5 {
            write(
                &db,
                "t",
                &[TestSeries::new(
                    &format!("s={s}"),
                    &[(t * 1000, (t * s) as f64)],
                )],
            );
        }
        if snapshot && t == 30 {
            db.shorten_log().unwrap();
        }
    }
    dump_all(&db)
}

/// The samples of a dump.
fn samples(dump: &[String]) -> Vec<String> {
    let lines = dump.iter().filter_map(|line| line.split_once("} "));
    lines
        .flat_map(|(labels, samples)| {
            samples
                .split(' ')
                .map(move |sample| format!("{labels}}} {sample}"))
        })
        .collect()
}

#[test]
fn a_corrupt_record_in_the_middle_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let before = written(dir.path(), false);
    let path = &wal_files(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(path, &bytes).unwrap();
    let (config, events) = config(dir.path());
    let db = Db::open(config).unwrap();
    let lost = samples(&before).len() - samples(&dump_all(&db)).len();
    assert_eq!(lost, 1);
    let events = events.lock().unwrap();
    let [event] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(
        event.starts_with(&format!("damage in {} at offset ", path.display())),
        "{event}"
    );
    assert!(
        event.ends_with(" bytes are no record and were skipped"),
        "{event}"
    );
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let before = written(dir.path(), false);
    let path = &wal_files(dir.path())[0];
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 3]).unwrap();
    let (settings, events) = config(dir.path());
    let db = Db::open(settings).unwrap();
    assert_eq!(samples(&before).len() - samples(&dump_all(&db)).len(), 1);
    assert!(events.lock().unwrap()[0].starts_with("torn tail of "));
    write(&db, "t", &[TestSeries::new("s=9", &[(1, 1.0)])]);
    let after = dump_all(&db);
    drop(db);
    let (settings, events) = config(dir.path());
    assert_eq!(dump_all(&Db::open(settings).unwrap()), after);
    assert_eq!(events.lock().unwrap().len(), 0);
}

#[test]
fn flipped_bytes_lose_samples_but_invent_none() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let before = samples(&written(&source, true));
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..60 {
        let copy = dir.path().join(round.to_string());
        copy_dir(&source, &copy);
        for _ in 0..=random(4) {
            let files = wal_files(&copy);
            let path = &files[random(files.len())];
            let mut bytes = fs::read(path).unwrap();
            let at = random(bytes.len());
            match random(4) {
                0 => bytes.truncate(at.max(300)),
                1 => {
                    let to = (at + random(200)).min(bytes.len());
                    bytes.drain(at..to);
                }
                _ => bytes[at] ^= 1 << random(8),
            }
            fs::write(path, &bytes).unwrap();
        }
        let (mut config, _) = config(&copy);
        config.sync = isobar_tsdb::db::Sync::Interval(std::time::Duration::from_secs(9));
        let db = Db::open(config).unwrap();
        let after = samples(&dump_all(&db));
        let invented: Vec<_> = after
            .iter()
            .filter(|sample| !before.contains(sample))
            .collect();
        assert!(invented.is_empty(), "round {round}: {invented:?}");
    }
}

#[test]
fn a_broken_block_is_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let hour = 3_600_000;
    for t in 0..10 {
        let series = TestSeries::new("a=1", &[(t * hour / 2, t as f64)]);
        write(&db, "t", &[series]);
        db.cut_now(Cut::Complete).unwrap();
    }
    let blocks = db.blocks();
    assert_eq!(blocks.len(), 2);
    let (first, second) = (
        blocks[0].reader().dir().to_owned(),
        blocks[1].reader().dir().to_owned(),
    );
    drop(blocks);
    drop(db);
    let cut = |path: PathBuf, len: u64| {
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(len)
            .unwrap();
    };
    cut(first.join("index"), 100);
    let (config, events) = config(dir.path());
    let db = Db::open(config).unwrap();
    assert_eq!(
        dump_all(&db),
        [r#"{a="1"} 7200000:4 9000000:5 10800000:6 12600000:7 14400000:8 16200000:9"#]
    );
    let told = events.lock().unwrap().join("\n");
    assert!(
        told.starts_with(&format!("block {} is left out: corrupt ", first.display())),
        "{told}"
    );
    assert_eq!(db.quarantined().len(), 1);
    db.maintain().unwrap();
    assert_eq!(events.lock().unwrap().len(), 1);
    drop(db);

    // Chunks are only read when they are needed: the query that needs them fails, the next one
    // goes without the block.
    cut(second.join("chunks/000001"), 12);
    let db = open(dir.path());
    let error = match db.select(None, &[], TimeRange::ALL) {
        Err(e) => Some(e),
        Ok(series) => series.filter_map(Result::err).next(),
    };
    if let Some(error) = error {
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    assert_eq!(dump_all(&db), [r#"{a="1"} 14400000:8 16200000:9"#]);
    assert_eq!(db.quarantined().len(), 2);
}

#[test]
fn a_crash_at_any_moment_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let db = Arc::new(open(&source));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (db, stop) = (Arc::clone(&db), Arc::clone(&stop));
            let acknowledged = Arc::new(std::sync::atomic::AtomicI64::new(-1));
            let seen = Arc::clone(&acknowledged);
            let thread = std::thread::spawn(move || {
                let mut t = 0;
                while !stop.load(Ordering::SeqCst) && t < 10_000 {
                    let labels = [
                        format!("w={writer},s=a"),
                        format!("w={writer},s={}", t / 500),
                    ];
                    let series = labels.map(|it| TestSeries::new(&it, &[(t * 1000, t as f64)]));
                    // Tenants of their own: who is an hour ahead shuts out the others.
                    let refused = write(&db, &format!("t{writer}"), &series);
                    assert!(refused.is_empty(), "{refused:?}");
                    acknowledged.store(t, Ordering::SeqCst);
                    t += 1;
                }
            });
            (seen, thread)
        })
        .collect();
    for round in 0..8 {
        let copy = dir.path().join(round.to_string());
        let acknowledged: Vec<i64> = writers
            .iter()
            .map(|(seen, _)| seen.load(Ordering::SeqCst))
            .collect();
        // Files are copied one after the other, so nothing may be removed meanwhile: maintenance
        // runs between the copies, and a copy is older than what it is compared with.
        copy_dir(&source, &copy);
        db.maintain().unwrap();
        let crashed = open(&copy);
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let labels = format!(r#"{{s="a", w="{writer}"}} "#);
            let found = dump_all(&crashed);
            let line = found
                .iter()
                .find_map(|line| line.strip_prefix(&labels))
                .unwrap_or("");
            let samples: Vec<&str> = line.split(' ').filter(|text| !text.is_empty()).collect();
            assert!(
                samples.len() as i64 > *acknowledged,
                "{} of {acknowledged}",
                samples.len()
            );
            for (t, sample) in samples.iter().enumerate() {
                assert_eq!(*sample, format!("{}:{t}", t * 1000));
            }
        }
        drop(crashed);
        fs::remove_dir_all(copy).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    for (_, thread) in writers {
        thread.join().unwrap();
    }
}

/// A file system of two megabytes; nothing when this process may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(dir.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(SmallDisk(dir)),
            _ => {
                println!("skipped: a tmpfs cannot be mounted");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_recovers() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let dir = disk.0.path();
    let (config, events) = config(dir);
    let db = Db::open(config).unwrap();
    let tenant = Tenant::default();
    fs::write(dir.join("ballast"), vec![0; 1 << 20]).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        let labels = format!("n={acknowledged},pad={}", "x".repeat(20_000));
        let series = [TestSeries::new(&labels, &[(1000, 1.5)])];
        let append = match db.append(&tenant, &series) {
            Ok(append) => append,
            Err(e) => break e,
        };
        if let Err(e) = db.commit_wait(append.ticket) {
            break e;
        }
        acknowledged += 1;
        assert!(acknowledged < 1000, "the disk never fills");
    };
    let text = error.to_string();
    assert!(matches!(error, Error::Unavailable(_)), "{text}");
    assert!(
        text.contains("isobar-wal/00000001") && text.contains("No space left"),
        "{text}"
    );
    // Reading goes on.
    assert!(dump(&db, None, &[], TimeRange::new(0, 2000)).len() >= acknowledged);
    // Room again: writes are taken within the retry interval, and nothing is out of order.
    fs::remove_file(dir.join("ballast")).unwrap();
    let waited = std::time::Instant::now();
    let series = [TestSeries::new("n=last", &[(2000, 2.5)])];
    let append = loop {
        match db.append(&tenant, &series) {
            Ok(append) => break append,
            Err(_) => std::thread::yield_now(),
        }
        assert!(waited.elapsed().as_secs() < 30, "writes stay refused");
    };
    db.commit_wait(append.ticket).unwrap();
    let after = dump_all(&db);
    assert!(after.len() > acknowledged);
    drop(db);
    assert_eq!(dump_all(&open(dir)), after);
    let events = events.lock().unwrap();
    assert!(
        events[0].starts_with("write-ahead log cannot be written"),
        "{events:?}"
    );
    assert_eq!(
        events.last().unwrap(),
        "write-ahead log can be written again"
    );
}

#[test]
fn a_full_disk_fails_an_open_and_a_cut_by_name() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let dir = disk.0.path();
    let db = open(dir);
    for t in 0..=300 {
        let labels: Vec<String> = (0..8).map(|s| format!("s={s}")).collect();
        let series: Vec<TestSeries> = labels
            .iter()
            .map(|labels| TestSeries::new(labels, &[(t * 60_000, t as f64 * 0.1)]))
            .collect();
        write(&db, "t", &series);
    }
    let before = dump_all(&db);
    let fill = |name: &str| {
        let mut ballast = vec![0u8; 2 << 20];
        while fs::write(dir.join(name), &ballast).is_err() {
            ballast.truncate(ballast.len() - 4096);
        }
    };
    fill("ballast");
    let error = db.maintain().unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::Io { .. }) && text.contains(".tmp-for-creation"),
        "{text}"
    );
    assert_eq!(dump_all(&db), before);
    // The log gives back what it has prepared for records to come.
    drop(db);
    fill("more ballast");
    let Err(error) = Db::open(config(dir).0) else {
        panic!("opened on a full disk")
    };
    assert!(error.to_string().contains("isobar-wal/0000000"), "{error}");
    fs::remove_file(dir.join("ballast")).unwrap();
    fs::remove_file(dir.join("more ballast")).unwrap();
    let db = open(dir);
    assert_eq!(dump_all(&db), before);
    assert_eq!(db.maintain().unwrap().blocks_cut.len(), 2);
    assert_eq!(dump_all(&db), before);
}

fn chunk_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("isobar-chunks")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Series with sealed chunks in a file that a snapshot names.
fn filed(dir: &Path) -> (Db, Vec<String>) {
    let db = open(dir);
    for t in 0..=300 {
        let series = ["s=1", "s=2"].map(|labels| TestSeries::new(labels, &[(t * 60_000, 1.5)]));
        write(&db, "t", &series);
    }
    let before = dump_all(&db);
    assert_eq!(db.file_chunks().unwrap(), 4);
    assert_eq!(db.file_chunks().unwrap(), 0);
    assert_eq!(dump_all(&db), before);
    (db, before)
}

#[test]
fn chunks_in_files_come_back_and_files_go_when_nobody_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let (db, before) = filed(dir.path());
    let first = chunk_files(dir.path());
    // Without a snapshot the log says it all.
    drop(db);
    let db = open(dir.path());
    assert_eq!(dump_all(&db), before);
    db.file_chunks().unwrap();
    db.shorten_log().unwrap();
    let second = chunk_files(dir.path());
    assert!(!second.contains(&first[0]) && second.len() == 1);
    drop(db);
    let db = open(dir.path());
    assert_eq!(dump_all(&db), before);
    db.maintain().unwrap();
    assert_eq!(dump_all(&db), before);
    assert_eq!(chunk_files(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_damaged_chunk_file_costs_only_what_it_hits() {
    let dir = tempfile::tempdir().unwrap();
    let (db, before) = filed(dir.path());
    db.shorten_log().unwrap();
    drop(db);
    let path = &chunk_files(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[20] ^= 1;
    fs::write(path, bytes).unwrap();

    let (config, events) = config(dir.path());
    let db = Db::open(config).unwrap();
    let failed = db
        .select(None, &[], TimeRange::ALL)
        .unwrap()
        .filter_map(Result::err)
        .map(|e| e.to_string())
        .collect::<Vec<_>>();
    assert!(
        failed.len() == 1 && failed[0].contains("isobar-chunks/00000001"),
        "{failed:?}"
    );
    // The block is cut without the chunk, and it is said.
    assert_eq!(db.maintain().unwrap().blocks_cut.len(), 2);
    let after = dump_all(&db);
    assert_eq!(samples(&after).len(), samples(&before).len() - 120);
    assert!(
        samples(&after)
            .iter()
            .all(|one| samples(&before).contains(one))
    );
    let events = events.lock().unwrap();
    assert!(events.iter().any(|e| e.contains("are lost")), "{events:?}");
}

#[test]
fn a_missing_chunk_file_is_named_and_the_rest_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (db, before) = filed(dir.path());
    db.shorten_log().unwrap();
    drop(db);
    fs::remove_file(&chunk_files(dir.path())[0]).unwrap();
    let (config, events) = config(dir.path());
    let db = Db::open(config).unwrap();
    let after = dump_all(&db);
    assert_eq!(samples(&after).len(), samples(&before).len() - 4 * 120);
    let events = events.lock().unwrap();
    assert!(events[0].contains("isobar-chunks/00000001"), "{events:?}");
}
