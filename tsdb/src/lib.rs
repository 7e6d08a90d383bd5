//! Reads and writes the Prometheus formats: chunks, index, tombstones, blocks; and keeps what is
//! not in a block yet: the write-ahead log and the head.
//!
//! In reading order: [`encoding`] (bits, varints, checksums), [`chunks`] (one run of samples),
//! [`index`] (which series exist and where their chunks lie), [`block`] (a directory of both),
//! [`merge`] (many sorted sources as one), [`wal`] and [`head`] (what is being written), [`db`]
//! (head and blocks behind one interface), [`exemplars`] and [`metadata`] (what is kept beside
//! samples), [`backfill`] (blocks from samples in any order).
//!
//! This crate is synchronous: no runtime, no network. Decoders take slices and never trust a
//! length before it is checked; bytes from disk give [`Error::Corrupt`], never a panic.

pub mod backfill;
pub mod block;
pub mod chunks;
pub mod db;
pub mod disk;
pub mod encoding;
pub mod error;
pub mod exemplars;
pub mod foreign;
pub mod head;
pub mod index;
pub mod lock;
pub mod merge;
pub mod metadata;
pub mod mmap;
mod pace;
pub mod tombstones;
pub mod wal;

pub use db::Db;
pub use error::Error;
pub use merge::SeriesChunks;
