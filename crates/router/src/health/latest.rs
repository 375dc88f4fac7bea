//! The latest times of one kind, and the one in their middle: it follows within five answers where a target turns slow
//! or fast, and one answer in ten that stalls does not move it.

use std::time::Duration;

use freeway_types::Monotonic;

/// Times that are kept.
const KEPT: usize = 9;
/// Times that have to be known before they say anything: a single one can be chance.
const ENOUGH: usize = 3;
/// When nothing was seen for so long, what was seen before says nothing of now.
const LASTS: Duration = Duration::from_secs(600);

/// The latest times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latest {
    /// In milliseconds; the oldest is written over.
    times: [u32; KEPT],
    count: usize,
    next: usize,
    /// When the last one was seen.
    seen: Monotonic,
}

impl Latest {
    pub(super) fn add(&mut self, took: Duration, at: Monotonic) {
        if self.is_over(at) {
            *self = Self::default();
        }
        self.times[self.next] = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        self.next = (self.next + 1) % KEPT;
        self.count = (self.count + 1).min(KEPT);
        self.seen = at;
    }

    /// The time in their middle; the greater of two. `None` where too few are known, or the last is too long ago.
    pub(super) fn middle(&self, at: Monotonic) -> Option<Duration> {
        if self.count < ENOUGH || self.is_over(at) {
            return None;
        }
        let mut times = self.times;
        let times = &mut times[..self.count];
        times.sort_unstable();
        Some(Duration::from_millis(times[times.len() / 2].into()))
    }

    fn is_over(&self, at: Monotonic) -> bool {
        at.since(self.seen) >= LASTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_micros(seconds * 1_000_000)
    }

    fn add(latest: &mut Latest, times: &[u64], second: u64) {
        times.iter().for_each(|millis| latest.add(Duration::from_millis(*millis), at(second)));
    }

    fn millis(latest: &Latest, second: u64) -> Option<u128> {
        latest.middle(at(second)).map(|time| time.as_millis())
    }

    #[test]
    fn three_answers_are_enough_and_a_stall_is_no_rule() {
        let mut latest = Latest::default();
        add(&mut latest, &[100, 300], 1);
        assert_eq!(millis(&latest, 1), None);
        add(&mut latest, &[200], 1);
        assert_eq!(millis(&latest, 1), Some(200));
        add(&mut latest, &[9_000, 210, 220, 9_000], 1);
        assert_eq!(millis(&latest, 1), Some(220));
    }

    #[test]
    fn five_slow_answers_make_it_slow_and_five_fast_ones_fast_again() {
        let mut latest = Latest::default();
        add(&mut latest, &[100; 20], 1);
        add(&mut latest, &[900; 4], 1);
        assert_eq!(millis(&latest, 1), Some(100));
        add(&mut latest, &[900], 1);
        assert_eq!(millis(&latest, 1), Some(900));
        add(&mut latest, &[100; 4], 1);
        assert_eq!(millis(&latest, 1), Some(900), "four and the slow ones, after what was before is written over");
        add(&mut latest, &[100], 1);
        assert_eq!(millis(&latest, 1), Some(100));
    }

    #[test]
    fn what_was_seen_is_forgotten_ten_minutes_after_the_last() {
        let mut latest = Latest::default();
        add(&mut latest, &[100; 9], 1);
        assert_eq!((millis(&latest, 600), millis(&latest, 601)), (Some(100), None));
        add(&mut latest, &[700; 2], 601);
        assert_eq!(millis(&latest, 601), None, "it begins anew");
        add(&mut latest, &[700], 601);
        assert_eq!(millis(&latest, 601), Some(700));
    }
}
