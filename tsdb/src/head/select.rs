//! The way out of the head: which series match, and their chunks in batches.

use std::collections::VecDeque;
use std::sync::Arc;

use isobar_model::{Labels, Matcher, TimeRange};

use crate::Error;
use crate::chunks::Chunk;
use crate::merge::SeriesChunks;

use super::shard::shard_of;
use super::{Head, TenantId};

/// Labels are put together for this many series before the catalog's lock is given back.
const LABELS_BATCH: usize = 4096;
/// Chunks are fetched for this many series at a time.
const CHUNKS_BATCH: usize = 256;

impl Head {
    /// The series that match, with the chunks that overlap `range`. The caller sees to it that
    /// nothing is truncated while the iterator lives.
    pub(crate) fn select(
        self: &Arc<Self>,
        tenant: Option<TenantId>,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> HeadSeries {
        let mut series = self.select_labels(tenant, matchers);
        series.sort_unstable_by(|(a, id_a), (b, id_b)| a.cmp(b).then(id_a.cmp(id_b)));
        HeadSeries {
            head: Arc::clone(self),
            range,
            series,
            next: 0,
            fetched: VecDeque::new(),
        }
    }

    fn select_labels(&self, tenant: Option<TenantId>, matchers: &[Matcher]) -> Vec<(Labels, u32)> {
        let ids = self.catalog.read().index.select(tenant, matchers);
        let mut series = Vec::with_capacity(ids.len() as usize);
        let mut text = String::new();
        let mut ids = ids.iter().peekable();
        while ids.peek().is_some() {
            let catalog = self.catalog.read();
            series.extend(ids.by_ref().take(LABELS_BATCH).filter_map(|id| {
                let (_, labels) = catalog.index.labels(id, &mut text)?;
                Some((labels, id))
            }));
        }
        series
    }

    /// The names of all labels of the series that match, sorted.
    pub(crate) fn label_names(
        &self,
        tenant: Option<TenantId>,
        matchers: &[Matcher],
    ) -> Vec<String> {
        let index = &self.catalog.read().index;
        let all = tenant.is_none() && matchers.is_empty();
        let set = (!all).then(|| index.select(tenant, matchers));
        index.label_names(set.as_ref())
    }

    /// The values of a label of the series that match, sorted.
    pub(crate) fn label_values(
        &self,
        tenant: Option<TenantId>,
        name: &str,
        matchers: &[Matcher],
    ) -> Vec<String> {
        let index = &self.catalog.read().index;
        let all = tenant.is_none() && matchers.is_empty();
        let set = (!all).then(|| index.select(tenant, matchers));
        index.label_values(name, set.as_ref())
    }
}

/// Series of the head in label order; those of equal labels in different tenants are one.
pub(crate) struct HeadSeries {
    head: Arc<Head>,
    range: TimeRange,
    series: Vec<(Labels, u32)>,
    next: usize,
    fetched: VecDeque<SeriesChunks>,
}

impl HeadSeries {
    /// The labels of all series that match, in order.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &Labels> {
        self.series.iter().map(|(labels, _)| labels)
    }

    fn fetch(&mut self) {
        let batch = self.series.iter().skip(self.next).take(CHUNKS_BATCH);
        let mut chunks: Vec<Vec<Chunk>> = Vec::new();
        chunks.resize_with(batch.len(), Vec::new);
        for (shard, locked) in self.head.shards.iter().enumerate() {
            let locked = locked.lock();
            let of_shard = batch
                .clone()
                .zip(&mut chunks)
                .filter(|((_, id), _)| shard_of(*id) == shard);
            for ((_, id), chunks) in of_shard {
                if let Some(series) = locked.get(*id) {
                    series.chunks(self.range, chunks);
                }
            }
        }
        for ((labels, _), chunks) in batch.zip(chunks) {
            self.next += 1;
            match self.fetched.back_mut() {
                Some(last) if last.labels == *labels => last.chunks.extend(chunks),
                _ => self.fetched.push_back(SeriesChunks {
                    labels: labels.clone(),
                    chunks,
                }),
            }
        }
    }
}

impl Iterator for HeadSeries {
    type Item = Result<SeriesChunks, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // The last of a batch may go on in the next one.
            while self.fetched.len() < 2 && self.next < self.series.len() {
                self.fetch();
            }
            let mut series = self.fetched.pop_front()?;
            if !series.chunks.is_empty() {
                series.chunks.sort_by_key(|chunk| chunk.min_ms);
                return Some(Ok(series));
            }
        }
    }
}
