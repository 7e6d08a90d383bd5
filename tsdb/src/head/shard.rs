//! A shard of the head: the series of some ids, and the keys that lead to them.
//!
//! A series' id names its shard in the low bits and its slot in the rest, so ids are dense as
//! long as the shards are evenly filled.

use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::keys::Keys;
use super::late::Epoch;
use super::series::MemSeries;

const SHARD_BITS: u32 = 4;
/// The number of shards.
pub(crate) const SHARDS: usize = 1 << SHARD_BITS;
/// All ids are below this: the most series of a head, and the most that a corrupt log can ask
/// memory for.
pub(crate) const IDS_END: u32 = 1 << 24;
/// The bytes of a hash secret.
pub(crate) const SECRET_BYTES: usize = 192;
/// Slots come in pages of this many, so that growing moves nothing.
const PAGE_SLOTS: usize = 256;
/// Beyond this many keys for each series, and a few to begin with, other encodings of the same
/// labels are not remembered: who sends them pays for parsing.
const KEYS_PER_SERIES_MAX: usize = 4;
const KEYS_MIN: usize = 1024;

/// The hash of a tenant and of labels as they stand encoded in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(super) high: u64,
    pub(super) low: u64,
}

impl Key {
    pub(crate) fn shard(self) -> usize {
        (self.high >> (u64::BITS - SHARD_BITS)) as usize
    }
}

/// Makes keys; nobody without the secret can make two that are equal.
pub(crate) struct Hasher {
    secret: [u8; SECRET_BYTES],
}

impl Hasher {
    pub(crate) fn new(secret: [u8; SECRET_BYTES]) -> Self {
        Hasher { secret }
    }

    /// What distinguishes the keys of a tenant.
    pub(crate) fn tenant(&self, name: &str) -> u128 {
        xxh3_128_with_secret(name.as_bytes(), &self.secret)
    }

    #[inline]
    pub(crate) fn key(&self, tenant: u128, encoded_labels: &[u8]) -> Key {
        let hash = xxh3_128_with_secret(encoded_labels, &self.secret) ^ tenant;
        Key {
            high: (hash >> 64) as u64,
            low: hash as u64,
        }
    }
}

/// The shard that an id belongs to.
pub(crate) fn shard_of(id: u32) -> usize {
    id as usize % SHARDS
}

/// The id of a slot in a shard.
pub(crate) fn id_of(shard: usize, slot: u32) -> u32 {
    slot << SHARD_BITS | shard as u32
}

/// The slot of an id in its shard.
pub(crate) fn slot_of(id: u32) -> u32 {
    id >> SHARD_BITS
}

#[derive(Debug, Default)]
pub(crate) struct Shard {
    keys: Keys,
    pages: Vec<Vec<Option<MemSeries>>>,
    series_count: usize,
    /// Series of which a chunk was sealed, until someone takes chunks to a file. Those that come
    /// about otherwise than by an append are not here.
    pub(crate) sealed: Vec<u32>,
    /// That of late samples which come now.
    pub(crate) epoch: Epoch,
}

impl Shard {
    /// Reads what [`Shard::find`] will read first. Done for many keys before the first is searched, so
    /// that the processor waits for their memory all at once.
    #[inline]
    pub(crate) fn touch(&self, key: Key) -> u32 {
        self.keys.touch(key)
    }

    #[inline]
    pub(crate) fn find(&self, key: Key) -> Option<u32> {
        self.keys.find(key)
    }

    /// Remembers that a key leads to a series, of this shard or of another.
    pub(crate) fn add_key(&mut self, key: Key, id: u32) {
        let room = self.keys.len() < KEYS_MIN + KEYS_PER_SERIES_MAX * self.series_count;
        if room && self.find(key).is_none() {
            self.keys.insert(key, id);
        }
    }

    /// Forgets the keys of series that are gone.
    pub(crate) fn retain_keys(&mut self, lives: impl FnMut(u32) -> bool) {
        self.keys.retain(lives);
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<&MemSeries> {
        let slot = slot_of(id) as usize;
        self.pages
            .get(slot / PAGE_SLOTS)?
            .get(slot % PAGE_SLOTS)?
            .as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut MemSeries> {
        let slot = slot_of(id) as usize;
        self.pages
            .get_mut(slot / PAGE_SLOTS)?
            .get_mut(slot % PAGE_SLOTS)?
            .as_mut()
    }

    /// The series of an id of this shard, made when it is new.
    pub(crate) fn get_or_add(&mut self, id: u32) -> &mut MemSeries {
        let slot = slot_of(id) as usize;
        while self.pages.len() <= slot / PAGE_SLOTS {
            self.pages.push(Vec::new());
        }
        let page = &mut self.pages[slot / PAGE_SLOTS];
        if page.is_empty() {
            page.resize_with(PAGE_SLOTS, || None);
        }
        let place = &mut page[slot % PAGE_SLOTS];
        self.series_count += usize::from(place.is_none());
        place.get_or_insert_with(MemSeries::default)
    }

    pub(crate) fn remove(&mut self, id: u32) {
        let slot = slot_of(id) as usize;
        let place = self
            .pages
            .get_mut(slot / PAGE_SLOTS)
            .and_then(|p| p.get_mut(slot % PAGE_SLOTS));
        if place.and_then(Option::take).is_some() {
            self.series_count -= 1;
        }
    }

    /// All series of the shard.
    pub(crate) fn series(&self) -> impl Iterator<Item = &MemSeries> {
        self.pages.iter().flatten().flatten()
    }

    /// The series of a page of slots with their ids; nothing when there is no such page. The
    /// receiver is shard number `shard`.
    pub(crate) fn page(
        &self,
        shard: usize,
        page: usize,
    ) -> Option<impl Iterator<Item = (u32, &MemSeries)>> {
        let slots = self.pages.get(page)?.iter().zip(page * PAGE_SLOTS..);
        Some(slots.filter_map(move |(series, slot)| {
            Some((id_of(shard, u32::try_from(slot).ok()?), series.as_ref()?))
        }))
    }

    /// The memory that keys and slots take, in bytes.
    pub(crate) fn table_bytes(&self) -> usize {
        let slots: usize = self.pages.iter().map(Vec::capacity).sum();
        self.keys.heap_bytes() + slots * size_of::<Option<MemSeries>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_shard_and_slot() {
        for (shard, slot) in [(0, 0), (15, 0), (3, 1 << 20)] {
            let id = id_of(shard, slot);
            assert_eq!((shard_of(id), slot_of(id)), (shard, slot));
        }
    }

    #[test]
    fn keys_are_bounded_by_series() {
        let hasher = Hasher::new([7; SECRET_BYTES]);
        let mut shard = Shard::default();
        for i in 0..3000u32 {
            shard.add_key(hasher.key(0, &i.to_le_bytes()), 16);
        }
        assert_eq!(shard.keys.len(), KEYS_MIN);
        shard.retain_keys(|_| false);
        assert_eq!(shard.find(hasher.key(0, &5u32.to_le_bytes())), None);
        shard.get_or_add(16 * 300);
        assert!(shard.get(16 * 300).is_some() && shard.get(16).is_none());
        shard.remove(16 * 300);
        shard.remove(16 * 300);
        assert_eq!(shard.series().count(), 0);
    }

    #[test]
    fn tenants_have_keys_of_their_own() {
        let hasher = Hasher::new([9; SECRET_BYTES]);
        let (a, b) = (hasher.tenant("a"), hasher.tenant("b"));
        assert_ne!(hasher.key(a, b"x"), hasher.key(b, b"x"));
        assert_eq!(hasher.key(a, b"x"), hasher.key(a, b"x"));
    }
}
