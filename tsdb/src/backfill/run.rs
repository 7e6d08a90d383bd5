//! What does not fit into memory: a file with the chunks of all windows, read again when the
//! blocks are written.
//!
//! ```text
//! series: number <4b> │ chunks <4b> │ chunk…     in label order within a window
//! chunk:  encoding <1b> │ first time <8b> │ last time <8b> │ len <4b> │ data
//! ```
//!
//! Where each window begins is kept in memory; the file has no life beyond its [`super::Backfill`],
//! whatever happens.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;

use super::SeriesId;
use crate::Error;
use crate::chunks::{Chunk, Encoding};
use crate::disk::OutFile;
use crate::encoding::{Decoder, put_be32, put_be64};
use crate::mmap::map_file;

const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// A file that is being written.
pub(super) struct RunWriter {
    path: PathBuf,
    file: BufWriter<OutFile>,
    position: u64,
    windows: BTreeMap<i64, Range<u64>>,
    scratch: Vec<u8>,
}

impl RunWriter {
    pub(super) fn create(path: PathBuf) -> Result<Self, Error> {
        let file = OutFile::create_new(&path).map_err(|e| Error::io("create", &path, e))?;
        let file = file.synced_as_written();
        Ok(RunWriter {
            path,
            file: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file),
            position: 0,
            windows: BTreeMap::new(),
            scratch: Vec::new(),
        })
    }

    /// Writes the chunks of a series; those of one window come together, in label order.
    pub(super) fn write(
        &mut self,
        window: i64,
        series: SeriesId,
        chunks: &[Chunk],
    ) -> Result<(), Error> {
        self.scratch.clear();
        put_be32(&mut self.scratch, series.0);
        put_be32(&mut self.scratch, length(chunks.len())?);
        for chunk in chunks {
            self.scratch.push(chunk.encoding as u8);
            put_be64(&mut self.scratch, chunk.min_ms.cast_unsigned());
            put_be64(&mut self.scratch, chunk.max_ms.cast_unsigned());
            put_be32(&mut self.scratch, length(chunk.data.len())?);
            self.scratch.extend_from_slice(&chunk.data);
        }
        self.file
            .write_all(&self.scratch)
            .map_err(|e| Error::io("write", &self.path, e))?;
        let begin = self.position;
        self.position += self.scratch.len() as u64;
        self.windows.entry(window).or_insert(begin..begin).end = self.position;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Run, Error> {
        let file = self.file.into_inner();
        file.map_err(|e| Error::io("write", &self.path, e.into_error()))?;
        Ok(Run {
            name: self.path.display().to_string(),
            bytes: map_file(&self.path)?,
            windows: self.windows,
        })
    }
}

fn length(len: usize) -> Result<u32, Error> {
    u32::try_from(len).map_err(|_| Error::LimitExceeded(format!("{len} chunks or bytes of one")))
}

/// A file that is complete.
pub(super) struct Run {
    name: String,
    bytes: Bytes,
    windows: BTreeMap<i64, Range<u64>>,
}

impl Run {
    /// The windows that it has something of.
    pub(super) fn windows(&self) -> impl Iterator<Item = i64> {
        self.windows.keys().copied()
    }

    /// The series of a window with their chunks, in label order.
    pub(super) fn section(&self, window: i64) -> Section {
        let range = self.windows.get(&window).cloned().unwrap_or_default();
        let [from, to] = [range.start, range.end].map(|at| usize::try_from(at).unwrap_or(0));
        let bytes = match from <= to && to <= self.bytes.len() {
            true => self.bytes.slice(from..to),
            false => Bytes::new(),
        };
        Section {
            name: self.name.clone(),
            bytes,
        }
    }
}

/// Reads what a run has of a window.
pub(super) struct Section {
    name: String,
    bytes: Bytes,
}

impl Section {
    fn series(&mut self) -> Result<(SeriesId, Vec<Chunk>), Error> {
        let mut decoder = Decoder::new(&self.bytes);
        let wrap = |e: crate::encoding::DecodeError| e.at(&self.name, "series");
        let series = SeriesId(decoder.be32().map_err(wrap)?);
        let count = decoder.be32().map_err(wrap)?;
        let mut chunks = Vec::new();
        for _ in 0..count {
            let encoding = Encoding::from_u8(decoder.u8().map_err(wrap)?)
                .ok_or_else(|| Error::corrupt(&self.name, "unknown encoding"))?;
            let min_ms = decoder.be64().map_err(wrap)?.cast_signed();
            let max_ms = decoder.be64().map_err(wrap)?.cast_signed();
            let len = decoder.be32().map_err(wrap)?;
            let data = decoder.bytes(len as usize).map_err(wrap)?;
            chunks.push(Chunk {
                encoding,
                min_ms,
                max_ms,
                data: self.bytes.slice_ref(data),
            });
        }
        self.bytes = self.bytes.slice_ref(decoder.rest());
        Ok((series, chunks))
    }
}

/// After an error there is nothing more.
impl Iterator for Section {
    type Item = Result<(SeriesId, Vec<Chunk>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let series = self.series();
        if series.is_err() {
            self.bytes.clear();
        }
        Some(series)
    }
}
