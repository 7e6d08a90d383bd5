//! Bytes of blocks in a bucket that were read before: in memory, then on disk.
//!
//! Files of blocks do not change, so a page of one is the same for ever. A page is [`PAGE_BYTES`] long,
//! the last of a file shorter, and the pages of a card are as long as the card says. [`ranges`] reads
//! ranges of objects page by page and fetches what is missing, each page once however many wait for
//! it. [`remote`] is the bucket behind it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hashbrown::HashSet;
use ulid::Ulid;

pub mod config;
mod disk;
mod memory;
mod pace;
pub mod ranges;
pub mod remote;

/// The length of a page in bytes.
///
/// Small beside the chunks of a series in a block, of which often only one in a hundred is wanted, and
/// large beside what a page costs by itself. Thanos' caching bucket has 16,000.
pub const PAGE_BYTES: usize = 16 << 10;
/// The number that stands for the card among the files of a block.
pub const CARD_FILE: u32 = u32::MAX;
/// The number that stands for the index.
pub const INDEX_FILE: u32 = 0;

/// A page of a file of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The block.
    pub block: Ulid,
    /// Which file: [`INDEX_FILE`], [`CARD_FILE`] or the number of a chunk segment, from 1.
    pub file: u32,
    /// Which page of it; of a card, its offset.
    pub page: u32,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Bytes on disk; 0 for none.
    pub disk_bytes: u64,
}

impl Default for CacheConfig {
    /// 250 MB in memory as Thanos' index cache has by default, nothing on disk.
    fn default() -> Self {
        CacheConfig {
            memory_bytes: 250 << 20,
            disk_bytes: 0,
        }
    }
}

/// What a cache has done so far, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Pages that were found in memory.
    pub memory_hits: u64,
    /// Pages that were found on disk.
    pub disk_hits: u64,
    /// Pages that were not found.
    pub misses: u64,
    /// Pages that made room in memory.
    pub memory_evictions: u64,
    /// Pages that made room on disk.
    pub disk_evictions: u64,
    /// Pages that were not written to disk because too many waited.
    pub disk_dropped: u64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// Pages in memory and on disk.
#[derive(Debug)]
pub struct PageCache {
    memory: memory::Memory,
    disk: Option<disk::Disk>,
    memory_hits: AtomicU64,
    disk_hits: AtomicU64,
    misses: AtomicU64,
}

impl PageCache {
    /// A cache whose disk part lies in `dir`.
    ///
    /// # Errors
    /// When files cannot be created or read there.
    pub fn open(config: CacheConfig, dir: &Path) -> io::Result<Self> {
        let disk = match config.disk_bytes {
            0 => None,
            bytes => Some(disk::Disk::open(dir, bytes)?),
        };
        Ok(PageCache {
            disk,
            ..PageCache::in_memory(config.memory_bytes)
        })
    }

    /// A cache without a disk part.
    pub fn in_memory(bytes: u64) -> Self {
        PageCache {
            memory: memory::Memory::new(bytes),
            disk: None,
            memory_hits: AtomicU64::new(0),
            disk_hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// A page, when it is in memory.
    pub fn get(&self, key: &Key) -> Option<Bytes> {
        let page = self.memory.get(key)?;
        self.memory_hits.fetch_add(1, Ordering::Relaxed);
        Some(page)
    }

    /// Keeps a page in memory only.
    pub fn insert(&self, key: Key, page: Bytes) {
        self.memory.insert(key, page);
    }

    /// Keeps a page in memory and on disk.
    fn insert_fetched(&self, key: Key, page: Bytes) {
        if let Some(disk) = &self.disk {
            disk.write(key, &page);
        }
        self.memory.insert(key, page);
    }

    /// Whether a page is on disk.
    fn on_disk(&self, key: &Key) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.holds(key))
    }

    /// A page from disk, which is in memory afterwards. Waits for the disk.
    fn read_disk(&self, key: &Key) -> Option<Bytes> {
        let page = self.disk.as_ref()?.read(key)?;
        self.disk_hits.fetch_add(1, Ordering::Relaxed);
        self.memory.insert(*key, page.clone());
        Some(page)
    }

    /// Forgets all pages of some blocks: they are gone, or what was read of them is damaged.
    pub fn forget(&self, blocks: &HashSet<Ulid>) {
        if blocks.is_empty() {
            return;
        }
        self.memory.forget(blocks);
        if let Some(disk) = &self.disk {
            disk.forget(blocks);
        }
    }

    fn count_misses(&self, pages: usize) {
        self.misses.fetch_add(pages as u64, Ordering::Relaxed);
    }

    /// What was done so far, and what is held.
    pub fn counts(&self) -> CacheCounts {
        let disk = self.disk.as_ref();
        CacheCounts {
            memory_hits: self.memory_hits.load(Ordering::Relaxed),
            disk_hits: self.disk_hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            memory_evictions: self.memory.evictions(),
            disk_evictions: disk.map_or(0, disk::Disk::evictions),
            disk_dropped: disk.map_or(0, disk::Disk::dropped),
            memory_bytes: self.memory.bytes(),
            disk_bytes: disk.map_or(0, disk::Disk::bytes),
        }
    }
}
