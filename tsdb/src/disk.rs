//! Every change that is made to files goes through here, and can be watched and refused.
//!
//! A test that wants to know what a crash leaves behind watches a directory, writes down the order
//! of changes and syncs, and works out what a disk that had lost power at any point could hold.
//! Without a watch the cost is one relaxed load per change.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

/// A change that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// An empty file is created, or an existing one emptied.
    Create(&'a Path),
    /// Bytes are written to a file.
    Write {
        /// The file.
        path: &'a Path,
        /// Where in it.
        offset: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// A file is cut or extended with zeros.
    SetLen {
        /// The file.
        path: &'a Path,
        /// Its length from now on.
        len: u64,
    },
    /// A file's content is made durable.
    Sync(&'a Path),
    /// A directory is made.
    CreateDir(&'a Path),
    /// The names in a directory are made durable.
    SyncDir(&'a Path),
    /// A file or directory gets another name, replacing a file that has it.
    Rename {
        /// The old name.
        from: &'a Path,
        /// The new name.
        to: &'a Path,
    },
    /// A file gets a second name.
    Link {
        /// The old name.
        from: &'a Path,
        /// The new name.
        to: &'a Path,
    },
    /// A file is removed.
    Remove(&'a Path),
    /// A directory is removed with all that is in it.
    RemoveDir(&'a Path),
}

impl<'a> Change<'a> {
    fn path(&self) -> &'a Path {
        match *self {
            Change::Create(path)
            | Change::Write { path, .. }
            | Change::SetLen { path, .. }
            | Change::Sync(path)
            | Change::CreateDir(path)
            | Change::SyncDir(path)
            | Change::Rename { from: path, .. }
            | Change::Link { from: path, .. }
            | Change::Remove(path)
            | Change::RemoveDir(path) => path,
        }
    }
}

/// Called before each change, from any thread; an error is given to whoever wants to make it, and
/// the change is not made.
pub type Watch = Arc<dyn Fn(&Change<'_>) -> io::Result<()> + Send + Sync>;

static WATCH_COUNT: AtomicUsize = AtomicUsize::new(0);
static WATCHES: RwLock<Vec<(PathBuf, Watch)>> = RwLock::new(Vec::new());

/// Ends a watch when it is dropped.
#[must_use]
pub struct Watching {
    dir: PathBuf,
}

/// Watches all changes in a directory and below, until the returned value is dropped.
pub fn watch(dir: &Path, watch: Watch) -> Watching {
    let dir = dir.to_owned();
    WATCHES.write().push((dir.clone(), watch));
    WATCH_COUNT.fetch_add(1, Ordering::Release);
    Watching { dir }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watches = WATCHES.write();
        if let Some(at) = watches.iter().position(|(dir, _)| *dir == self.dir) {
            watches.remove(at);
            WATCH_COUNT.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Tells of a change that is about to be made.
///
/// # Errors
/// When a watch refuses it.
#[inline]
pub(crate) fn announce(change: Change<'_>) -> io::Result<()> {
    if WATCH_COUNT.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    let path = change.path();
    let watches = WATCHES.read();
    let found = watches.iter().find(|(dir, _)| path.starts_with(dir));
    let watch = found.map(|(_, watch)| Arc::clone(watch));
    drop(watches);
    watch.map_or(Ok(()), |watch| watch(&change))
}

/// A file that is written in one go is synced whenever this many bytes came. The log's sync waits for
/// what the file system has to write of other files: with 200 MB synced at the end, appends of 50 KB
/// took up to 78 ms, and no longer than otherwise with 1 MiB at a time.
const SYNC_BYTES: u64 = 1 << 20;

/// A file that is written.
#[derive(Debug)]
pub(crate) struct OutFile {
    path: PathBuf,
    file: File,
    position: u64,
    /// Bytes written since the last sync, in a file that is synced as it is written.
    unsynced: Option<u64>,
}

impl OutFile {
    /// A new file; an error when there is one.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        announce(Change::Create(path))?;
        OutFile::at_start(path, File::create_new(path)?)
    }

    /// A new file in the place of one that may be there.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        announce(Change::Create(path))?;
        OutFile::at_start(path, File::create(path)?)
    }

    /// An existing file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).open(path)?;
        OutFile::at_start(path, file)
    }

    fn at_start(path: &Path, file: File) -> io::Result<Self> {
        let path = path.to_owned();
        Ok(OutFile {
            path,
            file,
            position: 0,
            unsynced: None,
        })
    }

    /// Has the file synced bit by bit as it is written, so that a large one does not hold up the log.
    pub(crate) fn synced_as_written(self) -> Self {
        let unsynced = Some(0);
        OutFile { unsynced, ..self }
    }

    /// Makes content and length durable.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        announce(Change::Sync(&self.path))?;
        self.file.sync_all()
    }

    /// Makes the content durable, and of the rest what is needed to read it.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        announce(Change::Sync(&self.path))?;
        self.file.sync_data()
    }

    /// Cuts the file.
    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        let path = &self.path;
        announce(Change::SetLen { path, len })?;
        self.file.set_len(len)
    }
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = match self.unsynced {
            Some(unsynced) => SYNC_BYTES - unsynced,
            None => u64::MAX,
        };
        let most = usize::try_from(room).unwrap_or(usize::MAX);
        let bytes = bytes.get(..most).unwrap_or(bytes);
        let (path, offset) = (&self.path, self.position);
        announce(Change::Write {
            path,
            offset,
            bytes,
        })?;
        let written = self.file.write(bytes)?;
        self.position += written as u64;
        if let Some(unsynced) = self.unsynced {
            let unsynced = unsynced + written as u64;
            let full = unsynced >= SYNC_BYTES;
            self.unsynced = Some(if full { 0 } else { unsynced });
            if full {
                self.sync_data()?;
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for OutFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[test]
    fn a_large_file_is_synced_as_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let changes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&changes);
        let watching = watch(
            dir.path(),
            Arc::new(move |change| {
                seen.lock().push(match change {
                    Change::Write { offset, bytes, .. } => format!("{offset}+{}", bytes.len()),
                    Change::Sync(_) => "sync".to_owned(),
                    _ => "create".to_owned(),
                });
                Ok(())
            }),
        );
        let mut file = OutFile::create(&dir.path().join("large"))
            .unwrap()
            .synced_as_written();
        file.write_all(&[1; 1000]).unwrap();
        file.write_all(&vec![2; (2 << 20) + 10]).unwrap();
        drop(watching);
        let written = std::fs::metadata(dir.path().join("large")).unwrap().len();
        assert_eq!(written, (2 << 20) + 1010);
        let expected = "create 0+1000 1000+1047576 sync 1048576+1048576 sync 2097152+1010";
        assert_eq!(changes.lock().join(" "), expected);
    }
}
