//! What the head knows of each tenant.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use isobar_model::Tenant;
use parking_lot::{Mutex, RwLock};

use super::limits::{Bucket, reached};

/// A dense number for a tenant, valid for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TenantId(pub(crate) u32);

/// Times and counts of one tenant. Whoever appends widens the times while the shard is locked.
#[derive(Debug)]
pub(crate) struct TenantState {
    pub(crate) name: Tenant,
    pub(crate) id: TenantId,
    /// The oldest and newest sample in the head; `MAX` and `MIN` when there was none.
    pub(crate) min_ms: AtomicI64,
    pub(crate) max_ms: AtomicI64,
    /// What is older is refused, because it lies in blocks or in one that is being cut.
    pub(crate) min_valid_ms: AtomicI64,
    /// What is older lies in blocks.
    pub(crate) cut_until_ms: AtomicI64,
    /// The oldest late sample in the head; `MAX` when there was none.
    pub(crate) late_min_ms: AtomicI64,
    /// What is left of its rate of samples.
    pub(crate) bucket: Mutex<Bucket>,
    /// Samples appended since the process started.
    pub(crate) appended: AtomicU64,
    /// Those of them that were late.
    pub(crate) appended_late: AtomicU64,
}

impl TenantState {
    /// The times of the oldest and newest sample, when there was one.
    pub(crate) fn range(&self) -> Option<(i64, i64)> {
        let (min, max) = (
            self.min_ms.load(Ordering::Acquire),
            self.max_ms.load(Ordering::Acquire),
        );
        (min <= max).then_some((min, max))
    }

    /// Takes note that all before this time lies in blocks.
    pub(crate) fn note_cut(&self, until_ms: i64) {
        self.cut_until_ms.fetch_max(until_ms, Ordering::AcqRel);
        self.min_valid_ms.fetch_max(until_ms, Ordering::AcqRel);
    }

    /// Takes note of late samples, the oldest at `min_ms`.
    pub(crate) fn note_late(&self, min_ms: i64, count: u64) {
        self.late_min_ms.fetch_min(min_ms, Ordering::AcqRel);
        self.appended_late.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes note of samples between `min_ms` and `max_ms`.
    pub(crate) fn widen(&self, min_ms: i64, max_ms: i64) {
        if self.min_ms.load(Ordering::Relaxed) > min_ms {
            self.min_ms.fetch_min(min_ms, Ordering::AcqRel);
        }
        if self.max_ms.load(Ordering::Relaxed) < max_ms {
            self.max_ms.fetch_max(max_ms, Ordering::AcqRel);
        }
    }
}

/// All tenants, by name and by number.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: HashMap<Tenant, Arc<TenantState>>,
    by_id: Vec<Arc<TenantState>>,
}

impl Tenants {
    /// The tenant of this name, if it ever wrote.
    pub(crate) fn find(&self, name: &Tenant) -> Option<Arc<TenantState>> {
        self.inner.read().by_name.get(name).cloned()
    }

    /// The tenant of this name, made when it is new.
    pub(crate) fn find_or_add(&self, name: &Tenant) -> Arc<TenantState> {
        const NO_LIMIT: u64 = 0;
        self.find_or_admit(name, NO_LIMIT)
            .expect("no limit is never reached")
    }

    /// The tenant of this name, made when it is new; `None` when it is and there are `max` others. Zero
    /// stands for no limit.
    pub(crate) fn find_or_admit(&self, name: &Tenant, max: u64) -> Option<Arc<TenantState>> {
        if let Some(found) = self.find(name) {
            return Some(found);
        }
        let mut inner = self.inner.write();
        if let Some(found) = inner.by_name.get(name) {
            return Some(Arc::clone(found));
        }
        if reached(inner.by_id.len() as u64, max) {
            return None;
        }
        let id =
            u32::try_from(inner.by_id.len()).expect("fewer tenants than series, which are u32");
        let tenant = Arc::new(TenantState {
            name: name.clone(),
            id: TenantId(id),
            min_ms: AtomicI64::new(i64::MAX),
            max_ms: AtomicI64::new(i64::MIN),
            min_valid_ms: AtomicI64::new(i64::MIN),
            cut_until_ms: AtomicI64::new(i64::MIN),
            late_min_ms: AtomicI64::new(i64::MAX),
            bucket: Mutex::default(),
            appended: AtomicU64::new(0),
            appended_late: AtomicU64::new(0),
        });
        inner.by_id.push(Arc::clone(&tenant));
        inner.by_name.insert(name.clone(), Arc::clone(&tenant));
        Some(tenant)
    }

    /// All tenants in the order of their first write.
    pub(crate) fn all(&self) -> Vec<Arc<TenantState>> {
        self.inner.read().by_id.clone()
    }
}
