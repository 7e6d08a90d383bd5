//! What several tests share.
#![allow(dead_code, reason = "each test uses another part of it")]

pub(crate) mod histogram;
pub(crate) mod memory;
pub(crate) mod nhcb;
pub(crate) mod script;
pub(crate) mod start_times;
pub(crate) mod tree;

use std::path::PathBuf;

/// The folder with Prometheus' scripts and parser cases.
pub(crate) fn promqltest_folder() -> PathBuf {
    std::env::var_os("ISOBAR_PROMQLTEST").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../shared/promqltest"
            ))
        },
        PathBuf::from,
    )
}

/// The scripts of the folder by name, with their text.
pub(crate) fn scripts() -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(promqltest_folder()) else {
        return Vec::new();
    };
    let mut scripts = Vec::new();
    for entry in entries {
        let path = entry.expect("entry of the folder").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "test")
        {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let text = std::fs::read_to_string(&path).expect("script");
            scripts.push((name, text));
        }
    }
    scripts.sort();
    scripts
}
