//! The table of PromQL functions, as in Prometheus 3.14's `promql/parser/functions.go`, and
//! Thanos' `xdelta`, `xincrease` and `xrate`, which Prometheus does not know.

use crate::parse::ast::ValueType;
use ValueType::{Matrix, Scalar, String, Vector};

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
    /// Whether Prometheus does not know it.
    pub extension: bool,
}

impl Signature {
    const fn variadic(self, variadic: i32) -> Signature {
        Signature { variadic, ..self }
    }

    const fn experimental(self) -> Signature {
        Signature {
            experimental: true,
            ..self
        }
    }

    const fn extension(self) -> Signature {
        Signature {
            extension: true,
            ..self
        }
    }
}

const fn f(name: &'static str, args: &'static [ValueType], returns: ValueType) -> Signature {
    Signature {
        name,
        args,
        variadic: 0,
        returns,
        experimental: false,
        extension: false,
    }
}

/// The function of that name; names are case-sensitive.
pub fn lookup(name: &str) -> Option<&'static Signature> {
    let index = FUNCTIONS
        .binary_search_by(|function| function.name.cmp(name))
        .ok()?;
    FUNCTIONS.get(index)
}

/// All functions, sorted by name.
pub static FUNCTIONS: &[Signature] = &[
    f("abs", &[Vector], Vector),
    f("absent", &[Vector], Vector),
    f("absent_over_time", &[Matrix], Vector),
    f("acos", &[Vector], Vector),
    f("acosh", &[Vector], Vector),
    f("asin", &[Vector], Vector),
    f("asinh", &[Vector], Vector),
    f("atan", &[Vector], Vector),
    f("atanh", &[Vector], Vector),
    f("avg_over_time", &[Matrix], Vector),
    f("ceil", &[Vector], Vector),
    f("changes", &[Matrix], Vector),
    f("clamp", &[Vector, Scalar, Scalar], Vector),
    f("clamp_max", &[Vector, Scalar], Vector),
    f("clamp_min", &[Vector, Scalar], Vector),
    f("cos", &[Vector], Vector),
    f("cosh", &[Vector], Vector),
    f("count_over_time", &[Matrix], Vector),
    f("day_of_month", &[Vector], Vector).variadic(1),
    f("day_of_week", &[Vector], Vector).variadic(1),
    f("day_of_year", &[Vector], Vector).variadic(1),
    f("days_in_month", &[Vector], Vector).variadic(1),
    f("deg", &[Vector], Vector),
    f("delta", &[Matrix], Vector),
    f("deriv", &[Matrix], Vector),
    f(
        "double_exponential_smoothing",
        &[Matrix, Scalar, Scalar],
        Vector,
    )
    .experimental(),
    f("end", &[], Scalar).experimental(),
    f("exp", &[Vector], Vector),
    f("first_over_time", &[Matrix], Vector),
    f("floor", &[Vector], Vector),
    f("histogram_avg", &[Vector], Vector),
    f("histogram_count", &[Vector], Vector),
    f("histogram_fraction", &[Scalar, Scalar, Vector], Vector),
    f("histogram_quantile", &[Scalar, Vector], Vector),
    f(
        "histogram_quantiles",
        &[Vector, String, Scalar, Scalar],
        Vector,
    )
    .variadic(9)
    .experimental(),
    f("histogram_stddev", &[Vector], Vector),
    f("histogram_stdvar", &[Vector], Vector),
    f("histogram_sum", &[Vector], Vector),
    f("hour", &[Vector], Vector).variadic(1),
    f("idelta", &[Matrix], Vector),
    f("increase", &[Matrix], Vector),
    f("info", &[Vector, Vector], Vector)
        .variadic(1)
        .experimental(),
    f("irate", &[Matrix], Vector),
    f("label_join", &[Vector, String, String, String], Vector).variadic(-1),
    f(
        "label_replace",
        &[Vector, String, String, String, String],
        Vector,
    ),
    f("last_over_time", &[Matrix], Vector),
    f("ln", &[Vector], Vector),
    f("log10", &[Vector], Vector),
    f("log2", &[Vector], Vector),
    f("mad_over_time", &[Matrix], Vector).experimental(),
    f("max_of", &[Scalar, Scalar], Scalar).experimental(),
    f("max_over_time", &[Matrix], Vector),
    f("min_of", &[Scalar, Scalar], Scalar).experimental(),
    f("min_over_time", &[Matrix], Vector),
    f("minute", &[Vector], Vector).variadic(1),
    f("month", &[Vector], Vector).variadic(1),
    f("pi", &[], Scalar),
    f("predict_linear", &[Matrix, Scalar], Vector),
    f("present_over_time", &[Matrix], Vector),
    f("quantile_over_time", &[Scalar, Matrix], Vector),
    f("rad", &[Vector], Vector),
    f("range", &[], Scalar).experimental(),
    f("rate", &[Matrix], Vector),
    f("resets", &[Matrix], Vector),
    f("round", &[Vector, Scalar], Vector).variadic(1),
    f("scalar", &[Vector], Scalar),
    f("sgn", &[Vector], Vector),
    f("sin", &[Vector], Vector),
    f("sinh", &[Vector], Vector),
    f("sort", &[Vector], Vector),
    f("sort_by_label", &[Vector, String], Vector)
        .variadic(-1)
        .experimental(),
    f("sort_by_label_desc", &[Vector, String], Vector)
        .variadic(-1)
        .experimental(),
    f("sort_desc", &[Vector], Vector),
    f("sqrt", &[Vector], Vector),
    f("start", &[], Scalar).experimental(),
    f("start_timestamp", &[Vector], Vector).experimental(),
    f("stddev_over_time", &[Matrix], Vector),
    f("stdvar_over_time", &[Matrix], Vector),
    f("step", &[], Scalar).experimental(),
    f("sum_over_time", &[Matrix], Vector),
    f("tan", &[Vector], Vector),
    f("tanh", &[Vector], Vector),
    f("time", &[], Scalar),
    f("timestamp", &[Vector], Vector),
    f("ts_of_first_over_time", &[Matrix], Vector).experimental(),
    f("ts_of_last_over_time", &[Matrix], Vector).experimental(),
    f("ts_of_max_over_time", &[Matrix], Vector).experimental(),
    f("ts_of_min_over_time", &[Matrix], Vector).experimental(),
    f("vector", &[Scalar], Vector),
    f("xdelta", &[Matrix], Vector).extension(),
    f("xincrease", &[Matrix], Vector).extension(),
    f("xrate", &[Matrix], Vector).extension(),
    f("year", &[Vector], Vector).variadic(1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        for function in FUNCTIONS {
            assert_eq!(lookup(function.name), Some(function));
        }
        assert_eq!(lookup("Rate"), None);
        assert_eq!(lookup(""), None);
    }

    #[test]
    fn describes_arguments() {
        let round = lookup("round").unwrap();
        assert_eq!(round.args, [Vector, Scalar]);
        assert_eq!(
            (round.variadic, round.returns, round.experimental),
            (1, Vector, false)
        );
        assert!(lookup("info").unwrap().experimental);
    }
}
