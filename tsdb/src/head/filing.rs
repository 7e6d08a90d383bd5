//! Sealed chunks leave the heap: from time to time they are written to a file, and when that is on
//! disk each series is told where its chunks are.

use std::sync::atomic::Ordering;

use crate::Error;
use crate::chunks::Chunk;
use crate::pace::breathe;

use super::Head;
use super::chunk_files::{ChunkFiles, FILE_BYTES_MAX, NewFile};
use super::series::{Filed, MemSeries};
use super::shard::{SHARDS, shard_of};

/// A chunk on its way: the series, the chunk, its offset in the file.
type Moving = (u32, Chunk, u32);

/// So many series are looked at while a shard is locked.
const SERIES_BATCH: usize = 256;

impl Head {
    /// The memory of chunks that appends have sealed since the last call of [`Head::file_chunks`] or
    /// [`Head::file_sealed`], in bytes.
    #[inline]
    pub(crate) fn sealed_bytes(&self) -> usize {
        self.sealed_bytes.load(Ordering::Relaxed)
    }

    /// Moves sealed chunks of all series to files, and gives their number. When they take less than
    /// `bytes_min`, nothing is done. A shard is locked for a few hundred series at a time, and never
    /// while the disk is busy.
    ///
    /// # Errors
    /// When a file cannot be written; its chunks stay where they are.
    pub(crate) fn file_chunks(&self, files: &ChunkFiles, bytes_min: usize) -> Result<u64, Error> {
        self.sealed_bytes.store(0, Ordering::Relaxed);
        let mut filing = Filing::new(self, files);
        for shard in 0..SHARDS {
            for page in 0.. {
                let locked = self.shards[shard].lock();
                let Some(series) = locked.page(shard, page) else {
                    break;
                };
                for (id, series) in series {
                    filing.take(id, series);
                }
                drop(locked);
                filing.write()?;
            }
            self.shards[shard].lock().sealed.clear();
        }
        filing.finish(bytes_min)
    }

    /// As [`Head::file_chunks`], but looks only at series of which an append has sealed a chunk since
    /// the last time, and so does not take longer when there are many others.
    ///
    /// # Errors
    /// When a file cannot be written; its chunks stay where they are, for [`Head::file_chunks`].
    pub(crate) fn file_sealed(&self, files: &ChunkFiles) -> Result<u64, Error> {
        self.sealed_bytes.store(0, Ordering::Relaxed);
        let mut filing = Filing::new(self, files);
        for shard in self.shards.iter() {
            let sealed = std::mem::take(&mut shard.lock().sealed);
            for ids in sealed.chunks(SERIES_BATCH) {
                let locked = shard.lock();
                for id in ids {
                    if let Some(series) = locked.get(*id) {
                        filing.take(*id, series);
                    }
                }
                drop(locked);
                filing.write()?;
            }
        }
        filing.finish(0)
    }
}

/// Chunks that are being moved.
struct Filing<'a> {
    head: &'a Head,
    files: &'a ChunkFiles,
    /// Those that were found in series just now.
    fresh: Vec<(u32, Chunk)>,
    file: Option<NewFile>,
    /// What is in the file.
    moving: Vec<Moving>,
    filed: u64,
}

impl<'a> Filing<'a> {
    fn new(head: &'a Head, files: &'a ChunkFiles) -> Self {
        Filing {
            head,
            files,
            fresh: Vec::new(),
            file: None,
            moving: Vec::new(),
            filed: 0,
        }
    }

    /// Takes note of the chunks of a series. Called while its shard is locked.
    fn take(&mut self, id: u32, series: &MemSeries) {
        let chunks = series.sealed_on_heap().cloned();
        self.fresh.extend(chunks.map(|chunk| (id, chunk)));
    }

    /// Writes what was taken. Called while nothing is locked.
    fn write(&mut self) -> Result<(), Error> {
        breathe();
        let written = self.write_fresh();
        if written.is_err()
            && let Some(file) = self.file.take()
        {
            self.files.discard(file)?;
        }
        written
    }

    fn write_fresh(&mut self) -> Result<(), Error> {
        for (id, chunk) in self.fresh.drain(..) {
            let file = self.file.get_or_insert_with(|| self.files.begin());
            let offset = file.add(&chunk)?;
            self.moving.push((id, chunk, offset));
        }
        let len = self.file.as_ref().map_or(0, NewFile::len);
        if len >= FILE_BYTES_MAX {
            self.end_file()?;
        }
        Ok(())
    }

    /// Ends the last file, unless it is shorter than `bytes_min`; gives the number of chunks moved.
    fn finish(mut self, bytes_min: usize) -> Result<u64, Error> {
        match &self.file {
            Some(file) if file.len() >= bytes_min => self.end_file()?,
            Some(_) => {
                if let Some(file) = self.file.take() {
                    self.files.discard(file)?;
                }
            }
            None => {}
        }
        Ok(self.filed)
    }

    /// Has the file on disk, then tells the series.
    fn end_file(&mut self) -> Result<(), Error> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let file = self.files.finish(file)?;
        self.filed += self.moving.len() as u64;
        // They come shard by shard.
        let together = |a: &Moving, b: &Moving| shard_of(a.0) == shard_of(b.0);
        for group in self.moving.chunk_by(together) {
            for group in group.chunks(SERIES_BATCH) {
                let Some((first, ..)) = group.first() else {
                    continue;
                };
                breathe();
                let mut locked = self.head.shards[shard_of(*first)].lock();
                for (id, chunk, offset) in group {
                    let filed = Filed::new(file.clone(), *offset, chunk.encoding, chunk.range());
                    if let (Some(series), Some(filed)) = (locked.get_mut(*id), filed) {
                        series.note_filed(chunk, filed);
                    }
                }
            }
        }
        self.moving.clear();
        Ok(())
    }
}
