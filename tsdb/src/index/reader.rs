//! Reads an index: opening it checks symbols and postings offset table, all else is checked when
//! it is read.

use bytes::Bytes;
use isobar_model::TimeRange;

use super::symbols::Symbols;
use super::table::PostingsTable;
use super::{ChunkMeta, Fence, HEADER_BYTES, MAGIC, Postings, SeriesRef, Toc, Version, chunk_list};
use crate::Error;
use crate::encoding::{DecodeError, Decoder};

/// An index that is in memory or mapped.
#[derive(Debug)]
pub struct IndexReader {
    /// What the file is called in errors.
    name: String,
    index: Bytes,
    version: Version,
    symbols: Symbols,
    table: PostingsTable,
}

/// What the index says of a series. Reused from series to series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeriesEntry {
    /// The symbols of names and values, in name order.
    pub labels: Vec<(u32, u32)>,
    /// The chunks in time order.
    pub chunks: Vec<ChunkMeta>,
    /// Places in the list of chunks that were passed, from which [`IndexReader::chunks_from`] can
    /// read on.
    pub fences: Vec<Fence>,
}

impl IndexReader {
    /// Reads from the bytes of an index file; `name` stands for it in errors.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when header, table of contents, symbols or postings offset table do not
    /// follow the format, [`Error::Unsupported`] when the version is unknown.
    pub fn open(name: impl Into<String>, index: Bytes) -> Result<Self, Error> {
        let name = name.into();
        let version = read_header(&name, &index)?;
        let toc = Toc::decode(&name, &index)?;
        let symbols = Symbols::open(&name, index.clone(), version, toc.symbols)?;
        let table = PostingsTable::open(&name, &index, version, toc.postings_table)?;
        Ok(IndexReader {
            name,
            index,
            version,
            symbols,
            table,
        })
    }

    /// The length of the file in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.index.len() as u64
    }

    /// What the sections take in bytes, in the order in which they lie.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the table of contents cannot be read.
    pub fn section_bytes(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        let toc = Toc::decode(&self.name, &self.index)?;
        let mut begins = vec![
            ("symbols", toc.symbols),
            ("series", toc.series),
            ("label indices", toc.label_indices),
            ("postings", toc.postings),
            ("label offset table", toc.label_indices_table),
            ("postings offset table", toc.postings_table),
        ];
        begins.retain(|section| section.1 != 0);
        // Sections that are empty begin where the next one does.
        begins.sort_by_key(|section| section.1);
        let end = self.size_bytes() - Toc::BYTES as u64;
        let ends = begins.iter().skip(1).map(|section| section.1);
        let ends: Vec<u64> = ends.chain([end]).collect();
        let sizes = begins.into_iter().zip(ends);
        Ok(sizes
            .map(|((name, begin), end)| (name, end.saturating_sub(begin)))
            .collect())
    }

    /// The heap memory held, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.symbols.heap_bytes() + self.table.heap_bytes()
    }

    /// The number of symbols.
    pub fn symbol_count(&self) -> u32 {
        self.symbols.len()
    }

    /// All symbols, sorted by bytes.
    pub fn symbols(&self) -> impl Iterator<Item = Result<&str, Error>> {
        self.symbols
            .iter()
            .map(|symbol| symbol.map_err(|e| self.in_symbols(e, "symbols")))
    }

    /// The text of a symbol.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is no such symbol.
    pub fn symbol(&self, symbol: u32) -> Result<&str, Error> {
        self.symbols
            .get(symbol)
            .map_err(|e| self.in_symbols(e, format!("symbol {symbol} of those")))
    }

    /// The number that series write for a text, when it is a symbol.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the symbols cannot be read.
    pub fn find_symbol(&self, text: &str) -> Result<Option<u32>, Error> {
        self.symbols
            .find(text)
            .map_err(|e| self.in_symbols(e, "symbols"))
    }

    /// All label names, sorted.
    pub fn label_names(&self) -> impl Iterator<Item = &str> {
        self.table.names()
    }

    /// The number of values of a label.
    pub fn value_count(&self, label: &str) -> usize {
        self.table.value_count(label)
    }

    /// The values of a label with the offsets of their postings, sorted, from the first on that
    /// is not before `from`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the postings offset table cannot be read.
    pub fn label_values<'a>(
        &'a self,
        label: &str,
        from: &str,
    ) -> Result<impl Iterator<Item = Result<(&'a str, u64), Error>> + use<'a>, Error> {
        let values = self
            .table
            .values_from(label, from)
            .map_err(|e| self.in_table(e))?;
        Ok(values.map(|value| value.map_err(|e| self.in_table(e))))
    }

    /// The series that have a label pair.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the postings cannot be read.
    pub fn postings(&self, label: &str, value: &str) -> Result<Postings<'_>, Error> {
        match self
            .table
            .find(label, value)
            .map_err(|e| self.in_table(e))?
        {
            Some(offset) => self.postings_at(offset),
            None => Ok(Postings::EMPTY),
        }
    }

    /// The postings at an offset that [`IndexReader::label_values`] gave.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the postings cannot be read.
    pub fn postings_at(&self, offset: u64) -> Result<Postings<'_>, Error> {
        Postings::decode(&self.index, offset)
            .map_err(|e| e.at_offset(&self.name, "postings", offset))
    }

    /// All series.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the postings cannot be read.
    pub fn all_postings(&self) -> Result<Postings<'_>, Error> {
        self.postings("", "")
    }

    /// Reads what the index says of a series into `entry`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is no such series or it does not follow the format.
    pub fn series(&self, series: SeriesRef, entry: &mut SeriesEntry) -> Result<(), Error> {
        self.series_within(series, TimeRange::ALL, entry)
    }

    /// As [`IndexReader::series`], with only the chunks that overlap `range`.
    ///
    /// # Errors
    /// As those of [`IndexReader::series`].
    pub fn series_within(
        &self,
        series: SeriesRef,
        range: TimeRange,
        entry: &mut SeriesEntry,
    ) -> Result<(), Error> {
        let offset = self.offset_of(series);
        entry
            .read(&self.index, offset, range)
            .map_err(|e| e.at_offset(&self.name, "series", offset))
    }

    /// Where a series lies in the file.
    pub(crate) fn offset_of(&self, series: SeriesRef) -> u64 {
        self.version.offset_of(series)
    }

    /// The chunks of a series that overlap `range`, which all lie behind a `fence` that an earlier
    /// reading of the same series has left ([`Fence::before`]). The entry has no labels then, and
    /// of the fences those behind that one; the checksum was looked at by who left the fence.
    ///
    /// # Errors
    /// As those of [`IndexReader::series`].
    pub fn chunks_from(
        &self,
        series: SeriesRef,
        fence: Fence,
        range: TimeRange,
        entry: &mut SeriesEntry,
    ) -> Result<(), Error> {
        let offset = self.offset_of(series);
        entry
            .read_on(&self.index, offset, fence, range)
            .map_err(|e| e.at_offset(&self.name, "series", offset))
    }

    pub(super) fn corrupt(&self, why: &str) -> Error {
        Error::corrupt_at(&self.name, self.table.offset(), why)
    }

    fn in_table(&self, error: DecodeError) -> Error {
        error.at_offset(&self.name, "postings offset table", self.table.offset())
    }

    fn in_symbols(&self, error: DecodeError, place: impl std::fmt::Display) -> Error {
        error.at_offset(&self.name, place, self.symbols.offset())
    }
}

impl SeriesEntry {
    /// Reads the series at an offset of an index.
    pub(super) fn read(
        &mut self,
        index: &[u8],
        offset: u64,
        range: TimeRange,
    ) -> Result<(), DecodeError> {
        self.labels.clear();
        self.chunks.clear();
        self.fences.clear();
        let mut decoder = Decoder::at(index, offset)?;
        let content = decoder.uvarint_bytes()?;
        decoder.checksum(content)?;
        let len = content.len();
        let mut content = Decoder::new(content);
        for _ in 0..content.uvarint()? {
            self.labels
                .push((content.uvarint32()?, content.uvarint32()?));
        }
        let (chunks, fences) = (&mut self.chunks, &mut self.fences);
        chunk_list::read(&mut content, len, range, chunks, fences)
    }

    fn read_on(
        &mut self,
        index: &[u8],
        offset: u64,
        fence: Fence,
        range: TimeRange,
    ) -> Result<(), DecodeError> {
        self.labels.clear();
        self.chunks.clear();
        self.fences.clear();
        let content = Decoder::at(index, offset)?.uvarint_bytes()?;
        let mut behind = chunk_list::at(content, fence)?;
        let (chunks, fences) = (&mut self.chunks, &mut self.fences);
        chunk_list::read_on(&mut behind, content.len(), fence, range, chunks, fences)
    }
}

pub(super) fn read_header(name: &str, index: &[u8]) -> Result<Version, Error> {
    let mut header = Decoder::new(index.get(..HEADER_BYTES).unwrap_or_default());
    let magic = header.be32().map_err(|e| e.at_offset(name, "header", 0))?;
    if magic != MAGIC {
        return Err(Error::corrupt_at(
            name,
            0,
            format!("header: magic number {magic:08x}"),
        ));
    }
    match header.u8().map_err(|e| e.at_offset(name, "header", 4))? {
        1 => Ok(Version::V1),
        2 | 3 => Ok(Version::V2),
        other => Err(Error::Unsupported(format!(
            "{name}: index version {other} is unknown"
        ))),
    }
}
