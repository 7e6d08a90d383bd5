//! What a new user does with `isobar standalone`.

use std::process::Command;

use crate::harness::{Server, client, columns, eventually, labels};

#[test]
fn starts_empty_and_soon_has_its_own_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::isobar(&dir.path().join("data"), &[]);

    let page = server.get("/", &[]).text().unwrap();
    assert!(
        page.contains("isobar standalone") && page.contains("/api/v1/write"),
        "{page}"
    );
    assert_eq!(server.get("/-/healthy", &[]).status(), 200);
    assert_eq!(server.get("/nothing", &[]).status(), 404);

    let up = eventually("own metrics", || {
        let answer = server.api("/api/v1/query", &[("query", "up{job=\"isobar\"}")]);
        answer["data"]["result"].get(0).cloned()
    });
    assert_eq!(up["value"][1], "1");
    assert_eq!(
        server.process.terminate(),
        Some(0),
        "{}",
        server.process.log()
    );
}

#[test]
fn metrics_in_both_formats() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::isobar(&dir.path().join("data"), &["--no-self-monitoring"]);
    let classic = server.get("/metrics", &[]);
    assert_eq!(
        classic.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = classic.text().unwrap();
    assert!(
        text.contains("# TYPE process_cpu_seconds_total counter"),
        "{text}"
    );
    let modern = client()
        .get(format!("{}/metrics", server.url))
        .header(
            "Accept",
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
        )
        .send()
        .unwrap();
    assert!(
        modern.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let text = modern.text().unwrap();
    assert!(
        text.contains("# TYPE process_cpu_seconds counter") && text.ends_with("# EOF\n"),
        "{text}"
    );
}

#[test]
fn takes_last_years_data_and_keeps_it_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let flags = ["--no-self-monitoring"];
    let mut server = Server::isobar(&data, &flags);
    let samples = columns(&[(1_600_000_000_000, 1.0), (1_600_000_015_000, 2.5)]);
    let written = server
        .write(&[(labels("old", "job", "x"), samples)])
        .unwrap();
    assert_eq!(written, (204, String::new()));
    let before = server.query("old[1h]", "1600000020");
    assert_eq!(before["result"][0]["values"].as_array().unwrap().len(), 2);
    assert_eq!(server.process.terminate(), Some(0));
    let server = Server::isobar(&data, &flags);
    assert_eq!(server.query("old[1h]", "1600000020"), before);
}

#[test]
fn refuses_bad_series_by_name_and_stores_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::isobar(&dir.path().join("data"), &["--no-self-monitoring"]);
    let t = 1_600_000_000_000;
    let nameless = isobar_model::Labels::from_pairs([("job", "nameless")]);
    let (status, text) = server
        .write(&[
            (nameless, columns(&[(t, 1.0)])),
            (labels("good", "job", "x"), columns(&[(t, 1.0)])),
        ])
        .unwrap();
    assert_eq!(status, 400);
    assert!(
        text.contains("no metric name") && text.contains("nameless"),
        "{text}"
    );
    assert_eq!(
        server.query("good", "1600000000")["result"][0]["value"][1],
        "1"
    );

    let (status, text) = server
        .write(&[(labels("good", "job", "x"), columns(&[(t, 2.0)]))])
        .unwrap();
    assert_eq!(status, 400);
    assert!(text.contains("duplicate sample for timestamp"), "{text}");
    let (status, _) = server
        .write(&[(labels("good", "job", "x"), columns(&[(t, 1.0)]))])
        .unwrap();
    assert_eq!(status, 204, "the same sample again is a success");
    let (status, text) = server
        .write(&[(
            labels("good", "job", "x"),
            columns(&[(t - 3 * 3_600_000, 1.0), (t - 60_000, 1.0)]),
        )])
        .unwrap();
    assert_eq!(status, 400);
    assert!(text.contains("too old sample"), "{text}");
    let result = server.query("count_over_time(good[1d])", "1600000000");
    assert_eq!(result["result"][0]["value"][1], "2", "late but not too old");
}

#[test]
fn urls_may_be_sent_as_people_type_them() {
    use std::io::{Read, Write};

    let dir = tempfile::tempdir().unwrap();
    let server = Server::isobar(&dir.path().join("data"), &["--no-self-monitoring"]);
    let address = server.url.strip_prefix("http://").unwrap();
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    let request =
        "GET /api/v1/query?query=\"a|<b>{}\" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"a|\\u003cb\\u003e{}\""),
        "{answer}"
    );
}

#[test]
fn wrong_flags_are_explained() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_isobar"))
            .args(args)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, text) = run(&["standalone", "--data-dri=x"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("--data-dir"), "{text}");
    let (code, text) = run(&["standalone", "--http-address=nowhere"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("--http-address"), "{text}");
    let (code, text) = run(&["standalone", "--tsdb.retention=soon"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("15d"), "{text}");
    assert_eq!(run(&[]).0, Some(2));
}
