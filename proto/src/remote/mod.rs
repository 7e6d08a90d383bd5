//! Remote write 1.0: `prometheus.WriteRequest`, decoded into views that borrow from the request.
//!
//! ```text
//! WriteRequest    1 repeated TimeSeries   3 repeated MetricMetadata
//! TimeSeries      1 repeated Label   2 repeated Sample   3 repeated Exemplar   4 repeated Histogram
//! Label           1 name   2 value
//! Sample          1 double value   2 int64 timestamp (unix ms)
//! Exemplar        see [`exemplars`]
//! Histogram       see [`histograms`]
//! MetricMetadata  1 type   2 metric_family_name   4 help   5 unit
//! ```
//!
//! Source: Prometheus `prompb/remote.proto`, `prompb/types.proto`. Unknown fields are skipped.
//! Decoding walks the whole request, so that everything read from a view later is well-formed.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod encode;
mod exemplars;
mod histograms;

use std::borrow::Cow;
use std::ops::Range;

use isobar_model::{Exemplar, Labels, metric_kind};

pub use encode::{encode_exemplars, encode_metadata, encode_series};
pub use histograms::HistogramSample;

use crate::wire::{Reader, WireError};

/// A decoded request.
#[derive(Debug, Default)]
pub struct WriteRequest<'a> {
    /// The series in the order sent.
    pub series: Vec<TimeSeries<'a>>,
    /// Descriptions of metrics.
    pub metadata: Vec<MetricMetadata<'a>>,
}

/// One series: its labels still encoded, its samples read on demand.
#[derive(Debug)]
pub struct TimeSeries<'a> {
    /// All label fields as they stand in the message, tags included.
    labels: Cow<'a, [u8]>,
    /// The message from the first sample, exemplar or histogram on; other fields may stand between.
    rest: &'a [u8],
    first: (i64, f64),
    /// The number of float samples.
    pub sample_count: usize,
    /// The number of native histogram samples.
    pub histogram_count: usize,
    /// The number of exemplars.
    pub exemplar_count: usize,
}

/// What a sender says about a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricMetadata<'a> {
    /// The metric's name without suffixes such as `_total`.
    pub metric: &'a str,
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset`, `unknown`.
    pub kind: &'static str,
    /// What the metric tells.
    pub help: &'a str,
    /// The unit, often `""`.
    pub unit: &'a str,
}

/// Room is made for so many series at most before they are seen.
const SERIES_RESERVED_MAX: usize = 4096;

/// Decodes an uncompressed `WriteRequest`.
///
/// # Errors
/// When the bytes are not such a message. Texts are checked for UTF-8 only where they are used.
pub fn decode(message: &[u8]) -> Result<WriteRequest<'_>, WireError> {
    let mut request = WriteRequest::default();
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => {
                let bytes = value.bytes(1)?;
                if request.series.is_empty() {
                    // The others will be about as long as the first.
                    let about = message.len() / (bytes.len() + 2) + 1;
                    request.series.reserve(about.min(SERIES_RESERVED_MAX));
                }
                request.series.push(TimeSeries::decode(bytes)?);
            }
            3 => request.metadata.extend(decode_metadata(value.bytes(3)?)?),
            _ => {}
        }
    }
    Ok(request)
}

/// Where the labels of a message stand. Senders write them in one run, which is borrowed;
/// scattered ones are gathered.
#[derive(Default)]
struct LabelRun {
    run: Range<usize>,
    gathered: Vec<u8>,
}

impl LabelRun {
    #[inline]
    fn add(&mut self, message: &[u8], field: Range<usize>) {
        if self.run.is_empty() {
            self.run = field;
        } else if self.gathered.is_empty() && self.run.end == field.start {
            self.run.end = field.end;
        } else {
            if self.gathered.is_empty() {
                self.gathered.extend_from_slice(part(message, &self.run));
            }
            self.gathered.extend_from_slice(part(message, &field));
        }
    }

    #[inline]
    fn finish(self, message: &[u8]) -> Cow<'_, [u8]> {
        if self.gathered.is_empty() {
            Cow::Borrowed(part(message, &self.run))
        } else {
            Cow::Owned(self.gathered)
        }
    }
}

/// A part of `bytes` that is known to lie in it.
#[inline]
fn part<'a>(bytes: &'a [u8], range: &Range<usize>) -> &'a [u8] {
    bytes.get(range.clone()).unwrap_or_default()
}

impl<'a> TimeSeries<'a> {
    fn decode(message: &'a [u8]) -> Result<Self, WireError> {
        let mut series = TimeSeries {
            labels: Cow::Borrowed(&[]),
            rest: &[],
            first: (0, 0.0),
            sample_count: 0,
            histogram_count: 0,
            exemplar_count: 0,
        };
        let mut labels = LabelRun::default();
        // Nearly all series are a run of short labels and a sample; what is not goes on below.
        let run = short_labels(message);
        let (begin, mut rest) = message.split_at(run);
        if !begin.is_empty() {
            labels.add(message, 0..run);
        }
        if let Some((sample, behind)) = plain_sample(rest) {
            (series.first, series.sample_count) = (sample, 1);
            series.begin(rest);
            rest = behind;
        }
        let mut reader = Reader::new(rest);
        loop {
            let before = reader.left();
            let Some((field, value)) = reader.field()? else {
                break;
            };
            match field {
                1 => {
                    value.bytes(1)?;
                    let (start, end) = (
                        message.len() - before.len(),
                        message.len() - reader.left().len(),
                    );
                    labels.add(message, start..end);
                }
                2 => {
                    let sample = decode_sample(value.bytes(2)?)?;
                    if series.sample_count == 0 {
                        series.first = sample;
                        series.begin(before);
                    }
                    series.sample_count += 1;
                }
                3 => {
                    exemplars::walk(value.bytes(3)?)?;
                    series.begin(before);
                    series.exemplar_count += 1;
                }
                4 => {
                    histograms::walk(value.bytes(4)?)?;
                    series.begin(before);
                    series.histogram_count += 1;
                }
                _ => {}
            }
        }
        series.labels = labels.finish(message);
        Ok(series)
    }

    /// Takes note of the first field that is no label.
    #[inline]
    fn begin(&mut self, from: &'a [u8]) {
        if self.rest.is_empty() {
            self.rest = from;
        }
    }

    /// Calls `each` with every native histogram, in the order sent.
    pub fn histograms(&self, mut each: impl FnMut(HistogramSample)) {
        if self.histogram_count == 0 {
            return;
        }
        let mut reader = Reader::new(self.rest);
        // The bytes were walked by `decode`, so no error ends the loop early.
        while let Ok(Some((field, value))) = reader.field() {
            if field == 4
                && let Ok(sample) = value.bytes(4).and_then(histograms::decode)
            {
                each(sample);
            }
        }
    }

    /// Calls `each` with every exemplar, in the order sent, or with what is wrong with its labels.
    pub fn exemplars(&self, mut each: impl FnMut(Result<Exemplar, String>)) {
        if self.exemplar_count == 0 {
            return;
        }
        let mut reader = Reader::new(self.rest);
        while let Ok(Some((field, value))) = reader.field() {
            if field == 3 {
                let bytes = value.bytes(3).map_err(|e| e.to_string());
                each(bytes.and_then(exemplars::decode));
            }
        }
    }

    /// The label fields as they stand encoded. Equal bytes mean equal labels; the reverse does
    /// not hold, since order and encoding are the sender's.
    #[inline]
    pub fn encoded_labels(&self) -> &[u8] {
        &self.labels
    }

    /// The labels, checked and sorted. Labels with an empty value are dropped.
    ///
    /// # Errors
    /// A text that names the label at fault: not UTF-8, without a name, there twice; or that
    /// there is no metric name.
    pub fn labels(&self) -> Result<Labels, String> {
        decode_labels(&self.labels)
    }

    /// Calls `each` with the time (unix ms) and value of every float sample, in the order sent.
    #[inline]
    pub fn samples(&self, mut each: impl FnMut(i64, f64)) {
        if self.sample_count == 1 {
            each(self.first.0, self.first.1);
            return;
        }
        let mut reader = Reader::new(self.rest);
        // The bytes were walked by `decode`, so no error ends the loop early.
        while let Ok(Some((field, value))) = reader.field() {
            if field == 2
                && let Ok((timestamp_ms, value)) = value.bytes(2).and_then(decode_sample)
            {
                each(timestamp_ms, value);
            }
        }
    }
}

/// The length of the labels that the message of a series begins with, as far as none is longer
/// than a byte can tell. That they are whole is all that decoding asks of labels.
#[inline]
fn short_labels(message: &[u8]) -> usize {
    let mut at = 0;
    while let Some([0x0a, len]) = message.get(at..).and_then(<[u8]>::first_chunk)
        && *len < 0x80
    {
        let end = at + 2 + usize::from(*len);
        if end > message.len() {
            break;
        }
        at = end;
    }
    at
}

/// The sample that a message goes on with, and what is behind it, when value and time stand there as
/// all senders write them; anything else is left to [`decode_sample`].
#[inline]
fn plain_sample(message: &[u8]) -> Option<((i64, f64), &[u8])> {
    let (&[0x12, len, 0x09, v0, v1, v2, v3, v4, v5, v6, v7, 0x10], rest) =
        message.split_first_chunk::<12>()?
    else {
        return None;
    };
    let (time, rest) = rest.split_at_checked(usize::from(len).checked_sub(10)?)?;
    let mut timestamp_ms = 0u64;
    // Nine groups of seven bits cannot overflow; a tenth would be a time before 1970.
    if !(1..=9).contains(&time.len()) {
        return None;
    }
    for (i, byte) in time.iter().enumerate() {
        let is_last = i + 1 == time.len();
        if (*byte < 0x80) != is_last {
            return None;
        }
        timestamp_ms |= u64::from(byte & 0x7f) << (7 * i);
    }
    let value = f64::from_le_bytes([v0, v1, v2, v3, v4, v5, v6, v7]);
    Some(((timestamp_ms.cast_signed(), value), rest))
}

#[inline]
fn decode_sample(message: &[u8]) -> Result<(i64, f64), WireError> {
    let mut timestamp_ms = 0;
    let mut sample = 0.0;
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => sample = value.double(1)?,
            2 => timestamp_ms = value.varint(2)?.cast_signed(),
            _ => {}
        }
    }
    Ok((timestamp_ms, sample))
}

fn decode_labels(encoded: &[u8]) -> Result<Labels, String> {
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(16);
    let mut reader = Reader::new(encoded);
    while let Some((_, value)) = reader.field().map_err(|e| e.to_string())? {
        label_pairs(value.bytes(1).map_err(|e| e.to_string())?, &mut pairs)?;
    }
    pairs.sort_unstable();
    let following = pairs.iter().skip(1);
    if let Some(((twice, _), _)) = pairs.iter().zip(following).find(|(a, b)| a.0 == b.0) {
        return Err(format!("label {twice:?} is there twice"));
    }
    if !pairs
        .iter()
        .any(|(name, _)| *name == isobar_model::labels::METRIC_NAME)
    {
        return Err("no metric name (label __name__)".to_owned());
    }
    Ok(Labels::from_sorted(pairs, &mut String::new()))
}

/// Adds the name and value of a label, unless the value is empty.
fn label_pairs<'a>(label: &'a [u8], pairs: &mut Vec<(&'a str, &'a str)>) -> Result<(), String> {
    let (mut name, mut text) = (&[][..], &[][..]);
    let mut reader = Reader::new(label);
    while let Some((field, value)) = reader.field().map_err(|e| format!("label: {e}"))? {
        match field {
            1 => name = value.bytes(1).map_err(|e| format!("label: {e}"))?,
            2 => text = value.bytes(2).map_err(|e| format!("label: {e}"))?,
            _ => {}
        }
    }
    let name = str::from_utf8(name).map_err(|_| {
        format!(
            "label name {:?} is not valid UTF-8",
            String::from_utf8_lossy(name)
        )
    })?;
    let text =
        str::from_utf8(text).map_err(|_| format!("value of label {name:?} is not valid UTF-8"))?;
    if name.is_empty() {
        return Err(format!("label with value {text:?} has no name"));
    }
    if !text.is_empty() {
        pairs.push((name, text));
    }
    Ok(())
}

/// The labels of a bad series for an error message, as far as they can be read.
pub fn describe_labels(encoded: &[u8]) -> String {
    let mut pairs = Vec::new();
    let mut reader = Reader::new(encoded);
    while let Ok(Some((_, value))) = reader.field() {
        let mut pair = (String::new(), String::new());
        let mut label = Reader::new(value.bytes(1).unwrap_or_default());
        while let Ok(Some((field, value))) = label.field() {
            let text = String::from_utf8_lossy(value.bytes(field).unwrap_or_default()).into_owned();
            match field {
                1 => pair.0 = text,
                2 => pair.1 = text,
                _ => {}
            }
        }
        pairs.push(format!("{}={:?}", pair.0, pair.1));
    }
    format!("{{{}}}", pairs.join(", "))
}

fn decode_metadata(message: &[u8]) -> Result<Option<MetricMetadata<'_>>, WireError> {
    let mut metadata = MetricMetadata {
        metric: "",
        kind: "unknown",
        help: "",
        unit: "",
    };
    let mut readable = true;
    let mut text = |bytes| {
        str::from_utf8(bytes).unwrap_or_else(|_| {
            readable = false;
            ""
        })
    };
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => metadata.kind = metric_kind::name(value.varint(1)?),
            2 => metadata.metric = text(value.bytes(2)?),
            4 => metadata.help = text(value.bytes(4)?),
            5 => metadata.unit = text(value.bytes(5)?),
            _ => {}
        }
    }
    Ok((readable && !metadata.metric.is_empty()).then_some(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::put_bytes;
    use isobar_model::Columns;

    fn samples(series: &TimeSeries<'_>) -> Vec<(i64, f64)> {
        let mut all = Vec::new();
        series.samples(|timestamp_ms, value| all.push((timestamp_ms, value)));
        all
    }

    fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, number, bytes);
        out
    }

    fn label(name: &[u8], value: &[u8]) -> Vec<u8> {
        field(1, &[field(1, name), field(2, value)].concat())
    }

    #[test]
    fn reads_what_it_writes() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "é")]);
        let columns = Columns {
            timestamps: vec![-5, 0, 1700000000000],
            values: vec![1.0, 0.0, -2.5],
            ..Columns::default()
        };
        let metadata = MetricMetadata {
            metric: "up",
            kind: "gauge",
            help: "Is it up?",
            unit: "",
        };
        let mut out = Vec::new();
        encode_series(&mut out, &labels, &columns);
        encode_series(
            &mut out,
            &labels,
            &Columns {
                timestamps: vec![7],
                values: vec![8.0],
                ..Columns::default()
            },
        );
        encode_metadata(&mut out, &metadata);
        let request = decode(&out).unwrap();
        assert_eq!(request.metadata, [metadata]);
        assert_eq!(request.series[0].labels(), Ok(labels));
        assert_eq!(
            samples(&request.series[0]),
            [(-5, 1.0), (0, 0.0), (1700000000000, -2.5)]
        );
        assert_eq!(samples(&request.series[1]), [(7, 8.0)]);
        assert_eq!(
            request.series[0].encoded_labels(),
            request.series[1].encoded_labels()
        );
    }

    #[test]
    fn reads_the_histograms_and_exemplars_it_writes() {
        use isobar_model::FloatHistogram;
        use isobar_model::histogram::Buckets;
        let labels = Labels::from_pairs([("__name__", "h")]);
        let histogram = FloatHistogram {
            schema: -1,
            count: 6.5,
            sum: 1.0,
            zero_threshold: 1e-9,
            positive: Buckets::of_layout([-3, -2, 4].into(), vec![1.5, 0.0, 3.0]).unwrap(),
            negative: Buckets::of_layout([7].into(), vec![2.0]).unwrap(),
            ..FloatHistogram::default()
        };
        let columns = Columns {
            timestamps: vec![1],
            values: vec![0.5],
            histograms: vec![(2, histogram.clone().into())],
            ..Columns::default()
        };
        let exemplar = |value: f64| Exemplar {
            labels: Labels::from_pairs([("trace_id", "abc")]),
            value,
            timestamp_ms: 5,
        };
        let mut out = Vec::new();
        encode_series(&mut out, &labels, &columns);
        encode_exemplars(&mut out, &labels, &[exemplar(1.0), exemplar(2.0)]);
        let request = decode(&out).unwrap();
        let [first, second] = &request.series[..] else {
            panic!("two series");
        };
        let mut seen = Vec::new();
        first.histograms(|sample| seen.push(sample));
        let expected = HistogramSample {
            timestamp_ms: 2,
            float_counts: true,
            histogram: Ok(histogram),
        };
        assert_eq!((samples(first), seen), (vec![(1, 0.5)], vec![expected]));
        let mut seen = Vec::new();
        second.exemplars(|it| seen.extend(it));
        assert_eq!(seen, [exemplar(1.0), exemplar(2.0)]);
        assert_eq!(samples(second), []);
    }

    /// What the short way through a series leaves over takes the long one, with the same result.
    #[test]
    fn series_of_any_form_are_read_alike() {
        let labels = [label(b"__name__", b"m"), label(b"a", &[b'x'; 200])].concat();
        let (value, time) = (
            [&[0x09][..], &2.5f64.to_le_bytes()].concat(),
            [0x10, 0x85, 0x01],
        );
        let plain = field(2, &[&value[..], &time].concat());
        let swapped = field(2, &[&time[..], &value].concat());
        let twice = field(2, &[&value[..], &time, &time].concat());
        let before_1970 = field(2, &[&value[..], &[0x10], &[0xff; 9], &[0x01]].concat());
        let check = |fields: &[&[u8]], expected: &[(i64, f64)]| {
            let message = field(1, &fields.concat());
            let request = decode(&message).unwrap();
            let [series] = &request.series[..] else {
                panic!("one series");
            };
            assert_eq!(series.encoded_labels(), labels);
            assert_eq!(samples(series), expected);
        };
        let one = (133, 2.5);
        check(&[&labels, &plain], &[one]);
        check(&[&labels, &plain, &plain], &[one, one]);
        check(&[&plain, &labels], &[one]);
        check(&[&labels, &swapped, &plain], &[one, one]);
        check(&[&labels, &twice], &[one]);
        check(&[&labels, &before_1970], &[(-1, 2.5)]);
        check(&[&labels, &field(2, &time)], &[(133, 0.0)]);
        check(&[&labels, &field(2, &value)], &[(0, 2.5)]);
        check(&[&labels, &plain, &field(9, b"?")], &[one]);
        check(&[&labels], &[]);
        for bad in [
            &[0x12, 11, 0x09][..],
            &[0x12, 10, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x10],
        ] {
            assert!(decode(&field(1, &[&labels, bad].concat())).is_err());
        }
    }

    #[test]
    fn gathers_scattered_labels() {
        let sample = field(2, &[0x10, 9]);
        let message = [
            label(b"b", b"2"),
            sample,
            label(b"__name__", b"m"),
            label(b"a", b""),
        ]
        .concat();
        let message = field(1, &message);
        let request = decode(&message).unwrap();
        assert_eq!(
            request.series[0].labels().unwrap().to_string(),
            r#"{__name__="m", b="2"}"#
        );
        assert_eq!(samples(&request.series[0]), [(9, 0.0)]);
    }

    #[test]
    fn names_the_label_at_fault() {
        let refuse = |labels: &[Vec<u8>]| decode_labels(&labels.concat()).unwrap_err();
        let name = label(b"__name__", b"m");
        assert_eq!(
            refuse(&[label(b"a", b"1")]),
            "no metric name (label __name__)"
        );
        assert_eq!(
            refuse(&[name.clone(), label(b"a", b"1"), label(b"a", b"2")]),
            r#"label "a" is there twice"#
        );
        assert_eq!(
            refuse(&[name.clone(), label(b"", b"x")]),
            r#"label with value "x" has no name"#
        );
        assert_eq!(
            refuse(&[name.clone(), label(b"a", b"\xff")]),
            r#"value of label "a" is not valid UTF-8"#
        );
        assert_eq!(
            describe_labels(&[name, label(b"a\xff", b"1")].concat()),
            "{__name__=\"m\", a\u{fffd}=\"1\"}"
        );
    }

    #[test]
    fn any_cut_is_an_error_or_a_shorter_request() {
        let mut out = Vec::new();
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "x")]);
        encode_series(
            &mut out,
            &labels,
            &Columns {
                timestamps: vec![1, 2],
                values: vec![3.0, 4.0],
                ..Columns::default()
            },
        );
        for cut in 1..out.len() {
            assert!(decode(&out[..cut]).is_err(), "cut at {cut}");
        }
    }
}
