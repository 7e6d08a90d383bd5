//! What a database keeps beside samples: exemplars and metadata.

use std::path::Path;

use isobar_model::{Exemplar, Labels, Matcher, Tenant, TimeRange};

use super::{Block, Db};
use crate::Error;
use crate::exemplars::file::EXEMPLARS_FILE;
use crate::exemplars::{ExemplarCounts, ExemplarStats, Found, SeriesExemplars, file, matches_any};
use crate::head::AHEAD_MS_MAX;
use crate::head::incoming::CommitTicket;
use crate::metadata::{Described, Metadata, MetadataMap};

/// What a look for exemplars has found.
#[derive(Debug, Default)]
pub struct ExemplarsFound {
    /// By labels, the exemplars of each series by time.
    pub series: Vec<SeriesExemplars>,
    /// Blocks whose exemplars cannot be read, and why.
    pub missing: Vec<Error>,
}

impl Db {
    /// Stores exemplars in memory and puts them into the log. They are durable as samples are that
    /// are stored after them, or when [`Db::ticket`] is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the log cannot be written, and [`Error::TooManyTenants`] when there
    /// is no room for another; nothing is stored then.
    pub fn append_exemplars(
        &self,
        tenant: &Tenant,
        exemplars: impl IntoIterator<Item = (Labels, Exemplar)>,
    ) -> Result<ExemplarCounts, Error> {
        self.log.check_writable()?;
        self.admit(tenant)?;
        let max_ms = self.config.clock.now_ms().saturating_add(AHEAD_MS_MAX);
        let kept = &self.head.exemplars;
        Ok(kept.append(&self.log, tenant, max_ms, exemplars))
    }

    /// The exemplars in `range` of the series that match one of the selectors, of one tenant or of
    /// all.
    pub fn exemplars(
        &self,
        tenant: Option<&Tenant>,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> ExemplarsFound {
        let mut found = Found::default();
        let mut missing = Vec::new();
        self.head
            .exemplars
            .select(tenant, selectors, range, &mut found);
        let overlaps = |block: &Block| {
            let meta = block.meta();
            // A sample may be older than what its exemplar is for, within the block's limits; beside
            // a block of a backfill there may be exemplars of any time.
            !block.cut_here || range.overlaps(&TimeRange::new(meta.min_ms, meta.end_ms))
        };
        for block in self
            .blocks_of(tenant)
            .iter()
            .filter(|block| overlaps(block))
        {
            let read = file::read(block.reader().dir(), |labels, exemplar| {
                if range.contains(exemplar.timestamp_ms) && matches_any(selectors, &labels) {
                    found.add(&labels, exemplar);
                }
            });
            missing.extend(read.err());
        }
        ExemplarsFound {
            series: found.finish(),
            missing,
        }
    }

    /// How many exemplars are in memory, and how much of it they take.
    pub fn exemplar_stats(&self) -> ExemplarStats {
        self.head.exemplars.stats()
    }

    /// Keeps what a sender says about a metric and puts it into the log; durable as exemplars are.
    ///
    /// # Errors
    /// [`Error::Unavailable`] while the log cannot be written; nothing is kept then.
    pub fn describe(
        &self,
        tenant: &Tenant,
        metric: &str,
        metadata: Metadata,
    ) -> Result<Described, Error> {
        self.log.check_writable()?;
        let kept = &self.head.metadata;
        Ok(kept.append(&self.log, tenant, metric, metadata))
    }

    /// What senders say about their metrics.
    pub fn metadata(&self) -> &MetadataMap {
        &self.head.metadata
    }

    /// What to wait for until all that was stored before this call is durable.
    pub fn ticket(&self) -> CommitTicket {
        self.log.ticket()
    }

    /// The file with the exemplars of a block that is being cut; `None` when there are none.
    pub(super) fn exemplars_for_block(
        &self,
        tenant: &Tenant,
        range: TimeRange,
    ) -> Option<(&'static str, Vec<u8>)> {
        let bytes = self.head.exemplars.for_block(tenant, range)?;
        Some((EXEMPLARS_FILE, bytes))
    }
}

/// Whether exemplars lie beside the block in `dir`.
pub(super) fn has_exemplars(dir: &Path) -> bool {
    dir.join(EXEMPLARS_FILE).exists()
}
