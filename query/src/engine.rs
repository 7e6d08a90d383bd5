//! Runs queries: admits them one by one, parses, plans and evaluates them on the compute pool,
//! and calls them off when their time is up or nobody waits any more. Those that took very little
//! the last time are answered right where they are asked ([`crate::quick`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use isobar_model::TimeRange;
use isobar_promql::eval::{EvalError, Measures, evaluate_measured};
use isobar_promql::features::Features;
use isobar_promql::limits::{CancelReason, CancelToken, Limits, Threads};
use isobar_promql::parse::{Expr, parse_expr_with};
use isobar_promql::plan::{Plan, PlanError, PlanParams, Rewrites, canonical, plan_with};
use isobar_promql::value::QueryResult;
use isobar_store::Store;
use isobar_store::compute::{self, ComputeError, Pool};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::explain::Explanation;
use crate::metrics::EngineMetrics;
use crate::quick::{Costs, TIMEOUT_MIN};
use crate::replicas::{Deduplication, Function};
use crate::select::{Replicas, StoreSource, Waits};

/// How queries are run.
#[derive(Debug, Clone)]
pub struct Config {
    /// How old a sample may be that an instant selector still sees, in milliseconds
    /// (Prometheus' `--query.lookback-delta`).
    pub lookback_ms: i64,
    /// The longest that a query may take, its wait for admission included
    /// (`--query.timeout`).
    pub timeout: Duration,
    /// Most queries that are in evaluation at one time, at least 1
    /// (`--query.max-concurrency`).
    pub concurrent_max: usize,
    /// The step of a subquery that names none, in milliseconds (Prometheus'
    /// `global.evaluation_interval`).
    pub subquery_step_ms: i64,
    /// Bounds of each query.
    pub limits: Limits,
    /// The switchable parts of the language (`--enable-feature`, `--disable-feature`).
    pub features: Features,
    /// What is deduplicated unless a query asks for something else (`--query.replica-label`,
    /// `--deduplication.func`).
    pub deduplication: Deduplication,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            lookback_ms: PlanParams::LOOKBACK_MS,
            timeout: Duration::from_secs(120),
            concurrent_max: 20,
            subquery_step_ms: PlanParams::SUBQUERY_STEP_MS,
            limits: Limits::default(),
            features: Features::default(),
            deduplication: Deduplication::default(),
        }
    }
}

/// What one query may ask for itself.
#[derive(Debug, Clone, Default)]
pub struct QueryOptions {
    /// A lookback in milliseconds other than the configured one; only positive ones count.
    pub lookback_ms: Option<i64>,
    /// A time limit shorter than the configured one.
    pub timeout: Option<Duration>,
    /// Labels that tell replicas apart other than the configured ones; none, and nothing is
    /// deduplicated.
    pub replica_labels: Option<Vec<String>>,
    /// Whether to measure what each operator takes.
    pub analyze: bool,
    /// Whether to count what each step costs, where [`Features::per_step_stats`] allows it.
    pub step_stats: bool,
}

/// The times that a query is evaluated at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// The first step, unix milliseconds.
    pub start_ms: i64,
    /// The end of the range, unix milliseconds; no step is later.
    pub end_ms: i64,
    /// The distance between steps in milliseconds; 0 for an instant query.
    pub step_ms: i64,
}

impl Steps {
    /// The one step of an instant query.
    pub fn instant(time_ms: i64) -> Self {
        Steps {
            start_ms: time_ms,
            end_ms: time_ms,
            step_ms: 0,
        }
    }
}

/// The answer to a query.
#[derive(Debug)]
pub struct Answer {
    /// The value, remarks and statistics.
    pub result: QueryResult,
    /// Where the time went.
    pub timings: Timings,
    /// What each operator took, when that was asked for.
    pub analysis: Option<Explanation>,
}

/// Where a query's time went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Waiting for admission and for a compute thread.
    pub queued: Duration,
    /// Parsing and planning.
    pub prepared: Duration,
    /// Selecting and evaluating.
    pub evaluated: Duration,
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The query is not one, or means nothing for these times.
    #[error("{0}")]
    Invalid(String),
    /// The query cannot be evaluated over these series, or a limit stands in the way.
    #[error("{0}")]
    Execution(String),
    /// Its time was up; the text says where.
    #[error("query timed out in {0}")]
    Timeout(&'static str),
    /// It was called off; the text says where.
    #[error("query was canceled in {0}")]
    Canceled(&'static str),
    /// A store cannot be reached, or too many requests wait; asking again may help.
    #[error("{0}")]
    Unavailable(String),
    /// A mistake in Isobar itself.
    #[error("{0}")]
    Internal(String),
}

/// Answers PromQL queries over a store.
pub struct Engine {
    parts: Arc<Parts>,
    pool: Arc<Pool>,
    gate: Arc<Semaphore>,
    costs: Costs,
}

/// What all queries need.
struct Parts {
    store: Arc<dyn Store>,
    config: Config,
    metrics: EngineMetrics,
}

impl Engine {
    /// An engine over `store` that computes on `pool`.
    pub fn new(
        store: Arc<dyn Store>,
        pool: Arc<Pool>,
        config: Config,
        metrics: EngineMetrics,
    ) -> Self {
        let concurrent_max = config.concurrent_max.clamp(1, Semaphore::MAX_PERMITS);
        metrics.set_concurrent_max(concurrent_max);
        Engine {
            parts: Arc::new(Parts {
                store,
                config,
                metrics,
            }),
            pool,
            gate: Arc::new(Semaphore::new(concurrent_max)),
            costs: Costs::default(),
        }
    }

    /// The store that is asked.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    /// The pool that queries are computed on.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// How queries are run.
    pub fn config(&self) -> &Config {
        &self.parts.config
    }

    /// The value of `query` at one time.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn instant(
        &self,
        query: &str,
        time_ms: i64,
        options: QueryOptions,
    ) -> Result<Answer, QueryError> {
        self.run(
            query.to_owned(),
            Steps::instant(time_ms),
            options,
            |answer| answer,
        )
        .await
    }

    /// The values of `query` at each step from `start_ms` to `end_ms`.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn range(
        &self,
        query: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
        options: QueryOptions,
    ) -> Result<Answer, QueryError> {
        let steps = Steps {
            start_ms,
            end_ms,
            step_ms: step_ms.max(1),
        };
        self.run(query.to_owned(), steps, options, |answer| answer)
            .await
    }

    /// Evaluates `query` and hands the answer to `finish` on the thread that evaluated it, as a
    /// rule one of the pool. Dropping the future calls the query off.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn run<T: Send + 'static>(
        &self,
        query: String,
        steps: Steps,
        options: QueryOptions,
        finish: impl FnOnce(Answer) -> T + Send + 'static,
    ) -> Result<T, QueryError> {
        let begun = Instant::now();
        let limit = self.limit(&options)?;
        let costs = self.costs.of(&query, steps);
        if let Some(series_max) = costs.series_max()
            && limit >= TIMEOUT_MIN
            && !options.analyze
            && let Ok(_permit) = self.gate.try_acquire()
        {
            let job = self.job(&options, Waits::Never { series_max });
            let begun = Instant::now();
            match compute::here(|| job.run(&query, steps, begun, false)) {
                Ok(Err(Unfinished::TooLarge)) => costs.forget(),
                Ok(Err(Unfinished::Failed(error))) => return Err(error),
                Ok(Ok((answer, series))) => {
                    let finished = compute::here(|| finish(answer)).map_err(panicked);
                    costs.note(begun.elapsed(), series);
                    return finished;
                }
                Err(error) => return Err(panicked(error)),
            }
        }
        let analyze = options.analyze;
        self.on_pool(options, limit, move |job| {
            let computing = Instant::now();
            let (answer, series) = job
                .run(&query, steps, begun, analyze)
                .map_err(Unfinished::into_error)?;
            let finished = finish(answer);
            costs.note(computing.elapsed(), series);
            Ok(finished)
        })
        .await
    }

    /// What `query` would be computed from and how, with estimates where the store has some.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn explain(
        &self,
        query: String,
        steps: Steps,
        options: QueryOptions,
    ) -> Result<Explanation, QueryError> {
        let limit = self.limit(&options)?;
        self.on_pool(options, limit, move |job| {
            let plan = job.plan(&query, steps)?;
            job.explain(&query, steps, &plan)
        })
        .await
    }

    /// How long a query may take.
    fn limit(&self, options: &QueryOptions) -> Result<Duration, QueryError> {
        let most = self.parts.config.timeout;
        let limit = options.timeout.map_or(most, |own| own.min(most));
        if limit.is_zero() {
            return Err(QueryError::Timeout("query queue"));
        }
        Ok(limit)
    }

    fn job(&self, options: &QueryOptions, waits: Waits) -> Job {
        let mut deduplication = self.parts.config.deduplication.clone();
        if let Some(labels) = &options.replica_labels {
            deduplication.labels = labels.as_slice().into();
        }
        Job {
            parts: Arc::clone(&self.parts),
            waits,
            deduplication,
            cancel: CancelToken::default(),
            lookback_ms: options.lookback_ms.filter(|ms| *ms > 0),
            step_stats: options.step_stats,
        }
    }

    /// Does `work` on the compute pool when the query is admitted, and gives it up after `limit`.
    async fn on_pool<T: Send + 'static>(
        &self,
        options: QueryOptions,
        limit: Duration,
        work: impl FnOnce(Job) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let permit = tokio::select! {
            biased;
            () = &mut deadline => return Err(QueryError::Timeout("query queue")),
            permit = Arc::clone(&self.gate).acquire_owned() => permit
                .map_err(|_| QueryError::Unavailable("shutting down".into()))?,
        };
        let job = self.job(&options, Waits::With(Handle::current()));
        let cancel = CancelOnDrop(job.cancel.clone());
        let work = self.pool.run(move || {
            let answer = work(job);
            drop(permit);
            answer
        });
        tokio::pin!(work);
        tokio::select! {
            biased;
            answer = &mut work => match answer {
                Ok(answer) => answer,
                Err(ComputeError::Panicked) => Err(panicked(ComputeError::Panicked)),
                Err(error) => Err(QueryError::Unavailable(error.to_string())),
            },
            () = &mut deadline => {
                cancel.0.cancel(CancelReason::Timeout);
                Err(QueryError::Timeout("expression evaluation"))
            }
        }
    }
}

fn panicked(_: ComputeError) -> QueryError {
    QueryError::Internal("unexpected error: evaluation panicked".into())
}

/// Calls a query off when its caller goes away.
struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel(CancelReason::Cancelled);
    }
}

/// Why a job has no answer.
enum Unfinished {
    Failed(QueryError),
    /// It turned out to be more than the thread that does it has time for.
    TooLarge,
}

impl Unfinished {
    fn into_error(self) -> QueryError {
        match self {
            Unfinished::Failed(error) => error,
            Unfinished::TooLarge => {
                QueryError::Internal("unexpected error: given up, though it might wait".into())
            }
        }
    }
}

impl From<QueryError> for Unfinished {
    fn from(error: QueryError) -> Self {
        Unfinished::Failed(error)
    }
}

/// What a thread needs to answer a query.
struct Job {
    parts: Arc<Parts>,
    waits: Waits,
    deduplication: Deduplication,
    cancel: CancelToken,
    lookback_ms: Option<i64>,
    step_stats: bool,
}

impl Job {
    /// The answer, and how many series were read for it.
    fn run(
        &self,
        query: &str,
        steps: Steps,
        begun: Instant,
        analyze: bool,
    ) -> Result<(Answer, usize), Unfinished> {
        let Parts {
            store,
            config,
            metrics,
        } = &*self.parts;
        let _in_flight = metrics.begin();
        let prepare = Instant::now();
        let mut timings = Timings {
            queued: prepare - begun,
            ..Timings::default()
        };
        let plan = self.plan(query, steps)?;
        let inner = Instant::now();
        timings.prepared = inner - prepare;
        let measures = analyze.then(|| Measures::of(&plan));
        // What is read for a query is counted with what it computes.
        let memory = config.limits.query_memory();
        let ranges = plan.selects().iter().map(|select| select.range);
        let replicas = Replicas {
            deduplication: self.deduplication.clone(),
            range: ranges.reduce(|a, b| a.union(&b)).unwrap_or(TimeRange::ALL),
            lookback_ms: self.lookback_ms(),
            series_max: config.limits.series_max,
            memory: Arc::clone(&memory),
        };
        let source = StoreSource::new(Arc::clone(store), &self.waits, &self.cancel, replicas);
        let limits = Limits {
            threads: match self.waits {
                Waits::With(_) => config.limits.threads.clone(),
                // No other thread is worth its start.
                Waits::Never { .. } => Threads::default(),
            },
            memory,
            ..config.limits
        };
        let result = evaluate_measured(&plan, &source, &limits, &self.cancel, measures.as_ref())
            .map_err(|error| {
                if source.has_given_up() {
                    return Unfinished::TooLarge;
                }
                metrics.observe_error(&error);
                eval_error(error, &self.cancel).into()
            })?;
        timings.evaluated = inner.elapsed();
        metrics.observe(&timings, &result.stats);
        let analysis = match measures {
            None => None,
            measures => Some(Explanation {
                evaluated: Some(timings.evaluated),
                measures,
                ..self.explain(query, steps, &plan)?
            }),
        };
        let answer = Answer {
            result,
            timings,
            analysis,
        };
        Ok((answer, source.series_read()))
    }

    fn lookback_ms(&self) -> i64 {
        self.lookback_ms.unwrap_or(self.parts.config.lookback_ms)
    }

    fn plan(&self, query: &str, steps: Steps) -> Result<Plan, QueryError> {
        let rewrites = Rewrites {
            hidden_labels: &self.deduplication.labels,
            ..Rewrites::default()
        };
        let params = self.params(query, steps);
        plan_with(&self.parse(query)?, &params, &rewrites).map_err(plan_error)
    }

    fn parse(&self, query: &str) -> Result<Expr, QueryError> {
        parse_expr_with(query, &self.parts.config.features)
            .map_err(|error| QueryError::Invalid(error.to_string()))
    }

    fn params<'q>(&self, query: &'q str, steps: Steps) -> PlanParams<'q> {
        PlanParams {
            query,
            start_ms: steps.start_ms,
            end_ms: steps.end_ms,
            step_ms: steps.step_ms,
            lookback_ms: self.lookback_ms(),
            subquery_step_ms: self.parts.config.subquery_step_ms,
            // Thanos reads samples as the function around the selector wants them.
            selects_apart: self.deduplication.function != Function::Window,
            step_stats: self.step_stats && self.parts.config.features.per_step_stats,
            features: self.parts.config.features,
        }
    }

    fn explain(&self, query: &str, steps: Steps, plan: &Plan) -> Result<Explanation, QueryError> {
        let form =
            canonical(&self.parse(query)?, &self.params(query, steps)).map_err(plan_error)?;
        let mut root = plan.explain();
        root.name.push_str(&format!(", form {:032x}", form.hash()));
        let selects = plan.selects().iter();
        Ok(Explanation {
            root,
            estimates: selects
                .map(|select| self.parts.store.estimate(&select.matchers, select.range))
                .collect(),
            evaluated: None,
            measures: None,
        })
    }
}

fn plan_error(error: PlanError) -> QueryError {
    match error {
        PlanError::Invalid(text) => QueryError::Invalid(text),
        PlanError::Execution(text) | PlanError::Unsupported(text) => QueryError::Execution(text),
    }
}

fn eval_error(error: EvalError, cancel: &CancelToken) -> QueryError {
    const WHERE: &str = "expression evaluation";
    match error {
        EvalError::Execution(text)
        | EvalError::Unsupported(text)
        | EvalError::LimitExceeded(_, text) => QueryError::Execution(text),
        EvalError::Timeout => QueryError::Timeout(WHERE),
        EvalError::Cancelled => match cancel.reason() {
            Some(CancelReason::Timeout) => QueryError::Timeout(WHERE),
            Some(CancelReason::Cancelled) | None => QueryError::Canceled(WHERE),
        },
        EvalError::Storage(isobar_model::SelectError::Unavailable(text)) => {
            QueryError::Unavailable(text)
        }
        EvalError::Storage(_) => QueryError::Execution(error.to_string()),
    }
}
