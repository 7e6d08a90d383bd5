//! What has to be done from time to time: cutting blocks from the head, shortening the log,
//! removing what retention does not keep.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use isobar_model::{Tenant, TimeRange};
use roaring::RoaringBitmap;
use ulid::Ulid;

use crate::Error;
use crate::block::{BlockMeta, BlockWriter};
use crate::head::late::{LateCut, Uncut};
use crate::head::{BLOCK_RANGE_MS, BlockPart, TenantState, block_end_ms, block_start_ms};
use crate::wal::snapshot;

use super::Db;
use super::beside::has_exemplars;
use super::blocks::{Block, meta_fields};
use super::config::Elsewhere;
use super::event::Event;

/// A block is cut when the head holds one and a half times its range.
const CUT_AT_MS: i64 = BLOCK_RANGE_MS / 2 * 3;

/// What Prometheus writes into `meta.json` of blocks that were cut from late samples.
const LATE_HINT: &str = "from-out-of-order";

/// Sealed chunks are moved to files when they take this many bytes.
const FILE_BYTES_MIN: usize = 1 << 20;

/// What maintenance has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Blocks that were cut from the head.
    pub blocks_cut: Vec<Ulid>,
    /// Blocks that retention has removed.
    pub blocks_expired: Vec<Ulid>,
    /// Whether the log was replaced by a snapshot.
    pub log_shortened: bool,
    /// Whether samples that are in blocks stay in the head because someone still reads them.
    pub waits_for_readers: bool,
}

/// What is left to do from one round to the next.
#[derive(Default)]
pub(crate) struct Agenda {
    /// Samples to drop from the head when all readers know the blocks of this generation.
    truncations: Vec<Truncation>,
    shorten_log: bool,
}

struct Truncation {
    tenant: Arc<TenantState>,
    /// In-order samples before this are in blocks.
    before_ms: i64,
    /// Late samples that are in blocks.
    late: Vec<LateCut>,
    generation: u64,
}

/// How far a head is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Blocks that nobody writes to any more: what maintenance does.
    Due,
    /// All blocks that are behind the newest sample, even if late samples may still come.
    Complete,
    /// Everything; the newest block of each tenant covers only what there is. For when nobody
    /// writes.
    All,
}

impl Db {
    /// Cuts the blocks that are due, shortens the log, applies retention, and looks for blocks
    /// that appeared in the directory or went from it. To be called every half minute or so, by
    /// one thread that may block.
    ///
    /// # Errors
    /// The first error of a step; the other steps are taken all the same, and all is tried again
    /// at the next call.
    pub fn maintain(&self) -> Result<Maintenance, Error> {
        let mut done = Maintenance::default();
        let mut agenda = self.agenda.lock();
        let steps = [
            self.blocks.reload(),
            self.head
                .file_chunks(&self.chunk_files, FILE_BYTES_MIN)
                .map(|_| ()),
            self.cut(Cut::Due, &mut agenda, &mut done),
            self.clear_head(&mut agenda, &mut done),
            self.expire(&mut done),
        ];
        self.head.measure();
        steps.into_iter().collect::<Result<(), Error>>()?;
        Ok(done)
    }

    /// Cuts blocks without waiting for their time: for tests, and before a directory is handed to
    /// Prometheus. Samples that are older than a block's end are refused from then on.
    ///
    /// # Errors
    /// When a block or the log cannot be written.
    pub fn cut_now(&self, cut: Cut) -> Result<Maintenance, Error> {
        let mut done = Maintenance::default();
        let mut agenda = self.agenda.lock();
        self.cut(cut, &mut agenda, &mut done)?;
        self.clear_head(&mut agenda, &mut done)?;
        self.head.measure();
        Ok(done)
    }

    /// Writes a snapshot of the head and drops the part of the log that it stands for.
    ///
    /// # Errors
    /// When log or snapshot cannot be written; the log is as long as before then.
    pub fn shorten_log(&self) -> Result<(), Error> {
        let _agenda = self.agenda.lock();
        self.replace_log()
    }

    /// Moves sealed chunks from memory to files: what maintenance does when there are enough of
    /// them.
    ///
    /// # Errors
    /// When a file cannot be written; the chunks stay in memory then.
    pub fn file_chunks(&self) -> Result<u64, Error> {
        let _agenda = self.agenda.lock();
        self.head.file_chunks(&self.chunk_files, 0)
    }

    pub(super) fn replace_log(&self) -> Result<(), Error> {
        snapshot::replace_log(
            &self.wal_dir,
            &self.head,
            &self.log,
            &self.chunk_files,
            &self.config.events,
        )
    }

    fn cut(&self, cut: Cut, agenda: &mut Agenda, done: &mut Maintenance) -> Result<(), Error> {
        let mut result = Ok(());
        for tenant in self.head.tenants().all() {
            let cut = self.cut_tenant(&tenant, cut, agenda, done);
            result = result.and(cut);
        }
        result
    }

    fn cut_tenant(
        &self,
        tenant: &Arc<TenantState>,
        cut: Cut,
        agenda: &mut Agenda,
        done: &mut Maintenance,
    ) -> Result<(), Error> {
        let mut any = false;
        while let Some(end_ms) = self.next_cut(tenant, cut) {
            // Nothing older is taken in order from here on, so the block will hold all there is;
            // what comes late will be cut by itself.
            tenant.min_valid_ms.fetch_max(end_ms, Ordering::AcqRel);
            if cut == Cut::All {
                // Elsewhere chunks end at the borders of blocks by themselves.
                self.head.seal_until(tenant.id, end_ms);
            }
            let cut_until_ms = tenant.cut_until_ms.load(Ordering::Acquire);
            let Some(oldest_ms) = self.head.oldest_from(tenant.id, cut_until_ms) else {
                break;
            };
            let late = self.freeze_late(tenant, agenda);
            let mut range = TimeRange::new(block_start_ms(oldest_ms).max(cut_until_ms), end_ms - 1);
            let extents = match &late {
                Some(uncut) => self.head.late_extents(tenant, range, uncut)?,
                None => BTreeMap::new(),
            };
            let late_ms = extents.values().map(|extent| extent.range.min_ms);
            range.min_ms = late_ms.fold(oldest_ms, i64::min);
            let (ids, in_order) = (self.head.ids_of(tenant.id), true);
            let part = BlockPart { in_order, late };
            let Some(truncation) = self.cut_block(tenant, range, &ids, part, done)? else {
                return Err(Error::corrupt("head", "samples that were there are gone"));
            };
            tenant.cut_until_ms.store(end_ms, Ordering::Release);
            agenda.truncations.push(Truncation {
                before_ms: end_ms,
                ..truncation
            });
            any = true;
        }
        self.cut_late(tenant, cut, any, agenda, done)
    }

    /// Cuts the late samples of ranges that are cut already: when none can come for them any more,
    /// or, so that they do not pile up, when another block was cut.
    fn cut_late(
        &self,
        tenant: &Arc<TenantState>,
        cut: Cut,
        any: bool,
        agenda: &mut Agenda,
        done: &mut Maintenance,
    ) -> Result<(), Error> {
        let cut_until_ms = tenant.cut_until_ms.load(Ordering::Acquire);
        let newest_ms = tenant.max_ms.load(Ordering::Acquire);
        let over_ms = newest_ms.saturating_sub(self.head.late_window_ms.unwrap_or(0));
        let ready = |at_ms: i64| any || cut != Cut::Due || block_end_ms(at_ms) <= over_ms;
        let oldest_ms = tenant.late_min_ms.load(Ordering::Acquire);
        if oldest_ms >= cut_until_ms || !ready(oldest_ms) {
            return Ok(());
        }
        let Some(uncut) = self.freeze_late(tenant, agenda) else {
            return Ok(());
        };
        let cut_already = TimeRange::new(i64::MIN, cut_until_ms - 1);
        let extents = self.head.late_extents(tenant, cut_already, &uncut)?;
        for (start_ms, extent) in extents.into_iter().filter(|(start_ms, _)| ready(*start_ms)) {
            let end_ms = block_end_ms(start_ms).min(cut_until_ms);
            let range = TimeRange::new(extent.range.min_ms, end_ms - 1);
            let part = BlockPart {
                in_order: false,
                late: Some(uncut.clone()),
            };
            let truncation = self.cut_block(tenant, range, &extent.series, part, done)?;
            agenda.truncations.extend(truncation);
        }
        Ok(())
    }

    /// The late samples of a tenant that were there until now, and are in no block.
    pub(super) fn freeze_late(&self, tenant: &TenantState, agenda: &Agenda) -> Option<Uncut> {
        let until = self.head.freeze_late(tenant)?;
        let pending = agenda.truncations.iter();
        let of_tenant = pending.filter(|pending| pending.tenant.id == tenant.id);
        let cuts = of_tenant
            .flat_map(|pending| pending.late.iter().copied())
            .collect();
        Some(Uncut { until, cuts })
    }

    /// Writes a block and serves it. Gives what may leave the head then; nothing when there is
    /// nothing to write.
    fn cut_block(
        &self,
        tenant: &Arc<TenantState>,
        range: TimeRange,
        ids: &RoaringBitmap,
        part: BlockPart,
        done: &mut Maintenance,
    ) -> Result<Option<Truncation>, Error> {
        let late = part.late.as_ref().map(|uncut| LateCut {
            range,
            until: uncut.until,
        });
        let Some(block) = self.write_block(tenant, range, ids, part)? else {
            return Ok(None);
        };
        done.blocks_cut.push(block.meta().ulid);
        Ok(Some(Truncation {
            tenant: Arc::clone(tenant),
            before_ms: i64::MIN,
            late: Vec::from_iter(late),
            generation: self.pins.publish(),
        }))
    }

    /// Where the next block of a tenant ends, if one is to be cut.
    fn next_cut(&self, tenant: &TenantState, cut: Cut) -> Option<i64> {
        let (min_ms, max_ms) = tenant.range()?;
        let cut_until_ms = tenant.cut_until_ms.load(Ordering::Acquire);
        let ready = |start_ms: i64| match cut {
            Cut::Due => max_ms.saturating_sub(start_ms) >= CUT_AT_MS,
            Cut::Complete => block_end_ms(start_ms) <= max_ms,
            Cut::All => start_ms <= max_ms,
        };
        // The bound is cheap and may be too low; the oldest sample itself decides.
        if !ready(min_ms.max(cut_until_ms)) {
            return None;
        }
        let start_ms = self.head.oldest_from(tenant.id, cut_until_ms)?;
        let end_ms = block_end_ms(start_ms);
        let end_ms = if cut == Cut::All {
            end_ms.min(max_ms.saturating_add(1))
        } else {
            end_ms
        };
        ready(start_ms).then_some(end_ms)
    }

    fn write_block(
        &self,
        tenant: &TenantState,
        range: TimeRange,
        ids: &RoaringBitmap,
        part: BlockPart,
    ) -> Result<Option<Block>, Error> {
        let ulid = self.new_ulid();
        let dir = &self.config.dir;
        let Some(meta) = self.write_head(dir, ulid, tenant, range, ids, part)? else {
            return Ok(None);
        };
        let block = self.blocks.add(ulid)?;
        (self.config.events)(Event::BlockCut {
            path: block.reader().dir().to_owned(),
            tenant: tenant.name.to_string(),
            series: meta.stats.num_series,
            samples: meta.stats.num_samples,
        });
        Ok(Some(block))
    }

    /// Writes what some series of a tenant have in a range as a block into a directory; nothing when
    /// they have nothing.
    pub(super) fn write_head(
        &self,
        dir: &Path,
        ulid: Ulid,
        tenant: &TenantState,
        range: TimeRange,
        ids: &RoaringBitmap,
        part: BlockPart,
    ) -> Result<Option<BlockMeta>, Error> {
        let mut meta = BlockMeta::new(ulid, range.min_ms, range.max_ms + 1);
        meta.other = meta_fields(&tenant.name, part.late.as_ref().map(|uncut| uncut.until));
        if !part.in_order {
            meta.compaction.hints.push(LATE_HINT.to_owned());
        }
        let series = self.head.select_block(ids, range, part);
        let series = series.cutting(&self.config.events);
        let symbols: BTreeSet<&str> = series
            .pairs()
            .flat_map(|(name, value)| [name, value])
            .collect();
        let symbols: Vec<String> = symbols.into_iter().map(str::to_owned).collect();
        let mut writer = BlockWriter::create(dir, meta, symbols.into_iter().map(Ok))?;
        writer.add_all(series)?;
        let uncut = tenant
            .cut_until_ms
            .load(Ordering::Acquire)
            .min(range.min_ms);
        let of_block = TimeRange::new(uncut, range.max_ms);
        if let Some((name, bytes)) = self.exemplars_for_block(&tenant.name, of_block) {
            writer.add_file(name, &bytes)?;
        }
        writer.finish()
    }

    pub(super) fn new_ulid(&self) -> Ulid {
        let random = || u128::from(std::hash::RandomState::new().build_hasher().finish());
        let now_ms = u64::try_from(self.config.clock.now_ms()).unwrap_or(0);
        Ulid::from_parts(now_ms, random() << 64 | random())
    }

    /// Drops from the head what is in blocks, as far as nobody reads it, and shortens the log.
    fn clear_head(&self, agenda: &mut Agenda, done: &mut Maintenance) -> Result<(), Error> {
        let ready = |it: &mut Truncation| self.pins.all_since(it.generation);
        // The truncations of a tenant are done together.
        let mut last: Vec<Truncation> = Vec::new();
        for truncation in agenda.truncations.extract_if(.., ready) {
            match last
                .iter_mut()
                .find(|other| other.tenant.id == truncation.tenant.id)
            {
                Some(other) => {
                    other.before_ms = other.before_ms.max(truncation.before_ms);
                    other.late.extend(truncation.late);
                }
                None => last.push(truncation),
            }
        }
        for truncation in last {
            let Truncation {
                tenant,
                before_ms,
                late,
                ..
            } = truncation;
            agenda.shorten_log = true;
            self.head.truncate(&tenant, before_ms, &late)?;
        }
        done.waits_for_readers = !agenda.truncations.is_empty();
        if agenda.shorten_log || snapshot::is_due(&self.wal_dir, &self.config.events)? {
            self.replace_log()?;
            agenda.shorten_log = false;
            done.log_shortened = true;
        }
        Ok(())
    }

    fn expire(&self, done: &mut Maintenance) -> Result<(), Error> {
        for (block, why) in self.expired()? {
            if !(self.config.may_expire)(block.meta()) {
                continue;
            }
            self.blocks.remove(&block)?;
            done.blocks_expired.push(block.meta().ulid);
            let path = block.reader().dir().to_owned();
            (self.config.events)(Event::BlockExpired { path, why });
        }
        Ok(())
    }

    fn expired(&self) -> Result<Vec<(Block, String)>, Error> {
        let mut served = (*self.blocks.served()).clone();
        let mut expired = Vec::new();
        let newest = |tenant: &Tenant| {
            let of_tenant = served.iter().filter(|block| block.tenant() == tenant);
            of_tenant
                .map(|block| block.meta().end_ms)
                .max()
                .unwrap_or(i64::MIN)
        };
        let ends_before_newest = |block: &Block, time: Duration| {
            let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
            newest(block.tenant()).saturating_sub(block.meta().end_ms) >= time_ms
        };
        let why = |block: &Block| {
            let retention = self.config.retention_time;
            if let Some(time) = retention.filter(|time| ends_before_newest(block, *time)) {
                return Some(format!("it ends {time:?} before the newest block"));
            }
            let Elsewhere { after, holds } = self.config.elsewhere.as_ref()?;
            let goes = ends_before_newest(block, *after)
                && holds(block.meta())
                && !has_exemplars(block.reader().dir());
            goes.then(|| {
                format!("it is kept elsewhere, too, and ends {after:?} before the newest block")
            })
        };
        let mut kept = Vec::with_capacity(served.len());
        for block in &served {
            match why(block) {
                Some(why) => expired.push((block.clone(), why)),
                None => kept.push(block.clone()),
            }
        }
        served = kept;
        if let Some(limit) = self.config.retention_size {
            let log_bytes = self.wal_bytes()?;
            let mut bytes = served.iter().map(Block::size_bytes).sum::<u64>() + log_bytes;
            served.sort_by_key(|block| block.meta().end_ms);
            for block in served {
                if bytes <= limit {
                    break;
                }
                let why = format!("blocks and log take {bytes} bytes, more than {limit}");
                bytes = bytes.saturating_sub(block.size_bytes());
                expired.push((block, why));
            }
        }
        Ok(expired)
    }
}
