//! How far a provider's clock is from ours, learned from the `Date` of its answers.
//!
//! A date in whole seconds, made at some instant between request and answer, says
//! that the provider's clock is ahead of ours by something between `date −
//! received` and `date + 1 s − sent`. Each answer gives such an interval; the true
//! offset lies in all of them at once, so a few dozen answers at different parts
//! of the second pin it down to about a round trip.
//!
//! What would surprise: one answer alone never overrules what earlier ones agree
//! on, since dates also come out of caches. And when our own wall clock is set anew,
//! what was learned stays true: the monotonic clock, which goes on while the machine
//! sleeps, tells by how much it was set.

use std::collections::VecDeque;
use std::time::Duration;

use freeway_types::{Monotonic, Now, Timestamp};

/// Samples that are kept.
const SAMPLES: usize = 64;
/// Two clocks drift apart by up to so many parts of a million: an interval widens by that much on each side.
pub(crate) const DRIFT_PPM: i64 = 100;
/// A sample is forgotten after this time.
const MEMORY: Duration = Duration::from_secs(86_400);
/// An offset beyond this is believed only once a second answer confirms it.
const PLAUSIBLE_MICROS: i64 = 86_400_000_000;
/// A sample that tells nothing new is left out while the last one kept is younger than this.
const FRESH: Duration = Duration::from_secs(10);
/// An answer under way while our wall clock was set by more than this tells nothing.
const MOST_SET_MICROS: i64 = 1_000_000;

/// What is known of one provider's clock.
#[derive(Clone, Debug, Default)]
pub struct Skew {
    /// The oldest first; together they have offsets in common.
    samples: VecDeque<Sample>,
    /// The last sample, if it contradicts the others.
    doubted: Option<Sample>,
    /// What all samples have in common.
    offset: Option<Offset>,
}

/// The interval that the offset of a provider's clock lies in, as learned at one time. It widens as it ages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// The clock is ahead by at least so many microseconds (behind, if negative), before widening…
    earliest_micros: i64,
    /// …and by at most so many. Both are reckoned back to `origin`, from when on they widen.
    latest_micros: i64,
    origin: Now,
    forget: Monotonic,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    earliest_micros: i64,
    latest_micros: i64,
    taken: Now,
}

// === impl Skew ===

impl Skew {
    /// Learns from an answer: its `Date`, when its request was sent (dispatch will do) and when its head came back.
    /// Gives whether [`offset`](Self::offset) is another now.
    ///
    /// Costs a few comparisons, and a walk over 64 samples for one that tells something new.
    pub fn learn(&mut self, date: Timestamp, sent: Now, received: Now) -> bool {
        // Read off one clock: if the wall clock jumped under way, either reading may be the wrong one.
        let waited = received.monotonic.since(sent.monotonic);
        let waited_by_wall = received.wall.as_micros().saturating_sub(sent.wall.as_micros());
        let waited_micros = i64::try_from(waited.as_micros()).unwrap_or(i64::MAX);
        if waited_by_wall.saturating_sub(waited_micros).abs() > MOST_SET_MICROS {
            return false;
        }
        let sent_wall = sent.wall.min(received.wall.before(waited));
        let sample = Sample {
            earliest_micros: date.as_micros().saturating_sub(received.wall.as_micros()),
            latest_micros: date.as_micros().saturating_add(1_000_000).saturating_sub(sent_wall.as_micros()),
            taken: received,
        };
        if sample.earliest_micros > sample.latest_micros {
            return false;
        }
        self.forget(received);
        match self.offset.and_then(|offset| offset.at(received)) {
            None => self.learn_first(sample),
            Some((earliest, latest)) if sample.earliest_micros > latest || sample.latest_micros < earliest => {
                self.learn_against(sample)
            }
            Some((earliest, latest)) => {
                self.doubted = None;
                let tells_nothing = sample.earliest_micros <= earliest && sample.latest_micros >= latest;
                let age =
                    self.samples.back().map_or(Duration::MAX, |last| received.monotonic.since(last.taken.monotonic));
                if tells_nothing && age < FRESH {
                    return false;
                }
                self.keep(sample)
            }
        }
    }

    /// What is known of the provider's clock; `None` before the first answer that can be believed.
    #[must_use]
    pub fn offset(&self) -> Option<Offset> {
        self.offset
    }

    fn learn_first(&mut self, sample: Sample) -> bool {
        self.samples.clear();
        let is_far = sample.earliest_micros > PLAUSIBLE_MICROS || sample.latest_micros < -PLAUSIBLE_MICROS;
        if is_far { self.learn_against(sample) } else { self.keep(sample) }
    }

    /// A sample that cannot be true together with the others: two of its kind in a row overrule them.
    fn learn_against(&mut self, sample: Sample) -> bool {
        let Some(other) = self.doubted.filter(|other| common(&[*other, sample], sample.taken).is_some()) else {
            self.doubted = Some(sample);
            return false;
        };
        self.doubted = None;
        self.samples.clear();
        self.samples.push_back(other);
        self.keep(sample)
    }

    fn keep(&mut self, sample: Sample) -> bool {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.offset = common(self.samples.make_contiguous(), sample.taken);
        true
    }

    /// Forgets samples that are too old.
    fn forget(&mut self, now: Now) {
        let is_oldest_over = self.samples.front().is_some_and(|oldest| oldest.at(now).is_none());
        let is_worthless = self.offset.is_some_and(|offset| offset.at(now).is_none());
        if is_oldest_over || is_worthless {
            self.samples.retain(|sample| sample.at(now).is_some());
            self.offset = common(self.samples.make_contiguous(), now);
        }
    }
}

// === impl Offset ===

impl Offset {
    /// By how many microseconds the provider's clock is ahead of the wall clock at `now`: at least and at most.
    /// `None` where what was learned is worth nothing any more.
    #[must_use]
    pub fn at(&self, now: Now) -> Option<(i64, i64)> {
        (now.monotonic < self.forget).then(|| carried(self.earliest_micros, self.latest_micros, self.origin, now))
    }
}

// === impl Sample ===

impl Sample {
    fn at(&self, now: Now) -> Option<(i64, i64)> {
        let is_fresh = now.monotonic < self.taken.monotonic.after(MEMORY);
        is_fresh.then(|| carried(self.earliest_micros, self.latest_micros, self.taken, now))
    }
}

/// What samples have in common at `now`.
fn common(samples: &[Sample], now: Now) -> Option<Offset> {
    let mut all = samples.iter().filter_map(|sample| sample.at(now));
    let first = all.next()?;
    let (earliest, latest) = all.fold(first, |one, other| (one.0.max(other.0), one.1.min(other.1)));
    let forget = samples.iter().map(|sample| sample.taken.monotonic).max()?.after(MEMORY);
    (earliest <= latest).then_some(Offset { earliest_micros: earliest, latest_micros: latest, origin: now, forget })
}

/// An interval of offsets that was true at `then`, at `now`: wider by the drift of the clocks, and shifted by what our
/// own wall clock was set by since.
fn carried(earliest: i64, latest: i64, then: Now, now: Now) -> (i64, i64) {
    let age = i64::try_from(now.monotonic.since(then.monotonic).as_micros()).unwrap_or(i64::MAX);
    let drift = age / 1_000_000 * DRIFT_PPM + DRIFT_PPM;
    let (earliest, latest) = (earliest.saturating_sub(drift), latest.saturating_add(drift));
    let set = alignment(now).saturating_sub(alignment(then));
    (earliest.saturating_sub(set), latest.saturating_sub(set))
}

/// Where the wall clock stands against the monotonic one.
pub(crate) fn alignment(now: Now) -> i64 {
    now.wall.as_micros().saturating_sub(i64::try_from(now.monotonic.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> Now {
        Now { wall: Timestamp::from_secs(1_792_569_600), monotonic: Monotonic::from_micros(86_400_000_000) }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The provider's clock at an instant, if it is ahead by so many microseconds, as it stands in a header.
    fn date(now: Now, ahead_micros: i64) -> Timestamp {
        Timestamp::from_secs(Timestamp::from_micros(now.wall.as_micros() + ahead_micros).as_secs())
    }

    /// Answers one after the other, `gap` apart, each taking `took`; gives the instant after the last.
    fn answers(skew: &mut Skew, mut now: Now, count: u32, gap: Duration, took: Duration, ahead_micros: i64) -> Now {
        for _ in 0..count {
            let received = now.after(took);
            skew.learn(date(now.after(took / 2), ahead_micros), now, received);
            now = received.after(gap);
        }
        now
    }

    fn offset(skew: &Skew, now: Now) -> Option<(i64, i64)> {
        skew.offset().and_then(|offset| offset.at(now))
    }

    #[test]
    fn nothing_is_known_before_the_first_answer_and_a_second_or_so_after_it() {
        let mut skew = Skew::default();
        assert_eq!(skew.offset(), None);
        let (sent, received) = (start().after(ms(200)), start().after(ms(500)));
        assert!(skew.learn(start().wall, sent, received));
        let (earliest, latest) = offset(&skew, received).unwrap();
        assert!((-501_000..=-500_000).contains(&earliest) && (800_000..=801_000).contains(&latest));
    }

    #[test]
    fn a_few_dozen_answers_pin_the_clock_down_to_a_round_trip() {
        for ahead_micros in [-7_300_000, -400_000, 0, 1_500, 86_000_000] {
            let mut skew = Skew::default();
            let end = answers(&mut skew, start(), 60, ms(137), ms(80), ahead_micros);
            let (earliest, latest) = offset(&skew, end).unwrap();
            assert!(earliest <= ahead_micros && ahead_micros <= latest, "{ahead_micros}: {earliest} to {latest}");
            assert!(latest - earliest <= 120_000, "{ahead_micros}: {earliest} to {latest}");
        }
    }

    #[test]
    fn one_answer_out_of_a_cache_changes_nothing_and_two_that_agree_are_believed() {
        let mut skew = Skew::default();
        let mut now = answers(&mut skew, start(), 30, ms(137), ms(80), 0);
        let hour = 3_600_000_000;
        for _ in 0..5 {
            assert!(!skew.learn(date(now, -hour), now, now.after(ms(80))));
            now = answers(&mut skew, now.after(ms(100)), 1, ms(10), ms(80), 0);
        }
        assert!(offset(&skew, now).unwrap().0 > -100_000);
        now = answers(&mut skew, now, 2, ms(137), ms(80), -hour);
        let (earliest, latest) = offset(&skew, now).unwrap();
        assert!(earliest <= -hour && -hour <= latest);
    }

    #[test]
    fn a_clock_that_is_off_by_days_needs_a_second_answer() {
        let mut skew = Skew::default();
        let year = 365 * 86_400_000_000;
        let now = answers(&mut skew, start(), 1, ms(137), ms(80), year);
        assert_eq!(skew.offset(), None);
        let now = answers(&mut skew, now, 1, ms(137), ms(80), year);
        let (earliest, latest) = offset(&skew, now).unwrap();
        assert!(earliest <= year && year <= latest);
    }

    #[test]
    fn what_is_learned_widens_with_age_and_is_forgotten_after_a_day() {
        let mut skew = Skew::default();
        let end = answers(&mut skew, start(), 60, ms(137), ms(80), 0);
        let width = |now| offset(&skew, now).map(|(earliest, latest)| latest - earliest);
        assert_eq!(width(end.after(Duration::from_secs(1000))).unwrap() - width(end).unwrap(), 200_000);
        assert_eq!(width(end.after(MEMORY)), None);
    }

    #[test]
    fn our_own_clock_may_jump() {
        let mut skew = Skew::default();
        let end = answers(&mut skew, start(), 60, ms(137), ms(80), 250_000);
        let known = offset(&skew, end).unwrap();
        let moved = |micros: i64| Now { wall: Timestamp::from_micros(end.wall.as_micros() + micros), ..end };
        // Put back by an hour, the provider is an hour further ahead.
        let (earliest, latest) = offset(&skew, moved(-3_600_000_000)).unwrap();
        assert_eq!((earliest - 3_600_000_000, latest - 3_600_000_000), known);
        for micros in [500_000, 3_600_000_000] {
            assert_eq!(offset(&skew, moved(micros)).unwrap(), (known.0 - micros, known.1 - micros));
        }
        let now = answers(&mut skew, moved(3_600_000_000), 1, ms(1), ms(80), 250_000 - 3_600_000_000);
        let (earliest, latest) = offset(&skew, now).unwrap();
        assert!(earliest <= 250_000 - 3_600_000_000 && 250_000 - 3_600_000_000 <= latest);
    }

    proptest! {
        /// The true offset is always inside, whatever the round trips and however the clocks drift.
        #[test]
        fn the_truth_is_never_ruled_out(
            ahead_micros in -80_000_000_000_i64..80_000_000_000,
            ppm in -90_i64..=90,
            answers in prop::collection::vec((0_u64..600_000, 0_u64..3_000, 0_u64..=100), 1..150),
        ) {
            let mut skew = Skew::default();
            let mut now = start();
            let truth = |now: Now| {
                let since = i64::try_from(now.monotonic.since(start().monotonic).as_micros()).unwrap();
                ahead_micros + since / 1_000_000 * ppm
            };
            for (gap_ms, took_ms, made_pct) in answers {
                now = now.after(ms(gap_ms));
                let made = now.after(ms(took_ms * made_pct / 100));
                let received = now.after(ms(took_ms));
                skew.learn(date(made, truth(made)), now, received);
                now = received;
                let (earliest, latest) = offset(&skew, now).unwrap();
                prop_assert!(earliest <= truth(now) && truth(now) <= latest, "{} in {}..{}", truth(now), earliest, latest);
                prop_assert!(latest - earliest <= 1_100_000 + 1000 * i64::try_from(took_ms).unwrap());
            }
        }
    }
}
