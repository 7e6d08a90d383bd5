//! Series as a request wants them: external labels added, replica labels taken away, one shard of
//! them, in the order of the labels that they then have.
//!
//! Both changes of labels move series about, since sets are ordered pair by pair and a set comes
//! before those that it begins:
//!
//! * Adding a label that no series has moves only sets that are a beginning of others: `{a}` comes
//!   before `{a,b}`, but `{a,b,r}` before `{a,r}`. So such a set is held until the last that
//!   continues it with a name before the added one has passed: [`AddLabel`] holds as many series as
//!   label sets are nested, which is next to none.
//! * Taking a label away may move a series behind any other with the same first label pair, or, when it
//!   is the first label itself, anywhere. So [`TakeLabels`] collects the series of a metric and sorts
//!   them. Callers that know that no series has the label do without it.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use isobar_model::{Budget, Labels, LabelsBuilder, Matcher, Reservation, Warnings};
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::Chunk;
use xxhash_rust::xxh64::xxh64;

use crate::StoreError;
use crate::api::{SeriesBatch, SeriesStream, Shard};
use crate::local::TRUNCATED;

/// What is done to the series of a source.
#[derive(Debug, Clone, Default)]
pub struct Arrangement {
    /// Labels that every series is given. Where a series has one of them already, this one wins,
    /// provided that its name is among `taken` too.
    pub added: Labels,
    /// Labels that are taken away before.
    pub taken: Vec<String>,
    /// The part of the series that is wanted.
    pub shard: Option<Shard>,
    /// Most series; 0 for no bound.
    pub limit: usize,
}

impl Arrangement {
    /// Whether series change, or some are left out, for another reason than their number.
    pub fn changes_series(&self) -> bool {
        !self.added.is_empty() || !self.taken.is_empty() || self.shard.is_some()
    }

    /// `series`, which come in the order of their labels and each set once, arranged; in order and each
    /// set once again. What has to be collected for it is reserved from `memory`.
    pub fn of(self, series: SeriesStream, memory: Option<Arc<Budget>>) -> SeriesStream {
        if !self.changes_series() && self.limit == 0 {
            return series;
        }
        let state = Arranging {
            series: Some(series),
            steps: Steps::new(self, memory),
        };
        stream::unfold(state, |mut state| async move {
            let item = state.next().await?;
            if item.is_err() {
                state.series = None;
                state.steps.done = true;
                state.steps.out.clear();
            }
            Some((item, state))
        })
        .boxed()
    }
}

/// A stream on its way through the steps.
struct Arranging {
    series: Option<SeriesStream>,
    steps: Steps,
}

impl Arranging {
    async fn next(&mut self) -> Option<Result<SeriesBatch, StoreError>> {
        loop {
            if let Some(batch) = self.steps.ready() {
                return Some(Ok(batch));
            }
            if self.steps.done {
                return None;
            }
            let next = match &mut self.series {
                Some(series) => series.next().await,
                None => None,
            };
            match next {
                Some(Ok(SeriesBatch::Series(batch))) => {
                    if let Err(error) = self.steps.push(batch) {
                        return Some(Err(error));
                    }
                }
                Some(Ok(SeriesBatch::Warnings(warnings))) => {
                    return Some(Ok(SeriesBatch::Warnings(warnings)));
                }
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.series = None;
                    self.steps.finish();
                }
            }
        }
    }
}

/// All changes, one behind the other.
struct Steps {
    take: Option<TakeLabels>,
    add: Vec<AddLabel>,
    shard: Option<Shard>,
    left: usize,
    cut: bool,
    out: Vec<SeriesChunks>,
    done: bool,
}

impl Steps {
    fn new(arrangement: Arrangement, memory: Option<Arc<Budget>>) -> Self {
        let Arrangement {
            added,
            taken,
            shard,
            limit,
        } = arrangement;
        Steps {
            take: (!taken.is_empty()).then(|| TakeLabels::new(taken, memory)),
            add: added.iter().map(|(n, v)| AddLabel::new(n, v)).collect(),
            shard,
            left: if limit == 0 { usize::MAX } else { limit },
            cut: false,
            out: Vec::new(),
            done: false,
        }
    }

    fn push(&mut self, batch: Vec<SeriesChunks>) -> Result<(), StoreError> {
        let taken = match &mut self.take {
            None => batch,
            Some(take) => {
                let mut out = Vec::new();
                for series in batch {
                    take.push(series, &mut out)?;
                }
                out
            }
        };
        self.pass_on(taken);
        Ok(())
    }

    fn finish(&mut self) {
        let mut rest = Vec::new();
        if let Some(take) = &mut self.take {
            take.finish(&mut rest);
        }
        self.pass_on(rest);
        let mut rest = Vec::new();
        for add in &mut self.add {
            let mut out = Vec::new();
            for series in rest {
                add.push(series, &mut out);
            }
            add.finish(&mut out);
            rest = out;
        }
        self.give(rest);
        self.done = true;
    }

    fn pass_on(&mut self, mut batch: Vec<SeriesChunks>) {
        for add in &mut self.add {
            let mut out = Vec::with_capacity(batch.len());
            for series in batch {
                add.push(series, &mut out);
            }
            batch = out;
        }
        self.give(batch);
    }

    fn give(&mut self, batch: Vec<SeriesChunks>) {
        for series in batch {
            if let Some(shard) = &self.shard
                && !shard.contains(&series.labels)
            {
                continue;
            }
            if self.left == 0 {
                self.cut = true;
                self.done = true;
                return;
            }
            self.left -= 1;
            self.out.push(series);
        }
    }

    fn ready(&mut self) -> Option<SeriesBatch> {
        if !self.out.is_empty() {
            return Some(SeriesBatch::Series(std::mem::take(&mut self.out)));
        }
        std::mem::take(&mut self.cut).then(|| {
            let mut warnings = Warnings::default();
            warnings.warn(TRUNCATED);
            SeriesBatch::Warnings(warnings)
        })
    }
}

impl Shard {
    /// Whether a series belongs to this part. Source of the hash: `pkg/store/storepb/shard_info.go` of
    /// Thanos.
    pub fn contains(&self, labels: &Labels) -> bool {
        let mut text = Vec::with_capacity(128);
        for (name, value) in labels.iter() {
            if self.labels.iter().any(|it| it == name) == self.by {
                text.extend_from_slice(name.as_bytes());
                text.push(0xff);
                text.extend_from_slice(value.as_bytes());
                text.push(0xff);
            }
        }
        xxh64(&text, 0).checked_rem(self.count) == Some(self.index)
    }
}

/// Gives each series a label that none has.
struct AddLabel {
    name: String,
    value: String,
    /// Series, with the label, that others continue; each is a beginning of the next.
    held: Vec<Held>,
    scratch: String,
}

struct Held {
    /// The labels as they were.
    before: Labels,
    series: SeriesChunks,
}

impl AddLabel {
    fn new(name: &str, value: &str) -> Self {
        AddLabel {
            name: name.to_owned(),
            value: value.to_owned(),
            held: Vec::new(),
            scratch: String::new(),
        }
    }

    fn push(&mut self, mut series: SeriesChunks, out: &mut Vec<SeriesChunks>) {
        while let Some(held) = self.held.pop() {
            if continues_before(&held.before, &series.labels, &self.name) {
                self.held.push(held);
                break;
            }
            out.push(held.series);
        }
        let before = series.labels;
        let (labels, held) = before.with(&self.name, &self.value, &mut self.scratch);
        series.labels = labels;
        if held {
            self.held.push(Held { before, series });
        } else {
            out.push(series);
        }
    }

    fn finish(&mut self, out: &mut Vec<SeriesChunks>) {
        out.extend(self.held.drain(..).rev().map(|held| held.series));
    }
}

/// Whether `longer` is `shorter` with more labels, the first of which comes before `name`.
fn continues_before(shorter: &Labels, longer: &Labels, name: &str) -> bool {
    let (mut more, mut less) = (longer.iter(), shorter.iter());
    loop {
        match (less.next(), more.next()) {
            (Some(a), Some(b)) if a == b => {}
            (None, Some((next, _))) => return next < name,
            _ => return false,
        }
    }
}

/// Takes labels away and sorts again. Series that are the same then become one.
struct TakeLabels {
    names: Vec<String>,
    /// The series whose first label pair is that of the last, without the labels.
    group: Vec<SeriesChunks>,
    /// Their first label pair; none when it may be taken away itself.
    first: Option<(String, String)>,
    /// Whether some series had one of the labels.
    changed: bool,
    bytes: usize,
    reserved: Option<Reservation>,
}

impl TakeLabels {
    fn new(names: Vec<String>, memory: Option<Arc<Budget>>) -> Self {
        TakeLabels {
            names,
            group: Vec::new(),
            first: None,
            changed: false,
            bytes: 0,
            reserved: memory.map(|it| it.reservation("series that are sorted again")),
        }
    }

    fn push(
        &mut self,
        mut series: SeriesChunks,
        out: &mut Vec<SeriesChunks>,
    ) -> Result<(), StoreError> {
        let first = series.labels.iter().next();
        // When the first label goes, what is left may belong anywhere.
        let apart = first.filter(|(name, _)| self.is_before_all(name));
        if let Some((name, value)) = apart {
            let same = (self.first.as_ref()).is_some_and(|it| it.0 == name && it.1 == value);
            if !same {
                if self.first.is_some() {
                    self.finish(out);
                }
                self.first = Some((name.to_owned(), value.to_owned()));
            }
        }
        self.bytes += bytes_of(&series);
        if let Some(reserved) = &mut self.reserved {
            reserved
                .grow_to(self.bytes)
                .map_err(|why| StoreError::LimitExceeded(why.to_string()))?;
        }
        if self.names.iter().any(|name| series.labels.has(name)) {
            let names = &self.names;
            series.labels = series
                .labels
                .filter(|name| !names.iter().any(|it| it == name));
            self.changed = true;
        }
        self.group.push(series);
        Ok(())
    }

    /// Whether a label comes before all that are taken away, so that it stays the first.
    fn is_before_all(&self, first: &str) -> bool {
        self.names.iter().all(|name| first < name.as_str())
    }

    fn finish(&mut self, out: &mut Vec<SeriesChunks>) {
        self.bytes = 0;
        if let Some(reserved) = &mut self.reserved {
            reserved.shrink_to(0);
        }
        if !std::mem::take(&mut self.changed) {
            out.append(&mut self.group);
            return;
        }
        self.group.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut joined = false;
        for series in self.group.drain(..) {
            match out.last_mut() {
                Some(last) if last.labels == series.labels => {
                    last.chunks.extend(series.chunks);
                    last.heap_bytes += series.heap_bytes;
                    joined = true;
                }
                _ => {
                    if std::mem::take(&mut joined) {
                        put_in_order(out.last_mut());
                    }
                    out.push(series);
                }
            }
        }
        if joined {
            put_in_order(out.last_mut());
        }
    }
}

fn put_in_order(series: Option<&mut SeriesChunks>) {
    if let Some(series) = series {
        series.chunks.sort_by_key(|chunk| chunk.min_ms);
        series.chunks.dedup();
    }
}

/// About what a series takes in memory.
fn bytes_of(series: &SeriesChunks) -> usize {
    let chunks = series
        .chunks
        .iter()
        .map(|chunk| chunk.data.len() + size_of::<Chunk>());
    series.labels.as_bytes().len() + size_of::<SeriesChunks>() + chunks.sum::<usize>()
}

/// Matchers without those on labels that all series of a source have: `None` when one of those does not
/// hold, and no series matches.
pub fn without_external(matchers: &[Matcher], external: &Labels) -> Option<Vec<Matcher>> {
    let mut left = Vec::with_capacity(matchers.len());
    for matcher in matchers {
        if !external.has(matcher.name()) {
            left.push(matcher.clone());
        } else if !matcher.matches(external.get(matcher.name())) {
            return None;
        }
    }
    Some(left)
}

/// Labels with others added, which win.
pub fn with_external(labels: &Labels, external: &Labels) -> Labels {
    let mut builder = LabelsBuilder::new(labels);
    for (name, value) in external.iter() {
        builder.set(name, value);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use futures::FutureExt;
    use isobar_tsdb::chunks::Encoding;
    use proptest::prelude::*;

    use super::*;

    fn chunk(number: u8) -> Chunk {
        Chunk {
            encoding: Encoding::Xor,
            min_ms: i64::from(number),
            max_ms: i64::from(number),
            data: Bytes::copy_from_slice(&[number]),
        }
    }

    /// The series of sets, each with a chunk of its own, in order.
    fn series_of(sets: &[Vec<(&'static str, &'static str)>]) -> Vec<SeriesChunks> {
        let mut all: BTreeMap<Labels, u8> = BTreeMap::new();
        for (number, pairs) in sets.iter().enumerate() {
            let number = u8::try_from(number).expect("few series");
            all.insert(Labels::from_pairs(pairs.iter().copied()), number);
        }
        let one = |(labels, number)| SeriesChunks {
            heap_bytes: 0,
            labels,
            chunks: vec![chunk(number)],
        };
        all.into_iter().map(one).collect()
    }

    fn arranged(
        arrangement: Arrangement,
        series: &[SeriesChunks],
        per_batch: usize,
        memory: Option<Arc<Budget>>,
    ) -> Result<(Vec<SeriesChunks>, Warnings), StoreError> {
        let batches: Vec<_> = series
            .chunks(per_batch)
            .map(|batch| Ok(SeriesBatch::Series(batch.to_vec())))
            .collect();
        let mut stream = arrangement.of(stream::iter(batches).boxed(), memory);
        let (mut all, mut warnings) = (Vec::new(), Warnings::default());
        while let Some(batch) = stream.next().now_or_never().expect("nothing to wait for") {
            match batch? {
                SeriesBatch::Series(batch) => all.extend(batch),
                SeriesBatch::Warnings(more) => warnings.merge(more),
            }
        }
        Ok((all, warnings))
    }

    /// What [`Arrangement`] does, by looking at all series at once.
    fn naive(arrangement: &Arrangement, series: &[SeriesChunks]) -> Vec<SeriesChunks> {
        let mut all: BTreeMap<Labels, Vec<Chunk>> = BTreeMap::new();
        for one in series {
            let kept = one
                .labels
                .filter(|name| !arrangement.taken.iter().any(|it| it == name));
            let labels = with_external(&kept, &arrangement.added);
            all.entry(labels).or_default().extend(one.chunks.clone());
        }
        let wanted = |labels: &Labels| {
            arrangement
                .shard
                .as_ref()
                .is_none_or(|it| it.contains(labels))
        };
        let most = if arrangement.limit == 0 {
            usize::MAX
        } else {
            arrangement.limit
        };
        all.into_iter()
            .filter(|(labels, _)| wanted(labels))
            .take(most)
            .map(|(labels, mut chunks)| {
                chunks.sort_by_key(|chunk| chunk.min_ms);
                SeriesChunks::mapped(labels, chunks)
            })
            .collect()
    }

    fn some_sets() -> impl Strategy<Value = Vec<Vec<(&'static str, &'static str)>>> {
        let name = prop::sample::select(vec!["a", "b", "d", "m", "r", "x", "z"]);
        let value = prop::sample::select(vec!["1", "2", "3"]);
        // A metric's name keeps every set from being empty after all others are taken away.
        let rest = prop::collection::vec((name, value), 0..5);
        let set =
            (prop::sample::select(vec!["up", "down"]), rest).prop_map(|(metric, mut rest)| {
                rest.push(("__name__", metric));
                rest
            });
        prop::collection::vec(set, 0..40)
    }

    proptest! {
        #[test]
        fn as_if_all_were_sorted_at_once(
            sets in some_sets(),
            taken in prop::sample::subsequence(vec!["a", "m", "r"], 0..3),
            added in prop::sample::subsequence(vec![("c", "x"), ("n", "y"), ("y", "z"), ("A", "k")], 0..4),
            shards in 0u64..4,
            by in any::<bool>(),
            limit in prop::sample::select(vec![0usize, 1, 5]),
            per_batch in 1usize..5,
        ) {
            let series = series_of(&sets);
            for index in 0..shards.max(1) {
                let arrangement = Arrangement {
                    added: Labels::from_pairs(added.iter().copied()),
                    taken: taken.iter().map(|it| (*it).to_owned()).collect(),
                    shard: (shards > 0).then(|| Shard { index, count: shards, by, labels: vec!["b".into()] }),
                    limit,
                };
                let expected = naive(&arrangement, &series);
                let (got, _) = arranged(arrangement, &series, per_batch, None).expect("arranged");
                prop_assert_eq!(got, expected);
            }
        }
    }

    #[test]
    fn a_limit_is_told() {
        let series = series_of(&[vec![("a", "1")], vec![("a", "2")]]);
        let limited = |limit| Arrangement {
            limit,
            ..Arrangement::default()
        };
        let (one, warnings) = arranged(limited(1), &series, 4, None).expect("arranged");
        assert_eq!(one, &series[..1]);
        assert!(!warnings.is_empty());
        let (both, warnings) = arranged(limited(2), &series, 4, None).expect("arranged");
        assert_eq!(both, series);
        assert!(warnings.is_empty());
    }

    #[test]
    fn sorting_takes_memory() {
        let sets: Vec<_> = ["1", "2", "3", "4"]
            .map(|it| vec![("__name__", "up"), ("r", it)])
            .into();
        let series = series_of(&sets);
        let taken = || Arrangement {
            taken: vec!["r".into()],
            ..Arrangement::default()
        };
        let memory = Budget::new("the memory of one query", 1 << 20);
        let (one, _) = arranged(taken(), &series, 1, Some(Arc::clone(&memory))).expect("arranged");
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].chunks.len(), 4);
        assert_eq!(memory.held(), 0);
        let little = Budget::new("the memory of one query", 300);
        let error = arranged(taken(), &series, 1, Some(Arc::clone(&little))).expect_err("too much");
        assert!(matches!(error, StoreError::LimitExceeded(_)), "{error}");
        assert_eq!(little.held(), 0);
    }

    #[test]
    fn external_labels_are_matched_without_series() {
        let external = Labels::from_pairs([("cluster", "us")]);
        let ours = [Matcher::equal("cluster", "us"), Matcher::equal("a", "1")];
        let left = without_external(&ours, &external).expect("they match");
        assert_eq!(left.len(), 1);
        let others = [Matcher::equal("cluster", "eu")];
        assert!(without_external(&others, &external).is_none());
    }
}
