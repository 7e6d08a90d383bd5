//! The suite that every store has to pass, put to real processes over the wire: `isobar sidecar` beside a real
//! Prometheus, and `isobar store` over a bucket. Both hold recorded blocks of real scrapes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobar_model::Labels;
use isobar_store::grpc::RemoteStore;
use isobar_store::testing::acceptance::{Subject, accept, held_in};
use serde_json::Value;

use crate::components::Component;
use crate::faults::copy_dir;
use crate::harness::peer;
use crate::peers::prometheus;

/// Two recorded blocks of one collector, one after the other; none, after saying so, where they are not there.
fn blocks() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/contract/ha");
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("skipped: {} not found", folder.display());
        return Vec::new();
    };
    let mut blocks: Vec<PathBuf> = entries.map(|it| it.unwrap().path()).collect();
    blocks.sort();
    let first = blocks.first().map(|it| external(it));
    blocks.retain(|it| Some(external(it)) == first);
    blocks.truncate(2);
    blocks
}

/// The external labels of a block.
fn external(block: &Path) -> Labels {
    let meta: Value = serde_json::from_slice(&fs::read(block.join("meta.json")).unwrap()).unwrap();
    let labels = meta["thanos"]["labels"].as_object().unwrap();
    let pairs = labels
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str().unwrap()));
    Labels::from_pairs(pairs)
}

fn check(component: &Component, blocks: &[PathBuf], external: Labels, refuses_everything: bool) {
    let remote = RemoteStore::new("test", component.channel.clone());
    component.runtime.block_on(async {
        remote.refresh().await.unwrap();
        let held = held_in(blocks, &external);
        assert!(held.len() > 100, "{}", held.len());
        let subject = Subject {
            store: Arc::new(remote),
            external,
            held,
            replica_labels: vec!["prometheus_replica".to_owned(), "job".to_owned()],
            refuses_everything,
            // Times are looked at by chunks and blocks.
            exact_times: false,
        };
        accept(&subject).await;
    });
}

#[test]
fn the_store_gateway() {
    let blocks = blocks();
    let Some(first) = blocks.first() else { return };
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("bucket");
    for block in &blocks {
        copy_dir(block, &bucket.join(block.file_name().unwrap()));
    }
    let config = format!("{{type: FILESYSTEM, config: {{directory: {bucket:?}}}}}");
    let store = Component::store(&config, &dir.path().join("data"), &[]);
    check(&store, &blocks, external(first), false);
}

#[test]
fn the_sidecar() {
    let blocks = blocks();
    let (Some(first), Some(binary)) = (blocks.first(), peer("prometheus")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for block in &blocks {
        let name = block.file_name().unwrap();
        copy_dir(block, &dir.path().join("prometheus").join(name));
    }
    let labels = external(first);
    let pairs: Vec<String> = labels.iter().map(|(n, v)| format!("{n}: '{v}'")).collect();
    let config = format!("global: {{external_labels: {{{}}}}}\n", pairs.join(", "));
    let flags = [
        "--storage.tsdb.min-block-duration=2h",
        "--storage.tsdb.max-block-duration=2h",
        "--storage.tsdb.retention.time=100y",
    ];
    let prometheus = prometheus(&binary, dir.path(), &config, &flags);
    let sidecar = Component::sidecar(&prometheus.url, dir.path(), &[]);
    check(&sidecar, &blocks, labels, true);
}
