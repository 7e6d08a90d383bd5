//! Builds the plan of an expression, node by node.

use isobar_model::labels::METRIC_NAME;
use isobar_model::{MatchOp, Matcher};

use super::counting::{Counting, Frame};
use super::invariant::{invariance, strip};
use super::node::{
    Aggregation, CountValues, Grid, Kind, Match, Names, Node, Scalar, Set, Skips, WithScalar,
};
use super::rewrite::{self, is_silent, may_be_empty};
use super::selects::Selects;
use super::{Plan, PlanError, PlanParams, Rewrites, Root};
use crate::eval::arithmetic::scalar_binary;
use crate::functions::arithmetic::{go_max, go_min};
use crate::parse::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, ValueType,
};
use crate::parse::quoted_bytes;

/// Times beyond this are cut off, so that sums of times cannot overflow. It is 36 million years.
const TIME_MAX_MS: i64 = i64::MAX / 8;

pub(super) type Built<T> = Result<T, PlanError>;

/// Plans `expr`, whose type has been checked.
pub(super) fn plan(
    expr: &Expr,
    params: &PlanParams<'_>,
    rewrites: &Rewrites<'_>,
    instant: bool,
) -> Built<Plan> {
    let params = clamped(params);
    let grid = Grid::new(params.start_ms, params.end_ms, params.step_ms);
    let mut builder = Builder {
        params,
        rewrites: *rewrites,
        selects: Selects::new(rewrites.shared_scans, params.selects_apart),
        rank: 0,
        steps: grid.count as u64,
        in_parameter: false,
        counting: Counting {
            weight: 1,
            times: 1,
            frames: Vec::new(),
        },
        countings: Vec::new(),
    };
    let around = Around::default();
    let root = match strip(expr) {
        Expr::String(string) => Root::String(string.value.clone()),
        Expr::MatrixSelector(matrix) => builder.samples(matrix, grid, &around)?,
        Expr::Subquery(subquery) => {
            let windows = builder.subquery_windows(subquery, grid)?;
            Root::Subquery(builder.subquery_node(subquery, &windows, (grid, 0), &around)?)
        }
        _ if expr.value_type() == ValueType::Scalar => {
            Root::Scalar(builder.scalar(expr, grid, &around)?)
        }
        _ => Root::Vector(builder.vector(expr, grid, &around)?),
    };
    let mut plan = Plan {
        root,
        grid,
        instant,
        query: params.query.to_owned(),
        selects: builder.selects.selects,
        readers: builder.selects.readers,
        countings: builder.countings,
        steps: builder.steps,
        operators: builder.rank,
        levels: 0,
        step_stats: params.step_stats,
        features: params.features,
        shared: Vec::new(),
    };
    if rewrites.shared_results {
        super::shared::share(&mut plan);
    }
    Ok(plan)
}

/// `params` with times that can be added.
pub(super) fn clamped<'a>(params: &PlanParams<'a>) -> PlanParams<'a> {
    PlanParams {
        start_ms: clamp_time(params.start_ms),
        end_ms: clamp_time(params.end_ms),
        step_ms: clamp_time(params.step_ms).max(0),
        lookback_ms: clamp_time(params.lookback_ms).max(1),
        subquery_step_ms: clamp_time(params.subquery_step_ms).max(1),
        ..*params
    }
}

pub(super) fn clamp_time(ms: i64) -> i64 {
    ms.clamp(-TIME_MAX_MS, TIME_MAX_MS)
}

/// What stands right around an expression, for the hints of a select.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    pub(super) func: &'static str,
    pub(super) grouping: Vec<String>,
    pub(super) by: bool,
    /// The step of the innermost subquery around; 0 when there is none.
    pub(super) subquery_step_ms: i64,
    /// How much longer the subqueries around are than what they evaluate: their grids begin at
    /// multiples of their steps.
    pub(super) unused_ms: i64,
    /// Whether somewhere around only counts and sums of histograms are asked for.
    pub(super) stats: bool,
    /// Whether something around needs the buckets of histograms all the same.
    pub(super) needs_buckets: bool,
    /// The labels besides the name that are looked at, where that is known.
    pub(super) labels: Option<Vec<String>>,
    /// Matchers that a selector right inside may have besides its own.
    pub(super) matchers: Vec<Matcher>,
}

impl Around {
    pub(super) fn call(&self, func: &'static str) -> Around {
        Around {
            func,
            subquery_step_ms: self.subquery_step_ms,
            unused_ms: self.unused_ms,
            stats: self.stats
                || matches!(func, "histogram_count" | "histogram_sum" | "histogram_avg"),
            needs_buckets: self.needs_buckets
                || matches!(
                    func,
                    "histogram_quantile" | "histogram_quantiles" | "histogram_fraction"
                ),
            ..Around::default()
        }
    }

    /// As around, but not directly: groupings no longer count.
    pub(super) fn farther(&self) -> Around {
        self.with_labels(self.func)
    }

    /// As [`Around::call`], for what looks at no labels and lets them through.
    pub(super) fn with_labels(&self, func: &'static str) -> Around {
        Around {
            labels: self.labels.clone(),
            ..self.call(func)
        }
    }
}

pub(super) struct Builder<'a> {
    pub(super) params: PlanParams<'a>,
    pub(super) rewrites: Rewrites<'a>,
    pub(super) selects: Selects,
    rank: u32,
    pub(super) steps: u64,
    /// Whether it plans the parameter of an aggregation. Prometheus does not prepare these:
    /// nothing in them is held, and `@ start()` and `@ end()` go unheard.
    pub(super) in_parameter: bool,
    /// How samples count that are looked at here.
    pub(super) counting: Counting,
    countings: Vec<Counting>,
}

impl Builder<'_> {
    /// The number of how samples count here.
    pub(super) fn counting(&mut self) -> usize {
        let known = self.countings.iter().position(|it| *it == self.counting);
        known.unwrap_or_else(|| {
            self.countings.push(self.counting.clone());
            self.countings.len() - 1
        })
    }

    /// What is planned from here on is held for all steps of `grid`; gives what to end that with.
    fn hold(&mut self, grid: Grid) -> u64 {
        let weight = self.counting.weight.saturating_mul(grid.count as u64);
        self.counting.frames.push(Frame::Held);
        std::mem::replace(&mut self.counting.weight, weight)
    }

    fn let_go(&mut self, outside: u64) {
        self.counting.frames.pop();
        self.counting.weight = outside;
    }

    pub(super) fn node(&mut self, kind: Kind, grid: Grid, names: Names) -> Node {
        self.rank += 1;
        Node {
            kind,
            grid,
            rank: self.rank,
            names,
        }
    }

    /// Plans an expression that gives a vector.
    pub(super) fn vector(&mut self, expr: &Expr, grid: Grid, around: &Around) -> Built<Node> {
        if grid.count == 0 {
            return Ok(self.node(Kind::Empty, grid, Names::None));
        }
        if (grid.count > 1 || !grid.single) && !self.in_parameter {
            let invariance = invariance(expr);
            if invariance.hold {
                let outside = self.hold(grid);
                let inner = self.vector(expr, grid.first(), around)?;
                self.let_go(outside);
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
    pub(super) fn scalar(&mut self, expr: &Expr, grid: Grid, around: &Around) -> Built<Scalar> {
        if grid.count > 1 && !self.in_parameter && invariance(expr).hold {
            let outside = self.hold(grid);
            let inner = self.scalar(expr, grid.first(), around)?;
            self.let_go(outside);
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
                folded(binary.op, (lhs, rhs))
            }
            Expr::Call(call) => self.scalar_call(call, grid, around)?,
            _ => return Err(PlanError::Invalid("expected a scalar".to_owned())),
        })
    }

    pub(super) fn scalar_call(
        &mut self,
        call: &Call,
        grid: Grid,
        around: &Around,
    ) -> Built<Scalar> {
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
                let vector = self.vector(strip(vector), grid, &around)?;
                match vector.kind {
                    Kind::FromScalar(scalar) if self.rewrites.constants => scalar,
                    kind => Scalar::Of(Box::new(Node { kind, ..vector })),
                }
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

    pub(super) fn aggregate(
        &mut self,
        aggregate: &Aggregate,
        grid: Grid,
        around: &Around,
    ) -> Built<Node> {
        let mut grouping = aggregate.grouping.clone();
        grouping.sort_unstable();
        let inside = Around {
            func: aggregate.op.as_str(),
            grouping: aggregate.grouping.clone(),
            by: !aggregate.without,
            labels: rewrite::labels_of(aggregate, around.labels.as_deref()),
            ..around.call("")
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
            if label.value.is_empty() || label.bytes.is_some() {
                let text = quoted_bytes(label.as_bytes());
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
            Some(param) => {
                let around = std::mem::replace(&mut self.in_parameter, true);
                let scalar = self.scalar(param, grid, &inside);
                self.in_parameter = around;
                Some(scalar?)
            }
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
            input_at: strip(&aggregate.expr).span().start,
            at: aggregate.span.start,
        });
        Ok(if picks {
            self.node(Kind::Pick(aggregation), grid, input_names)
        } else {
            self.node(Kind::Fold(aggregation), grid, names)
        })
    }

    pub(super) fn binary(&mut self, binary: &Binary, grid: Grid, around: &Around) -> Built<Node> {
        let at = binary.lhs.span().start;
        let mut around = match &binary.matching {
            None => around.with_labels(""),
            Some(_) => around.call(""),
        };
        around.needs_buckets |= matches!(binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
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
            let constant = self.rewrites.constants && is_arithmetic(binary.op);
            let (input, scalar) = match input.kind {
                Kind::FromScalar(vector) if constant => {
                    let sides = match scalar_left {
                        true => (scalar, vector),
                        false => (vector, scalar),
                    };
                    let kind = Kind::FromScalar(folded(binary.op, sides));
                    return Ok(self.node(kind, grid, Names::None));
                }
                kind => (Node { kind, ..input }, scalar),
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
                at,
            }));
            return Ok(self.node(kind, grid, names));
        }
        let (left, right) = self.rewrites.matchers_for_sides(binary);
        let lhs = self.side(&binary.lhs, left, grid, &around)?;
        let rhs = self.side(&binary.rhs, right, grid, &around)?;
        let Some(matching) = binary.matching.clone() else {
            return Err(PlanError::Invalid("vectors without matching".to_owned()));
        };
        let many = match matching.cardinality {
            Cardinality::OneToMany => rhs.names,
            _ => lhs.names,
        };
        Ok(match binary.op {
            BinaryOp::And | BinaryOp::Unless => {
                let skips = self.skips(&lhs, &rhs);
                let kind = Kind::Set(Box::new(Set {
                    op: binary.op,
                    matching,
                    lhs,
                    rhs,
                    skips,
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
                    skips: Skips::Nothing,
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
                let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
                let many_side = match matching.cardinality {
                    Cardinality::OneToMany => &rhs,
                    _ => &lhs,
                };
                let skips_many = self.rewrites.empty_sides && !fills && is_silent(many_side);
                let kind = Kind::Match(Box::new(Match {
                    op,
                    skips_many,
                    return_bool,
                    matching,
                    lhs,
                    rhs,
                    at,
                }));
                self.node(kind, grid, names)
            }
        })
    }
}

impl Builder<'_> {
    /// Plans a side of an operation between vectors.
    fn side(
        &mut self,
        expr: &Expr,
        matchers: Vec<Matcher>,
        grid: Grid,
        around: &Around,
    ) -> Built<Node> {
        if matchers.is_empty() {
            return self.vector(expr, grid, around);
        }
        let around = Around {
            matchers,
            ..around.clone()
        };
        self.vector(strip(expr), grid, &around)
    }

    /// Which side of `and` or `unless` need not be read when the other is empty.
    fn skips(&self, lhs: &Node, rhs: &Node) -> Skips {
        if !self.rewrites.empty_sides {
            Skips::Nothing
        } else if is_silent(lhs) {
            Skips::Left
        } else if is_silent(rhs) && may_be_empty(lhs) {
            Skips::Right
        } else {
            Skips::Nothing
        }
    }
}

/// A binary operation, computed when both sides are constant.
fn folded(op: BinaryOp, sides: (Scalar, Scalar)) -> Scalar {
    match sides {
        (Scalar::Const(l), Scalar::Const(r)) => Scalar::Const(scalar_binary(op, l, r)),
        (l, r) => Scalar::Binary(op, Box::new(l), Box::new(r)),
    }
}

fn is_arithmetic(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Mul | Div | Mod | Pow | Atan2)
}

pub(super) fn not_evaluated(what: &str) -> PlanError {
    PlanError::Unsupported(format!("{what} is not evaluated yet"))
}

pub(super) fn names_of(matchers: &[Matcher]) -> Names {
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
