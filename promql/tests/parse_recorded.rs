//! Queries that a real Prometheus was asked: all of them parse, or fail in its words, and what
//! parses prints back to the same tree.

mod common;

use isobar_promql::parse::parse_expr;
use serde::Deserialize;

/// A recorded call.
#[derive(Deserialize)]
struct Call {
    params: Params,
    answer: Answer,
}

#[derive(Deserialize)]
struct Params {
    query: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: String,
}

/// Recorded calls that we agree with. It only goes up.
const AGREED_MIN: usize = 4984;

#[test]
fn agrees_with_recorded_answers() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/contract/promql/answers.jsonl"
    );
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("skipped: {path} not found");
        return;
    };
    let (mut calls, mut agreed) = (0, 0);
    for line in text.lines() {
        let call: Call = serde_json::from_str(line).unwrap();
        let query = &call.params.query;
        let recorded = call
            .answer
            .error
            .trim_start_matches("invalid parameter \"query\": ");
        let recorded = if recorded.contains(": parse error: ") {
            recorded
        } else {
            ""
        };
        let ours = round_trip(query).err().unwrap_or_default();
        calls += 1;
        if ours == recorded {
            agreed += 1;
        } else {
            println!("{query}\n  ours:     {ours}\n  recorded: {recorded}");
        }
    }
    println!("recorded: {agreed} of {calls} queries parse or fail as they did");
    assert!(agreed >= AGREED_MIN.min(calls), "only {agreed}");
}

#[test]
fn scripts_print_back() {
    let scripts = common::scripts();
    if scripts.is_empty() {
        println!(
            "skipped: no scripts in {}",
            common::promqltest_folder().display()
        );
        return;
    }
    let mut queries = 0;
    let mut failures = Vec::new();
    for (name, text) in scripts {
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("eval"))
        {
            let query = query_of(line);
            queries += 1;
            failures.extend(
                round_trip(query)
                    .err()
                    .map(|e| format!("{name}: {query}: {e}")),
            );
        }
    }
    println!(
        "scripts: {} of {queries} queries print back",
        queries - failures.len()
    );
    assert!(failures.is_empty(), "{failures:#?}");
}

/// The query of an `eval` line.
fn query_of(line: &str) -> &str {
    let words_before = if line.contains(" range from ") { 8 } else { 4 };
    let mut rest = line;
    for _ in 0..words_before {
        rest = rest
            .split_once(char::is_whitespace)
            .map_or("", |(_, rest)| rest.trim_start());
    }
    rest
}

/// Parses, prints and parses again; an error says what went wrong.
fn round_trip(query: &str) -> Result<(), String> {
    let expr = parse_expr(query).map_err(|e| e.to_string())?;
    common::tree::round_trip(&expr)
}
