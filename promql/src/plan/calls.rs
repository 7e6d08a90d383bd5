//! Plans function calls.

use isobar_model::labels::METRIC_NAME;
use isobar_model::{Labels, LabelsBuilder, MatchOp, Matcher};

use super::PlanError;
use super::build::{Around, Builder, Built, clamp_time, names_of, not_evaluated};
use super::invariant::strip;
use super::node::{
    BucketFunc, Buckets, Change, Grid, InstantSelect, Kind, Map, MapFn, Names, Node, RangeCall,
    Relabel, Scalar, Sort, WindowSource,
};
use super::rewrite;
use crate::functions::histogram::HistogramFn;
use crate::functions::labels::{LabelFnError, LabelJoin, LabelReplace};
use crate::functions::range::{Edges, RangeFn};
use crate::functions::scalar::ScalarFn;
use crate::parse::ast::{At, Call, Expr, StringLiteral, VectorSelector};

impl Builder<'_> {
    pub(super) fn call(&mut self, call: &Call, grid: Grid, around: &Around) -> Built<Node> {
        let name = call.func.name;
        let around = &match rewrite::keeps_labels(name) {
            true => around.with_labels(name),
            false => around.call(name),
        };
        let args: Vec<&Expr> = call.args.iter().map(strip).collect();
        if args
            .iter()
            .any(|arg| matches!(arg, Expr::MatrixSelector(_) | Expr::Subquery(_)))
        {
            return self.range_call(call, &args, grid, around);
        }
        match (name, args.as_slice()) {
            // Without the feature, no start time is known.
            ("start_timestamp", [Expr::VectorSelector(_)])
                if !self.params.features.start_timestamps =>
            {
                Ok(self.node(Kind::Empty, grid, Names::None))
            }
            ("timestamp" | "start_timestamp", [Expr::VectorSelector(selector)]) => {
                let Some(select) = self.time_select(selector, grid, around)? else {
                    return Ok(self.node(Kind::Empty, grid, Names::None));
                };
                let kind = match name {
                    "timestamp" => Kind::SampleTime(select),
                    _ => Kind::StartTime(select),
                };
                Ok(self.node(kind, grid, Names::None))
            }
            // The argument may still warn or fail. Bounds in the wrong order leave nothing of it.
            ("start_timestamp", [input]) => {
                let nothing = MapFn::Clamp(Scalar::Const(1.0), Scalar::Const(0.0));
                self.map(nothing, input, grid, around)
            }
            ("vector", [scalar]) => {
                let scalar = self.scalar(scalar, grid, around)?;
                Ok(self.node(Kind::FromScalar(scalar), grid, Names::None))
            }
            ("absent", [input]) => {
                let labels = match input {
                    Expr::VectorSelector(selector) => absent_labels(&selector.matchers),
                    _ => Labels::empty(),
                };
                let input = Box::new(self.vector(input, grid, around)?);
                Ok(self.node(Kind::Absent { labels, input }, grid, Names::None))
            }
            ("sort" | "sort_desc", [input]) => {
                let input = self.vector(input, grid, around)?;
                self.sort(call, input, None, grid)
            }
            ("sort_by_label" | "sort_by_label_desc", [input, labels @ ..]) => {
                let input = self.vector(input, grid, around)?;
                let labels = labels
                    .iter()
                    .map(|l| string(l))
                    .collect::<Built<Vec<_>>>()?;
                self.sort(call, input, Some(labels), grid)
            }
            ("info", [input, selector @ ..]) => {
                self.info(input, selector.first().copied(), grid, around)
            }
            ("label_replace" | "label_join", _) => self.label_call(name, &args, grid, around),
            ("histogram_quantile" | "histogram_quantiles" | "histogram_fraction", _) => {
                self.bucket_call(name, &args, grid, around)
            }
            ("round", [input, nearest @ ..]) => {
                let nearest = match nearest {
                    [nearest, ..] => self.scalar(nearest, grid, around)?,
                    [] => Scalar::Const(1.0),
                };
                self.map(MapFn::Round(nearest), input, grid, around)
            }
            ("clamp", [input, min, max]) => {
                let min = self.scalar(min, grid, around)?;
                let max = self.scalar(max, grid, around)?;
                self.map(MapFn::Clamp(min, max), input, grid, around)
            }
            ("clamp_min", [input, min]) => {
                let min = self.scalar(min, grid, around)?;
                self.map(
                    MapFn::Clamp(min, Scalar::Const(f64::INFINITY)),
                    input,
                    grid,
                    around,
                )
            }
            ("clamp_max", [input, max]) => {
                let max = self.scalar(max, grid, around)?;
                self.map(
                    MapFn::Clamp(Scalar::Const(f64::NEG_INFINITY), max),
                    input,
                    grid,
                    around,
                )
            }
            ("timestamp", [input]) => self.map(MapFn::StepTime, input, grid, around),
            (_, [input]) if let Some(func) = HistogramFn::from_name(name) => {
                self.map(MapFn::Histogram(func), input, grid, around)
            }
            (_, args) => match (ScalarFn::from_name(name), args) {
                (Some(func), []) => {
                    Ok(self.node(Kind::FromScalar(Scalar::Date(func)), grid, Names::None))
                }
                (Some(func), [input]) => self.map(MapFn::Plain(func), input, grid, around),
                _ => Err(not_evaluated(name)),
            },
        }
    }

    /// The select of `timestamp(selector)`; `None` when it can see nothing.
    ///
    /// Under `@` Prometheus forgets the offset when it looks for the sample, but not when it
    /// reads: it looks at the time that `@` says, and sees what an offset would have let it see.
    fn time_select(
        &mut self,
        selector: &VectorSelector,
        grid: Grid,
        around: &Around,
    ) -> Built<Option<InstantSelect>> {
        let mut select = self.instant_select(selector, grid, around)?;
        let is_fixed = match selector.at {
            None => false,
            Some(At::Timestamp(_)) => true,
            Some(At::Preprocessor(_)) => !self.in_parameter,
        };
        if !is_fixed {
            return Ok(Some(select));
        }
        select.step_ms = 0;
        select.until_ms = None;
        let offset_ms = self.offset_ms(&selector.offset)?;
        let mut read_until_ms = select.first_ms;
        if std::mem::replace(&mut select.smoothed, false) {
            read_until_ms = read_until_ms.saturating_add(select.lookback_ms);
        }
        select.first_ms = clamp_time(select.first_ms.saturating_add(offset_ms));
        select.until_ms = Some(read_until_ms.min(select.first_ms));
        select.lookback_ms += offset_ms.min(0);
        let sees = select.first_ms.saturating_sub(select.lookback_ms) < read_until_ms;
        Ok((sees && select.lookback_ms > 0).then_some(select))
    }

    fn label_call(
        &mut self,
        name: &str,
        args: &[&Expr],
        grid: Grid,
        around: &Around,
    ) -> Built<Node> {
        match (name, args) {
            ("label_replace", [input, target, replacement, source, pattern]) => {
                let replace = LabelReplace::new(
                    literal(target)?.as_bytes(),
                    &string(replacement)?,
                    &string(source)?,
                    &string(pattern)?,
                );
                let change = Change::Replace(replace.map_err(refused_labels)?);
                self.relabel(input, change, grid, around)
            }
            ("label_join", [input, target, separator, sources @ ..]) => {
                let sources = sources
                    .iter()
                    .map(|s| literal(s).map(StringLiteral::as_bytes))
                    .collect::<Built<Vec<_>>>()?;
                let target = literal(target)?.as_bytes();
                let join = LabelJoin::new(target, &string(separator)?, &sources);
                self.relabel(
                    input,
                    Change::Join(join.map_err(refused_labels)?),
                    grid,
                    around,
                )
            }
            _ => Err(not_evaluated(name)),
        }
    }

    fn bucket_call(
        &mut self,
        name: &str,
        args: &[&Expr],
        grid: Grid,
        around: &Around,
    ) -> Built<Node> {
        match (name, args) {
            ("histogram_quantile", [q, input]) => {
                let func = BucketFunc::Quantile(self.scalar(q, grid, around)?);
                self.buckets(func, q.span().start, input, grid, around)
            }
            ("histogram_fraction", [lower, upper, input]) => {
                let lower = self.scalar(lower, grid, around)?;
                let upper = self.scalar(upper, grid, around)?;
                self.buckets(BucketFunc::Fraction(lower, upper), 0, input, grid, around)
            }
            ("histogram_quantiles", [input, label, quantiles @ ..]) => {
                let mut scalars = Vec::with_capacity(quantiles.len());
                for q in quantiles {
                    scalars.push((self.scalar(q, grid, around)?, q.span().start));
                }
                let func = BucketFunc::Quantiles(string(label)?, scalars);
                self.buckets(func, 0, input, grid, around)
            }
            _ => Err(not_evaluated(name)),
        }
    }

    pub(super) fn map(
        &mut self,
        func: MapFn,
        input: &Expr,
        grid: Grid,
        around: &Around,
    ) -> Built<Node> {
        let input = self.vector(input, grid, around)?;
        if let (MapFn::Plain(func), Kind::FromScalar(Scalar::Const(value))) = (&func, &input.kind)
            && self.rewrites.constants
        {
            let kind = Kind::FromScalar(Scalar::Const(func.eval(*value)));
            return Ok(self.node(kind, grid, Names::None));
        }
        Ok(self.node(Kind::Map(Box::new(Map { func, input })), grid, Names::None))
    }

    pub(super) fn sort(
        &mut self,
        call: &Call,
        input: Node,
        labels: Option<Vec<String>>,
        grid: Grid,
    ) -> Built<Node> {
        let names = input.names;
        let descending = call.func.name.ends_with("_desc");
        let sort = Sort {
            input,
            labels,
            descending,
            at: call.span.start,
        };
        Ok(self.node(Kind::Sort(Box::new(sort)), grid, names))
    }

    pub(super) fn relabel(
        &mut self,
        input: &Expr,
        change: Change,
        grid: Grid,
        around: &Around,
    ) -> Built<Node> {
        let input = self.vector(input, grid, around)?;
        let names = if change.target() == METRIC_NAME {
            Names::Any
        } else {
            input.names
        };
        Ok(self.node(
            Kind::Relabel(Box::new(Relabel { input, change })),
            grid,
            names,
        ))
    }

    pub(super) fn buckets(
        &mut self,
        func: BucketFunc,
        quantile_at: usize,
        input: &Expr,
        grid: Grid,
        around: &Around,
    ) -> Built<Node> {
        let input_at = input.span().start;
        let input = self.vector(input, grid, around)?;
        let kind = Kind::Buckets(Box::new(Buckets {
            func,
            input,
            quantile_at,
            input_at,
        }));
        Ok(self.node(kind, grid, Names::None))
    }

    pub(super) fn range_call(
        &mut self,
        call: &Call,
        args: &[&Expr],
        grid: Grid,
        around: &Around,
    ) -> Built<Node> {
        let name = call.func.name;
        let Some(func) = RangeFn::from_name(name) else {
            return Err(not_evaluated(name));
        };
        let mut edges = Edges::Plain;
        let mut params = Vec::new();
        let mut range = None;
        // Prometheus evaluates a subquery before the other arguments.
        for arg in args {
            match arg {
                Expr::MatrixSelector(matrix) => {
                    edges = self.edges(func, name, &matrix.selector)?;
                    let windows = self.windows(matrix, grid)?;
                    let select = self.range_select(matrix, &windows, edges, around);
                    let names = names_of(&matrix.selector.matchers);
                    let labels = absent_labels(&matrix.selector.matchers);
                    let at = matrix.selector.span.start;
                    range = Some((WindowSource::Select(select), windows, names, labels, at));
                }
                Expr::Subquery(_) if func.is_extended() => {
                    let text = format!("{name} is not supported on subqueries");
                    return Err(PlanError::Execution(text));
                }
                Expr::Subquery(subquery) => {
                    let windows = self.subquery_windows(subquery, grid)?;
                    let outside = std::mem::replace(&mut self.counting.weight, 0);
                    let node =
                        self.subquery_node(subquery, &windows, (grid, windows.range_ms), around)?;
                    self.counting.weight = outside;
                    let names = node.names;
                    // Prometheus puts a selector without position in the subquery's place.
                    let source = WindowSource::Subquery(node);
                    range = Some((source, windows, names, Labels::empty(), 0));
                }
                _ => {}
            }
        }
        for arg in args {
            if !matches!(arg, Expr::MatrixSelector(_) | Expr::Subquery(_)) {
                params.push(self.scalar(arg, grid, around)?);
            }
        }
        let Some((source, windows, names, labels, range_at)) = range else {
            return Err(not_evaluated(name));
        };
        let first_at = match args.first() {
            Some(Expr::MatrixSelector(_) | Expr::Subquery(_)) | None => range_at,
            Some(first) => first.span().start,
        };
        let names = if func.keeps_metric_name() {
            names
        } else {
            Names::None
        };
        let call = RangeCall {
            counting: self.counting(),
            func,
            edges,
            source,
            windows,
            params,
            range_at,
            first_at,
            start_times: self.params.features.start_timestamps,
            stats: around.stats && !around.needs_buckets,
        };
        let node = self.node(Kind::Range(Box::new(call)), grid, names);
        if func == RangeFn::Absent {
            let kind = Kind::Absent {
                labels,
                input: Box::new(node),
            };
            return Ok(self.node(kind, grid, Names::None));
        }
        Ok(node)
    }
}

fn refused_labels(error: LabelFnError) -> PlanError {
    PlanError::Execution(error.to_string())
}

fn string(expr: &Expr) -> Built<String> {
    literal(expr).map(|literal| literal.value.clone())
}

fn literal(expr: &Expr) -> Built<&StringLiteral> {
    match strip(expr) {
        Expr::String(string) => Ok(string),
        _ => Err(PlanError::Invalid("expected a string".to_owned())),
    }
}

/// The labels of `absent`: those that the matchers name with one value. Matchers that only take
/// series away come last, since Prometheus' storage brings them into that order before.
pub(super) fn absent_labels(matchers: &[Matcher]) -> Labels {
    let matchers = || matchers.iter().filter(|m| m.name() != METRIC_NAME);
    let must_be_set = |name: &str| matchers().any(|m| m.name() == name && !m.matches_empty());
    let negative = |m: &Matcher| matches!(m.op(), MatchOp::NotEqual | MatchOp::NotRegexp);
    let takes_away = |m: &&Matcher| !must_be_set(m.name()) || negative(m) && m.matches_empty();
    let mut builder = LabelsBuilder::default();
    let mut seen: Vec<&str> = Vec::new();
    let kept = matchers().filter(|m| !takes_away(m));
    for matcher in kept.chain(matchers().filter(takes_away)) {
        if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
            builder.set(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            builder.remove(matcher.name());
        }
    }
    builder.build()
}
