//! Limits of tenants: series that exist live on, new ones are refused and counted by reason.

use std::path::Path;

use isobar_model::{Clock, Tenant};
use isobar_tsdb::Error;
use isobar_tsdb::db::{Db, Limits};

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
