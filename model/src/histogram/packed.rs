//! The histograms of a series, packed.
//!
//! Samples that follow each other with the same buckets are a run: they share what is told of the
//! buckets once, and the numbers of each are a row of one column. So reading a sample allocates
//! nothing, and the difference of two is one loop over two slices.
//!
//! ```text
//! row: │ count │ zero count │ sum │ positive buckets … │ negative buckets … │
//! ```

use std::ops::Range;
use std::sync::Arc;

use super::add::within_zero;
use super::{Buckets, CUSTOM_SCHEMA, CounterReset, FloatHistogram, SCHEMA_MAX};
use crate::sample::is_stale;

/// What the histograms of a run have in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layout {
    /// As in [`FloatHistogram`], but may be finer than [`SCHEMA_MAX`].
    pub schema: i32,
    /// As in [`FloatHistogram`].
    pub zero_threshold: f64,
    /// Indexes of the positive buckets, or of the custom ones.
    pub positive: Arc<[i32]>,
    /// Indexes of the negative buckets.
    pub negative: Arc<[i32]>,
    /// Bounds of custom buckets.
    pub custom: Arc<[f64]>,
}

/// Where a row has its numbers.
const COUNT: usize = 0;
const ZERO_COUNT: usize = 1;
const SUM: usize = 2;
const BUCKETS: usize = 3;

/// Histograms in ascending order of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PackedHistograms {
    times: Vec<i64>,
    numbers: Vec<f64>,
    runs: Vec<Run>,
    any_stale: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Run {
    layout: Layout,
    /// The hint of the first sample, and of all others.
    hints: (CounterReset, CounterReset),
    samples: Range<usize>,
    /// Where its rows begin.
    numbers_from: usize,
    /// Whether rows can be subtracted number by number.
    plain: bool,
}

impl Run {
    fn width(&self) -> usize {
        BUCKETS + self.layout.positive.len() + self.layout.negative.len()
    }
}

impl PackedHistograms {
    /// Forgets all samples and keeps the memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.numbers.clear();
        self.runs.clear();
        self.any_stale = false;
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Unix times in milliseconds.
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    /// The bytes that the samples take.
    pub fn bytes(&self) -> usize {
        let columns = self.times.capacity() + self.numbers.capacity();
        let indexes = |it: &Run| 4 * (it.width() - BUCKETS) + 8 * it.layout.custom.len();
        let runs = self.runs.iter().map(|it| size_of::<Run>() + indexes(it));
        8 * columns + runs.sum::<usize>()
    }

    /// Begins a run. `first` is the hint of its first sample, `rest` that of all others.
    pub fn begin(&mut self, layout: Layout, first: CounterReset, rest: CounterReset) {
        let outside_zero = |indexes: &Arc<[i32]>| {
            let first = indexes.first().map(|index| (*index, 0.0));
            let first = Buckets::of_pairs(first);
            within_zero(&first, layout.schema, layout.zero_threshold) == 0
        };
        let plain = layout.schema == CUSTOM_SCHEMA
            || layout.schema <= SCHEMA_MAX
                && outside_zero(&layout.positive)
                && outside_zero(&layout.negative);
        self.runs.push(Run {
            layout,
            hints: (first, rest),
            samples: self.times.len()..self.times.len(),
            numbers_from: self.numbers.len(),
            plain,
        });
    }

    /// Adds a sample to the run that was begun last: count, zero count and sum, then the counts of
    /// both sides. A sum that is the staleness marker makes the sample one; its counts mean nothing.
    ///
    /// # Panics
    /// When no run was begun.
    pub fn push(
        &mut self,
        time_ms: i64,
        totals: [f64; BUCKETS],
        positive: impl Iterator<Item = f64>,
        negative: impl Iterator<Item = f64>,
    ) {
        let run = self.runs.last_mut().expect("a run was begun");
        let end = self.numbers.len() + run.width();
        self.times.push(time_ms);
        run.samples.end = self.times.len();
        self.any_stale |= is_stale(totals[SUM]);
        self.numbers.extend_from_slice(&totals);
        self.numbers.extend(positive);
        self.numbers.extend(negative);
        self.numbers.resize(end, 0.0);
    }

    fn run(&self, at: usize) -> &Run {
        let run = self.runs.partition_point(|run| run.samples.end <= at);
        &self.runs[run]
    }

    fn row(&self, run: &Run, at: usize) -> &[f64] {
        let from = run.numbers_from + (at - run.samples.start) * run.width();
        &self.numbers[from..from + run.width()]
    }

    /// Sample `at`.
    pub fn get(&self, at: usize) -> FloatHistogram {
        let run = self.run(at);
        let row = self.row(run, at);
        if is_stale(row[SUM]) {
            return FloatHistogram::stale();
        }
        let counts = &row[BUCKETS..];
        let (positive, negative) = counts.split_at(run.layout.positive.len());
        let mut histogram = run.layout.histogram(
            [row[COUNT], row[ZERO_COUNT], row[SUM]],
            positive.to_vec(),
            negative.to_vec(),
        );
        histogram.hint = run.hint(at);
        histogram.reduce_to(SCHEMA_MAX);
        histogram
    }

    /// Whether sample `at` is the staleness marker.
    pub fn is_stale(&self, at: usize) -> bool {
        self.any_stale && is_stale(self.row(self.run(at), at)[SUM])
    }

    /// The count of sample `at`.
    pub fn count(&self, at: usize) -> f64 {
        self.row(self.run(at), at)[COUNT]
    }

    /// The hint of sample `at`.
    pub fn hint(&self, at: usize) -> CounterReset {
        self.run(at).hint(at)
    }

    /// The schema of sample `at`.
    pub fn schema(&self, at: usize) -> i32 {
        self.run(at).layout.schema.min(SCHEMA_MAX)
    }

    /// Where schema or hint may be others than those of the sample before, or the hint is not
    /// [`CounterReset::NotReset`].
    pub fn borders(&self) -> Vec<usize> {
        let mut borders = Vec::new();
        for run in &self.runs {
            match run.hints.1 {
                CounterReset::NotReset => borders.push(run.samples.start),
                _ => borders.extend(run.samples.clone()),
            }
        }
        borders
    }

    /// Sample `last` less sample `first`, when both have the same buckets and nothing stands in the
    /// way of subtracting number by number. It is what [`FloatHistogram::sub`] gives.
    pub fn difference(&self, first: usize, last: usize) -> Option<FloatHistogram> {
        let (before, after) = (self.run(first), self.run(last));
        if !after.plain || before.samples != after.samples && before.layout != after.layout {
            return None;
        }
        let (before, row) = (self.row(before, first), self.row(after, last));
        let less = |at: usize| row[at] - before[at];
        let middle = BUCKETS + after.layout.positive.len();
        let side = |range: Range<usize>| {
            let pairs = row[range.clone()].iter().zip(&before[range]);
            pairs.map(|(now, before)| now - before).collect()
        };
        let mut histogram = after.layout.histogram(
            [less(COUNT), less(ZERO_COUNT), less(SUM)],
            side(BUCKETS..middle),
            side(middle..row.len()),
        );
        histogram.hint = after.hint(last);
        Some(histogram)
    }

    /// The times of samples of one weight ([`FloatHistogram::weight_in_samples`]), and that weight.
    /// Staleness markers are taken for what they stand among.
    pub fn weights(&self) -> impl Iterator<Item = (&[i64], u64)> {
        self.runs.iter().map(|run| {
            let mut empty = run.layout.histogram([0.0; BUCKETS], Vec::new(), Vec::new());
            empty.reduce_to(SCHEMA_MAX);
            (&self.times[run.samples.clone()], empty.weight_in_samples())
        })
    }

    /// Takes the staleness markers out.
    pub fn remove_stale(&mut self) {
        if !self.any_stale {
            return;
        }
        let all = std::mem::take(self);
        for run in &all.runs {
            let live = |at: &usize| !is_stale(all.row(run, *at)[SUM]);
            let Some(first) = run.samples.clone().find(live) else {
                continue;
            };
            self.begin(run.layout.clone(), run.hint(first), run.hints.1);
            for at in run.samples.clone().filter(live) {
                let row = all.row(run, at);
                let totals = [row[COUNT], row[ZERO_COUNT], row[SUM]];
                let counts = row[BUCKETS..].iter().copied();
                self.push(all.times[at], totals, counts, std::iter::empty());
            }
        }
    }

    /// All samples, each by itself, with their times.
    pub fn iter(&self) -> impl Iterator<Item = (i64, Arc<FloatHistogram>)> + '_ {
        let times = self.times.iter().enumerate();
        times.map(|(at, time_ms)| (*time_ms, Arc::new(self.get(at))))
    }
}

impl Run {
    fn hint(&self, at: usize) -> CounterReset {
        match at == self.samples.start {
            true => self.hints.0,
            false => self.hints.1,
        }
    }
}

impl Layout {
    /// A histogram with these buckets. Counts that are missing are taken for zeros.
    pub fn histogram(
        &self,
        [count, zero_count, sum]: [f64; BUCKETS],
        positive: Vec<f64>,
        negative: Vec<f64>,
    ) -> FloatHistogram {
        let side = |indexes: &Arc<[i32]>, mut counts: Vec<f64>| {
            counts.resize(indexes.len(), 0.0);
            Buckets::of_layout(Arc::clone(indexes), counts).unwrap_or_default()
        };
        FloatHistogram {
            hint: CounterReset::Unknown,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count,
            count,
            sum,
            positive: side(&self.positive, positive),
            negative: side(&self.negative, negative),
            custom: Arc::clone(&self.custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::STALE_NAN;

    fn layout(zero_threshold: f64, positive: &[i32]) -> Layout {
        Layout {
            schema: 1,
            zero_threshold,
            positive: positive.into(),
            negative: [-2, 0].into(),
            custom: [].into(),
        }
    }

    fn packed(runs: &[(Layout, &[(i64, f64)])]) -> PackedHistograms {
        let mut packed = PackedHistograms::default();
        for (layout, samples) in runs {
            packed.begin(
                layout.clone(),
                CounterReset::Unknown,
                CounterReset::NotReset,
            );
            for (time_ms, sum) in *samples {
                let counts = (0..layout.positive.len()).map(|it| it as f64 * sum);
                packed.push(*time_ms, [7.0, 2.0, *sum], counts, [1.0, *sum].into_iter());
            }
        }
        packed
    }

    #[test]
    fn differences_are_those_of_histograms() {
        let runs = [
            (layout(0.001, &[1, 2, 5]), &[(1, 1.0), (2, 2.5)][..]),
            (layout(0.001, &[1, 2, 5]), &[(3, 4.0)]),
            (layout(0.001, &[1, 2]), &[(4, 6.0), (5, 7.0)]),
            (layout(2.0, &[1, 2]), &[(6, 8.0), (7, 9.0)]),
        ];
        let packed = packed(&runs);
        assert_eq!(packed.borders(), [0, 2, 3, 5]);
        let weights: Vec<_> = packed.weights().map(|it| (it.0.len(), it.1)).collect();
        let weight = |at: usize| packed.get(at).weight_in_samples();
        let want = [
            (2, weight(0)),
            (1, weight(2)),
            (2, weight(3)),
            (2, weight(5)),
        ];
        assert_eq!(weights, want);
        let mut fast = 0;
        for first in 0..packed.len() {
            for last in first + 1..packed.len() {
                let mut want = packed.get(last);
                want.sub(&packed.get(first)).unwrap();
                if let Some(got) = packed.difference(first, last) {
                    assert_eq!(got, want);
                    fast += 1;
                }
            }
        }
        // Where buckets lie in the zero bucket, or differ, it is left to others.
        assert_eq!(fast, 4);
    }

    #[test]
    fn stale_samples_go() {
        let buckets = layout(0.0, &[3]);
        let runs = [
            (
                buckets.clone(),
                &[(1, STALE_NAN), (2, 2.0), (3, STALE_NAN)][..],
            ),
            (buckets.clone(), &[(4, STALE_NAN)]),
            (buckets, &[(5, 5.0)]),
        ];
        let mut packed = packed(&runs);
        assert!(packed.is_stale(0) && packed.get(3).is_stale() && !packed.is_stale(1));
        let live: Vec<_> = packed.iter().filter(|it| !it.1.is_stale()).collect();
        packed.remove_stale();
        assert_eq!(packed.iter().collect::<Vec<_>>(), live);
        assert_eq!(packed.times(), [2, 5]);
        assert_eq!(packed.hint(0), CounterReset::NotReset);
        assert_eq!(packed.hint(1), CounterReset::Unknown);
    }
}
