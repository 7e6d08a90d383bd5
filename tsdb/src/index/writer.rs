//! Writes an index of version 2, the same bytes that Prometheus 3 writes for the same series.
//!
//! Symbols are given first, then the series in label order. Postings are collected at the end by
//! reading the written series back, for as many label names at once as fit a bound, so memory
//! holds the symbols, one offset for each label pair, and that bound.

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use hashbrown::HashTable;
use isobar_model::Labels;
use xxhash_rust::xxh3::xxh3_64;

use super::{ChunkMeta, HEADER_BYTES, MAGIC, SERIES_ALIGN, SeriesRef, Toc};
use crate::Error;
use crate::disk::OutFile;
use crate::encoding::{
    Crc32c, DecodeError, Decoder, crc32c, put_be32, put_uvarint, put_uvarint_str, put_varint,
};
use crate::mmap::Mapped;
use crate::pace::breathe;

const VERSION: u8 = 2;
const POSTINGS_ALIGN: usize = 4;
const WRITE_BUFFER_BYTES: usize = 1 << 20;
/// How many postings, of twelve bytes each, are collected in one pass over the series, unless a
/// single label has more.
const COLLECTED_POSTINGS_MAX: u64 = 256 << 10;

/// Of the series that are read back, so many bytes are in the process' memory at a time.
const RELEASE_BYTES: usize = 4 << 20;

/// Writes an index file.
pub struct IndexWriter {
    path: PathBuf,
    file: BufWriter<OutFile>,
    position: u64,
    toc: Toc,
    symbols: SymbolSet,
    /// For each symbol how many series use it as a name.
    name_uses: Vec<u64>,
    series_count: u64,
    last_labels: Labels,
    last_chunk: u64,
    entry: Vec<u8>,
    scratch: Vec<u8>,
}

impl IndexWriter {
    /// Creates the file and writes the symbols: all label names and values that the series will
    /// have (and possibly more), sorted by bytes, each once.
    ///
    /// # Errors
    /// When the file exists or cannot be written, or the symbols are not sorted or too long.
    pub fn create<S: AsRef<str>>(
        path: impl Into<PathBuf>,
        symbols: impl IntoIterator<Item = Result<S, Error>>,
    ) -> Result<Self, Error> {
        let path = path.into();
        let file = OutFile::create_new(&path).map_err(|e| Error::io("create", &path, e))?;
        let file = file.synced_as_written();
        let mut writer = IndexWriter {
            path,
            file: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file),
            position: 0,
            toc: Toc::default(),
            symbols: SymbolSet::collect(symbols)?,
            name_uses: Vec::new(),
            series_count: 0,
            last_labels: Labels::empty(),
            last_chunk: 0,
            entry: Vec::new(),
            scratch: Vec::new(),
        };
        writer.name_uses.resize(writer.symbols.len(), 0);
        let [a, b, c, d] = MAGIC.to_be_bytes();
        let header: [u8; HEADER_BYTES] = [a, b, c, d, VERSION];
        writer.write(&header)?;
        writer.write_symbols()?;
        writer.toc.series = writer.position;
        Ok(writer)
    }

    /// Adds a series. Series come in label order, their chunks in time order without overlap and
    /// in the order in which they lie in the segment files.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when an order is broken or a text is no symbol, [`Error::LimitExceeded`]
    /// when the file grows beyond what references can express, and when it cannot be written.
    pub fn add(&mut self, labels: &Labels, chunks: &[ChunkMeta]) -> Result<SeriesRef, Error> {
        if *labels <= self.last_labels {
            let last = &self.last_labels;
            return Err(self.broken(format!("series {labels} comes behind {last}")));
        }
        self.check_chunks(chunks)?;
        self.pad(SERIES_ALIGN)?;
        let reference = u32::try_from(self.position / SERIES_ALIGN as u64)
            .map(SeriesRef)
            .map_err(|_| Error::LimitExceeded("an index is longer than 64 GiB".into()))?;
        self.encode(labels, chunks)?;

        let entry = std::mem::take(&mut self.entry);
        let mut length = std::mem::take(&mut self.scratch);
        length.clear();
        put_uvarint(&mut length, entry.len() as u64);
        self.write(&length)?;
        self.write(&entry)?;
        self.write(&crc32c(&entry).to_be_bytes())?;
        (self.entry, self.scratch) = (entry, length);

        self.series_count += 1;
        self.last_labels = labels.clone();
        self.last_chunk = chunks
            .last()
            .map_or(self.last_chunk, |it| it.reference.as_u64());
        Ok(reference)
    }

    /// Writes what follows the series, syncs the file and gives its length.
    ///
    /// # Errors
    /// When the file cannot be written, or grows beyond what references can express.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.toc.label_indices = self.position;
        self.toc.postings = self.position;
        let pairs = self.write_postings()?;
        self.toc.label_indices_table = self.position;
        self.toc.postings_table = self.position;
        self.write_postings_table(&pairs)?;
        let toc = self.toc.encode();
        self.write(&toc)?;
        let file = self
            .file
            .into_inner()
            .map_err(|e| Error::io("write", &self.path, e.into_error()))?;
        file.sync_all()
            .map_err(|e| Error::io("sync", &self.path, e))?;
        Ok(self.position)
    }

    fn check_chunks(&self, chunks: &[ChunkMeta]) -> Result<(), Error> {
        let mut reference = self.last_chunk;
        let mut last_ms = None;
        for chunk in chunks {
            if chunk.reference.as_u64() < reference {
                return Err(self.broken("chunks are not in the order of their references"));
            }
            if chunk.max_ms < chunk.min_ms || last_ms.is_some_and(|last| chunk.min_ms <= last) {
                return Err(self.broken("chunks of a series overlap or are not in time order"));
            }
            reference = chunk.reference.as_u64();
            last_ms = Some(chunk.max_ms);
        }
        Ok(())
    }

    fn encode(&mut self, labels: &Labels, chunks: &[ChunkMeta]) -> Result<(), Error> {
        let mut entry = std::mem::take(&mut self.entry);
        entry.clear();
        put_uvarint(&mut entry, labels.len() as u64);
        for (name, value) in labels.iter() {
            let (name, value) = (self.symbol(name)?, self.symbol(value)?);
            if let Some(uses) = self.name_uses.get_mut(name as usize) {
                *uses += 1;
            }
            put_uvarint(&mut entry, u64::from(name));
            put_uvarint(&mut entry, u64::from(value));
        }
        put_uvarint(&mut entry, chunks.len() as u64);
        let mut last: Option<&ChunkMeta> = None;
        for chunk in chunks {
            let reference = chunk.reference.as_u64();
            let length_ms = chunk.max_ms.wrapping_sub(chunk.min_ms).cast_unsigned();
            match last {
                None => {
                    put_varint(&mut entry, chunk.min_ms);
                    put_uvarint(&mut entry, length_ms);
                    put_uvarint(&mut entry, reference);
                }
                Some(last) => {
                    let gap_ms = chunk.min_ms.wrapping_sub(last.max_ms).cast_unsigned();
                    put_uvarint(&mut entry, gap_ms);
                    put_uvarint(&mut entry, length_ms);
                    let step = reference
                        .wrapping_sub(last.reference.as_u64())
                        .cast_signed();
                    put_varint(&mut entry, step);
                }
            }
            last = Some(chunk);
        }
        self.entry = entry;
        Ok(())
    }

    fn symbol(&self, text: &str) -> Result<u32, Error> {
        self.symbols
            .find(text)
            .ok_or_else(|| self.broken(format!("{text:?} is not among the symbols")))
    }

    fn write_symbols(&mut self) -> Result<(), Error> {
        self.toc.symbols = self.position;
        let mut content = Vec::new();
        put_be32(&mut content, count_u32("symbol table", self.symbols.len())?);
        for symbol in self.symbols.iter() {
            put_uvarint_str(&mut content, symbol);
        }
        self.write(&section_length("symbol table", content.len() as u64)?)?;
        self.write(&content)?;
        self.write(&crc32c(&content).to_be_bytes())
    }

    /// Writes the postings of all label pairs, and gives their offsets in table order.
    fn write_postings(&mut self) -> Result<Vec<Pair>, Error> {
        let series_end = self.toc.label_indices;
        self.file
            .flush()
            .map_err(|e| Error::io("write", &self.path, e))?;
        // The file only grows while this is mapped.
        let written = Mapped::open(&self.path)?;
        let series = SeriesBytes {
            index: &written,
            begin: self.toc.series,
            end: series_end,
        };
        let unreadable =
            |path: &Path, e: DecodeError| e.at(&path.display().to_string(), "written series");

        let mut all = Vec::new();
        let walked = series.walk(|series, _| {
            all.push(series);
            Ok(())
        });
        walked.map_err(|e| unreadable(&self.path, e))?;
        let mut pairs = vec![Pair {
            label: None,
            offset: self.write_list(&all)?,
        }];
        drop(all);

        let uses = std::mem::take(&mut self.name_uses);
        for names in batches(&uses, self.series_count.max(COLLECTED_POSTINGS_MAX)) {
            let uses = uses.get(*names.start() as usize..=*names.end() as usize);
            let count: u64 = uses.unwrap_or_default().iter().sum();
            let mut postings = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
            let walked = series.walk(|series, labels| {
                for _ in 0..labels.uvarint()? {
                    let (name, value) = (labels.uvarint32()?, labels.uvarint32()?);
                    if names.contains(&name) {
                        postings.push((name, value, series));
                    }
                }
                Ok(())
            });
            walked.map_err(|e| unreadable(&self.path, e))?;
            // Symbols are numbered in order, so this is the order of the texts.
            postings.sort_unstable();
            let mut list = Vec::new();
            for pair in postings.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
                list.clear();
                list.extend(pair.iter().map(|(_, _, series)| *series));
                let label = pair.first().map(|(name, value, _)| (*name, *value));
                pairs.push(Pair {
                    label,
                    offset: self.write_list(&list)?,
                });
            }
        }
        Ok(pairs)
    }

    fn write_list(&mut self, series: &[u32]) -> Result<u64, Error> {
        breathe();
        self.pad(POSTINGS_ALIGN)?;
        let offset = self.position;
        let mut content = std::mem::take(&mut self.scratch);
        content.clear();
        put_be32(&mut content, count_u32("postings list", series.len())?);
        for series in series {
            put_be32(&mut content, *series);
        }
        self.write(&section_length("postings list", content.len() as u64)?)?;
        self.write(&content)?;
        self.write(&crc32c(&content).to_be_bytes())?;
        self.scratch = content;
        Ok(offset)
    }

    fn write_postings_table(&mut self, pairs: &[Pair]) -> Result<(), Error> {
        let begin = self.position;
        self.write(&[0; 4])?;
        let mut crc = Crc32c::new();
        let mut entry = Vec::new();
        put_be32(&mut entry, count_u32("postings offset table", pairs.len())?);
        for pair in pairs {
            crc.update(&entry);
            self.write(&entry)?;
            entry.clear();
            let (name, value) = match pair.label {
                Some((name, value)) => (self.symbols.get(name), self.symbols.get(value)),
                None => ("", ""),
            };
            put_uvarint(&mut entry, 2);
            put_uvarint_str(&mut entry, name);
            put_uvarint_str(&mut entry, value);
            put_uvarint(&mut entry, pair.offset);
        }
        crc.update(&entry);
        self.write(&entry)?;
        let length = section_length("postings offset table", self.position - begin - 4)?;
        self.write(&crc.finish().to_be_bytes())?;

        let at = |place| move |e| Error::io("write", place, e);
        self.file
            .seek(SeekFrom::Start(begin))
            .map_err(at(&self.path))?;
        self.file.write_all(&length).map_err(at(&self.path))?;
        self.file
            .seek(SeekFrom::Start(self.position))
            .map_err(at(&self.path))?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(|e| Error::io("write", &self.path, e))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, align: usize) -> Result<(), Error> {
        let align = align as u64;
        for _ in self.position..self.position.next_multiple_of(align) {
            self.write(&[0])?;
        }
        Ok(())
    }

    fn broken(&self, why: impl Into<String>) -> Error {
        Error::corrupt(format!("series for {}", self.path.display()), why)
    }
}

/// A label pair, as symbols (none for the list of all series), and where its postings lie.
struct Pair {
    label: Option<(u32, u32)>,
    offset: u64,
}

fn section_length(what: &str, bytes: u64) -> Result<[u8; 4], Error> {
    u32::try_from(bytes)
        .map(u32::to_be_bytes)
        .map_err(|_| Error::LimitExceeded(format!("the {what} of an index is longer than 4 GiB")))
}

fn count_u32(what: &str, count: usize) -> Result<u32, Error> {
    u32::try_from(count)
        .map_err(|_| Error::LimitExceeded(format!("a {what} has more than 2^32 entries")))
}

/// Divides the names that are used at all, in order, so that no part has more than
/// `postings_max` postings unless it is a single name.
fn batches(uses: &[u64], postings_max: u64) -> Vec<std::ops::RangeInclusive<u32>> {
    let mut batches: Vec<std::ops::RangeInclusive<u32>> = Vec::new();
    let mut collected = 0;
    for (name, uses) in (0u32..).zip(uses).filter(|(_, uses)| **uses > 0) {
        match batches.last_mut() {
            Some(last) if collected + uses <= postings_max => {
                *last = *last.start()..=name;
                collected += uses;
            }
            _ => {
                batches.push(name..=name);
                collected = *uses;
            }
        }
    }
    batches
}

/// The part of the file where the series stand.
struct SeriesBytes<'a> {
    index: &'a Mapped,
    begin: u64,
    end: u64,
}

impl SeriesBytes<'_> {
    /// Gives each series with a decoder that stands at the number of its labels.
    fn walk(
        &self,
        mut found: impl FnMut(u32, &mut Decoder<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let end = usize::try_from(self.end).map_err(|_| DecodeError::Truncated)?;
        let bytes = self.index.bytes();
        let bytes = bytes.get(..end).ok_or(DecodeError::Truncated)?;
        let mut decoder = Decoder::at(bytes, self.begin)?;
        let mut released = 0;
        loop {
            let begin = (bytes.len() - decoder.len()).next_multiple_of(SERIES_ALIGN);
            if begin - released >= RELEASE_BYTES || begin >= bytes.len() {
                released = begin;
                // Should the system refuse, some memory stays longer than it must.
                let _refused = self.index.release_pages();
            }
            decoder = match bytes.get(begin..) {
                Some(rest) if !rest.is_empty() => Decoder::new(rest),
                _ => return Ok(()),
            };
            let series =
                u32::try_from(begin / SERIES_ALIGN).map_err(|_| DecodeError::NumberTooLarge)?;
            let mut labels = Decoder::new(decoder.uvarint_bytes()?);
            decoder.be32()?;
            if series % 256 == 0 {
                breathe();
            }
            found(series, &mut labels)?;
        }
    }
}

/// The symbols in order, with a way from text to number.
struct SymbolSet {
    texts: String,
    /// Where each symbol ends in `texts`.
    ends: Vec<u32>,
    numbers: HashTable<u32>,
}

impl SymbolSet {
    fn collect<S: AsRef<str>>(
        symbols: impl IntoIterator<Item = Result<S, Error>>,
    ) -> Result<Self, Error> {
        let mut set = SymbolSet {
            texts: String::new(),
            ends: Vec::new(),
            numbers: HashTable::new(),
        };
        for symbol in symbols {
            set.push(symbol?.as_ref())?;
        }
        Ok(set)
    }

    fn push(&mut self, symbol: &str) -> Result<(), Error> {
        let number = count_u32("symbol table", self.ends.len())?;
        if number > 0 && symbol <= self.get(number - 1) {
            return Err(Error::corrupt(
                "symbols of an index",
                format!("{symbol:?} is out of order"),
            ));
        }
        self.texts.push_str(symbol);
        self.ends.push(u32::from_be_bytes(section_length(
            "symbol table",
            self.texts.len() as u64,
        )?));
        let (texts, ends) = (&self.texts, &self.ends);
        self.numbers
            .insert_unique(xxh3_64(symbol.as_bytes()), number, |number| {
                xxh3_64(text(texts, ends, *number).as_bytes())
            });
        Ok(())
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, number: u32) -> &str {
        text(&self.texts, &self.ends, number)
    }

    fn find(&self, symbol: &str) -> Option<u32> {
        self.numbers
            .find(xxh3_64(symbol.as_bytes()), |number| {
                self.get(*number) == symbol
            })
            .copied()
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        (0u32..).zip(&self.ends).map(|(number, _)| self.get(number))
    }
}

fn text<'a>(texts: &'a str, ends: &[u32], number: u32) -> &'a str {
    let at = number as usize;
    let begin = at
        .checked_sub(1)
        .and_then(|before| ends.get(before))
        .copied()
        .unwrap_or(0);
    let end = ends.get(at).copied().unwrap_or(begin);
    texts.get(begin as usize..end as usize).unwrap_or_default()
}
