//! Dropping names from label sets, and seeing to it that the sets stay different.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashSet;
use isobar_model::Labels;
use isobar_model::labels::METRIC_NAME;

use super::EvalError;
use super::tile::Tile;
use crate::plan::node::{Names, Node};

/// The labels that go when a result is no longer the metric that was measured.
fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

/// The labels without the metric's name, type and unit.
pub(super) fn without_metadata(labels: &Labels) -> Labels {
    if labels.iter().any(|(name, _)| is_metadata(name)) {
        labels.filter(|name| !is_metadata(name))
    } else {
        labels.clone()
    }
}

/// Drops names from a stream of label sets that differ, and fails when two become the same.
///
/// As long as what is dropped is the same from all, the rest differs; only hashes are kept for
/// the case that it does not stay so. Copies share what they have seen: whether two sets become
/// the same does not depend on which copy meets them, nor on the order.
#[derive(Debug, Clone, Default)]
pub(super) struct NameDrop {
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
    /// For the rows of `input`, unless their names differ: then rows may become the same without
    /// harm, at different steps, and have to be merged.
    pub(super) fn of(input: &Node) -> Option<Self> {
        (input.names != Names::Any).then(NameDrop::default)
    }

    /// Drops name, type and unit of all rows of a tile.
    ///
    /// # Errors
    /// When two rows, of this tile or earlier ones, become the same.
    pub(super) fn drop_all(&mut self, tile: &mut Tile) -> Result<(), EvalError> {
        if tile.is_empty() {
            return Ok(());
        }
        let mut first = self.lock().dropped.clone();
        let mut all_same = true;
        self.hashes.clear();
        for i in 0..tile.len() {
            let (labels, _) = tile.row_mut(i);
            let dropped = labels.iter().filter(|(name, _)| is_metadata(name));
            match &first {
                Some(first) => all_same &= dropped.eq(first.iter()),
                None => first = Some(Labels::from_sorted(dropped, &mut self.scratch)),
            }
            if labels.iter().any(|(name, _)| is_metadata(name)) {
                let kept = labels.iter().filter(|(name, _)| !is_metadata(name));
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
        let mut drop = NameDrop::default();
        let left = drop_names(&mut drop, &[("x", "1"), ("x", "2")]).unwrap();
        assert_eq!(left, ["{a=\"1\"}", "{a=\"2\"}"]);
        let mut copy = drop.clone();
        drop_names(&mut drop, &[("y", "3")]).unwrap();
        assert!(drop_names(&mut copy, &[("y", "2")]).is_err());
    }

    #[test]
    fn copies_that_begin_apart_still_meet() {
        let drop = NameDrop::default();
        drop_names(&mut drop.clone(), &[("x", "1")]).unwrap();
        drop_names(&mut drop.clone(), &[("y", "2")]).unwrap();
        assert!(drop_names(&mut drop.clone(), &[("z", "1")]).is_err());
    }
}
