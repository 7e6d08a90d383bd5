//! Time limits, callers who leave, stores that fail, and what is counted of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use isobar_model::Budget;
use isobar_promql::limits::Limits;
use isobar_query::engine::Config;

use crate::fixture::{Memory, Mood, NOW_MS, SHORT, Server};

async fn check(server: &Server, path: &str, status: u16, kind: &str, text: &str) {
    let answer = server.get(path).await;
    let json = answer.json();
    assert_eq!(
        (answer.status.as_u16(), &json["errorType"], &json["error"]),
        (status, &kind.into(), &text.into())
    );
}

fn metrics(server: &Server) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &server.registry).expect("a text");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_store_ends_at_the_time_limit() {
    let config = Config {
        timeout: SHORT,
        ..Config::default()
    };
    let server = Server::with(Memory::in_mood(1, Mood::Stuck), config, 1);
    let text = "query timed out in expression evaluation";
    check(&server, "/api/v1/query?query=m", 503, "timeout", text).await;
    // The only thread is free again soon.
    let begun = Instant::now();
    check(
        &server,
        "/api/v1/query?query=m&timeout=0.1",
        503,
        "timeout",
        text,
    )
    .await;
    assert_eq!(server.get("/api/v1/query?query=1").await.status, 200);
    check(
        &server,
        "/api/v1/series?match[]=m",
        503,
        "timeout",
        "query timed out in select",
    )
    .await;
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_buffer_of_a_query_is_reserved() {
    // Each budget is too small for what is named. The store gives one series at a time.
    for (limit, path, who) in [
        (128, "query?query=count(m)", "a batch of series"),
        (
            4 << 10,
            "query?query=count(m)&dedup=true&replicaLabels[]=i",
            "the series of a selector with replicas",
        ),
        (4 << 10, "series?match[]=m", "series and names"),
        (4 << 10, "label/i/values", "series and names"),
        (160 << 10, "query?query=vector(1)", "the text of the answer"),
        (
            160 << 10,
            "query?query=m%20==%201",
            "the text of the answer",
        ),
    ] {
        let limits = Limits {
            memory: Budget::new("the memory of all queries", limit),
            ..Limits::default()
        };
        let memory = Arc::clone(&limits.memory);
        let config = Config {
            limits,
            ..Config::default()
        };
        let server = Server::with(Memory::hour(1_000), config, 1);
        let answer = server.get(&format!("/api/v1/{path}")).await;
        let json = answer.json();
        let error = json["error"].as_str().unwrap_or_default();
        assert_eq!(
            (answer.status.as_u16(), &json["errorType"]),
            (422, &"execution".into()),
            "{path}: {error}"
        );
        assert!(
            error.contains(&format!("{who} asked for")),
            "{path}: {error}"
        );
        assert_eq!(memory.held(), 0, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_in_memory_are_reserved_as_long_as_they_are_kept() {
    // Chunks take some 1.8 kB of each of the 1,000 series, all else some 300 bytes.
    let replicas = "count(m)&dedup=true&replicaLabels[]=r";
    for (query, limit, status) in [
        ("count(m)", 512 << 10, 200),
        ("sum(m)%20/%20count(m)", 4 << 20, 200),
        ("sum(m)%20/%20count(m)", 1 << 20, 422),
        (replicas, 4 << 20, 200),
        (replicas, 1 << 20, 422),
    ] {
        let limits = Limits {
            memory: Budget::new("the memory of all queries", limit),
            ..Limits::default()
        };
        let memory = Arc::clone(&limits.memory);
        let config = Config {
            limits,
            ..Config::default()
        };
        let server = Server::with(Memory::noisy_hour(1_000), config, 1);
        let answer = server.get(&format!("/api/v1/query?query={query}")).await;
        let text = answer.json().to_string();
        assert_eq!(answer.status, status, "{query} with {limit} bytes: {text}");
        assert_eq!(memory.held(), 0, "{query}");
        assert!(limit < 4 << 20 || memory.peak() > 1_800_000, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_holds_its_memory_until_it_is_read() {
    let config = Config::default();
    let memory = Arc::clone(&config.limits.memory);
    let server = Server::with(Memory::hour(2_000), config, 1);
    let path = "/api/v1/query_range?query=m&start=0&end=10&step=15";
    let path = path
        .replace("start=0", &format!("start={}", (NOW_MS - 3_600_000) / 1000))
        .replace("end=10", &format!("end={}", NOW_MS / 1000));
    let response = server.begin(&path).await;
    // 2,000 series of 240 values.
    assert!(memory.held() > 2_000 * 240 * 8, "{}", memory.held());
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    assert!(body.expect("a whole body").len() > 2 << 20);
    assert_eq!(memory.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_leaves_frees_the_thread() {
    let server = Server::with(Memory::in_mood(1, Mood::Stuck), Config::default(), 1);
    let left = tokio::time::timeout(SHORT, server.get("/api/v1/query?query=m")).await;
    assert!(left.is_err());
    let left = tokio::time::timeout(SHORT, server.get("/api/v1/series?match[]=m")).await;
    assert!(left.is_err());
    let answer = tokio::time::timeout(SHORT * 30, server.get("/api/v1/query?query=1")).await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_wait_for_their_turn_no_longer_than_their_time() {
    let config = Config {
        timeout: SHORT * 4,
        concurrent_max: 1,
        ..Config::default()
    };
    let server = Server::with(Memory::in_mood(1, Mood::Stuck), config, 2);
    let first = server.get("/api/v1/query?query=m");
    let second = async {
        tokio::time::sleep(SHORT).await;
        let text = "query timed out in query queue";
        check(
            &server,
            "/api/v1/query?query=1&timeout=0.1",
            503,
            "timeout",
            text,
        )
        .await;
    };
    let (first, ()) = futures::join!(first, second);
    assert_eq!(first.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_who_reads_slowly_holds_no_thread() {
    let server = Server::with(Memory::hour(3_000), Config::default(), 1);
    let path = "/api/v1/query_range?query=m&start=1700046000&end=1700049600&step=60";
    let mut body = server.begin(path).await.into_body().into_data_stream();
    let mut read = body
        .next()
        .await
        .expect("a piece")
        .expect("no error")
        .to_vec();
    // The only thread answers others while most of the first answer is not written yet.
    for _ in 0..3 {
        assert_eq!(server.get("/api/v1/query?query=1").await.status, 200);
    }
    assert!(
        read.len() < 100_000,
        "{} bytes in the first piece",
        read.len()
    );
    while let Some(piece) = body.next().await {
        read.extend_from_slice(&piece.expect("no error"));
    }
    assert!(read == server.get(path).await.body);
}

#[tokio::test]
async fn no_time_at_all_is_too_little() {
    let server = Server::new(Memory::hour(1));
    for timeout in ["0", "-1", "0s", "NaN"] {
        let path = format!("/api/v1/query?query=1&timeout={timeout}");
        let text = "query timed out in query queue";
        check(&server, &path, 503, "timeout", text).await;
    }
}

#[tokio::test]
async fn an_unreachable_store_is_named() {
    let server = Server::new(Memory::in_mood(1, Mood::Unreachable));
    for path in [
        "query?query=m",
        "series?match[]=m",
        "labels",
        "label/i/values",
    ] {
        let path = format!("/api/v1/{path}");
        check(&server, &path, 503, "unavailable", "store x is away").await;
    }
}

#[tokio::test]
async fn nothing_is_answered_before_and_after() {
    let server = Server::new(Memory::hour(1));
    server.readiness.set_stopping();
    for path in ["/-/ready", "/api/v1/query?query=1"] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (503, "Service Unavailable".into())
        );
        assert_eq!(answer.headers["x-prometheus-stopping"], "true");
    }
    assert_eq!(
        server.get("/-/healthy").await.text(),
        "Prometheus Server is Healthy.\n"
    );
}

#[tokio::test]
async fn requests_and_queries_are_counted() {
    let server = Server::new(Memory::hour(3));
    server.get("/api/v1/query?query=m").await;
    server.get("/api/v1/query?query=m%7B").await;
    server.get("/api/v1/label/i/values").await;
    server.get("/nothing/at/all").await;
    let text = metrics(&server);
    for line in [
        r#"http_requests_total{code="200",handler="query",method="get"} 1"#,
        r#"http_requests_total{code="400",handler="query",method="get"} 1"#,
        r#"http_requests_total{code="200",handler="label_values",method="get"} 1"#,
        r#"http_requests_total{code="404",handler="unknown",method="get"} 1"#,
        r#"http_request_duration_seconds_count{code="200",handler="query",method="get"} 1"#,
        "prometheus_engine_queries 0",
        "prometheus_engine_queries_concurrent_max 20",
        "prometheus_engine_query_samples_total 3",
        r#"prometheus_engine_query_duration_histogram_seconds_count{slice="inner_eval"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
