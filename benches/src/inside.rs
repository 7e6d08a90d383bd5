//! Isobar's engine in this process, over a directory of blocks: text in, value out, on the thread of
//! the caller, as Prometheus measures its own.

use std::path::Path;

use anyhow::Context;
use isobar_model::series::Select;
use isobar_model::{SelectError, Series, SeriesSource, SeriesStream};
use isobar_promql::eval::evaluate;
use isobar_promql::limits::{CancelToken, Limits, Threads};
use isobar_promql::parse::parse_expr;
use isobar_promql::plan::{PlanParams, plan};
use isobar_tsdb::db::{Db, DbConfig};
use isobar_tsdb::merge::{ChunkSamples, SeriesIter};

use crate::cases::Case;

/// Series that are read before the first of them is evaluated, as the server does it.
const BATCH_SERIES: usize = 256;

/// An engine and the database that it asks.
pub struct Inside {
    db: Db,
    limits: Limits,
}

impl Inside {
    /// Opens the database of `folder`. Queries may use `threads` threads.
    pub fn open(folder: &Path, threads: usize) -> anyhow::Result<Inside> {
        let db = Db::open(DbConfig::new(folder)).context("open the blocks")?;
        let limits = Limits {
            threads: Threads::new(threads),
            ..Limits::default()
        };
        Ok(Inside { db, limits })
    }

    /// Answers the case and forgets the answer.
    pub fn run(&self, case: &Case) -> anyhow::Result<()> {
        let expr = parse_expr(&case.query).context("parse")?;
        let params = PlanParams {
            query: &case.query,
            start_ms: case.start_ms,
            end_ms: case.end_ms,
            step_ms: case.step_ms,
            ..PlanParams::default()
        };
        let plan = plan(&expr, &params).context("plan")?;
        let result = evaluate(
            &plan,
            &Blocks(&self.db),
            &self.limits,
            &CancelToken::default(),
        )
        .context("evaluate")?;
        std::hint::black_box(result);
        Ok(())
    }
}

/// The series of a database, without a store around it.
struct Blocks<'a>(&'a Db);

impl SeriesSource for Blocks<'_> {
    fn open(
        &self,
        _index: usize,
        select: &Select,
    ) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        Ok(Box::new(Stream(self.0.select(
            None,
            &select.matchers,
            select.range,
        )?)))
    }
}

struct Stream(SeriesIter);

impl SeriesStream for Stream {
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError> {
        let before = batch.len();
        for series in self.0.by_ref().take(BATCH_SERIES) {
            let series = series?;
            batch.push(Series {
                labels: series.labels,
                samples: Box::new(ChunkSamples(series.chunks)),
            });
        }
        Ok(batch.len() > before)
    }
}
