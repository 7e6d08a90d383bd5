//! Which series of a block match: what has to be read of its index, and what to do with it.
//!
//! Series are sorted by labels, so those of a metric lie together. Where the matchers name metrics,
//! the stretch of each is read as a whole and the other matchers are tested on the symbols of every
//! series in it: one round trip. Lists of series (postings) say more exactly where matching series lie,
//! at the price of reading the lists first; they are used where that costs less ([`Cost`]). Not all
//! of them are: every series that is read is tested with all matchers, so each list is worth it only
//! while it saves more than it costs.

use std::ops::Range;

use hashbrown::HashMap;
use isobar_model::labels::METRIC_NAME;
use isobar_model::{MatchOp, Matcher};
use isobar_tsdb::Error;

use crate::card::{Card, Extent, Lookup, Pair};

/// What a round trip costs, in bytes that could be read meanwhile: 30 ms at 50 MB/s.
const ROUND_TRIP_BYTES: u64 = 1_500_000;
/// Looking at bytes that are at hand costs this part of what fetching them does.
const AT_HAND_PART: u64 = 20;
/// A list of series is not worth it when it is longer than this many bytes for each series that is left.
const SERIES_BYTES: u64 = 256;
/// Values of a label that are looked at to find lists for a matcher.
const VALUES_MAX: u32 = 20_000;
/// Series that lie apart are read in pieces of this length.
const PIECE_BYTES: u64 = crate::cache::PAGE_BYTES as u64;

/// What has to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// No series can match.
    Nothing,
    /// Stretches of the series, in ascending order.
    Runs(Vec<Range<u64>>),
    /// Lists of series: those that are in some list of each group.
    Lists(Vec<Vec<Pair>>),
}

/// Which of the ways a plan may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// The cheaper one.
    #[default]
    Cheapest,
    /// Stretches of series.
    Extents,
    /// Lists of series, where there are any.
    Postings,
}

/// Matchers in terms of the symbols of a block.
pub(super) struct Tests {
    tests: Vec<Test>,
}

struct Test {
    /// The symbol of the label's name; none when no series has it.
    name: Option<u32>,
    matcher: Matcher,
    accepts_empty: bool,
    value: Value,
}

enum Value {
    /// `=`, with the symbol of the value when there is one.
    Equal(Option<u32>),
    /// `!=`, likewise.
    NotEqual(Option<u32>),
    /// An expression, with what it said of symbols before.
    Regexp(HashMap<u32, bool>),
}

impl Tests {
    /// Resolves matchers. Nothing when no series of the block can match.
    pub(super) fn new(card: &Card, matchers: &[Matcher]) -> Result<Option<Self>, Error> {
        let mut tests = Vec::with_capacity(matchers.len());
        for matcher in matchers {
            let accepts_empty = matcher.matches_empty();
            let mut name = card.find_symbol(matcher.name())?;
            if let Some(symbol) = name
                && card.name(symbol)?.is_none()
            {
                name = None;
            }
            if name.is_none() && !accepts_empty {
                return Ok(None);
            }
            let symbol = || card.find_symbol(matcher.value());
            let value = match matcher.op() {
                MatchOp::Equal => Value::Equal(symbol()?),
                MatchOp::NotEqual => Value::NotEqual(symbol()?),
                MatchOp::Regexp | MatchOp::NotRegexp => Value::Regexp(HashMap::new()),
            };
            if matches!(value, Value::Equal(None)) && !accepts_empty {
                return Ok(None);
            }
            tests.push(Test {
                name,
                matcher: matcher.clone(),
                accepts_empty,
                value,
            });
        }
        Ok(Some(Tests { tests }))
    }

    /// No tests, for series that are known to match.
    pub(super) fn none() -> Self {
        Tests { tests: Vec::new() }
    }

    /// Whether a series with these labels matches.
    pub(super) fn pass(
        &mut self,
        labels: &[(u32, u32)],
        lookup: &mut Lookup,
    ) -> Result<bool, Error> {
        for test in &mut self.tests {
            let pair = labels.iter().find(|pair| Some(pair.0) == test.name);
            let passes = match pair {
                None => test.accepts_empty,
                Some((_, value)) => test.accepts(*value, lookup)?,
            };
            if !passes {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Test {
    fn accepts(&mut self, value: u32, lookup: &mut Lookup) -> Result<bool, Error> {
        Ok(match &mut self.value {
            // An empty value is as none.
            Value::Equal(symbol) if self.matcher.value().is_empty() => {
                *symbol == Some(value) || lookup.text(value)?.is_empty()
            }
            Value::Equal(symbol) => *symbol == Some(value),
            Value::NotEqual(symbol) => *symbol != Some(value),
            Value::Regexp(known) => match known.get(&value) {
                Some(known) => *known,
                None => {
                    let accepts = self.matcher.matches(lookup.text(value)?);
                    known.insert(value, accepts);
                    accepts
                }
            },
        })
    }
}

/// What bytes of the index cost.
pub(super) trait Cost {
    /// How many bytes of a range of the index are not at hand.
    fn missing(&self, range: Range<u64>) -> u64;
}

/// Decides what to read.
pub(super) fn plan(
    card: &Card,
    tests: &mut Tests,
    cost: &impl Cost,
    way: Way,
) -> Result<Plan, Error> {
    let mut lookup = card.lookup();
    let extents = if way == Way::Postings {
        None
    } else {
        extents(card, tests, &mut lookup)?
    };
    if extents.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Plan::Nothing);
    }
    let root = card.root();
    let all = root.series_begin..root.series_end;
    let runs = match &extents {
        Some(extents) => joined(extents),
        None => vec![all.clone()],
    };
    if way == Way::Extents && !root.index_v1 {
        return Ok(Plan::Runs(runs));
    }
    let groups = lists(card, tests, &mut lookup)?;
    let Some(groups) = groups else {
        return Ok(Plan::Nothing);
    };
    if groups.is_empty() && !root.index_v1 {
        return Ok(Plan::Runs(runs));
    }
    let groups = worth_it(groups);
    if groups.is_empty() {
        // An index of version 1 does not say where series begin, but for its lists.
        let all = Pair {
            offset: root.all_offset,
            bytes: root.all_bytes,
            ..Pair::default()
        };
        return Ok(Plan::Lists(vec![vec![all]]));
    }
    if way == Way::Postings || root.index_v1 {
        return Ok(Plan::Lists(groups));
    }
    let run_bytes: u64 = runs.iter().map(|it| it.end - it.start).sum();
    let run_missing: u64 = runs.iter().map(|it| cost.missing(it.clone())).sum();
    let runs_cost = run_missing + run_bytes / AT_HAND_PART;

    let list_bytes: u64 = groups.iter().flatten().map(|it| it.bytes).sum();
    let missing_of = |it: &Pair| cost.missing(it.offset..it.offset + it.bytes);
    let list_missing: u64 = groups.iter().flatten().map(missing_of).sum();
    let trip = if list_missing > 0 {
        ROUND_TRIP_BYTES
    } else {
        0
    };
    let least = groups
        .iter()
        .map(|group| series_of(group))
        .min()
        .unwrap_or(0);
    // Where they lie is not known yet: each may want a piece of its own, and all together no more than
    // the runs, or than all series of their metrics, which lie together.
    let of_metrics = stretches_of_metrics(card, &groups)?;
    let pieces = least.saturating_mul(PIECE_BYTES).min(run_bytes);
    let pieces = pieces.min(of_metrics.unwrap_or(u64::MAX));
    let series_missing = pieces.min(run_missing);
    let lists_cost = list_missing
        + trip
        + list_bytes / AT_HAND_PART
        + series_missing
        + least.saturating_mul(SERIES_BYTES).min(run_bytes) / AT_HAND_PART;
    if runs_cost <= lists_cost {
        return Ok(Plan::Runs(runs));
    }
    Ok(Plan::Lists(groups))
}

/// About the bytes that all series of some metrics take, when one of the groups is of metrics.
fn stretches_of_metrics(card: &Card, groups: &[Vec<Pair>]) -> Result<Option<u64>, Error> {
    let Some(label) = card.metric_label()? else {
        return Ok(None);
    };
    let is_it = |group: &&Vec<Pair>| group.iter().all(|pair| pair.name == label);
    let root = card.root();
    let all = (root.all_bytes / 4).max(1);
    let stretches = groups.iter().find(is_it).map(|group| {
        let bytes = (root.series_end - root.series_begin).saturating_mul(series_of(group)) / all;
        bytes.saturating_add(group.len() as u64 * 2 * PIECE_BYTES)
    });
    Ok(stretches)
}

fn series_of(group: &[Pair]) -> u64 {
    group.iter().map(Pair::series).sum()
}

/// How many series can match at most, as far as a card says.
pub(super) fn series_at_most(card: &Card, matchers: &[Matcher]) -> Result<Option<u64>, Error> {
    let Some(mut tests) = Tests::new(card, matchers)? else {
        return Ok(Some(0));
    };
    let Some(groups) = lists(card, &mut tests, &mut card.lookup())? else {
        return Ok(Some(0));
    };
    Ok(groups.iter().map(|group| series_of(group)).min())
}

/// The extents of the metrics that can match; `None` when series without a name can match, or nothing
/// is known of extents.
fn extents(
    card: &Card,
    tests: &mut Tests,
    lookup: &mut Lookup,
) -> Result<Option<Vec<Extent>>, Error> {
    if card.root().metrics == 0 {
        return Ok(None);
    }
    let mut names: Vec<&mut Test> = tests.tests.iter_mut().collect();
    names.retain(|test| test.matcher.name() == METRIC_NAME);
    if names.iter().all(|test| test.accepts_empty) {
        return Ok(None);
    }
    let equal = names.iter().find_map(|test| match test.value {
        Value::Equal(Some(symbol)) if !test.accepts_empty => Some(symbol),
        _ => None,
    });
    let literals = names.iter().find_map(|test| {
        let wanted = test.matcher.op() == MatchOp::Regexp && !test.accepts_empty;
        test.matcher.regexp().filter(|_| wanted)?.literals()
    });
    let mut candidates = Vec::new();
    if let Some(symbol) = equal {
        candidates.extend(card.extent(symbol)?);
    } else if let Some(literals) = literals {
        for literal in literals {
            if let Some(symbol) = card.find_symbol(literal)? {
                candidates.extend(card.extent(symbol)?);
            }
        }
        candidates.sort_by_key(|it| it.value);
        candidates.dedup();
    } else {
        candidates = card.extents(0)?.collect::<Result<_, _>>()?;
    }
    let mut accepted = Vec::new();
    for extent in candidates {
        let mut accepts = true;
        for test in &mut names {
            accepts = accepts && test.accepts(extent.value, lookup)?;
        }
        if accepts {
            accepted.push(extent);
        }
    }
    Ok(Some(accepted))
}

/// Stretches in ascending order, those that touch as one.
fn joined(extents: &[Extent]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = extents.iter().map(|it| it.begin..it.end).collect();
    runs.sort_by_key(|it| it.start);
    runs.dedup_by(|next, run| {
        let touches = next.start <= run.end;
        if touches {
            run.end = run.end.max(next.end);
        }
        touches
    });
    runs
}

/// For each matcher that can name its series the lists of the values that it accepts; nothing when one
/// accepts none.
fn lists(
    card: &Card,
    tests: &mut Tests,
    lookup: &mut Lookup,
) -> Result<Option<Vec<Vec<Pair>>>, Error> {
    let mut groups = Vec::new();
    for test in tests.tests.iter_mut().filter(|test| !test.accepts_empty) {
        let Some(name) = test.name else {
            return Ok(None);
        };
        if let Value::Equal(Some(symbol)) = test.value {
            let Some(pair) = card.pair(name, symbol)? else {
                return Ok(None);
            };
            groups.push(vec![pair]);
            continue;
        }
        let regexp = test.matcher.regexp();
        let literals = regexp.filter(|_| test.matcher.op() == MatchOp::Regexp);
        if let Some(literals) = literals.and_then(|it| it.literals()) {
            let mut group = Vec::new();
            for literal in literals.iter().filter(|it| !it.is_empty()) {
                if let Some(symbol) = card.find_symbol(literal)? {
                    group.extend(card.pair(name, symbol)?);
                }
            }
            group.sort_by_key(|it| it.value);
            group.dedup();
            if group.is_empty() {
                return Ok(None);
            }
            groups.push(group);
            continue;
        }
        let count = card.name(name)?.map_or(0, |it| it.values);
        if count > VALUES_MAX {
            continue;
        }
        let mut group = Vec::new();
        for pair in card.pairs(name, 0)? {
            let pair = pair?;
            if test.accepts(pair.value, lookup)? {
                group.push(pair);
            }
        }
        if group.is_empty() {
            return Ok(None);
        }
        groups.push(group);
    }
    Ok(Some(groups))
}

/// The shortest group, and others that are short beside the series that they can rule out.
fn worth_it(mut groups: Vec<Vec<Pair>>) -> Vec<Vec<Pair>> {
    groups.sort_by_key(|group| series_of(group));
    let Some(shortest) = groups.first().map(|group| series_of(group)) else {
        return groups;
    };
    let mut left = shortest;
    let mut worth = Vec::new();
    for group in groups {
        let bytes: u64 = group.iter().map(|it| it.bytes).sum();
        if worth.is_empty() || bytes < left.saturating_mul(SERIES_BYTES) / 2 {
            if !worth.is_empty() {
                // What is known of how labels go together is nothing: half of them, say.
                left /= 2;
            }
            worth.push(group);
        }
    }
    worth
}
