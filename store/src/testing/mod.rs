//! What tests of this crate and of those above share: the suite that every store has to pass.

pub mod acceptance;
#[cfg(test)]
mod tests;
