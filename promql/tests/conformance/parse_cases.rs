//! Prometheus' own parser cases: what parses, what is refused, in which words and where.

use isobar_promql::parse::parse_expr;
use serde::Deserialize;

use crate::common;

/// Says how many cases pass; whether all do.
pub(crate) fn run() -> bool {
    let path = common::promqltest_folder().join("parse_cases.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} not found", path.display());
        return true;
    };
    let cases: Vec<Case> = match serde_json::from_str(&text) {
        Ok(cases) => cases,
        Err(error) => {
            println!("{}: {error}", path.display());
            return false;
        }
    };
    let failures: Vec<String> = cases.iter().filter_map(failure).collect();
    for failure in &failures {
        println!("{failure}");
    }
    let passed = cases.len() - failures.len();
    println!("parse: {passed} of {} cases passed", cases.len());
    failures.is_empty()
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
