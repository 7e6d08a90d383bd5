//! Seeded series that look like a scraped Kubernetes cluster, cheap enough that making them costs
//! little beside sending them.
//!
//! The unit is a pod: one scrape target with [`SERIES_PER_POD`] series that share a timestamp. It
//! holds counters that fall back when the pod restarts, gauges that walk, integers that
//! are mostly zero, constants, and classic histograms whose buckets add up. Every series carries 10
//! to 13 labels. The same seed gives the same labels and values, whoever asks.
//!
//! No timestamp falls on a whole second (see [`Pod::offset_ms`]), so that a query at whole seconds
//! with ranges of whole seconds has no sample on the edge of a range. Prometheus counted the sample
//! on the left edge until version 2, and no longer does in version 3; both must be comparable.

/// How many series a pod exposes.
pub const SERIES_PER_POD: usize = 100;

/// The upper bounds of the histogram's buckets, as `le` writes them.
const BOUNDS: [&str; 11] = [
    "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "+Inf",
];

/// About one step in so many restarts a pod.
const STEPS_PER_RESTART: u64 = 2_000;

/// About where counters stand when the data begins, and after a restart.
const COUNTER_START: f64 = 100_000.0;
const COUNTER_RESTART: f64 = 1_000.0;

/// A metric and how its values move. `count` is the number of series that one pod has of it.
struct Family {
    name: &'static str,
    /// The label that tells the series of a pod apart, and its values' prefix.
    label: (&'static str, &'static str),
    count: usize,
    movement: Movement,
}

#[derive(Clone, Copy)]
enum Movement {
    /// Requests counted: whole steps.
    Count,
    /// Seconds of CPU: fractional steps.
    Seconds,
    /// A size in pages that walks up and down.
    Pages,
    /// A size in bytes that grows and falls back, as a collected heap does.
    Sawtooth,
    /// A load with two decimals.
    Load,
    /// Mostly zero, sometimes a small integer.
    Depth,
    /// Always one.
    Info,
    /// The second at which the pod last started.
    Started,
    /// The buckets, sum and count of one histogram: thirteen series a label value.
    Histogram,
}

const FAMILIES: &[Family] = &[
    family("http_requests_total", ("code", ""), 10, Movement::Count),
    family(
        "container_cpu_usage_seconds_total",
        ("cpu", "cpu"),
        10,
        Movement::Seconds,
    ),
    family(
        "container_memory_working_set_bytes",
        ("container", "app-"),
        10,
        Movement::Pages,
    ),
    family(
        "go_memstats_heap_alloc_bytes",
        ("container", "app-"),
        8,
        Movement::Sawtooth,
    ),
    family(
        "container_load_average_10s",
        ("container", "app-"),
        10,
        Movement::Load,
    ),
    family("workqueue_depth", ("name", "queue-"), 8, Movement::Depth),
    family(
        "kube_pod_container_info",
        ("container", "app-"),
        10,
        Movement::Info,
    ),
    family(
        "process_start_time_seconds",
        ("container", "app-"),
        8,
        Movement::Started,
    ),
    family(
        "http_request_duration_seconds",
        ("handler", "/api/v1/resource"),
        26,
        Movement::Histogram,
    ),
];

const fn family(
    name: &'static str,
    label: (&'static str, &'static str),
    count: usize,
    movement: Movement,
) -> Family {
    Family {
        name,
        label,
        count,
        movement,
    }
}

const _: () = {
    let mut sum = 0;
    let mut index = 0;
    while index < FAMILIES.len() {
        sum += FAMILIES[index].count;
        index += 1;
    }
    assert!(sum == SERIES_PER_POD, "the families do not fill a pod");
};

/// The series of one scrape target and where their values stand.
pub struct Pod {
    index: usize,
    random: Random,
    offset_ms: i64,
    started_s: f64,
    values: [f64; SERIES_PER_POD],
}

impl Pod {
    /// The pod of this number. `start_ms` is when the data begins; the pod started some time before.
    pub fn new(seed: u64, index: usize, interval_ms: i64, start_ms: i64) -> Pod {
        let mut random = Random::new(seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let seconds = (interval_ms / 1000).max(1) as u64;
        let offset_ms = (random.below(seconds) * 1000 + 1 + random.below(998)) as i64;
        let started_s = (start_ms / 1000 - random.below(1_000_000) as i64) as f64;
        let mut pod = Pod {
            index,
            random,
            offset_ms,
            started_s,
            values: [0.0; SERIES_PER_POD],
        };
        for value in &mut pod.values {
            *value = (pod.random.below(1 << 20)) as f64;
        }
        pod.start_counters(COUNTER_START);
        pod
    }

    /// When the pod is scraped, in milliseconds after the step begins. Never a whole second.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// The labels of each series, sorted by name, in the order of [`Pod::step`].
    pub fn labels(&self) -> Vec<Vec<(&'static str, String)>> {
        let mut all = Vec::with_capacity(SERIES_PER_POD);
        for family in FAMILIES {
            for series in 0..family.count {
                all.push(self.labels_of(family, series));
            }
        }
        all
    }

    fn labels_of(&self, family: &Family, series: usize) -> Vec<(&'static str, String)> {
        let pod = self.index;
        let namespace = namespace(pod);
        let mut labels = vec![
            ("__name__", family.name.to_owned()),
            ("app", format!("web-{}", pod % 50)),
            ("cluster", format!("eu-west-{}", pod % 3)),
            ("endpoint", "http-metrics".to_owned()),
            (
                "instance",
                format!(
                    "10.{}.{}.{}:8080",
                    pod / 65_536 % 256,
                    pod / 256 % 256,
                    pod % 256
                ),
            ),
            ("job", "kubernetes-pods".to_owned()),
            ("namespace", namespace),
            ("node", node(pod)),
            ("pod", pod_name(pod)),
            ("service", format!("web-{}-metrics", pod % 50)),
        ];
        match family.movement {
            Movement::Count => {
                let codes = ["200", "201", "404", "500", "503"];
                labels.push(("code", codes[series % 5].to_owned()));
                labels.push(("method", ["GET", "POST"][series / 5].to_owned()));
            }
            Movement::Histogram => {
                let (handler, part) = (series / 13, series % 13);
                labels.push((family.label.0, format!("{}-{handler}", family.label.1)));
                let suffix = match part {
                    11 => "_sum",
                    12 => "_count",
                    _ => "_bucket",
                };
                labels[0].1.push_str(suffix);
                if let Some(bound) = BOUNDS.get(part) {
                    labels.push(("le", (*bound).to_owned()));
                }
            }
            _ => labels.push((family.label.0, format!("{}{series}", family.label.1))),
        }
        labels.sort();
        labels
    }

    /// Moves every series on by one scrape and gives the values, in the order of [`Pod::labels`].
    /// `at_s` is the second of the scrape, which a restart becomes the start time of.
    pub fn step(&mut self, at_s: i64) -> &[f64; SERIES_PER_POD] {
        if self.random.below(STEPS_PER_RESTART) == 0 {
            self.started_s = at_s as f64;
            self.start_counters(COUNTER_RESTART);
        }
        let mut at = 0;
        for family in FAMILIES {
            let values = &mut self.values[at..at + family.count];
            at += family.count;
            match family.movement {
                Movement::Histogram => {
                    for histogram in values.chunks_exact_mut(13) {
                        observe(histogram, &mut self.random);
                    }
                }
                Movement::Info => values.fill(1.0),
                Movement::Started => values.fill(self.started_s),
                movement => {
                    for value in values {
                        *value = movement.next(*value, &mut self.random);
                    }
                }
            }
        }
        &self.values
    }

    /// Starts the counters at about `level`. That is not zero even after a restart: versions of
    /// Prometheus differ in how far they extrapolate a counter that has only just begun.
    fn start_counters(&mut self, level: f64) {
        let mut at = 0;
        for family in FAMILIES {
            let values = &mut self.values[at..at + family.count];
            at += family.count;
            match family.movement {
                Movement::Count | Movement::Seconds => {
                    values.fill_with(|| level + self.random.below(level as u64) as f64);
                }
                Movement::Histogram => {
                    for histogram in values.chunks_exact_mut(13) {
                        let levels = [
                            1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 0.7, 11.0,
                        ];
                        for (value, times) in histogram.iter_mut().zip(levels) {
                            *value = level * times;
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

impl Movement {
    fn next(self, value: f64, random: &mut Random) -> f64 {
        match self {
            Movement::Count => value + (random.below(64) / 4 * (random.below(4) / 2)) as f64,
            Movement::Seconds => value + random.unit() * 3.0,
            Movement::Pages => {
                let pages = (value / 4096.0) as i64 + random.below(129) as i64 - 64;
                (pages.clamp(1_000, 500_000) * 4096) as f64
            }
            Movement::Sawtooth => {
                if value > 200e6 {
                    20e6 + random.below(1 << 20) as f64
                } else {
                    value + random.below(1 << 22) as f64
                }
            }
            Movement::Load => {
                let walked = (value % 64.0) + random.unit() - 0.5;
                (walked.abs() * 100.0).round() / 100.0
            }
            Movement::Depth => random.below(8).saturating_sub(5) as f64,
            Movement::Info | Movement::Started | Movement::Histogram => value,
        }
    }
}

/// Adds some observations to a histogram of eleven cumulative buckets, a sum and a count.
fn observe(histogram: &mut [f64], random: &mut Random) {
    let many = random.below(16);
    let mut cumulated = 0.0;
    for (bucket, value) in histogram[..11].iter_mut().enumerate() {
        // The middle buckets get most of it.
        let weight = 3 - (bucket as i64 - 4).unsigned_abs().min(3);
        cumulated += (many * weight / 2) as f64;
        *value += cumulated;
    }
    histogram[11] += cumulated * 0.07 * (0.5 + random.unit());
    histogram[12] += cumulated;
}

/// The names of all metrics.
pub fn metric_names() -> Vec<String> {
    let names = |family: &Family| match family.movement {
        Movement::Histogram => ["_bucket", "_sum", "_count"]
            .map(|it| format!("{}{it}", family.name))
            .to_vec(),
        _ => vec![family.name.to_owned()],
    };
    FAMILIES.iter().flat_map(names).collect()
}

/// The namespace of the pod of this number; a tenth of the pods share each of the larger ones.
pub fn namespace(pod: usize) -> String {
    format!("team-{:02}", pod % 20)
}

/// The node that the pod of this number runs on.
pub fn node(pod: usize) -> String {
    format!(
        "ip-10-0-{}-{}.eu-west-1.compute.internal",
        pod % 40,
        pod % 7
    )
}

/// The name of the pod of this number, in the form that a Deployment gives.
pub fn pod_name(pod: usize) -> String {
    format!(
        "web-{}-{:08x}-{pod:05}",
        pod % 50,
        (pod % 50).wrapping_mul(2_654_435_761) & 0xffff_ffff
    )
}

/// A small fast generator (xorshift64*), good enough to make data look uneven.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number in `0..bound`; the slight unevenness does not matter here.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `0.0..1.0`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_series() {
        let mut one = Pod::new(7, 3, 15_000, 1_700_000_000_000);
        let mut two = Pod::new(7, 3, 15_000, 1_700_000_000_000);
        assert_eq!(one.labels(), two.labels());
        for second in 0..100 {
            assert_eq!(one.step(second), two.step(second));
        }
        let mut other = Pod::new(8, 3, 15_000, 1_700_000_000_000);
        assert_ne!(one.step(100), other.step(100));
    }

    #[test]
    fn every_series_of_every_pod_is_another_one_and_has_sorted_labels() {
        let mut seen = BTreeSet::new();
        for index in 0..100 {
            for labels in Pod::new(1, index, 15_000, 0).labels() {
                assert!(labels.is_sorted(), "{labels:?}");
                assert!((10..=13).contains(&labels.len()), "{labels:?}");
                assert!(seen.insert(labels));
            }
        }
        assert_eq!(seen.len(), 100 * SERIES_PER_POD);
    }

    #[test]
    fn no_scrape_falls_on_a_whole_second_or_out_of_its_interval() {
        for index in 0..10_000 {
            let offset_ms = Pod::new(1, index, 15_000, 0).offset_ms();
            assert!(
                offset_ms % 1000 != 0 && (0..15_000).contains(&offset_ms),
                "{offset_ms}"
            );
        }
    }

    #[test]
    fn buckets_add_up_and_counters_grow_until_a_restart() {
        let mut pod = Pod::new(1, 0, 15_000, 0);
        let labels = pod.labels();
        let mut before = *pod.step(0);
        let mut restarts = 0;
        for second in 1..20_000 {
            let now = *pod.step(second);
            let fell = (0..SERIES_PER_POD)
                .any(|it| labels[it][0].1.ends_with("_total") && now[it] < before[it]);
            restarts += usize::from(fell);
            let histogram = &now[SERIES_PER_POD - 13..];
            assert!(histogram[..11].is_sorted());
            assert_eq!(histogram[10], histogram[12]);
            before = now;
        }
        assert!((3..=30).contains(&restarts), "{restarts}");
    }
}
