//! Isobar's engine in this process, over a directory of blocks, without HTTP.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use isobar_query::engine::{Config, Engine, QueryOptions, Steps};
use isobar_query::metrics::EngineMetrics;
use isobar_store::compute::Pool;
use isobar_store::local::LocalStore;
use isobar_tsdb::db::{Db, DbConfig};
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;

use crate::cases::Case;

/// An engine that has a runtime and threads of its own.
pub struct Inside {
    runtime: Runtime,
    engine: Engine,
}

impl Inside {
    /// Opens the database of `folder`. Queries have `threads` threads.
    pub fn open(folder: &Path, threads: usize) -> anyhow::Result<Inside> {
        let db = Db::open(DbConfig::new(folder)).context("open the blocks")?;
        let pool = Pool::new("query", threads, 16).context("start threads")?;
        let store = Arc::new(LocalStore::new(Arc::new(db)));
        let metrics = EngineMetrics::new(&mut Registry::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start the runtime")?;
        Ok(Inside {
            runtime,
            engine: Engine::new(store, Arc::new(pool), Config::default(), metrics),
        })
    }

    /// Answers the case and forgets the answer.
    pub fn run(&self, case: &Case) -> anyhow::Result<()> {
        let steps = Steps {
            start_ms: case.start_ms,
            end_ms: case.end_ms,
            step_ms: case.step_ms,
        };
        let answer = self.engine.run(
            case.query.clone(),
            steps,
            QueryOptions::default(),
            std::hint::black_box::<isobar_query::engine::Answer>,
        );
        self.runtime.block_on(answer).map(drop).context("evaluate")
    }
}
