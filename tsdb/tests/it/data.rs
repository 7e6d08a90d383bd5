//! Where the shared data lie, and what tests need more than once.

use std::fs;
use std::path::{Path, PathBuf};

/// The block directories below a folder of the shared contract; says so when it is not there.
pub(crate) fn contract_blocks(folder: &str) -> Vec<PathBuf> {
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/contract");
    let dir = Path::new(contract).join(folder);
    let Ok(entries) = fs::read_dir(&dir) else {
        println!("skipped: {} not found", dir.display());
        return Vec::new();
    };
    let mut blocks: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("meta.json").exists())
        .collect();
    blocks.sort();
    blocks
}

/// All blocks of the shared contract.
pub(crate) fn all_contract_blocks() -> Vec<PathBuf> {
    ["promql/data", "ha", "life"].into_iter().flat_map(contract_blocks).collect()
}
