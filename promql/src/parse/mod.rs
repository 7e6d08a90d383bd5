//! From text to an AST with positions, as Prometheus 3.14's `promql/parser` reads it, and back.
//!
//! [`parse_expr`] reads a query, [`parse_metric_selector`] the value of a `match[]`. An [`Expr`]
//! prints canonically, and over several lines with [`pretty`]. [`series`] reads test scripts' series.
//!
//! The reader is hand-written: `lex` cuts tokens, `expr` reads operators by precedence with one
//! token of lookahead, `check` looks at the types when the syntax is right. What [`Features`]
//! has off is refused where Prometheus' grammar does. The first thing wrong is reported in Prometheus' words.

pub mod ast;
pub mod series;

mod check;
mod duration_expr;
mod error;
mod expr;
mod lex;
mod parser;
mod pretty;
mod print;
mod selector;
mod token;

mod duration;
mod number;
mod unquote;

use isobar_model::Matcher;

use crate::features::Features;

pub use ast::Expr;
pub(crate) use duration::Millis;
pub(crate) use error::quoted_bytes;
pub use error::{ParseError, ParseErrorKind};
pub(crate) use number::Shortest;
pub use pretty::pretty;
pub(crate) use print::matching_text;

/// How deep parentheses, calls, signs and the like may nest. Reading recurses this deep.
pub const DEPTH_MAX: usize = 512;

/// How many levels a tree may have. More than [`DEPTH_MAX`], since `1 + 1 + 1 + …` gains a level
/// with each operator but is read without recursion.
pub const HEIGHT_MAX: usize = 2048;

/// Reads a query and checks its types. The usual [`Features`] are on.
///
/// # Errors
/// When Prometheus would refuse it, in Prometheus' words, and when it nests too deep.
pub fn parse_expr(text: &str) -> Result<Expr, ParseError> {
    parse_expr_with(text, &Features::default())
}

/// As [`parse_expr`], with these features.
///
/// # Errors
/// As [`parse_expr`], and when the query needs what is off.
pub fn parse_expr_with(text: &str, features: &Features) -> Result<Expr, ParseError> {
    let mut parser = parser::Parser::new(text).with(*features);
    let parsed = parser.query().and_then(|expr| {
        check::check(&expr, text)?;
        Ok(expr)
    });
    parsed.map_err(|fault| fault.in_query(text))
}

/// Reads a selector such as `up{job="x"}` into its matchers, the one for the name last. It may
/// match everything.
///
/// # Errors
/// When Prometheus would refuse it, in Prometheus' words.
pub fn parse_metric_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let parsed = parser::Parser::new(text).only_selector();
    parsed
        .map(|selector| selector.matchers)
        .map_err(|fault| fault.in_query(text))
}

#[cfg(test)]
mod tests;
