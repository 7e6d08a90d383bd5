//! Exemplars and metadata: kept beside samples, over restarts and cuts.

use std::fs;
use std::path::Path;

use isobar_model::{Exemplar, Labels, Matcher, Tenant, TimeRange};
use isobar_tsdb::Db;
use isobar_tsdb::block::tools;
use isobar_tsdb::db::Cut;
use isobar_tsdb::exemplars::ExemplarCounts;
use isobar_tsdb::metadata::{Described, Metadata};

use crate::support::{TestSeries, config, write};

fn open(dir: &Path, exemplars_max: usize) -> Db {
    let (mut config, _) = config(dir);
    config.exemplars_max = exemplars_max;
    Db::open(config).unwrap()
}

fn append(db: &Db, tenant: &str, series: &str, exemplars: &[(i64, f64)]) -> ExemplarCounts {
    let tenant = Tenant::new(tenant).unwrap();
    let exemplars = exemplars.iter().map(|(timestamp_ms, value)| {
        let exemplar = Exemplar {
            labels: Labels::from_pairs([("trace_id", "abc")]),
            value: *value,
            timestamp_ms: *timestamp_ms,
        };
        (Labels::from_pairs([("__name__", series)]), exemplar)
    });
    let counts = db.append_exemplars(&tenant, exemplars).unwrap();
    db.commit_wait(db.ticket()).unwrap();
    counts
}

fn found(db: &Db, name: &str, range: TimeRange) -> Vec<String> {
    let selectors = [vec![Matcher::equal("__name__", name)]];
    let found = db.exemplars(None, &selectors, range);
    let told = found.series.iter().map(|(labels, exemplars)| {
        let told = exemplars
            .iter()
            .map(|it| format!(" {}:{}", it.timestamp_ms, it.value));
        format!("{labels}{}", told.collect::<String>())
    });
    let missing = found.missing.iter().map(ToString::to_string);
    told.chain(missing).collect()
}

#[test]
fn exemplars_survive_restarts_and_outlive_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), 3);
    let hour = 3_600_000;
    let counts = append(
        &db,
        "t",
        "m",
        &[
            (1000, 1.0),
            (2000, 2.0),
            (2000, 2.0),
            (500, 1.0),
            (i64::MAX, 1.0),
        ],
    );
    let expected = ExemplarCounts {
        appended: 2,
        duplicates: 1,
        out_of_order: 1,
        in_future: 1,
        ..ExemplarCounts::default()
    };
    assert_eq!(counts, expected);
    append(&db, "u", "m", &[(1500, 1.5), (2000, 2.0)]);
    let all = [r#"{__name__="m"} 1000:1 1500:1.5 2000:2"#];
    assert_eq!(found(&db, "m", TimeRange::ALL), all);
    assert_eq!(
        found(&db, "m", TimeRange::new(1001, 1999)),
        [r#"{__name__="m"} 1500:1.5"#]
    );
    assert_eq!(found(&db, "n", TimeRange::ALL).len(), 0);

    drop(db);
    let db = open(dir.path(), 3);
    assert_eq!(found(&db, "m", TimeRange::ALL), all);
    db.shorten_log().unwrap();
    drop(db);
    let db = open(dir.path(), 3);
    assert_eq!(found(&db, "m", TimeRange::ALL), all);
    assert_eq!(db.exemplar_stats().exemplars, 4);

    // A block of one tenant takes its exemplars along.
    for t in [1000, 4 * hour] {
        write(&db, "t", &[TestSeries::new("__name__=m", &[(t, 1.0)])]);
    }
    db.cut_now(Cut::Complete).unwrap();
    let block = db.blocks()[0].reader().dir().to_owned();
    let file = block.join("isobar-exemplars");
    assert!(file.is_file());
    let copies = tempfile::tempdir().unwrap();
    let (block, ulid) = (
        db.blocks()[0].reader().clone(),
        ulid::Ulid::from_parts(1, 1),
    );
    tools::rewrite(&block, copies.path(), ulid, &tools::Rewrite::default()).unwrap();
    let copy = copies
        .path()
        .join(ulid.to_string())
        .join("isobar-exemplars");
    assert_eq!(fs::read(copy).unwrap(), fs::read(&file).unwrap());
    append(&db, "t", "m", &[(5 * hour, 5.0), (5 * hour + 1, 6.0)]);
    append(&db, "t", "m", &[(5 * hour + 2, 7.0)]);
    let with_new = [r#"{__name__="m"} 1000:1 1500:1.5 2000:2 18000000:5 18000001:6 18000002:7"#];
    assert_eq!(found(&db, "m", TimeRange::ALL), with_new);
    assert_eq!(
        found(&db, "m", TimeRange::new(0, 1200)),
        [r#"{__name__="m"} 1000:1"#]
    );
    drop(db);
    let db = open(dir.path(), 3);
    assert_eq!(found(&db, "m", TimeRange::ALL), with_new);

    // Damage costs the exemplars of a block, and is told.
    fs::write(&file, b"ISOBAREX1").unwrap();
    let told = found(&db, "m", TimeRange::ALL);
    assert_eq!(told.len(), 2);
    assert_eq!(
        told[0],
        r#"{__name__="m"} 1500:1.5 2000:2 18000000:5 18000001:6 18000002:7"#
    );
    assert!(told[1].contains("isobar-exemplars"), "{}", told[1]);
    assert_eq!(db.quarantined(), []);
}

#[test]
fn none_are_kept_where_none_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), 0);
    assert_eq!(append(&db, "t", "m", &[(1, 1.0), (2, 1.0)]).disabled, 2);
    assert_eq!(found(&db, "m", TimeRange::ALL).len(), 0);
}

#[test]
fn metadata_survive_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let tenants = ["t", "u"].map(|name| Tenant::new(name).unwrap());
    let describe = |db: &Db, tenant: &Tenant, help: &str| {
        let metadata = Metadata {
            kind: "counter".into(),
            help: help.into(),
            unit: "seconds".into(),
        };
        let described = db.describe(tenant, "m", metadata).unwrap();
        db.commit_wait(db.ticket()).unwrap();
        described
    };
    let helps = |db: &Db, tenant: Option<&Tenant>| {
        let listed = db.metadata().list(tenant, None, None, None);
        let all = listed.into_iter().flat_map(|(_, all)| all);
        all.map(|it| it.help).collect::<Vec<_>>().join(" ")
    };
    let mut db = open(dir.path(), 0);
    assert_eq!(describe(&db, &tenants[0], "old"), Described::New);
    assert_eq!(describe(&db, &tenants[0], "new"), Described::New);
    assert_eq!(describe(&db, &tenants[0], "new"), Described::Known);
    assert_eq!(describe(&db, &tenants[1], "other"), Described::New);
    for shorten in [false, true, true] {
        if shorten {
            db.shorten_log().unwrap();
        }
        drop(db);
        db = open(dir.path(), 0);
        assert_eq!(helps(&db, None), "new old other");
        assert_eq!(helps(&db, Some(&tenants[1])), "other");
    }
}
