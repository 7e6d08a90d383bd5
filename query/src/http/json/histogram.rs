//! Native histograms in JSON: `{"count":"2","sum":"3","buckets":[[0,"1","2","2"]]}`.

use isobar_model::FloatHistogram;
use isobar_model::histogram::Bucket;

use super::number::{write_timestamp, write_value};

/// Writes `[timestamp,{…}]`.
pub(crate) fn write_histogram_point(
    out: &mut Vec<u8>,
    timestamp_ms: i64,
    histogram: &FloatHistogram,
) {
    out.push(b'[');
    write_timestamp(out, timestamp_ms);
    out.extend_from_slice(b",{\"count\":");
    write_quoted(out, histogram.count);
    out.extend_from_slice(b",\"sum\":");
    write_quoted(out, histogram.sum);
    let buckets = histogram.all_buckets().filter(|it| it.count != 0.0);
    let mut any = false;
    for bucket in buckets {
        let before: &[u8] = if any { b"," } else { b",\"buckets\":[" };
        out.extend_from_slice(before);
        any = true;
        write_bucket(out, &bucket);
    }
    if any {
        out.push(b']');
    }
    out.extend_from_slice(b"}]");
}

/// Writes `[rule,"lower","upper","count"]`, where the rule says which bounds belong to the bucket.
fn write_bucket(out: &mut Vec<u8>, bucket: &Bucket) {
    out.push(b'[');
    out.push(match (bucket.lower_inclusive, bucket.upper_inclusive) {
        (false, true) => b'0',
        (true, false) => b'1',
        (false, false) => b'2',
        (true, true) => b'3',
    });
    for value in [bucket.lower, bucket.upper, bucket.count] {
        out.push(b',');
        write_quoted(out, value);
    }
    out.push(b']');
}

fn write_quoted(out: &mut Vec<u8>, value: f64) {
    out.push(b'"');
    write_value(out, value);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobar_model::histogram::{Buckets, Span};

    #[test]
    fn buckets_that_are_empty_are_left_out() {
        let check = |histogram: FloatHistogram, want: &str| {
            let mut out = Vec::new();
            write_histogram_point(&mut out, 1500, &histogram);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        };
        let empty = FloatHistogram::default();
        check(empty, r#"[1.500,{"count":"0","sum":"0"}]"#);
        let span = Span {
            offset: 1,
            length: 3,
        };
        let side = |counts: [f64; 3]| Buckets::from_spans([span], counts.to_vec()).unwrap();
        let histogram = FloatHistogram {
            zero_threshold: 0.001,
            zero_count: 1.0,
            count: 7.5,
            sum: f64::NAN,
            positive: side([1.0, 0.0, 2.5]),
            negative: side([3.0, 0.0, 0.0]),
            ..FloatHistogram::default()
        };
        check(
            histogram,
            r#"[1.500,{"count":"7.5","sum":"NaN","buckets":[[1,"-2","-1","3"],[3,"-0.001","0.001","1"],[0,"1","2","1"],[0,"4","8","2.5"]]}]"#,
        );
    }
}
