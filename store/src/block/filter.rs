//! Which blocks of a bucket a component cares for: Thanos' filters, in Thanos' order, as functions
//! of what is known of the blocks and of the time. Nothing is read here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use isobar_model::Labels;
use ulid::Ulid;

use super::known::{KnownMeta, Summary};
use super::marks::{DeletionMark, NoCompactMark, NoDownsampleMark};
use super::relabel::{self, Rule};

/// The label that stands for the name of a block where rules choose among blocks.
pub const BLOCK_ID_LABEL: &str = "__block_id";

/// A block of which everything that matters was read.
#[derive(Debug, Clone)]
pub struct KnownBlock {
    /// What its `meta.json` says.
    pub meta: Arc<KnownMeta>,
    /// Its marks.
    pub marks: Marks,
}

/// The marks of a block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Marks {
    /// It is going to be deleted.
    pub deletion: Option<Arc<DeletionMark>>,
    /// It is not to be compacted.
    pub no_compact: Option<Arc<NoCompactMark>>,
    /// It is not to be downsampled.
    pub no_downsample: Option<Arc<NoDownsampleMark>>,
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// `meta.json` cannot be read.
    CorruptedMeta,
    /// There is no `meta.json`: the upload has not ended, or the deletion has begun.
    NoMeta,
    /// It is taken.
    Loaded,
    /// It is too young.
    TooFresh,
    /// Something about it could not be fetched.
    Failed,
    /// The rules leave it out.
    LabelExcluded,
    /// It lies outside of the time that matters.
    TimeExcluded,
    /// Another block holds all that it holds.
    Duplicate,
    /// It was marked for deletion long enough ago.
    MarkedForDeletion,
    /// It is taken, but not to be compacted.
    MarkedForNoCompact,
    /// It is taken, but not to be downsampled.
    MarkedForNoDownsample,
    /// It is marked as migrated to Parquet.
    ParquetMigrated,
}

impl State {
    /// All states.
    pub const ALL: [State; 12] = [
        State::CorruptedMeta,
        State::NoMeta,
        State::Loaded,
        State::TooFresh,
        State::Failed,
        State::LabelExcluded,
        State::TimeExcluded,
        State::Duplicate,
        State::MarkedForDeletion,
        State::MarkedForNoCompact,
        State::MarkedForNoDownsample,
        State::ParquetMigrated,
    ];

    /// Its name in the label `state` of `thanos_blocks_meta_synced`.
    pub fn as_str(self) -> &'static str {
        match self {
            State::CorruptedMeta => "corrupted-meta-json",
            State::NoMeta => "no-meta-json",
            State::Loaded => "loaded",
            State::TooFresh => "too-fresh",
            State::Failed => "failed",
            State::LabelExcluded => "label-excluded",
            State::TimeExcluded => "time-excluded",
            State::Duplicate => "duplicate",
            State::MarkedForDeletion => "marked-for-deletion",
            State::MarkedForNoCompact => "marked-for-no-compact",
            State::MarkedForNoDownsample => "marked-for-no-downsample",
            State::ParquetMigrated => "parquet-migrated",
        }
    }
}

/// Which blocks a component cares for. The default leaves out nothing.
#[derive(Debug, Clone)]
pub struct Filters {
    /// The first time that matters, unix milliseconds.
    pub min_ms: i64,
    /// The last time that matters, unix milliseconds.
    pub max_ms: i64,
    /// Rules over the external labels and [`BLOCK_ID_LABEL`].
    pub rules: Vec<Rule>,
    /// Labels that the rules do not see, because they tell replicas apart.
    pub replica_labels: Vec<String>,
    /// Blocks are taken when they were uploaded so long ago, unless a compactor wrote them.
    pub consistency_delay_ms: i64,
    /// Blocks are left out when they were marked for deletion longer ago than that. Without it,
    /// marks mean nothing.
    pub ignore_deletion_marks_delay_ms: Option<i64>,
    /// Whether blocks are left out when another one holds all that they hold.
    pub deduplicate: bool,
}

impl Default for Filters {
    fn default() -> Self {
        Filters {
            min_ms: i64::MIN,
            max_ms: i64::MAX,
            rules: Vec::new(),
            replica_labels: Vec::new(),
            consistency_delay_ms: 0,
            ignore_deletion_marks_delay_ms: None,
            deduplicate: false,
        }
    }
}

impl Filters {
    /// What becomes of each block at `now_ms` (unix milliseconds), in the order of `blocks`. A
    /// block that an early filter leaves out hides nothing from the later ones.
    pub fn states(&self, blocks: &[KnownBlock], now_ms: i64) -> Vec<State> {
        let mut states: Vec<State> = blocks
            .iter()
            .map(|block| self.state(block, now_ms))
            .collect();
        if self.deduplicate {
            let left: Vec<usize> = (0..blocks.len())
                .filter(|i| states.get(*i) == Some(&State::Loaded))
                .collect();
            let metas: Vec<&Summary> = left
                .iter()
                .filter_map(|i| blocks.get(*i))
                .map(|block| &**block.meta)
                .collect();
            for (index, duplicate) in left.iter().zip(duplicates(&metas)) {
                if let (true, Some(state)) = (duplicate, states.get_mut(*index)) {
                    *state = State::Duplicate;
                }
            }
        }
        states
    }

    /// What becomes of a block by itself.
    fn state(&self, block: &KnownBlock, now_ms: i64) -> State {
        let meta = &**block.meta;
        if !in_time(meta, self.min_ms, self.max_ms) {
            State::TimeExcluded
        } else if !kept_by_rules(meta, &self.rules, &self.replica_labels) {
            State::LabelExcluded
        } else if too_fresh(meta, self.consistency_delay_ms, now_ms) {
            State::TooFresh
        } else if let (Some(delay_ms), Some(mark)) =
            (self.ignore_deletion_marks_delay_ms, &block.marks.deletion)
            && deletion_is_due(mark, delay_ms, now_ms)
        {
            State::MarkedForDeletion
        } else {
            State::Loaded
        }
    }
}

/// Whether a block has times in `min_ms..=max_ms`. As in Thanos, the time behind a block counts.
pub fn in_time(meta: &Summary, min_ms: i64, max_ms: i64) -> bool {
    meta.end_ms >= min_ms && meta.min_ms <= max_ms
}

/// Whether rules keep a block: nothing leaves it out, and some label is left.
pub fn kept_by_rules(meta: &Summary, rules: &[Rule], replica_labels: &[String]) -> bool {
    if rules.is_empty() {
        return true;
    }
    let mut labels: BTreeMap<String, String> = meta
        .labels
        .iter()
        .filter(|(name, _)| !replica_labels.iter().any(|replica| replica == name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    labels
        .entry(BLOCK_ID_LABEL.to_owned())
        .or_insert_with(|| meta.id.to_string());
    relabel::apply(rules, &mut labels) && !labels.is_empty()
}

/// Whether a block is so young that not all readers may see all of its files. What a compactor
/// writes is taken at once: what it was made from may go soon.
pub fn too_fresh(meta: &Summary, delay_ms: i64, now_ms: i64) -> bool {
    delay_ms > 0 && now_ms.saturating_sub(meta.uploaded_ms) < delay_ms && !meta.by_compactor
}

/// Whether a block was marked for deletion more than `delay_ms` ago.
pub fn deletion_is_due(mark: &DeletionMark, delay_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(mark.time_s.saturating_mul(1000)) > delay_ms
}

/// For each block, whether another one of the same external labels and resolution was made from
/// all that it was made from. Among equals the one with the smallest name stays.
pub fn duplicates(metas: &[&Summary]) -> Vec<bool> {
    let mut groups: HashMap<(i64, &Labels), Vec<usize>> = HashMap::new();
    for (index, meta) in metas.iter().enumerate() {
        let key = (meta.resolution_ms, &meta.labels);
        groups.entry(key).or_default().push(index);
    }
    let mut duplicate = vec![false; metas.len()];
    for group in groups.into_values() {
        for index in duplicates_of_group(metas, group) {
            if let Some(flag) = duplicate.get_mut(index) {
                *flag = true;
            }
        }
    }
    duplicate
}

/// Largest first; whoever is covered by one that stays goes. Only blocks that were made from the
/// first source of a block can cover it, so those are looked up by source.
fn duplicates_of_group(metas: &[&Summary], group: Vec<usize>) -> Vec<usize> {
    let mut group: Vec<(usize, &Summary)> = group
        .into_iter()
        .filter_map(|index| Some((index, *metas.get(index)?)))
        .collect();
    group.sort_by_key(|(_, meta)| {
        let sources = meta.sources.len();
        (std::cmp::Reverse(sources), meta.id)
    });
    let mut staying: Vec<HashSet<Ulid>> = Vec::new();
    let mut by_source: HashMap<Ulid, Vec<usize>> = HashMap::new();
    let mut gone = Vec::new();
    for (index, meta) in group {
        let sources = &meta.sources;
        let covers = |parent: &usize| {
            let parent = staying.get(*parent);
            parent.is_some_and(|parent| sources.iter().all(|source| parent.contains(source)))
        };
        let covered = match sources.first() {
            // What was made from nothing is covered by whatever there is.
            None => !staying.is_empty(),
            Some(first) => by_source
                .get(first)
                .is_some_and(|parents| parents.iter().any(covers)),
        };
        if covered {
            gone.push(index);
            continue;
        }
        for source in sources {
            by_source.entry(*source).or_default().push(staying.len());
        }
        staying.push(sources.iter().copied().collect());
    }
    gone
}

#[cfg(test)]
mod tests {
    use isobar_tsdb::block::meta::BlockMeta;
    use proptest::prelude::*;

    use super::super::meta::{Meta, Source};
    use super::super::upload_time::UploadTime;
    use super::*;

    fn meta(number: u64, sources: &[u64], resolution_ms: i64, tenant: &str) -> Meta {
        let mut block = BlockMeta::new(Ulid::from_parts(number, 0), 0, 100);
        block.compaction.sources = sources.iter().map(|s| Ulid::from_parts(*s, 0)).collect();
        let mut meta = Meta::from_block("test", block).unwrap();
        meta.thanos.downsample.resolution_ms = resolution_ms;
        meta.thanos
            .labels
            .insert("tenant".to_owned(), tenant.to_owned());
        meta
    }

    fn block(number: u64, sources: &[u64], resolution_ms: i64, tenant: &str) -> KnownBlock {
        KnownBlock {
            meta: Arc::new(KnownMeta::from(&meta(
                number,
                sources,
                resolution_ms,
                tenant,
            ))),
            marks: Marks::default(),
        }
    }

    #[test]
    fn the_first_filter_that_leaves_out_a_block_names_its_state() {
        let now_ms = 10_000_000;
        let filters = Filters {
            min_ms: 50,
            max_ms: 60,
            rules: relabel::parse(
                "[{action: drop, source_labels: [tenant], regex: b}]",
                Some(&relabel::SELECTOR_ACTIONS),
            )
            .unwrap(),
            consistency_delay_ms: 60_000,
            ignore_deletion_marks_delay_ms: Some(1000),
            deduplicate: true,
            ..Filters::default()
        };
        let check = |change: &dyn Fn(&mut Meta, &mut Marks), expected: State| {
            let (mut meta, mut marks) = (meta(7, &[7], 0, "a"), Marks::default());
            change(&mut meta, &mut marks);
            let meta = Arc::new(KnownMeta::from(&meta));
            let block = KnownBlock { meta, marks };
            assert_eq!(filters.states(&[block], now_ms), [expected]);
        };
        let marked = |marks: &mut Marks, time_s| {
            let mark = DeletionMark::new(Ulid::from_parts(7, 0), time_s, "");
            marks.deletion = Some(Arc::new(mark));
        };
        check(&|_, _| (), State::Loaded);
        check(&|meta, _| meta.block.end_ms = 49, State::TimeExcluded);
        check(&|meta, _| meta.block.end_ms = 50, State::Loaded);
        check(&|meta, _| meta.block.min_ms = 61, State::TimeExcluded);
        let of_b = |meta: &mut Meta| meta.thanos.labels.insert("tenant".into(), "b".into());
        check(&|meta, _| drop(of_b(meta)), State::LabelExcluded);
        let fresh = |meta: &mut Meta| meta.thanos.upload_time = UploadTime::at(now_ms - 59_999);
        check(&|meta, _| fresh(meta), State::TooFresh);
        check(
            &|meta, _| {
                fresh(meta);
                meta.thanos.source = Source::new(Source::COMPACTOR);
            },
            State::Loaded,
        );
        check(&|_, marks| marked(marks, 9_999), State::Loaded);
        check(&|_, marks| marked(marks, 9_998), State::MarkedForDeletion);
    }

    #[test]
    fn rules_see_the_name_of_the_block_but_no_replica_labels() {
        let block = block(7, &[7], 0, "a");
        let kept = |yaml: &str, replica_labels: &[String]| {
            kept_by_rules(
                &block.meta,
                &relabel::parse(yaml, None).unwrap(),
                replica_labels,
            )
        };
        assert!(kept(
            "[{action: keep, source_labels: [__block_id], regex: 00.*}]",
            &[]
        ));
        let of_a = "[{action: keep, source_labels: [tenant], regex: a}]";
        assert!(kept(of_a, &[]));
        assert!(!kept(of_a, &["tenant".to_owned()]));
        assert!(!kept("[{action: labeldrop, regex: '.*'}]", &[]));
    }

    #[test]
    fn what_a_larger_block_holds_is_a_duplicate() {
        let blocks = [
            block(1, &[1], 0, "a"),
            block(2, &[2], 0, "a"),
            block(3, &[1, 2], 0, "a"),
            block(4, &[1, 2], 0, "a"),
            block(5, &[1], 300_000, "a"),
            block(6, &[1], 0, "b"),
            block(7, &[2, 8], 0, "a"),
        ];
        let metas: Vec<&Summary> = blocks.iter().map(|b| &**b.meta).collect();
        assert_eq!(
            duplicates(&metas),
            [true, true, false, true, false, false, false]
        );
    }

    /// The same without indices: compare with everything that stays.
    fn naive_duplicates(metas: &[&Summary]) -> Vec<bool> {
        let mut order: Vec<usize> = (0..metas.len()).collect();
        order.sort_by_key(|i| {
            let sources = metas[*i].sources.len();
            (std::cmp::Reverse(sources), metas[*i].id)
        });
        let mut flags = vec![false; metas.len()];
        let mut staying: Vec<usize> = Vec::new();
        for i in order {
            let child = metas[i];
            flags[i] = staying.iter().any(|parent| {
                let parent = metas[*parent];
                parent.labels == child.labels
                    && parent.resolution_ms == child.resolution_ms
                    && child.sources.iter().all(|s| parent.sources.contains(s))
            });
            if !flags[i] {
                staying.push(i);
            }
        }
        flags
    }

    proptest! {
        #[test]
        fn duplicates_are_those_of_the_naive_way(
            made in proptest::collection::vec(
                (proptest::collection::vec(0u64..6, 0..4), 0i64..2, 0u8..2), 0..14)
        ) {
            let blocks: Vec<KnownBlock> = made
                .iter()
                .zip(1u64..)
                .map(|((sources, resolution, tenant), number)| {
                    block(number, sources, *resolution, &tenant.to_string())
                })
                .collect();
            let metas: Vec<&Summary> = blocks.iter().map(|b| &**b.meta).collect();
            prop_assert_eq!(duplicates(&metas), naive_duplicates(&metas));
        }
    }
}
