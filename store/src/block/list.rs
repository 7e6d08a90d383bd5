//! Which blocks a bucket holds, and which of their files matter for knowing them, from listings
//! alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStore};

use super::cache::Tag;
use super::paths::{self, BlockId};

/// How blocks are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Discovery {
    /// The top of the bucket is listed, then each block by itself, many at a time.
    #[default]
    Concurrent,
    /// Everything is listed at once. Fewer requests where blocks have few files.
    Recursive,
}

/// How many blocks are listed at a time.
const LISTINGS_MAX: usize = 64;

/// The files of a block that matter for knowing it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) meta: Option<Tag>,
    pub(super) deletion: Option<Tag>,
    pub(super) no_compact: Option<Tag>,
    pub(super) no_downsample: Option<Tag>,
}

impl Listed {
    /// Takes note of an object of the block; `name` is relative to its directory.
    fn add(&mut self, name: &str, object: &ObjectMeta) {
        let place = match name {
            paths::META => &mut self.meta,
            paths::DELETION_MARK => &mut self.deletion,
            paths::NO_COMPACT_MARK => &mut self.no_compact,
            paths::NO_DOWNSAMPLE_MARK => &mut self.no_downsample,
            _ => return,
        };
        *place = Some(tag(object));
    }
}

/// What identifies the content of an object. It is never empty.
fn tag(object: &ObjectMeta) -> Tag {
    match &object.e_tag {
        Some(tag) if !tag.is_empty() => tag.as_str().into(),
        _ => {
            let modified = object.last_modified.timestamp_micros();
            format!("{modified}-{}", object.size).into()
        }
    }
}

/// The blocks that have a directory.
pub(super) async fn directories(
    bucket: &Arc<dyn ObjectStore>,
) -> Result<Vec<BlockId>, object_store::Error> {
    let top = bucket.list_with_delimiter(None).await?;
    let names = top.common_prefixes.iter();
    Ok(names
        .filter_map(|path| paths::parse(path))
        .filter(|(_, name)| name.is_empty())
        .map(|(block, _)| block)
        .collect())
}

/// The files of each of `blocks`. A block whose files are gone meanwhile is left out.
pub(super) async fn each(
    bucket: &Arc<dyn ObjectStore>,
    blocks: Vec<BlockId>,
) -> Result<BTreeMap<BlockId, Listed>, object_store::Error> {
    let list = |block: BlockId| async move {
        let directory = paths::directory(block);
        let files = bucket.list_with_delimiter(Some(&directory)).await?;
        let mut listed = Listed::default();
        for object in &files.objects {
            if let Some((_, name)) = paths::parse(&object.location) {
                listed.add(name, object);
            }
        }
        let gone = files.objects.is_empty() && files.common_prefixes.is_empty();
        Ok((!gone).then_some((block, listed)))
    };
    stream::iter(blocks)
        .map(list)
        .buffer_unordered(LISTINGS_MAX)
        .try_filter_map(|found| async move { Ok(found) })
        .try_collect()
        .await
}

/// The files of all blocks, by one listing of everything.
pub(super) async fn everything(
    bucket: &Arc<dyn ObjectStore>,
) -> Result<BTreeMap<BlockId, Listed>, object_store::Error> {
    let mut blocks = BTreeMap::<BlockId, Listed>::new();
    let mut objects = bucket.list(None);
    while let Some(object) = objects.try_next().await? {
        if let Some((block, name)) = paths::parse(&object.location)
            && !name.is_empty()
        {
            blocks.entry(block).or_default().add(name, &object);
        }
    }
    Ok(blocks)
}
