//! The blocks that hold what a request wants: for each set of external labels those of the widest
//! resolution that is allowed, and finer ones where these leave holes, as Thanos does it.

use std::sync::Arc;

use hashbrown::HashMap;
use isobar_model::{Labels, Matcher, TimeRange};

use super::block::Block;
use crate::api::StoredSet;

/// The label by which block matchers tell blocks.
pub(super) const BLOCK_ID: &str = "__block_id";

/// Blocks with the same external labels.
#[derive(Debug)]
pub(super) struct BlockSet {
    pub(super) labels: Labels,
    /// By resolution, the widest first; in each the blocks by their times.
    resolutions: Vec<(i64, Vec<Arc<Block>>)>,
}

impl BlockSet {
    /// Blocks in sets.
    pub(super) fn all_of(blocks: impl IntoIterator<Item = Arc<Block>>) -> Vec<BlockSet> {
        let mut sets: HashMap<Labels, Vec<Arc<Block>>> = HashMap::new();
        for block in blocks {
            sets.entry(block.labels.clone()).or_default().push(block);
        }
        let mut sets: Vec<BlockSet> = sets
            .into_iter()
            .map(|(labels, mut blocks)| {
                let key =
                    |it: &Arc<Block>| (-it.resolution_ms, it.range.min_ms, it.range.max_ms, it.id);
                blocks.sort_by_key(key);
                let same = |a: &Arc<Block>, b: &Arc<Block>| a.resolution_ms == b.resolution_ms;
                let resolutions = blocks
                    .chunk_by(same)
                    .filter_map(|blocks| Some((blocks.first()?.resolution_ms, blocks.to_vec())));
                BlockSet {
                    resolutions: resolutions.collect(),
                    labels,
                }
            })
            .collect();
        sets.sort_by(|a, b| a.labels.cmp(&b.labels));
        sets
    }

    /// All blocks of the set.
    pub(super) fn blocks(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.resolutions.iter().flat_map(|it| &it.1)
    }

    /// The matchers that are left to be tested inside of the blocks; `None` when the external labels do
    /// not match.
    pub(super) fn inner_matchers(&self, matchers: &[Matcher]) -> Option<Vec<Matcher>> {
        let mut left = Vec::with_capacity(matchers.len());
        for matcher in matchers {
            let value = self.labels.get(matcher.name());
            if value.is_empty() {
                left.push(matcher.clone());
            } else if !matcher.matches(value) {
                return None;
            }
        }
        Some(left)
    }

    /// The blocks for a range in the order of their times, of resolutions up to `resolution_ms_max`.
    pub(super) fn choose(&self, range: TimeRange, resolution_ms_max: i64) -> Vec<Arc<Block>> {
        let allowed = |it: &&(i64, Vec<Arc<Block>>)| it.0 <= resolution_ms_max;
        let from = self.resolutions.iter().position(|it| allowed(&it));
        let mut chosen = Vec::new();
        if let Some(from) = from {
            let levels = self.resolutions.get(from..).unwrap_or_default();
            fill(levels, range, &mut chosen);
        }
        // One that fills two holes is asked once.
        chosen.sort_by_key(|it| (it.range.min_ms, it.id));
        chosen.dedup_by_key(|it| it.id);
        chosen
    }
}

fn fill(levels: &[(i64, Vec<Arc<Block>>)], range: TimeRange, chosen: &mut Vec<Arc<Block>>) {
    let Some(((_, blocks), finer)) = levels.split_first() else {
        return;
    };
    if range.min_ms > range.max_ms {
        return;
    }
    let mut start_ms = range.min_ms;
    for block in blocks {
        if block.range.max_ms < range.min_ms {
            continue;
        }
        if block.range.min_ms > range.max_ms {
            break;
        }
        let before = block.range.min_ms.saturating_sub(1);
        fill(finer, TimeRange::new(start_ms, before), chosen);
        chosen.push(Arc::clone(block));
        // A block may end before one that begins earlier does.
        start_ms = start_ms.max(block.end_ms());
    }
    fill(finer, TimeRange::new(start_ms, range.max_ms), chosen);
}

/// Whether a block is one of those that are asked for: by its name, or by its external labels.
pub(super) fn named(block: &Block, matchers: &[Matcher]) -> bool {
    let id = block.id.to_string();
    matchers.iter().all(|matcher| match matcher.name() {
        BLOCK_ID => matcher.matches(&id),
        label => matcher.matches(block.labels.get(label)),
    })
}

/// What there is of each set of labels: stretches of blocks that touch.
pub(super) fn stored(sets: &[BlockSet]) -> Vec<StoredSet> {
    let mut stored = Vec::new();
    for set in sets {
        let mut ranges: Vec<(i64, i64)> = set
            .blocks()
            .map(|it| (it.range.min_ms, it.end_ms()))
            .collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, whole| {
            let touches = next.0 <= whole.1;
            if touches {
                whole.1 = whole.1.max(next.1);
            }
            touches
        });
        stored.extend(ranges.into_iter().map(|(min_ms, end_ms)| StoredSet {
            labels: set.labels.clone(),
            range: TimeRange::new(min_ms, end_ms),
        }));
    }
    stored
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ulid::Ulid;

    use super::*;

    fn block(n: u64, min_ms: i64, end_ms: i64, resolution_ms: i64) -> Arc<Block> {
        let mut meta = isobar_tsdb::block::BlockMeta::new(Ulid::from_parts(n, 0), min_ms, end_ms);
        meta.stats.num_series = 1;
        let mut meta = crate::block::Meta::from_block("meta.json", meta).unwrap();
        meta.thanos.downsample.resolution_ms = resolution_ms;
        Arc::new(Block::new(&crate::block::Summary::of(&meta)))
    }

    fn one(blocks: &[(i64, i64, i64)]) -> BlockSet {
        let blocks = blocks.iter().zip(0..);
        let blocks = blocks.map(|((min, end, resolution), n)| block(n, *min, *end, *resolution));
        BlockSet::all_of(blocks).pop().unwrap()
    }

    fn check(set: &BlockSet, range: (i64, i64), most: i64, expected: &[(i64, i64, i64)]) {
        let chosen = set.choose(TimeRange::new(range.0, range.1), most);
        let chosen: Vec<_> = chosen
            .iter()
            .map(|it| (it.range.min_ms, it.end_ms(), it.resolution_ms))
            .collect();
        assert_eq!(chosen, expected, "{range:?} of {most}");
    }

    #[test]
    fn holes_are_filled_with_finer_blocks() {
        let set = one(&[
            (0, 10, 0),
            (10, 20, 0),
            (20, 30, 0),
            (30, 40, 0),
            (0, 20, 5),
            (20, 30, 5),
            (0, 20, 60),
        ]);
        check(
            &set,
            (0, 39),
            0,
            &[(0, 10, 0), (10, 20, 0), (20, 30, 0), (30, 40, 0)],
        );
        check(
            &set,
            (0, 39),
            4,
            &[(0, 10, 0), (10, 20, 0), (20, 30, 0), (30, 40, 0)],
        );
        check(&set, (0, 39), 5, &[(0, 20, 5), (20, 30, 5), (30, 40, 0)]);
        check(&set, (0, 39), 100, &[(0, 20, 60), (20, 30, 5), (30, 40, 0)]);
        check(&set, (20, 20), 100, &[(20, 30, 5)]);
        check(&set, (19, 19), 100, &[(0, 20, 60)]);
        check(&set, (40, 50), 100, &[]);
        check(&set, (-5, -1), 100, &[]);
        let coarse = one(&[(0, 20, 60)]);
        check(&coarse, (0, 10), 5, &[]);
    }

    proptest! {
        /// Each time of a range that any block of an allowed resolution covers is covered by a chosen one,
        /// and by no finer one than need be when blocks of a resolution do not overlap.
        #[test]
        fn like_a_naive_model(
            cuts in prop::collection::vec(prop::collection::btree_set(0i64..60, 0..8), 3),
            holes in any::<u64>(),
            from in -5i64..60, len in 0i64..70, most in 0usize..3,
        ) {
            let resolutions = [0, 300, 3600];
            let mut all = Vec::new();
            for (level, cuts) in cuts.iter().enumerate() {
                let cuts: Vec<i64> = cuts.iter().copied().collect();
                for (i, pair) in cuts.windows(2).enumerate() {
                    if holes >> (level * 8 + i) & 1 == 0 {
                        all.push((pair[0], pair[1], resolutions[level]));
                    }
                }
            }
            prop_assume!(!all.is_empty());
            let set = one(&all);
            let range = TimeRange::new(from, from + len);
            let chosen = set.choose(range, resolutions[most]);
            let ids: std::collections::BTreeSet<_> = chosen.iter().map(|it| it.id).collect();
            prop_assert_eq!(ids.len(), chosen.len());
            let mut expected = std::collections::BTreeSet::new();
            for time in range.min_ms..=range.max_ms {
                let holds = |it: &&(i64, i64, i64)| it.0 <= time && time < it.1 && it.2 <= resolutions[most];
                if let Some(best) = all.iter().filter(holds).max_by_key(|it| it.2) {
                    expected.insert(*best);
                }
            }
            let got: std::collections::BTreeSet<_> = chosen
                .iter()
                .map(|it| (it.range.min_ms, it.end_ms(), it.resolution_ms))
                .collect();
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn stretches_that_touch_are_one() {
        let set = one(&[(0, 10, 0), (10, 20, 0), (0, 15, 5), (30, 40, 0)]);
        let ranges: Vec<_> = stored(&[set])
            .iter()
            .map(|it| (it.range.min_ms, it.range.max_ms))
            .collect();
        assert_eq!(ranges, [(0, 20), (30, 40)]);
    }
}
