//! Binary operations between a vector and a number.

use std::sync::Arc;

use super::arithmetic::{NumberOp, number_op};
use super::histogram_ops::{Operand, combine, incompatible};
use super::map::merge_nameless;
use super::names::{NameDrop, Removal};
use super::run::{Feed, Run};
use super::tile::Tile;
use super::{EvalError, Operator, scalar};
use crate::parse::ast::BinaryOp;
use crate::plan::node::{Node, WithScalar};

/// The rows of such an operation.
pub(super) struct ScalarRows<'r> {
    input: Box<dyn Operator<'r> + 'r>,
    run: &'r Run<'r>,
    rank: u32,
    with: &'r WithScalar,
    /// `None` for operators on histograms alone.
    op: Option<NumberOp>,
    return_bool: bool,
    scalar_left: bool,
    scalars: Arc<Vec<f64>>,
    /// Set when names are dropped here.
    names: Option<NameDrop>,
}

/// The operator of such an operation.
pub(super) fn build<'r>(
    run: &'r Run<'r>,
    node: &'r Node,
    with: &'r WithScalar,
) -> Result<Box<dyn Operator<'r> + 'r>, EvalError> {
    let op = number_op(with.op);
    let trims = matches!(with.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
    if op.is_none() && !trims {
        return Err(EvalError::Execution(
            "set operator not allowed in binary scalar expression".to_owned(),
        ));
    }
    let drops = with.return_bool || matches!(op, Some(NumberOp::Arithmetic(_)));
    let removal = Removal::of(run);
    let names = match drops {
        true => NameDrop::of(removal, &with.input),
        false => None,
    };
    let merges = drops && names.is_none();
    let rows = Box::new(ScalarRows {
        input: super::build(run, &with.input)?,
        run,
        rank: node.rank,
        with,
        op,
        return_bool: with.return_bool,
        scalar_left: with.scalar_left,
        scalars: Arc::new(scalar::evaluate(run, &with.scalar, node.grid)?),
        names,
    });
    Ok(match merges {
        true => merge_nameless(run, node, rows, removal),
        false => rows,
    })
}

impl ScalarRows<'_> {
    fn apply_to_histograms(&self, tile: &mut Tile) {
        for i in 0..tile.len() {
            let histograms = std::mem::take(tile.histograms_mut(i));
            for (step, histogram) in histograms {
                let vector = Operand::Histogram(&histogram);
                let scalar = Operand::Float(self.scalars[step]);
                let combined = match self.scalar_left {
                    true => combine(self.with.op, scalar, vector),
                    false => combine(self.with.op, vector, scalar),
                };
                if let Some(remark) = combined.remark {
                    self.remark(remark);
                }
                if let Some(result) = combined.result {
                    tile.histograms_mut(i).push((step, result));
                }
            }
        }
    }

    fn remark(&self, (is_warning, text): (bool, String)) {
        match is_warning {
            true => self.run.remarks().warn(self.rank, self.with.at, text),
            false => self.run.remarks().info(self.rank, self.with.at, text),
        }
    }

    fn apply(&self, tile: &mut Tile) {
        if tile.has_histograms() {
            self.apply_to_histograms(tile);
        }
        let Some(op) = self.op else {
            let float = Operand::Float(0.0);
            for i in 0..tile.len() {
                let (_, row) = tile.row_mut(i);
                if row.present.iter().any(|word| *word != 0) {
                    row.present.fill(0);
                    self.remark(incompatible(self.with.op, float, float));
                }
            }
            return;
        };
        for i in 0..tile.len() {
            let (_, row) = tile.row_mut(i);
            let pairs = row.values.iter_mut().zip(self.scalars.iter());
            match op {
                NumberOp::Arithmetic(op) if self.scalar_left => {
                    pairs.for_each(|(value, scalar)| *value = op.apply(*scalar, *value));
                }
                NumberOp::Arithmetic(op) => {
                    pairs.for_each(|(value, scalar)| *value = op.apply(*value, *scalar));
                }
                NumberOp::Compare(op) => {
                    for (step, (value, scalar)) in pairs.enumerate() {
                        let holds = if self.scalar_left {
                            op.apply(*scalar, *value)
                        } else {
                            op.apply(*value, *scalar)
                        };
                        if self.return_bool {
                            *value = f64::from(u8::from(holds));
                        } else if !holds {
                            row.present[step / 64] &= !(1 << (step % 64));
                        }
                    }
                }
            }
        }
    }
}

impl<'r> Operator<'r> for ScalarRows<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        loop {
            if !self.input.next_tile(tile)? {
                return Ok(false);
            }
            self.apply(tile);
            tile.retain_present();
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
        Some(Box::new(ScalarRows {
            input: self.input.fork()?,
            scalars: Arc::clone(&self.scalars),
            names: self.names.clone(),
            ..*self
        }))
    }
}
