//! Random writes, cuts, crashes and restarts, compared with a map that does the obvious.

use std::collections::BTreeMap;
use std::path::Path;

use isobar_model::histogram::CounterReset;
use isobar_model::{Tenant, TimeRange};
use isobar_tsdb::db::{Cut, Db};
use isobar_tsdb::head::incoming::Counts;
use proptest::prelude::*;

use crate::support::{TestSeries, copy_dir, dump, dump_all, histogram, open};

const START: i64 = 1_700_000_000_000;
const MINUTE: i64 = 60_000;
const TENANTS: [&str; 2] = ["x", "y"];

/// A series, whether it comes in its other encoding, and its samples: minutes behind the cursor
/// and values, of which those from [`HISTOGRAMS_FROM`] on stand for histograms.
const HISTOGRAMS_FROM: u8 = 3;

type Incoming = (u8, bool, Vec<(i64, u8)>);

#[derive(Debug, Clone)]
enum Op {
    Write(usize, Vec<Incoming>),
    Advance(i64),
    Maintain,
    Cut(u8),
    ShortenLog,
    FileChunks,
    Restart,
    Crash,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let samples = prop::collection::vec((-5i64..90, 0u8..6), 1..6);
    let series = prop::collection::vec((0u8..9, any::<bool>(), samples), 1..6);
    let op = prop_oneof![
        12 => (0usize..2, series).prop_map(|(tenant, series)| Op::Write(tenant, series)),
        8 => (1i64..50).prop_map(Op::Advance),
        2 => Just(Op::Maintain),
        1 => (0u8..3).prop_map(Op::Cut),
        1 => Just(Op::ShortenLog),
        2 => Just(Op::FileChunks),
        1 => Just(Op::Restart),
        1 => Just(Op::Crash),
    ];
    prop::collection::vec(op, 1..80)
}

/// What should be there: by tenant and series, times with values.
#[derive(Default)]
struct Model {
    series: BTreeMap<(usize, u8), BTreeMap<i64, u8>>,
    newest: [Option<i64>; 2],
}

impl Model {
    /// Takes a sample as Prometheus would; false when it is refused or known.
    fn write(&mut self, tenant: usize, series: u8, limit: i64, t: i64, value: u8) -> bool {
        let samples = self.series.entry((tenant, series)).or_default();
        let late = samples.last_key_value().is_some_and(|(last, _)| *last >= t);
        if late || t < limit {
            return false;
        }
        samples.insert(t, value);
        true
    }

    fn dump(&self, tenant: usize, range: TimeRange) -> Vec<String> {
        let of_tenant = self.series.iter().filter(|((of, _), _)| *of == tenant);
        of_tenant
            .filter_map(|((_, series), samples)| {
                let samples: Vec<String> = samples
                    .iter()
                    .filter(|(t, _)| range.contains(**t))
                    .map(|(t, v)| match *v >= HISTOGRAMS_FROM {
                        true => format!("{t}:h{v}"),
                        false => format!("{t}:{}", f64::from(*v) * 0.5),
                    })
                    .collect();
                let labels = format!(r#"{{__name__="m{}", s="{series}"}}"#, series % 3);
                (!samples.is_empty()).then(|| format!("{labels} {}", samples.join(" ")))
            })
            .collect()
    }
}

fn incoming(series: u8, other_encoding: bool, samples: &[(i64, f64)]) -> TestSeries {
    let (name, label) = (format!("__name__=m{}", series % 3), format!("s={series}"));
    let labels = if other_encoding {
        [label, name]
    } else {
        [name, label]
    };
    TestSeries::new(&labels.join(","), samples)
}

fn check(db: &Db, model: &Model, cursor: i64) {
    for (tenant, name) in TENANTS.iter().enumerate() {
        for range in [
            TimeRange::ALL,
            TimeRange::new(cursor - 100 * MINUTE, cursor - 20 * MINUTE),
        ] {
            let mut expected = model.dump(tenant, range);
            expected.sort();
            // Chunks that overlap the range may have no sample in it.
            let mut found = dump(db, Some(name), &[], range);
            found.retain(|line| !line.ends_with("} "));
            assert_eq!(found, expected);
        }
    }
}

fn run(dir: &Path, ops: &[Op]) {
    let mut db = open(&dir.join("0"));
    let mut model = Model::default();
    let mut cursor = START;
    let mut copies = 0;
    for op in ops {
        match op {
            Op::Advance(minutes) => cursor += minutes * MINUTE,
            Op::Maintain => drop(db.maintain().unwrap()),
            Op::ShortenLog => db.shorten_log().unwrap(),
            Op::FileChunks => drop(db.file_chunks().unwrap()),
            Op::Cut(how) => {
                let cut = [Cut::Due, Cut::Complete, Cut::All][usize::from(*how)];
                db.cut_now(cut).unwrap();
            }
            Op::Restart => {
                let here = db.dir().to_owned();
                drop(db);
                db = open(&here);
            }
            Op::Crash => {
                copies += 1;
                let copy = dir.join(copies.to_string());
                copy_dir(db.dir(), &copy);
                db = open(&copy);
            }
            Op::Write(tenant, series) => write(&db, &mut model, cursor, *tenant, series),
        }
        check(&db, &model, cursor);
    }
    assert_eq!(db.quarantined(), []);
}

fn write(db: &Db, model: &mut Model, cursor: i64, tenant: usize, series: &[Incoming]) {
    let name = Tenant::new(TENANTS[tenant]).unwrap();
    let age = model.newest[tenant].map_or(i64::MIN, |newest| newest - 60 * MINUTE);
    let blocks = db.blocks();
    let of_tenant = blocks.iter().filter(|block| *block.tenant() == name);
    let cut = of_tenant
        .map(|block| block.meta().end_ms)
        .max()
        .unwrap_or(i64::MIN);
    let (mut taken, mut request) = (0, Vec::new());
    // A series that comes twice in a request is taken in any order, so it comes once.
    let mut seen = Vec::new();
    for (series, other_encoding, samples) in series {
        if seen.contains(series) {
            continue;
        }
        seen.push(*series);
        let (mut floats, mut histograms) = (Vec::new(), Vec::new());
        // The floats of a series are taken before its histograms.
        let mut samples = samples.clone();
        samples.sort_by_key(|(_, value)| *value >= HISTOGRAMS_FROM);
        for (behind, value) in &samples {
            let t = cursor - behind * MINUTE;
            match *value >= HISTOGRAMS_FROM {
                true => {
                    let (counts, hint) = (Counts::Integer, CounterReset::Unknown);
                    histograms.push((t, histogram(f64::from(*value), counts, hint)));
                }
                false => floats.push((t, f64::from(*value) * 0.5)),
            }
            if model.write(tenant, *series, age.max(cut), t, *value) {
                taken += 1;
                model.newest[tenant] = model.newest[tenant].max(Some(t));
            }
        }
        let mut incoming = incoming(*series, *other_encoding, &floats);
        incoming.histograms = histograms;
        request.push(incoming);
    }
    let append = db.append(&name, &request).unwrap();
    db.commit_wait(append.ticket).unwrap();
    assert_eq!(append.appended, taken);
    let sent = request
        .iter()
        .map(|series| series.samples.len() + series.histograms.len());
    let sent: usize = sent.sum();
    assert_eq!(
        append.appended + append.duplicates + append.rejected.total(),
        sent as u64
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_database_does_what_a_map_does(ops in ops()) {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &ops);
    }
}

#[test]
fn blocks_are_cut_and_the_head_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let tenant = Tenant::default();
    let hour = 60 * MINUTE;
    let first = START - START.rem_euclid(2 * hour);
    for i in 0..=(3 * 60) {
        let series = [
            incoming(1, false, &[(first + i * MINUTE, i as f64)]),
            incoming(2, false, &[(first + i.min(60) * MINUTE, 1.0)]),
        ];
        let append = db.append(&tenant, &series).unwrap();
        db.commit_wait(append.ticket).unwrap();
    }
    let before = dump_all(&db);
    let reader = db.select(None, &[], TimeRange::ALL).unwrap();
    let done = db.maintain().unwrap();
    assert_eq!((done.blocks_cut.len(), done.waits_for_readers), (1, true));
    assert_eq!(db.head_stats(None).series, 2);
    drop(reader);
    let done = db.maintain().unwrap();
    assert!(done.log_shortened && done.blocks_cut.is_empty());
    // The series that got no samples in the last hour is gone from the head.
    assert_eq!(db.head_stats(None).series, 1);
    assert_eq!(
        db.head_stats(None).range_ms,
        Some((first + 2 * hour, first + 3 * hour))
    );
    assert_eq!(dump_all(&db), before);
    let blocks = db.blocks();
    let meta = blocks[0].meta();
    assert_eq!((meta.min_ms, meta.end_ms), (first, first + 2 * hour));
    assert_eq!(
        (meta.stats.num_series, meta.stats.num_samples),
        (2, 120 + 61)
    );
    assert_eq!(
        db.maintain().unwrap(),
        isobar_tsdb::db::Maintenance::default()
    );
    drop(db);
    let db = open(dir.path());
    assert_eq!(dump_all(&db), before);
    assert_eq!(db.head_stats(None).series, 1);
}
