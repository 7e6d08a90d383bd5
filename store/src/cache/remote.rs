//! Reads from a bucket: on the runtime that drives its connections, counted, and with errors that
//! name the object.
//!
//! Whoever polls a stream of series need not be a task of a runtime; a request is a task of its own,
//! which ends when nobody waits for it any more.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::pace::Pace;
use crate::api::StoreError;

/// Why an object, or a part of it, was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// There is no such object.
    #[error("{0}: there is no such object")]
    NotFound(String),
    /// It is shorter than what refers to it says.
    #[error("{object} at {offset}: the object ends there, and {wanted} bytes are wanted")]
    TooShort {
        /// The object.
        object: String,
        /// Where the read began.
        offset: u64,
        /// How many bytes were wanted.
        wanted: u64,
    },
    /// The bucket did not answer.
    #[error("{0}")]
    Unavailable(String),
}

impl From<FetchError> for StoreError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::TooShort { .. } => StoreError::Corrupt(error.to_string()),
            FetchError::NotFound(_) | FetchError::Unavailable(_) => {
                StoreError::Unavailable(error.to_string())
            }
        }
    }
}

/// What was asked of the bucket since the start.
#[derive(Debug, Default)]
pub struct RemoteCounters {
    /// Requests.
    pub requests: AtomicU64,
    /// Bytes that came.
    pub bytes: AtomicU64,
    /// Requests that failed.
    pub failures: AtomicU64,
}

/// A bucket to read from.
#[derive(Clone)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    counters: Arc<RemoteCounters>,
    pace: Arc<Pace>,
}

/// A task that ends when nobody waits for it.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Remote {
    /// Reads from `store` on `runtime`.
    pub fn new(store: Arc<dyn ObjectStore>, runtime: Handle) -> Self {
        Remote {
            store,
            runtime,
            counters: Arc::default(),
            pace: Arc::default(),
        }
    }

    /// What was asked so far.
    pub fn counters(&self) -> &RemoteCounters {
        &self.counters
    }

    /// The runtime of the connections.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The bytes that the bucket sends in the time in which a request waits for its first one, as
    /// measured lately.
    pub fn round_trip_bytes(&self) -> u64 {
        self.pace.round_trip_bytes()
    }

    /// The bytes of a range of an object; fewer when it ends inside of the range.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn range(&self, path: &Path, range: Range<u64>) -> Result<Bytes, FetchError> {
        let (store, at) = (Arc::clone(&self.store), path.clone());
        let (wanted, pace) = (range.clone(), Arc::clone(&self.pace));
        let read = async move {
            let end = wanted.end;
            let options = GetOptions {
                range: Some(wanted.into()),
                ..GetOptions::default()
            };
            let began = Instant::now();
            let result = store.get_opts(&at, options).await?;
            // Less than was asked for comes only where the object ends.
            let end = end.min(result.meta.size).max(result.range.start);
            let promised = end - result.range.start;
            let bytes = result.bytes().await?;
            pace.took(bytes.len() as u64, began.elapsed());
            Ok((bytes, promised))
        };
        let bytes = self.run(path, read).await?;
        if bytes.is_empty() && !range.is_empty() {
            return Err(FetchError::TooShort {
                object: path.to_string(),
                offset: range.start,
                wanted: range.end - range.start,
            });
        }
        Ok(bytes)
    }

    /// The last `bytes` of an object, or all of it when it is shorter, and its length.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn tail(&self, path: &Path, bytes: u64) -> Result<(Bytes, u64), FetchError> {
        let (store, at) = (Arc::clone(&self.store), path.clone());
        let size = Arc::new(AtomicU64::new(0));
        let into = Arc::clone(&size);
        let read = async move {
            let options = GetOptions {
                range: Some(GetRange::Suffix(bytes)),
                ..GetOptions::default()
            };
            let result = match store.get_opts(&at, options).await {
                // Azure has no such ranges.
                Err(object_store::Error::NotSupported { .. }) => {
                    let size = store.head(&at).await?.size;
                    let options = GetOptions {
                        range: Some((size.saturating_sub(bytes)..size).into()),
                        ..GetOptions::default()
                    };
                    store.get_opts(&at, options).await?
                }
                other => other?,
            };
            into.store(result.meta.size, Ordering::Relaxed);
            let promised = result.range.end - result.range.start;
            Ok((result.bytes().await?, promised))
        };
        let bytes = self.run(path, read).await?;
        Ok((bytes, size.load(Ordering::Relaxed)))
    }

    /// A whole object.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn whole(&self, path: &Path) -> Result<Bytes, FetchError> {
        let (store, at) = (Arc::clone(&self.store), path.clone());
        let read = async move {
            let result = store.get(&at).await?;
            let promised = result.meta.size;
            Ok((result.bytes().await?, promised))
        };
        self.run(path, read).await
    }

    /// Writes an object.
    ///
    /// # Errors
    /// [`FetchError`]
    pub async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), FetchError> {
        let (store, at) = (Arc::clone(&self.store), path.clone());
        let write = async move {
            store.put(&at, bytes.into()).await?;
            Ok((Bytes::new(), 0))
        };
        self.run(path, write).await?;
        Ok(())
    }

    /// Runs a request that gives bytes, and says how many there should be.
    async fn run(
        &self,
        path: &Path,
        request: impl Future<Output = object_store::Result<(Bytes, u64)>> + Send + 'static,
    ) -> Result<Bytes, FetchError> {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let mut task = Task(self.runtime.spawn(request));
        let error = match (&mut task.0).await {
            Ok(Ok((bytes, promised))) => {
                let len = bytes.len() as u64;
                self.counters.bytes.fetch_add(len, Ordering::Relaxed);
                if len == promised {
                    return Ok(bytes);
                }
                let text = format!("{path}: the answer has {len} bytes instead of {promised}");
                FetchError::Unavailable(text)
            }
            Ok(Err(object_store::Error::NotFound { .. })) => FetchError::NotFound(path.to_string()),
            Ok(Err(error)) => FetchError::Unavailable(format!("{path}: {}", chain(&error))),
            Err(_ended) => FetchError::Unavailable(format!("{path}: the request was given up")),
        };
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        Err(error)
    }
}

/// The text of an error and of what it comes from, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}
