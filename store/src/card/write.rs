//! Makes a card from the sections of an index that tell of labels.

use std::ops::Range;

use bytes::Bytes;
use isobar_model::labels::METRIC_NAME;
use isobar_tsdb::Error;
use isobar_tsdb::encoding::DecodeError;
use isobar_tsdb::index::parts::Layout;
use isobar_tsdb::index::{Postings, SeriesRef};
use ulid::Ulid;

use super::page::{Extent, Kind, LabelName, Pair, SymbolLeafWriter, put_header};
use super::tree::{Fence, put_page, put_tree};
use super::{Card, PAGE_BYTES, Place, ROOT_BYTES, Root, filter};

/// A series of an index of version 2 begins at its number times so many bytes.
const SERIES_ALIGN: u64 = 16;

/// Symbols and label pairs of an index, decoded.
pub struct Sections {
    name: String,
    layout: Layout,
    symbols_bytes: Bytes,
    /// For each symbol its number and where its text lies in `symbols_bytes`.
    symbols: Vec<(u32, u32, u32)>,
    pairs: Vec<Pair>,
    all: Option<Pair>,
    names: Vec<LabelName>,
    /// Where the pairs of `__name__` lie among the pairs.
    metrics: Range<usize>,
}

impl Sections {
    /// Decodes the sections of symbols and of the postings offset table of the index `name`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when they do not follow the format.
    pub fn decode(
        name: &str,
        layout: Layout,
        symbols_bytes: Bytes,
        table: &Bytes,
    ) -> Result<Self, Error> {
        let in_symbols = |e: DecodeError| e.at_offset(name, "symbols", layout.symbols.start);
        let place = "postings offset table";
        let in_table = |e: DecodeError| e.at_offset(name, place, layout.table.start);
        let corrupt = |offset: u64, place: &str, why: &str| {
            Error::corrupt_at(name, offset, format!("{place} at {offset}: {why}"))
        };
        let list = layout.symbols(&symbols_bytes).map_err(in_symbols)?;
        let count = (list.total() as usize).min(symbols_bytes.len());
        let mut symbols: Vec<(u32, u32, u32)> = Vec::with_capacity(count);
        let mut last: Option<&str> = None;
        let base = symbols_bytes.as_ptr().addr();
        for symbol in list {
            let (number, text) = symbol.map_err(in_symbols)?;
            if last.is_some_and(|last| last >= text) {
                let why = "they are not sorted";
                return Err(corrupt(layout.symbols.start, "symbols", why));
            }
            last = Some(text);
            let begin = u32::try_from(text.as_ptr().addr() - base);
            let begin = begin.map_err(|_| in_symbols(DecodeError::NumberTooLarge))?;
            let len = u32::try_from(text.len());
            let len = len.map_err(|_| in_symbols(DecodeError::NumberTooLarge))?;
            symbols.push((number, begin, len));
        }
        let mut sections = Sections {
            name: name.to_owned(),
            symbols_bytes: symbols_bytes.clone(),
            symbols,
            pairs: Vec::new(),
            all: None,
            names: Vec::new(),
            metrics: 0..0,
            layout: layout.clone(),
        };
        let pairs = layout.pairs(table).map_err(in_table)?;
        let mut open: Option<&str> = None;
        let mut from = 0;
        for entry in pairs.iter() {
            let (name, value, offset) = entry.map_err(in_table)?;
            if !layout.postings.contains(&offset) && offset != layout.postings.end {
                let why = "a list lies outside of the lists of series";
                return Err(corrupt(layout.table.start, place, why));
            }
            let mut pair = Pair {
                offset,
                ..Pair::default()
            };
            if name.is_empty() && value.is_empty() {
                sections.all = Some(pair);
                continue;
            }
            if open != Some(name) {
                if open.is_some_and(|open| open >= name) {
                    return Err(corrupt(layout.table.start, place, "names are not sorted"));
                }
                sections.close(open);
                open = Some(name);
                let (name, _) = sections
                    .find(name, 0)
                    .ok_or_else(|| corrupt(layout.table.start, place, "a name is no symbol"))?;
                sections.names.push(LabelName { name, values: 0 });
                from = 0;
            }
            let unknown = || corrupt(layout.table.start, place, "values are no sorted symbols");
            let (value, at) = sections.find(value, from).ok_or_else(unknown)?;
            from = at + 1;
            pair.value = value;
            if let Some(open) = sections.names.last_mut() {
                open.values += 1;
                pair.name = open.name;
            }
            sections.pairs.push(pair);
        }
        sections.close(open);
        sections.measure();
        Ok(sections)
    }

    fn close(&mut self, name: Option<&str>) {
        if name == Some(METRIC_NAME)
            && let Some(name) = self.names.last()
        {
            self.metrics = self.pairs.len() - name.values as usize..self.pairs.len();
        }
    }

    /// Lists end where the next one begins.
    fn measure(&mut self) {
        let end = self.layout.postings.end;
        let mut lists: Vec<&mut Pair> = self.all.iter_mut().chain(&mut self.pairs).collect();
        if !lists.is_sorted_by_key(|pair| pair.offset) {
            lists.sort_by_key(|pair| pair.offset);
        }
        let mut next = end;
        for pair in lists.into_iter().rev() {
            pair.bytes = next.saturating_sub(pair.offset);
            if pair.bytes > 0 {
                next = pair.offset;
            }
        }
    }

    /// The number of a symbol that is not before place `from`, and its place.
    fn find(&self, text: &str, from: usize) -> Option<(u32, usize)> {
        let symbols = self.symbols.get(from..)?;
        // Values of a label often follow each other.
        let mut reach = 1;
        while symbols
            .get(reach - 1)
            .is_some_and(|it| self.text(*it) < text.as_bytes())
        {
            reach *= 2;
        }
        let begin = reach / 2;
        let part = symbols.get(begin..reach.min(symbols.len()))?;
        let at = begin + part.partition_point(|it| self.text(*it) < text.as_bytes());
        let symbol = symbols.get(at)?;
        (self.text(*symbol) == text.as_bytes()).then_some((symbol.0, from + at))
    }

    fn text(&self, (_, begin, len): (u32, u32, u32)) -> &[u8] {
        let begin = begin as usize;
        self.symbols_bytes
            .get(begin..begin + len as usize)
            .unwrap_or_default()
    }

    /// The bytes of the index with the lists of series of the metrics' names; empty when there are
    /// none, or they do not lie together.
    pub fn metric_lists(&self) -> Range<u64> {
        if self.layout.is_v1() {
            return 0..0;
        }
        lists_of(self.metric_pairs())
    }

    fn metric_pairs(&self) -> &[Pair] {
        self.pairs.get(self.metrics.clone()).unwrap_or_default()
    }

    /// The card of block `ulid`. `lists` are the bytes of [`Sections::metric_lists`]; without them it lacks
    /// the extents of metrics.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when these do not follow the format.
    pub fn card(&self, ulid: Ulid, lists: Option<&Bytes>) -> Result<Vec<u8>, Error> {
        let mut out = vec![0; ROOT_BYTES];
        let symbols = self.put_symbols(&mut out);
        let names = put_entries(
            &mut out,
            Kind::Names,
            &self.names,
            |it| (it.name, 0),
            LabelName::put,
        );
        let key = |it: &Pair| (it.name, it.value);
        let pairs = put_entries(&mut out, Kind::Pairs, &self.pairs, key, Pair::put);
        let metric_names = self.metric_pairs().iter();
        let metric_names = metric_names.map(|pair| self.text_of(pair.value));
        let filter = put_page(&mut out, &filter::encode(metric_names));
        let all = self.all.unwrap_or_default();
        let root = Root {
            ulid,
            index_v1: self.layout.is_v1(),
            lacks_extents: true,
            index_bytes: self.layout.size,
            series_begin: self.layout.series.start,
            series_end: self.layout.series.end,
            postings_end: self.layout.postings.end,
            all_offset: all.offset,
            all_bytes: all.bytes,
            symbols: count(self.symbols.len()),
            names: count(self.names.len()),
            pairs: count(self.pairs.len()),
            metrics: 0,
            card_bytes: 0,
            trees: [symbols, names, pairs, Place::default()],
            filter,
        };
        match lists {
            Some(lists) => {
                let extents = extents(&self.name, &root, self.metric_pairs(), lists)?;
                put_extents(&mut out, root, &extents);
            }
            None => put_root(&mut out, root),
        }
        Ok(out)
    }

    fn text_of(&self, number: u32) -> &str {
        let at = self.symbols.binary_search_by_key(&number, |it| it.0);
        let text = at
            .ok()
            .and_then(|at| self.symbols.get(at))
            .map(|it| self.text(*it));
        std::str::from_utf8(text.unwrap_or_default()).unwrap_or_default()
    }

    fn put_symbols(&self, out: &mut Vec<u8>) -> Place {
        let mut fences = Vec::new();
        let mut leaf = SymbolLeafWriter::default();
        // The text of the fence of the leaf that is open.
        let mut fence_text = Vec::new();
        let mut symbols = self.symbols.iter().peekable();
        while let Some(symbol) = symbols.next() {
            leaf.push(symbol.0, self.text(*symbol));
            let full = leaf.bytes() >= PAGE_BYTES || leaf.count() == u16::MAX;
            if !full && symbols.peek().is_some() {
                continue;
            }
            let (payload, first, last) = leaf.take();
            fences.push(Fence {
                key: (first, 0),
                text: std::mem::take(&mut fence_text),
                place: put_page(out, &payload),
            });
            if let Some(next) = symbols.peek() {
                let next = self.text(**next);
                let shared = last.iter().zip(next).take_while(|(a, b)| a == b).count();
                fence_text = next.get(..shared + 1).unwrap_or(next).to_vec();
            }
        }
        put_tree(out, Kind::Symbols, fences)
    }
}

/// The label pairs of the metrics' names of a card.
///
/// # Errors
/// When a page cannot be read.
pub fn metric_pairs(card: &Card) -> Result<Vec<Pair>, Error> {
    match card.metric_label()? {
        Some(label) => card.pairs(label, 0)?.collect(),
        None => Ok(Vec::new()),
    }
}

/// The bytes of the index in which the lists of some pairs lie; empty when there are none, or they do not
/// lie together.
pub fn lists_of(pairs: &[Pair]) -> Range<u64> {
    let begin = pairs.iter().map(|it| it.offset).min().unwrap_or(0);
    let ends = pairs.iter().map(|it| it.offset.saturating_add(it.bytes));
    let end = ends.max().unwrap_or(0);
    let all = pairs
        .iter()
        .fold(0, |all: u64, it| all.saturating_add(it.bytes));
    if end - begin > all.saturating_mul(2) {
        return 0..0;
    }
    begin..end
}

/// `card`, the whole of one that lacks them, with the extents of the metrics whose `pairs` it has
/// ([`metric_pairs`]); `lists` are the bytes of [`lists_of`] them. `name` stands for the index in errors.
///
/// # Errors
/// [`Error::Corrupt`] when these or the card do not follow the format.
pub fn with_extents(
    name: &str,
    card: &[u8],
    pairs: &[Pair],
    lists: &Bytes,
) -> Result<Vec<u8>, Error> {
    let root = Root::decode(name, card)?;
    let extents = extents(name, &root, pairs, lists)?;
    let mut out = card.to_vec();
    put_extents(&mut out, root, &extents);
    Ok(out)
}

/// The extents of metrics from their lists of series.
fn extents(name: &str, root: &Root, pairs: &[Pair], lists: &Bytes) -> Result<Vec<Extent>, Error> {
    let range = lists_of(pairs);
    if range.is_empty() || root.index_v1 {
        return Ok(Vec::new());
    }
    let offset_of = |series: SeriesRef| u64::from(series.0) * SERIES_ALIGN;
    let mut extents = Vec::with_capacity(pairs.len());
    let mut lasts = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let at = usize::try_from(pair.offset - range.start).unwrap_or(usize::MAX);
        let bytes = lists.get(at..).unwrap_or_default();
        let list =
            Postings::of_bytes(bytes).map_err(|e| e.at_offset(name, "postings", pair.offset))?;
        let Some((first, last)) = list.ends() else {
            continue;
        };
        lasts.push(offset_of(last));
        extents.push(Extent {
            value: pair.value,
            begin: offset_of(first),
            end: root.series_end,
            series: list.len() as u64,
        });
    }
    let mut begins: Vec<u64> = extents.iter().map(|it| it.begin).collect();
    begins.sort_unstable();
    for (extent, last) in extents.iter_mut().zip(lasts) {
        let behind = begins.partition_point(|begin| *begin <= last);
        if let Some(next) = begins.get(behind) {
            extent.end = *next;
        }
        let outside = extent.begin < root.series_begin || extent.end > root.series_end;
        if outside || extent.begin > last {
            let why = format!("postings: a series lies at {}, outside", extent.begin);
            return Err(Error::corrupt_at(name, extent.begin, why));
        }
    }
    Ok(extents)
}

/// Ends a card with the tree of metrics.
fn put_extents(out: &mut Vec<u8>, mut root: Root, extents: &[Extent]) {
    let key = |it: &Extent| (it.value, 0);
    let [_, _, _, metrics] = &mut root.trees;
    *metrics = put_entries(out, Kind::Metrics, extents, key, Extent::put);
    root.metrics = count(extents.len());
    root.lacks_extents = false;
    put_root(out, root);
}

fn put_root(out: &mut [u8], mut root: Root) {
    root.card_bytes = out.len() as u64;
    if let Some(begin) = out.first_chunk_mut::<ROOT_BYTES>() {
        *begin = root.encode();
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn put_entries<T: Copy + Default>(
    out: &mut Vec<u8>,
    kind: Kind,
    entries: &[T],
    key: impl Fn(&T) -> (u32, u32),
    put: impl Fn(&T, &T, &mut Vec<u8>),
) -> Place {
    let mut fences = Vec::new();
    let mut body = Vec::new();
    let mut open: Option<(u32, u32)> = None;
    let mut count = 0u16;
    let mut before = T::default();
    let mut entries = entries.iter().peekable();
    while let Some(entry) = entries.next() {
        open.get_or_insert_with(|| key(entry));
        put(entry, &before, &mut body);
        before = *entry;
        count += 1;
        if body.len() < PAGE_BYTES && entries.peek().is_some() {
            continue;
        }
        let mut payload = Vec::with_capacity(body.len() + 4);
        put_header(&mut payload, kind, 0, count);
        payload.append(&mut body);
        fences.push(Fence {
            key: open.take().unwrap_or_default(),
            text: Vec::new(),
            place: put_page(out, &payload),
        });
        (count, before) = (0, T::default());
    }
    put_tree(out, kind, fences)
}
