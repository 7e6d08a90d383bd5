//! The few things that are done to files and directories, with errors that name them.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::Error;
use crate::disk::{Change, OutFile, announce};

/// Creates a directory and those above it.
pub(crate) fn create_dir(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    // The parent of a plain name is "", the working directory.
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir(parent)?;
    }
    announce(Change::CreateDir(path))
        .and_then(|()| fs::create_dir(path))
        .map_err(|e| Error::io("create directory", path, e))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    let dir = File::open(path).map_err(|e| Error::io("open directory", path, e))?;
    announce(Change::SyncDir(path))
        .and_then(|()| dir.sync_all())
        .map_err(|e| Error::io("sync directory", path, e))
}

/// Removes a file.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    announce(Change::Remove(path))
        .and_then(|()| fs::remove_file(path))
        .map_err(|e| Error::io("remove", path, e))
}

/// Removes a directory with all that is in it.
pub(crate) fn remove_dir(path: &Path) -> Result<(), Error> {
    announce(Change::RemoveDir(path))
        .and_then(|()| fs::remove_dir_all(path))
        .map_err(|e| Error::io("remove directory", path, e))
}

/// Renames a file or directory and makes its new name durable.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    announce(Change::Rename { from, to })
        .and_then(|()| fs::rename(from, to))
        .map_err(|e| Error::io("rename", from, e))?;
    sync_dir(to.parent().unwrap_or(Path::new(".")))
}

/// Makes a directory whose files are those of another, and all names in it durable.
pub(crate) fn link_dir(from: &Path, to: &Path) -> Result<(), Error> {
    create_dir(to)?;
    for name in names(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        let kind = fs::symlink_metadata(&from).map_err(|e| Error::io("stat", &from, e))?;
        if kind.is_dir() {
            link_dir(&from, &to)?;
        } else {
            let link = Change::Link {
                from: &from,
                to: &to,
            };
            announce(link)
                .and_then(|()| fs::hard_link(&from, &to))
                .map_err(|e| Error::io("link", &from, e))?;
        }
    }
    sync_dir(to)
}

/// Writes a file and makes its content durable; its name is so when its directory is synced.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let file = OutFile::create(path).map_err(|e| Error::io("create", path, e))?;
    let mut file = file.synced_as_written();
    file.write_all(bytes)
        .map_err(|e| Error::io("write", path, e))?;
    file.sync_all().map_err(|e| Error::io("sync", path, e))
}

/// The names in a directory that are UTF-8, sorted.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, Error> {
    let wrap = |e| Error::io("list directory", path, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(wrap)? {
        names.extend(entry.map_err(wrap)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// The bytes of all files in a directory and below. What disappears meanwhile counts nothing.
pub(crate) fn dir_bytes(path: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for name in names(path)? {
        let path = path.join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => bytes += dir_bytes(&path)?,
            Ok(meta) => bytes += meta.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("stat", &path, e)),
        }
    }
    Ok(bytes)
}
