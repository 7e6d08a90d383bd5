//! Prometheus' own parser cases: what parses, what is refused, in which words and where.

use std::path::PathBuf;

use isobar_promql::parse::parse_expr;
use serde_json::Value;

/// Cases that passed when this was last looked at. It only goes up.
const PASSED_MIN: usize = 270;

#[test]
fn parses_what_prometheus_parses() {
    let folder = std::env::var_os("ISOBAR_PROMQLTEST").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../shared/promqltest"
            ))
        },
        PathBuf::from,
    );
    let path = folder.join("parse_cases.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} not found", path.display());
        return;
    };
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let failures: Vec<String> = cases.iter().filter_map(|case| failure(case)).collect();
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

/// What is wrong with our answer to a case, if anything.
fn failure(case: &Value) -> Option<String> {
    let query = case["expr"].as_str().unwrap();
    let refused = |message: &str| Some(format!("{query:?}: {message}"));
    match (parse_expr(query), case["ok"].as_bool().unwrap()) {
        (Ok(_), true) => None,
        (Ok(expr), false) => refused(&format!("parsed as {expr}, wanted {}", case["error"])),
        (Err(e), true) => refused(&format!("refused: {e}")),
        (Err(e), false) => {
            let wanted = case["error"].as_str().unwrap();
            let start = case["start"].as_u64().unwrap() as usize;
            let end = case["end"].as_u64().unwrap() as usize;
            let same_span = (e.span().start, e.span().end) == (start, end);
            if wanted.contains(e.message()) && same_span {
                return None;
            }
            refused(&format!(
                "{} at {:?}, wanted {wanted} at {start}..{end}",
                e,
                e.span()
            ))
        }
    }
}
