//! Several stores as one: series in label order, each once, whichever of them hold it.
//!
//! A store whose times do not overlap with a request is not asked, so what is asked of the newest data alone
//! costs nothing more than it would without the others.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream::{self, StreamExt};
use isobar_model::{Labels, Matcher, TimeRange, Warnings};
use isobar_tsdb::SeriesChunks;

use crate::api::{
    LabelsRequest, Names, SelectEstimate, SeriesBatch, SeriesRequest, SeriesStream, Store,
    StoreError, StoreInfo,
};
use crate::local::TRUNCATED;

/// Series in a batch.
const BATCH_SERIES: usize = 64;

/// The stores.
#[derive(Clone)]
pub struct Union {
    parts: Arc<[Arc<dyn Store>]>,
}

impl Union {
    /// All of `parts` as one store. Which of two equal chunks is given does not matter; where chunks
    /// overlap, both are.
    pub fn of(parts: Vec<Arc<dyn Store>>) -> Self {
        Union {
            parts: parts.into(),
        }
    }

    /// The stores that may hold something of these times.
    fn asked(&self, range: TimeRange) -> Vec<&Arc<dyn Store>> {
        let holds = |part: &&Arc<dyn Store>| part.range().is_some_and(|it| it.overlaps(&range));
        self.parts.iter().filter(holds).collect()
    }
}

impl Store for Union {
    fn info(&self) -> StoreInfo {
        let mut all = StoreInfo::default();
        for part in self.parts.iter() {
            let info = part.info();
            all.sets.extend(info.sets);
            all.range = match (all.range, info.range) {
                (Some(a), Some(b)) => Some(a.union(&b)),
                (a, b) => a.or(b),
            };
        }
        all
    }

    fn series(&self, request: SeriesRequest) -> SeriesStream {
        let asked = self.asked(request.range);
        match asked.as_slice() {
            [] => stream::empty().boxed(),
            [only] => only.series(request),
            several => {
                let sources = several
                    .iter()
                    .map(|part| Source::new(part.series(request.clone())));
                let merging = Merging {
                    sources: sources.collect(),
                    left: if request.limit == 0 {
                        usize::MAX
                    } else {
                        request.limit
                    },
                    warnings: Warnings::default(),
                };
                stream::unfold(Some(merging), |merging| async move {
                    let mut merging = merging?;
                    match merging.next().await {
                        Ok(None) => None,
                        Ok(Some(batch)) => Some((Ok(batch), Some(merging))),
                        Err(error) => Some((Err(error), None)),
                    }
                })
                .boxed()
            }
        }
    }

    fn estimate(&self, matchers: &[Matcher], range: TimeRange) -> Option<SelectEstimate> {
        let mut asked = self.asked(range).into_iter();
        let first = asked.next()?.estimate(matchers, range)?;
        // As among the blocks of one store: what lives on is in several of them.
        asked.try_fold(first, |sum, part| {
            let more = part.estimate(matchers, range)?;
            Some(SelectEstimate {
                series: sum.series.max(more.series),
                samples: sum.samples + more.samples,
                bytes: sum.bytes + more.bytes,
            })
        })
    }

    fn label_names(&self, request: LabelsRequest) -> BoxFuture<'static, Result<Names, StoreError>> {
        let asked = self.asked(request.range).into_iter();
        let asked: Vec<_> = asked
            .map(|part| part.label_names(request.clone()))
            .collect();
        joined(asked, request.limit)
    }

    fn label_values(
        &self,
        name: String,
        request: LabelsRequest,
    ) -> BoxFuture<'static, Result<Names, StoreError>> {
        let asked = self.asked(request.range).into_iter();
        let asked = asked.map(|part| part.label_values(name.clone(), request.clone()));
        joined(asked.collect(), request.limit)
    }
}

fn joined(
    asked: Vec<BoxFuture<'static, Result<Names, StoreError>>>,
    limit: usize,
) -> BoxFuture<'static, Result<Names, StoreError>> {
    async move {
        let mut all = Names::default();
        for names in join_all(asked).await {
            let names = names?;
            all.values.extend(names.values);
            all.warnings.merge(names.warnings);
        }
        all.values.sort_unstable();
        all.values.dedup();
        if limit > 0 && all.values.len() > limit {
            all.values.truncate(limit);
            all.warnings.warn(TRUNCATED);
        }
        Ok(all)
    }
    .boxed()
}

/// A stream with what came of it and was not taken yet.
struct Source {
    stream: Option<SeriesStream>,
    ready: VecDeque<SeriesChunks>,
}

impl Source {
    fn new(stream: SeriesStream) -> Self {
        Source {
            stream: Some(stream),
            ready: VecDeque::new(),
        }
    }

    /// Waits until something is ready or the stream has ended.
    async fn fill(&mut self) -> Result<Option<Warnings>, StoreError> {
        let mut warnings: Option<Warnings> = None;
        while self.ready.is_empty() {
            let Some(stream) = &mut self.stream else {
                break;
            };
            match stream.next().await {
                None => self.stream = None,
                Some(batch) => match batch? {
                    SeriesBatch::Series(series) => self.ready.extend(series),
                    SeriesBatch::Warnings(more) => {
                        warnings.get_or_insert_default().merge(more);
                    }
                },
            }
        }
        Ok(warnings)
    }

    /// Whether nothing is ready, but something may come.
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.stream.is_some()
    }

    fn labels(&self) -> Option<&Labels> {
        self.ready.front().map(|series| &series.labels)
    }
}

struct Merging {
    sources: Vec<Source>,
    left: usize,
    warnings: Warnings,
}

impl Merging {
    /// Waits for all that have nothing ready, at the same time, for the first batch of each may take
    /// long.
    async fn fill(&mut self) -> Result<(), StoreError> {
        let empty = self.sources.iter_mut().filter(|source| source.is_empty());
        for warnings in join_all(empty.map(Source::fill)).await {
            if let Some(warnings) = warnings? {
                self.warnings.merge(warnings);
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<SeriesBatch>, StoreError> {
        let mut batch = Vec::new();
        while batch.len() < BATCH_SERIES {
            if self.sources.iter().any(Source::is_empty) {
                if batch.len() >= BATCH_SERIES / 2 {
                    // What comes next may have to be waited for.
                    break;
                }
                self.fill().await?;
            }
            let first = self.sources.iter().filter_map(Source::labels).min();
            let Some(first) = first.cloned() else { break };
            let same = |source: &mut Source| {
                let is_first = source.labels() == Some(&first);
                is_first.then(|| source.ready.pop_front()).flatten()
            };
            let mut parts = self.sources.iter_mut().filter_map(same);
            let Some(mut series) = parts.next() else {
                break;
            };
            let before = series.chunks.len();
            parts.for_each(|more| series.chunks.extend(more.chunks));
            if series.chunks.len() > before {
                series.chunks.sort_by_key(|chunk| chunk.min_ms);
                series.chunks.dedup();
            }
            if self.left == 0 {
                self.warnings.warn(TRUNCATED);
                self.sources.clear();
                break;
            }
            self.left -= 1;
            batch.push(series);
        }
        if !batch.is_empty() {
            return Ok(Some(SeriesBatch::Series(batch)));
        }
        let warnings = std::mem::take(&mut self.warnings);
        Ok((!warnings.is_empty()).then_some(SeriesBatch::Warnings(warnings)))
    }
}
