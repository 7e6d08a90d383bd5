//! Makes the card of a block that lies in a bucket, from a few ranges of its index.
//!
//! Two requests one after the other are enough as a rule: the end of the index says where its
//! sections lie, then symbols, label pairs and the lists of series of the metrics' names are read
//! side by side. These lists lie behind that of all series and together are as long, so where they
//! begin and end is guessed from the number of series; a wrong guess costs a third request.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join3;
use isobar_model::budget::Budget;
use isobar_tsdb::index::parts::Layout;
use object_store::path::Path;
use tokio::sync::{Semaphore, SemaphorePermit};
use ulid::Ulid;

use super::write::Sections;
use crate::api::StoreError;
use crate::cache::remote::{FetchError, Remote};
use crate::compute::Pool;

/// What is read of the end of an index to begin with: small ones are there as a whole.
const TAIL_BYTES: u64 = 64 << 10;
/// How many metrics are guessed at most.
const METRICS_GUESS_MAX: u64 = 16 << 10;
/// Of an index that does not say how many series it has, this much is read for the lists.
const LISTS_GUESS: u64 = 1 << 20;
/// What decoding takes beside the sections, in times of their bytes: a symbol or a pair of about 20
/// bytes becomes 12 or 24 bytes and a part of the card.
const MEMORY_FACTOR: u64 = 3;

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
const GATE_BYTES: u64 = 64 << 10;

/// The memory for making cards. Several builders wait for each other rather than to fail.
pub struct BuildMemory<'a> {
    /// What is taken is reserved here.
    pub budget: &'a Arc<Budget>,
    /// How much all builders may take together.
    pub gate: &'a BuildGate,
}

/// How much all builders of cards may take together.
pub struct BuildGate {
    permits: Semaphore,
    units: u32,
}

impl BuildGate {
    /// About `bytes` for all builders. One that needs more than that is alone.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / GATE_BYTES).unwrap_or(u32::MAX);
        let units = units.clamp(1, 1 << 24);
        BuildGate {
            permits: Semaphore::new(units as usize),
            units,
        }
    }

    async fn wait(&self, bytes: u64) -> Result<SemaphorePermit<'_>, StoreError> {
        let units = u32::try_from(bytes.div_ceil(GATE_BYTES)).unwrap_or(u32::MAX);
        let permit = self.permits.acquire_many(units.clamp(1, self.units)).await;
        permit.map_err(|_| StoreError::Unavailable("shutting down".to_owned()))
    }
}

/// Reads what is needed of an index and makes the card.
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
    let (tail, size) = match subject.index_bytes {
        Some(size) => (
            index.read(size.saturating_sub(TAIL_BYTES)..size).await?,
            size,
        ),
        None => remote.tail(&subject.index, TAIL_BYTES).await?,
    };
    let tail_begin = size.saturating_sub(TAIL_BYTES);
    // Whatever the version, sections lie where the table of contents says; the true head follows.
    let v2 = [0xba, 0xaa, 0xd7, 0, 2];
    let plan = Layout::decode(&name, &v2, last(&tail, Layout::TAIL_BYTES), size)?;

    // The list of all series, four bytes each, is not needed.
    let (before, guess) = match subject.series {
        Some(series) => (
            4 * series,
            12 + 4 * series + 12 * series.min(METRICS_GUESS_MAX),
        ),
        None => (0, LISTS_GUESS),
    };
    let guess_begin = plan.postings.start.saturating_add(before);
    let guess_end = guess_begin.saturating_add(guess).min(plan.postings.end);
    let lists = guess_begin.min(guess_end)..guess_end;
    let section_bytes = |it: &Range<u64>| it.end - it.start;
    let needed = plan.symbols.end + section_bytes(&plan.table) + section_bytes(&lists);
    let needed = needed.saturating_mul(MEMORY_FACTOR);
    let _turn = memory.gate.wait(needed).await?;
    let mut held = memory.budget.reservation("the card of a block");
    held.grow_to(usize::try_from(needed).unwrap_or(usize::MAX))
        .map_err(|e| StoreError::LimitExceeded(e.to_string()))?;

    let known = Known {
        begin: tail_begin,
        bytes: tail.clone(),
    };
    let (head, table, lists_bytes) = try_join3(
        index.read_or(&known, 0..plan.symbols.end),
        index.read_or(&known, plan.table.clone()),
        index.read_or(&known, lists.clone()),
    )
    .await?;
    let layout = Layout::decode(&name, &head, last(&tail, Layout::TAIL_BYTES), size)?;
    let from = usize::try_from(layout.symbols.start).unwrap_or(usize::MAX);
    let symbols = head.slice(from.min(head.len())..);
    let sections = pool
        .run(move || Sections::decode(&name, layout, symbols, &table))
        .await
        .map_err(|e| StoreError::Unavailable(e.to_string()))??;

    let wanted = sections.metric_lists();
    let lists = Known {
        begin: lists.start,
        bytes: lists_bytes,
    };
    let lists = index.read_or(&lists, wanted).await?;
    let ulid = subject.ulid;
    let card = pool
        .run(move || sections.card(ulid, &lists))
        .await
        .map_err(|e| StoreError::Unavailable(e.to_string()))??;
    Ok(Bytes::from(card))
}

fn last(bytes: &Bytes, count: usize) -> &[u8] {
    bytes
        .get(bytes.len().saturating_sub(count)..)
        .unwrap_or_default()
}

/// A stretch of the index that was read.
struct Known {
    begin: u64,
    bytes: Bytes,
}

struct Partial<'a> {
    remote: &'a Remote,
    path: &'a Path,
}

impl Partial<'_> {
    async fn read_or(&self, known: &Known, range: Range<u64>) -> Result<Bytes, FetchError> {
        let end = known.begin + known.bytes.len() as u64;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if known.begin <= range.start && range.end <= end {
            let place = |offset: u64| usize::try_from(offset - known.begin).unwrap_or(usize::MAX);
            return Ok(known.bytes.slice(place(range.start)..place(range.end)));
        }
        self.read(range).await
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, FetchError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = self.remote.range(self.path, range.clone()).await?;
        if (bytes.len() as u64) < range.end - range.start {
            return Err(FetchError::TooShort {
                object: self.path.to_string(),
                offset: range.start + bytes.len() as u64,
                wanted: range.end - range.start - bytes.len() as u64,
            });
        }
        Ok(bytes)
    }
}
