//! Prints an expression canonically, as Prometheus' `Expr.String` does.
//!
//! What is printed parses to an equal tree, but for a few forms that Prometheus prints so as well:
//! `{}` as second argument of `info` vanishes, `Inf` gets a sign, which binds weaker than `^`,
//! and a second sign behind `offset` is not kept.

use std::fmt::{self, Display, Write};

use isobar_model::labels::{is_legacy_label_name, write_quoted};
use isobar_model::{MatchOp, Matcher};

use super::ast::{
    Aggregate, AggregateOp, At, AtPreprocessor, Binary, BinaryOp, Cardinality, Duration,
    DurationExpr, DurationOp, Expr, MatrixSelector, NumberLiteral, Offset, Subquery,
    VectorMatching, VectorSelector,
};
use super::duration::Millis;
use super::error::quoted_bytes;
use super::number::{Plain, Shortest};

impl Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_expr(f, self)
    }
}

/// Prints `expr` into `out`. Fails only when `out` does.
pub(super) fn write_expr(out: &mut dyn Write, expr: &Expr) -> fmt::Result {
    match expr {
        Expr::Aggregate(e) => write_aggregate(out, e),
        Expr::Binary(e) => write_binaries(out, e),
        Expr::Call(e) => {
            out.write_str(e.func.name)?;
            out.write_char('(')?;
            for (i, arg) in e.args.iter().enumerate() {
                if i > 0 {
                    out.write_str(", ")?;
                }
                write_expr(out, arg)?;
            }
            out.write_char(')')
        }
        Expr::MatrixSelector(e) => write_matrix(out, e),
        Expr::Subquery(e) => {
            write_expr(out, &e.expr)?;
            write_subquery_suffix(out, e)
        }
        Expr::Number(e) => write_number(out, e),
        Expr::Paren(e) => {
            out.write_char('(')?;
            write_expr(out, &e.expr)?;
            out.write_char(')')
        }
        Expr::String(e) => match &e.bytes {
            Some(bytes) => out.write_str(&quoted_bytes(bytes)),
            None => write_text(out, &e.value),
        },
        Expr::Unary(e) => {
            out.write_char(if e.negative { '-' } else { '+' })?;
            write_expr(out, &e.expr)
        }
        Expr::VectorSelector(e) => write_selector(out, e),
    }
}

fn write_aggregate(out: &mut dyn Write, e: &Aggregate) -> fmt::Result {
    write_aggregate_head(out, e)?;
    out.write_char('(')?;
    if let Some(param) = &e.param {
        write_expr(out, param)?;
        out.write_str(", ")?;
    }
    write_expr(out, &e.expr)?;
    out.write_char(')')
}

/// `sum by (a, b) `, up to the parenthesis.
pub(super) fn write_aggregate_head(out: &mut dyn Write, e: &Aggregate) -> fmt::Result {
    out.write_str(e.op.as_str())?;
    if !e.without && e.grouping.is_empty() {
        return Ok(());
    }
    out.write_str(if e.without { " without (" } else { " by (" })?;
    write_label_names(out, &e.grouping)?;
    out.write_str(") ")
}

/// A chain of operations that lean to the left, which can be long.
fn write_binaries(out: &mut dyn Write, top: &Binary) -> fmt::Result {
    let mut chain = vec![top];
    let mut first = &top.lhs;
    while let Expr::Binary(binary) = first {
        chain.push(binary);
        first = &binary.lhs;
    }
    write_expr(out, first)?;
    for binary in chain.into_iter().rev() {
        out.write_char(' ')?;
        write_operator(out, binary)?;
        out.write_char(' ')?;
        write_expr(out, &binary.rhs)?;
    }
    Ok(())
}

/// The operator with its modifiers.
pub(super) fn write_operator(out: &mut dyn Write, e: &Binary) -> fmt::Result {
    out.write_str(e.op.as_str())?;
    if e.return_bool {
        out.write_str(" bool")?;
    }
    e.matching
        .as_ref()
        .map_or(Ok(()), |matching| write_matching(out, matching))
}

fn write_matching(out: &mut dyn Write, e: &VectorMatching) -> fmt::Result {
    let group = match e.cardinality {
        Cardinality::ManyToOne => Some(" group_left ("),
        Cardinality::OneToMany => Some(" group_right ("),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if e.on || !e.labels.is_empty() || group.is_some() {
        out.write_str(if e.on { " on (" } else { " ignoring (" })?;
        write_label_names(out, &e.labels)?;
        out.write_char(')')?;
    }
    if let Some(group) = group {
        out.write_str(group)?;
        write_label_names(out, &e.include)?;
        out.write_char(')')?;
    }
    match (e.fill_left, e.fill_right) {
        (Some(left), Some(right)) if left == right => write!(out, " fill ({})", Shortest(left)),
        (left, right) => {
            if let Some(left) = left {
                write!(out, " fill_left ({})", Shortest(left))?;
            }
            if let Some(right) = right {
                write!(out, " fill_right ({})", Shortest(right))?;
            }
            Ok(())
        }
    }
}

/// How a binary operation matches, as it is written behind the operator.
pub(crate) fn matching_text(matching: &VectorMatching) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_matching(&mut text, matching);
    text
}

fn write_label_names(out: &mut dyn Write, names: &[String]) -> fmt::Result {
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            out.write_str(", ")?;
        }
        if is_legacy_label_name(name) {
            out.write_str(name)?;
        } else {
            write_text(out, name)?;
        }
    }
    Ok(())
}

fn write_text(mut out: &mut dyn Write, text: &str) -> fmt::Result {
    write_quoted(&mut out, text)
}

fn write_number(out: &mut dyn Write, e: &NumberLiteral) -> fmt::Result {
    if e.is_duration {
        // Prometheus prints `0s` for a negative zero, which is another number: 1 / -0s is -Inf.
        let sign = if e.value == 0.0 && e.value.is_sign_negative() {
            "-"
        } else {
            ""
        };
        write!(out, "{sign}{}", Millis::of_seconds(e.value))
    } else {
        write!(out, "{}", Plain(e.value))
    }
}

fn write_selector(out: &mut dyn Write, e: &VectorSelector) -> fmt::Result {
    write_name_and_matchers(out, e)?;
    write_at(out, e.at)?;
    write_extension(out, e)?;
    write_offset(out, &e.offset)
}

fn write_name_and_matchers(out: &mut dyn Write, e: &VectorSelector) -> fmt::Result {
    let name = e.name.as_deref().unwrap_or_default();
    out.write_str(name)?;
    let is_name = |m: &Matcher| {
        m.name() == "__name__" && m.op() == MatchOp::Equal && m.value() == name && !name.is_empty()
    };
    let mut printed: Vec<String> = e
        .matchers
        .iter()
        .filter(|m| !is_name(m))
        .map(Matcher::to_string)
        .collect();
    if printed.is_empty() {
        return Ok(());
    }
    printed.sort_unstable();
    write!(out, "{{{}}}", printed.join(","))
}

fn write_at(out: &mut dyn Write, at: Option<At>) -> fmt::Result {
    match at {
        None => Ok(()),
        Some(At::Timestamp(ms)) => write!(out, " @ {:.3}", ms as f64 / 1000.0),
        Some(At::Preprocessor(AtPreprocessor::Start)) => out.write_str(" @ start()"),
        Some(At::Preprocessor(AtPreprocessor::End)) => out.write_str(" @ end()"),
    }
}

fn write_extension(out: &mut dyn Write, e: &VectorSelector) -> fmt::Result {
    match (e.anchored, e.smoothed) {
        (true, _) => out.write_str(" anchored"),
        (false, true) => out.write_str(" smoothed"),
        (false, false) => Ok(()),
    }
}

fn write_offset(out: &mut dyn Write, offset: &Offset) -> fmt::Result {
    match &offset.expr {
        Some(expr) => {
            out.write_str(" offset ")?;
            write_duration_expr(out, expr)
        }
        None if offset.ms != 0 => write!(out, " offset {}", Millis(offset.ms)),
        None => Ok(()),
    }
}

fn write_matrix(out: &mut dyn Write, e: &MatrixSelector) -> fmt::Result {
    write_name_and_matchers(out, &e.selector)?;
    out.write_char('[')?;
    write_duration(out, &e.range)?;
    out.write_char(']')?;
    write_extension(out, &e.selector)?;
    write_at(out, e.selector.at)?;
    write_offset(out, &e.selector.offset)
}

/// Everything behind the expression of a subquery.
pub(super) fn write_subquery_suffix(out: &mut dyn Write, e: &Subquery) -> fmt::Result {
    out.write_char('[')?;
    write_duration(out, &e.range)?;
    out.write_char(':')?;
    if let Some(step) = &e.step {
        write_duration(out, step)?;
    }
    out.write_char(']')?;
    write_at(out, e.at)?;
    write_offset(out, &e.offset)
}

fn write_duration(out: &mut dyn Write, e: &Duration) -> fmt::Result {
    match &e.expr {
        Some(expr) => write_duration_expr(out, expr),
        None => write!(out, "{}", Millis(e.ms)),
    }
}

fn write_duration_expr(out: &mut dyn Write, e: &DurationExpr) -> fmt::Result {
    let (op, lhs, rhs, wrapped) = match e {
        DurationExpr::Number(number) => return write_number(out, number),
        DurationExpr::Op {
            op,
            lhs,
            rhs,
            wrapped,
            ..
        } => (*op, lhs, rhs, *wrapped),
    };
    let write_operand = |out: &mut dyn Write, operand: &Option<Box<DurationExpr>>| {
        operand
            .as_ref()
            .map_or(Ok(()), |operand| write_duration_expr(out, operand))
    };
    if wrapped {
        out.write_char('(')?;
    }
    match op {
        DurationOp::Step | DurationOp::Range => write!(out, "{}()", op.as_str())?,
        DurationOp::MinOf | DurationOp::MaxOf => {
            write!(out, "{}(", op.as_str())?;
            write_operand(out, lhs)?;
            out.write_str(", ")?;
            write_operand(out, rhs)?;
            out.write_char(')')?;
        }
        _ => {
            if lhs.is_some() {
                write_operand(out, lhs)?;
                write!(out, " {} ", op.as_str())?;
            } else if op == DurationOp::Sub {
                out.write_char('-')?;
            }
            write_operand(out, rhs)?;
        }
    }
    if wrapped {
        out.write_char(')')?;
    }
    Ok(())
}

impl AggregateOp {
    /// The operator as it is written in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            AggregateOp::Sum => "sum",
            AggregateOp::Avg => "avg",
            AggregateOp::Count => "count",
            AggregateOp::Min => "min",
            AggregateOp::Max => "max",
            AggregateOp::Group => "group",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Topk => "topk",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Quantile => "quantile",
            AggregateOp::Limitk => "limitk",
            AggregateOp::LimitRatio => "limit_ratio",
        }
    }
}

impl BinaryOp {
    /// The operator as it is written in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Eq => "==",
            BinaryOp::Ne => "!=",
            BinaryOp::Le => "<=",
            BinaryOp::Lt => "<",
            BinaryOp::Ge => ">=",
            BinaryOp::Gt => ">",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
        }
    }
}

impl DurationOp {
    /// The operator or function as it is written in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            DurationOp::Add => "+",
            DurationOp::Sub => "-",
            DurationOp::Mul => "*",
            DurationOp::Div => "/",
            DurationOp::Mod => "%",
            DurationOp::Pow => "^",
            DurationOp::Step => "step",
            DurationOp::Range => "range",
            DurationOp::MinOf => "min_of",
            DurationOp::MaxOf => "max_of",
        }
    }
}
