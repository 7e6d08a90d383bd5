//! A block: a directory with the series of a stretch of time, never changed once it is there.
//!
//! ```text
//! 01M81ZQE8YAM9Z23KC71TDJHDJ/   named by its ULID
//! ├── meta.json                 what it holds and comes from      meta
//! ├── index                     which series, where their chunks  crate::index
//! ├── chunks/000001 …           the samples                       crate::chunks
//! ├── tombstones                what was deleted since            crate::tombstones
//! └── isobar-exemplars          exemplars, if there are some      crate::exemplars
//! ```
//!
//! [`BlockReader`] reads one and remembers some of it in a [`SeriesCache`], [`BlockWriter`] writes
//! one, [`tools`] check, print and copy one.

pub mod meta;
pub mod reader;
pub mod series_cache;
pub mod tools;
pub mod writer;

pub use meta::BlockMeta;
pub use reader::BlockReader;
pub use series_cache::SeriesCache;
pub use writer::BlockWriter;

const META_FILE: &str = "meta.json";
const INDEX_FILE: &str = "index";
const CHUNKS_DIR: &str = "chunks";
const TOMBSTONES_FILE: &str = "tombstones";
