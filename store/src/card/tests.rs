//! Cards of real blocks against the index itself, and damage.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use isobar_model::Labels;
use isobar_model::budget::Budget;
use isobar_tsdb::index::{IndexReader, IndexWriter};
use object_store::memory::InMemory as MemoryStore;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::build::{BuildGate, BuildMemory, Subject, build, complete};
use super::*;
use crate::cache::remote::Remote;
use crate::compute::Pool;

fn shared(folder: &str) -> PathBuf {
    FsPath::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/contract"
    ))
    .join(folder)
}

/// The indices of some folders of blocks.
fn indices() -> Vec<PathBuf> {
    let golden = FsPath::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tsdb/tests/golden"));
    let folders = [
        shared("life"),
        shared("ha"),
        shared("promql/data"),
        golden.to_owned(),
    ];
    let blocks = folders
        .iter()
        .flat_map(|folder| match std::fs::read_dir(folder) {
            Ok(entries) => entries.map(|it| it.unwrap().path().join("index")).collect(),
            Err(_) => {
                println!("skipped: {} not found", folder.display());
                Vec::new()
            }
        });
    blocks.filter(|index| index.is_file()).collect()
}

/// A card that lacks nothing, and how many requests it took.
async fn card_of(index: Vec<u8>, series: Option<u64>) -> Result<(Bytes, u64), crate::StoreError> {
    let (_, card, requests) = cards_of(index, series, 1, 1 << 20).await?;
    Ok((card, requests))
}

/// A card as it is made while `builders` share some memory, and the same one completed; and how many requests
/// both took.
async fn cards_of(
    index: Vec<u8>,
    series: Option<u64>,
    builders: usize,
    gate_bytes: u64,
) -> Result<(Bytes, Bytes, u64), crate::StoreError> {
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    let path = Path::from("index");
    let size = index.len() as u64;
    store.put(&path, index.into()).await.unwrap();
    let remote = Remote::new(store, tokio::runtime::Handle::current());
    let pool = Pool::new("test", 1, 8).unwrap();
    let subject = Subject {
        ulid: Ulid::from_parts(1, 2),
        index: path.clone(),
        index_bytes: Some(size),
        series,
    };
    let budget = Budget::new("the memory of the test", 1 << 30);
    let memory = BuildMemory {
        budget: &budget,
        gate: &BuildGate::new(gate_bytes),
        builders,
    };
    let made = build(&remote, &pool, &memory, &subject).await?;
    let mut card = made.clone();
    if Root::decode("card", &made)?.lacks_extents {
        card = complete(&remote, &pool, &memory, &path, made.clone()).await?;
    }
    assert_eq!(budget.held(), 0);
    let requests = &remote.counters().requests;
    Ok((
        made,
        card,
        requests.load(std::sync::atomic::Ordering::Relaxed),
    ))
}

fn shorter(text: &str) -> String {
    let mut chars = text.chars();
    chars.next_back();
    chars.as_str().to_owned()
}

/// Everything that the index says of labels, the card says too.
fn check(index: &IndexReader, card: &Card) {
    let mut lookup = card.lookup();
    assert_eq!(card.root().symbols, index.symbol_count());
    for text in index.symbols() {
        let text = text.unwrap();
        let symbol = card.find_symbol(text).unwrap();
        assert_eq!(symbol, index.find_symbol(text).unwrap());
        assert_eq!(lookup.text(symbol.unwrap()).unwrap(), text);
        for other in [format!("{text}!"), shorter(text)] {
            let expected = index.find_symbol(&other).unwrap();
            assert_eq!(card.find_symbol(&other).unwrap(), expected);
        }
    }
    let mut names = Vec::new();
    for name in card.names().unwrap() {
        let text = lookup.text(name.name).unwrap().to_owned();
        assert_eq!(name.values as usize, index.value_count(&text));
        assert_eq!(card.name(name.name).unwrap(), Some(name));
        let expected: Vec<_> = index.label_values(&text, "").unwrap().collect();
        let pairs: Vec<_> = card.pairs(name.name, 0).unwrap().collect();
        assert_eq!(pairs.len(), expected.len());
        for (pair, expected) in pairs.into_iter().zip(expected) {
            let (pair, (value, offset)) = (pair.unwrap(), expected.unwrap());
            assert_eq!(
                (lookup.text(pair.value).unwrap(), pair.offset),
                (value, offset)
            );
            assert_eq!(card.pair(name.name, pair.value).unwrap(), Some(pair));
            let list = index.postings_at(offset).unwrap();
            assert_eq!(pair.series(), list.len() as u64);
            if text == "__name__" {
                assert!(card.may_hold_metric(value).unwrap());
                check_extent(index, card, &pair);
            }
        }
        names.push(text);
    }
    assert_eq!(names, index.label_names().collect::<Vec<_>>());
    assert!(!card.may_hold_metric("no_such_metric_in_here").unwrap());
    assert!(lookup.text(u32::MAX - 1).is_err());
}

fn check_extent(index: &IndexReader, card: &Card, pair: &Pair) {
    let list = index.postings_at(pair.offset).unwrap().into_vec();
    let extent = card.extent(pair.value).unwrap().unwrap();
    let v2 = |at: usize| u64::from(list[at].0) * 16;
    assert_eq!((extent.begin, extent.series), (v2(0), list.len() as u64));
    assert!(extent.end > v2(list.len() - 1) && extent.end <= card.root().series_end);
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_of_blocks_say_what_their_index_says() {
    let mut checked = 0;
    for path in indices() {
        let bytes = std::fs::read(&path).unwrap();
        let index = IndexReader::open("index", Bytes::from(bytes.clone())).unwrap();
        let (card, requests) = card_of(bytes, None).await.unwrap();
        assert!(requests <= 4, "{requests} requests for {}", path.display());
        check(&index, &Card::in_memory("card", card).unwrap());
        checked += 1;
    }
    println!("{checked} blocks");
}

fn index_of(series: &[Labels]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let texts = series
        .iter()
        .flat_map(Labels::iter)
        .flat_map(|(name, value)| [name, value]);
    let symbols: std::collections::BTreeSet<&str> = texts.collect();
    let mut writer = IndexWriter::create(&path, symbols.into_iter().map(Ok)).unwrap();
    series.iter().for_each(|labels| {
        writer.add(labels, &[]).unwrap();
    });
    writer.finish().unwrap();
    std::fs::read(&path).unwrap()
}

/// Enough of everything that trees are three pages high.
fn large() -> Vec<Labels> {
    let mut series: Vec<Labels> = (0..20_000)
        .map(|i| {
            let (metric, pod) = (
                format!("metric_{}", i % 6000),
                format!("pod-{i:x}-{}", i * 7919),
            );
            Labels::from_pairs([
                ("__name__", metric),
                ("pod", pod),
                ("a", (i % 3).to_string()),
            ])
        })
        .collect();
    series.push(Labels::from_pairs([
        ("Before", "x"),
        ("__name__", "metric_7"),
    ]));
    series.push(Labels::from_pairs([("long", "x".repeat(20_000))]));
    series.sort();
    series
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_index() {
    let bytes = index_of(&large());
    let index = IndexReader::open("index", Bytes::from(bytes.clone())).unwrap();
    let (card, requests) = card_of(bytes.clone(), Some(20_002)).await.unwrap();
    assert!(requests <= 5, "{requests}");
    println!("index of {} bytes, card of {}", bytes.len(), card.len());
    check(&index, &Card::in_memory("card", card).unwrap());
}

/// However much is read of an index to begin with, the card is the same one.
async fn check_growth(series: &[Labels]) -> usize {
    let bytes = index_of(series);
    let whole = cards_of(bytes.clone(), Some(series.len() as u64), 1, 1 << 30).await;
    let (_, whole, _) = whole.unwrap();
    let index = IndexReader::open("index", Bytes::from(bytes.clone())).unwrap();
    check(&index, &Card::in_memory("card", whole.clone()).unwrap());
    let mut lacking = 0;
    for (builders, gate_bytes) in [(1, 1 << 14), (9, 1 << 20), (9, 1 << 22), (200, 64 << 20)] {
        let made = cards_of(bytes.clone(), None, builders, gate_bytes).await;
        let (made, completed, requests) = made.unwrap();
        let root = Root::decode("card", &made).unwrap();
        println!("{builders} with {gate_bytes} bytes: {requests} requests");
        assert_eq!(completed, whole);
        let pages = made.slice(ROOT_BYTES..);
        assert_eq!(pages, whole.slice(ROOT_BYTES..made.len()));
        assert_eq!(root.card_bytes, made.len() as u64);
        if root.lacks_extents {
            assert_eq!((root.metrics, requests), (0, 3));
            lacking += 1;
        }
    }
    lacking
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_grows() {
    check_growth(&large()).await;
    let series = |i: usize| {
        let (metric, pod) = (format!("m{:02}", i / 400), format!("p{:03}", i % 400));
        Labels::from_pairs([("__name__", metric), ("pod", pod)])
    };
    let many: Vec<Labels> = (0..20_000).map(series).collect();
    assert_eq!(check_growth(&many).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_index() {
    let bytes = index_of(&[]);
    let index = IndexReader::open("index", Bytes::from(bytes.clone())).unwrap();
    let (card, _) = card_of(bytes, None).await.unwrap();
    check(&index, &Card::in_memory("card", card).unwrap());
}

/// Asks everything, and takes errors for answers.
fn ask_everything(card: &Card) -> Result<(), Error> {
    let mut lookup = card.lookup();
    for name in card.names()? {
        lookup.text(name.name)?;
        for pair in card.pairs(name.name, 0)? {
            let pair = pair?;
            let text = lookup.text(pair.value)?.to_owned();
            card.find_symbol(&text)?;
            card.extent(pair.value)?;
        }
    }
    card.may_hold_metric("up").map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found() {
    let series: Vec<_> = (0..300)
        .map(|i| {
            Labels::from_pairs([
                ("__name__", format!("m{:02}", i / 10)),
                ("n", i.to_string()),
            ])
        })
        .collect();
    let (card, _) = card_of(index_of(&series), None).await.unwrap();
    ask_everything(&Card::in_memory("card", card.clone()).unwrap()).unwrap();
    for at in (0..card.len()).step_by(3) {
        let mut damaged = card.to_vec();
        damaged[at] ^= 1 << (at % 8);
        let result = Card::in_memory("card", damaged.into()).and_then(|it| ask_everything(&it));
        let error = result.expect_err("every byte is checked");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    for cut in (0..card.len()).step_by(7) {
        let result = Card::in_memory("card", card.slice(..cut)).and_then(|it| ask_everything(&it));
        assert!(result.is_err());
    }
}

/// Checksums that are right again do not make damage dangerous.
#[tokio::test(flavor = "multi_thread")]
async fn damage_behind_right_checksums_is_no_panic() {
    let series: Vec<_> = (0..300)
        .map(|i| {
            Labels::from_pairs([
                ("__name__", format!("m{:02}", i / 10)),
                ("n", i.to_string()),
            ])
        })
        .collect();
    struct Unchecked(Bytes);
    impl Pages for Unchecked {
        fn page_at_hand(&self, place: Place) -> Option<Bytes> {
            self.page(place).ok()
        }

        fn page(&self, place: Place) -> Result<Bytes, Error> {
            let begin = (place.offset as usize).min(self.0.len());
            let end = (begin + (place.len as usize).saturating_sub(4)).min(self.0.len());
            Ok(self.0.slice(begin..end))
        }
    }
    let (card, _) = card_of(index_of(&series), None).await.unwrap();
    let root = Arc::new(Root::decode("card", &card).unwrap());
    for at in (ROOT_BYTES..card.len()).step_by(2) {
        for change in [0xff, 0x80, 1] {
            let mut damaged = card.to_vec();
            damaged[at] ^= change;
            let pages = Arc::new(Unchecked(damaged.into()));
            let _either = ask_everything(&Card::new("card", Arc::clone(&root), pages));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_the_index_is_found_when_the_card_is_made() {
    let series: Vec<_> = (0..40)
        .map(|i| Labels::from_pairs([("__name__", format!("m{}", i / 10)), ("n", i.to_string())]))
        .collect();
    let mut series = series;
    series.sort();
    let index = index_of(&series);
    let series_section = {
        let card = Card::in_memory("card", card_of(index.clone(), None).await.unwrap().0).unwrap();
        card.root().series_begin as usize..card.root().series_end as usize
    };
    let mut unnoticed = 0;
    for at in (0..index.len()).filter(|at| !series_section.contains(at)) {
        let mut damaged = index.clone();
        damaged[at] ^= 0x10;
        if let Ok((card, _)) = card_of(damaged, None).await {
            // Lists of other labels are read, and checked, when they are needed.
            unnoticed += 1;
            let _either = ask_everything(&Card::in_memory("card", card).unwrap());
        }
    }
    assert!(unnoticed < index.len() / 2);
}
