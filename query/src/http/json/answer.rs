//! A successful answer, written in pieces of bounded size:
//! `{"status":"success","data":…,"warnings":[…],"infos":[…]}`.
//!
//! Of a query's data the type comes first and the samples of a series behind its labels, so that
//! a client can convert the answer while it reads it. Written series are dropped on the way.
//! Scalars and strings lay their numbers out differently from samples, as in Prometheus.

use isobar_model::{Labels, Warnings};
use isobar_promql::value::{MatrixSeries, Points, Value, VectorSample};

use super::histogram::write_histogram_point;
use super::number::{NumberText, write_json_number, write_plain, write_timestamp, write_value};
use super::room::Room;
use super::text::{write_json, write_label_text};

/// Most warnings, and most infos, that an answer carries.
const REMARKS_MAX: usize = 10;
/// No `[timestamp,"value"]` and its comma have more bytes.
const POINT_BYTES: usize = 56;
/// Points of a series that are written before the size of the piece is looked at again.
const POINTS_BATCH: usize = 256;
/// Histograms of a series that are written before the size of the piece is looked at again. One
/// may take tens of kilobytes.
const HISTOGRAMS_BATCH: usize = 4;

/// The data of an answer.
pub(crate) enum Data {
    /// A query's value, with its statistics and its analysis as JSON when they were asked for.
    Query {
        value: Value,
        stats: Option<Vec<u8>>,
        analysis: Option<Vec<u8>>,
    },
    /// Label sets.
    Series(Vec<Labels>),
    /// Names or values.
    Names(Vec<String>),
    /// JSON that is written already.
    Json(Vec<u8>),
}

/// An answer that is being written.
pub(crate) struct AnswerWriter {
    items: Items,
    /// What comes behind the items.
    tail: Vec<u8>,
    state: State,
}

enum State {
    /// Nothing is written yet; this comes first.
    Head(Vec<u8>),
    /// The items from this one on are to be written.
    Item(usize),
    Done,
}

enum Items {
    None,
    Vector(std::vec::IntoIter<VectorSample>),
    Matrix(Box<MatrixItems>),
    Series(std::vec::IntoIter<Labels>),
    Names(std::vec::IntoIter<String>),
}

struct MatrixItems {
    rest: std::vec::IntoIter<MatrixSeries>,
    /// The columns of the series whose labels are written, and how many points are, the
    /// histograms behind the floats.
    open: Option<(Points, usize)>,
    times: Times,
}

impl AnswerWriter {
    /// An answer with `data`. At most ten warnings and ten infos are written; a last one says
    /// how many were left out.
    pub(crate) fn new(data: Data, warnings: &Warnings) -> Self {
        let mut head = b"{\"status\":\"success\",\"data\":".to_vec();
        let mut tail = Vec::new();
        let items = match data {
            Data::Json(json) => {
                head.extend_from_slice(&json);
                Items::None
            }
            Data::Series(series) => {
                head.push(b'[');
                tail.push(b']');
                Items::Series(series.into_iter())
            }
            Data::Names(names) => {
                head.push(b'[');
                tail.push(b']');
                Items::Names(names.into_iter())
            }
            Data::Query {
                value,
                stats,
                analysis,
            } => {
                let items = query_head(&mut head, &mut tail, value);
                if let Some(stats) = stats {
                    tail.extend_from_slice(b",\"stats\":");
                    tail.extend_from_slice(&stats);
                }
                if let Some(analysis) = analysis {
                    tail.extend_from_slice(b",\"analysis\":");
                    tail.extend_from_slice(&analysis);
                }
                tail.push(b'}');
                items
            }
        };
        write_remarks(&mut tail, "warning", warnings.warnings());
        write_remarks(&mut tail, "info", warnings.infos());
        tail.push(b'}');
        AnswerWriter {
            items,
            tail,
            state: State::Head(head),
        }
    }

    /// Appends to `out` until it holds at least `size` bytes or the answer is complete; true when
    /// it is.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, size: usize) -> bool {
        let mut index = match &mut self.state {
            State::Done => return true,
            State::Item(index) => *index,
            State::Head(head) => {
                out.append(head);
                0
            }
        };
        while out.len() < size {
            if !self.items.write_next(out, index) {
                out.append(&mut self.tail);
                self.state = State::Done;
                return true;
            }
            index += 1;
        }
        self.state = State::Item(index);
        false
    }
}

fn query_head(head: &mut Vec<u8>, tail: &mut Vec<u8>, value: Value) -> Items {
    let name: &[u8] = match &value {
        Value::Scalar { .. } => b"scalar",
        Value::String { .. } => b"string",
        Value::Vector(_) => b"vector",
        Value::Matrix(_) => b"matrix",
    };
    head.extend_from_slice(b"{\"resultType\":\"");
    head.extend_from_slice(name);
    head.extend_from_slice(b"\",\"result\":[");
    tail.push(b']');
    match value {
        Value::Scalar {
            timestamp_ms,
            value,
        } => {
            write_json_number(head, timestamp_ms as f64 / 1000.0);
            head.extend_from_slice(b",\"");
            write_plain(head, value);
            head.push(b'"');
            Items::None
        }
        Value::String {
            timestamp_ms,
            value,
        } => {
            write_json_number(head, timestamp_ms as f64 / 1000.0);
            head.push(b',');
            write_go_text(head, &value);
            Items::None
        }
        Value::Vector(samples) => Items::Vector(samples.into_iter()),
        Value::Matrix(series) => Items::Matrix(Box::new(MatrixItems {
            rest: series.into_iter(),
            open: None,
            times: Times::default(),
        })),
    }
}

impl Items {
    /// Writes the next item, or a part of it; false when there is none.
    fn write_next(&mut self, out: &mut Vec<u8>, index: usize) -> bool {
        match self {
            Items::None => false,
            Items::Matrix(matrix) => matrix.write_next(out, index),
            Items::Vector(rest) => rest.next().is_some_and(|sample| {
                separate(out, index);
                out.extend_from_slice(b"{\"metric\":");
                write_labels(out, &sample.labels);
                if let Some(histogram) = &sample.histogram {
                    out.extend_from_slice(b",\"histogram\":");
                    write_histogram_point(out, sample.timestamp_ms, histogram);
                } else {
                    out.extend_from_slice(b",\"value\":");
                    write_point(out, sample.timestamp_ms, sample.value);
                }
                out.push(b'}');
                true
            }),
            Items::Series(rest) => rest.next().is_some_and(|labels| {
                separate(out, index);
                write_labels(out, &labels);
                true
            }),
            Items::Names(rest) => rest.next().is_some_and(|name| {
                separate(out, index);
                write_go_text(out, &name);
                true
            }),
        }
    }
}

impl MatrixItems {
    fn write_next(&mut self, out: &mut Vec<u8>, index: usize) -> bool {
        if let Some((columns, from)) = &mut self.open {
            if *from < columns.len() {
                if !write_points(out, columns, from, &mut self.times) {
                    return true;
                }
                out.push(b']');
            } else {
                write_histograms(out, columns, from);
            }
            if *from == columns.len() && !columns.histograms.is_empty() {
                out.extend_from_slice(b",\"histograms\":[");
            } else if *from >= columns.len() + columns.histograms.len() {
                let had_histograms = !columns.histograms.is_empty();
                out.extend_from_slice(if had_histograms { b"]}" } else { b"}" });
                self.open = None;
            }
            return true;
        }
        let Some(series) = self.rest.next() else {
            return false;
        };
        separate(out, index);
        out.extend_from_slice(b"{\"metric\":");
        write_labels(out, &series.labels);
        if series.columns.is_empty() && series.columns.histograms.is_empty() {
            out.push(b'}');
        } else if series.columns.is_empty() {
            out.extend_from_slice(b",\"histograms\":[");
            self.open = Some((series.columns, 0));
        } else {
            out.extend_from_slice(b",\"values\":[");
            self.open = Some((series.columns, 0));
        }
        true
    }
}

/// Writes the next points; true when these were the last.
fn write_points(out: &mut Vec<u8>, columns: &Points, from: &mut usize, times: &mut Times) -> bool {
    if *from == 0 {
        times.learn(&columns.timestamps);
    }
    let end = columns.len().min(*from + POINTS_BATCH);
    let points = columns.timestamps.iter().zip(&columns.values);
    out.extend_from_slice(if *from == 0 { b"[" } else { b",[" });
    Room::write(out, (end - *from) * POINT_BYTES, |room| {
        let (mut text, mut rare) = (NumberText::new(), Vec::new());
        for (timestamp_ms, value) in points.skip(*from).take(end - *from) {
            match times.text(*timestamp_ms) {
                Some((time, time_bytes)) => room.push_of(time, (*time_bytes).into()),
                None => {
                    rare.clear();
                    write_time(&mut rare, *timestamp_ms);
                    room.push(&rare);
                }
            }
            match text.common_value(*value) {
                Some(value) => room.push(value),
                None => {
                    rare.clear();
                    write_value(&mut rare, *value);
                    room.push(&rare);
                }
            }
            room.push_of(b"\"],[", 4);
        }
    });
    *from = end;
    // What the last point has too much.
    out.truncate(out.len() - b",[".len());
    *from >= columns.len()
}

/// How the times of a range query are written. All its series share them.
#[derive(Default)]
struct Times {
    times_ms: Vec<i64>,
    /// Time, comma and quote, and how many bytes that is.
    texts: Vec<([u8; TIME_BYTES], u8)>,
    /// Where the next time is expected.
    next: usize,
}

/// `1700014177.437,"`
const TIME_BYTES: usize = 16;

impl Times {
    /// Keeps the texts of the times of a series that has more of them than those before.
    fn learn(&mut self, timestamps: &[i64]) {
        self.next = 0;
        if timestamps.len() <= self.times_ms.len() {
            return;
        }
        self.times_ms.clear();
        self.texts.clear();
        let mut text = Vec::with_capacity(2 * TIME_BYTES);
        for timestamp_ms in timestamps {
            text.clear();
            write_time(&mut text, *timestamp_ms);
            let mut kept = [0; TIME_BYTES];
            // Times before 2001 are shorter, those after 2286 are not kept.
            let Some(room) = kept.get_mut(..text.len()) else {
                return;
            };
            room.copy_from_slice(&text);
            self.times_ms.push(*timestamp_ms);
            self.texts.push((kept, text.len() as u8));
        }
    }

    /// The text of a time, if it is kept.
    #[inline(always)]
    fn text(&mut self, timestamp_ms: i64) -> Option<&([u8; TIME_BYTES], u8)> {
        if self.times_ms.get(self.next) != Some(&timestamp_ms) {
            // A series with gaps.
            self.next = self.times_ms.binary_search(&timestamp_ms).ok()?;
        }
        self.next += 1;
        self.texts.get(self.next - 1)
    }
}

fn write_time(out: &mut Vec<u8>, timestamp_ms: i64) {
    write_timestamp(out, timestamp_ms);
    out.extend_from_slice(b",\"");
}

/// Writes the next histograms of a series; `from` counts its floats too.
fn write_histograms(out: &mut Vec<u8>, columns: &Points, from: &mut usize) {
    let written = *from - columns.len();
    let histograms = columns.histograms.iter().skip(written);
    for (index, (timestamp_ms, histogram)) in histograms.take(HISTOGRAMS_BATCH).enumerate() {
        separate(out, written + index);
        write_histogram_point(out, *timestamp_ms, histogram);
        *from += 1;
    }
}

fn separate(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

fn write_point(out: &mut Vec<u8>, timestamp_ms: i64, value: f64) {
    out.push(b'[');
    write_time(out, timestamp_ms);
    write_value(out, value);
    out.extend_from_slice(b"\"]");
}

fn write_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (index, (name, value)) in labels.iter().enumerate() {
        separate(out, index);
        write_label_text(out, name);
        out.push(b':');
        write_label_text(out, value);
    }
    out.push(b'}');
}

/// Writes a text that is not part of a label set.
fn write_go_text(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    if write_json(out, text).is_err() {
        // Writing a text to memory does not fail; should it, the answer stays well-formed.
        out.truncate(start);
        out.extend_from_slice(b"\"\"");
    }
}

fn write_remarks(out: &mut Vec<u8>, kind: &str, remarks: &[String]) {
    if remarks.is_empty() {
        return;
    }
    out.extend_from_slice(format!(",\"{kind}s\":[").as_bytes());
    for (index, remark) in remarks.iter().take(REMARKS_MAX).enumerate() {
        separate(out, index);
        write_go_text(out, remark);
    }
    let omitted = remarks.len().saturating_sub(REMARKS_MAX);
    if omitted > 0 {
        out.push(b',');
        write_go_text(out, &format!("{omitted} more {kind} annotations omitted"));
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use isobar_model::Columns;

    use super::*;

    fn whole(data: Data, warnings: &Warnings) -> String {
        let mut writer = AnswerWriter::new(data, warnings);
        let mut out = Vec::new();
        assert!(writer.write(&mut out, usize::MAX));
        String::from_utf8(out).unwrap()
    }

    fn check(data: Data, expected: &str) {
        let expected = format!("{{\"status\":\"success\",\"data\":{expected}}}");
        assert_eq!(whole(data, &Warnings::default()), expected);
    }

    fn matrix(series: usize, points: usize) -> Data {
        let series = (0..series).map(|i| {
            let mut columns = Columns::default();
            (0..points).for_each(|p| columns.push(p as i64 * 15_000, (p * i) as f64 / 10.0));
            MatrixSeries {
                labels: Labels::from_pairs([("i", i.to_string())]),
                columns: columns.into(),
            }
        });
        Data::Query {
            value: Value::Matrix(series.collect()),
            stats: None,
            analysis: None,
        }
    }

    #[test]
    fn every_kind_of_value() {
        let query = |value| Data::Query {
            value,
            stats: None,
            analysis: None,
        };
        check(
            query(Value::Scalar {
                timestamp_ms: 1_500,
                value: f64::INFINITY,
            }),
            r#"{"resultType":"scalar","result":[1.5,"+Inf"]}"#,
        );
        check(
            query(Value::String {
                timestamp_ms: 1_000,
                value: "a<\"".into(),
            }),
            r#"{"resultType":"string","result":[1,"a\u003c\""]}"#,
        );
        check(
            query(Value::Vector(vec![])),
            r#"{"resultType":"vector","result":[]}"#,
        );
        let sample = |value: &str| VectorSample {
            labels: Labels::from_pairs([("__name__", "up"), ("x", value)]),
            timestamp_ms: 1_700_014_177_437,
            value: 0.5,
            histogram: None,
        };
        check(
            query(Value::Vector(vec![sample("<"), sample("")])),
            concat!(
                r#"{"resultType":"vector","result":["#,
                r#"{"metric":{"__name__":"up","x":"<"},"value":[1700014177.437,"0.5"]},"#,
                r#"{"metric":{"__name__":"up"},"value":[1700014177.437,"0.5"]}]}"#
            ),
        );
        check(
            matrix(2, 2),
            concat!(
                r#"{"resultType":"matrix","result":["#,
                r#"{"metric":{"i":"0"},"values":[[0,"0"],[15,"0"]]},"#,
                r#"{"metric":{"i":"1"},"values":[[0,"0"],[15,"0.1"]]}]}"#
            ),
        );
        check(
            Data::Query {
                value: Value::Vector(vec![]),
                stats: Some(br#"{"samples":{}}"#.to_vec()),
                analysis: Some(br#"{"name":"x"}"#.to_vec()),
            },
            r#"{"resultType":"vector","result":[],"stats":{"samples":{}},"analysis":{"name":"x"}}"#,
        );
        check(
            Data::Names(vec!["a".into(), "b&".into()]),
            r#"["a","b\u0026"]"#,
        );
        check(Data::Series(vec![Labels::empty()]), "[{}]");
        check(Data::Json(b"null".to_vec()), "null");
    }

    #[test]
    fn times_are_written_alike_in_series_with_gaps() {
        let long: Vec<i64> = (0..600).map(|i| 1_700_014_177_437 + i * 500).collect();
        let odd = vec![-1, 5, 1_700_014_178_437, 9_999_999_999_999, i64::MAX];
        let gaps = long.iter().copied().filter(|t| t % 7 != 0).collect();
        for order in [[&long, &gaps, &odd], [&odd, &gaps, &long]] {
            let series = order.map(|timestamps| MatrixSeries {
                labels: Labels::empty(),
                columns: Points {
                    timestamps: timestamps.clone().into(),
                    values: vec![0.5; timestamps.len()],
                    ..Points::default()
                },
            });
            let expected = order.map(|timestamps| {
                let points: Vec<String> = timestamps
                    .iter()
                    .map(
                        |ms| match (ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000) {
                            (s, 0) => format!("[{s},\"0.5\"]"),
                            (s, f) => {
                                format!("[{}{s}.{f:03},\"0.5\"]", if *ms < 0 { "-" } else { "" })
                            }
                        },
                    )
                    .collect();
                format!("{{\"metric\":{{}},\"values\":[{}]}}", points.join(","))
            });
            let value = Value::Matrix(series.into());
            check(
                Data::Query {
                    value,
                    stats: None,
                    analysis: None,
                },
                &format!(
                    r#"{{"resultType":"matrix","result":[{}]}}"#,
                    expected.join(",")
                ),
            );
        }
    }

    #[test]
    fn the_longest_points_have_room() {
        let values = [
            f64::MIN,
            -f64::MIN_POSITIVE,
            -1.234_567_890_123_456_7e-6,
            -1.234_567_890_123_456_7e-4,
            -9.876_543_210_987_654e20,
            f64::NEG_INFINITY,
        ];
        for value in values {
            let mut columns = Columns::default();
            (0..1_000).for_each(|p| columns.push(i64::MIN + p, value));
            let labels = Labels::empty();
            let columns = columns.into();
            let data = Data::Query {
                value: Value::Matrix(vec![MatrixSeries { labels, columns }]),
                stats: None,
                analysis: None,
            };
            let json = whole(data, &Warnings::default());
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            let points = json["data"]["result"][0]["values"].as_array().unwrap();
            assert_eq!(points.len(), 1_000);
            let read = points[999][1].as_str().unwrap().parse::<f64>().unwrap();
            assert_eq!(read.to_bits(), value.to_bits());
        }
    }

    #[test]
    fn remarks_are_cut_at_ten() {
        let mut warnings = Warnings::default();
        warnings.info("i");
        (0..12).for_each(|i| warnings.warn(format!("w{i}")));
        assert_eq!(
            whole(Data::Json(b"[]".to_vec()), &warnings),
            concat!(
                r#"{"status":"success","data":[],"warnings":["w0","w1","w2","w3","w4","w5","w6","#,
                r#""w7","w8","w9","2 more warning annotations omitted"],"infos":["i"]}"#
            )
        );
    }

    #[test]
    fn pieces_are_bounded_and_make_up_the_whole() {
        let expected = whole(matrix(7, 3_000), &Warnings::default());
        let mut writer = AnswerWriter::new(matrix(7, 3_000), &Warnings::default());
        let mut all = Vec::new();
        loop {
            let mut piece = Vec::new();
            let done = writer.write(&mut piece, 10_000);
            assert!(piece.len() < 10_000 + POINTS_BATCH * POINT_BYTES);
            all.append(&mut piece);
            if done {
                break;
            }
        }
        assert_eq!(String::from_utf8(all).unwrap(), expected);
        assert!(writer.write(&mut Vec::new(), 1));
    }
}
