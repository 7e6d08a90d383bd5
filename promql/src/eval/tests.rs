//! Tests of the evaluator.

use isobar_model::Matcher;

use super::evaluate;
use super::testing::Memory;
use crate::functions::signature;
use crate::limits::{CancelReason, CancelToken, Limits};
use crate::parse::ast::{
    Aggregate, AggregateOp, Call, Duration, Expr, MatrixSelector, Offset, Span, VectorSelector,
};
use crate::plan::{PlanParams, plan};
use crate::value::Value;

fn selector(name: &str) -> VectorSelector {
    VectorSelector {
        name: Some(name.to_owned()),
        matchers: vec![Matcher::equal("__name__", name)],
        offset: Offset::default(),
        at: None,
        anchored: false,
        smoothed: false,
        span: Span::default(),
    }
}

fn sum_by_rate(name: &str, label: &str, range_ms: i64) -> Expr {
    let range = MatrixSelector {
        selector: selector(name),
        range: Duration {
            ms: range_ms,
            expr: None,
        },
        end: 0,
    };
    let rate = Call {
        func: signature::lookup("rate").expect("rate"),
        args: vec![Expr::MatrixSelector(Box::new(range))],
        span: Span::default(),
    };
    Expr::Aggregate(Box::new(Aggregate {
        op: AggregateOp::Sum,
        expr: Expr::Call(rate),
        param: None,
        grouping: vec![label.to_owned()],
        without: false,
        span: Span::default(),
    }))
}

const SERIES: &str = r#"
    m_total{a="1",b="1"} 0 15 30 45 60 75 90
    m_total{a="1",b="2"} 0 30 60 90 120 150 180
    m_total{a="2",b="1"} 0 15 30 0 15 30 45
"#;

fn print(value: &Value) -> String {
    match value {
        Value::Matrix(series) => series
            .iter()
            .map(|s| format!("{} {:?}", s.labels, s.columns.values))
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Vector(samples) => samples
            .iter()
            .map(|s| format!("{} {}", s.labels, s.value))
            .collect::<Vec<_>>()
            .join("\n"),
        other => format!("{other:?}"),
    }
}

#[test]
fn sums_rates_by_label() {
    let expr = sum_by_rate("m_total", "a", 60_000);
    let params = PlanParams {
        start_ms: 60_000,
        end_ms: 90_000,
        step_ms: 15_000,
        ..PlanParams::default()
    };
    let plan = plan(&expr, &params).expect("plan");
    let select = &plan.selects()[0];
    assert_eq!((select.range.min_ms, select.range.max_ms), (1, 90_000));
    assert_eq!(
        (select.hints.func.as_str(), select.hints.range_ms),
        ("rate", 60_000)
    );
    let source = Memory::read(SERIES, 15_000);
    let result =
        evaluate(&plan, &source, &Limits::default(), &CancelToken::default()).expect("answer");
    assert_eq!(
        print(&result.value),
        "{a=\"1\"} [2.9999999999999996, 2.9999999999999996, 2.9999999999999996]\n\
         {a=\"2\"} [0.6666666666666666, 0.6666666666666666, 0.75]"
    );
    assert_eq!(
        (result.stats.series, result.stats.samples_queryable),
        (3, 3 * 3 * 4)
    );
}

#[test]
fn a_query_can_be_called_off() {
    let expr = sum_by_rate("m_total", "a", 60_000);
    let plan = plan(&expr, &PlanParams::default()).expect("plan");
    let cancel = CancelToken::default();
    cancel.cancel(CancelReason::Timeout);
    let source = Memory::read(SERIES, 15_000);
    let error = evaluate(&plan, &source, &Limits::default(), &cancel).expect_err("called off");
    assert_eq!(error.to_string(), "query timed out in query execution");
}

#[test]
fn samples_held_are_bounded() {
    let expr = Expr::VectorSelector(Box::new(selector("m_total")));
    let params = PlanParams {
        start_ms: 60_000,
        end_ms: 60_000,
        ..PlanParams::default()
    };
    let plan = plan(&expr, &params).expect("plan");
    let limits = Limits {
        samples_max: 2,
        ..Limits::default()
    };
    let source = Memory::read(SERIES, 15_000);
    let error = evaluate(&plan, &source, &limits, &CancelToken::default()).expect_err("too many");
    assert_eq!(
        error.to_string(),
        "query processing would load too many samples into memory in query execution"
    );
}
