//! An S3 API over HTTP on loopback, with signatures, which takes its time: a directory to be read, nothing
//! to be written.

use std::fs::File;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use hashbrown::HashMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    CommonPrefix, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    ListObjectsV2Input, ListObjectsV2Output, Object, StreamingBlob, Timestamp,
};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use tokio::net::TcpListener;

use super::Result;

const FIRST_BYTE: Duration = Duration::from_millis(30);
const BYTES_PER_SECOND: u64 = 50_000_000;
/// Bytes that are sent at a time.
const PIECE_BYTES: usize = 64 << 10;
const ACCESS_KEY: &str = "bench";
const SECRET_KEY: &str = "sesame-open";
const BUCKET: &str = "blocks";

/// What was asked.
#[derive(Debug, Default)]
struct Seen {
    requests: AtomicU64,
    bytes: AtomicU64,
    /// The most requests of which each began after the one before had ended.
    trips: AtomicU64,
    /// The same among the requests for one block, whose name is 26 letters long.
    of_block: Mutex<HashMap<String, u64>>,
}

/// A request that is being answered; its number in a row of them, and in one of its block.
struct Trip {
    seen: Arc<Seen>,
    number: u64,
    block: String,
    of_block: u64,
}

impl Trip {
    fn new(seen: &Arc<Seen>, key: &str) -> Self {
        seen.requests.fetch_add(1, Ordering::Relaxed);
        let block = key.split('/').find(|it| it.len() == 26).unwrap_or(key);
        let before = seen.of_block.lock().get(block).copied().unwrap_or(0);
        Trip {
            seen: Arc::clone(seen),
            number: seen.trips.load(Ordering::Relaxed) + 1,
            block: block.to_owned(),
            of_block: before + 1,
        }
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        self.seen.trips.fetch_max(self.number, Ordering::Relaxed);
        let mut of_block = self.seen.of_block.lock();
        let row = of_block.entry(std::mem::take(&mut self.block)).or_default();
        *row = self.of_block.max(*row);
    }
}

/// The bucket.
#[derive(Clone)]
pub(super) struct Bucket {
    address: SocketAddr,
    seen: Arc<Seen>,
}

impl Bucket {
    /// Serves the directory in `root` that has the name of the bucket.
    pub(super) async fn serve(root: &Path) -> Result<Self> {
        let seen = Arc::new(Seen::default());
        let files = Files {
            root: root.to_owned(),
            seen: Arc::clone(&seen),
        };
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            while let Ok((connection, _)) = listener.accept().await {
                let serving = server.serve_connection(TokioIo::new(connection), service.clone());
                let serving = serving.into_owned();
                // A client that goes is no news.
                tokio::spawn(async move { drop(serving.await) });
            }
        });
        Ok(Bucket { address, seen })
    }

    /// The configuration for whoever reads it.
    pub(super) fn config(&self) -> String {
        format!(
            "{{type: S3, config: {{bucket: {BUCKET}, endpoint: \"{}\", insecure: true, \
             access_key: {ACCESS_KEY}, secret_key: {SECRET_KEY}}}}}",
            self.address
        )
    }

    /// Requests and bytes since they were forgotten.
    pub(super) fn counts(&self) -> (u64, u64) {
        let load = |it: &AtomicU64| it.load(Ordering::Relaxed);
        (load(&self.seen.requests), load(&self.seen.bytes))
    }

    /// Forgets what was asked so far.
    pub(super) fn forget(&self) {
        self.seen.requests.store(0, Ordering::Relaxed);
        self.seen.bytes.store(0, Ordering::Relaxed);
    }

    /// The longest row of requests one after the other since [`Bucket::begin_trips`].
    pub(super) fn trips(&self) -> u64 {
        self.seen.trips.load(Ordering::Relaxed)
    }

    /// The longest row of requests for one block.
    pub(super) fn trips_of_block(&self) -> u64 {
        let of_block = self.seen.of_block.lock();
        of_block.values().copied().max().unwrap_or(0)
    }

    /// Counts rows from here on.
    pub(super) fn begin_trips(&self) {
        self.seen.of_block.lock().clear();
        self.seen.trips.store(0, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Files {
    root: PathBuf,
    seen: Arc<Seen>,
}

impl Files {
    fn open(&self, bucket: &str, key: &str) -> S3Result<(File, std::fs::Metadata)> {
        let file = File::open(self.root.join(bucket).join(key));
        let file = file.map_err(|_| s3_error!(NoSuchKey))?;
        let metadata = file.metadata().map_err(|_| s3_error!(InternalError))?;
        if metadata.is_dir() {
            return Err(s3_error!(NoSuchKey));
        }
        Ok((file, metadata))
    }
}

fn read(file: &File, range: Range<u64>) -> std::io::Result<Bytes> {
    let len = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(Bytes::from(bytes))
}

fn modified(metadata: &std::fs::Metadata) -> Option<Timestamp> {
    metadata.modified().ok().map(Timestamp::from)
}

/// The bytes, no faster than they may come.
fn paced(bytes: Bytes, trip: Trip) -> StreamingBlob {
    let state = (bytes, 0, Instant::now(), trip);
    StreamingBlob::wrap(stream::unfold(state, |state| async move {
        let (mut bytes, mut sent, began, trip) = state;
        if bytes.is_empty() {
            return None;
        }
        let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
        sent += piece.len() as u64;
        trip.seen
            .bytes
            .fetch_add(piece.len() as u64, Ordering::Relaxed);
        let due = Duration::from_nanos(sent * 1_000_000_000 / BYTES_PER_SECOND);
        let early = due.saturating_sub(began.elapsed());
        if early > Duration::from_millis(1) {
            tokio::time::sleep(early).await;
        }
        Some((Ok::<_, std::io::Error>(piece), (bytes, sent, began, trip)))
    }))
}

#[async_trait]
impl S3 for Files {
    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let trip = Trip::new(&self.seen, &input.key);
        tokio::time::sleep(FIRST_BYTE).await;
        let (file, metadata) = self.open(&input.bucket, &input.key)?;
        let size = metadata.len();
        let (range, content_range) = match input.range {
            None => (0..size, None),
            Some(range) => {
                let range = range.check(size)?;
                let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                (range, Some(text))
            }
        };
        let bytes = read(&file, range).map_err(|_| s3_error!(InternalError))?;
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(bytes.len()).ok(),
            body: Some(paced(bytes, trip)),
            content_range,
            last_modified: modified(&metadata),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let _trip = Trip::new(&self.seen, "");
        tokio::time::sleep(FIRST_BYTE).await;
        let (_, metadata) = self.open(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: i64::try_from(metadata.len()).ok(),
            last_modified: modified(&metadata),
            ..HeadObjectOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let _trip = Trip::new(&self.seen, "");
        tokio::time::sleep(FIRST_BYTE).await;
        let input = request.input;
        if input.delimiter.as_deref() != Some("/") {
            return Err(s3_error!(NotImplemented));
        }
        let prefix = input.prefix.clone().unwrap_or_default();
        let directory = self.root.join(&input.bucket).join(&prefix);
        let (mut objects, mut prefixes) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                let prefix = Some(format!("{key}/"));
                prefixes.push(CommonPrefix { prefix });
            } else {
                objects.push(Object {
                    key: Some(key),
                    size: i64::try_from(metadata.len()).ok(),
                    last_modified: modified(&metadata),
                    ..Object::default()
                });
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            is_truncated: Some(false),
            contents: Some(objects),
            common_prefixes: Some(prefixes),
            ..ListObjectsV2Output::default()
        }))
    }
}
