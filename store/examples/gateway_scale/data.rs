//! 10 blocks of 2 h of 100,000 series, each under the external labels of 20 clusters.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use isobar_model::Labels;
use isobar_store::block::Meta;
use isobar_store::block::meta::{File, Source};
use isobar_tsdb::block::{BlockMeta, BlockWriter};
use isobar_tsdb::chunks::{Chunk, XorAppender};
use ulid::Ulid;

use super::Result;

const METRICS: usize = 500;
const PODS: usize = 200;
const CLUSTERS: u64 = 20;
const BLOCKS: u64 = 10;
const BLOCK_MS: i64 = 7_200_000;
const STEP_MS: i64 = 60_000;

/// The first time of all blocks, unix milliseconds.
pub(super) const BEGIN_MS: i64 = 1_700_000_000_000 / BLOCK_MS * BLOCK_MS;
/// The time behind them.
pub(super) const END_MS: i64 = BEGIN_MS + BLOCKS as i64 * BLOCK_MS;

fn labels() -> Vec<Labels> {
    let series = |i: usize| {
        let (metric, pod) = (i / PODS, i % PODS);
        Labels::from_pairs([
            ("__name__", format!("metric_{metric:03}_total")),
            ("container", format!("app-{}", pod % 20)),
            ("instance", format!("10.0.{}.{}:9100", pod / 50, pod % 50)),
            ("job", "kubelet".into()),
            ("namespace", format!("team-{}", pod % 10)),
            ("node", format!("node-{:02}", pod % 24)),
            (
                "pod",
                format!("app-{}-7d9f8b6c5-{:05x}", pod % 20, pod * 7919),
            ),
        ])
    };
    let mut all: Vec<Labels> = (0..METRICS * PODS).map(series).collect();
    all.sort();
    all
}

/// One chunk, as Prometheus has it, of a counter that differs from series to series.
fn chunk(series: usize, from_ms: i64) -> Option<Chunk> {
    let mut value = (series * 31) as f64;
    let mut appender = XorAppender::new();
    for i in 0..BLOCK_MS / STEP_MS {
        value += ((i * 7 + series as i64 * 13) % 29) as f64;
        appender.append(from_ms + i * STEP_MS + (series as i64 % 7), value);
    }
    appender.into_chunk()
}

fn files_of(block: &Path) -> Result<Vec<File>> {
    let mut names = vec!["index".to_owned(), "meta.json".to_owned()];
    for segment in fs::read_dir(block.join("chunks"))? {
        let name = segment?.file_name();
        names.push(format!("chunks/{}", name.to_string_lossy()));
    }
    names.sort();
    let file = |name: String| {
        let bytes = fs::metadata(block.join(&name))?.len();
        Ok(File {
            size_bytes: if name == "meta.json" { 0 } else { bytes },
            rel_path: name,
            hash: None,
            other: serde_json::Map::new(),
        })
    };
    names.into_iter().map(file).collect()
}

/// Writes what is not there yet into `bucket` below `dir`, and gives the number of blocks.
pub(super) fn write(dir: &Path) -> Result<usize> {
    let (own, bucket) = (dir.join("own"), dir.join("bucket").join("blocks"));
    fs::create_dir_all(&own)?;
    fs::create_dir_all(&bucket)?;
    let mut all = Vec::new();
    for n in 0..BLOCKS {
        let ulid = Ulid::from_parts(1 + n, 7);
        let path = own.join(ulid.to_string());
        if !path.join("meta.json").exists() {
            if all.is_empty() {
                all = labels();
            }
            let texts = all.iter().flat_map(Labels::iter);
            let symbols: BTreeSet<&str> = texts.flat_map(|(name, value)| [name, value]).collect();
            let from_ms = BEGIN_MS + n as i64 * BLOCK_MS;
            let meta = BlockMeta::new(ulid, from_ms, from_ms + BLOCK_MS);
            let mut writer = BlockWriter::create(&own, meta, symbols.into_iter().map(Ok))?;
            for (i, labels) in all.iter().enumerate() {
                let chunk: Vec<Chunk> = chunk(i + n as usize, from_ms).into_iter().collect();
                writer.add(labels, &chunk)?;
            }
            writer.finish()?;
        }
        let meta = Meta::decode("meta.json", &fs::read(path.join("meta.json"))?)?;
        for cluster in 0..CLUSTERS {
            link(&path, &bucket, &meta, n, cluster)?;
        }
    }
    Ok(fs::read_dir(bucket)?.count())
}

/// The block in `path` under another name, with the external labels of a cluster.
fn link(path: &Path, bucket: &Path, meta: &Meta, n: u64, cluster: u64) -> Result<()> {
    let mut meta = meta.clone();
    meta.block.ulid = Ulid::from_parts(1_700_000_000_000 + n, u128::from(cluster) + 1);
    meta.block.compaction.sources = vec![meta.block.ulid];
    meta.thanos.source = Source::new(Source::SIDECAR);
    meta.thanos.files = files_of(path)?;
    for (name, value) in [
        ("cluster", format!("c{cluster:02}")),
        ("replica", "a".into()),
    ] {
        meta.thanos.labels.insert(name.to_owned(), value);
    }
    let linked = bucket.join(meta.block.ulid.to_string());
    if linked.join("meta.json").exists() {
        return Ok(());
    }
    fs::create_dir_all(linked.join("chunks"))?;
    for file in &meta.thanos.files {
        if file.rel_path != "meta.json" {
            fs::hard_link(path.join(&file.rel_path), linked.join(&file.rel_path))?;
        }
    }
    fs::write(linked.join("meta.json"), meta.encode())?;
    Ok(())
}
