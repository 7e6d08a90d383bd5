//! Binary operators where one side at least is a native histogram.

use std::sync::Arc;

use isobar_model::FloatHistogram;
use isobar_model::histogram::CounterReset;

use super::histogram_windows::{collision, reconciled};
use super::tile::RowRef;
use crate::parse::ast::BinaryOp;

/// One side of an operator.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operand<'a> {
    Float(f64),
    Histogram(&'a Arc<FloatHistogram>),
}

impl<'a> Operand<'a> {
    /// What a row has at a step at which it has something.
    pub(super) fn of(row: &RowRef<'a>, step: usize) -> Self {
        let at = row.histograms.binary_search_by_key(&step, |it| it.0);
        match at.ok().and_then(|at| row.histograms.get(at)) {
            Some((_, histogram)) => Operand::Histogram(histogram),
            None => Operand::Float(row.values[step]),
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Operand::Float(_) => "float",
            Operand::Histogram(_) => "histogram",
        }
    }
}

/// What an operator gives.
pub(super) struct Combined {
    /// `None` when there is no result and the sides count as not matched.
    pub(super) result: Option<Arc<FloatHistogram>>,
    /// Whether a comparison holds.
    pub(super) holds: bool,
    /// A remark, and whether it is a warning.
    pub(super) remark: Option<(bool, String)>,
}

/// `left op right`.
pub(super) fn combine(op: BinaryOp, left: Operand<'_>, right: Operand<'_>) -> Combined {
    let holds = |result: Arc<FloatHistogram>, holds: bool| Combined {
        result: Some(result),
        holds,
        remark: None,
    };
    let scaled = |histogram: &FloatHistogram, change: &dyn Fn(&mut FloatHistogram)| {
        let mut result = histogram.clone();
        change(&mut result);
        holds(Arc::new(result), true)
    };
    match (left, right, op) {
        (Operand::Histogram(histogram), Operand::Float(factor), BinaryOp::Mul)
        | (Operand::Float(factor), Operand::Histogram(histogram), BinaryOp::Mul) => {
            scaled(histogram, &|it| {
                it.mul(factor);
                it.compact();
            })
        }
        (Operand::Histogram(histogram), Operand::Float(divisor), BinaryOp::Div) => {
            scaled(histogram, &|it| {
                it.div(divisor);
                it.compact();
            })
        }
        (Operand::Histogram(histogram), Operand::Float(at), BinaryOp::TrimUpper) => {
            scaled(histogram, &|it| it.trim(at, true))
        }
        (Operand::Histogram(histogram), Operand::Float(at), BinaryOp::TrimLower) => {
            scaled(histogram, &|it| it.trim(at, false))
        }
        (Operand::Histogram(left), Operand::Histogram(right), BinaryOp::Add | BinaryOp::Sub) => {
            add(op, left, right)
        }
        (Operand::Histogram(left), Operand::Histogram(right), BinaryOp::Eq) => {
            holds(Arc::clone(left), left == right)
        }
        (Operand::Histogram(left), Operand::Histogram(right), BinaryOp::Ne) => {
            holds(Arc::clone(left), left != right)
        }
        _ => nothing(incompatible(op, left, right)),
    }
}

fn nothing(remark: (bool, String)) -> Combined {
    Combined {
        result: None,
        holds: false,
        remark: Some(remark),
    }
}

/// The info about sides that do not go together.
pub(super) fn incompatible(op: BinaryOp, left: Operand<'_>, right: Operand<'_>) -> (bool, String) {
    let (left, op, right) = (left.kind(), op.as_str(), right.kind());
    let text = format!(
        "incompatible sample types encountered for binary operator \"{op}\": {left} {op} {right}"
    );
    (false, text)
}

fn add(op: BinaryOp, left: &FloatHistogram, right: &FloatHistogram) -> Combined {
    let mut result = left.clone();
    let (added, operation) = match op {
        BinaryOp::Sub => (result.sub(right), "subtraction"),
        _ => (result.add(right), "addition"),
    };
    let Ok(added) = added else {
        let text = format!(
            "incompatible bucket layout encountered for binary operator {}",
            op.as_str()
        );
        return nothing((true, text));
    };
    if added.reset_collision {
        return nothing((true, collision(operation)));
    }
    if op == BinaryOp::Sub {
        result.hint = CounterReset::Gauge;
    }
    result.compact();
    Combined {
        result: Some(Arc::new(result)),
        holds: true,
        remark: added.bounds_reconciled.then(|| reconciled(operation)),
    }
}
