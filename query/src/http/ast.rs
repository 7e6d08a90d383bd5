//! The JSON of `parse_query`: Prometheus' `translate_ast.go`, whose objects have their keys in
//! alphabetical order.
//!
//! It is written straight to text. A long chain of operators is a tree as deep as it is long, so
//! chains are walked in a loop; what is left to nest is bounded by the parser.

use isobar_model::Matcher;
use isobar_promql::parse::ast::{
    Aggregate, At, AtPreprocessor, Binary, Call, Cardinality, Duration, DurationExpr, Expr,
    NumberLiteral, Offset, Subquery, ValueType, VectorMatching, VectorSelector,
};
use serde::Serialize;

use super::error::ApiError;
use super::json::number::{write_json_number, write_plain};
use super::respond::to_json;

/// `expr` as JSON.
pub(super) fn expression(expr: &Expr) -> Result<Vec<u8>, ApiError> {
    let mut out = Vec::new();
    write_expr(&mut out, expr)?;
    Ok(out)
}

type Written = Result<(), ApiError>;

fn raw(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Writes `before` and then `value` as JSON.
fn field<T: Serialize + ?Sized>(out: &mut Vec<u8>, before: &str, value: &T) -> Written {
    raw(out, before);
    out.append(&mut to_json(value)?);
    Ok(())
}

fn write_expr(out: &mut Vec<u8>, expr: &Expr) -> Written {
    match expr {
        Expr::Aggregate(aggregate) => write_aggregate(out, aggregate)?,
        Expr::Binary(binary) => write_chain(out, binary)?,
        Expr::Call(call) => write_call(out, call)?,
        Expr::VectorSelector(selector) => {
            write_selector(out, selector, None)?;
        }
        Expr::MatrixSelector(matrix) => {
            write_selector(out, &matrix.selector, Some(&matrix.range))?;
        }
        Expr::Subquery(subquery) => write_subquery(out, subquery)?,
        Expr::Number(number) => {
            raw(out, r#"{"type":"numberLiteral","val":""#);
            write_plain(out, number.value);
            raw(out, "\"}");
        }
        Expr::String(string) => {
            field(out, r#"{"type":"stringLiteral","val":"#, &string.value)?;
            raw(out, "}");
        }
        Expr::Paren(paren) => {
            raw(out, r#"{"expr":"#);
            write_expr(out, &paren.expr)?;
            raw(out, r#","type":"parenExpr"}"#);
        }
        Expr::Unary(unary) => {
            raw(out, r#"{"expr":"#);
            write_expr(out, &unary.expr)?;
            field(out, r#","op":"#, if unary.negative { "-" } else { "+" })?;
            raw(out, r#","type":"unaryExpr"}"#);
        }
    }
    Ok(())
}

/// Writes an operation whose left side may be one again, and so on.
fn write_chain(out: &mut Vec<u8>, last: &Binary) -> Written {
    let mut chain = vec![last];
    let mut first = &last.lhs;
    while let Expr::Binary(binary) = first {
        chain.push(binary);
        first = &binary.lhs;
    }
    for binary in &chain {
        field(out, r#"{"bool":"#, &binary.return_bool)?;
        raw(out, r#","lhs":"#);
    }
    write_expr(out, first)?;
    for binary in chain.iter().rev() {
        raw(out, r#","matching":"#);
        match &binary.matching {
            None => raw(out, "null"),
            Some(matching) => write_matching(out, matching)?,
        }
        field(out, r#","op":"#, binary.op.as_str())?;
        raw(out, r#","rhs":"#);
        write_expr(out, &binary.rhs)?;
        raw(out, r#","type":"binaryExpr"}"#);
    }
    Ok(())
}

fn write_matching(out: &mut Vec<u8>, matching: &VectorMatching) -> Written {
    let card = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    let fill = |before: &str, value: Option<f64>, out: &mut Vec<u8>| {
        raw(out, before);
        match value {
            Some(value) => write_json_number(out, value),
            None => raw(out, "null"),
        }
    };
    field(out, r#"{"card":"#, card)?;
    fill(r#","fillValues":{"lhs":"#, matching.fill_left, out);
    fill(r#","rhs":"#, matching.fill_right, out);
    field(out, r#"},"include":"#, &matching.include)?;
    field(out, r#","labels":"#, &matching.labels)?;
    field(out, r#","on":"#, &matching.on)?;
    raw(out, "}");
    Ok(())
}

fn write_aggregate(out: &mut Vec<u8>, aggregate: &Aggregate) -> Written {
    raw(out, r#"{"expr":"#);
    write_expr(out, &aggregate.expr)?;
    field(out, r#","grouping":"#, &aggregate.grouping)?;
    field(out, r#","op":"#, aggregate.op.as_str())?;
    raw(out, r#","param":"#);
    match &aggregate.param {
        None => raw(out, "null"),
        Some(param) => write_expr(out, param)?,
    }
    field(
        out,
        r#","type":"aggregation","without":"#,
        &aggregate.without,
    )?;
    raw(out, "}");
    Ok(())
}

fn write_call(out: &mut Vec<u8>, call: &Call) -> Written {
    raw(out, r#"{"args":["#);
    for (index, arg) in call.args.iter().enumerate() {
        if index > 0 {
            raw(out, ",");
        }
        write_expr(out, arg)?;
    }
    let types: Vec<_> = call.func.args.iter().copied().map(type_name).collect();
    field(out, r#"],"func":{"argTypes":"#, &types)?;
    field(out, r#","name":"#, call.func.name)?;
    field(out, r#","returnType":"#, type_name(call.func.returns))?;
    field(out, r#","variadic":"#, &call.func.variadic)?;
    raw(out, r#"},"type":"call"}"#);
    Ok(())
}

fn type_name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
    }
}

/// Writes an instant selector, or a range selector when there is a range.
fn write_selector(
    out: &mut Vec<u8>,
    selector: &VectorSelector,
    range: Option<&Duration>,
) -> Written {
    field(out, r#"{"anchored":"#, &selector.anchored)?;
    write_matchers(out, &selector.matchers)?;
    field(
        out,
        r#","name":"#,
        selector.name.as_deref().unwrap_or_default(),
    )?;
    write_offset(out, &selector.offset)?;
    if let Some(range) = range {
        write_duration(out, "range", Some(range))?;
    }
    field(out, r#","smoothed":"#, &selector.smoothed)?;
    field(out, r#","startOrEnd":"#, &start_or_end(selector.at))?;
    field(out, r#","timestamp":"#, &timestamp(selector.at))?;
    let kind = if range.is_some() {
        "matrixSelector"
    } else {
        "vectorSelector"
    };
    field(out, r#","type":"#, kind)?;
    raw(out, "}");
    Ok(())
}

fn write_subquery(out: &mut Vec<u8>, subquery: &Subquery) -> Written {
    raw(out, r#"{"expr":"#);
    write_expr(out, &subquery.expr)?;
    write_offset(out, &subquery.offset)?;
    write_duration(out, "range", Some(&subquery.range))?;
    field(out, r#","startOrEnd":"#, &start_or_end(subquery.at))?;
    write_duration(out, "step", subquery.step.as_ref())?;
    field(out, r#","timestamp":"#, &timestamp(subquery.at))?;
    raw(out, r#","type":"subquery"}"#);
    Ok(())
}

fn start_or_end(at: Option<At>) -> Option<&'static str> {
    match at? {
        At::Preprocessor(AtPreprocessor::Start) => Some("start"),
        At::Preprocessor(AtPreprocessor::End) => Some("end"),
        At::Timestamp(_) => None,
    }
}

fn timestamp(at: Option<At>) -> Option<i64> {
    match at? {
        At::Timestamp(timestamp_ms) => Some(timestamp_ms),
        At::Preprocessor(_) => None,
    }
}

fn write_matchers(out: &mut Vec<u8>, matchers: &[Matcher]) -> Written {
    raw(out, r#","matchers":["#);
    for (index, matcher) in matchers.iter().enumerate() {
        let before = if index > 0 {
            r#",{"name":"#
        } else {
            r#"{"name":"#
        };
        field(out, before, matcher.name())?;
        field(out, r#","type":"#, matcher.op().as_str())?;
        field(out, r#","value":"#, matcher.value())?;
        raw(out, "}");
    }
    raw(out, "]");
    Ok(())
}

fn write_offset(out: &mut Vec<u8>, offset: &Offset) -> Written {
    field(out, r#","offset":"#, &offset.ms)?;
    raw(out, r#","offsetExpr":"#);
    write_duration_expr(out, offset.expr.as_ref())
}

/// Writes `,"<name>":…,"<name>Expr":…`.
fn write_duration(out: &mut Vec<u8>, name: &str, duration: Option<&Duration>) -> Written {
    let ms = duration.map_or(0, |duration| duration.ms);
    field(out, &format!(",\"{name}\":"), &ms)?;
    raw(out, &format!(",\"{name}Expr\":"));
    write_duration_expr(out, duration.and_then(|duration| duration.expr.as_ref()))
}

fn write_duration_expr(out: &mut Vec<u8>, expr: Option<&DurationExpr>) -> Written {
    match expr {
        None => raw(out, "null"),
        Some(DurationExpr::Number(NumberLiteral {
            value, is_duration, ..
        })) => {
            field(out, r#"{"duration":"#, is_duration)?;
            raw(out, r#","type":"numberLiteral","val":""#);
            write_plain(out, *value);
            raw(out, "\"}");
        }
        Some(DurationExpr::Op {
            op,
            lhs,
            rhs,
            wrapped,
            ..
        }) => {
            raw(out, r#"{"lhs":"#);
            write_duration_expr(out, lhs.as_deref())?;
            field(out, r#","op":"#, op.as_str())?;
            raw(out, r#","rhs":"#);
            write_duration_expr(out, rhs.as_deref())?;
            field(out, r#","type":"durationExpr","wrapped":"#, wrapped)?;
            raw(out, "}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobar_promql::parse::parse_expr;

    fn check(query: &str, expected: &str) {
        let json = expression(&parse_expr(query).unwrap()).unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }

    #[test]
    fn nodes() {
        check(
            "-(1.5)",
            r#"{"expr":{"expr":{"type":"numberLiteral","val":"1.5"},"type":"parenExpr"},"op":"-","type":"unaryExpr"}"#,
        );
        check(
            r#""<a>""#,
            r#"{"type":"stringLiteral","val":"\u003ca\u003e"}"#,
        );
        check(
            "a[5m] offset 1m",
            concat!(
                r#"{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"a"}],"#,
                r#""name":"a","offset":60000,"offsetExpr":null,"range":300000,"rangeExpr":null,"#,
                r#""smoothed":false,"startOrEnd":null,"timestamp":null,"type":"matrixSelector"}"#
            ),
        );
        check(
            "1 >= bool 2",
            concat!(
                r#"{"bool":true,"lhs":{"type":"numberLiteral","val":"1"},"matching":null,"#,
                r#""op":"\u003e=","rhs":{"type":"numberLiteral","val":"2"},"type":"binaryExpr"}"#
            ),
        );
    }

    #[test]
    fn long_chains_and_deep_nesting_fit_the_stack() {
        let chain = vec!["1"; 1_500].join(" + ");
        assert!(expression(&parse_expr(&chain).unwrap()).unwrap().len() > 100_000);
        let deep = format!("{}1{}", "(".repeat(400), ")".repeat(400));
        assert!(expression(&parse_expr(&deep).unwrap()).unwrap().len() > 10_000);
    }
}
