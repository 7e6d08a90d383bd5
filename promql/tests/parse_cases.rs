//! Prometheus' own parser cases: what parses, what is refused, in which words and where.

mod common;

use isobar_promql::parse::parse_expr;
use serde::Deserialize;

/// Cases that passed when this was last looked at. It only goes up.
const PASSED_MIN: usize = 270;

#[test]
fn parses_what_prometheus_parses() {
    let path = common::promqltest_folder().join("parse_cases.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} not found", path.display());
        return;
    };
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    let failures: Vec<String> = cases.iter().filter_map(failure).collect();
    for failure in &failures {
        println!("{failure}");
    }
    let passed = cases.len() - failures.len();
    println!("parse: {passed} of {} cases passed", cases.len());
    assert!(
        passed >= PASSED_MIN.min(cases.len()),
        "only {passed} cases passed"
    );
}

/// A query with what Prometheus' parser says about it.
#[derive(Deserialize)]
struct Case {
    expr: String,
    ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    start: usize,
    #[serde(default)]
    end: usize,
}

/// What is wrong with our answer to a case, if anything.
fn failure(case: &Case) -> Option<String> {
    let refused = |message: &str| Some(format!("{:?}: {message}", case.expr));
    match (parse_expr(&case.expr), case.ok) {
        (Ok(_), true) => None,
        (Ok(expr), false) => refused(&format!("parsed as {expr}, wanted {}", case.error)),
        (Err(e), true) => refused(&format!("refused: {e}")),
        (Err(e), false) => {
            let same_span = (e.span().start, e.span().end) == (case.start, case.end);
            if case.error.contains(e.message()) && same_span {
                return None;
            }
            let (wanted, start, end) = (&case.error, case.start, case.end);
            refused(&format!(
                "{e} at {:?}, wanted {wanted} at {start}..{end}",
                e.span()
            ))
        }
    }
}
