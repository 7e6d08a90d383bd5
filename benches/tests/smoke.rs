//! The whole comparison at toy size, so that it does not rot: real servers, 200 series, five minutes of
//! data. Asserts what does not depend on the machine: every server can read every sample that it took,
//! and Isobar answers the fixed queries as Prometheus does. The figures themselves are not looked at.

use std::path::Path;
use std::process::Command;

#[test]
fn every_sample_arrives_and_the_answers_agree() {
    let versus = Path::new(env!("CARGO_BIN_EXE_versus"));
    let isobar = versus.with_file_name("isobar");
    let prometheus = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|it| it.join("prometheus"))
            .find(|it| it.is_file())
    });
    for (name, found) in [
        ("isobar, which `cargo build` makes", isobar.is_file()),
        ("prometheus", prometheus.is_some()),
    ] {
        if !found {
            let required = std::env::var_os("ISOBAR_REQUIRE_PEERS").is_some_and(|it| it == "1");
            assert!(!required, "{name}: not found, and ISOBAR_REQUIRE_PEERS=1");
            println!("skipped: {name} not found");
            return;
        }
    }
    let output = Command::new(versus)
        .arg("--smoke")
        .output()
        .expect("run versus");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{}\n{stderr}\n{stdout}",
        output.status
    );
    assert!(stdout.contains("| prometheus ÷ isobar |"), "{stdout}");
}
