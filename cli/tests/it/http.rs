//! The HTTP API of sidecar and store: the calls that were recorded of a real Thanos, marks for blocks, what is
//! counted and logged of requests.

use std::fs;
use std::path::Path;

use reqwest::blocking::Response;
use serde_json::{Value, json};

use crate::components::Component;
use crate::harness::{Server, client, peer};
use crate::peers::prometheus;

/// Headers that mean something to clients. Of the others, the answers here are not compressed, so `Vary`
/// has no meaning, and the recorder closed each connection.
const HEADERS: [&str; 6] = [
    "Content-Type",
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Origin",
    "Access-Control-Expose-Headers",
    "X-Content-Type-Options",
];

/// Calls that are answered otherwise, with the reason.
const OTHERWISE: [(&str, &str, u16, &str); 3] = [
    (
        "sidecar",
        "/api/v1/status/buildinfo",
        200,
        "a sidecar tells about itself what the other components tell",
    ),
    ("sidecar", "/api/v1/status/runtimeinfo", 200, "as above"),
    ("sidecar", "/api/v1/status/flags", 200, "as above"),
];

/// The recorded calls of a component; none, after saying so, where the recording is not there.
fn recorded(component: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/contract/http.jsonl");
    let Ok(text) = fs::read_to_string(&path) else {
        eprintln!("skipped: {} not found", path.display());
        return Vec::new();
    };
    let calls = text.lines().map(|it| serde_json::from_str(it).unwrap());
    let calls: Vec<Value> = calls
        .filter(|it: &Value| it["component"] == component)
        .collect();
    assert!(!calls.is_empty(), "no call of {component} is recorded");
    calls
}

fn replay(component: &str, server: &Server) {
    for call in recorded(component) {
        let path = call["path"].as_str().unwrap();
        assert_eq!(call["method"], "GET");
        assert_eq!(call["params"], json!([]));
        let response = server.get(path, &[]);
        let status = response.status().as_u16();
        let otherwise = OTHERWISE
            .iter()
            .find(|it| (it.0, it.1) == (component, path));
        if let Some((_, _, expected, reason)) = otherwise {
            assert_ne!(call["status"], json!(expected), "{path}: {reason}");
            assert_eq!(status, *expected, "{path}: {reason}");
            continue;
        }
        assert_eq!(json!(status), call["status"], "{component} {path}");
        for header in HEADERS {
            let ours = response
                .headers()
                .get(header)
                .map(|it| it.to_str().unwrap());
            let theirs = call["headers"][header].as_str();
            assert_eq!(ours, theirs, "{component} {path}: {header}");
        }
        compare(path, &response.text().unwrap(), &call["answer"]);
    }
}

/// The answers to `/api/v1/status/…` differ in values by their nature: they must have the same keys.
fn compare(path: &str, ours: &str, theirs: &Value) {
    let Some(data) = theirs.get("data") else {
        let text = theirs.as_str().map(str::to_owned);
        assert_eq!(ours, text.unwrap_or_else(|| theirs.to_string()), "{path}");
        return;
    };
    let ours: Value = serde_json::from_str(ours).unwrap();
    if !path.starts_with("/api/v1/status/") {
        return assert_eq!(ours, *theirs, "{path}");
    }
    assert_eq!(ours["status"], theirs["status"]);
    for (key, value) in data.as_object().unwrap() {
        let got = ours["data"].get(key);
        let got = got.unwrap_or_else(|| panic!("{path} has no {key}"));
        assert_eq!(got.is_string(), value.is_string(), "{path}: {key}");
        // Flags are shown as they were given, durations and sizes are not written anew.
        if value == "<REDACTED>" && key == "objstore.config" {
            assert_eq!(got, value, "{path}: {key}");
        }
    }
}

/// `isobar store` over an empty bucket in `dir`.
fn store(dir: &Path, flags: &[&str]) -> Component {
    let bucket = dir.join("bucket");
    fs::create_dir_all(&bucket).unwrap();
    let config = format!("{{type: FILESYSTEM, config: {{directory: {bucket:?}}}}}");
    Component::store(&config, &dir.join("data"), flags)
}

#[test]
fn recorded_calls_to_the_store() {
    let dir = tempfile::tempdir().unwrap();
    replay("store", &store(dir.path(), &[]).server);
}

#[test]
fn recorded_calls_to_the_sidecar() {
    let Some(binary) = peer("prometheus") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let config = "global: {external_labels: {cluster: us}}\n";
    let prometheus = prometheus(&binary, dir.path(), config, &[]);
    let secret = "--prometheus.http-client={basic_auth: {username: a, password: sesame}}";
    let sidecar = Component::sidecar(&prometheus.url, dir.path(), &[secret]);
    replay("sidecar", &sidecar.server);
    let flags = sidecar.server.api("/api/v1/status/flags", &[]);
    assert_eq!(flags["data"]["prometheus.http-client"], "<REDACTED>");
    assert!(!flags.to_string().contains("sesame"));
}

fn mark(server: &Server, params: &[(&str, &str)]) -> Response {
    let url = format!("{}/api/v1/blocks/mark", server.url);
    client().post(url).form(params).send().unwrap()
}

/// The status and the error of an answer.
fn refusal(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let answer: Value = response.json().unwrap();
    assert_eq!(
        (&answer["status"], &answer["errorType"]),
        (&json!("error"), &json!("bad_data"))
    );
    (status, answer["error"].as_str().unwrap().to_owned())
}

#[test]
fn blocks_are_marked() {
    const BLOCK: &str = "01M82RF2JJR508J39HE997YB64";
    let dir = tempfile::tempdir().unwrap();
    let block = dir.path().join("bucket").join(BLOCK);
    fs::create_dir_all(&block).unwrap();
    fs::write(block.join("index"), "").unwrap();
    let running = store(dir.path(), &[]);
    let server = &running.server;
    for (params, expected) in [
        (&[][..], "ID cannot be empty"),
        (&[("id", BLOCK)][..], "Action cannot be empty"),
        (
            &[("id", "x"), ("action", "DELETION")][..],
            "ULID \"x\" is not valid",
        ),
        (
            &[("id", BLOCK), ("action", "SOME")][..],
            "not supported marker SOME",
        ),
        // Thanos puts a mark there, and whoever looks then sees a block that is not there as a whole.
        (
            &[("id", "01M82RF2JJR508J39HE997YB65"), ("action", "DELETION")][..],
            "nothing of this block is in the bucket",
        ),
    ] {
        let (status, error) = refusal(mark(server, params));
        assert!(
            status == 400 && error.contains(expected),
            "{status} {error}"
        );
    }
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(block.join(name)).unwrap()).unwrap()
    };
    for (action, name, time) in [
        ("DELETION", "deletion-mark.json", "deletion_time"),
        ("NO_COMPACTION", "no-compact-mark.json", "no_compact_time"),
    ] {
        let params = [("id", BLOCK), ("action", action), ("detail", "so be it")];
        let answer: Value = mark(server, &params).json().unwrap();
        assert_eq!(answer, json!({"status": "success"}));
        let first = read(name);
        assert_eq!(
            (&first["id"], &first["version"]),
            (&json!(BLOCK), &json!(1))
        );
        assert_eq!(first["details"], "so be it");
        assert!(first[time].as_i64().unwrap() > 1_700_000_000);
        // What is marked stays so since when it is; parameters may stand in the URL.
        let url = format!(
            "{}/api/v1/blocks/mark?id={BLOCK}&action={action}",
            server.url
        );
        assert!(client().post(url).send().unwrap().status().is_success());
        assert_eq!(read(name), first);
    }
    assert_eq!(read("no-compact-mark.json")["reason"], "manual");
    drop(running);

    let running = store(dir.path(), &["--disable-admin-operations"]);
    let refused = refusal(mark(
        &running.server,
        &[("id", BLOCK), ("action", "DELETION")],
    ));
    assert_eq!(refused, (400, "Admin operations are disabled".to_owned()));
}

#[test]
fn requests_are_counted_and_logged_where_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let log = "--request.logging-config={options: {level: DEBUG, decision: {log_start: true, log_end: true}}, \
               http: {config: [{path: /api/v1/blocks}]}, \
               grpc: {config: [{service: thanos.info.Info, method: Info}]}}";
    let tracing = "--tracing.config={type: OTLP}";
    let running = store(dir.path(), &["--log.level=debug", log, tracing]);
    let server = &running.server;
    server.api("/api/v1/blocks", &[("view", "loaded")]);
    server.api("/api/v1/status/flags", &[]);
    refusal(mark(server, &[]));
    assert_eq!(server.get("/api/v1/nothing", &[]).status().as_u16(), 404);
    running.runtime.block_on(async {
        use isobar_proto::thanos::info::{InfoRequest, info_client::InfoClient};
        use isobar_proto::thanos::{LabelNamesRequest, store_client::StoreClient};
        let channel = running.channel.clone();
        InfoClient::new(channel.clone())
            .info(InfoRequest {})
            .await
            .unwrap();
        let request = LabelNamesRequest::default();
        StoreClient::new(channel)
            .label_names(request)
            .await
            .unwrap();
    });

    let metrics = server.get("/metrics", &[]).text().unwrap();
    for line in [
        "http_requests_total{code=\"200\",handler=\"blocks\",method=\"get\"} 1\n",
        "http_requests_total{code=\"400\",handler=\"blocks_mark\",method=\"post\"} 1\n",
        "http_request_duration_seconds_count{code=\"200\",handler=\"status_flags\",method=\"get\"} 1\n",
        "http_inflight_requests{handler=\"blocks\",method=\"get\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(!metrics.contains("nothing"));

    let log = server.process.log();
    assert!(
        log.contains("msg=\"a flag has no effect\" flag=tracing.config"),
        "{log}"
    );
    let calls: Vec<&str> = log.lines().filter(|it| it.contains("ed call\"")).collect();
    let part = |at: usize, parts: &[&str]| {
        let line = calls
            .get(at)
            .unwrap_or_else(|| panic!("{at} of {calls:#?}"));
        parts
            .iter()
            .for_each(|it| assert!(line.contains(it), "{it}: {line}"));
    };
    assert_eq!(calls.len(), 4, "{calls:#?}");
    let method = "http.method=\"GET /api/v1/blocks?view=loaded\"";
    part(
        0,
        &[
            "level=debug",
            "msg=\"started call\"",
            "protocol=http",
            method,
        ],
    );
    part(
        1,
        &[
            "msg=\"finished call\"",
            method,
            "http.status_code=200",
            "http.remote_addr=127.0.0.1:",
        ],
    );
    part(
        2,
        &[
            "started call",
            "protocol=grpc",
            "grpc.service=thanos.info.Info",
            "grpc.method=Info",
        ],
    );
    part(
        3,
        &[
            "finished call",
            "grpc.code=OK",
            "grpc.time_ms=",
            "peer.address=127.0.0.1:",
        ],
    );
}
