//! A directory as a bucket, laid out as Thanos does: objects are plain files below it, directories
//! that become empty go.
//!
//! Reading and listing are those of `object_store`. Writing is our own: an object appears as a
//! whole and is on disk when it is acknowledged, so that a block is complete when its `meta.json` is
//! there, even after a power cut. Until then it is called `<name>#<number>`, which listings leave out.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart,
};

use super::normal;
use crate::files;

/// Numbers of files that are being written.
static NEXT: AtomicU64 = AtomicU64::new(1);
/// How often writing begins anew because someone else took the empty directory away.
const TRIES_MAX: usize = 10;

/// A directory as a bucket.
#[derive(Debug)]
pub struct Filesystem {
    root: PathBuf,
    inner: Arc<LocalFileSystem>,
}

impl Filesystem {
    /// The bucket in `root`, which is made when it does not exist.
    ///
    /// # Errors
    /// When the directory cannot be had.
    pub fn new(root: &FilePath) -> Result<Self> {
        fs::create_dir_all(root).map_err(|source| failed(root, source))?;
        let inner = LocalFileSystem::new_with_prefix(root)?.with_automatic_cleanup(true);
        let root = root.canonicalize().map_err(|source| failed(root, source))?;
        Ok(Filesystem {
            root,
            inner: Arc::new(inner),
        })
    }

    fn path(&self, location: &Path) -> Result<PathBuf> {
        // It refuses what leads out of the directory.
        self.inner.path_to_filesystem(location)
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filesystem({})", self.root.display())
    }
}

fn failed(path: &FilePath, source: io::Error) -> Error {
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound {
            path,
            source: Box::new(source),
        },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists {
            path,
            source: Box::new(source),
        },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied {
            path,
            source: Box::new(source),
        },
        _ => Error::Generic {
            store: "Filesystem",
            source: Box::new(source),
        },
    }
}

/// A file that is not yet called as it will be.
#[derive(Debug)]
struct Staged {
    root: PathBuf,
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl Staged {
    fn new(root: &FilePath, path: &FilePath) -> io::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!("#{}{number}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        for tries_left in (0..TRIES_MAX).rev() {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            match File::create_new(&temporary) {
                Ok(file) => {
                    return Ok(Staged {
                        root: root.to_owned(),
                        path: path.to_owned(),
                        temporary,
                        file,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries_left > 0 => (),
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Gives the file its name once its content is on disk. `replace` says what becomes of a file
    /// that has the name.
    fn publish(&self, replace: bool) -> io::Result<()> {
        self.file.sync_all()?;
        if replace {
            fs::rename(&self.temporary, &self.path)?;
        } else {
            fs::hard_link(&self.temporary, &self.path)?;
            fs::remove_file(&self.temporary)?;
        }
        // The directories above may be new, too.
        let above = self.path.ancestors().skip(1);
        for directory in above.take_while(|directory| directory.starts_with(&self.root)) {
            files::sync_directory(directory)?;
        }
        Ok(())
    }

    /// Takes the file away, and the directories that are empty then. What cannot be taken away is in
    /// the way of nobody.
    fn discard(&self) {
        let _left = fs::remove_file(&self.temporary);
        let above = self.path.ancestors().skip(1);
        for directory in above.take_while(|above| *above != self.root) {
            if !directory.starts_with(&self.root) || fs::remove_dir(directory).is_err() {
                return;
            }
        }
    }
}

/// Runs what waits for a disk where waiting is allowed.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await?;
    done.map_err(|source| failed(&path, source))
}

#[async_trait]
impl ObjectStore for Filesystem {
    /// Attributes and tags have no place in a file and are left out, as Thanos does.
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let replace = match opts.mode {
            PutMode::Overwrite => true,
            PutMode::Create => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "put with the mode update".to_owned(),
                    implementer: self.to_string(),
                });
            }
        };
        let (root, path) = (self.root.clone(), self.path(location)?);
        blocking(path.clone(), move || {
            let mut staged = Staged::new(&root, &path)?;
            let written = payload
                .iter()
                .try_for_each(|bytes| staged.file.write_all(bytes))
                .and_then(|()| staged.publish(replace));
            written.inspect_err(|_| staged.discard())
        })
        .await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (root, path) = (self.root.clone(), self.path(location)?);
        let staged = blocking(path.clone(), move || Staged::new(&root, &path)).await?;
        Ok(Box::new(Parts {
            staged: Arc::new(staged),
            offset: 0,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    /// Deleting what is not there is success, as on S3.
    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        normal::delete_each(Arc::clone(&self.inner), locations)
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

/// A long object, piece by piece, in the order in which the pieces are handed over.
#[derive(Debug)]
struct Parts {
    staged: Arc<Staged>,
    offset: u64,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (staged, mut offset) = (Arc::clone(&self.staged), self.offset);
        self.offset += data.content_length() as u64;
        blocking(staged.path.clone(), move || {
            for bytes in &data {
                staged.file.write_all_at(bytes, offset)?;
                offset += bytes.len() as u64;
            }
            Ok(())
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = Arc::clone(&self.staged);
        blocking(staged.path.clone(), move || staged.publish(true)).await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn abort(&mut self) -> Result<()> {
        let staged = Arc::clone(&self.staged);
        blocking(staged.path.clone(), move || {
            staged.discard();
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn the_directory_looks_as_thanos_wants_it() {
        let root = tempfile::tempdir().unwrap();
        let bucket = Filesystem::new(&root.path().join("made")).unwrap();
        let object = Path::from("a/chunks/000001");
        bucket.put(&object, "x".into()).await.unwrap();
        let file = root.path().join("made/a/chunks/000001");
        assert_eq!(fs::read(&file).unwrap(), b"x");
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);

        // What is being written is not seen, and given up without a trace.
        let mut upload = bucket.put_multipart(&Path::from("a/index")).await.unwrap();
        upload.put_part("abc".into()).await.unwrap();
        let listed = bucket.list_with_delimiter(Some(&Path::from("a"))).await;
        assert_eq!(listed.unwrap().objects.len(), 0);
        upload.abort().await.unwrap();
        assert_eq!(fs::read_dir(root.path().join("made/a")).unwrap().count(), 1);
        let mut upload = bucket.put_multipart(&Path::from("b/c/d")).await.unwrap();
        upload.abort().await.unwrap();
        assert_eq!(fs::read_dir(root.path().join("made")).unwrap().count(), 1);

        bucket.delete(&object).await.unwrap();
        assert_eq!(fs::read_dir(root.path().join("made")).unwrap().count(), 0);
        bucket.delete(&object).await.unwrap();
    }
}
