//! How fast a limit is being used, and when its rest is used up if it goes on so.
//!
//! The pace is what was counted in the present ten minutes and the ten before, over the time that this took. It is
//! kept in two numbers, so that a charge costs an addition.

use std::time::Duration;

use freeway_types::{Monotonic, Now, Timestamp};

use crate::civil::window;
use crate::counter::Counter;
use crate::spec::{Grant, LimitSpec, Rule};

/// The length over which charges are added up, in microseconds.
const SLOT_MICROS: u64 = 600_000_000;
/// A pace is never told from less time than this: the first requests after a start are no pace.
const LEAST: Duration = Duration::from_secs(60);

/// What was counted of a limit lately.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recent {
    /// Since when it is looked at.
    begun: Monotonic,
    /// The ten minutes of the last charge, by their number since the process began.
    slot: u64,
    present: u64,
    previous: u64,
}

/// How fast a limit is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Units, tokens or picodollars that were counted.
    pub units: u64,
    /// In how much time.
    pub over: Duration,
}

impl Recent {
    pub(crate) fn new(now: Monotonic) -> Self {
        Self { begun: now, slot: slot(now), present: 0, previous: 0 }
    }

    /// Takes in what was counted now.
    pub(crate) fn add(&mut self, units: u64, now: Monotonic) {
        let here = slot(now);
        if here > self.slot {
            self.previous = if here == self.slot + 1 { self.present } else { 0 };
            self.present = 0;
            self.slot = here;
        }
        self.present = self.present.saturating_add(units);
    }

    /// The pace at an instant; nothing where nothing was counted lately.
    pub(crate) fn pace(&self, now: Monotonic) -> Option<Pace> {
        let units = match slot(now).saturating_sub(self.slot) {
            0 => self.present.saturating_add(self.previous),
            1 => self.present,
            _ => 0,
        };
        let slots = Duration::from_micros(SLOT_MICROS + now.as_micros() % SLOT_MICROS);
        let over = slots.min(now.since(self.begun)).max(LEAST);
        (units > 0).then_some(Pace { units, over })
    }
}

impl Pace {
    /// Units in an hour, rounded.
    #[must_use]
    pub fn per_hour(self) -> u64 {
        let micros = self.over.as_micros().max(1);
        u64::try_from((u128::from(self.units) * 3_600_000_000 + micros / 2) / micros).unwrap_or(u64::MAX)
    }

    fn per_second(self) -> f64 {
        float(self.units) / self.over.as_secs_f64()
    }
}

/// When `left` of a limit of `amount` is used up at this pace, if that comes before it is back. Nothing where nothing
/// is left: that is no forecast.
pub(crate) fn runs_dry(
    counter: &Counter,
    spec: &LimitSpec,
    amount: u64,
    left: u64,
    pace: Pace,
    now: Now,
) -> Option<Timestamp> {
    if left == 0 {
        return None;
    }
    let speed = pace.per_second();
    let seconds = match (counter, &spec.rule) {
        (Counter::Rolling(log), Rule::Rolling(window)) => {
            if speed * window.as_secs_f64() <= float(amount) {
                return None;
            }
            let returns = log.returns().map(|(at, units)| (at.since(now.monotonic).as_secs_f64(), units));
            rolling(returns, left, speed, window.as_secs_f64())?
        }
        (_, Rule::Bucket(window)) => {
            let faster = speed - float(amount) / window.as_secs_f64();
            if faster <= 0.0 {
                return None;
            }
            float(left) / faster
        }
        (_, Rule::Calendar(civil, zone)) => {
            let seconds = float(left) / speed;
            let end = window(now.wall, *civil, zone).1;
            (seconds < end.since(now.wall).as_secs_f64()).then_some(seconds)?
        }
        (Counter::Purse(purse), Rule::Never(grants)) => {
            let rooms = grants.iter().enumerate().map(|(place, grant)| (grant, purse.left_of(grants, place, now.wall)));
            credits(rooms, speed, now.wall)?
        }
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().map(|wait| now.wall.after(wait))
}

/// Seconds until the rest is used up, while what was used before comes back at its time.
fn rolling(returns: impl Iterator<Item = (f64, u64)>, left: u64, speed: f64, window: f64) -> Option<f64> {
    let (mut level, mut at) = (float(left), 0.0);
    for (instant, units) in returns {
        let used = (instant - at) * speed;
        if level <= used {
            return Some(at + level / speed);
        }
        level += float(units) - used;
        at = instant;
    }
    let end = at + level / speed;
    (end <= window).then_some(end)
}

/// Seconds until the last credit is used up; nothing if it lapses before. What lapses first is spent first.
fn credits<'a>(rooms: impl Iterator<Item = (&'a Grant, u64)>, speed: f64, now: Timestamp) -> Option<f64> {
    let (mut at, mut by_use) = (0.0, false);
    for (grant, room) in rooms {
        let used_up = at + float(room) / speed;
        let lapses = grant.expires.map_or(f64::INFINITY, |end| end.since(now).as_secs_f64());
        if room > 0 {
            by_use = used_up <= lapses;
            at = used_up.min(lapses).max(at);
        }
    }
    by_use.then_some(at)
}

fn slot(now: Monotonic) -> u64 {
    now.as_micros() / SLOT_MICROS
}

#[expect(clippy::cast_precision_loss, reason = "a forecast for people")]
fn float(units: u64) -> f64 {
    units as f64
}

#[cfg(test)]
mod tests;
