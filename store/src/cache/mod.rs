//! Bytes of blocks in a bucket that were read before: in memory, then on disk.

pub mod remote;
