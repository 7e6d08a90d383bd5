//! Native histograms through the head: stored, found again after a restart, cut into blocks.

use isobar_model::TimeRange;
use isobar_model::histogram::CounterReset;
use isobar_model::sample::STALE_NAN;
use isobar_tsdb::Db;
use isobar_tsdb::db::Cut;
use isobar_tsdb::head::incoming::{Counts, IncomingHistogram};

use crate::promtool::promtool;
use crate::support::{TestSeries, dump_all, histogram, open, stale_histogram, write};

const SERIES: &str = "__name__=h,job=a";

fn counter(count: f64) -> IncomingHistogram {
    histogram(count, Counts::Integer, CounterReset::Unknown)
}

fn gauge(count: f64) -> IncomingHistogram {
    histogram(count, Counts::Float, CounterReset::Gauge)
}

/// The encodings and first bytes of all chunks: how many samples, and the flags of histograms.
fn chunks(db: &Db) -> Vec<String> {
    let series = db.select(None, &[], TimeRange::ALL).unwrap();
    let chunks = series.flat_map(|series| series.unwrap().chunks);
    chunks
        .map(|chunk| {
            let count = chunk.sample_count().unwrap();
            match chunk.encoding.name() {
                "XOR" => format!("XOR {count}"),
                name => format!("{name} {count} {:02x}", chunk.data[2]),
            }
        })
        .collect()
}

#[test]
fn all_kinds_are_stored_and_survive_restarts_and_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let of = |histograms: &[(i64, IncomingHistogram)]| {
        let series = [TestSeries::of_histograms(SERIES, histograms)];
        write(&db, "t", &series)
    };
    assert!(of(&[(1000, counter(3.0)), (2000, counter(20.0))]).is_empty());
    // A reset, a staleness marker, what follows it, a gauge, floats between, and a marker that
    // comes as a float.
    assert!(of(&[(3000, counter(2.0)), (4000, stale_histogram())]).is_empty());
    assert!(
        of(&[
            (5000, counter(1.0)),
            (6000, gauge(0.5)),
            (7000, gauge(0.25))
        ])
        .is_empty()
    );
    let floats = [(8000, 1.5), (9000, 2.5)];
    assert!(write(&db, "t", &[TestSeries::new(SERIES, &floats)]).is_empty());
    assert!(of(&[(10_000, counter(5.0))]).is_empty());
    assert!(write(&db, "t", &[TestSeries::new(SERIES, &[(11_000, STALE_NAN)])]).is_empty());

    let samples = [concat!(
        r#"{__name__="h", job="a"} 1000:h3 2000:h20 3000:h2 4000:stale 5000:h1 "#,
        "6000:g0.5 7000:g0.25 8000:1.5 9000:2.5 10000:h5 11000:stale"
    )];
    let kinds = [
        "histogram 2 00",
        "histogram 2 80",
        "histogram 1 00",
        "float histogram 2 c0",
        "XOR 2",
        "histogram 2 00",
    ];
    assert_eq!(dump_all(&db), samples);
    assert_eq!(chunks(&db), kinds);

    // Repeats are a success; contradictions and late ones are not.
    let again = [(1000, counter(3.0)), (11_000, stale_histogram())];
    assert!(of(&again).is_empty());
    assert!(write(&db, "t", &[TestSeries::new(SERIES, &[(11_000, STALE_NAN)])]).is_empty());
    assert_eq!(
        of(&[(2000, counter(21.0)), (2500, counter(20.0))]),
        [
            r#"duplicate sample for timestamp: timestamp 2000 histogram: series {__name__="h", job="a"}"#,
            r#"out of order sample: timestamp 2500 histogram: series {__name__="h", job="a"}"#,
        ]
    );
    assert_eq!(
        write(&db, "t", &[TestSeries::new(SERIES, &[(2000, 1.0)])]),
        [
            r#"duplicate sample for timestamp: timestamp 2000 value 1: series {__name__="h", job="a"}"#
        ]
    );

    let replayed = |db: Db| {
        drop(db);
        open(dir.path())
    };
    let db = replayed(db);
    assert_eq!(dump_all(&db), samples);
    assert_eq!(chunks(&db), kinds);
    db.shorten_log().unwrap();
    let db = replayed(db);
    assert_eq!(dump_all(&db), samples);
    assert_eq!(chunks(&db), kinds);
    db.cut_now(Cut::All).unwrap();
    assert_eq!(db.head_stats(None).series, 0);
    assert_eq!(dump_all(&db), samples);
    assert_eq!(db.blocks()[0].meta().stats.num_samples, 11);
    let (path, block) = (dir.path().to_str().unwrap(), &db.blocks()[0]);
    promtool(&["tsdb", "analyze", path, &block.meta().ulid.to_string()]);
}

#[test]
fn kinds_that_take_turns_in_a_request_come_back_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    // Known series take another way through than new ones.
    write(&db, "t", &[TestSeries::new(SERIES, &[(500, 0.5)])]);
    let h = |t: i64, count: f64| TestSeries::of_histograms(SERIES, &[(t, counter(count))]);
    let f = |t: i64| TestSeries::new(SERIES, &[(t, 1.0)]);
    let request = [
        h(1000, 1.0),
        f(2000),
        f(2500),
        h(3000, 2.0),
        f(4000),
        h(5000, 9.0),
    ];
    assert!(write(&db, "t", &request).is_empty());
    let expected =
        [r#"{__name__="h", job="a"} 500:0.5 1000:h1 2000:1 2500:1 3000:h2 4000:1 5000:h9"#];
    assert_eq!(dump_all(&db), expected);
    drop(db);
    assert_eq!(dump_all(&open(dir.path())), expected);
}

#[test]
fn chunks_are_sealed_at_120_samples_and_at_borders() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let minute = 60_000;
    let start = 1_699_999_200_000;
    assert_eq!(start % (120 * minute), 0);
    for i in 0..150_i64 {
        let sample = [(start + i * minute / 2, counter(i as f64))];
        let series = [TestSeries::of_histograms(SERIES, &sample)];
        assert!(write(&db, "t", &series).is_empty());
    }
    let kinds = ["histogram 120 00", "histogram 30 40"];
    assert_eq!(chunks(&db), kinds);
    let before = dump_all(&db);
    db.shorten_log().unwrap();
    drop(db);
    let db = open(dir.path());
    assert_eq!(chunks(&db), kinds);
    assert_eq!(dump_all(&db), before);
    let sample = [(start + 120 * minute, counter(200.0))];
    write(&db, "t", &[TestSeries::of_histograms(SERIES, &sample)]);
    assert_eq!(
        chunks(&db),
        ["histogram 120 00", "histogram 30 40", "histogram 1 40"]
    );
}
