//! Blocks in a bucket, as Thanos lays them out:
//!
//! ```text
//! <ulid>/meta.json                 what the block is; written last, deleted first
//! <ulid>/index
//! <ulid>/chunks/000001…
//! <ulid>/deletion-mark.json        the block is going to be deleted
//! <ulid>/no-compact-mark.json      the block is not to be compacted
//! <ulid>/no-downsample-mark.json   the block is not to be downsampled
//! ```
//!
//! A block exists when its `meta.json` does; a directory without one is partial.
//!
//! [`meta`] is what `meta.json` says, [`marks`] the other small files, [`paths`] the names of all
//! of them.

mod json;
pub mod marks;
pub mod meta;
pub mod paths;
pub mod upload_time;

pub use meta::{Meta, Thanos};
pub use paths::BlockId;
