//! Queries as deep as the parser lets them be are planned and evaluated on an ordinary stack.

mod common;

use common::memory::Memory;
use common::script::{self, Command};
use isobar_promql::eval::evaluate;
use isobar_promql::limits::{CancelToken, Limits};
use isobar_promql::parse::{DEPTH_MAX, HEIGHT_MAX, parse_expr};
use isobar_promql::plan::{PlanParams, plan};

/// Evaluates as an instant and as a range query with one series in memory.
fn check(query: String) {
    let evaluate = move || {
        let mut memory = Memory::default();
        for command in script::read("load 1m\n  a 1 2 3").expect("script") {
            if let Command::Load(load) = command {
                memory.load(&load);
            }
        }
        let expr = parse_expr(&query).expect("a query");
        for (end_ms, step_ms) in [(0, 0), (120_000, 60_000)] {
            let params = PlanParams {
                query: &query,
                end_ms,
                step_ms,
                ..PlanParams::default()
            };
            let plan = plan(&expr, &params).expect("a plan");
            evaluate(&plan, &memory, &Limits::default(), &CancelToken::default()).expect("a value");
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(evaluate)
        .expect("a thread");
    thread.join().expect("no panic");
}

fn nested(open: &str, close: &str, levels: usize) -> String {
    format!("{}a{}", open.repeat(levels), close.repeat(levels))
}

#[test]
fn nested_calls() {
    check(nested("abs(", ")", DEPTH_MAX - 2));
}

#[test]
fn nested_aggregations() {
    check(nested("sum(", ")", DEPTH_MAX - 2));
}

#[test]
fn nested_subqueries() {
    check(nested("sum_over_time(", "[1m:1m])", DEPTH_MAX - 2));
}

#[test]
fn signs() {
    check(nested("-", "", DEPTH_MAX - 2));
}

#[test]
fn nested_operations() {
    check(nested("a + (", ")", DEPTH_MAX / 2 - 2));
}

#[test]
fn chain_of_vectors() {
    check(vec!["a"; HEIGHT_MAX].join(" + "));
}

#[test]
fn chain_of_sets() {
    check(vec!["a"; HEIGHT_MAX].join(" or "));
}

#[test]
fn chain_of_scalars() {
    check(vec!["time()"; HEIGHT_MAX - 1].join(" + "));
}
