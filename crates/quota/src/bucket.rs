//! A store that is refilled evenly.
//!
//! The provider's own level cannot be seen, only bounded from below. A charge is
//! set aside at dispatch, while the store goes on filling, and is taken out of it
//! at the latest instant at which the provider can have taken it. Until then the
//! provider's store may already have been refilled for it; ours has not. So this
//! level is never above the provider's, and in the steady state it is equal to it.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_types::Monotonic;

use crate::spec::with_drift;

#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// Units times microseconds of the window: integer arithmetic without rounding.
    level: i128,
    updated: Monotonic,
    /// Units that are settled, and that the provider may still be about to take, by the latest instant of that.
    due: BTreeMap<Monotonic, u64>,
    /// Their sum.
    awaited: u64,
    pub(crate) in_flight: u64,
}

impl Bucket {
    pub(crate) fn full(capacity: u64, window: Duration, now: Monotonic) -> Self {
        Self { level: scaled(capacity, window), updated: now, due: BTreeMap::new(), awaited: 0, in_flight: 0 }
    }

    pub(crate) fn advance(&mut self, now: Monotonic, capacity: u64, window: Duration) {
        while let Some(entry) = self.due.first_entry()
            && *entry.key() <= now
        {
            let (receipt, amount) = entry.remove_entry();
            self.awaited -= amount;
            self.refill(receipt, capacity, window);
            self.level = self.level.saturating_sub(scaled(amount, window));
        }
        self.refill(now, capacity, window);
    }

    fn refill(&mut self, now: Monotonic, capacity: u64, window: Duration) {
        let elapsed = i128::try_from(now.since(self.updated).as_micros()).unwrap_or(i128::MAX);
        self.level =
            self.level.saturating_add(elapsed.saturating_mul(i128::from(capacity))).min(scaled(capacity, window));
        self.updated = self.updated.max(now);
    }

    /// Whole units that may be sent now.
    pub(crate) fn available(&self, window: Duration) -> u64 {
        let whole = self.level.div_euclid(micros(window));
        u64::try_from(whole).unwrap_or(0).saturating_sub(self.in_flight).saturating_sub(self.awaited)
    }

    /// Takes units out at the instant of their receipt, or of the last [`advance`](Self::advance) if that is later.
    pub(crate) fn count(&mut self, amount: u64, receipt: Monotonic, window: Duration) {
        if receipt > self.updated && amount > 0 {
            *self.due.entry(receipt).or_default() += amount;
            self.awaited = self.awaited.saturating_add(amount);
        } else {
            self.level = self.level.saturating_sub(scaled(amount, window));
        }
    }

    /// Another capacity: what is missing from the full store stays missing.
    pub(crate) fn resize(&mut self, from: u64, to: u64, window: Duration) {
        self.level = self.level.saturating_add(scaled(to, window)).saturating_sub(scaled(from, window));
    }

    /// How long until `need` units are there, if nothing else is sent.
    pub(crate) fn relief(&self, need: u64, capacity: u64, window: Duration) -> Duration {
        let target = scaled(need.saturating_add(self.in_flight).saturating_add(self.awaited), window);
        let missing = u128::try_from(target - self.level).unwrap_or(0);
        let wait = missing.div_ceil(u128::from(capacity.max(1)));
        Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

fn micros(window: Duration) -> i128 {
    i128::try_from(with_drift(window).as_micros()).unwrap_or(i128::MAX).max(1)
}

fn scaled(units: u64, window: Duration) -> i128 {
    i128::from(units).saturating_mul(micros(window))
}
