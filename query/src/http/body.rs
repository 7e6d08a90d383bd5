//! The body of an answer: written on the compute pool a piece at a time, as fast as the client
//! reads and never ahead of it by more than a piece. A slow client holds memory, not a thread. That
//! memory is reserved: what is left of the answer, and the pieces.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use isobar_model::{OverBudget, Reservation};
use isobar_store::compute::{ComputeError, Pool};
use parking_lot::Mutex;

use super::json::answer::AnswerWriter;

/// The size of the first piece before compression. Each is twice as large as the one before it, up
/// to the largest: the wait for a thread shall not cost more than the writing.
const PIECE_BYTES: usize = 64 << 10;
/// The size of the largest piece before compression.
const PIECE_BYTES_MAX: usize = 512 << 10;
/// How long to wait for a place in the pool's queue before asking for one again.
const QUEUE_RETRY: Duration = Duration::from_millis(20);

/// What the compressor takes at its fastest level: its window, its tables and what it has not
/// written yet.
const GZIP_BYTES: usize = 320 << 10;

/// The memory of an answer that is written.
pub(crate) struct Memory {
    /// Of the answer, until the last piece is written.
    _answer: Arc<Reservation>,
    /// Of the pieces: the one that is written and the one that is sent.
    pieces: Reservation,
}

impl From<Reservation> for Memory {
    fn from(answer: Reservation) -> Self {
        Memory::of(Arc::new(answer))
    }
}

impl Memory {
    /// The pieces take theirs where the answer has its own.
    pub(crate) fn of(answer: Arc<Reservation>) -> Self {
        let pieces = answer.another("the text of the answer");
        Memory {
            _answer: answer,
            pieces,
        }
    }

    /// Makes sure of the memory for pieces of `piece_bytes`.
    fn reserve(&mut self, piece_bytes: usize, gzip: bool) -> Result<(), OverBudget> {
        let fixed = if gzip { GZIP_BYTES } else { 0 };
        self.pieces.grow_to(fixed + 2 * room_for(piece_bytes))
    }
}

/// The bytes of a piece with what is written beyond its size.
fn room_for(piece_bytes: usize) -> usize {
    piece_bytes + PIECE_BYTES / 2
}

/// Why an answer cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Memory(#[from] OverBudget),
    #[error(transparent)]
    Compress(#[from] std::io::Error),
}

/// Writes an answer in pieces, compressed when the client takes that.
pub(crate) struct BodyWriter {
    answer: AnswerWriter,
    gzip: Option<GzEncoder<Vec<u8>>>,
    /// `None` for small answers that no query made.
    memory: Option<Memory>,
    piece_bytes: usize,
    done: bool,
}

impl BodyWriter {
    pub(crate) fn new(answer: AnswerWriter, gzip: bool, memory: Option<Memory>) -> Self {
        // The fastest level: answers are read once, and soon.
        let gzip = gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
        BodyWriter {
            answer,
            gzip,
            memory,
            piece_bytes: PIECE_BYTES,
            done: false,
        }
    }

    /// Writes the next piece, which is empty only when the compressor keeps all of it; `None`
    /// when the answer is complete.
    fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        if self.done {
            return Ok(None);
        }
        // Most answers are smaller than the first piece.
        let mut piece = match self.piece_bytes {
            PIECE_BYTES => Vec::new(),
            bytes => Vec::with_capacity(room_for(bytes)),
        };
        self.done = self.answer.write(&mut piece, self.piece_bytes);
        self.piece_bytes = self.next_size();
        let piece = match self.gzip.take() {
            None => piece,
            Some(mut gzip) => {
                gzip.write_all(&piece)?;
                if self.done {
                    gzip.finish()?
                } else {
                    let compressed = std::mem::take(gzip.get_mut());
                    self.gzip = Some(gzip);
                    compressed
                }
            }
        };
        Ok(Some(piece.into()))
    }

    /// The size of the next piece: an answer that has begun is finished, if need be in pieces that
    /// do not grow.
    fn next_size(&mut self) -> usize {
        let size = PIECE_BYTES_MAX.min(2 * self.piece_bytes);
        let gzip = self.gzip.is_some();
        let has_room = match &mut self.memory {
            Some(memory) if !self.done => memory.reserve(size, gzip).is_ok(),
            _ => true,
        };
        if has_room { size } else { self.piece_bytes }
    }

    /// Writes the first piece. To be called on the pool.
    ///
    /// # Errors
    /// When there is no memory for pieces of the smallest size, or the compressor fails.
    pub(crate) fn begin(mut self) -> Result<Begun, WriteError> {
        if let Some(memory) = &mut self.memory {
            memory.reserve(PIECE_BYTES, self.gzip.is_some())?;
        }
        let first = self.next()?.unwrap_or_default();
        Ok(Begun { first, rest: self })
    }
}

/// A body whose first piece is written.
pub(crate) struct Begun {
    first: Bytes,
    rest: BodyWriter,
}

impl Begun {
    /// The body; what is left of it is written on `pool`.
    pub(crate) fn into_body(self, pool: Arc<Pool>) -> Body {
        if self.rest.done {
            return Body::from(self.first);
        }
        let state = (Some(self.first), Arc::new(Mutex::new(self.rest)), pool);
        Body::from_stream(stream::try_unfold(
            state,
            |(first, writer, pool)| async move {
                if let Some(first) = first {
                    return Ok(Some((first, (None, writer, pool))));
                }
                let piece = next_piece(&writer, &pool).await?;
                Ok::<_, std::io::Error>(piece.map(|piece| (piece, (None, writer, pool))))
            },
        ))
    }
}

async fn next_piece(
    writer: &Arc<Mutex<BodyWriter>>,
    pool: &Pool,
) -> std::io::Result<Option<Bytes>> {
    loop {
        let writer = Arc::clone(writer);
        match pool.run(move || writer.lock().next()).await {
            Ok(piece) => return piece,
            // An answer that has begun is finished: it waits for its turn.
            Err(ComputeError::QueueFull) => tokio::time::sleep(QUEUE_RETRY).await,
            Err(error @ (ComputeError::Closed | ComputeError::Panicked)) => {
                return Err(std::io::Error::other(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use isobar_model::Budget;

    use super::*;
    use crate::http::json::answer::Data;
    use std::io::Read as _;

    fn answer() -> AnswerWriter {
        let names = (0..50_000).map(|i| format!("name_{i}")).collect();
        AnswerWriter::new(Data::Names(names), &isobar_model::Warnings::default())
    }

    async fn collect(gzip: bool) -> Vec<u8> {
        collect_with(gzip, None).await
    }

    async fn collect_with(gzip: bool, memory: Option<Memory>) -> Vec<u8> {
        let pool = Arc::new(Pool::new("test", 1, 1).unwrap());
        let body = BodyWriter::new(answer(), gzip, memory)
            .begin()
            .unwrap()
            .into_body(pool);
        axum::body::to_bytes(body, usize::MAX)
            .await
            .unwrap()
            .to_vec()
    }

    #[tokio::test]
    async fn pieces_plain_and_compressed_make_up_the_answer() {
        let mut expected = Vec::new();
        answer().write(&mut expected, usize::MAX);
        assert!(expected.len() > 5 * PIECE_BYTES);
        assert_eq!(collect(false).await, expected);
        let mut plain = Vec::new();
        let compressed = collect(true).await;
        flate2::read::GzDecoder::new(&compressed[..])
            .read_to_end(&mut plain)
            .unwrap();
        assert_eq!(plain, expected);
    }

    #[tokio::test]
    async fn the_text_takes_memory_and_gives_it_back() {
        let expected = collect(false).await;
        for (limit, gzip) in [(1 << 20, false), (200 << 10, false), (600 << 10, true)] {
            let budget = Budget::new("the memory of one query", limit);
            let memory = Memory::from(budget.reservation("the answer"));
            let got = collect_with(gzip, Some(memory)).await;
            assert!(gzip || got == expected, "{limit}");
            assert!(budget.peak() >= 2 * PIECE_BYTES as u64);
            assert_eq!(budget.held(), 0);
        }
        let budget = Budget::new("the memory of one query", 200 << 10);
        let memory = Memory::from(budget.reservation("the answer"));
        let error = BodyWriter::new(answer(), true, Some(memory)).begin().err();
        assert_eq!(
            error.map(|it| it.to_string()),
            Some(
                "the memory of one query is limited to 200.0 KiB: the text of the answer asked \
                 for 512.0 KiB more when 0 B were held"
                    .to_owned()
            )
        );
        assert_eq!(budget.held(), 0);
    }
}
