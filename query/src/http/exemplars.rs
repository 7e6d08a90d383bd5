//! `/api/v1/query_exemplars`.

use isobar_model::{Exemplar, Labels, Matcher, TimeRange};
use isobar_promql::parse::ast::Expr;
use isobar_promql::parse::parse_expr_with;

use super::Call;
use super::error::ApiError;
use super::json::answer::Data;
use super::json::number::{write_timestamp, write_value};
use super::json::text::write_label_text;
use super::respond::Reply;
use super::time::Moment;

pub(super) async fn query_exemplars(call: Call) -> Result<Reply, ApiError> {
    let start = call.params.time_or("start", Moment::MIN)?;
    let end = call.params.time_or("end", Moment::MAX)?;
    if end < start {
        return Err(ApiError::bad_data(
            "end timestamp must not be before start timestamp",
        ));
    }
    let query = call.params.get("query").to_owned();
    let gzip = call.gzip;
    let features = call.app.engine.config().features;
    let source = std::sync::Arc::clone(&call.app.exemplars);
    let range = TimeRange::new(start.ms(), end.ms());
    call.app
        .engine
        .pool()
        .run(move || {
            let expr = parse_expr_with(&query, &features)
                .map_err(|e| ApiError::bad_data(e.to_string()))?;
            let mut selectors = Vec::new();
            add_selectors(&expr, &mut selectors);
            if selectors.is_empty() {
                return Ok(Reply::Empty);
            }
            let answer = source.exemplars(&selectors, range);
            let mut json = Vec::new();
            write_series(&mut json, &answer.series);
            Reply::begin(Data::Json(json), &answer.warnings, gzip, None)
        })
        .await?
}

/// The matchers of all selectors of an expression.
fn add_selectors(expr: &Expr, selectors: &mut Vec<Vec<Matcher>>) {
    match expr {
        Expr::VectorSelector(selector) => selectors.push(selector.matchers.clone()),
        Expr::MatrixSelector(matrix) => selectors.push(matrix.selector.matchers.clone()),
        Expr::Number(_) | Expr::String(_) => {}
        Expr::Paren(paren) => add_selectors(&paren.expr, selectors),
        Expr::Unary(unary) => add_selectors(&unary.expr, selectors),
        Expr::Call(call) => call
            .args
            .iter()
            .for_each(|arg| add_selectors(arg, selectors)),
        Expr::Binary(binary) => {
            add_selectors(&binary.lhs, selectors);
            add_selectors(&binary.rhs, selectors);
        }
        Expr::Aggregate(aggregate) => {
            if let Some(param) = &aggregate.param {
                add_selectors(param, selectors);
            }
            add_selectors(&aggregate.expr, selectors);
        }
        Expr::Subquery(subquery) => add_selectors(&subquery.expr, selectors),
    }
}

fn write_series(out: &mut Vec<u8>, series: &[(Labels, Vec<Exemplar>)]) {
    out.push(b'[');
    for (at, (labels, exemplars)) in series.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"seriesLabels\":");
        write_labels(out, labels);
        out.extend_from_slice(b",\"exemplars\":[");
        for (at, exemplar) in exemplars.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"labels\":");
            write_labels(out, &exemplar.labels);
            out.extend_from_slice(b",\"value\":\"");
            write_value(out, exemplar.value);
            out.extend_from_slice(b"\",\"timestamp\":");
            write_timestamp(out, exemplar.timestamp_ms);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
}

fn write_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_label_text(out, name);
        out.push(b':');
        write_label_text(out, value);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_are_written_as_prometheus_does() {
        let exemplar = |value: f64, trace: &str| Exemplar {
            labels: Labels::from_pairs([("trace_id", trace)]),
            value,
            timestamp_ms: 1_600_096_945_479,
        };
        let series = [(
            Labels::from_pairs([("__name__", "m"), ("job", "a\"b")]),
            vec![exemplar(6.0, "x"), exemplar(f64::NAN, "y")],
        )];
        let mut out = Vec::new();
        write_series(&mut out, &series);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"[{"seriesLabels":{"__name__":"m","job":"a\"b"},"exemplars":["#,
                r#"{"labels":{"trace_id":"x"},"value":"6","timestamp":1600096945.479},"#,
                r#"{"labels":{"trace_id":"y"},"value":"NaN","timestamp":1600096945.479}]}]"#
            )
        );
    }
}
