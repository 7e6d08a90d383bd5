//! Label names, and values of a label. Without matchers cards say both; with matchers the series that
//! match are read, without their chunks.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use isobar_model::{Labels, Matcher, Warnings};

use super::block::Block;
use super::produce::{self, Ask};
use super::query::{Query, over_budget};
use super::{Inner, open_cards, overlapping};
use crate::api::{LabelsRequest, Names, SeriesBatch, StoreError};
use crate::card::Card;
use crate::local::TRUNCATED;

/// About what a text takes in a sorted set besides its bytes.
const TEXT_BYTES: usize = 48;

/// What is wanted of labels.
enum Want {
    Names,
    Values(String),
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
    collect(inner, request, Arc::new(Want::Values(name))).await
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
    let mut all: BTreeSet<String> = BTreeSet::new();
    let mut held = 0;
    let mut queried = Vec::new();
    let catalog = inner.catalog();
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
            all.insert(external.to_owned());
            continue;
        }
        let opened = open_cards(&inner, blocks, request.on_failure, &mut warnings).await?;
        let mut answers: FuturesUnordered<_> = opened
            .into_iter()
            .map(|(block, card)| {
                let (inner, want) = (Arc::clone(&inner), Arc::clone(&want));
                let (query, request) = (Arc::clone(&query), request.clone());
                let (matchers, labels) = (matchers.clone(), set.labels.clone());
                async move {
                    of_block(
                        &inner, &query, &request, &want, matchers, labels, block, card,
                    )
                    .await
                }
            })
            .collect();
        while let Some(answer) = answers.next().await {
            let (texts, remarks) = answer?;
            warnings.merge(remarks);
            for text in texts {
                held += text.len() + TEXT_BYTES;
                memory.grow_to(held).map_err(over_budget)?;
                all.insert(text);
            }
        }
    }
    let mut values: Vec<String> = all.into_iter().collect();
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

#[expect(clippy::too_many_arguments, reason = "it is the body of one loop")]
async fn of_block(
    inner: &Arc<Inner>,
    query: &Arc<Query>,
    request: &LabelsRequest,
    want: &Arc<Want>,
    matchers: Vec<Matcher>,
    external: Labels,
    block: Arc<Block>,
    card: Card,
) -> Result<(Vec<String>, Warnings), StoreError> {
    if matchers.is_empty() {
        let (what, ext) = (Arc::clone(want), external.clone());
        let answer = inner.blocking(move || of_card(&card, &what, &ext)).await?;
        return match answer {
            Ok(texts) => Ok((texts, Warnings::default())),
            Err(error) => {
                let text = produce::judge(inner, &block, error, request.on_failure).await?;
                let mut warnings = Warnings::default();
                warnings.warn(text);
                Ok((Vec::new(), warnings))
            }
        };
    }
    let ask = Ask {
        matchers,
        range: request.range,
        skip_chunks: true,
        limit: 0,
        chunk_bytes: 1 << 20,
        on_failure: request.on_failure,
        way: inner.config.way,
    };
    let mut series = produce::series(inner, &block, card, query, ask);
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
    Ok((texts.into_iter().collect(), warnings))
}

/// What a card says of all series.
fn of_card(card: &Card, want: &Want, external: &Labels) -> Result<Vec<String>, StoreError> {
    let mut lookup = card.lookup();
    let mut texts = Vec::new();
    match want {
        Want::Names => {
            for name in card.names()? {
                texts.push(lookup.text(name.name)?.to_owned());
            }
            texts.extend(external.iter().map(|(name, _)| name.to_owned()));
        }
        Want::Values(name) => {
            if let Some(symbol) = card.find_symbol(name)? {
                for pair in card.pairs(symbol, 0)? {
                    texts.push(lookup.text(pair?.value)?.to_owned());
                }
            }
        }
    }
    texts.retain(|text| !text.is_empty());
    Ok(texts)
}
