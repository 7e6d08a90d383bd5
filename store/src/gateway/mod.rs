//! The store gateway: the blocks of a bucket as a [`Store`].
//!
//! A request goes through these steps, in this order of files:
//!
//! * [`choose`]: the sets of blocks whose external labels match, and of each the blocks that cover the
//!   range at the widest resolution that is allowed;
//! * [`block`]: their cards, opened or made at first use;
//! * [`admit`]: whether there is memory for it, or it has to wait;
//! * [`select`]: for each block, what has to be read of its index;
//! * [`decode`]: series that match, from bytes of the index;
//! * [`chunks`]: their chunks;
//! * [`produce`]: a task for each block that does these three and is one batch ahead;
//! * [`start`]: none of them is, before all have given something;
//! * [`merge`]: blocks as one stream, with [`crate::arrange`] for external and replica labels;
//! * [`labels`]: names and values, mostly from cards alone;
//! * [`estimate`]: how much a select is going to give, from cards alone.
//!
//! Nothing of a block is read before somebody asks for it. A block that cannot be read is left out for a
//! while with a remark in every answer that lacks it. [`query`] holds what a request may do and what it
//! did.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use hashbrown::{HashMap, HashSet};
use isobar_model::{Budget, Labels, LabelsBuilder, Matcher, TimeRange, Warnings};
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use ulid::Ulid;

use crate::api::{
    LabelsRequest, Names, OnFailure, SelectEstimate, SeriesBatch, SeriesRequest, SeriesStream,
    Store, StoreError, StoreInfo,
};
use crate::arrange::Arrangement;
use crate::block::Summary;
use crate::cache::PageCache;
use crate::cache::ranges::Ranges;
use crate::cache::remote::Remote;
use crate::card::Card;
use crate::card::build::BuildGate;
use crate::compute::Pool;
use crate::local::TRUNCATED;

mod admit;
pub mod block;
mod choose;
mod chunks;
mod decode;
mod estimate;
mod labels;
mod merge;
mod produce;
pub mod query;
mod recent;
mod select;
mod start;

pub use block::Block;
pub use query::{Limits, Stats};
pub use select::Way;

use admit::Gate;
use choose::BlockSet;
use produce::{Ask, Here};
use query::Query;
use recent::{KnownLabels, KnownValues, Selections};
use start::Start;

/// The chunks that one request reads at a time, over all blocks, in bytes.
const WINDOW_BYTES: u64 = 32 << 20;
/// What a request needs in all, in times of that: chunks that are read, that wait and that are given on,
/// the series they belong to, and the stretch of the index that those come from.
const WINDOWS: u64 = 10;
/// A block reads at least and at most so much at a time.
const BLOCK_WINDOW_BYTES: std::ops::RangeInclusive<u64> = 32 << 10..=4 << 20;
/// Requests to the bucket ask for this part of the memory at a time, within bounds; beside what is reserved.
pub const IN_FLIGHT_PART: u64 = 8;
const IN_FLIGHT_BYTES: std::ops::RangeInclusive<u64> = 4 << 20..=64 << 20;
/// Cards that are completed at a time.
const COMPLETED_AT_A_TIME: usize = 4;
/// Cards that are opened at a time for one request.
const CARDS_AT_A_TIME: usize = 256;

/// How a gateway is set up.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Where cards are kept, in `cards/`.
    pub data_dir: PathBuf,
    /// Whether the bucket is asked for cards, at `isobar/cards/`, before one is made.
    pub cards_in_bucket: bool,
    /// What one request may do.
    pub limits: Limits,
    /// What one request may take of the memory, in bytes.
    pub request_bytes: u64,
    /// Requests for series that run at a time; others wait (`--store.grpc.series-max-concurrency`).
    pub concurrency: usize,
    /// Which way series are found.
    pub way: Way,
}

impl GatewayConfig {
    /// Thanos' defaults, with cards in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        GatewayConfig {
            data_dir: data_dir.into(),
            cards_in_bucket: true,
            limits: Limits::default(),
            request_bytes: 1 << 30,
            concurrency: 20,
            way: Way::Cheapest,
        }
    }
}

/// The blocks of a bucket.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: GatewayConfig,
    ranges: Ranges,
    pool: Arc<Pool>,
    budget: Arc<Budget>,
    gate: Arc<Semaphore>,
    memory_gate: Gate,
    card_memory: BuildGate,
    known: Arc<KnownLabels>,
    selections: Selections,
    values: KnownValues,
    catalog: RwLock<Arc<Catalog>>,
    stats: Stats,
}

/// All blocks that are served.
#[derive(Debug, Default)]
struct Catalog {
    sets: Vec<BlockSet>,
}

impl Inner {
    fn card_path(&self, block: Ulid) -> PathBuf {
        self.config.data_dir.join("cards").join(block.to_string())
    }

    /// Runs what may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.ranges.remote().runtime().spawn_blocking(work).await;
        done.map_err(|e| StoreError::Unavailable(format!("internal error: {e}")))
    }

    /// What each of `blocks` blocks that are read side by side for one request may read at a time.
    fn window_bytes(&self, blocks: usize) -> u64 {
        let all = (self.config.request_bytes / WINDOWS).min(WINDOW_BYTES);
        let (least, most) = (*BLOCK_WINDOW_BYTES.start(), *BLOCK_WINDOW_BYTES.end());
        (all / (blocks as u64).max(1)).clamp(least, most)
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read())
    }
}

/// A block with its card, or what is to be said about it.
enum Opened {
    Card(Arc<Block>, Card),
    LeftOut(String),
    Failed(StoreError),
}

impl Gateway {
    /// A gateway without blocks yet. `pool` computes; streams are not to be polled on its threads.
    /// Memory is taken from `budget`.
    pub fn new(
        config: GatewayConfig,
        remote: Remote,
        cache: Arc<PageCache>,
        pool: Arc<Pool>,
        budget: Arc<Budget>,
    ) -> Self {
        let gate = Arc::new(Semaphore::new(
            config.concurrency.clamp(1, Semaphore::MAX_PERMITS),
        ));
        let card_memory = BuildGate::new(budget.limit() / 3);
        let memory_gate = Gate::new(budget.limit());
        let (least, most) = (*IN_FLIGHT_BYTES.start(), *IN_FLIGHT_BYTES.end());
        let in_flight = (budget.limit() / IN_FLIGHT_PART).clamp(least, most);
        Gateway {
            inner: Arc::new(Inner {
                config,
                ranges: Ranges::with_in_flight(remote, cache, in_flight),
                pool,
                budget,
                gate,
                memory_gate,
                card_memory,
                known: Arc::new(KnownLabels::new(recent::LABEL_BYTES_MAX)),
                selections: Selections::new(recent::SELECTION_BYTES_MAX),
                values: KnownValues::new(recent::VALUE_BYTES_MAX),
                catalog: RwLock::default(),
                stats: Stats::default(),
            }),
        }
    }

    /// Replaces the list of blocks. What is known of blocks that stay is kept; requests that run go on
    /// with the list they began with.
    pub fn set_blocks<'a>(&self, known: impl IntoIterator<Item = &'a Summary>) -> Changed {
        let mut changed = Changed::default();
        let before = self.inner.catalog();
        let old = before.sets.iter().flat_map(BlockSet::blocks);
        let mut old: HashMap<Ulid, &Arc<Block>> = old.map(|it| (it.id, it)).collect();
        let mut blocks = HashMap::new();
        for known in known {
            let before = old.remove(&known.id);
            let same = before.filter(|it| it.labels == known.labels);
            let block = match same {
                Some(block) => Arc::clone(block),
                None => {
                    changed.loaded += 1;
                    changed.dropped += u64::from(before.is_some());
                    Arc::new(Block::new(known))
                }
            };
            blocks.insert(block.id, block);
        }
        let sets = BlockSet::all_of(blocks.into_values());
        let gone: HashSet<Ulid> = old.into_keys().collect();
        changed.dropped += gone.len() as u64;
        self.inner.ranges.cache().forget(&gone);
        *self.inner.catalog.write() = Arc::new(Catalog { sets });
        changed
    }

    /// Removes the cards of blocks that are not served from the data directory, and gives their number.
    /// Waits for the disk.
    ///
    /// # Errors
    /// When the directory cannot be read or a file not be removed.
    pub fn remove_other_cards(&self) -> io::Result<usize> {
        let served: HashSet<String> = self.blocks().iter().map(|it| it.id.to_string()).collect();
        let entries = match std::fs::read_dir(self.inner.config.data_dir.join("cards")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut removed = 0;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            if Ulid::from_string(name).is_ok() && !served.contains(name) {
                std::fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Adds to cards that were made in a hurry what makes the next questions cheaper, and gives their number.
    ///
    /// # Errors
    /// When the bucket cannot be read; other cards were completed nevertheless.
    pub async fn complete_cards(&self) -> Result<usize, StoreError> {
        let inner = &self.inner;
        let complete = |block: Arc<Block>| async move {
            let completed = block.complete_card(inner).await;
            if let Err(StoreError::Corrupt(text)) = &completed {
                block.set_aside(inner, text.clone()).await;
            }
            completed
        };
        let completing = stream::iter(self.blocks()).map(complete);
        let mut completing = completing.buffer_unordered(COMPLETED_AT_A_TIME);
        let mut completed = Ok(0);
        while let Some(one) = completing.next().await {
            match (one, &mut completed) {
                (Ok(true), Ok(count)) => *count += 1,
                (Err(error), Ok(_)) => completed = Err(error),
                _ => {}
            }
        }
        completed
    }

    /// Writes the cards that were made here and are complete to the bucket, for other readers, and gives their
    /// number.
    ///
    /// # Errors
    /// When the bucket does not take one.
    pub async fn publish_cards(&self) -> Result<usize, StoreError> {
        let mut published = 0;
        for block in self.blocks() {
            if let Some(card) = block.take_unpublished(&self.inner).await? {
                let at = block::bucket_card(block.id);
                if let Err(error) = self.inner.ranges.remote().put(&at, card).await {
                    block.is_unpublished();
                    return Err(error.into());
                }
                published += 1;
            }
        }
        Ok(published)
    }

    /// All blocks that are served.
    pub fn blocks(&self) -> Vec<Arc<Block>> {
        let catalog = self.inner.catalog();
        catalog
            .sets
            .iter()
            .flat_map(BlockSet::blocks)
            .cloned()
            .collect()
    }

    /// What all requests together have read.
    pub fn stats(&self) -> &Stats {
        &self.inner.stats
    }

    /// How many requests for series are running; further ones wait when there are
    /// [`GatewayConfig::concurrency`].
    pub fn running(&self) -> usize {
        let all = self.inner.config.concurrency;
        all.saturating_sub(self.inner.gate.available_permits())
    }

    /// The cache, for its counters.
    pub fn cache(&self) -> &PageCache {
        self.inner.ranges.cache()
    }

    /// The bucket, for its counters.
    pub fn remote(&self) -> &Remote {
        self.inner.ranges.remote()
    }

    /// As [`Store::series`], with what the request reads, which is complete when the stream ends.
    pub fn series_with_stats(&self, request: SeriesRequest) -> (SeriesStream, Arc<QueryStats>) {
        let inner = Arc::clone(&self.inner);
        let bytes = inner.config.request_bytes;
        let budget = inner
            .budget
            .child("the memory of one request to the store gateway", bytes);
        let query = Arc::new(Query::new(inner.config.limits, budget));
        let stats = Arc::new(QueryStats(Arc::clone(&query)));
        let series = stream::once(open(inner, query, request)).try_flatten();
        (series.boxed(), stats)
    }
}

/// How a list of blocks differs from the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Blocks that are new, or changed.
    pub loaded: u64,
    /// Blocks that are gone, or were replaced by what they have changed to.
    pub dropped: u64,
}

/// What one request has read so far.
pub struct QueryStats(Arc<Query>);

impl std::ops::Deref for QueryStats {
    type Target = Stats;

    fn deref(&self) -> &Stats {
        &self.0.stats
    }
}

/// Adds what a request has read to what all have, when it ends in whatever way.
struct Account {
    inner: Arc<Inner>,
    query: Arc<Query>,
    _permit: OwnedSemaphorePermit,
    /// The memory that it may need.
    admitted: Option<OwnedSemaphorePermit>,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.inner.stats.add(&self.query.stats);
        drop(self.admitted.take());
    }
}

/// Opens the cards of some blocks. The remarks are about those that cannot be read.
async fn open_cards(
    inner: &Arc<Inner>,
    blocks: Vec<Arc<Block>>,
    on_failure: OnFailure,
    warnings: &mut Warnings,
) -> Result<Vec<(Arc<Block>, Card)>, StoreError> {
    let builders = blocks.len().min(CARDS_AT_A_TIME);
    let open = |block: Arc<Block>| async move {
        if let Some(why) = block.quarantined() {
            let text = format!("fetch series for block {}: left out: {why}", block.id);
            return match on_failure {
                OnFailure::Warn => Opened::LeftOut(text),
                OnFailure::Abort => Opened::Failed(StoreError::Unavailable(text)),
            };
        }
        match block.card(inner, builders).await {
            Ok(card) => Opened::Card(block, card),
            Err(error) => match produce::judge(inner, &block, error, on_failure).await {
                Ok(text) => Opened::LeftOut(text),
                Err(error) => Opened::Failed(error),
            },
        }
    };
    let mut opening = stream::iter(blocks.into_iter().map(open)).buffered(CARDS_AT_A_TIME);
    let mut opened = Vec::new();
    while let Some(result) = opening.next().await {
        match result {
            Opened::Card(block, card) => opened.push((block, card)),
            Opened::LeftOut(text) => warnings.warn(text),
            Opened::Failed(error) => return Err(error),
        }
    }
    Ok(opened)
}

/// Whether series of some of the blocks have a label.
fn any_has_label(cards: &[(Arc<Block>, Card)], label: &str) -> Result<bool, StoreError> {
    for (_, card) in cards {
        if let Some(symbol) = card.find_symbol(label)?
            && card.name(symbol)?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn open(
    inner: Arc<Inner>,
    query: Arc<Query>,
    request: SeriesRequest,
) -> Result<SeriesStream, StoreError> {
    let gate = Arc::clone(&inner.gate);
    let closed = |_| StoreError::Unavailable("shutting down".to_owned());
    let came = Instant::now();
    let permit = gate.acquire_owned().await.map_err(closed)?;
    let waited_us = u64::try_from(came.elapsed().as_micros()).unwrap_or(u64::MAX);
    query
        .stats
        .gate_waited_us
        .fetch_add(waited_us, Ordering::Relaxed);
    let mut account = Account {
        inner: Arc::clone(&inner),
        query: Arc::clone(&query),
        _permit: permit,
        admitted: None,
    };
    let catalog = inner.catalog();
    let mut chosen = Vec::new();
    for set in &catalog.sets {
        let Some(matchers) = set.inner_matchers(&request.matchers) else {
            continue;
        };
        let mut blocks = set.choose(request.range, request.resolution_ms_max);
        blocks.retain(|block| choose::named(block, &request.block_matchers));
        if !blocks.is_empty() {
            chosen.push((set.labels.clone(), matchers, blocks));
        }
    }
    let count: usize = chosen.iter().map(|it| it.2.len()).sum();
    let queried = &query.stats.blocks_queried;
    queried.fetch_add(count as u64, Ordering::Relaxed);
    let chunk_bytes = inner.window_bytes(count);
    let mut warnings = Warnings::default();
    let mut sets = Vec::with_capacity(chosen.len());
    let here = Here::new();
    let start = Start::default();
    // All at once, so that many sets take no more round trips than one.
    let blocks = chosen.iter().flat_map(|it| it.2.iter().cloned()).collect();
    let cards = open_cards(&inner, blocks, request.on_failure, &mut warnings).await?;
    let mut cards: HashMap<Ulid, Card> =
        cards.into_iter().map(|(it, card)| (it.id, card)).collect();
    let of_block = chunk_bytes.saturating_mul(WINDOWS);
    let most = of_block.saturating_mul(count as u64);
    let needed = || {
        let parts = chosen.iter().flat_map(|(_, matchers, blocks)| {
            let with_card = blocks
                .iter()
                .filter_map(|it| Some((it, cards.get(&it.id)?)));
            with_card.map(|(it, card)| estimate::memory(it, card, matchers).min(of_block))
        });
        parts.sum()
    };
    let runtime = inner.ranges.remote().runtime();
    let admitted = inner.memory_gate.admit(runtime, most, needed).await?;
    account.admitted = admitted;
    for (labels, matchers, blocks) in chosen {
        let with_card = |block: Arc<Block>| cards.remove(&block.id).map(|card| (block, card));
        let cards: Vec<_> = blocks.into_iter().filter_map(with_card).collect();
        let arrangement = arrangement(&labels, &request, &cards)?;
        let in_order = arrangement.taken.is_empty() && arrangement.shard.is_none();
        let ask = Ask {
            matchers_text: produce::text_of(&matchers),
            matchers,
            range: request.range,
            skip_chunks: request.skip_chunks,
            // One more tells that there are more.
            limit: if in_order && request.limit > 0 {
                request.limit + 1
            } else {
                0
            },
            chunk_bytes,
            on_failure: request.on_failure,
            way: inner.config.way,
            start: start.clone(),
        };
        let streams = cards
            .into_iter()
            .map(|(block, card)| produce::series(&inner, &block, card, &query, ask.clone(), here));
        let merged = merge::merge(streams.collect());
        sets.push(arrangement.of(merged, Some(Arc::clone(&query.budget))));
    }
    let remarks = (!warnings.is_empty()).then_some(Ok(SeriesBatch::Warnings(warnings)));
    let merged = stream::iter(remarks).chain(merge::merge(sets)).boxed();
    Ok(limited(merged, request.limit, query, account))
}

/// How the series of a set are changed.
fn arrangement(
    external: &Labels,
    request: &SeriesRequest,
    cards: &[(Arc<Block>, Card)],
) -> Result<Arrangement, StoreError> {
    let mut added = LabelsBuilder::new(external);
    let mut taken = Vec::new();
    for label in &request.without_labels {
        added.remove(label);
        if any_has_label(cards, label)? {
            taken.push(label.clone());
        }
    }
    let added = added.build();
    for (label, _) in added.iter() {
        // An external label wins over one of a series.
        if any_has_label(cards, label)? {
            taken.push(label.to_owned());
        }
    }
    taken.sort();
    taken.dedup();
    Ok(Arrangement {
        added,
        taken,
        shard: request.shard.clone(),
        limit: 0,
    })
}

/// Ends a stream where the request's limit or one of ours is reached.
fn limited(
    series: SeriesStream,
    limit: usize,
    query: Arc<Query>,
    account: Account,
) -> SeriesStream {
    let left = if limit == 0 { usize::MAX } else { limit };
    let state = (Some(series), left, query, account);
    let limited = stream::unfold(state, |(series, mut left, query, account)| async move {
        let mut series = series?;
        let item = match series.next().await? {
            Ok(SeriesBatch::Series(mut batch)) => {
                if batch.len() > left && left == 0 {
                    let mut warnings = Warnings::default();
                    warnings.warn(TRUNCATED);
                    return Some((
                        Ok(SeriesBatch::Warnings(warnings)),
                        (None, 0, query, account),
                    ));
                }
                // What is cut off here comes to light as one that is too many.
                let cut = batch.len().saturating_sub(left);
                let rest = batch.split_off(batch.len() - cut);
                if !rest.is_empty() {
                    let again = stream::iter([Ok(SeriesBatch::Series(rest))]);
                    series = again.chain(series).boxed();
                }
                left -= batch.len();
                let chunks: usize = batch.iter().map(|it| it.chunks.len()).sum();
                match query.give(batch.len() as u64, chunks as u64) {
                    Ok(()) => Ok(SeriesBatch::Series(batch)),
                    Err(error) => Err(error),
                }
            }
            other => other,
        };
        let series = item.is_ok().then_some(series);
        Some((item, (series, left, query, account)))
    });
    limited.boxed()
}

impl Store for Gateway {
    fn info(&self) -> StoreInfo {
        let catalog = self.inner.catalog();
        let sets = choose::stored(&catalog.sets);
        let range = sets.iter().map(|it| it.range).reduce(|a, b| a.union(&b));
        StoreInfo { sets, range }
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        self.series_with_stats(request).0
    }

    fn estimate(&self, matchers: &[Matcher], range: TimeRange) -> Option<SelectEstimate> {
        estimate::estimate(&self.inner, matchers, range)
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        labels::names(Arc::clone(&self.inner), request).boxed()
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        labels::values(Arc::clone(&self.inner), name, request).boxed()
    }
}

/// The blocks of a set for a request for labels, which takes all resolutions.
fn overlapping(set: &BlockSet, range: TimeRange, named: &[Matcher]) -> Vec<Arc<Block>> {
    let overlapping = set.blocks().filter(|it| it.range.overlaps(&range));
    overlapping
        .filter(|it| choose::named(it, named))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests;
