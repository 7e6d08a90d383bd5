//! Whether a counter was reset between two histograms.

use super::add::within_zero;
use super::{Buckets, CounterReset, FloatHistogram};

impl FloatHistogram {
    /// Whether the counter was reset since `previous`: as the hint says, or when any count fell, or
    /// when the layout changed in a way that only a reset explains.
    pub fn detect_reset(&self, previous: &FloatHistogram) -> bool {
        match self.hint {
            CounterReset::Reset => return true,
            CounterReset::NotReset => return false,
            CounterReset::Unknown | CounterReset::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.is_custom() {
            if !previous.is_custom() {
                return true;
            }
            if self.custom != previous.custom {
                return self.fell_at_common_bounds(previous);
            }
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero_count, threshold, _) = previous.zero_count_within(self.zero_threshold, None);
        if threshold != self.zero_threshold || self.zero_count < zero_count {
            return true;
        }
        let sides = [
            (&self.positive, &previous.positive),
            (&self.negative, &previous.negative),
        ];
        sides
            .into_iter()
            .any(|(now, before)| self.side_fell(now, before, previous.schema))
    }

    fn side_fell(&self, now: &Buckets, before: &Buckets, schema: i32) -> bool {
        let by = schema.abs_diff(self.schema);
        let coarse;
        let before = if by > 0 {
            coarse = before.coarser(by);
            &coarse
        } else {
            before
        };
        let skip = |buckets: &Buckets| match self.is_custom() || self.zero_threshold == 0.0 {
            true => 0,
            false => within_zero(buckets, self.schema, self.zero_threshold),
        };
        let mut now = now.iter().skip(skip(now)).peekable();
        before.iter().skip(skip(before)).any(|(index, count)| {
            while now.next_if(|it| it.0 < index).is_some() {}
            match now.peek() {
                Some(&(at, current)) if at == index => current < count,
                _ => count != 0.0,
            }
        })
    }

    /// Whether a count fell between bounds that both have.
    fn fell_at_common_bounds(&self, previous: &FloatHistogram) -> bool {
        let mut now = self.positive_buckets().peekable();
        let mut before = previous.positive_buckets().peekable();
        let mut rest = previous.custom.iter().peekable();
        let common = self.custom.iter().filter(|bound| {
            while rest.next_if(|it| it < bound).is_some() {}
            rest.peek().is_some_and(|it| it == bound)
        });
        common.chain([&f64::INFINITY]).any(|bound| {
            let (mut current, mut earlier) = (0.0, 0.0);
            while let Some(bucket) = now.next_if(|it| it.upper <= *bound) {
                current += bucket.count;
            }
            while let Some(bucket) = before.next_if(|it| it.upper <= *bound) {
                earlier += bucket.count;
            }
            current < earlier
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::histogram::buckets::coarser_index;

    #[test]
    fn coarser_buckets_hold_the_finer() {
        for (index, by, want) in [
            (1, 1, 1),
            (2, 1, 1),
            (3, 1, 2),
            (0, 1, 0),
            (-1, 1, 0),
            (-2, 1, -1),
        ] {
            assert_eq!(coarser_index(index, by), want);
        }
        assert_eq!(coarser_index(i32::MIN + 1, 60), 0);
    }
}
