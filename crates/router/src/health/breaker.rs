//! A breaker: opens when a target fails again and again, so that requests stop paying for finding out, and lets one of
//! them try it now and then.
//!
//! Two signs open it: failures in a row, which show within a few requests; and a share of failures among many requests
//! within seconds, which shows what fails every other time. An average would need long to notice the first and would
//! not forget the second.

use std::time::Duration;

use freeway_types::{Monotonic, Now, Timestamp};
use serde::{Deserialize, Serialize};

use super::ring::Ring;

/// Opens on failures in a row of this weight …
const IN_A_ROW: u32 = 5;
/// … or when fewer than half worked of at least so many …
const SAMPLE: u32 = 20;
/// … within so many seconds.
const SECONDS: usize = 10;
/// How long it is open for the first time; twice as long each time after that …
const SHORTEST: Duration = Duration::from_secs(2);
/// … up to this.
const LONGEST: Duration = Duration::from_secs(30);
/// So long after it closed, one opening is forgotten.
const FORGIVEN: Duration = Duration::from_secs(60);
/// A try of which nothing was heard for so long is forgotten.
const LOST: Duration = Duration::from_secs(180);
/// While all there is to choose from is open, one request in this time may go to the least bad.
const LAST_RESORT: Duration = Duration::from_secs(1);

/// Whether something may be tried.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    /// Weight of the failures since something worked.
    in_a_row: u32,
    /// What worked and what failed in the last seconds.
    seconds: Ring<Second, SECONDS>,
    /// Until when it is open; passed, one request may try.
    open_until: Option<Now>,
    /// How often it has opened of late.
    openings: u32,
    /// Since when it has been closed, or was last forgiven an opening.
    calm_since: Monotonic,
    /// Since when a request has been trying.
    tried: Option<Monotonic>,
    /// When the last request went there although it was open.
    last_resort: Option<Monotonic>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    good: u32,
    bad: u32,
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything may go there.
    Closed,
    /// One request may try.
    HalfOpen,
    /// Nothing should go there.
    Open {
        /// When one request may try.
        until: Now,
    },
}

/// A breaker as it is kept through a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBreaker {
    until: Timestamp,
    openings: u32,
}

impl Breaker {
    /// How it stands.
    #[must_use]
    pub fn standing(&self, now: Now) -> Standing {
        let Some(until) = self.open_until else { return Standing::Closed };
        if now.monotonic < until.monotonic {
            return Standing::Open { until };
        }
        match self.tried {
            Some(since) if now.monotonic.since(since) < LOST => Standing::Open { until: now.after(LAST_RESORT) },
            _ => Standing::HalfOpen,
        }
    }

    /// Whether a request may go there; if it is open, as the one that tries.
    pub fn admit(&mut self, now: Now) -> bool {
        match self.standing(now) {
            Standing::Closed => true,
            Standing::HalfOpen => {
                self.tried = Some(now.monotonic);
                true
            }
            Standing::Open { .. } => false,
        }
    }

    /// Whether a request may go there that has nowhere else to go.
    pub fn admit_last_resort(&mut self, now: Now) -> bool {
        let is_rested = self.last_resort.is_none_or(|last| now.monotonic.since(last) >= LAST_RESORT);
        if is_rested {
            self.last_resort = Some(now.monotonic);
        }
        is_rested
    }

    /// Content came. Whether the answer ends well shows later, but the target lives. Says whether that closed it.
    pub fn answers(&mut self, now: Now) -> bool {
        self.tried = None;
        if self.open_until.take().is_none() {
            return false;
        }
        self.in_a_row = 0;
        self.seconds = Ring::default();
        self.calm_since = now.monotonic;
        true
    }

    /// An answer came to a good end. Says whether that closed it.
    pub fn worked(&mut self, now: Now) -> bool {
        self.in_a_row = 0;
        self.seconds.now(second_of(now)).good += 1;
        self.answers(now)
    }

    /// Something failed that is the target's fault. `weight` is 1, or more for what is unlikely to be chance; `chance`
    /// is random bits. Says whether that opened it.
    pub fn failed(&mut self, now: Now, weight: u32, chance: u64) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(weight);
        self.seconds.now(second_of(now)).bad += 1;
        let was_trying = self.tried.take().is_some();
        match self.open_until {
            // A request that began before it opened, or one that had nowhere else to go.
            Some(until) if now.monotonic < until.monotonic => return false,
            Some(_) if !was_trying => return false,
            Some(_) => {}
            None if !self.is_failing(now) => return false,
            None => {
                let calm = now.monotonic.since(self.calm_since).as_secs() / FORGIVEN.as_secs();
                self.openings = self.openings.saturating_sub(u32::try_from(calm).unwrap_or(u32::MAX));
            }
        }
        let whole = SHORTEST.saturating_mul(1 << self.openings.min(8)).min(LONGEST);
        // Up to a fifth less, so that not everything that opened together is tried together.
        let less = whole.mul_f64(0.2) * u32::try_from(chance % 1000).unwrap_or(0) / 1000;
        self.open_until = Some(now.after(whole - less));
        self.openings = self.openings.saturating_add(1);
        true
    }

    /// A request that was tried says nothing: its client left, it was at fault itself, or the quota was used up.
    pub const fn unclear(&mut self) {
        self.tried = None;
    }

    /// What outlives a restart: how it stands, if it is open.
    #[must_use]
    pub fn stored(&self) -> Option<StoredBreaker> {
        let until = self.open_until?.wall;
        Some(StoredBreaker { until, openings: self.openings })
    }

    /// As it was kept. One whose time has passed is half open: nobody knows yet whether things are well again.
    #[must_use]
    pub fn restore(stored: &StoredBreaker, now: Now) -> Self {
        let left = stored.until.since(now.wall).min(LONGEST);
        Self { open_until: Some(now.after(left)), openings: stored.openings, ..Self::default() }
    }

    fn is_failing(&self, now: Now) -> bool {
        let recent = self.seconds.recent(second_of(now));
        let (good, bad) = recent.fold((0, 0), |(good, bad), second| (good + second.good, bad + second.bad));
        self.in_a_row >= IN_A_ROW || (good + bad >= SAMPLE && good < bad)
    }
}

fn second_of(now: Now) -> u64 {
    now.monotonic.since(Monotonic::default()).as_secs()
}

#[cfg(test)]
mod tests;
