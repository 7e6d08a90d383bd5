//! `isobar store`: the blocks of a bucket through the Store API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use isobar_model::{Budget, Clock};
use isobar_proto::thanos::info::info_server::InfoServer;
use isobar_proto::thanos::store_server::StoreServer;
use isobar_store::Store;
use isobar_store::block::relabel::{self, Action};
use isobar_store::block::{Discovery, FetchOptions, Fetcher, Filters, Freshness};
use isobar_store::bucket::Bucket;
use isobar_store::bucket::metered::BucketMetrics;
use isobar_store::cache::remote::Remote;
use isobar_store::cache::{CacheConfig, PageCache};
use isobar_store::compute::Pool;
use isobar_store::gateway::{Gateway, GatewayConfig, IN_FLIGHT_PART, Limits};
use isobar_store::grpc::{Apis, InfoService, RequestLimits, StoreService};
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tonic::service::Routes;

use crate::blocks::{BlocksApi, Loaded};
use crate::flags::content::ContentFlags;
use crate::flags::requests::RequestLogFlags;
use crate::flags::store::{DiscoveryWay, IndexCacheFlags, SelectorFlags, StoreFlags};
use crate::serve::common::{self, Common};
use crate::serve::{self, GrpcConfig};
use crate::shutdown::Shutdown;
use crate::telemetry::component::ComponentCollector;
use crate::telemetry::gateway::SyncMetrics;
use crate::telemetry::grpc::GrpcMetrics;
use crate::telemetry::http::HttpRequests;
use crate::telemetry::process;
use crate::telemetry::request_log::RequestLog;
use crate::telemetry::selects::MeasuredGateway;
use crate::telemetry::store::CountedStore;

/// Most pieces of work that wait for a compute thread.
const WAITING_MAX: usize = 4096;
/// The cache has at most so many sixteenths of `--memory.budget`, and so many are left to what nobody counts: the
/// program, the connections, and what the allocator keeps at hand.
const CACHE_PARTS: u64 = 5;
const UNCOUNTED_PARTS: u64 = 3;
/// One request may take the memory of all, divided by this, so that there is some left for others.
const REQUEST_PART: u64 = 2;
/// Threads that wait for files. As many as tokio has by default take 30 MB when they look at the metas of a
/// bucket in a directory, and are not faster.
const BLOCKING_THREADS_MAX: usize = 64;
/// How long a bucket that cannot be listed is left alone at the start.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// What relabeling rules may do when they choose blocks, as in Thanos.
const SELECTOR_ACTIONS: [Action; 4] =
    [Action::Keep, Action::Drop, Action::HashMod, Action::Replace];

/// Runs until a signal stops it.
///
/// # Errors
/// When the flags, the data directory or a socket cannot be used.
pub(crate) fn run(flags: StoreFlags, listed: BTreeMap<String, String>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("start the async runtime")?;
    process::return_idle_memory();
    runtime.block_on(async {
        let clock = Clock::system();
        let started_ms = clock.now_ms();
        let shutdown = Shutdown::on_signals()?;
        let mut registry = Registry::default();
        let pages = "what is read of the bucket is cached by pages";
        flags.caching_bucket.without_effect(pages);
        let parquet = "there are no Parquet blocks beside the others";
        flags.parquet_config.without_effect(parquet);
        let parts = Parts::new(&flags, &clock, &mut registry)?;
        let http = serve::bind(flags.http.http_address, "http-address").await?;
        let grpc_config = GrpcConfig::of(&flags.grpc)?;
        let protection = serve::Protection::of(&flags.http.web.http_config)?;
        registry.register_collector(Box::new(process::ProcessCollector::new(&clock)));
        let about = ComponentCollector::new("store", Arc::clone(&parts.ready));
        registry.register_collector(Box::new(about));
        let log = RequestLog::parse(flags.request_log.content()?.as_deref())
            .with_context(|| format!("--{}", RequestLogFlags::FLAG))?;
        let services = parts.services(&mut registry, log.clone());
        let requests = HttpRequests::new(&mut registry, log);
        let blocks = BlocksApi {
            loaded: Arc::clone(&parts.loaded),
            label: flags.bucket_web_label.clone().unwrap_or_default(),
            bucket: parts.bucket.clone(),
            clock: clock.clone(),
            may_mark: !flags.disable_admin_operations,
        };
        let router = common::router(
            Common {
                ready: Arc::clone(&parts.ready),
                registry: Arc::new(registry),
                flags: listed,
                started_ms,
                cors: !flags.disable_cors,
                requests,
            },
            blocks.router(),
        );
        let grace = flags.http.http_grace_period.0;
        // Whoever asks before the blocks are known would take an empty answer for a whole one.
        let asked = async {
            tokio::select! {
                () = parts.seen.notified() => {}
                () = shutdown.wait() => return Ok(()),
            }
            let grpc = serve::bind(flags.grpc.grpc_address, "grpc-address").await?;
            parts.ready.store(true, Ordering::Release);
            tracing::info!(
                blocks = parts.gateway.blocks().len(),
                took_ms = clock.now_ms() - started_ms,
                http = %flags.http.http_address,
                grpc = %flags.grpc.grpc_address,
                bucket = parts.bucket.name,
                version = env!("CARGO_PKG_VERSION"),
                "ready"
            );
            serve::grpc(grpc, services, grpc_config, shutdown.clone()).await
        };
        let refuse = async {
            shutdown.wait().await;
            parts.ready.store(false, Ordering::Release);
            Ok(())
        };
        let serving = async {
            let web = serve::http(http, router, &protection, shutdown.clone(), grace);
            tokio::try_join!(web, asked, refuse)
        };
        let result = tokio::select! {
            result = serving => result.map(|_| ()),
            () = parts.sync(&flags, &clock) => Ok(()),
        };
        shutdown.stop();
        tracing::info!("stopped");
        result
    })
}

/// The parts of the process, wired.
struct Parts {
    gateway: Gateway,
    /// Most requests for series that run at one time.
    concurrency: usize,
    bucket: Bucket,
    filters: BlockFilters,
    ready: Arc<AtomicBool>,
    loaded: Arc<RwLock<Loaded>>,
    /// Told when the bucket was looked at.
    seen: Notify,
    syncs: SyncMetrics,
}

/// The filters, whose times move with the clock.
struct BlockFilters {
    fixed: Filters,
    min: crate::flags::time::FlagTime,
    max: crate::flags::time::FlagTime,
}

impl BlockFilters {
    fn of(flags: &StoreFlags) -> anyhow::Result<Self> {
        let yaml = flags.relabel_config.content()?;
        let rules = yaml
            .map(|yaml| relabel::parse(&yaml, Some(&SELECTOR_ACTIONS)))
            .transpose();
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Ok(BlockFilters {
            fixed: Filters {
                rules: rules
                    .with_context(|| format!("--{}", SelectorFlags::FLAG))?
                    .unwrap_or_default(),
                consistency_delay_ms: millis(flags.consistency_delay.0),
                ignore_deletion_marks_delay_ms: Some(millis(flags.ignore_deletion_marks_delay.0)),
                deduplicate: true,
                ..Filters::default()
            },
            min: flags.min_time,
            max: flags.max_time,
        })
    }

    fn at(&self, now_ms: i64) -> Filters {
        Filters {
            min_ms: self.min.ms(now_ms),
            max_ms: self.max.ms(now_ms),
            ..self.fixed.clone()
        }
    }
}

impl Parts {
    fn new(flags: &StoreFlags, clock: &Clock, registry: &mut Registry) -> anyhow::Result<Self> {
        let Some(config) = flags.bucket.read()? else {
            bail!("no bucket is given: --objstore.config or --objstore.config-file is needed");
        };
        let bucket = Bucket::new(&config, &|name| std::env::var(name).ok())?;
        for remark in &bucket.remarks {
            tracing::warn!(flag = "objstore.config", "{remark}");
        }
        let bucket = BucketMetrics::new(registry).of(bucket, clock.clone());
        let now = clock.now_ms();
        if flags.min_time.ms(now) > flags.max_time.ms(now) {
            bail!(
                "--min-time={} is after --max-time={}",
                flags.min_time,
                flags.max_time
            );
        }
        std::fs::create_dir_all(&flags.data_dir)
            .with_context(|| format!("data directory {}", flags.data_dir.display()))?;
        let memory = Memory::of(flags)?;
        let cache = CacheConfig {
            memory_bytes: memory.cache_bytes,
            disk_bytes: flags.disk_cache_size.0,
        };
        let cache = PageCache::open(cache, &flags.data_dir.join("pages"))
            .with_context(|| format!("data directory {}", flags.data_dir.display()))?;
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let pool = Pool::new("store", threads, WAITING_MAX).context("start compute threads")?;
        let config = GatewayConfig {
            limits: Limits {
                touched_series: flags.touched_series,
                samples: flags.series_samples,
                downloaded_bytes: flags.downloaded_bytes.0,
                request_series: flags.limits.request_series,
                request_samples: flags.limits.request_samples,
            },
            request_bytes: (memory.requests_bytes / REQUEST_PART).min(flags.chunk_pool_size.0),
            concurrency: flags.series_concurrency,
            ..GatewayConfig::new(&flags.data_dir)
        };
        let remote = Remote::new(Arc::clone(&bucket.store), tokio::runtime::Handle::current());
        let name = "the memory of all requests (a part of --memory.budget)";
        let budget = Budget::new(name, memory.requests_bytes);
        let gateway = Gateway::new(config, remote, Arc::new(cache), Arc::new(pool), budget);
        Ok(Parts {
            syncs: SyncMetrics::new(registry, &gateway, flags.consistency_delay.0),
            seen: Notify::new(),
            gateway,
            concurrency: flags.series_concurrency,
            bucket,
            filters: BlockFilters::of(flags)?,
            ready: Arc::default(),
            loaded: Arc::default(),
        })
    }

    fn services(&self, registry: &mut Registry, log: RequestLog) -> Routes {
        let concurrency = self.concurrency;
        let gateway = MeasuredGateway::new(self.gateway.clone(), concurrency, registry);
        let store = CountedStore::new(Arc::new(gateway), registry);
        let store: Arc<dyn Store> = Arc::new(store);
        let service = StoreService::new(Arc::clone(&store), None, RequestLimits::default());
        let info = InfoService::new("store", store, Apis::default());
        let service = StoreServer::new(service).max_decoding_message_size(usize::MAX);
        let routes = Routes::new(service).add_service(InfoServer::new(info));
        GrpcMetrics::new(registry, log).count(routes)
    }

    /// Looks at the bucket again and again. The first look takes known blocks as they were, so that it
    /// ends with one listing; the component is ready then.
    async fn sync(&self, flags: &StoreFlags, clock: &Clock) {
        let options = FetchOptions {
            discovery: match flags.discovery {
                DiscoveryWay::Concurrent => Discovery::Concurrent,
                DiscoveryWay::Recursive => Discovery::Recursive,
            },
            concurrency: flags.meta_concurrency.max(1),
            data_dir: Some(flags.data_dir.clone()),
        };
        let mut fetcher = Fetcher::new(Arc::clone(&self.bucket.store), options);
        let mut freshness = Freshness::Known;
        loop {
            let worked = self.look(&mut fetcher, freshness, clock).await;
            if worked {
                self.seen.notify_one();
            }
            let wait = match (worked, freshness) {
                // What has changed in known blocks is looked up right behind.
                (true, Freshness::Known) => Duration::ZERO,
                (true, Freshness::Current) => flags.sync_interval.0,
                (false, _) => flags.sync_interval.0.min(RETRY_INTERVAL),
            };
            if worked && freshness == Freshness::Current {
                self.tidy(flags.publish_cards).await;
            }
            if worked {
                freshness = Freshness::Current;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Removes the cards of blocks that are gone, completes those that were made here, and shares them when that
    /// is wanted. All is tried again after the next look.
    async fn tidy(&self, publish: bool) {
        let gateway = self.gateway.clone();
        let removed = tokio::task::spawn_blocking(move || gateway.remove_other_cards()).await;
        match removed.map_err(std::io::Error::other).flatten() {
            Ok(0) => (),
            Ok(cards) => tracing::info!(cards, "cards of blocks that are gone were removed"),
            Err(error) => tracing::warn!(%error, "cards of blocks that are gone stay for now"),
        }
        match self.gateway.complete_cards().await {
            Ok(0) => (),
            Ok(cards) => tracing::info!(cards, "cards of blocks were completed"),
            Err(error) => tracing::warn!(%error, "cards of blocks stay without places of metrics"),
        }
        if !publish {
            return;
        }
        match self.gateway.publish_cards().await {
            Ok(0) => (),
            Ok(cards) => tracing::info!(cards, "cards of blocks were written to the bucket"),
            Err(error) => tracing::warn!(%error, "the bucket takes no cards of blocks"),
        }
    }

    async fn look(&self, fetcher: &mut Fetcher, freshness: Freshness, clock: &Clock) -> bool {
        let now = clock.now_ms();
        let began = Instant::now();
        let fetched = match fetcher.fetch(freshness).await {
            Ok(fetched) => fetched,
            Err(error) => {
                tracing::error!(%error, bucket = self.bucket.name, "the bucket cannot be listed, trying again");
                self.loaded.write().error = Some(error.to_string());
                self.syncs.failed(began.elapsed());
                return false;
            }
        };
        for (block, why) in &fetched.failed {
            tracing::warn!(%block, why, "a block cannot be looked at, trying again later");
        }
        for why in &fetched.bad_marks {
            tracing::warn!(why, "a mark of a block cannot be read and means nothing");
        }
        let (taken, counts) = fetched.select(&self.filters.at(now), now);
        let changed = self
            .gateway
            .set_blocks(taken.iter().map(|block| &**block.meta));
        let loaded = taken.len() as u64;
        self.syncs
            .looked(began.elapsed(), counts, loaded, changed, now);
        *self.loaded.write() = Loaded {
            blocks: taken.into_iter().map(|block| block.meta).collect(),
            refreshed_ms: Some(now),
            error: None,
        };
        true
    }
}

/// How `--memory.budget` is shared out.
struct Memory {
    cache_bytes: u64,
    requests_bytes: u64,
}

impl Memory {
    fn of(flags: &StoreFlags) -> anyhow::Result<Self> {
        let budget = flags.memory_budget.of(process::memory_usable());
        let wanted = index_cache_bytes(flags)?;
        let cache_bytes = wanted.min(budget / 16 * CACHE_PARTS);
        if cache_bytes < wanted {
            let (asked, given) = (wanted >> 20, cache_bytes >> 20);
            tracing::info!("of {asked} MiB for the index cache {given} are within --memory.budget");
        }
        let rest = budget / 16 * (16 - UNCOUNTED_PARTS) - cache_bytes;
        // What is on its way from the bucket is a part of the rest, too.
        let requests_bytes = rest - rest / (IN_FLIGHT_PART + 1);
        Ok(Memory {
            cache_bytes,
            requests_bytes,
        })
    }
}

/// What `--index-cache.config` says, else `--index-cache-size`.
fn index_cache_bytes(flags: &StoreFlags) -> anyhow::Result<u64> {
    let flag = IndexCacheFlags::FLAG;
    let Some(yaml) = flags.index_cache_config.content()? else {
        return Ok(flags.index_cache_size.0);
    };
    let config = isobar_store::cache::config::IndexCacheConfig::parse(&yaml);
    let config = config.with_context(|| format!("--{flag}"))?;
    for remark in &config.remarks {
        tracing::warn!(flag, "{remark}");
    }
    Ok(config.max_size_bytes)
}
