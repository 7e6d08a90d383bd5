//! A real S3 API over HTTP on loopback, with signatures, over a directory that goes with it.
//!
//! Writes can be held up ([`S3Server::hold`]), so that a test can end a client in the middle of an upload.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The server; it ends when it is dropped.
pub struct S3Server {
    address: SocketAddr,
    task: JoinHandle<()>,
    directory: tempfile::TempDir,
    gate: Arc<Gate>,
}

/// Which part of a request is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The request: nothing has happened yet.
    Request,
    /// The answer: what was asked for has happened.
    Answer,
}

/// Lets a number of writes pass.
struct Gate {
    /// How many more pass, and which part of the others is held.
    open: watch::Sender<(usize, Held)>,
    waiting: AtomicUsize,
}

impl Gate {
    /// Whether this part of a write passes. One that is held waits until the gate is set anew, and is lost.
    async fn passes(&self, part: Held) -> bool {
        let mut set = self.open.subscribe();
        let mut passes = false;
        self.open.send_if_modified(|(left, held)| {
            passes = *held != part || *left > 0;
            if *held == part {
                *left = left.saturating_sub(1);
            }
            false
        });
        if !passes {
            let _waits = Waits::new(&self.waiting);
            // The gate lives as long as this borrows it.
            let _set = set.changed().await;
        }
        passes
    }
}

/// A write that is held up, until its client goes or the gate is set anew.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Waits(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl S3Server {
    /// The one key that it knows.
    pub const ACCESS_KEY: &str = "test";
    /// The secret of that key.
    pub const SECRET_KEY: &str = "sesame-open";

    /// Starts a server with one empty bucket.
    ///
    /// # Panics
    /// When there is no directory or no socket for it.
    pub async fn start(bucket: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the bucket");
        std::fs::create_dir(directory.path().join(bucket)).expect("the bucket's directory");
        let files = FileSystem::new(directory.path()).expect("the directory is there");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(Self::ACCESS_KEY, Self::SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let gate = Arc::new(Gate {
            open: watch::Sender::new((usize::MAX, Held::Request)),
            waiting: AtomicUsize::new(0),
        });
        let task = tokio::spawn(serve(listener, service, Arc::clone(&gate)));
        S3Server {
            address,
            task,
            directory,
            gate,
        }
    }

    /// The configuration of a bucket on it.
    pub fn config(&self, bucket: &str, prefix: &str) -> String {
        format!(
            "type: S3\nconfig:\n  bucket: {bucket}\n  endpoint: {}\n  insecure: true\n  access_key: {}\n  secret_key: {}\nprefix: {prefix:?}\n",
            self.address,
            Self::ACCESS_KEY,
            Self::SECRET_KEY
        )
    }

    /// Where the objects of a bucket lie, by their names.
    pub fn directory(&self, bucket: &str) -> PathBuf {
        self.directory.path().join(bucket)
    }

    /// Lets `count` writes pass and holds up a part of all that follow. When this is called again, what is
    /// held is lost, and its connection ends.
    pub fn hold(&self, count: usize, part: Held) {
        self.gate.open.send_replace((count, part));
    }

    /// Lets everything pass.
    pub fn open(&self) {
        self.hold(usize::MAX, Held::Request);
    }

    /// How many writes are held up.
    pub fn waiting(&self) -> usize {
        self.gate.waiting.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, service: S3Service, gate: Arc<Gate>) {
    let server = auto::Builder::new(TokioExecutor::new());
    while let Ok((connection, _)) = listener.accept().await {
        let (service, gate) = (service.clone(), Arc::clone(&gate));
        let answer = service_fn(move |request: Request<Incoming>| {
            let (service, gate) = (service.clone(), Arc::clone(&gate));
            async move {
                let writes = [Method::PUT, Method::POST].contains(request.method());
                let lost = || Err(HttpError::new("the connection is cut".into()));
                if writes && !gate.passes(Held::Request).await {
                    return lost();
                }
                let answer = service.call(request.map(Body::from)).await;
                if writes && !gate.passes(Held::Answer).await {
                    return lost();
                }
                answer
            }
        });
        let serving = server.serve_connection(TokioIo::new(connection), answer);
        let serving = serving.into_owned();
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::debug!(error, "a connection to the S3 server ended");
            }
        });
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
