//! Builds the plan of an expression, node by node.

use isobar_model::labels::METRIC_NAME;
use isobar_model::series::SelectHints;
use isobar_model::{Labels, LabelsBuilder, MatchOp, Matcher, TimeRange};

use super::duration::duration_ms;
use super::invariant::{invariance, strip};
use super::node::{
    Aggregation, BucketFunc, Buckets, Change, CountValues, Grid, InstantSelect, Kind, Map, MapFn,
    Match, Names, Node, RangeCall, Relabel, Scalar, Set, Sort, WindowSource, WithScalar,
};
use super::selects::Selects;
use super::{Plan, PlanError, PlanParams, Root};
use crate::eval::arithmetic::scalar_binary;
use crate::functions::arithmetic::{go_max, go_min};
use crate::functions::labels::{LabelFnError, LabelJoin, LabelReplace};
use crate::functions::range::{Edges, RangeFn};
use crate::functions::row::Windows;
use crate::functions::scalar::ScalarFn;
use crate::parse::ast::{
    Aggregate, AggregateOp, At, AtPreprocessor, Binary, BinaryOp, Call, Cardinality, Expr,
    MatrixSelector, Offset, Subquery, ValueType, VectorSelector,
};

/// Times beyond this are cut off, so that sums of times cannot overflow. It is 36 million years.
const TIME_MAX_MS: i64 = i64::MAX / 8;

type Built<T> = Result<T, PlanError>;

/// Plans `expr`, whose type has been checked.
pub(super) fn plan(expr: &Expr, params: &PlanParams<'_>, instant: bool) -> Built<Plan> {
    let params = PlanParams {
        start_ms: clamp_time(params.start_ms),
        end_ms: clamp_time(params.end_ms),
        ..*params
    };
    let grid = Grid::new(params.start_ms, params.end_ms, params.step_ms);
    let mut builder = Builder {
        params,
        selects: Selects::default(),
        rank: 0,
        steps: grid.count as u64,
    };
    let around = Around::default();
    let root = match strip(expr) {
        Expr::String(string) => Root::String(string.value.clone()),
        Expr::MatrixSelector(matrix) => builder.samples(matrix, grid, &around)?,
        Expr::Subquery(subquery) => {
            let windows = builder.subquery_windows(subquery, grid)?;
            Root::Subquery(builder.subquery_node(subquery, &windows, &around)?)
        }
        _ if expr.value_type() == ValueType::Scalar => {
            Root::Scalar(builder.scalar(expr, grid, &around)?)
        }
        _ => Root::Vector(builder.vector(expr, grid, &around)?),
    };
    Ok(Plan {
        root,
        grid,
        instant,
        query: params.query.to_owned(),
        selects: builder.selects.selects,
        readers: builder.selects.readers,
        steps: builder.steps,
        levels: 0,
    })
}

fn clamp_time(ms: i64) -> i64 {
    ms.clamp(-TIME_MAX_MS, TIME_MAX_MS)
}

/// What stands right around an expression, for the hints of a select.
#[derive(Debug, Clone, Default)]
struct Around {
    func: &'static str,
    grouping: Vec<String>,
    by: bool,
    /// The step of the innermost subquery around; 0 when there is none.
    subquery_step_ms: i64,
}

impl Around {
    fn call(&self, func: &'static str) -> Around {
        Around {
            func,
            subquery_step_ms: self.subquery_step_ms,
            ..Around::default()
        }
    }

    /// As around, but not directly: groupings no longer count.
    fn farther(&self) -> Around {
        self.call(self.func)
    }
}

struct Builder<'a> {
    params: PlanParams<'a>,
    selects: Selects,
    rank: u32,
    steps: u64,
}

impl Builder<'_> {
    fn node(&mut self, kind: Kind, grid: Grid, names: Names) -> Node {
        self.rank += 1;
        Node {
            kind,
            grid,
            rank: self.rank,
            names,
        }
    }

    /// Plans an expression that gives a vector.
    fn vector(&mut self, expr: &Expr, grid: Grid, around: &Around) -> Built<Node> {
        if grid.count == 0 {
            return Ok(self.node(Kind::Empty, grid, Names::None));
        }
        if grid.count > 1 || !grid.single {
            let invariance = invariance(expr);
            if invariance.hold {
                let inner = self.vector(expr, grid.first(), around)?;
                let names = inner.names;
                return Ok(self.node(Kind::Hold(Box::new(inner)), grid, names));
            }
        }
        match expr {
            Expr::VectorSelector(selector) => {
                let select = self.instant_select(selector, grid, around)?;
                let names = names_of(&selector.matchers);
                Ok(self.node(Kind::Select(select), grid, names))
            }
            Expr::Paren(paren) => self.vector(&paren.expr, grid, &around.farther()),
            Expr::Unary(unary) => {
                let input = self.vector(&unary.expr, grid, &around.farther())?;
                if !unary.negative {
                    return Ok(input);
                }
                Ok(self.node(Kind::Negate(Box::new(input)), grid, Names::None))
            }
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, grid, around),
            Expr::Binary(binary) => self.binary(binary, grid, around),
            Expr::Call(call) => self.call(call, grid, around),
            Expr::MatrixSelector(_) | Expr::Subquery(_) | Expr::Number(_) | Expr::String(_) => {
                Err(PlanError::Invalid("expected an instant vector".to_owned()))
            }
        }
    }

    /// Plans an expression that gives a number.
    fn scalar(&mut self, expr: &Expr, grid: Grid, around: &Around) -> Built<Scalar> {
        if grid.count > 1 && invariance(expr).hold {
            let inner = self.scalar(expr, grid.first(), around)?;
            return Ok(match inner {
                Scalar::Const(_) => inner,
                _ => Scalar::Hold(Box::new(inner)),
            });
        }
        Ok(match expr {
            Expr::Number(number) => Scalar::Const(number.value),
            Expr::Paren(paren) => self.scalar(&paren.expr, grid, around)?,
            Expr::Unary(unary) => match self.scalar(&unary.expr, grid, around)? {
                inner if !unary.negative => inner,
                Scalar::Const(value) => Scalar::Const(-value),
                inner => Scalar::Negate(Box::new(inner)),
            },
            Expr::Binary(binary) => {
                let around = around.call("");
                let lhs = self.scalar(&binary.lhs, grid, &around)?;
                let rhs = self.scalar(&binary.rhs, grid, &around)?;
                match (&lhs, &rhs) {
                    (Scalar::Const(l), Scalar::Const(r)) => {
                        Scalar::Const(scalar_binary(binary.op, *l, *r))
                    }
                    _ => Scalar::Binary(binary.op, Box::new(lhs), Box::new(rhs)),
                }
            }
            Expr::Call(call) => self.scalar_call(call, grid, around)?,
            _ => return Err(PlanError::Invalid("expected a scalar".to_owned())),
        })
    }

    fn scalar_call(&mut self, call: &Call, grid: Grid, around: &Around) -> Built<Scalar> {
        let around = around.call(call.func.name);
        let (start, end) = (self.params.start_ms, self.params.end_ms);
        Ok(match (call.func.name, call.args.as_slice()) {
            ("time", []) => Scalar::Time,
            ("pi", []) => Scalar::Const(std::f64::consts::PI),
            ("start", []) => Scalar::Const(start as f64 / 1000.0),
            ("end", []) => Scalar::Const(end as f64 / 1000.0),
            ("range", []) => Scalar::Const((end - start) as f64 / 1000.0),
            ("step", []) if start == end => Scalar::Const(0.0),
            ("step", []) => Scalar::Const(self.params.step_ms as f64 / 1000.0),
            ("scalar", [vector]) => {
                Scalar::Of(Box::new(self.vector(strip(vector), grid, &around)?))
            }
            ("max_of" | "min_of", [left, right]) => {
                let left = self.scalar(left, grid, &around)?;
                let right = self.scalar(right, grid, &around)?;
                let max = call.func.name == "max_of";
                match (&left, &right) {
                    (Scalar::Const(l), Scalar::Const(r)) => {
                        Scalar::Const(if max { go_max(*l, *r) } else { go_min(*l, *r) })
                    }
                    _ if max => Scalar::MaxOf(Box::new(left), Box::new(right)),
                    _ => Scalar::MinOf(Box::new(left), Box::new(right)),
                }
            }
            _ => return Err(not_evaluated(call.func.name)),
        })
    }

    fn aggregate(&mut self, aggregate: &Aggregate, grid: Grid, around: &Around) -> Built<Node> {
        let mut grouping = aggregate.grouping.clone();
        grouping.sort_unstable();
        let inside = Around {
            func: aggregate_name(aggregate.op),
            grouping: aggregate.grouping.clone(),
            by: !aggregate.without,
            subquery_step_ms: around.subquery_step_ms,
        };
        let names = if !aggregate.without && grouping.iter().any(|l| l == METRIC_NAME) {
            Names::Any
        } else {
            Names::None
        };
        if aggregate.op == AggregateOp::CountValues {
            let Some(Expr::String(label)) = aggregate.param.as_ref().map(strip) else {
                return Err(PlanError::Invalid(
                    "count_values expects a label".to_owned(),
                ));
            };
            if label.value.is_empty() {
                let text = crate::eval::remarks::quoted(&label.value);
                return Err(PlanError::Execution(format!("invalid label name {text}")));
            }
            if !aggregate.without {
                grouping.push(label.value.clone());
                grouping.sort_unstable();
            }
            let names = if label.value == METRIC_NAME {
                Names::Any
            } else {
                names
            };
            let input = self.vector(strip(&aggregate.expr), grid, &inside)?;
            let kind = Kind::CountValues(Box::new(CountValues {
                input,
                label: label.value.clone(),
                grouping,
                without: aggregate.without,
            }));
            return Ok(self.node(kind, grid, names));
        }
        let param_expr = aggregate.param.as_ref().map(strip);
        let param = match param_expr {
            Some(param) => Some(self.scalar(param, grid, &inside)?),
            None => None,
        };
        let input = self.vector(strip(&aggregate.expr), grid, &inside)?;
        let input_names = input.names;
        let picks = matches!(
            aggregate.op,
            AggregateOp::Topk
                | AggregateOp::Bottomk
                | AggregateOp::Limitk
                | AggregateOp::LimitRatio
        );
        let aggregation = Box::new(Aggregation {
            op: aggregate.op,
            input,
            param,
            grouping,
            without: aggregate.without,
            param_at: param_expr.map_or(0, |param| param.span().start),
        });
        Ok(if picks {
            self.node(Kind::Pick(aggregation), grid, input_names)
        } else {
            self.node(Kind::Fold(aggregation), grid, names)
        })
    }

    fn binary(&mut self, binary: &Binary, grid: Grid, around: &Around) -> Built<Node> {
        if matches!(binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower) {
            let text = if binary.op == BinaryOp::TrimUpper {
                "</"
            } else {
                ">/"
            };
            return Err(not_evaluated(&format!("operator {text}")));
        }
        let around = around.call("");
        let scalar_left = binary.lhs.value_type() == ValueType::Scalar;
        let scalar_right = binary.rhs.value_type() == ValueType::Scalar;
        if scalar_left || scalar_right {
            let (input, scalar) = if scalar_left {
                let scalar = self.scalar(&binary.lhs, grid, &around)?;
                (self.vector(&binary.rhs, grid, &around)?, scalar)
            } else {
                let input = self.vector(&binary.lhs, grid, &around)?;
                (input, self.scalar(&binary.rhs, grid, &around)?)
            };
            let names = if keeps_names(binary) {
                input.names
            } else {
                Names::None
            };
            let kind = Kind::WithScalar(Box::new(WithScalar {
                op: binary.op,
                return_bool: binary.return_bool,
                scalar_left,
                input,
                scalar,
            }));
            return Ok(self.node(kind, grid, names));
        }
        let lhs = self.vector(&binary.lhs, grid, &around)?;
        let rhs = self.vector(&binary.rhs, grid, &around)?;
        let Some(matching) = binary.matching.clone() else {
            return Err(PlanError::Invalid("vectors without matching".to_owned()));
        };
        let many = match matching.cardinality {
            Cardinality::OneToMany => rhs.names,
            _ => lhs.names,
        };
        Ok(match binary.op {
            BinaryOp::And | BinaryOp::Unless => {
                let kind = Kind::Set(Box::new(Set {
                    op: binary.op,
                    matching,
                    lhs,
                    rhs,
                }));
                self.node(kind, grid, many)
            }
            BinaryOp::Or => {
                let names = match (lhs.names, rhs.names) {
                    (Names::None, Names::None) => Names::None,
                    _ => Names::Any,
                };
                let kind = Kind::Set(Box::new(Set {
                    op: binary.op,
                    matching,
                    lhs,
                    rhs,
                }));
                self.node(kind, grid, names)
            }
            op => {
                let named = matching.include.iter().any(|label| label == METRIC_NAME);
                let names = match keeps_names(binary) {
                    _ if named => Names::Any,
                    true => many,
                    false => Names::None,
                };
                let return_bool = binary.return_bool;
                let kind = Kind::Match(Box::new(Match {
                    op,
                    return_bool,
                    matching,
                    lhs,
                    rhs,
                }));
                self.node(kind, grid, names)
            }
        })
    }

    fn call(&mut self, call: &Call, grid: Grid, around: &Around) -> Built<Node> {
        let name = call.func.name;
        let around = &around.call(name);
        let args: Vec<&Expr> = call.args.iter().map(strip).collect();
        if args
            .iter()
            .any(|arg| matches!(arg, Expr::MatrixSelector(_) | Expr::Subquery(_)))
        {
            return self.range_call(call, &args, grid, around);
        }
        match (name, args.as_slice()) {
            ("timestamp", [Expr::VectorSelector(selector)]) => {
                let select = self.instant_select(selector, grid, around)?;
                Ok(self.node(Kind::SampleTime(select), grid, Names::None))
            }
            // Prometheus knows start times only behind a feature flag; without it, of none.
            ("start_timestamp", [_]) => Ok(self.node(Kind::Empty, grid, Names::None)),
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
            ("label_replace", [input, target, replacement, source, pattern]) => {
                let replace = LabelReplace::new(
                    &string(target)?,
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
                    .map(|s| string(s))
                    .collect::<Built<Vec<_>>>()?;
                let join = LabelJoin::new(&string(target)?, &string(separator)?, &sources);
                self.relabel(
                    input,
                    Change::Join(join.map_err(refused_labels)?),
                    grid,
                    around,
                )
            }
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
            (_, args) => match (ScalarFn::from_name(name), args) {
                (Some(func), []) => {
                    Ok(self.node(Kind::FromScalar(Scalar::Date(func)), grid, Names::None))
                }
                (Some(func), [input]) => self.map(MapFn::Plain(func), input, grid, around),
                _ => Err(not_evaluated(name)),
            },
        }
    }

    fn map(&mut self, func: MapFn, input: &Expr, grid: Grid, around: &Around) -> Built<Node> {
        let input = self.vector(input, grid, around)?;
        Ok(self.node(Kind::Map(Box::new(Map { func, input })), grid, Names::None))
    }

    fn sort(
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

    fn relabel(
        &mut self,
        input: &Expr,
        change: Change,
        grid: Grid,
        around: &Around,
    ) -> Built<Node> {
        let input = self.vector(input, grid, around)?;
        let target = match &change {
            Change::Replace(replace) => replace.dst(),
            Change::Join(join) => join.dst(),
        };
        let names = if target == METRIC_NAME {
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

    fn buckets(
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

    fn range_call(
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
                Expr::Subquery(subquery) => {
                    let windows = self.subquery_windows(subquery, grid)?;
                    let node = self.subquery_node(subquery, &windows, around)?;
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
            func,
            edges,
            source,
            windows,
            params,
            range_at,
            first_at,
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

    fn offset_ms(&self, offset: &Offset) -> Built<i64> {
        match &offset.expr {
            Some(expr) => duration_ms(expr, &self.params, true),
            None => Ok(offset.ms),
        }
    }

    fn range_ms(&self, duration: &crate::parse::ast::Duration) -> Built<i64> {
        match &duration.expr {
            Some(expr) => duration_ms(expr, &self.params, false),
            None => Ok(duration.ms),
        }
    }

    /// Where the first step looks and how far the next step is from there.
    fn resolve(&self, at: Option<At>, offset: &Offset, grid: Grid) -> Built<(i64, i64)> {
        let offset_ms = self.offset_ms(offset)?;
        let (base_ms, step_ms) = match at {
            None => (grid.start_ms, grid.step_ms),
            Some(At::Timestamp(ms)) => (ms, 0),
            Some(At::Preprocessor(AtPreprocessor::Start)) => (self.params.start_ms, 0),
            Some(At::Preprocessor(AtPreprocessor::End)) => (self.params.end_ms, 0),
        };
        Ok((
            clamp_time(clamp_time(base_ms).saturating_sub(offset_ms)),
            step_ms,
        ))
    }

    fn windows(&self, matrix: &MatrixSelector, grid: Grid) -> Built<Windows> {
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

    fn subquery_windows(&self, subquery: &Subquery, grid: Grid) -> Built<Windows> {
        let (first_end_ms, step_ms) = self.resolve(subquery.at, &subquery.offset, grid)?;
        let range_ms = self.range_ms(&subquery.range)?;
        Ok(Windows {
            first_end_ms,
            step_ms,
            count: grid.count,
            range_ms,
        })
    }

    /// Plans what stands in a subquery on its own grid, which is aligned to its step.
    fn subquery_node(
        &mut self,
        subquery: &Subquery,
        windows: &Windows,
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
        let around = Around {
            subquery_step_ms: step_ms,
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

    fn hints(&self, range_ms: i64, around: &Around) -> SelectHints {
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
        }
    }

    fn instant_select(
        &mut self,
        selector: &VectorSelector,
        grid: Grid,
        around: &Around,
    ) -> Built<InstantSelect> {
        let (first_ms, step_ms) = self.resolve(selector.at, &selector.offset, grid)?;
        let instant = InstantSelect {
            select: 0,
            first_ms,
            step_ms,
            lookback_ms: self.params.lookback_ms,
            smoothed: selector.smoothed,
        };
        let range = instant.samples_needed(grid.count);
        let hints = self.hints(0, around);
        let select = self.selects.add(&selector.matchers, range, hints);
        Ok(InstantSelect { select, ..instant })
    }

    /// Which samples around the windows are used.
    fn edges(&self, func: RangeFn, name: &str, selector: &VectorSelector) -> Built<Edges> {
        let lookback_ms = self.params.lookback_ms;
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
            _ => return Ok(Edges::Plain),
        };
        if !func.allows(edges) {
            return Err(PlanError::Execution(format!(
                "{modifier} modifier can only be used with: {allowed} - not with {name}"
            )));
        }
        Ok(edges)
    }

    fn range_select(
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
        let hints = self.hints(windows.range_ms, around);
        self.selects.add(
            &matrix.selector.matchers,
            TimeRange::new(first_ms, last_ms),
            hints,
        )
    }

    fn samples(&mut self, matrix: &MatrixSelector, grid: Grid, around: &Around) -> Built<Root> {
        refuse_extended(&matrix.selector)?;
        let windows = self.windows(matrix, grid)?;
        let select = self.range_select(matrix, &windows, Edges::Plain, around);
        let max_ms = windows.first_end_ms;
        Ok(Root::Samples {
            select,
            min_ms: max_ms.saturating_sub(windows.range_ms),
            max_ms,
        })
    }
}

fn not_evaluated(what: &str) -> PlanError {
    PlanError::Unsupported(format!("{what} is not evaluated yet"))
}

fn refuse_extended(selector: &VectorSelector) -> Built<()> {
    match (selector.anchored, selector.smoothed) {
        (true, _) => Err(not_evaluated("modifier anchored")),
        (_, true) => Err(not_evaluated("modifier smoothed")),
        _ => Ok(()),
    }
}

fn refused_labels(error: LabelFnError) -> PlanError {
    PlanError::Execution(error.to_string())
}

fn string(expr: &Expr) -> Built<String> {
    match strip(expr) {
        Expr::String(string) => Ok(string.value.clone()),
        _ => Err(PlanError::Invalid("expected a string".to_owned())),
    }
}

fn names_of(matchers: &[Matcher]) -> Names {
    let one =
        |m: &Matcher| m.name() == METRIC_NAME && m.op() == MatchOp::Equal && !m.value().is_empty();
    if matchers.iter().any(one) {
        Names::One
    } else {
        Names::Any
    }
}

/// Whether the result of an operation keeps the names of its input.
fn keeps_names(binary: &Binary) -> bool {
    let compares = matches!(
        binary.op,
        BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Le | BinaryOp::Lt | BinaryOp::Ge | BinaryOp::Gt
    );
    compares && !binary.return_bool
}

/// The labels of `absent`: those that the matchers name with one value.
fn absent_labels(matchers: &[Matcher]) -> Labels {
    let mut builder = LabelsBuilder::default();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|m| m.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
            builder.set(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            builder.remove(matcher.name());
        }
    }
    builder.build()
}

fn aggregate_name(op: AggregateOp) -> &'static str {
    match op {
        AggregateOp::Sum => "sum",
        AggregateOp::Avg => "avg",
        AggregateOp::Count => "count",
        AggregateOp::Min => "min",
        AggregateOp::Max => "max",
        AggregateOp::Group => "group",
        AggregateOp::Stddev => "stddev",
        AggregateOp::Stdvar => "stdvar",
        AggregateOp::Topk => "topk",
        AggregateOp::Bottomk => "bottomk",
        AggregateOp::CountValues => "count_values",
        AggregateOp::Quantile => "quantile",
        AggregateOp::Limitk => "limitk",
        AggregateOp::LimitRatio => "limit_ratio",
    }
}
