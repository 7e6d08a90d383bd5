//! The inverted index of the head: which series carry which label pair.
//!
//! Names and values live once, in the entry of their pair; a series is the list of its pairs'
//! numbers in name order. The text of labels is put together only when a series leaves the head.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use isobar_model::{Labels, MatchOp, Matcher};
use roaring::RoaringBitmap;

use super::gather::Gathered;
use super::postings::Postings;
use super::tenants::TenantId;

/// The number of a name, of a pair.
type NameId = u32;
type PairId = u32;

#[derive(Debug, Default)]
struct Name {
    text: Box<str>,
    /// The pairs of this name, in no order.
    pairs: Vec<PairId>,
}

#[derive(Debug)]
struct Pair {
    name: NameId,
    /// Where the pair stands in [`Name::pairs`].
    place: u32,
    value: Box<str>,
    postings: Postings,
}

#[derive(Debug)]
struct Entry {
    tenant: TenantId,
    pairs: Box<[PairId]>,
}

/// Which series exist, by id, by labels and by label pair.
#[derive(Debug, Default)]
pub(crate) struct Index {
    hasher: DefaultHashBuilder,
    names: Vec<Name>,
    /// Names without pairs, to be used again.
    free_names: Vec<NameId>,
    names_by_text: HashTable<NameId>,
    pairs: Vec<Option<Pair>>,
    free_pairs: Vec<PairId>,
    pairs_by_text: HashTable<PairId>,
    series: Vec<Option<Entry>>,
    series_by_labels: HashTable<u32>,
    by_tenant: Vec<RoaringBitmap>,
    scratch: Vec<PairId>,
    /// Bytes of all names and values, and the number of pairs that all series have together.
    text_bytes: usize,
    places: usize,
}

impl Index {
    /// The series of this tenant with these labels.
    pub(crate) fn find(&mut self, tenant: TenantId, labels: &Labels) -> Option<u32> {
        let mut pairs = std::mem::take(&mut self.scratch);
        pairs.clear();
        let known = labels.iter().all(|(name, value)| {
            self.find_pair(name, value)
                .inspect(|pair| pairs.push(*pair))
                .is_some()
        });
        let found = if known {
            self.find_pairs(tenant, &pairs)
        } else {
            None
        };
        self.scratch = pairs;
        found
    }

    fn find_pairs(&self, tenant: TenantId, pairs: &[PairId]) -> Option<u32> {
        let hash = self.hasher.hash_one((tenant, pairs));
        let same = |id: &u32| {
            self.entry(*id)
                .is_some_and(|entry| entry.tenant == tenant && *entry.pairs == *pairs)
        };
        self.series_by_labels.find(hash, same).copied()
    }

    /// Enters a series under an id that no other series has.
    pub(crate) fn insert(&mut self, id: u32, tenant: TenantId, labels: &Labels) {
        let pairs: Box<[PairId]> = labels
            .iter()
            .map(|(name, value)| self.find_or_add_pair(name, value))
            .collect();
        for pair in &pairs {
            if let Some(Some(pair)) = self.pairs.get_mut(*pair as usize) {
                pair.postings.insert(id);
            }
        }
        let at = id as usize;
        if self.series.len() <= at {
            self.series.resize_with(at + 1, || None);
        }
        let hash = self.hasher.hash_one((tenant, &*pairs));
        debug_assert!(self.series[at].is_none(), "an id has one series");
        self.places += pairs.len();
        self.series[at] = Some(Entry { tenant, pairs });
        let (hasher, series) = (&self.hasher, &self.series);
        self.series_by_labels
            .insert_unique(hash, id, |id| entry_hash(hasher, series, *id));
        let tenant = tenant.0 as usize;
        if self.by_tenant.len() <= tenant {
            self.by_tenant.resize_with(tenant + 1, RoaringBitmap::new);
        }
        self.by_tenant[tenant].insert(id);
    }

    /// Forgets a series, and the pairs that only it had.
    pub(crate) fn remove(&mut self, id: u32) {
        let hash = entry_hash(&self.hasher, &self.series, id);
        let Some(entry) = self.series.get_mut(id as usize).and_then(Option::take) else {
            return;
        };
        if let Ok(found) = self.series_by_labels.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        if let Some(ids) = self.by_tenant.get_mut(entry.tenant.0 as usize) {
            ids.remove(id);
        }
        self.places -= entry.pairs.len();
        for pair_id in entry.pairs {
            let Some(Some(pair)) = self.pairs.get_mut(pair_id as usize) else {
                continue;
            };
            pair.postings.remove(id);
            if pair.postings.is_empty() {
                self.remove_pair(pair_id);
            }
        }
    }

    fn remove_pair(&mut self, pair_id: PairId) {
        let Some(pair) = self.pairs.get_mut(pair_id as usize).and_then(Option::take) else {
            return;
        };
        let hash = self.hasher.hash_one((pair.name, &*pair.value));
        if let Ok(found) = self
            .pairs_by_text
            .find_entry(hash, |other| *other == pair_id)
        {
            found.remove();
        }
        let siblings = &mut self.names[pair.name as usize].pairs;
        siblings.swap_remove(pair.place as usize);
        if let Some(moved) = siblings.get(pair.place as usize).copied()
            && let Some(Some(moved)) = self.pairs.get_mut(moved as usize)
        {
            moved.place = pair.place;
        }
        self.text_bytes -= pair.value.len();
        self.free_pairs.push(pair_id);
        if self.names[pair.name as usize].pairs.is_empty() {
            self.remove_name(pair.name);
        }
    }

    fn remove_name(&mut self, id: NameId) {
        let Some(name) = self.names.get_mut(id as usize) else {
            return;
        };
        let hash = self.hasher.hash_one(&*name.text);
        if let Ok(found) = self.names_by_text.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        self.text_bytes -= name.text.len();
        (name.text, name.pairs) = (Box::default(), Vec::new());
        self.free_names.push(id);
    }

    fn find_name(&self, name: &str) -> Option<NameId> {
        let same = |id: &NameId| *self.names[*id as usize].text == *name;
        self.names_by_text
            .find(self.hasher.hash_one(name), same)
            .copied()
    }

    fn find_pair(&self, name: &str, value: &str) -> Option<PairId> {
        self.find_value(self.find_name(name)?, value)
    }

    fn find_value(&self, name: NameId, value: &str) -> Option<PairId> {
        let same = |id: &PairId| {
            self.pair(*id)
                .is_some_and(|pair| pair.name == name && *pair.value == *value)
        };
        self.pairs_by_text
            .find(self.hasher.hash_one((name, value)), same)
            .copied()
    }

    fn find_or_add_pair(&mut self, name: &str, value: &str) -> PairId {
        let name = self.find_name(name).unwrap_or_else(|| self.add_name(name));
        self.find_value(name, value)
            .unwrap_or_else(|| self.add_pair(name, value))
    }

    fn add_name(&mut self, text: &str) -> NameId {
        self.text_bytes += text.len();
        let name = Name {
            text: Box::from(text),
            pairs: Vec::new(),
        };
        let id = self.free_names.pop().unwrap_or_else(|| {
            self.names.push(Name::default());
            u32::try_from(self.names.len() - 1).expect("names are limited by memory before u32")
        });
        self.names[id as usize] = name;
        let (hasher, names) = (&self.hasher, &self.names);
        let hash_of = |id: &NameId| hasher.hash_one(&*names[*id as usize].text);
        self.names_by_text
            .insert_unique(hasher.hash_one(text), id, hash_of);
        id
    }

    fn add_pair(&mut self, name: NameId, value: &str) -> PairId {
        let id = self.free_pairs.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            u32::try_from(self.pairs.len() - 1).expect("pairs are limited by memory before u32")
        });
        let siblings = &mut self.names[name as usize].pairs;
        let place = siblings.len() as u32;
        siblings.push(id);
        self.text_bytes += value.len();
        let pair = Pair {
            name,
            place,
            value: Box::from(value),
            postings: Postings::default(),
        };
        self.pairs[id as usize] = Some(pair);
        let (hasher, pairs) = (&self.hasher, &self.pairs);
        let hash_of = |id: &PairId| match &pairs[*id as usize] {
            Some(pair) => hasher.hash_one((pair.name, &*pair.value)),
            None => 0,
        };
        self.pairs_by_text
            .insert_unique(hasher.hash_one((name, value)), id, hash_of);
        id
    }

    fn pair(&self, id: PairId) -> Option<&Pair> {
        self.pairs.get(id as usize)?.as_ref()
    }

    fn entry(&self, id: u32) -> Option<&Entry> {
        self.series.get(id as usize)?.as_ref()
    }

    fn texts(&self, entry: &Entry) -> impl Iterator<Item = (&str, &str)> {
        entry.pairs.iter().filter_map(|pair| {
            let pair = self.pair(*pair)?;
            Some((&*self.names[pair.name as usize].text, &*pair.value))
        })
    }

    /// The tenant and labels of a series. `text` is scratch memory.
    pub(crate) fn labels(&self, id: u32, text: &mut String) -> Option<(TenantId, Labels)> {
        let entry = self.entry(id)?;
        Some((entry.tenant, Labels::from_sorted(self.texts(entry), text)))
    }

    /// The tenant of a series.
    #[inline]
    pub(crate) fn tenant_of(&self, id: u32) -> Option<TenantId> {
        self.entry(id).map(|entry| entry.tenant)
    }

    /// The ids of all series, of one tenant or of all.
    pub(crate) fn all(&self, tenant: Option<TenantId>) -> RoaringBitmap {
        match tenant {
            Some(tenant) => self
                .by_tenant
                .get(tenant.0 as usize)
                .cloned()
                .unwrap_or_default(),
            None => self
                .by_tenant
                .iter()
                .fold(RoaringBitmap::new(), |all, ids| all | ids),
        }
    }

    /// The number of series, of one tenant or of all.
    pub(crate) fn series_count(&self, tenant: Option<TenantId>) -> u64 {
        match tenant {
            Some(tenant) => self
                .by_tenant
                .get(tenant.0 as usize)
                .map_or(0, RoaringBitmap::len),
            None => self.series_by_labels.len() as u64,
        }
    }

    /// The number of series of a tenant with a label pair.
    pub(crate) fn series_count_of(&self, tenant: TenantId, name: &str, value: &str) -> u64 {
        let pair = self.find_pair(name, value).and_then(|pair| self.pair(pair));
        let of_tenant = self.by_tenant.get(tenant.0 as usize);
        match (pair, of_tenant) {
            (Some(pair), Some(of_tenant)) => pair.postings.intersection_len(of_tenant),
            _ => 0,
        }
    }

    /// The memory that it takes, in bytes, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        /// An allocation rounds up, and a place in a hash table is not always taken.
        const SLACK: usize = 8;
        let names = self.names.capacity() * size_of::<Name>();
        let pairs = self.pairs.capacity() * size_of::<Option<Pair>>();
        let series = self.series.capacity() * size_of::<Option<Entry>>();
        let tables = self.pairs_by_text.capacity() + self.series_by_labels.capacity();
        let boxes = 2 * self.pairs_by_text.len() + self.series_by_labels.len();
        // Each place is a number in the list of its series and, about, one in the list of its pair.
        let places = 2 * self.places + self.pairs_by_text.len();
        names
            + pairs
            + series
            + self.text_bytes
            + (places + tables) * size_of::<u32>()
            + boxes * SLACK
    }

    /// The ids of the series that satisfy all matchers.
    pub(crate) fn select(&self, tenant: Option<TenantId>, matchers: &[Matcher]) -> RoaringBitmap {
        // Those that ask for a value come first: they make the set small. What an absent label
        // satisfies only takes members away.
        let mut ordered: Vec<&Matcher> = matchers.iter().collect();
        ordered.sort_by_key(|matcher| match matcher.op() {
            _ if matcher.matches_empty() => 3,
            MatchOp::Equal => 0,
            MatchOp::Regexp => 1,
            MatchOp::NotEqual | MatchOp::NotRegexp => 2,
        });
        let mut set: Option<RoaringBitmap> = None;
        for matcher in ordered {
            self.narrow(&mut set, tenant, matcher);
            if set.as_ref().is_some_and(RoaringBitmap::is_empty) {
                break;
            }
        }
        match (set, tenant) {
            (None, tenant) => self.all(tenant),
            (Some(set), None) => set,
            (Some(set), Some(tenant)) => match self.by_tenant.get(tenant.0 as usize) {
                Some(of_tenant) => set & of_tenant,
                None => RoaringBitmap::new(),
            },
        }
    }

    fn narrow(&self, set: &mut Option<RoaringBitmap>, tenant: Option<TenantId>, matcher: &Matcher) {
        let name = self.find_name(matcher.name());
        let pairs = name.map_or(&[][..], |name| &self.names[name as usize].pairs[..]);
        let wants_empty = matcher.matches_empty();
        // Testing the candidates is cheaper than testing more values than there are candidates.
        if let Some(set) = set
            && set.len() < pairs.len() as u64
            && !matches!(matcher.op(), MatchOp::Equal | MatchOp::NotEqual)
        {
            *set = set
                .iter()
                .filter(|id| self.satisfies(*id, name, matcher))
                .collect();
            return;
        }
        let postings = |wanted: bool| {
            pairs
                .iter()
                .filter_map(|pair| self.pair(*pair))
                .filter(move |pair| matcher.matches(&pair.value) == wanted)
                .map(|pair| &pair.postings)
        };
        let exact = || {
            name.and_then(|name| self.find_value(name, matcher.value()))
                .and_then(|pair| self.pair(pair))
                .map(|pair| &pair.postings)
        };
        match (matcher.op(), wants_empty) {
            (MatchOp::Equal, false) => match (set, exact()) {
                (Some(set), Some(postings)) => postings.intersect_into(set),
                (set, postings) => {
                    *set = Some(postings.map(Postings::to_bitmap).unwrap_or_default());
                }
            },
            (MatchOp::NotEqual, true) => {
                let set = set.get_or_insert_with(|| self.all(tenant));
                if let Some(postings) = exact() {
                    postings.subtract_from(set);
                }
            }
            (_, true) => {
                let set = set.get_or_insert_with(|| self.all(tenant));
                postings(false).for_each(|postings| postings.subtract_from(set));
            }
            (_, false) => {
                let mut union = RoaringBitmap::new();
                let literals = matcher.regexp().and_then(|regexp| regexp.literals());
                match (matcher.op(), literals, name) {
                    (MatchOp::Regexp, Some(literals), Some(name)) => literals
                        .iter()
                        .filter_map(|value| self.pair(self.find_value(name, value)?))
                        .for_each(|pair| pair.postings.union_into(&mut union)),
                    _ => postings(true).for_each(|postings| postings.union_into(&mut union)),
                }
                match set {
                    Some(set) => *set &= union,
                    None => *set = Some(union),
                }
            }
        }
    }

    fn satisfies(&self, id: u32, name: Option<NameId>, matcher: &Matcher) -> bool {
        let Some(entry) = self.entry(id) else {
            return false;
        };
        let value = entry
            .pairs
            .iter()
            .filter_map(|pair| self.pair(*pair))
            .find(|pair| Some(pair.name) == name)
            .map_or("", |pair| &*pair.value);
        matcher.matches(value)
    }

    /// The names of all labels of the series in `set`, of all series without one; sorted.
    pub(crate) fn label_names(&self, set: Option<&RoaringBitmap>) -> Vec<String> {
        let mut names: Vec<String> = self
            .names
            .iter()
            .filter(|name| {
                name.pairs
                    .iter()
                    .filter_map(|pair| self.pair(*pair))
                    .any(|pair| match set {
                        Some(set) => pair.postings.intersects(set),
                        None => true,
                    })
            })
            .map(|name| String::from(&*name.text))
            .collect();
        names.sort_unstable();
        names
    }

    /// The values of a label of the series in `set`, of all series without one; sorted.
    pub(crate) fn label_values(&self, name: &str, set: Option<&RoaringBitmap>) -> Vec<String> {
        let mut values: Vec<String> = self
            .pairs_of(name)
            .filter(|pair| set.is_none_or(|set| pair.postings.intersects(set)))
            .map(|pair| String::from(&*pair.value))
            .collect();
        values.sort_unstable();
        values
    }

    /// Each value of a label with the number of series of the tenant, or of all, that carry it.
    pub(crate) fn value_counts(&self, name: &str, tenant: Option<TenantId>) -> Vec<(String, u64)> {
        let of_tenant = tenant.map(|tenant| self.all(Some(tenant)));
        self.pairs_of(name)
            .map(|pair| (String::from(&*pair.value), count(pair, of_tenant.as_ref())))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Calls `each` with name, value and number of series of every label pair.
    pub(crate) fn for_each_pair(
        &self,
        tenant: Option<TenantId>,
        mut each: impl FnMut(&str, &str, u64),
    ) {
        let of_tenant = tenant.map(|tenant| self.all(Some(tenant)));
        for pair in self.pairs.iter().flatten() {
            let count = count(pair, of_tenant.as_ref());
            if count > 0 {
                each(&self.names[pair.name as usize].text, &pair.value, count);
            }
        }
    }

    fn pairs_of(&self, name: &str) -> impl Iterator<Item = &Pair> {
        let pairs = self
            .find_name(name)
            .map_or(&[][..], |id| &self.names[id as usize].pairs[..]);
        pairs.iter().filter_map(|pair| self.pair(*pair))
    }

    /// The series in `ids` with all texts that they need, to be used without the index.
    pub(crate) fn gather(&self, ids: &RoaringBitmap) -> Gathered {
        const UNSEEN: u32 = u32::MAX;
        let mut gathered = Gathered::default();
        let mut numbers = vec![UNSEEN; self.pairs.len()];
        let mut pairs = Vec::new();
        for id in ids {
            let Some(entry) = self.entry(id) else {
                continue;
            };
            gathered.add_series(
                id,
                entry.pairs.iter().map(|pair| {
                    let number = &mut numbers[*pair as usize];
                    if *number == UNSEEN {
                        *number = pairs.len() as u32;
                        pairs.extend(self.pair(*pair));
                    }
                    *number
                }),
            );
        }
        for pair in pairs {
            gathered.add_pair(&self.names[pair.name as usize].text, &pair.value);
        }
        gathered
    }

    /// How many names, pairs and series there is room for.
    #[cfg(test)]
    pub(crate) fn rooms(&self) -> [usize; 3] {
        [self.names.len(), self.pairs.len(), self.series.len()]
    }

    /// One more than the largest id.
    pub(crate) fn ids_end(&self) -> u32 {
        self.series.len() as u32
    }
}

fn count(pair: &Pair, set: Option<&RoaringBitmap>) -> u64 {
    set.map_or_else(
        || pair.postings.len(),
        |set| pair.postings.intersection_len(set),
    )
}

fn entry_hash(hasher: &DefaultHashBuilder, series: &[Option<Entry>], id: u32) -> u64 {
    match series.get(id as usize) {
        Some(Some(entry)) => hasher.hash_one((entry.tenant, &*entry.pairs)),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TenantId = TenantId(0);
    const U: TenantId = TenantId(1);

    fn index() -> Index {
        let mut index = Index::default();
        for (id, tenant, pairs) in [
            (0, T, vec![("__name__", "up"), ("job", "a")]),
            (1, T, vec![("__name__", "up"), ("job", "b")]),
            (5, T, vec![("__name__", "down")]),
            (7, U, vec![("__name__", "up"), ("job", "a")]),
        ] {
            index.insert(id, tenant, &Labels::from_pairs(pairs));
        }
        index
    }

    fn check(matchers: &[(&str, MatchOp, &str)], expected: &[u32]) {
        let matchers: Vec<_> = matchers
            .iter()
            .map(|(n, op, v)| Matcher::new(*n, *op, *v).unwrap())
            .collect();
        let found: Vec<u32> = index().select(None, &matchers).iter().collect();
        assert_eq!(found, expected, "{matchers:?}");
        let of_tenant: Vec<u32> = index().select(Some(U), &matchers).iter().collect();
        let expected: Vec<u32> = expected.iter().copied().filter(|id| *id == 7).collect();
        assert_eq!(of_tenant, expected, "{matchers:?}");
    }

    #[test]
    fn matchers_select() {
        use MatchOp::{Equal, NotEqual, NotRegexp, Regexp};
        check(&[], &[0, 1, 5, 7]);
        check(&[("job", Equal, "a")], &[0, 7]);
        check(&[("job", Equal, "")], &[5]);
        check(&[("job", NotEqual, "")], &[0, 1, 7]);
        check(&[("job", NotEqual, "a")], &[1, 5]);
        check(&[("job", Regexp, "a|b")], &[0, 1, 7]);
        check(&[("job", Regexp, "a|")], &[0, 5, 7]);
        check(&[("job", NotRegexp, "a|")], &[1]);
        check(&[("job", NotRegexp, "a")], &[1, 5]);
        check(&[("none", Regexp, ".*")], &[0, 1, 5, 7]);
        check(&[("none", Regexp, ".+")], &[]);
        check(&[("none", Equal, "x")], &[]);
        check(&[("__name__", Equal, "up"), ("job", Regexp, "[b-z]")], &[1]);
        check(
            &[("__name__", Equal, "up"), ("job", NotRegexp, "[b-z]")],
            &[0, 7],
        );
    }

    #[test]
    fn removed_series_leave_nothing() {
        let mut index = index();
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "b")]);
        assert_eq!(index.find(T, &labels), Some(1));
        assert_eq!(index.find(U, &labels), None);
        index.remove(1);
        index.remove(1);
        assert_eq!(index.find(T, &labels), None);
        assert_eq!(index.label_values("job", None), ["a"]);
        index.insert(9, T, &labels);
        assert_eq!(index.find(T, &labels), Some(9));
        for id in [0, 5, 7, 9] {
            index.remove(id);
        }
        assert!(index.label_names(None).is_empty());
        assert_eq!(index.series_count(None), 0);
    }

    #[test]
    fn names_and_values_of_a_selection() {
        let index = index();
        assert_eq!(index.label_names(None), ["__name__", "job"]);
        let set = index.select(None, &[Matcher::equal("__name__", "down")]);
        assert_eq!(index.label_names(Some(&set)), ["__name__"]);
        assert_eq!(index.label_values("__name__", None), ["down", "up"]);
        let mut counts = index.value_counts("__name__", Some(T));
        counts.sort();
        assert_eq!(counts, [("down".to_owned(), 1), ("up".to_owned(), 2)]);
        let mut text = String::new();
        let (tenant, labels) = index.labels(7, &mut text).unwrap();
        assert_eq!(
            (tenant, labels.to_string().as_str()),
            (U, r#"{__name__="up", job="a"}"#)
        );
    }
}
