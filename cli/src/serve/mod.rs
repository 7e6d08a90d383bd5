//! Sockets: HTTP and gRPC servers that stop when they are told to.

pub(crate) mod accept;
pub(crate) mod common;
mod grpc;
mod stamps;
mod tls;
mod web;

use std::future::{Future, IntoFuture};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub(crate) use grpc::{GrpcConfig, grpc};
pub(crate) use web::Protection;

use self::accept::Connections;
use crate::flags::server::ListenAddress;
use crate::lenient::LenientListener;
use crate::shutdown::Shutdown;
use crate::telemetry::http::Remote;

/// Binds `address`, which `flag` named.
///
/// # Errors
/// When the address is taken or not of this machine; the message names the flag.
pub(crate) async fn bind(address: ListenAddress, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address.0)
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
    protection: &Protection,
    shutdown: Shutdown,
    grace: Duration,
) -> anyhow::Result<()> {
    let stop = shutdown.clone();
    let connections = Connections::new(listener, protection.tls()).context("serve HTTP")?;
    let router = protection.around(router);
    let service = router.into_make_service_with_connect_info::<Remote>();
    let server = axum::serve(LenientListener(connections), service)
        .with_graceful_shutdown(async move { stop.wait().await });
    tokio::select! {
        result = server => result.context("serve HTTP"),
        () = async { shutdown.wait().await; tokio::time::sleep(grace).await } => {
            tracing::warn!(?grace, "requests still running after the grace period were cut off");
            Ok(())
        }
    }
}

/// Answers HTTP while `opening` goes on: the process is healthy, but not ready, and whoever
/// writes or asks is told to come again. Connections are closed before this returns or soon after.
///
/// # Errors
/// When the socket fails.
pub(crate) async fn while_opening<T>(
    listener: &TcpListener,
    protection: &Protection,
    opening: impl Future<Output = T>,
) -> anyhow::Result<T> {
    let again = listener.as_fd().try_clone_to_owned();
    let again = again
        .and_then(|fd| TcpListener::from_std(fd.into()))
        .context("serve HTTP")?;
    let healthy = || async { "Isobar is Healthy.\n" };
    let refuse = || async {
        let headers = [
            (header::RETRY_AFTER, "1"),
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        ];
        let text = "Service Unavailable: the data directory is being opened\n";
        (StatusCode::SERVICE_UNAVAILABLE, headers, text)
    };
    let router = Router::new()
        .route("/-/healthy", get(healthy))
        .fallback(refuse);
    let opened = Arc::new(Notify::new());
    let stop = Arc::clone(&opened);
    let connections = Connections::new(again, protection.tls()).context("serve HTTP")?;
    let server = axum::serve(LenientListener(connections), protection.around(router))
        .with_graceful_shutdown(async move { stop.notified().await });
    let server = tokio::spawn(server.into_future());
    let result = opening.await;
    opened.notify_one();
    // A client that holds its connection without asking is not waited for.
    match tokio::time::timeout(Duration::from_millis(200), server).await {
        Ok(ended) => ended.context("serve HTTP")?.context("serve HTTP")?,
        Err(_still_open) => {}
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn who_comes_while_the_directory_is_opened_is_told_to_come_again() {
        let listener = bind(ListenAddress(([127, 0, 0, 1], 0).into()), "http-address")
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let held = TcpStream::connect(address).await.unwrap();
        let opening = async {
            for (path, status) in [
                ("/-/healthy", "200"),
                ("/-/ready", "503"),
                ("/api/v1/write", "503"),
            ] {
                let answer = ask(address, path).await;
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{path}: {answer}"
                );
            }
            5
        };
        assert_eq!(
            while_opening(&listener, &Protection::default(), opening)
                .await
                .unwrap(),
            5
        );
        drop(held);
        // What comes from now on is left to who serves next.
        let next = tokio::spawn(async move { ask(address, "/").await });
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"next").await.unwrap();
        drop(stream);
        assert_eq!(next.await.unwrap(), "next");
    }
}
