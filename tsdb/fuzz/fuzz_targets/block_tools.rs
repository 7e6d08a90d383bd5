//! A block with any bytes of it changed is checked, counted and dumped, or gives errors. Checksums
//! count as right here, so that what lies behind them is reached.
//!
//! The input is a list of changes of six bytes: which file, how, where, and the new byte.
//!
//! Run with `cargo +nightly fuzz run block_tools` in `tsdb/`.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use isobar_model::TimeRange;
use isobar_tsdb::block::BlockReader;
use isobar_tsdb::block::tools::{dump, stats, verify};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 4] = ["meta.json", "index", "chunks/000001", "tombstones"];

/// The files of a block that Prometheus wrote.
static BLOCK: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let block = golden.join("prometheus-3.14/01M82RF5MSEX47SVE1JAERWAH6");
    FILES.map(|file| fs::read(block.join(file)).unwrap_or_default())
});

/// Where the changed block lies, one for each process.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("block-tools-{}", std::process::id()));
    let block = dir.join("01M82RF5MSEX47SVE1JAERWAH6");
    fs::create_dir_all(block.join("chunks")).expect("a directory");
    block
});

fuzz_target!(|data: &[u8]| {
    let mut files = BLOCK.clone();
    let (changes, _) = data.as_chunks::<6>();
    for [file, how, a, b, c, byte] in changes {
        let file = &mut files[usize::from(*file) % FILES.len()];
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        match how % 8 {
            0 => file.truncate(at),
            1 => file.insert(at.min(file.len()), *byte),
            _ if file.is_empty() => file.push(*byte),
            _ => {
                let at = at % file.len();
                file[at] = *byte;
            }
        }
    }
    for (name, bytes) in FILES.iter().zip(&files) {
        fs::write(DIR.join(name), bytes).expect("a file");
    }
    let report = verify(&DIR).expect("what is wrong is in the report");
    let Ok(block) = BlockReader::open(&*DIR) else {
        assert!(!report.is_clean(), "what cannot be opened is not clean");
        return;
    };
    let _ = stats(&block).map(|it| it.text(10));
    let _ = dump(&block, &[], TimeRange::ALL, &mut Vec::new());
    if data.len() < 6 {
        assert!(report.is_clean(), "{:?}", report.findings);
    }
});
