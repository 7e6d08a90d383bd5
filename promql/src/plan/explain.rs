//! A plan as a tree that a person reads: an operator a node, its inputs below it.

use isobar_model::MatchOp;
use isobar_model::Matcher;
use isobar_model::labels::{METRIC_NAME, is_legacy_label_name};

use super::node::{
    Aggregation, BucketFunc, Change, InstantSelect, Kind, MapFn, Node, RangeCall, Scalar,
    WindowSource, WithScalar,
};
use super::{Plan, Root};
use crate::eval::remarks::{quoted, rfc3339};
use crate::functions::range::Edges;
use crate::functions::signature::FUNCTIONS;
use crate::parse::ast::VectorMatching;
use crate::parse::{Millis, Shortest, matching_text};

/// Levels that are shown. Deeper ones are cut off, so that whoever walks the tree needs no more
/// stack than a thread has.
const LEVELS_MAX: usize = 200;

/// An operator of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanNode {
    /// What it does: `[aggregate] sum by (job)`.
    pub name: String,
    /// Its number, under which an evaluation measures it ([`crate::eval::Measures`]); `None` for
    /// what stands for operators that are not shown.
    pub operator: Option<u32>,
    /// The number of the select that it reads, if it is a selector ([`Plan::selects`]).
    pub select: Option<usize>,
    /// Its inputs.
    pub children: Vec<PlanNode>,
}

impl Plan {
    /// The operators as a tree. The root stands for the query as a whole.
    pub fn explain(&self) -> PlanNode {
        let mut children = Vec::new();
        let explain = Explain { plan: self };
        match &self.root {
            Root::Vector(node) | Root::Subquery(node) => children.push(explain.node(node, 1)),
            Root::Scalar(scalar) => {
                let text = explain.scalar(scalar, 1, &mut children);
                children = vec![PlanNode {
                    name: format!("[scalar] {text}"),
                    operator: Some(self.root_operator()),
                    select: None,
                    children,
                }];
            }
            Root::String(text) => children.push(PlanNode {
                name: format!("[string] {}", quoted(text)),
                operator: None,
                select: None,
                children: Vec::new(),
            }),
            Root::Samples { select, .. } => children.push(PlanNode {
                name: format!("[samples] {}", explain.select(*select)),
                operator: Some(self.root_operator()),
                select: Some(*select),
                children: Vec::new(),
            }),
        }
        PlanNode {
            name: self.title(),
            operator: Some(0),
            select: None,
            children,
        }
    }

    /// The number of the operator of a root that is no vector; it is the greatest.
    pub(crate) fn root_operator(&self) -> u32 {
        self.operators + 1
    }

    fn title(&self) -> String {
        let grid = &self.grid;
        let start = rfc3339(grid.start_ms);
        if self.instant {
            return format!("[query] at {start}");
        }
        let end = rfc3339(grid.time_ms(grid.count.saturating_sub(1)));
        format!(
            "[query] {} steps of {} from {start} to {end}",
            grid.count,
            Millis(grid.step_ms)
        )
    }
}

struct Explain<'a> {
    plan: &'a Plan,
}

impl Explain<'_> {
    fn node(&self, node: &Node, level: usize) -> PlanNode {
        if level >= LEVELS_MAX {
            return PlanNode {
                name: "[…] deeper operators are not shown".to_owned(),
                operator: None,
                select: None,
                children: Vec::new(),
            };
        }
        let mut children = Vec::new();
        let below = &mut children;
        let mut select = None;
        let name = match &node.kind {
            Kind::Empty => "[empty]".to_owned(),
            Kind::Select(it) => {
                select = Some(it.select);
                format!("[selector] {}", self.instant(it))
            }
            Kind::SampleTime(it) => {
                select = Some(it.select);
                format!("[selector] timestamp of {}", self.instant(it))
            }
            Kind::StartTime(it) => {
                select = Some(it.select);
                format!("[selector] start_timestamp of {}", self.instant(it))
            }
            Kind::Range(call) => {
                if let WindowSource::Select(it) = &call.source {
                    select = Some(*it);
                }
                self.range(call, level, below)
            }
            Kind::Map(map) => {
                let text = self.map(&map.func, level, below);
                below.push(self.node(&map.input, level + 1));
                format!("[function] {text}")
            }
            Kind::WithScalar(op) => self.with_scalar(op, level, below),
            Kind::Negate(input) => {
                below.push(self.node(input, level + 1));
                "[function] minus".to_owned()
            }
            Kind::Match(op) => {
                below.push(self.node(&op.lhs, level + 1));
                below.push(self.node(&op.rhs, level + 1));
                let bool = if op.return_bool { " bool" } else { "" };
                matched("join", op.op.as_str(), bool, &op.matching)
            }
            Kind::Set(op) => {
                below.push(self.node(&op.lhs, level + 1));
                below.push(self.node(&op.rhs, level + 1));
                matched("set", op.op.as_str(), "", &op.matching)
            }
            Kind::Fold(op) | Kind::Pick(op) => self.aggregate(op, level, below),
            Kind::CountValues(op) => {
                below.push(self.node(&op.input, level + 1));
                let label = quoted(&op.label);
                let groups = grouping(&op.grouping, op.without);
                format!("[aggregate] count_values({label}){groups}")
            }
            Kind::Absent { labels, input } => {
                below.push(self.node(input, level + 1));
                format!("[function] absent, else {labels}")
            }
            Kind::FromScalar(scalar) => {
                format!("[vector] {}", self.scalar(scalar, level, below))
            }
            Kind::Hold(input) => {
                below.push(self.node(input, level + 1));
                "[once] evaluated at one step, the same at all".to_owned()
            }
            Kind::Sort(op) => {
                below.push(self.node(&op.input, level + 1));
                let by = match &op.labels {
                    None => "value".to_owned(),
                    Some(labels) => labels.join(", "),
                };
                let order = if op.descending { ", descending" } else { "" };
                format!("[sort] by {by}{order}")
            }
            Kind::Relabel(op) => {
                below.push(self.node(&op.input, level + 1));
                match &op.change {
                    Change::Replace(it) => format!("[function] label_replace of {}", it.dst()),
                    Change::Join(it) => format!("[function] label_join into {}", it.dst()),
                }
            }
            Kind::Buckets(op) => {
                let text = self.buckets(&op.func, level, below);
                below.push(self.node(&op.input, level + 1));
                format!("[function] {text}")
            }
            Kind::Info(op) => {
                below.push(self.node(&op.input, level + 1));
                select = Some(op.series.select);
                format!("[info] {}", self.instant(&op.series))
            }
            Kind::Shared(slot) => match self.plan.shared.get(*slot) {
                Some(shared) if shared.rank == node.rank => return self.node(shared, level),
                Some(shared) => {
                    let name = self.node(shared, level).name;
                    format!("[shared] computed once, elsewhere in the query: {name}")
                }
                None => "[empty]".to_owned(),
            },
        };
        PlanNode {
            name,
            operator: Some(node.rank),
            select,
            children,
        }
    }

    fn instant(&self, select: &InstantSelect) -> String {
        let smoothed = if select.smoothed { ", smoothed" } else { "" };
        format!("{}{smoothed}", self.select(select.select))
    }

    /// The matchers and the times of a select.
    fn select(&self, index: usize) -> String {
        let Some(select) = self.plan.selects.get(index) else {
            return String::new();
        };
        let readers = match self.plan.readers.get(index) {
            Some(readers) if *readers > 1 => format!(", read once for {readers} operators"),
            _ => String::new(),
        };
        let labels = match &select.hints.labels {
            Some(labels) => format!(", labels ({})", labels.join(", ")),
            None => String::new(),
        };
        format!(
            "{}{labels}, samples from {} to {}{readers}",
            selector(&select.matchers),
            rfc3339(select.range.min_ms),
            rfc3339(select.range.max_ms),
        )
    }

    fn range(&self, call: &RangeCall, level: usize, below: &mut Vec<PlanNode>) -> String {
        let func =
            func_name(|name| crate::functions::range::RangeFn::from_name(name) == Some(call.func));
        let params = call.params.iter();
        let params: Vec<String> = params.map(|it| self.scalar(it, level, below)).collect();
        let params = match params.is_empty() {
            true => String::new(),
            false => format!("({})", params.join(", ")),
        };
        let edges = match call.edges {
            Edges::Plain => "",
            Edges::Anchored { .. } => ", anchored",
            Edges::Smoothed { .. } => ", smoothed",
        };
        let window = Millis(call.windows.range_ms);
        match &call.source {
            WindowSource::Select(it) => {
                let select = self.select(*it);
                format!("[windows] {func}{params} over [{window}]{edges} of {select}")
            }
            WindowSource::Subquery(node) => {
                below.push(self.node(node, level + 1));
                let step = Millis(node.grid.step_ms);
                let steps = node.grid.count;
                format!("[subquery] {func}{params} over [{window}:{step}], {steps} steps")
            }
        }
    }

    fn map(&self, func: &MapFn, level: usize, below: &mut Vec<PlanNode>) -> String {
        use crate::functions::histogram::HistogramFn;
        use crate::functions::scalar::ScalarFn;
        match func {
            MapFn::Plain(it) => func_name(|name| ScalarFn::from_name(name) == Some(*it)).to_owned(),
            MapFn::Histogram(it) => {
                func_name(|name| HistogramFn::from_name(name) == Some(*it)).to_owned()
            }
            MapFn::Round(to) => format!("round to {}", self.scalar(to, level, below)),
            MapFn::Clamp(min, max) => {
                let min = self.scalar(min, level, below);
                format!("clamp({min}, {})", self.scalar(max, level, below))
            }
            MapFn::StepTime => "timestamp".to_owned(),
        }
    }

    fn with_scalar(&self, op: &WithScalar, level: usize, below: &mut Vec<PlanNode>) -> String {
        let scalar = self.scalar(&op.scalar, level, below);
        below.push(self.node(&op.input, level + 1));
        let sign = op.op.as_str();
        let bool = if op.return_bool { " bool" } else { "" };
        match op.scalar_left {
            true => format!("[binary] {scalar} {sign}{bool} …"),
            false => format!("[binary] … {sign}{bool} {scalar}"),
        }
    }

    fn aggregate(&self, op: &Aggregation, level: usize, below: &mut Vec<PlanNode>) -> String {
        let param = match &op.param {
            Some(param) => format!("({})", self.scalar(param, level, below)),
            None => String::new(),
        };
        below.push(self.node(&op.input, level + 1));
        let groups = grouping(&op.grouping, op.without);
        format!("[aggregate] {}{param}{groups}", op.op.as_str())
    }

    fn buckets(&self, func: &BucketFunc, level: usize, below: &mut Vec<PlanNode>) -> String {
        match func {
            BucketFunc::Quantile(q) => {
                format!("histogram_quantile({})", self.scalar(q, level, below))
            }
            BucketFunc::Quantiles(label, quantiles) => {
                let each = quantiles.iter();
                let each: Vec<_> = each.map(|(q, _)| self.scalar(q, level, below)).collect();
                format!("histogram_quantiles({}) as {label}", each.join(", "))
            }
            BucketFunc::Fraction(lower, upper) => {
                let lower = self.scalar(lower, level, below);
                let upper = self.scalar(upper, level, below);
                format!("histogram_fraction({lower}, {upper})")
            }
        }
    }

    /// A number as it could be written; the vectors in it become nodes.
    fn scalar(&self, scalar: &Scalar, level: usize, below: &mut Vec<PlanNode>) -> String {
        if level >= LEVELS_MAX {
            return "…".to_owned();
        }
        let mut inner = |scalar| self.scalar(scalar, level + 1, below);
        match scalar {
            Scalar::Const(value) => Shortest(*value).to_string(),
            Scalar::Time => "time()".to_owned(),
            Scalar::Date(func) => {
                use crate::functions::scalar::ScalarFn;
                let name = func_name(|name| ScalarFn::from_name(name) == Some(*func));
                format!("{name}()")
            }
            Scalar::Of(node) => {
                below.push(self.node(node, level + 1));
                "scalar(…)".to_owned()
            }
            Scalar::Binary(op, left, right) => {
                let left = inner(left);
                format!("({left} {} {})", op.as_str(), inner(right))
            }
            Scalar::Negate(it) => format!("-{}", inner(it)),
            Scalar::MaxOf(left, right) => {
                let left = inner(left);
                format!("max_of({left}, {})", inner(right))
            }
            Scalar::MinOf(left, right) => {
                let left = inner(left);
                format!("min_of({left}, {})", inner(right))
            }
            Scalar::Hold(it) => inner(it),
        }
    }
}

fn matched(kind: &str, op: &str, bool: &str, matching: &VectorMatching) -> String {
    format!("[{kind}] {op}{bool}{}", matching_text(matching))
}

fn grouping(labels: &[String], without: bool) -> String {
    match (labels, without) {
        ([], false) => String::new(),
        (labels, false) => format!(" by ({})", labels.join(", ")),
        (labels, true) => format!(" without ({})", labels.join(", ")),
    }
}

/// The name of the function that `is` recognises.
fn func_name(is: impl Fn(&str) -> bool) -> &'static str {
    let found = FUNCTIONS.iter().find(|func| is(func.name));
    found.map_or("function", |func| func.name)
}

/// Matchers as a selector is written.
fn selector(matchers: &[Matcher]) -> String {
    let is_name = |m: &&Matcher| {
        m.name() == METRIC_NAME && m.op() == MatchOp::Equal && is_legacy_metric_name(m.value())
    };
    let name = matchers.iter().find(is_name);
    let others: Vec<String> = matchers
        .iter()
        .filter(|m| name.is_none_or(|name| *m != name))
        .map(Matcher::to_string)
        .collect();
    let name = name.map_or("", Matcher::value);
    match others.is_empty() && !name.is_empty() {
        true => name.to_owned(),
        false => format!("{name}{{{}}}", others.join(",")),
    }
}

fn is_legacy_metric_name(name: &str) -> bool {
    is_legacy_label_name(&name.replace(':', "_"))
}
