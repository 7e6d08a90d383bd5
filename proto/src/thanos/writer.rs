//! Series as bytes of the Store API, straight from labels and chunks: an answer has tens of thousands of
//! chunks, and a message of its own for each of them costs more than everything else.

use bytes::Bytes;
use isobar_model::Labels;
use prost::encoding::{WireType, encoded_len_varint};

use super::series_response::{Result, SeriesResponse, Written};
use super::{Label, Series, chunk};

/// Fields of a `Series`.
const LABELS: u32 = 1;
const CHUNKS: u32 = 2;
/// Fields of a `Label`.
const NAME: u32 = 1;
const VALUE: u32 = 2;
/// Fields of an `AggrChunk`. Those of the aggregates follow that of raw data.
const MIN_TIME: u32 = 1;
const MAX_TIME: u32 = 2;
const RAW: u32 = 3;
/// Fields of a `Chunk`.
const TYPE: u32 = 1;
const DATA: u32 = 2;
const HASH: u32 = 3;
/// The field of a `SeriesBatch`.
const SERIES: u32 = 1;

impl Series {
    /// The labels as a set: sorted by name, without empty values; of equal names the last wins.
    pub fn label_set(&self) -> Labels {
        let in_order = self.labels.is_sorted_by(|a, b| a.name < b.name);
        let pairs = self.labels.iter();
        let pairs = pairs.map(|Label { name, value }| (name.as_str(), value.as_str()));
        if in_order {
            let pairs = pairs.filter(|(_, value)| !value.is_empty());
            Labels::from_sorted(pairs, &mut String::new())
        } else {
            Labels::from_pairs(pairs)
        }
    }
}

/// The data of a chunk, raw or of one aggregate.
#[derive(Debug, Clone, Copy)]
pub struct ChunkData<'a> {
    /// How they are encoded.
    pub encoding: chunk::Encoding,
    /// They themselves.
    pub data: &'a [u8],
    /// Their xxhash64; 0 when it is not to be sent.
    pub hash: u64,
}

/// A chunk that is to be written.
#[derive(Debug, Clone)]
pub struct ChunkParts<'a> {
    /// The time of the first sample, in milliseconds.
    pub min_time: i64,
    /// The time of the last sample, in milliseconds.
    pub max_time: i64,
    /// What it holds.
    pub content: ChunkContent<'a>,
}

/// What a chunk holds.
#[derive(Debug, Clone)]
pub enum ChunkContent<'a> {
    /// Samples.
    Raw(ChunkData<'a>),
    /// Aggregates of samples: count, sum, min, max, counter.
    Aggregates(Box<[Option<ChunkData<'a>>; 5]>),
}

impl ChunkContent<'_> {
    /// The parts that are there, each with its field.
    fn each(&self, mut take: impl FnMut(u32, &ChunkData<'_>)) {
        match self {
            ChunkContent::Raw(data) => take(RAW, data),
            ChunkContent::Aggregates(parts) => {
                for (field, part) in (RAW + 1..).zip(parts.iter()) {
                    if let Some(data) = part {
                        take(field, data);
                    }
                }
            }
        }
    }
}

/// Writes series, as many as make a message.
#[derive(Debug, Default)]
pub struct SeriesWriter {
    out: Vec<u8>,
    /// The labels of the series that is being written.
    labels: Vec<u8>,
    /// What the last message took, which is about what the next one takes.
    usual: usize,
}

impl SeriesWriter {
    /// A message of one series, whatever else was added.
    pub fn one(&mut self, labels: &Labels, chunks: &[ChunkParts<'_>]) -> SeriesResponse {
        self.put_labels(labels);
        let mut out = Vec::with_capacity(self.labels.len() + chunks_len(chunks));
        out.extend_from_slice(&self.labels);
        put_chunks(chunks, &mut out);
        SeriesResponse {
            result: Some(Result::Written(Written::series(Bytes::from(out)))),
        }
    }

    /// Adds a series to the message.
    pub fn push(&mut self, labels: &Labels, chunks: &[ChunkParts<'_>]) {
        if self.out.is_empty() {
            self.out.reserve(self.usual);
        }
        self.put_labels(labels);
        let len = self.labels.len() + chunks_len(chunks);
        self.out.reserve(field_len(len));
        put_len(SERIES, len, &mut self.out);
        self.out.extend_from_slice(&self.labels);
        put_chunks(chunks, &mut self.out);
    }

    /// Walks the labels once, which takes longer than copying them.
    fn put_labels(&mut self, labels: &Labels) {
        let out = &mut self.labels;
        out.clear();
        for (name, value) in labels.iter() {
            put_len(LABELS, label_len(name, value), out);
            put_bytes(NAME, name.as_bytes(), out);
            put_bytes(VALUE, value.as_bytes(), out);
        }
    }

    /// The bytes of the series so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// The message with the series so far, and what comes is the next one. None when there are none.
    pub fn take(&mut self) -> Option<SeriesResponse> {
        if self.out.is_empty() {
            return None;
        }
        self.usual = self.out.len();
        let content = Bytes::from(std::mem::take(&mut self.out));
        Some(SeriesResponse {
            result: Some(Result::Written(Written::batch(content))),
        })
    }
}

/// The length of a field of so many bytes, whose number is below 16.
pub(super) fn field_len(content: usize) -> usize {
    1 + encoded_len_varint(content as u64) + content
}

/// The length of a field of bytes that is not there when there are none.
fn bytes_len(content: &[u8]) -> usize {
    if content.is_empty() {
        0
    } else {
        field_len(content.len())
    }
}

/// The length of a number that is not there when it is zero.
fn number_len(number: u64) -> usize {
    if number == 0 {
        0
    } else {
        1 + encoded_len_varint(number)
    }
}

fn label_len(name: &str, value: &str) -> usize {
    bytes_len(name.as_bytes()) + bytes_len(value.as_bytes())
}

fn data_len(data: &ChunkData<'_>) -> usize {
    number_len(data.encoding as u64) + bytes_len(data.data) + number_len(data.hash)
}

fn chunk_len(chunk: &ChunkParts<'_>) -> usize {
    let mut len = number_len(chunk.min_time as u64) + number_len(chunk.max_time as u64);
    let each = |_, data: &ChunkData<'_>| len += field_len(data_len(data));
    chunk.content.each(each);
    len
}

fn chunks_len(chunks: &[ChunkParts<'_>]) -> usize {
    let chunks = chunks.iter().map(|chunk| field_len(chunk_len(chunk)));
    chunks.sum()
}

#[inline]
fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    if number < 0x80 {
        out.push(number as u8);
        return;
    }
    let mut bytes = [0; 10];
    let mut len = 0;
    for byte in &mut bytes {
        *byte = (number & 0x7f) as u8 | 0x80;
        len += 1;
        number >>= 7;
        if number == 0 {
            *byte &= 0x7f;
            break;
        }
    }
    // Of a length that the compiler knows, so that it takes no call.
    let end = out.len() + len;
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

#[inline]
fn put_key(field: u32, wire_type: WireType, out: &mut Vec<u8>) {
    put_varint(u64::from(field << 3 | wire_type as u32), out);
}

/// The key and the length of a field of so many bytes.
#[inline]
fn put_len(field: u32, len: usize, out: &mut Vec<u8>) {
    put_key(field, WireType::LengthDelimited, out);
    put_varint(len as u64, out);
}

fn put_bytes(field: u32, content: &[u8], out: &mut Vec<u8>) {
    if !content.is_empty() {
        put_len(field, content.len(), out);
        out.extend_from_slice(content);
    }
}

fn put_number(field: u32, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        put_key(field, WireType::Varint, out);
        put_varint(number, out);
    }
}

/// The chunks of a `Series`.
fn put_chunks(chunks: &[ChunkParts<'_>], out: &mut Vec<u8>) {
    for chunk in chunks {
        put_len(CHUNKS, chunk_len(chunk), out);
        put_number(MIN_TIME, chunk.min_time as u64, out);
        put_number(MAX_TIME, chunk.max_time as u64, out);
        chunk.content.each(|field, data| {
            put_len(field, data_len(data), out);
            put_number(TYPE, data.encoding as u64, out);
            put_bytes(DATA, data.data, out);
            put_number(HASH, data.hash, out);
        });
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::thanos::{AggrChunk, Chunk, SeriesBatch};

    /// A series as it is written, and as the message that it stands for.
    fn sample(n: u8) -> (Labels, Vec<ChunkParts<'static>>, Series) {
        let labels = Labels::from_pairs([
            ("__name__", "up"),
            ("job", "a".repeat(100 * usize::from(n)).as_str()),
            ("ünïcode.name", "ü"),
        ]);
        let data = |encoding, hash| ChunkData {
            encoding,
            data: b"xyz",
            hash,
        };
        let chunk = |encoding: chunk::Encoding, hash| Chunk {
            r#type: encoding.into(),
            data: Bytes::from_static(b"xyz"),
            hash,
        };
        let aggregates = [
            None,
            Some(data(chunk::Encoding::Xor, u64::MAX)),
            None,
            Some(data(chunk::Encoding::FloatHistogram, 0)),
            Some(data(chunk::Encoding::Histogram, 1)),
        ];
        let written = vec![
            ChunkParts {
                min_time: -5,
                max_time: 12,
                content: ChunkContent::Raw(data(chunk::Encoding::Xor, 7)),
            },
            ChunkParts {
                min_time: 0,
                max_time: i64::MAX,
                content: ChunkContent::Aggregates(Box::new(aggregates)),
            },
        ];
        let message = Series {
            labels: labels
                .iter()
                .map(|(name, value)| Label {
                    name: name.into(),
                    value: value.into(),
                })
                .collect(),
            chunks: vec![
                AggrChunk {
                    min_time: -5,
                    max_time: 12,
                    raw: Some(chunk(chunk::Encoding::Xor, 7)),
                    ..AggrChunk::default()
                },
                AggrChunk {
                    min_time: 0,
                    max_time: i64::MAX,
                    sum: Some(chunk(chunk::Encoding::Xor, u64::MAX)),
                    max: Some(chunk(chunk::Encoding::FloatHistogram, 0)),
                    counter: Some(chunk(chunk::Encoding::Histogram, 1)),
                    ..AggrChunk::default()
                },
            ],
        };
        (labels, written, message)
    }

    fn check(written: &SeriesResponse, meant: Result) {
        let meant = SeriesResponse {
            result: Some(meant),
        };
        let bytes = written.encode_to_vec();
        assert_eq!(bytes.len(), written.encoded_len());
        assert_eq!(bytes, meant.encode_to_vec());
        let received = SeriesResponse::decode(bytes.as_slice());
        assert_eq!(received.expect("an answer"), meant);
    }

    #[test]
    fn written_as_the_messages_are() {
        let (labels, chunks, message) = sample(3);
        check(
            &SeriesWriter::default().one(&labels, &chunks),
            Result::Series(message),
        );
        let mut writer = SeriesWriter::default();
        assert_eq!(writer.take(), None);
        for _ in 0..2 {
            let mut series = Vec::new();
            for n in 0..4 {
                let (labels, chunks, message) = sample(n);
                writer.push(&labels, &chunks);
                series.push(message);
            }
            let batch = writer.take().expect("a message");
            check(&batch, Result::Batch(SeriesBatch { series }));
        }
        let (labels, chunks) = (Labels::default(), Vec::new());
        check(
            &SeriesWriter::default().one(&labels, &chunks),
            Result::Series(Series::default()),
        );
    }

    #[test]
    fn labels_out_of_order_are_sorted() {
        let label = |name: &str, value: &str| Label {
            name: name.into(),
            value: value.into(),
        };
        let series = Series {
            labels: vec![label("b", "2"), label("a", "1"), label("c", "")],
            chunks: Vec::new(),
        };
        let expected = Labels::from_pairs([("a", "1"), ("b", "2")]);
        assert_eq!(series.label_set(), expected);
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let (labels, chunks, _) = sample(2);
        let bytes = SeriesWriter::default()
            .one(&labels, &chunks)
            .encode_to_vec();
        for end in 0..bytes.len() {
            let _read_or_refused = SeriesResponse::decode(&bytes[..end]);
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            let _read_or_refused = SeriesResponse::decode(broken.as_slice());
        }
    }
}
