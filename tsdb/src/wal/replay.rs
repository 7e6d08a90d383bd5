//! Reading the log back when a database opens.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::db::event::{Event, Events};
use crate::db::files;
use crate::disk::OutFile;
use crate::head::{Head, HeadBounds, Restore, RestoreCounts, SECRET_BYTES};

use super::log::segment_path;
use super::record::Kind;
use super::segment::{Item, SegmentReader};

const SNAPSHOT_PREFIX: &str = "snapshot-";
pub(crate) const TMP_SUFFIX: &str = ".tmp";

/// The files of a log's directory.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) segments: Vec<u64>,
    pub(crate) snapshots: Vec<u64>,
}

/// The file of a snapshot that stands for all segments before `number`.
pub(crate) fn snapshot_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{SNAPSHOT_PREFIX}{number:08}"))
}

impl Files {
    /// Lists the directory; removes what a snapshot left unfinished.
    pub(crate) fn list(dir: &Path, events: &Events) -> Result<Self, Error> {
        let mut list = Files::default();
        for name in files::names(dir)? {
            if name.ends_with(TMP_SUFFIX) {
                let path = dir.join(name);
                files::remove_file(&path)?;
                events(Event::LeftoverRemoved { path });
            } else if let Some(number) = name.strip_prefix(SNAPSHOT_PREFIX) {
                list.snapshots.extend(number.parse::<u64>());
            } else {
                list.segments.extend(name.parse::<u64>());
            }
        }
        list.segments.sort_unstable();
        list.snapshots.sort_unstable();
        Ok(list)
    }

    /// The number of a segment that comes after all of these.
    pub(crate) fn next_segment(&self) -> u64 {
        let last = self.segments.last().copied().unwrap_or(0);
        last.max(self.snapshots.last().copied().unwrap_or(0)) + 1
    }

    /// Removes the segments and snapshots that the snapshot `number` stands for.
    pub(crate) fn remove_before(&self, dir: &Path, number: u64) -> Result<(), Error> {
        for segment in self.segments.iter().filter(|segment| **segment < number) {
            files::remove_file(&segment_path(dir, *segment))?;
        }
        for snapshot in self.snapshots.iter().filter(|snapshot| **snapshot < number) {
            files::remove_file(&snapshot_path(dir, *snapshot))?;
        }
        files::sync_dir(dir)
    }
}

/// Reads the newest whole snapshot and the segments that follow it. Damage costs what it hits, is
/// reported, and stops nothing. Gives the number of the segment to go on with.
///
/// # Errors
/// When a file cannot be read at all.
pub(crate) fn replay(dir: &Path, restore: &mut Restore<'_>, events: &Events) -> Result<u64, Error> {
    let files = Files::list(dir, events)?;
    let snapshot = choose_snapshot(dir, &files)?;
    if let Some(number) = snapshot {
        replay_file(&snapshot_path(dir, number), restore, events, false)?;
    }
    let last = files.segments.last().copied();
    for segment in files
        .segments
        .iter()
        .filter(|number| **number >= snapshot.unwrap_or(0))
    {
        let is_last = Some(*segment) == last;
        replay_file(&segment_path(dir, *segment), restore, events, is_last)?;
    }
    if let Some(number) = snapshot {
        files.remove_before(dir, number)?;
    }
    Ok(files.next_segment())
}

/// What comes of a file of the log that is in memory, and how many pieces of it are damaged: for
/// looking into logs, and for throwing bytes at the reader.
pub fn inspect(bytes: &[u8]) -> (RestoreCounts, u64) {
    let bounds = HeadBounds {
        exemplars_max: 4,
        ..HeadBounds::default()
    };
    let head = Head::new([0; SECRET_BYTES], bounds);
    let mut restore = Restore::new(&head, None);
    let mut damaged = 0;
    // Memory has no errors.
    if let Ok(mut reader) = SegmentReader::new(bytes, Path::new("memory")) {
        while let Ok(Some(item)) = reader.next() {
            let whole = match item {
                Item::Record(kind, payload) => restore.apply(kind, payload).is_ok(),
                Item::Damage { .. } | Item::TornTail { .. } => false,
            };
            damaged += u64::from(!whole);
        }
    }
    (restore.finish(), damaged)
}

/// The newest snapshot, or an older one when that is whole and the newest is not and what came
/// between is still there.
fn choose_snapshot(dir: &Path, files: &Files) -> Result<Option<u64>, Error> {
    let Some(newest) = files.snapshots.last().copied() else {
        return Ok(None);
    };
    let nothing_older = files.snapshots.len() == 1
        && files
            .segments
            .first()
            .is_none_or(|segment| *segment >= newest);
    if nothing_older {
        return Ok(Some(newest));
    }
    for number in files.snapshots.iter().rev() {
        if is_whole(&snapshot_path(dir, *number))? {
            return Ok(Some(*number));
        }
    }
    // The log from its beginning says all that a broken snapshot says.
    let complete = files.segments.first() == Some(&1);
    Ok((!complete).then_some(newest))
}

fn is_whole(path: &Path) -> Result<bool, Error> {
    let mut reader = SegmentReader::open(path)?;
    let mut ended = false;
    while let Some(item) = reader.next()? {
        match item {
            Item::Record(kind, _) => ended = kind == Kind::End,
            Item::Damage { .. } | Item::TornTail { .. } => return Ok(false),
        }
    }
    Ok(ended)
}

fn replay_file(
    path: &Path,
    restore: &mut Restore<'_>,
    events: &Events,
    is_last: bool,
) -> Result<(), Error> {
    let mut reader = SegmentReader::open(path)?;
    let mut offset = super::segment::HEADER_BYTES as u64;
    let mut torn = None;
    while let Some(item) = reader.next()? {
        match item {
            Item::Record(kind, payload) => {
                let len = super::segment::frame_bytes(payload);
                if let Err(e) = restore.apply(kind, payload) {
                    let why = e.to_string();
                    events(Event::WalDamage {
                        path: path.to_owned(),
                        offset,
                        why,
                    });
                }
                offset += len;
                // No disk is too full for a start: what cannot be written stays in memory. Maintenance
                // comes upon the same error, and tells.
                let _told_later = restore.file_sealed();
            }
            Item::Damage { from, to } => {
                let why = format!("{} bytes are no record and were skipped", to - from);
                events(Event::WalDamage {
                    path: path.to_owned(),
                    offset: from,
                    why,
                });
                offset = to;
            }
            Item::TornTail { from, to } => {
                torn = Some((from, to));
                offset = to;
            }
        }
    }
    let Some((from, to)) = torn else {
        return Ok(());
    };
    if is_last {
        cut(path, from)?;
        let (path, bytes) = (path.to_owned(), to - from);
        events(Event::WalTornTail {
            path,
            offset: from,
            bytes,
        });
    } else {
        let why = format!(
            "the last {} bytes are no record and were skipped",
            to - from
        );
        events(Event::WalDamage {
            path: path.to_owned(),
            offset: from,
            why,
        });
    }
    Ok(())
}

fn cut(path: &Path, len: u64) -> Result<(), Error> {
    let file = OutFile::open(path).map_err(|e| Error::io("open", path, e))?;
    file.set_len(len).map_err(|e| Error::io("cut", path, e))?;
    file.sync_all().map_err(|e| Error::io("sync", path, e))
}
