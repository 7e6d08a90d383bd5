//! Questions to a card. Each reads the pages it needs, so it may wait for a disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use isobar_model::labels::METRIC_NAME;
use isobar_tsdb::Error;
use isobar_tsdb::encoding::{DecodeError, Decoder};

pub use super::page::{Extent, LabelName, Pair};
use super::page::{Kind, SymbolLeaf, header};
use super::tree::{Leaves, Target};
use super::{Card, Place, filter};

/// Leaves of symbols that a lookup keeps at hand.
const LEAVES_MAX: usize = 256;

impl Card {
    /// The number that series write for a text, when it is a symbol.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn find_symbol(&self, text: &str) -> Result<Option<u32>, Error> {
        let target = Target::Text(text.as_bytes());
        let mut leaves = Leaves::seek(self, Kind::Symbols, target)?;
        let Some((place, page)) = leaves.next()? else {
            return Ok(None);
        };
        SymbolLeaf::decode(&page, self.root.index_v1)
            .and_then(|leaf| leaf.find(text.as_bytes()))
            .map_err(|e| self.corrupt(place, e))
    }

    /// Texts of symbols.
    pub fn lookup(&self) -> Lookup {
        Lookup {
            card: self.clone(),
            leaves: BTreeMap::new(),
            text: Vec::new(),
        }
    }

    /// All label names, sorted.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn names(&self) -> Result<Vec<LabelName>, Error> {
        let from = Target::Key(0, 0);
        Entries::new(self, Kind::Names, from, LabelName::read)?.collect()
    }

    /// A label name.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn name(&self, symbol: u32) -> Result<Option<LabelName>, Error> {
        let from = Target::Key(symbol, 0);
        let entries = Entries::new(self, Kind::Names, from, LabelName::read)?;
        first_where(entries, |it| it.name >= symbol, |it| it.name == symbol)
    }

    /// The pairs of a label with the values from `from` on, sorted.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn pairs(
        &self,
        name: u32,
        from: u32,
    ) -> Result<impl Iterator<Item = Result<Pair, Error>> + use<'_>, Error> {
        let target = Target::Key(name, from);
        let entries = Entries::new(self, Kind::Pairs, target, Pair::read)?;
        let before = move |pair: &Pair| (pair.name, pair.value) < (name, from);
        let entries = entries.skip_while(move |it| it.as_ref().is_ok_and(before));
        Ok(entries.take_while(move |it| it.as_ref().map_or(true, |pair| pair.name == name)))
    }

    /// A label pair.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn pair(&self, name: u32, value: u32) -> Result<Option<Pair>, Error> {
        let first = self.pairs(name, value)?.next().transpose()?;
        Ok(first.filter(|pair| pair.value == value))
    }

    /// The extents of the metrics whose name is the symbol `from` or one behind it.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn extents(
        &self,
        from: u32,
    ) -> Result<impl Iterator<Item = Result<Extent, Error>> + use<'_>, Error> {
        let target = Target::Key(from, 0);
        let entries = Entries::new(self, Kind::Metrics, target, Extent::read)?;
        Ok(entries.skip_while(move |it| it.as_ref().is_ok_and(|it| it.value < from)))
    }

    /// Where the series of the metric lie whose name is the symbol `value`.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn extent(&self, value: u32) -> Result<Option<Extent>, Error> {
        let first = self.extents(value)?.next().transpose()?;
        Ok(first.filter(|extent| extent.value == value))
    }

    /// False when the block has no metric of this name.
    ///
    /// # Errors
    /// When the page cannot be read.
    pub fn may_hold_metric(&self, name: &str) -> Result<bool, Error> {
        let place = self.root.filter;
        if place.is_empty() {
            return Ok(true);
        }
        let answer = filter::may_hold(&self.page(place)?, name);
        answer.ok_or_else(|| self.corrupt(place, "it is no filter"))
    }

    /// The symbol of the label that holds metrics' names.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub fn metric_label(&self) -> Result<Option<u32>, Error> {
        self.find_symbol(METRIC_NAME)
    }
}

fn first_where<T>(
    entries: impl Iterator<Item = Result<T, Error>>,
    reached: impl Fn(&T) -> bool,
    is_it: impl Fn(&T) -> bool,
) -> Result<Option<T>, Error> {
    for entry in entries {
        let entry = entry?;
        if reached(&entry) {
            return Ok(is_it(&entry).then_some(entry));
        }
    }
    Ok(None)
}

/// The entries of a tree, from the leaf on in which the target is.
struct Entries<'c, T> {
    card: &'c Card,
    kind: Kind,
    leaves: Leaves<'c>,
    read: fn(&mut Decoder<'_>, &T) -> Result<T, DecodeError>,
    page: Bytes,
    place: Place,
    /// How far the page is read, and how many entries are left.
    at: usize,
    left: usize,
    last: T,
    failed: bool,
}

impl<'c, T: Copy + Default> Entries<'c, T> {
    fn new(
        card: &'c Card,
        kind: Kind,
        from: Target<'_>,
        read: fn(&mut Decoder<'_>, &T) -> Result<T, DecodeError>,
    ) -> Result<Self, Error> {
        Ok(Entries {
            card,
            kind,
            leaves: Leaves::seek(card, kind, from)?,
            read,
            page: Bytes::new(),
            place: Place::default(),
            at: 0,
            left: 0,
            last: T::default(),
            failed: false,
        })
    }

    fn step(&mut self) -> Result<Option<T>, Error> {
        while self.left == 0 {
            let Some((place, page)) = self.leaves.next()? else {
                return Ok(None);
            };
            let (level, count, decoder) =
                header(self.kind, &page).map_err(|e| self.card.corrupt(place, e))?;
            if level != 0 {
                return Err(self.card.corrupt(place, "it is no leaf"));
            }
            self.at = page.len() - decoder.len();
            (self.left, self.last) = (count, T::default());
            (self.place, self.page) = (place, page);
        }
        let corrupt = |e: DecodeError| self.card.corrupt(self.place, e);
        let mut decoder = Decoder::at(&self.page, self.at as u64).map_err(corrupt)?;
        self.last = (self.read)(&mut decoder, &self.last).map_err(corrupt)?;
        self.at = self.page.len() - decoder.len();
        self.left -= 1;
        Ok(Some(self.last))
    }
}

impl<T: Copy + Default> Iterator for Entries<'_, T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}

/// Finds texts of symbols, and keeps the pages where it found some.
pub struct Lookup {
    card: Card,
    /// By their first symbol.
    leaves: BTreeMap<u32, (Place, Bytes)>,
    text: Vec<u8>,
}

impl Lookup {
    /// The text of a symbol.
    ///
    /// # Errors
    /// When a page cannot be read, or there is no such symbol.
    pub fn text(&mut self, symbol: u32) -> Result<&str, Error> {
        if !self.find(symbol)? {
            self.load(symbol)?;
            if !self.find(symbol)? {
                let place = self.card.root.trees.first().copied().unwrap_or_default();
                let why = format_args!("there is no symbol {symbol}");
                return Err(self.card.corrupt(place, why));
            }
        }
        std::str::from_utf8(&self.text).map_err(|_| {
            let place = self.card.root.trees.first().copied().unwrap_or_default();
            self.card
                .corrupt(place, format_args!("symbol {symbol} is not UTF-8"))
        })
    }

    fn find(&mut self, symbol: u32) -> Result<bool, Error> {
        let Some((_, (place, page))) = self.leaves.range(..=symbol).next_back() else {
            return Ok(false);
        };
        SymbolLeaf::decode(page, self.card.root.index_v1)
            .and_then(|leaf| leaf.get(symbol, &mut self.text))
            .map_err(|e| self.card.corrupt(*place, e))
    }

    fn load(&mut self, symbol: u32) -> Result<(), Error> {
        if self.leaves.len() >= LEAVES_MAX {
            self.leaves.clear();
        }
        let mut leaves = Leaves::seek(&self.card, Kind::Symbols, Target::Key(symbol, 0))?;
        if let Some((place, page)) = leaves.next()? {
            let leaf = SymbolLeaf::decode(&page, self.card.root.index_v1)
                .map_err(|e| self.card.corrupt(place, e))?;
            self.leaves.insert(leaf.first(), (place, page));
        }
        Ok(())
    }
}
