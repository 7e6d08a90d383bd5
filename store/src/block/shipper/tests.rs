//! What is shipped, what is not, and what the file beside the blocks says then.

use isobar_tsdb::block::meta::BlockMeta;
use object_store::memory::InMemory;
use ulid::Ulid;

use super::super::upload::HashFunc;
use super::*;

fn write_block(directory: &Path, number: u64, change: impl FnOnce(&mut BlockMeta)) -> BlockId {
    let id = Ulid::from_parts(number, 1);
    let mut meta = BlockMeta::new(id, number as i64 * 100, number as i64 * 100 + 100);
    meta.stats.num_samples = 1;
    change(&mut meta);
    let block = directory.join(id.to_string());
    std::fs::create_dir_all(block.join("chunks")).unwrap();
    std::fs::write(block.join("chunks/000001"), [number as u8; 10]).unwrap();
    std::fs::write(block.join("chunks/000002"), [number as u8; 11]).unwrap();
    std::fs::write(block.join("index"), [number as u8; 12]).unwrap();
    std::fs::write(block.join("meta.json"), meta.encode()).unwrap();
    id
}

pub(super) fn config(directory: &Path) -> ShipperConfig {
    let labels = |_: &Meta| BTreeMap::from([("cluster".to_owned(), "eu".to_owned())]);
    ShipperConfig::new(directory, Source::SIDECAR, Arc::new(labels))
}

async fn names(bucket: &InMemory) -> Vec<String> {
    use futures::TryStreamExt;
    let objects: Vec<_> = bucket.list(None).try_collect().await.unwrap();
    let mut names: Vec<String> = objects.iter().map(|o| o.location.to_string()).collect();
    names.sort();
    names
}

async fn meta_in(bucket: &InMemory, id: BlockId) -> Meta {
    let json = bucket.get(&paths::meta(id)).await.unwrap();
    Meta::decode("meta.json", &json.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_block_arrives_as_thanos_sends_it() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Arc::new(InMemory::new());
    let id = write_block(directory.path(), 7, |meta| {
        meta.other
            .insert("isobar".to_owned(), serde_json::json!({"tenant": "x"}));
    });
    let mut config = config(directory.path());
    config.upload.hash = HashFunc::Sha256;
    let mut shipper = Shipper::new(config, Arc::<InMemory>::clone(&bucket));
    let synced = shipper.sync(1_795_363_200_120).await.unwrap();
    assert_eq!(synced.uploaded, [id]);
    let expected = ["chunks/000001", "chunks/000002", "index", "meta.json"];
    assert_eq!(
        names(&bucket).await,
        expected.map(|name| format!("{id}/{name}"))
    );
    let meta = meta_in(&bucket, id).await;
    assert_eq!(meta.block.other["isobar"]["tenant"], "x");
    let section = serde_json::to_string(&meta.thanos).unwrap();
    let hash = |number: u8, len: usize| {
        let digest = ring::digest::digest(&ring::digest::SHA256, &vec![number; len]);
        let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        format!(r#""hash":{{"hashFunc":"SHA256","value":"{hex}"}}"#)
    };
    let expected = format!(
        r#"{{"labels":{{"cluster":"eu"}},"downsample":{{"resolution":0}},"source":"sidecar","segment_files":["000001","000002"],"files":[{{"rel_path":"chunks/000001","size_bytes":10,{}}},{{"rel_path":"chunks/000002","size_bytes":11,{}}},{{"rel_path":"index","size_bytes":12,{}}},{{"rel_path":"meta.json"}}],"index_stats":{{}},"upload_time":"2026-11-22T16:00:00.12Z"}}"#,
        hash(7, 10),
        hash(7, 11),
        hash(7, 12),
    );
    assert_eq!(section, expected);
    let file = std::fs::read_to_string(directory.path().join(META_FILE)).unwrap();
    assert_eq!(
        file,
        format!("{{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"{id}\"\n\t]\n}}\n")
    );
    // Again: nothing is sent.
    let synced = shipper.sync(0).await.unwrap();
    assert!(synced.uploaded.is_empty());
    // The block goes, and with it its line.
    std::fs::remove_dir_all(directory.path().join(id.to_string())).unwrap();
    shipper.sync(0).await.unwrap();
    let file = std::fs::read_to_string(directory.path().join(META_FILE)).unwrap();
    assert_eq!(file, "{\n\t\"version\": 1,\n\t\"uploaded\": null\n}\n");
    let stats = shipper.stats();
    assert_eq!(stats.uploads.load(Ordering::Relaxed), 1);
    assert_eq!(stats.dir_syncs.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn what_is_not_to_be_shipped_stays() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Arc::new(InMemory::new());
    let a = write_block(directory.path(), 1, |_| ());
    write_block(directory.path(), 2, |meta| meta.stats.num_samples = 0);
    let compacted = write_block(directory.path(), 3, |meta| meta.compaction.level = 2);
    let overlapping = write_block(directory.path(), 4, |meta| {
        meta.compaction.level = 2;
        meta.min_ms = 150;
    });
    std::fs::create_dir(
        directory
            .path()
            .join(format!("{}.tmp-for-creation", Ulid::nil())),
    )
    .unwrap();
    std::fs::write(
        directory.path().join(Ulid::from_parts(9, 9).to_string()),
        "",
    )
    .unwrap();

    let mut config = config(directory.path());
    let new = |config: &ShipperConfig| {
        Shipper::new(
            config.clone(),
            Arc::<InMemory>::clone(&bucket) as Arc<dyn ObjectStore>,
        )
    };
    let synced = new(&config).sync(0).await.unwrap();
    assert_eq!(synced.uploaded, [a]);

    config.upload_compacted = true;
    let error = new(&config).sync(0).await.unwrap_err();
    let expected = format!("compacted block {overlapping} overlaps with block {a} in the bucket");
    assert_eq!(error.to_string(), expected);
    config.allow_out_of_order_uploads = true;
    let synced = new(&config).sync(0).await.unwrap();
    assert_eq!(synced.uploaded, [overlapping, compacted]);
    let mut all = vec![a, compacted, overlapping];
    all.sort();
    assert_eq!(new(&config).shipped().into_iter().collect::<Vec<_>>(), all);

    // A file that is lost or damaged costs questions, and no second upload.
    std::fs::write(directory.path().join(META_FILE), "{").unwrap();
    assert!(new(&config).sync(0).await.unwrap().uploaded.is_empty());
    assert_eq!(new(&config).shipped().len(), 3);
}

#[tokio::test]
async fn a_bad_block_keeps_others_back_unless_it_is_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Arc::new(InMemory::new());
    let bad = write_block(directory.path(), 1, |_| ());
    std::fs::write(directory.path().join(format!("{bad}/meta.json")), "{").unwrap();
    let good = write_block(directory.path(), 2, |_| ());
    let torn = write_block(directory.path(), 3, |_| ());
    std::fs::remove_file(directory.path().join(format!("{torn}/index"))).unwrap();

    let mut config = config(directory.path());
    let new = |config: &ShipperConfig| {
        Shipper::new(
            config.clone(),
            Arc::<InMemory>::clone(&bucket) as Arc<dyn ObjectStore>,
        )
    };
    let error = new(&config).sync(0).await.unwrap_err();
    assert!(matches!(error, ShipperError::Corrupted { block, .. } if block == bad));
    config.skip_corrupted_blocks = true;
    let error = new(&config).sync(0).await.unwrap_err();
    assert!(matches!(error, ShipperError::Upload { block, .. } if block == torn));
    assert_eq!(
        new(&config).shipped().into_iter().collect::<Vec<_>>(),
        [good]
    );
    config.allow_out_of_order_uploads = true;
    let mut shipper = new(&config);
    let synced = shipper.sync(0).await.unwrap();
    assert_eq!(synced.failed.len(), 1);
    assert_eq!(synced.corrupted.len(), 1);
    assert_eq!(shipper.stats().corrupted_blocks.load(Ordering::Relaxed), 1);

    let mut unlabelled = config.clone();
    unlabelled.labels = Arc::new(|_| BTreeMap::new());
    write_block(directory.path(), 4, |_| ());
    let synced = new(&unlabelled).sync(0).await.unwrap();
    assert!(
        synced
            .failed
            .iter()
            .any(|(_, e)| matches!(e, UploadError::NoLabels(_)))
    );
}

#[tokio::test]
async fn an_upload_goes_on_where_it_broke_off() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Arc::new(InMemory::new());
    let id = write_block(directory.path(), 7, |_| ());
    let put = |path, bytes: Vec<u8>| {
        let bucket = Arc::clone(&bucket);
        async move { bucket.put(&path, bytes.into()).await.unwrap() }
    };
    put(paths::segment(id, 0), vec![7; 10]).await;
    put(paths::segment(id, 1), vec![7; 10]).await;
    let meta = Meta::decode(
        "m",
        &std::fs::read(directory.path().join(format!("{id}/meta.json"))).unwrap(),
    );
    let mut meta = meta.unwrap();
    meta.thanos.labels.insert("a".to_owned(), "b".to_owned());
    let store = Arc::<InMemory>::clone(&bucket) as Arc<dyn ObjectStore>;
    let block = directory.path().join(id.to_string());
    let done = upload(&store, &block, meta.clone(), UploadOptions::default(), 0)
        .await
        .unwrap();
    assert_eq!((done.files_sent, done.files_kept), (3, 1));
    let again = upload(&store, &block, meta, UploadOptions::default(), 0)
        .await
        .unwrap();
    assert_eq!(again.files_sent, 0);
    let segment = bucket.get(&paths::segment(id, 1)).await.unwrap();
    assert_eq!(segment.bytes().await.unwrap(), vec![7; 11]);
}

#[tokio::test]
async fn long_files_go_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Arc::new(InMemory::new());
    let id = write_block(directory.path(), 7, |_| ());
    let long: Vec<u8> = (0..12_000_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(directory.path().join(format!("{id}/chunks/000001")), &long).unwrap();
    let mut config = config(directory.path());
    config.upload.part_bytes = Some(1);
    let mut shipper = Shipper::new(config, Arc::<InMemory>::clone(&bucket));
    shipper.sync(0).await.unwrap();
    let segment = bucket.get(&paths::segment(id, 0)).await.unwrap();
    assert!(segment.bytes().await.unwrap() == long);
}
