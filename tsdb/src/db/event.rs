//! What a database has to tell while it runs. This crate does not log: whoever opens the database
//! gives it a function that does.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use isobar_model::TimeRange;

/// Called from any thread with what has happened; must not block.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// Something that an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The log cannot be written; writes are refused until [`Event::WalRecovered`].
    WalUnavailable {
        /// What was tried and why it did not work.
        cause: String,
    },
    /// The log can be written again; nothing was lost.
    WalRecovered,
    /// A segment that was given up could not be cut; its records may be read twice.
    WalLeftover {
        /// What was tried and why it did not work.
        cause: String,
    },
    /// The log ends in the middle of a record, as after a crash: no acknowledged write was in it.
    WalTornTail {
        /// The segment.
        path: PathBuf,
        /// Where the whole records end.
        offset: u64,
        /// How many bytes were cut off.
        bytes: u64,
    },
    /// A part of the log cannot be read; all before and behind it was.
    WalDamage {
        /// The segment or snapshot.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A chunk of the head lies in a damaged file; the block that is cut is without it.
    ChunkLost {
        /// The file, where in it, and what is wrong.
        why: String,
        /// The times of its first and last sample, unix milliseconds.
        range: TimeRange,
    },
    /// A block cannot be read and is left out; nothing in its directory was changed.
    BlockQuarantined {
        /// The block's directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A block was cut from the head.
    BlockCut {
        /// The block's directory.
        path: PathBuf,
        /// The tenant whose block it is.
        tenant: String,
        /// How many series it holds.
        series: u64,
        /// How many samples it holds.
        samples: u64,
    },
    /// A block of which samples were deleted was copied without them, or removed when none was left.
    BlockCleaned {
        /// The directory that the block had.
        path: PathBuf,
        /// The copy.
        copy: Option<ulid::Ulid>,
    },
    /// A block was removed because retention says so.
    BlockExpired {
        /// The block's directory.
        path: PathBuf,
        /// By time or by size, and the limit.
        why: String,
    },
    /// What another database left in the directory was taken over.
    Imported {
        /// The directory.
        path: PathBuf,
        /// The tenant whose it is now.
        tenant: String,
        /// How many blocks were made or moved.
        blocks: u64,
        /// How many series its log knew.
        series: u64,
        /// How many floats of log and chunks went into blocks.
        samples: u64,
        /// How many histograms of log and chunks went into blocks.
        histograms: u64,
        /// How many exemplars were found.
        exemplars: u64,
    },
    /// Some of what another database left could not be taken over.
    ImportIncomplete {
        /// The directory.
        path: PathBuf,
        /// How much of what.
        what: String,
    },
    /// Something that a crash left behind was removed.
    LeftoverRemoved {
        /// The file or directory.
        path: PathBuf,
    },
}

impl Event {
    /// Whether someone should look at it: data or durability are affected.
    pub fn is_warning(&self) -> bool {
        match self {
            Event::WalUnavailable { .. }
            | Event::WalLeftover { .. }
            | Event::WalTornTail { .. }
            | Event::WalDamage { .. }
            | Event::ChunkLost { .. }
            | Event::BlockQuarantined { .. }
            | Event::ImportIncomplete { .. } => true,
            Event::WalRecovered
            | Event::BlockCut { .. }
            | Event::BlockCleaned { .. }
            | Event::BlockExpired { .. }
            | Event::Imported { .. }
            | Event::LeftoverRemoved { .. } => false,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::WalUnavailable { cause } => {
                write!(
                    f,
                    "write-ahead log cannot be written, writes are refused: {cause}"
                )
            }
            Event::WalRecovered => f.write_str("write-ahead log can be written again"),
            Event::WalLeftover { cause } => {
                write!(f, "write-ahead log segment is left over: {cause}")
            }
            Event::WalTornTail {
                path,
                offset,
                bytes,
            } => {
                let path = path.display();
                write!(
                    f,
                    "torn tail of {bytes} bytes cut from {path} at offset {offset}"
                )
            }
            Event::WalDamage { path, offset, why } => {
                write!(f, "damage in {} at offset {offset}: {why}", path.display())
            }
            Event::ChunkLost { why, range } => {
                let TimeRange { min_ms, max_ms } = range;
                write!(
                    f,
                    "samples of a series between {min_ms} and {max_ms} are lost: {why}"
                )
            }
            Event::BlockQuarantined { path, why } => {
                write!(f, "block {} is left out: {why}", path.display())
            }
            Event::BlockCut {
                path,
                tenant,
                series,
                samples,
            } => {
                let path = path.display();
                write!(
                    f,
                    "block {path} cut for {tenant}: {series} series, {samples} samples"
                )
            }
            Event::BlockCleaned { path, copy } => match copy {
                Some(copy) => write!(
                    f,
                    "block {} replaced by {copy}, without deleted samples",
                    path.display()
                ),
                None => write!(
                    f,
                    "block {} removed: all of its samples are deleted",
                    path.display()
                ),
            },
            Event::BlockExpired { path, why } => {
                write!(f, "block {} removed: {why}", path.display())
            }
            Event::Imported {
                path,
                tenant,
                blocks,
                series,
                samples,
                histograms,
                exemplars,
            } => {
                let path = path.display();
                write!(
                    f,
                    "{path} taken over for {tenant}: {blocks} blocks; of its log {series} series, \
                     {samples} samples, {histograms} histograms, {exemplars} exemplars"
                )
            }
            Event::ImportIncomplete { path, what } => {
                write!(f, "not taken over from {}: {what}", path.display())
            }
            Event::LeftoverRemoved { path } => write!(f, "leftover {} removed", path.display()),
        }
    }
}
