//! A bucket that is watched, and that fails where a test wants it.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use super::*;

/// What happens to a read.
pub(super) enum Fault {
    None,
    NotFound,
    Unavailable,
    /// The answer ends early.
    Cut,
    /// A bit of the byte at this offset of the object is another, when it is read.
    Flip(u64),
}

type Judge = Box<dyn Fn(&Path, &Range<u64>) -> Fault + Send + Sync>;

/// What was read of the bucket.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) requests: usize,
    pub(super) bytes: u64,
    /// The most requests of which each began after the one before had ended.
    pub(super) waves: usize,
}

pub(super) struct Watched {
    inner: Arc<InMemory>,
    first_byte: Duration,
    bytes_per_second: u64,
    judge: Mutex<Judge>,
    pub(super) seen: Mutex<Seen>,
}

impl Watched {
    pub(super) fn new(inner: Arc<InMemory>) -> Arc<Self> {
        Watched::slow(inner, Duration::ZERO, u64::MAX)
    }

    /// As slow as a bucket over a network.
    pub(super) fn slow(
        inner: Arc<InMemory>,
        first_byte: Duration,
        bytes_per_second: u64,
    ) -> Arc<Self> {
        Arc::new(Watched {
            inner,
            first_byte,
            bytes_per_second,
            judge: Mutex::new(Box::new(|_, _| Fault::None)),
            seen: Mutex::default(),
        })
    }

    pub(super) fn fail(&self, judge: impl Fn(&Path, &Range<u64>) -> Fault + Send + Sync + 'static) {
        *self.judge.lock() = Box::new(judge);
    }

    pub(super) fn forget(&self) {
        *self.seen.lock() = Seen::default();
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bucket that is watched")
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Watched {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let wave = {
            let mut seen = self.seen.lock();
            seen.requests += 1;
            seen.waves + 1
        };
        tokio::time::sleep(self.first_byte).await;
        let range = match &options.range {
            Some(GetRange::Bounded(range)) => range.clone(),
            _ => 0..u64::MAX,
        };
        let fault = (self.judge.lock())(location, &range);
        let result = async {
            let result = self.inner.get_opts(location, options).await?;
            let (meta, range) = (result.meta.clone(), result.range.clone());
            let attributes = result.attributes.clone();
            let mut bytes = result.bytes().await?.to_vec();
            match fault {
                Fault::None => {}
                Fault::NotFound => {
                    let source = "vanished".into();
                    let path = location.to_string();
                    return Err(object_store::Error::NotFound { path, source });
                }
                Fault::Unavailable => {
                    let source = "503 slow down".into();
                    return Err(object_store::Error::Generic {
                        store: "test",
                        source,
                    });
                }
                Fault::Cut => bytes.truncate(bytes.len() / 2),
                Fault::Flip(at) => {
                    if let Some(byte) = at
                        .checked_sub(range.start)
                        .and_then(|at| bytes.get_mut(at as usize))
                    {
                        *byte ^= 4;
                    }
                }
            }
            let nanos = bytes.len() as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
            if nanos > 0 {
                tokio::time::sleep(Duration::from_nanos(nanos as u64)).await;
            }
            self.seen.lock().bytes += bytes.len() as u64;
            let payload = GetResultPayload::Stream(stream::iter([Ok(Bytes::from(bytes))]).boxed());
            Ok(GetResult {
                payload,
                meta,
                range,
                attributes,
            })
        };
        let result = result.await;
        let mut seen = self.seen.lock();
        seen.waves = seen.waves.max(wave);
        result
    }

    async fn put_opts(
        &self,
        at: &Path,
        bytes: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(at, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
