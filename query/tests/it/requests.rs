//! Parameters, methods, headers and limits.

use axum::body::Body;
use axum::http::{Method, Request, header};
use std::io::Read as _;

use crate::fixture::{Memory, NOW_MS, Server};

fn server() -> Server {
    Server::new(Memory::hour(5))
}

/// The body of a GET.
async fn check(path: &str, status: u16, expected: &str) {
    let answer = server().get(path).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (status, expected.into()),
        "{path}"
    );
}

fn success(data: &str) -> String {
    format!("{{\"status\":\"success\",\"data\":{data}}}")
}

fn error(kind: &str, text: &str) -> String {
    format!("{{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":\"{text}\"}}")
}

#[tokio::test]
async fn values_as_they_are_written() {
    check(
        "/api/v1/query?query=m{i=~%220000[12]%22}&time=1700049570.5",
        200,
        &success(concat!(
            r#"{"resultType":"vector","result":["#,
            r#"{"metric":{"__name__":"m","i":"00001"},"value":[1700049570.500,"1"]},"#,
            r#"{"metric":{"__name__":"m","i":"00002"},"value":[1700049570.500,"2"]}]}"#
        )),
    )
    .await;
    check(
        "/api/v1/query?query=1/0",
        200,
        &success(r#"{"resultType":"scalar","result":[1700049600,"+Inf"]}"#),
    )
    .await;
    check(
        "/api/v1/query_range?query=sum(m)/3&start=1700049500&end=1700049560&step=30s",
        200,
        &success(concat!(
            r#"{"resultType":"matrix","result":[{"metric":{},"values":["#,
            r#"[1700049500,"3.3333333333333335"],[1700049530,"3.3333333333333335"],"#,
            r#"[1700049560,"3.3333333333333335"]]}]}"#
        )),
    )
    .await;
}

#[tokio::test]
async fn refused_parameters() {
    let bad = |text: &str| error("bad_data", text);
    for (path, text) in [
        (
            "query?query=m&timeout=x",
            r#"invalid parameter \"timeout\": cannot parse \"x\" to a valid duration"#,
        ),
        (
            "query?query=m&lookback_delta=x",
            r#"error parsing lookback delta duration: cannot parse \"x\" to a valid duration"#,
        ),
        (
            "query?query=m&limit=-1",
            r#"invalid parameter \"limit\": limit must be non-negative"#,
        ),
        (
            "query_range?query=m",
            r#"invalid parameter \"start\": cannot parse \"\" to a valid timestamp"#,
        ),
        (
            "query_range?query=m&start=0&end=1&step=",
            r#"invalid parameter \"step\": cannot parse \"\" to a valid duration"#,
        ),
        (
            "query_range?query=m[5m]&start=0&end=1&step=1",
            r#"invalid parameter \"query\": invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"#,
        ),
        (
            "labels?match[]={}",
            "match[] must contain at least one non-empty matcher",
        ),
        (
            "series?match[]={i=~%22.*%22}",
            r#"invalid parameter \"match[]\": match[] must contain at least one non-empty matcher"#,
        ),
        (
            "series?match[]=m&x=%zz",
            r#"error parsing form values: invalid URL escape \"%zz\""#,
        ),
        ("label/%ff/values", r#"invalid label name: \"\\xff\""#),
        ("metadata?limit=x", "limit must be a number"),
        ("status/tsdb?limit=0", "limit must be a positive number"),
        ("status/tsdb?limit=10001", "limit must not exceed 10000"),
        (
            "query_exemplars?query=m&start=2&end=1",
            "end timestamp must not be before start timestamp",
        ),
    ] {
        check(&format!("/api/v1/{path}"), 400, &bad(text)).await;
    }
}

#[tokio::test]
async fn empty_and_unknown_parameters_are_none() {
    let path = "/api/v1/query?query=1&time=&timeout=&limit=&lookback_delta=&stats=&foo=bar";
    check(
        path,
        200,
        &success(r#"{"resultType":"scalar","result":[1700049600,"1"]}"#),
    )
    .await;
}

#[tokio::test]
async fn form_and_url_are_merged() {
    let request = Request::post("/api/v1/query?time=5&query=2")
        .header(
            header::CONTENT_TYPE,
            "application/x-www-form-urlencoded; charset=utf-8",
        )
        .body(Body::from("query=1"))
        .unwrap();
    let answer = server().send(request).await;
    assert_eq!(
        answer.text(),
        success(r#"{"resultType":"scalar","result":[5,"1"]}"#)
    );
}

#[tokio::test]
async fn forms_have_a_largest_size() {
    let request = Request::post("/api/v1/query")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(format!("query={}", "1".repeat(10 << 20))))
        .unwrap();
    let answer = server().send(request).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.text(),
        error(
            "bad_data",
            "error parsing form values: http: POST too large"
        )
    );
}

#[tokio::test]
async fn limits_cut_and_warn() {
    let truncated = |data: &str| {
        format!(
            "{{\"status\":\"success\",\"data\":{data},\"warnings\":[\"results truncated due to limit\"]}}"
        )
    };
    check(
        "/api/v1/label/i/values?limit=2",
        200,
        &truncated(r#"["00000","00001"]"#),
    )
    .await;
    check(
        "/api/v1/label/i/values?limit=5",
        200,
        &success(r#"["00000","00001","00002","00003","00004"]"#),
    )
    .await;
    check(
        "/api/v1/series?match[]=m&match[]={i=%2200000%22}&limit=1",
        200,
        &truncated(r#"[{"__name__":"m","i":"00000"}]"#),
    )
    .await;
    check(
        "/api/v1/series?match[]={i=%2200000%22}&match[]={i=~%220000[01]%22}",
        200,
        &success(r#"[{"__name__":"m","i":"00000"},{"__name__":"m","i":"00001"}]"#),
    )
    .await;
    check(
        "/api/v1/labels?match[]=m&match[]=none",
        200,
        &success(r#"["__name__","i"]"#),
    )
    .await;
    let answer = server()
        .get("/api/v1/query?query=m[1m]&limit=1")
        .await
        .json();
    assert_eq!(answer["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(answer["warnings"][0], "results truncated due to limit");
}

#[tokio::test]
async fn statistics_when_they_are_asked_for() {
    let json = server()
        .get("/api/v1/query?query=sum(m)&stats=x")
        .await
        .json();
    assert_eq!(json["data"]["stats"]["samples"]["totalQueryableSamples"], 5);
    assert_eq!(
        json["warnings"][0],
        "value \"x\" for parameter \"stats\" is deprecated and will be rejected in the next major \
         release, use \"true\" or \"all\""
    );
    assert!(
        server().get("/api/v1/query?query=1").await.json()["data"]
            .get("stats")
            .is_none()
    );
}

#[tokio::test]
async fn what_is_known_about_metrics() {
    let m = |help: &str| format!(r#"{{"type":"gauge","unit":"","help":"{help}"}}"#);
    let (first, second) = (m("First."), m("Second."));
    check(
        "/api/v1/metadata?metric=m",
        200,
        &success(&format!(r#"{{"m":[{second},{first}]}}"#)),
    )
    .await;
    check(
        "/api/v1/metadata?limit=1&limit_per_metric=1",
        200,
        &success(&format!(r#"{{"m":[{second}]}}"#)),
    )
    .await;
    check("/api/v1/metadata?limit=0", 200, &success("{}")).await;
    check("/api/v1/metadata?metric=none", 200, &success("{}")).await;
}

#[tokio::test]
async fn status_pages() {
    check(
        "/api/v1/status/flags",
        200,
        &success(r#"{"a":"1","b":"\u003c2\u003e"}"#),
    )
    .await;
    check(
        "/api/v1/status/tsdb?limit=13",
        500,
        &error("internal", "no luck"),
    )
    .await;
    let version = server().get("/version").await;
    assert!(
        version
            .text()
            .starts_with("{\"version\":\"1\",\"revision\":\"\"")
    );
    assert!(version.text().ends_with("}\n"));
}

#[tokio::test]
async fn methods_and_unknown_paths() {
    let server = server();
    let send = async |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        server.send(request).await
    };
    for (method, path, status, allow) in [
        ("HEAD", "/-/healthy", 200, ""),
        ("HEAD", "/-/ready", 200, ""),
        ("POST", "/-/ready", 405, "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/-/ready", 200, "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/version", 200, "GET, OPTIONS"),
        ("HEAD", "/api/v1/query", 405, "GET, OPTIONS, POST"),
        ("POST", "/api/v1/metadata", 200, ""),
        ("POST", "/api/v1/label/job/values", 200, ""),
        ("PUT", "/api/v1/metadata", 405, "GET, OPTIONS, POST"),
        ("OPTIONS", "/api/v1/query", 204, ""),
        ("OPTIONS", "/api/v1/whatever", 204, ""),
        ("GET", "/api/v1/whatever", 404, ""),
        ("GET", "/api/v1", 404, ""),
        ("GET", "/api/v1/label/values", 404, ""),
    ] {
        let answer = send(method, path).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        assert_eq!(answer.header(header::ALLOW), allow, "{method} {path}");
        if status == 404 {
            assert_eq!(answer.text(), "404 page not found\n");
        }
    }
}

#[tokio::test]
async fn any_origin_may_read() {
    let request = Request::builder()
        .method(Method::GET)
        .uri("/api/v1/query?query=1")
        .header(header::ORIGIN, "http://grafana")
        .body(Body::empty())
        .unwrap();
    let answer = server().send(request).await;
    assert_eq!(
        answer.header(header::ACCESS_CONTROL_ALLOW_ORIGIN),
        "http://grafana"
    );
    assert_eq!(
        answer.header(header::ACCESS_CONTROL_ALLOW_METHODS),
        "GET, POST, OPTIONS"
    );
    let vary: Vec<_> = answer.headers.get_all(header::VARY).iter().collect();
    assert_eq!(vary, ["Accept-Encoding", "Origin"]);
}

#[tokio::test]
async fn compressed_when_offered() {
    let server = Server::new(Memory::hour(3_000));
    let path = "/api/v1/query_range?query=m&start=1700046000&end=1700049600&step=60";
    let plain = server.get(path).await;
    assert!(plain.body.len() > 1 << 20 && plain.header(header::CONTENT_LENGTH).is_empty());
    let request = Request::get(path)
        .header(header::ACCEPT_ENCODING, "zstd, gzip, br")
        .body(Body::empty())
        .unwrap();
    let answer = server.send(request).await;
    assert_eq!(answer.header(header::CONTENT_ENCODING), "gzip");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&answer.body[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert!(unpacked == plain.body);
    let result = &plain.json()["data"]["result"];
    assert_eq!(result.as_array().unwrap().len(), 3_000);
    assert_eq!(result[7]["values"][0][0], (NOW_MS / 1000) - 3_600);
}
