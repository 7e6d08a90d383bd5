//! Samples in random order, compared with a map that does the obvious: windows, repeats,
//! contradictions and samples that are too old, over cuts, truncations, snapshots, restarts,
//! crashes, deletions and readers that stay.
//!
//! `ISOBAR_LATE_SAMPLES=1000000` runs it at full size (about a minute and a half with
//! optimizations, some minutes without).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use isobar_model::histogram::CounterReset;
use isobar_model::{Matcher, Tenant, TimeRange};
use isobar_tsdb::Db;
use isobar_tsdb::db::{Cut, DbConfig, Sync};
use isobar_tsdb::head::incoming::{Append, Counts};

use crate::support::{TestSeries, config, copy_dir, dump, fast_dir, histogram, write};

const START: i64 = 1_700_000_000_000;
const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// Half a block range: what is older does not go in order.
const AGE: i64 = HOUR;
const TENANTS: [&str; 3] = ["x", "y", "z"];
const SERIES: u64 = 8;
const BATCH: u64 = 20;

/// Xorshift: the same numbers in every run of a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn settings(dir: &Path, window: Duration) -> DbConfig {
    let mut config = config(dir).0;
    config.sync = Sync::Interval(Duration::from_millis(100));
    config.late_window = window;
    config.events = Arc::new(|event| assert!(!event.is_warning(), "{event}"));
    config
}

fn open(dir: &Path, window: Duration) -> Db {
    Db::open(settings(dir, window)).unwrap()
}

/// What a series has: each time with its values. There is more than one where a sample contradicts
/// one that lies in blocks only, which is not noticed; either may be read then.
#[derive(Default)]
struct Series {
    samples: BTreeMap<i64, Vec<u8>>,
    last_in_order: Option<i64>,
}

#[derive(Default)]
struct Model {
    series: BTreeMap<(usize, u64), Series>,
    newest: [Option<i64>; TENANTS.len()],
    cut_until: [i64; TENANTS.len()],
    window_ms: i64,
    counts: BTreeMap<&'static str, u64>,
}

/// What becomes of a sample.
#[derive(Debug, PartialEq)]
enum Fate {
    Appended,
    Duplicate,
    Refused(&'static str),
    /// The time is known, but may be in blocks only.
    Open,
}

impl Model {
    fn fate(&self, tenant: usize, series: u64, t: i64, value: u8) -> Fate {
        let newest = self.newest[tenant].unwrap_or(i64::MIN);
        let cut_until = self.cut_until[tenant];
        let known = self.series.get(&(tenant, series));
        match known.and_then(|it| it.samples.get(&t)) {
            Some(_) if t < cut_until => return Fate::Open,
            Some(values) if values[..] == [value] => return Fate::Duplicate,
            Some(_) => return Fate::Refused("duplicate_timestamp"),
            None => {}
        }
        let last = known.and_then(|it| it.last_in_order);
        let in_order =
            last.is_none_or(|last| t > last) && t >= cut_until.max(newest.saturating_sub(AGE));
        match in_order || t >= newest.saturating_sub(self.window_ms) {
            true => Fate::Appended,
            false => Fate::Refused("too_old"),
        }
    }

    fn take(&mut self, tenant: usize, series: u64, t: i64, value: u8) {
        let limit =
            self.cut_until[tenant].max(self.newest[tenant].unwrap_or(i64::MIN).saturating_sub(AGE));
        let series = self.series.entry((tenant, series)).or_default();
        if series.last_in_order.is_none_or(|last| t > last) && t >= limit {
            series.last_in_order = Some(t);
        }
        let values = series.samples.entry(t).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    fn check(&self, db: &Db, range: TimeRange) {
        for (tenant, name) in TENANTS.iter().enumerate() {
            let mut found = dump(db, Some(name), &[], range);
            // Chunks that overlap the range may have no sample in it.
            found.retain(|line| !line.ends_with("} "));
            let mut found = found.iter();
            for ((_, series), state) in self.series.iter().filter(|((of, _), _)| *of == tenant) {
                let expected: Vec<_> = state.samples.range(range.min_ms..=range.max_ms).collect();
                if expected.is_empty() {
                    continue;
                }
                let line = found
                    .next()
                    .unwrap_or_else(|| panic!("{name}: series {series} is gone"));
                let (labels, samples) = line.split_once("} ").unwrap();
                assert!(
                    labels.ends_with(&format!("s=\"{series}\"")),
                    "{name}: {labels}"
                );
                let samples: Vec<&str> = samples.split(' ').collect();
                let same = |(sample, (t, values)): (&&str, &(&i64, &Vec<u8>))| {
                    values
                        .iter()
                        .any(|value| *sample == text(*series, **t, *value))
                };
                let good =
                    samples.len() == expected.len() && samples.iter().zip(&expected).all(same);
                assert!(good, "{name} {labels}: {samples:?}, expected {expected:?}");
            }
            assert_eq!(found.next(), None);
        }
    }
}

fn is_histogram(series: u64) -> bool {
    series % 4 == 3
}

fn text(series: u64, t: i64, value: u8) -> String {
    match is_histogram(series) {
        true => format!("{t}:h{}", f64::from(value) * 4.0),
        false => format!("{t}:{}", f64::from(value) * 0.5),
    }
}

fn incoming(series: u64, samples: &[(i64, u8)]) -> TestSeries {
    let labels = format!("__name__=m,s={series}");
    if is_histogram(series) {
        let counts = if series == 3 {
            Counts::Integer
        } else {
            Counts::Float
        };
        let of = |value: u8| histogram(f64::from(value) * 4.0, counts, CounterReset::Unknown);
        let samples: Vec<_> = samples.iter().map(|(t, value)| (*t, of(*value))).collect();
        return TestSeries::of_histograms(&labels, &samples);
    }
    let samples: Vec<_> = samples
        .iter()
        .map(|(t, value)| (*t, f64::from(*value) * 0.5))
        .collect();
    TestSeries::new(&labels, &samples)
}

fn append(db: &Db, tenant: usize, request: &[TestSeries]) -> Append {
    let append = db
        .append(&Tenant::new(TENANTS[tenant]).unwrap(), request)
        .unwrap();
    db.commit_wait(append.ticket).unwrap();
    append
}

/// Sends samples for one tenant: those whose fate is certain together, the others one by one.
fn send(db: &Db, model: &mut Model, tenant: usize, random: &mut Random, cursor: i64) {
    let blocks = db.blocks();
    let of_tenant = blocks
        .iter()
        .filter(|block| block.tenant().as_str() == TENANTS[tenant]);
    let cut_until = of_tenant.map(|block| block.meta().end_ms).max();
    model.cut_until[tenant] = cut_until.unwrap_or(i64::MIN);
    let mut request: BTreeMap<u64, Vec<(i64, u8)>> = BTreeMap::new();
    let mut alone = Vec::new();
    for _ in 0..BATCH {
        let behind = match random.below(10) {
            0..5 => random.below(120),
            5..9 => random.below(2 * 3600),
            _ => random.below(2 * model.window_ms as u64 / 1000),
        };
        let step = 15 * SECOND;
        let t = (cursor - behind as i64 * SECOND).div_euclid(step) * step;
        let (series, value) = (
            random.below(SERIES),
            random.below(8).saturating_sub(4) as u8,
        );
        let sent = request
            .get(&series)
            .is_some_and(|it| it.iter().any(|it| it.0 == t));
        match model.fate(tenant, series, t, value) {
            Fate::Open => alone.push((series, t, value)),
            // The fate of one sample of a request should not depend on another.
            _ if sent => {}
            _ => request.entry(series).or_default().push((t, value)),
        }
    }
    let (mut appended, mut duplicates) = (0, 0);
    let mut refused = BTreeMap::<&str, u64>::new();
    let mut newest = model.newest[tenant];
    for (series, samples) in &mut request {
        samples.sort_unstable();
        for (t, value) in samples {
            match model.fate(tenant, *series, *t, *value) {
                Fate::Appended => {
                    model.take(tenant, *series, *t, *value);
                    appended += 1;
                    newest = newest.max(Some(*t));
                }
                Fate::Duplicate => duplicates += 1,
                Fate::Refused(why) => *refused.entry(why).or_default() += 1,
                Fate::Open => panic!("a request has no sample twice"),
            }
        }
    }
    let series: Vec<_> = request
        .iter()
        .map(|(series, samples)| incoming(*series, samples))
        .collect();
    let done = append(db, tenant, &series);
    model.newest[tenant] = newest;
    let told: BTreeMap<&str, u64> = done.rejected.counts().collect();
    assert_eq!(
        (done.appended, done.duplicates, &told),
        (appended, duplicates, &refused)
    );
    for (name, count) in told
        .into_iter()
        .chain([("appended", appended), ("known", duplicates)])
    {
        let name = ["too_old", "duplicate_timestamp", "appended", "known"]
            .into_iter()
            .find(|it| *it == name);
        *model.counts.entry(name.unwrap_or("other")).or_default() += count;
    }
    for (series, t, value) in alone {
        let done = append(db, tenant, &[incoming(series, &[(t, value)])]);
        if done.appended == 1 {
            model.take(tenant, series, t, value);
            *model.counts.entry("again").or_default() += 1;
        }
    }
}

fn delete(db: &Db, model: &mut Model, tenant: usize, series: u64, range: TimeRange) {
    let matcher = Matcher::equal("s", series.to_string());
    let name = Tenant::new(TENANTS[tenant]).unwrap();
    db.delete_series(Some(&name), &[matcher], range).unwrap();
    if let Some(series) = model.series.get_mut(&(tenant, series)) {
        series.samples.retain(|t, _| !range.contains(*t));
    }
}

fn run(samples: u64, seed: u64) {
    let dir = fast_dir();
    let window = Duration::from_secs([2, 2, 5][seed as usize % 3] * 3600);
    let mut model = Model {
        window_ms: i64::try_from(window.as_millis()).unwrap(),
        ..Model::default()
    };
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (seed << 17));
    let mut db = open(&dir.path().join("0"), window);
    let mut reader = None;
    let (mut cursor, mut copies) = (START, 0u32);
    let mut blocks = 0;
    // Half a day, and more when there are many samples.
    let pace = 8 + 12 * 3600 / (samples / BATCH);
    for round in 0..samples / BATCH {
        cursor += random.below(2 * pace) as i64 * SECOND;
        let tenant = random.below(TENANTS.len() as u64) as usize;
        send(&db, &mut model, tenant, &mut random, cursor);
        if random.one_in(40) {
            blocks += db.maintain().unwrap().blocks_cut.len();
        }
        if random.one_in(300) {
            let cut = [Cut::Complete, Cut::All][usize::from(random.one_in(4))];
            blocks += db.cut_now(cut).unwrap().blocks_cut.len();
        }
        if random.one_in(200) {
            db.shorten_log().unwrap();
        }
        if random.one_in(200) {
            db.file_chunks().unwrap();
        }
        if random.one_in(100) {
            reader = reader
                .is_none()
                .then(|| db.select(None, &[], TimeRange::ALL).unwrap());
        }
        if random.one_in(150) {
            let end = cursor - random.below(3 * 3600) as i64 * SECOND;
            let range = TimeRange::new(end - random.below(3600) as i64 * SECOND, end);
            delete(&db, &mut model, tenant, random.below(SERIES), range);
        }
        if random.one_in(250) {
            reader = None;
            let here = db.dir().to_owned();
            drop(db);
            db = open(&here, window);
        }
        if random.one_in(600) {
            copies += 1;
            let (old, copy) = (db.dir().to_owned(), dir.path().join(copies.to_string()));
            copy_dir(&old, &copy);
            (reader, db) = (None, open(&copy, window));
            std::fs::remove_dir_all(old).unwrap();
        }
        if round % 25 == 0 {
            let end = cursor - random.below(3 * 3600) as i64 * SECOND;
            model.check(&db, TimeRange::new(end - HOUR, end));
        }
        if round % (samples / BATCH / 8).max(1) == 0 {
            model.check(&db, TimeRange::ALL);
        }
    }
    drop(reader);
    model.check(&db, TimeRange::ALL);
    db.cut_now(Cut::All).unwrap();
    model.check(&db, TimeRange::ALL);
    assert_eq!(db.head_stats(None).chunks, 0);
    assert_eq!(db.quarantined(), []);
    let late = db
        .blocks()
        .iter()
        .filter(|it| !it.meta().compaction.hints.is_empty())
        .count();
    println!(
        "seed {seed}: {samples} samples, {blocks} blocks, {late} of late samples, {:?}",
        model.counts
    );
    for name in ["appended", "known", "too_old", "duplicate_timestamp"] {
        assert!(model.counts.contains_key(name), "{name} did not happen");
    }
}

#[test]
fn samples_in_any_order_are_kept_once() {
    let samples = std::env::var("ISOBAR_LATE_SAMPLES").map_or(9_000, |it| it.parse().unwrap());
    for seed in 0..3 {
        run(samples / 3, seed);
    }
}

#[test]
fn late_samples_of_a_range_that_is_cut_become_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), Duration::from_secs(2 * 3600));
    let first = START - START.rem_euclid(2 * HOUR);
    let at = |minutes: i64, value: f64| {
        write(
            &db,
            "t",
            &[TestSeries::new("a=1", &[(first + minutes * MINUTE, value)])],
        )
    };
    for minutes in 0..=180 {
        assert!(at(minutes, 1.0).is_empty());
    }
    let done = db.maintain().unwrap();
    assert_eq!(done.blocks_cut.len(), 1);
    let half_minute = first + 100 * MINUTE + 30 * SECOND;
    let late = |value| write(&db, "t", &[TestSeries::new("a=1", &[(half_minute, value)])]);
    assert!(late(5.0).is_empty() && late(5.0).is_empty());
    assert_eq!(
        late(6.0),
        [format!(
            "duplicate sample for timestamp: timestamp {half_minute} value 6: series {{a=\"1\"}}"
        )]
    );
    let old = write(
        &db,
        "t",
        &[TestSeries::new("b=1", &[(first + 59 * MINUTE, 1.0)])],
    );
    let text = format!(
        "too old sample: timestamp {} value 1: series {{b=\"1\"}}",
        first + 59 * MINUTE
    );
    assert_eq!(old, [text]);
    // Late samples may still come for the first range, so they wait.
    assert_eq!(db.maintain().unwrap().blocks_cut.len(), 0);
    let before = dump(&db, Some("t"), &[], TimeRange::ALL);
    assert!(before[0].contains(&format!(" {half_minute}:5 ")));
    at(240, 1.0);
    let done = db.maintain().unwrap();
    let blocks = db.blocks();
    let block = blocks
        .iter()
        .find(|block| done.blocks_cut.contains(&block.meta().ulid))
        .unwrap();
    let meta = block.meta();
    assert_eq!(meta.compaction.hints, ["from-out-of-order"]);
    assert_eq!((meta.min_ms, meta.end_ms), (half_minute, first + 2 * HOUR));
    assert_eq!((meta.stats.num_series, meta.stats.num_samples), (1, 1));
    assert_eq!(
        dump(
            &db,
            Some("t"),
            &[],
            TimeRange::new(i64::MIN, first + 180 * MINUTE)
        ),
        before
    );
    assert_eq!(db.maintain().unwrap().blocks_cut.len(), 0);
    let all = dump(&db, Some("t"), &[], TimeRange::ALL);
    drop(db);
    let db = open(dir.path(), Duration::ZERO);
    assert_eq!(dump(&db, Some("t"), &[], TimeRange::ALL), all);
}
