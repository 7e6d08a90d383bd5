//! The series that the generated queries are asked of.
//!
//! No sample lies at a whole second or at one and [`super::requests::ODD_MS`] milliseconds, where
//! an older Prometheus is asked: its windows are closed at both ends, those of 3.0 and later
//! are open at the left.

use isobar_model::sample::STALE_NAN;
use isobar_model::{Columns, Labels};

use crate::harness::{Random, Server};

/// The time of the first samples, in milliseconds.
pub(super) const START_MS: i64 = 1_700_000_000_000;
const INTERVAL_MS: i64 = 15_000;
const STEPS: i64 = 400;
/// The time of the last samples.
pub(super) const END_MS: i64 = START_MS + STEPS * INTERVAL_MS;
/// Samples of a series in one request.
const BATCH: i64 = 100;
const BOUNDS: [&str; 6] = ["0.1", "0.25", "1", "2.5", "10", "+Inf"];

/// What a series does over time.
#[derive(Clone, Copy)]
enum Shape {
    /// Grows and now and then starts again.
    Counter,
    /// Grows, with holes and an end that is marked.
    BrokenCounter,
    Gauge,
    /// A gauge with holes and staleness markers.
    Sparse,
    /// A gauge of few whole values, so that ties and constant windows come about.
    Level,
    /// Infinities, other NaNs, zeros of both signs, very large and very small numbers.
    Odd,
    /// The buckets of a histogram below the bound of that index.
    Bucket(usize),
}

/// Writes the same series to all servers.
pub(super) fn write(seed: u64, servers: &[&Server]) {
    let series = all(seed);
    for from in (0..STEPS).step_by(BATCH as usize) {
        let time_ms = |step: i64| START_MS + step * INTERVAL_MS;
        let part: Vec<(Labels, Columns)> = series
            .iter()
            .map(|(labels, columns)| {
                (
                    labels.clone(),
                    slice(columns, time_ms(from), time_ms(from + BATCH)),
                )
            })
            .filter(|(_, columns)| !columns.is_empty())
            .collect();
        for server in servers {
            let (status, text) = server.write(&part).unwrap();
            assert_eq!(status, 204, "{}: {text}", server.url);
        }
    }
}

fn slice(columns: &Columns, from_ms: i64, to_ms: i64) -> Columns {
    let from = columns.timestamps.partition_point(|t| *t < from_ms);
    let to = columns.timestamps.partition_point(|t| *t < to_ms);
    Columns {
        timestamps: columns.timestamps[from..to].to_vec(),
        values: columns.values[from..to].to_vec(),
        ..Columns::default()
    }
}

fn all(seed: u64) -> Vec<(Labels, Columns)> {
    let mut random = Random::new(seed);
    let mut series = Vec::new();
    let mut add = |name: &str, shape: Shape, labels: &[(&str, &str)]| {
        let mut pairs = vec![("__name__", name)];
        pairs.extend(labels);
        series.push((Labels::from_pairs(pairs), samples(shape, &mut random)));
    };
    for job in ["api", "db"] {
        for instance in ["a:1", "b:1", "c:2"] {
            let target = [("job", job), ("instance", instance)];
            add("up", Shape::Level, &target);
            add("temperature_celsius", Shape::Sparse, &target);
            add("memory_bytes", Shape::Gauge, &target);
            add(
                "build_info",
                Shape::Level,
                &[target[0], target[1], ("version", "1.2")],
            );
            for code in ["200", "404", "500"] {
                for method in ["get", "put"] {
                    let labels = [target[0], target[1], ("code", code), ("method", method)];
                    add("requests_total", Shape::Counter, &labels);
                }
                add(
                    "errors_total",
                    Shape::BrokenCounter,
                    &[target[0], target[1], ("code", code)],
                );
            }
            for (index, le) in BOUNDS.iter().enumerate() {
                add(
                    "latency_seconds_bucket",
                    Shape::Bucket(index),
                    &[target[0], target[1], ("le", le)],
                );
            }
        }
        add("queue_length", Shape::Level, &[("job", job)]);
        for which in ["x", "y"] {
            add("odd_values", Shape::Odd, &[("job", job), ("which", which)]);
        }
    }
    // A head reads its series in the order in which they came, a block and Isobar in that of
    // their labels, and sums depend on it.
    series.sort_by(|a, b| a.0.cmp(&b.0));
    series
}

fn samples(shape: Shape, random: &mut Random) -> Columns {
    let offset_ms = 1 + random.below(490) as i64;
    let mut columns = Columns::default();
    let mut value = 1e6 + random.below(1000) as f64;
    let mut hole = 0;
    for step in 0..STEPS {
        let jitter_ms = 9 * random.below(50) as i64;
        let mut time_ms = START_MS + step * INTERVAL_MS + offset_ms + jitter_ms;
        if [0, super::requests::ODD_MS, 253].contains(&(time_ms % 1000)) {
            time_ms += 1;
        }
        value = next(shape, value, step, random);
        if matches!(shape, Shape::Sparse | Shape::BrokenCounter) {
            if hole > 0 {
                hole -= 1;
                continue;
            }
            if random.chance(3) {
                hole = 1 + random.below(30);
                if random.chance(50) {
                    columns.push(time_ms, STALE_NAN);
                }
                continue;
            }
        }
        columns.push(time_ms, value);
    }
    columns
}

fn next(shape: Shape, value: f64, step: i64, random: &mut Random) -> f64 {
    const ODD: [f64; 14] = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -0.0,
        1e308,
        -1e308,
        5e-324,
        1e-300,
        1.0,
        -1.5,
        2.0,
        9_007_199_254_740_993.0,
        0.1,
    ];
    match shape {
        // Between two resets lie at least 20 samples: see `since::CHANGES`.
        Shape::Counter if step % 20 == 19 && random.chance(30) => random.below(50) as f64,
        Shape::Counter => value + random.below(200) as f64,
        Shape::BrokenCounter => value + random.below(100) as f64 / 8.0,
        Shape::Gauge => value + random.below(2000) as f64 - 1000.0 + 0.3,
        Shape::Sparse => (step as f64 / 20.0).sin() * 30.0 + random.below(100) as f64 / 100.0,
        Shape::Level => {
            f64::from(u8::from(random.chance(80))) + f64::from(u8::from(random.chance(5)))
        }
        Shape::Odd => ODD[random.below(ODD.len() as u64) as usize],
        // Each grows by as much as its index allows at least, and so the buckets are in order.
        Shape::Bucket(index) => {
            (1e6 * (index + 1) as f64) + (step * (index as i64 + 1)) as f64 * 3.0
        }
    }
}
