//! Label names, and values of a label. Without matchers cards say both; with matchers the series that
//! match are read, without their chunks.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use hashbrown::HashMap;
use isobar_model::{Labels, Matcher, Warnings};
use ulid::Ulid;

use super::block::Block;
use super::produce::{self, Ask, Here};
use super::query::{Query, over_budget};
use super::start::Start;
use super::{Inner, open_cards, overlapping};
use crate::api::{LabelsRequest, Names, SeriesBatch, StoreError};
use crate::card::Card;
use crate::local::TRUNCATED;

/// Blocks that are read at a time for one request, within bounds: as many as have so much memory each.
const BLOCK_BYTES: u64 = 384 << 10;
const BLOCKS_AT_A_TIME: std::ops::RangeInclusive<u64> = 32..=256;
/// About what a text takes in a sorted set besides its bytes.
const TEXT_BYTES: usize = 48;

/// Bytes of the values of a label of a block that are remembered.
const KNOWN_BYTES_MAX: usize = 64 << 10;

/// What is wanted of labels.
enum Want {
    Names,
    Values(Arc<str>),
}

pub(super) async fn names(inner: Arc<Inner>, request: LabelsRequest) -> Result<Names, StoreError> {
    collect(inner, request, Arc::new(Want::Names)).await
}

pub(super) async fn values(
    inner: Arc<Inner>,
    name: String,
    request: LabelsRequest,
) -> Result<Names, StoreError> {
    if request.without_labels.contains(&name) {
        return Ok(Names::default());
    }
    collect(inner, request, Arc::new(Want::Values(name.into()))).await
}

async fn collect(
    inner: Arc<Inner>,
    request: LabelsRequest,
    want: Arc<Want>,
) -> Result<Names, StoreError> {
    let bytes = inner.config.request_bytes;
    let budget = inner
        .budget
        .child("the memory of one request to the store gateway", bytes);
    let query = Arc::new(Query::new(inner.config.limits, budget));
    let mut memory = query.budget.reservation("label names or values");
    let mut warnings = Warnings::default();
    let mut values: Vec<String> = Vec::new();
    let mut held = 0;
    let mut asked = Vec::new();
    let mut queried = Vec::new();
    let catalog = inner.catalog();
    let here = Here::new();
    for set in &catalog.sets {
        let Some(matchers) = set.inner_matchers(&request.matchers) else {
            continue;
        };
        let blocks = overlapping(set, request.range, &request.block_matchers);
        if blocks.is_empty() {
            continue;
        }
        queried.extend(blocks.iter().map(|block| block.id.to_string()));
        // Whatever the series, they have an external label.
        let external = match &*want {
            Want::Values(name) => set.labels.get(name),
            Want::Names => "",
        };
        if !external.is_empty() && matchers.is_empty() {
            held += Texts::of([external]).merge_into(&mut values);
            continue;
        }
        let matchers: Arc<[Matcher]> = matchers.into();
        asked.extend(blocks.into_iter().map(|it| (it, Arc::clone(&matchers))));
    }
    // All at once, so that many sets take no more round trips than one.
    let blocks = asked.iter().map(|it| Arc::clone(&it.0)).collect();
    let opened = open_cards(&inner, blocks, request.on_failure, &mut warnings).await?;
    let matchers: HashMap<Ulid, Arc<[Matcher]>> =
        asked.into_iter().map(|(it, own)| (it.id, own)).collect();
    let (least, most) = (*BLOCKS_AT_A_TIME.start(), *BLOCKS_AT_A_TIME.end());
    let at_a_time = (bytes / BLOCK_BYTES).clamp(least, most);
    let at_a_time = opened
        .len()
        .clamp(1, usize::try_from(at_a_time).unwrap_or(1));
    let chunk_bytes = inner.window_bytes(at_a_time);
    let answers = opened.into_iter().filter_map(|(block, card)| {
        let matchers = matchers.get(&block.id)?.to_vec();
        let (inner, want, query) = (Arc::clone(&inner), Arc::clone(&want), Arc::clone(&query));
        let ask = Ask {
            matchers_text: produce::text_of(&matchers),
            matchers,
            range: request.range,
            skip_chunks: true,
            limit: 0,
            chunk_bytes,
            on_failure: request.on_failure,
            way: inner.config.way,
            start: Start::default(),
        };
        Some(async move { of_block(&inner, &query, &want, ask, block, card, here).await })
    });
    let mut answers = stream::iter(answers).buffer_unordered(at_a_time);
    while let Some(answer) = answers.next().await {
        let (texts, remarks) = answer?;
        warnings.merge(remarks);
        held += texts.merge_into(&mut values);
        memory.grow_to(held).map_err(over_budget)?;
    }
    if matches!(*want, Want::Names) {
        values.retain(|name| !request.without_labels.contains(name));
    }
    if request.limit > 0 && values.len() > request.limit {
        values.truncate(request.limit);
        warnings.warn(TRUNCATED);
    }
    Ok(Names {
        values,
        warnings,
        queried_blocks: Some(queried),
    })
}

async fn of_block(
    inner: &Arc<Inner>,
    query: &Arc<Query>,
    want: &Arc<Want>,
    ask: Ask,
    block: Arc<Block>,
    card: Card,
    here: Here,
) -> Result<(Arc<Texts>, Warnings), StoreError> {
    let external = block.labels.clone();
    if ask.matchers.is_empty() {
        let key = match &**want {
            Want::Values(name) => Some((block.number(), Arc::clone(name))),
            Want::Names => None,
        };
        if let Some(known) = key.as_ref().and_then(|key| inner.values.get(key)) {
            return Ok((known, Warnings::default()));
        }
        let (what, ext) = (Arc::clone(want), external.clone());
        let texts = move |card: &Card| of_card(card, &what, &ext);
        let answer = match card.at_hand(&texts) {
            Ok(None) => inner.blocking(move || texts(&card)).await?,
            Ok(Some(texts)) => Ok(texts),
            Err(error) => Err(error),
        };
        return match answer {
            Ok(texts) => {
                let bytes = texts.bytes();
                let texts = Arc::new(texts);
                if let Some(key) = key.filter(|_| bytes <= KNOWN_BYTES_MAX) {
                    inner.values.insert(key, Arc::clone(&texts), bytes);
                }
                Ok((texts, Warnings::default()))
            }
            Err(error) => {
                let error = error.into();
                let text = produce::judge(inner, &block, error, ask.on_failure).await?;
                let mut warnings = Warnings::default();
                warnings.warn(text);
                Ok((Arc::default(), warnings))
            }
        };
    }
    let mut series = produce::series(inner, &block, card, query, ask, here);
    let mut texts: BTreeSet<String> = BTreeSet::new();
    let mut warnings = Warnings::default();
    let mut insert = |text: &str| {
        if !text.is_empty() && !texts.contains(text) {
            texts.insert(text.to_owned());
        }
    };
    while let Some(batch) = series.next().await {
        let batch = match batch? {
            SeriesBatch::Series(batch) => batch,
            SeriesBatch::Warnings(remarks) => {
                warnings.merge(remarks);
                continue;
            }
        };
        for series in &batch {
            match &**want {
                Want::Names => {
                    series.labels.iter().for_each(|(name, _)| insert(name));
                    external.iter().for_each(|(name, _)| insert(name));
                }
                Want::Values(name) => match external.get(name) {
                    "" => insert(series.labels.get(name)),
                    external => insert(external),
                },
            }
        }
    }
    let texts = Texts::of(texts.iter().map(String::as_str));
    Ok((Arc::new(texts), warnings))
}

/// What a card says of all series.
fn of_card(card: &Card, want: &Want, external: &Labels) -> Result<Texts, isobar_tsdb::Error> {
    let mut lookup = card.lookup();
    let mut texts = Texts::default();
    match want {
        Want::Names => {
            let mut names = BTreeSet::new();
            for name in card.names()? {
                names.insert(lookup.text(name.name)?.to_owned());
            }
            names.extend(external.iter().map(|(name, _)| name.to_owned()));
            texts = Texts::of(names.iter().map(String::as_str));
        }
        Want::Values(name) => {
            if let Some(symbol) = card.find_symbol(name)? {
                // Symbols are in the order of their texts.
                for pair in card.pairs(symbol, 0)? {
                    texts.push(lookup.text(pair?.value)?);
                }
            }
        }
    }
    Ok(texts)
}

/// Sorted texts, one behind the other: most of those of a block are known from another, and need no
/// memory of their own.
#[derive(Debug, Default)]
pub(super) struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    /// Those of `texts`, which are sorted.
    fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = Texts::default();
        texts.into_iter().for_each(|text| all.push(text));
        all
    }

    /// Adds one that comes behind all others. One that is empty is none.
    fn push(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(text);
            self.ends.push(self.text.len());
        }
    }

    /// About the bytes that they take.
    fn bytes(&self) -> usize {
        self.text.len() + size_of_val(self.ends.as_slice())
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        let places = begins.zip(&self.ends);
        places.map(|(begin, end)| self.text.get(begin..*end).unwrap_or_default())
    }

    /// Adds those that are new to `all`, which is sorted, and gives about the bytes that they take there.
    fn merge_into(&self, all: &mut Vec<String>) -> usize {
        let mut known = all.iter().map(String::as_str).peekable();
        let mut new: Vec<String> = Vec::new();
        for text in self.iter() {
            while known.next_if(|it| *it < text).is_some() {}
            if known.peek() != Some(&text) {
                new.push(text.to_owned());
            }
        }
        let bytes = new.iter().map(|it| it.len() + TEXT_BYTES).sum();
        if !new.is_empty() {
            all.append(&mut new);
            // Two sorted runs are merged in one go.
            all.sort();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merged_as_sets_are(sources in prop::collection::vec(
            prop::collection::btree_set("[ab]{1,3}", 0..9), 0..5,
        )) {
            let mut merged = Vec::new();
            let mut bytes = 0;
            for source in &sources {
                bytes += Texts::of(source.iter().map(String::as_str)).merge_into(&mut merged);
            }
            let expected: BTreeSet<String> = sources.into_iter().flatten().collect();
            let taken = merged.iter().map(|it| it.len() + TEXT_BYTES).sum::<usize>();
            prop_assert_eq!(bytes, taken);
            prop_assert_eq!(merged, Vec::from_iter(expected));
        }
    }
}
