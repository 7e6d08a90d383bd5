//! From text to an AST with positions, as Prometheus 3.14's `promql/parser` reads it, and back.
//!
//! The reader is a hand-written lexer with a Pratt parser on top. It gives Prometheus' messages
//! with line and column, and bounds the depth of nesting.

pub mod ast;

pub use ast::Expr;
