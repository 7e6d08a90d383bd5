//! Writing a snapshot of the head, and dropping the part of the log that it stands for.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use crate::Error;
use crate::db::event::Events;
use crate::db::files;
use crate::disk::OutFile;
use crate::encoding::put_uvarint;
use crate::head::Head;
use crate::head::chunk_files::ChunkFiles;

use super::log::{Log, segment_path};
use super::record::Kind;
use super::replay::{Files, TMP_SUFFIX, snapshot_path};
use super::segment::{FrameWriter, random_nonce};

const BUFFER_BYTES: usize = 1 << 20;
/// A shorter log is read back quickly enough.
const LOG_BYTES_MIN: u64 = 64 << 20;

/// Closes the segment being written, writes the head as a snapshot that stands for all segments
/// up to it, and removes those. When it fails on the way, the log is as long as before.
///
/// # Errors
/// When the log or the snapshot cannot be written.
pub(crate) fn replace_log(
    dir: &Path,
    head: &Head,
    log: &Log,
    chunk_files: &ChunkFiles,
    events: &Events,
) -> Result<(), Error> {
    let freed = head.take_freed();
    let files_end = chunk_files.next();
    let (number, wanted) = match log
        .rotate()
        .and_then(|number| Ok((number, write(dir, number, head)?)))
    {
        Ok(written) => written,
        Err(e) => {
            head.keep_freed(freed);
            return Err(e);
        }
    };
    let removed = Files::list(dir, events)
        .and_then(|files| files.remove_before(dir, number))
        .and_then(|()| chunk_files.remove_unwanted(&wanted, files_end));
    match removed {
        Ok(()) => {
            head.reuse(freed);
            Ok(())
        }
        Err(e) => {
            head.keep_freed(freed);
            Err(e)
        }
    }
}

/// Whether the log has become so long that a snapshot is worth its writing.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn is_due(dir: &Path, events: &Events) -> Result<bool, Error> {
    let files = Files::list(dir, events)?;
    let size = |path: &Path| {
        let meta = std::fs::metadata(path).map_err(|e| Error::io("stat", path, e));
        meta.map(|meta| meta.len())
    };
    let mut log_bytes = 0;
    for segment in &files.segments {
        log_bytes += size(&segment_path(dir, *segment))?;
    }
    let last = files.snapshots.last();
    let snapshot_bytes = last.map_or(Ok(0), |number| size(&snapshot_path(dir, *number)))?;
    Ok(log_bytes > LOG_BYTES_MIN.max(snapshot_bytes))
}

/// Writes the snapshot, and gives the chunk files that it names.
fn write(dir: &Path, number: u64, head: &Head) -> Result<BTreeSet<u32>, Error> {
    let path = snapshot_path(dir, number);
    let mut name = path.clone().into_os_string();
    name.push(TMP_SUFFIX);
    let tmp = std::path::PathBuf::from(name);
    let written =
        write_file(&tmp, head).and_then(|wanted| files::rename(&tmp, &path).map(|()| wanted));
    if written.is_err() && tmp.exists() {
        files::remove_file(&tmp)?;
    }
    written
}

fn write_file(path: &Path, head: &Head) -> Result<BTreeSet<u32>, Error> {
    let io = |action, e| Error::io(action, path, e);
    let file = OutFile::create(path).map_err(|e| io("create", e))?;
    let mut file = file.synced_as_written();
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut frames = FrameWriter::begin(random_nonce(), &mut buffer);
    let mut records = 0u64;
    let wanted = head.snapshot(|kind, payload| {
        frames.put(kind as u8, payload, &mut buffer);
        records += 1;
        if buffer.len() >= BUFFER_BYTES {
            file.write_all(&buffer).map_err(|e| io("write", e))?;
            buffer.clear();
        }
        Ok(())
    })?;
    let mut end = Vec::new();
    put_uvarint(&mut end, records);
    frames.put(Kind::End as u8, &end, &mut buffer);
    file.write_all(&buffer).map_err(|e| io("write", e))?;
    file.sync_all().map_err(|e| io("sync", e))?;
    Ok(wanted)
}
