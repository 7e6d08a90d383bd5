//! Functions of one number, value by value.

use super::merge::Merge;
use super::names::{NameDrop, without_metadata};
use super::run::Run;
use super::tile::Tile;
use super::{EvalError, Operator, Ready, scalar};
use crate::functions::scalar::{ScalarFn, clamp, clamp_is_empty, round_to};
use crate::plan::node::{Map, MapFn, Names, Node};

/// The rows of a function of one number.
pub(super) struct MapRows<'r> {
    input: Box<dyn Operator + 'r>,
    change: Change,
    names: NameDrop,
}

/// What is done to each value.
enum Change {
    Negate,
    Plain(ScalarFn),
    Round(Vec<f64>),
    Clamp(Vec<f64>, Vec<f64>),
    StepTimes(Vec<f64>),
}

impl<'r> MapRows<'r> {
    pub(super) fn new(run: &'r Run<'r>, node: &'r Node, map: &'r Map) -> Result<Self, EvalError> {
        let grid = node.grid;
        let change = match &map.func {
            MapFn::Plain(func) => Change::Plain(*func),
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
        Ok(MapRows {
            input: nameless(run, &map.input)?,
            change,
            names: NameDrop::default(),
        })
    }

    pub(super) fn negate(
        run: &'r Run<'r>,
        _node: &'r Node,
        input: &'r Node,
    ) -> Result<Self, EvalError> {
        let input = nameless(run, input)?;
        Ok(MapRows {
            input,
            change: Change::Negate,
            names: NameDrop::default(),
        })
    }
}

/// The rows of `node` for an operator that drops their names. Where names differ, rows that
/// become the same are merged here; elsewhere the caller drops the names on the way.
pub(super) fn nameless<'r>(
    run: &'r Run<'r>,
    node: &'r Node,
) -> Result<Box<dyn Operator + 'r>, EvalError> {
    let operator = super::build(run, node)?;
    if node.names != Names::Any {
        return Ok(operator);
    }
    Ok(Box::new(MergeNameless {
        input: Some(operator),
        merged: Ready::new(Tile::default()),
    }))
}

struct MergeNameless<'r> {
    input: Option<Box<dyn Operator + 'r>>,
    merged: Ready,
}

impl Operator for MergeNameless<'_> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        if let Some(mut input) = self.input.take() {
            let mut merge: Option<Merge> = None;
            while input.next_tile(tile)? {
                let merge = merge.get_or_insert_with(|| Merge::new(tile.steps()));
                for row in tile.rows() {
                    merge.add(&without_metadata(row.labels), row.values, row.present)?;
                }
            }
            let merged = merge.map_or_else(|| Tile::new(tile.steps()), Merge::finish);
            self.merged = Ready::new(merged);
        }
        self.merged.next_tile(tile)
    }
}

impl Operator for MapRows<'_> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        loop {
            if !self.input.next_tile(tile)? {
                return Ok(false);
            }
            self.change.apply(tile);
            for i in 0..tile.len() {
                let (labels, _) = tile.row_mut(i);
                *labels = self.names.drop_name(labels)?;
            }
            if !tile.is_empty() {
                return Ok(true);
            }
        }
    }
}

impl Change {
    fn apply(&self, tile: &mut Tile) {
        let steps = tile.steps().max(1);
        match self {
            Change::Negate => tile
                .values_mut()
                .iter_mut()
                .for_each(|value| *value = -*value),
            Change::Plain(func) => func.eval_all(tile.values_mut()),
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
