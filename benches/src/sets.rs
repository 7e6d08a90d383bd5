//! The data over which Prometheus measures its own engine: the same metrics, labels, values and
//! intervals as its `promql/bench_test.go` makes, as remote write requests.
//!
//! Prometheus begins at 1970; here all times are [`BEGIN_MS`] later, the beginning of a day.

use anyhow::Context;

use crate::encode::{HistogramSample, encode_histogram, encode_labels, encode_sample, put_series};

/// When all sets begin: midnight of a day, in unix milliseconds.
pub const BEGIN_MS: i64 = 19_675 * 86_400_000;

/// Samples that pass between two series of `sparse`.
const SPARSE_PARTS: usize = 50;

/// Which of Prometheus' benchmarks a set belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// `BenchmarkRangeQuery`: a day and 10,000 steps of 1,443 series, and sparse ones.
    Range,
    /// `BenchmarkJoinQuery`: 1,000 series each of two metrics.
    Join,
    /// `BenchmarkNativeHistograms` and `…CustomBuckets`: 3,000 series of each kind.
    Native,
    /// `BenchmarkInfoFunction`: 100 info series and 3 that are joined to them.
    Info,
}

/// The series of a set and the times of their samples.
pub struct Set {
    /// Which one it is.
    pub kind: SetKind,
    /// Milliseconds between two samples.
    pub interval_ms: i64,
    /// Samples of each series that lasts.
    pub steps: usize,
    series: Vec<(Vec<(&'static str, String)>, Shape)>,
}

/// How the values of a series go.
#[derive(Clone, Copy)]
enum Shape {
    /// The number of the step and a part of one.
    Line(f64),
    /// Samples only in these steps.
    Sparse {
        begin: usize,
        end: usize,
        series: f64,
    },
    /// Always one.
    One,
    /// The number of the step.
    Count,
    /// A native histogram with exponential buckets.
    Exponential,
    /// A native histogram with custom buckets.
    Custom,
}

impl SetKind {
    /// All sets.
    pub const ALL: [SetKind; 4] = [
        SetKind::Range,
        SetKind::Join,
        SetKind::Native,
        SetKind::Info,
    ];

    /// What the command line and directories call it.
    pub fn name(self) -> &'static str {
        match self {
            SetKind::Range => "range",
            SetKind::Join => "join",
            SetKind::Native => "native",
            SetKind::Info => "info",
        }
    }

    /// The data. `part` divides the number of samples and of series that join, for a small run.
    pub fn set(self, part: usize) -> Set {
        let part = part.max(1);
        let (interval_ms, steps, series) = match self {
            SetKind::Range => {
                let steps = (8_640 + 10_000) / part;
                (10_000, steps, range_series(steps))
            }
            SetKind::Join => (10_000, (8_640 + 5_000) / part, join_series(1_000 / part)),
            SetKind::Native => (15_000, 2_000 / part, native_series(3_000 / part)),
            SetKind::Info => (2_000, 3_600, info_series()),
        };
        Set {
            kind: self,
            interval_ms,
            steps,
            series,
        }
    }
}

impl Set {
    /// The end of the last interval, unix milliseconds.
    pub fn end_ms(&self) -> i64 {
        BEGIN_MS + self.interval_ms * self.steps as i64
    }

    /// The number of series.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// The number of samples.
    pub fn sample_count(&self) -> usize {
        let count = |shape: &Shape| match shape {
            Shape::Sparse { begin, end, .. } => end - begin,
            _ => self.steps,
        };
        self.series.iter().map(|(_, shape)| count(shape)).sum()
    }

    /// The compressed body of a remote write request with all samples that the series
    /// `series` have in `steps`.
    pub fn request(
        &self,
        series: std::ops::Range<usize>,
        steps: std::ops::Range<usize>,
    ) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        let (mut label_bytes, mut samples) = (Vec::new(), Vec::new());
        for (labels, shape) in &self.series[series] {
            label_bytes.clear();
            samples.clear();
            for step in steps.clone() {
                let time_ms = BEGIN_MS + self.interval_ms * step as i64;
                shape.encode(step, time_ms, &mut samples);
            }
            if !samples.is_empty() {
                encode_labels(labels, &mut label_bytes);
                put_series(&label_bytes, &samples, &mut body);
            }
        }
        snap::raw::Encoder::new()
            .compress_vec(&body)
            .context("compress a request")
    }
}

impl Shape {
    fn encode(self, step: usize, time_ms: i64, out: &mut Vec<u8>) {
        let at = step as f64;
        match self {
            Shape::Line(part) => encode_sample(at + part, time_ms, out),
            Shape::Sparse { begin, end, series } => {
                if (begin..end).contains(&step) {
                    encode_sample(at / series, time_ms, out);
                }
            }
            Shape::One => encode_sample(1.0, time_ms, out),
            Shape::Count => encode_sample(at, time_ms, out),
            Shape::Exponential => encode_histogram(&exponential(step), time_ms, out),
            Shape::Custom => encode_histogram(&custom(step), time_ms, out),
        }
    }
}

fn exponential(step: usize) -> HistogramSample {
    if step == 0 {
        return HistogramSample {
            count: 13,
            schema: 3,
            positive_spans: &[(-5, 2), (2, 3), (2, 2)],
            positive_deltas: vec![1, 2, -2, 1, -1, 0, 3],
            ..HistogramSample::default()
        };
    }
    let at = step as u64;
    let deltas = vec![step as i64 + 1, 1, -1, 0];
    HistogramSample {
        count: 12 + at * 9,
        sum: 18.4 * (step as f64 + 1.0),
        schema: 1,
        zero_threshold: 0.001,
        zero_count: 2 + at,
        positive_spans: &[(0, 2), (1, 2)],
        positive_deltas: deltas.clone(),
        negative_spans: &[(0, 2), (1, 2)],
        negative_deltas: deltas,
        custom_values: &[],
    }
}

fn custom(step: usize) -> HistogramSample {
    HistogramSample {
        count: 5 + step as u64 * 4,
        sum: 18.4 * (step as f64 + 1.0),
        schema: -53,
        positive_spans: &[(0, 2), (1, 2)],
        positive_deltas: vec![step as i64 + 1, 1, -1, 0],
        custom_values: &[0.0, 1.0, 2.0, 3.0, 4.0],
        ..HistogramSample::default()
    }
}

type Series = Vec<(Vec<(&'static str, String)>, Shape)>;

fn range_series(steps: usize) -> Series {
    let mut labels: Vec<Vec<(&'static str, String)>> = Vec::new();
    for (size, count) in [("one", 1), ("ten", 10), ("hundred", 100)] {
        for l in 0..count {
            let named = |metric: &str| {
                let mut labels = vec![("__name__", format!("{metric}_{size}"))];
                labels.extend((size != "one").then(|| ("l", l.to_string())));
                labels
            };
            labels.extend([named("a"), named("b")]);
            for le in (0..10).map(|it| it.to_string()).chain(["+Inf".to_owned()]) {
                let mut bucket = named("h");
                bucket.push(("le", le));
                labels.push(bucket);
            }
        }
    }
    let count = labels.len() as f64;
    let mut series: Series = labels
        .into_iter()
        .enumerate()
        .map(|(at, labels)| (labels, Shape::Line(at as f64 / count)))
        .collect();
    let each = (steps / SPARSE_PARTS).max(1);
    for begin in (0..steps).step_by(each) {
        let labels = vec![
            ("__name__", "sparse".to_owned()),
            ("l", (begin / each).to_string()),
        ];
        let end = (begin + each).min(steps);
        let shape = Shape::Sparse {
            begin,
            end,
            series: count,
        };
        series.push((labels, shape));
    }
    series
}

fn join_series(instances: usize) -> Series {
    let mut state = 0_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut series = Series::new();
    for instance in 0..instances {
        let (high, low) = (next(), next());
        let uuid = format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0x3fff | 0x8000,
            low & 0xffff_ffff_ffff
        );
        for (at, metric) in ["rpc_request_success_total", "rpc_request_error_total"]
            .iter()
            .enumerate()
        {
            let labels = vec![
                ("__name__", (*metric).to_owned()),
                ("cluster", "test-kubernetes-cluster".to_owned()),
                ("domain", "test-domain".to_owned()),
                ("environment", "staging".to_owned()),
                ("instance", uuid.clone()),
                ("job", "worker".to_owned()),
                ("namespace", "test-kubernetes-namespace".to_owned()),
                ("rpc_method", "fetch-my-data-from-this-service".to_owned()),
            ];
            let part = (2 * instance + at) as f64 / (2 * instances) as f64;
            series.push((labels, Shape::Line(part)));
        }
    }
    series
}

fn native_series(count: usize) -> Series {
    let kinds = [
        ("native_histogram_series", Shape::Exponential),
        ("native_histogram_custom_bucket_series", Shape::Custom),
    ];
    let series = |(name, shape): (&'static str, Shape)| {
        (0..count).map(move |h| {
            let labels = vec![
                ("__name__", name.to_owned()),
                ("foo", "bar".to_owned()),
                ("h", h.to_string()),
            ];
            (labels, shape)
        })
    };
    kinds.into_iter().flat_map(series).collect()
}

fn info_series() -> Series {
    let mut series = Series::new();
    for instance in 0..100 {
        let cluster = if instance >= 50 {
            "eu-south"
        } else {
            "us-east"
        };
        let labels = vec![
            ("__name__", "target_info".to_owned()),
            ("instance", format!("instance{instance}")),
            ("job", format!("job{instance}")),
            ("k8s_cluster_name", cluster.to_owned()),
        ];
        series.push((labels, Shape::One));
    }
    for code in ["200", "400", "500"] {
        let labels = vec![
            (
                "__name__",
                "http_server_request_duration_seconds_count".to_owned(),
            ),
            ("http_status_code", code.to_owned()),
            ("instance", "instance0".to_owned()),
            ("job", "job0".to_owned()),
        ];
        series.push((labels, Shape::Count));
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_are_as_large_as_those_of_prometheus() {
        let size = |kind: SetKind| {
            let set = kind.set(1);
            (set.series_count(), set.sample_count())
        };
        assert_eq!(size(SetKind::Range), (1_443 + 51, (1_443 + 1) * 18_640));
        assert_eq!(size(SetKind::Join), (2_000, 2_000 * 13_640));
        assert_eq!(size(SetKind::Native), (6_000, 6_000 * 2_000));
        assert_eq!(size(SetKind::Info), (103, 103 * 3_600));
    }

    #[test]
    fn labels_are_sorted_and_differ() {
        for kind in SetKind::ALL {
            let mut seen = std::collections::BTreeSet::new();
            for (labels, _) in kind.set(1).series {
                assert!(labels.is_sorted(), "{labels:?}");
                assert!(seen.insert(labels));
            }
        }
    }
}
