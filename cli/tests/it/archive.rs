//! A standalone with a bucket: blocks go there, leave the local disk, and are still answered.

use std::path::Path;

use serde_json::Value;

use crate::faults::copy_dir;
use crate::harness::{Server, client, eventually};

/// The names of all blocks in a directory.
fn blocks(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut blocks: Vec<String> = names
        .filter(|name| name.len() == 26 && dir.join(name).join("meta.json").exists())
        .collect();
    blocks.sort();
    blocks
}

fn ask(server: &Server, path: &str, query: &[(&str, &str)]) -> Value {
    let url = format!("{}{path}", server.url);
    let answer: Value = client()
        .get(url)
        .query(query)
        .send()
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(answer["status"], "success", "{answer}");
    assert!(answer.get("warnings").is_none(), "{answer}");
    answer["data"].clone()
}

/// Waits until answers do not say any more that blocks of the bucket are left out.
fn bucket_is_seen(server: &Server) {
    eventually("the bucket to be looked at", || {
        let url = format!("{}/api/v1/query?query=up", server.url);
        let answer: Value = client().get(url).send().unwrap().json().unwrap();
        answer.get("warnings").is_none().then_some(())
    });
}

/// What is asked before and after blocks have left the local disk.
fn answers(server: &Server) -> Vec<Value> {
    let end = "1700035200";
    let queries = [
        r#"count_over_time({__name__="demo_api_request_duration_seconds_count"}[12h])"#,
        "sum by (mode) (rate(demo_cpu_usage_seconds_total[12h]))",
        "last_over_time(up[9h])",
    ];
    let mut all: Vec<Value> = queries
        .iter()
        .map(|query| ask(server, "/api/v1/query", &[("query", query), ("time", end)]))
        .collect();
    let range = [("start", "1700006400"), ("end", end)];
    all.push(ask(server, "/api/v1/labels", &range));
    all.push(ask(server, "/api/v1/label/__name__/values", &range));
    all.push(ask(server, "/api/v1/label/instance/values", &range));
    all
}

/// Makes a block look as if a Prometheus had left it, without external labels, or as if it was cut here.
fn rewrite_meta(block: &Path, own: bool) {
    let path = block.join("meta.json");
    let mut meta: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    meta.as_object_mut().unwrap().remove("thanos");
    if own {
        meta["isobar"] = serde_json::json!({"tenant": "default-tenant"});
    }
    std::fs::write(&path, meta.to_string()).unwrap();
}

/// Blocks of half a day; nothing where they are not at hand.
fn some_blocks() -> Option<std::path::PathBuf> {
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/contract/ha");
    if !contract.exists() {
        eprintln!("skipped: {} not found", contract.display());
        return None;
    }
    Some(contract)
}

#[test]
fn without_a_named_bucket_old_blocks_go_to_a_directory_of_their_own() {
    let Some(contract) = some_blocks() else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let bucket = data.path().join("isobar-blocks");
    copy_dir(&contract, data.path());
    let all = blocks(data.path());
    // One was not cut here, and stays.
    let (foreign, own) = all.split_first().unwrap();
    rewrite_meta(&data.path().join(foreign), false);
    own.iter()
        .for_each(|block| rewrite_meta(&data.path().join(block), true));
    let flags = ["--no-self-monitoring", "--tsdb.local-retention=0s"];
    let server = Server::isobar(data.path(), &flags);
    // No answer lacks anything, not even the first.
    let before = answers(&server);
    eventually("all but a foreign block to leave the disk", || {
        let moved = blocks(&bucket) == own && blocks(data.path()) == [foreign.clone()];
        moved.then_some(())
    });
    assert_eq!(answers(&server), before);
    drop(server);

    // Without more it stays there for fifteen days, and a start finds it at once.
    let server = Server::isobar(data.path(), &["--no-self-monitoring"]);
    assert_eq!(answers(&server), before);
    assert_eq!(blocks(&bucket), own);
    drop(server);

    // What retention takes leaves the bucket when no query can be reading it.
    let flags = [
        "--no-self-monitoring",
        "--tsdb.retention=3h",
        "--query.timeout=1s",
    ];
    let server = Server::isobar(data.path(), &flags);
    let end = |block: &String| {
        let meta = std::fs::read(contract.join(block).join("meta.json")).unwrap();
        let meta: Value = serde_json::from_slice(&meta).unwrap();
        meta["maxTime"].as_i64().unwrap()
    };
    let newest = own.iter().map(end).max().unwrap();
    let kept = own.iter().filter(|it| newest - end(it) < 3 * 3_600_000);
    let kept: Vec<String> = kept.cloned().collect();
    assert!(!kept.is_empty() && kept.len() < own.len());
    eventually("old blocks to leave the bucket", || {
        let names = std::fs::read_dir(&bucket).unwrap();
        (blocks(&bucket) == kept && names.count() == kept.len()).then_some(())
    });
    let up = ask(
        &server,
        "/api/v1/query",
        &[("query", "last_over_time(up[2h])"), ("time", "1700035200")],
    );
    assert_ne!(up["result"], serde_json::json!([]));
}

#[test]
fn blocks_that_left_the_disk_are_read_from_the_bucket() {
    let Some(contract) = some_blocks() else {
        return;
    };
    let (data, bucket) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy_dir(&contract, data.path());
    let all = blocks(data.path());
    for block in &all {
        rewrite_meta(&data.path().join(block), false);
    }
    let config = format!(
        "--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}",
        bucket.path().display()
    );
    let flags = ["--no-self-monitoring", "--tsdb.retention=1h", &config];
    // Nothing is in the bucket yet, so nothing may go, whatever retention says.
    let server = Server::isobar(data.path(), &flags);
    bucket_is_seen(&server);
    let before = answers(&server);
    eventually("blocks to be in the bucket", || {
        (blocks(bucket.path()) == all).then_some(())
    });
    eventually("old blocks to leave the disk", || {
        let left = blocks(data.path()).len();
        assert!(left >= 1, "the newest block is not old");
        (left < all.len()).then_some(())
    });
    assert_eq!(answers(&server), before);
    drop(server);

    // And so after a start with what is left: until the bucket was looked at, an answer says what it lacks.
    let server = Server::isobar(data.path(), &flags);
    bucket_is_seen(&server);
    assert_eq!(answers(&server), before);
    drop(server);

    // A bucket that is away.
    let away = "--objstore.config={type: S3, config: {bucket: b, endpoint: \"127.0.0.1:1\", insecure: true, \
                access_key: a, secret_key: s}}";
    let server = Server::isobar(data.path(), &["--no-self-monitoring", away]);
    let url = format!(
        "{}/api/v1/query?query=last_over_time(up[2h])&time=1700035200",
        server.url
    );
    let answer: Value = client().get(url).send().unwrap().json().unwrap();
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.contains("blocks in it are left out"), "{answer}");
    assert_ne!(answer["data"]["result"], serde_json::json!([]), "{answer}");
}

#[test]
fn a_bucket_must_not_look_like_a_tenant() {
    let data = tempfile::tempdir().unwrap();
    for dir in [data.path().join("b"), data.path().to_owned()] {
        let config = format!(
            "--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}",
            dir.display()
        );
        let mut server = Server::isobar_unready(data.path(), &[&config]);
        assert_eq!(server.process.wait(), Some(1));
        let log = server.process.log();
        assert!(log.contains("lies in --data-dir"), "{log}");
    }
}

#[test]
fn deleting_does_not_go_with_a_bucket() {
    let data = tempfile::tempdir().unwrap();
    let flags = ["--web.enable-admin-api", "--objstore.config=type: MEMORY"];
    let mut server = Server::isobar_unready(data.path(), &flags);
    assert_eq!(server.process.wait(), Some(1));
    let log = server.process.log();
    assert!(
        log.contains("--web.enable-admin-api does not go with"),
        "{log}"
    );
}
