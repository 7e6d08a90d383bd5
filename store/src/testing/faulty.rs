//! A bucket that fails as buckets do, at a rate and by a seed: the same seed fails at the same
//! calls.
//!
//! Faults: errors of the server before or after the work is done, too many requests, bodies that
//! break off or are too short, a first byte that takes long, objects that are said to be missing,
//! and listings that are behind.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart,
};
use parking_lot::Mutex;

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// 503 instead of doing anything.
    ServerError,
    /// 429 instead of doing anything.
    TooManyRequests,
    /// The work is done, and the answer is an error.
    LostResponse,
    /// A body breaks off with an error.
    CutBody,
    /// A body ends too early, without an error.
    ShortBody,
    /// An object is said to be missing.
    Missing,
    /// What was written last is not listed.
    StaleListing,
    /// The first byte takes long.
    Slow,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 8] = [
        Fault::ServerError,
        Fault::TooManyRequests,
        Fault::LostResponse,
        Fault::CutBody,
        Fault::ShortBody,
        Fault::Missing,
        Fault::StaleListing,
        Fault::Slow,
    ];
}

/// A bucket with faults.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    faults: Vec<Fault>,
    /// How long a slow first byte takes.
    delay: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: u64,
    per_mille: u64,
    injected: HashSet<Fault>,
    count: usize,
    last_written: Option<Path>,
}

impl Faulty {
    /// `inner` with `faults` in `per_mille` of 1000 calls, chosen by `seed`.
    pub fn new(inner: Arc<dyn ObjectStore>, faults: &[Fault], per_mille: u64, seed: u64) -> Self {
        let state = State {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            per_mille,
            injected: HashSet::new(),
            count: 0,
            last_written: None,
        };
        Faulty {
            inner,
            shared: Arc::new(Shared {
                faults: faults.to_vec(),
                delay: Duration::from_millis(5),
                state: Mutex::new(state),
            }),
        }
    }

    /// How often it failed so far.
    pub fn injected(&self) -> usize {
        self.shared.state.lock().count
    }

    /// From now on `per_mille` of 1000 calls fail.
    pub fn set_rate(&self, per_mille: u64) {
        self.shared.state.lock().per_mille = per_mille;
    }
}

impl Shared {
    /// The fault of this call, among those that make sense for it.
    fn draw(&self, sensible: &[Fault]) -> Option<Fault> {
        let mut state = self.state.lock();
        let number = state.next();
        if number % 1000 >= state.per_mille {
            return None;
        }
        let possible: Vec<Fault> = sensible
            .iter()
            .copied()
            .filter(|fault| self.faults.contains(fault))
            .collect();
        let at = usize::try_from(state.next()).unwrap_or(0) % possible.len().max(1);
        let fault = possible.get(at).copied()?;
        state.injected.insert(fault);
        state.count += 1;
        Some(fault)
    }

    /// Fails before the work is done.
    async fn before(&self, fault: Option<Fault>, path: &Path) -> Result<()> {
        match fault {
            Some(Fault::ServerError) => Err(error("503 Service Unavailable")),
            Some(Fault::TooManyRequests) => Err(error("429 Too Many Requests")),
            Some(Fault::Missing) => Err(Error::NotFound {
                path: path.to_string(),
                source: "injected".into(),
            }),
            Some(Fault::Slow) => {
                tokio::time::sleep(self.delay).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl State {
    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }
}

fn error(text: &'static str) -> Error {
    Error::Generic {
        store: "Faulty",
        source: text.into(),
    }
}

/// Fails after the work is done.
fn after(fault: Option<Fault>) -> Result<()> {
    match fault {
        Some(Fault::LostResponse) => Err(error("the connection was reset")),
        _ => Ok(()),
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

const WRITES: [Fault; 4] = [
    Fault::ServerError,
    Fault::TooManyRequests,
    Fault::LostResponse,
    Fault::Slow,
];
const READS: [Fault; 6] = [
    Fault::ServerError,
    Fault::TooManyRequests,
    Fault::CutBody,
    Fault::ShortBody,
    Fault::Missing,
    Fault::Slow,
];
const LISTS: [Fault; 4] = [
    Fault::ServerError,
    Fault::TooManyRequests,
    Fault::StaleListing,
    Fault::Slow,
];

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let fault = self.shared.draw(&WRITES);
        self.shared.before(fault, location).await?;
        let put = self.inner.put_opts(location, payload, opts).await?;
        self.shared.state.lock().last_written = Some(location.clone());
        after(fault).map(|()| put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.shared.draw(&WRITES);
        self.shared.before(fault, location).await?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        after(fault)?;
        Ok(Box::new(FaultyUpload {
            inner,
            location: location.clone(),
            shared: Arc::clone(&self.shared),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let fault = self.shared.draw(&READS);
        self.shared.before(fault, location).await?;
        let found = self.inner.get_opts(location, options).await?;
        if head || !matches!(fault, Some(Fault::CutBody | Fault::ShortBody)) {
            return Ok(found);
        }
        let (meta, range, attributes) = (
            found.meta.clone(),
            found.range.clone(),
            found.attributes.clone(),
        );
        let bytes = found.bytes().await?;
        let half = Ok(bytes.slice(..bytes.len() / 2));
        let body = match fault {
            Some(Fault::CutBody) => vec![half, Err(error("the connection was reset"))],
            _ => vec![half],
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter(body).boxed()),
            meta,
            range,
            attributes,
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fault = self.shared.draw(&READS);
        self.shared.before(fault, location).await?;
        let mut found = self.inner.get_ranges(location, ranges).await?;
        match fault {
            Some(Fault::CutBody) => Err(error("the connection was reset")),
            Some(Fault::ShortBody) => {
                if let Some(last) = found.last_mut() {
                    last.truncate(last.len() / 2);
                }
                Ok(found)
            }
            _ => Ok(found),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let fault = self.shared.draw(&WRITES);
        match fault {
            Some(Fault::ServerError | Fault::TooManyRequests) => {
                let failed = async { Err(error("503 Service Unavailable")) };
                stream::once(failed).boxed()
            }
            Some(Fault::LostResponse) => {
                let deleted = self.inner.delete_stream(locations);
                deleted
                    .map(|done| done.and_then(|_| Err(error("the connection was reset"))))
                    .boxed()
            }
            _ => self.inner.delete_stream(locations),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.faulty_list(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.faulty_list(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fault = self.shared.draw(&LISTS);
        self.shared.before(fault, &Path::default()).await?;
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        if fault == Some(Fault::StaleListing) {
            let hidden = self.shared.state.lock().last_written.clone();
            listed
                .objects
                .retain(|o| Some(&o.location) != hidden.as_ref());
        }
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fault = self.shared.draw(&WRITES);
        self.shared.before(fault, from).await?;
        self.inner.copy_opts(from, to, options).await?;
        after(fault)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let fault = self.shared.draw(&WRITES);
        self.shared.before(fault, from).await?;
        self.inner.rename_opts(from, to, options).await?;
        after(fault)
    }
}

impl Faulty {
    fn faulty_list(
        &self,
        listed: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.shared.draw(&LISTS) {
            Some(Fault::ServerError | Fault::TooManyRequests) => {
                stream::once(async { Err(error("503 Service Unavailable")) }).boxed()
            }
            Some(Fault::StaleListing) => {
                let hidden = self.shared.state.lock().last_written.clone();
                listed
                    .try_filter(move |o| std::future::ready(Some(&o.location) != hidden.as_ref()))
                    .boxed()
            }
            _ => listed,
        }
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    location: Path,
    shared: Arc<Shared>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fault = self.shared.draw(&WRITES);
        let put = self.inner.put_part(data);
        let (shared, location) = (Arc::clone(&self.shared), self.location.clone());
        Box::pin(async move {
            shared.before(fault, &location).await?;
            put.await?;
            after(fault)
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.shared.draw(&WRITES);
        self.shared.before(fault, &self.location).await?;
        let put = self.inner.complete().await?;
        self.shared.state.lock().last_written = Some(self.location.clone());
        after(fault).map(|()| put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
