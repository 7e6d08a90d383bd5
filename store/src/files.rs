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
    let write = |file: &mut File| parts.into_iter().try_for_each(|part| file.write_all(part));
    replace_with(path, temporary, write).map(drop)
}

/// Puts what `write` writes in the place of `path`, and gives the new file, which can be read.
pub(crate) fn replace_with<T>(
    path: &Path,
    temporary: &Path,
    write: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<(File, T)> {
    let written = write_synced(temporary, write);
    let renamed = written.and_then(|it| fs::rename(temporary, path).map(|()| it));
    let written = match renamed {
        Ok(written) => written,
        Err(error) => {
            // What is left of it is in the way of nobody; the next one writes over it.
            let _left = fs::remove_file(temporary);
            return Err(error);
        }
    };
    if let Some(directory) = path.parent() {
        sync_directory(directory)?;
    }
    Ok(written)
}

fn write_synced<T>(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<(File, T)> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let mut file = options.open(path)?;
    let written = write(&mut file)?;
    file.sync_all()?;
    Ok((file, written))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
