//! What a plan does to read less than the query says, without another answer: the same values in
//! the same order, the same remarks, the same errors. Only limits are met later, and what goes
//! wrong in series that nobody needs goes unseen.

use isobar_model::labels::METRIC_NAME;
use isobar_model::{MatchOp, Matcher};

use super::build::names_of;
use super::invariant::strip;
use super::node::{Kind, Names, Node};
use crate::functions::range::RangeFn;
use crate::functions::scalar::ScalarFn;
use crate::parse::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, ValueType, VectorMatching,
};

/// Levels of an expression that are searched for matchers.
const LEVELS_MAX: usize = 8;
/// Labels that functions take away, or may.
const METADATA: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

/// Which rewrites a plan makes.
#[derive(Debug, Clone, Copy)]
pub struct Rewrites<'a> {
    /// A matcher of one side of an operation is asked of the other side too.
    pub matchers: bool,
    /// A side of an operation is not read when the other turns out to be empty.
    pub empty_sides: bool,
    /// Selectors of the same series share a scan.
    pub shared_scans: bool,
    /// Aggregations that come more than once are computed once.
    pub shared_results: bool,
    /// Vectors that are constant are computed.
    pub constants: bool,
    /// Labels that matchers may name, but that no series has when it gets here: those that tell
    /// replicas apart.
    pub hidden_labels: &'a [String],
}

impl Default for Rewrites<'_> {
    fn default() -> Self {
        Rewrites {
            matchers: true,
            empty_sides: true,
            shared_scans: true,
            shared_results: true,
            constants: true,
            hidden_labels: &[],
        }
    }
}

impl Rewrites<'_> {
    /// None at all.
    pub const NONE: Rewrites<'static> = Rewrites {
        matchers: false,
        empty_sides: false,
        shared_scans: false,
        shared_results: false,
        constants: false,
        hidden_labels: &[],
    };

    /// The matchers that the left and the right side of an operation between vectors may have
    /// besides their own. Elements are matched by labels that are equal on both sides, so what one
    /// side guarantees of such a label is all that is needed of the other.
    pub(super) fn matchers_for_sides(&self, binary: &Binary) -> (Vec<Matcher>, Vec<Matcher>) {
        let nothing = (Vec::new(), Vec::new());
        let Some(matching) = &binary.matching else {
            return nothing;
        };
        let (to_left, to_right) = match binary.op {
            BinaryOp::And => (true, true),
            BinaryOp::Unless => (false, true),
            BinaryOp::Or => (false, false),
            // Elements that nobody needs may still be told about when there are several for one
            // of the other side.
            _ => {
                let one = match matching.cardinality {
                    Cardinality::OneToMany => &binary.lhs,
                    _ => &binary.rhs,
                };
                let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
                let both = !fills && is_unique(one, matching);
                (both, both)
            }
        };
        let more = |wanted: bool, to: &Expr, from: &Expr| match strip(to) {
            Expr::VectorSelector(to) if wanted && !to.smoothed => {
                let mut more = guaranteed(from, 0);
                more.retain(|matcher| {
                    is_matched(matching, matcher.name())
                        && !self.hidden_labels.iter().any(|it| it == matcher.name())
                        && !to.matchers.contains(matcher)
                });
                more
            }
            _ => Vec::new(),
        };
        if !self.matchers || !(to_left || to_right) {
            return nothing;
        }
        (
            more(to_left, &binary.lhs, &binary.rhs),
            more(to_right, &binary.rhs, &binary.lhs),
        )
    }
}

/// Whether elements are matched by this label.
fn is_matched(matching: &VectorMatching, label: &str) -> bool {
    let named = matching.labels.iter().any(|it| it == label);
    match matching.on {
        true => named,
        false => !named && !METADATA.contains(&label),
    }
}

/// Whether no two elements of a selector are the same to `matching`.
fn is_unique(expr: &Expr, matching: &VectorMatching) -> bool {
    match strip(expr) {
        Expr::VectorSelector(selector) => {
            !matching.on && matching.labels.is_empty() && names_of(&selector.matchers) == Names::One
        }
        Expr::Aggregate(e) if !e.without && !is_pick(e.op) => {
            e.op != AggregateOp::CountValues
                && e.grouping.iter().all(|label| is_matched(matching, label))
        }
        _ => false,
    }
}

fn is_pick(op: AggregateOp) -> bool {
    matches!(
        op,
        AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio
    )
}

/// The matchers that ask for a label with a value. Others would take few series away.
fn that_pay(matchers: &[Matcher]) -> Vec<Matcher> {
    let pays = |m: &&Matcher| {
        !METADATA.contains(&m.name())
            && matches!(m.op(), MatchOp::Equal | MatchOp::Regexp)
            && !m.matches_empty()
    };
    matchers.iter().filter(pays).cloned().collect()
}

/// Matchers that every element of `expr` satisfies; not all of them, but those that pay.
fn guaranteed(expr: &Expr, level: usize) -> Vec<Matcher> {
    if level > LEVELS_MAX {
        return Vec::new();
    }
    let inner = |expr: &Expr| guaranteed(expr, level + 1);
    match expr {
        Expr::VectorSelector(selector) => that_pay(&selector.matchers),
        Expr::MatrixSelector(matrix) => that_pay(&matrix.selector.matchers),
        Expr::Subquery(subquery) => inner(&subquery.expr),
        Expr::Paren(paren) => inner(&paren.expr),
        Expr::Unary(unary) => inner(&unary.expr),
        Expr::Call(call) => match input_with_same_labels(call) {
            Some(input) => inner(input),
            None => Vec::new(),
        },
        Expr::Aggregate(e) => of_aggregate(e, inner(&e.expr)),
        Expr::Binary(e) => match &e.matching {
            None if e.lhs.value_type() == ValueType::Vector => inner(&e.lhs),
            None => inner(&e.rhs),
            Some(matching) => of_operation(e, matching, inner(&e.lhs), inner(&e.rhs)),
        },
        Expr::Number(_) | Expr::String(_) => Vec::new(),
    }
}

/// Whether the elements that a function gives have the labels of those that it takes, but for the
/// name, and it looks at none of them.
pub(super) fn keeps_labels(func: &str) -> bool {
    match func {
        "absent" | "absent_over_time" => false,
        "sort" | "sort_desc" | "timestamp" | "round" | "clamp" | "clamp_min" | "clamp_max" => true,
        _ => RangeFn::from_name(func).is_some() || ScalarFn::from_name(func).is_some(),
    }
}

/// The labels besides the name that are looked at in the input of an aggregation, where that is
/// known, and around it at `around`.
pub(super) fn labels_of(e: &Aggregate, around: Option<&[String]>) -> Option<Vec<String>> {
    if e.without || e.op == AggregateOp::LimitRatio {
        return None;
    }
    let mut labels = match is_pick(e.op) {
        true => around?.to_vec(),
        false => Vec::new(),
    };
    labels.extend(e.grouping.iter().filter(|it| *it != METRIC_NAME).cloned());
    labels.sort_unstable();
    labels.dedup();
    Some(labels)
}

/// The argument whose elements a function takes on with all their labels but the name.
fn input_with_same_labels(call: &Call) -> Option<&Expr> {
    let keeps = keeps_labels(call.func.name);
    let takes = |arg: &&Expr| matches!(arg.value_type(), ValueType::Vector | ValueType::Matrix);
    call.args.iter().find(takes).filter(|_| keeps)
}

fn of_aggregate(e: &Aggregate, mut inner: Vec<Matcher>) -> Vec<Matcher> {
    if e.op == AggregateOp::CountValues {
        return Vec::new();
    }
    if !is_pick(e.op) {
        inner.retain(|m| e.grouping.iter().any(|label| label == m.name()) != e.without);
    }
    inner
}

fn of_operation(
    e: &Binary,
    matching: &VectorMatching,
    mut lhs: Vec<Matcher>,
    mut rhs: Vec<Matcher>,
) -> Vec<Matcher> {
    if matching.fill_left.is_some() || matching.fill_right.is_some() {
        return Vec::new();
    }
    let is_matched = |m: &Matcher| is_matched(matching, m.name());
    match (e.op, matching.cardinality) {
        (BinaryOp::Or, _) => lhs.retain(|m| rhs.contains(m)),
        (BinaryOp::Unless, _) => {}
        (BinaryOp::And, _) => {
            rhs.retain(is_matched);
            lhs.append(&mut rhs);
        }
        (_, Cardinality::OneToOne | Cardinality::ManyToMany) => {
            lhs.append(&mut rhs);
            lhs.retain(is_matched);
        }
        (_, cardinality) => {
            let (many, one) = match cardinality {
                Cardinality::OneToMany => (&mut rhs, &mut lhs),
                _ => (&mut lhs, &mut rhs),
            };
            one.retain(is_matched);
            many.append(one);
            many.retain(|m| !matching.include.iter().any(|label| label == m.name()));
            return std::mem::take(many);
        }
    }
    lhs
}

/// Whether nothing is lost when the node is not evaluated and its elements are not needed: it
/// makes no remark, and refuses no query.
pub(super) fn is_silent(node: &Node) -> bool {
    match &node.kind {
        Kind::Empty => true,
        Kind::Select(select) => !select.smoothed,
        Kind::Hold(input) => is_silent(input),
        Kind::Fold(fold) => {
            matches!(fold.op, AggregateOp::Count | AggregateOp::Group) && is_silent(&fold.input)
        }
        Kind::Set(set) => set.op != BinaryOp::Or && is_silent(&set.lhs) && is_silent(&set.rhs),
        _ => false,
    }
}

/// Whether the node filters by value or by other series, so that nothing may be left.
pub(super) fn may_be_empty(node: &Node) -> bool {
    match &node.kind {
        Kind::WithScalar(it) => it.op.is_comparison() && !it.return_bool,
        Kind::Match(it) => it.op.is_comparison() && !it.return_bool,
        Kind::Set(it) => it.op != BinaryOp::Or,
        Kind::Hold(input) => may_be_empty(input),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
