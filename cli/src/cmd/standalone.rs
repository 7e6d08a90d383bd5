//! `isobar standalone`: everything in one process on one local directory.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use isobar_ingest::remote_write::{self, RemoteWrite};
use isobar_model::{Budget, Clock, Tenant};
use isobar_promql::limits::{Limits, Threads};
use isobar_proto::thanos::info::info_server::InfoServer;
use isobar_proto::thanos::store_server::StoreServer;
use isobar_query::engine::{self, Engine};
use isobar_query::http::{App, Readiness};
use isobar_query::metrics::{EngineMetrics, HttpMetrics};
use isobar_store::Store;
use isobar_store::admin::Admin;
use isobar_store::block::expiry::{Local, Retention};
use isobar_store::bucket::BucketConfig;
use isobar_store::bucket::config::Provider;
use isobar_store::bucket::metered::BucketMetrics;
use isobar_store::cache::CacheConfig;
use isobar_store::compute::Pool;
use isobar_store::grpc::{Apis, InfoService, RequestLimits, StoreService};
use isobar_store::local::LocalStore;
use isobar_store::metadata::MetadataStore;
use isobar_store::union::Union;
use isobar_tsdb::block::series_cache;
use isobar_tsdb::db::{Block, Db, DbConfig, Elsewhere, Event, MayExpire, Sync};
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::service::Routes;

use crate::archive::{Archive, InBucket};
use crate::flags::standalone::{StandaloneFlags, WalSync};
use crate::page::StartPage;
use crate::serve;
use crate::ship::{self, Shipping};
use crate::shutdown::Shutdown;
use crate::status::{DbCollector, Status};
use crate::telemetry::{metrics, process, self_monitoring};

/// How often blocks are cut and retention is applied.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(30);
/// How much of the latest samples `--wal.sync=interval` may lose.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Where blocks go in the data directory, unless a bucket is named.
const BUCKET_DIR: &str = "isobar-blocks";
/// Room in the data directory for what was read of a bucket that is somewhere else.
const DISK_CACHE_BYTES: u64 = 2 << 30;
/// Most requests of one kind that wait for a compute thread.
const WAITING_MAX: usize = 1024;

/// Runs until a signal stops it.
///
/// # Errors
/// When the directory or a socket cannot be had, or fails on the way.
pub(crate) fn run(flags: StandaloneFlags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals()?;
        let http = serve::bind(flags.http_address, "http-address").await?;
        let grpc = serve::bind(flags.grpc_address, "grpc-address").await?;
        let grace = flags.http_grace_period.0;
        let grpc_config = serve::GrpcConfig::new(&flags.grpc_tls, grace, Duration::ZERO)?;
        let protection = serve::Protection::of(&flags.web.http_config)?;
        let runtime = Handle::current();
        let opening = async {
            tokio::select! {
                opened = on_own_thread(|| Standalone::open(flags, runtime)) => opened.map(Some),
                () = shutdown.wait() => Ok(None),
            }
        };
        let Some(standalone) = serve::while_opening(&http, &protection, opening).await?? else {
            // Reading back changes nothing that cannot be read back again.
            return Ok(());
        };
        tracing::info!(
            http = %standalone.flags.http_address,
            grpc = %standalone.flags.grpc_address,
            data_dir = %standalone.flags.data_dir.display(),
            version = env!("CARGO_PKG_VERSION"),
            "ready"
        );
        let router = standalone.router();
        let serving = async {
            tokio::try_join!(
                serve::http(http, router, &protection, shutdown.clone(), grace),
                serve::grpc(
                    grpc,
                    standalone.services.clone(),
                    grpc_config,
                    shutdown.clone()
                ),
            )
        };
        let result = tokio::select! {
            result = serving => result.map(|_| ()),
            () = standalone.tend(&shutdown) => Ok(()),
        };
        shutdown.stop();
        standalone.db.close().context("close the database")?;
        tracing::info!("stopped");
        result
    })
}

/// Does what may take long without keeping the runtime from ending.
async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (give, take) = oneshot::channel();
    std::thread::Builder::new()
        .name("isobar-open".to_owned())
        .spawn(move || {
            // When nobody waits any more the process is about to end.
            let _gone = give.send(work());
        })
        .context("start a thread")?;
    take.await.context("opening panicked")?
}

/// The parts of the process, wired.
struct Standalone {
    flags: StandaloneFlags,
    clock: Clock,
    db: Arc<Db>,
    metadata: Arc<MetadataStore>,
    readiness: Readiness,
    registry: Arc<Registry>,
    routes: Router,
    services: Routes,
    shipping: Option<Shipping>,
    archive: Option<Archive>,
}

impl Standalone {
    fn open(flags: StandaloneFlags, runtime: Handle) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let damages = Arc::new(AtomicI64::new(0));
        let named = flags.bucket.read()?;
        if named.is_some() && flags.enable_admin_api {
            bail!(
                "--web.enable-admin-api does not go with --objstore.config yet: what is deleted here would \
                 come back from the bucket"
            );
        }
        let place = match named {
            Some(config) => Place::named(config, &flags)?,
            None if flags.enable_admin_api => Place::Nowhere,
            None => Place::Own,
        };
        let memory = Memory::of(&flags, !matches!(place, Place::Nowhere));
        let in_bucket = InBucket::default();
        let db = open_db(&flags, &clock, &damages, &memory, &place, &in_bucket)?;
        let metadata = Arc::new(MetadataStore::of(Arc::clone(&db)));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::ProcessCollector::new(&clock)));
        registry.register_collector(Box::new(DbCollector::new(Arc::clone(&db))));

        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let pool = |name| Pool::new(name, threads, WAITING_MAX).context("start compute threads");
        let write = RemoteWrite::new(
            remote_write::Config::default(),
            Arc::clone(&db),
            Arc::new(pool("ingest")?),
            Arc::clone(&metadata),
            &mut registry,
        );
        let store = Arc::new(LocalStore::new(Arc::clone(&db)));
        let queries = Arc::new(pool("query")?);
        let config = engine_config(&flags, threads, &memory);
        let (mut shipping, mut archive) = (None, None);
        if let Some(bucket) = place.config(&flags)? {
            let is_own = matches!(place, Place::Own);
            let metrics = BucketMetrics::new(&mut registry);
            let bucket = ship::open(&bucket, &clock, &metrics)?;
            let ships = Shipping::new(&bucket, &flags.data_dir, is_own, clock.clone());
            registry.register_collector(Box::new(ships.collector()));
            shipping = Some(ships);
            let cache = CacheConfig {
                memory_bytes: memory.page_cache,
                disk_bytes: if is_own { 0 } else { DISK_CACHE_BYTES },
            };
            let budget = Arc::clone(&config.limits.memory);
            let mut reads = Archive::new(
                &bucket,
                &flags.data_dir,
                cache,
                budget,
                runtime.clone(),
                clock.clone(),
                in_bucket,
            )?;
            if is_own {
                reads = reads.keeping(&bucket, retention_of(&flags));
                // It is on this disk, so that nothing has to be missing from the first answers.
                runtime.block_on(async {
                    reads.look().await;
                    reads.serve_beside(&local(&db)).await;
                });
            }
            archive = Some(reads);
        }
        let mut stores = vec![Arc::clone(&store) as Arc<dyn Store>];
        stores.extend(archive.as_ref().map(Archive::store));
        let all: Arc<dyn Store> = Arc::new(Union::of(stores));
        let services = store_services(Arc::clone(&all), Arc::clone(&queries));
        let metrics = EngineMetrics::new(&mut registry);
        let engine = Arc::new(Engine::new(all, queries, config, metrics));
        let readiness = Readiness::default();
        let app = App {
            engine,
            metadata: Arc::clone(&metadata),
            exemplars: Arc::new(LocalStore::new(Arc::clone(&db))),
            admin: flags.enable_admin_api.then_some(store as Arc<dyn Admin>),
            status: Arc::new(Status::new(&flags, clock.clone(), Arc::clone(&db), damages)),
            clock: clock.clone(),
            readiness: readiness.clone(),
            metrics: HttpMetrics::new(&mut registry),
            name: "Isobar".to_owned(),
        };
        let page = StartPage::new(&flags, clock.clone(), Arc::clone(&db));
        let routes = isobar_query::http::router(Arc::new(app))
            .merge(write.router())
            .route("/", get(move || async move { page.render() }));
        readiness.set_ready();
        Ok(Standalone {
            flags,
            clock,
            db,
            metadata,
            readiness,
            registry: Arc::new(registry),
            routes,
            services,
            shipping,
            archive,
        })
    }

    fn router(&self) -> Router {
        let registry = Arc::clone(&self.registry);
        let show = move |headers: HeaderMap| async move {
            serve::common::show_metrics(&registry, &headers)
        };
        self.routes.clone().route("/metrics", get(show))
    }

    /// Cuts blocks, applies retention and stores own metrics, until shutdown.
    async fn tend(&self, shutdown: &Shutdown) {
        let refuse_requests = async {
            shutdown.wait().await;
            self.readiness.set_stopping();
        };
        tokio::join!(
            self.maintain(shutdown),
            self.monitor(shutdown),
            self.ship(shutdown),
            refuse_requests
        );
        // Whoever serves decides when the process ends.
        std::future::pending::<()>().await;
    }

    async fn maintain(&self, shutdown: &Shutdown) {
        let mut interval = tokio::time::interval(MAINTENANCE_INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = shutdown.wait() => return,
            }
            if let Some(archive) = &self.archive {
                archive.look().await;
                archive.serve_but(&HashSet::new());
            }
            let db = Arc::clone(&self.db);
            let done = tokio::task::spawn_blocking(move || db.maintain()).await;
            if let Some(archive) = &self.archive {
                archive.serve_beside(&local(&self.db)).await;
            }
            match done {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!(
                    error = format!("{:#}", anyhow::Error::from(error)),
                    "cutting blocks or retention did not work, trying again later"
                ),
                Err(error) => tracing::error!(%error, "maintenance panicked, trying again later"),
            }
        }
    }

    async fn ship(&self, shutdown: &Shutdown) {
        if let Some(shipping) = &self.shipping {
            shipping.run(shutdown).await;
        }
    }

    async fn monitor(&self, shutdown: &Shutdown) {
        if !self.flags.monitors_itself() {
            return;
        }
        let tenant = match Tenant::new(self_monitoring::TENANT) {
            Ok(tenant) => tenant,
            Err(error) => return tracing::error!(%error, "own metrics are not stored"),
        };
        let instance = self.flags.http_address.to_string();
        let mut interval =
            tokio::time::interval(Duration::from_millis(self_monitoring::INTERVAL_MS));
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = shutdown.wait() => return,
            }
            let text = match metrics::render(&self.registry, "") {
                Ok((_, text)) => text,
                Err(error) => {
                    tracing::error!(%error, "own metrics cannot be formatted");
                    continue;
                }
            };
            self_monitoring::describe(&text, &tenant, &self.metadata);
            let samples = self_monitoring::samples(&text, &instance, self.clock.now_ms());
            if let Err(error) = isobar_ingest::local::append(&self.db, &tenant, &samples) {
                tracing::warn!(%error, "own metrics were not stored");
            }
        }
    }
}

/// Where blocks go besides the local disk.
enum Place {
    /// Nowhere.
    Nowhere,
    /// A directory below the data directory. Blocks that were not cut here stay where they are.
    Own,
    /// The bucket of a configuration.
    Named(BucketConfig),
}

impl Place {
    /// A bucket that was named. It must not look like the directory of a tenant, which is taken over.
    fn named(config: BucketConfig, flags: &StandaloneFlags) -> anyhow::Result<Self> {
        if let Provider::Filesystem(files) = &config.provider {
            let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let (bucket, data) = (whole(Path::new(&files.directory)), whole(&flags.data_dir));
            if bucket == data || bucket.parent() == Some(data.as_path()) {
                bail!(
                    "objstore.config: directory {} lies in --data-dir, where directories with blocks are \
                     taken over as those of tenants: name one outside",
                    files.directory
                );
            }
        }
        Ok(Place::Named(config))
    }

    fn config(&self, flags: &StandaloneFlags) -> anyhow::Result<Option<BucketConfig>> {
        Ok(match self {
            Place::Nowhere => None,
            Place::Named(config) => Some(config.clone()),
            Place::Own => {
                let dir = flags.data_dir.join(BUCKET_DIR);
                std::fs::create_dir_all(&dir)
                    .with_context(|| format!("make directory {}", dir.display()))?;
                Some(BucketConfig::filesystem(&dir))
            }
        })
    }
}

/// What is kept in a bucket of its own.
fn retention_of(flags: &StandaloneFlags) -> Retention {
    Retention {
        time: Some(flags.retention.0).filter(|time| !time.is_zero()),
        bytes_max: Some(flags.retention_bytes.0).filter(|bytes| *bytes > 0),
        grace: flags.query_timeout.0,
    }
}

/// What is on the local disk.
fn local(db: &Db) -> Local {
    let blocks = db.blocks();
    let bytes = blocks.iter().map(Block::size_bytes).sum::<u64>();
    Local {
        blocks: blocks.iter().map(|block| block.meta().ulid).collect(),
        // A log that cannot be looked at is not counted; maintenance tells why.
        bytes: bytes + db.wal_bytes().unwrap_or(0),
    }
}

/// The gRPC services of a store.
fn store_services(store: Arc<dyn Store>, pool: Arc<Pool>) -> Routes {
    let service = StoreService::new(Arc::clone(&store), Some(pool), RequestLimits::default());
    // Thanos knows no kind that is all of them; what it does with this one fits.
    let info = InfoService::new("receive", store, Apis::default());
    Routes::new(StoreServer::new(service)).add_service(InfoServer::new(info))
}

/// How `--memory.budget` is shared out, in bytes.
struct Memory {
    all: u64,
    /// Head and queries have the rest together.
    head: Arc<Budget>,
    queries: Arc<Budget>,
    /// For what blocks remember of their series.
    series_cache: usize,
    /// For pages of blocks in the bucket.
    page_cache: u64,
}

impl Memory {
    fn of(flags: &StandaloneFlags, with_bucket: bool) -> Self {
        /// The cache takes one part of so many, if that is less than it can use.
        const CACHE_SHARE: u64 = 32;
        /// So do pages of blocks in the bucket.
        const PAGES_SHARE: u64 = 8;
        const PAGES_BYTES_MAX: u64 = 250 << 20;
        /// Queries may have one part of so many, whatever the head takes.
        const QUERIES_SHARE: u64 = 4;
        let all = flags.memory_budget.of(process::memory_usable());
        let cache = (all / CACHE_SHARE).min(series_cache::BYTES_MAX as u64);
        let pages = if with_bucket {
            (all / PAGES_SHARE).min(PAGES_BYTES_MAX)
        } else {
            0
        };
        let rest = all - cache - pages;
        let shared = Budget::new("the memory of head and queries (--memory.budget)", rest);
        Memory {
            all,
            head: shared.child(
                "the memory of the head (--memory.budget)",
                rest - all / QUERIES_SHARE,
            ),
            queries: shared.child("the memory of all queries (--memory.budget)", rest),
            series_cache: cache as usize,
            page_cache: pages,
        }
    }
}

fn open_db(
    flags: &StandaloneFlags,
    clock: &Clock,
    damages: &Arc<AtomicI64>,
    memory: &Memory,
    place: &Place,
    in_bucket: &InBucket,
) -> anyhow::Result<Arc<Db>> {
    let damages = Arc::clone(damages);
    let in_bucket = Arc::clone(in_bucket);
    let holds: MayExpire = Arc::new(move |meta| in_bucket.read().contains(&meta.ulid));
    let started = clock.now_ms();
    let db = Db::open(DbConfig {
        retention_time: Some(flags.retention.0).filter(|time| !time.is_zero()),
        retention_size: Some(flags.retention_bytes.0).filter(|bytes| *bytes > 0),
        // What goes by retention goes from everywhere, unless the bucket is looked after by others.
        may_expire: match place {
            Place::Named(_) => Arc::clone(&holds),
            Place::Own | Place::Nowhere => Arc::new(|_| true),
        },
        elsewhere: (!matches!(place, Place::Nowhere)).then_some(Elsewhere {
            after: flags.local_retention.0,
            holds,
        }),
        exemplars_max: flags.exemplars_max,
        late_window: flags.late_window.0,
        limits: flags.limits.clone().into(),
        head_memory: Some(Arc::clone(&memory.head)),
        series_cache_bytes: memory.series_cache,
        sync: match flags.wal_sync {
            WalSync::Always => Sync::Always,
            WalSync::Interval => Sync::Interval(SYNC_INTERVAL),
        },
        clock: clock.clone(),
        events: Arc::new(move |event| log_event(&event, &damages)),
        ..DbConfig::new(&flags.data_dir)
    })
    .with_context(|| format!("open data directory {}", flags.data_dir.display()))?;
    let stats = db.head_stats(None);
    tracing::info!(
        series = stats.series,
        blocks = db.blocks().len(),
        took_ms = clock.now_ms() - started,
        "data directory opened"
    );
    Ok(Arc::new(db))
}

/// What the database has to tell goes to the log.
fn log_event(event: &Event, damages: &AtomicI64) {
    if matches!(event, Event::WalDamage { .. }) {
        damages.fetch_add(1, Ordering::Relaxed);
    }
    if event.is_warning() {
        tracing::warn!("{event}");
    } else {
        tracing::info!("{event}");
    }
}

fn engine_config(flags: &StandaloneFlags, threads: usize, memory: &Memory) -> engine::Config {
    for ignored in flags.features.ignored() {
        tracing::warn!(option = ignored.option, "{}", ignored.why);
    }
    engine::Config {
        lookback_ms: i64::try_from(flags.query_lookback.0.as_millis()).unwrap_or(i64::MAX),
        timeout: flags.query_timeout.0,
        concurrent_max: flags.query_max_concurrent as usize,
        limits: Limits {
            samples_max: flags.query_max_samples,
            series_max: flags.query_max_series,
            steps_max: flags.query_max_steps,
            threads: Threads::new(threads),
            memory: Arc::clone(&memory.queries),
            query_memory_max: flags.query_max_memory.of(memory.all),
        },
        features: flags.features.features(),
        deduplication: flags.replicas.deduplication(),
        ..engine::Config::default()
    }
}
