//! The numbered selects of a plan.

use isobar_model::series::{Select, SelectHints};
use isobar_model::{Matcher, TimeRange};

/// The selects found so far, each with the number of its readers.
#[derive(Debug, Default)]
pub(super) struct Selects {
    pub(super) selects: Vec<Select>,
    pub(super) readers: Vec<u32>,
    /// See [`super::PlanParams::selects_apart`].
    apart: bool,
}

impl Selects {
    pub(super) fn new(apart: bool) -> Self {
        Selects {
            apart,
            ..Selects::default()
        }
    }

    /// The number of the select that gives the series of `matchers` over `range`.
    ///
    /// A select with the same matchers is shared when the times overlap: its range grows, and
    /// hints that differ are given up.
    pub(super) fn add(
        &mut self,
        matchers: &[Matcher],
        range: TimeRange,
        hints: SelectHints,
    ) -> usize {
        let fits = |s: &Select| match self.apart {
            true => s.range == range && s.hints == hints,
            false => s.range.overlaps(&range),
        };
        let same = |s: &Select| s.matchers == matchers && fits(s);
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
