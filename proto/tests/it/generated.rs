//! The committed code under `src/gen` is what the definitions in `definitions/` give.
//!
//! `UPDATE_EXPECT=1 cargo test -p isobar-proto --test it generated` writes it anew.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use tonic_prost_build::Config;

/// Every definition that is compiled.
const DEFINITIONS: &[&str] = &[
    "prometheus_copy/types.proto",
    "prometheus_read.proto",
    "thanos/exemplars.proto",
    "thanos/hints.proto",
    "thanos/info.proto",
    "thanos/labels.proto",
    "thanos/metadata.proto",
    "thanos/rules.proto",
    "thanos/status.proto",
    "thanos/store.proto",
    "thanos/targets.proto",
];

/// Messages that are written and read by hand.
const BY_HAND: &[&str] = &["SeriesResponse"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn generated_code_is_fresh() {
    let definitions = folder("definitions");
    let mut set = protox::compile(DEFINITIONS, [&definitions]).expect("definitions compile");
    let out = std::env::temp_dir().join(format!("isobar-proto-{}", std::process::id()));
    fs::create_dir_all(&out).expect("a folder for generated code");
    let mut config = Config::new();
    config.bytes(["."]).btree_map(["."]).enable_type_names();
    for message in BY_HAND {
        config.extern_path(
            format!(".thanos.{message}"),
            format!("crate::thanos::{message}"),
        );
    }
    tonic_prost_build::configure()
        .out_dir(&out)
        .compile_fds_with_config(set.clone(), config)
        .expect("code for the definitions");
    // What reflection tells clients: without the comments.
    for file in &mut set.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), set.encode_to_vec()).expect("write descriptors");
    let committed = folder("src/gen");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut stale = Vec::new();
    for entry in fs::read_dir(&out).expect("generated code") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        let fresh = fs::read(&path).expect("generated code");
        let kept = committed.join(name);
        if update {
            fs::create_dir_all(&committed).expect("the folder of generated code");
            fs::write(&kept, fresh).expect("write generated code");
        } else if fs::read(&kept).ok() != Some(fresh) {
            stale.push(name.to_owned());
        }
    }
    fs::remove_dir_all(&out).expect("remove what was generated");
    assert!(
        stale.is_empty(),
        "not what the definitions give: {stale:?}; write them anew with UPDATE_EXPECT=1"
    );
}
