//! Plans selectors and subqueries: where each step looks, and which samples that takes.

use isobar_model::series::SelectHints;
use isobar_model::{Matcher, TimeRange};

use super::build::{Around, Builder, Built, clamp_time, names_of};
use super::counting::Frame;
use super::duration::duration_ms;
use super::node::{Grid, InstantSelect, Kind, Names, Node};
use super::{PlanError, Root};
use crate::functions::range::{EXTENDED_LOOKBACK_MS, Edges, RangeFn};
use crate::functions::row::Windows;
use crate::parse::ast::{
    At, AtPreprocessor, MatrixSelector, Offset, Subquery, ValueType, VectorSelector,
};

impl Builder<'_> {
    pub(super) fn offset_ms(&self, offset: &Offset) -> Built<i64> {
        match &offset.expr {
            Some(expr) => duration_ms(expr, &self.params, true),
            None => Ok(offset.ms),
        }
    }

    pub(super) fn range_ms(&self, duration: &crate::parse::ast::Duration) -> Built<i64> {
        match &duration.expr {
            Some(expr) => duration_ms(expr, &self.params, false),
            None => Ok(duration.ms),
        }
    }

    /// Where the first step looks and how far the next step is from there.
    pub(super) fn resolve(&self, at: Option<At>, offset: &Offset, grid: Grid) -> Built<(i64, i64)> {
        let offset_ms = self.offset_ms(offset)?;
        let (base_ms, step_ms) = match at {
            None => (grid.start_ms, grid.step_ms),
            Some(At::Preprocessor(_)) if self.in_parameter => (grid.start_ms, grid.step_ms),
            Some(At::Timestamp(ms)) => (ms, 0),
            Some(At::Preprocessor(AtPreprocessor::Start)) => (self.params.start_ms, 0),
            Some(At::Preprocessor(AtPreprocessor::End)) => (self.params.end_ms, 0),
        };
        Ok((
            clamp_time(clamp_time(base_ms).saturating_sub(offset_ms)),
            step_ms,
        ))
    }

    pub(super) fn windows(&self, matrix: &MatrixSelector, grid: Grid) -> Built<Windows> {
        let selector = &matrix.selector;
        let (first_end_ms, step_ms) = self.resolve(selector.at, &selector.offset, grid)?;
        let range_ms = self.range_ms(&matrix.range)?;
        Ok(Windows {
            first_end_ms,
            step_ms,
            count: grid.count,
            range_ms,
        })
    }

    pub(super) fn subquery_windows(&self, subquery: &Subquery, grid: Grid) -> Built<Windows> {
        let (first_end_ms, step_ms) = self.resolve(subquery.at, &subquery.offset, grid)?;
        let range_ms = self.range_ms(&subquery.range)?;
        Ok(Windows {
            first_end_ms,
            step_ms,
            count: grid.count,
            range_ms,
        })
    }

    /// Plans what stands in a subquery on its own grid, which is aligned to its step. Of its steps
    /// those of `outer` see the last `range_ms` milliseconds each, or all that there are when that
    /// is 0.
    pub(super) fn subquery_node(
        &mut self,
        subquery: &Subquery,
        windows: &Windows,
        (outer, range_ms): (Grid, i64),
        around: &Around,
    ) -> Built<Node> {
        let step_ms = match &subquery.step {
            Some(step) => self.range_ms(step)?,
            None => 0,
        };
        let step_ms = if step_ms == 0 {
            self.params.subquery_step_ms
        } else {
            step_ms
        }
        .max(1);
        let last_end_ms = windows.end_ms(windows.count.saturating_sub(1));
        let before_ms = windows.first_end_ms.saturating_sub(windows.range_ms);
        let mut start_ms = step_ms * (before_ms / step_ms);
        if start_ms <= before_ms {
            start_ms += step_ms;
        }
        let grid = Grid::new(start_ms, last_end_ms, step_ms);
        self.steps = self.steps.saturating_add(grid.count as u64);
        self.counting.frames.push(Frame::Subquery {
            inner: grid,
            outer,
            offset_ms: match subquery.at {
                None => outer.start_ms.saturating_sub(windows.first_end_ms),
                Some(_) => 0,
            },
            range_ms,
        });
        let node = self.subquery_inside(subquery, grid, before_ms, around);
        self.counting.frames.pop();
        node
    }

    fn subquery_inside(
        &mut self,
        subquery: &Subquery,
        grid: Grid,
        before_ms: i64,
        around: &Around,
    ) -> Built<Node> {
        let (start_ms, step_ms) = (grid.start_ms, grid.step_ms);
        let around = Around {
            subquery_step_ms: step_ms,
            unused_ms: match subquery.at {
                None => around
                    .unused_ms
                    .saturating_add(start_ms.saturating_sub(before_ms)),
                Some(_) => start_ms.saturating_sub(before_ms),
            },
            // Resets are found by the buckets.
            needs_buckets: true,
            labels: None,
            ..around.farther()
        };
        if subquery.expr.value_type() == ValueType::Scalar {
            if grid.count == 0 {
                return Ok(self.node(Kind::Empty, grid, Names::None));
            }
            let scalar = self.scalar(&subquery.expr, grid, &around)?;
            return Ok(self.node(Kind::FromScalar(scalar), grid, Names::None));
        }
        self.vector(&subquery.expr, grid, &around)
    }

    /// `matchers` are those of the selector. Series of several names may become the same without
    /// their names, and all their labels are needed to see it.
    pub(super) fn hints(
        &self,
        matchers: &[Matcher],
        range_ms: i64,
        around: &Around,
    ) -> SelectHints {
        let subquery_step_ms = around.subquery_step_ms;
        SelectHints {
            step_ms: if subquery_step_ms > 0 {
                subquery_step_ms
            } else {
                self.params.step_ms
            },
            range_ms,
            func: around.func.to_owned(),
            grouping: around.grouping.clone(),
            by: around.by,
            labels: around.labels.clone().filter(|_| {
                let features = self.params.features;
                names_of(matchers) == Names::One
                    && !features.type_and_unit_labels
                    && !features.delayed_name_removal
            }),
        }
    }

    pub(super) fn instant_select(
        &mut self,
        selector: &VectorSelector,
        grid: Grid,
        around: &Around,
    ) -> Built<InstantSelect> {
        let (first_ms, mut step_ms) = self.resolve(selector.at, &selector.offset, grid)?;
        let mut until_ms = None;
        if self.in_parameter && matches!(selector.at, Some(At::Timestamp(_))) {
            // There `@` fixes where the first step looks; the others move on from it, but nothing
            // later than the first is read.
            step_ms = grid.step_ms;
            until_ms = Some(first_ms);
        }
        let instant = InstantSelect {
            select: 0,
            first_ms,
            step_ms,
            lookback_ms: self.params.lookback_ms,
            smoothed: selector.smoothed,
            until_ms,
            counting: self.counting(),
            stats: around.stats && !around.needs_buckets,
            at: selector.span.start,
        };
        let range = instant.samples_needed(grid.count);
        let range = self.as_prometheus(range, selector, around);
        let hints = self.hints(&selector.matchers, 0, around);
        let select = if around.matchers.is_empty() {
            self.selects.add(&selector.matchers, range, hints)
        } else {
            let all: Vec<_> = selector
                .matchers
                .iter()
                .chain(&around.matchers)
                .cloned()
                .collect();
            self.selects.add(&all, range, hints)
        };
        Ok(InstantSelect { select, ..instant })
    }

    /// Which samples around the windows are used.
    pub(super) fn edges(
        &self,
        func: RangeFn,
        name: &str,
        selector: &VectorSelector,
    ) -> Built<Edges> {
        let lookback_ms = match func.is_extended() {
            true => EXTENDED_LOOKBACK_MS,
            false => self.params.lookback_ms,
        };
        let (edges, modifier, allowed) = match (selector.anchored, selector.smoothed) {
            (true, _) => (
                Edges::Anchored { lookback_ms },
                "anchored",
                "changes, delta, increase, rate, resets",
            ),
            (_, true) => (
                Edges::Smoothed { lookback_ms },
                "smoothed",
                "delta, increase, rate",
            ),
            _ if func.is_extended() => return Ok(Edges::Anchored { lookback_ms }),
            _ => return Ok(Edges::Plain),
        };
        if !func.allows(edges) {
            return Err(PlanError::Execution(format!(
                "{modifier} modifier can only be used with: {allowed} - not with {name}"
            )));
        }
        Ok(edges)
    }

    pub(super) fn range_select(
        &mut self,
        matrix: &MatrixSelector,
        windows: &Windows,
        edges: Edges,
        around: &Around,
    ) -> usize {
        let (before_ms, after_ms) = match edges {
            Edges::Plain => (0, 0),
            Edges::Anchored { lookback_ms } => (lookback_ms, 0),
            Edges::Smoothed { lookback_ms } => (lookback_ms, lookback_ms),
        };
        let last_ms = windows
            .end_ms(windows.count.saturating_sub(1))
            .saturating_add(after_ms);
        let first_ms = windows
            .first_end_ms
            .saturating_sub(windows.range_ms - 1)
            .saturating_sub(before_ms);
        let hints = self.hints(&matrix.selector.matchers, windows.range_ms, around);
        let range = TimeRange::new(first_ms, last_ms);
        let range = self.as_prometheus(range, &matrix.selector, around);
        self.selects.add(&matrix.selector.matchers, range, hints)
    }

    /// The times that Prometheus asks for: it takes subqueries at their whole length. Where a
    /// source minds, so do we.
    fn as_prometheus(
        &self,
        range: TimeRange,
        selector: &VectorSelector,
        around: &Around,
    ) -> TimeRange {
        if !self.params.selects_apart || selector.at.is_some() {
            return range;
        }
        let min_ms = range.min_ms.saturating_sub(around.unused_ms);
        TimeRange::new(min_ms, range.max_ms)
    }

    pub(super) fn samples(
        &mut self,
        matrix: &MatrixSelector,
        grid: Grid,
        around: &Around,
    ) -> Built<Root> {
        let lookback_ms = self.params.lookback_ms;
        let edges = match (matrix.selector.anchored, matrix.selector.smoothed) {
            (true, _) => Edges::Anchored { lookback_ms },
            (_, true) => Edges::Smoothed { lookback_ms },
            _ => Edges::Plain,
        };
        let windows = self.windows(matrix, grid)?;
        let select = self.range_select(matrix, &windows, edges, around);
        let max_ms = windows.first_end_ms;
        Ok(Root::Samples {
            select,
            edges,
            min_ms: max_ms.saturating_sub(windows.range_ms),
            max_ms,
        })
    }
}
