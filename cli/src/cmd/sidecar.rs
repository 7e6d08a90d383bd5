//! `isobar sidecar`: beside one Prometheus.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use axum::Router;
use isobar_ingest::sidecar::metrics::ReloaderMetrics;
use isobar_ingest::sidecar::proxy::Proxy;
use isobar_ingest::sidecar::reloader::{Method, Reloader, ReloaderConfig};
use isobar_ingest::sidecar::shipping::{Shipping, shipper_config};
use isobar_ingest::sidecar::{self, Metrics, Sidecar};
use isobar_model::{Budget, Clock};
use isobar_proto::thanos::exemplars_server::ExemplarsServer;
use isobar_proto::thanos::info::info_server::InfoServer;
use isobar_proto::thanos::metadata_server::MetadataServer;
use isobar_proto::thanos::rules_server::RulesServer;
use isobar_proto::thanos::status_server::StatusServer;
use isobar_proto::thanos::store_server::StoreServer;
use isobar_proto::thanos::targets_server::TargetsServer;
use isobar_store::Store;
use isobar_store::block::shipper::{Shipper, ShipperConfig};
use isobar_store::block::upload::{HashFunc, UploadOptions};
use isobar_store::bucket::Bucket;
use isobar_store::bucket::metered::BucketMetrics;
use isobar_store::compute::Pool;
use isobar_store::grpc::{Apis, InfoService, RequestLimits, StoreService};
use isobar_store::prometheus::{Client, HttpClientConfig, Peer, PrometheusStore};
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tonic::service::Routes;

use crate::flags::content::ContentFlags;
use crate::flags::requests::RequestLogFlags;
use crate::flags::sidecar::{ReloadMethod, ReloaderFlags, ShipperFlags, SidecarFlags};
use crate::serve;
use crate::serve::common::{self, Common};
use crate::ship::{self, ShipperCollector};
use crate::shutdown::Shutdown;
use crate::telemetry::component::ComponentCollector;
use crate::telemetry::grpc::GrpcMetrics;
use crate::telemetry::http::HttpRequests;
use crate::telemetry::process;
use crate::telemetry::request_log::RequestLog;
use crate::telemetry::store::{CountedStore, DroppedCollector};

/// Most pieces of work that wait for a compute thread.
const WAITING_MAX: usize = 1024;
/// The share of memory that series may take while they are sorted again, in percent.
const SORTING_PERCENT: u64 = 25;

/// Runs until a signal stops it.
///
/// # Errors
/// When flags make no sense, a socket cannot be had, or Prometheus has no external labels.
pub(crate) fn run(flags: SidecarFlags, listed: BTreeMap<String, String>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals()?;
        let http = serve::bind(flags.http.http_address, "http-address").await?;
        let grpc_config = serve::GrpcConfig::of(&flags.grpc)?;
        let protection = serve::Protection::of(&flags.http.web.http_config)?;
        let parts = Parts::new(&flags, listed)?;
        let router = parts.router.clone();
        let grace = flags.http.http_grace_period.0;
        let beside = async {
            tokio::select! {
                begun = parts.sidecar.begin() => begun?,
                () = shutdown.wait() => return Ok(()),
            }
            let grpc = serve::bind(flags.grpc.grpc_address, "grpc-address").await?;
            tracing::info!(
                http = %flags.http.http_address,
                grpc = %flags.grpc.grpc_address,
                prometheus = %parts.prometheus,
                version = env!("CARGO_PKG_VERSION"),
                "ready"
            );
            tokio::select! {
                result = serve::grpc(grpc, parts.services.clone(), grpc_config, shutdown.clone()) => result,
                () = parts.sidecar.watch() => Ok(()),
            }
        };
        let refuse = async {
            shutdown.wait().await;
            parts.ready.store(false, Ordering::Release);
            Ok(())
        };
        let uploading = async {
            match parts.shipping {
                Some(shipping) => Ok(shipping.run(shutdown.wait()).await?),
                None => Ok(()),
            }
        };
        let serving = async {
            let web = serve::http(http, router, &protection, shutdown.clone(), grace);
            tokio::try_join!(web, beside, refuse, uploading)
        };
        let result = tokio::select! {
            result = serving => result.map(|_| ()),
            result = parts.reloader.watch() => result.context("watch the files of Prometheus"),
        };
        shutdown.stop();
        tracing::info!("stopped");
        result
    })
}

/// The parts of the process, wired.
struct Parts {
    ready: Arc<AtomicBool>,
    router: Router,
    /// Where it is, as it may be shown.
    prometheus: String,
    sidecar: Sidecar,
    reloader: Reloader,
    shipping: Option<Shipping>,
    services: Routes,
}

impl Parts {
    fn new(flags: &SidecarFlags, listed: BTreeMap<String, String>) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let started_ms = clock.now_ms();
        let ready = Arc::new(AtomicBool::new(false));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::ProcessCollector::new(&clock)));
        let component = ComponentCollector::new("sidecar", Arc::clone(&ready));
        registry.register_collector(Box::new(component));
        let metrics = Metrics::new(&mut registry);
        let peer = Arc::new(peer(flags, clock.clone())?);
        let store = store(&peer, &metrics)?;
        let proxy = Proxy::new(Arc::clone(&peer), Arc::clone(&ready));
        let log = RequestLog::parse(flags.request_log.content()?.as_deref())
            .with_context(|| format!("--{}", RequestLogFlags::FLAG))?;
        let requests = HttpRequests::new(&mut registry, log.clone());
        let calls = GrpcMetrics::new(&mut registry, log);
        let services = services(flags, store, proxy, Arc::clone(&ready), &mut registry);
        let services = calls.count(services);
        let watched = reloader_config(&flags.reloader);
        let reloader_metrics = ReloaderMetrics::new(&mut registry, watched.method.name());
        let reloader = Reloader::new(watched, Arc::clone(&peer), clock, reloader_metrics);
        let shipping = shipping(&flags.shipper, flags, &peer, &mut registry)?;
        let prometheus = peer.client().shown_url().to_string();
        let config = sidecar_config(flags, shipping.is_some());
        let sidecar = Sidecar::new(config, peer, Arc::clone(&ready), metrics);
        let about = Common {
            ready: Arc::clone(&ready),
            registry: Arc::new(registry),
            flags: listed,
            started_ms,
            cors: true,
            requests,
        };
        Ok(Parts {
            ready,
            router: common::router(about, Router::new()),
            prometheus,
            sidecar,
            reloader,
            shipping,
            services,
        })
    }
}

fn peer(flags: &SidecarFlags, clock: Clock) -> anyhow::Result<Peer> {
    let prometheus = &flags.prometheus;
    let text = prometheus.http_client.content()?;
    let config = HttpClientConfig::from_yaml(&text.unwrap_or_default())
        .map_err(anyhow::Error::msg)
        .context("--prometheus.http-client")?;
    let client = Client::new(&prometheus.url, config).context("--prometheus.url")?;
    let min_time = flags.min_time;
    Ok(Peer::new(client, move || min_time.ms(clock.now_ms())))
}

/// What uploads blocks, when there is a bucket for them.
fn shipping(
    shipper: &ShipperFlags,
    flags: &SidecarFlags,
    peer: &Arc<Peer>,
    registry: &mut Registry,
) -> anyhow::Result<Option<Shipping>> {
    let Some(bucket) = shipper.bucket.read()? else {
        tracing::info!("no supported bucket was configured, uploads will be disabled");
        return Ok(None);
    };
    let bucket = Bucket::new(&bucket, &ship::environment)?;
    for remark in &bucket.remarks {
        tracing::warn!("{remark}");
    }
    let bucket = BucketMetrics::new(registry).of(bucket, Clock::system());
    if !flags.tsdb_path.join("wal").is_dir() {
        tracing::error!(
            tsdb_path = %flags.tsdb_path.display(),
            "WAL dir is not accessible. Is this dir a TSDB directory? If yes it is shared with TSDB?"
        );
    }
    let usual = shipper_config(&flags.tsdb_path, peer);
    let config = ShipperConfig {
        meta_file: shipper.meta_file_name.clone(),
        upload_compacted: shipper.upload_compacted,
        allow_out_of_order_uploads: shipper.allow_out_of_order,
        skip_corrupted_blocks: shipper.skip_corrupted,
        upload: UploadOptions {
            hash: match shipper.hash_func.as_str() {
                "SHA256" => HashFunc::Sha256,
                _ => HashFunc::None,
            },
            concurrency: usize::try_from(shipper.upload_concurrency)
                .unwrap_or(0)
                .max(1),
            part_bytes: bucket.part_bytes,
            ..UploadOptions::default()
        },
        ..usual
    };
    let clock = Clock::system();
    let metrics = BucketMetrics::new(registry);
    let store = metrics.watch(bucket.store, &bucket.name, clock.clone());
    let shipper = Shipper::new(config, store);
    registry.register_collector(Box::new(ShipperCollector(shipper.stats())));
    let timeout = flags.prometheus.ready_timeout.0;
    Ok(Some(Shipping::new(
        shipper,
        Arc::clone(peer),
        clock,
        timeout,
    )))
}

fn store(peer: &Arc<Peer>, metrics: &Metrics) -> anyhow::Result<Arc<dyn Store>> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let pool = Pool::new("sidecar", threads, WAITING_MAX).context("start compute threads")?;
    let memory = process::memory_usable() / 100 * SORTING_PERCENT;
    let memory = Budget::new("the memory for series that are sorted again", memory);
    let frames = metrics.frames.clone();
    Ok(Arc::new(PrometheusStore::new(
        Arc::clone(peer),
        Arc::new(pool),
        Some(memory),
        Handle::current(),
        Arc::new(move |count| frames.observe(count as f64)),
    )))
}

fn services(
    flags: &SidecarFlags,
    store: Arc<dyn Store>,
    proxy: Proxy,
    ready: Arc<AtomicBool>,
    registry: &mut Registry,
) -> Routes {
    let store: Arc<dyn Store> = Arc::new(CountedStore::new(store, registry));
    let limits = RequestLimits {
        series_max: flags.limits.request_series,
        samples_max: flags.limits.request_samples,
    };
    // The store computes on its own pool and wants to be awaited.
    let service = StoreService::new(Arc::clone(&store), None, limits);
    registry.register_collector(Box::new(DroppedCollector(service.dropped())));
    let apis = Apis {
        rules: true,
        targets: true,
        metadata: true,
        exemplars: true,
        status: true,
        ..Apis::default()
    };
    let info = InfoService::new("sidecar", store, apis).ready_when(ready);
    Routes::new(StoreServer::new(service))
        .add_service(InfoServer::new(info))
        .add_service(RulesServer::new(proxy.clone()))
        .add_service(TargetsServer::new(proxy.clone()))
        .add_service(MetadataServer::new(proxy.clone()))
        .add_service(ExemplarsServer::new(proxy.clone()))
        .add_service(StatusServer::new(proxy))
}

fn sidecar_config(flags: &SidecarFlags, uploads: bool) -> sidecar::Config {
    let shipper = &flags.shipper;
    sidecar::Config {
        uploads,
        tsdb_path: flags.tsdb_path.clone(),
        shipper_meta_file: shipper.meta_file_name.clone(),
        ignore_unequal_block_size: shipper.ignore_unequal_block_size,
        interval: flags.prometheus.get_config_interval.0,
        timeout: flags.prometheus.get_config_timeout.0,
    }
}

fn reloader_config(flags: &ReloaderFlags) -> ReloaderConfig {
    let path = |text: &String| (!text.is_empty()).then(|| PathBuf::from(text));
    ReloaderConfig {
        config_file: path(&flags.config_file),
        output_file: path(&flags.output_file),
        rule_dirs: flags.rule_dirs.clone(),
        watch_interval: flags.watch_interval.0,
        retry_interval: flags.retry_interval.0,
        method: match flags.method {
            ReloadMethod::Http => Method::Http,
            ReloadMethod::Signal => Method::Signal(flags.process_name.clone()),
        },
    }
}
