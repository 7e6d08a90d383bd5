//! How much a select is going to give, without giving it: matching series are counted, and of a
//! few of them the chunks are looked at, not into.

use isobar_model::{Matcher, Tenant, TimeRange};

use super::Db;
use crate::Error;
use crate::chunks::Chunk;
use crate::merge::SeriesIter;

/// Series of each source whose chunks are looked at.
const LOOKED_AT: usize = 64;

/// How much a select is going to give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SelectEstimate {
    /// Series. Those of the source (head or block) that has most: series that live on are in
    /// several, those that came and went are in one.
    pub series: u64,
    /// Samples in the range.
    pub samples: u64,
    /// Bytes of the chunks that hold them.
    pub bytes: u64,
}

impl Db {
    /// How much [`Db::select`] is going to give. It costs one look into the index of each source.
    ///
    /// # Errors
    /// When a block cannot be read.
    pub fn estimate(
        &self,
        tenant: Option<&Tenant>,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<SelectEstimate, Error> {
        let _pin = self.pins.pin();
        let mut sum = SelectEstimate::default();
        let mut add = |count: usize, some: SeriesIter| -> Result<(), Error> {
            let of_source = of_some(count, some, range)?;
            sum.series = sum.series.max(of_source.series);
            sum.samples += of_source.samples;
            sum.bytes += of_source.bytes;
            Ok(())
        };
        for block in self.blocks_of(tenant) {
            let some = block.reader().select_some(matchers, range, LOOKED_AT);
            let (count, some) = self.blocks.checked(&block, some)?;
            add(count, some)?;
        }
        if let Some(tenant) = self.head_tenant(tenant) {
            let (count, some) = self.head.select_some(tenant, matchers, range, LOOKED_AT);
            add(count, Box::new(some))?;
        }
        Ok(sum)
    }
}

/// Concludes from at most [`LOOKED_AT`] series, evenly taken, to all `count` of a source.
fn of_some(count: usize, some: SeriesIter, range: TimeRange) -> Result<SelectEstimate, Error> {
    let every = count.div_ceil(LOOKED_AT).max(1);
    let looked_at = count.div_ceil(every).max(1) as f64;
    let (mut series, mut samples, mut bytes) = (0.0, 0.0, 0.0);
    for one in some {
        series += 1.0;
        for chunk in one?.chunks {
            samples += f64::from(chunk.sample_count().unwrap_or(0)) * share_in(&chunk, range);
            bytes += chunk.data.len() as f64;
        }
    }
    let all = |of_some: f64| (of_some * count as f64 / looked_at).round() as u64;
    Ok(SelectEstimate {
        series: all(series),
        samples: all(samples),
        bytes: all(bytes),
    })
}

/// The share of a chunk's time that lies in `range`.
fn share_in(chunk: &Chunk, range: TimeRange) -> f64 {
    let length = |min_ms: i64, max_ms: i64| max_ms.saturating_sub(min_ms).saturating_add(1) as f64;
    let inside = length(
        chunk.min_ms.max(range.min_ms),
        chunk.max_ms.min(range.max_ms),
    );
    (inside / length(chunk.min_ms, chunk.max_ms)).clamp(0.0, 1.0)
}
