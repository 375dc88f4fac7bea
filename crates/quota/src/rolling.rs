//! A log that slides: each charge is held until one window after the latest
//! instant at which the provider can have counted it.
//!
//! Why it never overruns: take any interval of one window's length at the
//! provider, and of the requests counted in it the one admitted last. Every other
//! was counted less than a window before, so it was still held when the last was
//! admitted; together they are within the limit.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_types::Monotonic;

use crate::spec::with_drift;

/// Up to this many units single charges are remembered exactly; above, they leave in steps.
const EXACT: u64 = 512;
/// The steps of a large log: a charge stays up to one of these parts of a window too long.
const STEPS: u32 = 64;

#[derive(Clone, Debug, Default)]
pub(crate) struct Rolling {
    /// Whether each charge of a large log is remembered by itself, too.
    is_exact: bool,
    /// Units that come back at each instant.
    returns: BTreeMap<Monotonic, u64>,
    /// Their sum.
    pub(crate) counted: u64,
    /// Units sent and not yet known to be counted.
    pub(crate) in_flight: u64,
}

impl Rolling {
    /// One in which nothing is counted. `in_steps`: whether the charges of a large one may leave it in steps.
    pub(crate) fn new(in_steps: bool) -> Self {
        Self { is_exact: !in_steps, ..Self::default() }
    }

    pub(crate) fn advance(&mut self, now: Monotonic) {
        while let Some(entry) = self.returns.first_entry() {
            if *entry.key() > now {
                break;
            }
            self.counted -= entry.remove();
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.counted.saturating_add(self.in_flight)
    }

    /// Books units that were counted at `receipt` at the latest.
    pub(crate) fn count(&mut self, amount: u64, receipt: Monotonic, window: Duration, limit: u64) {
        if amount == 0 {
            return;
        }
        let mut returns = receipt.after(with_drift(window));
        if limit > EXACT && !self.is_exact {
            let step = u64::try_from((window / STEPS).as_micros()).unwrap_or(u64::MAX).max(1);
            returns = Monotonic::from_micros(returns.as_micros().div_ceil(step).saturating_mul(step));
        }
        *self.returns.entry(returns).or_default() += amount;
        self.counted += amount;
    }

    /// What comes back, in the order in which it does.
    pub(crate) fn returns(&self) -> impl Iterator<Item = (Monotonic, u64)> {
        self.returns.iter().map(|(instant, units)| (*instant, *units))
    }

    /// The earliest instant at which `missing` more units are back, as far as it is known.
    pub(crate) fn relief(&self, missing: u64) -> Option<Monotonic> {
        let mut back = 0_u64;
        for (instant, amount) in &self.returns {
            back += amount;
            if back >= missing {
                return Some(*instant);
            }
        }
        None
    }
}
