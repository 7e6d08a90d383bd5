//! The comparisons at toy size, so that they do not rot: real servers and little data. Asserts what
//! does not depend on the machine: every server can read every sample that it took, and Isobar answers
//! as Prometheus does. The figures themselves are not looked at.

#![expect(clippy::print_stdout, reason = "says why a test was skipped")]

use std::path::{Path, PathBuf};
use std::process::Command;

use isobar_benches::host::in_path;

/// The built `isobar`, which lies beside our programs, and a Prometheus; `None` when one is missing and
/// may be.
fn peers(prometheus: Option<PathBuf>) -> Option<PathBuf> {
    let isobar = Path::new(env!("CARGO_BIN_EXE_versus")).with_file_name("isobar");
    for (name, found) in [
        ("isobar, which `cargo build` makes", isobar.is_file()),
        ("prometheus", prometheus.is_some()),
    ] {
        if !found {
            let required = std::env::var_os("ISOBAR_REQUIRE_PEERS").is_some_and(|it| it == "1");
            assert!(!required, "{name}: not found, and ISOBAR_REQUIRE_PEERS=1");
            println!("skipped: {name} not found");
            return None;
        }
    }
    prometheus
}

fn check(command: &mut Command, expected: &str) {
    let output = command.arg("--smoke").output().expect("run the program");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{}\n{stderr}\n{stdout}",
        output.status
    );
    assert!(stdout.contains(expected), "{stdout}");
}

#[test]
fn every_sample_arrives_and_the_answers_agree() {
    if peers(in_path("prometheus")).is_some() {
        check(
            &mut Command::new(env!("CARGO_BIN_EXE_versus")),
            "| prometheus ÷ isobar |",
        );
    }
}

/// Needs Prometheus 3.14 or later, at the path in `ISOBAR_PEER_PROMETHEUS`.
#[test]
fn the_engine_answers_the_cases_of_prometheus() {
    let Some(given) = std::env::var_os("ISOBAR_PEER_PROMETHEUS") else {
        println!("skipped: ISOBAR_PEER_PROMETHEUS is not set");
        return;
    };
    if let Some(prometheus) = peers(Some(given.into())) {
        let mut cases = Command::new(env!("CARGO_BIN_EXE_cases"));
        check(
            cases.arg("--prometheus").arg(prometheus),
            "219 of 219 answers are the same",
        );
    }
}
