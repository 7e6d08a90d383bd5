//! Discovery and reading, in memory and on a bucket that a Thanos wrote.

use isobar_tsdb::block::meta::BlockMeta;
use object_store::PutPayload;
use object_store::memory::InMemory;
use ulid::Ulid;

use super::*;
use crate::block::marks::DeletionMark;
use crate::testing::faulty::{Fault, Faulty};

fn meta(number: u64) -> Meta {
    let block = BlockMeta::new(Ulid::from_parts(number, 0), 0, 100);
    Meta::from_block("test", block).unwrap()
}

async fn put(bucket: &InMemory, path: Path, bytes: Vec<u8>) {
    bucket.put(&path, PutPayload::from(bytes)).await.unwrap();
}

async fn put_block(bucket: &InMemory, number: u64) -> BlockId {
    let meta = meta(number);
    let id = meta.id();
    put(bucket, paths::segment(id, 0), vec![1]).await;
    put(bucket, paths::index(id), vec![2]).await;
    put(bucket, paths::meta(id), meta.encode()).await;
    id
}

fn ids(fetched: &Fetched) -> Vec<BlockId> {
    fetched.blocks.iter().map(|b| b.meta.id).collect()
}

#[tokio::test]
async fn only_what_is_new_is_read() {
    for discovery in [Discovery::Concurrent, Discovery::Recursive] {
        let directory = tempfile::tempdir().unwrap();
        let bucket = Arc::new(InMemory::new());
        let options = FetchOptions {
            discovery,
            data_dir: Some(directory.path().to_owned()),
            ..FetchOptions::default()
        };
        let new = || Fetcher::new(Arc::<InMemory>::clone(&bucket), options.clone());
        let mut fetcher = new();
        let check = |fetched: &Fetched, blocks: &[BlockId], files_read: usize| {
            assert_eq!(ids(fetched), blocks);
            assert_eq!(fetched.files_read, files_read);
            assert!(fetched.failed.is_empty());
        };
        check(&fetcher.fetch(Freshness::Current).await.unwrap(), &[], 0);

        let a = put_block(&bucket, 1).await;
        let b = put_block(&bucket, 2).await;
        put(&bucket, Path::from("debug/metas/x.json"), vec![7]).await;
        put(&bucket, Path::from("isobar/cards/x"), vec![7]).await;
        check(
            &fetcher.fetch(Freshness::Current).await.unwrap(),
            &[a, b],
            2,
        );
        check(
            &fetcher.fetch(Freshness::Current).await.unwrap(),
            &[a, b],
            0,
        );

        // Another process starts from the file.
        let mut fetcher = new();
        let c = put_block(&bucket, 3).await;
        check(
            &fetcher.fetch(Freshness::Known).await.unwrap(),
            &[a, b, c],
            1,
        );

        // A mark comes, a meta changes, a block goes.
        let mark = DeletionMark::new(a, 77, "x");
        put(&bucket, paths::file(a, paths::DELETION_MARK), mark.encode()).await;
        let mut changed = meta(2);
        changed.thanos.labels.insert("a".into(), "b".into());
        put(&bucket, paths::meta(b), changed.encode()).await;
        for file in [paths::meta(c), paths::index(c), paths::segment(c, 0)] {
            bucket.delete(&file).await.unwrap();
        }
        let known = fetcher.fetch(Freshness::Known).await.unwrap();
        check(&known, &[a, b], 0);
        assert_eq!(known.blocks[0].marks.deletion, None);
        let fetched = fetcher.fetch(Freshness::Current).await.unwrap();
        check(&fetched, &[a, b], 2);
        let deletion = |fetched: &Fetched| fetched.blocks[0].marks.deletion.clone();
        assert_eq!(deletion(&fetched).as_deref(), Some(&mark));
        assert_eq!(fetched.blocks[1].meta.whole().unwrap(), changed);

        // The mark is in the file, too, and goes when it goes.
        let fetched = new().fetch(Freshness::Known).await.unwrap();
        check(&fetched, &[a, b], 0);
        assert_eq!(deletion(&fetched), Some(Arc::new(mark)));
        let path = paths::file(a, paths::DELETION_MARK);
        bucket.delete(&path).await.unwrap();
        let fetched = fetcher.fetch(Freshness::Current).await.unwrap();
        assert_eq!(fetched.blocks[0].marks, Marks::default());
    }
}

#[tokio::test]
async fn what_is_no_block_is_told_apart() {
    for discovery in [Discovery::Concurrent, Discovery::Recursive] {
        let bucket = Arc::new(InMemory::new());
        let good = put_block(&bucket, 1).await;
        let [no_meta, corrupt, other, version] = [2, 3, 4, 5].map(|n| meta(n).id());
        put(&bucket, paths::index(no_meta), vec![1]).await;
        put(&bucket, paths::meta(corrupt), b"{".to_vec()).await;
        put(&bucket, paths::meta(other), meta(1).encode()).await;
        let mut newer = meta(5);
        newer.thanos.version = 2;
        put(&bucket, paths::meta(version), newer.encode()).await;
        let bad_mark = paths::file(good, paths::NO_COMPACT_MARK);
        put(&bucket, bad_mark.clone(), b"{".to_vec()).await;

        let options = FetchOptions {
            discovery,
            ..FetchOptions::default()
        };
        let mut fetcher = Fetcher::new(bucket, options);
        let fetched = fetcher.fetch(Freshness::Current).await.unwrap();
        assert_eq!(ids(&fetched), [good]);
        assert_eq!(fetched.partial[&no_meta], Partial::NoMeta);
        for id in [corrupt, other] {
            assert!(matches!(fetched.partial[&id], Partial::CorruptedMeta(_)));
        }
        assert_eq!(fetched.failed.keys().collect::<Vec<_>>(), [&version]);
        assert_eq!(fetched.bad_marks.len(), 1);
        assert!(fetched.bad_marks[0].starts_with(bad_mark.as_ref()));

        let (taken, counts) = fetched.select(&Filters::default(), 0);
        assert_eq!(taken.len(), 1);
        let counts: Vec<_> = counts.into_iter().filter(|(_, n)| *n > 0).collect();
        let expected = [
            (State::CorruptedMeta, 2),
            (State::NoMeta, 1),
            (State::Loaded, 1),
            (State::Failed, 1),
        ];
        assert_eq!(counts, expected);
    }
}

#[tokio::test]
async fn a_bucket_that_thanos_wrote() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/contract/life");
    if !std::path::Path::new(root).exists() {
        println!("skipped: {root} not found");
        return;
    }
    let bucket = object_store::local::LocalFileSystem::new_with_prefix(root).unwrap();
    let mut fetcher = Fetcher::new(Arc::new(bucket), FetchOptions::default());
    let fetched = fetcher.fetch(Freshness::Current).await.unwrap();
    let directories = std::fs::read_dir(root).unwrap().count();
    assert_eq!(fetched.blocks.len(), directories);
    assert!(fetched.partial.is_empty() && fetched.failed.is_empty());
    let filters = Filters {
        deduplicate: true,
        ignore_deletion_marks_delay_ms: Some(0),
        ..Filters::default()
    };
    let (taken, counts) = fetched.select(&filters, i64::MAX);
    println!("{} of {directories} blocks, {counts:?}", taken.len());
    let taken_or_not = counts[&State::Loaded] + counts[&State::Duplicate];
    assert_eq!(taken_or_not, directories);
    assert!(!taken.is_empty());
}

/// Whatever fails, what is said is true, a block that was seen stays in sight, and in the end all is seen.
#[tokio::test]
async fn under_faults_nothing_is_lost_from_sight() {
    for seed in 0..30 {
        let bucket = Arc::new(InMemory::new());
        let inner = Arc::<InMemory>::clone(&bucket);
        let faulty = Arc::new(Faulty::new(inner, &Fault::ALL, 200, seed));
        let directory = tempfile::tempdir().unwrap();
        let options = FetchOptions {
            discovery: [Discovery::Concurrent, Discovery::Recursive][seed as usize % 2],
            data_dir: Some(directory.path().to_owned()),
            ..FetchOptions::default()
        };
        let mut fetcher = Fetcher::new(Arc::<Faulty>::clone(&faulty), options);
        let mut there = Vec::new();
        let mut seen: Vec<BlockId> = Vec::new();
        for number in 0..12 {
            // Through the bucket that fails, so that listings may lack it.
            let id = meta(number).id();
            let path = paths::meta(id);
            while faulty
                .put(&path, PutPayload::from(meta(number).encode()))
                .await
                .is_err()
            {}
            there.push(id);
            if number % 3 == 2 {
                let mark = DeletionMark::new(there[0], number as i64, "x");
                let path = paths::file(there[0], paths::DELETION_MARK);
                put(&bucket, path, mark.encode()).await;
            }
            let Ok(fetched) = fetcher.fetch(Freshness::Current).await else {
                continue;
            };
            let now = ids(&fetched);
            assert!(now.iter().all(|id| there.contains(id)), "seed {seed}");
            let vanished = |id: &&BlockId| {
                !now.contains(id)
                    && !fetched.partial.contains_key(id)
                    && **id != there[number as usize]
            };
            let vanished: Vec<_> = seen.iter().filter(vanished).collect();
            assert!(vanished.is_empty(), "seed {seed}: {vanished:?}");
            seen = now;
        }
        faulty.set_rate(0);
        let fetched = fetcher.fetch(Freshness::Current).await.unwrap();
        assert_eq!(ids(&fetched), there, "seed {seed}");
        let deletion = fetched.blocks[0].marks.deletion.as_ref();
        assert_eq!(deletion.unwrap().time_s, 11, "seed {seed}");
        assert!(faulty.injected() > 0);
    }
}
