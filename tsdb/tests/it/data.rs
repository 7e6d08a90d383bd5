//! Where the shared data lie, and what tests need more than once.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobar_model::{Columns, Labels, TimeRange};
use isobar_tsdb::block::{BlockMeta, BlockReader, BlockWriter};
use isobar_tsdb::chunks::histogram::Counts;
use isobar_tsdb::merge::{encode, read_samples};
use ulid::Ulid;

/// Series with the times and the bits of the values of their samples.
pub(crate) type Data = BTreeMap<Labels, Vec<(i64, u64)>>;

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
    ["promql/data", "ha", "life"]
        .into_iter()
        .flat_map(contract_blocks)
        .collect()
}

/// All float samples of a block.
pub(crate) fn read_block(block: &Arc<BlockReader>, into: &mut Data) {
    for series in block.select(&[], TimeRange::ALL).unwrap() {
        let series = series.unwrap();
        let mut columns = Columns::default();
        read_samples(&series.chunks, TimeRange::ALL, &mut columns).unwrap();
        let bits = columns.values.iter().map(|value| value.to_bits());
        into.entry(series.labels)
            .or_default()
            .extend(columns.timestamps.iter().copied().zip(bits));
    }
}

/// Writes a block with these data in chunks of 120 samples, and opens it.
pub(crate) fn write_block(parent: &Path, ulid: Ulid, data: &Data) -> Option<Arc<BlockReader>> {
    let times = || data.values().flatten().map(|sample| sample.0);
    let (min_ms, max_ms) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    let pairs = data.keys().flat_map(Labels::iter);
    let symbols: BTreeSet<_> = pairs.flat_map(|(name, value)| [name, value]).collect();
    let meta = BlockMeta::new(ulid, min_ms, max_ms.saturating_add(1));
    let mut writer = BlockWriter::create(parent, meta, symbols.into_iter().map(Ok)).unwrap();
    for (labels, samples) in data {
        let mut columns = Columns::default();
        for (timestamp_ms, bits) in samples {
            columns.push(*timestamp_ms, f64::from_bits(*bits));
        }
        writer
            .add(labels, &encode(&columns, Counts::Integer))
            .unwrap();
    }
    let meta = writer.finish().unwrap()?;
    Some(BlockReader::open(parent.join(meta.ulid.to_string())).unwrap())
}
