//! What is done to a whole block: [`verify()`] checks all of it and lists what is wrong, [`rewrite()`]
//! copies it without what was deleted, [`dump()`] prints its samples, [`stats()`] counts what is in it.
//!
//! They read blocks that Prometheus, Thanos or Isobar wrote.

pub mod dump;
pub mod rewrite;
pub mod stats;
pub mod verify;

pub use dump::dump;
pub use rewrite::{Rewrite, rewrite};
pub use stats::{Stats, stats};
pub use verify::{Finding, Report, verify};
