//! Prints an expression over several lines, as Prometheus' `format_query` does: what is longer
//! than a line is split, its parts one level further in.

use std::fmt::{self, Write};

use super::ast::{Aggregate, Binary, Expr};
use super::print::{write_aggregate_head, write_expr, write_operator, write_subquery_suffix};

/// Bytes that a line may have before it is split.
const LINE_LEN_MAX: usize = 100;

/// `expr` over as many lines as it takes.
pub fn pretty(expr: &Expr) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _written = write_pretty(&mut out, expr, 0);
    out
}

fn write_pretty(out: &mut String, expr: &Expr, level: usize) -> fmt::Result {
    match expr {
        Expr::Aggregate(e) if needs_split(expr) => write_aggregate(out, e, level),
        Expr::Binary(e) if needs_split(expr) => write_binary(out, e, level),
        Expr::Call(e) if needs_split(expr) => {
            indent(out, level);
            writeln!(out, "{}(", e.func.name)?;
            for (i, arg) in e.args.iter().enumerate() {
                if i > 0 {
                    out.push_str(",\n");
                }
                write_pretty(out, arg, level + 1)?;
            }
            close(out, level);
            Ok(())
        }
        Expr::Paren(e) if needs_split(expr) => {
            indent(out, level);
            out.push_str("(\n");
            write_pretty(out, &e.expr, level + 1)?;
            close(out, level);
            Ok(())
        }
        Expr::Subquery(e) => {
            // A short subquery is not indented, whatever its level: Prometheus has it so.
            if !needs_split(expr) {
                return write_expr(out, expr);
            }
            write_pretty(out, &e.expr, level)?;
            write_subquery_suffix(out, e)
        }
        Expr::Unary(e) => {
            indent(out, level);
            out.push(if e.negative { '-' } else { '+' });
            let mut operand = String::new();
            write_pretty(&mut operand, &e.expr, level)?;
            out.push_str(operand.trim());
            Ok(())
        }
        _ => {
            indent(out, level);
            write_expr(out, expr)
        }
    }
}

fn write_aggregate(out: &mut String, e: &Aggregate, level: usize) -> fmt::Result {
    indent(out, level);
    write_aggregate_head(out, e)?;
    out.push_str("(\n");
    if let Some(param) = &e.param {
        write_pretty(out, param, level + 1)?;
        out.push_str(",\n");
    }
    write_pretty(out, &e.expr, level + 1)?;
    close(out, level);
    Ok(())
}

fn write_binary(out: &mut String, e: &Binary, level: usize) -> fmt::Result {
    write_pretty(out, &e.lhs, level + 1)?;
    out.push('\n');
    indent(out, level);
    write_operator(out, e)?;
    out.push('\n');
    write_pretty(out, &e.rhs, level + 1)
}

fn indent(out: &mut String, level: usize) {
    out.extend(std::iter::repeat_n("  ", level));
}

fn close(out: &mut String, level: usize) {
    out.push('\n');
    indent(out, level);
    out.push(')');
}

/// Whether the expression is longer than a line.
fn needs_split(expr: &Expr) -> bool {
    struct Room(usize);
    impl Write for Room {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    // Printing stops with an error as soon as there is no room left.
    write_expr(&mut Room(LINE_LEN_MAX), expr).is_err()
}
