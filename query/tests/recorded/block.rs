//! One block as a source of series.

use std::path::Path;
use std::sync::Arc;

use isobar_model::SelectError;
use isobar_model::series::{Select, Series, SeriesSource, SeriesStream};
use isobar_tsdb::block::BlockReader;
use isobar_tsdb::merge::{ChunkSamples, SeriesIter};

/// The only block of a directory.
pub(crate) struct Block(Arc<BlockReader>);

impl Block {
    pub(crate) fn open_in(dir: &Path) -> Self {
        let mut entries = std::fs::read_dir(dir).expect("the directory of the block");
        let entry = entries.next().expect("a block").expect("its entry");
        Block::open(&entry.path())
    }

    pub(crate) fn open(dir: &Path) -> Self {
        Block(BlockReader::open(dir).expect("a block that opens"))
    }
}

impl SeriesSource for Block {
    fn open(&self, _: usize, select: &Select) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        Ok(Box::new(Selected(
            self.0.select(&select.matchers, select.range)?,
        )))
    }
}

struct Selected(SeriesIter);

impl SeriesStream for Selected {
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError> {
        let before = batch.len();
        for series in self.0.by_ref().take(64) {
            let series = series?;
            let samples = Box::new(ChunkSamples(series.chunks));
            batch.push(Series {
                labels: series.labels,
                samples,
            });
        }
        Ok(batch.len() > before)
    }
}
