//! Any text parses to a tree or to an error; what parses prints back to the same tree.
//!
//! Run with `cargo +nightly fuzz run parse` in `promql/`.
#![no_main]

#[path = "../../tests/common/tree.rs"]
mod tree;

use isobar_promql::parse::series::parse_series;
use isobar_promql::parse::{parse_expr, parse_metric_selector, pretty};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _selector = parse_metric_selector(&text).map_err(|e| e.to_string());
    let _series = parse_series(&text).map_err(|e| e.to_string());
    match parse_expr(&text) {
        Err(e) => assert!(e.span().start <= text.len(), "{e}"),
        Ok(expr) => {
            if let Err(e) = tree::round_trip(&expr) {
                panic!("{text}: {e}");
            }
            assert_eq!(
                parse_expr(&pretty(&expr)).is_ok(),
                parse_expr(&expr.to_string()).is_ok(),
                "{text}"
            );
        }
    }
});
