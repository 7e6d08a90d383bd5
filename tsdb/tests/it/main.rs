//! What the crate does as a whole, against blocks that others wrote and tools that others made.

#[cfg(test)]
mod contract;
#[cfg(test)]
mod data;
#[cfg(test)]
mod head_basics;
#[cfg(test)]
mod head_model;
#[cfg(test)]
mod support;
