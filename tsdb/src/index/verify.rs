//! Checks an index from its header to its table of contents, and goes on where a reader stops: what
//! is found is told with its offset, and what can be read without the broken part is checked too.

use std::collections::{BTreeSet, HashMap};

use super::{ChunkMeta, HEADER_BYTES, MAGIC, SERIES_ALIGN, SeriesEntry, SeriesRef, Toc, Version};
use crate::encoding::{DecodeError, Decoder};

/// Is told what is wrong: where in the file, and what.
pub(crate) type Found<'a> = dyn FnMut(u64, String) + 'a;
/// Is told of every series that can be read, and of the chunks that it lists.
pub(crate) type OnSeries<'a> = dyn FnMut(u64, &[ChunkMeta]) + 'a;

/// What an index holds, as far as it can be read.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// The series of the series section, in their order.
    pub(crate) series: Vec<SeriesRef>,
    /// Whether series were left out because they cannot be read.
    pub(crate) incomplete: bool,
}

impl Checked {
    /// Of an index that cannot be read at all.
    pub(crate) const NOTHING: Checked = Checked {
        series: Vec::new(),
        incomplete: true,
    };
}

/// Checks the bytes of an index file.
pub(crate) fn verify(index: &[u8], on_series: &mut OnSeries<'_>, found: &mut Found<'_>) -> Checked {
    let Some(version) = header(index, found) else {
        return Checked::NOTHING;
    };
    let toc_at = (index.len() as u64).saturating_sub(Toc::BYTES as u64);
    let toc = match Toc::decode("", index) {
        Ok(toc) => toc,
        Err(_) => {
            found(
                toc_at,
                "table of contents: checksum mismatch or too short".to_owned(),
            );
            return Checked::NOTHING;
        }
    };
    let mut check = Check {
        index,
        version,
        toc,
        toc_at,
        symbols: Vec::new(),
        ranks: HashMap::new(),
        pairs: Vec::new(),
        unreadable: BTreeSet::new(),
        checked: Checked::default(),
    };
    check.contents(found);
    check.symbols(found);
    let all = check.all_series(found);
    check.series(&all, on_series, found);
    // By name, value and series: as the lists of postings are.
    check.pairs.sort_unstable();
    check.label_indices(found);
    check.postings(found);
    check.checked
}

fn header(index: &[u8], found: &mut Found<'_>) -> Option<Version> {
    let mut header = Decoder::new(index.get(..HEADER_BYTES).unwrap_or_default());
    match (header.be32(), header.u8()) {
        (Ok(MAGIC), Ok(1)) => Some(Version::V1),
        (Ok(MAGIC), Ok(2 | 3)) => Some(Version::V2),
        (Ok(MAGIC), Ok(other)) => {
            found(4, format!("header: version {other} is unknown"));
            None
        }
        (Ok(magic), _) => {
            found(0, format!("header: magic number {magic:08x}"));
            None
        }
        (Err(e), _) => {
            found(0, format!("header: {e}"));
            None
        }
    }
}

struct Check<'a> {
    index: &'a [u8],
    version: Version,
    toc: Toc,
    toc_at: u64,
    /// What a series writes for a symbol, and its text, in the order of the file.
    symbols: Vec<(u32, &'a str)>,
    /// The place of each text in `symbols`.
    ranks: HashMap<&'a str, u32>,
    /// Name, value, as places in `symbols`, and series, of all series that can be read.
    pairs: Vec<(u32, u32, u32)>,
    /// Series whose labels are not known.
    unreadable: BTreeSet<u32>,
    checked: Checked,
}

impl<'a> Check<'a> {
    /// The offsets of the sections: inside of the file, in the order of the format.
    fn contents(&self, found: &mut Found<'_>) {
        let toc = &self.toc;
        let sections = [
            ("symbols", toc.symbols),
            ("series", toc.series),
            ("label indices", toc.label_indices),
            ("postings", toc.postings),
            ("label offset table", toc.label_indices_table),
            ("postings offset table", toc.postings_table),
        ];
        let mut before = HEADER_BYTES as u64;
        for (name, offset) in sections {
            // 0 is a section that is not there.
            if offset == 0 {
                continue;
            }
            if offset < before || offset > self.toc_at {
                found(
                    self.toc_at,
                    format!(
                        "table of contents: {name} at {offset}, behind the end or before what precedes it"
                    ),
                );
            }
            before = before.max(offset);
        }
    }

    fn symbols(&mut self, found: &mut Found<'_>) {
        let at = self.toc.symbols;
        let read = self.section(at).and_then(|content| {
            let mut decoder = Decoder::new(content);
            let count = decoder.be32()?;
            for rank in 0..count {
                let offset = at + 4 + (content.len() - decoder.len()) as u64;
                let text = decoder.uvarint_str()?;
                let number = match self.version {
                    Version::V1 => {
                        u32::try_from(offset).map_err(|_| DecodeError::NumberTooLarge)?
                    }
                    Version::V2 => rank,
                };
                if let Some((_, before)) = self.symbols.last()
                    && *before >= text
                {
                    found(offset, format!("symbols: {text:?} comes behind {before:?}"));
                }
                self.symbols.push((number, text));
                self.ranks.insert(text, rank);
            }
            if !decoder.is_empty() {
                let left = decoder.len();
                found(at, format!("symbols: {left} bytes behind the last"));
            }
            Ok(())
        });
        if let Err(e) = read {
            found(at, format!("symbols: {e}"));
        }
    }

    /// All series as the list of the empty pair names them.
    fn all_series(&self, found: &mut Found<'_>) -> Vec<u32> {
        let mut all = None;
        // What cannot be read is told of when all lists are checked.
        let _ = self.each_table_entry(|_, name, value, offset| {
            if all.is_none() && name.is_empty() && value.is_empty() {
                all = Some(offset);
            }
        });
        let Some(offset) = all else {
            let at = self.toc.postings_table;
            found(
                at,
                "postings offset table: no list of all series".to_owned(),
            );
            return Vec::new();
        };
        self.list(offset).unwrap_or_default()
    }

    fn series(&mut self, all: &[u32], on_series: &mut OnSeries<'_>, found: &mut Found<'_>) {
        let end = self.behind_series();
        let mut at = self.toc.series;
        let mut last: Vec<(u32, u32)> = Vec::new();
        let mut entry = SeriesEntry::default();
        while at < end {
            let start = at;
            at = self.aligned(start);
            let padding = self.bytes_between(start, at.min(end));
            if padding.iter().any(|byte| *byte != 0) {
                found(
                    start,
                    "series: bytes between two series are not zero".to_owned(),
                );
            }
            if at >= end || self.bytes_between(at, end).iter().all(|byte| *byte == 0) {
                break;
            }
            let reference = self.reference_of(at);
            let read = self.read_series(at, end, &mut entry);
            match (read, reference) {
                (Ok(behind), Some(reference)) => {
                    self.check_series(at, reference, &entry, &mut last, found);
                    on_series(at, &entry.chunks);
                    at = behind;
                }
                (Ok(_), None) => {
                    found(
                        at,
                        "series: lies behind what references can express".to_owned(),
                    );
                    self.checked.incomplete = true;
                    return;
                }
                (Err(e), reference) => {
                    found(at, format!("series: {e}"));
                    self.checked.incomplete = true;
                    self.unreadable.extend(reference);
                    last.clear();
                    let next = all.partition_point(|it| self.offset_of(*it) <= at);
                    match all.get(next) {
                        Some(next) => at = self.offset_of(*next),
                        None => return,
                    }
                }
            }
        }
    }

    /// Reads the series at an offset, and gives the offset behind it.
    fn read_series(&self, at: u64, end: u64, entry: &mut SeriesEntry) -> Result<u64, DecodeError> {
        let section = usize::try_from(end)
            .ok()
            .and_then(|end| self.index.get(..end));
        let section = section.ok_or(DecodeError::Truncated)?;
        entry.read(section, at, isobar_model::TimeRange::ALL)?;
        let mut decoder = Decoder::at(section, at)?;
        let before = decoder.len();
        decoder.uvarint_bytes()?;
        decoder.bytes(4)?;
        Ok(at + (before - decoder.len()) as u64)
    }

    fn check_series(
        &mut self,
        at: u64,
        reference: u32,
        entry: &SeriesEntry,
        last: &mut Vec<(u32, u32)>,
        found: &mut Found<'_>,
    ) {
        self.checked.series.push(SeriesRef(reference));
        let mut labels = Vec::with_capacity(entry.labels.len());
        for (name, value) in &entry.labels {
            match (self.rank(*name), self.rank(*value)) {
                (Some(name), Some(value)) => labels.push((name, value)),
                _ => {
                    found(at, format!("series: there is no symbol {name} or {value}"));
                    self.unreadable.insert(reference);
                    last.clear();
                    return;
                }
            }
        }
        if labels.is_empty() {
            found(at, "series: has no label".to_owned());
        }
        if !labels.is_sorted_by(|a, b| a.0 < b.0) {
            found(at, "series: label names are not sorted".to_owned());
        }
        for (name, value) in &labels {
            if self.text(*name).is_empty() || self.text(*value).is_empty() {
                found(at, "series: an empty label name or value".to_owned());
            }
        }
        if !last.is_empty() && *last >= labels {
            found(
                at,
                "series: is not behind the one before it in label order".to_owned(),
            );
        }
        for (name, value) in &labels {
            self.pairs.push((*name, *value, reference));
        }
        *last = labels;
        if entry.chunks.is_empty() {
            found(at, "series: has no chunk".to_owned());
        }
        for pair in entry.chunks.windows(2) {
            if let [a, b] = pair
                && b.min_ms <= a.max_ms
            {
                let (end, begin) = (a.max_ms, b.min_ms);
                found(
                    at,
                    format!(
                        "series: a chunk begins at {begin}, not behind {end} where the one before it ends"
                    ),
                );
            }
        }
    }

    /// Label indices, where old writers left them: the sorted values of each name.
    fn label_indices(&self, found: &mut Found<'_>) {
        let table = self.toc.label_indices_table;
        if table == 0 || table == self.toc.postings_table {
            return;
        }
        let mut lists = Vec::new();
        let read = self.section(table).and_then(|content| {
            let mut decoder = Decoder::new(content);
            for _ in 0..decoder.be32()? {
                if decoder.uvarint()? != 1 {
                    return Err(DecodeError::NumberTooLarge);
                }
                lists.push((decoder.uvarint_str()?, decoder.uvarint()?));
            }
            Ok(())
        });
        if let Err(e) = read {
            found(table, format!("label offset table: {e}"));
        }
        for (name, offset) in lists {
            let values = self.section(offset).and_then(|content| {
                let mut decoder = Decoder::new(content);
                let (names, entries) = (decoder.be32()?, decoder.be32()?);
                let (values, rest) = decoder.rest().as_chunks::<4>();
                if names != 1 || values.len() != entries as usize || !rest.is_empty() {
                    return Err(DecodeError::Truncated);
                }
                let values = values.iter().map(|raw| u32::from_be_bytes(*raw));
                values
                    .map(|symbol| self.rank(symbol).ok_or(DecodeError::NumberTooLarge))
                    .collect::<Result<Vec<_>, _>>()
            });
            match values {
                Err(e) => found(offset, format!("label index of {name:?}: {e}")),
                Ok(values) if self.checked.incomplete => {
                    if !values.is_sorted_by(|a, b| a < b) {
                        found(
                            offset,
                            format!("label index of {name:?}: values are not sorted"),
                        );
                    }
                }
                Ok(values) if values != self.values_of(name) => {
                    found(
                        offset,
                        format!("label index of {name:?}: not the values that series have"),
                    );
                }
                Ok(_) => {}
            }
        }
    }

    /// The distinct values of a label, in order.
    fn values_of(&self, name: &str) -> Vec<u32> {
        let Some(name) = self.ranks.get(name) else {
            return Vec::new();
        };
        let begin = self.pairs.partition_point(|pair| pair.0 < *name);
        let end = self.pairs.partition_point(|pair| pair.0 <= *name);
        let of_name = self.pairs.get(begin..end).unwrap_or_default();
        let mut values: Vec<_> = of_name.iter().map(|pair| pair.1).collect();
        values.dedup();
        values
    }

    fn postings(&mut self, found: &mut Found<'_>) {
        let table = self.toc.postings_table;
        let mut entries = Vec::new();
        let read = self.each_table_entry(|at, name, value, offset| {
            entries.push((at, name, value, offset));
        });
        if let Err(e) = read {
            found(table, format!("postings offset table: {e}"));
        }
        let mut seen = BTreeSet::new();
        let mut before: Option<(&str, &str)> = None;
        for (at, name, value, offset) in entries {
            if self.version == Version::V2 && before.is_some_and(|before| before >= (name, value)) {
                found(
                    at,
                    format!(
                        "postings offset table: {name:?}={value:?} is not behind the entry before it"
                    ),
                );
            }
            before = Some((name, value));
            let mut list = match self.list(offset) {
                Ok(list) => list,
                Err(e) => {
                    found(offset, format!("postings of {name:?}={value:?}: {e}"));
                    seen.extend(self.pair_ranks(name, value));
                    continue;
                }
            };
            if !list.is_sorted_by(|a, b| a < b) {
                found(
                    offset,
                    format!("postings of {name:?}={value:?}: series are not sorted"),
                );
            }
            list.retain(|series| !self.unreadable.contains(series));
            let all = name.is_empty() && value.is_empty();
            let expected: Vec<u32> = match (all, self.pair_ranks(name, value)) {
                (true, _) => self.checked.series.iter().map(|it| it.0).collect(),
                (false, Some(pair)) => {
                    seen.insert(pair);
                    self.series_of(pair)
                }
                (false, None) => Vec::new(),
            };
            let expected = expected
                .into_iter()
                .filter(|it| !self.unreadable.contains(it));
            if !expected.eq(list.iter().copied()) {
                found(
                    offset,
                    format!("postings of {name:?}={value:?}: not the series that have the pair"),
                );
            }
        }
        for pair in self.pairs.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let Some((name, value, _)) = pair.first().copied() else {
                continue;
            };
            if !seen.contains(&(name, value)) {
                let (name, value) = (self.text(name), self.text(value));
                found(
                    table,
                    format!("postings offset table: {name:?}={value:?} is missing"),
                );
            }
        }
    }

    fn pair_ranks(&self, name: &str, value: &str) -> Option<(u32, u32)> {
        Some((*self.ranks.get(name)?, *self.ranks.get(value)?))
    }

    /// The series that have a pair, in order.
    fn series_of(&self, pair: (u32, u32)) -> Vec<u32> {
        let begin = self.pairs.partition_point(|it| (it.0, it.1) < pair);
        let end = self.pairs.partition_point(|it| (it.0, it.1) <= pair);
        let series = self.pairs.get(begin..end).unwrap_or_default();
        series.iter().map(|it| it.2).collect()
    }

    /// Calls `each` with offset, name, value and list of all entries of the postings offset table.
    fn each_table_entry(
        &self,
        mut each: impl FnMut(u64, &'a str, &'a str, u64),
    ) -> Result<(), DecodeError> {
        let table = self.toc.postings_table;
        let content = self.section(table)?;
        let mut decoder = Decoder::new(content);
        for _ in 0..decoder.be32()? {
            let at = table + 4 + (content.len() - decoder.len()) as u64;
            if decoder.uvarint()? != 2 {
                return Err(DecodeError::NumberTooLarge);
            }
            each(
                at,
                decoder.uvarint_str()?,
                decoder.uvarint_str()?,
                decoder.uvarint()?,
            );
        }
        match decoder.is_empty() {
            true => Ok(()),
            false => Err(DecodeError::Truncated),
        }
    }

    /// The series of a list of postings.
    fn list(&self, offset: u64) -> Result<Vec<u32>, DecodeError> {
        let postings = super::Postings::decode(self.index, offset)?;
        Ok(postings.into_vec().into_iter().map(|it| it.0).collect())
    }

    /// The content of a section with a length of four bytes; its checksum matches.
    fn section(&self, offset: u64) -> Result<&'a [u8], DecodeError> {
        Decoder::at(self.index, offset)?.section()
    }

    fn behind_series(&self) -> u64 {
        let toc = &self.toc;
        let behind = [
            toc.label_indices,
            toc.postings,
            toc.label_indices_table,
            toc.postings_table,
            self.toc_at,
        ];
        let behind = behind.into_iter().filter(|offset| *offset > toc.series);
        behind.min().unwrap_or(self.toc_at).min(self.toc_at)
    }

    fn bytes_between(&self, begin: u64, end: u64) -> &'a [u8] {
        let range = usize::try_from(begin).ok().zip(usize::try_from(end).ok());
        range
            .and_then(|(begin, end)| self.index.get(begin..end))
            .unwrap_or_default()
    }

    fn aligned(&self, at: u64) -> u64 {
        match self.version {
            Version::V1 => at,
            Version::V2 => at.next_multiple_of(SERIES_ALIGN as u64),
        }
    }

    fn reference_of(&self, at: u64) -> Option<u32> {
        u32::try_from(match self.version {
            Version::V1 => at,
            Version::V2 => at / SERIES_ALIGN as u64,
        })
        .ok()
    }

    fn offset_of(&self, reference: u32) -> u64 {
        match self.version {
            Version::V1 => u64::from(reference),
            Version::V2 => u64::from(reference) * SERIES_ALIGN as u64,
        }
    }

    /// The place in `symbols` of what a series writes.
    fn rank(&self, symbol: u32) -> Option<u32> {
        match self.version {
            Version::V2 => ((symbol as usize) < self.symbols.len()).then_some(symbol),
            Version::V1 => {
                let at = self.symbols.binary_search_by_key(&symbol, |it| it.0).ok()?;
                u32::try_from(at).ok()
            }
        }
    }

    fn text(&self, rank: u32) -> &'a str {
        self.symbols.get(rank as usize).map_or("", |it| it.1)
    }
}
