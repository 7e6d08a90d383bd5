//! Where sealed chunks lie once they have left the heap: files that are written in one go, synced,
//! mapped and never changed.
//!
//! A file `isobar-chunks/00000001` has the form of a block's chunk segment
//! ([`crate::chunks::segment`]). It says nothing of series: who reads it knows the offset, from
//! memory or from a snapshot of the head. Chunks that were filed after the snapshot are in the log
//! too, so a file that no snapshot names is of no use after a start and is removed. While a
//! database is open, a file goes when a snapshot has been written in which no series refers to it.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use crate::Error;
use crate::chunks::segment::{header, put_chunk, read_chunk};
use crate::chunks::{Chunk, Encoding};
use crate::db::files;
use crate::disk::OutFile;
use crate::mmap::Mapped;

/// The directory of the files inside the data directory.
pub(crate) const CHUNKS_DIR: &str = "isobar-chunks";
/// A file is ended when it is at least this long.
pub(crate) const FILE_BYTES_MAX: usize = 8 << 20;
/// Chunks are written when there are so many bytes of them.
const WRITE_BYTES: usize = 256 << 10;

/// A file that is complete and on disk.
#[derive(Debug)]
pub(crate) struct ChunkFile {
    number: u32,
    path: PathBuf,
    map: Mapped,
}

impl ChunkFile {
    /// The number in its name.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Whether there may be a chunk at this offset.
    pub(crate) fn holds(&self, offset: u32) -> bool {
        (offset as usize) < self.map.bytes().len()
    }

    /// Takes what was read of it out of the process' memory.
    pub(crate) fn release_pages(&self) {
        // Should the system refuse, some memory stays longer than it must.
        let _refused = self.map.release_pages();
    }

    /// The chunk at `offset`, not copied; its checksum is verified.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is none.
    pub(crate) fn read(&self, offset: u32) -> Result<(Encoding, Bytes), Error> {
        let (code, data) = read_chunk(self.map.bytes(), offset).map_err(|e| {
            let name = self.path.display().to_string();
            e.at(&name, format!("chunk at offset {offset}"))
        })?;
        let encoding = Encoding::from_u8(code).ok_or_else(|| {
            let why = format!("chunk at offset {offset}: unknown encoding {code}");
            Error::corrupt(self.path.display().to_string(), why)
        })?;
        Ok((encoding, self.map.bytes().slice_ref(data)))
    }
}

/// The files of a head.
#[derive(Debug)]
pub(crate) struct ChunkFiles {
    dir: PathBuf,
    next: AtomicU32,
}

impl ChunkFiles {
    /// The files in the data directory `dir`.
    ///
    /// # Errors
    /// When their directory cannot be made or listed.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let dir = dir.join(CHUNKS_DIR);
        files::create_dir(&dir)?;
        let last = numbers(&dir)?.last().copied().unwrap_or(0);
        let next = AtomicU32::new(last + 1);
        Ok(ChunkFiles { dir, next })
    }

    /// The number of the file that is written next: all that are there are older.
    pub(crate) fn next(&self) -> u32 {
        self.next.load(Ordering::Acquire)
    }

    /// The directory of the files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins a file. There is nothing of it on disk before it has some length.
    pub(crate) fn begin(&self) -> NewFile {
        let number = self.next.fetch_add(1, Ordering::AcqRel);
        NewFile {
            number,
            path: self.path(number),
            file: None,
            bytes: header().to_vec(),
            written: 0,
        }
    }

    /// Writes what is left of the file to disk.
    ///
    /// # Errors
    /// When that fails; what is there of it is removed.
    pub(crate) fn finish(&self, mut file: NewFile) -> Result<Arc<ChunkFile>, Error> {
        let (number, path) = (file.number, file.path.clone());
        let mut write = || {
            file.write()?;
            if let Some(file) = file.file.take() {
                file.sync_all().map_err(|e| Error::io("sync", &path, e))?;
            }
            files::sync_dir(&self.dir)?;
            Mapped::open(&path)
        };
        match write() {
            Ok(map) => Ok(Arc::new(ChunkFile { number, path, map })),
            Err(e) => {
                self.discard(file)?;
                Err(e)
            }
        }
    }

    /// Removes what is there of a file that is not finished.
    ///
    /// # Errors
    /// When that fails; a file that nobody names goes at the next start.
    pub(crate) fn discard(&self, file: NewFile) -> Result<(), Error> {
        if file.path.exists() {
            files::remove_file(&file.path)?;
        }
        Ok(())
    }

    /// Removes the files numbered below `end` that are not `wanted`.
    ///
    /// # Errors
    /// When the directory cannot be listed or a file not be removed.
    pub(crate) fn remove_unwanted(&self, wanted: &BTreeSet<u32>, end: u32) -> Result<(), Error> {
        let unwanted = numbers(&self.dir)?;
        for number in unwanted.into_iter().filter(|number| *number < end) {
            if !wanted.contains(&number) {
                files::remove_file(&self.path(number))?;
            }
        }
        Ok(())
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:08}"))
    }
}

fn numbers(dir: &Path) -> Result<Vec<u32>, Error> {
    let names = files::names(dir)?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A file that is being written.
pub(crate) struct NewFile {
    number: u32,
    path: PathBuf,
    file: Option<OutFile>,
    /// What is not written yet.
    bytes: Vec<u8>,
    written: usize,
}

impl NewFile {
    /// Adds a chunk and gives its offset.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn add(&mut self, chunk: &Chunk) -> Result<u32, Error> {
        let offset = u32::try_from(self.len()).unwrap_or(u32::MAX);
        put_chunk(&mut self.bytes, chunk);
        if self.bytes.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(offset)
    }

    /// The length so far, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.written + self.bytes.len()
    }

    fn write(&mut self) -> Result<(), Error> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let path = &self.path;
                let file = OutFile::create(path).map_err(|e| Error::io("create", path, e))?;
                self.file.insert(file.synced_as_written())
            }
        };
        file.write_all(&self.bytes)
            .map_err(|e| Error::io("write", &self.path, e))?;
        self.written += self.bytes.len();
        self.bytes.clear();
        Ok(())
    }
}

/// Opens files by number, each once.
#[derive(Debug)]
pub(crate) struct OpenFiles<'a> {
    files: &'a ChunkFiles,
    open: HashMap<u32, Option<Arc<ChunkFile>>>,
}

impl<'a> OpenFiles<'a> {
    pub(crate) fn new(files: &'a ChunkFiles) -> Self {
        let open = HashMap::new();
        OpenFiles { files, open }
    }

    /// Where the files lie.
    pub(crate) fn files(&self) -> &'a ChunkFiles {
        self.files
    }

    /// The file with this number; the text says why it cannot be read.
    pub(crate) fn get(&mut self, number: u32) -> Result<Arc<ChunkFile>, String> {
        let path = self.files.path(number);
        let missing = || format!("{} cannot be read", path.display());
        if let Some(known) = self.open.get(&number) {
            return known.clone().ok_or_else(missing);
        }
        let opened = Mapped::open(&path).map_err(|e| crate::db::describe(&e));
        let file = opened.map(|map| {
            let path = path.clone();
            Arc::new(ChunkFile { number, path, map })
        });
        self.open.insert(number, file.as_ref().ok().cloned());
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(min_ms: i64, data: &'static [u8]) -> Chunk {
        Chunk {
            encoding: Encoding::Xor,
            min_ms,
            max_ms: min_ms,
            data: Bytes::from_static(data),
        }
    }

    #[test]
    fn chunks_come_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let files = ChunkFiles::open(dir.path()).unwrap();
        let mut new = files.begin();
        let offsets = [chunk(1, b"one"), chunk(2, b"two")].map(|it| new.add(&it).unwrap());
        let file = files.finish(new).unwrap();
        assert_eq!(file.read(offsets[0]).unwrap().1, "one");
        assert_eq!(file.read(offsets[1]).unwrap().1, "two");
        assert!(file.read(offsets[1] + 1).is_err());
        assert!(!file.holds(1000) && file.read(1000).is_err());

        let again = ChunkFiles::open(dir.path()).unwrap();
        assert_eq!(again.next(), 2);
        let mut open = OpenFiles::new(&again);
        assert_eq!(
            open.get(1).unwrap().read(offsets[1]).unwrap().0,
            Encoding::Xor
        );
        assert!(open.get(7).is_err());
        again.remove_unwanted(&BTreeSet::from([1]), 2).unwrap();
        assert!(again.path(1).exists());
        again.remove_unwanted(&BTreeSet::new(), 2).unwrap();
        assert!(!again.path(1).exists());
        // Who has it mapped reads on.
        assert!(file.read(offsets[0]).is_ok());
    }
}
