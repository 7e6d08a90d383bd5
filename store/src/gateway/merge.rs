//! Streams of series in label order as one, with the meaning of [`isobar_tsdb::merge::merge`]: series
//! with equal labels are one, their chunks are ordered by their first time, and of equal chunks one
//! stays.
//!
//! Blocks that follow each other in time hold nearly the same series, so the heads of most sources are
//! equal most of the time. They are kept in groups of equal labels, in order; a new head is compared
//! with the last group that was touched first, which costs one comparison of bytes, and looked up only
//! when it is another.

use futures::StreamExt;
use futures::stream;
use isobar_model::Labels;
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::Chunk;

use crate::api::{SeriesBatch, SeriesStream, StoreError};

/// Series that are given at a time.
const BATCH_SERIES: usize = 128;

/// The series of all streams in label order. Remarks are passed on as they come; after an error there
/// is nothing more. Of series with equal labels the chunks of earlier streams come first where they
/// begin at the same time.
pub(super) fn merge(mut streams: Vec<SeriesStream>) -> SeriesStream {
    if streams.len() == 1
        && let Some(only) = streams.pop()
    {
        return only;
    }
    let count = streams.len();
    let sources = streams.into_iter().map(|stream| Source {
        stream: Some(stream),
        batch: Vec::new().into_iter(),
    });
    let merge = Merge {
        sources: sources.collect(),
        groups: Vec::with_capacity(count),
        empty: (0..count).rev().collect(),
        out: Vec::new(),
        begun: false,
        done: false,
    };
    let batches = stream::unfold(merge, |mut merge| async move {
        let item = merge.next().await?;
        if item.is_err() {
            merge.done = true;
            merge.sources.clear();
        }
        Some((item, merge))
    });
    batches.boxed()
}

struct Source {
    stream: Option<SeriesStream>,
    batch: std::vec::IntoIter<SeriesChunks>,
}

/// Heads with equal labels.
struct Group {
    labels: Labels,
    /// Sources with the chunks of their head, and the memory that these keep.
    heads: Vec<(usize, Vec<Chunk>, usize)>,
}

struct Merge {
    sources: Vec<Source>,
    /// The last is the first in label order.
    groups: Vec<Group>,
    /// Sources without a head, the first on top.
    empty: Vec<usize>,
    out: Vec<SeriesChunks>,
    /// Whether something was given.
    begun: bool,
    done: bool,
}

impl Merge {
    async fn next(&mut self) -> Option<Result<SeriesBatch, StoreError>> {
        if self.done {
            return None;
        }
        loop {
            // Every source that is not at its end needs a head before anything can be given.
            let mut touched = self.groups.len();
            while let Some(source) = self.empty.last().copied() {
                let at = self.sources.get_mut(source)?;
                if let Some(series) = at.batch.next() {
                    self.empty.pop();
                    self.insert(source, series, &mut touched);
                    continue;
                }
                // The rest may have to be waited for; the very first series should not.
                let enough = if self.begun { BATCH_SERIES / 2 } else { 1 };
                if self.out.len() >= enough {
                    self.begun = true;
                    return Some(Ok(SeriesBatch::Series(std::mem::take(&mut self.out))));
                }
                let at = self.sources.get_mut(source)?;
                let next = match &mut at.stream {
                    Some(stream) => stream.next().await,
                    None => None,
                };
                match next {
                    Some(Ok(SeriesBatch::Series(batch))) => at.batch = batch.into_iter(),
                    Some(Ok(remark)) => return Some(Ok(remark)),
                    Some(Err(error)) => return Some(Err(error)),
                    None => {
                        at.stream = None;
                        self.empty.pop();
                    }
                }
            }
            let Some(first) = self.groups.pop() else {
                self.done = true;
                let rest = std::mem::take(&mut self.out);
                return (!rest.is_empty()).then_some(Ok(SeriesBatch::Series(rest)));
            };
            self.give(first);
            if self.out.len() >= BATCH_SERIES {
                return Some(Ok(SeriesBatch::Series(std::mem::take(&mut self.out))));
            }
        }
    }

    fn insert(&mut self, source: usize, series: SeriesChunks, touched: &mut usize) {
        let SeriesChunks {
            labels,
            chunks,
            heap_bytes,
        } = series;
        let head = (source, chunks, heap_bytes);
        let same = self
            .groups
            .get_mut(*touched)
            .filter(|it| it.labels == labels);
        if let Some(group) = same {
            group.heads.push(head);
            return;
        }
        // Groups are in falling order.
        let at = self.groups.partition_point(|group| group.labels > labels);
        *touched = at;
        match self.groups.get_mut(at).filter(|it| it.labels == labels) {
            Some(group) => group.heads.push(head),
            None => self.groups.insert(
                at,
                Group {
                    labels,
                    heads: vec![head],
                },
            ),
        }
    }

    fn give(&mut self, mut group: Group) {
        group.heads.sort_by_key(|it| it.0);
        self.empty.extend(group.heads.iter().rev().map(|it| it.0));
        let joined = group.heads.len() > 1;
        let more = group.heads.iter().skip(1).map(|it| it.1.len()).sum();
        let heap_bytes = group.heads.iter().map(|it| it.2).sum();
        let mut heads = group.heads.into_iter();
        let mut chunks = heads.next().map(|it| it.1).unwrap_or_default();
        chunks.reserve_exact(more);
        heads.for_each(|(_, more, _)| chunks.extend(more));
        if joined {
            let key = |chunk: &Chunk| chunk.min_ms;
            if !chunks.is_sorted_by(|a, b| key(a) < key(b)) {
                chunks.sort_by_key(key);
                chunks.dedup();
            }
        }
        self.out.push(SeriesChunks {
            labels: group.labels,
            chunks,
            heap_bytes,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use futures::executor::block_on;
    use isobar_tsdb::chunks::Encoding;
    use proptest::prelude::*;

    use super::*;

    type Series = BTreeMap<u8, Vec<u8>>;

    fn chunk(time: u8) -> Chunk {
        Chunk {
            encoding: Encoding::Xor,
            min_ms: i64::from(time / 4),
            max_ms: 10,
            data: Bytes::from(vec![time % 4]),
        }
    }

    fn labels(n: u8) -> Labels {
        Labels::from_pairs([
            ("a", (n / 4).to_string()),
            ("b", "x".repeat(usize::from(n % 4))),
        ])
    }

    fn streams(sources: &[Series], size: usize) -> Vec<SeriesStream> {
        let stream = |source: &Series| {
            let mut all: Vec<_> = source
                .iter()
                .map(|(n, times)| {
                    let chunks = times.iter().map(|time| chunk(*time)).collect();
                    SeriesChunks::in_memory(labels(*n), chunks)
                })
                .collect();
            all.sort_by(|a, b| a.labels.cmp(&b.labels));
            let batches: Vec<_> = all
                .chunks(size)
                .map(|it| Ok(SeriesBatch::Series(it.to_vec())))
                .collect();
            stream::iter(batches).boxed()
        };
        sources.iter().map(stream).collect()
    }

    fn all(stream: SeriesStream) -> Vec<SeriesChunks> {
        let batches: Vec<_> = block_on(stream.collect());
        let series = batches.into_iter().flat_map(|batch| match batch {
            Ok(SeriesBatch::Series(series)) => series,
            other => panic!("{other:?}"),
        });
        series.collect()
    }

    proptest! {
        #[test]
        fn like_the_merge_of_iterators(
            sources in prop::collection::vec(
                prop::collection::btree_map(0u8..40, prop::collection::btree_set(any::<u8>(), 1..4), 0..30),
                0..6,
            ),
            size in 1usize..7,
        ) {
            let sources: Vec<Series> = sources
                .into_iter()
                .map(|it| it.into_iter().map(|(n, times)| (n, times.into_iter().collect())).collect())
                .collect();
            let merged = all(merge(streams(&sources, size)));
            let iterators = streams(&sources, 1000).into_iter().map(|stream| {
                let series = all(stream);
                Box::new(series.into_iter().map(Ok)) as isobar_tsdb::merge::SeriesIter
            });
            let expected: Vec<_> = isobar_tsdb::merge::merge(iterators.collect())
                .map(Result::unwrap)
                .collect();
            prop_assert_eq!(merged, expected);
        }
    }

    #[test]
    fn an_error_is_the_end() {
        let failing = stream::iter([Ok(SeriesBatch::Series(vec![])), Err(StoreError::Cancelled)]);
        let other: Series = (0..9).map(|n| (n, vec![1])).collect();
        let mut sources = streams(&[other], 3);
        sources.push(failing.boxed());
        let items: Vec<_> = block_on(merge(sources).collect());
        assert!(matches!(items.as_slice(), [Err(StoreError::Cancelled)]));
    }
}
