//! The head as records: what stands for the log before it. Chunks in files are named, not copied.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use isobar_model::{Labels, TimeRange};

use crate::Error;
use crate::chunks::Chunk;
use crate::pace::breathe;
use crate::wal::record::{self, FiledChunk, Kind, TenantTimes};

use super::series::{Filed, Stored};
use super::shard::{SHARDS, shard_of};
use super::{Head, TenantId};

/// Series are read this many at a time.
const SERIES_BATCH: u32 = 1024;
/// Records are ended near this size.
const RECORD_BYTES: usize = 256 << 10;

impl Head {
    /// Gives `put` the records from which [`super::Restore`] makes this head again, in batches so
    /// that writes go on meanwhile. Gives back the numbers of the chunk files that they name.
    ///
    /// # Errors
    /// Those of `put`.
    pub(crate) fn snapshot(
        &self,
        mut put: impl FnMut(Kind, &[u8]) -> Result<(), Error>,
    ) -> Result<BTreeSet<u32>, Error> {
        let mut files = BTreeSet::new();
        let mut payload = Vec::new();
        let tenants = self.tenants.all();
        for tenant in &tenants {
            payload.clear();
            let times = TenantTimes {
                tenant: tenant.name.as_str(),
                cut_until_ms: tenant.cut_until_ms.load(Ordering::Acquire),
                max_ms: tenant.max_ms.load(Ordering::Acquire),
            };
            record::put_tenant(&mut payload, &times);
            put(Kind::Tenant, &payload)?;
        }
        for payload in self.exemplars.snapshot() {
            put(Kind::Exemplars, &payload)?;
        }
        for payload in self.metadata.snapshot() {
            put(Kind::Metadata, &payload)?;
        }
        payload.clear();
        record::put_epoch(&mut payload, self.epoch().0);
        put(Kind::LateChunks, &payload)?;
        let ids_end = self.catalog.read().index.ids_end();
        let mut first = 0;
        while first < ids_end {
            let batch = self.labels_between(first, first.saturating_add(SERIES_BATCH));
            for of_tenant in batch.chunk_by(|a, b| a.1 == b.1) {
                let Some((_, tenant, _)) = of_tenant.first() else {
                    continue;
                };
                let Some(tenant) = tenants.get(tenant.0 as usize) else {
                    continue;
                };
                payload.clear();
                for (id, _, labels) in of_tenant {
                    if payload.is_empty() {
                        record::put_series_tenant(&mut payload, tenant.name.as_str());
                    }
                    record::put_series(&mut payload, *id, labels);
                    if payload.len() >= RECORD_BYTES {
                        put(Kind::Series, &payload)?;
                        payload.clear();
                    }
                }
                if !payload.is_empty() {
                    put(Kind::Series, &payload)?;
                }
            }
            self.put_chunks(&batch, &mut files, &mut put)?;
            first = first.saturating_add(SERIES_BATCH);
        }
        Ok(files)
    }

    /// Ids, tenants and labels of the series with ids in `first..end`, sorted by tenant.
    fn labels_between(&self, first: u32, end: u32) -> Vec<(u32, TenantId, Labels)> {
        let mut text = String::new();
        let catalog = self.catalog.read();
        let mut batch: Vec<_> = (first..end)
            .filter_map(|id| {
                let (tenant, labels) = catalog.index.labels(id, &mut text)?;
                Some((id, tenant, labels))
            })
            .collect();
        batch.sort_by_key(|(_, tenant, _)| *tenant);
        batch
    }

    fn put_chunks(
        &self,
        batch: &[(u32, TenantId, Labels)],
        files: &mut BTreeSet<u32>,
        put: &mut impl FnMut(Kind, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut filed_records, mut chunk_records) = (Records::default(), Records::default());
        let mut late_records = Records::default();
        let mut stored: Vec<Stored> = Vec::new();
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut filed: Vec<Filed> = Vec::new();
        for shard in 0..SHARDS {
            breathe();
            let locked = self.shards[shard].lock();
            for (id, _, _) in batch.iter().filter(|(id, _, _)| shard_of(*id) == shard) {
                let Some(series) = locked.get(*id) else {
                    continue;
                };
                series.for_each_late(locked.epoch, |epoch, chunk| {
                    if late_records.open.is_empty() {
                        record::put_epoch(&mut late_records.open, locked.epoch.0);
                    }
                    record::put_late_chunk(&mut late_records.open, *id, epoch.0, chunk);
                    late_records.end_if_full();
                });
                series.in_order_chunks(TimeRange::ALL, &mut stored);
                for one in stored.drain(..) {
                    match one {
                        Stored::Heap(chunk) => chunks.push(*chunk),
                        Stored::Filed(one) => filed.push(one),
                    }
                }
                if !filed.is_empty() {
                    files.extend(filed.iter().map(|one| one.place().0));
                    record::put_filed(&mut filed_records.open, *id, filed.drain(..).map(name));
                    filed_records.end_if_full();
                }
                if !chunks.is_empty() {
                    record::put_chunks(&mut chunk_records.open, *id, &chunks);
                    chunk_records.end_if_full();
                    chunks.clear();
                }
            }
        }
        // A series' filed chunks are older than those that are not.
        for record in filed_records.finish() {
            put(Kind::Filed, &record)?;
        }
        for record in chunk_records.finish() {
            put(Kind::Chunks, &record)?;
        }
        for record in late_records.finish() {
            put(Kind::LateChunks, &record)?;
        }
        Ok(())
    }
}

/// Payloads of one kind.
#[derive(Default)]
struct Records {
    open: Vec<u8>,
    full: Vec<Vec<u8>>,
}

impl Records {
    fn end_if_full(&mut self) {
        if self.open.len() >= RECORD_BYTES {
            self.full.push(std::mem::take(&mut self.open));
        }
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}

fn name(filed: Filed) -> FiledChunk {
    let (file, offset) = filed.place();
    FiledChunk {
        encoding: filed.encoding(),
        range: filed.range(),
        file,
        offset,
    }
}
