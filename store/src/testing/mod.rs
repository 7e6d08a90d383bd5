//! What tests of this crate and of those above share: the suites that every store
//! and every bucket have to pass, and a bucket that fails by a seed.

pub mod acceptance;
pub mod bucket;
pub mod faulty;
#[cfg(test)]
pub(crate) mod s3;
#[cfg(test)]
mod tests;
