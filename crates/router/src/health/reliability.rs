//! Which share of a target's attempts came to an answer lately: what a request is worth there counts by it.
//!
//! A breaker says that a target is down; this says that it is shaky. What was seen fades by half in ten minutes, so that a
//! target that is left alone because it failed is tried again by itself.

use std::time::Duration;

use freeway_types::Monotonic;

/// What was seen counts half after this.
const HALF: Duration = Duration::from_secs(600);
/// It is faded no more often than this.
const STEP: Duration = Duration::from_secs(15);
/// So many answers are taken to have come before anything was seen: one failure alone says little.
const PRIOR: f64 = 8.0;

/// Answers and failures of a target, as far as they have not faded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reliability {
    answered: f64,
    failed: f64,
    /// When they were faded last.
    at: Monotonic,
}

impl Reliability {
    /// An attempt came to an answer.
    pub fn answered(&mut self, now: Monotonic) {
        self.fade(now);
        self.answered += 1.0;
    }

    /// One failed, for no fault of its request's.
    pub fn failed(&mut self, now: Monotonic) {
        self.fade(now);
        self.failed += 1.0;
    }

    /// The share that comes to an answer, above 0 and up to 1.
    #[must_use]
    pub fn share(&self, now: Monotonic) -> f64 {
        if self.failed == 0.0 {
            return 1.0;
        }
        let rest = rest(now.since(self.at));
        let (answered, failed) = (self.answered * rest, self.failed * rest);
        (PRIOR + answered) / (PRIOR + answered + failed)
    }

    fn fade(&mut self, now: Monotonic) {
        let age = now.since(self.at);
        if age >= STEP {
            let rest = rest(age);
            (self.answered, self.failed, self.at) = (self.answered * rest, self.failed * rest, now);
        }
    }
}

/// What is left after so long.
fn rest(age: Duration) -> f64 {
    (-age.as_secs_f64() / HALF.as_secs_f64()).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn failures_count_by_their_share_and_fade() {
        let mut seen = Reliability::default();
        assert_eq!(seen.share(at(5)).to_bits(), 1.0_f64.to_bits());
        seen.failed(at(20));
        let near = |share: f64, expected: f64| assert!((share - expected).abs() < 1e-3, "{share} is not {expected}");
        near(seen.share(at(20)), 8.0 / 9.0);
        near(seen.share(at(620)), 8.0 / 8.5);
        near(seen.share(at(100_000)), 1.0);
        (0..91).for_each(|_| seen.answered(at(20)));
        near(seen.share(at(20)), 0.99);
        // Yesterday's answers do not outweigh today's failures.
        (0..8).for_each(|_| seen.failed(at(86_400)));
        near(seen.share(at(86_400)), 0.5);
    }
}
