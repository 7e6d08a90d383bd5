//! All back ends and wrappers through one suite, S3 over HTTP among them, and uploads under faults.

use std::collections::BTreeMap;
use std::sync::Arc;

use isobar_tsdb::block::meta::BlockMeta;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};

use super::config::Provider;
use super::{Bucket, BucketConfig, Filesystem, Normal};
use crate::block::meta::{Meta, Source};
use crate::block::paths::{self, BlockId};
use crate::block::shipper::{Shipper, ShipperConfig};
use crate::testing::bucket::{Lacks, conforms};
use crate::testing::faulty::{Fault, Faulty};
use crate::testing::s3::S3Server;

#[tokio::test]
async fn memory() {
    let bucket = Arc::new(Normal::new(InMemory::new())) as Arc<dyn ObjectStore>;
    conforms(&bucket, Lacks::default()).await;
}

#[tokio::test]
async fn filesystem() {
    let root = tempfile::tempdir().unwrap();
    let bucket = Arc::new(Filesystem::new(root.path()).unwrap()) as Arc<dyn ObjectStore>;
    conforms(&bucket, Lacks::default()).await;
}

#[tokio::test]
async fn wrappers() {
    let root = tempfile::tempdir().unwrap();
    let inner = Arc::new(Filesystem::new(root.path()).unwrap()) as Arc<dyn ObjectStore>;
    let prefix = Path::from("a/b");
    let bucket = Arc::new(PrefixStore::new(Arc::clone(&inner), prefix)) as Arc<dyn ObjectStore>;
    conforms(&bucket, Lacks::default()).await;
    let bucket = Arc::new(Faulty::new(inner, &[], 0, 1)) as Arc<dyn ObjectStore>;
    conforms(&bucket, Lacks::default()).await;
}

#[tokio::test]
async fn s3_over_http() {
    let server = S3Server::start("metrics").await;
    for (prefix, hedging) in [("", ""), ("cluster/a", "hedging_config: {enabled: true}")] {
        let yaml = server.config("metrics", prefix) + hedging;
        let config = BucketConfig::parse(&yaml).unwrap();
        let bucket = Bucket::new(&config, &|_| None).unwrap();
        // This server keeps objects in files and shows their directories.
        let lacks = Lacks {
            directories_apart: true,
            ..Lacks::default()
        };
        conforms(&bucket.store, lacks).await;
    }
}

/// Any bucket: that of `ISOBAR_TEST_OBJSTORE_CONFIG`, the YAML or a file with it. The objects of the suite
/// are removed from it again; give it a prefix of its own all the same.
#[tokio::test]
async fn the_bucket_of_the_environment() {
    let Ok(yaml) = std::env::var("ISOBAR_TEST_OBJSTORE_CONFIG") else {
        println!("skipped: ISOBAR_TEST_OBJSTORE_CONFIG names no bucket");
        return;
    };
    let yaml = std::fs::read_to_string(&yaml).unwrap_or(yaml);
    let config = BucketConfig::parse(&yaml).unwrap();
    let bucket = Bucket::new(&config, &|name| std::env::var(name).ok()).unwrap();
    // Emulators of Google's API have neither uploads in pieces nor conditions.
    let emulated = std::env::var("STORAGE_EMULATOR_HOST").is_ok();
    let lacks = Lacks {
        // Azurite does not know the parameter for it.
        listing_behind: matches!(config.provider, Provider::Azure(_)),
        pieces: emulated,
        create: emulated,
        directories_apart: false,
    };
    conforms(&bucket.store, lacks).await;
    println!("{} conforms", bucket.name);
}

#[tokio::test]
async fn s3_refuses_a_wrong_key() {
    let server = S3Server::start("metrics").await;
    let yaml = server
        .config("metrics", "")
        .replace(S3Server::SECRET_KEY, "wrong");
    let bucket = Bucket::new(&BucketConfig::parse(&yaml).unwrap(), &|_| None).unwrap();
    assert!(bucket.store.list_with_delimiter(None).await.is_err());
    // The same keys from the environment.
    let without = yaml
        .replace("access_key: test", "")
        .replace("secret_key: wrong", "");
    let environment = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some(S3Server::ACCESS_KEY.to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(S3Server::SECRET_KEY.to_owned()),
        _ => None,
    };
    let bucket = Bucket::new(&BucketConfig::parse(&without).unwrap(), &environment).unwrap();
    bucket.store.list_with_delimiter(None).await.unwrap();
}

/// Names and contents of files.
type Files = Vec<(String, Vec<u8>)>;

/// Blocks of a directory.
fn write_blocks(directory: &std::path::Path) -> Vec<(BlockId, Files)> {
    let make = |number: u8| {
        let id = BlockId::from_parts(u64::from(number), 7);
        let mut meta = BlockMeta::new(id, i64::from(number), i64::from(number) + 1);
        meta.stats.num_samples = 1;
        let files = vec![
            (
                "chunks/000001".to_owned(),
                vec![number; if number == 1 { 6 << 20 } else { 5000 }],
            ),
            ("chunks/000002".to_owned(), vec![number; 100]),
            ("index".to_owned(), vec![number; 1000]),
        ];
        let block = directory.join(id.to_string());
        std::fs::create_dir_all(block.join("chunks")).unwrap();
        for (name, bytes) in &files {
            std::fs::write(block.join(name), bytes).unwrap();
        }
        std::fs::write(block.join("meta.json"), meta.encode()).unwrap();
        (id, files)
    };
    (1..=3).map(make).collect()
}

/// Whether a block is in the bucket with all that `meta.json` says; `None` when it does not exist.
async fn is_complete(
    bucket: &dyn ObjectStore,
    id: BlockId,
    files: &[(String, Vec<u8>)],
) -> Option<bool> {
    let json = bucket.get(&paths::meta(id)).await.ok()?;
    let meta = Meta::decode("meta.json", &json.bytes().await.unwrap()).unwrap();
    let mut complete = meta.thanos.files.len() == files.len() + 1;
    for (name, bytes) in files {
        let found = bucket.get(&paths::file(id, name)).await;
        complete &= match found {
            Ok(found) => found.bytes().await.unwrap() == *bytes,
            Err(_) => false,
        };
        complete &= meta.file_bytes(name) == Some(bytes.len() as u64);
    }
    Some(complete)
}

/// Ships under faults, then without: at every moment a block is complete or absent, and in the end all
/// are there. Returns how often it failed.
async fn ships_under_faults(inner: Arc<dyn ObjectStore>, faults: &[Fault], seed: u64) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let blocks = write_blocks(directory.path());
    let faulty = Arc::new(Faulty::new(Arc::clone(&inner), faults, 250, seed));
    let labels = |_: &Meta| BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let mut config = ShipperConfig::new(directory.path(), Source::TEST, Arc::new(labels));
    config.allow_out_of_order_uploads = seed.is_multiple_of(2);
    config.upload.concurrency = 2;
    config.upload.part_bytes = Some(5 << 20);
    let mut shipper = Shipper::new(config, Arc::<Faulty>::clone(&faulty) as _);
    for round in 0..6 {
        if round == 5 {
            faulty.set_rate(0);
        }
        // What went wrong is tried again.
        let _error = shipper.sync(0).await;
        let shipped = shipper.shipped();
        for (id, files) in &blocks {
            let complete = is_complete(&*inner, *id, files).await;
            assert_ne!(
                complete,
                Some(false),
                "seed {seed}, round {round}, {faults:?}"
            );
            let noted = shipped.contains(id);
            assert!(
                !noted || complete.is_some(),
                "seed {seed}: noted and not there"
            );
        }
    }
    assert_eq!(
        shipper.shipped().len(),
        blocks.len(),
        "seed {seed}, {faults:?}"
    );
    faulty.injected()
}

#[tokio::test]
async fn uploads_end_complete_or_absent() {
    let mut injected = 0;
    for fault in Fault::ALL {
        for seed in 0..4 {
            let bucket = Arc::new(InMemory::new());
            injected += ships_under_faults(bucket, &[fault], seed).await;
        }
    }
    for seed in 10..30 {
        let bucket = Arc::new(InMemory::new());
        injected += ships_under_faults(bucket, &Fault::ALL, seed).await;
    }
    println!("{injected} faults");
    assert!(injected > 100);
}

#[tokio::test]
async fn uploads_to_a_directory_and_to_s3_end_complete_or_absent() {
    for seed in 40..42 {
        let root = tempfile::tempdir().unwrap();
        let bucket = Arc::new(Filesystem::new(root.path()).unwrap());
        ships_under_faults(bucket, &Fault::ALL, seed).await;
        let server = S3Server::start("metrics").await;
        let config = BucketConfig::parse(&server.config("metrics", "x")).unwrap();
        let bucket = Bucket::new(&config, &|_| None).unwrap();
        ships_under_faults(bucket.store, &Fault::ALL, seed).await;
    }
}
