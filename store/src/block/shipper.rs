//! Ships the blocks of a local directory to a bucket, as Thanos' sidecar, receiver and ruler do.
//!
//! Which blocks are in the bucket stands in `thanos.shipper.json` beside them, byte for byte as
//! Thanos writes it: a Prometheus that is told to reads it and does not compact blocks away that
//! are not shipped yet. The file only saves questions; what counts is `meta.json` in the bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use isobar_model::Labels;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::fetch::{FetchOptions, Fetcher, Freshness};
use super::json;
use super::known::KnownMeta;
use super::meta::{Meta, Source};
use super::paths::{self, BlockId};
use super::upload::{UploadError, UploadOptions, upload};
use crate::files;

/// The usual name of the file that says what is shipped.
pub const META_FILE: &str = "thanos.shipper.json";

/// What is shipped from where.
#[derive(Clone)]
pub struct ShipperConfig {
    /// The directory with the blocks.
    pub directory: PathBuf,
    /// The name of the file in it that says what is shipped.
    pub meta_file: String,
    /// Who ships, for `meta.json`.
    pub source: Source,
    /// The external labels of a block, to be added to those it has.
    pub labels: LabelsOf,
    /// Whether a block is shipped at all.
    pub wanted: Wanted,
    /// Whether blocks that were compacted here are shipped.
    pub upload_compacted: bool,
    /// Whether a block that fails does not keep later ones back, and compacted blocks may overlap.
    pub allow_out_of_order_uploads: bool,
    /// Whether a block whose `meta.json` cannot be read does not keep all others back.
    pub skip_corrupted_blocks: bool,
    /// How blocks are uploaded.
    pub upload: UploadOptions,
}

/// External labels of a block.
pub type LabelsOf = Arc<dyn Fn(&Meta) -> BTreeMap<String, String> + Send + Sync>;

/// Says of a block whether it is shipped.
pub type Wanted = Arc<dyn Fn(&Meta) -> bool + Send + Sync>;

impl ShipperConfig {
    /// Ships from `directory` with Thanos' defaults.
    pub fn new(directory: &Path, source: &str, labels: LabelsOf) -> Self {
        ShipperConfig {
            directory: directory.to_owned(),
            meta_file: META_FILE.to_owned(),
            source: Source::new(source),
            labels,
            wanted: Arc::new(|_| true),
            upload_compacted: false,
            allow_out_of_order_uploads: false,
            skip_corrupted_blocks: false,
            upload: UploadOptions::default(),
        }
    }
}

impl fmt::Debug for ShipperConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShipperConfig")
            .field("directory", &self.directory)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Why a directory could not be synchronized to its end. What was shipped is noted all the same.
#[derive(Debug, thiserror::Error)]
pub enum ShipperError {
    /// The directory cannot be read.
    #[error("{path}: {source}")]
    Directory {
        /// Which directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A block of it cannot be read, and is not to be skipped.
    #[error("block {block}: {reason}")]
    Corrupted {
        /// Which block.
        block: BlockId,
        /// What is wrong with it.
        reason: String,
    },
    /// The bucket cannot be asked.
    #[error("{0}")]
    Bucket(#[from] object_store::Error),
    /// A compacted block overlaps with one in the bucket.
    #[error("compacted block {block} overlaps with block {other} in the bucket")]
    Overlap {
        /// Which block.
        block: BlockId,
        /// With which other.
        other: BlockId,
    },
    /// A block could not be uploaded, and later ones have to wait.
    #[error("block {block}: {source}")]
    Upload {
        /// Which block.
        block: BlockId,
        /// Why.
        source: UploadError,
    },
}

/// What one synchronization did.
#[derive(Debug, Default)]
pub struct Synced {
    /// Blocks that were uploaded.
    pub uploaded: Vec<BlockId>,
    /// Blocks that could not be uploaded, and why. The next synchronization tries again.
    pub failed: Vec<(BlockId, UploadError)>,
    /// Blocks that cannot be read and were skipped, and why.
    pub corrupted: Vec<(BlockId, String)>,
}

/// Counters, for `thanos_shipper_*`.
#[derive(Debug, Default)]
pub struct ShipperStats {
    /// Synchronizations that came to their end: `dir_syncs_total`.
    pub dir_syncs: AtomicU64,
    /// Synchronizations that did not: `dir_sync_failures_total`.
    pub dir_sync_failures: AtomicU64,
    /// Blocks that were uploaded: `uploads_total`.
    pub uploads: AtomicU64,
    /// Blocks that could not be uploaded: `upload_failures_total`.
    pub upload_failures: AtomicU64,
    /// Blocks that could not be read: `corrupted_blocks_total`.
    pub corrupted_blocks: AtomicU64,
    /// 1 when the last synchronization shipped compacted blocks, too: `upload_compacted_done`.
    pub upload_compacted_done: AtomicU64,
}

fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// `thanos.shipper.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ShippedFile {
    version: u32,
    /// Go writes `null` for an empty list.
    uploaded: Option<Vec<String>>,
}

const VERSION: u32 = 1;

/// Ships blocks.
#[derive(Debug)]
pub struct Shipper {
    config: ShipperConfig,
    bucket: Arc<dyn ObjectStore>,
    stats: Arc<ShipperStats>,
}

/// A block in the directory.
type Local = Result<Meta, String>;

impl Shipper {
    /// A shipper to `bucket`.
    pub fn new(config: ShipperConfig, bucket: Arc<dyn ObjectStore>) -> Self {
        Shipper {
            config,
            bucket,
            stats: Arc::default(),
        }
    }

    /// Its counters.
    pub fn stats(&self) -> Arc<ShipperStats> {
        Arc::clone(&self.stats)
    }

    /// The blocks that are noted as shipped.
    pub fn shipped(&self) -> BTreeSet<BlockId> {
        read_shipped(&self.file())
    }

    /// Ships what is not shipped yet, oldest first, at `now_ms` (unix milliseconds). Not safe to
    /// cancel; one at a time.
    ///
    /// # Errors
    /// When something keeps later blocks back.
    pub async fn sync(&mut self, now_ms: i64) -> Result<Synced, ShipperError> {
        let result = self.sync_inner(now_ms).await;
        let stats = &self.stats;
        match &result {
            Ok(synced) => {
                count(&stats.dir_syncs, 1);
                count(&stats.upload_failures, synced.failed.len());
                count(&stats.corrupted_blocks, synced.corrupted.len());
                if synced.failed.is_empty() && synced.corrupted.is_empty() {
                    let done = u64::from(self.config.upload_compacted);
                    stats.upload_compacted_done.store(done, Ordering::Relaxed);
                }
            }
            Err(error) => {
                count(&stats.dir_sync_failures, 1);
                let failed = matches!(error, ShipperError::Upload { .. });
                count(&stats.upload_failures, usize::from(failed));
            }
        }
        result
    }

    async fn sync_inner(&mut self, now_ms: i64) -> Result<Synced, ShipperError> {
        let before = self.shipped();
        let mut synced = Synced::default();
        let metas = self.scan(&mut synced).await?;
        // Only blocks that are still here stay in the file.
        let mut shipped: BTreeSet<BlockId> = metas.iter().map(Meta::id).collect();
        shipped.retain(|id| before.contains(id));
        let result = self
            .ship_all(&metas, &mut shipped, &mut synced, now_ms)
            .await;
        let in_order: Vec<BlockId> = metas
            .iter()
            .map(Meta::id)
            .filter(|id| shipped.contains(id))
            .collect();
        if let Err(error) = self.note(in_order).await {
            tracing::warn!(%error, file = %self.file().display(), "what is shipped could not be noted");
        }
        result.map(|()| synced)
    }

    async fn ship_all(
        &self,
        metas: &[Meta],
        shipped: &mut BTreeSet<BlockId>,
        synced: &mut Synced,
        now_ms: i64,
    ) -> Result<(), ShipperError> {
        let mut others: Option<Vec<Arc<KnownMeta>>> = None;
        for meta in metas {
            let id = meta.id();
            let compacted = meta.block.compaction.level > 1;
            if shipped.contains(&id)
                || meta.block.stats.num_samples == 0
                || !(self.config.wanted)(meta)
                || (compacted && !self.config.upload_compacted)
            {
                continue;
            }
            if self.is_in_bucket(id).await? {
                shipped.insert(id);
                continue;
            }
            let meta = self.to_ship(meta);
            if compacted && !self.config.allow_out_of_order_uploads {
                let others = match &mut others {
                    Some(others) => others,
                    None => others.insert(self.metas_in_bucket().await?),
                };
                check_overlap(&meta, others)?;
            }
            let directory = self.config.directory.join(id.to_string());
            match upload(&self.bucket, &directory, meta, self.config.upload, now_ms).await {
                Ok(uploaded) => {
                    tracing::info!(block = %id, files = uploaded.files_sent, bytes = uploaded.bytes_sent, "block uploaded");
                    count(&self.stats.uploads, 1);
                    shipped.insert(id);
                    synced.uploaded.push(id);
                }
                // Retention took it meanwhile.
                Err(error) if error.is_gone() && !directory.exists() => (),
                Err(source) if !self.config.allow_out_of_order_uploads => {
                    return Err(ShipperError::Upload { block: id, source });
                }
                Err(error) => synced.failed.push((id, error)),
            }
        }
        Ok(())
    }

    /// The meta that goes into the bucket.
    fn to_ship(&self, meta: &Meta) -> Meta {
        let mut meta = meta.clone();
        let labels = (self.config.labels)(&meta);
        meta.thanos.labels.extend(labels);
        meta.thanos.source = self.config.source.clone();
        meta
    }

    async fn is_in_bucket(&self, id: BlockId) -> Result<bool, object_store::Error> {
        match self.bucket.head(&paths::meta(id)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn metas_in_bucket(&self) -> Result<Vec<Arc<KnownMeta>>, object_store::Error> {
        let mut fetcher = Fetcher::new(Arc::clone(&self.bucket), FetchOptions::default());
        let fetched = fetcher.fetch(Freshness::Current).await?;
        Ok(fetched.blocks.into_iter().map(|block| block.meta).collect())
    }

    /// The blocks of the directory, oldest first.
    async fn scan(&self, synced: &mut Synced) -> Result<Vec<Meta>, ShipperError> {
        let directory = self.config.directory.clone();
        let failed = |source| ShipperError::Directory {
            path: self.config.directory.clone(),
            source,
        };
        let scanned = tokio::task::spawn_blocking(move || scan(&directory)).await;
        let scanned = scanned
            .map_err(object_store::Error::from)?
            .map_err(failed)?;
        let mut metas = Vec::new();
        for (block, meta) in scanned {
            match meta {
                Ok(meta) => metas.push(meta),
                Err(reason) if self.config.skip_corrupted_blocks => {
                    synced.corrupted.push((block, reason));
                }
                Err(reason) => return Err(ShipperError::Corrupted { block, reason }),
            }
        }
        metas.sort_by_key(|meta| (meta.block.min_ms, meta.id()));
        Ok(metas)
    }

    fn file(&self) -> PathBuf {
        self.config.directory.join(&self.config.meta_file)
    }

    /// Replaces the file, unless it says so already.
    async fn note(&self, shipped: Vec<BlockId>) -> io::Result<()> {
        let file = self.file();
        let written = tokio::task::spawn_blocking(move || write_shipped(&file, &shipped)).await;
        written.map_err(io::Error::other)?
    }
}

fn scan(directory: &Path) -> io::Result<Vec<(BlockId, Local)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(paths::parse_directory) else {
            continue;
        };
        let path = entry.path().join(paths::META);
        let local = match std::fs::read(&path) {
            Ok(json) => match Meta::decode(&path.display().to_string(), &json) {
                Ok(meta) if meta.id() == id => Ok(meta),
                Ok(meta) => Err(format!("meta.json is that of block {}", meta.id())),
                Err(error) => Err(error.to_string()),
            },
            // Retention took the block since the directory was read, or it is no directory.
            Err(_) if !entry.path().is_dir() => continue,
            Err(error) => Err(format!("{}: {error}", path.display())),
        };
        found.push((id, local));
    }
    Ok(found)
}

fn check_overlap(meta: &Meta, others: &[Arc<KnownMeta>]) -> Result<(), ShipperError> {
    let labels = Labels::from_pairs(&meta.thanos.labels);
    let overlaps = |other: &&Arc<KnownMeta>| {
        other.labels == labels
            && other.min_ms < meta.block.end_ms
            && meta.block.min_ms < other.end_ms
    };
    match others.iter().find(overlaps) {
        Some(other) => Err(ShipperError::Overlap {
            block: meta.id(),
            other: other.id,
        }),
        None => Ok(()),
    }
}

fn read_shipped(file: &Path) -> BTreeSet<BlockId> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeSet::new(),
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "what is shipped cannot be read; the bucket is asked");
            return BTreeSet::new();
        }
    };
    match serde_json::from_slice::<ShippedFile>(&bytes) {
        Ok(shipped) if shipped.version == VERSION => {
            let names = shipped.uploaded.unwrap_or_default();
            names
                .iter()
                .filter_map(|name| paths::parse_directory(name))
                .collect()
        }
        _ => {
            tracing::warn!(file = %file.display(), "what is shipped cannot be read; the bucket is asked");
            BTreeSet::new()
        }
    }
}

fn write_shipped(file: &Path, shipped: &[BlockId]) -> io::Result<()> {
    let names: Vec<String> = shipped.iter().map(BlockId::to_string).collect();
    let content = json::encode_indented(&ShippedFile {
        version: VERSION,
        uploaded: (!names.is_empty()).then_some(names),
    });
    if std::fs::read(file).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".tmp");
    files::replace(file, Path::new(&temporary), [content.as_slice()])
}

#[cfg(test)]
mod peer;
#[cfg(test)]
mod tests;
