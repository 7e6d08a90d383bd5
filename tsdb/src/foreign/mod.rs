//! Data directories of Prometheus and of Thanos Receive: their formats, and how they become ours.
//!
//! [`segment`] and [`record`] read the write-ahead logs, [`head_chunks`] the chunks that a head has
//! completed; `read` puts both together, and `import` takes over a directory when a database is
//! opened. Blocks need no reading here: they are ours too.

pub mod head_chunks;
mod import;
mod numbers;
mod read;
pub mod record;
mod running;
pub mod segment;

pub(crate) use import::{finish, import};

#[cfg(test)]
mod tests;
