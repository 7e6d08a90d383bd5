//! What was read of the blocks of a bucket, kept in one file of the data directory, so that a start
//! reads nothing but a listing. It is only a cache: a file that cannot be read is as good as none.
//!
//! ```text
//! "isobar-metas 1\n"
//! for each block:  ulid (16 bytes)  then four times: tag, content
//!                  (meta.json, deletion mark, no-compact mark, no-downsample mark)
//! CRC32C of all before (4 bytes, big endian)
//!
//! tag, content:    length (4 bytes, big endian), bytes; both empty for a mark that is not there
//! ```
//!
//! One file and not one for each block, as Thanos has it: with 10,000 blocks that is one read
//! instead of 10,000.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use isobar_tsdb::encoding::crc32c;
use ulid::Ulid;

use super::marks::{DeletionMark, Mark, NoCompactMark, NoDownsampleMark};
use super::meta::Meta;
use super::paths::{self, BlockId};
use crate::files;

const MAGIC: &[u8] = b"isobar-metas 1\n";
const NAME: &str = "isobar-metas";

/// What identifies the content of an object without reading it, as a listing says it.
pub(super) type Tag = String;

/// A block of which everything was read, and the tags of what was read.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) meta_tag: Tag,
    pub(super) meta: Arc<Meta>,
    pub(super) deletion: Option<(Tag, DeletionMark)>,
    pub(super) no_compact: Option<(Tag, NoCompactMark)>,
    pub(super) no_downsample: Option<(Tag, NoDownsampleMark)>,
}

/// Entries by block.
pub(super) type Entries = HashMap<BlockId, Entry>;

/// Reads the file in `directory`; `None` when there is none or it cannot be used.
pub(super) fn load(directory: &Path) -> Option<Entries> {
    let path = directory.join(NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "known blocks cannot be read from disk");
            }
            return None;
        }
    };
    let entries = decode(&bytes);
    if entries.is_none() {
        tracing::warn!(path = %path.display(), "the file of known blocks is damaged and left aside");
    }
    entries
}

/// Replaces the file in `directory`.
pub(super) fn save(directory: &Path, entries: &Entries) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let bytes = encode(entries);
    let temporary = directory.join(format!("{NAME}.tmp"));
    files::replace(&directory.join(NAME), &temporary, [bytes.as_slice()])
}

fn encode(entries: &Entries) -> Vec<u8> {
    fn put(out: &mut Vec<u8>, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(bytes.get(..len as usize).unwrap_or_default());
    }
    fn put_mark<M: Mark>(out: &mut Vec<u8>, mark: Option<&(Tag, M)>) {
        put(out, mark.map_or("", |(tag, _)| tag).as_bytes());
        put(
            out,
            &mark.map(|(_, mark)| mark.encode()).unwrap_or_default(),
        );
    }
    let mut order: Vec<_> = entries.iter().collect();
    order.sort_by_key(|(id, _)| **id);
    let mut out = MAGIC.to_vec();
    for (id, entry) in order {
        out.extend_from_slice(&id.to_bytes());
        put(&mut out, entry.meta_tag.as_bytes());
        put(&mut out, &entry.meta.encode());
        put_mark(&mut out, entry.deletion.as_ref());
        put_mark(&mut out, entry.no_compact.as_ref());
        put_mark(&mut out, entry.no_downsample.as_ref());
    }
    let sum = crc32c(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    out
}

/// The texts of a block as they stand in the file.
struct Texts<'a> {
    id: BlockId,
    fields: [&'a [u8]; 8],
}

fn decode(bytes: &[u8]) -> Option<Entries> {
    let (content, sum) = bytes.split_last_chunk::<4>()?;
    let mut rest = content.strip_prefix(MAGIC)?;
    if crc32c(content) != u32::from_be_bytes(*sum) {
        return None;
    }
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let (id, behind) = rest.split_first_chunk::<16>()?;
        rest = behind;
        let mut fields = [&rest[..0]; 8];
        for field in &mut fields {
            let (len, behind) = rest.split_first_chunk::<4>()?;
            (*field, rest) = behind.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        }
        let id = Ulid::from_bytes(*id);
        blocks.push(Texts { id, fields });
    }
    parse_all(&blocks)
}

/// Blocks that one thread parses.
const SLICE_BLOCKS: usize = 512;

/// JSON takes most of the time of a start, so all cores share it.
fn parse_all(blocks: &[Texts<'_>]) -> Option<Entries> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let slice = blocks.len().div_ceil(threads).max(SLICE_BLOCKS);
    let parse_slice = |slice: &[Texts<'_>]| slice.iter().map(parse).collect::<Option<Vec<_>>>();
    let parsed: Option<Vec<Vec<_>>> = std::thread::scope(|scope| {
        let mut slices = blocks.chunks(slice);
        let first = slices.next();
        let others: Vec<_> = slices
            .map(|slice| scope.spawn(move || parse_slice(slice)))
            .collect();
        let first = parse_slice(first.unwrap_or_default());
        let others = others
            .into_iter()
            .map(|thread| thread.join().ok().flatten());
        std::iter::once(first).chain(others).collect()
    });
    Some(parsed?.into_iter().flatten().collect())
}

fn parse(block: &Texts<'_>) -> Option<(BlockId, Entry)> {
    fn mark<M: Mark>(tag: &[u8], json: &[u8]) -> Option<Option<(Tag, M)>> {
        if tag.is_empty() {
            return Some(None);
        }
        let mark = M::decode(M::FILE, json).ok()?;
        Some(Some((text(tag)?, mark)))
    }
    let [
        meta_tag,
        meta,
        tag_1,
        deletion,
        tag_2,
        compact,
        tag_3,
        downsample,
    ] = block.fields;
    let meta = Meta::decode(paths::META, meta).ok()?;
    (meta.id() == block.id).then_some(())?;
    let entry = Entry {
        meta_tag: text(meta_tag)?,
        meta: Arc::new(meta),
        deletion: mark(tag_1, deletion)?,
        no_compact: mark(tag_2, compact)?,
        no_downsample: mark(tag_3, downsample)?,
    };
    Some((block.id, entry))
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use isobar_tsdb::block::meta::BlockMeta;

    use super::*;

    fn entries(count: u64) -> Entries {
        let entry = |number: u64| {
            let id = Ulid::from_parts(number, 7);
            let meta = Meta::from_block("test", BlockMeta::new(id, 0, 10)).unwrap();
            let mark = DeletionMark::new(id, 5, "why");
            let entry = Entry {
                meta_tag: format!("tag-{number}"),
                meta: Arc::new(meta),
                deletion: number.is_multiple_of(2).then(|| ("m".to_owned(), mark)),
                no_compact: None,
                no_downsample: None,
            };
            (id, entry)
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path()).is_none());
        for count in [0, 3, 2000] {
            let saved = entries(count);
            save(directory.path(), &saved).unwrap();
            let loaded = load(directory.path()).unwrap();
            assert_eq!(loaded.len(), saved.len());
            for (id, entry) in &saved {
                let other = &loaded[id];
                assert_eq!(other.meta, entry.meta);
                assert_eq!(other.meta_tag, entry.meta_tag);
                assert_eq!(other.deletion, entry.deletion);
            }
        }
    }

    #[test]
    fn damage_is_noticed() {
        let bytes = encode(&entries(3));
        assert!(decode(&bytes).is_some());
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_none(), "cut at {len}");
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(decode(&bytes).is_none(), "changed at {at}");
        }
    }
}
