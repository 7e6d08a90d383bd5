//! One suite for every store: whatever holds the series, it gives those of a naive model, in order, each
//! once, and no more than was asked for.
//!
//! A [`Subject`] is a store with all that it holds. [`accept`] asks it in every way that a request can
//! be put and compares with a look at all series, one by one. Downsampled data are not in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use isobar_model::histogram::CounterReset;
use isobar_model::{Columns, FloatHistogram, Labels, MatchOp, Matcher, TimeRange, Warnings};
use isobar_tsdb::merge::read_samples;

use crate::api::{LabelsRequest, SeriesBatch, SeriesRequest, Shard};
use crate::arrange::with_external;
use crate::{Store, StoreError};

/// What series is made of: its labels, and all samples.
pub type Held = (Labels, Columns);

/// A store and what it holds.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its external labels; none for a store without.
    pub external: Labels,
    /// Every series with its labels, the external ones among them, in any order.
    pub held: Vec<Held>,
    /// Labels, external or not, that could tell replicas apart.
    pub replica_labels: Vec<String>,
    /// Whether a request without matchers gives nothing or an error, as Thanos' gateway and sidecar have
    /// it, rather than everything.
    pub refuses_everything: bool,
    /// Whether chunks and series are given only for times that were asked for to the millisecond of a
    /// chunk. A store that looks at times more roughly may give series without samples in the range.
    pub exact_times: bool,
}

/// How many sets of matchers are tried with what has little to do with matchers.
const FEW: usize = 6;

/// Asks the store in all ways.
///
/// # Panics
/// With the request, when an answer is not that of the model.
pub async fn accept(subject: &Subject) {
    let all = subject.range();
    let sets = subject.matchers();
    for matchers in &sets {
        let request = SeriesRequest::new(matchers.clone(), all);
        subject.check(request).await;
    }
    // Matchers do not know of times, so each kind of range is asked for with a few, and so on.
    let few = || sets.iter().step_by(sets.len() / FEW + 1);
    for range in ranges(all) {
        for matchers in few() {
            let request = SeriesRequest::new(matchers.clone(), range);
            subject.check(request).await;
            subject.check_names(matchers, range).await;
        }
    }
    for matchers in few() {
        subject.check_shards(matchers, all).await;
        subject.check_limits(matchers, all).await;
        for count in 1..=subject.replica_labels.len() {
            let without = subject.replica_labels[..count].to_vec();
            subject
                .check(SeriesRequest {
                    without_labels: without,
                    ..SeriesRequest::new(matchers.clone(), all)
                })
                .await;
        }
        let skipping = SeriesRequest {
            skip_chunks: true,
            ..SeriesRequest::new(matchers.clone(), all)
        };
        subject.check(skipping).await;
    }
    subject.check_info();
    subject.check_leaving(all).await;
}

/// Everything, nothing, and parts whose ends lie on samples and between them.
fn ranges(all: TimeRange) -> Vec<TimeRange> {
    let third = (all.max_ms - all.min_ms) / 3;
    vec![
        all,
        TimeRange::ALL,
        TimeRange::new(all.min_ms + third, all.min_ms + 2 * third),
        TimeRange::new(all.min_ms, all.min_ms),
        TimeRange::new(all.max_ms, all.max_ms + 1),
        TimeRange::new(all.min_ms - 10_000, all.min_ms - 1),
        TimeRange::new(all.max_ms + 1, all.max_ms + 10_000),
    ]
}

impl Subject {
    /// The times from the first to the last sample.
    fn range(&self) -> TimeRange {
        let times = |columns: &Columns| {
            let floats = columns.timestamps.iter().copied();
            floats
                .chain(columns.histograms.iter().map(|it| it.0))
                .collect::<Vec<_>>()
        };
        let all: Vec<i64> = self.held.iter().flat_map(|it| times(&it.1)).collect();
        let min = all.iter().min().expect("a store with samples");
        let max = all.iter().max().expect("a store with samples");
        TimeRange::new(*min, *max)
    }

    /// Matchers of all kinds over labels that are there and that are not.
    fn matchers(&self) -> Vec<Vec<Matcher>> {
        let matcher =
            |name: &str, op, value: &str| Matcher::new(name, op, value).expect("a pattern");
        let any = matcher("__name__", MatchOp::Regexp, ".+");
        let mut sets = vec![
            vec![any.clone()],
            vec![any.clone(), matcher("no_such_label", MatchOp::Equal, "")],
            vec![any.clone(), matcher("no_such_label", MatchOp::NotEqual, "")],
            vec![any.clone(), matcher("no_such_label", MatchOp::Regexp, ".*")],
            vec![matcher("__name__", MatchOp::Equal, "no_such_metric")],
            vec![matcher("__name__", MatchOp::NotEqual, "no_such_metric")],
        ];
        // The first, the last and one in between, so that suites stay short over real data.
        let mut held: Vec<&Labels> = self.held.iter().map(|it| &it.0).collect();
        held.sort();
        let some = [held.first(), held.get(held.len() / 2), held.last()];
        for labels in some.into_iter().flatten() {
            let name = labels.metric_name();
            let metric = matcher("__name__", MatchOp::Equal, name);
            sets.push(vec![metric.clone()]);
            sets.push(vec![matcher("__name__", MatchOp::NotEqual, name)]);
            sets.push(vec![matcher(
                "__name__",
                MatchOp::NotRegexp,
                &format!("{name}|x.*"),
            )]);
            let whole = labels.iter().map(|(n, v)| matcher(n, MatchOp::Equal, v));
            sets.push(whole.collect());
        }
        if let Some(labels) = held.get(held.len() / 2) {
            let metric = matcher("__name__", MatchOp::Equal, labels.metric_name());
            for (label, value) in labels.iter() {
                let quoted = quoted(value);
                for (op, value) in [
                    (MatchOp::Equal, value),
                    (MatchOp::NotEqual, value),
                    (MatchOp::Equal, ""),
                    (MatchOp::NotEqual, ""),
                    (MatchOp::Regexp, &*format!("{quoted}|other")),
                    (MatchOp::NotRegexp, &*quoted),
                    (MatchOp::Regexp, &*format!("|{quoted}")),
                ] {
                    sets.push(vec![any.clone(), matcher(label, op, value)]);
                }
                sets.push(vec![metric.clone(), matcher(label, MatchOp::Regexp, ".*")]);
            }
        }
        sets
    }

    /// The series that the model gives, sorted; with equal ones joined after labels are taken away.
    fn expected(&self, request: &SeriesRequest) -> Vec<Held> {
        let mut expected: Vec<Held> = Vec::new();
        for (labels, columns) in &self.held {
            let fits = |it: &Matcher| it.matches(labels.get(it.name()));
            if !request.matchers.iter().all(fits) {
                continue;
            }
            let mut part = Columns::default();
            isobar_model::series::Samples::read(columns, request.range, &mut part)
                .expect("decoded already");
            if part.sample_count() == 0 {
                continue;
            }
            let kept = labels.filter(|name| !request.without_labels.iter().any(|it| it == name));
            if request.shard.as_ref().is_none_or(|it| it.contains(&kept)) {
                expected.push((kept, part));
            }
        }
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        expected
    }

    async fn check(&self, request: SeriesRequest) -> Vec<Labels> {
        let (got, warnings) = self.ask(request.clone()).await;
        assert!(warnings.is_empty(), "{request:?}: {warnings:?}");
        let labels: Vec<Labels> = got.iter().map(|it| it.0.clone()).collect();
        assert!(
            labels.is_sorted_by(|a, b| a < b),
            "not in order, or twice: {request:?}\n{labels:#?}"
        );
        let expected = self.expected(&request);
        let mut wanted: Vec<Labels> = expected.iter().map(|it| it.0.clone()).collect();
        wanted.dedup();
        if request.skip_chunks {
            assert!(
                got.iter().all(|it| it.1.sample_count() == 0),
                "chunks: {request:?}"
            );
        }
        if self.exact_times || request.range == self.range() || request.range == TimeRange::ALL {
            assert_eq!(labels, wanted, "{request:?}");
        } else {
            let missing: Vec<_> = wanted.iter().filter(|it| !labels.contains(it)).collect();
            assert!(missing.is_empty(), "missing {missing:?}: {request:?}");
        }
        // Where replicas are joined, which sample is taken at a time is not settled.
        if !request.skip_chunks && expected.len() == wanted.len() {
            let with_samples: Vec<_> = got.iter().filter(|it| it.1.sample_count() > 0).collect();
            assert_eq!(with_samples.len(), expected.len(), "{request:?}");
            for (got, wanted) in with_samples.into_iter().zip(&expected) {
                assert_same(got, wanted, &request);
            }
        }
        labels
    }

    /// The series of an answer, with their samples in the range of the request.
    async fn ask(&self, request: SeriesRequest) -> (Vec<Held>, Warnings) {
        let mut stream = self.store.series(request.clone());
        let (mut series, mut warnings) = (Vec::new(), Warnings::default());
        while let Some(batch) = stream.next().await {
            match batch {
                Ok(SeriesBatch::Series(batch)) => {
                    for one in batch {
                        let in_range =
                            |it: &isobar_tsdb::chunks::Chunk| it.range().overlaps(&request.range);
                        let outside = one.chunks.iter().find(|chunk| !in_range(chunk));
                        assert!(
                            outside.is_none(),
                            "a chunk outside: {outside:?} {request:?}"
                        );
                        let mut columns = Columns::default();
                        read_samples(&one.chunks, request.range, &mut columns)
                            .unwrap_or_else(|error| panic!("{error}: {request:?}"));
                        series.push((one.labels, columns));
                    }
                }
                Ok(SeriesBatch::Warnings(more)) => warnings.merge(more),
                Err(error) => panic!("{error}: {request:?}"),
            }
        }
        (series, warnings)
    }

    /// All shards together give every series once.
    async fn check_shards(&self, matchers: &[Matcher], range: TimeRange) {
        let whole = self
            .check(SeriesRequest::new(matchers.to_vec(), range))
            .await;
        for (by, count) in [(true, 2), (false, 3)] {
            let mut together = Vec::new();
            for index in 0..count {
                let part = SeriesRequest {
                    shard: Some(Shard {
                        index,
                        count,
                        by,
                        labels: vec!["__name__".to_owned(), "instance".to_owned()],
                    }),
                    ..SeriesRequest::new(matchers.to_vec(), range)
                };
                together.extend(self.check(part).await);
            }
            together.sort();
            assert_eq!(together, whole, "shards of {matchers:?}");
        }
    }

    /// A limit gives the first series.
    async fn check_limits(&self, matchers: &[Matcher], range: TimeRange) {
        let whole = SeriesRequest::new(matchers.to_vec(), range);
        let expected = self.expected(&whole);
        for limit in [1, expected.len().max(1), expected.len() + 1] {
            let request = SeriesRequest {
                limit,
                ..whole.clone()
            };
            let (got, warnings) = self.ask(request).await;
            let got: Vec<&Labels> = got.iter().map(|it| &it.0).collect();
            let first: Vec<&Labels> = expected.iter().map(|it| &it.0).take(limit).collect();
            assert_eq!(got, first, "limit {limit} of {matchers:?}");
            // Whether it is told that there are more is up to the store.
            assert!(
                warnings.is_empty() || limit < expected.len(),
                "limit {limit} of {matchers:?}: {warnings:?}"
            );
        }
    }

    async fn check_names(&self, matchers: &[Matcher], range: TimeRange) {
        let expected = self.expected(&SeriesRequest::new(matchers.to_vec(), range));
        let pairs = || expected.iter().flat_map(|it| it.0.iter());
        let names: BTreeSet<&str> = pairs().map(|it| it.0).collect();
        let request = || LabelsRequest::new(matchers.to_vec(), range);
        let got = self.store.label_names(request()).await;
        let got = got.unwrap_or_else(|error| panic!("{error}: names of {matchers:?}"));
        self.same_texts(
            &got.values,
            &names,
            range,
            &format!("names of {matchers:?} {range:?}"),
        );
        for name in names.iter().copied().take(4).chain(["no_such_label"]) {
            let values: BTreeSet<&str> = pairs().filter(|it| it.0 == name).map(|it| it.1).collect();
            let got = self.store.label_values(name.to_owned(), request()).await;
            let got = got.unwrap_or_else(|error| panic!("{error}: {name} of {matchers:?}"));
            self.same_texts(
                &got.values,
                &values,
                range,
                &format!("{name} of {matchers:?} {range:?}"),
            );
        }
        if names.len() > 1 {
            let limited = LabelsRequest {
                limit: 1,
                ..request()
            };
            let got = self.store.label_names(limited).await;
            let got = got.unwrap_or_else(|error| panic!("{error}: names of {matchers:?}"));
            assert_eq!(got.values.len(), 1);
        }
    }

    fn same_texts(&self, got: &[String], wanted: &BTreeSet<&str>, range: TimeRange, what: &str) {
        assert!(
            got.is_sorted_by(|a, b| a < b),
            "{what}: not in order, or twice: {got:?}"
        );
        if self.exact_times || range == self.range() || range == TimeRange::ALL {
            assert!(
                got.iter().eq(wanted.iter()),
                "{what}: {got:?}, wanted {wanted:?}"
            );
        } else {
            let has = |it: &&str| got.iter().any(|text| text == it);
            assert!(wanted.iter().all(has), "{what}: {got:?}, wanted {wanted:?}");
        }
    }

    fn check_info(&self) {
        let info = self.store.info();
        let all = self.range();
        let range = info.range.expect("a store with samples");
        assert!(
            range.min_ms <= all.min_ms && range.max_ms >= all.max_ms,
            "{info:?}"
        );
        assert!(!info.sets.is_empty(), "{info:?}");
        for set in &info.sets {
            assert_eq!(set.labels, self.external, "{info:?}");
            assert!(set.range.overlaps(&range), "{info:?}");
        }
    }

    /// A caller that goes away in the middle, one that takes its time, and one that asks for everything.
    async fn check_leaving(&self, range: TimeRange) {
        let any = Matcher::new("__name__", MatchOp::Regexp, ".+").expect("a pattern");
        let request = SeriesRequest::new(vec![any], range);
        for batches in 0..3 {
            let mut stream = self.store.series(request.clone());
            for _ in 0..batches {
                let _one_of_them = stream.next().await;
            }
        }
        let mut slow = self.store.series(request.clone());
        let mut count = 0;
        while let Some(batch) = slow.next().await {
            if let SeriesBatch::Series(batch) = batch.expect("a batch") {
                count += batch.len();
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(count, self.expected(&request).len());
        if self.refuses_everything {
            let mut all = self.store.series(SeriesRequest::new(Vec::new(), range));
            match all.next().await {
                None | Some(Err(StoreError::Invalid(_))) => {}
                other => panic!("a request without matchers gave {other:?}"),
            }
        }
    }
}

/// A pattern for a text.
fn quoted(text: &str) -> String {
    let special = |c: char| r"\.+*?()|[]{}^$".contains(c);
    text.chars()
        .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
        .collect()
}

fn assert_same(got: &Held, wanted: &Held, request: &SeriesRequest) {
    let (labels, got) = got;
    let (other, wanted) = wanted;
    assert_eq!(labels, other, "{request:?}");
    let bits = |columns: &Columns| {
        let values = columns.values.iter().map(|it| it.to_bits());
        columns
            .timestamps
            .iter()
            .copied()
            .zip(values)
            .collect::<Vec<_>>()
    };
    assert_eq!(bits(got), bits(wanted), "{labels}: {request:?}");
    let times = |columns: &Columns| columns.histograms.iter().map(|it| it.0).collect::<Vec<_>>();
    assert_eq!(times(got), times(wanted), "{labels}: {request:?}");
    for (got, wanted) in got.histograms.iter().zip(&wanted.histograms) {
        let mut wanted = FloatHistogram::clone(&wanted.1);
        // A store that cuts chunks does not know of the first one what came before; it says so then.
        if got.1.hint == CounterReset::Unknown {
            wanted.hint = CounterReset::Unknown;
        }
        // Counts as text, since a staleness marker is not equal to itself.
        assert_eq!(
            format!("{:?}", got.1),
            format!("{wanted:?}"),
            "{labels}: {request:?}"
        );
    }
}

/// The series of blocks in directories, with all their samples and `external` labels added, for
/// [`Subject::held`].
///
/// # Panics
/// When a block cannot be read.
pub fn held_in(blocks: &[std::path::PathBuf], external: &Labels) -> Vec<Held> {
    let open = |dir: &std::path::PathBuf| {
        let block = isobar_tsdb::block::BlockReader::open(dir);
        block.unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
    };
    let sources = blocks.iter().map(|dir| {
        let any = Matcher::new("__name__", MatchOp::Regexp, ".*").expect("a pattern");
        let series = open(dir).select(&[any], TimeRange::ALL);
        series.unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
    });
    isobar_tsdb::merge::merge(sources.collect())
        .map(|series| {
            let series = series.expect("a series");
            let mut columns = Columns::default();
            read_samples(&series.chunks, TimeRange::ALL, &mut columns).expect("samples");
            (with_external(&series.labels, external), columns)
        })
        .collect()
}
