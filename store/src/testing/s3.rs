//! A real S3 API over HTTP on loopback, with signatures, over a directory that goes with it.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The server; it ends when it is dropped.
pub(crate) struct S3Server {
    address: std::net::SocketAddr,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl S3Server {
    pub(crate) const ACCESS_KEY: &str = "test";
    pub(crate) const SECRET_KEY: &str = "sesame-open";

    /// Starts a server with one empty bucket.
    pub(crate) async fn start(bucket: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(bucket)).unwrap();
        let files = FileSystem::new(directory.path()).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(Self::ACCESS_KEY, Self::SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            while let Ok((connection, _)) = listener.accept().await {
                let serving = server.serve_connection(TokioIo::new(connection), service.clone());
                let serving = serving.into_owned();
                tokio::spawn(async move {
                    if let Err(error) = serving.await {
                        println!("connection ended: {error}");
                    }
                });
            }
        });
        S3Server {
            address,
            task,
            _directory: directory,
        }
    }

    /// The configuration of a bucket on it.
    pub(crate) fn config(&self, bucket: &str, prefix: &str) -> String {
        format!(
            "type: S3\nconfig:\n  bucket: {bucket}\n  endpoint: {}\n  insecure: true\n  access_key: {}\n  secret_key: {}\nprefix: {prefix:?}\n",
            self.address,
            Self::ACCESS_KEY,
            Self::SECRET_KEY
        )
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
