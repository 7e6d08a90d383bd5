//! The blocks of a data directory: which there are, whose they are, and which cannot be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobar_model::{Matcher, Tenant, TimeRange};
use serde_json::{Map, Value, json};
use ulid::Ulid;

use crate::Error;
use crate::block::writer::TEMPORARY_SUFFIX;
use crate::block::{BlockMeta, BlockReader, SeriesCache};
use crate::head::late::{Epoch, LateCut};
use crate::merge::{SeriesChunks, SeriesIter};

use super::event::{Event, Events};
use super::files;
use parking_lot::RwLock;

/// The field of `meta.json` that names what only Isobar knows.
pub(crate) const META_FIELD: &str = "isobar";
/// What a directory is called behind the ULID while its block is being deleted.
const DELETION_SUFFIX: &str = ".tmp-for-deletion";

/// A block that is served.
#[derive(Debug, Clone)]
pub struct Block {
    reader: Arc<BlockReader>,
    tenant: Tenant,
    /// Whether it was cut from this head: what is older than its end is in blocks.
    pub(crate) cut_here: bool,
    /// The late samples of the head that it holds.
    pub(crate) late_cut: Option<LateCut>,
}

impl Block {
    fn open(dir: PathBuf, cache: &Arc<SeriesCache>) -> Result<Self, Error> {
        let reader = BlockReader::open_with(dir, Arc::clone(cache))?;
        let field = reader.meta().other.get(META_FIELD);
        let name = field
            .and_then(|field| field.get("tenant"))
            .and_then(Value::as_str);
        let tenant = match name {
            Some(name) => Tenant::new(name)
                .map_err(|e| Error::corrupt(reader.dir().display().to_string(), e.to_string()))?,
            None => Tenant::default(),
        };
        let late_until = field.and_then(|field| field.get("late_until"));
        let BlockMeta { min_ms, end_ms, .. } = *reader.meta();
        let late_cut = late_until.and_then(Value::as_u64).map(|epoch| LateCut {
            range: TimeRange::new(min_ms, end_ms.saturating_sub(1)),
            until: Epoch(epoch),
        });
        Ok(Block {
            late_cut,
            cut_here: name.is_some() && field.is_some_and(|field| field.get("origin").is_none()),
            tenant,
            reader,
        })
    }

    /// What it holds and comes from.
    pub fn meta(&self) -> &BlockMeta {
        self.reader.meta()
    }

    /// Whose it is.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The length of its files in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.reader.size_bytes()
    }

    /// Reads it.
    pub fn reader(&self) -> &Arc<BlockReader> {
        &self.reader
    }
}

/// The fields that a block of a tenant has in `meta.json` besides Prometheus' own.
/// `late_until` says which late samples it holds: see [`crate::head::late`].
pub(crate) fn meta_fields(tenant: &Tenant, late_until: Option<Epoch>) -> Map<String, Value> {
    let mut field = json!({ "tenant": tenant.as_str() });
    if let Some(epoch) = late_until {
        field["late_until"] = json!(epoch.0);
    }
    Map::from_iter([(META_FIELD.to_owned(), field)])
}

/// As [`meta_fields`], for a block that was not cut from a head: `origin` says where its samples
/// come from.
pub(crate) fn meta_fields_of(tenant: &Tenant, origin: &str) -> Map<String, Value> {
    let field = json!({ "tenant": tenant.as_str(), "origin": origin });
    Map::from_iter([(META_FIELD.to_owned(), field)])
}

/// The blocks that are served, and those that are left out.
pub(crate) struct Blocks {
    dir: PathBuf,
    events: Events,
    /// One for all blocks.
    cache: Arc<SeriesCache>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// In the order of their first time.
    served: Arc<Vec<Block>>,
    /// Why blocks are left out, by their directory's name.
    broken: BTreeMap<String, String>,
}

impl Blocks {
    /// The blocks of `dir`, that share a memory of `cache_bytes` for their series.
    pub(crate) fn new(dir: &Path, events: Events, cache_bytes: usize) -> Self {
        Blocks {
            dir: dir.to_owned(),
            events,
            cache: Arc::new(SeriesCache::new(cache_bytes)),
            state: RwLock::default(),
        }
    }

    /// The blocks that are served now.
    pub(crate) fn served(&self) -> Arc<Vec<Block>> {
        Arc::clone(&self.state.read().served)
    }

    /// Directories of blocks that are left out, with the reason.
    pub(crate) fn broken(&self) -> Vec<(PathBuf, String)> {
        let state = self.state.read();
        state
            .broken
            .iter()
            .map(|(name, why)| (self.dir.join(name), why.clone()))
            .collect()
    }

    /// Removes what a crash left of blocks that were being written or deleted.
    pub(crate) fn remove_leftovers(&self) -> Result<(), Error> {
        for name in files::names(&self.dir)? {
            let stem = name
                .strip_suffix(TEMPORARY_SUFFIX)
                .or_else(|| name.strip_suffix(DELETION_SUFFIX));
            if stem.is_some_and(|stem| Ulid::from_string(stem).is_ok()) {
                let path = self.dir.join(name);
                files::remove_dir(&path)?;
                (self.events)(Event::LeftoverRemoved { path });
            }
        }
        Ok(())
    }

    /// Opens blocks that are new in the directory, and drops those that are gone. A block that
    /// cannot be read is left out and told of once.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        let old = self.served();
        let old_broken = self.state.read().broken.clone();
        let mut served = Vec::new();
        let mut broken = BTreeMap::new();
        for name in files::names(&self.dir)? {
            let Ok(ulid) = Ulid::from_string(&name) else {
                continue;
            };
            let known = old.iter().find(|block| block.meta().ulid == ulid);
            match (known, old_broken.get(&name)) {
                (Some(known), _) => served.push(known.clone()),
                (None, Some(why)) => {
                    broken.insert(name, why.clone());
                }
                (None, None) => match Block::open(self.dir.join(&name), &self.cache) {
                    Ok(block) => served.push(block),
                    Err(e) => {
                        let why = super::describe(&e);
                        let path = self.dir.join(&name);
                        (self.events)(Event::BlockQuarantined {
                            path,
                            why: why.clone(),
                        });
                        broken.insert(name, why);
                    }
                },
            }
        }
        self.remove_copied(&mut served)?;
        served.sort_by_key(|block| (block.meta().min_ms, block.meta().ulid));
        let mut state = self.state.write();
        // What a query found out meanwhile stays.
        let news = state
            .broken
            .iter()
            .filter(|(name, _)| !old_broken.contains_key(*name));
        broken.extend(news.map(|(name, why)| (name.clone(), why.clone())));
        served.retain(|block| !broken.contains_key(&block.meta().ulid.to_string()));
        state.broken = broken;
        state.served = Arc::new(served);
        Ok(())
    }

    /// Serves a block that was written just now.
    pub(crate) fn add(&self, ulid: Ulid) -> Result<Block, Error> {
        let block = Block::open(self.dir.join(ulid.to_string()), &self.cache)?;
        let mut state = self.state.write();
        let mut served = (*state.served).clone();
        served.push(block.clone());
        served.sort_by_key(|block| (block.meta().min_ms, block.meta().ulid));
        state.served = Arc::new(served);
        Ok(block)
    }

    /// Serves a copy of a block in its place and removes it.
    pub(crate) fn replace(&self, block: &Block, copy: Ulid) -> Result<(), Error> {
        let copy = Block::open(self.dir.join(copy.to_string()), &self.cache)?;
        self.swap(block.meta().ulid, copy);
        self.remove(block)
    }

    /// Serves a block in the place of another, which stays where it is.
    fn swap(&self, old: Ulid, new: Block) {
        let mut state = self.state.write();
        let mut served = (*state.served).clone();
        served.retain(|block| block.meta().ulid != old);
        served.push(new);
        served.sort_by_key(|block| (block.meta().min_ms, block.meta().ulid));
        state.served = Arc::new(served);
    }

    /// Marks samples of the series that match as deleted. Selects that begin after this leave them out.
    pub(crate) fn delete(
        &self,
        block: &Block,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<(), Error> {
        let reader = block.reader();
        let stones = self.checked(block, reader.tombstones_with(matchers, range))?;
        if let Some(stones) = stones {
            reader.write_tombstones(&stones)?;
            let dir = reader.dir().to_owned();
            self.swap(block.meta().ulid, Block::open(dir, &self.cache)?);
        }
        Ok(())
    }

    /// Removes blocks whose copy is there, as a crash may leave them.
    fn remove_copied(&self, served: &mut Vec<Block>) -> Result<(), Error> {
        let is_copied = |block: &Block| {
            served.iter().any(|copy| {
                let (old, new) = (block.meta(), copy.meta());
                let parents = &new.compaction.parents;
                new.ulid != old.ulid
                    && parents.iter().any(|parent| parent.ulid == old.ulid)
                    && new.min_ms <= old.min_ms
                    && old.end_ms <= new.end_ms
            })
        };
        let copied: Vec<Block> = served.iter().filter(|it| is_copied(it)).cloned().collect();
        for block in copied {
            served.retain(|it| it.meta().ulid != block.meta().ulid);
            let path = block.reader().dir().to_owned();
            self.remove(&block)?;
            (self.events)(Event::LeftoverRemoved { path });
        }
        Ok(())
    }

    /// Stops serving a block and removes its directory. Who reads it at present may go on.
    pub(crate) fn remove(&self, block: &Block) -> Result<(), Error> {
        self.forget(block.meta().ulid);
        let dir = block.reader.dir();
        let mut name = dir.as_os_str().to_owned();
        name.push(DELETION_SUFFIX);
        let doomed = PathBuf::from(name);
        files::rename(dir, &doomed)?;
        files::remove_dir(&doomed)
    }

    fn forget(&self, ulid: Ulid) {
        let mut state = self.state.write();
        let mut served = (*state.served).clone();
        served.retain(|block| block.meta().ulid != ulid);
        state.served = Arc::new(served);
    }

    /// Leaves a block out from now on, when what was read of it turned out to be corrupt.
    fn quarantine(&self, block: &Block, why: String) {
        self.forget(block.meta().ulid);
        let path = block.reader.dir().to_owned();
        let name = block.meta().ulid.to_string();
        if self
            .state
            .write()
            .broken
            .insert(name, why.clone())
            .is_none()
        {
            (self.events)(Event::BlockQuarantined { path, why });
        }
    }

    /// The result of reading a block. Corruption fails this read, and is the last that is seen of
    /// the block.
    pub(crate) fn checked<T>(&self, block: &Block, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(e @ Error::Corrupt { .. }) = &result {
            self.quarantine(block, super::describe(e));
        }
        result
    }

    /// The series of a block.
    pub(crate) fn select(
        self: &Arc<Self>,
        block: &Block,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<SeriesIter, Error> {
        let series = self.checked(block, block.reader.select(matchers, range))?;
        let (blocks, block) = (Arc::clone(self), block.clone());
        Ok(Box::new(series.map(
            move |series: Result<SeriesChunks, Error>| blocks.checked(&block, series),
        )))
    }
}
