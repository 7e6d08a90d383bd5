//! How much a select is going to give: of each block the share of series that its card says can match, of
//! what `meta.json` says it holds. Nothing is fetched for it; blocks whose cards are not open are taken to be
//! like the others of their set.

use isobar_model::{Matcher, TimeRange};

use super::Inner;
use super::block::Block;
use super::select::series_at_most;
use crate::api::SelectEstimate;
use crate::card::Card;

/// What a series takes beside its chunks.
const SERIES_BYTES: u64 = 512;

/// Nothing when nothing is known of any block that would be asked.
pub(super) fn estimate(
    inner: &Inner,
    matchers: &[Matcher],
    range: TimeRange,
) -> Option<SelectEstimate> {
    let mut sum = SelectEstimate::default();
    let catalog = inner.catalog();
    for set in &catalog.sets {
        let Some(matchers) = set.inner_matchers(matchers) else {
            continue;
        };
        let blocks = set.choose(range, 0);
        if blocks.is_empty() {
            continue;
        }
        let shares: Vec<Option<f64>> = blocks.iter().map(|it| share(it, &matchers)).collect();
        let known: Vec<f64> = shares.iter().copied().flatten().collect();
        let usual = match known.len() {
            0 if matchers.is_empty() => 1.0,
            0 => return None,
            count => known.iter().sum::<f64>() / count as f64,
        };
        let mut series: u64 = 0;
        for (block, share) in blocks.iter().zip(shares) {
            let (size, share) = (block.size()?, share.unwrap_or(usual));
            let of = |whole: u64, share: f64| (whole as f64 * share).round() as u64;
            let in_time = share * part_in(block.range, range);
            series = series.max(of(size.series, share));
            sum.samples += of(size.samples, in_time);
            sum.bytes += of(size.bytes, in_time);
        }
        // Series of other sets have other labels.
        sum.series += series;
    }
    Some(sum)
}

/// About the memory that the series of a block take when all are there at once; a lot when nobody knows.
pub(super) fn memory(block: &Block, card: &Card, matchers: &[Matcher]) -> u64 {
    let Some(size) = block.size() else {
        return u64::MAX;
    };
    match series_at_most(card, matchers) {
        Ok(Some(series)) => series.saturating_mul(SERIES_BYTES + size.bytes / size.series),
        Ok(None) | Err(_) => u64::MAX,
    }
}

/// The share of the series of a block that can match; nothing when its card is not open.
fn share(block: &Block, matchers: &[Matcher]) -> Option<f64> {
    let whole = block.size()?.series;
    let card = block.open_card()?;
    // A card that cannot be read is told about when it is read.
    let matching = series_at_most(&card, matchers).ok()?;
    let matching = matching.unwrap_or(whole).min(whole);
    Some(matching as f64 / whole as f64)
}

/// Which part of the times of a block lies in `range`.
fn part_in(block: TimeRange, range: TimeRange) -> f64 {
    let span = |from: i64, to: i64| to.saturating_sub(from).saturating_add(1) as f64;
    let from = block.min_ms.max(range.min_ms);
    let to = block.max_ms.min(range.max_ms);
    (span(from, to) / span(block.min_ms, block.max_ms)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use crate::Store;
    use crate::api::{SelectEstimate, SeriesRequest};
    use crate::gateway::tests::{Fixture, drain, matchers};
    use isobar_model::TimeRange;

    #[test]
    fn what_cards_say_of_a_select() {
        let Some(fixture) = Fixture::contract("ha") else {
            return;
        };
        let gateway = fixture.gateway(fixture.config());
        let estimate = |selector: &str, range| gateway.estimate(&matchers(selector), range);
        // All there is stands in the metas; of a metric nothing is known before a card was opened.
        let stats = fixture.metas.iter().map(|it| &it.block.stats);
        let samples: u64 = stats.map(|it| it.num_samples).sum();
        let all = estimate("", TimeRange::ALL).unwrap();
        assert_eq!(all.samples, samples);
        assert_eq!(estimate("__name__=up", TimeRange::ALL), None);
        for selector in ["__name__=up", "__name__=up,job=~.+", "__name__=~.*_total"] {
            let request = SeriesRequest::new(matchers(selector), TimeRange::ALL);
            let (got, _) = drain(gateway.series(request)).unwrap();
            let said = estimate(selector, TimeRange::ALL).unwrap();
            assert!(said.series >= got.len() as u64 / 2, "{selector}: {said:?}");
            assert!(said.series <= 2 * got.len() as u64, "{selector}: {said:?}");
            let fits = said.bytes > 0 && (1..samples).contains(&said.samples);
            assert!(fits, "{selector}: {said:?} of {samples}");
        }
        let none = estimate("__name__=nothing", TimeRange::ALL);
        assert_eq!(none, Some(SelectEstimate::default()));
        let before = estimate("", TimeRange::new(0, 1));
        assert_eq!(before, Some(SelectEstimate::default()));
    }
}
