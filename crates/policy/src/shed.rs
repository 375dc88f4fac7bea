//! Whose requests are refused when there are more than can be served: the tier of least value first.
//!
//! Requests under way have a bound, and the lower a tier, the smaller the part of it that its requests may fill.

use crate::admit::Tier;

/// Where a tier stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many different values lie below its own: 0 is shed first.
    rank: u32,
    /// How many different values there are.
    ranks: u32,
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

    /// After how many seconds a request that was refused should come back: the lower its tier, the later, so that what
    /// comes back does not stand in the way of those above it.
    #[must_use]
    pub fn retry_after(self) -> u64 {
        u64::from(self.ranks - self.rank)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    proptest! {
        #[test]
        fn no_tier_is_treated_worse_than_one_of_less_value(
            values in prop::collection::vec(0.0..1e9_f64, 1..9),
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
                        prop_assert!(first.retry_after() < second.retry_after());
                    }
                }
            }
        }
    }
}
