//! What the tests of head and database share: series to write, databases to open, text to compare.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isobar_model::histogram::{Buckets, CounterReset};
use isobar_model::{Clock, Columns, FloatHistogram, Labels, Matcher, Tenant, TimeRange};
use isobar_tsdb::Db;
use isobar_tsdb::db::{DbConfig, Sync};
use isobar_tsdb::head::incoming::{Counts, IncomingHistogram, IncomingSeries};
use isobar_tsdb::merge::read_samples;

/// A series as a request would bring it. The encoding is the text of the labels.
#[derive(Clone)]
pub(crate) struct TestSeries {
    pub(crate) encoded: Vec<u8>,
    pub(crate) samples: Vec<(i64, f64)>,
    pub(crate) histograms: Vec<(i64, IncomingHistogram)>,
}

/// A histogram with `count` observations, some of them in a bucket that comes and goes.
pub(crate) fn histogram(count: f64, counts: Counts, hint: CounterReset) -> IncomingHistogram {
    let last = (count / 8.0).floor();
    let (indexes, buckets): (Vec<i32>, Vec<f64>) = match last > 0.0 {
        true => (vec![-2, -1, 7], vec![0.0, count - last, last]),
        false => (vec![-2, -1], vec![0.0, count]),
    };
    let histogram = FloatHistogram {
        hint,
        schema: 3,
        zero_threshold: 1e-9,
        count,
        sum: count * 1.25,
        positive: Buckets::of_layout(indexes.into(), buckets).unwrap(),
        ..FloatHistogram::default()
    };
    let histogram = Arc::new(histogram);
    IncomingHistogram { histogram, counts }
}

/// The staleness marker.
pub(crate) fn stale_histogram() -> IncomingHistogram {
    IncomingHistogram {
        histogram: Arc::new(FloatHistogram::stale()),
        counts: Counts::Integer,
    }
}

impl TestSeries {
    /// `labels` is written `a=1,b=2`; names need not be sorted.
    pub(crate) fn new(labels: &str, samples: &[(i64, f64)]) -> Self {
        TestSeries {
            encoded: labels.as_bytes().to_vec(),
            samples: samples.to_vec(),
            histograms: Vec::new(),
        }
    }

    /// A series of native histograms.
    pub(crate) fn of_histograms(labels: &str, histograms: &[(i64, IncomingHistogram)]) -> Self {
        let histograms = histograms.to_vec();
        TestSeries {
            histograms,
            ..TestSeries::new(labels, &[])
        }
    }
}

impl IncomingSeries for TestSeries {
    fn encoded_labels(&self) -> &[u8] {
        &self.encoded
    }

    fn labels(&self) -> Result<Labels, String> {
        let text = std::str::from_utf8(&self.encoded).map_err(|e| e.to_string())?;
        let pairs: Option<Vec<_>> = text.split(',').map(|pair| pair.split_once('=')).collect();
        pairs
            .map(Labels::from_pairs)
            .ok_or_else(|| format!("no labels: {text}"))
    }

    fn samples(&self, mut each: impl FnMut(i64, f64)) {
        self.samples.iter().for_each(|(t, v)| each(*t, *v));
    }

    fn has_histograms(&self) -> bool {
        !self.histograms.is_empty()
    }

    fn histograms(&self, mut each: impl FnMut(i64, Result<IncomingHistogram, String>)) {
        self.histograms
            .iter()
            .for_each(|(t, it)| each(*t, Ok(it.clone())));
    }
}

/// A directory in memory where there is one, for tests that do not ask what a real disk does.
pub(crate) fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A configuration whose clock stands in the year 2100, and the list that its events go to.
pub(crate) fn config(dir: &Path) -> (DbConfig, Arc<Mutex<Vec<String>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let mut config = DbConfig::new(dir);
    config.clock = Clock::manual(4_102_444_800_000);
    // Late samples have tests of their own.
    config.late_window = Duration::ZERO;
    let sink = Arc::clone(&events);
    config.events = Arc::new(move |event| sink.lock().unwrap().push(event.to_string()));
    (config, events)
}

/// Opens a database and tells its events to nobody. A write counts as durable when the operating
/// system has it: what these tests kill is a process, and they would wait for a disk all day.
pub(crate) fn open(dir: &Path) -> Db {
    let mut config = config(dir).0;
    config.sync = Sync::Interval(Duration::from_millis(100));
    Db::open(config).unwrap()
}

/// Writes and waits until it is durable; gives what was refused as text.
pub(crate) fn write(db: &Db, tenant: &str, series: &[TestSeries]) -> Vec<String> {
    let append = db.append(&Tenant::new(tenant).unwrap(), series).unwrap();
    db.commit_wait(append.ticket).unwrap();
    append
        .rejected
        .first()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// All series and samples, a line for each series; a histogram is told by its count, and with the
/// letter of what its chunk tells of its kind.
pub(crate) fn dump(
    db: &Db,
    tenant: Option<&str>,
    matchers: &[Matcher],
    range: TimeRange,
) -> Vec<String> {
    let tenant = tenant.map(|tenant| Tenant::new(tenant).unwrap());
    let mut lines = Vec::new();
    for series in db.select(tenant.as_ref(), matchers, range).unwrap() {
        let series = series.unwrap();
        let mut columns = Columns::default();
        read_samples(&series.chunks, range, &mut columns).unwrap();
        let floats = columns.timestamps.iter().zip(&columns.values);
        let floats = floats.map(|(t, v)| (*t, format!("{t}:{v}")));
        let histograms = columns.histograms.iter().map(|(t, it)| {
            let text = match (it.is_stale(), it.hint) {
                (true, _) => format!("{t}:stale"),
                (false, CounterReset::Gauge) => format!("{t}:g{}", it.count),
                (false, _) => format!("{t}:h{}", it.count),
            };
            (*t, text)
        });
        let mut samples: Vec<(i64, String)> = floats.chain(histograms).collect();
        samples.sort();
        let samples: Vec<String> = samples.into_iter().map(|it| it.1).collect();
        lines.push(format!("{} {}", series.labels, samples.join(" ")));
    }
    lines
}

/// [`dump`] of everything.
pub(crate) fn dump_all(db: &Db) -> Vec<String> {
    dump(db, None, &[], TimeRange::ALL)
}

/// Copies a directory as a crash would leave it: file by file, while others write to them. The
/// lock is not copied.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if entry.file_name() != "lock" {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
