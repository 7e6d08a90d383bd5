//! Which blocks leave a bucket that one process has for itself: nobody else looks after it.
//!
//! A block that retention takes is first served no more, and removed when no query can be reading it. What
//! is on the local disk as well stays until it has left that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::paths::{self, BlockId};

/// How long blocks are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Blocks that end this long before the newest of their tenant go; `None` keeps them.
    pub time: Option<Duration>,
    /// The oldest go while all blocks, those on the local disk included, are larger than this.
    pub bytes_max: Option<u64>,
    /// How long a query may read a block that is served no more.
    pub grace: Duration,
}

/// What retention looks at.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its name.
    pub id: BlockId,
    /// Its external labels as text: those of a tenant are the same.
    pub owner: String,
    /// The first time behind it, unix milliseconds; `None` of what is left of a block, which nobody reads.
    pub end_ms: Option<i64>,
    /// The bytes of its files.
    pub bytes: u64,
}

/// What is on the local disk.
#[derive(Debug, Default)]
pub struct Local {
    /// Its blocks.
    pub blocks: HashSet<BlockId>,
    /// The bytes of blocks and log.
    pub bytes: u64,
}

/// Removes blocks.
#[derive(Debug)]
pub struct Expiry {
    retention: Retention,
    store: Arc<dyn ObjectStore>,
    /// What is served no more, and since when in unix milliseconds.
    leaving: HashMap<BlockId, i64>,
}

impl Expiry {
    /// For the blocks in `store`.
    pub fn new(store: Arc<dyn ObjectStore>, retention: Retention) -> Self {
        Expiry {
            retention,
            store,
            leaving: HashMap::new(),
        }
    }

    /// Whether a block is served no more.
    pub fn leaves(&self, block: BlockId) -> bool {
        self.leaving.contains_key(&block)
    }

    /// Says which blocks leave from now on.
    pub fn choose(&mut self, all: &[Kept], local: &Local, now_ms: i64) {
        let there: HashSet<BlockId> = all.iter().map(|it| it.id).collect();
        self.leaving.retain(|block, _| there.contains(block));
        for (block, why) in expired(all, &self.retention, local) {
            self.leaving.entry(block).or_insert_with(|| {
                tracing::info!(%block, why, "a block leaves the bucket");
                now_ms
            });
        }
    }

    /// Removes what nobody can be reading any more. What cannot be removed is tried again at the next call.
    pub async fn remove(&self, now_ms: i64) {
        let grace_ms = i64::try_from(self.retention.grace.as_millis()).unwrap_or(i64::MAX);
        for (block, since_ms) in &self.leaving {
            if now_ms.saturating_sub(*since_ms) < grace_ms {
                continue;
            }
            if let Err(error) = remove(&*self.store, *block).await {
                tracing::warn!(%block, %error, "a block could not be removed from the bucket, trying again later");
            }
        }
    }
}

/// Removes a block: `meta.json` first, for without it there is none.
async fn remove(store: &dyn ObjectStore, block: BlockId) -> Result<(), object_store::Error> {
    remove_file(store, &paths::meta(block)).await?;
    let files = store.list(Some(&paths::directory(block)));
    let files: Vec<_> = files.try_collect().await?;
    for file in files {
        remove_file(store, &file.location).await?;
    }
    Ok(())
}

async fn remove_file(store: &dyn ObjectStore, path: &Path) -> Result<(), object_store::Error> {
    match store.delete(path).await {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        done => done,
    }
}

/// The blocks that retention takes, and why.
fn expired(all: &[Kept], retention: &Retention, local: &Local) -> Vec<(BlockId, String)> {
    let mut expired = Vec::new();
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    for block in all {
        let end_ms = block.end_ms.unwrap_or(i64::MIN);
        let newest = newest.entry(&block.owner).or_insert(end_ms);
        *newest = (*newest).max(end_ms);
    }
    let mut kept: Vec<(i64, &Kept)> = Vec::new();
    for block in all.iter().filter(|it| !local.blocks.contains(&it.id)) {
        let Some(end_ms) = block.end_ms else {
            let why = "it was removed, or not written, to its end";
            expired.push((block.id, why.to_owned()));
            continue;
        };
        let age_ms = newest.get(block.owner.as_str()).copied();
        let age_ms = age_ms.unwrap_or(end_ms).saturating_sub(end_ms);
        match retention.time {
            Some(time) if u128::from(age_ms.unsigned_abs()) >= time.as_millis() => {
                let why = format!("it ends {time:?} before the newest block");
                expired.push((block.id, why));
            }
            _ => kept.push((end_ms, block)),
        }
    }
    if let Some(limit) = retention.bytes_max {
        let mut bytes = local.bytes + kept.iter().map(|it| it.1.bytes).sum::<u64>();
        kept.sort_by_key(|it| it.0);
        for (_, block) in kept {
            if bytes <= limit {
                break;
            }
            let why = format!("blocks and log take {bytes} bytes, more than {limit}");
            bytes = bytes.saturating_sub(block.bytes);
            expired.push((block.id, why));
        }
    }
    expired
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use ulid::Ulid;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn block(number: u128, owner: &str, end_h: i64) -> Kept {
        Kept {
            id: Ulid(number),
            owner: owner.to_owned(),
            end_ms: Some(end_h * HOUR_MS),
            bytes: 100,
        }
    }

    fn check(hours: Option<u64>, bytes_max: Option<u64>, local: &[u128], expected: &[u128]) {
        let mut half = block(9, "a", 0);
        half.end_ms = None;
        let all = [
            block(1, "a", 2),
            block(2, "a", 4),
            block(3, "a", 10),
            block(4, "b", 4),
            half,
        ];
        let retention = Retention {
            time: hours.map(|hours| Duration::from_secs(hours * 3600)),
            bytes_max,
            grace: Duration::ZERO,
        };
        let local = Local {
            blocks: local.iter().copied().map(Ulid).collect(),
            bytes: 50,
        };
        let expired = expired(&all, &retention, &local);
        let mut expired: Vec<u128> = expired.iter().map(|it| it.0.0).collect();
        expired.sort_unstable();
        assert_eq!(expired, expected, "{hours:?} {bytes_max:?} {local:?}");
    }

    #[test]
    fn what_is_old_of_its_tenant_or_too_much_leaves() {
        check(None, None, &[], &[9]);
        check(None, None, &[9], &[]);
        check(Some(8), None, &[], &[1, 9]);
        check(Some(6), None, &[], &[1, 2, 9]);
        // It has to leave the local disk first.
        check(Some(6), None, &[1], &[2, 9]);
        check(None, Some(450), &[], &[9]);
        check(None, Some(449), &[], &[1, 9]);
        check(None, Some(0), &[3], &[1, 2, 4, 9]);
        check(Some(8), Some(300), &[], &[1, 2, 9]);
    }

    #[tokio::test]
    async fn a_block_is_served_no_more_before_it_is_removed() {
        let store = Arc::new(InMemory::new());
        for name in ["meta.json", "index", "chunks/000001"] {
            let path = Path::from(format!("{}/{name}", Ulid(1)));
            store.put(&path, "x".into()).await.unwrap();
        }
        let files = || async {
            let files: Vec<_> = store.list(None).try_collect().await.unwrap();
            files.len()
        };
        let retention = Retention {
            time: Some(Duration::from_secs(3600)),
            bytes_max: None,
            grace: Duration::from_secs(60),
        };
        let mut expiry = Expiry::new(Arc::clone(&store) as Arc<dyn ObjectStore>, retention);
        let all = [block(1, "a", 1), block(2, "a", 2)];
        expiry.choose(&all, &Local::default(), 1_000);
        assert!(expiry.leaves(Ulid(1)) && !expiry.leaves(Ulid(2)));
        expiry.remove(60_999).await;
        assert_eq!(files().await, 3);
        expiry.choose(&all, &Local::default(), 61_000);
        expiry.remove(61_000).await;
        assert_eq!(files().await, 0);
        // Once it is gone nothing is remembered of it.
        expiry.choose(&all[1..], &Local::default(), 91_000);
        assert!(!expiry.leaves(Ulid(1)));
    }
}
