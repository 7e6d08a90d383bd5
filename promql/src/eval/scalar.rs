//! Numbers for each step.

use super::arithmetic::scalar_binary;
use super::run::Run;
use super::tile::for_each;
use super::{EvalError, for_each_tile};
use crate::functions::arithmetic::{go_max, go_min};
use crate::plan::node::{Grid, Node, Scalar};

/// The values of `scalar` over the steps of `grid`.
pub(super) fn evaluate(run: &Run<'_>, scalar: &Scalar, grid: Grid) -> Result<Vec<f64>, EvalError> {
    let of = |scalar| evaluate(run, scalar, grid);
    Ok(match scalar {
        Scalar::Const(value) => vec![*value; grid.count],
        Scalar::Time => (0..grid.count)
            .map(|i| grid.time_ms(i) as f64 / 1000.0)
            .collect(),
        Scalar::Date(func) => (0..grid.count)
            .map(|i| func.eval((grid.time_ms(i) / 1000) as f64))
            .collect(),
        Scalar::Of(node) => only_values(run, node)?,
        Scalar::Binary(op, left, right) => {
            combine(of(left)?, &of(right)?, |l, r| scalar_binary(*op, l, r))
        }
        Scalar::Negate(inner) => of(inner)?.into_iter().map(|value| -value).collect(),
        Scalar::MaxOf(left, right) => combine(of(left)?, &of(right)?, go_max),
        Scalar::MinOf(left, right) => combine(of(left)?, &of(right)?, go_min),
        Scalar::Hold(inner) => {
            let first = evaluate(run, inner, grid.first())?;
            vec![first.first().copied().unwrap_or(f64::NAN); grid.count]
        }
    })
}

fn combine(mut left: Vec<f64>, right: &[f64], op: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    left.iter_mut()
        .zip(right)
        .for_each(|(l, r)| *l = op(*l, *r));
    left
}

/// At each step the value of the only series that has one, NaN where none or several have.
fn only_values(run: &Run<'_>, node: &Node) -> Result<Vec<f64>, EvalError> {
    let held = run.held();
    let mut values = vec![f64::NAN; node.grid.count];
    let mut found = vec![0u32; node.grid.count];
    for_each_tile(run, node, |tile| {
        for row in tile.rows() {
            for_each(row.present, |step| {
                found[step] = found[step].saturating_add(1);
                values[step] = if found[step] == 1 {
                    row.values[step]
                } else {
                    f64::NAN
                };
            });
        }
        Ok(())
    })?;
    run.release_to(held, values.len() as u64)?;
    Ok(values)
}
