//! Object stores behind Thanos' `objstore.config`.
//!
//! [`config`] is the YAML, [`build`] makes a store of it. [`filesystem`] is a directory as a store;
//! wrappers, a file each, add what a back end lacks.

mod attributes;
pub mod build;
pub mod config;
mod credentials;
pub mod filesystem;
mod hedged;
mod http;
pub mod metered;
mod normal;
#[cfg(test)]
mod tests;
mod text;

pub use build::{Bucket, BuildError};
pub use config::{BucketConfig, ConfigError};
pub use credentials::Environment;
pub use filesystem::Filesystem;
pub use normal::Normal;
