//! Sealed chunks leave the heap: from time to time they are written to a file, and when that is on
//! disk each series is told where its chunks are.

use crate::Error;
use crate::chunks::Chunk;

use super::Head;
use super::chunk_files::{ChunkFiles, FILE_BYTES_MAX, NewFile};
use super::series::Filed;
use super::shard::{SHARDS, shard_of};

/// A chunk on its way: the series, the chunk, its offset in the file.
type Moving = (u32, Chunk, u32);

impl Head {
    /// Moves sealed chunks to files, and gives their number. When they take less than `bytes_min`,
    /// nothing is done. A shard is locked for a few hundred series at a time, and never while the
    /// disk is busy.
    ///
    /// # Errors
    /// When a file cannot be written; its chunks stay where they are.
    pub(crate) fn file_chunks(&self, files: &ChunkFiles, bytes_min: usize) -> Result<u64, Error> {
        let mut file = files.begin();
        let mut moving: Vec<Moving> = Vec::new();
        let mut filed = 0;
        let mut fresh: Vec<(u32, Chunk)> = Vec::new();
        for shard in 0..SHARDS {
            for page in 0.. {
                {
                    let locked = self.shards[shard].lock();
                    let Some(series) = locked.page(shard, page) else {
                        break;
                    };
                    let chunks = |series: &'_ super::series::MemSeries| {
                        series.sealed_on_heap().cloned().collect::<Vec<_>>()
                    };
                    for (id, series) in series {
                        fresh.extend(chunks(series).into_iter().map(|chunk| (id, chunk)));
                    }
                }
                for (id, chunk) in fresh.drain(..) {
                    let offset = file.add(&chunk);
                    moving.push((id, chunk, offset));
                }
                if file.len() >= FILE_BYTES_MAX {
                    let full = std::mem::replace(&mut file, files.begin());
                    filed += self.finish_file(files, full, &mut moving)?;
                }
            }
        }
        if !moving.is_empty() && file.len() >= bytes_min {
            filed += self.finish_file(files, file, &mut moving)?;
        }
        Ok(filed)
    }

    /// Writes the file, then tells the series.
    fn finish_file(
        &self,
        files: &ChunkFiles,
        file: NewFile,
        moving: &mut Vec<Moving>,
    ) -> Result<u64, Error> {
        let file = files.finish(file)?;
        let count = moving.len() as u64;
        // They come shard by shard.
        for group in
            moving.chunk_by(|(a, ..), (b, ..)| a / 256 == b / 256 && shard_of(*a) == shard_of(*b))
        {
            let Some((first, ..)) = group.first() else {
                continue;
            };
            let mut locked = self.shards[shard_of(*first)].lock();
            for (id, chunk, offset) in group {
                let filed = Filed::new(file.clone(), *offset, chunk.encoding, chunk.range());
                if let (Some(series), Some(filed)) = (locked.get_mut(*id), filed) {
                    series.note_filed(chunk, filed);
                }
            }
        }
        moving.clear();
        Ok(count)
    }
}
