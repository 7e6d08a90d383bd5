//! What the crate does as a whole, against blocks that others wrote and tools that others made.

#[cfg(test)]
mod backfill;
#[cfg(test)]
mod beside;
#[cfg(test)]
mod blocks;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod data;
#[cfg(test)]
mod delete;
#[cfg(test)]
mod estimates;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_heads;
#[cfg(test)]
mod head_basics;
#[cfg(test)]
mod head_faults;
#[cfg(test)]
mod head_histograms;
#[cfg(test)]
mod head_late;
#[cfg(test)]
mod head_model;
#[cfg(test)]
mod head_peers;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod matching;
#[cfg(test)]
mod packed;
#[cfg(test)]
mod power;
#[cfg(test)]
mod promtool;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod start_times;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tools;
