//! The head: series that are still written to, in memory, backed by the log.

pub mod incoming;
