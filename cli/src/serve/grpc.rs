//! The gRPC server: services with health and reflection, over plain sockets or TLS.

use std::io;
use std::time::Duration;

use anyhow::Context;
use futures::stream;
use isobar_proto::thanos::DESCRIPTORS;
use isobar_store::grpc::snappy::SnappyLayer;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::accept::{Connection, Connections, TlsNow};
use super::tls;
use crate::flags::server::{GrpcFlags, GrpcTlsFlags};
use crate::shutdown::Shutdown;

/// How much of an answer may be on its way to one client.
const WINDOW_BYTES: u32 = 4 << 20;

/// How a gRPC server is run.
#[derive(Clone)]
pub(crate) struct GrpcConfig {
    grace: Duration,
    max_connection_age: Option<Duration>,
    tls: Option<TlsNow>,
}

impl GrpcConfig {
    /// A server that lets calls go on for `grace` after the signal to stop, and connections live for
    /// `max_connection_age`, for ever when it is zero.
    ///
    /// # Errors
    /// When the files for TLS cannot be used.
    pub(crate) fn new(
        tls: &GrpcTlsFlags,
        grace: Duration,
        max_connection_age: Duration,
    ) -> anyhow::Result<Self> {
        Ok(GrpcConfig {
            grace,
            max_connection_age: Some(max_connection_age).filter(|it| !it.is_zero()),
            tls: tls::followed(tls)?,
        })
    }

    /// As the flags of a component say.
    ///
    /// # Errors
    /// As [`GrpcConfig::new`].
    pub(crate) fn of(flags: &GrpcFlags) -> anyhow::Result<Self> {
        let (grace, age) = (flags.grpc_grace_period.0, flags.grpc_max_connection_age.0);
        GrpcConfig::new(&flags.tls, grace, age)
    }
}

/// Serves `routes` until shutdown, then lets running calls end for a while. Health and reflection are
/// served too; health answers for the process as a whole.
///
/// # Errors
/// When the socket fails.
pub(crate) async fn grpc(
    listener: TcpListener,
    routes: Routes,
    config: GrpcConfig,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = routes
        .add_service(health)
        .add_service(reflection().build_v1().context("describe the services")?)
        .add_service(
            reflection()
                .build_v1alpha()
                .context("describe the services")?,
        );
    let mut server = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .layer(SnappyLayer);
    if let Some(age) = config.max_connection_age {
        server = server.max_connection_age(age);
    }
    let stop = shutdown.clone();
    let not_serving = async move {
        stop.wait().await;
        reporter
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
    };
    let connections = Connections::new(listener, config.tls).context("serve gRPC")?;
    let connections = stream::unfold(connections, |mut connections| async move {
        let (connection, _) = connections.next().await;
        Some((io::Result::Ok(connection), connections))
    });
    let serving = server
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, not_serving);
    tokio::select! {
        result = serving => result.context("serve gRPC"),
        () = async { shutdown.wait().await; tokio::time::sleep(config.grace).await } => {
            tracing::warn!(grace = ?config.grace, "calls still running after the grace period were cut off");
            Ok(())
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match self {
            Connection::Plain(stream) => stream.connect_info(),
            Connection::Tls(stream) => stream.get_ref().0.connect_info(),
        }
    }
}
