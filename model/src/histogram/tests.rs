//! Histograms against worked examples, and hostile ones.

use super::*;

fn exponential(
    schema: i32,
    zero: (f64, f64),
    positive: &[(i32, f64)],
    negative: &[(i32, f64)],
) -> FloatHistogram {
    let side = |pairs: &[(i32, f64)]| {
        let indexes: Vec<i32> = pairs.iter().map(|it| it.0).collect();
        let counts = pairs.iter().map(|it| it.1).collect();
        Buckets::of_layout(indexes.into(), counts).unwrap()
    };
    let all = positive.iter().chain(negative).map(|it| it.1);
    FloatHistogram {
        schema,
        zero_threshold: zero.0,
        zero_count: zero.1,
        count: zero.1 + all.sum::<f64>(),
        sum: 10.0,
        positive: side(positive),
        negative: side(negative),
        ..FloatHistogram::default()
    }
    .checked()
    .unwrap()
}

fn custom(bounds: &[f64], counts: &[f64]) -> FloatHistogram {
    let span = Span {
        offset: 0,
        length: counts.len() as u32,
    };
    FloatHistogram {
        schema: CUSTOM_SCHEMA,
        count: counts.iter().sum(),
        sum: 10.0,
        positive: Buckets::from_spans([span], counts.to_vec()).unwrap(),
        custom: bounds.into(),
        ..FloatHistogram::default()
    }
    .checked()
    .unwrap()
}

#[test]
fn text_tells_all_filled_buckets() {
    let it = exponential(
        0,
        (0.5, 1.0),
        &[(1, 2.0), (2, 0.0), (3, 4.5)],
        &[(0, 1.0), (2, 3.0)],
    );
    assert_eq!(
        it.to_string(),
        "{count:11.5, sum:10, [-4,-2):3, [-1,-0.5):1, [-0.5,0.5]:1, (1,2]:2, (4,8]:4.5}"
    );
    assert_eq!(
        custom(&[5.0, 10.0], &[1.0, 2.0, 3.0]).to_string(),
        "{count:6, sum:10, [-Inf,5]:1, (5,10]:2, (10,+Inf]:3}"
    );
    assert_eq!(text::GoFloat(1_234_567.0).to_string(), "1.234567e+06");
    assert_eq!(text::GoFloat(0.00001).to_string(), "1e-05");
}

#[test]
fn sums_reconcile_schemas_and_zero_buckets() {
    let check = |mut a: FloatHistogram, b: FloatHistogram, want: &str| {
        let mut with = a.clone();
        a.add(&b).unwrap();
        a.compact();
        assert_eq!(a.to_string(), want);
        let mut carry = None;
        with.add_with(&b, &mut carry).unwrap();
        with.add(&carry.unwrap()).unwrap();
        with.compact();
        assert_eq!(with.to_string(), want);
    };
    check(
        exponential(1, (0.0, 0.0), &[(1, 1.0), (2, 2.0), (3, 3.0)], &[]),
        exponential(0, (0.0, 0.0), &[(1, 10.0), (4, 1.0)], &[(1, 5.0)]),
        "{count:22, sum:20, [-2,-1):5, (1,2]:13, (2,4]:3, (8,16]:1}",
    );
    check(
        exponential(0, (0.001, 1.0), &[(-1, 2.0), (1, 1.0)], &[(0, 1.0)]),
        exponential(0, (0.4, 5.0), &[(1, 1.0)], &[]),
        "{count:11, sum:20, [-1,-0.5):1, [-0.5,0.5]:8, (1,2]:2}",
    );
    check(
        custom(&[1.0, 2.0, 5.0], &[1.0, 2.0, 3.0, 4.0]),
        custom(&[1.0, 5.0, 9.0], &[10.0, 20.0, 30.0, 40.0]),
        "{count:110, sum:20, [-Inf,1]:11, (1,5]:25, (5,+Inf]:74}",
    );
}

#[test]
fn hints_and_kinds_meet() {
    let mut a = exponential(0, (0.0, 0.0), &[(1, 1.0)], &[]);
    assert_eq!(
        a.add(&custom(&[1.0], &[1.0])),
        Err(HistogramError::Incompatible)
    );
    let mut b = a.clone();
    (a.hint, b.hint) = (CounterReset::Reset, CounterReset::NotReset);
    assert!(a.add(&b).unwrap().reset_collision);
    assert_eq!(a.hint, CounterReset::Unknown);
    a.mul(-1.0);
    assert_eq!(a.hint, CounterReset::Gauge);
    a.div(0.0);
    assert!(a.positive.is_empty() && a.has_overflow());
}

#[test]
fn resets_are_detected() {
    let base = exponential(1, (0.01, 1.0), &[(1, 1.0), (2, 2.0)], &[(1, 1.0)]);
    let check = |now: &FloatHistogram, before: &FloatHistogram, want: bool| {
        assert_eq!(now.detect_reset(before), want, "{now} after {before}");
    };
    check(&base, &base, false);
    let more = exponential(1, (0.01, 1.0), &[(1, 1.0), (2, 2.0), (5, 1.0)], &[(1, 1.0)]);
    check(&more, &base, false);
    check(&base, &more, true);
    let moved = exponential(1, (0.01, 1.0), &[(1, 3.0), (2, 1.0)], &[(1, 1.0)]);
    check(&moved, &base, true);
    let coarse = exponential(0, (0.01, 1.0), &[(1, 3.0)], &[(1, 1.0)]);
    check(&coarse, &base, false);
    check(&base, &coarse, true);
    let hinted = FloatHistogram {
        hint: CounterReset::Reset,
        ..base.clone()
    };
    check(&hinted, &base, true);
    let wide = exponential(1, (0.5, 2.0), &[(1, 1.0), (2, 2.0)], &[(1, 1.0)]);
    check(&wide, &base, false);
    check(&base, &wide, true);
    let ten = custom(&[1.0, 10.0], &[1.0, 2.0, 3.0]);
    check(
        &custom(&[1.0, 5.0, 10.0], &[1.0, 1.0, 1.0, 3.0]),
        &ten,
        false,
    );
    check(
        &custom(&[1.0, 5.0, 10.0], &[0.0, 3.0, 1.0, 3.0]),
        &ten,
        true,
    );
}

#[test]
fn trimming_cuts_buckets() {
    let check = |mut it: FloatHistogram, at: f64, below: bool, want: &str| {
        it.trim(at, below);
        assert_eq!(it.to_string(), want);
    };
    let tens = || custom(&[0.0, 10.0, 20.0], &[1.0, 2.0, 4.0, 8.0]);
    check(
        tens(),
        15.0,
        true,
        "{count:5, sum:35, [-Inf,0]:1, (0,10]:2, (10,20]:2}",
    );
    check(
        tens(),
        15.0,
        false,
        "{count:10, sum:195, (10,20]:2, (20,+Inf]:8}",
    );
    let it = exponential(0, (0.5, 2.0), &[(1, 2.0), (2, 4.0)], &[]);
    check(
        it.clone(),
        2.0,
        true,
        "{count:4, sum:3.3284271247461903, [-0.5,0.5]:2, (1,2]:2}",
    );
    check(it, f64::NEG_INFINITY, true, "{count:0, sum:0}");
}

#[test]
fn buckets_come_in_order() {
    let it = exponential(2, (0.9, 1.0), &[(0, 1.0), (3, 1.0)], &[(0, 1.0), (3, 1.0)]);
    let all: Vec<_> = it.all_buckets().collect();
    assert!(all.windows(2).all(|pair| pair[0].upper <= pair[1].lower));
    assert_eq!(all.len(), 5);
    assert_eq!((all[1].upper, all[3].lower), (-0.9, 0.9));
}

#[test]
fn hostile_ones_are_refused_or_harmless() {
    let refused = |it: FloatHistogram| it.checked().unwrap_err().to_string();
    let empty = FloatHistogram::default;
    assert!(
        refused(FloatHistogram {
            schema: 53,
            ..empty()
        })
        .ends_with("got schema 53")
    );
    assert!(
        refused(FloatHistogram {
            zero_threshold: f64::NAN,
            ..empty()
        })
        .contains("NaN")
    );
    let mut it = custom(&[1.0], &[1.0, 1.0]);
    it.custom = [].into();
    assert_eq!(refused(it), "histogram custom bounds are too few");
    let fine = FloatHistogram {
        schema: 52,
        ..exponential(
            0,
            (0.0, 0.0),
            &[(i32::MAX - 1, 1.0)],
            &[(i32::MIN + 1, 1.0)],
        )
    };
    let fine = fine.checked().unwrap();
    assert_eq!(fine.schema, 8);
    let mut sum = fine.clone();
    sum.add(&exponential(
        -4,
        (1e300, 1.0),
        &[(9, f64::NAN)],
        &[(i32::MAX - 1, f64::INFINITY)],
    ))
    .unwrap();
    sum.trim(1.0, true);
    let _ = (
        sum.to_string(),
        sum.detect_reset(&fine),
        fine.detect_reset(&sum),
    );
}
