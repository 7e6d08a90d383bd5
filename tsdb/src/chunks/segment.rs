//! Chunk segment files: `chunks/000001`, `000002`, … of a block (Prometheus `tsdb/chunks`).
//!
//! ```text
//! ┌──────────────────────┬─────────────┬──────────────┬─────────┬─────────┬───
//! │ magic 85BD40DD <4b>  │ version <1b>│ zeros <3b>   │ chunk 1 │ chunk 2 │ …
//! └──────────────────────┴─────────────┴──────────────┴─────────┴─────────┴───
//! chunk: ┌────────────────┬────────────────┬──────────────┬───────────────┐
//!        │ len <uvarint>  │ encoding <1b>  │ data <len>   │ CRC-32C <4b>  │
//!        └────────────────┴────────────────┴──────────────┴───────────────┘
//! ```
//!
//! The checksum is that of encoding and data. A [`ChunkRef`] says in which file, counted from 0,
//! and at which offset a chunk begins.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Chunk, Encoding};
use crate::Error;
use crate::db::files;
use crate::disk::OutFile;
use crate::encoding::{Crc32c, DecodeError, Decoder, put_be32, put_uvarint};
use crate::mmap::map_file;

const MAGIC: u32 = 0x85bd_40dd;
const VERSION: u8 = 1;
pub(crate) const HEADER_BYTES: usize = 8;
/// The most that the length in front of a chunk can take.
const LENGTH_BYTES_MAX: u64 = 5;
const ENCODING_BYTES: u64 = 1;
const CHECKSUM_BYTES: u64 = 4;
/// A segment file is closed before it grows beyond this, as in Prometheus.
pub const SEGMENT_BYTES_MAX: u64 = 512 << 20;
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// Where a chunk lies in its block: the segment file in the upper 32 bits, the offset in the
/// lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkRef(u64);

impl ChunkRef {
    /// The chunk at `offset` in file number `segment`, counted from 0.
    pub fn new(segment: u32, offset: u32) -> Self {
        ChunkRef(u64::from(segment) << 32 | u64::from(offset))
    }

    /// The reference as the index holds it.
    pub fn from_u64(raw: u64) -> Self {
        ChunkRef(raw)
    }

    /// The reference as the index holds it.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of the file, counted from 0.
    pub fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset in the file.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub fn offset(self) -> u32 {
        self.0 as u32
    }
}

/// Writes chunks into numbered segment files.
pub struct SegmentWriter {
    dir: PathBuf,
    segment_bytes_max: u64,
    /// The number of segments begun; the last of them is the current one.
    segments: u32,
    current: Option<BufWriter<OutFile>>,
    /// The length of the current segment so far.
    position: u64,
    written_bytes: u64,
    scratch: Vec<u8>,
}

impl SegmentWriter {
    /// A writer into `dir`, which is created if need be. Files are at most `segment_bytes_max`
    /// long, unless a single chunk is longer ([`SEGMENT_BYTES_MAX`] is what Prometheus uses; a
    /// reference cannot express more than 4 GiB).
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn create(dir: impl Into<PathBuf>, segment_bytes_max: u64) -> Result<Self, Error> {
        let dir = dir.into();
        files::create_dir(&dir)?;
        Ok(SegmentWriter {
            dir,
            segment_bytes_max: segment_bytes_max.min(u64::from(u32::MAX)),
            segments: 0,
            current: None,
            position: 0,
            written_bytes: 0,
            scratch: Vec::new(),
        })
    }

    /// Writes the chunks of one series and appends where they lie to `refs`.
    ///
    /// # Errors
    /// When a file cannot be created or written.
    pub fn write(&mut self, chunks: &[Chunk], refs: &mut Vec<ChunkRef>) -> Result<(), Error> {
        // Prometheus decides with the chunks' largest possible sizes, summed up since the
        // segment's or the call's begin. Decided likewise, the files are the same.
        let begin = self.position;
        let mut batch_bytes = 0;
        let mut behind_begin = begin > HEADER_BYTES as u64;
        for (i, chunk) in chunks.iter().enumerate() {
            let chunk_bytes =
                LENGTH_BYTES_MAX + ENCODING_BYTES + chunk.data.len() as u64 + CHECKSUM_BYTES;
            batch_bytes += chunk_bytes;
            let full = if behind_begin {
                begin + batch_bytes > self.segment_bytes_max
            } else {
                i > 0 && HEADER_BYTES as u64 + batch_bytes > self.segment_bytes_max
            };
            if full {
                behind_begin = false;
                batch_bytes = chunk_bytes;
            }
            if full || self.current.is_none() {
                self.cut()?;
            }
            refs.push(self.write_chunk(chunk)?);
        }
        Ok(())
    }

    /// Writes everything to disk and gives the length of all files.
    ///
    /// # Errors
    /// When a file cannot be written or synced.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.close_current()?;
        Ok(self.written_bytes)
    }

    fn write_chunk(&mut self, chunk: &Chunk) -> Result<ChunkRef, Error> {
        let path = || segment_path(&self.dir, self.segments);
        let offset = u32::try_from(self.position)
            .map_err(|_| Error::LimitExceeded("a segment file is longer than 4 GiB".into()))?;
        let reference = ChunkRef::new(self.segments.saturating_sub(1), offset);
        self.scratch.clear();
        put_chunk(&mut self.scratch, chunk);
        if let Some(file) = &mut self.current {
            file.write_all(&self.scratch)
                .map_err(|e| Error::io("write", path(), e))?;
        }
        self.position += self.scratch.len() as u64;
        Ok(reference)
    }

    fn cut(&mut self) -> Result<(), Error> {
        self.close_current()?;
        self.segments += 1;
        let path = segment_path(&self.dir, self.segments);
        let file = OutFile::create_new(&path).map_err(|e| Error::io("create", &path, e))?;
        let file = file.synced_as_written();
        let mut file = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        file.write_all(&header())
            .map_err(|e| Error::io("write", &path, e))?;
        self.current = Some(file);
        self.position = HEADER_BYTES as u64;
        Ok(())
    }

    fn close_current(&mut self) -> Result<(), Error> {
        let Some(file) = self.current.take() else {
            return Ok(());
        };
        let path = segment_path(&self.dir, self.segments);
        let file = file
            .into_inner()
            .map_err(|e| Error::io("write", &path, e.into_error()))?;
        file.sync_all().map_err(|e| Error::io("sync", &path, e))?;
        self.written_bytes += self.position;
        Ok(())
    }
}

/// The path of a segment file; files are counted from 1.
fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:06}"))
}

/// Reads chunks from segment files.
#[derive(Debug, Clone)]
pub struct SegmentReader {
    /// What the files are called in errors.
    name: String,
    segments: Vec<Bytes>,
}

impl SegmentReader {
    /// Maps all segment files of a directory. Other files are left aside; the numbers must have
    /// no gap, because references count files.
    ///
    /// # Errors
    /// When a file cannot be mapped, or [`Error::Corrupt`] when it is no segment file.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let entries = fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))?;
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| Error::io("list", dir, e))?.file_name();
            let number = name.to_str().and_then(|name| name.parse::<u32>().ok());
            numbers.extend(number.map(|number| (number, dir.join(name))));
        }
        numbers.sort_unstable();
        let name = dir.display().to_string();
        if let Some((_, (number, path))) = numbers
            .iter()
            .enumerate()
            .find(|(i, (number, _))| *i as u64 + 1 != u64::from(*number))
        {
            return Err(Error::corrupt_at(
                path.display().to_string(),
                0,
                format!("there is no file before {number:06}"),
            ));
        }
        let maps = numbers.iter().map(|(_, path)| map_file(path));
        SegmentReader::new(name, maps.collect::<Result<_, _>>()?)
    }

    /// Reads from segments that are in memory already; `name` stands for them in errors.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when one is no segment file.
    pub fn new(name: impl Into<String>, segments: Vec<Bytes>) -> Result<Self, Error> {
        let name = name.into();
        for (i, segment) in segments.iter().enumerate() {
            check_header(segment).map_err(|why| Error::corrupt_at(file_name(&name, i), 0, why))?;
        }
        Ok(SegmentReader { name, segments })
    }

    /// The length of all files in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.len() as u64)
            .sum()
    }

    /// The encoding and the bytes of a chunk, not copied. The checksum is verified.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is no such chunk or its checksum does not match,
    /// [`Error::Unsupported`] when its encoding is unknown.
    pub fn chunk(&self, reference: ChunkRef) -> Result<(Encoding, Bytes), Error> {
        let number = usize::try_from(reference.segment()).unwrap_or(usize::MAX);
        let offset = u64::from(reference.offset());
        let file = || file_name(&self.name, number);
        let segment = self.segments.get(number).ok_or_else(|| {
            let why = format!("chunk at {offset}: there is no such file");
            Error::corrupt_at(file(), offset, why)
        })?;
        let (code, data) = read_chunk(segment, reference.offset())
            .map_err(|e| e.at_offset(&file(), "chunk", offset))?;
        let encoding = Encoding::from_u8(code).ok_or_else(|| {
            Error::Unsupported(format!(
                "{}: chunk at {offset}: unknown encoding {code}",
                file()
            ))
        })?;
        Ok((encoding, segment.slice_ref(data)))
    }
}

/// What a segment file begins with.
pub(crate) fn header() -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = MAGIC.to_be_bytes();
    [a, b, c, d, VERSION, 0, 0, 0]
}

/// Appends a chunk as it stands in a segment file.
pub(crate) fn put_chunk(out: &mut Vec<u8>, chunk: &Chunk) {
    put_uvarint(out, chunk.data.len() as u64);
    let checked_from = out.len();
    out.push(chunk.encoding as u8);
    out.extend_from_slice(&chunk.data);
    let mut crc = Crc32c::new();
    crc.update(out.get(checked_from..).unwrap_or_default());
    put_be32(out, crc.finish());
}

/// What the file of a segment, counted from 0, is called in errors.
fn file_name(dir: &str, segment: usize) -> String {
    format!("{dir}/{:06}", segment.saturating_add(1))
}

/// Checks the header of a segment file, and says what is wrong with it.
pub(crate) fn check_header(segment: &[u8]) -> Result<(), String> {
    let mut header = Decoder::new(segment);
    let mut read = || -> Result<_, DecodeError> {
        let parts = (header.be32()?, header.u8()?);
        header.bytes(HEADER_BYTES - 5)?;
        Ok(parts)
    };
    match read() {
        Ok((MAGIC, VERSION)) => Ok(()),
        Ok((MAGIC, version)) => Err(format!("header: format version {version}")),
        Ok((magic, _)) => Err(format!("header: magic number {magic:08x}")),
        Err(e) => Err(format!("header: {e}")),
    }
}

/// The number of the encoding and the bytes of the chunk at `offset` of a segment file, or of a part
/// of one, its checksum verified.
///
/// # Errors
/// When there is none; [`DecodeError::Truncated`] when the bytes end before it does.
pub fn read_chunk(segment: &[u8], offset: u32) -> Result<(u8, &[u8]), DecodeError> {
    let mut decoder = Decoder::at(segment, u64::from(offset))?;
    let len = decoder.uvarint_len()?;
    let checked = decoder.bytes(len.checked_add(1).ok_or(DecodeError::Truncated)?)?;
    decoder.checksum(checked)?;
    let (code, data) = checked.split_first().ok_or(DecodeError::Truncated)?;
    Ok((*code, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(len: usize) -> Chunk {
        let data = Bytes::from(vec![7; len]);
        Chunk {
            encoding: Encoding::Histogram,
            min_ms: 0,
            max_ms: 0,
            data,
        }
    }

    fn write(dir: &Path, segment_bytes_max: u64, series: &[&[usize]]) -> Vec<ChunkRef> {
        let mut writer = SegmentWriter::create(dir, segment_bytes_max).unwrap();
        let mut refs = Vec::new();
        for lens in series {
            let chunks: Vec<_> = lens.iter().map(|len| chunk(*len)).collect();
            writer.write(&chunks, &mut refs).unwrap();
        }
        writer.finish().unwrap();
        refs
    }

    #[test]
    fn chunks_come_back_from_several_files() {
        let dir = tempfile::tempdir().unwrap();
        let refs = write(dir.path(), 60, &[&[10, 10, 10], &[100], &[1, 1]]);
        let places: Vec<_> = refs.iter().map(|r| (r.segment(), r.offset())).collect();
        assert_eq!(places, [(0, 8), (0, 24), (1, 8), (2, 8), (3, 8), (3, 15)]);
        let reader = SegmentReader::open(dir.path()).unwrap();
        assert_eq!(reader.size_bytes(), 40 + 24 + 114 + 22);
        for (reference, len) in refs.into_iter().zip([10, 10, 10, 100, 1, 1]) {
            let (encoding, data) = reader.chunk(reference).unwrap();
            assert_eq!((encoding, data), (Encoding::Histogram, chunk(len).data));
        }
    }

    #[test]
    fn damage_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let refs = write(dir.path(), SEGMENT_BYTES_MAX, &[&[3]]);
        let bytes = fs::read(dir.path().join("000001")).unwrap();
        let open = |bytes: &[u8]| {
            let segment = Bytes::copy_from_slice(bytes);
            SegmentReader::new("chunks", vec![segment])?.chunk(refs[0])
        };
        assert!(open(&bytes).is_ok());
        for len in 0..bytes.len() {
            assert!(
                matches!(open(&bytes[..len]), Err(Error::Corrupt { .. })),
                "{len} bytes"
            );
        }
        for i in (0..bytes.len()).filter(|i| !(5..8).contains(i)) {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x41;
            assert!(
                matches!(open(&damaged), Err(Error::Corrupt { .. })),
                "byte {i}"
            );
        }
    }

    #[test]
    fn a_missing_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 20, &[&[3], &[3]]);
        fs::remove_file(dir.path().join("000001")).unwrap();
        let error = SegmentReader::open(dir.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("there is no file before 000002"),
            "{error}"
        );
    }
}
