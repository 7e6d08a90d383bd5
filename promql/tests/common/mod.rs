//! What several tests share.
#![allow(dead_code, reason = "each test uses another part of it")]

pub(crate) mod histogram;
pub(crate) mod memory;
pub(crate) mod nhcb;
pub(crate) mod script;
pub(crate) mod start_times;
pub(crate) mod tree;

use std::path::{Path, PathBuf};

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

/// The scripts of that folder by name, with their text.
pub(crate) fn scripts() -> Vec<(String, String)> {
    scripts_in(&promqltest_folder())
}

/// Our own scripts. Their expectations were checked with Prometheus 3.14's own runner, but for the
/// functions that it does not know.
pub(crate) fn own_scripts() -> Vec<(String, String)> {
    scripts_in(Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/scripts"
    )))
}

fn scripts_in(folder: &Path) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
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
