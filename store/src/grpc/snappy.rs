//! Compression with snappy's framed format, which Thanos calls `snappy` and uses between its own.
//!
//! A request that comes compressed is answered compressed, as Go's server does it. What lies behind this
//! layer sees neither: messages are taken out of their frames here, one at a time, and bounded.
//!
//! ```text
//! ┌─────────────────┬──────────────┬──────────────────┐
//! │ compressed <u8> │ length <be32> │ message <length> │ …
//! └─────────────────┴──────────────┴──────────────────┘
//! ```

use std::io::{Read, Write};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;
use http::header::HeaderValue;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

const NAME: HeaderValue = HeaderValue::from_static("snappy");
const ENCODING: &str = "grpc-encoding";
const ACCEPTED: &str = "grpc-accept-encoding";
/// The flag and the length of a message.
const HEAD_BYTES: usize = 5;
/// The largest message that is taken apart or put together.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Puts [`Snappy`] around services.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnappyLayer;

impl<S> Layer<S> for SnappyLayer {
    type Service = Snappy<S>;

    fn layer(&self, inner: S) -> Snappy<S> {
        Snappy { inner }
    }
}

/// A service whose clients may compress.
#[derive(Debug, Clone)]
pub struct Snappy<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Snappy<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if request.headers().get(ENCODING) != Some(&NAME) {
            return Box::pin(self.inner.call(request));
        }
        request.headers_mut().remove(ENCODING);
        let answer = self
            .inner
            .call(request.map(|body| changed(body, decompressed)));
        Box::pin(async move {
            let mut answer = answer.await?;
            let headers = answer.headers_mut();
            // An answer that is nothing but a status has no messages.
            if !headers.contains_key("grpc-status") {
                headers.insert(ENCODING, NAME);
                headers.insert(ACCEPTED, NAME);
                answer = answer.map(|body| changed(body, compressed));
            }
            Ok(answer)
        })
    }
}

/// What is done to a message: its flag and itself.
type Change = fn(u8, &[u8]) -> Result<(u8, Vec<u8>), Status>;

fn decompressed(flag: u8, message: &[u8]) -> Result<(u8, Vec<u8>), Status> {
    if flag == 0 {
        return Ok((0, message.to_vec()));
    }
    let mut plain = Vec::new();
    // One byte more shows that there is more.
    let reader = snap::read::FrameDecoder::new(message);
    let read = reader
        .take(MESSAGE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut plain);
    read.map_err(|why| Status::internal(format!("decompress a message with snappy: {why}")))?;
    if plain.len() > MESSAGE_BYTES_MAX {
        return Err(too_large());
    }
    Ok((0, plain))
}

fn compressed(flag: u8, message: &[u8]) -> Result<(u8, Vec<u8>), Status> {
    if flag != 0 {
        return Ok((flag, message.to_vec()));
    }
    let mut writer = snap::write::FrameEncoder::new(Vec::new());
    let written = writer.write_all(message);
    let packed = written.and_then(|()| writer.into_inner().map_err(|why| why.into_error()));
    match packed {
        Ok(packed) => Ok((1, packed)),
        Err(why) => Err(Status::internal(format!(
            "compress a message with snappy: {why}"
        ))),
    }
}

fn too_large() -> Status {
    let text = format!("a message is larger than {MESSAGE_BYTES_MAX} bytes");
    Status::resource_exhausted(text)
}

/// The messages of a body on their way through a change.
struct Changing {
    body: Option<Body>,
    /// What came of the next message.
    buffer: BytesMut,
    trailers: Option<HeaderMap>,
    change: Change,
}

impl Changing {
    /// The next message, changed; `None` when there is not yet all of it.
    fn message(&mut self) -> Result<Option<Bytes>, Status> {
        let mut head = self.buffer.as_ref();
        if head.len() < HEAD_BYTES {
            return Ok(None);
        }
        let flag = head.get_u8();
        let length = head.get_u32() as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(too_large());
        }
        let Some(message) = head.get(..length) else {
            self.buffer.reserve(HEAD_BYTES + length - self.buffer.len());
            return Ok(None);
        };
        let (flag, changed) = (self.change)(flag, message)?;
        let mut out = BytesMut::with_capacity(HEAD_BYTES + changed.len());
        out.put_u8(flag);
        let length = u32::try_from(changed.len()).map_err(|_| too_large())?;
        out.put_u32(length);
        out.extend_from_slice(&changed);
        self.buffer.advance(HEAD_BYTES + message.len());
        Ok(Some(out.freeze()))
    }

    async fn next(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        loop {
            match self.message() {
                Ok(Some(message)) => return Some(Ok(Frame::data(message))),
                Ok(None) => {}
                Err(status) => {
                    self.end();
                    return Some(Err(status));
                }
            }
            let next = match &mut self.body {
                Some(body) => body.frame().await,
                None => return self.trailers.take().map(|it| Ok(Frame::trailers(it))),
            };
            match next {
                None => {
                    self.body = None;
                    if !self.buffer.is_empty() {
                        self.end();
                        return Some(Err(Status::internal("a message is cut short")));
                    }
                }
                Some(Err(status)) => {
                    self.end();
                    return Some(Err(status));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    fn end(&mut self) {
        self.body = None;
        self.buffer.clear();
        self.trailers = None;
    }
}

fn changed(body: Body, change: Change) -> Body {
    let changing = Changing {
        body: Some(body),
        buffer: BytesMut::new(),
        trailers: None,
        change,
    };
    let frames = stream::unfold(changing, |mut changing| async move {
        let frame = changing.next().await?;
        Some((frame, changing))
    });
    Body::new(StreamBody::new(frames))
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use http_body_util::Full;

    use super::*;

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut out = vec![flag];
        out.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
        out.extend(message);
        out
    }

    fn through(bytes: Vec<u8>, change: Change) -> Result<Vec<u8>, String> {
        let body = Body::new(Full::new(Bytes::from(bytes)));
        let all = block_on(changed(body, change).collect());
        all.map(|it| it.to_bytes().to_vec())
            .map_err(|it| it.message().to_owned())
    }

    #[test]
    fn there_and_back() {
        let long = b"all work and no play ".repeat(5000);
        let mut messages = framed(0, b"");
        messages.extend(framed(0, &long));
        messages.extend(framed(0, b"x"));
        let packed = through(messages.clone(), compressed).expect("packed");
        assert!(packed.len() < messages.len() / 4);
        assert_eq!(packed.first(), Some(&1));
        assert_eq!(through(packed, decompressed).expect("unpacked"), messages);
    }

    #[test]
    fn wrong_bytes_are_refused() {
        let check = |bytes: Vec<u8>, expected: &str| {
            let error = through(bytes, decompressed).expect_err("refused");
            assert!(error.contains(expected), "{error}");
        };
        check(
            framed(1, b"not snappy at all"),
            "decompress a message with snappy",
        );
        check(framed(0, b"abc")[..6].to_vec(), "cut short");
        check(vec![1, 0xff, 0xff, 0xff, 0xff], "larger than");
    }
}
