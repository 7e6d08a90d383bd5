//! Duration expressions: `[5m * 2]`, `offset step()`. Their numbers are seconds.

use isobar_model::go_math;

use super::{PlanError, PlanParams};
use crate::parse::ast::{Duration, DurationExpr, DurationOp, Expr, Offset, Span, VectorSelector};

/// The range of seconds that fits Prometheus' nanosecond durations, 2^63 / 1e9.
const SECONDS_MAX: f64 = 9_223_372_036.854_775;

/// The value of `expr` in milliseconds, cut towards zero.
///
/// # Errors
/// Prometheus' texts for values that are no duration.
pub(super) fn duration_ms(
    expr: &DurationExpr,
    params: &PlanParams<'_>,
    may_be_negative: bool,
) -> Result<i64, PlanError> {
    let seconds = evaluate(expr, params)?;
    let refuse = |why: &str| {
        let Span { start, end } = span(expr);
        Err(PlanError::Invalid(format!("{start}:{end}: {why}")))
    };
    if seconds.is_nan() || seconds.is_infinite() {
        return refuse("duration is NaN or infinite");
    }
    if seconds <= 0.0 && !may_be_negative {
        return refuse("duration must be greater than 0");
    }
    if seconds.abs() > SECONDS_MAX {
        return refuse("duration is out of range");
    }
    Ok((seconds * 1000.0) as i64)
}

/// Evaluates all durations of a query, so that those are refused, too, which are never needed:
/// of a subquery without a step, say.
///
/// # Errors
/// For the first of them that is no duration, seen from the outside inwards.
pub(super) fn check(expr: &Expr, params: &PlanParams<'_>) -> Result<(), PlanError> {
    let offset = |offset: &Offset| match &offset.expr {
        Some(expr) => duration_ms(expr, params, true).map(drop),
        None => Ok(()),
    };
    let range = |duration: &Duration| match &duration.expr {
        Some(expr) => duration_ms(expr, params, false).map(drop),
        None => Ok(()),
    };
    let selector = |selector: &VectorSelector| offset(&selector.offset);
    match expr {
        Expr::Aggregate(e) => {
            check(&e.expr, params)?;
            e.param
                .as_ref()
                .map_or(Ok(()), |param| check(param, params))
        }
        Expr::Binary(e) => {
            check(&e.lhs, params)?;
            check(&e.rhs, params)
        }
        Expr::Call(e) => e.args.iter().try_for_each(|arg| check(arg, params)),
        Expr::MatrixSelector(e) => {
            range(&e.range)?;
            selector(&e.selector)
        }
        Expr::Number(_) | Expr::String(_) => Ok(()),
        Expr::Paren(e) => check(&e.expr, params),
        Expr::Subquery(e) => {
            offset(&e.offset)?;
            e.step.as_ref().map_or(Ok(()), range)?;
            range(&e.range)?;
            check(&e.expr, params)
        }
        Expr::Unary(e) => check(&e.expr, params),
        Expr::VectorSelector(e) => selector(e),
    }
}

fn span(expr: &DurationExpr) -> Span {
    match expr {
        DurationExpr::Number(number) => number.span,
        DurationExpr::Op { span, .. } => *span,
    }
}

fn evaluate(expr: &DurationExpr, params: &PlanParams<'_>) -> Result<f64, PlanError> {
    let (op, lhs, rhs) = match expr {
        DurationExpr::Number(number) => return Ok(number.value),
        DurationExpr::Op { op, lhs, rhs, .. } => (*op, lhs, rhs),
    };
    let left = lhs.as_deref().map(|e| evaluate(e, params)).transpose()?;
    let right = rhs.as_deref().map_or(Ok(0.0), |e| evaluate(e, params))?;
    let by_zero = |what: &str| {
        let Span { start, end } = span(expr);
        PlanError::Invalid(format!("{start}:{end}: {what} by zero"))
    };
    let value = left.unwrap_or(0.0);
    Ok(match op {
        DurationOp::Step => params.step_ms as f64 / 1000.0,
        DurationOp::Range => (params.end_ms - params.start_ms) as f64 / 1000.0,
        DurationOp::MinOf => value.min(right),
        DurationOp::MaxOf => value.max(right),
        DurationOp::Add if left.is_none() => right,
        DurationOp::Sub if left.is_none() => -right,
        DurationOp::Add => value + right,
        DurationOp::Sub => value - right,
        DurationOp::Mul => value * right,
        DurationOp::Div if right == 0.0 => return Err(by_zero("division")),
        DurationOp::Div => value / right,
        DurationOp::Mod if right == 0.0 => return Err(by_zero("modulo")),
        DurationOp::Mod => value % right,
        DurationOp::Pow => go_math::pow(value, right),
    })
}
