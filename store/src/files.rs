//! Files that are replaced as a whole: written beside their place, synced, renamed, and the
//! directory synced. Whoever looks sees the old content or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Puts `parts`, one behind the other, in the place of `path`. `temporary` is a name in the same
/// directory that is free to be used.
pub(crate) fn replace<'a>(
    path: &Path,
    temporary: &Path,
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> io::Result<()> {
    let written = write_synced(temporary, parts).and_then(|()| fs::rename(temporary, path));
    if let Err(error) = written {
        // What is left of it is in the way of nobody; the next one writes over it.
        let _left = fs::remove_file(temporary);
        return Err(error);
    }
    match path.parent() {
        Some(directory) => sync_directory(directory),
        None => Ok(()),
    }
}

fn write_synced<'a>(path: &Path, parts: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
    let mut file = File::create(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
