//! Prometheus 3.14's answers to 4,984 generated queries over one block, held against ours.
//!
//! The block and the answers lie in `../shared/contract/promql` (its page says how they were
//! made). The queries go through parser, planner and evaluator; the block is read by `tsdb`.
//! Without the folder the test is skipped.

#[path = "recorded/block.rs"]
mod block;
#[path = "recorded/compare.rs"]
mod compare;

use std::collections::BTreeMap;
use std::path::Path;

use isobar_promql::eval::{EvalError, evaluate};
use isobar_promql::features::Features;
use isobar_promql::limits::{CancelToken, Limits};
use isobar_promql::parse::parse_expr;
use isobar_promql::plan::{PlanError, PlanParams, plan};
use isobar_promql::value::QueryResult;
use serde_json::Value as Json;

use block::Block;

/// How many of the answers are met: all of them.
const MET_MIN: usize = 4_984;

/// The type of an error in the API, and its text.
type Refusal = (&'static str, String);

#[test]
fn prometheus_answers_are_met() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/contract/promql");
    let Ok(answers) = std::fs::read_to_string(Path::new(dir).join("answers.jsonl")) else {
        println!("skipped: {dir} not found");
        return;
    };
    let block = Block::open_in(&Path::new(dir).join("data"));
    let (met, report) = check(&block, &answers, Features::default());
    println!("{report}");
    println!("recorded: {met} of {} answers met", answers.lines().count());
    assert!(met >= MET_MIN, "{met} answers met, {MET_MIN} before");
}

/// Prometheus 3.14 with feature `use-start-timestamps` over a block that it wrote with start times.
#[test]
fn start_times_count_as_in_prometheus() {
    let dir = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tsdb/tests/golden/start_times/block"
    );
    let answers = include_str!("recorded/start_times.jsonl");
    let features = Features {
        start_timestamps: true,
        ..Features::default()
    };
    let (met, report) = check(&Block::open(Path::new(dir)), answers, features);
    assert_eq!(met, answers.lines().count(), "{report}");
}

/// Asks all queries, and says how many answers are met and what differs.
fn check(block: &Block, answers: &str, features: Features) -> (usize, String) {
    let mut misses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut met = 0;
    for line in answers.lines() {
        let recorded: Json = serde_json::from_str(line).expect("an answer a line");
        match compare::compare(&recorded, ask(block, &recorded, features)) {
            Ok(()) => met += 1,
            Err(why) => {
                let kind = why.split(':').next().unwrap_or_default().to_owned();
                misses
                    .entry(kind)
                    .or_default()
                    .push(format!("{}: {why}", recorded["params"]));
            }
        }
    }
    let kinds = misses.iter().map(|(kind, queries)| {
        let count = queries.len();
        format!("{count} × {kind}, such as {}\n", queries[0])
    });
    (met, kinds.collect())
}

/// Our answer to a recorded request.
fn ask(block: &Block, recorded: &Json, features: Features) -> Result<QueryResult, Refusal> {
    let params = &recorded["params"];
    let text = |name: &str| params[name].as_str().unwrap_or_default();
    let query = text("query");
    let (start_ms, end_ms, step_ms) = match recorded["path"].as_str() {
        Some("/api/v1/query_range") => (ms(text("start")), ms(text("end")), ms(text("step"))),
        _ => (ms(text("time")), ms(text("time")), 0),
    };
    let bad_data = |why: String| ("bad_data", format!("invalid parameter \"query\": {why}"));
    let expr = parse_expr(query).map_err(|e| bad_data(e.to_string()))?;
    let params = PlanParams {
        query,
        start_ms,
        end_ms,
        step_ms,
        features,
        ..PlanParams::default()
    };
    let plan = plan(&expr, &params).map_err(|e| match e {
        PlanError::Invalid(why) => bad_data(why),
        PlanError::Execution(why) => ("execution", why),
        PlanError::Unsupported(why) => ("not evaluated yet", why),
    })?;
    evaluate(&plan, block, &Limits::default(), &CancelToken::default()).map_err(|e| match e {
        EvalError::Unsupported(why) => ("not evaluated yet", why),
        e => ("execution", e.to_string()),
    })
}

/// Seconds, as the API takes them, in milliseconds.
fn ms(seconds: &str) -> i64 {
    (seconds.parse::<f64>().expect("seconds") * 1000.0).round() as i64
}
