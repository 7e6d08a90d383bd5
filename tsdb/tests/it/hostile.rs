//! Blocks with damage in every section: what is read of them is right, or the error says where the damage
//! is. Nothing panics, and what a checksum covers is never silently wrong.

use std::fs;
use std::path::{Path, PathBuf};

use isobar_model::{Matcher, TimeRange};
use isobar_tsdb::block::BlockReader;
use isobar_tsdb::block::tools::verify;
use isobar_tsdb::encoding::crc32c;
use isobar_tsdb::{Db, Error};

use crate::golden::{dump_all, golden_blocks};
use crate::support::{config, copy_dir};

/// A deterministic source of places and bits (xorshift).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// A copy of a block in a directory of its own, whose files are damaged and mended.
struct Victim {
    _parent: tempfile::TempDir,
    dir: PathBuf,
    expected: String,
}

impl Victim {
    fn new(block: &Path) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join(block.file_name().unwrap());
        copy_dir(block, &dir);
        let expected = dump_all(&BlockReader::open(&dir).unwrap());
        Victim {
            _parent: parent,
            dir,
            expected,
        }
    }

    /// Reads all with these bytes in the place of a file: `Ok` says whether it is what was written.
    fn read_with(&self, file: &str, bytes: &[u8]) -> Result<bool, Error> {
        let path = self.dir.join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let read = read_all(&self.dir).map(|text| text == self.expected);
        // It goes to the end and finds what the reader found.
        let report = verify(&self.dir).unwrap();
        if let Err(e) = &read {
            assert!(!report.is_clean(), "{file}: {e}, but nothing was found");
        }
        fs::write(&path, whole).unwrap();
        read
    }
}

/// Everything that a reader can be asked for.
fn read_all(dir: &Path) -> Result<String, Error> {
    let block = BlockReader::open(dir)?;
    for name in block.label_names(&[], TimeRange::ALL)? {
        for value in block.label_values(&name, &[], TimeRange::ALL)? {
            let matcher = Matcher::equal(name.as_str(), value.as_str());
            for series in block.select(&[matcher], TimeRange::ALL)? {
                series?;
            }
        }
    }
    let mut text = Vec::new();
    isobar_tsdb::block::tools::dump(&block, &[], TimeRange::ALL, &mut text)?;
    isobar_tsdb::block::tools::stats(&block)?;
    Ok(String::from_utf8(text).unwrap())
}

/// Whether an error is one that names block, file and place.
fn names_its_place(victim: &Victim, file: &str, error: &Error) -> bool {
    let block = victim.dir.file_name().unwrap().to_string_lossy();
    let placed = error
        .place()
        .is_some_and(|place| place.block.as_deref() == Some(&*block) && place.file == file);
    // A version that is not known is no damage; the text names the file.
    placed || matches!(error, Error::Unsupported(text) if text.contains(&*block))
}

const CHECKED_FILES: [&str; 3] = ["index", "chunks/000001", "tombstones"];

#[test]
fn a_changed_bit_is_named_or_changes_nothing() {
    let mut seeded = Seeded(0x9e37_79b9_7f4a_7c15);
    let (mut named, mut unchanged) = (0, 0);
    for (version, block) in golden_blocks() {
        let victim = Victim::new(&block);
        for file in CHECKED_FILES {
            let bytes = fs::read(victim.dir.join(file)).unwrap();
            // One checksum covers a whole chunk: a part of its bytes will do.
            let step = if file == "index" { 1 } else { 3 };
            for at in (0..bytes.len()).step_by(step) {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << seeded.next(8);
                match victim.read_with(file, &damaged) {
                    Ok(same) => {
                        assert!(same, "{version} {file} byte {at}: other data");
                        unchanged += 1;
                    }
                    Err(e) => {
                        let it = names_its_place(&victim, file, &e);
                        assert!(it, "{version} {file} byte {at}: {e:?}");
                        named += 1;
                    }
                }
            }
        }
    }
    // Padding, the old label indices, and three bytes behind the version of a segment file.
    assert!(
        unchanged * 4 < named,
        "{unchanged} unchanged, {named} named"
    );
}

#[test]
fn a_cut_file_is_named() {
    for (version, block) in golden_blocks() {
        let victim = Victim::new(&block);
        for file in CHECKED_FILES {
            let bytes = fs::read(victim.dir.join(file)).unwrap();
            for len in (0..bytes.len()).step_by(7) {
                match victim.read_with(file, &bytes[..len]) {
                    Ok(_) => panic!("{version} {file} of {len} bytes is read"),
                    Err(e) => {
                        let it = names_its_place(&victim, file, &e);
                        assert!(it, "{version} {file} of {len} bytes: {e:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn huge_lengths_are_not_believed() {
    let mut seeded = Seeded(0x2545_f491_4f6c_dd1d);
    let huge: [&[u8]; 4] = [
        &[0xff; 4],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    ];
    for (version, block) in golden_blocks() {
        let victim = Victim::new(&block);
        for file in CHECKED_FILES {
            let bytes = fs::read(victim.dir.join(file)).unwrap();
            for _ in 0..150 {
                let length = huge[seeded.next(huge.len())];
                let at = seeded.next(bytes.len());
                let mut damaged = bytes.clone();
                let end = (at + length.len()).min(damaged.len());
                damaged[at..end].copy_from_slice(&length[..end - at]);
                match victim.read_with(file, &damaged) {
                    Ok(same) => assert!(same, "{version} {file} at {at}: other data"),
                    Err(e) => {
                        let it = names_its_place(&victim, file, &e);
                        assert!(it, "{version} {file} at {at}: {e:?}");
                    }
                }
            }
        }
    }
}

/// Where a checksum was made to fit, data may be other data, but nothing panics or asks for all memory,
/// and what cannot be right is an error.
#[test]
fn checksums_that_fit_do_not_make_it_believed() {
    let mut seeded = Seeded(0x1234_5678_9abc_def1);
    for (_, block) in golden_blocks() {
        let victim = Victim::new(&block);
        for file in CHECKED_FILES {
            let bytes = fs::read(victim.dir.join(file)).unwrap();
            for (begin, len) in checked_parts(&bytes) {
                for round in 0..12 {
                    let mut damaged = bytes.clone();
                    let at = begin + seeded.next(len);
                    match round % 3 {
                        0 => damaged[at] ^= 1 << seeded.next(8),
                        1 => damaged[at] = 0xff,
                        _ => {
                            let end = (at + 5).min(begin + len);
                            damaged[at..end].fill(0xff);
                        }
                    }
                    let checksum = crc32c(&damaged[begin..begin + len]);
                    damaged[begin + len..begin + len + 4].copy_from_slice(&checksum.to_be_bytes());
                    let path = victim.dir.join(file);
                    fs::write(&path, &damaged).unwrap();
                    let read = read_all(&victim.dir);
                    if let Err(e) = read {
                        assert!(
                            matches!(e, Error::Corrupt { .. } | Error::Unsupported(_)),
                            "{e:?}"
                        );
                    }
                    verify(&victim.dir).unwrap();
                }
            }
            fs::write(victim.dir.join(file), &bytes).unwrap();
        }
    }
}

/// The parts of a file that a checksum follows: begin and length, found by trying.
fn checked_parts(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut parts = Vec::new();
    let mut begin = 0;
    while begin + 4 < bytes.len() {
        let fits = |len: &usize| {
            let stored = &bytes[begin + len..begin + len + 4];
            crc32c(&bytes[begin..begin + len]).to_be_bytes() == stored
        };
        match (4..bytes.len() - begin - 3).find(fits) {
            Some(len) => {
                parts.push((begin, len));
                begin += len + 4;
            }
            None => begin += 1,
        }
    }
    parts
}

#[test]
fn a_changed_meta_never_panics() {
    let mut seeded = Seeded(0xdead_beef_cafe_f00d);
    for (_, block) in golden_blocks() {
        let victim = Victim::new(&block);
        let bytes = fs::read(victim.dir.join("meta.json")).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << seeded.next(8);
            // No checksum covers it: times may be other times, and then samples are left out.
            if let Err(e) = victim.read_with("meta.json", &damaged) {
                assert!(
                    names_its_place(&victim, "meta.json", &e),
                    "byte {at}: {e:?}"
                );
            }
        }
    }
}

/// Through a database: a damaged block is left out and told of, and all else is served.
#[test]
fn a_database_serves_what_is_left() {
    let mut seeded = Seeded(0x0bad_cafe_0bad_cafe);
    let [(_, old), (_, new)] = golden_blocks();
    for file in ["index", "chunks/000001", "tombstones"] {
        for _ in 0..8 {
            let dir = tempfile::tempdir().unwrap();
            let (whole, hurt) = (
                dir.path().join(old.file_name().unwrap()),
                dir.path().join(new.file_name().unwrap()),
            );
            copy_dir(&old, &whole);
            copy_dir(&new, &hurt);
            let mut bytes = fs::read(hurt.join(file)).unwrap();
            let at = seeded.next(bytes.len());
            bytes[at] ^= 1 << seeded.next(8);
            fs::write(hurt.join(file), bytes).unwrap();

            let (config, events) = config(dir.path());
            let db = Db::open(config).unwrap();
            let count = |db: &Db| -> Result<usize, Error> {
                let series = db.select(None, &[], TimeRange::ALL)?;
                Ok(series.collect::<Result<Vec<_>, Error>>()?.len())
            };
            let broken = match count(&db) {
                Ok(7) => db.quarantined().len() == 1,
                Ok(6) => true,
                Ok(other) => panic!("{file} byte {at}: {other} series"),
                Err(e) => {
                    assert!(e.place().is_some(), "{file} byte {at}: {e:?}");
                    true
                }
            };
            if broken {
                assert_eq!(db.quarantined().len(), 1, "{file} byte {at}");
                assert!(
                    events
                        .lock()
                        .unwrap()
                        .iter()
                        .any(|it| it.contains("corrupt"))
                );
                assert_eq!(count(&db).unwrap(), 6);
            }
        }
    }
}
