//! Memory is reserved before it is used.
//!
//! A [`Budget`] is a number of bytes that may be held at a time; budgets form a tree, and what is
//! reserved from one is reserved from all above it. A [`Reservation`] holds bytes until it is
//! dropped. What asks for more than is left gets [`OverBudget`], which says whose limit it was;
//! nothing waits here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reservations grow by at least this many bytes, so that small steps seldom touch the counters.
const GRAIN: u64 = 64 * 1024;

/// How many bytes may be held at a time.
#[derive(Debug)]
pub struct Budget {
    name: &'static str,
    limit: u64,
    held: AtomicU64,
    peak: AtomicU64,
    parent: Option<Arc<Budget>>,
}

impl Budget {
    /// A budget of `limit` bytes. Errors call it by `name`, as in "the memory of one query".
    pub fn new(name: &'static str, limit: u64) -> Arc<Self> {
        Arc::new(Budget {
            name,
            limit,
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            parent: None,
        })
    }

    /// A part of this budget that may hold at most `limit` bytes.
    pub fn child(self: &Arc<Self>, name: &'static str, limit: u64) -> Arc<Self> {
        Arc::new(Budget {
            name,
            limit,
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            parent: Some(Arc::clone(self)),
        })
    }

    /// An empty reservation for `who`, as in "an aggregation".
    pub fn reservation(self: &Arc<Self>, who: &'static str) -> Reservation {
        Reservation {
            budget: Arc::clone(self),
            who,
            bytes: 0,
        }
    }

    /// The most bytes that may be held.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The bytes held now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The most bytes that were held at a time.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    fn take(&self, who: &'static str, bytes: u64) -> Result<(), OverBudget> {
        let taken = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(bytes).filter(|sum| *sum <= self.limit)
            });
        let held = match taken {
            Ok(before) => before + bytes,
            Err(held) => {
                return Err(OverBudget {
                    who,
                    asked: bytes,
                    held,
                    limit: self.limit,
                    budget: self.name,
                });
            }
        };
        if let Some(parent) = &self.parent
            && let Err(error) = parent.take(who, bytes)
        {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            return Err(error);
        }
        self.peak.fetch_max(held, Ordering::Relaxed);
        Ok(())
    }

    fn add(&self, bytes: u64) {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let held = before.saturating_add(bytes);
        self.peak.fetch_max(held, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.add(bytes);
        }
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.give_back(bytes);
        }
    }
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    who: &'static str,
    bytes: u64,
}

impl Reservation {
    /// Makes sure that at least `bytes` are held in all.
    ///
    /// # Errors
    /// When they are not to be had; what was held before stays.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), OverBudget> {
        let wanted = u64::try_from(bytes).unwrap_or(u64::MAX);
        let Some(missing) = wanted.checked_sub(self.bytes).filter(|n| *n > 0) else {
            return Ok(());
        };
        // The last bytes of a budget are still given in small pieces.
        let more = missing.max(GRAIN);
        match self.budget.take(self.who, more) {
            Ok(()) => self.bytes += more,
            Err(_) if missing < more => {
                self.budget.take(self.who, missing)?;
                self.bytes += missing;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Holds this many bytes, more or fewer than before, for what is there already and cannot be
    /// refused: the limits of the budget and of those above it are not asked.
    pub fn hold(&mut self, bytes: u64) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.budget.add(more),
            None => self.budget.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
    }

    /// An empty reservation of the same budget for `who`.
    pub fn another(&self, who: &'static str) -> Reservation {
        self.budget.reservation(who)
    }

    /// Gives back what is held above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let keep = u64::try_from(bytes).unwrap_or(u64::MAX);
        if let Some(surplus) = self.bytes.checked_sub(keep) {
            self.budget.give_back(surplus);
            self.bytes = keep;
        }
    }

    /// The bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// More was asked for than a budget has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverBudget {
    /// Who asked.
    pub who: &'static str,
    /// How many bytes were asked for.
    pub asked: u64,
    /// How many bytes were held by others of that budget, and by the one who asked.
    pub held: u64,
    /// How many there are.
    pub limit: u64,
    /// The name of the budget.
    pub budget: &'static str,
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is limited to {}: {} asked for {} more when {} were held",
            self.budget,
            Bytes(self.limit),
            self.who,
            Bytes(self.asked),
            Bytes(self.held),
        )
    }
}

impl std::error::Error for OverBudget {}

/// A number of bytes as people read it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_reserved_above_and_given_back() {
        let all = Budget::new("the memory of all queries", 1 << 20);
        let one = all.child("the memory of one query", 512 << 10);
        let mut first = one.reservation("an aggregation");
        first.grow_to(10).unwrap();
        assert_eq!((all.held(), one.held()), (GRAIN, GRAIN));
        first.grow_to(400 << 10).unwrap();
        first.grow_to(300 << 10).unwrap();
        assert_eq!(one.held(), 400 << 10);
        let mut second = one.reservation("a join");
        second.grow_to(112 << 10).unwrap();
        let error = second.grow_to(113 << 10).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the memory of one query is limited to 512.0 KiB: a join asked for 1.0 KiB more when \
             512.0 KiB were held"
        );
        drop(first);
        second.shrink_to(1 << 10);
        assert_eq!((all.held(), all.peak()), (1 << 10, 512 << 10));
        drop(second);
        assert_eq!(all.held(), 0);
    }

    #[test]
    fn what_cannot_be_refused_leaves_less_for_others() {
        let all = Budget::new("the memory of the process", 1 << 20);
        let head = all.child("the memory of the head", 512 << 10);
        let queries = all.child("the memory of all queries", 1 << 20);
        let mut kept = head.reservation("the head");
        let mut query = queries.reservation("a join");
        query.grow_to(900 << 10).unwrap();
        kept.hold(512 << 10);
        assert_eq!((all.held(), head.held()), (1412 << 10, 512 << 10));
        let error = query.grow_to(901 << 10).unwrap_err();
        assert_eq!(error.budget, "the memory of the process");
        kept.hold(100 << 10);
        query.grow_to(901 << 10).unwrap();
        drop(kept);
        assert_eq!((all.held(), head.held()), (query.bytes(), 0));
    }

    #[test]
    fn a_parent_that_is_full_takes_nothing_from_the_child() {
        let all = Budget::new("the memory of all queries", 100 << 10);
        let one = all.child("the memory of one query", 1 << 30);
        let mut reservation = one.reservation("a join");
        let error = reservation.grow_to(1 << 20).unwrap_err();
        assert_eq!(error.budget, "the memory of all queries");
        assert_eq!((all.held(), one.held(), reservation.bytes()), (0, 0, 0));
    }
}
