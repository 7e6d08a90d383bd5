//! The payload of a record of metadata.
//!
//! ```text
//! Metadata  tenant <str>, then to the end: metric <str>, kind <str>, help <str>, unit <str>
//! ```

use isobar_model::Tenant;

use crate::encoding::{DecodeError, Decoder, put_uvarint_str};
use crate::metadata::Metadata;

/// Assembles the payload of a metadata record.
#[derive(Debug)]
pub(crate) struct MetadataEncoder(Vec<u8>);

impl MetadataEncoder {
    pub(crate) fn new(tenant: &Tenant) -> Self {
        let mut bytes = Vec::new();
        put_uvarint_str(&mut bytes, tenant.as_str());
        MetadataEncoder(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn put(&mut self, metric: &str, metadata: &Metadata) {
        let Metadata { kind, help, unit } = metadata;
        for text in [metric, kind, help, unit] {
            put_uvarint_str(&mut self.0, text);
        }
    }
}

/// Reads a metadata record: `each` gets the tenant's name, a metric's and what is said of it.
///
/// # Errors
/// When the payload does not follow its format; what came before the error was given to `each`.
pub fn read_metadata<'a>(
    payload: &'a [u8],
    mut each: impl FnMut(&'a str, &'a str, Metadata),
) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(payload);
    let tenant = decoder.uvarint_str()?;
    while !decoder.is_empty() {
        let metric = decoder.uvarint_str()?;
        let mut text = || decoder.uvarint_str().map(str::to_owned);
        let (kind, help, unit) = (text()?, text()?, text()?);
        each(tenant, metric, Metadata { kind, help, unit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_come_back() {
        let metadata = Metadata {
            kind: "gauge".into(),
            help: "é".into(),
            unit: "bytes".into(),
        };
        let mut record = MetadataEncoder::new(&Tenant::default());
        record.put("m", &metadata);
        record.put("n", &metadata);
        let mut read = Vec::new();
        let each = |tenant: &str, metric: &str, it| {
            read.push((tenant.to_owned(), metric.to_owned(), it));
        };
        read_metadata(record.as_bytes(), each).unwrap();
        let tenant = Tenant::default().as_str().to_owned();
        let expected = ["m", "n"].map(|it| (tenant.clone(), it.to_owned(), metadata.clone()));
        assert_eq!(read, expected);
        for cut in 1..record.as_bytes().len() {
            let mut count = 0;
            let _cut = read_metadata(&record.as_bytes()[..cut], |_, _, _| count += 1);
            assert!(count < 2);
        }
    }
}
