//! Aggregations that give one series for each group.
//!
//! What is kept is an accumulator for each group and step. Rows are added in the order in which
//! they come, so the sums are Prometheus' to the last digit.

use hashbrown::HashMap;
use isobar_model::{Labels, Reservation};

use super::group::Groups;
use super::histogram_fold::HistogramFold;
use super::parallel::scatter;
use super::remarks::go_g;
use super::run::Run;
use super::tile::{RowRef, Tile, for_each, for_each_run, grown, is_set, last_set};
use super::{EvalError, for_each_tile, scalar};
use crate::functions::quantile::quantile;
use crate::functions::sum::{KahanMean, Variance, kahan_inc};
use crate::parse::ast::AggregateOp;
use crate::plan::node::{Aggregation, Node};

/// What an element of a quantile costs, beside a sample that is read.
const COST_PER_ELEMENT: usize = 4;

/// The rows of the aggregation.
pub(super) fn evaluate(
    run: &Run<'_>,
    node: &Node,
    aggregation: &Aggregation,
) -> Result<Tile, EvalError> {
    let held = run.held();
    let steps = node.grid.count;
    let quantiles = match &aggregation.param {
        Some(param) => scalar::evaluate(run, param, node.grid)?,
        None => Vec::new(),
    };
    let mut groups = Groups::new(&aggregation.grouping, aggregation.without);
    let mut cells = Cells::new(aggregation.op);
    let mut histograms = HistogramFold::new(aggregation.op, run.memory("an aggregation"));
    let mut memory = run.memory("an aggregation");
    let mut names = DroppedNames::default();
    for_each_tile(run, &aggregation.input, |tile| {
        cells.make_room(&mut memory, tile)?;
        for row in tile.rows() {
            let (group, new) = groups.find(row.labels);
            if new {
                memory.grow_to(cells.bytes_for((group + 1) * steps))?;
                cells.grow((group + 1) * steps);
            }
            cells.add(group, steps, row);
            names.add(group, row);
            if !row.histograms.is_empty() {
                cells.count_histograms(group, steps, row);
                histograms.add(group, row, |step| cells.has(group, steps, step))?;
            }
        }
        Ok(())
    })?;
    if aggregation.op == AggregateOp::Quantile {
        remark_quantiles(run, node, aggregation, &quantiles);
    }
    let mut result = cells.finish(run, groups.labels(), steps, &quantiles);
    histograms.finish(&mut result);
    names.finish(&mut result);
    for (is_warning, text) in histograms.into_remarks() {
        match is_warning {
            true => run.remarks().warn(node.rank, aggregation.input_at, text),
            false => run.remarks().info(node.rank, aggregation.input_at, text),
        }
    }
    result.retain_present();
    memory.shrink_to(result.bytes());
    result.keep(memory);
    run.release_to(held, result.count())?;
    Ok(result)
}

/// The quantiles of each group's rows. Several threads share the steps, 64 at a time.
fn quantile_rows(run: &Run<'_>, rows: &[Tile], labels: &[Labels], quantiles: &[f64]) -> Tile {
    let words = quantiles.len().div_ceil(64);
    let cost = |i: usize| rows[i / words].len() * 64 * COST_PER_ELEMENT;
    let found = scatter(run, rows.len() * words, cost, |i| {
        let (rows, from) = (&rows[i / words], i % words * 64);
        let mut values = Vec::with_capacity(rows.len());
        let mut found = Vec::new();
        for (step, q) in quantiles.iter().enumerate().skip(from).take(64) {
            values.clear();
            let present = rows.rows().filter(|row| row.has(step));
            values.extend(present.map(|row| row.values[step]));
            if !values.is_empty() {
                found.push((step, quantile(*q, &mut values)));
            }
        }
        found
    });
    let mut result = Tile::new(quantiles.len());
    for (group, labels) in labels.iter().enumerate() {
        let mut row = result.push(labels.clone());
        for (step, value) in found[group * words..(group + 1) * words].iter().flatten() {
            row.set(*step, *value);
        }
    }
    result
}

/// For each group the steps at which a row was added whose name goes when the query is done. The
/// last step of a group decides for its name.
#[derive(Default)]
struct DroppedNames(HashMap<usize, Vec<u64>>);

impl DroppedNames {
    fn add(&mut self, group: usize, row: RowRef<'_>) {
        if !row.drops_name {
            return;
        }
        let present = row.any_present();
        let steps = self.0.entry(group).or_default();
        steps.resize(present.len(), 0);
        steps
            .iter_mut()
            .zip(&*present)
            .for_each(|(steps, bits)| *steps |= bits);
    }

    fn finish(self, result: &mut Tile) {
        for (group, steps) in self.0 {
            let last = last_set(&result.row(group).any_present());
            let drops = last.is_some_and(|step| is_set(&steps, step));
            result.set_drops_name(group, drops);
        }
    }
}

/// Prometheus tells the worst of the values that are no quantiles.
fn remark_quantiles(run: &Run<'_>, node: &Node, aggregation: &Aggregation, quantiles: &[f64]) {
    let remark = |q: f64| {
        let text = format!("quantile value should be between 0 and 1, got {}", go_g(q));
        run.remarks().warn(node.rank, aggregation.param_at, text);
    };
    let extremes = super::pick::Extremes::of(quantiles);
    if extremes.any_nan {
        remark(f64::NAN);
    }
    if extremes.max > 1.0 {
        remark(extremes.max);
    }
    if extremes.min < 0.0 {
        remark(extremes.min);
    }
}

/// An accumulator for each group and step, group after group.
enum Cells {
    Sum {
        sums: Vec<f64>,
        compensations: Vec<f64>,
        seen: Vec<u64>,
    },
    Mean(Vec<KahanMean>),
    /// `count`, and `group` with it.
    Count {
        counts: Vec<f64>,
        group: bool,
    },
    Extreme {
        values: Vec<f64>,
        seen: Vec<u64>,
        max: bool,
    },
    Variance {
        cells: Vec<Option<Variance>>,
        root: bool,
    },
    /// The rows of each group, and the bytes of all.
    Quantile {
        rows: Vec<Tile>,
        bytes: usize,
    },
}

impl Cells {
    fn new(op: AggregateOp) -> Self {
        match op {
            AggregateOp::Avg => Cells::Mean(Vec::new()),
            AggregateOp::Count => Cells::Count {
                counts: Vec::new(),
                group: false,
            },
            AggregateOp::Group => Cells::Count {
                counts: Vec::new(),
                group: true,
            },
            AggregateOp::Min | AggregateOp::Max => Cells::Extreme {
                values: Vec::new(),
                seen: Vec::new(),
                max: op == AggregateOp::Max,
            },
            AggregateOp::Stddev | AggregateOp::Stdvar => Cells::Variance {
                cells: Vec::new(),
                root: op == AggregateOp::Stddev,
            },
            AggregateOp::Quantile => Cells::Quantile {
                rows: Vec::new(),
                bytes: 0,
            },
            _ => Cells::Sum {
                sums: Vec::new(),
                compensations: Vec::new(),
                seen: Vec::new(),
            },
        }
    }

    /// The bytes that so many cells take, rows that are kept not counted.
    fn bytes_for(&self, cells: usize) -> usize {
        match self {
            Cells::Sum { sums, .. } => 17 * grown(sums.capacity(), cells),
            Cells::Mean(means) => size_of::<KahanMean>() * grown(means.capacity(), cells),
            Cells::Count { counts, .. } => 8 * grown(counts.capacity(), cells),
            Cells::Extreme { values, .. } => 9 * grown(values.capacity(), cells),
            Cells::Variance { cells: has, .. } => {
                size_of::<Option<Variance>>() * grown(has.capacity(), cells)
            }
            Cells::Quantile { .. } => 0,
        }
    }

    /// Reserves what is kept of the rows of a tile.
    fn make_room(&mut self, memory: &mut Reservation, added: &Tile) -> Result<(), EvalError> {
        if let Cells::Quantile { bytes, .. } = self {
            // Vectors that grow may have twice what they need.
            *bytes += 2 * 9 * added.len() * added.steps();
            memory.grow_to(*bytes)?;
        }
        Ok(())
    }

    /// Makes room for that many cells; one more group is among them.
    fn grow(&mut self, cells: usize) {
        match self {
            Cells::Sum {
                sums,
                compensations,
                seen,
            } => {
                // Of all zeros, only -0 keeps the sign of a first -0.
                let group = cells - sums.len();
                sums.resize(cells, -0.0);
                compensations.resize(cells, 0.0);
                seen.resize(seen.len() + group.div_ceil(64), 0);
            }
            Cells::Mean(means) => means.resize(cells, KahanMean::default()),
            Cells::Count { counts, .. } => counts.resize(cells, 0.0),
            Cells::Extreme { values, seen, .. } => {
                let group = cells - values.len();
                values.resize(cells, f64::NAN);
                seen.resize(seen.len() + group.div_ceil(64), 0);
            }
            Cells::Variance {
                cells: variances, ..
            } => variances.resize(cells, None),
            Cells::Quantile { rows, .. } => rows.push(Tile::default()),
        }
    }

    fn add(&mut self, group: usize, steps: usize, row: RowRef<'_>) {
        let from = group * steps;
        let words = steps.div_ceil(64);
        let mark = |seen: &mut [u64]| {
            let seen = &mut seen[group * words..(group + 1) * words];
            seen.iter_mut()
                .zip(row.present)
                .for_each(|(seen, bits)| *seen |= bits);
        };
        match self {
            Cells::Sum {
                sums,
                compensations,
                seen,
            } => {
                mark(seen);
                let sums = &mut sums[from..from + steps];
                let compensations = &mut compensations[from..from + steps];
                for_each_run(row.present, steps, |run| {
                    let cells = sums[run.clone()]
                        .iter_mut()
                        .zip(&mut compensations[run.clone()]);
                    for ((sum, c), value) in cells.zip(&row.values[run]) {
                        (*sum, *c) = kahan_inc(*value, *sum, *c);
                    }
                });
            }
            Cells::Mean(means) => {
                let means = &mut means[from..from + steps];
                for_each(row.present, |step| means[step].add(row.values[step]));
            }
            Cells::Count { counts, .. } => {
                let counts = &mut counts[from..from + steps];
                for_each_run(row.present, steps, |run| {
                    counts[run].iter_mut().for_each(|count| *count += 1.0);
                });
            }
            Cells::Extreme { values, seen, max } => {
                mark(seen);
                let values = &mut values[from..from + steps];
                for_each_run(row.present, steps, |run| {
                    for (cell, value) in values[run.clone()].iter_mut().zip(&row.values[run]) {
                        let better = if *max { *cell < *value } else { *cell > *value };
                        if better || cell.is_nan() {
                            *cell = *value;
                        }
                    }
                });
            }
            Cells::Variance { cells, .. } => {
                let cells = &mut cells[from..from + steps];
                for_each(row.present, |step| {
                    cells[step].get_or_insert_default().add(row.values[step]);
                });
            }
            Cells::Quantile { rows, .. } => {
                let rows = &mut rows[group];
                if rows.is_empty() {
                    rows.reset(steps);
                }
                rows.push_row(Labels::empty(), row.values, row.present);
            }
        }
    }

    /// `count` and `group` do not look at what they count.
    fn count_histograms(&mut self, group: usize, steps: usize, row: RowRef<'_>) {
        if let Cells::Count { counts, .. } = self {
            for (step, _) in row.histograms {
                counts[group * steps + step] += 1.0;
            }
        }
    }

    /// Whether a value was added there, for those that may give histograms.
    fn has(&self, group: usize, steps: usize, step: usize) -> bool {
        match self {
            Cells::Sum { seen, .. } => {
                let words = steps.div_ceil(64);
                is_set(&seen[group * words..(group + 1) * words], step)
            }
            Cells::Mean(means) => means[group * steps + step].count() > 0.0,
            _ => false,
        }
    }

    fn finish(self, run: &Run<'_>, labels: &[Labels], steps: usize, quantiles: &[f64]) -> Tile {
        match self {
            Cells::Sum {
                mut sums,
                compensations,
                seen,
            } => {
                sums.iter_mut()
                    .zip(&compensations)
                    .for_each(|(sum, c)| *sum += c);
                Tile::of_rows(steps, labels.to_vec(), sums, seen)
            }
            Cells::Extreme { values, seen, .. } => {
                Tile::of_rows(steps, labels.to_vec(), values, seen)
            }
            Cells::Quantile { rows, .. } => quantile_rows(run, &rows, labels, quantiles),
            cells => cells.rows(labels, steps),
        }
    }

    /// The rows of those whose cells are not laid out as rows.
    fn rows(self, labels: &[Labels], steps: usize) -> Tile {
        let mut result = Tile::new(steps);
        for (group, labels) in labels.iter().enumerate() {
            let from = group * steps;
            let mut row = result.push(labels.clone());
            match &self {
                // Their cells are rows as they stand.
                Cells::Sum { .. } | Cells::Extreme { .. } => {}
                Cells::Mean(means) => {
                    for (step, mean) in means[from..from + steps].iter().enumerate() {
                        if mean.count() > 0.0 {
                            row.set(step, mean.value());
                        }
                    }
                }
                Cells::Count { counts, group } => {
                    for (step, count) in counts[from..from + steps].iter().enumerate() {
                        if *count > 0.0 {
                            row.set(step, if *group { 1.0 } else { *count });
                        }
                    }
                }
                Cells::Variance { cells, root } => {
                    for (step, cell) in cells[from..from + steps].iter().enumerate() {
                        if let Some(variance) = cell {
                            let value = variance.value();
                            row.set(step, if *root { value.sqrt() } else { value });
                        }
                    }
                }
                // These are found by `quantile_rows`.
                Cells::Quantile { .. } => {}
            }
        }
        result
    }
}
