//! HA replicas: which labels tell them apart, and how the series that they leave are made one.
//!
//! Two collectors of the same targets give each series twice, told apart by a replica label. With
//! deduplication on, that label is taken away here, between the store and the evaluator; what was
//! equal but for it becomes one series again:
//!
//! - [`Function::Window`] (the default) passes the replicas on, and for each window the evaluator
//!   chooses one of them (`isobar_promql::eval`).
//! - [`Function::Penalty`] and [`Function::Chain`] put the samples together before the evaluator
//!   sees them, as Thanos does (`isobar_tsdb::merge::splice`). With these, counters are read as
//!   Thanos reads them even where nothing is deduplicated: without resets and NaN.
//!
//! A series without a replica label stays as it is, and counts as one more replica of the series
//! that have its labels otherwise. Taking labels away changes the order of series, so all series of
//! a select are collected, with their chunks still encoded, and sorted again. Matchers see the
//! replica labels, and so do the names and values of labels.

use std::sync::Arc;

use isobar_model::series::{Replicas, Samples};
use isobar_model::{Labels, Series, TimeRange};
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::Chunk;
use isobar_tsdb::merge::ChunkSamples;
use isobar_tsdb::merge::splice::{ReadFor, Splice, Spliced};

/// How replicas are made one series (`--deduplication.func`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Function {
    /// For each window one replica.
    #[default]
    Window,
    /// One replica until it has a gap, then another: Thanos' default.
    Penalty,
    /// The samples of all replicas.
    Chain,
}

/// What is deduplicated, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deduplication {
    /// The labels that tell replicas apart; without any, nothing is deduplicated.
    pub labels: Arc<[String]>,
    /// How replicas are made one series.
    pub function: Function,
}

impl Deduplication {
    /// Whether series are passed on as they are.
    pub(crate) fn is_off(&self) -> bool {
        self.labels.is_empty()
    }

    /// The labels without those that tell replicas apart.
    pub(crate) fn strip(&self, labels: &Labels) -> Labels {
        if self.labels.iter().any(|name| labels.has(name)) {
            labels.filter(|name| !self.labels.iter().any(|it| it == name))
        } else {
            labels.clone()
        }
    }

    /// The series of a select in label order, replicas made one. `range` are the
    /// times that the whole query looks at.
    pub(crate) fn apply(
        &self,
        mut all: Vec<SeriesChunks>,
        function: ReadFor,
        range: TimeRange,
    ) -> Vec<Series> {
        for series in &mut all {
            series.labels = self.strip(&series.labels);
        }
        // Stable: replicas stay in the order of their labels.
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut all = all.into_iter().peekable();
        let mut series = Vec::new();
        while let Some(SeriesChunks { labels, chunks, .. }) = all.next() {
            let mut replicas = vec![chunks];
            while let Some(next) = all.next_if(|next| next.labels == labels) {
                replicas.push(next.chunks);
            }
            let samples = self.join(replicas, function, range);
            series.push(Series { labels, samples });
        }
        series
    }

    fn join(
        &self,
        replicas: Vec<Vec<Chunk>>,
        function: ReadFor,
        range: TimeRange,
    ) -> Box<dyn Samples> {
        let splice = match self.function {
            Function::Penalty => Splice::Penalty,
            Function::Chain => Splice::Chain,
            Function::Window => {
                let each = replicas.into_iter().map(|chunks| {
                    let samples: Box<dyn Samples> = Box::new(ChunkSamples(chunks));
                    samples
                });
                return Replicas::of(each.collect());
            }
        };
        let chunks = replicas.into_iter().flatten().collect();
        Box::new(Spliced::new(chunks, splice, function, range))
    }

    /// The samples of a series that is not deduplicated.
    pub(crate) fn alone(
        &self,
        chunks: Vec<Chunk>,
        function: ReadFor,
        range: TimeRange,
    ) -> Box<dyn Samples> {
        match self.function {
            Function::Window => Box::new(ChunkSamples(chunks)),
            Function::Penalty | Function::Chain => {
                Box::new(Spliced::single(chunks, function, range))
            }
        }
    }
}
