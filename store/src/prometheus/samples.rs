//! Remote read without chunks: servers that know only samples, which are encoded here.

use std::sync::Arc;

use isobar_model::Columns;
use isobar_proto::remote;
use isobar_proto::wire::Reader;
use isobar_tsdb::SeriesChunks;
use isobar_tsdb::chunks::histogram::Counts;
use isobar_tsdb::merge::encode;

use crate::StoreError;

/// The most bytes of a message, decompressed.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// The series of a snappy-compressed `prometheus.ReadResponse` with one result, in the order of their
/// labels. Series without samples are left out.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is not such a message, [`StoreError::LimitExceeded`] when it is too
/// large.
pub fn series(body: &[u8]) -> Result<Vec<SeriesChunks>, StoreError> {
    let message = decompress(body)?;
    let mut results = Vec::new();
    let mut reader = Reader::new(&message);
    while let Some((field, value)) = reader.field().map_err(wrong)? {
        if field == 1 {
            results.push(value.bytes(1).map_err(wrong)?);
        }
    }
    let [result] = results.as_slice() else {
        return Err(wrong(format!("{} results to one query", results.len())));
    };
    // A result is laid out as a request of remote write.
    let result = remote::decode(result).map_err(wrong)?;
    let mut all = Vec::with_capacity(result.series.len());
    for one in &result.series {
        let labels = one.labels().map_err(wrong)?;
        let chunks = chunks(one)?;
        if !chunks.is_empty() {
            all.push(SeriesChunks::in_memory(labels, chunks));
        }
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(all)
}

fn chunks(series: &remote::TimeSeries<'_>) -> Result<Vec<isobar_tsdb::chunks::Chunk>, StoreError> {
    let mut columns = Columns::default();
    let mut rising = true;
    let mut before = i64::MIN;
    series.samples(|timestamp_ms, value| {
        rising &= columns.timestamps.is_empty() || timestamp_ms > before;
        before = timestamp_ms;
        columns.push(timestamp_ms, value);
    });
    let mut counts = Counts::Integer;
    let mut bad = None;
    let mut before = i64::MIN;
    series.histograms(|sample| match sample.histogram {
        Ok(histogram) => {
            rising &= columns.histograms.is_empty() || sample.timestamp_ms > before;
            before = sample.timestamp_ms;
            if sample.float_counts {
                counts = Counts::Float;
            }
            let histogram = Arc::new(histogram);
            columns.histograms.push((sample.timestamp_ms, histogram));
        }
        Err(why) => bad = Some(why),
    });
    if let Some(why) = bad {
        return Err(wrong(why));
    }
    if !rising {
        return Err(wrong("samples whose times do not rise"));
    }
    Ok(encode(&columns, counts))
}

fn decompress(body: &[u8]) -> Result<Vec<u8>, StoreError> {
    let bytes = snap::raw::decompress_len(body).map_err(wrong)?;
    if bytes > MESSAGE_BYTES_MAX {
        return Err(StoreError::LimitExceeded(format!(
            "remote read of Prometheus: an answer of {bytes} bytes, more than {MESSAGE_BYTES_MAX}"
        )));
    }
    // Nothing can be packed that tightly.
    if bytes / 64 > body.len() {
        return Err(wrong("a wrong length of the snappy-compressed answer"));
    }
    let mut message = vec![0; bytes];
    let written = snap::raw::Decoder::new()
        .decompress(body, &mut message)
        .map_err(wrong)?;
    message.truncate(written);
    Ok(message)
}

fn wrong(why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("remote read of Prometheus: {why}"))
}

#[cfg(test)]
mod tests {
    use isobar_model::{Labels, TimeRange};
    use isobar_proto::wire::put_bytes;

    use super::*;

    fn body(results: &[&[(Labels, Columns)]]) -> Vec<u8> {
        let mut message = Vec::new();
        for result in results {
            let mut inner = Vec::new();
            for (labels, columns) in *result {
                remote::encode_series(&mut inner, labels, columns);
            }
            put_bytes(&mut message, 1, &inner);
        }
        snap::raw::Encoder::new()
            .compress_vec(&message)
            .expect("compressed")
    }

    fn columns(samples: impl IntoIterator<Item = (i64, f64)>) -> Columns {
        let mut columns = Columns::default();
        for (timestamp_ms, value) in samples {
            columns.push(timestamp_ms, value);
        }
        columns
    }

    #[test]
    fn samples_become_chunks() {
        let name = |it: &str| Labels::from_pairs([("__name__", it)]);
        let many = columns((0..250).map(|i| (i * 1000, i as f64)));
        let sent = [
            (name("b"), many.clone()),
            (name("a"), columns([(5, 1.5)])),
            (name("c"), Columns::default()),
        ];
        let got = series(&body(&[&sent])).expect("series");
        let names: Vec<_> = got.iter().map(|it| it.labels.metric_name()).collect();
        assert_eq!(names, ["a", "b"]);
        let [_, b] = got.as_slice() else { panic!() };
        assert!(b.chunks.len() > 1);
        let mut back = Columns::default();
        for chunk in &b.chunks {
            chunk
                .decode_into(TimeRange::ALL, &mut back)
                .expect("decoded");
        }
        assert_eq!(back.timestamps, many.timestamps);
        assert_eq!(back.values, many.values);
    }

    #[test]
    fn what_is_refused() {
        let check = |body: &[u8], expected: &str| {
            let error = series(body).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(b"\xff", "snappy");
        check(&body(&[]), "0 results");
        check(&body(&[&[], &[]]), "2 results");
        let falling = [(
            Labels::from_pairs([("__name__", "a")]),
            columns([(5, 1.0), (4, 1.0)]),
        )];
        check(&body(&[&falling]), "do not rise");
    }
}
