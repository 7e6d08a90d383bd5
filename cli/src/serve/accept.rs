//! Connections that clients make to a socket, in plain text or behind TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that have agreed on TLS and wait to be served.
const HANDSHAKES_WAITING_MAX: usize = 128;
/// How long accepting rests when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the next client is to agree on.
pub(crate) type TlsNow = Arc<dyn Fn() -> TlsAcceptor + Send + Sync>;

/// The connections of a socket that are ready to be served.
pub(crate) struct Connections {
    address: SocketAddr,
    from: Source,
}

enum Source {
    Plain(TcpListener),
    Tls(mpsc::Receiver<(Connection, SocketAddr)>),
}

impl Connections {
    /// Those to `listener`, which have to agree on TLS when there is `tls`.
    ///
    /// # Errors
    /// When the socket does not know its address.
    pub(crate) fn new(listener: TcpListener, tls: Option<TlsNow>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let from = match tls {
            None => Source::Plain(listener),
            Some(tls) => {
                let (agreed, ready) = mpsc::channel(HANDSHAKES_WAITING_MAX);
                // Ends when this is dropped.
                tokio::spawn(agree(listener, tls, agreed));
                Source::Tls(ready)
            }
        };
        Ok(Connections { address, from })
    }

    /// Waits for the next one. Nothing is lost when it is not waited for to the end.
    pub(crate) async fn next(&mut self) -> (Connection, SocketAddr) {
        match &mut self.from {
            Source::Plain(listener) => {
                let (stream, address) = accept(listener).await;
                (Connection::Plain(stream), address)
            }
            Source::Tls(ready) => match ready.recv().await {
                Some(next) => next,
                // The runtime comes to its end.
                None => std::future::pending().await,
            },
        }
    }

    /// The address of the socket.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn agree(listener: TcpListener, tls: TlsNow, agreed: mpsc::Sender<(Connection, SocketAddr)>) {
    loop {
        let (stream, address) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = agreed.closed() => return,
        };
        let (tls, agreed) = (tls(), agreed.clone());
        // One client that does not answer must not keep others out.
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let connection = Connection::Tls(Box::new(stream));
                    // Nobody serves any more when this fails.
                    let _gone = agreed.send((connection, address)).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "a client did not agree on TLS"),
                Err(_elapsed) => tracing::debug!("a client took too long to agree on TLS"),
            }
        });
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // An answer leaves in several writes. Held back until the client has acknowledged the
                // first, as is the default, the rest of it would be 40 ms late.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "small packets of a connection may be held back");
                }
                return (stream, address);
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A client's connection.
pub(crate) enum Connection {
    /// In plain text.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
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
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Connection::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Connection::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
}
