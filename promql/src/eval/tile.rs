//! Tiles: blocks of series × steps in columns.
//!
//! A tile has a row for each series: its labels, a value per step and a presence bit per step.
//! Values where the bit is clear mean nothing. With delayed name removal a row also says whether
//! its name goes in the end. Native histograms stand apart from the values, for
//! each row a list of steps; no step has both but those of
//! [`Merge::by_series`](super::merge::Merge::by_series). Operators hand tiles on that hold at most
//! [`VALUES_MAX`] values (but always at least one row); an operator that has to keep a whole
//! input keeps it in a tile without that bound.

use std::borrow::Cow;
use std::sync::Arc;

use isobar_model::{FloatHistogram, Labels, Reservation};

use super::EvalError;
use crate::functions::row::Row;

/// The most values that a tile holds on its way between operators: 128 KiB of them, so that what
/// one operator writes the next still finds in the cache.
pub(crate) const VALUES_MAX: usize = 16 * 1024;
/// The most rows of a tile on its way between operators.
const ROWS_MAX: usize = 1024;

/// A block of series × steps.
#[derive(Debug, Default)]
pub(crate) struct Tile {
    steps: usize,
    words: usize,
    labels: Vec<Labels>,
    drops: Vec<bool>,
    values: Vec<f64>,
    present: Vec<u64>,
    histograms: Vec<HistogramRow>,
    /// What a tile that is kept holds.
    memory: Option<Memory>,
}

/// The memory of a tile that is kept.
#[derive(Debug)]
struct Memory {
    reservation: Reservation,
    /// Bytes of labels and histograms, which lie outside of the columns.
    outside: usize,
}

/// The histograms of a row by ascending step.
pub(crate) type HistogramRow = Vec<(usize, Arc<FloatHistogram>)>;

/// The capacity of a vector that had one of `has` and takes in more up to `needs` elements: a
/// vector that is full doubles.
pub(crate) fn grown(has: usize, needs: usize) -> usize {
    if needs > has { needs.max(2 * has) } else { has }
}

/// What a row takes besides its cells, the text of its labels and its histograms.
const BYTES_PER_ROW: usize = size_of::<Labels>() + size_of::<bool>() + size_of::<HistogramRow>();

/// A row of a tile, to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowRef<'a> {
    pub(crate) labels: &'a Labels,
    /// Whether name, type and unit go when the query is done.
    pub(crate) drops_name: bool,
    pub(crate) values: &'a [f64],
    /// Of the values, not of the histograms.
    pub(crate) present: &'a [u64],
    pub(crate) histograms: &'a [(usize, Arc<FloatHistogram>)],
}

/// The most rows of `steps` steps that a tile carries between operators.
pub(crate) fn rows_max(steps: usize) -> usize {
    (VALUES_MAX / steps.max(1)).clamp(1, ROWS_MAX)
}

impl Tile {
    /// A tile without rows for `steps` steps.
    pub(crate) fn new(steps: usize) -> Self {
        let mut tile = Tile::default();
        tile.reset(steps);
        tile
    }

    /// A tile of rows that are laid out already, one after the other.
    pub(crate) fn of_rows(
        steps: usize,
        labels: Vec<Labels>,
        values: Vec<f64>,
        present: Vec<u64>,
    ) -> Self {
        let words = steps.div_ceil(64);
        assert!(values.len() == labels.len() * steps && present.len() == labels.len() * words);
        Tile {
            steps,
            words,
            histograms: vec![HistogramRow::new(); labels.len()],
            drops: vec![false; labels.len()],
            labels,
            values,
            present,
            memory: None,
        }
    }

    /// A tile without rows for `steps` steps that is going to be kept; its memory is reserved
    /// by [`Tile::make_room`].
    pub(crate) fn kept(steps: usize, reservation: Reservation) -> Self {
        let mut tile = Tile::new(steps);
        tile.keep(reservation);
        tile
    }

    /// Lets `reservation` stand for this tile's memory.
    pub(crate) fn keep(&mut self, reservation: Reservation) {
        let outside = self.bytes_outside();
        self.memory = Some(Memory {
            reservation,
            outside,
        });
    }

    /// Reserves the memory that copies of all rows of `added` take.
    ///
    /// # Errors
    /// When it is not to be had.
    pub(crate) fn make_room(&mut self, added: &Tile) -> Result<(), EvalError> {
        match self.memory {
            Some(_) => self.reserve_rows(added.len(), added.bytes_outside()),
            None => Ok(()),
        }
    }

    /// Reserves memory for `rows` more rows, with `outside` bytes of labels and histograms.
    ///
    /// # Errors
    /// When it is not to be had.
    pub(crate) fn reserve_rows(&mut self, rows: usize, outside: usize) -> Result<(), EvalError> {
        let rows = self.len() + rows;
        let values = grown(self.values.capacity(), rows * self.steps);
        let present = grown(self.present.capacity(), rows * self.words);
        let Some(memory) = &mut self.memory else {
            return Ok(());
        };
        memory.outside += outside;
        let bytes = 8 * (values + present) + rows * BYTES_PER_ROW + memory.outside;
        Ok(memory.reservation.grow_to(bytes)?)
    }

    /// The bytes that the tile takes.
    pub(crate) fn bytes(&self) -> usize {
        let columns = 8 * (self.values.capacity() + self.present.capacity());
        columns + self.labels.capacity() * BYTES_PER_ROW + self.bytes_outside()
    }

    /// The bytes of a row of so many steps without its labels and histograms.
    pub(crate) fn row_bytes(steps: usize) -> usize {
        size_of::<f64>() * steps + size_of::<u64>() * steps.div_ceil(64) + BYTES_PER_ROW
    }

    /// The bytes of the labels and the histograms of all rows.
    pub(crate) fn bytes_outside(&self) -> usize {
        let labels = self.labels.iter().map(|labels| labels.as_bytes().len());
        let histograms = self.histograms.iter().flatten();
        labels.sum::<usize>() + histograms.map(|(_, it)| 24 + it.bytes()).sum::<usize>()
    }

    /// Drops all rows and takes on another number of steps; keeps the memory.
    pub(crate) fn reset(&mut self, steps: usize) {
        self.steps = steps;
        self.words = steps.div_ceil(64);
        self.labels.clear();
        self.drops.clear();
        self.values.clear();
        self.present.clear();
        self.histograms.clear();
    }

    /// The number of steps.
    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Whether the tile holds as many rows as may travel.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= rows_max(self.steps)
    }

    /// Adds a row without any value and gives it to be filled.
    pub(crate) fn push(&mut self, labels: Labels) -> Row<'_> {
        self.labels.push(labels);
        self.drops.push(false);
        self.histograms.push(HistogramRow::new());
        let (values, words) = (self.values.len(), self.present.len());
        self.values.resize(values + self.steps, 0.0);
        self.present.resize(words + self.words, 0);
        Row {
            values: &mut self.values[values..],
            present: &mut self.present[words..],
        }
    }

    /// Adds a copy of a row under other labels.
    pub(crate) fn push_copy(&mut self, labels: Labels, row: RowRef<'_>) {
        self.push_row(labels, row.values, row.present);
        self.set_drops_name(self.len() - 1, row.drops_name);
        if let Some(histograms) = self.histograms.last_mut() {
            histograms.extend_from_slice(row.histograms);
        }
    }

    /// Adds a copy of a row without histograms.
    pub(crate) fn push_row(&mut self, labels: Labels, values: &[f64], present: &[u64]) {
        self.labels.push(labels);
        self.drops.push(false);
        self.histograms.push(HistogramRow::new());
        self.values.extend_from_slice(values);
        self.present.extend_from_slice(present);
    }

    /// Takes the last row away when it has no value; says whether it stayed.
    pub(crate) fn pop_if_absent(&mut self) -> bool {
        let words = self.present.len() - self.words;
        let any_histogram = self.histograms.last().is_some_and(|row| !row.is_empty());
        if any_histogram || self.present[words..].iter().any(|word| *word != 0) {
            return true;
        }
        self.labels.pop();
        self.drops.pop();
        self.histograms.pop();
        self.values.truncate(self.labels.len() * self.steps);
        self.present.truncate(words);
        false
    }

    /// Row `i`.
    pub(crate) fn row(&self, i: usize) -> RowRef<'_> {
        RowRef {
            labels: &self.labels[i],
            drops_name: self.drops[i],
            values: &self.values[i * self.steps..(i + 1) * self.steps],
            present: &self.present[i * self.words..(i + 1) * self.words],
            histograms: &self.histograms[i],
        }
    }

    /// The histograms of row `i`, to be changed.
    pub(crate) fn histograms_mut(&mut self, i: usize) -> &mut HistogramRow {
        &mut self.histograms[i]
    }

    /// Says whether the name of row `i` goes when the query is done.
    pub(crate) fn set_drops_name(&mut self, i: usize, drops: bool) {
        self.drops[i] = drops;
    }

    /// Says that all names go when the query is done.
    pub(crate) fn drop_all_names(&mut self) {
        self.drops.fill(true);
    }

    /// Whether there is any histogram.
    pub(crate) fn has_histograms(&self) -> bool {
        self.histograms.iter().any(|row| !row.is_empty())
    }

    /// Drops all histograms, and the rows that have nothing else.
    pub(crate) fn drop_histograms(&mut self) {
        if self.has_histograms() {
            self.histograms.iter_mut().for_each(HistogramRow::clear);
            self.retain_present();
        }
    }

    /// Row `i`, to be changed.
    pub(crate) fn row_mut(&mut self, i: usize) -> (&mut Labels, Row<'_>) {
        let values = &mut self.values[i * self.steps..(i + 1) * self.steps];
        let present = &mut self.present[i * self.words..(i + 1) * self.words];
        (&mut self.labels[i], Row { values, present })
    }

    /// All rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = RowRef<'_>> {
        (0..self.len()).map(|i| self.row(i))
    }

    /// All values, row after row, those of absent steps among them.
    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// Drops the rows without any value.
    pub(crate) fn retain_present(&mut self) {
        let mut kept = 0;
        for i in 0..self.len() {
            let words = i * self.words..(i + 1) * self.words;
            let no_value = self.present[words.clone()].iter().all(|word| *word == 0);
            if no_value && self.histograms[i].is_empty() {
                continue;
            }
            if kept != i {
                self.labels.swap(kept, i);
                self.drops.swap(kept, i);
                self.histograms.swap(kept, i);
                self.present.copy_within(words, kept * self.words);
                self.values
                    .copy_within(i * self.steps..(i + 1) * self.steps, kept * self.steps);
            }
            kept += 1;
        }
        self.labels.truncate(kept);
        self.drops.truncate(kept);
        self.histograms.truncate(kept);
        self.values.truncate(kept * self.steps);
        self.present.truncate(kept * self.words);
    }

    /// The number of values that are present, histograms by their size.
    pub(crate) fn count(&self) -> u64 {
        let rows = self.histograms.iter().filter(|row| !row.is_empty());
        let histograms = rows.map(|row| weights(row.iter().map(|it| it.1.as_ref())).sum::<u64>());
        count(&self.present) + histograms.sum::<u64>()
    }
}

impl<'a> RowRef<'a> {
    /// Whether step `step` has a value.
    pub(crate) fn has(&self, step: usize) -> bool {
        self.present[step / 64] >> (step % 64) & 1 == 1
    }

    /// Whether there is neither a value nor a histogram.
    pub(crate) fn is_absent(&self) -> bool {
        self.histograms.is_empty() && self.present.iter().all(|word| *word == 0)
    }

    /// The histogram of a step, if it has one.
    pub(crate) fn histogram(&self, step: usize) -> Option<&'a Arc<FloatHistogram>> {
        let at = self
            .histograms
            .binary_search_by_key(&step, |it| it.0)
            .ok()?;
        Some(&self.histograms[at].1)
    }

    /// The first step that has both a value and a histogram.
    pub(crate) fn first_mixed(&self) -> Option<usize> {
        let mut steps = self.histograms.iter().map(|(step, _)| *step);
        steps.find(|step| self.has(*step))
    }

    /// Whether both rows have a value at some step, or both a histogram.
    pub(crate) fn meets(&self, other: &RowRef<'_>) -> bool {
        let theirs = |step| other.histograms.binary_search_by_key(&step, |it| it.0);
        let mut steps = self.histograms.iter().map(|(step, _)| *step);
        first_common(self.present, other.present).is_some()
            || (!other.histograms.is_empty() && steps.any(|step| theirs(step).is_ok()))
    }

    /// The steps that have a value or a histogram.
    pub(crate) fn any_present(&self) -> Cow<'a, [u64]> {
        if self.histograms.is_empty() {
            return self.present.into();
        }
        let mut present = self.present.to_vec();
        mark(&mut present, self.histograms);
        present.into()
    }
}

/// How many samples each histogram counts for.
pub(crate) fn weights<'a>(
    histograms: impl Iterator<Item = &'a FloatHistogram>,
) -> impl Iterator<Item = u64> {
    let mut last: Option<(&FloatHistogram, u64)> = None;
    histograms.map(move |histogram| match last {
        Some((before, weight)) if before.shares_layout(histogram) => weight,
        _ => {
            let weight = histogram.weight_in_samples();
            last = Some((histogram, weight));
            weight
        }
    })
}

/// Sets the bits of the steps that have histograms.
pub(crate) fn mark(present: &mut [u64], histograms: &[(usize, Arc<FloatHistogram>)]) {
    for (step, _) in histograms {
        present[step / 64] |= 1 << (step % 64);
    }
}

/// Whether the bit of a step is set.
pub(crate) fn is_set(present: &[u64], step: usize) -> bool {
    present[step / 64] >> (step % 64) & 1 == 1
}

/// The number of bits set.
pub(crate) fn count(present: &[u64]) -> u64 {
    present
        .iter()
        .map(|word| u64::from(word.count_ones()))
        .sum()
}

/// The steps whose bits are set, when they lie side by side or there is none.
pub(crate) fn only_run(present: &[u64]) -> Option<std::ops::Range<usize>> {
    let Some(first) = first_set(present) else {
        return Some(0..0);
    };
    let end = last_set(present)? + 1;
    (count(present) as usize == end - first).then_some(first..end)
}

/// The word `word` of a row whose `steps` steps are all present.
pub(crate) fn full_word(steps: usize, word: usize) -> u64 {
    match steps - (word * 64).min(steps) {
        0 => 0,
        left if left >= 64 => u64::MAX,
        left => (1 << left) - 1,
    }
}

/// Sets the bits of all steps.
pub(crate) fn fill(present: &mut [u64], steps: usize) {
    for (word, bits) in present.iter_mut().enumerate() {
        *bits = full_word(steps, word);
    }
}

/// Calls `visit` with each step whose bit is set, in order.
#[inline(always)]
pub(crate) fn for_each(present: &[u64], mut visit: impl FnMut(usize)) {
    for (word, bits) in present.iter().enumerate() {
        let mut bits = *bits;
        while bits != 0 {
            visit(word * 64 + bits.trailing_zeros() as usize);
            bits &= bits - 1;
        }
    }
}

/// Calls `visit` with each run of steps whose bits are set, a run not reaching over 64 steps.
/// Where all bits of a word are set, loops over the run can be vectorised.
#[inline(always)]
pub(crate) fn for_each_run(
    present: &[u64],
    steps: usize,
    mut visit: impl FnMut(std::ops::Range<usize>),
) {
    for (word, bits) in present.iter().enumerate() {
        let from = word * 64;
        let full = full_word(steps, word);
        if *bits == full {
            visit(from..from + full.count_ones() as usize);
            continue;
        }
        let mut bits = *bits;
        while bits != 0 {
            let step = from + bits.trailing_zeros() as usize;
            visit(step..step + 1);
            bits &= bits - 1;
        }
    }
}

/// The first step whose bit is set.
pub(crate) fn first_set(present: &[u64]) -> Option<usize> {
    first_common(present, present)
}

/// The last step whose bit is set.
pub(crate) fn last_set(present: &[u64]) -> Option<usize> {
    let word = present.iter().rposition(|word| *word != 0)?;
    Some(word * 64 + 63 - present[word].leading_zeros() as usize)
}

/// The first step whose bit is set in both.
pub(crate) fn first_common(a: &[u64], b: &[u64]) -> Option<usize> {
    let word = a.iter().zip(b).position(|(a, b)| a & b != 0)?;
    Some(word * 64 + (a[word] & b[word]).trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_values_and_bits() {
        let mut tile = Tile::new(70);
        tile.push(Labels::from_pairs([("a", "1")])).set(69, 1.5);
        tile.push(Labels::empty());
        assert!(!tile.pop_if_absent());
        tile.push(Labels::empty());
        tile.push(Labels::from_pairs([("b", "2")])).set(0, 2.5);
        tile.retain_present();
        assert_eq!((tile.len(), tile.count()), (2, 2));
        assert!(tile.row(0).has(69) && !tile.row(0).has(0));
        assert_eq!((tile.row(0).values[69], tile.row(1).values[0]), (1.5, 2.5));
        assert_eq!(tile.row(1).labels.get("b"), "2");
    }

    #[test]
    fn runs_cover_the_bits() {
        let mut present = vec![0; 3];
        fill(&mut present, 130);
        assert_eq!(count(&present), 130);
        present[1] &= !2;
        let mut seen = 0;
        for_each_run(&present, 130, |run| seen += run.len());
        assert_eq!(seen, 129);
        assert_eq!(only_run(&present), None);
        assert_eq!(only_run(&[0, 0]), Some(0..0));
        assert_eq!(only_run(&[!7, 3]), Some(3..66));
    }
}
