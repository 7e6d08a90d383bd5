//! Writing a snapshot of the head, and dropping the part of the log that it stands for.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::Error;
use crate::db::event::Events;
use crate::db::files;
use crate::encoding::put_uvarint;
use crate::head::Head;

use super::log::Log;
use super::record::Kind;
use super::replay::{Files, TMP_SUFFIX, snapshot_path};
use super::segment::{FrameWriter, random_nonce};

const BUFFER_BYTES: usize = 1 << 20;

/// Closes the segment being written, writes the head as a snapshot that stands for all segments
/// up to it, and removes those. When it fails on the way, the log is as long as before.
///
/// # Errors
/// When the log or the snapshot cannot be written.
pub(crate) fn replace_log(
    dir: &Path,
    head: &Head,
    log: &Log,
    events: &Events,
) -> Result<(), Error> {
    let freed = head.take_freed();
    let number = match log
        .rotate()
        .and_then(|number| write(dir, number, head).map(|()| number))
    {
        Ok(number) => number,
        Err(e) => {
            head.keep_freed(freed);
            return Err(e);
        }
    };
    match Files::list(dir, events).and_then(|files| files.remove_before(dir, number)) {
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

fn write(dir: &Path, number: u64, head: &Head) -> Result<(), Error> {
    let path = snapshot_path(dir, number);
    let mut name = path.clone().into_os_string();
    name.push(TMP_SUFFIX);
    let tmp = std::path::PathBuf::from(name);
    let written = write_file(&tmp, head).and_then(|()| files::rename(&tmp, &path));
    if written.is_err() && tmp.exists() {
        files::remove_file(&tmp)?;
    }
    written
}

fn write_file(path: &Path, head: &Head) -> Result<(), Error> {
    let io = |action, e| Error::io(action, path, e);
    let mut file = File::create(path).map_err(|e| io("create", e))?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut frames = FrameWriter::begin(random_nonce(), &mut buffer);
    let mut records = 0u64;
    head.snapshot(|kind, payload| {
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
    file.sync_all().map_err(|e| io("sync", e))
}
