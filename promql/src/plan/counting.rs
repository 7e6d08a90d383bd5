//! How the samples that a selector looks at count for the query, as Prometheus counts them.
//!
//! Where a result is held, its samples are looked at at each step and read at the first. What the
//! subquery of a function looks at does not count, since the windows of the function do; what it
//! reads counts for the first step of the query whose window holds it, and not at all between two
//! windows.

use super::node::Grid;

/// How the samples of a selector count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counting {
    /// How often they count as looked at: for each step for which the result is held, and not at
    /// all in the subquery of a function.
    pub(crate) weight: u64,
    /// At how many places of the query the same stands.
    pub(crate) times: u64,
    /// What lies around the selector, from outside to inside.
    pub(crate) frames: Vec<Frame>,
}

/// Something that has steps of its own inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// One result, held for all steps.
    Held,
    /// A subquery.
    Subquery {
        /// Its steps.
        inner: Grid,
        /// The steps around it.
        outer: Grid,
        /// Its offset in milliseconds.
        offset_ms: i64,
        /// How long the windows are that the steps around it see of it, in milliseconds; 0 for all
        /// of it.
        range_ms: i64,
    },
}

impl Frame {
    /// Whether it has steps that nothing around it sees.
    fn has_gaps(&self) -> bool {
        match self {
            Frame::Held => false,
            Frame::Subquery {
                outer, range_ms, ..
            } => outer.count > 1 && *range_ms > 0 && *range_ms < outer.step_ms,
        }
    }

    /// The step around it for which what is read at one inside counts.
    fn outer_step(&self, step: usize) -> Option<usize> {
        match self {
            Frame::Held => Some(0),
            Frame::Subquery { outer, .. } if outer.count <= 1 => Some(0),
            Frame::Subquery {
                inner,
                outer,
                offset_ms,
                range_ms,
            } => {
                let time_ms = inner.time_ms(step).saturating_add(*offset_ms);
                let passed_ms = time_ms.saturating_sub(outer.start_ms).max(0);
                let step_ms = outer.step_ms.max(1);
                let steps = passed_ms / step_ms + i64::from(passed_ms % step_ms != 0);
                let at = usize::try_from(steps).unwrap_or(0).min(outer.count - 1);
                let seen = *range_ms == 0 || time_ms > outer.time_ms(at) - range_ms;
                seen.then_some(at)
            }
        }
    }
}

impl Counting {
    /// Whether some of what is read does not count.
    pub(crate) fn has_gaps(&self) -> bool {
        self.frames.iter().any(Frame::has_gaps)
    }

    /// The step of the query for which what the selector reads at one of its own counts.
    pub(crate) fn step_of_query(&self, step: usize) -> Option<usize> {
        let mut frames = self.frames.iter().rev();
        frames.try_fold(step, |step, frame| frame.outer_step(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_subqueries_count_for_the_first_window_that_holds_them() {
        let frame = |range_ms| Frame::Subquery {
            inner: Grid::new(60, 340, 20),
            outer: Grid::new(100, 300, 100),
            offset_ms: 10,
            range_ms,
        };
        let steps = |frames: Vec<Frame>| -> Vec<Option<usize>> {
            let counting = Counting {
                weight: 0,
                times: 1,
                frames,
            };
            (0..15).map(|i| counting.step_of_query(i)).collect()
        };
        // 70, 90 and 110 to 210, 230 …; those behind the last window count for it.
        let whole: Vec<_> = [
            [Some(0); 2].to_vec(),
            [Some(1); 5].to_vec(),
            [Some(2); 8].to_vec(),
        ]
        .concat();
        assert_eq!(steps(vec![frame(0)]), whole);
        assert_eq!(steps(vec![frame(100)]), whole);
        assert!(!frame(100).has_gaps() && frame(40).has_gaps());
        let mut gaps = whole;
        for (i, step) in gaps.iter_mut().enumerate() {
            if [2, 3, 4, 7, 8, 9].contains(&i) {
                *step = None;
            }
        }
        assert_eq!(steps(vec![frame(40)]), gaps);
        assert_eq!(steps(vec![Frame::Held, frame(0)]), [Some(0); 15]);
    }
}
