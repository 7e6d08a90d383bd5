//! `count_values`: how often each value occurs in a group.
//!
//! Values mostly occur at few steps each, so what is kept is sparse; rows are laid out as they
//! are asked for.

use hashbrown::HashMap;
use isobar_model::labels::METRIC_NAME;
use isobar_model::{Labels, Reservation};

use super::group::Groups;
use super::parallel::scatter;
use super::run::Run;
use super::tile::{Tile, for_each, grown};
use super::{EvalError, Operator, for_each_tile};
use crate::plan::node::{CountValues, Node};

/// What occurs in a group: the bits of a value, or a histogram as text.
enum Occurring {
    Value(u64),
    Histogram(String),
}

/// A row of the result.
struct Counted {
    group: usize,
    what: Occurring,
    /// Steps with how often it occurs there; a step may come again.
    counts: Vec<(u32, u32)>,
}

/// The rows of the aggregation, all counted before the first is given.
pub(super) struct CountRows<'r> {
    run: &'r Run<'r>,
    node: &'r Node,
    op: &'r CountValues,
    /// Whether the result says what it counts.
    writes: bool,
    counted: Option<std::vec::IntoIter<Counted>>,
    /// The labels of the first of them.
    labels: std::vec::IntoIter<Labels>,
    groups: Vec<Labels>,
    /// Of what was counted.
    memory: Option<Reservation>,
}

impl<'r> CountRows<'r> {
    pub(super) fn new(run: &'r Run<'r>, node: &'r Node, op: &'r CountValues) -> Self {
        let hides = op.without && (op.grouping.contains(&op.label) || op.label == METRIC_NAME);
        CountRows {
            run,
            node,
            op,
            writes: !hides,
            counted: None,
            labels: Vec::new().into_iter(),
            groups: Vec::new(),
            memory: None,
        }
    }

    fn count(&mut self) -> Result<Vec<Counted>, EvalError> {
        let op = self.op;
        // The label that takes the value is no part of the group that a series brings.
        let grouping: Vec<String> = match op.without {
            true => op.grouping.iter().chain([&op.label]).cloned().collect(),
            false => {
                let others = op.grouping.iter().filter(|label| **label != op.label);
                others.cloned().collect()
            }
        };
        let held = self.run.held();
        let mut groups = Groups::new(&grouping, op.without);
        let mut counts = Counts::default();
        let mut memory = self.run.memory("count_values");
        for_each_tile(self.run, &op.input, |tile| {
            for row in tile.rows() {
                let (group, _) = groups.find(row.labels);
                for_each(row.present, |step| {
                    let value = row.values[step];
                    let bits = match (self.writes, value.is_nan()) {
                        (false, _) => 0,
                        // All NaNs print the same.
                        (true, true) => f64::NAN.to_bits(),
                        (true, false) => value.to_bits(),
                    };
                    counts.value(group, bits, step);
                });
                for (step, histogram) in row.histograms {
                    match self.writes {
                        true => counts.histogram(group, histogram.to_string(), *step),
                        false => counts.value(group, 0, *step),
                    }
                }
            }
            Ok(memory.grow_to(counts.bytes())?)
        })?;
        self.groups = groups.labels().to_vec();
        self.run.release_to(held, 0)?;
        self.memory = Some(memory);
        Ok(counts.rows)
    }

    /// Makes the labels of a row and of some that follow it, on several threads.
    fn make_labels(&mut self, first: &Counted, rest: &[Counted]) {
        let rest = &rest[..rest.len().min(LABELS_AHEAD - 1)];
        let count = rest.len() + 1;
        let row = |i: usize| i.checked_sub(1).map_or(first, |at| &rest[at]);
        let cost = |_| LABELS_EACH * COST_PER_LABELS;
        let parts = scatter(self.run, count.div_ceil(LABELS_EACH), cost, |part| {
            let from = part * LABELS_EACH;
            let mut scratch = String::new();
            (from..(from + LABELS_EACH).min(count))
                .map(|i| self.labels_of(row(i), &mut scratch))
                .collect::<Vec<_>>()
        });
        let labels: Vec<Labels> = parts.into_iter().flatten().collect();
        self.labels = labels.into_iter();
    }

    /// The labels of a row.
    fn labels_of(&self, counted: &Counted, scratch: &mut String) -> Labels {
        let group = &self.groups[counted.group];
        if !self.writes {
            return group.clone();
        }
        let name = self.op.label.as_str();
        let text = match &counted.what {
            Occurring::Value(bits) => value_text(f64::from_bits(*bits)),
            Occurring::Histogram(text) => text.clone(),
        };
        let before = group.iter().take_while(|label| label.0 < name);
        let after = group.iter().skip_while(|label| label.0 < name);
        let all = before.chain([(name, text.as_str())]).chain(after);
        Labels::from_sorted(all, scratch)
    }
}

/// Rows whose labels are made at a time, and those that a thread makes.
const LABELS_AHEAD: usize = 16 * LABELS_EACH;
const LABELS_EACH: usize = 256;
/// What making labels costs, beside a sample that is read.
const COST_PER_LABELS: usize = 100;

/// What was counted so far.
#[derive(Default)]
struct Counts {
    values: HashMap<(usize, u64), usize>,
    histograms: HashMap<(usize, String), usize>,
    rows: Vec<Counted>,
    /// Of the counts and texts.
    bytes_outside: usize,
}

impl Counts {
    fn value(&mut self, group: usize, bits: u64, step: usize) {
        let at = *self.values.entry((group, bits)).or_insert_with(|| {
            self.rows.push(Counted {
                group,
                what: Occurring::Value(bits),
                counts: Vec::new(),
            });
            self.rows.len() - 1
        });
        self.count(at, step);
    }

    fn histogram(&mut self, group: usize, text: String, step: usize) {
        let key = (group, text);
        let at = match self.histograms.get(&key) {
            Some(at) => *at,
            None => {
                self.bytes_outside += 2 * (key.1.len() + size_of::<String>());
                self.rows.push(Counted {
                    group,
                    what: Occurring::Histogram(key.1.clone()),
                    counts: Vec::new(),
                });
                self.histograms.insert(key, self.rows.len() - 1);
                self.rows.len() - 1
            }
        };
        self.count(at, step);
    }

    fn count(&mut self, at: usize, step: usize) {
        let counts = &mut self.rows[at].counts;
        match counts.last_mut() {
            Some(last) if last.0 as usize == step => last.1 += 1,
            _ => {
                let before = counts.capacity();
                if before == 0 {
                    counts.reserve_exact(1);
                }
                counts.push((step as u32, 1));
                self.bytes_outside += size_of::<(u32, u32)>() * (counts.capacity() - before);
            }
        }
    }

    fn bytes(&self) -> usize {
        let rows = size_of::<Counted>() * grown(self.rows.capacity(), self.rows.len());
        rows + self.values.allocation_size() + self.bytes_outside
    }
}

impl<'r> Operator<'r> for CountRows<'r> {
    fn next_tile(&mut self, tile: &mut Tile) -> Result<bool, EvalError> {
        let mut counted = match self.counted.take() {
            Some(counted) => counted,
            None => self.count()?.into_iter(),
        };
        tile.reset(self.node.grid.count);
        while !tile.is_full()
            && let Some(next) = counted.next()
        {
            if self.labels.len() == 0 {
                self.make_labels(&next, counted.as_slice());
            }
            let labels = self.labels.next().unwrap_or_else(Labels::empty);
            let mut row = tile.push(labels);
            for (step, count) in next.counts {
                let step = step as usize;
                let before = row.get(step).unwrap_or(0.0);
                row.set(step, before + f64::from(count));
            }
        }
        self.counted = Some(counted);
        self.run.hold(tile.count())?;
        Ok(!tile.is_empty())
    }
}

/// A value as Go's `strconv.FormatFloat(value, 'f', -1, 64)` prints it.
fn value_text(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}
