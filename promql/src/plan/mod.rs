//! From an AST to a logical plan: which series are needed, and what is computed from them at
//! which times.
//!
//! The plan of a query is fixed for one range of times: `@`, `offset`, duration expressions and
//! `step()` are resolved, constants are folded where the arithmetic is the same, and what does
//! not depend on the step is marked to be evaluated once. Each selector is a numbered
//! [`Select`]; selectors that read the same series over overlapping times share one.
//!
//! In reading order: [`node`] holds what a plan consists of; [`build`] makes it, with [`calls`]
//! [`info`] and [`selectors`]; [`invariant`] says what does not depend on the step; [`selects`] numbers the
//! selectors; [`counting`] says how their samples count; [`shared`] finds what is computed once; [`duration`] computes durations; [`explain`] shows a plan to a person.

mod build;
mod calls;
mod canonical;
pub(crate) mod counting;
mod duration;
pub mod explain;
mod info;
mod invariant;
pub(crate) mod node;
mod rewrite;
mod selectors;
mod selects;
mod shared;

use isobar_model::series::Select;

use crate::features::Features;
use crate::functions::range::Edges;
use crate::parse::ast::{Expr, ValueType};
use crate::stack;
pub use canonical::Canonical;
use counting::Counting;
use node::{Grid, Node, Scalar};
pub use rewrite::Rewrites;

/// The times at which a query is evaluated, and what it needs to know besides.
#[derive(Debug, Clone, Copy)]
pub struct PlanParams<'a> {
    /// The text that the expression was read from; remarks give line and column in it.
    pub query: &'a str,
    /// The first step in unix milliseconds.
    pub start_ms: i64,
    /// The end of the range in unix milliseconds; the last step is not behind it.
    pub end_ms: i64,
    /// The distance between steps in milliseconds; 0 for an instant query, which has
    /// `start_ms == end_ms`.
    pub step_ms: i64,
    /// How old a sample may be that an instant selector still sees, in milliseconds.
    pub lookback_ms: i64,
    /// The step of a subquery that names none, in milliseconds (Prometheus'
    /// `evaluation_interval`).
    pub subquery_step_ms: i64,
    /// Whether a select is shared only by selectors with the same times and hints: for a source
    /// whose samples depend on them.
    pub selects_apart: bool,
    /// Whether it is counted what each step costs.
    pub step_stats: bool,
    /// The switchable parts of the language.
    pub features: Features,
}

impl PlanParams<'_> {
    /// Prometheus' default lookback: 5 minutes.
    pub const LOOKBACK_MS: i64 = 5 * 60 * 1000;
    /// Prometheus' default evaluation interval: 1 minute.
    pub const SUBQUERY_STEP_MS: i64 = 60 * 1000;
}

impl Default for PlanParams<'_> {
    fn default() -> Self {
        PlanParams {
            query: "",
            start_ms: 0,
            end_ms: 0,
            step_ms: 0,
            lookback_ms: Self::LOOKBACK_MS,
            subquery_step_ms: Self::SUBQUERY_STEP_MS,
            selects_apart: false,
            step_stats: false,
            features: Features::default(),
        }
    }
}

/// Why an expression has no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The expression means nothing for these times (HTTP 400, `bad_data`), in Prometheus' words.
    #[error("{0}")]
    Invalid(String),
    /// The expression has a mistake that Prometheus finds when it evaluates (HTTP 422,
    /// `execution`), in its words.
    #[error("{0}")]
    Execution(String),
    /// A part of the language that is not evaluated yet; the text names it.
    #[error("{0}")]
    Unsupported(String),
}

/// A query ready to be evaluated.
#[derive(Debug)]
pub struct Plan {
    pub(crate) root: Root,
    pub(crate) grid: Grid,
    pub(crate) instant: bool,
    pub(crate) query: String,
    pub(crate) selects: Vec<Select>,
    /// What is computed once and read at several places ([`node::Kind::Shared`]).
    pub(crate) shared: Vec<Node>,
    /// How many nodes read each select.
    pub(crate) readers: Vec<u32>,
    /// The ways in which samples count.
    pub(crate) countings: Vec<Counting>,
    /// Steps of all grids together.
    pub(crate) steps: u64,
    /// The number of nodes; their ranks go from 1 to it.
    pub(crate) operators: u32,
    /// How deep the expression nests.
    pub(crate) levels: usize,
    /// Whether it is counted what each step costs.
    pub(crate) step_stats: bool,
    pub(crate) features: Features,
}

impl Plan {
    /// The selects, in the order of their numbers.
    pub fn selects(&self) -> &[Select] {
        &self.selects
    }

    /// The number of steps of the query itself; 1 for an instant query.
    pub fn steps(&self) -> usize {
        self.grid.count
    }
}

/// What a plan gives.
#[derive(Debug)]
pub(crate) enum Root {
    /// A vector at each step.
    Vector(Node),
    /// A number at each step.
    Scalar(Scalar),
    /// A string.
    String(String),
    /// The samples of a range selector: the select, and the window `min < t <= max`.
    Samples {
        select: usize,
        edges: Edges,
        min_ms: i64,
        max_ms: i64,
    },
    /// The steps of a subquery.
    Subquery(Node),
}

/// Plans `expr` for the times of `params`.
///
/// # Errors
/// When the expression is refused for these times, or has parts that are not evaluated yet.
pub fn plan(expr: &Expr, params: &PlanParams<'_>) -> Result<Plan, PlanError> {
    plan_with(expr, params, &Rewrites::default())
}

/// As [`plan`], with these rewrites.
///
/// # Errors
/// As [`plan`].
pub fn plan_with(
    expr: &Expr,
    params: &PlanParams<'_>,
    rewrites: &Rewrites<'_>,
) -> Result<Plan, PlanError> {
    let instant = params.step_ms == 0;
    if !instant && !matches!(expr.value_type(), ValueType::Vector | ValueType::Scalar) {
        return Err(PlanError::Invalid(format!(
            "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
            match expr.value_type() {
                ValueType::Matrix => "range vector",
                _ => "string",
            }
        )));
    }
    let levels = height(expr);
    let mut plan = stack::with_room_for(levels, || {
        duration::check(expr, params)?;
        build::plan(expr, params, rewrites, instant)
    })
    .unwrap_or_else(|| {
        Err(PlanError::Execution(
            "no room for so deep a query".to_owned(),
        ))
    })?;
    plan.levels = levels;
    Ok(plan)
}

/// The canonical form of `expr` at the times of `params`: equal for queries that mean the same,
/// and not dependent on where the range lies. See [`Canonical`].
///
/// # Errors
/// When a duration is none for these times.
pub fn canonical(expr: &Expr, params: &PlanParams<'_>) -> Result<Canonical, PlanError> {
    let params = build::clamped(params);
    let form = || {
        duration::check(expr, &params)?;
        canonical::canonical(expr, &params)
    };
    stack::with_room_for(height(expr), form).unwrap_or_else(|| {
        Err(PlanError::Execution(
            "no room for so deep a query".to_owned(),
        ))
    })
}

/// The number of levels of `expr`.
fn height(expr: &Expr) -> usize {
    let below = match expr {
        Expr::Aggregate(e) => height(&e.expr).max(e.param.as_ref().map_or(0, height)),
        Expr::Binary(e) => height(&e.lhs).max(height(&e.rhs)),
        Expr::Call(e) => e.args.iter().map(height).max().unwrap_or(0),
        Expr::Subquery(e) => height(&e.expr),
        Expr::Paren(e) => height(&e.expr),
        Expr::Unary(e) => height(&e.expr),
        Expr::MatrixSelector(_) | Expr::Number(_) | Expr::String(_) | Expr::VectorSelector(_) => 0,
    };
    below + 1
}
