//! `thanos.Series`: labels and chunks, the message that the Store API sends by the million.
//!
//! Labels go out straight from a [`Labels`], without a text of their own for each name and value.

use bytes::{Buf, BufMut};
use isobar_model::Labels;
use prost::encoding::{
    self, DecodeContext, WireType, check_wire_type, encode_key, encode_varint, encoded_len_varint,
};
use prost::{DecodeError, Message};

use super::{AggrChunk, Label};

const LABELS: u32 = 1;
const CHUNKS: u32 = 2;
/// The fields of a `Label`.
const NAME: u32 = 1;
const VALUE: u32 = 2;

/// The labels of a series on the wire.
#[derive(Debug, Clone, PartialEq)]
pub enum SeriesLabels {
    /// Those of a series that is sent.
    Set(Labels),
    /// Those of a series that was received, in the order in which they came.
    Pairs(Vec<Label>),
}

impl Default for SeriesLabels {
    fn default() -> Self {
        SeriesLabels::Pairs(Vec::new())
    }
}

impl SeriesLabels {
    /// The labels as a set: sorted by name, without empty values; of equal names the last wins.
    pub fn to_set(&self) -> Labels {
        match self {
            SeriesLabels::Set(labels) => labels.clone(),
            SeriesLabels::Pairs(pairs) => {
                let in_order = pairs.is_sorted_by(|a, b| a.name < b.name);
                let pairs = pairs.iter().map(|it| (it.name.as_str(), it.value.as_str()));
                if in_order {
                    let pairs = pairs.filter(|(_, value)| !value.is_empty());
                    Labels::from_sorted(pairs, &mut String::new())
                } else {
                    Labels::from_pairs(pairs)
                }
            }
        }
    }

    fn each(&self, mut take: impl FnMut(&str, &str)) {
        match self {
            SeriesLabels::Set(labels) => labels.iter().for_each(|(n, v)| take(n, v)),
            SeriesLabels::Pairs(pairs) => pairs.iter().for_each(|it| take(&it.name, &it.value)),
        }
    }
}

/// A series with its chunks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: SeriesLabels,
    /// Its chunks, ordered by their first time as a rule.
    pub chunks: Vec<AggrChunk>,
}

impl Message for Series {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.labels.each(|name, value| {
            encode_key(LABELS, WireType::LengthDelimited, buf);
            encode_varint(label_len(name, value) as u64, buf);
            put_text(NAME, name, buf);
            put_text(VALUE, value, buf);
        });
        for chunk in &self.chunks {
            encoding::message::encode(CHUNKS, chunk, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            LABELS => {
                check_wire_type(WireType::LengthDelimited, wire_type)?;
                let mut label = Label::default();
                encoding::message::merge(wire_type, &mut label, buf, ctx)?;
                match &mut self.labels {
                    SeriesLabels::Pairs(pairs) => pairs.push(label),
                    SeriesLabels::Set(_) => self.labels = SeriesLabels::Pairs(vec![label]),
                }
                Ok(())
            }
            CHUNKS => encoding::message::merge_repeated(wire_type, &mut self.chunks, buf, ctx),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let mut length = encoding::message::encoded_len_repeated(CHUNKS, &self.chunks);
        self.labels.each(|name, value| {
            let label = label_len(name, value);
            length += 1 + encoded_len_varint(label as u64) + label;
        });
        length
    }

    fn clear(&mut self) {
        *self = Series::default();
    }
}

/// The length of a `Label`, without its own key and length.
fn label_len(name: &str, value: &str) -> usize {
    text_len(name) + text_len(value)
}

/// Nothing for an empty text, as protobuf has it.
fn text_len(text: &str) -> usize {
    match text.len() {
        0 => 0,
        len => 1 + encoded_len_varint(len as u64) + len,
    }
}

fn put_text(tag: u32, text: &str, buf: &mut impl BufMut) {
    if !text.is_empty() {
        encode_key(tag, WireType::LengthDelimited, buf);
        encode_varint(text.len() as u64, buf);
        buf.put_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thanos::{Chunk, series_response};

    fn sample() -> Series {
        let chunk = Chunk {
            r#type: 1,
            data: bytes::Bytes::from_static(b"xyz"),
            hash: 7,
        };
        Series {
            labels: SeriesLabels::Set(Labels::from_pairs([
                ("__name__", "up"),
                ("job", "a".repeat(300).as_str()),
                ("ünïcode.name", "ü"),
            ])),
            chunks: vec![AggrChunk {
                min_time: -5,
                max_time: 12,
                raw: Some(chunk),
                ..AggrChunk::default()
            }],
        }
    }

    #[test]
    fn what_is_sent_is_received() {
        let sent = sample();
        let bytes = sent.encode_to_vec();
        assert_eq!(bytes.len(), sent.encoded_len());
        let received = Series::decode(bytes.as_slice()).expect("a series");
        assert_eq!(received.labels.to_set(), sent.labels.to_set());
        assert_eq!(received.chunks, sent.chunks);
        assert_eq!(received.encode_to_vec(), bytes);
    }

    #[test]
    fn inside_of_an_answer() {
        let answer = crate::thanos::SeriesResponse {
            result: Some(series_response::Result::Series(sample())),
        };
        let bytes = answer.encode_to_vec();
        assert_eq!(bytes.len(), answer.encoded_len());
        // Field 1 of the answer is the series, as its own definition has it.
        assert_eq!(bytes.first(), Some(&0x0a));
        assert_eq!(&bytes[3..], sample().encode_to_vec());
    }

    #[test]
    fn labels_out_of_order_are_sorted() {
        let pair = |name: &str, value: &str| Label {
            name: name.into(),
            value: value.into(),
        };
        let labels = SeriesLabels::Pairs(vec![pair("b", "2"), pair("a", "1"), pair("c", "")]);
        assert_eq!(
            labels.to_set(),
            Labels::from_pairs([("a", "1"), ("b", "2")])
        );
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let bytes = sample().encode_to_vec();
        for end in 0..bytes.len() {
            let _read_or_refused = Series::decode(&bytes[..end]);
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0xff;
            let _read_or_refused = Series::decode(broken.as_slice());
        }
    }
}
