//! Copies of a database that cost next to nothing: blocks as hard links, the head as blocks.

use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::atomic::Ordering;

use isobar_model::TimeRange;

use crate::Error;
use crate::head::{BlockPart, TenantState};

use super::maintain::Agenda;
use super::{Db, files};

/// The directory of snapshots in the data directory, as in Prometheus.
pub const SNAPSHOTS_DIR: &str = "snapshots";

impl Db {
    /// Links all blocks into a new directory in `snapshots/` and gives its name. With `with_head`, what
    /// is in the head is written there too, a block for each tenant. Deleted samples of blocks are
    /// marked there as they are here. The directory is one that this database, or Prometheus, opens.
    ///
    /// # Errors
    /// When files cannot be linked or written; what is there then is removed.
    pub fn snapshot(&self, with_head: bool) -> Result<String, Error> {
        // Blocks neither come nor go meanwhile, nor do samples leave the head.
        let agenda = self.agenda.lock();
        let random = std::hash::RandomState::new().build_hasher().finish() >> 1;
        let name = format!("{}-{random:016x}", utc_name(self.config.clock.now_ms()));
        let dir = self.config.dir.join(SNAPSHOTS_DIR).join(&name);
        files::create_dir(&dir)?;
        let made = self.fill_snapshot(&dir, with_head, &agenda);
        if made.is_err() {
            files::remove_dir(&dir)?;
        }
        made.map(|()| name)
    }

    fn fill_snapshot(&self, dir: &Path, with_head: bool, agenda: &Agenda) -> Result<(), Error> {
        for block in self.blocks.served().iter() {
            let from = block.reader().dir();
            files::link_dir(from, &dir.join(block.meta().ulid.to_string()))?;
        }
        if with_head {
            for tenant in self.head.tenants().all() {
                self.write_tenant(dir, &tenant, agenda)?;
            }
        }
        files::sync_dir(dir)
    }

    /// Writes what the head has of a tenant, and no block: late samples that are older than the others
    /// come as blocks of their own.
    fn write_tenant(&self, dir: &Path, tenant: &TenantState, agenda: &Agenda) -> Result<(), Error> {
        let late = self.freeze_late(tenant, agenda);
        let cut_until_ms = tenant.cut_until_ms.load(Ordering::Acquire);
        // What is older lies in blocks, even if readers keep it in memory.
        let first_ms = self.head.oldest_from(tenant.id, cut_until_ms);
        let last_ms = tenant.range().map(|(_, last_ms)| last_ms);
        let in_order = first_ms.zip(last_ms);
        if let Some((first_ms, last_ms)) = in_order {
            let range = TimeRange::new(first_ms, last_ms);
            let part = BlockPart {
                in_order: true,
                late: late.clone(),
            };
            let ids = self.head.ids_of(tenant.id);
            self.write_head(dir, self.new_ulid(), tenant, range, &ids, part)?;
        }
        let Some(uncut) = late else {
            return Ok(());
        };
        let before_ms = in_order.map_or(i64::MAX, |(first_ms, _)| first_ms.saturating_sub(1));
        let older = TimeRange::new(i64::MIN, before_ms);
        for extent in self.head.late_extents(tenant, older, &uncut)?.values() {
            let part = BlockPart {
                in_order: false,
                late: Some(uncut.clone()),
            };
            let (ids, range) = (&extent.series, extent.range);
            self.write_head(dir, self.new_ulid(), tenant, range, ids, part)?;
        }
        Ok(())
    }
}

/// A time as `20260101T000000Z`.
fn utc_name(now_ms: i64) -> String {
    let seconds = now_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Counted in years that begin in March, of cycles of 400 years from the year 0 on.
    let days = days + 719_468;
    let (cycle, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + cycle * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_times() {
        for (seconds, name) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_767_225_600, "20260101T000000Z"),
            (4_102_444_799, "20991231T235959Z"),
            (-1, "19691231T235959Z"),
        ] {
            assert_eq!(utc_name(seconds * 1000), name);
        }
    }
}
