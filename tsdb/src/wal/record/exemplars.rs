//! The payload of a record of exemplars.
//!
//! ```text
//! Exemplars  tenant <str>, then to the end: series, labels, time <varint>, value <8b>
//!            labels = pairs <uvarint>, (name <str>, value <str>)…
//!            series = labels; no pairs stand for the series before
//! ```

use isobar_model::{Exemplar, Labels, Tenant};

use crate::encoding::{DecodeError, Decoder, put_uvarint, put_uvarint_str, put_varint};

/// Assembles the payload of an exemplars record.
#[derive(Debug)]
pub(crate) struct ExemplarsEncoder {
    bytes: Vec<u8>,
    last: Option<Labels>,
}

impl ExemplarsEncoder {
    pub(crate) fn new(tenant: &Tenant) -> Self {
        let mut bytes = Vec::new();
        put_uvarint_str(&mut bytes, tenant.as_str());
        ExemplarsEncoder { bytes, last: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn put(&mut self, series: &Labels, exemplar: &Exemplar) {
        match self.last.as_ref() == Some(series) {
            true => put_uvarint(&mut self.bytes, 0),
            false => {
                put_labels(&mut self.bytes, series);
                self.last = Some(series.clone());
            }
        }
        put_labels(&mut self.bytes, &exemplar.labels);
        put_varint(&mut self.bytes, exemplar.timestamp_ms);
        let bits = exemplar.value.to_bits();
        self.bytes.extend_from_slice(&bits.to_le_bytes());
    }
}

fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    put_uvarint(out, labels.len() as u64);
    for (name, value) in labels.iter() {
        put_uvarint_str(out, name);
        put_uvarint_str(out, value);
    }
}

/// Reads an exemplars record: `each` gets the tenant's name, a series and its exemplar.
///
/// # Errors
/// When the payload does not follow its format; what came before the error was given to `each`.
pub fn read_exemplars<'a>(
    payload: &'a [u8],
    mut each: impl FnMut(&'a str, Labels, Exemplar),
) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(payload);
    let tenant = decoder.uvarint_str()?;
    let mut last = Labels::empty();
    while !decoder.is_empty() {
        let series = labels(&mut decoder)?;
        if !series.is_empty() {
            last = series;
        }
        let labels = labels(&mut decoder)?;
        let timestamp_ms = decoder.varint()?;
        let bits = decoder.bytes(8)?;
        let bits = bits.try_into().map_err(|_| DecodeError::Truncated)?;
        let exemplar = Exemplar {
            labels,
            value: f64::from_bits(u64::from_le_bytes(bits)),
            timestamp_ms,
        };
        each(tenant, last.clone(), exemplar);
    }
    Ok(())
}

fn labels(decoder: &mut Decoder<'_>) -> Result<Labels, DecodeError> {
    let count = decoder.uvarint_len()?;
    // Two lengths each.
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(count.min(decoder.len() / 2));
    for _ in 0..count {
        pairs.push((decoder.uvarint_str()?, decoder.uvarint_str()?));
    }
    let rising = pairs.array_windows().all(|[a, b]| a.0 < b.0);
    if !rising || pairs.iter().any(|(_, value)| value.is_empty()) {
        return Err(DecodeError::Truncated);
    }
    Ok(Labels::from_sorted(pairs, &mut String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_come_back_and_cuts_are_noticed() {
        let exemplar = |value: f64, trace: &str| Exemplar {
            labels: Labels::from_pairs([("trace_id", trace)]),
            value,
            timestamp_ms: 5,
        };
        let (a, b) = (
            Labels::from_pairs([("__name__", "a")]),
            Labels::from_pairs([("__name__", "b"), ("le", "1")]),
        );
        let mut record = ExemplarsEncoder::new(&Tenant::default());
        let written = [
            (&a, exemplar(1.0, "x")),
            (&a, exemplar(f64::NAN, "y")),
            (&b, exemplar(-0.0, "x")),
        ];
        for (series, exemplar) in &written {
            record.put(series, exemplar);
        }
        let mut read = Vec::new();
        read_exemplars(record.as_bytes(), |_, series, it| read.push((series, it))).unwrap();
        assert_eq!(read, written.map(|(series, it)| (series.clone(), it)));
        for cut in 1..record.as_bytes().len() {
            let mut count = 0;
            let _cut = read_exemplars(&record.as_bytes()[..cut], |_, _, _| count += 1);
            assert!(count < 3);
        }
    }
}
