//! The suite that every bucket and every wrapper has to pass: what the rest of this crate relies on.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

/// What a back end cannot do, and nobody needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lacks {
    /// Writing an object only when it is not there.
    pub create: bool,
    /// Telling a directory from an object when it is asked for by name.
    pub directories_apart: bool,
    /// Listing what comes behind a name.
    pub listing_behind: bool,
    /// Writing in pieces.
    pub pieces: bool,
}

/// Puts an empty bucket through all cases and leaves it empty.
pub async fn conforms(bucket: &Arc<dyn ObjectStore>, lacks: Lacks) {
    objects(bucket).await;
    ranges(bucket).await;
    missing(bucket, lacks).await;
    listings(bucket, lacks).await;
    if !lacks.pieces {
        pieces(bucket).await;
    }
    if !lacks.create {
        creation(bucket).await;
    }
    names(bucket).await;
    let left: Vec<_> = bucket.list(None).try_collect().await.expect("list");
    assert!(left.is_empty(), "{left:?} is left in {bucket}");
}

async fn put(bucket: &Arc<dyn ObjectStore>, path: &Path, bytes: &[u8]) {
    let payload = PutPayload::from(bytes.to_vec());
    bucket.put(path, payload).await.expect("put");
}

async fn get(bucket: &Arc<dyn ObjectStore>, path: &Path) -> Bytes {
    let found = bucket.get(path).await.expect("get");
    found.bytes().await.expect("read")
}

async fn delete(bucket: &Arc<dyn ObjectStore>, paths: &[&Path]) {
    for path in paths {
        bucket.delete(path).await.expect("delete");
    }
}

/// What is written is read, with its length; writing again replaces it.
async fn objects(bucket: &Arc<dyn ObjectStore>) {
    let path = Path::from("a/b");
    for content in [&b""[..], b"x", &[7; 100_000]] {
        put(bucket, &path, content).await;
        assert_eq!(get(bucket, &path).await, content);
        let meta = bucket.head(&path).await.expect("head");
        assert_eq!(meta.size, content.len() as u64);
    }
    let several: PutPayload = [Bytes::from_static(b"ab"), Bytes::from_static(b"cd")]
        .into_iter()
        .collect();
    bucket.put(&path, several).await.expect("put");
    assert_eq!(get(bucket, &path).await, "abcd");
    delete(bucket, &[&path]).await;
}

/// Parts of an object; what lies beyond its end is left out.
async fn ranges(bucket: &Arc<dyn ObjectStore>) {
    let path = Path::from("ranges");
    let content: Vec<u8> = (0..=255).collect();
    put(bucket, &path, &content).await;
    let read = async |range: GetRange| {
        let options = GetOptions::default().with_range(Some(range));
        let found = bucket.get_opts(&path, options).await.expect("get");
        assert_eq!(found.meta.size, 256);
        let range = found.range.clone();
        (range, found.bytes().await.expect("read"))
    };
    for (range, expected) in [
        (GetRange::Bounded(0..1), 0..1),
        (GetRange::Bounded(10..20), 10..20),
        (GetRange::Bounded(250..999), 250..256),
        (GetRange::Offset(200), 200..256),
        (GetRange::Suffix(3), 253..256),
    ] {
        let (got, bytes) = read(range).await;
        assert_eq!(got, expected);
        assert_eq!(
            bytes,
            content[expected.start as usize..expected.end as usize]
        );
    }
    let several = bucket.get_ranges(&path, &[0..2, 100..101, 2..4]).await;
    let expected: [&[u8]; 3] = [&[0, 1], &[100], &[2, 3]];
    assert_eq!(several.expect("get ranges"), expected);
    delete(bucket, &[&path]).await;
}

/// What is not there is said to be missing, by a type; deleting it is success.
async fn missing(bucket: &Arc<dyn ObjectStore>, lacks: Lacks) {
    let path = Path::from("not/there");
    let is_missing = |error: Error| matches!(error, Error::NotFound { .. });
    assert!(is_missing(
        bucket.get(&path).await.expect_err("nothing is there")
    ));
    assert!(is_missing(
        bucket.head(&path).await.expect_err("nothing is there")
    ));
    let part = bucket.get_range(&path, 0..1).await;
    assert!(is_missing(part.expect_err("nothing is there")));
    delete(bucket, &[&path]).await;
    if lacks.directories_apart {
        return;
    }
    // A directory is no object.
    let below = Path::from("directory/object");
    put(bucket, &below, b"x").await;
    let directory = Path::from("directory");
    assert!(is_missing(
        bucket.head(&directory).await.expect_err("a directory")
    ));
    delete(bucket, &[&below]).await;
}

/// Everything below a directory, or what lies directly in it.
async fn listings(bucket: &Arc<dyn ObjectStore>, lacks: Lacks) {
    let names = ["a/1", "a/b/2", "a/b/3", "ab/4", "c"];
    let paths = names.map(Path::from);
    for path in &paths {
        put(bucket, path, path.as_ref().as_bytes()).await;
    }
    let listed = async |prefix: Option<&str>| {
        let prefix = prefix.map(Path::from);
        let objects: Vec<_> = bucket
            .list(prefix.as_ref())
            .try_collect()
            .await
            .expect("list");
        for object in &objects {
            assert_eq!(object.size, object.location.as_ref().len() as u64);
        }
        let mut names: Vec<_> = objects.iter().map(|o| o.location.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(listed(None).await, names);
    assert_eq!(listed(Some("a")).await, ["a/1", "a/b/2", "a/b/3"]);
    assert_eq!(listed(Some("a/b")).await, ["a/b/2", "a/b/3"]);
    assert_eq!(listed(Some("z")).await, [""; 0]);
    let level = async |prefix: Option<&str>| {
        let prefix = prefix.map(Path::from);
        let level = bucket
            .list_with_delimiter(prefix.as_ref())
            .await
            .expect("list");
        let mut directories: Vec<_> = level.common_prefixes.iter().map(Path::to_string).collect();
        let mut objects: Vec<_> = level
            .objects
            .iter()
            .map(|o| o.location.to_string())
            .collect();
        directories.sort();
        objects.sort();
        (directories.join(" "), objects.join(" "))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(level(None).await, pair("a ab", "c"));
    assert_eq!(level(Some("a")).await, pair("a/b", "a/1"));
    assert_eq!(level(Some("a/b")).await, pair("", "a/b/2 a/b/3"));
    assert_eq!(level(Some("z")).await, pair("", ""));
    if !lacks.listing_behind {
        let offset = Path::from("a/b/2");
        let behind = bucket.list_with_offset(None, &offset);
        let behind: Vec<_> = behind.try_collect().await.expect("list");
        let mut names: Vec<_> = behind.iter().map(|o| o.location.to_string()).collect();
        names.sort();
        assert_eq!(names, ["a/b/3", "ab/4", "c"]);
    }
    // The content of an object tells by its tag whether it has changed.
    let before = bucket.head(&paths[4]).await.expect("head");
    put(bucket, &paths[4], b"other").await;
    let after = bucket.head(&paths[4]).await.expect("head");
    assert_ne!((before.e_tag, before.size), (after.e_tag, after.size));
    let all: Vec<&Path> = paths.iter().collect();
    delete(bucket, &all).await;
    assert_eq!(
        level(None).await,
        pair("", ""),
        "directories without objects go"
    );
}

/// A long object in pieces: it appears when it is complete.
async fn pieces(bucket: &Arc<dyn ObjectStore>) {
    let path = Path::from("long/object");
    let piece = |number: u8, len: usize| PutPayload::from(vec![number; len]);
    let mut upload = bucket.put_multipart(&path).await.expect("begin");
    let parts = [
        upload.put_part(piece(1, 5 << 20)),
        upload.put_part(piece(2, 5 << 20)),
        upload.put_part(piece(3, 100)),
    ];
    futures::future::try_join_all(parts)
        .await
        .expect("put part");
    let before = bucket.head(&path).await;
    assert!(matches!(before, Err(Error::NotFound { .. })), "{before:?}");
    upload.complete().await.expect("complete");
    let bytes = get(bucket, &path).await;
    assert_eq!(bytes.len(), (10 << 20) + 100);
    let at = [
        0,
        (5 << 20) - 1,
        5 << 20,
        (10 << 20) - 1,
        10 << 20,
        bytes.len() - 1,
    ];
    assert_eq!(at.map(|at| bytes[at]), [1, 1, 2, 2, 3, 3]);
    delete(bucket, &[&path]).await;

    let mut upload = bucket.put_multipart(&path).await.expect("begin");
    upload.put_part(piece(1, 5 << 20)).await.expect("put part");
    upload.abort().await.expect("abort");
    let after = bucket.head(&path).await;
    assert!(matches!(after, Err(Error::NotFound { .. })), "{after:?}");
}

/// An object is written only when it is not there.
async fn creation(bucket: &Arc<dyn ObjectStore>) {
    let path = Path::from("once");
    let create = async |content: &'static str| {
        let options = PutOptions::from(PutMode::Create);
        bucket.put_opts(&path, content.into(), options).await
    };
    create("first").await.expect("create");
    let error = create("second").await.expect_err("it is there");
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    assert_eq!(get(bucket, &path).await, "first");
    delete(bucket, &[&path]).await;
}

/// Names with characters that are special somewhere.
async fn names(bucket: &Arc<dyn ObjectStore>) {
    for name in [
        "a b",
        "ü/ñ",
        "a+b=c&d",
        "a.b-c_d~e",
        "01M81ZCXX2HKPDQMQZG87GW8GS/meta.json",
    ] {
        let path = Path::from(name);
        put(bucket, &path, name.as_bytes()).await;
        assert_eq!(get(bucket, &path).await, name);
        let listed: Vec<_> = bucket.list(None).try_collect().await.expect("list");
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].location, path);
        delete(bucket, &[&path]).await;
    }
}
