//! A gateway over real blocks in a bucket in memory, compared with readers of the blocks on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures::executor::block_on;
use isobar_model::MatchOp;
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::block::BlockReader;
use isobar_tsdb::chunks::Chunk;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;

use super::*;
use crate::block::Meta;

mod acceptance;
mod counting;
mod faults;
mod random;
mod seeded;
mod watched;

/// A bucket with some blocks, and where they lie on disk.
pub(super) struct Fixture {
    pub(super) runtime: Runtime,
    pub(super) store: Arc<InMemory>,
    pub(super) metas: Vec<Meta>,
    pub(super) readers: Vec<Arc<BlockReader>>,
    pub(super) data_dir: tempfile::TempDir,
}

pub(super) fn shared(folder: &str) -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/contract"
    ))
    .join(folder)
}

impl Fixture {
    /// The blocks of a folder of the contract; nothing when it is not there.
    pub(super) fn contract(folder: &str) -> Option<Self> {
        let Ok(entries) = std::fs::read_dir(shared(folder)) else {
            println!("skipped: {} not found", shared(folder).display());
            return None;
        };
        let dirs = entries.map(|it| it.unwrap().path());
        let mut dirs: Vec<PathBuf> = dirs.filter(|it| it.join("meta.json").is_file()).collect();
        dirs.sort();
        Some(Fixture::of(dirs))
    }

    pub(super) fn of(dirs: Vec<PathBuf>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let store = Arc::new(InMemory::new());
        let mut metas = Vec::new();
        for dir in &dirs {
            let json = std::fs::read(dir.join("meta.json")).unwrap();
            let meta = Meta::decode("meta.json", &json).unwrap();
            let mut files = vec!["meta.json".to_owned(), "index".to_owned()];
            for segment in std::fs::read_dir(dir.join("chunks")).unwrap() {
                let name = segment.unwrap().file_name();
                files.push(format!("chunks/{}", name.to_str().unwrap()));
            }
            for file in files {
                let bytes = std::fs::read(dir.join(&file)).unwrap();
                let path = crate::block::paths::file(meta.id(), &file);
                block_on(store.put(&path, bytes.into())).unwrap();
            }
            metas.push(meta);
        }
        let data_dir = tempfile::tempdir().unwrap();
        Fixture {
            runtime,
            store,
            metas,
            readers: dirs
                .iter()
                .map(|dir| BlockReader::open(dir).unwrap())
                .collect(),
            data_dir,
        }
    }

    pub(super) fn config(&self) -> GatewayConfig {
        GatewayConfig::new(self.data_dir.path())
    }

    pub(super) fn gateway(&self, config: GatewayConfig) -> Gateway {
        self.gateway_over(config, Arc::clone(&self.store) as Arc<dyn ObjectStore>)
    }

    pub(super) fn gateway_over(
        &self,
        config: GatewayConfig,
        store: Arc<dyn ObjectStore>,
    ) -> Gateway {
        let remote = Remote::new(store, self.runtime.handle().clone());
        let cache = Arc::new(PageCache::in_memory(64 << 20));
        let pool = Arc::new(Pool::new("gateway", 2, 1000).unwrap());
        let budget = Budget::new("the memory of the gateway", 1 << 30);
        let gateway = Gateway::new(config, remote, cache, pool, budget);
        gateway.set_blocks(&self.known());
        gateway
    }

    /// What a gateway is told of the blocks.
    pub(super) fn known(&self) -> Vec<Summary> {
        self.metas.iter().map(Summary::of).collect()
    }

    /// What the blocks on disk say.
    pub(super) fn naive(&self, gateway: &Gateway, request: &SeriesRequest) -> Vec<SeriesChunks> {
        let mut all: BTreeMap<Labels, Vec<Chunk>> = BTreeMap::new();
        for set in &gateway.inner.catalog().sets {
            let Some(matchers) = set.inner_matchers(&request.matchers) else {
                continue;
            };
            for block in set.choose(request.range, request.resolution_ms_max) {
                if !choose::named(&block, &request.block_matchers) {
                    continue;
                }
                let at = self
                    .metas
                    .iter()
                    .position(|it| it.id() == block.id)
                    .unwrap();
                for series in self.readers[at].select(&matchers, request.range).unwrap() {
                    let series = series.unwrap();
                    let mut labels = LabelsBuilder::new(&series.labels);
                    set.labels.iter().for_each(|(name, value)| {
                        labels.set(name, value);
                    });
                    request.without_labels.iter().for_each(|name| {
                        labels.remove(name);
                    });
                    all.entry(labels.build()).or_default().extend(series.chunks);
                }
            }
        }
        let merged = all.into_iter().map(|(labels, mut chunks)| {
            chunks.sort_by_key(|it| it.min_ms);
            chunks.dedup();
            if request.skip_chunks {
                chunks.clear();
            }
            SeriesChunks::mapped(labels, chunks)
        });
        let most = if request.limit == 0 {
            usize::MAX
        } else {
            request.limit
        };
        merged.take(most).collect()
    }
}

/// All series and remarks of a stream.
pub(super) fn drain(stream: SeriesStream) -> Result<(Vec<SeriesChunks>, Vec<String>), StoreError> {
    let mut all = Vec::new();
    let mut remarks = Vec::new();
    for item in block_on(stream.collect::<Vec<_>>()) {
        match item? {
            SeriesBatch::Series(batch) => all.extend(batch),
            SeriesBatch::Warnings(warnings) => remarks.extend(warnings.warnings().to_vec()),
        }
    }
    Ok((all, remarks))
}

/// Matchers of a selector such as `a=b,c!~d`.
pub(super) fn matchers(selector: &str) -> Vec<Matcher> {
    let operators = [
        ("!~", MatchOp::NotRegexp),
        ("=~", MatchOp::Regexp),
        ("!=", MatchOp::NotEqual),
        ("=", MatchOp::Equal),
    ];
    let matcher = |text: &str| {
        let (name, op, value) = operators
            .into_iter()
            .find_map(|(sign, op)| text.split_once(sign).map(|(name, value)| (name, op, value)))
            .unwrap();
        Matcher::new(name, op, value).unwrap()
    };
    selector
        .split(',')
        .filter(|it| !it.is_empty())
        .map(matcher)
        .collect()
}
