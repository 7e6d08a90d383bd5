//! Checks a block from end to end: that every byte which has a rule follows it, and that `meta.json`,
//! index, chunks and tombstones say the same.
//!
//! Where a reader stops at the first thing that is wrong, this goes on, so that a report shows how
//! much of a block is left.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use isobar_model::Columns;

use crate::Error;
use crate::block::meta::{BlockMeta, BlockStats};
use crate::block::{CHUNKS_DIR, INDEX_FILE, META_FILE, TOMBSTONES_FILE};
use crate::chunks::segment::{check_header, read_chunk};
use crate::chunks::{Chunk, Encoding};
use crate::index::verify::{Checked, verify as verify_index};
use crate::index::{ChunkMeta, SeriesRef};
use crate::mmap::map_file;
use crate::tombstones::Tombstones;

/// A report lists at most this many findings, and counts the rest.
pub const FINDINGS_MAX: usize = 1000;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name of the block's directory.
    pub block: String,
    /// The file inside of it, such as `index` or `chunks/000001`.
    pub file: String,
    /// Where in the file, in bytes; `None` where no single place is wrong.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.block, self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What a check has found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// What is wrong, file by file.
    pub findings: Vec<Finding>,
    /// How many more there were than [`FINDINGS_MAX`].
    pub left_out: u64,
    /// What could be read.
    pub read: BlockStats,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Checks the block in `dir`. What is wrong with its content is in the report, also when files are
/// missing.
///
/// # Errors
/// [`Error::Io`] when there is no such directory, or a file that is there cannot be read.
pub fn verify(dir: &Path) -> Result<Report, Error> {
    let block = dir
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    std::fs::metadata(dir).map_err(|e| Error::io("open", dir, e))?;
    let mut check = Check {
        dir,
        block: block.unwrap_or_default(),
        report: Report::default(),
        uncounted: false,
    };
    let meta = check.meta()?;
    let series = check.index_and_chunks(meta.as_ref())?;
    let stones = check.tombstones(&series)?;
    if let Some(meta) = meta {
        check.compare(&meta, stones, series.incomplete);
    }
    Ok(check.report)
}

struct Check<'a> {
    dir: &'a Path,
    block: String,
    report: Report,
    /// Whether there are chunks whose samples are not counted: they cannot be read, or they are
    /// downsampled and stand for more than they hold.
    uncounted: bool,
}

impl Check<'_> {
    fn found(&mut self, file: &str, offset: Option<u64>, what: impl Into<String>) {
        if self.report.findings.len() >= FINDINGS_MAX {
            self.report.left_out += 1;
            return;
        }
        self.report.findings.push(Finding {
            block: self.block.clone(),
            file: file.to_owned(),
            offset,
            what: what.into(),
        });
    }

    /// A file that has to be there.
    fn map(&mut self, file: &str) -> Result<Option<Bytes>, Error> {
        match map_file(&self.dir.join(file)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                self.found(file, None, "the file is missing");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn meta(&mut self) -> Result<Option<BlockMeta>, Error> {
        let Some(json) = self.map(META_FILE)? else {
            return Ok(None);
        };
        let meta = match BlockMeta::decode(META_FILE, &json) {
            Ok(meta) => meta,
            Err(Error::Corrupt { why, place, .. }) => {
                self.found(META_FILE, place.map(|it| it.offset), why);
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        if meta.ulid.to_string() != self.block {
            self.found(META_FILE, None, format!("the ULID is {}", meta.ulid));
        }
        if meta.min_ms >= meta.end_ms {
            let (begin, end) = (meta.min_ms, meta.end_ms);
            self.found(
                META_FILE,
                None,
                format!("the block begins at {begin} and ends at {end}"),
            );
        }
        Ok(Some(meta))
    }

    fn index_and_chunks(&mut self, meta: Option<&BlockMeta>) -> Result<Checked, Error> {
        let segments = self.segments()?;
        let Some(index) = self.map(INDEX_FILE)? else {
            return Ok(Checked::NOTHING);
        };
        let mut findings: Vec<(u64, String)> = Vec::new();
        let mut listed: Vec<(u64, ChunkMeta)> = Vec::new();
        let mut stats = BlockStats::default();
        let checked = verify_index(
            &index,
            &mut |at, chunks| {
                stats.num_series += 1;
                stats.num_chunks += chunks.len() as u64;
                listed.extend(chunks.iter().map(|chunk| (at, *chunk)));
            },
            &mut |at, what| {
                if findings.len() <= FINDINGS_MAX {
                    findings.push((at, what));
                }
            },
        );
        self.report.read = stats;
        for (at, what) in findings {
            self.found(INDEX_FILE, Some(at), what);
        }
        if let Some(meta) = meta {
            for (at, chunk) in &listed {
                if chunk.min_ms < meta.min_ms || chunk.max_ms >= meta.end_ms {
                    let (first, last) = (chunk.min_ms, chunk.max_ms);
                    let what = format!(
                        "series: a chunk from {first} to {last} is not within the times of the block"
                    );
                    self.found(INDEX_FILE, Some(*at), what);
                }
            }
        }
        self.chunks(&segments, &mut listed, checked.incomplete);
        Ok(checked)
    }

    /// The segment files by their number, as far as they have a header.
    fn segments(&mut self) -> Result<BTreeMap<u32, Option<Bytes>>, Error> {
        let dir = self.dir.join(CHUNKS_DIR);
        let mut segments = BTreeMap::new();
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.found(CHUNKS_DIR, None, "the directory is missing");
                return Ok(segments);
            }
            Err(e) => return Err(Error::io("list", dir, e)),
        };
        let mut files: Vec<(u32, PathBuf)> = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| Error::io("list", &dir, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            match name.and_then(|name| name.parse().ok()) {
                Some(number) => files.push((number, path)),
                None => self.found(
                    CHUNKS_DIR,
                    None,
                    format!("{} is no segment file", path.display()),
                ),
            }
        }
        files.sort_unstable();
        let mut expected = 1;
        for (number, path) in files {
            if number != expected {
                self.found(
                    CHUNKS_DIR,
                    None,
                    format!("there is no file {expected:06} before {number:06}"),
                );
            }
            expected = number.saturating_add(1);
            let bytes = map_file(&path)?;
            let whole = match check_header(&bytes) {
                Ok(()) => Some(bytes),
                Err(why) => {
                    self.found(&segment_name(number), Some(0), why);
                    None
                }
            };
            segments.insert(number, whole);
        }
        Ok(segments)
    }

    /// Checks every chunk that the index lists, in the order in which they lie.
    fn chunks(
        &mut self,
        segments: &BTreeMap<u32, Option<Bytes>>,
        listed: &mut [(u64, ChunkMeta)],
        incomplete: bool,
    ) {
        listed.sort_by_key(|(_, chunk)| chunk.reference);
        let mut columns = Columns::default();
        // Where the last chunk of each file ends; `None` behind one that cannot be read, since its length
        // cannot be believed.
        let mut ends: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for (series_at, meta) in listed.iter() {
            let number = meta.reference.segment().saturating_add(1);
            let offset = meta.reference.offset();
            let name = segment_name(number);
            let segment = match segments.get(&number) {
                Some(Some(segment)) => segment,
                Some(None) => {
                    self.uncounted = true;
                    continue;
                }
                None => {
                    self.found(
                        INDEX_FILE,
                        Some(*series_at),
                        format!("series: its chunk is in {name}, which is not there"),
                    );
                    continue;
                }
            };
            let at = u64::from(offset);
            match ends
                .get(&number)
                .copied()
                .unwrap_or(Some(SEGMENT_HEADER_BYTES))
            {
                Some(behind) if at < behind => {
                    self.found(
                        &name,
                        Some(at),
                        format!("chunk: the one before it ends at {behind}"),
                    );
                }
                Some(behind) if at > behind && !incomplete => {
                    self.found(
                        &name,
                        Some(behind),
                        format!("{} bytes belong to no series", at - behind),
                    );
                }
                _ => {}
            }
            let end = self.chunk(segment, &name, offset, meta, &mut columns);
            if let Err(what) = &end {
                self.uncounted = true;
                self.found(&name, Some(at), format!("chunk: {what}"));
            }
            ends.insert(number, end.ok());
        }
        for (number, segment) in segments {
            let end = ends
                .get(number)
                .copied()
                .unwrap_or(Some(SEGMENT_HEADER_BYTES));
            if let (Some(segment), Some(end), false) = (segment, end, incomplete)
                && end < segment.len() as u64
            {
                let left = segment.len() as u64 - end;
                self.found(
                    &segment_name(*number),
                    Some(end),
                    format!("{left} bytes belong to no series"),
                );
            }
        }
    }

    /// Checks one chunk and gives the offset behind it.
    fn chunk(
        &mut self,
        segment: &Bytes,
        name: &str,
        offset: u32,
        meta: &ChunkMeta,
        columns: &mut Columns,
    ) -> Result<u64, String> {
        let (code, data) = read_chunk(segment, offset).map_err(|e| e.to_string())?;
        // Before it is shared: what is empty is then nowhere.
        let begin = data.as_ptr().addr() - segment.as_ptr().addr();
        let end = (begin + data.len()) as u64 + CHECKSUM_BYTES;
        let data = segment.slice_ref(data);
        let encoding = Encoding::from_u8(code).ok_or_else(|| format!("unknown encoding {code}"))?;
        let chunk = Chunk {
            encoding,
            min_ms: meta.min_ms,
            max_ms: meta.max_ms,
            data,
        };
        if encoding == Encoding::Aggregate {
            // Its parts are chunks of their own kind, which are not decoded here yet.
            self.uncounted = true;
            return Ok(end);
        }
        columns.clear();
        let rising = match chunk.decode_as_is(columns) {
            Ok(rising) => rising,
            Err(e) => {
                self.uncounted = true;
                self.found(name, Some(u64::from(offset)), format!("chunk: {e}"));
                return Ok(end);
            }
        };
        let mut what = Vec::new();
        if !rising {
            what.push("times do not rise".to_owned());
        }
        let floats = columns.timestamps.iter().copied();
        let times: Vec<i64> = floats
            .chain(columns.histograms.iter().map(|it| it.0))
            .collect();
        let ends = times.iter().min().zip(times.iter().max());
        if ends != Some((&meta.min_ms, &meta.max_ms)) {
            let (min, max) = (meta.min_ms, meta.max_ms);
            what.push(match ends {
                Some((first, last)) => {
                    format!("holds {first} to {last}, the index says {min} to {max}")
                }
                None => "holds no sample".to_owned(),
            });
        }
        if chunk
            .sample_count()
            .is_ok_and(|count| usize::from(count) != times.len())
        {
            what.push("does not hold as many samples as it says".to_owned());
        }
        for what in what {
            self.found(name, Some(u64::from(offset)), format!("chunk: {what}"));
        }
        let stats = &mut self.report.read;
        stats.num_samples += times.len() as u64;
        stats.num_float_samples += columns.timestamps.len() as u64;
        stats.num_histogram_samples += columns.histograms.len() as u64;
        Ok(end)
    }

    /// Checks the tombstones, which need not be there, and counts them.
    fn tombstones(&mut self, checked: &Checked) -> Result<Option<u64>, Error> {
        let path = self.dir.join(TOMBSTONES_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(0)),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        let stones = match Tombstones::decode(TOMBSTONES_FILE, &bytes) {
            Ok(stones) => stones,
            Err(e) => {
                let (offset, why) = match e {
                    Error::Corrupt { why, place, .. } => (place.map(|it| it.offset), why),
                    other => (None, other.to_string()),
                };
                self.found(TOMBSTONES_FILE, offset, why);
                return Ok(None);
            }
        };
        if !checked.incomplete {
            let known: HashSet<SeriesRef> = checked.series.iter().copied().collect();
            for series in stones.series().filter(|series| !known.contains(series)) {
                self.found(
                    TOMBSTONES_FILE,
                    None,
                    format!("there is no series {}", series.0),
                );
            }
        }
        self.report.read.num_tombstones = stones.len() as u64;
        Ok(Some(stones.len() as u64))
    }

    /// Compares what was read with what `meta.json` says.
    fn compare(&mut self, meta: &BlockMeta, stones: Option<u64>, incomplete: bool) {
        let (said, read) = (&meta.stats, self.report.read.clone());
        let mut counts = Vec::new();
        if !incomplete {
            counts.push(("series", said.num_series, read.num_series));
            counts.push(("chunks", said.num_chunks, read.num_chunks));
            if !self.uncounted {
                counts.push(("samples", said.num_samples, read.num_samples));
                // Older writers do not tell one from the other.
                if said.num_float_samples + said.num_histogram_samples > 0 {
                    counts.push(("floats", said.num_float_samples, read.num_float_samples));
                    counts.push((
                        "histograms",
                        said.num_histogram_samples,
                        read.num_histogram_samples,
                    ));
                }
            }
        }
        counts.extend(stones.map(|stones| ("tombstones", said.num_tombstones, stones)));
        for (what, said, read) in counts {
            if said != read {
                self.found(
                    META_FILE,
                    None,
                    format!("says {said} {what}, there are {read}"),
                );
            }
        }
    }
}

const SEGMENT_HEADER_BYTES: u64 = 8;
const CHECKSUM_BYTES: u64 = 4;

fn segment_name(number: u32) -> String {
    format!("{CHUNKS_DIR}/{number:06}")
}
