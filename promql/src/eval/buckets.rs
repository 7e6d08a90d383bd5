//! Functions over the buckets of classic histograms.
//!
//! Series that differ in `le` alone are one histogram; it is computed step by step from the
//! buckets that have a value there.

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};
use isobar_model::labels::BUCKET_LABEL;
use isobar_model::{Labels, LabelsBuilder, Reservation};

use super::bucket_quantiles::{LiftRemark, quantiles};
use super::kept::Rows;
use super::merge::Merge;
use super::names::Removal;
use super::remarks::{for_metric, go_g, quoted};
use super::run::Run;
use super::tile::{HistogramRow, RowRef, Tile};
use super::{EvalError, for_each_tile, scalar};
use crate::functions::histogram::{NanNote, fraction, quantile};
use crate::functions::quantile::{Bucket, bucket_fraction, is_valid_quantile, parse_upper_bound};
use crate::plan::node::{BucketFunc, Buckets, Node};

/// The rows of the function.
pub(super) fn evaluate(run: &Run<'_>, node: &Node, op: &Buckets) -> Result<Rows, EvalError> {
    let held = run.held();
    let grid = node.grid;
    let removal = Removal::of(run);
    let mut histograms = Histograms::new(grid.count, removal, run.memory("histograms"));
    let params = match &op.func {
        BucketFunc::Quantile(q) => vec![scalar::evaluate(run, q, grid)?],
        BucketFunc::Quantiles(_, quantiles) => quantiles
            .iter()
            .map(|(q, _)| scalar::evaluate(run, q, grid))
            .collect::<Result<Vec<_>, _>>()?,
        BucketFunc::Fraction(lower, upper) => {
            let lower = scalar::evaluate(run, lower, grid)?;
            vec![lower, scalar::evaluate(run, upper, grid)?]
        }
    };
    for_each_tile(run, &op.input, |tile| {
        histograms.rows.make_room(tile)?;
        for row in tile.rows() {
            histograms.add_native(row);
            if row.present.iter().any(|word| *word != 0) && !histograms.add(row) {
                let text = format!(
                    "bucket label \"le\" is missing or has a malformed value of {}",
                    quoted(row.labels.get(BUCKET_LABEL))
                );
                let text = for_metric(text, told_name(removal, row.labels));
                run.remarks().warn(node.rank, op.input_at, text);
            }
        }
        Ok(())
    })?;
    for name in histograms.find_conflicts() {
        let text = "vector contains a mix of classic and native histograms";
        let text = for_metric(text.to_owned(), &name);
        run.remarks().warn(node.rank, op.input_at, text);
    }
    let mut out = Merge::for_node(run, node, run.memory("histograms"));
    out.reserve_rows(params.len() * (histograms.histograms.len() + histograms.native.len()))?;
    let mut notes = NanNotes::default();
    match &op.func {
        BucketFunc::Quantile(_) => {
            let mut lift = LiftRemark::default();
            remark_invalid(run, node, op.quantile_at, &params[0]);
            native_quantiles(&histograms, &params, &[None], &mut notes, &mut out)?;
            quantiles(
                run,
                &histograms,
                node,
                &params,
                &[None],
                &mut lift,
                &mut out,
            )?;
            lift.raise(run, node, op.input_at);
        }
        BucketFunc::Quantiles(label, at) => {
            let mut lift = LiftRemark::default();
            for ((_, at), params) in at.iter().zip(&params) {
                remark_invalid(run, node, *at, params);
            }
            let labels: Vec<Option<&str>> = at.iter().map(|_| Some(label.as_str())).collect();
            native_quantiles(&histograms, &params, &labels, &mut notes, &mut out)?;
            quantiles(
                run,
                &histograms,
                node,
                &params,
                &labels,
                &mut lift,
                &mut out,
            )?;
            lift.raise(run, node, op.input_at);
        }
        BucketFunc::Fraction(..) => {
            for (labels, row) in &histograms.native {
                for (step, histogram) in row {
                    let found = fraction(params[0][*step], params[1][*step], histogram);
                    notes.add(found.1, told_name(removal, labels));
                    out.set(labels, *step, found.0)?;
                }
            }
            for histogram in &histograms.histograms {
                let mut row = vec![0.0; grid.count];
                let mut present = vec![0u64; grid.count.div_ceil(64)];
                let mut buckets = Vec::new();
                for step in 0..grid.count {
                    histograms.at(histogram, step, &mut buckets);
                    if !buckets.is_empty() {
                        row[step] = bucket_fraction(params[0][step], params[1][step], &mut buckets);
                        present[step / 64] |= 1 << (step % 64);
                    }
                }
                let row = RowRef {
                    labels: &histogram.labels,
                    drops_name: false,
                    values: &row,
                    present: &present,
                    histograms: &[],
                };
                out.add(&histogram.labels, row)?;
            }
        }
    }
    for (note, name) in notes.0 {
        let text = for_metric(note.text().to_owned(), &name);
        run.remarks().info(node.rank, op.input_at, text);
    }
    let mut rows = out.finish();
    if removal == Removal::Delayed {
        rows.drop_all_names();
    }
    run.release_to(held, rows.count())?;
    Ok(rows)
}

/// The metric's name as remarks tell it: only when it is not dropped before.
pub(super) fn told_name(removal: Removal, labels: &Labels) -> &str {
    match removal {
        Removal::Delayed => labels.metric_name(),
        _ => "",
    }
}

fn remark_invalid(run: &Run<'_>, node: &Node, at: usize, quantiles: &[f64]) {
    let mut before = None;
    for q in quantiles.iter().filter(|q| !is_valid_quantile(**q)) {
        if before != Some(q.to_bits()) {
            let text = format!("quantile value should be between 0 and 1, got {}", go_g(*q));
            run.remarks().warn(node.rank, at, text);
        }
        before = Some(q.to_bits());
    }
}

/// One histogram: which rows are its buckets.
pub(super) struct Histogram {
    number: usize,
    pub(super) labels: Labels,
    /// Upper bounds with their rows.
    buckets: Vec<(f64, usize)>,
}

impl Histogram {
    /// The number of its buckets.
    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }
}

/// The buckets of all histograms.
pub(super) struct Histograms {
    rows: Tile,
    pub(super) histograms: Vec<Histogram>,
    by_labels: HashMap<Labels, usize>,
    pub(super) removal: Removal,
    /// Native histograms by labels, without their names once conflicts are found.
    native: Vec<(Labels, HistogramRow)>,
    /// Histograms and steps at which a native one has the same labels: neither counts.
    conflicts: HashSet<(usize, usize)>,
}

impl Histograms {
    fn new(steps: usize, removal: Removal, reservation: Reservation) -> Self {
        Histograms {
            removal,
            rows: Tile::kept(steps, reservation),
            histograms: Vec::new(),
            by_labels: HashMap::new(),
            native: Vec::new(),
            conflicts: HashSet::new(),
        }
    }

    /// Takes in the native histograms of a row.
    fn add_native(&mut self, row: RowRef<'_>) {
        if !row.histograms.is_empty() {
            self.native
                .push((row.labels.clone(), row.histograms.to_vec()));
        }
    }

    /// Drops the native histograms that are there as classic ones too, and these; gives the names
    /// to tell of them.
    fn find_conflicts(&mut self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (labels, row) in &mut self.native {
            if let Some(classic) = self.by_labels.get(labels) {
                let buckets = &self.histograms[*classic].buckets;
                row.retain(|(step, _)| {
                    let clash = buckets.iter().any(|(_, at)| self.rows.row(*at).has(*step));
                    if clash {
                        self.conflicts.insert((*classic, *step));
                        names.insert(told_name(self.removal, labels).to_owned());
                    }
                    !clash
                });
            }
            *labels = self.removal.apply(labels);
        }
        names
    }

    /// Takes a bucket in; false when its label is no number.
    fn add(&mut self, row: RowRef<'_>) -> bool {
        let Some(bound) = parse_upper_bound(row.labels.get(BUCKET_LABEL)) else {
            return false;
        };
        let key = row.labels.filter(|name| name != BUCKET_LABEL);
        let next = self.histograms.len();
        let at = match self.by_labels.get(&key) {
            Some(at) => *at,
            None => {
                let labels = self.removal.apply(&key);
                self.by_labels.insert(key, next);
                self.histograms.push(Histogram {
                    number: next,
                    labels,
                    buckets: Vec::new(),
                });
                next
            }
        };
        self.histograms[at].buckets.push((bound, self.rows.len()));
        self.rows.push_row(Labels::empty(), row.values, row.present);
        true
    }

    /// The buckets that have a value at `step`.
    pub(super) fn at(&self, histogram: &Histogram, step: usize, buckets: &mut Vec<Bucket>) {
        buckets.clear();
        if !self.conflicts.is_empty() && self.conflicts.contains(&(histogram.number, step)) {
            return;
        }
        for (upper_bound, row) in &histogram.buckets {
            let row = self.rows.row(*row);
            if row.has(step) {
                buckets.push(Bucket {
                    upper_bound: *upper_bound,
                    count: row.values[step],
                });
            }
        }
    }
}

/// The remarks on observations that are no numbers.
#[derive(Default)]
struct NanNotes(Vec<(NanNote, String)>);

impl NanNotes {
    fn add(&mut self, note: Option<NanNote>, name: &str) {
        let Some(note) = note else { return };
        if !self.0.iter().any(|it| it.0 == note && it.1 == name) {
            self.0.push((note, name.to_owned()));
        }
    }
}

/// Computes all quantiles of native histograms.
fn native_quantiles(
    histograms: &Histograms,
    params: &[Vec<f64>],
    labels: &[Option<&str>],
    notes: &mut NanNotes,
    out: &mut Merge,
) -> Result<(), EvalError> {
    for (quantiles, label) in params.iter().zip(labels) {
        for (native, row) in &histograms.native {
            for (step, histogram) in row {
                let q = quantiles[*step];
                let found = quantile(q, histogram);
                notes.add(found.1, told_name(histograms.removal, native));
                match label {
                    None => out.set(native, *step, found.0)?,
                    Some(label) => {
                        let mut builder = LabelsBuilder::new(native);
                        builder.set(label, &open_metrics_float(q));
                        out.set(&builder.build(), *step, found.0)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// A number as OpenMetrics writes it in a label: with a decimal point or an exponent.
pub(super) fn open_metrics_float(value: f64) -> String {
    let text = go_g(value);
    if value.is_finite() && !text.contains(['e', '.']) {
        format!("{text}.0")
    } else {
        text
    }
}
