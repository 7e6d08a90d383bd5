//! Which parts of an expression give the same at every step.

use crate::parse::ast::Expr;

/// Functions whose value depends on the step even when their arguments do not.
const STEP_DEPENDENT: [&str; 15] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
];

/// Whether an expression is the same at every step, and whether it pays to evaluate it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invariance {
    /// The value does not depend on the step.
    pub(super) fixed: bool,
    /// It is neither a literal nor a range selector, which are cheap or evaluated by their call.
    pub(super) hold: bool,
}

impl Invariance {
    fn both(fixed: bool) -> Self {
        Invariance { fixed, hold: fixed }
    }
}

/// Says it of `expr`.
pub(super) fn invariance(expr: &Expr) -> Invariance {
    match expr {
        Expr::VectorSelector(selector) => Invariance::both(selector.at.is_some()),
        Expr::Aggregate(aggregate) => invariance(&aggregate.expr),
        Expr::Binary(binary) => {
            Invariance::both(invariance(&binary.lhs).fixed && invariance(&binary.rhs).fixed)
        }
        Expr::Call(call) => match call.func.name {
            // The planner turns these into numbers.
            "start" | "end" | "range" | "step" => Invariance {
                fixed: true,
                hold: false,
            },
            name => {
                let all_fixed = call.args.iter().all(|arg| invariance(arg).fixed);
                let of_selector = name == "timestamp"
                    && call
                        .args
                        .iter()
                        .all(|arg| matches!(strip(arg), Expr::VectorSelector(_)));
                Invariance::both(all_fixed && (of_selector || !STEP_DEPENDENT.contains(&name)))
            }
        },
        Expr::MatrixSelector(matrix) => Invariance {
            fixed: matrix.selector.at.is_some(),
            hold: false,
        },
        Expr::Subquery(subquery) => Invariance {
            fixed: subquery.at.is_some(),
            hold: false,
        },
        Expr::Paren(paren) => invariance(&paren.expr),
        Expr::Unary(unary) => invariance(&unary.expr),
        Expr::Number(_) | Expr::String(_) => Invariance {
            fixed: true,
            hold: false,
        },
    }
}

/// `expr` without the parentheses around it.
pub(super) fn strip(mut expr: &Expr) -> &Expr {
    while let Expr::Paren(paren) = expr {
        expr = &paren.expr;
    }
    expr
}
