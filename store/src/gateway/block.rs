//! A block of the catalog: what is known of it, and its card, which is opened on first use.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{Either, select};
use hashbrown::HashSet;
use isobar_model::{Labels, TimeRange};
use isobar_tsdb::Error;
use object_store::path::Path as BucketPath;
use parking_lot::Mutex;
use ulid::Ulid;

use super::Inner;
use crate::api::{SelectEstimate, StoreError};
use crate::block::{Summary, paths};
use crate::cache::ranges::Object;
use crate::cache::{CARD_FILE, INDEX_FILE, Key, PageCache};
use crate::card::build::{BuildMemory, Subject, build, complete};
use crate::card::{Card, Pages, Place, ROOT_BYTES, Root, check_page};

/// A block that could not be read is not tried again for this long.
const QUARANTINE: Duration = Duration::from_secs(5 * 60);
/// How long a chunk may be when nobody says, as in Thanos.
const CHUNK_BYTES_GUESS: u64 = 16_000;
/// Hardly any chunk is so many times as long as all are on average.
const CHUNK_OUTLIER: u64 = 8;
/// Nor is it worth while to guess less.
const CHUNK_BYTES_MIN: u64 = 1_000;

/// A block.
#[derive(Debug)]
pub struct Block {
    /// Its name.
    pub id: Ulid,
    /// The times that it has samples of.
    pub range: TimeRange,
    /// The distance of its samples in milliseconds; 0 for raw ones.
    pub resolution_ms: i64,
    /// The external labels.
    pub labels: Labels,
    index_bytes: Option<u64>,
    series: Option<u64>,
    /// Samples of all series, and the bytes of all chunks.
    samples: u64,
    segment_bytes: u64,
    chunk_bytes: u64,
    card: tokio::sync::Mutex<Option<Card>>,
    quarantine: Mutex<Option<(Instant, String)>>,
    /// Whether a card was made that the bucket does not have.
    unpublished: AtomicBool,
    /// No other block of this process has it, and none that was opened anew after damage.
    number: AtomicU64,
}

impl std::fmt::Debug for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "card of {}", self.root().ulid)
    }
}

impl Block {
    /// A block of which `known` is known.
    pub(super) fn new(known: &Summary) -> Self {
        Block {
            id: known.id,
            range: known.range(),
            resolution_ms: known.resolution_ms,
            labels: known.labels.clone(),
            index_bytes: known.index_bytes,
            series: (known.series > 0).then_some(known.series),
            samples: known.samples,
            segment_bytes: known.segment_bytes,
            chunk_bytes: chunk_bytes(known),
            card: tokio::sync::Mutex::default(),
            quarantine: Mutex::default(),
            unpublished: AtomicBool::new(false),
            number: AtomicU64::new(next_number()),
        }
    }

    /// What the block is called among labels that are known.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// The first time behind the block, as `meta.json` has it.
    pub fn end_ms(&self) -> i64 {
        self.range.max_ms.saturating_add(1)
    }

    /// The length that a chunk is expected not to exceed, in bytes.
    pub(super) fn chunk_bytes(&self) -> u64 {
        // With length, encoding and checksum.
        self.chunk_bytes + 16
    }

    pub(super) fn index(&self) -> Object {
        Object {
            block: self.id,
            file: INDEX_FILE,
            path: paths::index(self.id),
        }
    }

    pub(super) fn segment(&self, number: u32) -> Object {
        Object {
            block: self.id,
            file: number.saturating_add(1),
            path: paths::segment(self.id, number),
        }
    }

    /// Why the block is left out at the moment.
    pub fn quarantined(&self) -> Option<String> {
        let mut quarantine = self.quarantine.lock();
        if quarantine
            .as_ref()
            .is_some_and(|it| it.0.elapsed() > QUARANTINE)
        {
            *quarantine = None;
        }
        quarantine.as_ref().map(|it| it.1.clone())
    }

    /// Lets the block be tried again at once.
    pub fn release(&self) {
        *self.quarantine.lock() = None;
    }

    /// Leaves the block out for a while. Nothing that was read of it is kept.
    pub(super) async fn set_aside(&self, inner: &Inner, why: String) {
        tracing::warn!(block = %self.id, error = why, "a block is left out for five minutes");
        *self.quarantine.lock() = Some((Instant::now(), why));
        *self.card.lock().await = None;
        self.number.store(next_number(), Ordering::Relaxed);
        inner.ranges.cache().forget(&HashSet::from([self.id]));
        let path = inner.card_path(self.id);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a card cannot be removed");
        }
    }

    /// The card, when it is open and nobody is at it.
    pub(super) fn open_card(&self) -> Option<Card> {
        self.card.try_lock().ok()?.clone()
    }

    /// Series, samples and bytes of chunks, where `meta.json` says them.
    pub(super) fn size(&self) -> Option<SelectEstimate> {
        Some(SelectEstimate {
            series: self.series?,
            samples: self.samples,
            bytes: self.segment_bytes,
        })
    }

    /// The card, from memory, disk or the bucket, or made from the index; `builders` are about as many as
    /// are asked for theirs now.
    pub(super) async fn card(
        &self,
        inner: &Arc<Inner>,
        builders: usize,
    ) -> Result<Card, StoreError> {
        let mut slot = self.card.lock().await;
        if let Some(card) = &*slot {
            return Ok(card.clone());
        }
        let path = inner.card_path(self.id);
        let local = inner.blocking(move || read_root(&path)).await?;
        let root = match local {
            Some(root) if self.fits(&root) => root,
            _ => {
                let bytes = self.fetch_card(inner, builders).await?;
                self.write(inner, bytes).await?
            }
        };
        let card = self.open(inner, root);
        *slot = Some(card.clone());
        Ok(card)
    }

    /// Adds to the card what was not waited for when it was made, and says whether that was anything.
    pub(super) async fn complete_card(&self, inner: &Arc<Inner>) -> Result<bool, StoreError> {
        let Some(card) = self.open_card().filter(|it| it.root().lacks_extents) else {
            return Ok(false);
        };
        let path = inner.card_path(self.id);
        let read = inner.blocking(move || std::fs::read(path)).await?;
        let bytes = read.map_err(|e| self.about_card(&e))?;
        let memory = BuildMemory {
            budget: &inner.budget,
            gate: &inner.card_memory,
            builders: 1,
        };
        let (remote, index) = (inner.ranges.remote(), paths::index(self.id));
        let bytes = complete(remote, &inner.pool, &memory, &index, bytes.into()).await?;
        let mut slot = self.card.lock().await;
        if !slot.as_ref().is_some_and(|it| it.root() == card.root()) {
            return Ok(false);
        }
        // Who has the card as it was finds its pages where they were.
        let root = self.write(inner, bytes).await?;
        self.unpublished.store(true, Ordering::Relaxed);
        *slot = Some(self.open(inner, root));
        Ok(true)
    }

    fn open(&self, inner: &Inner, root: Root) -> Card {
        let pages = CardFile {
            block: self.id,
            path: inner.card_path(self.id),
            cache: Arc::clone(inner.ranges.cache()),
        };
        Card::new(self.card_name(), Arc::new(root), Arc::new(pages))
    }

    async fn write(&self, inner: &Inner, card: Bytes) -> Result<Root, StoreError> {
        let root = Root::decode(&self.card_name(), &card)?;
        let path = inner.card_path(self.id);
        let written = inner.blocking(move || write_card(&path, &card)).await?;
        written.map_err(|e| self.about_card(&e))?;
        Ok(root)
    }

    fn about_card(&self, error: &io::Error) -> StoreError {
        StoreError::Unavailable(format!("card of {}: {error}", self.id))
    }

    /// The bucket does not have the card, though it was taken.
    pub(super) fn is_unpublished(&self) {
        self.unpublished.store(true, Ordering::Relaxed);
    }

    /// The card, when it was made here, is complete and was not taken so far.
    pub(super) async fn take_unpublished(
        &self,
        inner: &Inner,
    ) -> Result<Option<Bytes>, StoreError> {
        let lacking = self.open_card().is_none_or(|it| it.root().lacks_extents);
        if lacking || !self.unpublished.swap(false, Ordering::Relaxed) {
            return Ok(None);
        }
        let path = inner.card_path(self.id);
        let read = inner.blocking(move || std::fs::read(path)).await?;
        // A card that went meanwhile is made again some time.
        Ok(read.ok().map(Bytes::from))
    }

    fn card_name(&self) -> String {
        format!("card of {}", self.id)
    }

    fn fits(&self, root: &Root) -> bool {
        root.ulid == self.id
            && self
                .index_bytes
                .is_none_or(|bytes| bytes == root.index_bytes)
    }

    /// The card from the bucket, or from the index while the bucket is asked whether it has one.
    async fn fetch_card(&self, inner: &Arc<Inner>, builders: usize) -> Result<Bytes, StoreError> {
        let remote = inner.ranges.remote();
        let subject = Subject {
            ulid: self.id,
            index: paths::index(self.id),
            index_bytes: self.index_bytes,
            series: self.series,
        };
        let memory = BuildMemory {
            budget: &inner.budget,
            gate: &inner.card_memory,
            builders,
        };
        let made = build(remote, &inner.pool, &memory, &subject);
        let made = async {
            let made = made.await?;
            self.unpublished.store(true, Ordering::Relaxed);
            Ok(made)
        };
        if !inner.config.cards_in_bucket {
            return made.await;
        }
        let at = bucket_card(self.id);
        let stored = async {
            let bytes = remote.whole(&at).await.ok()?;
            let root = Root::decode(&self.card_name(), &bytes).ok()?;
            let whole = root.card_bytes == bytes.len() as u64;
            (whole && self.fits(&root)).then_some(bytes)
        };
        let (made, stored) = (std::pin::pin!(made), std::pin::pin!(stored));
        match select(stored, made).await {
            Either::Left((Some(bytes), _)) => Ok(bytes),
            Either::Left((None, made)) => made.await,
            Either::Right((made, _)) => made,
        }
    }
}

fn chunk_bytes(known: &Summary) -> u64 {
    let longest = known.chunk_bytes_max.map_or(CHUNK_BYTES_GUESS, u64::from);
    match known.segment_bytes.checked_div(known.chunks) {
        None | Some(0) => longest,
        Some(average) => longest.min((average * CHUNK_OUTLIER).max(CHUNK_BYTES_MIN)),
    }
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Where the card of a block lies in a bucket.
pub fn bucket_card(block: Ulid) -> BucketPath {
    BucketPath::from(format!("isobar/cards/{block}"))
}

/// The root of a card on disk, when there is one that is whole.
fn read_root(path: &Path) -> Option<Root> {
    let file = std::fs::File::open(path).ok()?;
    let mut root = [0; ROOT_BYTES];
    file.read_exact_at(&mut root, 0).ok()?;
    let root = Root::decode(&path.display().to_string(), &root).ok()?;
    (file.metadata().ok()?.len() == root.card_bytes).then_some(root)
}

fn write_card(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Every page has a checksum, so a card that a crash cut short is noticed.
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path)
}

/// The pages of a card on disk.
struct CardFile {
    block: Ulid,
    path: PathBuf,
    cache: Arc<PageCache>,
}

impl CardFile {
    fn key(&self, place: Place) -> Key {
        Key {
            block: self.block,
            file: CARD_FILE,
            page: u32::try_from(place.offset()).unwrap_or(u32::MAX),
        }
    }
}

impl Pages for CardFile {
    fn page_at_hand(&self, place: Place) -> Option<Bytes> {
        self.cache.get(&self.key(place))
    }

    fn page(&self, place: Place) -> Result<Bytes, Error> {
        let key = self.key(place);
        if let Some(page) = self.cache.get(&key) {
            return Ok(page);
        }
        let mut page = vec![0; place.len() as usize];
        let read = std::fs::File::open(&self.path)
            .and_then(|file| file.read_exact_at(&mut page, place.offset()));
        read.map_err(|e| Error::io("read", &self.path, e))?;
        let name = self.path.display().to_string();
        let page = check_page(&name, place.offset(), Bytes::from(page))?;
        self.cache.insert(key, page.clone());
        Ok(page)
    }
}
