//! Replicas as Thanos sees them: its own cases, and some of what they leave out.

use super::*;
use crate::chunks::XorAppender;

type Floats<'a> = &'a [(i64, f64)];

fn points(samples: Floats<'_>) -> Vec<Point> {
    let point = |(time_ms, value): &(i64, f64)| Point {
        time_ms: *time_ms,
        value: Value::Float(*value),
    };
    samples.iter().map(point).collect()
}

fn floats(points: &[Point]) -> Vec<(i64, f64)> {
    let float = |point: &Point| match point.value {
        Value::Float(value) => (point.time_ms, value),
        Value::Histogram(_) => panic!("a histogram at {}", point.time_ms),
    };
    points.iter().map(float).collect()
}

fn check_penalty(parts: &[Floats<'_>], expected: Floats<'_>) {
    let parts: Vec<_> = parts.iter().map(|part| points(part)).collect();
    assert_eq!(floats(&penalty::merge(&parts, false)), expected);
}

#[test]
fn one_part_is_followed_until_its_gap_is_long() {
    let s = 1000;
    let each = |first: i64, count: i64, value: f64| -> Vec<(i64, f64)> {
        (0..count).map(|i| (first + i * 10 * s, value)).collect()
    };
    let (a, b) = (each(10 * s, 4, 1.0), each(10 * s, 4, 2.0));
    check_penalty(&[&a, &b], &a);
    check_penalty(&[&each(10_100, 4, 1.0), &b], &b);
    // A gap of one scrape is no reason to change, one of two is.
    let one: Floats<'_> = &[(10 * s, 1.0), (20 * s, 1.0), (40 * s, 1.0)];
    check_penalty(&[one, &b], one);
    check_penalty(&[one, &each(15 * s, 4, 2.0)], one);
    check_penalty(
        &[
            &[
                (10 * s, 1.0),
                (20 * s, 1.0),
                (30 * s, 1.0),
                (60 * s, 1.0),
                (70 * s, 1.0),
            ],
            &each(10_100, 6, 2.0),
        ],
        &[
            (10 * s, 1.0),
            (20 * s, 1.0),
            (30 * s, 1.0),
            (50_100, 2.0),
            (60_100, 2.0),
        ],
    );
    check_penalty(&[&a, &[], &b], &a);
    check_penalty(&[&[], &[]], &[]);
    check_penalty(&[], &[]);
}

#[test]
fn a_part_that_lags_is_lifted() {
    let a = points(&[(10_000, 10.0), (20_000, 20.0)]);
    let b = points(&[
        (11_000, 11.0),
        (21_000, 12.0),
        (31_000, 13.0),
        (51_000, 15.0),
    ]);
    let merged = penalty::merge(&[a, b], true);
    let expected = [(10_000, 10.0), (20_000, 20.0), (51_000, 20.0)];
    assert_eq!(floats(&merged), expected);
}

#[test]
fn a_chain_has_the_samples_of_all() {
    let check = |parts: &[Floats<'_>], expected: Floats<'_>| {
        let parts = parts.iter().map(|part| points(part)).collect();
        let merged = chain::merge(parts, [(0, i64::MAX)]);
        assert_eq!(floats(&merged), expected);
    };
    let a: Floats<'_> = &[(1, 1.0), (3, 1.0), (5, 1.0), (6, 1.0)];
    let b: Floats<'_> = &[(2, 2.0), (3, 2.0), (4, 2.0), (9, 2.0)];
    let c: Floats<'_> = &[(3, 3.0), (7, 3.0)];
    check(
        &[a, b],
        &[
            (1, 1.0),
            (2, 2.0),
            (3, 1.0),
            (4, 2.0),
            (5, 1.0),
            (6, 1.0),
            (9, 2.0),
        ],
    );
    check(
        &[a, b, c],
        &[
            (1, 1.0),
            (2, 2.0),
            (3, 1.0),
            (4, 2.0),
            (5, 1.0),
            (6, 1.0),
            (7, 3.0),
            (9, 2.0),
        ],
    );
    check(&[&[], a], a);
    check(&[a], a);
}

/// Steps that are farther apart than they look back make Prometheus seek, and behind that the
/// first part comes first.
#[test]
fn a_chain_is_begun_anew_where_times_are_left_out() {
    let a: Vec<_> = (1..7).map(|t| (t * 10, 1.0)).collect();
    let b: Vec<_> = (1..7).map(|t| (t * 10, 2.0)).collect();
    let hints = |step_ms, range_ms| SelectHints {
        step_ms,
        range_ms,
        ..SelectHints::default()
    };
    let check = |hints: SelectHints, range: (i64, i64), expected: Floats<'_>| {
        let parts = vec![points(&a), points(&b)];
        let asked = ReadFor::new(&hints, 25).asked(TimeRange::new(range.0, range.1));
        assert_eq!(floats(&chain::merge(parts, asked)), expected);
    };
    let all = [10, 20, 30, 40, 50, 60].map(|time_ms| (time_ms, 2.0));
    check(hints(10, 20), (1, 60), &all);
    check(hints(10, 0), (1, 60), &all);
    let sought = [(10, 2.0), (20, 2.0), (40, 1.0), (50, 1.0)];
    check(hints(30, 10), (11, 50), &sought);
    let sought = [
        (10, 2.0),
        (20, 2.0),
        (30, 2.0),
        (40, 1.0),
        (50, 1.0),
        (60, 1.0),
    ];
    check(hints(30, 0), (1, 55), &all);
    let times = SelectHints {
        func: "timestamp".into(),
        ..hints(30, 0)
    };
    check(times, (1, 55), &sought);
    check(hints(0, 20), (1, 20), &all[..2]);
}

#[test]
fn histograms_forget_their_hints_where_parts_change() {
    use isobar_model::histogram::CounterReset;
    let part = |times: &[i64]| {
        let histogram = Arc::new(FloatHistogram {
            hint: CounterReset::NotReset,
            ..FloatHistogram::default()
        });
        let point = |time_ms: &i64| Point {
            time_ms: *time_ms,
            value: Value::Histogram(Arc::clone(&histogram)),
        };
        times.iter().map(point).collect::<Vec<_>>()
    };
    let known = |points: Vec<Point>| -> Vec<(i64, bool)> {
        let known = |point: Point| match point.value {
            Value::Histogram(it) => (point.time_ms, it.hint != CounterReset::Unknown),
            Value::Float(_) => panic!("a float at {}", point.time_ms),
        };
        points.into_iter().map(known).collect()
    };
    let (a, b) = (part(&[10_000, 20_000, 30_000]), part(&[12_000, 50_000]));
    assert_eq!(
        known(chain::merge(vec![a.clone(), b.clone()], [(0, i64::MAX)])),
        [
            (10_000, false),
            (12_000, false),
            (20_000, false),
            (30_000, true),
            (50_000, false)
        ]
    );
    // Thanos' way: what the part said holds on.
    assert_eq!(
        known(penalty::merge(&[a, b], false)),
        [(10_000, true), (20_000, true), (30_000, true)]
    );
}

#[test]
fn counters_only_rise() {
    let chunk = |samples: Floats<'_>| {
        let mut appender = XorAppender::new();
        samples.iter().for_each(|it| appender.append(it.0, it.1));
        appender.into_chunk().unwrap()
    };
    let chunks = [
        chunk(&[(1, 5.0), (2, 7.0), (3, f64::NAN), (4, 1.0)]),
        // Its beginning overlaps.
        chunk(&[(3, 100.0), (4, 2.0), (5, 4.0)]),
        chunk(&[(8, 1.0)]),
    ];
    let read = |counter, range| floats(&timeline::read(&chunks, counter, range).unwrap());
    let expected = [(1, 5.0), (2, 7.0), (4, 8.0), (5, 10.0), (8, 11.0)];
    assert_eq!(read(true, TimeRange::ALL), expected);
    assert_eq!(read(true, TimeRange::new(2, 5)), expected[1..4]);
    let plain = read(false, TimeRange::new(2, 8));
    let times: Vec<_> = plain.iter().map(|it| it.0).collect();
    assert_eq!(times, [2, 3, 4, 5, 8]);
    assert_eq!(plain[2..], [(4, 1.0), (5, 4.0), (8, 1.0)]);
}

#[test]
fn parts_do_not_overlap() {
    let check = |chunks: &[(i64, i64)], expected: &[&[(i64, i64)]]| {
        let chunk = |(min_ms, max_ms): &(i64, i64)| Chunk {
            encoding: crate::chunks::Encoding::Xor,
            min_ms: *min_ms,
            max_ms: *max_ms,
            data: bytes::Bytes::new(),
        };
        let mut chunks: Vec<_> = chunks.iter().map(chunk).collect();
        chunks.reverse();
        let times = |part: &Vec<Chunk>| -> Vec<_> {
            part.iter().map(|it| (it.min_ms, it.max_ms)).collect()
        };
        let got: Vec<_> = parts(chunks).iter().map(times).collect();
        assert_eq!(got, expected);
    };
    check(&[], &[]);
    check(
        &[(0, 20), (21, 100), (110, 300)],
        &[&[(0, 20), (21, 100), (110, 300)]],
    );
    check(&[(50, 55), (55, 100)], &[&[(50, 55)], &[(55, 100)]]);
    check(&[(50, 55), (50, 55)], &[&[(50, 55)]]);
    check(
        &[
            (0, 20),
            (0, 30),
            (1, 15),
            (2, 36),
            (16, 200),
            (21, 50),
            (31, 60),
            (100, 160),
        ],
        &[
            &[(0, 20), (21, 50), (100, 160)],
            &[(0, 30), (31, 60)],
            &[(1, 15), (16, 200)],
            &[(2, 36)],
        ],
    );
}

#[test]
fn too_many_replicas_are_refused() {
    let chunks = (0..=PARTS_MAX as i64)
        .map(|i| {
            let mut appender = XorAppender::new();
            (0..2).for_each(|t| appender.append(t, i as f64));
            appender.into_chunk().unwrap()
        })
        .collect();
    let function = ReadFor::new(&SelectHints::default(), 300_000);
    let all = Spliced::new(chunks, Splice::Penalty, function, TimeRange::ALL);
    let error = all.read(TimeRange::ALL, &mut Columns::default());
    assert!(matches!(error, Err(SelectError::LimitExceeded(_))));
}
