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
//! [`fetch`] finds out which blocks a bucket holds, and keeps of each what [`known`] says. [`meta`] is what
//! `meta.json` says, [`marks`] the other small files, [`paths`] the names of all of them. [`filter`] and [`relabel`] say which blocks a component cares for.
//! [`upload`] brings a block into a bucket, [`shipper`] all blocks of a directory; [`expiry`] removes old ones.

mod cache;
pub mod expiry;
pub mod fetch;
pub mod filter;
mod json;
pub mod known;
mod list;
pub mod marks;
pub mod meta;
pub mod paths;
pub mod relabel;
pub mod shipper;
pub mod upload;
pub mod upload_time;

pub use fetch::{FetchOptions, Fetched, Fetcher, Freshness};
pub use filter::{Filters, KnownBlock};
pub use known::{KnownMeta, Summary};
pub use list::Discovery;
pub use meta::{Meta, Thanos};
pub use paths::BlockId;
