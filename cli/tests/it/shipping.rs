//! A story: blocks of the data directory are in the bucket soon after the start, once.

use std::path::Path;

use crate::harness::{Server, eventually};

/// A block of the tests of `tsdb`.
const BLOCK: &str = "prometheus-2.42/01M82RF2JJR508J39HE997YB64";

#[test]
fn standalone_ships_its_blocks() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tsdb/tests/golden");
    let name = BLOCK.split_once('/').unwrap().1;
    let (data, bucket) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = data.path().join(name);
    std::fs::create_dir_all(copy.join("chunks")).unwrap();
    for file in ["chunks/000001", "index", "meta.json"] {
        std::fs::copy(golden.join(BLOCK).join(file), copy.join(file)).unwrap();
    }
    let config = format!(
        "--objstore.config={{type: FILESYSTEM, config: {{directory: {:?}}}, prefix: a}}",
        bucket.path()
    );
    let mut server = Server::isobar(data.path(), &[&config]);
    let shipped = bucket.path().join("a").join(name);
    let meta = eventually("the block to be shipped", || {
        std::fs::read_to_string(shipped.join("meta.json")).ok()
    });
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    assert_eq!(meta["thanos"]["labels"]["tenant_id"], "default-tenant");
    assert_eq!(meta["thanos"]["source"], "receive");
    for file in ["chunks/000001", "index"] {
        let read = |directory: &Path| std::fs::read(directory.join(file)).unwrap();
        assert!(read(&shipped) == read(&copy), "{file}");
    }
    let noted = data.path().join("thanos.shipper.json");
    eventually("it to be noted", || {
        let text = std::fs::read_to_string(&noted).ok()?;
        text.contains(name).then_some(())
    });
    let metrics = server.get("/metrics", &[]).text().unwrap();
    for expected in [
        "thanos_shipper_uploads_total 1",
        "thanos_objstore_bucket_operation_failures_total",
    ] {
        assert!(metrics.contains(expected), "{expected}: {metrics}");
    }
    let flags = server.api("/api/v1/status/flags", &[]);
    assert_eq!(flags["data"]["objstore.config"], "<secret>");
    assert_eq!(server.process.terminate(), Some(0));
}
