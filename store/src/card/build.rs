//! Makes the card of a block that lies in a bucket, from a few ranges of its index.
//!
//! One round trip is enough as a rule: symbols lie at the begin of an index, label pairs and the table of
//! contents at its end, and how much is read of both is guessed ([`guess`]). The lists of series of the
//! metrics' names, which say where the series of a metric lie, are not waited for: a card that lacks them is
//! of use, and [`complete`] adds them later. Where the guess was too short what is missing is read
//! together with these lists, so that the trip is not for nothing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::future::{try_join, try_join3};
use isobar_model::budget::{Budget, Reservation};
use isobar_tsdb::index::parts::Layout;
use object_store::path::Path;
use tokio::sync::{Semaphore, SemaphorePermit};
use ulid::Ulid;

use super::write::Sections;
use super::{Card, write};
use crate::api::StoreError;
use crate::cache::remote::{FetchError, Remote};
use crate::compute::Pool;

/// What is read of either end of an index at least, where there is room for it.
const END_BYTES_MIN: u64 = 64 << 10;
/// And at most.
const END_BYTES_MAX: u64 = 1 << 20;
/// What is read of either end while hundreds of other cards are made.
const END_BYTES_CROWDED: u64 = 16 << 10;
/// Either end is expected to take no more than this part of an index, as long as none is known.
const END_PART: u64 = 64;
/// Parts of an index are told in so many.
const PARTS: u64 = 1024;
/// How many metrics are guessed at most.
const METRICS_GUESS_MAX: u64 = 16 << 10;
/// Of an index that does not say how many series it has, this much is read for the lists.
const LISTS_GUESS: u64 = 1 << 20;
/// What decoding takes beside the sections, in times of their bytes: a symbol or a pair of about 20
/// bytes becomes 12 or 24 bytes and a part of the card.
const DECODE_FACTOR: u64 = 2;

/// What is to be read.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The block.
    pub ulid: Ulid,
    /// Where its index lies.
    pub index: Path,
    /// The length of the index in bytes, when it is known.
    pub index_bytes: Option<u64>,
    /// How many series it has, when that is known.
    pub series: Option<u64>,
}

/// The unit in which builders wait for memory, in bytes.
const GATE_BYTES: u64 = 16 << 10;

/// The memory for making cards. Several builders wait for each other rather than to fail.
pub struct BuildMemory<'a> {
    /// What is taken is reserved here.
    pub budget: &'a Arc<Budget>,
    /// How much all builders may take together.
    pub gate: &'a BuildGate,
    /// How many builders there are going to be about now.
    pub builders: usize,
}

/// How much all builders of cards may take together: three parts of it hold what is read, one is for
/// decoding, which only a few do at a time.
pub struct BuildGate {
    reading: Part,
    decoding: Part,
    /// The part of an index that an end of one took lately: those of a bucket are alike.
    end_parts: AtomicU64,
}

struct Part {
    permits: Semaphore,
    units: u32,
}

impl BuildGate {
    /// About `bytes` for all builders. One that needs more than that is alone.
    pub fn new(bytes: u64) -> Self {
        BuildGate {
            reading: Part::new(bytes / 4 * 3),
            decoding: Part::new(bytes / 4),
            end_parts: AtomicU64::new(PARTS / END_PART),
        }
    }

    /// How much of an index of `size` bytes its longer end is expected to take.
    fn end_bytes(&self, size: u64) -> u64 {
        let parts = self.end_parts.load(Ordering::Relaxed);
        let bytes = u128::from(size) * u128::from(parts) / u128::from(PARTS);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Learns how much it took.
    fn learn(&self, layout: &Layout) {
        let longer = layout.symbols.end.max(layout.size - layout.table.start);
        let parts = u128::from(longer) * u128::from(PARTS) / u128::from(layout.size.max(1));
        // A bit more, since the next one may have more of them.
        let parts = u64::try_from(parts).unwrap_or(PARTS) * 9 / 8 + 1;
        let before = self.end_parts.load(Ordering::Relaxed);
        let parts = parts.max(before - before / 8).min(PARTS);
        self.end_parts.store(parts, Ordering::Relaxed);
    }
}

impl Part {
    fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / GATE_BYTES).unwrap_or(u32::MAX);
        let units = units.clamp(1, 1 << 24);
        Part {
            permits: Semaphore::new(units as usize),
            units,
        }
    }

    fn units(&self, bytes: u64) -> u32 {
        let units = u32::try_from(bytes.div_ceil(GATE_BYTES)).unwrap_or(u32::MAX);
        units.clamp(1, self.units)
    }

    async fn wait(&self, bytes: u64) -> Result<SemaphorePermit<'_>, StoreError> {
        let permit = self.permits.acquire_many(self.units(bytes)).await;
        permit.map_err(|_| StoreError::Unavailable("shutting down".to_owned()))
    }

    fn bytes(&self) -> u64 {
        u64::from(self.units) * GATE_BYTES
    }
}

/// How much is read of either end of an index of `size` bytes.
fn guess(size: u64, memory: &BuildMemory<'_>) -> u64 {
    let wanted = memory.gate.end_bytes(size);
    let wanted = wanted.clamp(END_BYTES_MIN, END_BYTES_MAX);
    // All of them at once take fewer trips than half of them after the other half.
    let share = memory.gate.reading.bytes() / 2 / memory.builders.max(1) as u64;
    wanted.min(share.max(END_BYTES_CROWDED) / GATE_BYTES * GATE_BYTES)
}

/// Reads what is needed of an index and makes the card, which may lack the extents of metrics
/// ([`super::Root::lacks_extents`]).
///
/// # Errors
/// When the index cannot be read, does not follow the format, or there is not enough memory.
pub async fn build(
    remote: &Remote,
    pool: &Pool,
    memory: &BuildMemory<'_>,
    subject: &Subject,
) -> Result<Bytes, StoreError> {
    let index = Partial {
        remote,
        path: &subject.index,
    };
    let name = subject.index.to_string();
    let mut held = memory.budget.reservation("the card of a block");
    let end_bytes = guess(subject.index_bytes.unwrap_or(0), memory);
    let turn = memory.gate.reading.wait(2 * end_bytes).await?;
    hold_more(&mut held, 2 * end_bytes)?;
    let (head, tail, size) = match subject.index_bytes {
        Some(size) if size <= 2 * end_bytes => {
            let whole = index.read(0..size).await?;
            (whole.clone(), whole, size)
        }
        Some(size) => {
            let head = index.read(0..end_bytes);
            let (head, tail) = try_join(head, index.read(size - end_bytes..size)).await?;
            (head, tail, size)
        }
        None => {
            let head = index.read_some(0..end_bytes);
            let tail = remote.tail(&subject.index, end_bytes);
            let (head, (tail, size)) = try_join(head, tail).await?;
            (head, tail, size)
        }
    };
    let layout = Layout::decode(&name, &head, last(&tail, Layout::TAIL_BYTES), size)?;
    memory.gate.learn(&layout);
    let mut known = [
        Known {
            begin: 0,
            bytes: head,
        },
        Known {
            begin: size - tail.len() as u64,
            bytes: tail,
        },
    ];
    let section_bytes = |it: &Range<u64>| it.end - it.start;
    let sections_bytes = section_bytes(&layout.symbols) + section_bytes(&layout.table);
    let missing = |range: &Range<u64>, known: &[Known]| !known.iter().any(|it| it.holds(range));
    let lacking = missing(&layout.symbols, &known) || missing(&layout.table, &known);
    let mut lists = 0..0;
    let mut turns = (turn, None);
    if lacking {
        lists = lists_guess(&layout, subject.series);
        let needed = sections_bytes + section_bytes(&lists);
        match memory
            .gate
            .reading
            .permits
            .try_acquire_many(memory.gate.reading.units(needed))
        {
            Ok(more) => turns.1 = Some(more),
            Err(_) => {
                // Nobody waits for more while holding some, lest all do.
                known = [Known::default(), Known::default()];
                drop(turns.0);
                turns.0 = memory.gate.reading.wait(needed).await?;
            }
        }
        hold_more(&mut held, needed)?;
    }
    let [head, tail] = known;
    let (symbols, table, lists_bytes) = try_join3(
        index.read_rest(&[&head, &tail], layout.symbols.clone()),
        index.read_rest(&[&tail, &head], layout.table.clone()),
        index.read_rest(&[&tail, &head], lists.clone()),
    )
    .await?;
    let lists = Known {
        begin: lists.start,
        bytes: lists_bytes,
    };
    let decoding = sections_bytes.saturating_mul(DECODE_FACTOR);
    let _decoding = memory.gate.decoding.wait(decoding).await?;
    hold_more(&mut held, decoding)?;
    let ulid = subject.ulid;
    let made = pool.run(move || {
        let sections = Sections::decode(&name, layout, symbols, &table)?;
        let wanted = sections.metric_lists();
        let lists = [&lists, &head, &tail]
            .into_iter()
            .find_map(|it| it.slice(&wanted));
        sections.card(ulid, lists.as_ref())
    });
    let card = made
        .await
        .map_err(|e| StoreError::Unavailable(e.to_string()))??;
    drop(turns);
    Ok(Bytes::from(card))
}

/// Where the lists of series of the metrics' names lie: behind the list of all series, four bytes each, and
/// together as long. Only the table of label pairs says it exactly.
fn lists_guess(layout: &Layout, series: Option<u64>) -> Range<u64> {
    let (before, guess) = match series {
        Some(series) => (
            4 * series,
            12 + 4 * series + 12 * series.min(METRICS_GUESS_MAX),
        ),
        None => (0, LISTS_GUESS),
    };
    let begin = layout.postings.start.saturating_add(before);
    let end = begin.saturating_add(guess).min(layout.postings.end);
    begin.min(end)..end
}

/// Adds to `bytes`, the whole of a card that lacks them, the extents of metrics.
///
/// # Errors
/// As [`build`], and when the card is damaged.
pub async fn complete(
    remote: &Remote,
    pool: &Pool,
    memory: &BuildMemory<'_>,
    index: &Path,
    bytes: Bytes,
) -> Result<Bytes, StoreError> {
    let name = index.to_string();
    let card = Card::in_memory(&format!("card for {name}"), bytes.clone())?;
    let work = move || write::metric_pairs(&card);
    let of_pool = |e: crate::compute::ComputeError| StoreError::Unavailable(e.to_string());
    let pairs = pool.run(work).await.map_err(of_pool)??;
    let range = write::lists_of(&pairs);
    let needed = range.end - range.start + 2 * bytes.len() as u64;
    let _turn = memory.gate.reading.wait(needed).await?;
    let mut held = memory.budget.reservation("the card of a block");
    hold_more(&mut held, needed)?;
    let partial = Partial {
        remote,
        path: index,
    };
    let lists = partial.read(range).await?;
    let work = move || write::with_extents(&name, &bytes, &pairs, &lists);
    let card = pool.run(work).await.map_err(of_pool)??;
    Ok(Bytes::from(card))
}

fn hold_more(held: &mut Reservation, bytes: u64) -> Result<(), StoreError> {
    let bytes = held.bytes().saturating_add(bytes);
    held.grow_to(usize::try_from(bytes).unwrap_or(usize::MAX))
        .map_err(|e| StoreError::LimitExceeded(e.to_string()))
}

fn last(bytes: &Bytes, count: usize) -> &[u8] {
    bytes
        .get(bytes.len().saturating_sub(count)..)
        .unwrap_or_default()
}

/// A stretch of the index that was read.
#[derive(Default)]
struct Known {
    begin: u64,
    bytes: Bytes,
}

impl Known {
    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    fn holds(&self, range: &Range<u64>) -> bool {
        self.begin <= range.start && range.end <= self.end()
    }

    /// The bytes of a range that lies in it, or of none.
    fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        if range.is_empty() {
            return Some(Bytes::new());
        }
        let place = |offset: u64| usize::try_from(offset - self.begin).unwrap_or(usize::MAX);
        self.holds(range)
            .then(|| self.bytes.slice(place(range.start)..place(range.end)))
    }
}

struct Partial<'a> {
    remote: &'a Remote,
    path: &'a Path,
}

impl Partial<'_> {
    /// Reads what of a range is not known. One that is known in part is known at its begin or its end.
    async fn read_rest(&self, known: &[&Known], range: Range<u64>) -> Result<Bytes, FetchError> {
        if let Some(bytes) = known.iter().find_map(|it| it.slice(&range)) {
            return Ok(bytes);
        }
        let part = |it: &&&Known| it.begin < range.end && it.end() > range.start;
        let Some(known) = known.iter().find(part) else {
            return self.read(range).await;
        };
        let (begin, end) = (known.begin.max(range.start), known.end().min(range.end));
        let (before, behind) =
            try_join(self.read(range.start..begin), self.read(end..range.end)).await?;
        let mut whole = BytesMut::with_capacity(before.len() + behind.len());
        whole.extend_from_slice(&before);
        whole.extend_from_slice(&known.slice(&(begin..end)).unwrap_or_default());
        whole.extend_from_slice(&behind);
        Ok(whole.freeze())
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, FetchError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = self.read_some(range.clone()).await?;
        if (bytes.len() as u64) < range.end - range.start {
            return Err(FetchError::TooShort {
                object: self.path.to_string(),
                offset: range.start + bytes.len() as u64,
                wanted: range.end - range.start - bytes.len() as u64,
            });
        }
        Ok(bytes)
    }

    /// Fewer bytes where the index ends.
    async fn read_some(&self, range: Range<u64>) -> Result<Bytes, FetchError> {
        self.remote.range(self.path, range).await
    }
}
