//! Makes back ends alike where they differ in what callers rely on: deleting an object that is not
//! there is success, as on S3, and the end of an object can be asked for where ranges must begin
//! somewhere.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, Result,
};

/// Deletions that are under way at a time.
const DELETES_MAX: usize = 16;

/// Deletes one by one; what is not there counts as deleted.
pub(super) fn delete_each<S: ObjectStore>(
    store: Arc<S>,
    locations: BoxStream<'static, Result<Path>>,
) -> BoxStream<'static, Result<Path>> {
    locations
        .map(move |location| {
            let store = Arc::clone(&store);
            async move {
                let location = location?;
                match store.delete(&location).await {
                    Ok(()) | Err(Error::NotFound { .. }) => Ok(location),
                    Err(error) => Err(error),
                }
            }
        })
        .buffered(DELETES_MAX)
        .boxed()
}

/// A store whose differences are evened out.
#[derive(Debug)]
pub struct Normal<S> {
    store: Arc<S>,
    /// Whether the store can be asked for the end of an object.
    knows_ends: bool,
}

impl<S: ObjectStore> Normal<S> {
    /// Evens out those of `store`.
    pub fn new(store: S) -> Self {
        Normal {
            store: Arc::new(store),
            knows_ends: false,
        }
    }

    /// Evens out those of a store that can be asked for the end of an object.
    pub fn of_ends(store: S) -> Self {
        Normal {
            knows_ends: true,
            ..Normal::new(store)
        }
    }
}

impl<S: ObjectStore> fmt::Display for Normal<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Normal({})", self.store)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: ObjectStore> ObjectStore for Normal<S> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, opts).await
    }

    /// The last bytes of an object are asked for by their place, which takes a request more.
    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> Result<GetResult> {
        if let Some(GetRange::Suffix(len)) = options.range
            && !self.knows_ends
        {
            let size = self.store.head(location).await?.size;
            options.range = Some(GetRange::Bounded(size.saturating_sub(len)..size));
        }
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        delete_each(Arc::clone(&self.store), locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.store.rename_opts(from, to, options).await
    }
}
