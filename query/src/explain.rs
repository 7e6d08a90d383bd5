//! How a query is computed, and what each operator took.

use std::time::Duration;

use isobar_promql::eval::Measures;
use isobar_promql::plan::explain::PlanNode;
use isobar_store::api::SelectEstimate;

/// The operators of a query.
#[derive(Debug)]
pub struct Explanation {
    /// The query as a whole, its operators below it.
    pub root: PlanNode,
    /// For each select what the store expects it to give, where it knows.
    pub estimates: Vec<Option<SelectEstimate>>,
    /// How long the evaluation took, if there was one.
    pub evaluated: Option<Duration>,
    /// What the operators took, when the query was evaluated.
    pub measures: Option<Measures>,
}
