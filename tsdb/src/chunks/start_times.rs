//! The start times of a chunk's samples, as the encodings of Prometheus 3.14 that have them
//! (`tsdb/chunkenc/st.go`) write them between the samples.
//!
//! ```text
//! header <1 byte>   bit 7: the first sample has one
//!                   bits 0-6: from which sample on there are changes, 0 for none
//! sample 0          time - start <varint>                   if the header says so
//! sample n          previous time - start <varbit>          at the first change
//!                   change of that difference <varbit>      behind it
//! ```
//!
//! A sample in front of the first change has the start time of the one before it. 0 means that it
//! is not known; a chunk whose header is 0 knows none.

use crate::Error;

/// Follows the start times of a chunk from sample to sample.
pub(super) struct StartTimes {
    first_known: bool,
    changes_from: usize,
    /// The start time of the last sample.
    pub(super) start_ms: i64,
    /// From there to the time of the sample before.
    distance: i64,
}

impl StartTimes {
    /// By the byte in the chunk's header; `None` when no sample has one.
    pub(super) fn new(header: u8) -> Option<Self> {
        (header != 0).then_some(StartTimes {
            first_known: header & 0x80 != 0,
            changes_from: usize::from(header & 0x7f),
            start_ms: 0,
            distance: 0,
        })
    }

    /// Those of a chunk without any.
    pub(super) fn none() -> Self {
        StartTimes {
            first_known: false,
            changes_from: 0,
            start_ms: 0,
            distance: 0,
        }
    }

    /// Reads the one of the first sample.
    pub(super) fn first(
        &mut self,
        time_ms: i64,
        varint: impl FnOnce() -> Result<i64, Error>,
    ) -> Result<(), Error> {
        if self.first_known {
            self.start_ms = time_ms.wrapping_sub(varint()?);
        }
        Ok(())
    }

    /// Reads the one of sample `number`, which is not the first; the sample before it was at
    /// `before_ms`.
    pub(super) fn next(
        &mut self,
        number: usize,
        before_ms: i64,
        varbit: impl FnOnce() -> Result<i64, Error>,
    ) -> Result<(), Error> {
        if self.changes_from == 0 || number < self.changes_from {
            return Ok(());
        }
        let read = varbit()?;
        self.distance = match number == self.changes_from {
            true => read,
            false => self.distance.wrapping_add(read),
        };
        self.start_ms = before_ms.wrapping_sub(self.distance);
        Ok(())
    }
}
