//! Dropping names from label sets, and seeing to it that the sets stay different.
//!
//! With delayed name removal rows only note that their names go. That is done when the query is:
//! [`nameless_samples`] and [`nameless_series`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};
use isobar_model::Labels;
use isobar_model::labels::METRIC_NAME;

use super::EvalError;
use super::run::Run;
use super::tile::Tile;
use crate::plan::node::{Names, Node};
use crate::value::{MatrixSeries, Points, VectorSample};

/// The labels that go when a result is no longer the metric that was measured.
fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// What goes from a label set, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// Name, type and unit, at once.
    Metadata,
    /// The name alone, at once.
    Name,
    /// Name, type and unit, when the query is done.
    Delayed,
}

impl Removal {
    /// How it is usually done.
    pub(super) fn of(run: &Run<'_>) -> Self {
        match run.features().delayed_name_removal {
            true => Removal::Delayed,
            false => Removal::Metadata,
        }
    }

    /// How functions of native histograms do it: Prometheus leaves them type and unit.
    pub(super) fn of_histogram_function(run: &Run<'_>) -> Self {
        match Removal::of(run) {
            Removal::Delayed => Removal::Delayed,
            _ => Removal::Name,
        }
    }

    fn takes(self, name: &str) -> bool {
        match self {
            Removal::Metadata => is_metadata(name),
            Removal::Name => name == METRIC_NAME,
            Removal::Delayed => false,
        }
    }

    /// What is left of `labels` now.
    pub(super) fn apply(self, labels: &Labels) -> Labels {
        if labels.iter().any(|(name, _)| self.takes(name)) {
            labels.filter(|name| !self.takes(name))
        } else {
            labels.clone()
        }
    }
}

/// Drops names from a stream of label sets that differ, and fails when two become the same.
///
/// As long as what is dropped is the same from all, the rest differs; only hashes are kept for
/// the case that it does not stay so. Copies share what they have seen: whether two sets become
/// the same does not depend on which copy meets them, nor on the order.
#[derive(Debug, Clone)]
pub(super) struct NameDrop {
    removal: Removal,
    seen: Arc<Mutex<Seen>>,
    scratch: String,
    hashes: Vec<u64>,
}

#[derive(Debug, Default)]
struct Seen {
    /// What was dropped from the first set.
    dropped: Option<Labels>,
    /// Hashes of what was left while all dropped the same.
    hashes: Vec<u64>,
    /// The hashes as a set, once something else was dropped.
    mixed: Option<HashSet<u64>>,
}

impl NameDrop {
    /// For rows of which no two become the same.
    pub(super) fn new(removal: Removal) -> Self {
        NameDrop {
            removal,
            seen: Arc::default(),
            scratch: String::new(),
            hashes: Vec::new(),
        }
    }

    /// For the rows of `input`, unless their names differ: then rows may become the same without
    /// harm, at different steps, and have to be merged.
    pub(super) fn of(removal: Removal, input: &Node) -> Option<Self> {
        let differ = removal != Removal::Delayed && input.names == Names::Any;
        (!differ).then(|| NameDrop::new(removal))
    }

    /// Drops the names of all rows of a tile, or notes that they go.
    ///
    /// # Errors
    /// When two rows, of this tile or earlier ones, become the same.
    pub(super) fn drop_all(&mut self, tile: &mut Tile) -> Result<(), EvalError> {
        if self.removal == Removal::Delayed {
            tile.drop_all_names();
            return Ok(());
        }
        if tile.is_empty() {
            return Ok(());
        }
        let removal = self.removal;
        let mut first = self.lock().dropped.clone();
        let mut all_same = true;
        self.hashes.clear();
        for i in 0..tile.len() {
            let (labels, _) = tile.row_mut(i);
            let dropped = labels.iter().filter(|(name, _)| removal.takes(name));
            match &first {
                Some(first) => all_same &= dropped.eq(first.iter()),
                None => first = Some(Labels::from_sorted(dropped, &mut self.scratch)),
            }
            if labels.iter().any(|(name, _)| removal.takes(name)) {
                let kept = labels.iter().filter(|(name, _)| !removal.takes(name));
                *labels = Labels::from_sorted(kept, &mut self.scratch);
            }
            self.hashes.push(labels.hash64());
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.dropped.is_none() {
            seen.dropped = first;
        } else {
            all_same &= seen.dropped == first;
        }
        if all_same && seen.mixed.is_none() {
            seen.hashes.extend_from_slice(&self.hashes);
            return Ok(());
        }
        let Seen { hashes, mixed, .. } = &mut *seen;
        let mixed = mixed.get_or_insert_with(|| hashes.drain(..).collect());
        match self.hashes.iter().all(|hash| mixed.insert(*hash)) {
            true => Ok(()),
            false => Err(EvalError::same_labels()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The samples of one moment without the names that were to go, which `drops` says. Of a float and
/// a histogram that become the same the histogram is left.
///
/// # Errors
/// When two floats become the same, or two histograms.
pub(super) fn nameless_samples(
    samples: &mut Vec<VectorSample>,
    drops: &[bool],
) -> Result<(), EvalError> {
    let mut seen: HashMap<Labels, [Option<usize>; 2]> = HashMap::with_capacity(samples.len());
    let mut hidden = HashSet::new();
    for (i, (sample, drops)) in samples.iter_mut().zip(drops).enumerate() {
        if *drops {
            sample.labels = Removal::Metadata.apply(&sample.labels);
        }
        let of_both = seen.entry(sample.labels.clone()).or_default();
        let of_kind = &mut of_both[usize::from(sample.histogram.is_some())];
        if of_kind.replace(i).is_some() {
            return Err(EvalError::same_labels());
        }
        if let [Some(float), Some(_)] = of_both {
            hidden.insert(*float);
        }
    }
    if !hidden.is_empty() {
        let mut i = 0..;
        samples.retain(|_| i.next().is_none_or(|i| !hidden.contains(&i)));
    }
    Ok(())
}

/// The series without the names that were to go, those that become the same as one; sorted.
///
/// # Errors
/// When two that become the same have a sample at the same time.
pub(super) fn nameless_series(
    mut series: Vec<(MatrixSeries, bool)>,
) -> Result<Vec<MatrixSeries>, EvalError> {
    for (series, drops) in &mut series {
        if *drops {
            series.labels = Removal::Metadata.apply(&series.labels);
        }
    }
    series.sort_by(|(a, _), (b, _)| a.labels.cmp(&b.labels));
    let mut merged: Vec<MatrixSeries> = Vec::with_capacity(series.len());
    for (next, _) in series {
        match merged.last_mut() {
            Some(last) if last.labels == next.labels => {
                last.columns = merged_columns(&last.columns, &next.columns)?;
            }
            _ => merged.push(next),
        }
    }
    Ok(merged)
}

fn merged_columns(a: &Points, b: &Points) -> Result<Points, EvalError> {
    let mut floats: Vec<(i64, f64)> = [a, b]
        .iter()
        .flat_map(|it| it.timestamps.iter().copied().zip(it.values.iter().copied()))
        .collect();
    floats.sort_by_key(|it| it.0);
    let mut histograms = [a.histograms.as_slice(), b.histograms.as_slice()].concat();
    histograms.sort_by_key(|it| it.0);
    let twice = floats.windows(2).any(|pair| pair[0].0 == pair[1].0)
        || histograms.windows(2).any(|pair| pair[0].0 == pair[1].0);
    if twice {
        return Err(EvalError::same_labels());
    }
    Ok(Points {
        timestamps: floats.iter().map(|it| it.0).collect::<Vec<_>>().into(),
        values: floats.into_iter().map(|it| it.1).collect(),
        histograms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop_names(drop: &mut NameDrop, rows: &[(&str, &str)]) -> Result<Vec<String>, EvalError> {
        let mut tile = Tile::new(1);
        for (name, a) in rows {
            tile.push(Labels::from_pairs([(METRIC_NAME, *name), ("a", *a)]));
        }
        drop.drop_all(&mut tile)?;
        Ok(tile.rows().map(|row| row.labels.to_string()).collect())
    }

    #[test]
    fn finds_sets_that_become_the_same() {
        let mut drop = NameDrop::new(Removal::Metadata);
        let left = drop_names(&mut drop, &[("x", "1"), ("x", "2")]).unwrap();
        assert_eq!(left, ["{a=\"1\"}", "{a=\"2\"}"]);
        let mut copy = drop.clone();
        drop_names(&mut drop, &[("y", "3")]).unwrap();
        assert!(drop_names(&mut copy, &[("y", "2")]).is_err());
    }

    #[test]
    fn copies_that_begin_apart_still_meet() {
        let drop = NameDrop::new(Removal::Metadata);
        drop_names(&mut drop.clone(), &[("x", "1")]).unwrap();
        drop_names(&mut drop.clone(), &[("y", "2")]).unwrap();
        assert!(drop_names(&mut drop.clone(), &[("z", "1")]).is_err());
    }
}
