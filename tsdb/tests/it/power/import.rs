//! Power cuts while the directory of another database is taken over, and when that is begun again:
//! in the end all is as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use isobar_tsdb::Db;

use super::disk::{Disk, Random};
use super::{ExemplarKey, Key, exemplars_of, points_of, read, record, settings};
use crate::support::{copy_dir, fast_dir};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Puts into a directory what another database left.
type Leave = fn(&Path);

/// What a Prometheus 3.14 left: log, late samples, chunks, and a block of other samples.
fn prometheus(dir: &Path) {
    copy_dir(&golden("head-prometheus-3.14"), dir);
    give_block(dir, "prometheus-3.14");
}

/// What a Prometheus 2.42 left whose log has become a checkpoint.
fn with_checkpoint(dir: &Path) {
    copy_dir(&golden("head-prometheus-2.42"), dir);
    let checkpoint = dir.join("wal/checkpoint.00000000");
    fs::create_dir(&checkpoint).unwrap();
    fs::rename(dir.join("wal/00000000"), checkpoint.join("00000000")).unwrap();
    let metadata = metadata_record();
    fs::write(dir.join("wal/00000001"), metadata).unwrap();
}

/// What a Thanos Receive left: a tenant with log and block, one with a block, one with a log.
fn receive(dir: &Path) {
    copy_dir(&golden("head-prometheus-3.14"), &dir.join("team a"));
    give_block(&dir.join("team a"), "prometheus-2.42");
    give_block(&dir.join("b"), "prometheus-3.14");
    copy_dir(&golden("head-prometheus-2.42"), &dir.join("c"));
}

/// A block that does not stand for all that there was of its time, so that the log is read too.
fn give_block(dir: &Path, from: &str) {
    copy_dir(&golden(from), dir);
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path().join("meta.json");
        let Ok(json) = fs::read(&path) else {
            continue;
        };
        let mut meta: serde_json::Value = serde_json::from_slice(&json).unwrap();
        meta["compaction"]["hints"] = serde_json::json!(["from-out-of-order"]);
        fs::write(path, meta.to_string()).unwrap();
    }
}

/// A segment of a log with what is said of the metric of series 1.
fn metadata_record() -> Vec<u8> {
    let mut record = vec![6, 1, 1, 1, 4];
    record.extend_from_slice(b"HELP");
    record.push(2);
    record.extend_from_slice(b"it");
    let mut segment = vec![1];
    segment.extend_from_slice(&u16::try_from(record.len()).unwrap().to_be_bytes());
    segment.extend_from_slice(&isobar_tsdb::encoding::crc32c(&record).to_be_bytes());
    segment.extend_from_slice(&record);
    segment
}

/// What has come of it.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The bits of all samples.
    samples: BTreeMap<Key, u64>,
    in_blocks: BTreeMap<Key, usize>,
    exemplars: BTreeSet<ExemplarKey>,
    blocks: usize,
    metadata: usize,
}

impl Outcome {
    fn told(&self) -> String {
        format!(
            "{} blocks, {} samples, {} in blocks, {} exemplars, {} metrics described",
            self.blocks,
            self.samples.len(),
            self.in_blocks.values().sum::<usize>(),
            self.exemplars.len(),
            self.metadata
        )
    }
}

fn open(dir: &Path) -> Result<Db, String> {
    let (config, events) = settings(dir);
    let db = Db::open(config).map_err(|e| format!("does not open: {e}"))?;
    let events = events.lock().unwrap();
    let harmless = ["leftover", "torn tail", "block "];
    let is_harmless = |event: &String| {
        let known = harmless.iter().any(|word| event.starts_with(word));
        (known || event.contains("taken over for")) && !event.contains("left out")
    };
    match events.iter().find(|event| !is_harmless(event)) {
        Some(event) => Err(event.clone()),
        None => Ok(db),
    }
}

fn outcome(db: &Db) -> Result<Outcome, String> {
    let (samples, in_blocks) = read(db).map_err(|e| format!("cannot be read: {e}"))?;
    let bits = |(key, value): (Key, f64)| (key, value.to_bits());
    Ok(Outcome {
        samples: samples.into_iter().map(bits).collect(),
        in_blocks,
        exemplars: exemplars_of(db)?,
        blocks: db.blocks().len(),
        metadata: db.metadata().list(None, None, None, None).len(),
    })
}

/// Opens what is left and compares, twice.
fn check(dir: &Path, expected: &Outcome) -> Result<(), String> {
    for time in ["", " when it is opened again"] {
        let db = open(dir)?;
        let found = outcome(&db)?;
        if dir.join("isobar-import").exists() {
            return Err(format!("something is left to do{time}"));
        }
        if found != *expected {
            return Err(format!("{}, not {}{time}", found.told(), expected.told()));
        }
    }
    Ok(())
}

#[test]
fn a_power_cut_in_an_import_changes_nothing() {
    let seeds = std::env::var("ISOBAR_POWER_SEEDS");
    let seeds: u64 = seeds.map_or(1, |seeds| seeds.parse().unwrap());
    let everywhere = std::env::var_os("ISOBAR_POWER_EVERYWHERE").is_some();
    let layouts: [(&str, Leave); 3] = [
        ("prometheus", prometheus),
        ("with checkpoint", with_checkpoint),
        ("receive", receive),
    ];
    let (mut cuts, mut sites, mut wrong) = (0, BTreeSet::new(), Vec::new());
    for (layout, leave) in layouts {
        let dirs = fast_dir();
        let dir = dirs.path();
        leave(dir);
        let mut disk = Disk::of(dir);
        let (watching, changes) = record(dir);
        let expected = outcome(&open(dir).unwrap()).unwrap();
        drop(watching);
        let changes = changes.lock().unwrap().clone();
        println!("{layout}: {}, {} changes", expected.told(), changes.len());
        assert!(!expected.exemplars.is_empty() && expected.in_blocks.values().all(|n| *n == 1));
        let of_site = (!everywhere).then_some(1);
        let points = points_of(&changes, dir, of_site);
        for (at, change) in changes.iter().enumerate() {
            sites.insert(change.site(dir));
            let seeds = if points.contains(&at) { seeds } else { 0 };
            for seed in 0..seeds {
                let mut random = Random(at as u64 * 1000 + seed);
                let left = fast_dir();
                disk.lose_power(&mut random, left.path());
                cuts += 1;
                // The power goes again while the rest is done, or it does not.
                let result = cut_again(&mut random, left.path(), &expected);
                let result = result.and_then(|()| check(left.path(), &expected));
                if let Err(why) = result {
                    let site = change.site(dir);
                    wrong.push(format!(
                        "{layout}, before change {at}, {site}, seed {seed}: {why}"
                    ));
                }
            }
            disk.apply(change);
        }
    }
    println!("power: {cuts} cuts in imports at {} sites", sites.len());
    wrong.truncate(10);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(sites.len() >= 50, "{} sites", sites.len());
}

/// Does what is left to do, and checks what a power cut at some change of that leaves.
fn cut_again(random: &mut Random, dir: &Path, expected: &Outcome) -> Result<(), String> {
    if random.below(2) == 0 {
        return Ok(());
    }
    let copy = fast_dir();
    copy_dir(dir, copy.path());
    let mut disk = Disk::of(copy.path());
    let (watching, changes) = record(copy.path());
    drop(open(copy.path())?);
    drop(watching);
    let changes = changes.lock().unwrap().clone();
    let at = random.below(changes.len() as u64) as usize;
    for change in &changes[..at] {
        disk.apply(change);
    }
    let left = fast_dir();
    disk.lose_power(random, left.path());
    check(left.path(), expected).map_err(|why| format!("cut again before change {at}: {why}"))
}
