//! Range functions against answers of a real Prometheus, to the last bit.

use std::collections::HashMap;

use isobar_model::Columns;

use super::{Edges, Param, RangeArgs, RangeFn, Row, Scratch, Windows, apply};

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().expect("a number"),
    }
}

/// Pairs of time and value.
fn pairs(text: &str) -> impl Iterator<Item = (i64, f64)> {
    let pairs = text.split(' ').filter_map(|pair| pair.split_once(':'));
    pairs.map(|(time, value)| (time.parse().expect("a time"), number(value)))
}

fn check(columns: &Columns, fields: &[&str]) {
    let (name, modifier) = fields[0].split_once(' ').unwrap_or((fields[0], ""));
    let integer = |i: usize| fields[i].parse::<i64>().expect("an integer");
    let windows = Windows {
        range_ms: integer(1),
        first_end_ms: integer(2),
        step_ms: integer(3),
        count: integer(4) as usize,
    };
    let lookback_ms = 300_000;
    let args = RangeArgs {
        params: [fields[5], fields[6]].map(|param| Param::Const(number(param))),
        edges: match modifier {
            "anchored" => Edges::Anchored { lookback_ms },
            "smoothed" => Edges::Smoothed { lookback_ms },
            _ => Edges::Plain,
        },
        ..RangeArgs::plain(&windows)
    };
    let mut values = vec![0.0; windows.count];
    let mut present = vec![0; windows.count.div_ceil(64)];
    let mut row = Row {
        values: &mut values,
        present: &mut present,
    };
    let func = RangeFn::from_name(name).expect(name);
    let scratch = &mut Scratch::default();
    apply(func, columns, &windows, &args, &mut row, scratch).expect("factors are in range");
    let want: HashMap<i64, f64> = pairs(fields[7]).collect();
    for step in 0..windows.count {
        let (got, want) = (row.get(step), want.get(&windows.end_ms(step)));
        let same = match (got, want) {
            (Some(got), Some(want)) => got == *want || got.is_nan() && want.is_nan(),
            (None, None) => true,
            _ => false,
        };
        assert!(same, "{fields:?} step {step}: {got:?}, want {want:?}");
    }
}

#[test]
fn answers_are_those_of_prometheus() {
    let data = include_str!("testdata/prometheus.txt");
    let mut series: HashMap<&str, Columns> = HashMap::new();
    for line in data.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["columns", name, samples] => {
                let columns = series.entry(name).or_default();
                pairs(samples).for_each(|(time, value)| columns.push(time, value));
            }
            ["answers", name, ref rest @ ..] => check(&series[name], rest),
            _ => panic!("neither columns nor answers: {line}"),
        }
    }
}
