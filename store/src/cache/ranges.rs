//! Ranges of objects, page by page: from memory, from disk, and what is missing from the bucket, in as
//! few requests as are worth it. A page that somebody fetches already is waited for.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesUnordered, StreamExt};
use hashbrown::HashMap;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use ulid::Ulid;

use super::remote::{FetchError, Remote};
use super::{Key, PAGE_BYTES, PageCache};

/// Pages that lie between two that are wanted are read along where that is cheaper than a request of
/// its own. Requests run side by side, so what one costs is not its round trip but this part of it.
const GAP_PART: u64 = 16;
/// Where the round trip is short, the work of a request still takes longer than copying so much, and
/// where it is long, a gap as long as this is as good as no gap.
const GAP_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=256 << 10;
/// From so many requests of one read on, the next one has to wait for others, and costs this part of a
/// round trip.
const SIDE_BY_SIDE: usize = 64;
const WAITING_GAP_PART: u64 = 2;
/// All gaps together are no longer than what is wanted, or than this.
const WASTE_BYTES: u64 = 256 << 10;
/// A request is cut where it would grow beyond a round trip's worth of bytes, so that a large range
/// comes over several connections. That is bounded so.
const REQUEST_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=4 << 20;
/// No hope reaches further.
const HOPE_BYTES_MAX: u64 = 4 << 20;
/// Requests that run at a time, over all queries.
const REQUESTS_MAX: usize = 256;
/// Bytes that they may ask for together, where nobody says.
const IN_FLIGHT_BYTES: u64 = 64 << 20;
/// A page that others fetch in vain is tried again this often.
const TRIES_MAX: usize = 3;

/// A file of a block.
#[derive(Debug, Clone)]
pub struct Object {
    /// The block.
    pub block: Ulid,
    /// Which of its files, as in [`Key`].
    pub file: u32,
    /// Where it lies in the bucket.
    pub path: Path,
}

/// What one query read so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Bytes that were fetched for it.
    pub fetched_bytes: AtomicU64,
    /// Requests that were made for it.
    pub requests: AtomicU64,
}

/// Bytes that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The bytes.
    pub range: Range<u64>,
    /// Perhaps the bytes up to here are wanted, too: they are read along where that takes no request
    /// of its own. They need not exist.
    pub hope: u64,
}

/// Pages of one object.
#[derive(Debug, Default)]
pub struct Pages {
    /// By their number.
    pages: Vec<(u64, Bytes)>,
}

impl Pages {
    /// The bytes of all pages together.
    pub fn total_bytes(&self) -> usize {
        self.pages.iter().map(|(_, page)| page.len()).sum()
    }

    /// The page that a byte lies in, and its place there; none where it was not asked for.
    pub fn page_of(&self, offset: u64) -> Option<(&Bytes, usize)> {
        let page = offset / PAGE_BYTES as u64;
        let at = self.pages.binary_search_by_key(&page, |it| it.0).ok()?;
        let place = usize::try_from(offset % PAGE_BYTES as u64).ok()?;
        Some((&self.pages.get(at)?.1, place))
    }

    /// The bytes of a range; fewer where the object ends, or where pages were not asked for.
    pub fn bytes(&self, range: Range<u64>) -> Bytes {
        let page = range.start / PAGE_BYTES as u64;
        let begin = usize::try_from(range.start % PAGE_BYTES as u64).unwrap_or(0);
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let Ok(at) = self.pages.binary_search_by_key(&page, |it| it.0) else {
            return Bytes::new();
        };
        let Some((_, first)) = self.pages.get(at) else {
            return Bytes::new();
        };
        let begin = begin.min(first.len());
        if len <= first.len() - begin {
            return first.slice(begin..begin + len);
        }
        let mut whole = BytesMut::with_capacity(len.min(64 << 20));
        whole.extend_from_slice(first.get(begin..).unwrap_or_default());
        let mut expected = page;
        let mut full = first.len() == PAGE_BYTES;
        for (number, page) in self.pages.get(at + 1..).unwrap_or_default() {
            expected += 1;
            if *number != expected || !full || whole.len() >= len {
                break;
            }
            let rest = (len - whole.len()).min(page.len());
            whole.extend_from_slice(page.get(..rest).unwrap_or_default());
            full = page.len() == PAGE_BYTES;
        }
        whole.freeze()
    }
}

type Flight = watch::Receiver<Option<Result<Bytes, FetchError>>>;

/// Reads ranges through a cache.
pub struct Ranges {
    remote: Remote,
    cache: Arc<PageCache>,
    /// Pages that are being fetched.
    flights: Mutex<HashMap<Key, Flight>>,
    requests: Semaphore,
    /// In pages.
    in_flight: Semaphore,
    in_flight_pages: u32,
}

/// A page that this read fetches; gone when it is dropped, so that nobody waits for what was given up.
struct Claim<'a> {
    ranges: &'a Ranges,
    key: Key,
    result: watch::Sender<Option<Result<Bytes, FetchError>>>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.ranges.flights.lock().remove(&self.key);
    }
}

impl Ranges {
    /// Reads from `remote` through `cache`.
    pub fn new(remote: Remote, cache: Arc<PageCache>) -> Self {
        Ranges::with_in_flight(remote, cache, IN_FLIGHT_BYTES)
    }

    /// The same, with `bytes` that requests may ask for at a time. One that is larger than that runs
    /// alone.
    pub fn with_in_flight(remote: Remote, cache: Arc<PageCache>, bytes: u64) -> Self {
        let pages = u32::try_from(bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX);
        let in_flight_pages = pages.clamp(1, 1 << 24);
        Ranges {
            remote,
            cache,
            flights: Mutex::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            in_flight: Semaphore::new(in_flight_pages as usize),
            in_flight_pages,
        }
    }

    /// The bucket.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<PageCache> {
        &self.cache
    }

    /// How many of the bytes of a range are in memory or on disk, in whole pages.
    pub fn cached_bytes(&self, object: &Object, range: Range<u64>) -> u64 {
        let pages = pages_of(&range).map(|page| key(object, page));
        let known =
            pages.filter(|key| self.cache.memory.get(key).is_some() || self.cache.on_disk(key));
        known.count() as u64 * PAGE_BYTES as u64
    }

    /// Reads the pages of some ranges of an object, which are in ascending order.
    ///
    /// # Errors
    /// When a page of the ranges cannot be read. That the object ends is no error here.
    pub async fn read(
        &self,
        object: &Object,
        wanted: &[Wanted],
        tally: &Tally,
    ) -> Result<Pages, FetchError> {
        let mut found: Vec<(u64, Bytes)> = Vec::new();
        let mut missing = Missing::default();
        // The first page that was not looked for yet.
        let mut next = 0;
        let mut hopes = Vec::new();
        for wanted in wanted {
            let pages = pages_of(&wanted.range);
            for page in pages.start.max(next)..pages.end {
                match self.cache.get(&key(object, page)) {
                    Some(bytes) => found.push((page, bytes)),
                    None => missing.pages.push(page),
                }
            }
            next = next.max(pages.end);
            let hope = wanted.hope.min(wanted.range.end + HOPE_BYTES_MAX);
            hopes.extend(pages.end..hope.div_ceil(PAGE_BYTES as u64));
        }
        hopes.sort_unstable();
        hopes.dedup();
        for page in hopes {
            match self.cache.memory.get(&key(object, page)) {
                Some(bytes) => found.push((page, bytes)),
                None => missing.hopes.push(page),
            }
        }
        self.take_from_disk(object, &mut missing.pages, &mut found)
            .await;
        for _ in 0..TRIES_MAX {
            if missing.pages.is_empty() {
                break;
            }
            self.fetch(object, &mut missing, &mut found, tally).await?;
        }
        if let Some(page) = missing.pages.first() {
            let text = format!("{}: page {page} was given up by others", object.path);
            return Err(FetchError::Unavailable(text));
        }
        found.sort_by_key(|it| it.0);
        found.dedup_by_key(|it| it.0);
        Ok(Pages { pages: found })
    }

    async fn take_from_disk(
        &self,
        object: &Object,
        missing: &mut Vec<u64>,
        found: &mut Vec<(u64, Bytes)>,
    ) {
        let on_disk = missing.iter().map(|page| key(object, *page));
        let on_disk: Vec<Key> = on_disk.filter(|key| self.cache.on_disk(key)).collect();
        if on_disk.is_empty() {
            return;
        }
        let cache = Arc::clone(&self.cache);
        let read = move || -> Vec<(u64, Bytes)> {
            let read = |key: &Key| Some((u64::from(key.page), cache.read_disk(key)?));
            on_disk.iter().filter_map(read).collect()
        };
        // A read that panics or is given up is as a page that is not there.
        let read = self.remote.runtime().spawn_blocking(read).await;
        let read = read.unwrap_or_default();
        missing.retain(|page| read.binary_search_by_key(page, |it| it.0).is_err());
        found.extend(read);
    }

    /// Fetches what is missing; what others failed to fetch is left missing.
    async fn fetch(
        &self,
        object: &Object,
        missing: &mut Missing,
        found: &mut Vec<(u64, Bytes)>,
        tally: &Tally,
    ) -> Result<(), FetchError> {
        let mut own = Vec::new();
        let mut others = Vec::new();
        {
            let mut flights = self.flights.lock();
            for page in missing.pages.drain(..) {
                let key = key(object, page);
                if let Some(flight) = flights.get(&key) {
                    others.push((page, flight.clone()));
                    continue;
                }
                let (result, flight) = watch::channel(None);
                flights.insert(key, flight);
                let claim = Claim {
                    ranges: self,
                    key,
                    result,
                };
                own.push((page, claim));
            }
        }
        self.cache.count_misses(own.len());
        let runs = runs(own, &missing.hopes, self.remote.round_trip_bytes());
        let mut fetches: FuturesUnordered<_> = runs
            .into_iter()
            .map(|run| self.fetch_run(object, run, tally))
            .collect();
        let mut failure = None;
        while let Some(fetched) = fetches.next().await {
            match fetched {
                Ok(pages) => found.extend(pages),
                Err(error) => failure = Some(error),
            }
        }
        drop(fetches);
        if let Some(error) = failure {
            return Err(error);
        }
        for (page, mut flight) in others {
            let result = flight.wait_for(Option::is_some).await;
            match result.ok().and_then(|it| it.clone()) {
                Some(Ok(bytes)) => found.push((page, bytes)),
                Some(Err(error)) => return Err(error),
                // Whoever fetched it was given up.
                None => missing.pages.push(page),
            }
        }
        Ok(())
    }

    async fn fetch_run(
        &self,
        object: &Object,
        run: Run<'_>,
        tally: &Tally,
    ) -> Result<Vec<(u64, Bytes)>, FetchError> {
        let closed = |_| FetchError::Unavailable("the cache is shutting down".into());
        let _permit = self.requests.acquire().await.map_err(closed)?;
        let pages = u32::try_from(run.pages.end - run.pages.start).unwrap_or(u32::MAX);
        let pages = pages.min(self.in_flight_pages);
        let _room = self.in_flight.acquire_many(pages).await.map_err(closed)?;
        let size = PAGE_BYTES as u64;
        let range = run.pages.start * size..run.pages.end * size;
        tally.requests.fetch_add(1, Ordering::Relaxed);
        let fetched = self.remote.range(&object.path, range).await;
        let bytes = match fetched {
            Ok(bytes) => bytes,
            Err(error) => {
                for (_, claim) in run.claims {
                    claim.result.send_replace(Some(Err(error.clone())));
                }
                return Err(error);
            }
        };
        tally
            .fetched_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut claims = run.claims.into_iter().peekable();
        let mut pages = Vec::new();
        for (page, content) in run.pages.clone().zip(bytes.chunks(PAGE_BYTES)) {
            // A copy of its own, so that the memory of a page goes when the page does.
            let content = Bytes::copy_from_slice(content);
            self.cache
                .insert_fetched(key(object, page), content.clone());
            if let Some((_, claim)) = claims.next_if(|it| it.0 == page) {
                claim.result.send_replace(Some(Ok(content.clone())));
            }
            pages.push((page, content));
        }
        // Those behind the end of the object are empty.
        for (page, claim) in claims {
            claim.result.send_replace(Some(Ok(Bytes::new())));
            pages.push((page, Bytes::new()));
        }
        Ok(pages)
    }
}

fn key(object: &Object, page: u64) -> Key {
    Key {
        block: object.block,
        file: object.file,
        page: u32::try_from(page).unwrap_or(u32::MAX),
    }
}

fn pages_of(range: &Range<u64>) -> Range<u64> {
    let size = PAGE_BYTES as u64;
    range.start / size..range.end.div_ceil(size).max(range.start / size)
}

/// Pages that are not in memory, in ascending order.
#[derive(Default)]
struct Missing {
    pages: Vec<u64>,
    hopes: Vec<u64>,
}

/// What one request reads.
struct Run<'a> {
    pages: Range<u64>,
    claims: Vec<(u64, Claim<'a>)>,
}

/// Groups pages that lie close together.
fn runs<'a>(own: Vec<(u64, Claim<'a>)>, hopes: &[u64], round_trip_bytes: u64) -> Vec<Run<'a>> {
    let pages: Vec<u64> = own.iter().map(|it| it.0).collect();
    let bridged = bridged(&pages, round_trip_bytes);
    let most = round_trip_bytes.clamp(*REQUEST_BYTES.start(), *REQUEST_BYTES.end());
    let most = most / PAGE_BYTES as u64;
    let mut runs: Vec<Run<'a>> = Vec::new();
    for ((page, claim), bridged) in own.into_iter().zip(bridged) {
        if let Some(run) = runs.last_mut()
            && bridged
            && page + 1 - run.pages.start <= most
        {
            run.pages.end = page + 1;
            run.claims.push((page, claim));
            continue;
        }
        runs.push(Run {
            pages: page..page + 1,
            claims: vec![(page, claim)],
        });
    }
    for run in &mut runs {
        while hopes.binary_search(&run.pages.end).is_ok() {
            run.pages.end += 1;
        }
    }
    runs
}

/// For each of some pages in ascending order, whether it is read in one request with the one before
/// it: the shortest gaps first, while they are worth it.
fn bridged(pages: &[u64], round_trip_bytes: u64) -> Vec<bool> {
    let size = PAGE_BYTES as u64;
    let mut gaps: Vec<(u64, usize)> = Vec::with_capacity(pages.len());
    for (at, pair) in pages.windows(2).enumerate() {
        if let [before, page] = *pair {
            let gap = page.saturating_sub(before + 1) * size;
            gaps.push((gap, at + 1));
        }
    }
    gaps.sort_unstable();
    let short = (round_trip_bytes / GAP_PART).clamp(*GAP_BYTES.start(), *GAP_BYTES.end());
    let waste_max = (pages.len() as u64 * size).max(WASTE_BYTES);
    let mut bridged = vec![false; pages.len()];
    let (mut requests, mut waste) = (pages.len(), 0);
    for (gap, at) in gaps {
        let worth = if requests > SIDE_BY_SIDE {
            short.max(round_trip_bytes / WAITING_GAP_PART)
        } else {
            short
        };
        waste += gap;
        if gap > worth || waste > waste_max {
            break;
        }
        requests -= 1;
        if let Some(bridged) = bridged.get_mut(at) {
            *bridged = true;
        }
    }
    bridged
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one range is wanted")]
mod tests {
    use object_store::memory::InMemory;
    use object_store::{ObjectStore, ObjectStoreExt};
    use tokio::runtime::Handle;

    use super::*;

    const PAGE: u64 = PAGE_BYTES as u64;

    fn content(len: u64) -> Vec<u8> {
        (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    async fn ranges(len: u64) -> (Arc<Ranges>, Object) {
        let store = InMemory::new();
        let path = Path::from("a");
        store.put(&path, content(len).into()).await.unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        let cache = Arc::new(PageCache::in_memory(64 << 20));
        let object = Object {
            block: Ulid::nil(),
            file: 1,
            path,
        };
        (
            Arc::new(Ranges::new(Remote::new(store, Handle::current()), cache)),
            object,
        )
    }

    fn wanted(ranges: &[Range<u64>]) -> Vec<Wanted> {
        let want = |range: &Range<u64>| Wanted {
            range: range.clone(),
            hope: range.end,
        };
        ranges.iter().map(want).collect()
    }

    async fn check(ranges: &Ranges, object: &Object, asked: &[Range<u64>], requests: u64) {
        let tally = Tally::default();
        let pages = ranges.read(object, &wanted(asked), &tally).await.unwrap();
        let all = content(40 * PAGE + 10);
        for range in asked {
            let end = (range.end as usize).min(all.len());
            assert_eq!(
                pages.bytes(range.clone()),
                all[range.start as usize..end],
                "{range:?}"
            );
        }
        assert_eq!(
            tally.requests.load(Ordering::Relaxed),
            requests,
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn close_ranges_are_read_at_once_and_each_page_once() {
        let (ranges, object) = ranges(40 * PAGE + 10).await;
        check(&ranges, &object, &[5..10], 1).await;
        check(&ranges, &object, &[5..10, 100..PAGE], 0).await;
        check(&ranges, &object, &[5..10, PAGE - 3..PAGE + 3], 1).await;
        // A gap of 96 KB is bridged at 30 ms and 50 MB/s, where such a bucket is guessed.
        let apart = [
            3 * PAGE..3 * PAGE + 1,
            8 * PAGE..8 * PAGE + 1,
            21 * PAGE..21 * PAGE + 1,
        ];
        check(&ranges, &object, &apart, 2).await;
        check(&ranges, &object, &[4 * PAGE + 7..8 * PAGE], 0).await;
        check(&ranges, &object, &[40 * PAGE..40 * PAGE + 10], 1).await;
        check(&ranges, &object, &[39 * PAGE + 1..42 * PAGE], 1).await;
        check(&ranges, &object, &[0..40 * PAGE], 2).await;
        let counts = ranges.cache().counts();
        assert!(counts.memory_hits > 0 && counts.misses > 0);
    }

    /// Pages as `from-to` for each request.
    fn check_runs(pages: impl IntoIterator<Item = u64>, round_trip_bytes: u64, expected: &str) {
        let pages: Vec<u64> = pages.into_iter().collect();
        let bridged = bridged(&pages, round_trip_bytes);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (page, bridged) in pages.iter().zip(bridged) {
            match runs.last_mut().filter(|_| bridged) {
                Some(run) => run.1 = *page,
                None => runs.push((*page, *page)),
            }
        }
        let text: Vec<String> = match runs.len() {
            0..10 => runs.iter().map(|(a, b)| format!("{a}-{b}")).collect(),
            many => vec![
                format!("{many} requests"),
                format!("{} pages", runs.iter().map(|(a, b)| b - a + 1).sum::<u64>()),
            ],
        };
        assert_eq!(text.join(" "), expected);
    }

    #[test]
    fn gaps_are_bridged_by_what_they_cost() {
        const SLOW: u64 = 1_500_000;
        check_runs([], SLOW, "");
        check_runs([3], SLOW, "3-3");
        check_runs([3, 4, 5, 11, 18, 19], SLOW, "3-11 18-19");
        // A file: a request is worth 64 KiB all the same.
        check_runs([0, 5, 11], 0, "0-5 11-11");
        check_runs([0, 17, 34], 100_000_000, "0-17 34-34");
        // What is wasted is bounded by what is wanted.
        check_runs((0..50).map(|n| n * 5), SLOW, "38 requests 98 pages");
        check_runs((0..50).map(|n| n * 15), SLOW, "50 requests 50 pages");
        // More than can run side by side.
        check_runs((0..1000).map(|n| n * 15), SLOW, "929 requests 1994 pages");
        check_runs((0..1000).map(|n| n * 100), SLOW, "1000 requests 1000 pages");
        check_runs((0..1000).map(|n| n * 2), SLOW, "0-1998");
    }

    #[tokio::test]
    async fn what_is_only_hoped_for_takes_no_request() {
        let (ranges, object) = ranges(3 * PAGE).await;
        let tally = Tally::default();
        let ask = |hope| {
            [Wanted {
                range: 10..20,
                hope,
            }]
        };
        let pages = ranges.read(&object, &ask(PAGE + 1), &tally).await.unwrap();
        assert_eq!(pages.bytes(10..PAGE + 1).len() as u64, PAGE - 9);
        let pages = ranges.read(&object, &ask(9 * PAGE), &tally).await.unwrap();
        assert_eq!(pages.bytes(10..9 * PAGE).len() as u64, 2 * PAGE - 10);
        assert_eq!(tally.requests.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_wait_for_one_fetch() {
        let (ranges, object) = ranges(40 * PAGE + 10).await;
        let reads = (0..50).map(|i| {
            let (ranges, object) = (Arc::clone(&ranges), object.clone());
            tokio::spawn(async move {
                let range = (i % 5) * PAGE..(i % 5 + 3) * PAGE;
                let (asked, tally) = (wanted(std::slice::from_ref(&range)), Tally::default());
                let read = ranges.read(&object, &asked, &tally);
                // Some lose their patience.
                if i % 7 == 3 {
                    let _lost = tokio::time::timeout(std::time::Duration::ZERO, read).await;
                    return;
                }
                let all = content(40 * PAGE + 10);
                let pages = read.await.unwrap();
                assert_eq!(
                    pages.bytes(range.clone()),
                    all[range.start as usize..range.end as usize]
                );
            })
        });
        for read in reads.collect::<Vec<_>>() {
            read.await.unwrap();
        }
        assert!(ranges.flights.lock().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_there_is_said() {
        let (ranges, mut object) = ranges(10).await;
        object.path = Path::from("b");
        let error = ranges
            .read(&object, &wanted(&[0..5]), &Tally::default())
            .await;
        assert_eq!(error.unwrap_err().to_string(), "b: there is no such object");
    }
}
