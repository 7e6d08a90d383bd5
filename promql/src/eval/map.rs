//! Functions of one number, value by value.

use std::sync::Arc;

use super::merge::Merge;
use super::names::{NameDrop, Removal};
use super::run::{Feed, Run};
use super::tile::Tile;
use super::{EvalError, Operator, Ready, scalar};
use crate::functions::histogram::HistogramFn;
use crate::functions::scalar::{ScalarFn, clamp, clamp_is_empty, round_to};
use crate::plan::node::{Map, MapFn, Node};

/// The rows of a function of one number.
pub(super) struct MapRows<'r> {
    input: Box<dyn Operator<'r> + 'r>,
    change: Arc<Change>,
    /// `None` when names differ: then rows are merged behind this operator, and the names dropped.
    names: Option<NameDrop>,
}

/// What is done to each value.
enum Change {
    Negate,
    Plain(ScalarFn),
    Histogram(HistogramFn),
    Round(Vec<f64>),
    Clamp(Vec<f64>, Vec<f64>),
    StepTimes(Vec<f64>),
}

/// The operator of a function of one number.
pub(super) fn build<'r>(
    run: &'r Run<'r>,
    node: &'r Node,
    map: &'r Map,
) -> Result<Box<dyn Operator<'r> + 'r>, EvalError> {
    let grid = node.grid;
    let change = match &map.func {
        MapFn::Plain(func) => Change::Plain(*func),
        MapFn::Histogram(func) => Change::Histogram(*func),
        MapFn::Round(nearest) => Change::Round(scalar::evaluate(run, nearest, grid)?),
        MapFn::Clamp(min, max) => {
            let min = scalar::evaluate(run, min, grid)?;
            Change::Clamp(min, scalar::evaluate(run, max, grid)?)
        }
        MapFn::StepTime => {
            let times = (0..grid.count).map(|i| grid.time_ms(i) as f64 / 1000.0);
            Change::StepTimes(times.collect())
        }
    };
    changed(run, node, &map.input, change)
}

/// The operator of unary minus.
pub(super) fn negate<'r>(
    run: &'r Run<'r>,
    node: &'r Node,
    input: &'r Node,
) -> Result<Box<dyn Operator<'r> + 'r>, EvalError> {
    changed(run, node, input, Change::Negate)
}

fn changed<'r>(
    run: &'r Run<'r>,
    node: &'r Node,
    input: &'r Node,
    change: Change,
) -> Result<Box<dyn Operator<'r> + 'r>, EvalError> {
    let removal = match change {
        Change::Histogram(_) => Removal::of_histogram_function(run),
        _ => Removal::of(run),
    };
    let names = NameDrop::of(removal, input);
    let merges = names.is_none();
    let by_series = matches!(change, Change::Negate);
    let rows = Box::new(MapRows {
        input: super::build(run, input)?,
        change: Arc::new(change),
        names,
    });
    Ok(match merges {
        true => Box::new(MergeNameless {
            by_series,
            ..MergeNameless::new(run, node, rows, removal)
        }),
        false => rows,
    })
}

/// Drops the names of all rows. Rows that become the same are merged, so all have to be kept.
pub(super) fn merge_nameless<'r>(
    run: &'r Run<'r>,
    node: &'r Node,
    input: Box<dyn Operator<'r> + 'r>,
    removal: Removal,
) -> Box<dyn Operator<'r> + 'r> {
    Box::new(MergeNameless::new(run, node, input, removal))
}

struct MergeNameless<'r> {
    run: &'r Run<'r>,
    node: &'r Node,
    input: Option<Box<dyn Operator<'r> + 'r>>,
    removal: Removal,
    /// See [`Merge::by_series`].
    by_series: bool,
    merged: Ready,
}

impl<'r> MergeNameless<'r> {
    fn new(
        run: &'r Run<'r>,
        node: &'r Node,
        input: Box<dyn Operator<'r> + 'r>,
        removal: Removal,
    ) -> Self {
        MergeNameless {
            run,
            node,
            input: Some(input),
            removal,
            by_series: false,
            merged: Tile::default().into(),
        }
    }
}

impl<'r> Operator<'r> for MergeNameless<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        if let Some(mut input) = self.input.take() {
            let mut merge: Option<Merge> = None;
            while input.next_tile(tile)? {
                let merge = merge.get_or_insert_with(|| {
                    let memory = self.run.memory("rows that lose their names");
                    match self.by_series {
                        true => Merge::by_series(tile.steps(), memory),
                        false => Merge::new(tile.steps(), memory),
                    }
                });
                merge.make_room(tile)?;
                for row in tile.rows() {
                    merge.add(&self.removal.apply(row.labels), row)?;
                }
            }
            let merged = merge.map(|it| it.finish_for(self.run, self.node));
            self.merged = merged.map_or_else(|| Tile::new(tile.steps()).into(), Ready::from);
        }
        self.merged.next_tile(tile)
    }
}

impl<'r> Operator<'r> for MapRows<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        loop {
            if !self.input.next_tile(tile)? {
                return Ok(false);
            }
            self.change.apply_to_histograms(tile);
            self.change.apply(tile);
            if let Some(names) = &mut self.names {
                names.drop_all(tile)?;
            }
            if !tile.is_empty() {
                return Ok(true);
            }
        }
    }

    fn feed(&mut self) -> Option<&mut Feed<'r>> {
        self.input.feed()
    }

    fn fork(&self) -> Option<Box<dyn Operator<'r> + 'r>> {
        Some(Box::new(MapRows {
            input: self.input.fork()?,
            change: Arc::clone(&self.change),
            names: self.names.clone(),
        }))
    }
}

impl Change {
    /// Most functions give nothing for a histogram.
    fn apply_to_histograms(&self, tile: &mut Tile) {
        match self {
            Change::Histogram(func) => {
                for i in 0..tile.len() {
                    let histograms = std::mem::take(tile.histograms_mut(i));
                    let (_, mut row) = tile.row_mut(i);
                    row.present.fill(0);
                    for (step, histogram) in histograms {
                        row.set(step, func.eval(&histogram));
                    }
                }
                tile.retain_present();
            }
            _ if !tile.has_histograms() => {}
            Change::Negate => {
                for i in 0..tile.len() {
                    for (_, histogram) in tile.histograms_mut(i) {
                        Arc::make_mut(histogram).mul(-1.0);
                    }
                }
            }
            Change::StepTimes(times) => {
                for i in 0..tile.len() {
                    let histograms = std::mem::take(tile.histograms_mut(i));
                    let (_, mut row) = tile.row_mut(i);
                    for (step, _) in histograms {
                        row.set(step, times[step]);
                    }
                }
            }
            _ => tile.drop_histograms(),
        }
    }

    fn apply(&self, tile: &mut Tile) {
        let steps = tile.steps().max(1);
        match self {
            Change::Negate => tile
                .values_mut()
                .iter_mut()
                .for_each(|value| *value = -*value),
            Change::Plain(func) => func.eval_all(tile.values_mut()),
            Change::Histogram(_) => {}
            Change::Round(nearest) => {
                for row in tile.values_mut().chunks_exact_mut(steps) {
                    row.iter_mut()
                        .zip(nearest)
                        .for_each(|(value, n)| *value = round_to(*value, *n));
                }
            }
            Change::StepTimes(times) => {
                tile.values_mut()
                    .chunks_exact_mut(steps)
                    .for_each(|row| row.copy_from_slice(times));
            }
            Change::Clamp(min, max) => {
                for i in 0..tile.len() {
                    let (_, row) = tile.row_mut(i);
                    for step in 0..steps {
                        let (min, max) = (min[step], max[step]);
                        row.values[step] = clamp(row.values[step], min, max);
                        if clamp_is_empty(min, max) {
                            row.present[step / 64] &= !(1 << (step % 64));
                        }
                    }
                }
                tile.retain_present();
            }
        }
    }
}
