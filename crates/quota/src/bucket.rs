//! A store that is refilled evenly.
//!
//! The provider's own level cannot be seen, only bounded from below. A charge is
//! set aside at dispatch, while the store goes on filling, and is taken out of it
//! at the latest instant at which the provider can have taken it. Until then the
//! provider's store may already have been refilled for it; ours has not. So this
//! level is never above the provider's, and in the steady state it is equal to it.

use std::time::Duration;

use freeway_types::Monotonic;

#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// Units times microseconds of the window: integer arithmetic without rounding.
    level: i128,
    updated: Monotonic,
    pub(crate) in_flight: u64,
}

impl Bucket {
    pub(crate) fn full(capacity: u64, window: Duration, now: Monotonic) -> Self {
        Self { level: scaled(capacity, window), updated: now, in_flight: 0 }
    }

    pub(crate) fn advance(&mut self, now: Monotonic, capacity: u64, window: Duration) {
        let elapsed = i128::try_from(now.since(self.updated).as_micros()).unwrap_or(i128::MAX);
        self.level =
            self.level.saturating_add(elapsed.saturating_mul(i128::from(capacity))).min(scaled(capacity, window));
        self.updated = self.updated.max(now);
    }

    /// Whole units that may be sent now.
    pub(crate) fn available(&self, window: Duration) -> u64 {
        let whole = self.level.div_euclid(micros(window));
        u64::try_from(whole).unwrap_or(0).saturating_sub(self.in_flight)
    }

    /// Takes units out, at the instant of the last [`advance`](Self::advance).
    pub(crate) fn count(&mut self, amount: u64, window: Duration) {
        self.level = self.level.saturating_sub(scaled(amount, window));
    }

    /// Another capacity: what is missing from the full store stays missing.
    pub(crate) fn resize(&mut self, from: u64, to: u64, window: Duration) {
        self.level = self.level.saturating_add(scaled(to, window)).saturating_sub(scaled(from, window));
    }

    /// How long until `need` units are there, if nothing else is sent.
    pub(crate) fn relief(&self, need: u64, capacity: u64, window: Duration) -> Duration {
        let target = scaled(need.saturating_add(self.in_flight), window);
        let missing = u128::try_from(target - self.level).unwrap_or(0);
        let wait = missing.div_ceil(u128::from(capacity.max(1)));
        Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

fn micros(window: Duration) -> i128 {
    i128::try_from(window.as_micros()).unwrap_or(i128::MAX).max(1)
}

fn scaled(units: u64, window: Duration) -> i128 {
    i128::from(units).saturating_mul(micros(window))
}
