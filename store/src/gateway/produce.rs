//! The series of one block, in label order: a task that reads ahead of whoever takes them, by one batch.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::stream;
use futures::{FutureExt, StreamExt};
use isobar_model::{Matcher, Reservation, TimeRange, Warnings};
use isobar_tsdb::encoding::DecodeError;
use isobar_tsdb::index::parts::{RawSeries, series_at};
use isobar_tsdb::index::postings::{intersect, union};
use isobar_tsdb::index::{Postings, SeriesRef};
use isobar_tsdb::{Error, SeriesChunks};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Inner;
use super::block::Block;
use super::chunks;
use super::decode::{Matched, SeriesDecoder};
use super::query::{Query, Subject, over_budget};
use super::select::{Cost, Plan, Tests, Way, plan};
use super::start::{Beginning, Start};
use crate::api::{OnFailure, SeriesBatch, SeriesStream, StoreError};
use crate::cache::ranges::{Tally, Wanted};
use crate::card::{Card, Pair};

/// How much of a run of series is read and decoded at a time, at most.
const WINDOW_BYTES: u64 = 1 << 20;
/// And at least.
const WINDOW_BYTES_MIN: u64 = 16 << 10;
/// The first window of a run is shorter, so that the first series come soon.
const FIRST_WINDOW_BYTES: u64 = 256 << 10;
/// No series of an index is longer.
const SERIES_BYTES_MAX: u64 = 64 << 20;
/// What a series is expected to take where it is read by itself.
const SERIES_BYTES_GUESS: u64 = 512;
/// Series that are read one by one, at a time.
const SERIES_AT_A_TIME: usize = 2048;
/// Work on fewer bytes is done where it comes up.
const HERE_BYTES: u64 = 64 << 10;

/// What is asked of a block.
#[derive(Clone)]
pub(super) struct Ask {
    /// Without those on external labels.
    pub(super) matchers: Vec<Matcher>,
    /// Their text.
    pub(super) matchers_text: Arc<str>,
    pub(super) range: TimeRange,
    pub(super) skip_chunks: bool,
    /// Series that are enough; 0 for all.
    pub(super) limit: usize,
    /// Bytes of chunks that are read at a time.
    pub(super) chunk_bytes: u64,
    pub(super) on_failure: OnFailure,
    pub(super) way: Way,
    /// Of all blocks that are asked together.
    pub(super) start: Start,
}

/// Matchers as text.
pub(super) fn text_of(matchers: &[Matcher]) -> Arc<str> {
    use std::fmt::Write as _;
    let mut text = String::new();
    for matcher in matchers {
        let _infallible = write!(text, "{matcher},");
    }
    text.into()
}

/// Some series, and the memory they take.
struct Batch {
    series: Vec<SeriesChunks>,
    memory: Reservation,
}

/// A task that ends when nobody takes from it.
struct Producer(JoinHandle<()>);

impl Drop for Producer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Blocks that have all they need in memory are read where the request runs, as long as that takes no
/// longer than this: for a small answer, waking other threads costs more than the work.
const HERE_TIME: Duration = Duration::from_micros(300);

/// Since when a request reads blocks where it runs.
#[derive(Clone, Copy)]
pub(super) struct Here(Instant);

impl Here {
    /// From now on.
    pub(super) fn new() -> Self {
        Here(Instant::now())
    }
}

/// The series of a block. A failure ends them with a warning, or with an error when that is wanted or
/// the request itself went too far.
pub(super) fn series(
    inner: &Arc<Inner>,
    block: &Arc<Block>,
    card: Card,
    query: &Arc<Query>,
    ask: Ask,
    here: Here,
) -> SeriesStream {
    let (give, take) = mpsc::channel(1);
    let beginning = Some(ask.start.another());
    let work = Work {
        beginning,
        inner: Arc::clone(inner),
        block: Arc::clone(block),
        query: Arc::clone(query),
        card,
        ask,
        give,
        given: 0,
    };
    let runtime = inner.ranges.remote().runtime();
    let mut run = work.run().boxed();
    let done = here.0.elapsed() < HERE_TIME && {
        let _entered = runtime.enter();
        (&mut run).now_or_never().is_some()
    };
    let producer = (!done).then(|| Producer(runtime.spawn(run)));
    let state = (take, producer, None::<Reservation>);
    let batches = stream::unfold(state, |(mut take, producer, held)| async move {
        // What the last batch took is the caller's now.
        drop(held);
        let next: Result<Batch, Failure> = take.recv().await?;
        let (item, held) = match next {
            Ok(batch) => (Ok(SeriesBatch::Series(batch.series)), Some(batch.memory)),
            Err(Failure::Remark(text)) => {
                let mut warnings = Warnings::default();
                warnings.warn(text);
                (Ok(SeriesBatch::Warnings(warnings)), None)
            }
            Err(Failure::Error(error)) => (Err(error), None),
        };
        Some((item, (take, producer, held)))
    });
    batches.boxed()
}

enum Failure {
    Remark(String),
    Error(StoreError),
}

/// What the caller of a failing block is told: a remark, unless the failure is the request's own.
pub(super) async fn judge(
    inner: &Inner,
    block: &Block,
    error: StoreError,
    on_failure: OnFailure,
) -> Result<String, StoreError> {
    if let StoreError::Corrupt(text) = &error {
        block.set_aside(inner, text.clone()).await;
    }
    match error {
        StoreError::LimitExceeded(_) | StoreError::Cancelled => Err(error),
        _ if on_failure == OnFailure::Abort => Err(about(block, error)),
        _ => Ok(about(block, error).to_string()),
    }
}

fn about(block: &Block, error: StoreError) -> StoreError {
    let about = |text: String| format!("fetch series for block {}: {text}", block.id);
    match error {
        StoreError::Corrupt(text) => StoreError::Corrupt(about(text)),
        StoreError::Unsupported(text) => StoreError::Unsupported(about(text)),
        StoreError::Unavailable(text) => StoreError::Unavailable(about(text)),
        other => other,
    }
}

/// Whoever waited for the series is gone, or has enough.
struct Gone;

/// All series that match were read, by this decoder, or no more of them are wanted.
type Selected = Result<SeriesDecoder, Gone>;

struct Work {
    inner: Arc<Inner>,
    block: Arc<Block>,
    card: Card,
    query: Arc<Query>,
    ask: Ask,
    give: mpsc::Sender<Result<Batch, Failure>>,
    given: usize,
    /// Until the first series are given.
    beginning: Option<Beginning>,
}

/// The index as a thing whose parts cost something.
struct IndexCost<'a> {
    inner: &'a Inner,
    block: &'a Block,
}

impl Cost for IndexCost<'_> {
    fn missing(&self, range: Range<u64>) -> u64 {
        let bytes = range.end - range.start;
        let cached = self.inner.ranges.cached_bytes(&self.block.index(), range);
        bytes.saturating_sub(cached)
    }
}

impl Work {
    async fn run(mut self) {
        let result = self.select().await;
        let error = match result {
            Ok(_) => return,
            Err(error) => error,
        };
        let failure = match judge(&self.inner, &self.block, error, self.ask.on_failure).await {
            Ok(text) => Failure::Remark(text),
            Err(error) => Failure::Error(error),
        };
        // The caller may be gone; then nobody misses it.
        let _gone = self.give.send(Err(failure)).await;
    }

    async fn select(&mut self) -> Result<Option<Gone>, StoreError> {
        let key = (self.block.number(), Arc::clone(&self.ask.matchers_text));
        if self.ask.way == Way::Cheapest
            && let Some(known) = self.inner.selections.get(&key)
        {
            let decoder = self.decoder(Tests::none(), key.0);
            return Ok(self.read_series(&known, decoder).await?.err());
        }
        let Some((plan, tests)) = self.plan().await? else {
            return Ok(None);
        };
        let decoder = self.decoder(tests, key.0);
        let read = match plan {
            Plan::Nothing => return Ok(None),
            Plan::Runs(runs) => self.select_runs(runs, decoder).await?,
            Plan::Lists(groups) => self.select_lists(groups, decoder).await?,
        };
        let decoder = match read {
            Ok(decoder) => decoder,
            Err(gone) => return Ok(Some(gone)),
        };
        // Where most of what was read matches, knowing the places saves nothing.
        if let (tested, Some(passed)) = decoder.passed()
            && tested > 2 * passed.len()
        {
            let bytes = size_of_val(passed.as_slice()) + key.1.len();
            self.inner.selections.insert(key, passed.into(), bytes);
        }
        Ok(None)
    }

    /// What has to be read of the index; nothing when no series can match.
    async fn plan(&self) -> Result<Option<(Plan, Tests)>, StoreError> {
        let (inner, block) = (self.inner.clone(), self.block.clone());
        let (matchers, way) = (self.ask.matchers.clone(), self.ask.way);
        let planned = move |card: &Card| {
            let Some(mut tests) = Tests::new(card, &matchers)? else {
                return Ok(None);
            };
            let cost = IndexCost {
                inner: &inner,
                block: &block,
            };
            let plan = plan(card, &mut tests, &cost, way)?;
            Ok::<_, Error>(Some((plan, tests)))
        };
        if let Some(planned) = self.card.at_hand(&planned)? {
            return Ok(planned);
        }
        let card = self.card.clone();
        Ok(self.inner.blocking(move || planned(&card)).await??)
    }

    fn decoder(&self, tests: Tests, number: u64) -> SeriesDecoder {
        let name = self.block.index().path.to_string();
        let known = Arc::clone(&self.inner.known);
        SeriesDecoder::new(name, &self.card, tests, self.ask.range, known, number)
    }

    /// Reads stretches of series window by window.
    async fn select_runs(
        &mut self,
        runs: Vec<Range<u64>>,
        mut decoder: SeriesDecoder,
    ) -> Result<Selected, StoreError> {
        let index = self.block.index();
        let mut memory = self.query.budget.reservation("a window of series");
        for run in runs {
            let mut at = run.start;
            let usual = (self.ask.chunk_bytes / 2).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES);
            let mut window = usual.min(FIRST_WINDOW_BYTES);
            while at < run.end {
                let end = run.end.min(at + window);
                memory
                    .grow_to(to_usize(2 * (end - at)))
                    .map_err(over_budget)?;
                let tally = Tally::default();
                // Behind the first window the next one comes along in the same request.
                let ahead = if at > run.start { window } else { 0 };
                let wanted = [Wanted {
                    range: at..end,
                    hope: run.end.min(end + ahead),
                }];
                let pages = self.inner.ranges.read(&index, &wanted, &tally).await;
                self.query.fetched(Subject::Series, &tally)?;
                let pages = pages?;
                let whole = run.clone();
                let work = move || {
                    let bytes = pages.bytes(at..end);
                    let mut matched = Matched::default();
                    let next = decoder.run(&bytes, at, &whole, &mut matched);
                    (next, bytes.len() as u64, decoder, matched)
                };
                let (next, read, back, matched) = self.compute(end - at, work).await?;
                decoder = back;
                let next = next?;
                if next <= at {
                    if read < end - at || end == run.end || window >= SERIES_BYTES_MAX {
                        let name = index.path.to_string();
                        return Err(DecodeError::Truncated.at_offset(&name, "series", at).into());
                    }
                    // A series is longer than the window.
                    window = (window * 4).min(SERIES_BYTES_MAX);
                    continue;
                }
                (at, window) = (next, usual);
                if let Some(gone) = self.pass_on(matched).await? {
                    return Ok(Err(gone));
                }
            }
        }
        Ok(Ok(decoder))
    }

    /// Reads lists of series, and then the series that are in all of them.
    async fn select_lists(
        &mut self,
        groups: Vec<Vec<Pair>>,
        decoder: SeriesDecoder,
    ) -> Result<Selected, StoreError> {
        let mut memory = self.query.budget.reservation("lists of series");
        let bytes: u64 = groups.iter().flatten().map(|it| it.bytes).sum();
        memory
            .grow_to(to_usize(bytes.saturating_mul(2)))
            .map_err(over_budget)?;
        let series = self.intersection(&groups).await?;
        let v1 = self.card.root().index_v1;
        let offset_of = |it: &SeriesRef| u64::from(it.0) * if v1 { 1 } else { 16 };
        let offsets: Vec<u64> = series.iter().map(offset_of).collect();
        self.read_series(&offsets, decoder).await
    }

    /// Reads the series that begin at these offsets, which are in ascending order.
    async fn read_series(
        &mut self,
        offsets: &[u64],
        mut decoder: SeriesDecoder,
    ) -> Result<Selected, StoreError> {
        let index = self.block.index();
        let end = self.card.root().series_end;
        for offsets in offsets.chunks(SERIES_AT_A_TIME) {
            if let Some(outside) = offsets.iter().find(|it| **it >= end) {
                let name = index.path.to_string();
                return Err(DecodeError::Truncated
                    .at_offset(&name, "series", *outside)
                    .into());
            }
            let mut guess = SERIES_BYTES_GUESS;
            let mut left = offsets.to_vec();
            let mut matched = Matched::default();
            // From one on that is longer than expected they are read once more.
            while let Some(first) = left.first().copied() {
                let want = |at: &u64| Wanted {
                    range: *at..(*at + guess).min(end),
                    hope: (*at + guess).min(end),
                };
                let wanted: Vec<Wanted> = left.iter().map(want).collect();
                let tally = Tally::default();
                let pages = self.inner.ranges.read(&index, &wanted, &tally).await;
                self.query.fetched(Subject::Series, &tally)?;
                let pages = pages?;
                let name = index.path.to_string();
                let work = move || {
                    for (i, at) in left.iter().copied().enumerate() {
                        let bytes = pages.bytes(at..(at + guess).min(end));
                        match series_at(&bytes) {
                            Ok((content, len)) => {
                                matched.touched_bytes += len as u64;
                                let raw = RawSeries {
                                    offset: at,
                                    content,
                                };
                                decoder.series(raw, &mut matched)?;
                            }
                            // They have to stay in order, so the rest waits, too.
                            Err(DecodeError::Truncated) => {
                                return Ok((left.split_off(i), decoder, matched));
                            }
                            Err(e) => return Err(e.at_offset(&name, "series", at)),
                        }
                    }
                    Ok((Vec::new(), decoder, matched))
                };
                let bytes = wanted.len() as u64 * SERIES_BYTES_GUESS;
                let back = self.compute(bytes, work).await?;
                (left, decoder, matched) = back?;
                if !left.is_empty() {
                    if guess >= SERIES_BYTES_MAX {
                        let name = index.path.to_string();
                        return Err(DecodeError::Truncated
                            .at_offset(&name, "series", first)
                            .into());
                    }
                    guess *= 8;
                }
            }
            if let Some(gone) = self.pass_on(matched).await? {
                return Ok(Err(gone));
            }
        }
        Ok(Ok(decoder))
    }

    /// The series that are in some list of each group.
    async fn intersection(&self, groups: &[Vec<Pair>]) -> Result<Vec<SeriesRef>, StoreError> {
        let index = self.block.index();
        let mut places: Vec<&Pair> = groups.iter().flatten().collect();
        places.sort_by_key(|it| it.offset);
        let want = |it: &&Pair| Wanted {
            range: it.offset..it.offset + it.bytes,
            hope: it.offset + it.bytes,
        };
        let wanted: Vec<Wanted> = places.iter().map(want).collect();
        let stats = &self.query.stats;
        let bytes: u64 = places.iter().map(|it| it.bytes).sum();
        stats
            .postings_touched
            .fetch_add(places.len() as u64, Ordering::Relaxed);
        stats
            .postings_touched_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        let tally = Tally::default();
        let pages = self.inner.ranges.read(&index, &wanted, &tally).await;
        self.query.fetched(Subject::Postings, &tally)?;
        let pages = pages?;
        let name = index.path.to_string();
        let groups = groups.to_vec();
        let work = move || {
            let mut sets = Vec::with_capacity(groups.len());
            for group in &groups {
                let lists = group
                    .iter()
                    .map(|it| pages.bytes(it.offset..it.offset + it.bytes));
                let lists: Vec<_> = lists.collect();
                let decoded = lists.iter().zip(group).map(|(bytes, it)| {
                    let list = Postings::of_bytes(bytes);
                    list.map_err(|e| e.at_offset(&name, "postings", it.offset))
                });
                let decoded = decoded.collect::<Result<Vec<_>, Error>>()?;
                sets.push(Postings::Decoded(union(decoded).into_vec()));
            }
            Ok::<_, Error>(intersect(sets))
        };
        Ok(self.compute(bytes, work).await??)
    }

    /// Reads the chunks of series and gives them on.
    async fn pass_on(&mut self, mut matched: Matched) -> Result<Option<Gone>, StoreError> {
        let stats = &self.query.stats;
        stats
            .series_touched
            .fetch_add(matched.touched, Ordering::Relaxed);
        stats
            .series_touched_bytes
            .fetch_add(matched.touched_bytes, Ordering::Relaxed);
        if self.ask.limit > 0 {
            let left = self.ask.limit.saturating_sub(self.given);
            if left < matched.series.len() {
                matched.series.truncate(left);
                matched
                    .chunks
                    .truncate(matched.series.last().map_or(0, |it| it.1));
            }
        }
        if matched.series.is_empty() {
            return Ok(self.enough());
        }
        self.given += matched.series.len();
        let chunks = if self.ask.skip_chunks {
            0
        } else {
            matched.chunks.len() as u64
        };
        self.query.matched(matched.series.len() as u64, chunks)?;
        let mut memory = self.query.budget.reservation("series of a block");
        memory.grow_to(matched.heap_bytes()).map_err(over_budget)?;
        if self.ask.skip_chunks {
            let series = matched.series.into_iter();
            let series = series.map(|(labels, _)| SeriesChunks::mapped(labels, Vec::new()));
            let batch = Batch {
                series: series.collect(),
                memory,
            };
            let gone = self.give(batch).await;
            return Ok(gone.or(self.enough()));
        }
        stats.chunks_touched.fetch_add(chunks, Ordering::Relaxed);
        let ends: Vec<usize> = matched.series.iter().map(|it| it.1).collect();
        let splits = chunks::split(&matched.chunks, &ends, self.ask.chunk_bytes);
        let mut series = matched.series.into_iter();
        let (mut from, mut chunk) = (0, 0);
        for split in splits {
            let end = split
                .checked_sub(1)
                .and_then(|last| ends.get(last))
                .copied();
            let end = end.unwrap_or(0);
            let own = series.by_ref().take(split - from);
            let own: Vec<_> = own.map(|(labels, end)| (labels, end - chunk)).collect();
            let metas = matched.chunks.get(chunk..end).unwrap_or_default();
            (from, chunk) = (split, end);
            let mut batch_memory = self.query.budget.reservation("chunks of a block");
            let at_least = metas.len().saturating_mul(96);
            batch_memory.grow_to(at_least).map_err(over_budget)?;
            let loaded = chunks::load(&self.inner, &self.block, &self.query, own, metas).await?;
            let all = || loaded.iter().flat_map(|it| &it.chunks);
            let bytes: usize = all().map(|chunk| chunk.data.len()).sum();
            let kept: usize = loaded.iter().map(|it| it.heap_bytes).sum();
            batch_memory
                .grow_to(at_least.saturating_add(kept))
                .map_err(over_budget)?;
            self.query
                .stats
                .chunks_touched_bytes
                .fetch_add(bytes as u64, Ordering::Relaxed);
            let batch = Batch {
                series: loaded,
                memory: batch_memory,
            };
            if let Some(gone) = self.give(batch).await {
                return Ok(Some(gone));
            }
        }
        Ok(self.enough())
    }

    /// Gives some series, and waits until the other blocks have done so, too.
    async fn give(&mut self, batch: Batch) -> Option<Gone> {
        let sent = self.give.send(Ok(batch)).await;
        if self.beginning.take().is_some() && sent.is_ok() && self.enough().is_none() {
            self.ask.start.of_all().await;
        }
        sent.err().map(|_| Gone)
    }

    fn enough(&self) -> Option<Gone> {
        (self.ask.limit > 0 && self.given >= self.ask.limit).then_some(Gone)
    }

    /// Runs work over so many bytes.
    async fn compute<T: Send + 'static>(
        &self,
        bytes: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        if bytes <= HERE_BYTES {
            return Ok(work());
        }
        let done = self.inner.pool.run(work).await;
        done.map_err(|e| StoreError::Unavailable(e.to_string()))
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
