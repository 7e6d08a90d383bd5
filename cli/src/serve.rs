//! Sockets: HTTP and gRPC servers that stop when they are told to.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;

use crate::lenient::LenientListener;
use crate::shutdown::Shutdown;

/// Binds `address`, which `flag` named.
///
/// # Errors
/// When the address is taken or not of this machine; the message names the flag.
pub(crate) async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} (choose another with --{flag})"))
}

/// Serves HTTP until shutdown, then lets running requests end for at most `grace`.
///
/// # Errors
/// When the socket fails.
pub(crate) async fn http(
    listener: TcpListener,
    router: Router,
    shutdown: Shutdown,
    grace: Duration,
) -> anyhow::Result<()> {
    let stop = shutdown.clone();
    let server = axum::serve(LenientListener(listener), router)
        .with_graceful_shutdown(async move { stop.wait().await });
    tokio::select! {
        result = server => result.context("serve HTTP"),
        () = async { shutdown.wait().await; tokio::time::sleep(grace).await } => {
            tracing::warn!(?grace, "requests still running after the grace period were cut off");
            Ok(())
        }
    }
}

/// Serves gRPC until shutdown: the health service, which answers for the process as a whole.
///
/// # Errors
/// When the socket fails.
pub(crate) async fn grpc(listener: TcpListener, shutdown: Shutdown) -> anyhow::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    tonic::transport::Server::builder()
        .add_service(health)
        .serve_with_incoming_shutdown(
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true)),
            async move { shutdown.wait().await },
        )
        .await
        .context("serve gRPC")
}
