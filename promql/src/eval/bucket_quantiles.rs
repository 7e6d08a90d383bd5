//! Quantiles of classic histograms, and what is told of counts that fell and were lifted.

use std::collections::BTreeMap;

use isobar_model::LabelsBuilder;

use super::EvalError;
use super::buckets::{Histogram, Histograms, open_metrics_float, told_name};
use super::merge::Merge;
use super::parallel::scatter;
use super::remarks::Lifted;
use super::run::Run;
use super::tile::{RowRef, for_each};
use crate::functions::quantile::bucket_quantile;
use crate::plan::node::{Grid, Node};

/// What the quantiles of a bucket cost at least, beside a sample that is read.
const COST_PER_BUCKET: usize = 8;

/// The quantiles of one histogram.
struct Found {
    /// For each quantile its values.
    values: Vec<Vec<f64>>,
    /// The steps that have them.
    present: Vec<u64>,
    /// What was lifted, by step and quantile.
    lifted: Vec<(usize, Lifted)>,
}

/// Computes all quantiles. `labels` has for each of `params` the label that it is written to.
pub(super) fn quantiles(
    run: &Run<'_>,
    histograms: &Histograms,
    node: &Node,
    params: &[Vec<f64>],
    labels: &[Option<&str>],
    lift: &mut LiftRemark,
    out: &mut Merge,
) -> Result<(), EvalError> {
    let all = &histograms.histograms;
    let cost = |i: usize| all[i].buckets() * COST_PER_BUCKET * node.grid.count * params.len();
    let found = scatter(run, all.len(), cost, |i| {
        find(histograms, &all[i], node.grid, params)
    });
    for (histogram, found) in all.iter().zip(&found) {
        for ((quantiles, values), label) in params.iter().zip(&found.values).zip(labels) {
            let row = |labels| RowRef {
                labels,
                drops_name: false,
                values,
                present: &found.present,
                histograms: &[],
            };
            let Some(label) = label else {
                out.add(&histogram.labels, row(&histogram.labels))?;
                continue;
            };
            let labels_of = |q: f64| {
                let mut builder = LabelsBuilder::new(&histogram.labels);
                builder.set(label, &open_metrics_float(q));
                builder.build()
            };
            let first = quantiles.first().copied().unwrap_or(f64::NAN);
            if quantiles.iter().all(|q| q.to_bits() == first.to_bits()) {
                let labels = labels_of(first);
                out.add(&labels, row(&labels))?;
                continue;
            }
            let mut done = Ok(());
            for_each(&found.present, |step| {
                if done.is_ok() {
                    done = out.set(&labels_of(quantiles[step]), step, values[step]);
                }
            });
            done?;
        }
    }
    // Remarks come step by step, as Prometheus makes them.
    let mut left: Vec<_> = found.iter().map(|it| it.lifted.iter().peekable()).collect();
    if left.iter_mut().all(|it| it.peek().is_none()) {
        return Ok(());
    }
    for step in 0..node.grid.count {
        for (histogram, lifted) in all.iter().zip(&mut left) {
            while let Some((_, lifted)) = lifted.next_if(|it| it.0 == step) {
                lift.add(told_name(histograms.removal, &histogram.labels), *lifted);
            }
        }
        lift.end_step();
    }
    Ok(())
}

/// The quantiles of a histogram at all steps.
fn find(histograms: &Histograms, histogram: &Histogram, grid: Grid, params: &[Vec<f64>]) -> Found {
    let mut found = Found {
        values: vec![vec![0.0; grid.count]; params.len()],
        present: vec![0; grid.count.div_ceil(64)],
        lifted: Vec::new(),
    };
    let mut buckets = Vec::new();
    for step in 0..grid.count {
        histograms.at(histogram, step, &mut buckets);
        if buckets.is_empty() {
            continue;
        }
        found.present[step / 64] |= 1 << (step % 64);
        // The first quantile lifts counts that fall; the others find them lifted.
        for (quantiles, values) in params.iter().zip(&mut found.values) {
            let quantile = bucket_quantile(quantiles[step], &mut buckets);
            values[step] = quantile.value;
            if let Some(forced) = quantile.forced_monotonicity {
                let time_ms = grid.time_ms(step);
                let lifted = Lifted {
                    first_ms: time_ms,
                    last_ms: time_ms,
                    min_bucket: forced.min_bucket,
                    max_bucket: forced.max_bucket,
                    max_diff: forced.max_diff,
                    repeats: 0,
                };
                found.lifted.push((step, lifted));
            }
        }
    }
    found
}

/// Keeps the books of the info about lifted counts as Prometheus does: the function hands its
/// caller the same collection at each step, and what is in it already is merged with itself.
#[derive(Default)]
pub(super) struct LiftRemark {
    /// What was lifted so far and at this step, by the name to tell.
    by_name: BTreeMap<String, (Option<Lifted>, Option<Lifted>)>,
}

impl LiftRemark {
    fn add(&mut self, name: &str, lifted: Lifted) {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), (None, None));
        }
        match self.by_name.get_mut(name) {
            Some((_, Some(step))) => step.merge(&lifted),
            Some((_, step)) => *step = Some(lifted),
            None => {}
        }
    }

    fn end_step(&mut self) {
        for (all, step) in self.by_name.values_mut() {
            match (&mut *all, step.take()) {
                (None, step) => *all = step,
                (Some(all), step) => {
                    if let Some(step) = step {
                        all.merge(&step);
                    }
                    all.merge_with_itself();
                }
            }
        }
    }

    pub(super) fn raise(self, run: &Run<'_>, node: &Node, at: usize) {
        for (name, (all, _)) in self.by_name {
            if let Some(lifted) = all {
                run.remarks().lifted(node.rank, at, &name, lifted);
            }
        }
    }
}
