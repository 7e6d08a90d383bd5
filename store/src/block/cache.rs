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
//! instead of 10,000. It is read and written piece by piece, for it may be larger than all else that
//! is kept of the blocks; where the text of a `meta.json` lies is remembered in its place.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use isobar_tsdb::encoding::Crc32c;
use ulid::Ulid;

use super::known::{KnownMeta, LabelSets, Summary};
use super::marks::{DeletionMark, Mark, NoCompactMark, NoDownsampleMark};
use super::meta::Meta;
use super::paths::{self, BlockId};
use crate::files;

const MAGIC: &[u8] = b"isobar-metas 1\n";
const NAME: &str = "isobar-metas";
/// Texts of a block: a tag and a content each for its meta and three marks.
const FIELDS: usize = 8;

/// What identifies the content of an object without reading it, as a listing says it.
pub(super) type Tag = Box<str>;

/// A mark that was read, and its tag.
pub(super) type Tagged<M> = Option<(Tag, Arc<M>)>;

/// A block of which everything was read, and the tags of what was read.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) meta_tag: Tag,
    pub(super) meta: Arc<KnownMeta>,
    pub(super) deletion: Tagged<DeletionMark>,
    pub(super) no_compact: Tagged<NoCompactMark>,
    pub(super) no_downsample: Tagged<NoDownsampleMark>,
}

/// Entries by block.
pub(super) type Entries = HashMap<BlockId, Entry>;

/// Reads the file in `directory`; `None` when there is none or it cannot be used.
pub(super) fn load(directory: &Path) -> Option<Entries> {
    let path = directory.join(NAME);
    let read = File::open(&path).and_then(|file| decode(Arc::new(file)));
    match read {
        Ok(Some(entries)) => Some(entries),
        Ok(None) => {
            tracing::warn!(path = %path.display(), "the file of known blocks is damaged and left aside");
            None
        }
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "known blocks cannot be read from disk");
            }
            None
        }
    }
}

/// Replaces the file in `directory`. The texts of metas need not be held from then on.
pub(super) fn save(directory: &Path, entries: &Entries) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let temporary = directory.join(format!("{NAME}.tmp"));
    let path = directory.join(NAME);
    let (file, places) = files::replace_with(&path, &temporary, |file| encode(file, entries))?;
    let file = Arc::new(file);
    for (meta, at, len) in places {
        meta.is_stored(&file, at, len);
    }
    Ok(())
}

/// A meta, and where its text lies in a file.
type Place<'a> = (&'a KnownMeta, u64, u32);

/// Writes with a checksum.
struct Summed<'a> {
    to: BufWriter<&'a mut File>,
    sum: Crc32c,
    at: u64,
}

impl Summed<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.at += bytes.len() as u64;
        self.to.write_all(bytes)
    }

    /// Bytes behind their length, which has to fit.
    fn put_field(&mut self, bytes: &[u8]) -> io::Result<u32> {
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.put(&len.to_be_bytes())?;
        self.put(bytes)?;
        Ok(len)
    }

    fn put_mark<M: Mark>(&mut self, mark: &Tagged<M>) -> io::Result<()> {
        let (tag, content) = match mark {
            Some((tag, mark)) => (&**tag, mark.encode()),
            None => ("", Vec::new()),
        };
        self.put_field(tag.as_bytes())?;
        self.put_field(&content).map(drop)
    }
}

fn encode<'a>(file: &mut File, entries: &'a Entries) -> io::Result<Vec<Place<'a>>> {
    let mut order: Vec<_> = entries.iter().collect();
    order.sort_by_key(|(id, _)| **id);
    let mut out = Summed {
        to: BufWriter::new(file),
        sum: Crc32c::new(),
        at: 0,
    };
    let mut places = Vec::with_capacity(order.len());
    out.put(MAGIC)?;
    for (id, entry) in order {
        let json = match entry.meta.json() {
            Ok(json) => json,
            Err(error) => {
                // The next start reads it from the bucket.
                tracing::warn!(block = %id, %error, "what is known of a block cannot be read back");
                continue;
            }
        };
        out.put(&id.to_bytes())?;
        out.put_field(entry.meta_tag.as_bytes())?;
        let len = out.put_field(&json)?;
        places.push((&*entry.meta, out.at - u64::from(len), len));
        out.put_mark(&entry.deletion)?;
        out.put_mark(&entry.no_compact)?;
        out.put_mark(&entry.no_downsample)?;
    }
    let sum = out.sum.finish();
    out.to.write_all(&sum.to_be_bytes())?;
    out.to.flush()?;
    Ok(places)
}

/// Where the texts of a block lie in the file.
struct Record {
    id: BlockId,
    /// Of the first length.
    at: u64,
    lens: [u32; FIELDS],
}

impl Record {
    fn bytes(&self) -> u64 {
        self.lens.iter().map(|len| 4 + u64::from(*len)).sum()
    }

    /// The place of a field behind the start of the record.
    fn field(&self, number: usize) -> Range<usize> {
        let before = self.lens.iter().take(number);
        let start = before.map(|len| 4 + *len as usize).sum::<usize>() + 4;
        start..start + self.lens.get(number).map_or(0, |len| *len as usize)
    }
}

/// Reads with a checksum, up to an end.
struct Scanner<'a> {
    from: BufReader<&'a File>,
    sum: Crc32c,
    at: u64,
    end: u64,
}

impl Scanner<'_> {
    /// Passes over bytes; false when there are not so many.
    fn pass(&mut self, bytes: u64, mut see: impl FnMut(&[u8])) -> io::Result<bool> {
        if bytes > self.end - self.at {
            return Ok(false);
        }
        let mut left = bytes;
        while left > 0 {
            let some = self.from.fill_buf()?;
            let len = some.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let some = some.get(..len).unwrap_or_default();
            if some.is_empty() {
                return Ok(false);
            }
            self.sum.update(some);
            see(some);
            self.from.consume(len);
            left -= len as u64;
        }
        self.at += bytes;
        Ok(true)
    }

    /// The next bytes; none when there are not so many.
    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut taken = Vec::with_capacity(N);
        let whole = self.pass(N as u64, |some| taken.extend_from_slice(some))?;
        Ok(whole.then(|| taken.try_into().ok()).flatten())
    }

    /// A block; none when it is cut.
    fn record(&mut self) -> io::Result<Option<Record>> {
        let Some(id) = self.take::<16>()? else {
            return Ok(None);
        };
        let at = self.at;
        let mut lens = [0; FIELDS];
        for len in &mut lens {
            let Some(bytes) = self.take::<4>()? else {
                return Ok(None);
            };
            *len = u32::from_be_bytes(bytes);
            if !self.pass(u64::from(*len), |_| ())? {
                return Ok(None);
            }
        }
        let id = Ulid::from_bytes(id);
        Ok(Some(Record { id, at, lens }))
    }
}

/// Nothing when the file is damaged.
fn scan(file: &File) -> io::Result<Option<Vec<Record>>> {
    let len = file.metadata()?.len();
    let Some(end) = len.checked_sub(4) else {
        return Ok(None);
    };
    let mut scanner = Scanner {
        from: BufReader::with_capacity(64 << 10, file),
        sum: Crc32c::new(),
        at: 0,
        end,
    };
    let magic = scanner.take::<{ MAGIC.len() }>()?;
    if magic.is_none_or(|magic| magic != *MAGIC) {
        return Ok(None);
    }
    let mut records = Vec::new();
    while scanner.at < end {
        let Some(record) = scanner.record()? else {
            return Ok(None);
        };
        records.push(record);
    }
    let mut sum = [0; 4];
    file.read_exact_at(&mut sum, end)?;
    Ok((scanner.sum.finish() == u32::from_be_bytes(sum)).then_some(records))
}

fn decode(file: Arc<File>) -> io::Result<Option<Entries>> {
    let Some(records) = scan(&file)? else {
        return Ok(None);
    };
    parse_all(&file, &records)
}

/// Blocks that one thread parses.
const SLICE_BLOCKS: usize = 512;

/// JSON takes most of the time of a start, so all cores share it.
fn parse_all(file: &Arc<File>, records: &[Record]) -> io::Result<Option<Entries>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let slice = records.len().div_ceil(threads).max(SLICE_BLOCKS);
    let sets = LabelSets::default();
    let parse_slice = |slice: &[Record]| -> io::Result<Option<Vec<_>>> {
        let mut bytes = Vec::new();
        let mut parsed = Vec::with_capacity(slice.len());
        for record in slice {
            bytes.resize(usize::try_from(record.bytes()).unwrap_or(usize::MAX), 0);
            file.read_exact_at(&mut bytes, record.at)?;
            match parse(file, record, &bytes, &sets) {
                Some(block) => parsed.push(block),
                None => return Ok(None),
            }
        }
        Ok(Some(parsed))
    };
    let parsed: io::Result<Vec<Option<Vec<_>>>> = std::thread::scope(|scope| {
        let mut slices = records.chunks(slice);
        let first = slices.next();
        let others: Vec<_> = slices
            .map(|slice| scope.spawn(|| parse_slice(slice)))
            .collect();
        let first = parse_slice(first.unwrap_or_default());
        let others = others.into_iter().map(|thread| {
            let panicked = |_| Err(io::Error::other("a thread that parses panicked"));
            thread.join().unwrap_or_else(panicked)
        });
        std::iter::once(first).chain(others).collect()
    });
    let slices: Option<Vec<Vec<_>>> = parsed?.into_iter().collect();
    Ok(slices.map(|slices| slices.into_iter().flatten().collect()))
}

fn parse(
    file: &Arc<File>,
    record: &Record,
    bytes: &[u8],
    sets: &LabelSets,
) -> Option<(BlockId, Entry)> {
    fn mark<M: Mark>(tag: &[u8], json: &[u8]) -> Option<Tagged<M>> {
        if tag.is_empty() {
            return Some(None);
        }
        let mark = M::decode(M::FILE, json).ok()?;
        Some(Some((text(tag)?, Arc::new(mark))))
    }
    let field = |number| bytes.get(record.field(number)).unwrap_or_default();
    let meta = Meta::decode(paths::META, field(1)).ok()?;
    (meta.id() == record.id).then_some(())?;
    let at = record.at + record.field(1).start as u64;
    let len = record.lens[1];
    let meta = KnownMeta::stored(Summary::of(&meta), file, at, len).sharing(sets);
    let entry = Entry {
        meta_tag: text(field(0))?,
        meta: Arc::new(meta),
        deletion: mark(field(2), field(3))?,
        no_compact: mark(field(4), field(5))?,
        no_downsample: mark(field(6), field(7))?,
    };
    Some((record.id, entry))
}

fn text(bytes: &[u8]) -> Option<Tag> {
    std::str::from_utf8(bytes).ok().map(Tag::from)
}

#[cfg(test)]
mod tests {
    use isobar_tsdb::block::meta::BlockMeta;

    use super::*;

    fn entries(count: u64) -> Entries {
        let entry = |number: u64| {
            let id = Ulid::from_parts(number, 7);
            let mut meta = Meta::from_block("test", BlockMeta::new(id, 0, 10)).unwrap();
            let labels = [
                ("cluster", "eu".to_owned()),
                ("n", (number % 3).to_string()),
            ];
            meta.thanos.labels = labels.map(|(name, value)| (name.into(), value)).into();
            let mark = Arc::new(DeletionMark::new(id, 5, "why"));
            let entry = Entry {
                meta_tag: format!("tag-{number}").into(),
                meta: Arc::new(KnownMeta::from(&meta)),
                deletion: number.is_multiple_of(2).then(|| ("m".into(), mark)),
                no_compact: None,
                no_downsample: None,
            };
            (id, entry)
        };
        (0..count).map(entry).collect()
    }

    fn check_same(loaded: &Entries, saved: &Entries) {
        assert_eq!(loaded.len(), saved.len());
        for (id, entry) in saved {
            let other = &loaded[id];
            assert_eq!(**other.meta, **entry.meta);
            assert_eq!(other.meta.whole().unwrap(), entry.meta.whole().unwrap());
            assert_eq!(other.meta_tag, entry.meta_tag);
            assert_eq!(other.deletion, entry.deletion);
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path()).is_none());
        for count in [0, 3, 2000] {
            let saved = entries(count);
            save(directory.path(), &saved).unwrap();
            let loaded = load(directory.path()).unwrap();
            check_same(&loaded, &saved);
            // The old file is read, and in the same place a new one is written.
            save(directory.path(), &loaded).unwrap();
            check_same(&loaded, &entries(count));
            check_same(&load(directory.path()).unwrap(), &entries(count));
        }
    }

    #[test]
    fn blocks_with_the_same_labels_share_them() {
        let directory = tempfile::tempdir().unwrap();
        save(directory.path(), &entries(30)).unwrap();
        let loaded = load(directory.path()).unwrap();
        let texts = loaded.values().map(|it| it.meta.labels.as_bytes().as_ptr());
        let texts: std::collections::BTreeSet<_> = texts.collect();
        assert_eq!(texts.len(), 3);
    }

    #[test]
    fn damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        save(directory.path(), &entries(3)).unwrap();
        let path = directory.path().join(NAME);
        let bytes = std::fs::read(&path).unwrap();
        let check = |bytes: &[u8]| {
            let other = directory.path().join("other");
            std::fs::write(&other, bytes).unwrap();
            decode(Arc::new(File::open(&other).unwrap())).unwrap()
        };
        assert!(check(&bytes).is_some());
        for len in 0..bytes.len() {
            assert!(check(&bytes[..len]).is_none(), "cut at {len}");
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(check(&bytes).is_none(), "changed at {at}");
        }
    }
}
