//! Series taken out of the index for a select: which they are, and the texts of their labels, so
//! that sorting and printing them needs no lock.

use isobar_model::Labels;

/// Series apart from the index, their label pairs replaced by small numbers.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// The texts of all pairs, name and value by turns; and where each name and value ends.
    texts: String,
    ends: Vec<(usize, usize)>,
    /// The pairs of all series.
    flat: Vec<u32>,
    series: Vec<GatheredSeries>,
}

/// A series, and where its pairs stand in [`Gathered`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatheredSeries {
    pub(crate) id: u32,
    start: usize,
    len: usize,
}

impl Gathered {
    /// Adds a series with the numbers of its pairs.
    pub(crate) fn add_series(&mut self, id: u32, pairs: impl Iterator<Item = u32>) {
        let start = self.flat.len();
        self.flat.extend(pairs);
        self.series.push(GatheredSeries {
            id,
            start,
            len: self.flat.len() - start,
        });
    }

    /// Adds the next pair: the first has number 0.
    pub(crate) fn add_pair(&mut self, name: &str, value: &str) {
        self.texts.push_str(name);
        let name_end = self.texts.len();
        self.texts.push_str(value);
        self.ends.push((name_end, self.texts.len()));
    }

    /// Sorts the series by labels. Numbers of pairs become their ranks for that, so that two
    /// series compare without a look at a text.
    pub(crate) fn sort(&mut self) {
        let mut order: Vec<u32> = (0..self.ends.len() as u32).collect();
        order.sort_unstable_by_key(|pair| self.pair(*pair));
        let mut ranks = vec![0; order.len()];
        order
            .iter()
            .zip(0..)
            .for_each(|(pair, rank)| ranks[*pair as usize] = rank);
        self.flat
            .iter_mut()
            .for_each(|pair| *pair = ranks[*pair as usize]);
        let flat = &self.flat;
        let pairs = |series: &GatheredSeries| &flat[series.start..series.start + series.len];
        self.series
            .sort_unstable_by(|a, b| pairs(a).cmp(pairs(b)).then(a.id.cmp(&b.id)));
        // `flat` holds ranks now, so the texts follow in that order.
        let mut sorted = Gathered::default();
        for pair in order {
            let (name, value) = self.pair(pair);
            sorted.add_pair(name, value);
        }
        (self.texts, self.ends) = (sorted.texts, sorted.ends);
    }

    /// The series, in label order once they are sorted.
    pub(crate) fn series(&self) -> &[GatheredSeries] {
        &self.series
    }

    /// Names and values of all pairs, in order once the series are sorted.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        (0..self.ends.len() as u32).map(|pair| self.pair(pair))
    }

    /// Whether two series have the same labels.
    pub(crate) fn same_labels(&self, a: GatheredSeries, b: GatheredSeries) -> bool {
        self.flat[a.start..a.start + a.len] == self.flat[b.start..b.start + b.len]
    }

    /// The labels of a series. `text` is scratch memory.
    pub(crate) fn labels(&self, series: GatheredSeries, text: &mut String) -> Labels {
        let pairs = &self.flat[series.start..series.start + series.len];
        Labels::from_sorted(pairs.iter().map(|pair| self.pair(*pair)), text)
    }

    fn pair(&self, pair: u32) -> (&str, &str) {
        let at = pair as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
        let (name_end, end) = self.ends[at];
        (&self.texts[start..name_end], &self.texts[name_end..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_sort_as_their_labels_do() {
        let pairs = [("b", "2"), ("a", "1"), ("a", "10"), ("ab", "0"), ("b", "1")];
        let series = [
            vec![1, 0],
            vec![2],
            vec![1],
            vec![3, 4],
            vec![1, 4],
            vec![0],
            vec![],
        ];
        let mut gathered = Gathered::default();
        let mut expected = Vec::new();
        for (id, numbers) in (0..).zip(&series) {
            gathered.add_series(id, numbers.iter().copied());
            expected.push(Labels::from_pairs(
                numbers.iter().map(|n| pairs[*n as usize]),
            ));
        }
        pairs
            .iter()
            .for_each(|(name, value)| gathered.add_pair(name, value));
        gathered.sort();
        expected.sort();
        let mut text = String::new();
        let sorted = gathered
            .series()
            .iter()
            .map(|series| gathered.labels(*series, &mut text));
        assert_eq!(sorted.collect::<Vec<_>>(), expected);
        assert!(gathered.pairs().is_sorted());
    }
}
