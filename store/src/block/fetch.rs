//! Finds out which blocks a bucket holds and what they are, again and again.
//!
//! A listing says which files there are and whether they have changed; only what is new is read.
//! What was read is kept in memory and in a file of the data directory (`cache.rs`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::cache::{self, Entries, Entry, Tag, Tagged};
use super::filter::{Filters, KnownBlock, Marks, State};
use super::known::{KnownMeta, LabelSets};
use super::list::{self, Discovery, Listed};
use super::marks::{Mark, MarkError};
use super::meta::{Meta, MetaError};
use super::paths::{self, BlockId};

/// The longest `meta.json` or mark that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// How blocks are found and read.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// How blocks are found.
    pub discovery: Discovery,
    /// How many files are read at a time; at least 1.
    pub concurrency: usize,
    /// Where what was read is kept from one start to the next.
    pub data_dir: Option<PathBuf>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        FetchOptions {
            discovery: Discovery::Concurrent,
            concurrency: 32,
            data_dir: None,
        }
    }
}

/// How much is asked of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// A block that is known is taken as it was, as long as its directory is there: for a start
    /// that is to be over with one listing.
    Known,
    /// Whether the files of blocks have changed is looked up.
    Current,
}

/// Why a directory with the name of a block is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partial {
    /// It has no `meta.json`: the upload has not ended, or the deletion has begun.
    NoMeta,
    /// Its `meta.json` cannot be read; why.
    CorruptedMeta(String),
}

/// What a bucket holds.
#[derive(Debug, Clone, Default)]
pub struct Fetched {
    /// The blocks, by name.
    pub blocks: Vec<KnownBlock>,
    /// Directories with the name of a block that are none.
    pub partial: BTreeMap<BlockId, Partial>,
    /// Blocks that could not be looked at, and why; those that were known are taken as they were.
    /// The view is incomplete; the next fetch tries again.
    pub failed: BTreeMap<BlockId, String>,
    /// Marks that mean nothing because they cannot be read, and why.
    pub bad_marks: Vec<String>,
    /// How many files were read from the bucket.
    pub files_read: usize,
}

impl Fetched {
    /// The blocks that `filters` take at `now_ms` (unix milliseconds), and how many blocks are in
    /// which state.
    pub fn select(&self, filters: &Filters, now_ms: i64) -> (Vec<KnownBlock>, Counts) {
        let states = filters.states(&self.blocks, now_ms);
        let mut counts: Counts = State::ALL.into_iter().map(|state| (state, 0)).collect();
        let mut count = |state: State, by: usize| *counts.entry(state).or_default() += by;
        count(State::Failed, self.failed.len());
        for partial in self.partial.values() {
            let state = match partial {
                Partial::NoMeta => State::NoMeta,
                Partial::CorruptedMeta(_) => State::CorruptedMeta,
            };
            count(state, 1);
        }
        let mut taken = Vec::new();
        for (block, state) in self.blocks.iter().zip(states) {
            count(state, 1);
            if state == State::Loaded {
                count(
                    State::MarkedForNoCompact,
                    usize::from(block.marks.no_compact.is_some()),
                );
                count(
                    State::MarkedForNoDownsample,
                    usize::from(block.marks.no_downsample.is_some()),
                );
                taken.push(block.clone());
            }
        }
        (taken, counts)
    }
}

/// How many blocks are in which state; all states are there.
pub type Counts = BTreeMap<State, usize>;

/// Finds and reads blocks, and remembers them.
#[derive(Debug)]
pub struct Fetcher {
    bucket: Arc<dyn ObjectStore>,
    options: FetchOptions,
    known: Option<Entries>,
}

/// What one block turned out to be.
enum Found {
    Block(Box<Entry>),
    Partial(Partial),
    Gone,
    /// Why, and what was known before.
    Failed(String, Option<Box<Entry>>),
}

/// What was noticed on the way.
#[derive(Default)]
struct Notes {
    files_read: usize,
    bad_marks: Vec<String>,
}

impl Fetcher {
    /// A fetcher that knows nothing but what is in the data directory.
    pub fn new(bucket: Arc<dyn ObjectStore>, options: FetchOptions) -> Self {
        Fetcher {
            bucket,
            options,
            known: None,
        }
    }

    /// Looks at the bucket. Not safe to cancel: what was read until then is read again.
    ///
    /// # Errors
    /// When the bucket cannot be listed. A block that cannot be read is in [`Fetched::failed`].
    pub async fn fetch(&mut self, freshness: Freshness) -> Result<Fetched, object_store::Error> {
        if self.known.is_none() {
            self.known = Some(self.load().await);
        }
        let known = self.known.take().unwrap_or_default();
        let listed = match self.list(&known, freshness).await {
            Ok(listed) => listed,
            Err(error) => {
                self.known = Some(known);
                return Err(error);
            }
        };
        let (fetched, mut entries, changed) = self.read_all(known, listed).await;
        if changed {
            entries = self.save(entries).await;
        }
        self.known = Some(entries);
        Ok(fetched)
    }

    /// The files of blocks; `None` for a block that is taken as it is known.
    async fn list(
        &self,
        known: &Entries,
        freshness: Freshness,
    ) -> Result<BTreeMap<BlockId, Option<Listed>>, object_store::Error> {
        let bucket = &self.bucket;
        let (trusted, listed) = match (freshness, self.options.discovery) {
            (Freshness::Current, Discovery::Recursive) => {
                (Vec::new(), list::everything(bucket).await?)
            }
            (Freshness::Current, Discovery::Concurrent) => {
                let blocks = list::directories(bucket).await?;
                (Vec::new(), list::each(bucket, blocks).await?)
            }
            (Freshness::Known, _) => {
                let blocks = list::directories(bucket).await?;
                let (trusted, new) = blocks.into_iter().partition(|id| known.contains_key(id));
                (trusted, list::each(bucket, new).await?)
            }
        };
        let listed = listed.into_iter().map(|(id, files)| (id, Some(files)));
        Ok(listed
            .chain(trusted.into_iter().map(|id| (id, None)))
            .collect())
    }

    async fn read_all(
        &self,
        mut known: Entries,
        listed: BTreeMap<BlockId, Option<Listed>>,
    ) -> (Fetched, Entries, bool) {
        let known_before = known.len();
        let sets = &LabelSets::of(known.values().map(|entry| &**entry.meta));
        let jobs: Vec<_> = listed
            .into_iter()
            .map(|(id, files)| (id, files, known.remove(&id)))
            .collect();
        let mut results: Vec<_> = stream::iter(jobs)
            .map(|(id, files, old)| async move {
                let mut notes = Notes::default();
                let found = match (files, old) {
                    (None, Some(old)) => Found::Block(Box::new(old)),
                    (files, old) => {
                        let files = files.unwrap_or_default();
                        self.look_at(id, files, old, sets, &mut notes).await
                    }
                };
                (id, found, notes)
            })
            .buffer_unordered(self.options.concurrency.max(1))
            .collect()
            .await;
        results.sort_unstable_by_key(|(id, _, _)| *id);
        let mut fetched = Fetched::default();
        let mut entries = Entries::with_capacity(results.len());
        for (id, found, notes) in results {
            fetched.files_read += notes.files_read;
            fetched.bad_marks.extend(notes.bad_marks);
            match found {
                Found::Block(entry) => {
                    fetched.blocks.push(known_block(&entry));
                    entries.insert(id, *entry);
                }
                Found::Partial(partial) => drop(fetched.partial.insert(id, partial)),
                Found::Failed(reason, old) => {
                    fetched.failed.insert(id, reason);
                    // The tags are the old ones, so that the next fetch reads what is new.
                    if let Some(old) = old {
                        fetched.blocks.push(known_block(&old));
                        entries.insert(id, *old);
                    }
                }
                Found::Gone => (),
            }
        }
        let changed = fetched.files_read > 0 || entries.len() != known_before;
        (fetched, entries, changed)
    }

    /// Reads what is new of a block.
    async fn look_at(
        &self,
        id: BlockId,
        listed: Listed,
        old: Option<Entry>,
        sets: &LabelSets,
        notes: &mut Notes,
    ) -> Found {
        let Some(meta_tag) = listed.meta else {
            return Found::Partial(Partial::NoMeta);
        };
        let meta = match &old {
            Some(old) if old.meta_tag == meta_tag => Arc::clone(&old.meta),
            _ => match self.read_meta(id, notes).await {
                Ok(meta) => Arc::new(meta.sharing(sets)),
                Err(Found::Failed(reason, _)) => return Found::Failed(reason, old.map(Box::new)),
                Err(found) => return found,
            },
        };
        let marks = old.as_ref();
        let marks = (
            self.read_mark(id, listed.deletion, marks.map(|it| &it.deletion), notes)
                .await,
            self.read_mark(id, listed.no_compact, marks.map(|it| &it.no_compact), notes)
                .await,
            self.read_mark(
                id,
                listed.no_downsample,
                marks.map(|it| &it.no_downsample),
                notes,
            )
            .await,
        );
        match marks {
            (Ok(deletion), Ok(no_compact), Ok(no_downsample)) => Found::Block(Box::new(Entry {
                meta_tag,
                meta,
                deletion,
                no_compact,
                no_downsample,
            })),
            (Err(reason), _, _) | (_, Err(reason), _) | (_, _, Err(reason)) => {
                Found::Failed(reason, old.map(Box::new))
            }
        }
    }

    async fn read_meta(&self, id: BlockId, notes: &mut Notes) -> Result<KnownMeta, Found> {
        let path = paths::meta(id);
        notes.files_read += 1;
        let json = match self.read(&path).await {
            Ok(Some(json)) => json,
            // It was deleted since the listing.
            Ok(None) => return Err(Found::Partial(Partial::NoMeta)),
            Err(object_store::Error::NotFound { .. }) => return Err(Found::Gone),
            Err(error) => return Err(Found::Failed(error.to_string(), None)),
        };
        match Meta::decode(path.as_ref(), &json) {
            Ok(meta) if meta.id() == id => Ok(KnownMeta::held(&meta, &json)),
            Ok(meta) => {
                let reason = format!("{path} says that it belongs to block {}", meta.id());
                Err(Found::Partial(Partial::CorruptedMeta(reason)))
            }
            Err(error @ MetaError::Corrupt(_)) => {
                Err(Found::Partial(Partial::CorruptedMeta(error.to_string())))
            }
            Err(error @ MetaError::Version { .. }) => Err(Found::Failed(error.to_string(), None)),
        }
    }

    async fn read_mark<M: Mark>(
        &self,
        id: BlockId,
        listed: Option<Tag>,
        old: Option<&Tagged<M>>,
        notes: &mut Notes,
    ) -> Result<Tagged<M>, String> {
        let Some(tag) = listed else {
            return Ok(None);
        };
        if let Some(Some((old_tag, mark))) = old
            && *old_tag == tag
        {
            return Ok(Some((tag, Arc::clone(mark))));
        }
        let path = paths::file(id, M::FILE);
        notes.files_read += 1;
        let json = match self.read(&path).await {
            Ok(Some(json)) => json,
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        match M::decode(path.as_ref(), &json) {
            Ok(mark) => Ok(Some((tag, Arc::new(mark)))),
            Err(error @ MarkError::Corrupt { .. }) => {
                notes.bad_marks.push(error.to_string());
                Ok(None)
            }
            Err(error @ MarkError::Version { .. }) => Err(error.to_string()),
        }
    }

    /// The content of a small file; `None` when there is no such file.
    async fn read(&self, path: &Path) -> Result<Option<bytes::Bytes>, object_store::Error> {
        let file = match self.bucket.get(path).await {
            Ok(file) => file,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.meta.size > FILE_BYTES_MAX {
            return Err(object_store::Error::Generic {
                store: "bucket",
                source: format!("{path} has {} bytes", file.meta.size).into(),
            });
        }
        file.bytes().await.map(Some)
    }

    async fn load(&self) -> Entries {
        let Some(directory) = self.options.data_dir.clone() else {
            return Entries::new();
        };
        let loaded = tokio::task::spawn_blocking(move || cache::load(&directory)).await;
        loaded.ok().flatten().unwrap_or_default()
    }

    /// Gives the entries back; the texts of metas are on disk then and not held.
    async fn save(&self, entries: Entries) -> Entries {
        let Some(directory) = self.options.data_dir.clone() else {
            return entries;
        };
        let entries = Arc::new(entries);
        let to_save = Arc::clone(&entries);
        let saved = tokio::task::spawn_blocking(move || cache::save(&directory, &to_save)).await;
        let error = match saved {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = error {
            tracing::warn!(%error, "known blocks cannot be written to disk");
        }
        Arc::try_unwrap(entries).unwrap_or_else(|shared| Entries::clone(&shared))
    }
}

fn known_block(entry: &Entry) -> KnownBlock {
    fn only<M>(mark: &Tagged<M>) -> Option<Arc<M>> {
        mark.as_ref().map(|(_, mark)| Arc::clone(mark))
    }
    KnownBlock {
        meta: Arc::clone(&entry.meta),
        marks: Marks {
            deletion: only(&entry.deletion),
            no_compact: only(&entry.no_compact),
            no_downsample: only(&entry.no_downsample),
        },
    }
}

#[cfg(test)]
mod tests;
