//! How a database is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use isobar_model::Clock;
use isobar_model::budget::Budget;

use super::event::Events;
use crate::block::meta::BlockMeta;
use crate::block::series_cache;
pub use crate::head::limits::Limits;
pub use crate::wal::log::Sync;

/// How a database is opened.
#[derive(Clone)]
pub struct DbConfig {
    /// The data directory; made when it does not exist.
    pub dir: PathBuf,
    /// Blocks that end this long before the newest are removed; `None` keeps them for ever.
    pub retention_time: Option<Duration>,
    /// The oldest blocks are removed while blocks and log take more bytes than this; `None` is no
    /// limit.
    pub retention_size: Option<u64>,
    /// Whether a block that retention removes may go already.
    pub may_expire: MayExpire,
    /// Which blocks are removed sooner, because they are kept elsewhere, too.
    pub elsewhere: Option<Elsewhere>,
    /// The most exemplars of each tenant in memory; 0 keeps none.
    pub exemplars_max: usize,
    /// A sample that cannot follow the newest of its series is taken when it is not older than the
    /// newest of its tenant by more than this; with zero none is.
    pub late_window: Duration,
    /// What each tenant may write.
    pub limits: Limits,
    /// The share of the head in the memory of the process: what the head takes, by estimate, is held
    /// from it, and while that is all of it, new series are refused. Without it there is no limit.
    pub head_memory: Option<Arc<Budget>>,
    /// Bytes for what is remembered of series that were read from blocks
    /// ([`crate::block::SeriesCache`]).
    pub series_cache_bytes: usize,
    /// When a write counts as durable.
    pub sync: Sync,
    /// Tells the time, for what lies in the future and for the names of blocks.
    pub clock: Clock,
    /// Called with what happens.
    pub events: Events,
}

/// Says of a block whether it may be removed.
pub type MayExpire = Arc<dyn Fn(&BlockMeta) -> bool + Send + std::marker::Sync>;

/// A second place for blocks. One with exemplars stays as long as retention lets it, since these are read
/// here only.
#[derive(Clone)]
pub struct Elsewhere {
    /// A block that is there is removed here when it ends this long before the newest.
    pub after: Duration,
    /// Whether a block is there.
    pub holds: MayExpire,
}

/// How late samples may be unless something else is asked for.
pub const LATE_WINDOW_DEFAULT: Duration = Duration::from_secs(2 * 60 * 60);

impl DbConfig {
    /// Everything but exemplars kept, late samples taken for two hours, every write synced, the
    /// machine's clock, nobody listening.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        DbConfig {
            dir: dir.into(),
            retention_time: None,
            retention_size: None,
            may_expire: Arc::new(|_| true),
            elsewhere: None,
            exemplars_max: 0,
            late_window: LATE_WINDOW_DEFAULT,
            limits: Limits::default(),
            head_memory: None,
            series_cache_bytes: series_cache::BYTES_MAX,
            sync: Sync::Always,
            clock: Clock::system(),
            events: Arc::new(|_| {}),
        }
    }
}
