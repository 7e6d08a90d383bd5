//! Against a server that answers what a test says.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use isobar_proto::prometheus::{Chunk, ChunkedReadResponse, ChunkedSeries};
use isobar_proto::thanos::Label;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::frames::tests::frame;
use super::*;
use crate::api::SeriesBatch;

const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// What a path answers.
#[derive(Clone)]
struct Answer {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
    /// How many bytes less than all are sent before the connection is closed.
    missing: usize,
    /// Whether the connection stays open, without another byte, instead.
    hangs: bool,
}

fn text(body: &str) -> Answer {
    Answer {
        status: 200,
        kind: "application/json",
        body: body.into(),
        missing: 0,
        hangs: false,
    }
}

fn data(json: &str) -> Answer {
    text(&format!(r#"{{"status":"success","data":{json}}}"#))
}

fn stream(body: Vec<u8>) -> Answer {
    Answer {
        kind: STREAMED,
        body,
        ..text("")
    }
}

/// Serves one request a connection, until the test ends; when a client leaves one that hangs, that is
/// told.
struct Server {
    url: String,
    left: tokio::sync::mpsc::Receiver<()>,
    asked: Arc<parking_lot::Mutex<Vec<String>>>,
}

async fn serve(answers: &[(&str, Answer)]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let answers: HashMap<String, Answer> = answers
        .iter()
        .map(|(path, answer)| ((*path).to_owned(), answer.clone()))
        .collect();
    let (leaving, left) = tokio::sync::mpsc::channel(8);
    let asked: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (answers, leaving) = (answers.clone(), leaving.clone());
            tokio::spawn(answer_one(connection, answers, leaving, Arc::clone(&seen)));
        }
    });
    Server { url, left, asked }
}

async fn answer_one(
    mut connection: TcpStream,
    answers: HashMap<String, Answer>,
    leaving: tokio::sync::mpsc::Sender<()>,
    asked: Arc<parking_lot::Mutex<Vec<String>>>,
) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if connection.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let target = request.split(' ').nth(1).unwrap_or("").to_owned();
    let path = target.split('?').next().unwrap_or("").to_owned();
    asked.lock().push(target);
    let missing = Answer {
        status: 404,
        ..text("404 page not found")
    };
    let answer = answers.get(&path).cloned().unwrap_or(missing);
    let head = format!(
        "HTTP/1.1 {} x\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.status,
        answer.kind,
        answer.body.len()
    );
    let sent = &answer.body[..answer.body.len() - answer.missing];
    // A client that is gone is part of some tests.
    let _gone = connection
        .write_all(&[head.as_bytes(), sent].concat())
        .await;
    if answer.hangs {
        let mut rest = Vec::new();
        let _closed = connection.read_to_end(&mut rest).await;
        let _told = leaving.send(()).await;
    }
}

/// A frame with one series: labels as `a=1,b=2`, and a chunk that begins at `min_ms`.
fn one(labels: &str, min_ms: i64) -> Vec<u8> {
    let labels = labels.split(',').map(|pair| {
        let (name, value) = pair.split_once('=').expect("a pair");
        Label {
            name: name.into(),
            value: value.into(),
        }
    });
    let chunk = Chunk {
        min_time_ms: min_ms,
        max_time_ms: min_ms + 9,
        r#type: 1,
        data: bytes::Bytes::from_static(b"\0\x01x"),
    };
    let message = ChunkedReadResponse {
        chunked_series: vec![ChunkedSeries {
            labels: labels.collect(),
            chunks: vec![chunk],
        }],
        query_index: 0,
    };
    frame(&message.encode_to_vec())
}

/// What a Prometheus with external label `cluster="us"` and these label names says of itself.
fn about(names: &str) -> Vec<(&'static str, Answer)> {
    let yaml = r#"{"yaml":"global:\n  external_labels:\n    cluster: us\n"}"#;
    vec![
        ("/api/v1/status/config", data(yaml)),
        ("/api/v1/status/buildinfo", data(r#"{"version":"3.14.0"}"#)),
        (
            "/metrics",
            text("prometheus_tsdb_lowest_timestamp_seconds 0.005\n"),
        ),
        ("/api/v1/labels", data(names)),
    ]
}

async fn store(server: &Server) -> PrometheusStore {
    let client = Client::new(&server.url, HttpClientConfig::default()).expect("a client");
    let peer = Peer::new(client, || i64::MIN);
    peer.refresh_version().await.expect("a version");
    peer.refresh().await.expect("known");
    let pool = Arc::new(Pool::new("test", 1, 16).expect("a pool"));
    PrometheusStore::new(
        Arc::new(peer),
        pool,
        None,
        Handle::current(),
        Arc::new(|_| {}),
    )
}

fn request() -> SeriesRequest {
    SeriesRequest::new(
        vec![Matcher::equal("__name__", "up")],
        TimeRange::new(0, 100),
    )
}

/// Series as `{labels} first times of chunks`, remarks, or the error.
async fn told(mut series: SeriesStream) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(batch) = series.next().await {
        match batch {
            Ok(SeriesBatch::Series(batch)) => lines.extend(batch.iter().map(|it| {
                let times: Vec<i64> = it.chunks.iter().map(|chunk| chunk.min_ms).collect();
                format!("{} {times:?}", it.labels)
            })),
            Ok(SeriesBatch::Warnings(it)) => lines.extend(it.warnings().iter().cloned()),
            Err(error) => lines.push(format!("{error:?}")),
        }
    }
    lines
}

#[tokio::test]
async fn series_in_the_order_of_all_labels() {
    let body = [
        one("__name__=up,cluster=us", 5),
        one("__name__=up,a=1,cluster=us", 5),
        one("__name__=up,a=1,cluster=us", 20),
        one("__name__=up,cluster=us,z=1", 6),
    ];
    let mut answers = about(r#"["__name__","a","z"]"#);
    answers.push(("/api/v1/read", stream(body.concat())));
    let server = serve(&answers).await;
    let store = store(&server).await;
    let expected = [
        "{__name__=\"up\", a=\"1\", cluster=\"us\"} [5, 20]",
        "{__name__=\"up\", cluster=\"us\"} [5]",
        "{__name__=\"up\", cluster=\"us\", z=\"1\"} [6]",
    ];
    assert_eq!(told(store.series(request())).await, expected);
    let without = SeriesRequest {
        without_labels: vec!["cluster".into()],
        ..request()
    };
    let expected = [
        "{__name__=\"up\"} [5]",
        "{__name__=\"up\", a=\"1\"} [5, 20]",
        "{__name__=\"up\", z=\"1\"} [6]",
    ];
    assert_eq!(told(store.series(without)).await, expected);
}

#[tokio::test]
async fn external_labels_win_over_those_of_series() {
    let body = [
        one("__name__=up,cluster=eu,z=1", 7),
        one("__name__=up,cluster=us,a=1", 5),
        one("__name__=up,cluster=us,z=1", 6),
    ];
    let mut answers = about(r#"["__name__","a","cluster","z"]"#);
    answers.push(("/api/v1/read", stream(body.concat())));
    let server = serve(&answers).await;
    let expected = [
        "{__name__=\"up\", a=\"1\", cluster=\"us\"} [5]",
        "{__name__=\"up\", cluster=\"us\", z=\"1\"} [6, 7]",
    ];
    assert_eq!(told(store(&server).await.series(request())).await, expected);
}

#[tokio::test]
async fn matchers_on_external_labels_are_answered_here() {
    let server = serve(&about("[]")).await;
    let store = store(&server).await;
    let ask = |matchers| {
        let request = SeriesRequest {
            matchers,
            ..request()
        };
        told(store.series(request))
    };
    assert!(ask(vec![Matcher::equal("cluster", "eu")]).await.is_empty());
    let only = ask(vec![Matcher::equal("cluster", "us")]).await;
    assert_eq!(
        only,
        ["Invalid(\"no matchers specified (excluding external labels)\")"]
    );
    assert!(!server.asked.lock().iter().any(|it| it.contains("read")));
}

#[tokio::test]
async fn faults_are_told_apart() {
    let good = one("__name__=up,cluster=us", 5);
    let mut broken = good.clone();
    if let Some(last) = broken.last_mut() {
        *last ^= 1;
    }
    let refused = |status, body: &str| Answer {
        status,
        ..text(body)
    };
    let cases = [
        (stream(broken), "Corrupt"),
        (
            stream(good[..good.len() - 1].to_vec()),
            "in the middle of a frame",
        ),
        (
            Answer {
                missing: 3,
                ..stream(good.clone())
            },
            "broke off",
        ),
        (refused(500, "on fire"), "status 500: on fire"),
        (refused(400, "exceeded sample limit (5)"), "LimitExceeded"),
        (refused(400, "no such matcher"), "Invalid"),
        (text("<html>"), "content type \\\"application/json\\\""),
        (stream(frame(b"\xff\xff")), "Corrupt"),
    ];
    for (answer, expected) in cases {
        let mut answers = about("[\"__name__\"]");
        answers.push(("/api/v1/read", answer));
        let server = serve(&answers).await;
        let lines = told(store(&server).await.series(request())).await;
        let last = lines.last().expect("an error");
        assert!(last.contains(expected), "{expected}: {lines:?}");
    }
}

#[tokio::test]
async fn who_stops_reading_stops_asking() {
    let mut answers = about("[\"__name__\"]");
    let body = [
        one("__name__=a,cluster=us,z=1", 5),
        one("__name__=b,cluster=us,z=1", 5),
        vec![1],
    ];
    let hangs = Answer {
        missing: 1,
        hangs: true,
        ..stream(body.concat())
    };
    answers.push(("/api/v1/read", hangs));
    let mut server = serve(&answers).await;
    let mut series = store(&server).await.series(request());
    let first = series.next().await.expect("a batch").expect("series");
    assert!(matches!(first, SeriesBatch::Series(_)));
    drop(series);
    let left = tokio::time::timeout(Duration::from_secs(30), server.left.recv());
    assert_eq!(left.await.expect("the connection is closed"), Some(()));
}

#[tokio::test]
async fn labels_of_its_api() {
    let mut answers = about(r#"["__name__","job"]"#);
    answers.push(("/api/v1/label/job/values", data(r#"["b","a"]"#)));
    let sets = r#"[{"__name__":"up","job":"b"},{"__name__":"up","job":"a","cluster":"eu"}]"#;
    answers.push(("/api/v1/series", data(sets)));
    let server = serve(&answers).await;
    let store = store(&server).await;
    let all = |matchers| LabelsRequest::new(matchers, TimeRange::new(0, 100));
    let up = || vec![Matcher::equal("__name__", "up")];
    let names = |request| async { store.label_names(request).await.expect("names").values };
    let values = |name: &str, request| {
        let values = store.label_values(name.to_owned(), request);
        async { values.await.map(|it| it.values) }
    };
    assert_eq!(names(all(up())).await, ["__name__", "cluster", "job"]);
    assert_eq!(
        values("job", all(vec![])).await.expect("values"),
        ["a", "b"]
    );
    assert_eq!(values("cluster", all(up())).await.expect("values"), ["us"]);
    let elsewhere = vec![Matcher::equal("cluster", "eu")];
    assert!(names(all(elsewhere)).await.is_empty());
    let error = values("", all(vec![])).await.expect_err("no name");
    assert_eq!(error.to_string(), "label name parameter cannot be empty");
    let skip = |limit| SeriesRequest {
        skip_chunks: true,
        limit,
        ..request()
    };
    let expected = [
        "{__name__=\"up\", cluster=\"us\", job=\"a\"} []",
        "{__name__=\"up\", cluster=\"us\", job=\"b\"} []",
    ];
    assert_eq!(told(store.series(skip(0))).await, expected);
    let cut = told(store.series(skip(1))).await;
    assert_eq!(cut, [expected[0], "results truncated due to limit"]);
    let asked = server.asked.lock();
    let last = asked.last().expect("asked");
    assert!(last.ends_with("start=0.005&end=0.100&limit=2"), "{last}");
}

#[tokio::test]
async fn what_it_holds() {
    let server = serve(&about("[]")).await;
    let info = store(&server).await.info();
    let range = TimeRange::new(5, i64::MAX);
    assert_eq!(info.range, Some(range));
    let labels = Labels::from_pairs([("cluster", "us")]);
    assert_eq!(info.sets, [StoredSet { labels, range }]);
}
