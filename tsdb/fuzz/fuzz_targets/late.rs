//! Samples of both kinds in any order, deletions, cuts, restarts and crashes leave in a database what
//! they leave in a map.
//!
//! The input is a list of operations, a byte that says which and the bytes that it takes. What is at a
//! time follows from series and time, so that no two samples contradict each other: who wins then is
//! what other tests ask. A sample is taken unless it is older than the newest of its tenant by more
//! than the window, whatever the database has done with those before.
//!
//! Run with `cargo +nightly fuzz run late` in `tsdb/`; `TMPDIR=/dev/shm` spares the disk.
#![no_main]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isobar_model::histogram::Buckets;
use isobar_model::{Clock, Columns, FloatHistogram, Labels, MatchOp, Matcher, Tenant, TimeRange};
use isobar_tsdb::Db;
use isobar_tsdb::db::{Cut, DbConfig, Sync};
use isobar_tsdb::head::incoming::{Counts, IncomingHistogram, IncomingSeries};
use isobar_tsdb::merge::read_samples;
use libfuzzer_sys::fuzz_target;

const START_MS: i64 = 1_700_000_000_000 / STEP_MS * STEP_MS;
const STEP_MS: i64 = 15_000;
const MINUTE_MS: i64 = 60_000;
const WINDOW_MS: i64 = 120 * MINUTE_MS;
const SERIES: u8 = 6;
const OPERATIONS_MAX: usize = 96;

/// What is left of the input; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn minutes(&mut self) -> i64 {
        i64::from(self.byte()) * MINUTE_MS
    }
}

/// Whether a histogram is there at a time, and its value or count.
fn sample(series: u8, time_ms: i64) -> (bool, f64) {
    let at = time_ms / STEP_MS + i64::from(series);
    // Runs of each kind, in some of the series.
    let is_histogram = series % 3 == 2 && at % 11 > 5;
    (is_histogram, (at * at % 7) as f64)
}

struct Series {
    labels: Labels,
    series: u8,
    times: Vec<i64>,
}

impl IncomingSeries for Series {
    fn encoded_labels(&self) -> &[u8] {
        self.labels.as_bytes()
    }

    fn labels(&self) -> Result<Labels, String> {
        Ok(self.labels.clone())
    }

    fn samples(&self, mut each: impl FnMut(i64, f64)) {
        for time_ms in &self.times {
            if let (false, value) = sample(self.series, *time_ms) {
                each(*time_ms, value);
            }
        }
    }

    fn has_histograms(&self) -> bool {
        self.times.iter().any(|it| sample(self.series, *it).0)
    }

    fn histograms(&self, mut each: impl FnMut(i64, Result<IncomingHistogram, String>)) {
        for time_ms in &self.times {
            if let (true, count) = sample(self.series, *time_ms) {
                let buckets = Buckets::of_layout(vec![-2, 3].into(), vec![count, 0.0]);
                let histogram = FloatHistogram {
                    schema: 3,
                    count,
                    sum: count,
                    positive: buckets.expect("two buckets"),
                    ..FloatHistogram::default()
                };
                let histogram = Arc::new(histogram);
                let counts = Counts::Integer;
                each(*time_ms, Ok(IncomingHistogram { histogram, counts }));
            }
        }
    }
}

/// What should be there, of a tenant.
#[derive(Default)]
struct Model {
    series: BTreeMap<u8, BTreeMap<i64, (bool, f64)>>,
    newest_ms: Option<i64>,
}

impl Model {
    fn write(&mut self, request: &[Series]) {
        let oldest_ms = self.newest_ms.map_or(i64::MIN, |it| it - WINDOW_MS);
        for one in request {
            for time_ms in one.times.iter().filter(|it| **it >= oldest_ms) {
                let of_series = self.series.entry(one.series).or_default();
                of_series.insert(*time_ms, sample(one.series, *time_ms));
                self.newest_ms = self.newest_ms.max(Some(*time_ms));
            }
        }
    }

    fn delete(&mut self, series: Option<u8>, range: TimeRange) {
        for (number, samples) in &mut self.series {
            if series.is_none_or(|it| it == *number) {
                samples.retain(|time_ms, _| !range.contains(*time_ms));
            }
        }
    }
}

fn labels(series: u8) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("s", &*series.to_string())])
}

struct Run {
    dir: PathBuf,
    copies: u32,
    db: Option<Db>,
    models: [Model; 2],
    cursor_ms: i64,
}

impl Run {
    fn db(&self) -> &Db {
        self.db.as_ref().expect("it is open between operations")
    }

    fn open(&mut self) {
        let mut config = DbConfig::new(self.dir.join(self.copies.to_string()));
        config.clock = Clock::manual(4_102_444_800_000);
        config.sync = Sync::Interval(Duration::from_millis(100));
        config.late_window = Duration::from_millis(WINDOW_MS.unsigned_abs());
        self.db = Some(Db::open(config).expect("it opens"));
    }

    fn write(&mut self, tenant: usize, request: Vec<Series>) {
        let append = self.db().append(&name(tenant), &request).expect("taken");
        self.db().commit_wait(append.ticket).expect("durable");
        self.models[tenant].write(&request);
    }

    fn some_samples(&mut self, input: &mut Input<'_>) {
        let tenant = usize::from(input.below(2));
        let first = input.byte();
        let request = (0..=input.below(3)).map(|at| {
            let series = first.wrapping_add(at) % SERIES;
            let times = (0..=input.below(7)).map(|_| self.cursor_ms - input.minutes());
            Series {
                labels: labels(series),
                series,
                times: times.collect(),
            }
        });
        let request = request.collect();
        self.write(tenant, request);
    }

    fn many_samples(&mut self, input: &mut Input<'_>) {
        let tenant = usize::from(input.below(2));
        let series = input.below(SERIES);
        let first_ms = self.cursor_ms - input.minutes();
        let times = (0..i64::from(input.byte())).map(|at| first_ms + at * STEP_MS);
        let one = Series {
            labels: labels(series),
            series,
            times: times.collect(),
        };
        self.write(tenant, vec![one]);
    }

    fn delete(&mut self, input: &mut Input<'_>) {
        let tenant = usize::from(input.below(2));
        let series = Some(input.below(2 * SERIES)).filter(|it| *it < SERIES);
        let from_ms = self.cursor_ms - input.minutes();
        let range = TimeRange::new(from_ms, from_ms + input.minutes());
        let (label, value) = match series {
            Some(series) => ("s", series.to_string()),
            None => ("__name__", "m".to_owned()),
        };
        let matcher = Matcher::new(label, MatchOp::Equal, &*value).expect("a matcher");
        self.db()
            .delete_series(Some(&name(tenant)), &[matcher], range)
            .expect("deleted");
        self.models[tenant].delete(series, range);
    }

    /// Does the next operation, and says whether it may have moved what is there.
    fn step(&mut self, input: &mut Input<'_>) -> bool {
        match input.below(18) {
            0..=5 => self.some_samples(input),
            6..=8 => self.many_samples(input),
            9..=10 => self.cursor_ms += input.minutes() / 2,
            what => {
                self.step_aside(what, input);
                return true;
            }
        }
        false
    }

    fn step_aside(&mut self, what: u8, input: &mut Input<'_>) {
        match what {
            11 => drop(self.db().maintain().expect("maintained")),
            12 => {
                let cut = [Cut::Due, Cut::Complete, Cut::All][usize::from(input.below(3))];
                self.db().cut_now(cut).expect("cut");
            }
            13 => self.db().shorten_log().expect("shortened"),
            14 => drop(self.db().file_chunks().expect("filed")),
            15 => {
                self.db = None;
                self.open();
            }
            16 => {
                let old = self.dir.join(self.copies.to_string());
                self.copies += 1;
                copy(&old, &self.dir.join(self.copies.to_string()));
                self.db = None;
                std::fs::remove_dir_all(old).expect("removed");
                self.open();
            }
            _ => match input.below(4) {
                0 => drop(self.db().clean_tombstones().expect("cleaned")),
                _ => self.delete(input),
            },
        }
    }

    fn check(&self) {
        for (tenant, model) in self.models.iter().enumerate() {
            let mut found = BTreeMap::new();
            let series = self.db().select(Some(&name(tenant)), &[], TimeRange::ALL);
            for series in series.expect("selected") {
                let series = series.expect("a series");
                let mut columns = Columns::default();
                read_samples(&series.chunks, TimeRange::ALL, &mut columns).expect("read");
                let floats = columns.timestamps.iter().zip(&columns.values);
                let floats = floats.map(|(time_ms, value)| (*time_ms, (false, *value)));
                let histograms = columns.histograms.iter();
                let histograms = histograms.map(|(time_ms, it)| (*time_ms, (true, it.count)));
                let samples: BTreeMap<i64, (bool, f64)> = floats.chain(histograms).collect();
                let count = columns.timestamps.len() + columns.histograms.len();
                assert_eq!(samples.len(), count, "no time comes twice");
                if !samples.is_empty() {
                    found.insert(series.labels.to_string(), samples);
                }
            }
            let expected = model.series.iter().filter(|(_, it)| !it.is_empty());
            let expected: BTreeMap<String, BTreeMap<i64, (bool, f64)>> = expected
                .map(|(series, samples)| (labels(*series).to_string(), samples.clone()))
                .collect();
            assert_eq!(found, expected, "tenant {tenant}");
        }
    }
}

fn name(tenant: usize) -> Tenant {
    Tenant::new(["x", "y"][tenant]).expect("a name")
}

/// As a crash would leave it: while the process that has it runs.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "lock" {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let dir = std::env::temp_dir().join(format!("late-{}", std::process::id()));
    // What a run before this one has left, if it did.
    let _absent = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory");
    let mut run = Run {
        dir,
        copies: 0,
        db: None,
        models: Default::default(),
        cursor_ms: START_MS,
    };
    run.open();
    let mut input = Input(data);
    for _ in 0..OPERATIONS_MAX {
        if input.0.is_empty() {
            break;
        }
        if run.step(&mut input) {
            run.check();
        }
    }
    run.check();
    assert_eq!(run.db().quarantined(), []);
    run.db = None;
    std::fs::remove_dir_all(&run.dir).expect("removed");
});
