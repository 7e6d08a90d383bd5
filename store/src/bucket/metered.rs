//! Counts what is asked of a bucket, under the names that Thanos gives its metrics.
//!
//! A request lasts until its body is read. What is missing is an answer and no failure.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use isobar_model::Clock;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart,
};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::build::Bucket;

/// Bounds for the duration of operations, in seconds.
const SECONDS: [f64; 14] = [
    0.001, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0,
];

/// What is asked of a bucket, in Thanos' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Attributes,
    Delete,
    Exists,
    Get,
    GetRange,
    Iter,
    Upload,
}

impl Operation {
    const ALL: [(Operation, &'static str); 7] = [
        (Operation::Attributes, "attributes"),
        (Operation::Delete, "delete"),
        (Operation::Exists, "exists"),
        (Operation::Get, "get"),
        (Operation::GetRange, "get_range"),
        (Operation::Iter, "iter"),
        (Operation::Upload, "upload"),
    ];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    bucket: String,
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BucketLabel {
    bucket: String,
}

/// The metrics of one kind of operation.
#[derive(Debug, Clone)]
struct OperationMetrics {
    total: Counter<u64, AtomicU64>,
    failures: Counter<u64, AtomicU64>,
    seconds: Histogram,
    fetched_bytes: Option<Counter<u64, AtomicU64>>,
    transferred_bytes: Option<Histogram>,
}

/// The metrics of all buckets of the process.
#[derive(Debug, Clone)]
pub struct BucketMetrics {
    operations: Family<Labels, Counter<u64, AtomicU64>>,
    failures: Family<Labels, Counter<u64, AtomicU64>>,
    seconds: Family<Labels, Histogram>,
    fetched_bytes: Family<Labels, Counter<u64, AtomicU64>>,
    transferred_bytes: Family<Labels, Histogram>,
    last_upload: Family<BucketLabel, Gauge>,
}

impl BucketMetrics {
    /// Registers the metrics.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = BucketMetrics {
            operations: Family::default(),
            failures: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            fetched_bytes: Family::default(),
            transferred_bytes: Family::new_with_constructor(|| {
                Histogram::new((15..31).map(|bits| f64::from(1u32 << bits)))
            }),
            last_upload: Family::default(),
        };
        registry.register(
            "thanos_objstore_bucket_operations",
            "Total number of all attempted operations against a bucket",
            metrics.operations.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_operation_failures",
            "Total number of operations against a bucket that failed, but were not expected to fail",
            metrics.failures.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_operation_duration_seconds",
            "Duration of successful operations against the bucket per operation",
            metrics.seconds.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_operation_fetched_bytes",
            "Total number of bytes fetched from bucket, per operation",
            metrics.fetched_bytes.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_operation_transferred_bytes",
            "Number of bytes transferred from/to bucket per operation",
            metrics.transferred_bytes.clone(),
        );
        registry.register(
            "thanos_objstore_bucket_last_successful_upload_time",
            "Second timestamp of the last successful upload to the bucket",
            metrics.last_upload.clone(),
        );
        metrics
    }

    /// Counts what is asked of `bucket`.
    pub fn of(&self, bucket: Bucket, clock: Clock) -> Bucket {
        Bucket {
            store: self.watch(bucket.store, &bucket.name, clock),
            ..bucket
        }
    }

    /// Counts what is asked of `store`, which is called `bucket`.
    pub fn watch(
        &self,
        store: Arc<dyn ObjectStore>,
        bucket: &str,
        clock: Clock,
    ) -> Arc<dyn ObjectStore> {
        let of = |(operation, name): (Operation, &'static str)| {
            let labels = Labels {
                bucket: bucket.to_owned(),
                operation: name,
            };
            let reads = matches!(operation, Operation::Get | Operation::GetRange);
            let moves = reads || operation == Operation::Upload;
            OperationMetrics {
                total: self.operations.get_or_create_owned(&labels),
                failures: self.failures.get_or_create_owned(&labels),
                seconds: self.seconds.get_or_create_owned(&labels),
                fetched_bytes: reads.then(|| self.fetched_bytes.get_or_create_owned(&labels)),
                transferred_bytes: moves
                    .then(|| self.transferred_bytes.get_or_create_owned(&labels)),
            }
        };
        let label = BucketLabel {
            bucket: bucket.to_owned(),
        };
        Arc::new(Metered {
            inner: store,
            shared: Arc::new(Shared {
                operations: Operation::ALL.map(of),
                last_upload: self.last_upload.get_or_create_owned(&label),
                clock,
            }),
        })
    }
}

#[derive(Debug)]
struct Shared {
    /// In the order of [`Operation::ALL`].
    operations: [OperationMetrics; 7],
    last_upload: Gauge,
    clock: Clock,
}

impl Shared {
    fn begin(self: &Arc<Self>, operation: Operation) -> Running {
        let running = Running {
            shared: Arc::clone(self),
            operation,
            began: Instant::now(),
            bytes: 0,
        };
        running.metrics().total.inc();
        running
    }
}

/// An operation that is under way. One that is given up on is neither success nor failure.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    operation: Operation,
    began: Instant,
    bytes: u64,
}

impl Running {
    fn metrics(&self) -> &OperationMetrics {
        // The order of `Operation::ALL` is that of the variants.
        &self.shared.operations[self.operation as usize]
    }

    fn end<T>(self, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => self.succeed(),
            Err(error) => self.fail(error),
        }
        result
    }

    fn succeed(&self) {
        let metrics = self.metrics();
        metrics.seconds.observe(self.began.elapsed().as_secs_f64());
        if let Some(bytes) = &metrics.fetched_bytes {
            bytes.inc_by(self.bytes);
        }
        if let Some(bytes) = &metrics.transferred_bytes {
            bytes.observe(self.bytes as f64);
        }
        if self.operation == Operation::Upload {
            self.shared
                .last_upload
                .set(self.shared.clock.now_ms() / 1000);
        }
    }

    fn fail(&self, error: &Error) {
        let expected = matches!(
            error,
            Error::NotFound { .. }
                | Error::NotModified { .. }
                | Error::AlreadyExists { .. }
                | Error::Precondition { .. }
        );
        if !expected {
            self.metrics().failures.inc();
        }
    }
}

/// A store that is watched.
#[derive(Debug)]
struct Metered {
    inner: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Metered {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let mut running = self.shared.begin(Operation::Upload);
        running.bytes = payload.content_length() as u64;
        running.end(self.inner.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let running = self.shared.begin(Operation::Upload);
        match self.inner.put_multipart_opts(location, opts).await {
            Ok(inner) => Ok(Box::new(MeteredUpload {
                inner,
                running: Some(running),
            })),
            Err(error) => running.end(Err(error)),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = match (options.head, &options.range) {
            (true, _) => Operation::Attributes,
            (false, None) => Operation::Get,
            (false, Some(_)) => Operation::GetRange,
        };
        let mut running = self.shared.begin(operation);
        let mut found = match self.inner.get_opts(location, options).await {
            Ok(found) => found,
            Err(error) => return running.end(Err(error)),
        };
        match found.payload {
            GetResultPayload::Stream(stream) if operation != Operation::Attributes => {
                let running = Some(running);
                let stream = MeteredBody { stream, running }.boxed();
                found.payload = GetResultPayload::Stream(stream);
            }
            payload => {
                running.bytes = found.range.end - found.range.start;
                running.succeed();
                found.payload = payload;
            }
        }
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut running = self.shared.begin(Operation::GetRange);
        let found = self.inner.get_ranges(location, ranges).await;
        running.bytes = ranges.iter().map(|range| range.end - range.start).sum();
        running.end(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let shared = Arc::clone(&self.shared);
        self.inner
            .delete_stream(locations)
            .map(move |deleted| shared.begin(Operation::Delete).end(deleted))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let running = Some(self.shared.begin(Operation::Iter));
        let stream = self.inner.list(prefix);
        MeteredBody { stream, running }.boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let running = Some(self.shared.begin(Operation::Iter));
        let stream = self.inner.list_with_offset(prefix, offset);
        MeteredBody { stream, running }.boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let running = self.shared.begin(Operation::Iter);
        running.end(self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// What comes piece by piece: a body or a listing.
struct MeteredBody<T> {
    stream: BoxStream<'static, Result<T>>,
    running: Option<Running>,
}

/// How many bytes a piece is.
trait Piece {
    fn piece_bytes(&self) -> u64;
}

impl Piece for Bytes {
    fn piece_bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl Piece for ObjectMeta {
    fn piece_bytes(&self) -> u64 {
        0
    }
}

impl<T: Piece> Stream for MeteredBody<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let piece = ready!(self.stream.poll_next_unpin(cx));
        match &piece {
            Some(Ok(piece)) => {
                if let Some(running) = &mut self.running {
                    running.bytes += piece.piece_bytes();
                }
            }
            Some(Err(error)) => {
                if let Some(running) = self.running.take() {
                    running.fail(error);
                }
            }
            None => {
                if let Some(running) = self.running.take() {
                    running.succeed();
                }
            }
        }
        Poll::Ready(piece)
    }
}

#[derive(Debug)]
struct MeteredUpload {
    inner: Box<dyn MultipartUpload>,
    running: Option<Running>,
}

#[async_trait]
impl MultipartUpload for MeteredUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if let Some(running) = &mut self.running {
            running.bytes += data.content_length() as u64;
        }
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await;
        match self.running.take() {
            Some(running) => running.end(result),
            None => result,
        }
    }

    async fn abort(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            running.metrics().failures.inc();
        }
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::bucket::Normal;
    use crate::testing::bucket::{Lacks, conforms};

    #[tokio::test]
    async fn operations_are_counted_by_kind() {
        let mut registry = Registry::default();
        let metrics = BucketMetrics::new(&mut registry);
        let store = Arc::new(Normal::new(InMemory::new()));
        let bucket = metrics.watch(store, "b", Clock::manual(7_000));
        conforms(&bucket, Lacks::default()).await;

        let bucket = metrics.watch(Arc::new(InMemory::new()), "c", Clock::manual(9_000));
        let path = Path::from("x");
        bucket.put(&path, "0123456789".into()).await.unwrap();
        bucket.get(&path).await.unwrap().bytes().await.unwrap();
        let part = GetOptions::default().with_range(Some(2u64..5));
        let part = bucket.get_opts(&path, part).await.unwrap();
        assert_eq!(part.bytes().await.unwrap(), "234");
        bucket.head(&path).await.unwrap();
        assert!(bucket.get(&Path::from("y")).await.is_err());
        bucket.list_with_delimiter(None).await.unwrap();
        bucket.delete(&path).await.unwrap();

        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for (name, operation, value) in [
            ("operations_total", "get", "2"),
            ("operations_total", "get_range", "1"),
            ("operations_total", "attributes", "1"),
            ("operations_total", "iter", "1"),
            ("operations_total", "upload", "1"),
            ("operations_total", "delete", "1"),
            ("operations_total", "exists", "0"),
            ("operation_failures_total", "get", "0"),
            ("operation_fetched_bytes_total", "get", "10"),
            ("operation_fetched_bytes_total", "get_range", "3"),
            ("operation_transferred_bytes_sum", "upload", "10.0"),
            ("operation_duration_seconds_count", "get", "1"),
        ] {
            let line = format!(
                "thanos_objstore_bucket_{name}{{bucket=\"c\",operation=\"{operation}\"}} {value}\n"
            );
            assert!(text.contains(&line), "{line}{text}");
        }
        let line = "thanos_objstore_bucket_last_successful_upload_time{bucket=\"c\"} 9\n";
        assert!(text.contains(line), "{text}");
    }
}
