//! Requests with characters in their URL that should have been escaped and often are not.
//!
//! `curl -g 'http://…/api/v1/query?query=up{job="x"}'` sends quotes as they are. Go's server, and
//! so Prometheus, takes that; the HTTP library used here answers 400 before any handler runs. So
//! the bytes of a connection pass through [`Lenient`], which escapes such characters in the
//! target of a request line and changes nothing else.
//!
//! It has to know where requests begin. That is exact for requests without a body; at the first
//! request that may have one, the rest of the connection passes untouched.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::serve::accept::{Connection, Connections};
use crate::telemetry::http::Remote;

/// Bytes read at a time.
const READ_BYTES: usize = 8 << 10;

/// Accepts connections that are read leniently.
pub(crate) struct LenientListener(pub(crate) Connections);

impl Listener for LenientListener {
    type Io = Lenient<Connection>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (connection, address) = self.0.next().await;
        (Lenient::new(connection), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.0.address())
    }
}

impl Connected<IncomingStream<'_, LenientListener>> for Remote {
    fn connect_info(stream: IncomingStream<'_, LenientListener>) -> Self {
        Remote(*stream.remote_addr())
    }
}

/// A connection whose request targets are escaped as they are read.
pub(crate) struct Lenient<S> {
    inner: S,
    escaper: Escaper,
    /// Read and escaped, not yet handed out from `taken` on.
    ready: Vec<u8>,
    taken: usize,
}

impl<S> Lenient<S> {
    fn new(inner: S) -> Self {
        Lenient {
            inner,
            escaper: Escaper::default(),
            ready: Vec::new(),
            taken: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken == this.ready.len() {
            if this.escaper.part == Part::Rest {
                this.ready = Vec::new();
                this.taken = 0;
                return Pin::new(&mut this.inner).poll_read(context, into);
            }
            let mut bytes = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut buffer))?;
            this.ready.clear();
            this.taken = 0;
            this.escaper.push(buffer.filled(), &mut this.ready);
        }
        let count = into.remaining().min(this.ready.len() - this.taken);
        into.put_slice(&this.ready[this.taken..this.taken + count]);
        this.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Which part of a request the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    /// The method, before its space.
    #[default]
    Method,
    /// The target, before its space.
    Target,
    /// The version and the header fields.
    Fields,
    /// All that follows on the connection, which is not looked at.
    Rest,
}

/// The longest name or method that is compared.
const NAME_BYTES_MAX: usize = 24;

/// Follows requests byte by byte.
#[derive(Default)]
struct Escaper {
    part: Part,
    /// The method, or the name of the field being read, in lower case and cut off.
    name: Vec<u8>,
    /// Whether the name of the field is complete.
    named: bool,
    /// Whether a field says that the request has a body or changes the protocol.
    ends: bool,
}

impl Escaper {
    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while let Some((byte, rest)) = bytes.split_first() {
            let same = self.unchanged(bytes);
            if same > 0 {
                out.extend_from_slice(&bytes[..same]);
                bytes = &bytes[same..];
                continue;
            }
            match self.part {
                Part::Method => self.method(*byte, out),
                Part::Target => self.target(*byte, out),
                Part::Fields => self.field(*byte, out),
                Part::Rest => {}
            }
            bytes = rest;
        }
    }

    /// How many of the next bytes pass as they are and change nothing.
    fn unchanged(&self, bytes: &[u8]) -> usize {
        let mut all = bytes.iter();
        let end = match self.part {
            Part::Target => all.position(|it| matches!(it, b' ' | b'\n') || is_escaped(*it)),
            Part::Fields if self.named => all.position(|it| *it == b'\n'),
            Part::Method | Part::Fields => Some(0),
            Part::Rest => None,
        };
        end.unwrap_or(bytes.len())
    }

    fn method(&mut self, byte: u8, out: &mut Vec<u8>) {
        out.push(byte);
        match byte {
            b' ' if matches!(&*self.name, b"get" | b"head") => self.begin(Part::Target),
            b' ' => self.part = Part::Rest,
            byte => self.remember(byte),
        }
    }

    fn target(&mut self, byte: u8, out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        match byte {
            b' ' | b'\n' => {
                out.push(byte);
                self.begin(Part::Fields);
                // The version stands where a field would: it is no name of interest.
                self.named = byte == b' ';
            }
            byte if is_escaped(byte) => {
                out.extend_from_slice(&[
                    b'%',
                    HEX[usize::from(byte >> 4)],
                    HEX[usize::from(byte & 15)],
                ]);
            }
            byte => out.push(byte),
        }
    }

    fn field(&mut self, byte: u8, out: &mut Vec<u8>) {
        out.push(byte);
        match byte {
            b'\r' => {}
            b'\n' if !self.named && self.name.is_empty() => {
                let next = if self.ends { Part::Rest } else { Part::Method };
                self.ends = false;
                self.begin(next);
            }
            b'\n' => self.begin(Part::Fields),
            b':' if !self.named => {
                self.named = true;
                let fields: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"upgrade"];
                self.ends |= fields.contains(&&*self.name);
            }
            byte if !self.named => self.remember(byte),
            _ => {}
        }
    }

    fn begin(&mut self, part: Part) {
        self.part = part;
        self.name.clear();
        self.named = false;
    }

    fn remember(&mut self, byte: u8) {
        if self.name.len() < NAME_BYTES_MAX {
            self.name.push(byte.to_ascii_lowercase());
        }
    }
}

/// Whether a byte of a target has to be escaped.
fn is_escaped(byte: u8) -> bool {
    matches!(
        byte,
        b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f..
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result must not depend on how the bytes arrive.
    fn check(sent: &str, expected: &str) {
        for size in [1, 3, 1000] {
            let mut escaper = Escaper::default();
            let mut out = Vec::new();
            for part in sent.as_bytes().chunks(size) {
                escaper.push(part, &mut out);
            }
            assert_eq!(
                String::from_utf8(out).unwrap(),
                expected,
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn escapes_targets_only() {
        check(
            "GET /q?query=up{job=\"é\"}>1 HTTP/1.1\r\nHost: a\"b\r\n\r\nGET /\" HTTP/1.1\r\n\r\n",
            "GET /q?query=up%7Bjob=%22%C3%A9%22%7D%3E1 HTTP/1.1\r\nHost: a\"b\r\n\r\nGET /%22 HTTP/1.1\r\n\r\n",
        );
    }

    #[test]
    fn leaves_alone_what_may_have_a_body() {
        for same in [
            "POST /\" HTTP/1.1\r\nContent-Length: 6\r\n\r\nGET /\"",
            "GET / HTTP/1.1\r\ncontent-length: 7\r\n\r\nGET /\" ",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nGET /\" \r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\"",
        ] {
            check(same, same);
        }
    }
}
