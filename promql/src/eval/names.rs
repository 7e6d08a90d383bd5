//! Dropping names from label sets, and seeing to it that the sets stay different.

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
/// the case that it does not stay so.
#[derive(Debug, Default)]
pub(super) struct NameDrop {
    /// What was dropped from the first set.
    dropped: Option<Labels>,
    /// Hashes of what was left, in order, while all dropped the same.
    hashes: Vec<u64>,
    /// The hashes as a set, once something else was dropped.
    mixed: Option<HashSet<u64>>,
    scratch: String,
}

impl NameDrop {
    /// For the rows of `input`, unless their names differ: then rows may become the same without
    /// harm, at different steps, and have to be merged.
    pub(super) fn of(input: &Node) -> Option<Self> {
        (input.names != Names::Any).then(NameDrop::default)
    }

    /// Drops the names of all rows of a tile.
    ///
    /// # Errors
    /// As [`NameDrop::drop_name`].
    pub(super) fn drop_all(&mut self, tile: &mut Tile) -> Result<(), EvalError> {
        for i in 0..tile.len() {
            let (labels, _) = tile.row_mut(i);
            *labels = self.drop_name(labels)?;
        }
        Ok(())
    }

    /// The labels without name, type and unit.
    ///
    /// # Errors
    /// When an earlier call gave the same.
    pub(super) fn drop_name(&mut self, labels: &Labels) -> Result<Labels, EvalError> {
        let kept = labels.iter().filter(|(name, _)| !is_metadata(name));
        let left = Labels::from_sorted(kept, &mut self.scratch);
        let hash = left.hash64();
        if let Some(mixed) = &mut self.mixed {
            if !mixed.insert(hash) {
                return Err(EvalError::same_labels());
            }
            return Ok(left);
        }
        let dropped = labels.iter().filter(|(name, _)| is_metadata(name));
        match &self.dropped {
            None => {
                self.dropped = Some(Labels::from_sorted(dropped, &mut self.scratch));
                self.hashes.push(hash);
            }
            Some(first) if dropped.eq(first.iter()) => self.hashes.push(hash),
            Some(_) => {
                let mut mixed: HashSet<u64> = self.hashes.drain(..).collect();
                let new = mixed.insert(hash);
                self.mixed = Some(mixed);
                if !new {
                    return Err(EvalError::same_labels());
                }
            }
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str, a: &str) -> Labels {
        Labels::from_pairs([(METRIC_NAME, name), ("a", a)])
    }

    #[test]
    fn finds_sets_that_become_the_same() {
        let mut drop = NameDrop::default();
        assert_eq!(
            drop.drop_name(&labels("x", "1")).unwrap().to_string(),
            "{a=\"1\"}"
        );
        drop.drop_name(&labels("x", "2")).unwrap();
        drop.drop_name(&labels("y", "3")).unwrap();
        assert!(drop.drop_name(&labels("y", "2")).is_err());
    }
}
