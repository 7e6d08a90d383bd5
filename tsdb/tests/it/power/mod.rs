//! Power cuts at every change that the database makes to its files: what was acknowledged is there
//! afterwards, nothing that was never sent or that was deleted is, no sample is in two blocks, and
//! nothing is told to be damaged. An exemplar that was acknowledged is there until newer ones have
//! taken its place, and for ever when a block was cut of its time before. [`import`] does the same
//! while the directory of a Prometheus is taken over.
//!
//! A run is watched and written down once; then a simulated disk says for each point of it, and
//! for some seeds each, what may be left, and a database is opened over that. By default every
//! site in the program is cut a few times; `ISOBAR_POWER_SEEDS=20` takes as many seeds for each
//! point, and with `ISOBAR_POWER_EVERYWHERE` every change of the run is one.

mod disk;
mod import;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isobar_model::histogram::CounterReset;
use isobar_model::{Columns, Exemplar, Labels, Matcher, Tenant, TimeRange};
use isobar_tsdb::db::{Cut, DbConfig, LATE_WINDOW_DEFAULT, Sync};
use isobar_tsdb::disk::{Watching, watch};
use isobar_tsdb::head::incoming::Counts;
use isobar_tsdb::merge::read_samples;
use isobar_tsdb::{Db, Error, SeriesChunks};

use crate::support::{TestSeries, config, fast_dir, histogram};
use disk::{Disk, Kept, Random};

const MINUTE: i64 = 60_000;
const TENANTS: [&str; 2] = ["a", "b"];

/// Tenant, labels and time of a sample.
type Key = (String, String, i64);

/// Tenant, metric name, time and trace of an exemplar.
type ExemplarKey = (String, String, i64, String);

/// Fewer than the run sends until it cuts blocks, at times; then some are in no block.
const EXEMPLARS_MAX: usize = 120;

/// What became of an exemplar, in numbers of changes.
struct ExemplarFate {
    begun: usize,
    acknowledged: usize,
    /// When it was seen last before it was gone.
    gone_after: Option<usize>,
}

/// Starts to write down the changes in a directory.
fn record(dir: &Path) -> (Watching, Arc<Mutex<Vec<Kept>>>) {
    let changes = Arc::new(Mutex::new(Vec::<Kept>::new()));
    let log = Arc::clone(&changes);
    let watching = watch(
        dir,
        Arc::new(move |change| {
            log.lock().unwrap().push(Kept::from(change));
            Ok(())
        }),
    );
    (watching, changes)
}

/// A run, written down.
struct Run {
    changes: Vec<Kept>,
    /// What was sent, with the number of changes that were made when it was first sent and when
    /// it was acknowledged.
    sent: Vec<(Key, f64, usize, usize)>,
    /// What was deleted of that, likewise.
    deleted: BTreeMap<Key, (usize, usize)>,
    exemplars: BTreeMap<ExemplarKey, ExemplarFate>,
    /// What was done beside writing, by number: after how many changes, and in which minute.
    done: Vec<(usize, i64, u64)>,
}

fn settings(dir: &Path) -> (DbConfig, Arc<Mutex<Vec<String>>>) {
    let (mut config, events) = config(dir);
    config.late_window = LATE_WINDOW_DEFAULT;
    config.exemplars_max = EXEMPLARS_MAX;
    (config, events)
}

/// What the run does; the numbers are from a seed.
fn run(dir: &Path, seed: u64) -> Run {
    let (watching, changes) = record(dir);
    let count = || changes.lock().unwrap().len();
    let mut exemplars = BTreeMap::new();
    let mut random = Random(seed);
    let mut sent: Vec<(Key, f64, usize, usize)> = Vec::new();
    let mut deleted = BTreeMap::new();
    let mut done = Vec::new();
    let mut looked = 0;
    let mut db = Db::open(settings(dir).0).unwrap();
    for minute in (0..9 * 60).step_by(3) {
        let t = minute * MINUTE;
        for tenant in TENANTS {
            let first = (minute / 60) % 4;
            let labels: Vec<String> = (first..first + 4)
                .map(|s| format!("__name__=m,s={s}"))
                .collect();
            let series: Vec<TestSeries> = labels
                .iter()
                .map(|labels| {
                    let value = random.below(1000) as f64 * 0.1;
                    TestSeries::new(labels, &[(t, value)])
                })
                .collect();
            let begun = count();
            let name = Tenant::new(tenant).unwrap();
            let append = db.append(&name, &series).unwrap();
            db.commit_wait(append.ticket).unwrap();
            let acknowledged = count();
            for (labels, series) in labels.iter().zip(&series) {
                let key = (tenant.to_owned(), labels.clone(), t);
                sent.push((key, series.samples[0].1, begun, acknowledged));
            }
            // One of histograms.
            let one = histogram(minute as f64, Counts::Integer, CounterReset::Unknown);
            let series = TestSeries::of_histograms("__name__=h,s=9", &[(t, one)]);
            let begun = count();
            let append = db.append(&name, &[series]).unwrap();
            db.commit_wait(append.ticket).unwrap();
            let key = (tenant.to_owned(), "__name__=h,s=9".to_owned(), t);
            sent.push((key, minute as f64, begun, count()));
            // And one that comes late, of a time that was never sent.
            let labels = &labels[random.below(4) as usize];
            let late = t - MINUTE * (1 + 3 * random.below(37) as i64);
            let key = (tenant.to_owned(), labels.clone(), late);
            if sent.iter().all(|it| it.0 != key) {
                let begun = count();
                let append = db
                    .append(&name, &[TestSeries::new(labels, &[(late, 0.5)])])
                    .unwrap();
                db.commit_wait(append.ticket).unwrap();
                assert_eq!(append.appended, 1);
                sent.push((key, 0.5, begun, count()));
            }
            append_exemplars(&db, tenant, t, &count, &mut exemplars);
        }
        let what = random.below(16);
        done.push((count(), minute, what));
        match what {
            0 | 6 => drop(db.file_chunks().unwrap()),
            1 | 7 => db.shorten_log().unwrap(),
            2 | 3 => drop(db.maintain().unwrap()),
            4 => drop(db.cut_now(Cut::Complete).unwrap()),
            8 | 9 => {
                let labels = format!("__name__=m,s={}", random.below(6));
                let matcher = Matcher::equal("s", &labels[labels.len() - 1..]);
                let from = t - random.below(300) as i64 * MINUTE;
                let range = TimeRange::new(from, from + random.below(200) as i64 * MINUTE);
                let begun = count();
                db.delete_series(None, &[matcher], range).unwrap();
                let hit = sent.iter().map(|it| &it.0);
                for key in hit.filter(|key| key.1 == labels && range.contains(key.2)) {
                    deleted.entry(key.clone()).or_insert((begun, count()));
                }
            }
            10 => drop(db.clean_tombstones().unwrap()),
            5 => {
                drop(db);
                db = Db::open(settings(dir).0).unwrap();
            }
            _ => {}
        }
        let seen = exemplars_of(&db).unwrap();
        for (key, fate) in &mut exemplars {
            match seen.contains(key) {
                true => fate.gone_after = None,
                false => drop(fate.gone_after.get_or_insert(looked)),
            }
        }
        looked = count();
    }
    drop(db);
    drop(watching);
    let changes = changes.lock().unwrap().clone();
    Run {
        changes,
        sent,
        deleted,
        exemplars,
        done,
    }
}

/// One of a float and one of a histogram.
fn append_exemplars(
    db: &Db,
    tenant: &str,
    t: i64,
    count: &impl Fn() -> usize,
    sent: &mut BTreeMap<ExemplarKey, ExemplarFate>,
) {
    let begun = count();
    let trace = format!("{begun}");
    let exemplar = Exemplar {
        labels: Labels::from_pairs([("trace", trace.as_str())]),
        value: t as f64,
        timestamp_ms: t,
    };
    let some = ["m", "h"].map(|name| (Labels::from_pairs([("__name__", name)]), exemplar.clone()));
    let counts = db.append_exemplars(&Tenant::new(tenant).unwrap(), some);
    assert_eq!(counts.unwrap().appended, 2);
    db.commit_wait(db.ticket()).unwrap();
    for name in ["m", "h"] {
        let key = (tenant.to_owned(), name.to_owned(), t, trace.clone());
        let fate = ExemplarFate {
            begun,
            acknowledged: count(),
            gone_after: None,
        };
        sent.insert(key, fate);
    }
}

/// All exemplars that a database finds.
fn exemplars_of(db: &Db) -> Result<BTreeSet<ExemplarKey>, String> {
    let mut all = BTreeSet::new();
    for tenant in tenants_of(db) {
        let found = db.exemplars(Some(&tenant), &[vec![]], TimeRange::ALL);
        if let Some(why) = found.missing.first() {
            return Err(why.to_string());
        }
        for (labels, exemplars) in &found.series {
            let name = labels.metric_name();
            all.extend(exemplars.iter().map(|it| {
                let trace = it.labels.get("trace").to_owned();
                (tenant.to_string(), name.to_owned(), it.timestamp_ms, trace)
            }));
        }
    }
    Ok(all)
}

/// The tenants that have something in head or blocks.
fn tenants_of(db: &Db) -> BTreeSet<Tenant> {
    let of_head = db.tenants().into_iter().map(|(tenant, _)| tenant);
    let blocks = db.blocks();
    let of_blocks = blocks.iter().map(|block| block.tenant().clone());
    of_head.chain(of_blocks).collect()
}

/// Compares the exemplars that a power cut left behind.
fn check_exemplars(run: &Run, at: usize, found: &BTreeSet<ExemplarKey>) -> Result<(), String> {
    for (key, fate) in &run.exemplars {
        let kept = fate.acknowledged <= at && fate.gone_after.is_none_or(|gone| at < gone);
        match found.contains(key) {
            true if fate.begun >= at => return Err(format!("exemplar {key:?} comes too early")),
            false if kept => return Err(format!("exemplar {key:?} is lost")),
            _ => {}
        }
    }
    match found.iter().find(|key| !run.exemplars.contains_key(*key)) {
        Some(key) => Err(format!("exemplar {key:?} was never sent")),
        None => Ok(()),
    }
}

/// The samples of a database, and how often each lies in a block.
type Content = (BTreeMap<Key, f64>, BTreeMap<Key, usize>);

/// All that a database has.
fn read(db: &Db) -> Result<Content, Error> {
    let mut samples = BTreeMap::new();
    let mut in_blocks = BTreeMap::new();
    for name in tenants_of(db) {
        let mut note = |series: Result<SeriesChunks, Error>, in_block: bool| {
            let series = series?;
            let mut columns = Columns::default();
            read_samples(&series.chunks, TimeRange::ALL, &mut columns)?;
            let pairs: Vec<String> = series
                .labels
                .iter()
                .map(|(n, v)| format!("{n}={v}"))
                .collect();
            let floats = columns.timestamps.iter().copied().zip(columns.values);
            let histograms = columns.histograms.iter().map(|(t, it)| (*t, it.count));
            for (t, value) in floats.chain(histograms) {
                let key = (name.to_string(), pairs.join(","), t);
                if in_block {
                    *in_blocks.entry(key).or_default() += 1;
                } else {
                    samples.insert(key, value);
                }
            }
            Ok::<(), Error>(())
        };
        for series in db.select(Some(&name), &[], TimeRange::ALL)? {
            note(series, false)?;
        }
        for block in db.blocks().iter().filter(|block| *block.tenant() == name) {
            for series in block.reader().select(&[], TimeRange::ALL)? {
                note(series, true)?;
            }
        }
    }
    Ok((samples, in_blocks))
}

/// Opens what a power cut left behind and compares.
fn check(run: &Run, at: usize, dir: &Path, go_on: bool) -> Result<(), String> {
    let (mut config, events) = settings(dir);
    config.sync = Sync::Interval(Duration::from_secs(1));
    let db = Db::open(config.clone()).map_err(|e| format!("does not open: {e}"))?;
    let mut expected = BTreeMap::new();
    let read = |db: &Db| read(db).map_err(|e| format!("cannot be read: {e}"));
    let (mut samples, mut in_blocks) = read(&db)?;
    let exemplars = exemplars_of(&db)?;
    check_exemplars(run, at, &exemplars)?;
    for (key, value, begun, acknowledged) in &run.sent {
        let gone = run.deleted.get(key);
        match samples.remove(key) {
            Some(_) if gone.is_some_and(|(_, done)| *done <= at) => {
                return Err(format!("{key:?} is there, and was deleted"));
            }
            Some(found) if found == *value && *begun < at => drop(expected.insert(key, *value)),
            Some(found) => return Err(format!("{key:?} is {found}, sent at {begun}: {value}")),
            None if gone.is_some_and(|(begun, _)| *begun < at) => {}
            None if *acknowledged <= at => return Err(format!("{key:?} is lost")),
            None => {}
        }
    }
    if let Some((key, value)) = samples.first_key_value() {
        return Err(format!("{key:?} {value} was never sent"));
    }
    if go_on {
        // What is left serves as well as before.
        let db = {
            for cut in [Cut::Complete, Cut::All] {
                db.cut_now(cut).map_err(|e| format!("is not cut: {e}"))?;
            }
            drop(db);
            Db::open(config).map_err(|e| format!("does not open again: {e}"))?
        };
        let (after, blocks) = read(&db)?;
        in_blocks = blocks;
        if !after.iter().map(|(k, v)| (k, *v)).eq(expected) {
            return Err("samples have changed when blocks were cut".to_owned());
        }
        if exemplars_of(&db)? != exemplars {
            return Err("exemplars have changed when blocks were cut".to_owned());
        }
    }
    if let Some((key, count)) = in_blocks.iter().find(|(_, count)| **count > 1) {
        return Err(format!("{key:?} is in {count} blocks"));
    }
    let events = events.lock().unwrap();
    let harmless = ["leftover", "torn tail", "block "];
    let damage = events.iter().find(|event| {
        !harmless.iter().any(|word| event.starts_with(word)) || event.contains("left out")
    });
    damage.map_or(Ok(()), |event| Err(event.clone()))
}

/// Which changes to cut before: all, or some of each site, evenly taken.
fn points_of(changes: &[Kept], dir: &Path, of_site: Option<usize>) -> BTreeSet<usize> {
    let mut sites = BTreeMap::<String, Vec<usize>>::new();
    for (at, change) in changes.iter().enumerate() {
        sites.entry(change.site(dir)).or_default().push(at);
    }
    let wanted = sites.values().flat_map(|of_one| {
        let every = of_site.map_or(1, |count| of_one.len().div_ceil(count));
        of_one.iter().copied().step_by(every)
    });
    wanted.collect()
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let seeds = std::env::var("ISOBAR_POWER_SEEDS");
    let seeds: u64 = seeds.map_or(2, |seeds| seeds.parse().unwrap());
    let dir = fast_dir();
    let run = run(dir.path(), 7);
    let everywhere = std::env::var_os("ISOBAR_POWER_EVERYWHERE").is_some();
    let of_site = (!everywhere).then_some(6);
    let points = points_of(&run.changes, dir.path(), of_site);
    let sites = run.changes.iter().map(|change| change.site(dir.path()));
    let sites = sites.collect::<BTreeSet<_>>().len();
    let mut disk = Disk::new(dir.path());
    let mut cuts = 0;
    let mut wrong = Vec::new();
    for (at, change) in run.changes.iter().enumerate() {
        let seeds = if points.contains(&at) { seeds } else { 0 };
        for seed in 0..seeds {
            let mut random = Random(at as u64 * 1000 + seed);
            let left = fast_dir();
            disk.lose_power(&mut random, left.path());
            cuts += 1;
            if let Err(why) = check(&run, at, left.path(), seed % 4 == 0) {
                let site = change.site(dir.path());
                wrong.push(format!("before change {at}, {site}, seed {seed}: {why}"));
            }
        }
        disk.apply(change);
    }
    let changes = run.changes.len();
    println!("power: {cuts} cuts at {sites} sites, {changes} changes in the run");
    wrong.truncate(10);
    if !wrong.is_empty() {
        println!("{:?}", run.done);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(sites >= 50);
}
