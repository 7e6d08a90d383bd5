//! Gives every object that is written the metadata and storage class of the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Attribute, AttributeValue, Attributes, CopyOptions, GetOptions, GetResult, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result,
};

/// The key that stands for the storage class among the metadata.
const STORAGE_CLASS: &str = "x-amz-storage-class";

/// A store whose objects get attributes.
#[derive(Debug)]
pub(super) struct Attributed {
    inner: Arc<dyn ObjectStore>,
    attributes: Attributes,
}

impl Attributed {
    /// With `metadata` for every object; its key `X-Amz-Storage-Class` is the storage class.
    pub(super) fn new(inner: Arc<dyn ObjectStore>, metadata: &BTreeMap<String, String>) -> Self {
        let attribute = |(name, value): (&String, &String)| {
            let key = if name.to_lowercase() == STORAGE_CLASS {
                Attribute::StorageClass
            } else {
                Attribute::Metadata(name.clone().into())
            };
            (key, AttributeValue::from(value.clone()))
        };
        Attributed {
            inner,
            attributes: metadata.iter().map(attribute).collect(),
        }
    }

    fn add(&self, attributes: &mut Attributes) {
        for (key, value) in &self.attributes {
            attributes.insert(key.clone(), value.clone());
        }
    }
}

impl fmt::Display for Attributed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Attributed {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        self.add(&mut opts.attributes);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        mut opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.add(&mut opts.attributes);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
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
    async fn objects_get_what_is_configured() {
        let metadata = [("X-Amz-Storage-Class", "STANDARD_IA"), ("team", "x")];
        let metadata = metadata.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let inner = Arc::new(Normal::new(InMemory::new()));
        let bucket = Arc::new(Attributed::new(inner, &metadata)) as Arc<dyn ObjectStore>;
        conforms(&bucket, Lacks::default()).await;
        let path = Path::from("a");
        bucket.put(&path, "x".into()).await.unwrap();
        let found = bucket.get(&path).await.unwrap().attributes;
        let get = |key| found.get(&key).map(|value| value.to_string());
        assert_eq!(get(Attribute::StorageClass).as_deref(), Some("STANDARD_IA"));
        assert_eq!(
            get(Attribute::Metadata("team".into())).as_deref(),
            Some("x")
        );
    }
}
