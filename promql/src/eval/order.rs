//! The order of an answer: by labels, sorted by several threads when there are many series.

use super::parallel::{MORSEL_COST, scatter};
use super::run::Run;
use crate::value::MatrixSeries;

/// What sorting costs for each series, beside a sample that is read.
const COST_PER_SERIES: usize = 100;
/// Parts that are sorted by themselves.
const PARTS: usize = 4;

/// Sorts series by their labels; those of the same labels stay in order.
pub(super) fn sort_by_labels(run: &Run<'_>, series: &mut [MatrixSeries]) {
    if series.is_sorted_by(|a, b| a.labels <= b.labels) {
        return;
    }
    let each = series.len().div_ceil(PARTS);
    let is_small = each * COST_PER_SERIES < MORSEL_COST || u32::try_from(series.len()).is_err();
    if is_small || !run.limits().threads.any_free() {
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        return;
    }
    let unsorted = &*series;
    let by_labels = |a: &u32, b: &u32| {
        let labels = |i: &u32| &unsorted[*i as usize].labels;
        labels(a).cmp(labels(b))
    };
    let parts = scatter(
        run,
        PARTS,
        |_| each * COST_PER_SERIES,
        |part| {
            let end = ((part + 1) * each).min(unsorted.len());
            let mut order: Vec<u32> = ((part * each).min(end) as u32..end as u32).collect();
            order.sort_by(by_labels);
            order
        },
    );
    let mut order = parts.concat();
    // This sort merges runs that it finds in order.
    order.sort_by(by_labels);
    // Each place takes from where its series is by now: places before it have been swapped.
    for place in 0..order.len() {
        let mut from = order[place] as usize;
        while from < place {
            from = order[from] as usize;
        }
        series.swap(place, from);
    }
}

#[cfg(test)]
mod tests {
    use isobar_model::Labels;

    use super::*;
    use crate::eval::testing::Memory;
    use crate::limits::{CancelToken, Limits, Threads};
    use crate::parse::parse_expr;
    use crate::plan::{PlanParams, plan};
    use crate::value::Points;

    #[test]
    fn many_series_are_sorted_as_few() {
        let expr = parse_expr("a").expect("a query");
        let plan = plan(&expr, &PlanParams::default()).expect("a plan");
        let source = Memory(Vec::new());
        let cancel = CancelToken::default();
        for (count, threads) in [(1, 1), (100, 1), (5_003, 1), (5_003, 3), (20_000, 2)] {
            let limits = Limits {
                threads: Threads::new(threads),
                ..Limits::default()
            };
            let run = Run::new(&plan, &source, &limits, &cancel, None);
            let mut series: Vec<_> = (0..count)
                .map(|i| MatrixSeries {
                    labels: Labels::from_pairs([("i", (i * 7919 % count / 2).to_string())]),
                    columns: Points {
                        values: vec![i as f64],
                        ..Points::default()
                    },
                })
                .collect();
            let mut expected = series.clone();
            expected.sort_by(|a, b| a.labels.cmp(&b.labels));
            sort_by_labels(&run, &mut series);
            let told = |all: &[MatrixSeries]| -> Vec<(String, Vec<f64>)> {
                let one = |it: &MatrixSeries| (it.labels.to_string(), it.columns.values.clone());
                all.iter().map(one).collect()
            };
            assert!(told(&series) == told(&expected), "{count} series");
        }
    }
}
