//! How long does it take to know the blocks of a bucket in a directory, for the first time, with what
//! is known from disk, and by looking whether anything has changed?
//!
//! ```text
//! cargo run --release -p isobar-store --example fetch_cost -- 10000
//! ```

#![expect(clippy::print_stderr, reason = "it is what the example is for")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use isobar_store::block::meta::{File, Source};
use isobar_store::block::{Discovery, FetchOptions, Fetcher, Filters, Freshness, Meta};
use isobar_store::bucket::Filesystem;
use isobar_tsdb::block::meta::BlockMeta;
use ulid::Ulid;

fn write_blocks(root: &Path, count: u64) -> Result<(), Box<dyn Error>> {
    for number in 0..count {
        let id = Ulid::from_parts(1_700_000_000_000 + number, number.into());
        let start = i64::try_from(number)? * 7_200_000;
        let block = BlockMeta::new(id, start, start + 7_200_000);
        let mut meta = Meta::from_block("made", block)?;
        meta.thanos.source = Source::new(Source::SIDECAR);
        for (name, value) in [("cluster", "eu"), ("replica", "a")] {
            meta.thanos.labels.insert(name.to_owned(), value.to_owned());
        }
        let file = |name: &str, size_bytes| File {
            rel_path: name.to_owned(),
            size_bytes,
            hash: None,
            other: serde_json::Map::new(),
        };
        meta.thanos.files = vec![
            file("chunks/000001", 6_803_435),
            file("index", 14_561),
            file("meta.json", 0),
        ];
        let directory = root.join(id.to_string());
        std::fs::create_dir_all(directory.join("chunks"))?;
        std::fs::write(directory.join("chunks/000001"), "x")?;
        std::fs::write(directory.join("index"), "x")?;
        std::fs::write(directory.join("meta.json"), meta.encode())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let count = std::env::args().nth(1).map_or(Ok(10_000), |n| n.parse())?;
    let root = tempfile::tempdir()?;
    write_blocks(root.path(), count)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    for discovery in [Discovery::Concurrent, Discovery::Recursive] {
        let data = tempfile::tempdir()?;
        let options = FetchOptions {
            discovery,
            data_dir: Some(data.path().to_owned()),
            ..FetchOptions::default()
        };
        let bucket = Arc::new(Filesystem::new(root.path())?);
        for (what, freshness) in [
            ("everything is read", Freshness::Current),
            ("known from disk, one listing", Freshness::Known),
            ("known from disk, all looked at", Freshness::Current),
        ] {
            let mut fetcher = Fetcher::new(Arc::<Filesystem>::clone(&bucket), options.clone());
            let began = Instant::now();
            let fetched = runtime.block_on(fetcher.fetch(freshness))?;
            let filters = Filters {
                deduplicate: true,
                ..Filters::default()
            };
            let (taken, _) = fetched.select(&filters, i64::MAX);
            let took = began.elapsed();
            if taken.len() as u64 != count {
                return Err(format!("{} of {count} blocks", taken.len()).into());
            }
            eprintln!(
                "{discovery:?}, {what}: {took:?}, {} files",
                fetched.files_read
            );
        }
    }
    Ok(())
}
