//! What all histograms of a chunk have in common.

use std::sync::Arc;

use isobar_model::histogram::buckets::layout;
use isobar_model::histogram::{CUSTOM_SCHEMA, Layout, Span};

use super::bits::BitReader;
use super::corrupt;
use crate::Error;

/// Reads schema, zero bucket and buckets of all samples.
pub(super) fn decode(bits: &mut BitReader<'_>) -> Result<Layout, Error> {
    let zero_threshold = zero_threshold(bits)?;
    let schema = bits.varbit_int()?;
    let schema = i32::try_from(schema)
        .map_err(|_| corrupt(format!("histogram has an unknown schema {schema}")))?;
    let positive = indexes(bits)?;
    let negative = indexes(bits)?;
    let custom = match schema {
        CUSTOM_SCHEMA => custom_bounds(bits)?,
        _ => [].into(),
    };
    Ok(Layout {
        schema,
        zero_threshold,
        positive,
        negative,
        custom,
    })
}

/// One byte: 0 for zero, 255 for eight bytes that follow, else a power of two.
fn zero_threshold(bits: &mut BitReader<'_>) -> Result<f64, Error> {
    match bits.read(8)? {
        0 => Ok(0.0),
        255 => bits.float(),
        // 0.5 · 2^(byte - 243), which is a normal number.
        byte => Ok(f64::from_bits((byte + 1023 - 244) << 52)),
    }
}

fn indexes(bits: &mut BitReader<'_>) -> Result<Arc<[i32]>, Error> {
    let count = length(bits)?;
    let mut spans = Vec::with_capacity(count);
    for _ in 0..count {
        let length = bits.varbit_uint()?;
        let offset = bits.varbit_int()?;
        spans.push(Span {
            length: u32::try_from(length).map_err(|_| corrupt("a span is too long"))?,
            offset: i32::try_from(offset).map_err(|_| corrupt("a span starts too far off"))?,
        });
    }
    // The first sample has at least a bit for each bucket.
    let indexes = layout(spans, bits.left()).map_err(|error| corrupt(error.to_string()))?;
    Ok(indexes.into())
}

/// A number of things that take at least a bit each.
fn length(bits: &mut BitReader<'_>) -> Result<usize, Error> {
    let count = bits.varbit_uint()?;
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= bits.left())
        .ok_or_else(|| corrupt(format!("{count} spans or bounds do not fit its bytes")))
}

/// Bounds that are small multiples of a thousandth are written as such.
fn custom_bounds(bits: &mut BitReader<'_>) -> Result<Arc<[f64]>, Error> {
    let count = length(bits)?;
    let bounds = (0..count).map(|_| match bits.varbit_uint()? {
        0 => bits.float(),
        thousandths => Ok((thousandths - 1) as f64 / 1000.0),
    });
    bounds.collect()
}
