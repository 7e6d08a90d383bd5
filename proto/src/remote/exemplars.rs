//! Exemplars of remote write.
//!
//! ```text
//! Exemplar   1 repeated Label   2 double value   3 int64 timestamp (unix ms)
//! ```

use isobar_model::{Exemplar, Labels};

use super::label_pairs;
use crate::wire::{Reader, WireError};

/// Whether the bytes are an exemplar, without keeping anything of it.
pub(super) fn walk(message: &[u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => drop(value.bytes(1)?),
            2 => drop(value.double(2)?),
            3 => drop(value.varint(3)?),
            _ => {}
        }
    }
    Ok(())
}

/// Decodes an exemplar.
///
/// # Errors
/// A text that names what is wrong with its labels.
pub(super) fn decode(message: &[u8]) -> Result<Exemplar, String> {
    let mut pairs = Vec::new();
    let mut exemplar = Exemplar {
        labels: Labels::empty(),
        value: 0.0,
        timestamp_ms: 0,
    };
    let wire = |error: WireError| error.to_string();
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field().map_err(wire)? {
        match field {
            1 => label_pairs(value.bytes(1).map_err(wire)?, &mut pairs)?,
            2 => exemplar.value = value.double(2).map_err(wire)?,
            3 => exemplar.timestamp_ms = value.varint(3).map_err(wire)?.cast_signed(),
            _ => {}
        }
    }
    pairs.sort_unstable();
    pairs.dedup_by_key(|(name, _)| *name);
    exemplar.labels = Labels::from_sorted(pairs, &mut String::new());
    Ok(exemplar)
}
