//! Compares trees without their positions, and knows which of them print back to themselves.

use isobar_promql::parse::ast::{
    At, Duration, DurationExpr, DurationOp, NumberLiteral, Offset, VectorMatching, VectorSelector,
};
use isobar_promql::parse::{Expr, parse_expr};

/// Prints, parses and compares. Trees that Prometheus itself does not print back only have to
/// print.
pub(crate) fn round_trip(expr: &Expr) -> Result<(), String> {
    let printed = expr.to_string();
    if printed.contains('\u{fffd}') || !prints_back(expr) {
        return Ok(());
    }
    let again = parse_expr(&printed).map_err(|e| format!("{printed}: {e}"))?;
    let (tree, again) = (tree(expr), tree(&again));
    if tree == again {
        Ok(())
    } else {
        Err(format!("prints as {printed}: {tree} {again}"))
    }
}

/// The tree in text, without its positions and with the matchers in the order of printing.
fn tree(expr: &Expr) -> String {
    let mut expr = expr.clone();
    sort_matchers(&mut expr);
    let text = format!("{expr:?}");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    loop {
        let next = ["start: ", "end: "].iter().filter_map(|name| {
            let at = rest.find(name)?;
            Some((at, at + name.len()))
        });
        let Some((at, behind)) = next.min() else {
            out.push_str(rest);
            return out;
        };
        out.push_str(&rest[..at]);
        rest = rest[behind..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
}

fn sort_matchers(expr: &mut Expr) {
    match expr {
        Expr::Aggregate(e) => {
            sort_matchers(&mut e.expr);
            e.param.iter_mut().for_each(sort_matchers);
        }
        Expr::Binary(e) => {
            sort_matchers(&mut e.lhs);
            sort_matchers(&mut e.rhs);
        }
        Expr::Call(e) => e.args.iter_mut().for_each(sort_matchers),
        Expr::MatrixSelector(e) => e.selector.matchers.sort_by_cached_key(ToString::to_string),
        Expr::VectorSelector(e) => e.matchers.sort_by_cached_key(ToString::to_string),
        Expr::Subquery(e) => sort_matchers(&mut e.expr),
        Expr::Paren(e) => sort_matchers(&mut e.expr),
        Expr::Unary(e) => sort_matchers(&mut e.expr),
        Expr::Number(_) | Expr::String(_) => {}
    }
}

/// Whether the tree has none of the forms that Prometheus prints as something else: see the
/// cases below.
fn prints_back(expr: &Expr) -> bool {
    match expr {
        Expr::Aggregate(e) => {
            labels_print_back(&e.grouping)
                && prints_back(&e.expr)
                && e.param.as_ref().is_none_or(prints_back)
        }
        Expr::Binary(e) => {
            // `Inf` prints as `+Inf`, whose sign binds weaker than `^`.
            let infinite = matches!(&e.lhs, Expr::Number(n) if n.value.is_infinite());
            let matching = e.matching.as_ref().is_none_or(matching_prints_back);
            !infinite && matching && prints_back(&e.lhs) && prints_back(&e.rhs)
        }
        // `{}` as the second argument of `info` prints as nothing.
        Expr::Call(e) => e
            .args
            .iter()
            .all(|arg| !arg.to_string().is_empty() && prints_back(arg)),
        Expr::MatrixSelector(e) => {
            selector_prints_back(&e.selector) && duration_prints_back(&e.range)
        }
        Expr::VectorSelector(e) => selector_prints_back(e),
        Expr::Subquery(e) => {
            prints_back(&e.expr)
                && duration_prints_back(&e.range)
                && e.step.as_ref().is_none_or(duration_prints_back)
                && offset_prints_back(&e.offset)
                && at_prints_back(e.at)
        }
        Expr::Paren(e) => prints_back(&e.expr),
        Expr::Unary(e) => prints_back(&e.expr),
        Expr::Number(e) => number_prints_back(e),
        Expr::String(_) => true,
    }
}

/// Words that are no label names without quotes, but print without.
fn labels_print_back(labels: &[String]) -> bool {
    let is_word = |label: &String| {
        ["without", "inf", "nan"]
            .iter()
            .any(|word| label.eq_ignore_ascii_case(word))
    };
    !labels.iter().any(is_word)
}

/// `fill_left (0) fill_right (-0)` prints as `fill (0)`.
fn matching_prints_back(e: &VectorMatching) -> bool {
    let fills = [e.fill_left, e.fill_right];
    let negative_zero = |fill: &Option<f64>| fill.is_some_and(|v| v == 0.0 && v.is_sign_negative());
    !fills.iter().any(negative_zero)
        && labels_print_back(&e.labels)
        && labels_print_back(&e.include)
}

fn selector_prints_back(e: &VectorSelector) -> bool {
    offset_prints_back(&e.offset) && at_prints_back(e.at)
}

/// Times are printed as floats of seconds.
fn at_prints_back(at: Option<At>) -> bool {
    !matches!(at, Some(At::Timestamp(ms)) if ms.unsigned_abs() > 1 << 50)
}

/// A second sign in front is folded away, and then the offset ends earlier: `--5m * 2`.
fn offset_prints_back(offset: &Offset) -> bool {
    let Some(expr) = &offset.expr else {
        return millis_print_back(offset.ms);
    };
    if let DurationExpr::Op {
        lhs: Some(first),
        op,
        wrapped: false,
        ..
    } = expr
        && !matches!(op, DurationOp::MinOf | DurationOp::MaxOf)
        && !begins_with_parenthesis(first)
    {
        return false;
    }
    expr_prints_back(expr)
}

fn begins_with_parenthesis(expr: &DurationExpr) -> bool {
    match expr {
        DurationExpr::Op { wrapped: true, .. } => true,
        DurationExpr::Op {
            lhs: Some(first),
            op,
            ..
        } => !matches!(op, DurationOp::MinOf | DurationOp::MaxOf) && begins_with_parenthesis(first),
        _ => false,
    }
}

/// Less than a millisecond prints as `0s`, which is refused.
fn duration_prints_back(duration: &Duration) -> bool {
    match &duration.expr {
        Some(expr) => expr_prints_back(expr),
        None => duration.ms > 0 && millis_print_back(duration.ms),
    }
}

fn expr_prints_back(expr: &DurationExpr) -> bool {
    match expr {
        DurationExpr::Number(number) => number_prints_back(number),
        // A plus in front of an offset stands in the tree but is not printed.
        DurationExpr::Op {
            op: DurationOp::Add,
            lhs: None,
            wrapped: false,
            ..
        } => false,
        DurationExpr::Op { lhs, rhs, .. } => lhs
            .iter()
            .chain(rhs)
            .all(|operand| expr_prints_back(operand)),
    }
}

/// Durations pass through floats of seconds and are cut to milliseconds.
fn millis_print_back(ms: i64) -> bool {
    let seconds = ms as f64 / 1000.0;
    (seconds * 1e9).round() as i64 / 1_000_000 == ms && ms.unsigned_abs() < 1 << 53
}

fn number_prints_back(number: &NumberLiteral) -> bool {
    let millis = number.value * 1000.0;
    !number.is_duration
        || ((number.value.abs() * 1e9) as i64 / 1_000_000) as f64 == millis.abs()
            && millis.abs() < (1_i64 << 50) as f64
}
