//! Whether a provider's resets come when they are documented to come.
//!
//! A limit that comes back at a civil boundary is only counted so as long as nothing speaks against it. Where answers
//! say three times in a row that it comes back at another instant, and always at the same one, the boundary has moved, and
//! where it is by now is somebody's guess: the limit is counted as one that slides, which is safe wherever the boundary
//! lies. Where answers speak of the documented one again, three times in a row, it is counted so again.

use std::time::Duration;

use freeway_types::{Monotonic, Now, Timestamp};
use jiff::tz::TimeZone;

use crate::civil::window;
use crate::spec::Civil;

/// Observations in a row that must agree.
const AGREEING: u32 = 3;
/// Two instants are the same if they are no further apart: a fortieth of a window, or this.
const SAME: Duration = Duration::from_secs(60);
/// Answers that come nearer together than this, or than a twentieth of a window, are one observation. That is more than
/// [`SAME`], so that a wait which is the same from whenever it is asked never looks like an instant.
const APART: Duration = Duration::from_secs(600);

/// What answers have said of one limit's resets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Drift {
    /// The instant of the last observation that counts, and when that was.
    last: Option<(Timestamp, Monotonic)>,
    /// Observations in a row that agree with it.
    agreeing: u32,
    has_moved: bool,
}

impl Drift {
    /// Whether the boundary is not where it is documented to be.
    pub(crate) fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// An answer said that what was used comes back after `returns`.
    pub(crate) fn observe(&mut self, civil: Civil, zone: &TimeZone, returns: Duration, now: Now) {
        let (start, end) = window(now.wall, civil, zone);
        let length = end.since(start);
        let same = SAME.min(length / 40);
        let told = now.wall.after(returns);
        // Any boundary will do: an answer may speak of the one that has just passed, or of the next but one.
        let near = |one: Timestamp, other: Timestamp| {
            let apart = one.since(other).max(other.since(one)).as_micros() % length.as_micros().max(1);
            apart <= same.as_micros() || length.as_micros() - apart <= same.as_micros()
        };
        if let Some((last, at)) = self.last
            && near(told, last)
        {
            if now.monotonic.since(at) < APART.min(length / 20) {
                return;
            }
            self.agreeing = self.agreeing.saturating_add(1);
        } else {
            self.agreeing = 1;
        }
        self.last = Some((told, now.monotonic));
        if self.agreeing >= AGREEING {
            self.has_moved = !near(told, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;

    /// Observations: at which hour, and at which hour of the day it is said to come back.
    fn moved(told: &[(u64, u64)]) -> Vec<bool> {
        let mut drift = Drift::default();
        let start = Now { wall: Timestamp::from_secs(1_792_540_800), monotonic: Monotonic::from_micros(1) };
        let one = |(hour, back): &(u64, u64)| {
            let now = start.after(Duration::from_secs(hour * HOUR));
            let returns = Duration::from_secs(((back + 24 - hour % 24) % 24) * HOUR);
            drift.observe(Civil::Day, &TimeZone::UTC, returns, now);
            drift.has_moved()
        };
        told.iter().map(one).collect()
    }

    #[test]
    fn three_answers_that_agree_move_a_boundary_and_three_move_it_back() {
        assert_eq!(moved(&[(1, 8), (2, 8), (3, 8), (30, 8)]), [false, false, true, true]);
        assert_eq!(moved(&[(1, 8), (2, 8), (3, 8), (4, 0), (5, 0), (6, 0)]), [false, false, true, true, true, false]);
        assert_eq!(moved(&[(1, 0), (2, 0), (3, 0), (4, 0)]), [false; 4], "documented");
    }

    #[test]
    fn what_does_not_agree_moves_nothing() {
        assert_eq!(moved(&[(1, 8), (2, 9), (3, 10), (4, 8), (5, 8), (6, 0), (7, 8)]), [false; 7]);
        // A store that is refilled says each time how long it takes until it is full, and is no boundary.
        assert_eq!(moved(&[(1, 4), (2, 5), (3, 6), (4, 7)]), [false; 4]);
    }

    #[test]
    fn a_wait_that_is_always_the_same_is_no_boundary() {
        let start = Now { wall: Timestamp::from_secs(1_792_540_800), monotonic: Monotonic::from_micros(1) };
        for length in [60, 3_600, 86_400] {
            let civil = Civil::Multiple(Duration::from_secs(length));
            for step in [1, 2, 5, 10, 30, 100, 700] {
                let mut drift = Drift::default();
                for turn in 0..200 {
                    let now = start.after(Duration::from_secs(turn * step));
                    drift.observe(civil, &TimeZone::UTC, Duration::from_secs(length) * 9 / 20, now);
                    assert!(!drift.has_moved(), "{length} s, asked every {step} s, turn {turn}");
                }
            }
        }
    }

    #[test]
    fn answers_of_the_same_moment_are_one_observation() {
        assert_eq!(moved(&[(1, 8), (1, 8), (1, 8), (1, 8)]), [false; 4]);
    }
}
