//! Which series match, and which labels they have.
//!
//! A matcher that the empty value satisfies cannot name the series that it selects, because those
//! without the label are among them: it subtracts the others instead. The rest intersect.

use std::collections::BTreeSet;

use isobar_model::{MatchOp, Matcher};

use super::postings::{intersect, subtract, union};
use super::{IndexReader, Postings, SeriesEntry, SeriesRef};
use crate::Error;

impl IndexReader {
    /// The series that satisfy all matchers, in label order.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the index cannot be read.
    pub fn matching(&self, matchers: &[Matcher]) -> Result<Vec<SeriesRef>, Error> {
        let (subtracting, intersecting): (Vec<_>, Vec<_>) =
            matchers.iter().partition(|matcher| matcher.matches_empty());
        let mut lists = Vec::with_capacity(intersecting.len().max(1));
        // The cheap ones first: when one finds nothing, the others need not be asked.
        let (equal, others): (Vec<_>, Vec<_>) = intersecting
            .into_iter()
            .partition(|matcher| matcher.op() == MatchOp::Equal);
        for matcher in equal.into_iter().chain(others) {
            let list = self.values_where(matcher, true)?;
            if list.is_empty() {
                return Ok(Vec::new());
            }
            lists.push(list);
        }
        if lists.is_empty() {
            lists.push(self.all_postings()?);
        }
        let mut series = intersect(lists);
        for matcher in subtracting {
            if series.is_empty() {
                break;
            }
            subtract(&mut series, &self.values_where(matcher, false)?);
        }
        Ok(series)
    }

    /// The names of all labels of the series that match, sorted.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the index cannot be read.
    pub fn matching_label_names(&self, matchers: &[Matcher]) -> Result<Vec<String>, Error> {
        if matchers.is_empty() {
            return Ok(self.label_names().map(str::to_owned).collect());
        }
        let mut symbols = BTreeSet::new();
        let mut entry = SeriesEntry::default();
        for series in self.matching(matchers)? {
            self.series(series, &mut entry)?;
            symbols.extend(entry.labels.iter().map(|(name, _)| *name));
        }
        let mut names = symbols
            .into_iter()
            .map(|symbol| self.symbol(symbol).map(str::to_owned))
            .collect::<Result<Vec<_>, _>>()?;
        names.sort_unstable();
        Ok(names)
    }

    /// The values of a label of the series that match, sorted.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the index cannot be read.
    pub fn matching_label_values(
        &self,
        label: &str,
        matchers: &[Matcher],
    ) -> Result<Vec<String>, Error> {
        let (own, others): (Vec<_>, Vec<_>) =
            matchers.iter().partition(|matcher| matcher.name() == label);
        let matched = if others.is_empty() {
            None
        } else {
            Some(self.matching(matchers)?)
        };
        if let Some(series) = &matched
            && series.len() < self.value_count(label)
        {
            return self.label_values_of(label, series);
        }
        let mut values = Vec::new();
        for entry in self.label_values(label, "")? {
            let (value, offset) = entry?;
            if !own.iter().all(|matcher| matcher.matches(value)) {
                continue;
            }
            if let Some(series) = &matched
                && !self.postings_at(offset)?.intersects(series)
            {
                continue;
            }
            values.push(value.to_owned());
        }
        Ok(values)
    }

    fn label_values_of(&self, label: &str, series: &[SeriesRef]) -> Result<Vec<String>, Error> {
        let Some(name) = self.find_symbol(label)? else {
            return Ok(Vec::new());
        };
        let mut symbols = BTreeSet::new();
        let mut entry = SeriesEntry::default();
        for series in series {
            self.series(*series, &mut entry)?;
            symbols.extend(
                entry
                    .labels
                    .iter()
                    .filter(|pair| pair.0 == name)
                    .map(|pair| pair.1),
            );
        }
        let mut values = symbols
            .into_iter()
            .map(|symbol| self.symbol(symbol).map(str::to_owned))
            .collect::<Result<Vec<_>, _>>()?;
        values.sort_unstable();
        Ok(values)
    }

    /// The series that have the matcher's label with a value that it accepts (`accepted`), or
    /// does not accept.
    fn values_where(&self, matcher: &Matcher, accepted: bool) -> Result<Postings<'_>, Error> {
        let label = matcher.name();
        // Accepting `=` is refusing `!=`: what is left is the values that compare equal, or not.
        let wants_equal = accepted == matches!(matcher.op(), MatchOp::Equal | MatchOp::Regexp);
        let Some(regexp) = matcher.regexp() else {
            if wants_equal {
                return self.postings(label, matcher.value());
            }
            return self.union_where(label, "", |value| {
                if value == matcher.value() {
                    Choice::No
                } else {
                    Choice::Yes
                }
            });
        };
        // Two expressions that say little, but are written often.
        match (matcher.value(), wants_equal) {
            (".*", false) => return Ok(Postings::EMPTY),
            (".*" | ".+", true) => return self.union_where(label, "", |_| Choice::Yes),
            _ => {}
        }
        if !wants_equal {
            return self.union_where(label, "", |value| Choice::from(!regexp.is_match(value)));
        }
        if let Some(literals) = regexp.literals() {
            let literals: BTreeSet<_> = literals.iter().filter(|it| !it.is_empty()).collect();
            let lists = literals
                .into_iter()
                .map(|literal| self.postings(label, literal));
            return self.union(lists.collect::<Result<_, _>>()?);
        }
        let prefix = regexp.prefix();
        self.union_where(label, prefix, |value| {
            if !value.starts_with(prefix) {
                return Choice::NoneFromHere;
            }
            Choice::from(regexp.is_match(value))
        })
    }

    /// The series that have a label with a chosen value, of the values from `from` on.
    fn union_where(
        &self,
        label: &str,
        from: &str,
        choose: impl Fn(&str) -> Choice,
    ) -> Result<Postings<'_>, Error> {
        let mut lists = Vec::new();
        for entry in self.label_values(label, from)? {
            let (value, offset) = entry?;
            match choose(value) {
                Choice::Yes => lists.push(self.postings_at(offset)?),
                Choice::No => {}
                Choice::NoneFromHere => break,
            }
        }
        self.union(lists)
    }

    /// The series of any of the lists of different values of one label. Since a series has one
    /// value of a label, the lists share nothing: together they are not longer than the file.
    fn union<'a>(&self, lists: Vec<Postings<'a>>) -> Result<Postings<'a>, Error> {
        let series: usize = lists.iter().map(Postings::len).sum();
        if (series * size_of::<SeriesRef>()) as u64 > self.size_bytes() {
            return Err(self.corrupt("postings: lists of different values share series"));
        }
        Ok(union(lists))
    }
}

/// What to do with a value.
enum Choice {
    Yes,
    No,
    /// No, and no value behind it either.
    NoneFromHere,
}

impl From<bool> for Choice {
    fn from(yes: bool) -> Self {
        if yes { Choice::Yes } else { Choice::No }
    }
}

#[cfg(test)]
mod tests {
    use isobar_model::Labels;

    use super::*;
    use crate::index::IndexWriter;
    use crate::mmap::map_file;

    fn index(dir: &std::path::Path) -> IndexReader {
        let path = dir.join("index");
        let mut writer = IndexWriter::create(&path, ["a", "b", "c"].map(Ok)).unwrap();
        for value in ["b", "c"] {
            writer
                .add(&Labels::from_pairs([("a", value)]), &[])
                .unwrap();
        }
        writer.finish().unwrap();
        IndexReader::open("index", map_file(&path).unwrap()).unwrap()
    }

    #[test]
    fn lists_that_share_series_do_not_fill_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path());
        let list = || Postings::Decoded(vec![SeriesRef(1); 20]);
        assert!(index.union(vec![list()]).is_ok());
        let error = index
            .union((0..1000).map(|_| list()).collect())
            .unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }

    #[test]
    fn an_alternative_may_be_named_twice() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path());
        let pattern = ["b"; 1000].join("|");
        let matcher = Matcher::new("a", MatchOp::Regexp, pattern).unwrap();
        assert_eq!(index.matching(&[matcher]).unwrap().len(), 1);
    }
}
