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

/// A file that is written.
#[derive(Debug)]
pub(crate) struct OutFile {
    path: PathBuf,
    file: File,
    position: u64,
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
        })
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
        let (path, offset) = (&self.path, self.position);
        announce(Change::Write {
            path,
            offset,
            bytes,
        })?;
        let written = self.file.write(bytes)?;
        self.position += written as u64;
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
