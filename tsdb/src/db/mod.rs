//! Head and blocks of one data directory behind one interface.
//!
//! The directory holds the blocks, each in a directory named by its ULID, the log in
//! `isobar-wal/`, sealed chunks of the head in `isobar-chunks/`, and a lock file.

pub mod beside;
pub mod blocks;
#[cfg(test)]
mod churn;
pub mod config;
mod delete;
pub mod estimate;
pub mod event;
mod filer;
pub(crate) mod files;
mod maintain;
mod pins;
pub mod snapshot;
pub mod stats;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobar_model::{Matcher, Tenant, TimeRange};

use crate::Error;
use crate::backfill::{self, Backfill, BackfillConfig, Finished};
use crate::foreign;
use crate::head::chunk_files::ChunkFiles;
use crate::head::incoming::{Append, CommitTicket, IncomingSeries};
use crate::head::late::LateCuts;
use crate::head::{Head, HeadBounds, Restore, SECRET_BYTES, TenantId, TenantState};
use crate::lock::DirLock;
use crate::merge::{SeriesIter, merge};
use crate::wal::log::Log;
use crate::wal::{WAL_DIR, replay};
use blocks::Blocks;
use filer::Filer;
use maintain::Agenda;
use parking_lot::Mutex;
use pins::Pins;

pub use crate::head::RestoreCounts;
pub use beside::ExemplarsFound;
pub use blocks::Block;
pub use config::{DbConfig, Elsewhere, LATE_WINDOW_DEFAULT, Limits, MayExpire, Sync};
pub use estimate::SelectEstimate;
pub use event::{Event, Events};
pub use maintain::{Cut, Maintenance};
pub use stats::{Cardinality, HeadStats};

/// Called once when a write is durable, or with the reason why it may not be.
pub type OnDurable = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A data directory that is open for reading and writing.
pub struct Db {
    config: DbConfig,
    wal_dir: PathBuf,
    chunk_files: Arc<ChunkFiles>,
    head: Arc<Head>,
    log: Log,
    blocks: Arc<Blocks>,
    pins: Arc<Pins>,
    agenda: Arc<Mutex<Agenda>>,
    filer: Filer,
    replayed: RestoreCounts,
    // Released last.
    _lock: DirLock,
}

impl Db {
    /// Opens a data directory, or makes one. One that Prometheus or Thanos Receive has left is taken
    /// over: see [`crate::foreign`].
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::Io`] when it cannot be read and
    /// written. Damage in the log or in a block is no error: it is told to
    /// [`DbConfig::events`], and all else is served.
    pub fn open(config: DbConfig) -> Result<Self, Error> {
        files::create_dir(&config.dir)?;
        let lock = DirLock::take(&config.dir)?;
        let wal_dir = config.dir.join(WAL_DIR);
        files::create_dir(&wal_dir)?;
        files::sync_dir(&config.dir)?;
        let bounds = HeadBounds {
            exemplars_max: config.exemplars_max,
            late_window: config.late_window,
            limits: config.limits.clone(),
            memory: config.head_memory.clone(),
        };
        let head = Arc::new(Head::new(hash_secret(&wal_dir)?, bounds));
        let blocks = Arc::new(Blocks::new(
            &config.dir,
            Arc::clone(&config.events),
            config.series_cache_bytes,
        ));
        blocks.remove_leftovers()?;
        let said = foreign::import(&config)?;
        blocks.reload()?;
        for block in blocks.served().iter().filter(|block| block.cut_here) {
            let tenant = head.tenants().find_or_add(block.tenant());
            tenant.note_cut(block.meta().end_ms);
            // A block ends where the newest sample was, or before.
            tenant.widen(i64::MAX, block.meta().end_ms.saturating_sub(1));
        }
        let mut late_cuts = LateCuts::new();
        for block in blocks.served().iter() {
            let of_tenant = late_cuts.entry(block.tenant().clone()).or_default();
            of_tenant.extend(block.late_cut);
        }
        let chunk_files = Arc::new(ChunkFiles::open(&config.dir)?);
        let restore = Restore::new(&head, Some(&chunk_files));
        let mut restore = restore.without_late(late_cuts);
        let next_segment = replay::replay(&wal_dir, &mut restore, &config.events)?;
        let replayed = restore.finish();
        let log = Log::start(
            &wal_dir,
            next_segment,
            config.sync,
            Arc::clone(&config.events),
        )?;
        for (tenant, metric, metadata) in said {
            let tenant =
                Tenant::new(&tenant).map_err(|e| Error::corrupt("import", e.to_string()))?;
            head.metadata.append(&log, &tenant, &metric, metadata);
        }
        log.wait(log.ticket())?;
        foreign::finish(&config)?;
        head.measure();
        let agenda = Arc::default();
        let filer = Filer::start(&head, &chunk_files, &agenda, &config.dir)?;
        Ok(Db {
            config,
            wal_dir,
            chunk_files,
            head,
            log,
            blocks,
            pins: Arc::default(),
            agenda,
            filer,
            replayed,
            _lock: lock,
        })
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// What came back from the log when the database was opened.
    pub fn replayed(&self) -> RestoreCounts {
        self.replayed
    }

    /// Stores the samples of a request in the head and puts them into the log. They are visible
    /// at once, and durable when [`Db::commit_wait`] or [`Db::when_durable`] says so.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the log cannot be written, [`Error::TooManySamples`] when the tenant
    /// writes more than it may, and [`Error::TooManyTenants`] when there is no room for another;
    /// nothing is stored then. Bad series and samples are no error: they are counted in [`Append::rejected`].
    pub fn append<S: IncomingSeries>(
        &self,
        tenant: &Tenant,
        series: &[S],
    ) -> Result<Append, Error> {
        self.log.check_writable()?;
        let tenant = self.admit(tenant)?;
        let (now_ms, limits) = (self.config.clock.now_ms(), &self.config.limits);
        let room = tenant.bucket.lock().check(limits, now_ms);
        room.map_err(|retry_after_ms| Error::TooManySamples {
            limit: limits.samples_per_second,
            retry_after_ms,
        })?;
        let append = self.head.append(&self.log, &tenant, series, now_ms);
        self.filer.note(&self.head);
        let samples = append.appended + append.duplicates + append.rejected.total();
        tenant.bucket.lock().take(samples);
        Ok(append)
    }

    /// A tenant that writes.
    fn admit(&self, tenant: &Tenant) -> Result<Arc<TenantState>, Error> {
        let limit = self.config.limits.tenants;
        let admitted = self.head.tenants().find_or_admit(tenant, limit);
        admitted.ok_or(Error::TooManyTenants { limit })
    }

    /// Blocks until the write is durable.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the log could not be written: the write may be lost, and the
    /// sender has to repeat it.
    pub fn commit_wait(&self, ticket: CommitTicket) -> Result<(), Error> {
        self.log.wait(ticket)
    }

    /// Calls `done` when the write is durable, at once if it is so already; otherwise from the
    /// thread that writes the log, so `done` must be quick and must not block.
    pub fn when_durable(&self, ticket: CommitTicket, done: OnDurable) {
        self.log.when_durable(ticket, done);
    }

    /// The series that match, with the chunks that overlap `range`, of one tenant or of all.
    /// Series with equal labels are one, their chunks side by side.
    ///
    /// # Errors
    /// When a block cannot be read.
    pub fn select(
        &self,
        tenant: Option<&Tenant>,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<SeriesIter, Error> {
        let pin = self.pins.pin();
        let mut sources = Vec::new();
        for block in self.blocks_of(tenant).iter() {
            sources.push(self.blocks.select(block, matchers, range)?);
        }
        if let Some(tenant) = self.head_tenant(tenant) {
            sources.push(Box::new(self.head.select(tenant, matchers, range)));
        }
        let mut series = merge(sources);
        // The pin lives as long as the iterator.
        Ok(Box::new(std::iter::from_fn(move || {
            let _pin = &pin;
            series.next()
        })))
    }

    /// The names of all labels of the series that match, in the head and in blocks that overlap
    /// `range`; sorted.
    ///
    /// # Errors
    /// When a block cannot be read.
    pub fn label_names(
        &self,
        tenant: Option<&Tenant>,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<String>, Error> {
        let mut names = match self.head_tenant(tenant) {
            Some(tenant) if self.head_overlaps(tenant, range) => {
                self.head.label_names(tenant, matchers)
            }
            _ => Vec::new(),
        };
        for block in self.blocks_of(tenant) {
            let of_block = block.reader().label_names(matchers, range);
            names.extend(self.blocks.checked(&block, of_block)?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// The values of label `name` of the series that match, in the head and in blocks that
    /// overlap `range`; sorted.
    ///
    /// # Errors
    /// When a block cannot be read.
    pub fn label_values(
        &self,
        tenant: Option<&Tenant>,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Vec<String>, Error> {
        let mut values = match self.head_tenant(tenant) {
            Some(tenant) if self.head_overlaps(tenant, range) => {
                self.head.label_values(tenant, name, matchers)
            }
            _ => Vec::new(),
        };
        for block in self.blocks_of(tenant) {
            let of_block = block.reader().label_values(name, matchers, range);
            values.extend(self.blocks.checked(&block, of_block)?);
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    /// Takes samples of a tenant of any age and in any order, for blocks of their own: see
    /// [`Db::finish_backfill`].
    ///
    /// # Errors
    /// When the data directory cannot be written.
    pub fn backfill(&self, tenant: &Tenant) -> Result<Backfill, Error> {
        Backfill::new(BackfillConfig {
            dir: self.config.dir.clone(),
            tenant: Some(tenant.clone()),
            origin: "backfill",
            bytes_max: backfill::BYTES_MAX_DEFAULT,
            clock: self.config.clock.clone(),
        })
    }

    /// Cuts the blocks of what came in and serves them. Where they overlap with what is there, the
    /// chunk that begins first wins.
    ///
    /// # Errors
    /// When a block cannot be written; those before it are served.
    pub fn finish_backfill(&self, backfill: Backfill) -> Result<Finished, Error> {
        let finished = backfill.finish();
        self.blocks.reload()?;
        finished
    }

    /// The blocks that are served, in the order of their first time.
    pub fn blocks(&self) -> Arc<Vec<Block>> {
        self.blocks.served()
    }

    /// Directories of blocks that cannot be read and are left out, with the reason: answers may
    /// lack what is in them.
    pub fn quarantined(&self) -> Vec<(PathBuf, String)> {
        self.blocks.broken()
    }

    /// Whether the head has samples in `range`, or is just finding out which it has.
    fn head_overlaps(&self, tenant: Option<TenantId>, range: TimeRange) -> bool {
        let tenants = self.head.tenants().all();
        let mut wanted = tenants
            .iter()
            .filter(|state| tenant.is_none_or(|id| id == state.id));
        wanted.any(|state| match state.range() {
            Some((min_ms, max_ms)) => range.overlaps(&TimeRange::new(min_ms, max_ms)),
            None => true,
        })
    }

    /// The times from the first to the last sample of head and blocks, of all tenants; `None` when there is none. That of
    /// a block may be wider than its samples.
    pub fn range(&self) -> Option<TimeRange> {
        let tenants = self.head.tenants().all();
        let of_head = tenants.iter().filter_map(|state| state.range());
        let served = self.blocks.served();
        let of_blocks = served.iter().map(|block| block.meta().range());
        of_head
            .map(|(min_ms, max_ms)| TimeRange::new(min_ms, max_ms))
            .chain(of_blocks)
            .reduce(|a, b| a.union(&b))
    }

    fn blocks_of(&self, tenant: Option<&Tenant>) -> Vec<Block> {
        let served = self.blocks.served();
        let wanted = |block: &&Block| tenant.is_none_or(|tenant| block.tenant() == tenant);
        served.iter().filter(wanted).cloned().collect()
    }

    /// Writes what is left of the log and refuses further writes. Reading goes on.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the log cannot be written.
    pub fn close(&self) -> Result<(), Error> {
        self.log.close()
    }

    /// The number of a tenant in the head, `Some(None)` for all; `None` when it has none there.
    fn head_tenant(&self, tenant: Option<&Tenant>) -> Option<Option<TenantId>> {
        match tenant {
            None => Some(None),
            Some(name) => self.head.tenants().find(name).map(|tenant| Some(tenant.id)),
        }
    }
}

/// The secret of the label hashes, kept with the log so that series stay in their shards.
fn hash_secret(wal_dir: &Path) -> Result<[u8; SECRET_BYTES], Error> {
    use std::hash::{BuildHasher, Hasher};
    let path = wal_dir.join("hash-secret");
    if let Ok(found) = std::fs::read(&path)
        && let Ok(secret) = found.try_into()
    {
        return Ok(secret);
    }
    // A lost secret costs some speed and nothing else.
    let mut secret = [0; SECRET_BYTES];
    for eight in secret.as_chunks_mut::<8>().0 {
        *eight = std::hash::RandomState::new()
            .build_hasher()
            .finish()
            .to_le_bytes();
    }
    files::write(&path, &secret)?;
    Ok(secret)
}

/// An error with its causes, in one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
