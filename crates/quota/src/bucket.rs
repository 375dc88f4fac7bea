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
    /// Microseconds of the window, with what clocks may drift.
    scale: i128,
    updated: Monotonic,
    /// Units that are settled, and that the provider may still be about to take, by the latest instant of that.
    due: BTreeMap<Monotonic, u64>,
    /// Their sum.
    awaited: u64,
    pub(crate) in_flight: u64,
}

impl Bucket {
    pub(crate) fn full(capacity: u64, window: Duration, now: Monotonic) -> Self {
        let scale = micros(window);
        let level = i128::from(capacity) * scale;
        Self { level, scale, updated: now, due: BTreeMap::new(), awaited: 0, in_flight: 0 }
    }

    pub(crate) fn advance(&mut self, now: Monotonic, capacity: u64) {
        while let Some(entry) = self.due.first_entry()
            && *entry.key() <= now
        {
            let (receipt, amount) = entry.remove_entry();
            self.awaited -= amount;
            self.refill(receipt, capacity);
            self.level = self.level.saturating_sub(self.scaled(amount));
        }
        self.refill(now, capacity);
    }

    fn refill(&mut self, now: Monotonic, capacity: u64) {
        let elapsed = now.as_micros().saturating_sub(self.updated.as_micros());
        // So much of them is far beyond what any window takes, and the product cannot overflow.
        let refilled = i128::from(elapsed.min(u64::MAX >> 2)) * i128::from(capacity);
        self.level = self.level.saturating_add(refilled).min(self.scaled(capacity));
        self.updated = self.updated.max(now);
    }

    /// Whole units that may be sent now.
    pub(crate) fn available(&self) -> u64 {
        let whole = match (u64::try_from(self.level), u64::try_from(self.scale)) {
            // Nearly always: a division of 128 bits is a dozen times as long.
            (Ok(level), Ok(scale)) => level / scale.max(1),
            _ => u64::try_from(self.level.div_euclid(self.scale)).unwrap_or(0),
        };
        whole.saturating_sub(self.in_flight).saturating_sub(self.awaited)
    }

    /// Takes units out at the instant of their receipt, or of the last [`advance`](Self::advance) if that is later.
    pub(crate) fn count(&mut self, amount: u64, receipt: Monotonic) {
        if receipt > self.updated && amount > 0 {
            *self.due.entry(receipt).or_default() += amount;
            self.awaited = self.awaited.saturating_add(amount);
        } else {
            self.level = self.level.saturating_sub(self.scaled(amount));
        }
    }

    /// Another capacity: what is missing from the full store stays missing.
    pub(crate) fn resize(&mut self, from: u64, to: u64) {
        self.level = self.level.saturating_add(self.scaled(to)).saturating_sub(self.scaled(from));
    }

    /// How long until `need` units are there, if nothing else is sent.
    pub(crate) fn relief(&self, need: u64, capacity: u64) -> Duration {
        let target = self.scaled(need.saturating_add(self.in_flight).saturating_add(self.awaited));
        let missing = u128::try_from(target - self.level).unwrap_or(0);
        let wait = missing.div_ceil(u128::from(capacity.max(1)));
        Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    fn scaled(&self, units: u64) -> i128 {
        i128::from(units) * self.scale
    }
}

/// The window's length, and no more than leaves room for the greatest number of units.
fn micros(window: Duration) -> i128 {
    i128::try_from(with_drift(window).as_micros()).unwrap_or(i128::MAX).clamp(1, i128::MAX >> 64)
}
