//! The gRPC server: services with health and reflection, over plain sockets or TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::Context;
use futures::stream::{self, Stream, StreamExt};
use isobar_proto::thanos::DESCRIPTORS;
use isobar_store::grpc::snappy::SnappyLayer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::tls;
use crate::flags::server::{GrpcFlags, GrpcTlsFlags};
use crate::shutdown::Shutdown;

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that have agreed on TLS and wait to be served.
const HANDSHAKES_WAITING_MAX: usize = 128;
/// How long accepting rests when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How much of an answer may be on its way to one client.
const WINDOW_BYTES: u32 = 4 << 20;

/// How a gRPC server is run.
#[derive(Clone)]
pub(crate) struct GrpcConfig {
    grace: Duration,
    max_connection_age: Option<Duration>,
    tls: Option<TlsAcceptor>,
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
            tls: tls::acceptor(tls)?,
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
    let serving = server
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections(listener, config.tls), not_serving);
    tokio::select! {
        result = serving => result.context("serve gRPC"),
        () = async { shutdown.wait().await; tokio::time::sleep(config.grace).await } => {
            tracing::warn!(grace = ?config.grace, "calls still running after the grace period were cut off");
            Ok(())
        }
    }
}

/// Connections that are ready to be served.
fn connections(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) -> Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>> {
    let Some(tls) = tls else {
        let plain = stream::unfold(listener, |listener| async move {
            let stream = accept(&listener).await;
            Some((Ok(Connection::Plain(stream)), listener))
        });
        return plain.boxed();
    };
    let (agreed, ready) = mpsc::channel(HANDSHAKES_WAITING_MAX);
    // Ends when the server drops its end.
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                stream = accept(&listener) => stream,
                () = agreed.closed() => return,
            };
            let (tls, agreed) = (tls.clone(), agreed.clone());
            // One client that does not answer must not keep others out.
            tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        // Nobody serves any more when this fails.
                        let _gone = agreed.send(Connection::Tls(Box::new(stream))).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "a client did not agree on TLS"),
                    Err(_elapsed) => tracing::debug!("a client took too long to agree on TLS"),
                }
            });
        }
    });
    stream::unfold(ready, |mut ready| async move {
        let connection = ready.recv().await?;
        Some((Ok(connection), ready))
    })
    .boxed()
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "small packets of a connection may be held back");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "accept a gRPC connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A client's connection.
enum Connection {
    /// In plain text.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
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

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Connection::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Connection::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Connection::Plain(stream) => stream.is_write_vectored(),
            Connection::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Connection::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}
