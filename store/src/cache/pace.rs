//! How fast a bucket is: what a request costs before its first byte comes, and what each byte costs then.
//! Both are measured on the requests themselves, the last ones counting most.

use std::time::Duration;

use parking_lot::Mutex;

/// What a request waits for its first byte where nothing was measured yet, in seconds.
const LATENCY_GUESS: f64 = 0.030;
/// What a byte takes then: 50 MB/s.
const BYTE_GUESS: f64 = 1.0 / 50e6;
/// Each request makes those before it count less by this factor: some hundred matter.
const FADING: f64 = 0.99;
/// As much as so many requests, the guess stays at the beginning.
const GUESS_WEIGHT: f64 = 8.0;
/// The bytes of the two lengths of which the guess is made.
const GUESS_BYTES: [f64; 2] = [64e3, 2e6];
/// What is concluded stays within these, in bytes.
const ROUND_TRIP_BYTES: std::ops::RangeInclusive<f64> = 64e3..=8e6;

/// Sums for a straight line through lengths (x, bytes) and times (y, seconds).
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Sums {
    fn add(&mut self, weight: f64, x: f64, y: f64) {
        self.n += weight;
        self.x += weight * x;
        self.y += weight * y;
        self.xx += weight * x * x;
        self.xy += weight * x * y;
    }

    fn fade(&mut self) {
        for sum in [
            &mut self.n,
            &mut self.x,
            &mut self.y,
            &mut self.xx,
            &mut self.xy,
        ] {
            *sum *= FADING;
        }
    }

    /// The time of nothing, and of each byte.
    fn line(&self) -> (f64, f64) {
        let spread = self.n * self.xx - self.x * self.x;
        let slope = (self.n * self.xy - self.x * self.y) / spread;
        // Requests of one length only say nothing of what a byte takes.
        let slope = if slope.is_finite() && spread > 1e6 * self.n * self.n {
            slope.clamp(1e-11, 1e-3)
        } else {
            BYTE_GUESS
        };
        let rest = (self.y - slope * self.x) / self.n;
        (rest.max(1e-5), slope)
    }
}

/// The pace of a bucket.
#[derive(Debug)]
pub(super) struct Pace(Mutex<Sums>);

impl Default for Pace {
    fn default() -> Self {
        let mut sums = Sums::default();
        for bytes in GUESS_BYTES {
            let time = LATENCY_GUESS + bytes * BYTE_GUESS;
            sums.add(GUESS_WEIGHT / 2.0, bytes, time);
        }
        Pace(Mutex::new(sums))
    }
}

impl Pace {
    /// A request for so many bytes took so long.
    pub(super) fn took(&self, bytes: u64, time: Duration) {
        let mut sums = self.0.lock();
        sums.fade();
        sums.add(1.0, bytes as f64, time.as_secs_f64());
    }

    /// The bytes that come in the time that a request waits for its first one.
    pub(super) fn round_trip_bytes(&self) -> u64 {
        let (latency, byte) = self.0.lock().line();
        let bytes = latency / byte;
        bytes.clamp(*ROUND_TRIP_BYTES.start(), *ROUND_TRIP_BYTES.end()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests that take `latency_ms` and then come with `mb_s`.
    fn check(latency_ms: f64, mb_s: f64, lengths: &[u64], expected: std::ops::Range<u64>) {
        let pace = Pace::default();
        for bytes in lengths.iter().cycle().take(600) {
            let seconds = latency_ms / 1e3 + *bytes as f64 / (mb_s * 1e6);
            pace.took(*bytes, Duration::from_secs_f64(seconds));
        }
        let got = pace.round_trip_bytes();
        assert!(
            expected.contains(&got),
            "{latency_ms} ms {mb_s} MB/s: {got}"
        );
    }

    #[test]
    fn latency_and_bandwidth_are_told_apart() {
        let guess = Pace::default().round_trip_bytes();
        assert_eq!(guess.div_ceil(1000), 1500);
        let mixed = [16_384, 65_536, 1_000_000, 4_000_000];
        check(30.0, 50.0, &mixed, 1_400_000..1_600_000);
        check(100.0, 20.0, &mixed, 1_900_000..2_100_000);
        check(5.0, 100.0, &mixed, 450_000..550_000);
        // A local disk: within the bounds.
        check(0.05, 2000.0, &mixed, 64_000..150_000);
        check(1000.0, 1000.0, &mixed, 8_000_000..8_000_001);
        // All of one length: the latency is right, the bandwidth a guess.
        check(10.0, 50.0, &[16_384], 300_000..600_000);
    }
}
