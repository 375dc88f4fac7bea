//! Whose requests are refused when there are more than can be served: the tier of least value first.
//!
//! Two measurements decide. *How many* requests are being served has a bound, and the lower a tier, the smaller the
//! part of it that its requests may fill. *How long* work that is ready waits for a thread tells of a machine that
//! cannot keep up, where nothing is left to count: what waits there has not been read yet. From this second
//! measurement a [`Pressure`] between 0 and 1 is made, and each tier sheds the share of its requests that follows.
//!
//! Pressure rises and falls like the drop probability of PIE (RFC 8033, section 4.2): by how far the wait is from what
//! it should be, and by how it changes. A threshold would flap here. Refusing a whole tier is usually more than is
//! needed and nothing at all too little, so a switch would swing between the two, and requests be lost at each turn.

use std::time::Duration;

use crate::admit::Tier;

/// How long work may wait for a thread: pressure settles where the wait is this. A refusal waits as long, and should be
/// out within 10 ms.
const TARGET: Duration = Duration::from_millis(4);
/// Of so many looks in a row the shortest wait counts: a burst that passes is no overload, what stands is.
const LOOKS: usize = 4;
/// By how much one look changes pressure for a wait that is one target too long …
const BY_DISTANCE: f64 = 0.007;
/// … and for one that is a target longer than at the look before.
const BY_CHANGE: f64 = 0.1;
/// A wait counts as at most so many targets, so that one long stall does not refuse everybody for a while.
const MOST_TARGETS: f64 = 6.0;

/// Where a tier stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many different values lie below its own: 0 is shed first.
    rank: u32,
    /// How many different values there are.
    ranks: u32,
}

/// How much more is asked for than can be served: 0 sheds nobody, 1 everybody.
#[derive(Clone, Debug, Default)]
pub struct Pressure {
    level: f64,
    /// The latest waits, in targets.
    waits: [f64; LOOKS],
    /// The wait that counted at the look before, in targets.
    before: f64,
}

/// Where each tier stands, in the order in which they are given. Tiers of the same value stand together.
#[must_use]
pub fn standings(tiers: &[Tier]) -> Vec<Standing> {
    let mut values: Vec<f64> = tiers.iter().map(|tier| tier.value).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let count = |values: &[f64]| u32::try_from(values.len()).unwrap_or(u32::MAX);
    let standing = |tier: &Tier| {
        let below = values.partition_point(|value| *value < tier.value);
        Standing { rank: count(&values[..below]), ranks: count(&values) }
    };
    tiers.iter().map(standing).collect()
}

impl Standing {
    /// How many requests of all tiers together may be under way for one more of this tier to begin, of `most` in all:
    /// everything for the highest tier, and evenly less down to a little more than half.
    #[must_use]
    pub fn room(self, most: usize) -> usize {
        let Self { rank, ranks } = self;
        let part = most as u128 * u128::from(ranks + rank + 1);
        let room = part.div_ceil(2 * u128::from(ranks.max(1)));
        usize::try_from(room).unwrap_or(most).min(most)
    }

    /// The share of this tier's requests to refuse at a pressure between 0 and 1. A tier is shed only once everything
    /// below it is refused.
    #[must_use]
    pub fn shed(self, pressure: f64) -> f64 {
        (pressure * f64::from(self.ranks) - f64::from(self.rank)).clamp(0.0, 1.0)
    }

    /// After how many seconds a request that was refused should come back: the lower its tier, the later, so that what
    /// comes back does not stand in the way of those above it.
    #[must_use]
    pub fn retry_after(self) -> u64 {
        u64::from(self.ranks - self.rank)
    }
}

impl Pressure {
    /// Takes in how long work that was ready has waited for a thread. Looks are some milliseconds apart.
    pub fn observe(&mut self, wait: Duration) {
        self.waits.rotate_left(1);
        self.waits[LOOKS - 1] = (wait.as_secs_f64() / TARGET.as_secs_f64()).min(MOST_TARGETS);
        let standing = self.waits.iter().copied().fold(MOST_TARGETS, f64::min);
        let change = BY_DISTANCE * (standing - 1.0) + BY_CHANGE * (standing - self.before);
        self.before = standing;
        self.level = (self.level + change).clamp(0.0, 1.0);
    }

    /// The pressure now.
    #[must_use]
    pub const fn level(&self) -> f64 {
        self.level
    }
}

#[cfg(test)]
mod tests {
    use freeway_types::Group;
    use proptest::prelude::*;

    use super::*;

    fn tiers(values: &[f64]) -> Vec<Tier> {
        let tier = |(place, value): (usize, &f64)| Tier {
            name: format!("tier-{place}"),
            order: vec![Group::Any],
            value: *value,
            wait: Duration::ZERO,
        };
        values.iter().enumerate().map(tier).collect()
    }

    fn check(values: &[f64], rooms: &[usize], retry_after: &[u64]) {
        let standings = standings(&tiers(values));
        let room: Vec<usize> = standings.iter().map(|standing| standing.room(1200)).collect();
        let after: Vec<u64> = standings.iter().map(|standing| standing.retry_after()).collect();
        assert_eq!((room.as_slice(), after.as_slice()), (rooms, retry_after), "{values:?}");
    }

    #[test]
    fn the_lower_a_tier_the_less_room_and_the_later_it_comes_back() {
        check(&[10.0, 3.0, 1.0], &[1200, 1000, 800], &[1, 2, 3]);
        check(&[1.0, 10.0, 3.0, 3.0], &[800, 1200, 1000, 1000], &[3, 1, 2, 2]);
        check(&[7.0], &[1200], &[1]);
        check(&[], &[], &[]);
    }

    #[test]
    fn the_smallest_gateway_serves_every_tier() {
        let rooms: Vec<usize> = standings(&tiers(&[10.0, 3.0, 1.0])).iter().map(|tier| tier.room(1)).collect();
        assert_eq!(rooms, [1, 1, 1]);
    }

    #[test]
    fn one_tier_is_shed_after_the_other() {
        let shares = |pressure: f64| -> Vec<f64> {
            standings(&tiers(&[10.0, 3.0, 1.0])).iter().map(|tier| tier.shed(pressure)).collect()
        };
        assert_eq!(shares(0.0), [0.0, 0.0, 0.0]);
        assert_eq!(shares(0.25), [0.0, 0.0, 0.75]);
        assert_eq!(shares(0.5), [0.0, 0.5, 1.0]);
        assert_eq!(shares(1.0), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn bursts_that_pass_shed_nobody() {
        let mut pressure = Pressure::default();
        for look in 0..1000 {
            let burst = look % LOOKS != 0;
            pressure.observe(if burst { TARGET * 50 } else { Duration::ZERO });
            assert_eq!(pressure.level(), 0.0, "look {look}");
        }
    }

    #[test]
    fn a_wait_that_stands_sheds_more_and_more_until_it_is_gone() {
        let mut pressure = Pressure::default();
        for _ in 0..1000 {
            let before = pressure.level();
            pressure.observe(TARGET * 2);
            assert!(pressure.level() >= before);
        }
        assert_eq!(pressure.level(), 1.0);
        for _ in 0..LOOKS + 300 {
            pressure.observe(Duration::ZERO);
        }
        assert_eq!(pressure.level(), 0.0);
    }

    /// Work for a thread: what is offered is `load` times what it can do, and each look is 5 ms after the one before.
    /// A tier has a third of it, and a refusal costs a tenth of an answer. Gives the share of the thread's time that
    /// went into answers, and the longest wait, both over the second half.
    fn play(load: f64, looks: u32) -> (f64, f64, Vec<f64>) {
        let standings = standings(&tiers(&[10.0, 3.0, 1.0]));
        let (mut pressure, mut wait_ms) = (Pressure::default(), 0.0_f64);
        let (mut answered, mut longest, mut levels) = (0.0, 0.0_f64, Vec::new());
        for look in 0..looks {
            let shed = standings.iter().map(|tier| tier.shed(pressure.level())).sum::<f64>() / 3.0;
            let (serve, refuse) = (load * (1.0 - shed), load * shed * 0.1);
            let before = wait_ms;
            wait_ms = (wait_ms + 5.0 * (serve + refuse - 1.0)).max(0.0);
            pressure.observe(Duration::from_secs_f64(wait_ms / 1e3));
            if look >= looks / 2 {
                let done = (5.0 + before - wait_ms) / 5.0;
                answered += done.min(1.0).min(serve + before / 5.0) * serve / (serve + refuse);
                longest = longest.max(wait_ms);
                levels.push(pressure.level());
            }
        }
        (answered / f64::from(looks - looks / 2), longest, levels)
    }

    #[test]
    fn overload_of_any_size_settles_at_a_short_wait_and_full_work() {
        for load in [1.1, 1.3, 1.5, 2.0, 3.0, 5.0] {
            let (answered, longest_ms, levels) = play(load, 4000);
            // What is left for answers when refusals cost a tenth: the thread's time less theirs.
            let best = (1.0 - 0.1 * load) / 0.9;
            assert!(answered > 0.97 * best, "{load}: {answered} of {best}");
            assert!(longest_ms < 10.0, "{load}: {longest_ms}");
            let (least, most) = levels.iter().fold((1.0_f64, 0.0_f64), |(l, m), v| (l.min(*v), m.max(*v)));
            assert!(most - least < 0.05, "{load}: pressure swings from {least} to {most}");
        }
    }

    proptest! {
        #[test]
        fn no_tier_is_treated_worse_than_one_of_less_value(
            values in prop::collection::vec(0.0..1e9_f64, 1..9),
            pressure in 0.0..=1.0_f64,
            most in 1..100_000_usize,
        ) {
            let tiers = tiers(&values);
            let standings = standings(&tiers);
            for (one, first) in tiers.iter().zip(&standings) {
                prop_assert!((1..=most).contains(&first.room(most)));
                prop_assert!(2 * first.room(most) >= most);
                for (other, second) in tiers.iter().zip(&standings) {
                    if one.value > other.value {
                        prop_assert!(first.room(most) >= second.room(most));
                        prop_assert!(first.shed(pressure) <= second.shed(pressure));
                        prop_assert!(first.shed(pressure) == 0.0 || second.shed(pressure) == 1.0);
                        prop_assert!(first.retry_after() < second.retry_after());
                    }
                }
            }
        }

        #[test]
        fn pressure_stays_within_its_bounds(waits in prop::collection::vec(0..10_000_000_u64, 0..200)) {
            let mut pressure = Pressure::default();
            for wait in waits {
                pressure.observe(Duration::from_micros(wait));
                prop_assert!((0.0..=1.0).contains(&pressure.level()));
            }
        }
    }
}
