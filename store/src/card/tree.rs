//! The trees of a card: fences of pages of fences of leaves. Written bottom up, walked top down.

use bytes::Bytes;
use isobar_tsdb::Error;
use isobar_tsdb::encoding::DecodeError;

use super::page::{Kind, header, put_header};
use super::{Card, PAGE_BYTES, Place, page_checksum};

const FENCE_BYTES: usize = 24;
/// No sound tree is higher: a page of fences has at least two, and there are fewer than 2^64 pages.
const HEIGHT_MAX: usize = 64;

/// Says where a page lies and what is in it.
#[derive(Debug, Clone)]
pub(super) struct Fence {
    pub(super) key: (u32, u32),
    pub(super) text: Vec<u8>,
    pub(super) place: Place,
}

/// Appends a page and gives its place.
pub(super) fn put_page(out: &mut Vec<u8>, payload: &[u8]) -> Place {
    let offset = out.len() as u64;
    out.extend_from_slice(payload);
    out.extend_from_slice(&page_checksum(offset, payload).to_le_bytes());
    let len = u32::try_from(out.len() as u64 - offset).unwrap_or(u32::MAX);
    Place { offset, len }
}

/// Appends the fences above some pages, and the fences of these, and gives the place of the one page
/// on top.
pub(super) fn put_tree(out: &mut Vec<u8>, kind: Kind, mut below: Vec<Fence>) -> Place {
    let mut level = 0u8;
    while below.len() > 1 {
        level += 1;
        let mut above = Vec::new();
        let mut page: Vec<Fence> = Vec::new();
        let mut bytes = 0;
        let last = below.len() - 1;
        for (i, fence) in below.into_iter().enumerate() {
            bytes += FENCE_BYTES + fence.text.len();
            page.push(fence);
            // Two at least, or the tree would never come to an end.
            if (bytes >= PAGE_BYTES && page.len() > 1) || i == last {
                above.extend(put_fences(out, kind, level, std::mem::take(&mut page)));
                bytes = 0;
            }
        }
        below = above;
    }
    below.pop().map(|top| top.place).unwrap_or_default()
}

fn put_fences(out: &mut Vec<u8>, kind: Kind, level: u8, page: Vec<Fence>) -> Option<Fence> {
    let mut payload = Vec::new();
    let mut texts = Vec::new();
    put_header(&mut payload, kind, level, u16::try_from(page.len()).ok()?);
    for fence in &page {
        texts.extend_from_slice(&fence.text);
        payload.extend_from_slice(&fence.key.0.to_le_bytes());
        payload.extend_from_slice(&fence.key.1.to_le_bytes());
        payload.extend_from_slice(&fence.place.offset.to_le_bytes());
        payload.extend_from_slice(&fence.place.len.to_le_bytes());
        payload.extend_from_slice(&u32::try_from(texts.len()).ok()?.to_le_bytes());
    }
    payload.extend_from_slice(&texts);
    let place = put_page(out, &payload);
    let first = page.into_iter().next()?;
    Some(Fence { place, ..first })
}

/// The fences of a page.
struct Fences<'a> {
    fences: &'a [[u8; FENCE_BYTES]],
    texts: &'a [u8],
}

impl<'a> Fences<'a> {
    fn decode(kind: Kind, payload: &'a [u8]) -> Result<Option<(u8, Self)>, DecodeError> {
        let (level, count, mut decoder) = header(kind, payload)?;
        if level == 0 {
            return Ok(None);
        }
        let fences = decoder.bytes(count * FENCE_BYTES)?.as_chunks().0;
        let texts = decoder.rest();
        Ok(Some((level, Fences { fences, texts })))
    }

    fn word(fence: &[u8; FENCE_BYTES], at: usize) -> u32 {
        let bytes = fence.get(at..at + 4).and_then(|it| it.first_chunk());
        u32::from_le_bytes(bytes.copied().unwrap_or_default())
    }

    /// The last fence that is not behind what is looked for, or the first.
    fn seek(&self, target: &Target<'_>) -> usize {
        let mut behind = match target {
            Target::Key(a, b) => self
                .fences
                .partition_point(|it| (Self::word(it, 0), Self::word(it, 4)) <= (*a, *b)),
            Target::Text(text) => {
                let mut low = 0;
                let mut high = self.fences.len();
                while low < high {
                    let middle = low + (high - low) / 2;
                    if self.text(middle) <= *text {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                low
            }
        };
        behind = behind.saturating_sub(1);
        behind
    }

    fn text(&self, at: usize) -> &'a [u8] {
        let end = |at: usize| {
            self.fences
                .get(at)
                .map_or(0, |it| Self::word(it, 20) as usize)
        };
        let begin = at.checked_sub(1).map_or(0, end);
        self.texts.get(begin..end(at)).unwrap_or_default()
    }

    fn place(&self, at: usize) -> Option<Place> {
        let fence = self.fences.get(at)?;
        let offset = u64::from(Self::word(fence, 12)) << 32 | u64::from(Self::word(fence, 8));
        Some(Place {
            offset,
            len: Self::word(fence, 16),
        })
    }
}

/// What is looked for in a tree.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    Key(u32, u32),
    Text(&'a [u8]),
}

/// The leaves of a tree, from one on.
pub(super) struct Leaves<'c> {
    card: &'c Card,
    kind: Kind,
    /// Pages of fences from the top down, each with the number of the fence that was followed.
    path: Vec<(Bytes, usize)>,
    first: Option<(Place, Bytes)>,
}

impl<'c> Leaves<'c> {
    /// The leaves from the one on in which the target is, if it is anywhere.
    pub(super) fn seek(card: &'c Card, kind: Kind, target: Target<'_>) -> Result<Self, Error> {
        let top = card.root.trees.get(kind as usize - 1).copied();
        let top = top.unwrap_or_default();
        let mut leaves = Leaves {
            card,
            kind,
            path: Vec::new(),
            first: None,
        };
        if !top.is_empty() {
            leaves.first = Some(leaves.descend(top, Some(target))?);
        }
        Ok(leaves)
    }

    /// The next leaf, and where it lies.
    pub(super) fn next(&mut self) -> Result<Option<(Place, Bytes)>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while let Some((page, at)) = self.path.last_mut() {
            *at += 1;
            let next = match Fences::decode(self.kind, page) {
                Ok(Some((_, fences))) => fences.place(*at),
                _ => None,
            };
            match next {
                Some(place) => return self.descend(place, None).map(Some),
                None => self.path.pop(),
            };
        }
        Ok(None)
    }

    /// Goes down from a page to a leaf, to the first below it when nothing is looked for.
    fn descend(
        &mut self,
        mut place: Place,
        target: Option<Target<'_>>,
    ) -> Result<(Place, Bytes), Error> {
        let mut above = None;
        loop {
            let page = self.card.page(place)?;
            let corrupt = |e: DecodeError| self.card.corrupt(place, e);
            let Some((level, fences)) = Fences::decode(self.kind, &page).map_err(corrupt)? else {
                return Ok((place, page));
            };
            if above.is_some_and(|above| level >= above) || self.path.len() >= HEIGHT_MAX {
                return Err(self.card.corrupt(place, "a tree without an end"));
            }
            above = Some(level);
            let at = target.map_or(0, |target| fences.seek(&target));
            let next = fences.place(at);
            let next = next.ok_or_else(|| self.card.corrupt(place, "there is no fence"))?;
            self.path.push((page, at));
            place = next;
        }
    }
}
