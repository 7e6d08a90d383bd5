//! Samples of any age become blocks of a database that is open.

use isobar_model::{Labels, Tenant, TimeRange};
use isobar_tsdb::backfill::Value;

use crate::support::{TestSeries, dump, dump_all, open, write};

const HOUR_MS: i64 = 3_600_000;

#[test]
fn backfilled_blocks_are_served_and_leave_the_head_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let new = TestSeries::new("__name__=m", &[(100 * HOUR_MS, 1.0)]);
    assert!(write(&db, "t", &[new]).is_empty());
    let mut backfill = db.backfill(&Tenant::new("t").unwrap()).unwrap();
    let labels = Labels::from_pairs([("__name__", "m")]);
    for hour in [7, 3, 101, 5] {
        backfill
            .add(&labels, hour * HOUR_MS, Value::Float(hour as f64))
            .unwrap();
    }
    let expected = "{__name__=\"m\"} 10800000:3 18000000:5 25200000:7 360000000:1 363600000:101";
    let finished = db.finish_backfill(backfill).unwrap();
    assert_eq!(finished.blocks.len(), 4);
    assert_eq!(dump_all(&db), [expected]);
    assert!(dump(&db, Some("other"), &[], TimeRange::ALL).is_empty());
    drop(db);

    // What the log holds of the time of a backfilled block comes back all the same.
    let db = open(dir.path());
    assert_eq!(dump_all(&db), [expected]);
    let late = TestSeries::new("__name__=m", &[(100 * HOUR_MS + 1, 2.0)]);
    assert!(write(&db, "t", &[late]).is_empty());
}
