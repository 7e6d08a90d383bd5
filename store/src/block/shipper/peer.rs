//! Both directions with a real Thanos, over a bucket in a directory. `ISOBAR_PEER_THANOS` names the
//! program; without it these tests say that they were skipped.

use std::process::Command;

use futures::TryStreamExt;

use super::tests::config;
use super::*;
use crate::block::filter::Filters;
use crate::bucket::Filesystem;

/// A bucket in a directory, and the blocks of Prometheus that come with the tests.
struct Place {
    thanos: String,
    blocks: tempfile::TempDir,
    ids: Vec<BlockId>,
    root: tempfile::TempDir,
    bucket: Arc<dyn ObjectStore>,
}

impl Place {
    fn new() -> Option<Self> {
        let Ok(thanos) = std::env::var("ISOBAR_PEER_THANOS") else {
            println!("skipped: ISOBAR_PEER_THANOS names no Thanos");
            return None;
        };
        let blocks = tempfile::tempdir().unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tsdb/tests/golden");
        let mut ids = Vec::new();
        for origin in ["prometheus-2.42", "prometheus-3.14"] {
            for block in std::fs::read_dir(golden.join(origin)).unwrap() {
                let block = block.unwrap();
                let name = block.file_name().into_string().unwrap();
                let Some(id) = paths::parse_directory(&name) else {
                    continue;
                };
                let copy = blocks.path().join(&name);
                std::fs::create_dir_all(copy.join("chunks")).unwrap();
                for file in ["chunks/000001", "index", "meta.json"] {
                    std::fs::copy(block.path().join(file), copy.join(file)).unwrap();
                }
                ids.push(id);
            }
        }
        ids.sort();
        assert!(ids.len() >= 2);
        let root = tempfile::tempdir().unwrap();
        let bucket = Arc::new(Filesystem::new(root.path()).unwrap());
        Some(Place {
            thanos,
            blocks,
            ids,
            root,
            bucket,
        })
    }

    /// What `thanos tools bucket …` prints.
    fn thanos(&self, args: &[&str]) -> String {
        let config = format!(
            "{{type: FILESYSTEM, config: {{directory: {:?}}}}}",
            self.root.path()
        );
        let output = Command::new(&self.thanos)
            .args(["tools", "bucket"])
            .args(args)
            .arg(format!("--objstore.config={config}"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(output.status.success(), "{args:?}: {text}");
        assert!(!text.contains("level=error"), "{args:?}: {text}");
        text
    }

    async fn fetch(&self) -> super::super::Fetched {
        let mut fetcher = Fetcher::new(Arc::clone(&self.bucket), FetchOptions::default());
        let fetched = fetcher.fetch(Freshness::Current).await.unwrap();
        assert!(fetched.partial.is_empty() && fetched.failed.is_empty());
        assert_eq!(fetched.bad_marks, [""; 0]);
        fetched
    }

    async fn objects(&self) -> Vec<String> {
        let objects: Vec<_> = self.bucket.list(None).try_collect().await.unwrap();
        let mut names: Vec<_> = objects.iter().map(|o| o.location.to_string()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn thanos_reads_what_we_ship() {
    let Some(place) = Place::new() else { return };
    let mut shipper = Shipper::new(config(place.blocks.path()), Arc::clone(&place.bucket));
    let now_ms = isobar_model::Clock::system().now_ms();
    assert_eq!(
        shipper.sync(now_ms).await.unwrap().uploaded.len(),
        place.ids.len()
    );

    place.thanos(&["verify"]);
    let listed = place.thanos(&["ls"]);
    let inspected = place.thanos(&["inspect", "--output=csv"]);
    for id in &place.ids {
        assert!(listed.contains(&id.to_string()), "{listed}");
        let line = inspected
            .lines()
            .find(|line| line.starts_with(&id.to_string()));
        let line = line.unwrap_or_else(|| panic!("{id}: {inspected}"));
        assert!(
            line.contains("cluster=eu") && line.contains("sidecar"),
            "{line}"
        );
    }
    let newest = place.ids.last().unwrap().to_string();
    place.thanos(&[
        "mark",
        "--id",
        &newest,
        "--marker=deletion-mark.json",
        "--details=why",
    ]);
    place.thanos(&[
        "mark",
        "--id",
        &newest,
        "--marker=no-compact-mark.json",
        "--details=x",
    ]);
    let fetched = place.fetch().await;
    let marks = &fetched.blocks.last().unwrap().marks;
    assert_eq!(marks.deletion.as_ref().unwrap().details, "why");
    assert_eq!(marks.no_compact.as_ref().unwrap().reason, "manual");
    let filters = Filters {
        ignore_deletion_marks_delay_ms: Some(0),
        ..Filters::default()
    };
    let (taken, _) = fetched.select(&filters, i64::MAX);
    assert_eq!(taken.len(), place.ids.len() - 1);
}

#[tokio::test]
async fn what_thanos_uploads_is_what_we_upload() {
    let (Some(theirs), Some(ours)) = (Place::new(), Place::new()) else {
        return;
    };
    let path = format!("--path={}", theirs.blocks.path().display());
    theirs.thanos(&["upload-blocks", &path, "--label=cluster=\"eu\""]);
    let mut shipper = Shipper::new(config(ours.blocks.path()), Arc::clone(&ours.bucket));
    shipper.sync(0).await.unwrap();
    assert_eq!(theirs.objects().await, ours.objects().await);
    let (their_blocks, our_blocks) = (theirs.fetch().await.blocks, ours.fetch().await.blocks);
    assert_eq!(our_blocks.len(), ours.ids.len());
    for (their, our) in their_blocks.iter().zip(&our_blocks) {
        let (mut their, our) = (their.meta.whole().unwrap(), our.meta.whole().unwrap());
        assert_eq!(their.thanos.source.as_str(), Source::BUCKET_UPLOAD);
        their.thanos.source = our.thanos.source.clone();
        their.thanos.upload_time = our.thanos.upload_time.clone();
        let text = |meta: &Meta| String::from_utf8(meta.encode()).unwrap();
        assert_eq!(text(&their), text(&our));
    }
    // Both write the same file beside the blocks, but for the order of blocks of the same time.
    let lines = |place: &Place| {
        let text = std::fs::read_to_string(place.blocks.path().join(META_FILE)).unwrap();
        let mut lines: Vec<_> = text.split_inclusive('\n').map(str::to_owned).collect();
        lines
            .iter_mut()
            .for_each(|line| *line = line.replace("\",\n", "\"\n"));
        lines.sort();
        lines
    };
    assert_eq!(lines(&theirs), lines(&ours));
}
