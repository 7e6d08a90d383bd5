//! The table of PromQL functions, as in Prometheus 3.14's `promql/parser/functions.go`.

use crate::parse::ast::ValueType;

/// A function's name and types.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature {
    /// The name in queries.
    pub name: &'static str,
    /// The types of the arguments; the last may be repeated or left out, see `variadic`.
    pub args: &'static [ValueType],
    /// 0: exactly `args`; n > 0: the last argument is optional and may stand up to n times;
    /// -1: any number of times.
    pub variadic: i32,
    /// The type of the result.
    pub returns: ValueType,
    /// Whether Prometheus hides it behind `promql-experimental-functions`.
    pub experimental: bool,
}
