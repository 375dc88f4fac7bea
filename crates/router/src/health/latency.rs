//! How long a target takes to its first content; of a whole answer, to its end. Kept by the size of the request, of
//! the last five to ten minutes.
//!
//! Only answers are counted, and attempts that were beaten by a second one, with the time they had already taken.
//! Refusals are fast and say nothing of how fast an answer is.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_types::{Monotonic, Now};

use super::latest::Latest;
use super::ring::Ring;
use crate::sketch::{Sketch, all_but};

/// Answers that have to be known before anything is derived from them.
const ENOUGH: u64 = 50;
/// How long one of the two sketches takes in.
const TURN: Duration = Duration::from_secs(300);
/// Parts of time in which slow requests are counted, and their length.
const PARTS: usize = 3;
const PART: Duration = Duration::from_secs(10);
/// Requests that have to be slow before slowness counts as general.
const FEW: u32 = 5;

/// Requests that take about the same time, as far as can be told before they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(u8);

/// Times to first content of one target.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    classes: BTreeMap<Class, Seen>,
    /// Attempts in a row that were given up for their silence.
    silences: u32,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    current: Sketch,
    before: Sketch,
    since: Monotonic,
    times: Option<Times>,
    latest: Latest,
    brake: Brake,
}

/// What to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Half of the answers came within this.
    pub p50: Duration,
    /// 95 in a hundred.
    pub p95: Duration,
    /// 99 in a hundred.
    pub p99: Duration,
}

/// Notices when not single requests but all are slow: a second attempt would not help then.
#[derive(Clone, Copy, Debug, Default)]
struct Brake {
    parts: Ring<Part, PARTS>,
    is_on: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    all: u32,
    slow: u32,
}

impl Class {
    /// Streams go by the size of their input, whole answers by the size of what is asked for.
    #[must_use]
    pub fn of(stream: bool, input: u64, most_output: Option<u64>) -> Self {
        let step = |value: u64, ends: [u64; 4]| ends.iter().filter(|end| value > **end).count();
        let class = match stream {
            true => step(input, [1_000, 4_000, 16_000, 64_000]),
            false => 5 + step(most_output.unwrap_or(u64::MAX), [64, 256, 1_024, 4_096]),
        };
        Self(u8::try_from(class).unwrap_or(u8::MAX))
    }
}

impl Latency {
    /// What to expect of a request; `None` where too few are known.
    #[must_use]
    pub fn times(&self, class: Class) -> Option<Times> {
        self.classes.get(&class)?.times
    }

    /// How long the latest requests took to their first content, in their middle; `None` where too few are known, or
    /// they are too long ago. It is known sooner than [`Self::times`] and follows sooner, but is rougher.
    #[must_use]
    pub fn lately(&self, class: Class, now: Now) -> Option<Duration> {
        self.classes.get(&class)?.latest.middle(now.monotonic)
    }

    /// Attempts in a row that were given up for their silence.
    #[must_use]
    pub const fn silences(&self) -> u32 {
        self.silences
    }

    /// An attempt was given up, because nothing came in its time.
    pub const fn silent(&mut self) {
        self.silences = self.silences.saturating_add(1);
    }

    /// First content came after `took`, or the attempt was beaten after so long.
    pub fn observe(&mut self, class: Class, took: Duration, now: Now) {
        self.silences = 0;
        let seen = self.classes.entry(class).or_insert_with(|| Seen { since: now.monotonic, ..Seen::default() });
        if now.monotonic.since(seen.since) >= TURN {
            let is_old = now.monotonic.since(seen.since) >= 2 * TURN;
            let current = std::mem::take(&mut seen.current);
            seen.before = if is_old { Sketch::default() } else { current };
            seen.since = now.monotonic;
        }
        seen.latest.add(took, now.monotonic);
        seen.current.add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let count = seen.current.count() + seen.before.count();
        let all_but = |above: u64| all_but(above, &seen.current, &seen.before).map(Duration::from_millis);
        seen.times = match (count >= ENOUGH, all_but(count / 2), all_but(count / 20), all_but(count / 100)) {
            (true, Some(p50), Some(p95), Some(p99)) => Some(Times { p50, p95, p99 }),
            _ => None,
        };
    }

    /// A request begins whose slowness would be noticed.
    pub fn began(&mut self, class: Class, now: Now) {
        if let Some(seen) = self.classes.get_mut(&class) {
            seen.brake.parts.now(part_of(now)).all += 1;
        }
    }

    /// A request is slow. Says whether most others are not, so that a second attempt is likely to be faster.
    pub fn is_exception(&mut self, class: Class, now: Now) -> bool {
        let Some(seen) = self.classes.get_mut(&class) else { return false };
        seen.brake.parts.now(part_of(now)).slow += 1;
        seen.brake.look(now);
        !seen.brake.is_on
    }
}

impl Brake {
    /// On above 15 % of slow requests, off again below 8 %.
    fn look(&mut self, now: Now) {
        let recent = self.parts.recent(part_of(now));
        let (all, slow) = recent.fold((0, 0), |(all, slow), part| (all + part.all, slow + part.slow));
        let percent = |share: u32| u64::from(slow) * 100 > u64::from(all) * u64::from(share);
        self.is_on = slow >= FEW && percent(if self.is_on { 8 } else { 15 });
    }
}

fn part_of(now: Now) -> u64 {
    now.monotonic.since(Monotonic::default()).as_secs() / PART.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use freeway_types::Timestamp;

    fn at(seconds: u64) -> Now {
        Now { wall: Timestamp::default(), monotonic: Monotonic::from_micros(seconds * 1_000_000) }
    }

    fn class() -> Class {
        Class::of(true, 10, None)
    }

    #[test]
    fn quantiles_come_with_enough_answers_and_go_with_time() {
        let mut latency = Latency::default();
        for answer in 1..=100 {
            assert_eq!(latency.times(class()).is_some(), answer > 50, "before answer {answer}");
            latency.observe(class(), Duration::from_millis(answer * 10), at(1));
        }
        let times = latency.times(class()).unwrap();
        let close = |time: Duration, ms: u128| (ms..=ms + ms / 30 + 10).contains(&time.as_millis());
        assert!(close(times.p50, 500) && close(times.p95, 950) && close(times.p99, 990), "{times:?}");
        assert_eq!(latency.times(Class::of(true, 100_000, None)), None, "of other sizes nothing is known");

        // Ten minutes later, everything is ten times as fast: what was before counts for one turn more.
        (0..60).for_each(|_| latency.observe(class(), Duration::from_millis(50), at(310)));
        assert!(latency.times(class()).unwrap().p95 >= Duration::from_millis(900));
        (0..60).for_each(|_| latency.observe(class(), Duration::from_millis(50), at(620)));
        assert!(latency.times(class()).unwrap().p99 < Duration::from_millis(60));
    }

    #[test]
    fn the_latest_answers_are_known_at_once_by_size_until_nothing_more_is_seen() {
        let mut latency = Latency::default();
        (0..3).for_each(|_| latency.observe(class(), Duration::from_millis(70), at(5)));
        assert_eq!((latency.lately(class(), at(6)), latency.times(class())), (Some(Duration::from_millis(70)), None));
        assert_eq!(latency.lately(Class::of(true, 100_000, None), at(6)), None, "of other sizes nothing is known");
        assert_eq!(latency.lately(class(), at(605)), None);
    }

    #[test]
    fn three_in_a_hundred_that_stall_do_not_move_what_is_usual() {
        let mut latency = Latency::default();
        for answer in 0..1_000 {
            let took = if answer % 33 == 0 { 5_000 } else { 100 };
            latency.observe(class(), Duration::from_millis(took), at(1));
        }
        assert!(latency.times(class()).unwrap().p95 < Duration::from_millis(110));
    }

    #[test]
    fn a_second_attempt_is_off_while_everything_is_slow() {
        let mut latency = Latency::default();
        latency.observe(class(), Duration::from_millis(100), at(0));
        let mut play = |seconds: std::ops::Range<u64>, slow_of_twenty: u64| {
            let mut exceptions = 0;
            for second in seconds {
                for request in 0..20 {
                    latency.began(class(), at(second));
                    exceptions += u32::from(request < slow_of_twenty && latency.is_exception(class(), at(second)));
                }
            }
            exceptions
        };
        assert_eq!(play(10..40, 1), 30, "one in twenty is an exception");
        assert!(play(40..100, 10) < 120, "ten in twenty are none of the 600, once it is noticed");
        assert!(play(100..130, 1) < 30);
        assert_eq!(play(130..160, 0), 0);
        assert_eq!(play(160..190, 1), 30, "and one in twenty is again when all is well");
    }

    #[test]
    fn classes_go_by_what_takes_time() {
        let stream = |input| Class::of(true, input, None);
        assert_eq!(stream(1), stream(1_000));
        assert_ne!(stream(1_000), stream(1_001));
        assert_eq!(Class::of(false, 1, Some(64)), Class::of(false, 99_999, Some(1)));
        assert_ne!(Class::of(false, 1, Some(64)), Class::of(false, 1, None));
        assert_ne!(Class::of(false, 1, Some(1)), stream(1));
    }
}
