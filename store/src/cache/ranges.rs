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

/// Pages that lie between two that are wanted are read along up to this many bytes, as in Thanos: at
/// 50 MB/s they take a third of the time that a request of its own takes.
pub const GAP_BYTES: u64 = 512 << 10;
/// A request is cut where it would grow beyond this, so that a large range comes over several
/// connections.
const REQUEST_BYTES_MAX: u64 = 4 << 20;
/// No hope reaches further.
const HOPE_BYTES_MAX: u64 = 4 << 20;
/// Requests that run at a time, over all queries.
const REQUESTS_MAX: usize = 128;
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
    gap_bytes: u64,
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
        Ranges {
            remote,
            cache,
            flights: Mutex::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            gap_bytes: GAP_BYTES,
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
        let runs = runs(own, &missing.hopes, self.gap_bytes);
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
fn runs<'a>(own: Vec<(u64, Claim<'a>)>, hopes: &[u64], gap_bytes: u64) -> Vec<Run<'a>> {
    let size = PAGE_BYTES as u64;
    let mut runs: Vec<Run<'a>> = Vec::new();
    for (page, claim) in own {
        if let Some(run) = runs.last_mut()
            && page.saturating_sub(run.pages.end) * size <= gap_bytes
            && (page + 1 - run.pages.start) * size <= REQUEST_BYTES_MAX
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
        let apart = [
            3 * PAGE..3 * PAGE + 1,
            11 * PAGE..11 * PAGE + 1,
            21 * PAGE..21 * PAGE + 1,
        ];
        check(&ranges, &object, &apart, 2).await;
        check(&ranges, &object, &[4 * PAGE + 7..10 * PAGE], 0).await;
        check(&ranges, &object, &[40 * PAGE..40 * PAGE + 10], 1).await;
        check(&ranges, &object, &[39 * PAGE + 1..42 * PAGE], 1).await;
        check(&ranges, &object, &[0..40 * PAGE], 2).await;
        let counts = ranges.cache().counts();
        assert!(counts.memory_hits > 0 && counts.misses > 0);
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
