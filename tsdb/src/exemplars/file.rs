//! The exemplars of a block, in a file of its directory.
//!
//! ```text
//! ┌───────────────────┬─────────────────────────────┬───────────────────┐
//! │ "ISOBAREX1" <9 b> │ payload of a log record     │ CRC-32C <4b>      │
//! └───────────────────┴─────────────────────────────┴───────────────────┘
//!                       exemplars (kind 7)            of all before it, little-endian
//! ```

use std::path::Path;

use isobar_model::{Exemplar, Labels, Matcher, Tenant, TimeRange};

use crate::Error;
use crate::encoding::crc32c;
use crate::wal::record::{ExemplarsEncoder, read_exemplars};

use super::matches_any;

/// The name of the file.
pub(crate) const EXEMPLARS_FILE: &str = "isobar-exemplars";

const MAGIC: &[u8] = b"ISOBAREX1";

/// The file with the payload of an exemplars record.
pub(crate) fn encode(payload: &[u8]) -> Vec<u8> {
    let mut bytes = [MAGIC, payload].concat();
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    bytes
}

/// Calls `each` with series and exemplar of all that lie beside the block in `dir`, if any.
///
/// # Errors
/// When the file cannot be read or is damaged; nothing was given to `each` then.
pub(crate) fn read(dir: &Path, mut each: impl FnMut(Labels, Exemplar)) -> Result<(), Error> {
    read_with_tenant(dir, |_, labels, exemplar| each(labels, exemplar))
}

/// The file of a copy of the block in `dir`, with the exemplars in `range` of the series that match;
/// `None` when there are none.
///
/// # Errors
/// As [`read`].
pub(crate) fn part(
    dir: &Path,
    matchers: &[Matcher],
    range: TimeRange,
) -> Result<Option<Vec<u8>>, Error> {
    let selectors = [matchers.to_vec()];
    let mut record: Option<ExemplarsEncoder> = None;
    let mut trouble = None;
    read_with_tenant(dir, |tenant, labels, exemplar| {
        if !range.contains(exemplar.timestamp_ms) || !matches_any(&selectors, &labels) {
            return;
        }
        match (&mut record, Tenant::new(tenant)) {
            (Some(record), _) => record.put(&labels, &exemplar),
            (None, Ok(tenant)) => {
                let record = record.insert(ExemplarsEncoder::new(&tenant));
                record.put(&labels, &exemplar);
            }
            (None, Err(why)) => trouble = Some(why.to_string()),
        }
    })?;
    match trouble {
        Some(why) => Err(Error::corrupt(
            dir.join(EXEMPLARS_FILE).display().to_string(),
            why,
        )),
        None => Ok(record.map(|record| encode(record.as_bytes()))),
    }
}

fn read_with_tenant(dir: &Path, each: impl FnMut(&str, Labels, Exemplar)) -> Result<(), Error> {
    let path = dir.join(EXEMPLARS_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("read", &path, e)),
    };
    let corrupt = |why: String| Error::corrupt(path.display().to_string(), why);
    let Some((content, stored)) = bytes.split_last_chunk::<4>() else {
        return Err(corrupt("it is cut".to_owned()));
    };
    if crc32c(content) != u32::from_le_bytes(*stored) {
        return Err(corrupt("its checksum is wrong".to_owned()));
    }
    let payload = content.strip_prefix(MAGIC);
    let payload = payload.ok_or_else(|| corrupt("it is none of this kind".to_owned()))?;
    read_exemplars(payload, each).map_err(|e| corrupt(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::record::ExemplarsEncoder;
    use isobar_model::Tenant;

    #[test]
    fn any_changed_byte_is_noticed() {
        let exemplar = Exemplar {
            labels: Labels::from_pairs([("trace_id", "abc")]),
            value: 0.25,
            timestamp_ms: 17,
        };
        let series = Labels::from_pairs([("__name__", "m")]);
        let mut record = ExemplarsEncoder::new(&Tenant::default());
        record.put(&series, &exemplar);
        let bytes = encode(record.as_bytes());
        let dir = tempfile::tempdir().unwrap();
        let mut found = Vec::new();
        read(dir.path(), |labels, it| found.push((labels, it))).unwrap();
        assert_eq!(found, []);
        let path = dir.path().join(EXEMPLARS_FILE);
        std::fs::write(&path, &bytes).unwrap();
        read(dir.path(), |labels, it| found.push((labels, it))).unwrap();
        assert_eq!(found, [(series, exemplar)]);
        let all = part(dir.path(), &[], TimeRange::ALL).unwrap();
        assert_eq!(all.as_ref(), Some(&bytes));
        let early = part(dir.path(), &[], TimeRange::new(0, 16)).unwrap();
        let other = [Matcher::equal("__name__", "n")];
        let other = part(dir.path(), &other, TimeRange::ALL).unwrap();
        assert_eq!((early, other), (None, None));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            std::fs::write(&path, &changed).unwrap();
            assert!(read(dir.path(), |_, _| {}).is_err(), "byte {at}");
        }
    }
}
