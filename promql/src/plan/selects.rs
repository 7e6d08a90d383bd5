//! The numbered selects of a plan.

use isobar_model::series::{Select, SelectHints};
use isobar_model::{Matcher, TimeRange};

/// The selects found so far, each with the number of its readers.
#[derive(Debug)]
pub(super) struct Selects {
    pub(super) selects: Vec<Select>,
    pub(super) readers: Vec<u32>,
    shares: bool,
    /// See [`super::PlanParams::selects_apart`].
    apart: bool,
}

impl Selects {
    /// `shares` says whether one select may have several readers.
    pub(super) fn new(shares: bool, apart: bool) -> Self {
        Selects {
            selects: Vec::new(),
            readers: Vec::new(),
            shares,
            apart,
        }
    }

    /// The number of the select that gives the series of `matchers` over `range`.
    ///
    /// A select with the same matchers is shared when the times overlap, or almost: its range
    /// grows, and hints that differ are given up.
    pub(super) fn add(
        &mut self,
        matchers: &[Matcher],
        range: TimeRange,
        hints: SelectHints,
    ) -> usize {
        let fits = |s: &Select| match self.apart {
            true => s.range == range && s.hints == hints,
            false => are_near(s.range, range),
        };
        let same = |s: &Select| self.shares && are_same(&s.matchers, matchers) && fits(s);
        if let Some(index) = self.selects.iter().position(same) {
            let select = &mut self.selects[index];
            select.range = select.range.union(&range);
            if select.hints != hints {
                select.hints = SelectHints {
                    step_ms: select.hints.step_ms.min(hints.step_ms),
                    ..SelectHints::default()
                };
            }
            self.readers[index] += 1;
            return index;
        }
        self.selects.push(Select {
            matchers: matchers.to_vec(),
            range,
            hints,
        });
        self.readers.push(1);
        self.selects.len() - 1
    }
}

/// Whether two lists hold the same matchers, in any order.
fn are_same(a: &[Matcher], b: &[Matcher]) -> bool {
    a == b || a.iter().all(|m| b.contains(m)) && b.iter().all(|m| a.contains(m))
}

/// Whether the time between two ranges is short beside them: scanning it costs less than looking
/// for the series a second time.
fn are_near(a: TimeRange, b: TimeRange) -> bool {
    let length = |range: TimeRange| range.max_ms.saturating_sub(range.min_ms).saturating_add(1);
    let both = length(a).saturating_add(length(b));
    length(a.union(&b)) <= both.saturating_add(both / 4)
}
