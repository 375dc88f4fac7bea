//! Credits that do not come back, spent as one: the one that lapses first is
//! charged first, what it lacks to the next.
//!
//! What is sent while a credit is about to lapse may be counted before or after
//! it does, so it is charged in both ways at once, each credit the more of the two.
//! Which credit pays does not depend on the order in which charges are booked,
//! because whatever may pay for a later charge may also pay for an earlier one.

use freeway_types::Timestamp;

use crate::margins::Margins;
use crate::spec::Grant;

#[derive(Clone, Debug)]
pub(crate) struct Purse {
    /// What was charged to each grant, in the order in which they lapse.
    used: Vec<u64>,
    margins: Margins,
    pub(crate) in_flight: u64,
}

impl Purse {
    pub(crate) fn unspent(grants: usize, margins: Margins) -> Self {
        Self { used: vec![0; grants], margins, in_flight: 0 }
    }

    /// What may still be sent now.
    pub(crate) fn left(&self, grants: &[Grant], now: Timestamp) -> u64 {
        let left = (0..grants.len()).map(|place| self.left_of(grants, place, now));
        left.fold(0, u64::saturating_add).saturating_sub(self.in_flight)
    }

    /// What is left of one grant, not counting what is in flight.
    pub(crate) fn left_of(&self, grants: &[Grant], place: usize, now: Timestamp) -> u64 {
        // A request that is sent now must be counted before the grant lapses.
        let counted = now.after(self.margins.lag).after(self.margins.skew);
        if grants[place].is_live(counted) { self.room(grants, place) } else { 0 }
    }

    /// What was ever charged to one grant.
    pub(crate) fn used_of(&self, place: usize) -> u64 {
        self.used[place]
    }

    /// What was ever charged, in flight included.
    pub(crate) fn used(&self) -> u64 {
        self.used.iter().copied().fold(self.in_flight, u64::saturating_add)
    }

    /// Books units that were counted at some instant from `dispatched` to `receipt`.
    pub(crate) fn count(&mut self, amount: u64, grants: &[Grant], dispatched: Timestamp, receipt: Timestamp) {
        let (from, to) = (dispatched.before(self.margins.skew), receipt.after(self.margins.skew));
        let early = self.shares(amount, grants, from);
        if grants.iter().any(|grant| grant.is_live(from) != grant.is_live(to)) {
            let late = self.shares(amount, grants, to);
            self.add(early.iter().zip(&late).map(|(early, late)| *early.max(late)));
        } else {
            self.add(early.iter().copied());
        }
    }

    fn add(&mut self, shares: impl Iterator<Item = u64>) {
        for (used, share) in self.used.iter_mut().zip(shares) {
            *used = used.saturating_add(share);
        }
    }

    /// How a charge at an instant falls to the grants. What none has room for, the last one bears.
    fn shares(&self, amount: u64, grants: &[Grant], at: Timestamp) -> Vec<u64> {
        let mut rest = amount;
        let mut shares = vec![0; grants.len()];
        let mut last_live = None;
        for (place, grant) in grants.iter().enumerate() {
            if grant.is_live(at) {
                shares[place] = rest.min(self.room(grants, place));
                rest -= shares[place];
                last_live = Some(place);
            }
        }
        if let Some(place) = last_live {
            shares[place] = shares[place].saturating_add(rest);
        }
        shares
    }

    fn room(&self, grants: &[Grant], place: usize) -> u64 {
        grants[place].amount.unwrap_or(u64::MAX).saturating_sub(self.used[place])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARCH: i64 = 3_000;
    const JUNE: i64 = 6_000;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn grants() -> Vec<Grant> {
        let grant = |amount, secs: Option<i64>| Grant { amount: Some(amount), expires: secs.map(at) };
        vec![grant(5, Some(MARCH)), grant(2, Some(JUNE)), grant(1, None)]
    }

    fn spent(charges: &[(u64, i64)]) -> Purse {
        let mut purse = Purse::unspent(3, Margins::LIVE);
        for (amount, secs) in charges {
            purse.count(*amount, &grants(), at(*secs), at(*secs));
        }
        purse
    }

    /// What each grant was charged, and what is left at an instant.
    fn check(charges: &[(u64, i64)], secs: i64, used: [u64; 3], left: u64) {
        let purse = spent(charges);
        assert_eq!((purse.used.as_slice(), purse.left(&grants(), at(secs))), (&used[..], left), "{charges:?} {secs}");
    }

    #[test]
    fn what_lapses_first_is_spent_first() {
        check(&[], 100, [0, 0, 0], 8);
        check(&[(3, 100)], 100, [3, 0, 0], 5);
        check(&[(3, 100), (3, 200)], 200, [5, 1, 0], 2);
        check(&[(8, 100)], 100, [5, 2, 1], 0);
        // More than there is: nothing is left, and nothing comes back.
        check(&[(9, 100)], 100, [5, 2, 2], 0);
    }

    #[test]
    fn the_rest_of_a_credit_that_has_lapsed_is_gone() {
        check(&[(3, 100)], MARCH - 4, [3, 0, 0], 5);
        check(&[(3, 100)], MARCH, [3, 0, 0], 3);
        check(&[(3, 100), (1, 4_000)], JUNE, [3, 1, 0], 1);
        check(&[(3, 100), (1, 4_000), (1, 7_000)], 7_000, [3, 1, 1], 0);
    }

    #[test]
    fn what_is_sent_while_a_credit_lapses_is_charged_both_ways() {
        check(&[(2, MARCH)], MARCH + 10, [2, 2, 0], 1);
        let purse = spent(&[]);
        assert_eq!(purse.left(&grants(), at(MARCH - 3)), 3, "the first would lapse before it is charged");
    }

    proptest! {
        /// Charges of the past are booked model by model, so in any order.
        #[test]
        fn the_order_of_booking_does_not_matter(
            charges in prop::collection::vec((0_u64..3, 0_i64..9_000), 0..7),
            order in prop::collection::vec(any::<u32>(), 7),
        ) {
            let total: u64 = charges.iter().map(|(amount, _)| amount).sum();
            // What is overdrawn is borne by whoever is last, and a lapsing grant is charged both ways.
            let near = |secs: i64| [MARCH, JUNE].iter().any(|lapse| (secs - lapse).abs() < 5);
            prop_assume!(total <= 8 && !charges.iter().any(|(_, secs)| near(*secs)));
            let mut mixed: Vec<_> = charges.iter().copied().zip(order).collect();
            mixed.sort_by_key(|(_, order)| *order);
            let mixed: Vec<_> = mixed.into_iter().map(|(charge, _)| charge).collect();
            prop_assert_eq!(spent(&charges).used, spent(&mixed).used);
        }
    }
}
