//! Plans `info`: which info series it needs, and at which times.

use isobar_model::labels::METRIC_NAME;
use isobar_model::{MatchOp, Matcher};

use super::PlanError;
use super::build::{Around, Builder, Built, clamp_time};
use super::node::{Grid, Info, InstantSelect, Kind, Node};
use crate::parse::ast::{At, AtPreprocessor, Expr, Offset, Subquery, VectorSelector};

/// The info metric that is meant when none is named.
const TARGET_INFO: &str = "target_info";

impl Builder<'_> {
    /// `info(input, selector)`. Prometheus also asks the info series for values of `instance` and
    /// `job` that the input has; here that is left to the evaluation.
    pub(super) fn info(
        &mut self,
        input: &Expr,
        selector: Option<&Expr>,
        grid: Grid,
        around: &Around,
    ) -> Built<Node> {
        let matchers = match selector {
            None => &[][..],
            Some(Expr::VectorSelector(selector)) => selector.matchers.as_slice(),
            Some(_) => {
                return Err(PlanError::Invalid(
                    "expected label selectors only".to_owned(),
                ));
            }
        };
        let (names, data): (Vec<_>, Vec<_>) = matchers
            .iter()
            .cloned()
            .partition(|m| m.name() == METRIC_NAME);
        let names = name_matchers(names)?;
        let (at_ms, offset_ms) = self.info_time(input)?;
        let (base_ms, step_ms) = match at_ms {
            Some(at_ms) => (at_ms, 0),
            None => (grid.start_ms, grid.step_ms),
        };
        let input = self.vector(input, grid, around)?;
        let series = InstantSelect {
            select: 0,
            first_ms: clamp_time(clamp_time(base_ms).saturating_sub(offset_ms)),
            step_ms,
            lookback_ms: self.params.lookback_ms,
            smoothed: false,
            stats: false,
            until_ms: None,
            counting: self.counting(),
            at: 0,
        };
        let wanted: Vec<Matcher> = data.iter().chain(&names).cloned().collect();
        let range = series.samples_needed(grid.count);
        let select = self
            .selects
            .add(&wanted, range, self.hints(&wanted, 0, around));
        let names_after = input.names;
        let info = Info {
            input,
            series: InstantSelect { select, ..series },
            names,
            data,
        };
        Ok(self.node(Kind::Info(Box::new(info)), grid, names_after))
    }

    /// The time that `@` fixes, if any, and the offset at which info series are looked up: those
    /// of the first selector in `expr`, and of the subqueries around it up to the first `@`.
    fn info_time(&self, expr: &Expr) -> Built<(Option<i64>, i64)> {
        let mut around = Vec::new();
        let Some(selector) = first_selector(expr, &mut around) else {
            return Ok((None, 0));
        };
        let modifiers = around.iter().rev().map(|sub| (sub.at, &sub.offset));
        let mut offset_ms: i64 = 0;
        for (at, offset) in std::iter::once((selector.at, &selector.offset)).chain(modifiers) {
            offset_ms = offset_ms.saturating_add(self.offset_of(offset)?);
            let at_ms = match at {
                None => None,
                Some(At::Timestamp(ms)) => Some(ms),
                Some(At::Preprocessor(_)) if self.in_parameter => None,
                Some(At::Preprocessor(AtPreprocessor::Start)) => Some(self.params.start_ms),
                Some(At::Preprocessor(AtPreprocessor::End)) => Some(self.params.end_ms),
            };
            if at_ms.is_some() {
                return Ok((at_ms, offset_ms));
            }
        }
        Ok((None, offset_ms))
    }

    fn offset_of(&self, offset: &Offset) -> Built<i64> {
        Ok(clamp_time(self.offset_ms(offset)?))
    }
}

/// The matchers that the name of an info series has to fulfil, of those written.
fn name_matchers(written: Vec<Matcher>) -> Built<Vec<Matcher>> {
    if written.is_empty() {
        return Ok(vec![Matcher::equal(METRIC_NAME, TARGET_INFO)]);
    }
    let positive = |m: &Matcher| matches!(m.op(), MatchOp::Equal | MatchOp::Regexp);
    if written.iter().any(positive) {
        return Ok(written);
    }
    let any_info = Matcher::new(METRIC_NAME, MatchOp::Regexp, ".+_info")
        .map_err(|e| PlanError::Execution(e.to_string()))?;
    Ok(std::iter::once(any_info).chain(written).collect())
}

/// The first selector in the order of the text, an aggregation's parameter behind its vector;
/// `around` are then the subqueries around it, the outermost first.
fn first_selector<'e>(
    expr: &'e Expr,
    around: &mut Vec<&'e Subquery>,
) -> Option<&'e VectorSelector> {
    match expr {
        Expr::VectorSelector(selector) => Some(selector),
        Expr::MatrixSelector(matrix) => Some(&matrix.selector),
        Expr::Subquery(subquery) => {
            around.push(subquery);
            let found = first_selector(&subquery.expr, around);
            if found.is_none() {
                around.pop();
            }
            found
        }
        Expr::Aggregate(aggregate) => first_selector(&aggregate.expr, around)
            .or_else(|| first_selector(aggregate.param.as_ref()?, around)),
        Expr::Binary(binary) => {
            first_selector(&binary.lhs, around).or_else(|| first_selector(&binary.rhs, around))
        }
        Expr::Call(call) => call.args.iter().find_map(|arg| first_selector(arg, around)),
        Expr::Paren(paren) => first_selector(&paren.expr, around),
        Expr::Unary(unary) => first_selector(&unary.expr, around),
        Expr::Number(_) | Expr::String(_) => None,
    }
}
