//! Pages in memory, bounded in bytes.
//!
//! The rule of what stays is S3-FIFO: a page enters a small queue, a tenth of the memory, and what is
//! not asked for again until it has passed through that is forgotten, so that one large read does not
//! push out what is used every minute. What was forgotten lately is remembered by its hash, and enters
//! the main queue when it is read again. There a page that was used goes round once more.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use parking_lot::Mutex;
use ulid::Ulid;

use super::Key;

const SHARDS_MAX: u64 = 16;
/// A shard has at least this much, so that it holds some dozens of pages.
const SHARD_BYTES_MIN: u64 = 4 << 20;
/// About what a page takes besides its bytes.
const OVERHEAD_BYTES: u64 = 128;
const USES_MAX: u8 = 3;

/// The pages.
#[derive(Debug)]
pub(super) struct Memory {
    shards: Vec<Mutex<Shard>>,
    hasher: DefaultHashBuilder,
    shard_bytes: u64,
    evictions: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    pages: HashMap<Key, Page>,
    small: VecDeque<Key>,
    main: VecDeque<Key>,
    small_bytes: u64,
    main_bytes: u64,
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64>,
}

#[derive(Debug)]
struct Page {
    bytes: Bytes,
    uses: u8,
    in_main: bool,
}

impl Memory {
    /// Pages of at most `bytes` in all.
    pub(super) fn new(bytes: u64) -> Self {
        let shards = (bytes / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        Memory {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            shard_bytes: bytes / shards,
            evictions: AtomicU64::new(0),
        }
    }

    fn shard(&self, key: &Key) -> (&Mutex<Shard>, u64) {
        let hash = self.hasher.hash_one(key);
        // The maps look at other bits.
        let at = usize::try_from(hash >> 20).unwrap_or(0) % self.shards.len();
        (&self.shards[at], hash)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Bytes> {
        let mut shard = self.shard(key).0.lock();
        let page = shard.pages.get_mut(key)?;
        page.uses = (page.uses + 1).min(USES_MAX);
        Some(page.bytes.clone())
    }

    pub(super) fn insert(&self, key: Key, bytes: Bytes) {
        let cost = bytes.len() as u64 + OVERHEAD_BYTES;
        if cost > self.shard_bytes / 2 {
            return;
        }
        let (shard, hash) = self.shard(&key);
        let mut shard = shard.lock();
        if let Some(page) = shard.pages.get(&key) {
            // Pages do not change; the same was read twice.
            debug_assert_eq!(page.bytes.len(), bytes.len());
            return;
        }
        while shard.small_bytes + shard.main_bytes + cost > self.shard_bytes {
            if shard.evict(self) {
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
        }
        let in_main = shard.ghost_set.remove(&hash);
        let page = Page {
            bytes,
            uses: 0,
            in_main,
        };
        if in_main {
            shard.main.push_back(key);
            shard.main_bytes += cost;
        } else {
            shard.small.push_back(key);
            shard.small_bytes += cost;
        }
        shard.pages.insert(key, page);
    }

    /// Forgets the pages of some blocks. Looks at all pages, so it is for what happens seldom.
    pub(super) fn forget(&self, blocks: &HashSet<Ulid>) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let shard = &mut *shard;
            shard.pages.retain(|key, page| {
                let goes = blocks.contains(&key.block);
                let cost = page.bytes.len() as u64 + OVERHEAD_BYTES;
                match (goes, page.in_main) {
                    (false, _) => {}
                    (true, true) => shard.main_bytes -= cost,
                    (true, false) => shard.small_bytes -= cost,
                }
                !goes
            });
            shard.small.retain(|key| !blocks.contains(&key.block));
            shard.main.retain(|key| !blocks.contains(&key.block));
        }
    }

    /// The bytes held.
    pub(super) fn bytes(&self) -> u64 {
        let held = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.small_bytes + shard.main_bytes
        };
        self.shards.iter().map(held).sum()
    }

    /// How many pages were forgotten to make room.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }
}

impl Shard {
    /// Moves one page on; true when it is gone.
    fn evict(&mut self, memory: &Memory) -> bool {
        if self.small_bytes > memory.shard_bytes / 10 || self.main.is_empty() {
            let Some(key) = self.small.pop_front() else {
                return false;
            };
            let Some(page) = self.pages.get_mut(&key) else {
                return false;
            };
            let cost = page.bytes.len() as u64 + OVERHEAD_BYTES;
            self.small_bytes -= cost;
            if page.uses > 1 {
                (page.uses, page.in_main) = (0, true);
                self.main.push_back(key);
                self.main_bytes += cost;
                return false;
            }
            self.pages.remove(&key);
            self.remember(memory.hasher.hash_one(key));
            return true;
        }
        let Some(key) = self.main.pop_front() else {
            return false;
        };
        let Some(page) = self.pages.get_mut(&key) else {
            return false;
        };
        if page.uses > 0 {
            page.uses -= 1;
            self.main.push_back(key);
            return false;
        }
        self.main_bytes -= page.bytes.len() as u64 + OVERHEAD_BYTES;
        self.pages.remove(&key);
        true
    }

    /// As many as there are pages in the main queue, as the rule has it, and some for the start.
    fn remember(&mut self, hash: u64) {
        if self.ghost_set.insert(hash) {
            self.ghosts.push_back(hash);
        }
        while self.ghosts.len() > self.main.len() + 64 {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.ghost_set.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(page: u32) -> Key {
        Key {
            block: Ulid::nil(),
            file: 0,
            page,
        }
    }

    #[test]
    fn bytes_are_bounded_and_a_scan_leaves_what_is_used() {
        let memory = Memory::new(1 << 20);
        let page = |n: u32| Bytes::from(vec![n as u8; 1000 + n as usize % 7000]);
        let hot = 0..20u32;
        for round in 0..200u32 {
            for n in hot.clone() {
                if memory.get(&key(n)).is_none() {
                    memory.insert(key(n), page(n));
                }
            }
            for n in 0..50 {
                let n = 1000 + round * 50 + n;
                memory.insert(key(n), page(n));
                assert!(memory.bytes() <= 1 << 20);
            }
        }
        let kept = hot.filter(|n| memory.get(&key(*n)).is_some()).count();
        assert!(kept >= 19, "{kept}");
        assert!(memory.evictions() > 5000 && memory.bytes() > 900 << 10);
        assert_eq!(memory.get(&key(5)), Some(page(5)));
    }

    #[test]
    fn a_block_is_forgotten() {
        let memory = Memory::new(1 << 20);
        let of = |block: u64, page: u32| Key {
            block: Ulid::from_parts(block, 0),
            ..key(page)
        };
        for n in 0..100 {
            memory.insert(of(u64::from(n % 2), n), Bytes::from(vec![0; 1000]));
        }
        memory.forget(&HashSet::from([Ulid::from_parts(1, 0)]));
        assert_eq!(memory.bytes(), 50 * (1000 + OVERHEAD_BYTES));
        assert!(memory.get(&of(1, 1)).is_none() && memory.get(&of(0, 2)).is_some());
    }

    #[test]
    fn what_does_not_fit_is_not_kept() {
        let memory = Memory::new(1000);
        memory.insert(key(1), Bytes::from(vec![0; 1000]));
        assert_eq!((memory.get(&key(1)), memory.bytes()), (None, 0));
    }
}
