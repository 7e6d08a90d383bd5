//! What selectors look at, counted as Prometheus counts it.

use super::tile::{RowRef, for_each, weights};
use crate::plan::counting::Counting;
use crate::value::StepStats;

/// What a selector looked at in some series.
pub(super) struct Tally<'a> {
    counting: &'a Counting,
    /// Samples decoded.
    pub(super) read: u64,
    /// Samples looked at, each as often as a step did.
    pub(super) queryable: u64,
    /// Samples that the steps before had not looked at.
    pub(super) new: u64,
    /// The last two by step; empty where nobody asks for it.
    steps: Vec<(u64, u64)>,
}

impl<'a> Tally<'a> {
    /// For a selector of so many steps. `by_step` says whether the query's steps are told apart.
    pub(super) fn new(counting: &'a Counting, steps: usize, by_step: bool) -> Self {
        let by_step = by_step || counting.has_gaps();
        Tally {
            counting,
            read: 0,
            queryable: 0,
            new: 0,
            steps: vec![(0, 0); if by_step { steps } else { 0 }],
        }
    }

    /// Whether samples are to be counted with [`Tally::add_at`].
    pub(super) fn by_step(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Counts samples of a step.
    pub(super) fn add_at(&mut self, step: usize, queryable: u64, new: u64) {
        self.queryable += queryable;
        self.new += new;
        if let Some(counts) = self.steps.get_mut(step) {
            counts.0 += queryable;
            counts.1 += new;
        }
    }

    /// Counts each value and histogram of a row as a sample that its step looked at.
    pub(super) fn add_row(&mut self, row: RowRef<'_>) {
        for_each(row.present, |step| self.add_at(step, 1, 1));
        let weights = weights(row.histograms.iter().map(|it| it.1.as_ref()));
        for ((step, _), weight) in row.histograms.iter().zip(weights) {
            self.add_at(*step, weight, weight);
        }
    }

    /// Takes what counts for the query into `steps`; gives how much that is in all, of samples
    /// looked at and of new ones.
    pub(super) fn finish(self, steps: Option<&mut StepStats>) -> (u64, u64) {
        let counting = self.counting;
        let times = counting.times;
        let queryable = self.queryable.saturating_mul(counting.weight * times);
        if self.steps.is_empty() {
            return (queryable, self.new.saturating_mul(times));
        }
        let mut new = 0;
        let mut none = StepStats::default();
        let into = steps.unwrap_or(&mut none);
        for (step, (looked_at, read)) in self.steps.iter().enumerate() {
            let (looked_at, read) = (looked_at * times, read * times);
            if let Some(at) = counting.step_of_query(step) {
                new += read;
                if let Some(into) = into.new.get_mut(at) {
                    *into += read;
                }
            }
            if counting.frames.is_empty()
                && let Some(into) = into.queryable.get_mut(step)
            {
                *into += looked_at;
            }
        }
        if !counting.frames.is_empty() {
            // What is held was looked at at each step.
            let each = queryable / into.queryable.len().max(1) as u64;
            into.queryable.iter_mut().for_each(|it| *it += each);
        }
        (queryable, new)
    }
}
