//! A card without waiting: only with pages that are in memory, and only with some dozens of them, so that
//! a short question can be answered where it comes up and needs no thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use isobar_tsdb::Error;

use super::{Card, Pages, Place};

/// Pages that are looked at, at most: some 10,000 label pairs.
const PAGES_MAX: usize = 64;

impl Card {
    /// What `ask` says of the card, when that takes no waiting; `None` when it has to be asked again of
    /// the card itself.
    ///
    /// # Errors
    /// Those of `ask`.
    pub fn at_hand<T>(
        &self,
        ask: impl FnOnce(&Card) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let pages = Arc::new(AtHand {
            pages: Arc::clone(&self.pages),
            left: AtomicUsize::new(PAGES_MAX),
            refused: AtomicBool::new(false),
        });
        let card = Card {
            pages: Arc::clone(&pages) as Arc<dyn Pages>,
            ..self.clone()
        };
        let answer = ask(&card);
        if pages.refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        answer.map(Some)
    }
}

/// Those pages of another source that are in memory.
struct AtHand {
    pages: Arc<dyn Pages>,
    left: AtomicUsize,
    refused: AtomicBool,
}

impl Pages for AtHand {
    fn page(&self, place: Place) -> Result<Bytes, Error> {
        self.page_at_hand(place).ok_or_else(|| {
            self.refused.store(true, Ordering::Relaxed);
            Error::Unavailable("a page of a card is not in memory".to_owned())
        })
    }

    fn page_at_hand(&self, place: Place) -> Option<Bytes> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(1)?;
        self.left.store(left, Ordering::Relaxed);
        self.pages.page_at_hand(place)
    }
}
