//! Object stores behind Thanos' `objstore.config`.
//!
//! [`config`] is the YAML, [`build`] makes a store of it. Wrappers, a file each, add what a back
//! end lacks.

pub mod build;
pub mod config;
mod credentials;
mod http;
mod text;

pub use build::{Bucket, BuildError};
pub use config::{BucketConfig, ConfigError};
pub use credentials::Environment;
