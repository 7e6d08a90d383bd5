//! What tests of this crate and of those above share: the suites that every store
//! and every bucket have to pass, a bucket that fails by a seed, and a bucket behind a real S3 API.

pub mod acceptance;
pub mod bucket;
pub mod faulty;
pub mod s3;
#[cfg(test)]
mod tests;
