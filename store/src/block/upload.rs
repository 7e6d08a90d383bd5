//! Brings the directory of a block into a bucket.
//!
//! Chunk segments go first, then the index, then `meta.json`: the block exists when that does. What is
//! there with the right length is kept, so an upload that broke off goes on where it was; before
//! `meta.json` is written, the lengths of all files in the bucket are looked at once more. A block
//! never changes, so whoever uploads it writes the same bytes.
//!
//! Files are open from the beginning: a database may remove the directory meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use ring::digest;

use super::meta::{File, FileHash, Meta};
use super::paths::{self, BlockId};
use super::upload_time::UploadTime;

/// Bytes of the pieces in which long files are uploaded, when the configuration allows more.
const PART_BYTES: u64 = 8 << 20;
/// The least that S3 takes as a piece.
const PART_BYTES_MIN: u64 = 5 << 20;
/// Most pieces of one file.
const PARTS_MAX: u64 = 10_000;
/// Pieces of one file that are on their way at a time.
const PARTS_IN_FLIGHT: usize = 2;

const _: () = assert!(PART_BYTES_MIN <= PART_BYTES);

/// How the content of files is described in `meta.json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HashFunc {
    /// Not at all.
    #[default]
    None,
    /// By its SHA-256.
    Sha256,
}

/// How blocks are uploaded.
#[derive(Debug, Clone, Copy)]
pub struct UploadOptions {
    /// How the content of files is described.
    pub hash: HashFunc,
    /// How many files are uploaded at a time; at least 1.
    pub concurrency: usize,
    /// Most bytes of the pieces of long files; `None` when files go as a whole, which takes as much
    /// memory as they have bytes.
    pub part_bytes: Option<u64>,
    /// Whether a block may have no external labels. Thanos refuses to read buckets like that.
    pub allow_no_labels: bool,
}

impl Default for UploadOptions {
    fn default() -> Self {
        UploadOptions {
            hash: HashFunc::None,
            concurrency: 1,
            part_bytes: Some(PART_BYTES),
            allow_no_labels: false,
        }
    }
}

/// Why a block could not be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The directory is not, or no longer, that of a block.
    #[error("{path}: {source}")]
    Local {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bucket does not take it, or cannot be reached.
    #[error("{0}")]
    Bucket(#[from] object_store::Error),
    /// A file is not in the bucket as it was sent.
    #[error("{path} has {found} bytes in the bucket instead of {expected}")]
    WrongLength {
        /// Which object.
        path: String,
        /// Its length there.
        found: u64,
        /// Its length here.
        expected: u64,
    },
    /// The block has no external labels.
    #[error("block {0} has no external labels")]
    NoLabels(BlockId),
}

impl UploadError {
    fn local(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| UploadError::Local { path, source }
    }

    /// Whether the directory of the block went away meanwhile.
    pub fn is_gone(&self) -> bool {
        matches!(self, UploadError::Local { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What an upload did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Files that were sent, `meta.json` included.
    pub files_sent: usize,
    /// Files that were there already.
    pub files_kept: usize,
    /// Bytes that were sent.
    pub bytes_sent: u64,
}

/// A file of the block.
#[derive(Debug)]
struct OpenFile {
    name: String,
    path: PathBuf,
    file: fs::File,
    len: u64,
    hash: Option<FileHash>,
}

/// Uploads the block in `directory` as `meta` says it, with its files and `now_ms` (unix
/// milliseconds) as time of upload. When `meta.json` is in the bucket already, the block is, and
/// nothing is done. Not safe to cancel: pieces of files may stay in the bucket.
///
/// # Errors
/// When a file cannot be read or sent. What was sent until then is kept by the next try.
pub async fn upload(
    bucket: &Arc<dyn ObjectStore>,
    directory: &Path,
    mut meta: Meta,
    options: UploadOptions,
    now_ms: i64,
) -> Result<Uploaded, UploadError> {
    let id = meta.id();
    if meta.thanos.labels.is_empty() && !options.allow_no_labels {
        return Err(UploadError::NoLabels(id));
    }
    let files = {
        let (directory, hash) = (directory.to_owned(), options.hash);
        blocking(move || open_files(&directory, hash)).await?
    };
    let there = lengths(bucket, id).await?;
    if there.contains_key(paths::META) {
        return Ok(Uploaded::default());
    }
    let (index, segments): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| file.name == paths::INDEX);
    let mut done = Uploaded::default();
    let sent: Vec<Uploaded> = stream::iter(segments)
        .map(|file| send(bucket, id, file, &there, options.part_bytes))
        .buffer_unordered(options.concurrency.max(1))
        .try_collect()
        .await?;
    sent.into_iter().for_each(|sent| done.add(sent));
    for file in index {
        done.add(send(bucket, id, file, &there, options.part_bytes).await?);
    }
    check_lengths(bucket, id, &files).await?;

    meta.thanos.segment_files = segment_names(&files);
    meta.thanos.files = described(&files);
    meta.thanos.upload_time = UploadTime::at(now_ms);
    let json = meta.encode();
    done.files_sent += 1;
    done.bytes_sent += json.len() as u64;
    bucket.put(&paths::meta(id), PutPayload::from(json)).await?;
    Ok(done)
}

impl Uploaded {
    fn add(&mut self, other: Uploaded) {
        self.files_sent += other.files_sent;
        self.files_kept += other.files_kept;
        self.bytes_sent += other.bytes_sent;
    }
}

fn open_files(directory: &Path, hash: HashFunc) -> Result<Vec<OpenFile>, UploadError> {
    let chunks = directory.join(paths::CHUNKS);
    let mut names = Vec::new();
    for entry in fs::read_dir(&chunks).map_err(UploadError::local(&chunks))? {
        let entry = entry.map_err(UploadError::local(&chunks))?;
        names.push(format!(
            "{}/{}",
            paths::CHUNKS,
            entry.file_name().to_string_lossy()
        ));
    }
    names.push(paths::INDEX.to_owned());
    names.sort_unstable();
    let open = |name: String| {
        let path = directory.join(&name);
        let mut file = fs::File::open(&path).map_err(UploadError::local(&path))?;
        let len = file.metadata().map_err(UploadError::local(&path))?.len();
        let hash = match hash {
            HashFunc::None => None,
            HashFunc::Sha256 => Some(sha256(&mut file).map_err(UploadError::local(&path))?),
        };
        Ok(OpenFile {
            name,
            path,
            file,
            len,
            hash,
        })
    };
    names.into_iter().map(open).collect()
}

fn sha256(file: &mut fs::File) -> io::Result<FileHash> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = file.read(&mut buffer)?;
        match buffer.get(..len) {
            None | Some([]) => break,
            Some(bytes) => context.update(bytes),
        }
    }
    let digits = context.finish();
    let value = digits
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(FileHash {
        func: "SHA256".to_owned(),
        value,
    })
}

/// The lengths of a block's objects, by their names in its directory.
async fn lengths(
    bucket: &Arc<dyn ObjectStore>,
    id: BlockId,
) -> Result<BTreeMap<String, u64>, object_store::Error> {
    let directory = paths::directory(id);
    let objects: Vec<_> = bucket.list(Some(&directory)).try_collect().await?;
    let named = |object: &object_store::ObjectMeta| {
        let (_, name) = paths::parse(&object.location)?;
        Some((name.to_owned(), object.size))
    };
    Ok(objects.iter().filter_map(named).collect())
}

/// Sends a file unless it is there.
async fn send(
    bucket: &Arc<dyn ObjectStore>,
    id: BlockId,
    file: &OpenFile,
    there: &BTreeMap<String, u64>,
    part_bytes: Option<u64>,
) -> Result<Uploaded, UploadError> {
    if there.get(&file.name) == Some(&file.len) {
        return Ok(Uploaded {
            files_kept: 1,
            ..Uploaded::default()
        });
    }
    let path = paths::file(id, &file.name);
    match part_bytes {
        Some(bytes) if file.len > bytes.clamp(PART_BYTES_MIN, PART_BYTES) => {
            let part = bytes.clamp(PART_BYTES_MIN, PART_BYTES);
            let part = part.max(file.len.div_ceil(PARTS_MAX));
            send_parts(bucket, &path, file, part).await?;
        }
        _ => {
            let bytes = read_part(file, 0, file.len).await?;
            bucket.put(&path, PutPayload::from(bytes)).await?;
        }
    }
    Ok(Uploaded {
        files_sent: 1,
        bytes_sent: file.len,
        ..Uploaded::default()
    })
}

async fn send_parts(
    bucket: &Arc<dyn ObjectStore>,
    path: &object_store::path::Path,
    file: &OpenFile,
    part: u64,
) -> Result<(), UploadError> {
    let mut upload = bucket.put_multipart(path).await?;
    let sent = send_each(upload.as_mut(), file, part).await;
    if let Err(error) = sent {
        // What is left of it is the bucket's to expire if this does not work either.
        if let Err(error) = upload.abort().await {
            tracing::debug!(%path, %error, "pieces of an upload are left in the bucket");
        }
        return Err(error);
    }
    Ok(())
}

async fn send_each(
    upload: &mut dyn MultipartUpload,
    file: &OpenFile,
    part: u64,
) -> Result<(), UploadError> {
    let mut flying = stream::FuturesUnordered::new();
    let mut offset = 0;
    while offset < file.len {
        let len = part.min(file.len - offset);
        let bytes = read_part(file, offset, len).await?;
        flying.push(upload.put_part(PutPayload::from(bytes)));
        offset += len;
        if flying.len() >= PARTS_IN_FLIGHT
            && let Some(sent) = flying.next().await
        {
            sent?;
        }
    }
    while let Some(sent) = flying.next().await {
        sent?;
    }
    drop(flying);
    upload.complete().await?;
    Ok(())
}

/// A part of a file. A file that is shorter than it was is an error.
async fn read_part(file: &OpenFile, offset: u64, len: u64) -> Result<Bytes, UploadError> {
    use std::os::unix::fs::FileExt;
    let handle = file
        .file
        .try_clone()
        .map_err(UploadError::local(&file.path))?;
    let path = file.path.clone();
    blocking(move || {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut buffer = vec![0; len];
        handle
            .read_exact_at(&mut buffer, offset)
            .map_err(UploadError::local(&path))?;
        Ok(Bytes::from(buffer))
    })
    .await
}

/// Whether all files are in the bucket with the lengths that they have here.
async fn check_lengths(
    bucket: &Arc<dyn ObjectStore>,
    id: BlockId,
    files: &[OpenFile],
) -> Result<(), UploadError> {
    let there = lengths(bucket, id).await?;
    for file in files {
        if there.get(&file.name) == Some(&file.len) {
            continue;
        }
        // The listing may be behind.
        let path = paths::file(id, &file.name);
        let found = bucket.head(&path).await?.size;
        if found != file.len {
            return Err(UploadError::WrongLength {
                path: path.to_string(),
                found,
                expected: file.len,
            });
        }
    }
    Ok(())
}

/// The names of the segments, without their directory.
fn segment_names(files: &[OpenFile]) -> Vec<String> {
    let segments = files.iter().filter_map(|file| {
        let name = file.name.strip_prefix(paths::CHUNKS)?;
        name.strip_prefix('/')
    });
    segments.map(str::to_owned).collect()
}

/// What `meta.json` says of the files, itself included, in the order of their names.
fn described(files: &[OpenFile]) -> Vec<File> {
    let described = files.iter().map(|file| File {
        rel_path: file.name.clone(),
        size_bytes: file.len,
        hash: file.hash.clone(),
        other: serde_json::Map::new(),
    });
    let itself = File {
        rel_path: paths::META.to_owned(),
        size_bytes: 0,
        hash: None,
        other: serde_json::Map::new(),
    };
    let mut all: Vec<File> = described.chain([itself]).collect();
    all.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
    all
}

/// Runs what waits for a disk where waiting is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, UploadError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(object_store::Error::from)?
}
