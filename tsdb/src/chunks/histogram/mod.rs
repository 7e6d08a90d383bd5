//! Chunks of native histograms (Prometheus `tsdb/chunkenc/histogram.go` and `float_histogram.go`).
//!
//! ```text
//! ┌───────────────┬──────────┬────────┬─────────┬─────────┬──────┐
//! │ samples <2B>  │ flags<1B>│ layout │ sample 0│ sample 1│  …   │  bits, without padding between
//! └───────────────┴──────────┴────────┴─────────┴─────────┴──────┘
//! ```
//!
//! Two flag bits tell of counter resets. The layout is the zero threshold, the schema, positive
//! and negative spans and, for custom buckets, their bounds; all samples of a chunk share it.
//!
//! - Integer: times and counts are varbit numbers, first as they are, then as the change of the
//!   distance to the sample before; each bucket is the distance to the one before it.
//! - Float: all counts are 64 bits at first and then XORed with the sample before.
//!
//! In the encodings with start times (5 and 6, Prometheus 3.14's `histogram_st.go` and
//! `float_histogram_st.go`) the flags are the two high bits of the number of samples, the third
//! byte and what follows a sample is told in [`super::start_times`].
//!
//! The sum is XORed in both. A sum that is the staleness marker ends its sample.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod append;
mod bits;
mod encode;
mod layout;
mod samples;
mod write;

pub(crate) use append::HistogramAppender;
pub(super) use bits::{VARBIT_WIDTHS, varbit_signed};
pub use encode::encode;
pub(crate) use encode::{goes_on, header, is_integral};
pub use samples::{Counts, Kind, Stats, decode, decode_packed};

use crate::Error;

/// The number of samples and the flags.
const HEADER_BYTES: usize = 3;

fn corrupt(why: impl Into<String>) -> Error {
    Error::corrupt("histogram chunk", why)
}
