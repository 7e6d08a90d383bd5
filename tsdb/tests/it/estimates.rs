//! What a select is said to give before it is read.

use isobar_model::{Matcher, TimeRange};
use isobar_tsdb::db::Cut;

use crate::support::{TestSeries, open, write};

const SERIES: u64 = 300;
const SAMPLES: u64 = 100;

#[test]
fn estimates_are_near_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let samples: Vec<_> = (0..SAMPLES as i64)
        .map(|at| (at * 15_000, at as f64))
        .collect();
    let series: Vec<_> = (0..SERIES)
        .map(|i| TestSeries::new(&format!("__name__=m,i={i},half={}", i % 2), &samples))
        .collect();
    assert!(write(&db, "t", &series).is_empty());
    let check = |matchers: &[Matcher], range: TimeRange, series: u64, samples: u64| {
        let estimate = db.estimate(None, matchers, range).unwrap();
        assert_eq!(estimate.series, series, "{matchers:?}");
        let near = estimate.samples.abs_diff(samples) * 20 <= samples;
        assert!(near, "{estimate:?} is not near {samples} samples");
        let read = db.select(None, matchers, range).unwrap();
        let bytes = read.flat_map(|it| it.unwrap().chunks);
        let bytes: u64 = bytes.map(|chunk| chunk.data.len() as u64).sum();
        let near = estimate.bytes.abs_diff(bytes) * 20 <= bytes;
        assert!(near, "{estimate:?} is not near {bytes} bytes");
    };
    for in_head in [true, false] {
        if !in_head {
            db.cut_now(Cut::All).unwrap();
            assert_eq!(db.blocks().len(), 1);
        }
        let name = Matcher::equal("__name__", "m");
        let half = Matcher::equal("half", "1");
        let first = TimeRange::new(0, SAMPLES as i64 * 7_500);
        check(
            std::slice::from_ref(&name),
            TimeRange::ALL,
            SERIES,
            SERIES * SAMPLES,
        );
        check(
            std::slice::from_ref(&name),
            first,
            SERIES,
            SERIES * SAMPLES / 2,
        );
        check(
            &[name, half],
            TimeRange::ALL,
            SERIES / 2,
            SERIES * SAMPLES / 2,
        );
        let none = Matcher::equal("__name__", "none");
        check(&[none], TimeRange::ALL, 0, 0);
        check(&[], TimeRange::new(-9, -1), 0, 0);
    }
}
