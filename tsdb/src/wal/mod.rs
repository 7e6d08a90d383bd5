//! The write-ahead log: what the head has taken and no block holds yet.
//!
//! The directory `isobar-wal/` holds segments `00000001`, `00000002`, … and at most one snapshot
//! `snapshot-00000007`, which stands for all segments before number 7. Both are written alike:
//!
//! ```text
//! ┌────────────────────┬────────────┬────────────────┬──────────┬──────────┬───
//! │ "ISOBARW1" <8 b>   │ nonce <4b> │ CRC-32C <4b>   │ record   │ record   │ …
//! └────────────────────┴────────────┴────────────────┴──────────┴──────────┴───
//!                                      of the first 12 bytes
//! record
//! ┌────────────┬──────────┬───────────┬──────────────┬─────────────┐
//! │ nonce <4b> │ len <4b> │ kind <1b> │ CRC-32C <4b> │ payload     │
//! └────────────┴──────────┴───────────┴──────────────┴─────────────┘
//! ```
//!
//! Numbers are little-endian. The nonce is random for each file; it marks where a record may
//! begin, so that reading goes on behind damage. The checksum covers nonce, the record's offset
//! in the file, kind, length and payload: bytes of a label that look like a record are none.
//!
//! Payloads ([`record`]): a series comes before its first sample, samples of a series stand in
//! the order in which the head took them. Writing is in [`log`], reading in [`replay`].

pub(crate) mod log;
pub mod record;
pub(crate) mod replay;
pub mod segment;
pub(crate) mod snapshot;

pub use replay::inspect;

/// The directory of the log inside the data directory.
pub const WAL_DIR: &str = "isobar-wal";
