//! kill -9 while samples come in: what was acknowledged is there afterwards, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{Server, columns, labels};

const KILLS: u64 = 20;
const SERIES: usize = 50;
const BASE_MS: i64 = 1_700_000_000_000;
const INTERVAL_MS: i64 = 1000;

/// The value of series `series` at step `step`; no two are alike, so that an invented or
/// misplaced sample shows.
fn value(series: usize, step: i64) -> f64 {
    (step * 1000) as f64 + series as f64
}

/// Which steps were sent and which of them acknowledged.
#[derive(Default)]
struct Sent {
    steps: i64,
    acknowledged: BTreeSet<i64>,
}

#[test]
fn acknowledged_samples_survive_kills() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut sent = Sent::default();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..KILLS {
        let mut server = Server::isobar(&data, &["--no-self-monitoring"]);
        check(&server, &sent, round);
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let delay = Duration::from_millis(100 + (seed >> 32 & 0xff));
        let pid = server.process.id();
        std::thread::scope(|scope| {
            scope.spawn(|| send_until_cut(&server, &mut sent));
            std::thread::park_timeout(delay);
            let killed = std::process::Command::new("kill")
                .args(["-9", &pid.to_string()])
                .status();
            assert!(killed.unwrap().success());
        });
        server.process.wait();
    }
    check(
        &Server::isobar(&data, &["--no-self-monitoring"]),
        &sent,
        KILLS,
    );
    assert!(
        sent.acknowledged.len() as u64 > KILLS,
        "hardly anything was acknowledged"
    );
    println!(
        "{} steps sent, {} acknowledged",
        sent.steps,
        sent.acknowledged.len()
    );
}

/// Sends step after step until the connection breaks.
fn send_until_cut(server: &Server, sent: &mut Sent) {
    loop {
        sent.steps += 1;
        let time_ms = BASE_MS + sent.steps * INTERVAL_MS;
        let batch: Vec<_> = (0..SERIES)
            .map(|s| {
                (
                    labels("m", "series", &s.to_string()),
                    columns(&[(time_ms, value(s, sent.steps))]),
                )
            })
            .collect();
        match server.write(&batch) {
            Ok((204, _)) => sent.acknowledged.insert(sent.steps),
            Ok((status, text)) => panic!("step {}: {status} {text}", sent.steps),
            Err(_) => return,
        };
    }
}

fn check(server: &Server, sent: &Sent, round: u64) {
    let end = ((BASE_MS + sent.steps * INTERVAL_MS) / 1000 + 1).to_string();
    let answer = server.query("m[1w]", &end);
    let series = answer["result"].as_array().unwrap();
    if !sent.acknowledged.is_empty() {
        assert_eq!(series.len(), SERIES, "round {round}");
    }
    for one in series {
        let number: usize = one["metric"]["series"].as_str().unwrap().parse().unwrap();
        let mut there = BTreeSet::new();
        for sample in one["values"].as_array().unwrap() {
            let time_ms = (sample[0].as_f64().unwrap() * 1000.0).round() as i64;
            let step = (time_ms - BASE_MS) / INTERVAL_MS;
            assert!(
                (1..=sent.steps).contains(&step),
                "round {round}: step {step} was invented"
            );
            let got: f64 = sample[1].as_str().unwrap().parse().unwrap();
            assert_eq!(
                got,
                value(number, step),
                "round {round}: series {number} step {step}"
            );
            there.insert(step);
        }
        let lost: Vec<_> = sent.acknowledged.difference(&there).collect();
        assert!(
            lost.is_empty(),
            "round {round}: series {number} lost acknowledged steps {lost:?}"
        );
    }
}
