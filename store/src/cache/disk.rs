//! Pages on disk, bounded in bytes: a file of slots of [`PAGE_BYTES`], and a table of what is in them.
//!
//! ```text
//! pages:  slot 0 │ slot 1 │ …
//! table:  record <56b> for each slot:
//!         magic 49 53 4f 51 │ file <4b> │ page <4b> │ length <4b> │ ULID <16b, big-endian>
//!         │ CRC-32C of key and page <4b> │ zeros <16b> │ CRC-32C of all before and of the slot <4b>
//! ```
//!
//! Numbers are little-endian. Nothing is synced: what a crash leaves half written does not match its
//! checksum, and is as good as not there. Which slot is taken next is told by a clock hand that spares
//! slots that were read since it last came by. Pages are written by a thread of its own, and given up
//! when it does not keep up.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use isobar_tsdb::encoding::{Crc32c, crc32c};
use parking_lot::Mutex;
use ulid::Ulid;

use super::{Key, PAGE_BYTES};

const MAGIC: [u8; 4] = *b"ISOQ";
const RECORD_BYTES: usize = 56;
/// Pages that wait for being written.
const QUEUE_MAX: usize = 1024;

/// The pages.
#[derive(Debug)]
pub(super) struct Disk {
    shared: Arc<Shared>,
    queue: Option<SyncSender<(Key, Bytes)>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    pages: File,
    table: File,
    slots: Mutex<Slots>,
    dropped: AtomicU64,
    evictions: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Slots {
    by_key: HashMap<Key, u32>,
    slots: Vec<Slot>,
    hand: usize,
    slots_max: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: Option<Key>,
    len: u32,
    checksum: u32,
    used: bool,
}

impl Disk {
    /// Opens what is in `dir`, or begins; at most `bytes` are taken.
    ///
    /// # Errors
    /// When files cannot be created or read.
    pub(super) fn open(dir: &Path, bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(dir.join(name))
        };
        let (pages, table) = (open("pages")?, open("table")?);
        let slot_bytes = (PAGE_BYTES + RECORD_BYTES) as u64;
        let slots_max = usize::try_from(bytes / slot_bytes).unwrap_or(usize::MAX);
        let slots_max = slots_max.min(u32::MAX as usize);
        let keep = |file: &File, each: usize| {
            let len = file.metadata()?.len().min((slots_max * each) as u64);
            file.set_len(len).map(|()| len)
        };
        keep(&pages, PAGE_BYTES)?;
        let table_len = keep(&table, RECORD_BYTES)?;
        let mut records = vec![0; usize::try_from(table_len).unwrap_or(0)];
        table.read_exact_at(&mut records, 0)?;
        let mut slots = Slots {
            by_key: HashMap::new(),
            slots: Vec::new(),
            hand: 0,
            slots_max,
        };
        for (record, number) in records.as_chunks::<RECORD_BYTES>().0.iter().zip(0u32..) {
            let slot = Slot::decode(record, number).unwrap_or_default();
            if let Some(key) = slot.key {
                slots.by_key.insert(key, number);
            }
            slots.slots.push(slot);
        }
        let held = slots.by_key.len() as u64 * PAGE_BYTES as u64;
        let shared = Arc::new(Shared {
            pages,
            table,
            slots: Mutex::new(slots),
            dropped: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            bytes: AtomicU64::new(held),
        });
        let (queue, waiting) = sync_channel(QUEUE_MAX);
        let writer = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("cache-writer".into())
            .spawn(move || writer.write_all(&waiting))?;
        Ok(Disk {
            shared,
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    /// Whether a page is there.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.shared.slots.lock().by_key.contains_key(key)
    }

    /// Reads a page. What is damaged counts as not there.
    pub(super) fn read(&self, key: &Key) -> Option<Bytes> {
        self.shared.read(key)
    }

    /// Forgets the pages of some blocks.
    pub(super) fn forget(&self, blocks: &HashSet<Ulid>) {
        let mut slots = self.shared.slots.lock();
        let slots = &mut *slots;
        let all = slots.slots.iter_mut();
        for slot in all.filter(|slot| slot.key.is_some_and(|key| blocks.contains(&key.block))) {
            if let Some(key) = slot.key.take() {
                slots.by_key.remove(&key);
                let bytes = &self.shared.bytes;
                bytes.fetch_sub(PAGE_BYTES as u64, Ordering::Relaxed);
            }
        }
    }

    /// Hands a page to the writer, unless it has too much to do.
    pub(super) fn write(&self, key: Key, page: &Bytes) {
        let sent = self
            .queue
            .as_ref()
            .map(|it| it.try_send((key, page.clone())));
        if !matches!(sent, Some(Ok(()))) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Pages that were not written because too many waited.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Pages that made room for others.
    pub(super) fn evictions(&self) -> u64 {
        self.shared.evictions.load(Ordering::Relaxed)
    }

    /// The bytes of the slots that are taken.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the page cache panicked");
        }
    }
}

impl Shared {
    fn write_all(&self, waiting: &Receiver<(Key, Bytes)>) {
        while let Ok((key, page)) = waiting.recv() {
            if let Err(error) = self.write(key, &page) {
                tracing::warn!(%error, "a page is not cached on disk");
            }
        }
    }

    fn write(&self, key: Key, page: &Bytes) -> io::Result<()> {
        let len = u32::try_from(page.len()).unwrap_or(u32::MAX);
        if page.len() > PAGE_BYTES {
            return Ok(());
        }
        let Some(number) = self.take_slot(&key) else {
            return Ok(());
        };
        let slot = Slot {
            key: Some(key),
            len,
            checksum: checksum(&key, page),
            used: false,
        };
        let at = u64::from(number);
        self.pages.write_all_at(page, at * PAGE_BYTES as u64)?;
        let record = slot.encode(number);
        self.table.write_all_at(&record, at * RECORD_BYTES as u64)?;
        let mut slots = self.slots.lock();
        if let Some(place) = slots.slots.get_mut(number as usize) {
            *place = slot;
        }
        slots.by_key.insert(key, number);
        self.bytes.fetch_add(PAGE_BYTES as u64, Ordering::Relaxed);
        Ok(())
    }

    /// A slot that nothing refers to any more; none when the page is there already.
    fn take_slot(&self, key: &Key) -> Option<u32> {
        let mut slots = self.slots.lock();
        let slots = &mut *slots;
        if slots.by_key.contains_key(key) || slots.slots_max == 0 {
            return None;
        }
        if slots.slots.len() < slots.slots_max {
            slots.slots.push(Slot::default());
            return u32::try_from(slots.slots.len() - 1).ok();
        }
        // Twice around: then no slot is marked as used any more.
        for _ in 0..2 * slots.slots.len() + 1 {
            let at = slots.hand;
            slots.hand = (slots.hand + 1) % slots.slots.len();
            let slot = slots.slots.get_mut(at)?;
            if std::mem::take(&mut slot.used) {
                continue;
            }
            if let Some(old) = slot.key.take() {
                slots.by_key.remove(&old);
                self.evictions.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_sub(PAGE_BYTES as u64, Ordering::Relaxed);
            }
            return u32::try_from(at).ok();
        }
        None
    }

    fn read(&self, key: &Key) -> Option<Bytes> {
        let (number, slot) = {
            let mut slots = self.slots.lock();
            let number = *slots.by_key.get(key)?;
            let slot = slots.slots.get_mut(number as usize)?;
            slot.used = true;
            (number, *slot)
        };
        let mut page = vec![0; slot.len as usize];
        let offset = u64::from(number) * PAGE_BYTES as u64;
        let read = self.pages.read_exact_at(&mut page, offset);
        if read.is_ok() && checksum(key, &page) == slot.checksum {
            return Some(Bytes::from(page));
        }
        // Damaged, or taken for another page meanwhile.
        let mut slots = self.slots.lock();
        let slots = &mut *slots;
        if slots.by_key.get(key) == Some(&number)
            && let Some(slot) = slots.slots.get_mut(number as usize)
        {
            slot.key = None;
            slots.by_key.remove(key);
            self.bytes.fetch_sub(PAGE_BYTES as u64, Ordering::Relaxed);
        }
        None
    }
}

fn checksum(key: &Key, page: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(&key.block.to_bytes());
    crc.update(&key.file.to_le_bytes());
    crc.update(&key.page.to_le_bytes());
    crc.update(page);
    crc.finish()
}

impl Slot {
    fn encode(&self, number: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_BYTES);
        let Some(key) = self.key else {
            return vec![0; RECORD_BYTES];
        };
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&key.file.to_le_bytes());
        out.extend_from_slice(&key.page.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&key.block.to_bytes());
        out.extend_from_slice(&self.checksum.to_le_bytes());
        out.resize(RECORD_BYTES - 4, 0);
        let checksum = crc32c(&out) ^ number;
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    fn decode(record: &[u8; RECORD_BYTES], number: u32) -> Option<Self> {
        let (content, stored) = record.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*stored) != crc32c(content) ^ number {
            return None;
        }
        let word = |at: usize| {
            let bytes = content.get(at..at + 4)?.first_chunk()?;
            Some(u32::from_le_bytes(*bytes))
        };
        let len = word(12)?;
        if content.get(..4)? != MAGIC || len as usize > PAGE_BYTES {
            return None;
        }
        let block = Ulid::from_bytes(*content.get(16..32)?.first_chunk()?);
        Some(Slot {
            key: Some(Key {
                block,
                file: word(4)?,
                page: word(8)?,
            }),
            len,
            checksum: word(32)?,
            used: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(page: u32) -> Key {
        Key {
            block: Ulid::from_parts(7, 7),
            file: 1,
            page,
        }
    }

    fn page(n: u32) -> Bytes {
        Bytes::from(vec![n as u8; 100 + n as usize])
    }

    /// Writes some pages, and waits for the writer by closing.
    fn fill(dir: &Path, bytes: u64, pages: std::ops::Range<u32>) {
        let disk = Disk::open(dir, bytes).unwrap();
        for n in pages {
            disk.write(key(n), &page(n));
        }
    }

    #[test]
    fn pages_outlive_the_process_and_bytes_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = 10 * (PAGE_BYTES + RECORD_BYTES) as u64;
        fill(dir.path(), bytes, 0..8);
        let disk = Disk::open(dir.path(), bytes).unwrap();
        assert_eq!(disk.bytes(), 8 * PAGE_BYTES as u64);
        assert_eq!(disk.read(&key(3)), Some(page(3)));
        assert!(disk.holds(&key(7)) && !disk.holds(&key(8)));
        for n in 8..15 {
            disk.write(key(n), &page(n));
        }
        drop(disk);
        let files = std::fs::metadata(dir.path().join("pages")).unwrap().len();
        assert!(files <= bytes);
        let disk = Disk::open(dir.path(), bytes).unwrap();
        // The one that was read is spared, the others are replaced from the first on.
        let held: Vec<u32> = (0..15)
            .filter(|n| disk.read(&key(*n)) == Some(page(*n)))
            .collect();
        assert_eq!(held, [3, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        drop(disk);
        let disk = Disk::open(dir.path(), bytes / 2).unwrap();
        assert!(disk.bytes() <= bytes / 2);
    }

    #[test]
    fn damage_is_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = 10 * (PAGE_BYTES + RECORD_BYTES) as u64;
        fill(dir.path(), bytes, 0..3);
        let path = dir.path().join("pages");
        let mut pages = std::fs::read(&path).unwrap();
        pages[PAGE_BYTES + 5] ^= 1;
        std::fs::write(&path, pages).unwrap();
        let path = dir.path().join("table");
        let mut table = std::fs::read(&path).unwrap();
        table[9] ^= 1;
        std::fs::write(&path, table).unwrap();
        let disk = Disk::open(dir.path(), bytes).unwrap();
        let read: Vec<_> = (0..3).map(|n| disk.read(&key(n))).collect();
        assert_eq!(read, [None, None, Some(page(2))]);
    }
}
