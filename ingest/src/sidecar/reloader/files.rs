//! The watched files: whether they have changed, and what is in them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use super::ReloaderConfig;

/// How deep directories may lie in each other.
const DEPTH_MAX: usize = 8;
/// Most files.
const FILES_MAX: usize = 100_000;

/// What can be seen of files without reading them: path, inode, size and time of change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, u64, u64, i64, i64)>);

/// A hash of names and contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents(u128);

pub(super) fn stamp(config: &ReloaderConfig) -> Result<Stamp, String> {
    let mut seen = Vec::new();
    for path in all(config)? {
        let it = fs::metadata(&path).map_err(|why| at(&path, &why))?;
        seen.push((path, it.ino(), it.size(), it.mtime(), it.mtime_nsec()));
    }
    Ok(Stamp(seen))
}

pub(super) fn contents(config: &ReloaderConfig) -> Result<Contents, String> {
    let mut hash = Xxh3Default::new();
    for path in all(config)? {
        let text = fs::read(&path).map_err(|why| at(&path, &why))?;
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update(&[0xff]);
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(&text);
    }
    Ok(Contents(hash.digest128()))
}

fn all(config: &ReloaderConfig) -> Result<Vec<PathBuf>, String> {
    let mut files: Vec<PathBuf> = config.config_file.iter().cloned().collect();
    for dir in &config.rule_dirs {
        walk(dir, 0, &mut files)?;
    }
    Ok(files)
}

/// The files below a directory, by name. Links to directories are not followed.
fn walk(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(dir).map_err(|why| at(dir, &why))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|why| at(dir, &why))?.path());
    }
    paths.sort();
    for path in paths {
        let link = fs::symlink_metadata(&path).map_err(|why| at(&path, &why))?;
        if link.is_dir() {
            if depth < DEPTH_MAX {
                walk(&path, depth + 1, files)?;
            }
        } else if fs::metadata(&path)
            .map_err(|why| at(&path, &why))?
            .is_file()
        {
            if files.len() >= FILES_MAX {
                return Err(format!("{}: more than {FILES_MAX} files", dir.display()));
            }
            files.push(path);
        }
    }
    Ok(())
}

fn at(path: &Path, why: &std::io::Error) -> String {
    format!("{}: {why}", path.display())
}
