//! Limits of tenants: series that exist live on, new ones are refused and counted by reason.

use std::path::Path;
use std::time::Duration;

use isobar_model::{Budget, Clock, Tenant};
use isobar_tsdb::Error;
use isobar_tsdb::db::{Cut, Db, Limits, Sync};

use crate::support::{TestSeries, config};

const T: i64 = 1_700_000_000_000;

fn open(dir: &Path, limits: Limits) -> Db {
    let mut config = config(dir).0;
    config.limits = limits;
    Db::open(config).unwrap()
}

/// Writes a sample for each series and tells how many were taken, and what was refused.
fn check(db: &Db, tenant: &str, time_ms: i64, series: &[&str], expected: &str) {
    let series: Vec<_> = series
        .iter()
        .map(|it| TestSeries::new(it, &[(time_ms, 1.0)]))
        .collect();
    let append = db.append(&Tenant::new(tenant).unwrap(), &series).unwrap();
    db.commit_wait(append.ticket).unwrap();
    let counts: Vec<_> = append
        .rejected
        .counts()
        .map(|(why, n)| format!(" {why}:{n}"))
        .collect();
    assert_eq!(format!("{}{}", append.appended, counts.concat()), expected);
}

#[test]
fn existing_series_live_on_and_new_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        series_per_tenant: 4,
        series_per_metric: 2,
        ..Limits::default()
    };
    let db = open(dir.path(), limits);
    let of_a = ["__name__=a,s=1", "__name__=a,s=2", "__name__=a,s=3"];
    for s in 1..=2 {
        check(&db, "t", T, &[&format!("__name__=a,s={s}")], "1");
    }
    check(&db, "t", T, &["__name__=a,s=3"], "0 series_per_metric:1");
    check(&db, "t", T, &["__name__=b", "__name__=c"], "2");
    check(&db, "t", T, &["__name__=d"], "0 series_per_tenant:1");
    check(&db, "u", T, &of_a, "2 series_per_metric:1");
    check(&db, "t", T + 1, &of_a, "2 series_per_tenant:1");
    drop(db);
    // Over a restart, other encodings of the same labels, and lower limits.
    let limits = Limits {
        series_per_tenant: 1,
        labels_per_series: 1,
        label_name_bytes: 3,
        label_value_bytes: 3,
        ..Limits::default()
    };
    let db = open(dir.path(), limits);
    check(&db, "t", T + 2, &["s=1,__name__=a", "__name__=b"], "2");
    check(&db, "v", T, &["s=1,r=2"], "0 label_count:1");
    check(&db, "v", T, &["long=1"], "0 label_name_length:1");
    check(&db, "v", T, &["s=long"], "0 label_value_length:1");
    check(&db, "v", T, &["s=1"], "1");
    check(&db, "v", T, &["s=2"], "0 series_per_tenant:1");
    let counts = db
        .tenants()
        .into_iter()
        .map(|(name, count)| format!("{name}:{count}"));
    assert_eq!(counts.collect::<Vec<_>>().join(" "), "t:4 u:2 v:1");
}

#[test]
fn new_tenants_are_refused_where_there_are_enough() {
    let dir = tempfile::tempdir().unwrap();
    let with = |tenants| {
        let limits = Limits {
            tenants,
            ..Limits::default()
        };
        open(dir.path(), limits)
    };
    let refused = |db: &Db, tenant: &str| {
        let tenant = Tenant::new(tenant).unwrap();
        let series = TestSeries::new("s=1", &[(T, 1.0)]);
        let samples = db.append(&tenant, &[series]).unwrap_err();
        let exemplars = db.append_exemplars(&tenant, []).unwrap_err();
        assert!(matches!(samples, Error::TooManyTenants { limit: 2 }));
        assert_eq!(samples.to_string(), exemplars.to_string());
    };
    let db = with(2);
    check(&db, "a", T, &["s=1"], "1");
    check(&db, "b", T, &["s=1"], "1");
    refused(&db, "c");
    check(&db, "a", T, &["s=2"], "1");
    assert_eq!(db.tenants().len(), 2);
    drop(db);
    // With fewer allowed, those that are there live on.
    let db = with(1);
    check(&db, "b", T, &["s=2"], "1");
    drop(db);
    check(&with(3), "c", T, &["s=1"], "1");
}

#[test]
fn who_writes_too_fast_is_told_when_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path()).0;
    let clock = Clock::manual(T);
    config.clock = clock.clone();
    config.limits = Limits {
        samples_per_second: 10,
        samples_burst: 20,
        ..Limits::default()
    };
    let db = Db::open(config).unwrap();
    let append = |tenant: &str, samples: i64| {
        let samples: Vec<_> = (0..samples).map(|i| (T - i, 1.0)).rev().collect();
        db.append(
            &Tenant::new(tenant).unwrap(),
            &[TestSeries::new("a=1", &samples)],
        )
    };
    append("t", 30).unwrap();
    let refused = append("t", 1).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the tenant writes more than 10 samples a second, try again in 1001 ms"
    );
    assert!(matches!(
        refused,
        Error::TooManySamples {
            limit: 10,
            retry_after_ms: 1001
        }
    ));
    append("u", 1).unwrap();
    clock.advance(1001);
    append("t", 1).unwrap();
}

#[test]
fn a_head_that_takes_its_memory_takes_no_new_series() {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path()).0;
    config.sync = Sync::Interval(Duration::from_secs(1));
    let all = Budget::new("the memory of head and queries", 4 * MIB);
    config.head_memory = Some(all.child("the memory of the head", 3 * MIB));
    let db = Db::open(config.clone()).unwrap();
    let queries = all.child("the memory of all queries", 4 * MIB);
    let some = |from: usize, time_ms: i64| -> Vec<TestSeries> {
        let labels = (from..from + 100).map(|n| format!("__name__=m{},n=number {n}", n % 7));
        let series = labels.map(|it| TestSeries::new(&it, &[(time_ms, 1.0)]));
        series.collect()
    };
    let append = |series: &[TestSeries]| db.append(&Tenant::default(), series).unwrap();
    let mut from = 0;
    let refused = loop {
        let done = append(&some(from, T));
        if !done.rejected.is_empty() {
            break done.rejected;
        }
        from += 100;
        assert!(from < 20_000);
    };
    assert!(from >= 1000, "{from}");
    let told = refused.first()[0].reason.to_string();
    let expected = "limit reached: the head takes 3145728 bytes of memory or more, new series are \
                    refused";
    assert_eq!(told, expected);
    assert!(refused.counts().all(|(why, _)| why == "memory"));
    assert_eq!(all.held(), 3 * MIB);
    // What is left is for queries, and not more.
    let mut query = queries.reservation("a join");
    assert_eq!(
        query.grow_to(2 << 20).unwrap_err().to_string(),
        "the memory of head and queries is limited to 4.0 MiB: a join asked for 2.0 MiB more when \
         3.0 MiB were held"
    );
    query.grow_to(1 << 20).unwrap();
    // Who is there lives on, whatever that takes.
    for minutes in 1..300 {
        let done = append(&some(0, T + minutes * 60_000));
        assert_eq!((done.appended, done.rejected.total()), (100, 0));
    }
    assert_eq!(all.held(), 4 * MIB);
    // When series have left the head there is room again.
    db.cut_now(Cut::All).unwrap();
    let (bytes, limit) = db.head_memory();
    assert!(bytes < 2 * MIB && limit == Some(3 * MIB), "{bytes}");
    assert_eq!(all.held(), bytes + MIB);
    let new = append(&some(50_000, T + 300 * 60_000));
    assert_eq!((new.appended, new.rejected.total()), (100, 0));
    drop(db);
    // What comes back from the log counts.
    let db = Db::open(config).unwrap();
    assert!(db.head_memory().0 > 100 << 10 && all.held() == db.head_memory().0 + MIB);
}
