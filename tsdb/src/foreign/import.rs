//! Takes over a data directory of a Prometheus, or the directories of the tenants of a Thanos
//! Receive, when a database is opened.
//!
//! Logs and chunks of the head become blocks in `isobar-import/`. When these are complete, a
//! journal beside them says what is to be done: blocks move to their places, then `wal`, `wbl` and
//! `chunks_head` get the suffix `.imported`. The journal is the commit: without it a start begins
//! anew, with it a start does what is left to do. So a crash makes no block twice, and nothing is
//! deleted: who goes back to Prometheus finds all samples in blocks. What was said of metrics has no
//! place in blocks: the journal stays until it is in our log.
//!
//! Of Thanos Receive each tenant has a directory of its own. Its blocks move up, with the tenant's
//! name in their `meta.json`; what is left of the directory gets the suffix `.imported`.

use std::path::{Path, PathBuf};

use isobar_model::{Labels, Tenant, TimeRange, metric_kind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ulid::Ulid;

use super::read::{self, CHUNKS_HEAD, Found, WAL, WBL};
use super::running::open_elsewhere;
use crate::Error;
use crate::backfill::{BYTES_MAX_DEFAULT, Backfill, BackfillConfig, Finished};
use crate::block::writer::TEMPORARY_SUFFIX;
use crate::block::{BlockMeta, BlockReader};
use crate::db::blocks::{META_FIELD, meta_fields_of};
use crate::db::config::DbConfig;
use crate::db::event::Event;
use crate::db::files;
use crate::index::SeriesEntry;
use crate::lock::DirLock;
use crate::metadata::Metadata;

/// Where blocks are made and the journal lies.
const STAGING_DIR: &str = "isobar-import";
const JOURNAL_FILE: &str = "journal.json";
const IMPORTED_SUFFIX: &str = ".imported";
const CHUNK_SNAPSHOT_PREFIX: &str = "chunk_snapshot.";
/// Blocks of these do not stand for all that the head had of their time (Prometheus `tsdb/block.go`).
const PARTIAL_HINTS: [&str; 3] = [
    "from-out-of-order",
    "from-stale-series",
    "from-selected-series",
];

/// What is said of a metric of a tenant: the names of both, and that.
pub(crate) type Said = (String, String, Metadata);

/// What is to be done when all blocks are written, and what there is to tell about it.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    /// The directory that is taken over, seen from the data directory; empty for itself.
    source: String,
    tenant: String,
    /// Blocks that were made.
    made: Vec<String>,
    /// Blocks that were there and move up.
    moved: Vec<String>,
    /// What is renamed, old name and new, seen from the data directory.
    renamed: Vec<(String, String)>,
    series: u64,
    floats: u64,
    histograms: u64,
    exemplars: u64,
    conflicts: u64,
    found: Found,
    /// What is said of metrics, that of directories that were taken over before counted.
    said: Vec<Said>,
}

/// Takes over what another database has left in the data directory. Without it nothing happens.
/// Gives what was said of metrics; when that is in our log, [`finish`] is to be called.
///
/// # Errors
/// [`Error::Locked`] when it still runs; when files cannot be read, written or renamed.
pub(crate) fn import(config: &DbConfig) -> Result<Vec<Said>, Error> {
    let mut said = Vec::new();
    let staging = config.dir.join(STAGING_DIR);
    match std::fs::read(staging.join(JOURNAL_FILE)) {
        Ok(json) => {
            let name = staging.join(JOURNAL_FILE).display().to_string();
            let journal = serde_json::from_slice(&json);
            let journal = journal.map_err(|e| Error::corrupt(name, e.to_string()))?;
            said = carry_out(config, journal)?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => finish(config)?,
        Err(e) => return Err(Error::io("read", staging.join(JOURNAL_FILE), e)),
    }
    if has_head(&config.dir)? {
        said = take_over(config, "", &Tenant::default(), said)?;
    }
    for name in files::names(&config.dir)? {
        let Some(tenant) = tenant_of(&config.dir, &name)? else {
            continue;
        };
        let dir = config.dir.join(&name);
        // Held until its blocks are ours.
        let _lock = DirLock::take(&dir)?;
        said = take_over(config, &name, &tenant, said)?;
    }
    Ok(said)
}

/// Forgets that something was taken over: all of it is in its place.
///
/// # Errors
/// When files cannot be removed.
pub(crate) fn finish(config: &DbConfig) -> Result<(), Error> {
    let staging = config.dir.join(STAGING_DIR);
    if !staging.exists() {
        return Ok(());
    }
    let journal = staging.join(JOURNAL_FILE);
    if journal.exists() {
        files::remove_file(&journal)?;
        files::sync_dir(&staging)?;
    }
    files::remove_dir(&staging)
}

/// Makes room for the blocks of a directory. The journal of the one before stays until there is the
/// next: it has what was said.
fn clear(staging: &Path) -> Result<(), Error> {
    files::create_dir(staging)?;
    for name in files::names(staging)? {
        let path = staging.join(&name);
        match path.is_dir() {
            true => files::remove_dir(&path)?,
            false if name == JOURNAL_FILE => {}
            false => files::remove_file(&path)?,
        }
    }
    Ok(())
}

/// Whether there is something of a head in a directory.
///
/// # Errors
/// [`Error::Locked`] when another process is at work on it.
fn has_head(dir: &Path) -> Result<bool, Error> {
    for name in [WAL, WBL, CHUNKS_HEAD] {
        let dir = dir.join(name);
        if let Some(path) = open_elsewhere(&dir) {
            return Err(Error::Locked { path });
        }
        if dir.is_dir() && files::dir_bytes(&dir)? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whose directory a name stands for, if it is that of a tenant.
fn tenant_of(root: &Path, name: &str) -> Result<Option<Tenant>, Error> {
    let dir = root.join(name);
    let is_ours = name.starts_with("isobar-") || Ulid::from_string(name).is_ok();
    let is_done = name.contains(IMPORTED_SUFFIX);
    let is_part = [WAL, WBL, CHUNKS_HEAD].contains(&name) || name.contains(".tmp");
    if is_ours || is_done || is_part || !dir.is_dir() {
        return Ok(None);
    }
    if !has_head(&dir)? && blocks_in(&dir)?.is_empty() {
        return Ok(None);
    }
    Ok(Tenant::new(name).ok())
}

/// The names of the blocks in a directory.
fn blocks_in(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = files::names(dir)?;
    names.retain(|name| {
        Ulid::from_string(name).is_ok() && dir.join(name).join("meta.json").is_file()
    });
    Ok(names)
}

/// Takes over one directory. `said` comes back with what is said there.
fn take_over(
    config: &DbConfig,
    source: &str,
    tenant: &Tenant,
    mut said: Vec<Said>,
) -> Result<Vec<Said>, Error> {
    let (root, dir) = (&config.dir, config.dir.join(source));
    let is_root = source.is_empty();
    let staging = root.join(STAGING_DIR);
    clear(&staging)?;
    let mut moved = Vec::new();
    let mut min_valid_ms = i64::MIN;
    let mut readers = Vec::new();
    for name in blocks_in(&dir)? {
        // One that cannot be opened stays where it is, and stands for nothing.
        let Ok(block) = BlockReader::open(dir.join(&name)) else {
            continue;
        };
        min_valid_ms = min_valid_ms.max(covered_until(block.meta(), tenant, is_root));
        moved.extend((!is_root).then_some(name));
        readers.push(block);
    }
    let mut backfill = Backfill::new(BackfillConfig {
        dir: staging.clone(),
        tenant: Some(tenant.clone()),
        origin: origin(is_root),
        bytes_max: BYTES_MAX_DEFAULT,
        clock: config.clock.clone(),
    })?;
    for block in readers {
        match leave_out_deleted(&block, &mut backfill) {
            Err(damage @ Error::Corrupt { .. }) => (config.events)(Event::WalDamage {
                path: block.dir().to_owned(),
                offset: 0,
                why: format!("deleted samples may come back: {damage}"),
            }),
            other => other?,
        }
    }
    let mut found = read::read(&dir, min_valid_ms, &mut backfill, &config.events)?;
    for (metric, (kind, unit, help)) in std::mem::take(&mut found.metadata) {
        let kind = metric_kind::name(u64::from(kind)).to_owned();
        said.push((tenant.to_string(), metric, Metadata { kind, help, unit }));
    }
    let series = backfill.series_count() as u64;
    let Finished { blocks, counted } = backfill.finish()?;
    let journal = Journal {
        source: source.to_owned(),
        tenant: tenant.to_string(),
        made: blocks.iter().map(|meta| meta.ulid.to_string()).collect(),
        moved,
        renamed: renamed(root, source)?,
        series,
        floats: blocks.iter().map(|it| it.stats.num_float_samples).sum(),
        histograms: blocks.iter().map(|it| it.stats.num_histogram_samples).sum(),
        exemplars: counted.exemplars,
        conflicts: counted.conflicts,
        found: Found {
            start_times_dropped: found.start_times_dropped + counted.start_times_dropped,
            ..found
        },
        said,
    };
    let json = serde_json::to_vec_pretty(&journal);
    let json = json.map_err(|e| Error::corrupt(JOURNAL_FILE, e.to_string()))?;
    // What is moved out of a directory may not outlive it.
    files::sync_dir(root)?;
    replace(&staging.join(JOURNAL_FILE), &json)?;
    carry_out(config, journal)
}

/// What was deleted from a block does not come back from the log.
fn leave_out_deleted(block: &BlockReader, backfill: &mut Backfill) -> Result<(), Error> {
    let (index, meta) = (block.index(), block.meta());
    let mut entry = SeriesEntry::default();
    let mut text = String::new();
    for series in block.tombstones().series() {
        index.series(series, &mut entry)?;
        let mut pairs = Vec::with_capacity(entry.labels.len());
        for (name, value) in &entry.labels {
            pairs.push((index.symbol(*name)?, index.symbol(*value)?));
        }
        let id = backfill.series(&Labels::from_sorted(pairs, &mut text))?;
        for range in block.tombstones().get(series) {
            let from_ms = range.min_ms.max(meta.min_ms);
            let to_ms = range.max_ms.min(meta.end_ms.saturating_sub(1));
            backfill.delete(id, TimeRange::new(from_ms, to_ms));
        }
    }
    Ok(())
}

fn origin(is_root: bool) -> &'static str {
    if is_root {
        "prometheus"
    } else {
        "thanos-receive"
    }
}

/// Up to which time a block stands for all that the head had in order.
fn covered_until(meta: &BlockMeta, tenant: &Tenant, is_root: bool) -> i64 {
    let named = meta.other.get(META_FIELD).and_then(|it| it.get("tenant"));
    let is_its = match named.and_then(Value::as_str) {
        Some(named) => named == tenant.as_str(),
        None => !is_root || *tenant == Tenant::default(),
    };
    let hints = &meta.compaction.hints;
    let is_partial = hints
        .iter()
        .any(|hint| PARTIAL_HINTS.contains(&hint.as_str()));
    if !is_its || is_partial {
        return i64::MIN;
    }
    // Prometheus merges a block of late samples with those before it, and the result does not say
    // so; its newest part may be what the head still has in order. Blocks that it merges otherwise
    // are older than one that it has not merged. What is read twice is stored twice and read once.
    let parents = meta.compaction.parents.iter();
    let last = parents.map(|parent| parent.min_ms).max();
    last.filter(|_| meta.compaction.level > 1)
        .unwrap_or(meta.end_ms)
}

/// What is renamed when all is in blocks: names that are free.
fn renamed(root: &Path, source: &str) -> Result<Vec<(String, String)>, Error> {
    let free = |name: String| {
        let numbered = (2..).map(|number| format!("{name}.{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        names.find(|name| !root.join(name).exists()).unwrap_or(name)
    };
    if !source.is_empty() {
        let to = free(format!("{source}{IMPORTED_SUFFIX}"));
        return Ok(vec![(source.to_owned(), to)]);
    }
    let mut renamed = Vec::new();
    for name in files::names(root)? {
        // A Prometheus that comes back takes no snapshot for one of its own by such a name.
        let to = match name.as_str() {
            WAL | WBL | CHUNKS_HEAD => free(format!("{name}{IMPORTED_SUFFIX}")),
            other if other.starts_with(CHUNK_SNAPSHOT_PREFIX) => free(format!("imported.{name}")),
            _ => continue,
        };
        renamed.push((name, to));
    }
    Ok(renamed)
}

/// Does what the journal says, as far as it is not done. Gives what is said of metrics.
fn carry_out(config: &DbConfig, journal: Journal) -> Result<Vec<Said>, Error> {
    let root = &config.dir;
    let staging = root.join(STAGING_DIR);
    for ulid in &journal.made {
        move_block(&staging.join(ulid), &root.join(ulid))?;
    }
    let source = root.join(&journal.source);
    for ulid in &journal.moved {
        let (from, to) = (source.join(ulid), root.join(ulid));
        if from.exists() && !to.exists() {
            give_tenant(&from, &journal)?;
        }
        move_block(&from, &to)?;
    }
    for (from, to) in &journal.renamed {
        rename_once(&root.join(from), &root.join(to))?;
    }
    tell(config, &journal);
    Ok(journal.said)
}

fn journal_tenant(journal: &Journal) -> Result<Tenant, Error> {
    Tenant::new(&journal.tenant).map_err(|e| Error::corrupt(JOURNAL_FILE, e.to_string()))
}

/// Moves a block to the data directory, as far as that is not done. Its files get second names there first:
/// of a directory that is renamed into another, a file system may lose both names when the power goes.
fn move_block(from: &Path, to: &Path) -> Result<(), Error> {
    if !from.exists() {
        return Ok(());
    }
    if !to.exists() {
        let temporary = to.with_extension(TEMPORARY_SUFFIX.trim_start_matches('.'));
        files::link_dir(from, &temporary)?;
        files::rename(&temporary, to)?;
    }
    files::remove_dir(from)
}

/// Renames what has its old name only.
fn rename_once(from: &Path, to: &Path) -> Result<(), Error> {
    if !from.exists() || to.exists() {
        return Ok(());
    }
    files::rename(from, to)?;
    files::sync_dir(from.parent().unwrap_or(Path::new(".")))
}

/// Writes the tenant into `meta.json`. All else in it stays.
fn give_tenant(dir: &Path, journal: &Journal) -> Result<(), Error> {
    let path = dir.join("meta.json");
    let json = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
    let mut meta = BlockMeta::decode(&path.display().to_string(), &json)?;
    let tenant = journal_tenant(journal)?;
    for (name, value) in meta_fields_of(&tenant, origin(false)) {
        let old = meta.other.entry(name).or_insert_with(|| json!({}));
        match (old, value) {
            (Value::Object(old), Value::Object(value)) => old.extend(value),
            (old, value) => *old = value,
        }
    }
    replace(&path, meta.encode().as_bytes())
}

/// Writes a file under another name and gives it its own when it is on disk.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    files::write(&temporary, bytes)?;
    files::rename(&temporary, path)
}

fn tell(config: &DbConfig, journal: &Journal) {
    let path = config.dir.join(&journal.source);
    let found = &journal.found;
    (config.events)(Event::Imported {
        path: path.clone(),
        tenant: journal.tenant.clone(),
        blocks: (journal.made.len() + journal.moved.len()) as u64,
        series: journal.series,
        samples: journal.floats,
        histograms: journal.histograms,
        exemplars: journal.exemplars,
    });
    let lost = [
        (found.unknown_series, "samples of series without labels"),
        (found.unknown_histograms, "histograms of unknown kinds"),
        (found.start_times_dropped, "start times of samples"),
        (journal.conflicts, "samples whose time has another value"),
    ];
    let lost: Vec<String> = lost
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !lost.is_empty() {
        (config.events)(Event::ImportIncomplete {
            path,
            what: lost.join(", "),
        });
    }
}
