//! `info`: adds the labels of info series to the series of the same target.
//!
//! A series and an info series belong together when they have the same `instance` and `job`. Of
//! several info series of one name and target the one with the newest sample counts, at each step
//! anew. Errors are those of the first step that has one, so steps are gone through in order.

use hashbrown::{HashMap, HashSet};
use isobar_model::labels::METRIC_NAME;
use isobar_model::sample::is_stale;
use isobar_model::series::Samples;
use isobar_model::{Columns, Labels, LabelsBuilder};

use super::run::Run;
use super::tally::Tally;
use super::tile::{RowRef, Tile, is_set};
use super::{EvalError, collect};
use crate::plan::node::{Info, InstantSelect, Node};

/// The labels that tell targets apart.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// No info series, or no sample.
const NONE: i64 = i64::MIN;

/// The rows of `info`.
pub(super) fn evaluate(run: &Run<'_>, node: &Node, op: &Info) -> Result<Tile, EvalError> {
    let steps = node.grid.count;
    let held = run.held();
    let base = collect(run, &op.input)?;
    let ignored: Vec<bool> = base
        .rows()
        .map(|row| op.names.iter().all(|m| m.matches(row.labels.metric_name())))
        .collect();
    let infos = InfoSeries::read(run, op, &base, &ignored, steps)?;
    let mut memory = run.memory("info");
    let mut join = Join::new(op, &base, ignored, &infos);
    for step in 0..steps {
        if step % 64 == 0 {
            run.check()?;
        }
        join.step(step)?;
        memory.grow_to(join.out.bytes())?;
    }
    let mut out = join.out;
    out.keep(memory);
    run.release_to(held, out.count())?;
    Ok(out)
}

/// The info series that have a sample at one step at least.
struct InfoSeries {
    labels: Vec<Labels>,
    /// For each series the time of the sample that each step sees.
    times: Vec<i64>,
    steps: usize,
}

impl InfoSeries {
    /// Reads those whose identifying labels have values that the series of `base` have.
    fn read(
        run: &Run<'_>,
        op: &Info,
        base: &Tile,
        ignored: &[bool],
        steps: usize,
    ) -> Result<Self, EvalError> {
        let mut memory = run.memory("info");
        let mut infos = InfoSeries {
            labels: Vec::new(),
            times: Vec::new(),
            steps,
        };
        let mut wanted: [HashSet<&str>; 2] = Default::default();
        for i in (0..base.len()).filter(|i| !ignored[*i]) {
            for (label, values) in IDENTIFYING.iter().zip(&mut wanted) {
                let value = base.row(i).labels.get(label);
                if !value.is_empty() {
                    values.insert(value);
                }
            }
        }
        if wanted.iter().all(HashSet::is_empty) {
            return Ok(infos);
        }
        let range = op.series.samples_needed(steps);
        let mut columns = Columns::default();
        let mut feed = run.open(op.series.select)?;
        loop {
            let more = feed.next(|series| {
                let labels = &series.labels;
                let fits = |(label, values): (&&str, &HashSet<&str>)| {
                    values.is_empty() || values.contains(labels.get(label))
                };
                if !IDENTIFYING.iter().zip(&wanted).all(fits) {
                    return Ok(());
                }
                let first = infos.labels.len();
                let mut read = |samples: &dyn Samples| -> Result<(), EvalError> {
                    columns.clear();
                    samples.read(range, &mut columns)?;
                    let read = (columns.len() + columns.histograms.len()) as u64;
                    let mut tally = run.tally(op.series.counting, steps);
                    tally.read = read;
                    infos.add(labels, &columns, &op.series, &mut tally)?;
                    let seen = tally.new;
                    run.count(tally);
                    run.hold(seen)
                };
                match series.samples.replicas() {
                    [] => read(series.samples.as_ref())?,
                    replicas => {
                        replicas.iter().try_for_each(|it| read(it.as_ref()))?;
                        infos.join_from(first);
                    }
                }
                Ok(memory.grow_to(8 * infos.times.capacity())?)
            })?;
            if more.is_none() {
                return Ok(infos);
            }
        }
    }

    /// Adds a series; counts in `tally` the steps that see a sample of it.
    fn add(
        &mut self,
        labels: &Labels,
        columns: &Columns,
        select: &InstantSelect,
        tally: &mut Tally<'_>,
    ) -> Result<(), EvalError> {
        let (mut float, mut histogram, mut any) = (0, 0, false);
        for step in 0..self.steps {
            let at_ms = select.first_ms + select.step_ms * step as i64;
            while columns.timestamps.get(float).is_some_and(|t| *t <= at_ms) {
                float += 1;
            }
            let is_before = |it: &(i64, _)| it.0 <= at_ms;
            while columns.histograms.get(histogram).is_some_and(is_before) {
                histogram += 1;
            }
            let oldest_ms = at_ms - select.lookback_ms;
            let last = float.checked_sub(1);
            let time_ms = last.map_or(NONE, |i| columns.timestamps[i]);
            let last_histogram = histogram.checked_sub(1).map(|i| &columns.histograms[i]);
            let time_ms = match last_histogram {
                Some((time, value)) if *time >= time_ms => {
                    if *time > oldest_ms && !value.is_stale() {
                        return Err(EvalError::Execution(format!(
                            "this should be an info metric, with float samples: {labels}"
                        )));
                    }
                    NONE
                }
                _ => match last {
                    Some(i) if time_ms > oldest_ms && !is_stale(columns.values[i]) => time_ms,
                    _ => NONE,
                },
            };
            if time_ms != NONE {
                any = true;
                tally.add_at(step, 1, 1);
            }
            self.times.push(time_ms);
        }
        if !any {
            self.times.truncate(self.labels.len() * self.steps);
        } else {
            self.labels.push(labels.clone());
        }
        Ok(())
    }

    /// Makes the series from number `from` on one: those that several collectors saw.
    fn join_from(&mut self, from: usize) {
        while self.labels.len() > from + 1 {
            self.labels.pop();
            let at = self.labels.len() * self.steps;
            for step in 0..self.steps {
                let time_ms = self.times[at + step];
                let newest = &mut self.times[at - self.steps + step];
                *newest = time_ms.max(*newest);
            }
            self.times.truncate(at);
        }
    }

    fn time_ms(&self, series: usize, step: usize) -> i64 {
        self.times[series * self.steps + step]
    }
}

/// A name and a target.
type Key<'a> = (&'a str, [&'a str; 2]);

fn key<'a>(name: &'a str, labels: &'a Labels) -> Key<'a> {
    (name, IDENTIFYING.map(|label| labels.get(label)))
}

/// Joins the two sides step by step.
struct Join<'a> {
    op: &'a Info,
    base: &'a Tile,
    ignored: Vec<bool>,
    infos: &'a InfoSeries,
    /// For each info series the number of its name and target.
    keys: Vec<usize>,
    /// For each series of the base the numbers that are its own, by name.
    base_keys: Vec<Vec<usize>>,
    /// For each number the info series that counts at this step.
    newest: Vec<Option<usize>>,
    /// For each series of the base the info series met last and the row of the result for them,
    /// if they give one.
    last: Vec<Option<(Vec<usize>, Option<usize>)>>,
    rows: HashMap<Labels, usize>,
    out: Tile,
}

impl<'a> Join<'a> {
    fn new(op: &'a Info, base: &'a Tile, ignored: Vec<bool>, infos: &'a InfoSeries) -> Self {
        let mut numbers: HashMap<Key<'a>, usize> = HashMap::new();
        let mut names: Vec<&str> = Vec::new();
        let mut keys = Vec::with_capacity(infos.labels.len());
        for labels in &infos.labels {
            let next = numbers.len();
            let key = key(labels.metric_name(), labels);
            keys.push(*numbers.entry(key).or_insert(next));
            names.push(labels.metric_name());
        }
        names.sort_unstable();
        names.dedup();
        let own = |i: usize| {
            let labels = base.row(i).labels;
            let find = |name: &&str| numbers.get(&key(name, labels)).copied();
            names.iter().filter_map(find).collect()
        };
        Join {
            op,
            base,
            ignored,
            infos,
            keys,
            base_keys: (0..base.len()).map(own).collect(),
            newest: vec![None; numbers.len()],
            last: vec![None; base.len()],
            rows: HashMap::new(),
            out: Tile::new(infos.steps),
        }
    }

    fn step(&mut self, step: usize) -> Result<(), EvalError> {
        let base = self.base;
        let has = |row: &RowRef<'_>| row.has(step) || row.histogram(step).is_some();
        if !base.rows().any(|row| has(&row)) {
            return Ok(());
        }
        self.find_newest(step)?;
        let mut rows = Vec::new();
        for (i, row) in base.rows().enumerate().filter(|(_, row)| has(row)) {
            if let Some(at) = self.row_of(i)? {
                rows.push((at, row));
            }
        }
        // Only when all series of the step have their labels, as in Prometheus.
        for (at, row) in rows {
            let taken = self.out.row(at);
            if is_set(taken.present, step) || taken.histograms.last().is_some_and(|h| h.0 == step) {
                return Err(EvalError::same_labels());
            }
            match row.histogram(step) {
                Some(histogram) => self.out.histograms_mut(at).push((step, histogram.clone())),
                None => self.out.row_mut(at).1.set(step, row.values[step]),
            }
        }
        Ok(())
    }

    fn find_newest(&mut self, step: usize) -> Result<(), EvalError> {
        self.newest.fill(None);
        let infos = self.infos;
        for (series, key) in self.keys.iter().enumerate() {
            let time_ms = infos.time_ms(series, step);
            if time_ms == NONE {
                continue;
            }
            let newest = &mut self.newest[*key];
            match newest.map(|other| (other, infos.time_ms(other, step))) {
                Some((_, other_ms)) if other_ms > time_ms => {}
                Some((other, other_ms)) if other_ms == time_ms => {
                    return Err(EvalError::Execution(format!(
                        "found duplicate series for info metric: existing {} @ {other_ms}, new {} \
                         @ {time_ms}",
                        infos.labels[other], infos.labels[series]
                    )));
                }
                _ => *newest = Some(series),
            }
        }
        Ok(())
    }

    /// The row of the result that series `i` of the base goes to at this step, if it stays.
    fn row_of(&mut self, i: usize) -> Result<Option<usize>, EvalError> {
        let newest = self.base_keys[i].iter().filter_map(|key| self.newest[*key]);
        let matched: Vec<usize> = match self.ignored[i] {
            true => Vec::new(),
            false => newest.collect(),
        };
        if let Some((last, row)) = &self.last[i]
            && *last == matched
        {
            return Ok(*row);
        }
        let row = self.labels_of(i, &matched)?.map(|labels| {
            if let Some(at) = self.rows.get(&labels) {
                return *at;
            }
            let at = self.out.len();
            self.out.push(labels.clone());
            self.out.set_drops_name(at, self.base.row(i).drops_name);
            self.rows.insert(labels, at);
            at
        });
        self.last[i] = Some((matched, row));
        Ok(row)
    }

    /// The labels of series `i` of the base with those of its info series.
    fn labels_of(&self, i: usize, matched: &[usize]) -> Result<Option<Labels>, EvalError> {
        let base = self.base.row(i).labels;
        let data = &self.op.data;
        if self.ignored[i] {
            return Ok(Some(base.clone()));
        }
        if matched.is_empty() {
            let stays = data.iter().all(|m| m.matches_empty());
            return Ok(stays.then(|| base.clone()));
        }
        let mut added: HashMap<&str, &str> = HashMap::new();
        let mut builder = LabelsBuilder::new(base);
        for series in matched {
            for (name, value) in self.infos.labels[*series].iter() {
                let named = data.is_empty() || data.iter().any(|m| m.name() == name);
                if name == METRIC_NAME || !named || base.has(name) {
                    continue;
                }
                if added.insert(name, value).is_some_and(|v| v != value) {
                    return Err(EvalError::Execution(format!("conflicting label: {name}")));
                }
                builder.set(name, value);
            }
        }
        Ok(Some(builder.build()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::evaluate;
    use crate::eval::testing::Memory;
    use crate::limits::{CancelToken, Limits};
    use crate::parse::parse_expr;
    use crate::plan::{PlanParams, plan};
    use crate::value::Value;

    const SERIES: &str = r#"
        m{instance="a",job="x"} 1 2 3 4
        target_info{instance="a",job="x",version="1"} 1 1 s
        target_info{instance="a",job="x",version="2"} _ _ 1 1
        clash_info{instance="a",job="x",version="3"} 1 1 1 1
        twice_info{instance="a",job="x",k="1"} 1 1 1 1
        twice_info{instance="a",job="x",k="2"} 1 1 1 1
    "#;

    fn check(query: &str, expected: &str) {
        let params = PlanParams {
            end_ms: 45_000,
            step_ms: 15_000,
            ..PlanParams::default()
        };
        let plan = plan(&parse_expr(query).expect(query), &params).expect(query);
        let source = Memory::read(SERIES, 15_000);
        let result = evaluate(&plan, &source, &Limits::default(), &CancelToken::default());
        let found = match result.map(|r| r.value) {
            Ok(Value::Matrix(series)) => series
                .iter()
                .map(|s| format!("{} {:?}", s.labels, s.columns.values))
                .collect::<Vec<_>>()
                .join("; "),
            Ok(other) => format!("{other:?}"),
            Err(e) => e.to_string(),
        };
        assert_eq!(found, expected, "{query}");
    }

    #[test]
    fn labels_follow_the_newest_info_series() {
        check(
            "info(m)",
            r#"{__name__="m", instance="a", job="x", version="1"} [1.0, 2.0]; {__name__="m", instance="a", job="x", version="2"} [3.0, 4.0]"#,
        );
        check(
            r#"info(m, {version="2"})"#,
            r#"{__name__="m", instance="a", job="x", version="2"} [3.0, 4.0]"#,
        );
        check(
            r#"info(m @ 15, {version=~".+"})"#,
            r#"{__name__="m", instance="a", job="x", version="1"} [2.0, 2.0, 2.0, 2.0]"#,
        );
    }

    #[test]
    fn info_series_that_disagree() {
        check(
            r#"info(m, {__name__=~"(clash|target)_info"})"#,
            "conflicting label: version",
        );
        check(
            r#"info(m, {__name__="twice_info"})"#,
            r#"found duplicate series for info metric: existing {__name__="twice_info", instance="a", job="x", k="1"} @ 0, new {__name__="twice_info", instance="a", job="x", k="2"} @ 0"#,
        );
    }

    /// A target is seen as long as one of its collectors sees it.
    #[test]
    fn collectors_of_a_target_are_one() {
        let named = |name: &str| Labels::from_pairs([("__name__", name)]);
        let mut infos = InfoSeries {
            labels: ["a", "b", "b", "b"].map(named).into(),
            times: vec![1, 2, 3, NONE, NONE, NONE, 2, 4],
            steps: 2,
        };
        infos.join_from(1);
        assert_eq!(infos.labels, ["a", "b"].map(named));
        assert_eq!(infos.times, [1, 2, 3, 4]);
    }
}
