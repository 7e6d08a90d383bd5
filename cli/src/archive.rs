//! What the bucket of `isobar standalone` holds, read back: blocks that left the local disk are served from
//! there. A bucket that nobody else looks after is kept within bounds, too.
//!
//! A local block may go when this has seen it in the bucket ([`Archive::holds`]). While retention removes
//! blocks, all of the bucket are served, so that none is missing for a moment; at other times those that
//! are on the local disk are left out, since what is read twice gives the same answer more slowly.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use isobar_model::{Budget, Clock, Labels, Matcher, TimeRange, Warnings};
use isobar_store::api::{
    LabelsRequest, Names, SelectEstimate, SeriesBatch, SeriesRequest, SeriesStream, Store,
    StoreError, StoreInfo,
};
use isobar_store::block::expiry::{Expiry, Kept, Local, Retention};
use isobar_store::block::fetch::Partial;
use isobar_store::block::{FetchOptions, Fetched, Fetcher, Filters, Freshness, Summary};
use isobar_store::bucket::Bucket;
use isobar_store::cache::remote::Remote;
use isobar_store::cache::{CacheConfig, PageCache};
use isobar_store::compute::Pool;
use isobar_store::gateway::{Gateway, GatewayConfig};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use ulid::Ulid;

use crate::ship::TENANT_LABEL;

/// Where that lies.
const CACHE_DIR: &str = "isobar-bucket";
/// Most pieces of work that wait for a compute thread.
const WAITING_MAX: usize = 4096;
/// What one request may take of the memory of all, as one part of so many.
const REQUEST_SHARE: u64 = 2;

/// The blocks that were seen in the bucket.
pub(crate) type InBucket = Arc<RwLock<HashSet<Ulid>>>;

/// The bucket as a store.
pub(crate) struct Archive {
    store: ArchiveStore,
    clock: Clock,
    fetcher: Mutex<Fetcher>,
    fetched: RwLock<Option<Vec<Summary>>>,
    in_bucket: InBucket,
    own: Option<Mutex<Own>>,
}

/// A bucket that nobody else looks after.
struct Own {
    expiry: Expiry,
    /// What there was at the last look.
    blocks: Vec<Kept>,
}

impl Archive {
    /// Reads from `bucket`. What was read is kept below `data_dir` and in memory as `cache` says, and
    /// `budget` is where the memory of requests comes from.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(crate) fn new(
        bucket: &Bucket,
        data_dir: &Path,
        cache: CacheConfig,
        budget: Arc<Budget>,
        runtime: Handle,
        clock: Clock,
        in_bucket: InBucket,
    ) -> anyhow::Result<Self> {
        let dir = data_dir.join(CACHE_DIR);
        let cache = PageCache::open(cache, &dir.join("pages"))
            .with_context(|| format!("cache of the bucket in {}", dir.display()))?;
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let pool = Pool::new("bucket", threads, WAITING_MAX).context("start compute threads")?;
        let config = GatewayConfig {
            request_bytes: budget.limit() / REQUEST_SHARE,
            ..GatewayConfig::new(&dir)
        };
        let remote = Remote::new(Arc::clone(&bucket.store), runtime);
        let gateway = Gateway::new(config, remote, Arc::new(cache), Arc::new(pool), budget);
        let options = FetchOptions {
            data_dir: Some(dir),
            ..FetchOptions::default()
        };
        Ok(Archive {
            store: ArchiveStore {
                gateway,
                bucket: bucket.name.as_str().into(),
                times: Arc::default(),
            },
            clock,
            fetcher: Mutex::new(Fetcher::new(Arc::clone(&bucket.store), options)),
            fetched: RwLock::default(),
            in_bucket,
            own: None,
        })
    }

    /// Keeps what `retention` says in a bucket that nobody else looks after.
    pub(crate) fn keeping(mut self, bucket: &Bucket, retention: Retention) -> Self {
        self.own = Some(Mutex::new(Own {
            expiry: Expiry::new(Arc::clone(&bucket.store), retention),
            blocks: Vec::new(),
        }));
        self
    }

    /// The store that queries ask.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    /// Looks which blocks there are. What cannot be seen stays as it was.
    pub(crate) async fn look(&self) {
        let fetched = match self.fetcher.lock().await.fetch(Freshness::Known).await {
            Ok(fetched) => fetched,
            Err(error) => {
                tracing::warn!(%error, bucket = &*self.store.bucket, "the bucket cannot be listed, trying again later");
                return;
            }
        };
        if let Some(own) = &self.own {
            own.lock().await.blocks = kept(&fetched);
        }
        let Fetched { failed, .. } = &fetched;
        for (block, why) in failed {
            tracing::warn!(%block, why, "a block in the bucket cannot be looked at, trying again later");
        }
        let filters = Filters {
            deduplicate: true,
            ..Filters::default()
        };
        let (taken, _counts) = fetched.select(&filters, self.clock.now_ms());
        let known: Vec<Summary> = taken.iter().map(|it| as_served(&it.meta)).collect();
        *self.in_bucket.write() = known.iter().map(|block| block.id).collect();
        *self.fetched.write() = Some(known);
    }

    /// Serves the blocks that are not on the local disk, and removes those that retention does not keep
    /// when the bucket has nobody else for that.
    pub(crate) async fn serve_beside(&self, local: &Local) {
        let mut elsewhere = local.blocks.clone();
        let Some(own) = &self.own else {
            self.serve_but(&elsewhere);
            return;
        };
        let mut own = own.lock().await;
        let Own { expiry, blocks } = &mut *own;
        let now_ms = self.clock.now_ms();
        expiry.choose(blocks, local, now_ms);
        let leaving = blocks.iter().map(|block| block.id);
        elsewhere.extend(leaving.filter(|block| expiry.leaves(*block)));
        self.serve_but(&elsewhere);
        expiry.remove(now_ms).await;
    }

    /// Serves the blocks of the bucket but those in `elsewhere`.
    pub(crate) fn serve_but(&self, elsewhere: &HashSet<Ulid>) {
        let fetched = self.fetched.read();
        let Some(fetched) = &*fetched else { return };
        let served = || {
            fetched
                .iter()
                .filter(|block| !elsewhere.contains(&block.id))
        };
        self.store.gateway.set_blocks(served());
        let range = served().map(Summary::range).reduce(|a, b| a.union(&b));
        *self.store.times.write() = Times::Known(range);
    }
}

/// What retention looks at.
fn kept(fetched: &Fetched) -> Vec<Kept> {
    let whole = fetched.blocks.iter().map(|block| Kept {
        id: block.meta.id,
        owner: block.meta.labels.to_string(),
        end_ms: Some(block.meta.end_ms),
        bytes: block.meta.segment_bytes + block.meta.index_bytes.unwrap_or(0),
    });
    let begun = fetched.partial.iter();
    let begun = begun.filter(|(_, why)| matches!(why, Partial::NoMeta));
    let begun = begun.map(|(id, _)| Kept {
        id: *id,
        owner: String::new(),
        end_ms: None,
        bytes: 0,
    });
    whole.chain(begun).collect()
}

/// Queries of a standalone show no label that tells tenants apart, whether a block is local or not. A
/// block that has no other external label was shipped by a standalone.
fn as_served(known: &Summary) -> Summary {
    let mut served = known.clone();
    if known.labels.len() == 1 && known.labels.has(TENANT_LABEL) {
        served.labels = Labels::empty();
    }
    served
}

/// The gateway, which is asked for its times with every query. Until the bucket was seen for the first
/// time, every answer says that something may be missing.
#[derive(Clone)]
struct ArchiveStore {
    gateway: Gateway,
    bucket: Arc<str>,
    times: Arc<RwLock<Times>>,
}

/// For which times the bucket has blocks that are served from there.
#[derive(Debug, Clone, Copy, Default)]
enum Times {
    /// Nobody knows yet.
    #[default]
    Unknown,
    /// These; `None` when there is no block.
    Known(Option<TimeRange>),
}

impl ArchiveStore {
    fn missing(&self) -> Option<Warnings> {
        match *self.times.read() {
            Times::Known(_) => None,
            Times::Unknown => {
                let mut warnings = Warnings::default();
                warnings.warn(format!(
                    "bucket {} could not be looked at yet: blocks in it are left out",
                    self.bucket
                ));
                Some(warnings)
            }
        }
    }

    fn with_missing(
        &self,
        names: BoxFuture<'static, Result<Names, StoreError>>,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        let missing = self.missing();
        async move {
            let mut names = names.await?;
            missing.into_iter().for_each(|it| names.warnings.merge(it));
            Ok(names)
        }
        .boxed()
    }
}

impl Store for ArchiveStore {
    fn info(&self) -> StoreInfo {
        self.gateway.info()
    }

    fn range(&self) -> Option<TimeRange> {
        match *self.times.read() {
            Times::Unknown => Some(TimeRange::ALL),
            Times::Known(range) => range,
        }
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        let missing = self.missing();
        let missing = missing.map(|it| Ok(SeriesBatch::Warnings(it)));
        stream::iter(missing)
            .chain(self.gateway.series(request))
            .boxed()
    }

    fn estimate(&self, matchers: &[Matcher], range: TimeRange) -> Option<SelectEstimate> {
        self.gateway.estimate(matchers, range)
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        self.with_missing(self.gateway.label_names(request))
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        self.with_missing(self.gateway.label_values(name, request))
    }
}
