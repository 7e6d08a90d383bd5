//! Binary operations between a vector and a number.

use super::arithmetic::{NumberOp, number_op};
use super::map::merge_nameless;
use super::names::NameDrop;
use super::run::Run;
use super::tile::Tile;
use super::{EvalError, Operator, scalar};
use crate::plan::node::{Node, WithScalar};

/// The rows of such an operation.
pub(super) struct ScalarRows<'r> {
    input: Box<dyn Operator + 'r>,
    op: NumberOp,
    return_bool: bool,
    scalar_left: bool,
    scalars: Vec<f64>,
    /// Set when names are dropped here.
    names: Option<NameDrop>,
}

/// The operator of such an operation.
pub(super) fn build<'r>(
    run: &'r Run<'r>,
    node: &'r Node,
    with: &'r WithScalar,
) -> Result<Box<dyn Operator + 'r>, EvalError> {
    let Some(op) = number_op(with.op) else {
        return Err(EvalError::Execution(
            "set operator not allowed in binary scalar expression".to_owned(),
        ));
    };
    let drops = with.return_bool || matches!(op, NumberOp::Arithmetic(_));
    let names = if drops {
        NameDrop::of(&with.input)
    } else {
        None
    };
    let merges = drops && names.is_none();
    let rows = Box::new(ScalarRows {
        input: super::build(run, &with.input)?,
        op,
        return_bool: with.return_bool,
        scalar_left: with.scalar_left,
        scalars: scalar::evaluate(run, &with.scalar, node.grid)?,
        names,
    });
    Ok(if merges { merge_nameless(rows) } else { rows })
}

impl ScalarRows<'_> {
    fn apply(&self, tile: &mut Tile) {
        for i in 0..tile.len() {
            let (_, row) = tile.row_mut(i);
            let pairs = row.values.iter_mut().zip(&self.scalars);
            match self.op {
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

impl Operator for ScalarRows<'_> {
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
}
