//! The series that a script has loaded, as a source for the evaluator.

use std::collections::{BTreeMap, BTreeSet};

use isobar_model::series::{Select, Series, SeriesSource, SeriesStream};
use isobar_model::{Columns, Labels, LabelsBuilder, SelectError};
use isobar_promql::parse::series::SequenceValue;

use super::script::Load;

/// Series in memory. Native histograms are known by their labels only.
#[derive(Default)]
pub(crate) struct Memory {
    series: BTreeMap<Labels, BTreeMap<i64, f64>>,
    histograms: BTreeSet<Labels>,
}

impl Memory {
    pub(crate) fn clear(&mut self) {
        *self = Memory::default();
    }

    pub(crate) fn load(&mut self, load: &Load) {
        for (labels, values) in &load.series {
            let samples = self.series.entry(labels.clone()).or_default();
            for (i, value) in values.iter().enumerate() {
                match value {
                    SequenceValue::Omitted => {}
                    SequenceValue::Float(value) => {
                        samples.insert(i as i64 * load.step_ms, *value);
                    }
                    SequenceValue::Histogram { .. } => {
                        self.histograms.insert(labels.clone());
                    }
                }
            }
            if load.with_nhcb {
                self.histograms.extend(native_labels(labels));
            }
        }
    }
}

/// The labels of the native histogram that a series of a classic one becomes a part of.
fn native_labels(labels: &Labels) -> Option<Labels> {
    let name = labels.get("__name__");
    let base = ["_bucket", "_count", "_sum"]
        .iter()
        .find_map(|end| name.strip_suffix(end))?;
    Some(
        LabelsBuilder::new(labels)
            .set("__name__", base)
            .remove("le")
            .clone()
            .build(),
    )
}

impl SeriesSource for Memory {
    fn open(&self, _: usize, select: &Select) -> Result<Box<dyn SeriesStream + '_>, SelectError> {
        let matches = |labels: &&Labels| {
            select
                .matchers
                .iter()
                .all(|m| m.matches(labels.get(m.name())))
        };
        if self.histograms.iter().any(|labels| matches(&labels)) {
            return Err(SelectError::Unsupported("native histogram".to_owned()));
        }
        let mut batch = Vec::new();
        for labels in self.series.keys().filter(matches) {
            let mut columns = Columns::default();
            let range = select.range.min_ms..=select.range.max_ms;
            if select.range.min_ms <= select.range.max_ms {
                for (time, value) in self.series[labels].range(range) {
                    columns.push(*time, *value);
                }
            }
            if !columns.is_empty() {
                batch.push(Series {
                    labels: labels.clone(),
                    samples: Box::new(columns),
                });
            }
        }
        Ok(Box::new(Stream(batch)))
    }
}

struct Stream(Vec<Series>);

impl SeriesStream for Stream {
    fn next_batch(&mut self, batch: &mut Vec<Series>) -> Result<bool, SelectError> {
        let some = !self.0.is_empty();
        batch.append(&mut self.0);
        Ok(some)
    }
}
