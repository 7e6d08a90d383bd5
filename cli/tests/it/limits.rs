//! What a tenant may write, as senders see it: 400 with the reason, 429, and what is counted.

use isobar_model::Labels;

use crate::harness::{Server, columns};

const NOW: i64 = 1_700_000_000_000;
const TENANT: &str = "tenant=\"default-tenant\"";

fn written(server: &Server, pairs: &[(&str, &str)], samples: i64) -> (u16, String) {
    let samples: Vec<(i64, f64)> = (0..samples).map(|i| (NOW + i, 1.0)).collect();
    let labels = Labels::from_pairs(pairs.iter().copied());
    server.write(&[(labels, columns(&samples))]).unwrap()
}

/// There is one of this metric with these labels.
fn assert_counted(server: &Server, metric: &str, labels: &[&str]) {
    let metrics = server.get("/metrics", &[]).text().unwrap();
    let counted = metrics.lines().any(|line| {
        let all = labels.iter().all(|label| line.contains(label));
        line.starts_with(&format!("{metric}{{")) && all && line.ends_with(" 1")
    });
    assert!(counted, "{metric} {labels:?} in\n{metrics}");
}

#[test]
fn a_new_series_beyond_a_limit_is_refused_by_name_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--no-self-monitoring",
        "--tsdb.max-series-per-tenant=3",
        "--tsdb.max-series-per-metric=2",
        "--tsdb.max-label-names-per-series=3",
        "--tsdb.max-length-label-name=10",
        "--tsdb.max-length-label-value=10",
    ];
    let server = Server::isobar(dir.path(), &flags);
    let name = ("__name__", "m");
    for n in ["1", "2"] {
        assert_eq!(written(&server, &[name, ("n", n)], 1).0, 204);
    }
    let refused: [(&[(&str, &str)], &str); 4] = [
        (&[name, ("n", "3")], "series_per_metric"),
        (&[name, ("a", "1"), ("b", "1"), ("c", "1")], "label_count"),
        (&[name, ("a_long_name", "1")], "label_name_length"),
        (&[name, ("n", "a long value")], "label_value_length"),
    ];
    let check = |pairs: &[(&str, &str)], reason: &str| {
        let (status, text) = written(&server, pairs, 1);
        assert_eq!(status, 400, "{text}");
        assert!(text.contains("refused"), "{text}");
        let reason = format!("reason=\"{reason}\"");
        assert_counted(
            &server,
            "isobar_ingest_rejected_samples_total",
            &[TENANT, &reason],
        );
    };
    for (pairs, reason) in refused {
        check(pairs, reason);
    }
    assert_eq!(written(&server, &[("__name__", "other")], 1).0, 204);
    check(&[("__name__", "another")], "series_per_tenant");
    // Who is there already lives on.
    assert_eq!(written(&server, &[name, ("n", "1")], 2).0, 204);
}

#[test]
fn who_writes_too_fast_is_told_so_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--no-self-monitoring",
        "--tsdb.ingestion-rate-limit=1",
        "--tsdb.ingestion-burst-size=10",
    ];
    let server = Server::isobar(dir.path(), &flags);
    // It may take more than there is, once: the debt of a thousand seconds is not paid in this test.
    let name = [("__name__", "m")];
    assert_eq!(written(&server, &name, 1000).0, 204);
    let (status, text) = written(&server, &name, 1);
    assert_eq!(status, 429, "{text}");
    assert_counted(
        &server,
        "isobar_ingest_rate_limited_requests_total",
        &[TENANT],
    );
    assert_counted(
        &server,
        "isobar_ingest_refused_requests_total",
        &["code=\"429\""],
    );
}
