//! Writing, reading, and coming back after a restart.

use isobar_model::{Matcher, TimeRange};
use isobar_tsdb::Error;
use isobar_tsdb::db::Db;

use crate::support::{TestSeries, config, dump, dump_all, open, write};

#[test]
fn what_is_written_is_read_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(config(dir.path()).0).unwrap();
    let refused = write(
        &db,
        "t",
        &[
            TestSeries::new("__name__=up,job=b", &[(1000, 1.0), (2000, 0.0)]),
            TestSeries::new("job=a,__name__=up", &[(1000, 0.5)]),
        ],
    );
    assert!(refused.is_empty());
    let expected = [
        r#"{__name__="up", job="a"} 1000:0.5"#,
        r#"{__name__="up", job="b"} 1000:1 2000:0"#,
    ];
    assert_eq!(dump_all(&db), expected);
    drop(db);
    let db = open(dir.path());
    assert_eq!(dump_all(&db), expected);
    assert_eq!((db.replayed().series, db.replayed().samples), (2, 3));

    // Another encoding of the same labels is the same series.
    write(
        &db,
        "t",
        &[TestSeries::new("__name__=up,job=a", &[(3000, 2.0)])],
    );
    assert_eq!(
        dump_all(&db)[0],
        r#"{__name__="up", job="a"} 1000:0.5 3000:2"#
    );
    assert_eq!(
        dump(
            &db,
            None,
            &[Matcher::equal("job", "a")],
            TimeRange::new(2000, 9000)
        ),
        [r#"{__name__="up", job="a"} 3000:2"#]
    );
    db.close().unwrap();
    assert!(matches!(
        db.append(&"t".parse_tenant(), &[TestSeries::new("a=b", &[(1, 1.0)])]),
        Err(Error::Unavailable(_))
    ));
    drop(db);
    assert_eq!(dump_all(&open(dir.path())).len(), 2);
}

trait ParseTenant {
    fn parse_tenant(&self) -> isobar_model::Tenant;
}

impl ParseTenant for str {
    fn parse_tenant(&self) -> isobar_model::Tenant {
        isobar_model::Tenant::new(self).unwrap()
    }
}

#[test]
fn bad_samples_are_named_and_the_good_ones_stored() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let hour = 3_600_000;
    let now = 100 * hour;
    write(&db, "t", &[TestSeries::new("a=1", &[(now, 1.0)])]);
    let refused = write(
        &db,
        "t",
        &[
            TestSeries::new(
                "a=1",
                &[(now, 1.0), (now, 2.0), (now - 5, 1.0), (now + 5, 3.0)],
            ),
            TestSeries::new("a=2", &[(now - hour - 1, 1.0), (now - hour, 1.0)]),
            TestSeries::new("nonsense", &[(now, 1.0)]),
            TestSeries::new("a=3", &[(4_102_444_800_000 + 600_001, 1.0), (now, 4.0)]),
        ],
    );
    let mut refused = refused;
    refused.sort();
    assert_eq!(refused, [
        format!("duplicate sample for timestamp: timestamp {now} value 2: series {{a=\"1\"}}"),
        "no labels: nonsense".to_owned(),
        r#"out of bounds: sample is too far in the future: timestamp 4102445400001 value 1: series {a="3"}"#.to_owned(),
        format!("out of bounds: timestamp {} value 1: series {{a=\"2\"}}", now - hour - 1),
        format!("out of order sample: timestamp {} value 1: series {{a=\"1\"}}", now - 5),
    ]);
    assert_eq!(
        dump_all(&db),
        [
            format!(r#"{{a="1"}} {now}:1 {}:3"#, now + 5),
            format!(r#"{{a="2"}} {}:1"#, now - hour),
            format!(r#"{{a="3"}} {now}:4"#),
        ]
    );
}

#[test]
fn tenants_are_apart_and_together() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    write(
        &db,
        "x",
        &[
            TestSeries::new("a=1", &[(1, 1.0)]),
            TestSeries::new("a=2", &[(1, 1.0)]),
        ],
    );
    write(
        &db,
        "y",
        &[
            TestSeries::new("a=2", &[(5, 5.0)]),
            TestSeries::new("b=3", &[(5, 5.0)]),
        ],
    );
    assert_eq!(
        dump(&db, Some("x"), &[], TimeRange::ALL),
        [r#"{a="1"} 1:1"#, r#"{a="2"} 1:1"#]
    );
    assert_eq!(dump(&db, Some("none"), &[], TimeRange::ALL).len(), 0);
    assert_eq!(
        dump_all(&db),
        [r#"{a="1"} 1:1"#, r#"{a="2"} 1:1 5:5"#, r#"{b="3"} 5:5"#]
    );
    assert_eq!(
        db.label_names(None, &[], TimeRange::ALL).unwrap(),
        ["a", "b"]
    );
    let x = "x".parse_tenant();
    assert_eq!(
        db.label_names(Some(&x), &[], TimeRange::ALL).unwrap(),
        ["a"]
    );
    assert_eq!(
        db.label_values(Some(&x), "a", &[], TimeRange::ALL).unwrap(),
        ["1", "2"]
    );
    let matchers = [Matcher::equal("b", "")];
    assert_eq!(
        db.label_values(None, "a", &matchers, TimeRange::ALL)
            .unwrap(),
        ["1", "2"]
    );
    let stats = db.head_stats(Some(&x));
    assert_eq!(
        (stats.series, stats.samples_appended, stats.range_ms),
        (2, 2, Some((1, 1)))
    );
    assert_eq!(
        db.cardinality(None, 1).series_by_pair,
        [("a=2".to_owned(), 2)]
    );
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let Err(error) = Db::open(config(dir.path()).0) else {
        panic!("opened twice")
    };
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(
        error
            .to_string()
            .ends_with("lock is in use by another process"),
        "{error}"
    );
    drop(db);
    open(dir.path());
}

#[test]
fn a_snapshot_stands_for_the_log_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for t in 0..500 {
        write(
            &db,
            "t",
            &[
                TestSeries::new("a=1", &[(t * 1000, t as f64)]),
                TestSeries::new("a=2", &[(t * 1000, 0.25)]),
            ],
        );
    }
    let before = dump_all(&db);
    let long = db.wal_bytes().unwrap();
    db.shorten_log().unwrap();
    assert!(db.wal_bytes().unwrap() < long);
    assert_eq!(dump_all(&db), before);
    write(&db, "u", &[TestSeries::new("a=3", &[(1, 1.0)])]);
    write(&db, "t", &[TestSeries::new("a=1", &[(500_000, 7.0)])]);
    let after = dump_all(&db);
    drop(db);
    let db = open(dir.path());
    assert_eq!(dump_all(&db), after);
    assert_eq!(db.replayed().chunks, 10);
    db.shorten_log().unwrap();
    db.shorten_log().unwrap();
    drop(db);
    assert_eq!(dump_all(&open(dir.path())), after);
}

#[test]
fn a_series_without_a_sample_in_bounds_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let hour = 3_600_000;
    write(&db, "t", &[TestSeries::new("a=1", &[(10 * hour, 1.0)])]);
    let refused = write(
        &db,
        "t",
        &[
            TestSeries::new("a=2", &[(hour, 1.0), (2 * hour, 2.0)]),
            TestSeries::new("a=3", &[]),
        ],
    );
    assert_eq!(
        refused,
        [
            r#"out of bounds: timestamp 3600000 value 1: series {a="2"}"#,
            r#"out of bounds: timestamp 7200000 value 2: series {a="2"}"#,
        ]
    );
    assert_eq!(
        db.label_values(None, "a", &[], TimeRange::ALL).unwrap(),
        ["1"]
    );
}

#[test]
fn a_callback_is_called_when_the_write_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(config(dir.path()).0).unwrap();
    let (sender, receiver) = std::sync::mpsc::sync_channel(2);
    for t in 0..2 {
        let series = [TestSeries::new("a=1", &[(t, 1.0)])];
        let append = db.append(&"t".parse_tenant(), &series).unwrap();
        let sender = sender.clone();
        let done = move |result: Result<(), Error>| sender.send((t, result.is_ok())).unwrap();
        db.when_durable(append.ticket, Box::new(done));
        assert_eq!(receiver.recv().unwrap(), (t, true));
    }
}
