//! `thanos.SeriesResponse`, of which one answer of the Store API has hundreds.
//!
//! It is written by hand, since most of what is sent is made by [`SeriesWriter`](super::SeriesWriter) as
//! bytes and not as messages.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType, encode_key, encode_varint};
use prost::{DecodeError, Message};
use prost_types::Any;

use super::writer::field_len;
use super::{Series, SeriesBatch};

const SERIES: u32 = 1;
const WARNING: u32 = 2;
const HINTS: u32 = 3;
const BATCH: u32 = 4;

/// A part of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesResponse {
    /// What it says; none when it is of a kind that is not known here.
    pub result: Option<Result>,
}

/// What a part of an answer says.
#[derive(Debug, Clone, PartialEq)]
pub enum Result {
    /// One series.
    Series(Series),
    /// A remark on the answer as a whole.
    Warning(String),
    /// What the store tells of its work.
    Hints(Any),
    /// Some series.
    Batch(SeriesBatch),
    /// Series that are bytes already. Nothing that is received is this.
    Written(Written),
}

/// One series or a batch of them, as they go over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    field: u32,
    content: Bytes,
}

impl Written {
    /// The fields of a `Series`.
    pub(super) fn series(content: Bytes) -> Self {
        Written {
            field: SERIES,
            content,
        }
    }

    /// The fields of a `SeriesBatch`.
    pub(super) fn batch(content: Bytes) -> Self {
        Written {
            field: BATCH,
            content,
        }
    }
}

impl Message for SeriesResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        match &self.result {
            None => {}
            Some(Result::Series(series)) => encoding::message::encode(SERIES, series, buf),
            Some(Result::Warning(text)) => encoding::string::encode(WARNING, text, buf),
            Some(Result::Hints(hints)) => encoding::message::encode(HINTS, hints, buf),
            Some(Result::Batch(batch)) => encoding::message::encode(BATCH, batch, buf),
            Some(Result::Written(written)) => {
                encode_key(written.field, WireType::LengthDelimited, buf);
                encode_varint(written.content.len() as u64, buf);
                buf.put_slice(&written.content);
            }
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> std::result::Result<(), DecodeError> {
        // What comes twice is one, as protobuf has it.
        let before = self.result.take();
        self.result = Some(match (tag, before) {
            (SERIES, before) => {
                let mut series = match before {
                    Some(Result::Series(series)) => series,
                    _ => Series::default(),
                };
                encoding::message::merge(wire_type, &mut series, buf, ctx)?;
                Result::Series(series)
            }
            (WARNING, _) => {
                let mut text = String::new();
                encoding::string::merge(wire_type, &mut text, buf, ctx)?;
                Result::Warning(text)
            }
            (HINTS, before) => {
                let mut hints = match before {
                    Some(Result::Hints(hints)) => hints,
                    _ => Any::default(),
                };
                encoding::message::merge(wire_type, &mut hints, buf, ctx)?;
                Result::Hints(hints)
            }
            (BATCH, before) => {
                let mut batch = match before {
                    Some(Result::Batch(batch)) => batch,
                    _ => SeriesBatch::default(),
                };
                encoding::message::merge(wire_type, &mut batch, buf, ctx)?;
                Result::Batch(batch)
            }
            (_, before) => {
                self.result = before;
                return encoding::skip_field(wire_type, tag, buf, ctx);
            }
        });
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        match &self.result {
            None => 0,
            Some(Result::Series(series)) => encoding::message::encoded_len(SERIES, series),
            Some(Result::Warning(text)) => encoding::string::encoded_len(WARNING, text),
            Some(Result::Hints(hints)) => encoding::message::encoded_len(HINTS, hints),
            Some(Result::Batch(batch)) => encoding::message::encoded_len(BATCH, batch),
            Some(Result::Written(written)) => field_len(written.content.len()),
        }
    }

    fn clear(&mut self) {
        self.result = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thanos::Label;

    #[test]
    fn every_kind_comes_back() {
        let series = Series {
            labels: vec![Label {
                name: "a".into(),
                value: "b".into(),
            }],
            chunks: vec![],
        };
        let hints = Any {
            type_url: "type".into(),
            value: vec![1, 2],
        };
        let batch = SeriesBatch {
            series: vec![series.clone(), Series::default()],
        };
        for result in [
            Result::Series(series),
            Result::Warning("ünusual".into()),
            Result::Hints(hints),
            Result::Batch(batch),
        ] {
            let sent = SeriesResponse {
                result: Some(result),
            };
            let bytes = sent.encode_to_vec();
            assert_eq!(bytes.len(), sent.encoded_len());
            let received = SeriesResponse::decode(bytes.as_slice());
            assert_eq!(received.expect("an answer"), sent);
        }
        assert_eq!(SeriesResponse::default().encode_to_vec(), []);
    }

    #[test]
    fn of_what_is_not_known_nothing_is_left() {
        // Field 9, a text.
        let received = SeriesResponse::decode([0x4a, 1, b'x'].as_slice());
        assert_eq!(received.expect("an answer").result, None);
    }
}
