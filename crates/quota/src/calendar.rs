//! Windows that begin and end at civil boundaries: midnight in Los Angeles, the
//! first of the month, each full minute.
//!
//! The provider's clock is not ours. A request whose counting may fall on either
//! side of a boundary is charged to both windows, and while a boundary is nearer
//! than the uncertainty, a new request must fit into both. The uncertainty is a
//! fixed slack, until the provider's clock is [learned](crate::skew). Until then,
//! too, a wall clock that is set anew may have been right before or be right now:
//! charges count by both settings, and a request must fit by both.
//!
//! The wall clock says which window it is, and may be wrong. What was counted in a
//! window is therefore kept until the monotonic clock says that the window must be
//! over: a wall clock that is put forward and back finds the old count again.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_types::{Monotonic, Now, Timestamp};
use jiff::tz::TimeZone;

use crate::civil::{longest, window};
use crate::counter::Counted;
use crate::skew::{DRIFT_PPM, Offset, alignment};
use crate::spec::Civil;

/// A wall clock that stands otherwise against the monotonic one by more than this was set: more than it takes to read
/// both, less than any slack.
const STEP_MICROS: i64 = 5_000;
/// The most settings of the wall clock that are held possible.
const MOST_SETTINGS: usize = 4;
/// How much further than the learned offset a boundary is taken to be, on each side.
const MARGIN_MICROS: i64 = 50_000;
/// The most windows that one charge is counted in. Of a charge that may have been counted in more, the last ones
/// matter: the others are over.
const MOST_NEAR: usize = 64;
/// The most windows that are remembered. Only a clock that jumps about makes so many; those go first that will be over
/// first.
const MOST_REMEMBERED: usize = 256;

#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    /// Units counted in each window, by its start on the provider's clock.
    counted: BTreeMap<Timestamp, Count>,
    /// The windows near the last instant asked for, the latest of each setting first. Only a shortcut: where windows
    /// begin and end does not depend on the clock.
    near: Vec<(Timestamp, Timestamp)>,
    /// How the wall clock has been set since it was last known to be right.
    settings: Vec<Setting>,
    /// What is known of the provider's clock.
    offset: Option<Offset>,
    /// The most that it is assumed to differ from ours before it is learned.
    skew: Duration,
    pub(crate) in_flight: u64,
}

/// One way in which the wall clock was set.
#[derive(Clone, Copy, Debug)]
struct Setting {
    /// Where it stood against the monotonic clock.
    alignment: i64,
    /// Until when. From then on the two may have drifted apart.
    seen: Monotonic,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    units: u64,
    /// When the window is over, whatever the wall clock says.
    over: Monotonic,
}

impl Calendar {
    /// Nothing is counted. The wall clock at `now` may be right, as may be what it is set to later.
    pub(crate) fn new(skew: Duration, now: Now) -> Self {
        let settings = vec![Setting { alignment: alignment(now), seen: now.monotonic }];
        Self { counted: BTreeMap::new(), near: Vec::new(), settings, offset: None, skew, in_flight: 0 }
    }

    /// One by the same clock, in which nothing is counted.
    pub(crate) fn emptied(&self) -> Self {
        Self { counted: BTreeMap::new(), near: Vec::new(), in_flight: 0, ..self.clone() }
    }

    /// Units held against the fullest window that a request sent at `now` can fall into.
    pub(crate) fn used(&mut self, now: Now, civil: Civil, zone: &TimeZone) -> u64 {
        self.levels(now, civil, zone).map(|(_, level)| level).max().unwrap_or(self.in_flight)
    }

    /// Books units that were counted in the given interval.
    pub(crate) fn count(&mut self, amount: u64, when: &Counted, civil: Civil, zone: &TimeZone) {
        if amount == 0 {
            return;
        }
        let over = when.receipt.monotonic.after(longest(civil)).after(longest(civil));
        let mut charged: Vec<Timestamp> = Vec::new();
        for (from, to) in when.readings() {
            // What is learned of the provider's clock holds for each reading of ours on its own.
            self.look(from, to, civil, zone);
            for (start, _) in &self.near {
                if charged.contains(start) {
                    continue;
                }
                let count = self.counted.entry(*start).or_insert(Count { units: 0, over });
                count.units = count.units.saturating_add(amount);
                count.over = count.over.max(over);
                if when.has_two_readings() {
                    charged.push(*start);
                }
            }
        }
        while self.counted.len() > MOST_REMEMBERED {
            let first = self.counted.iter().min_by_key(|(_, count)| count.over).map(|(start, _)| *start);
            if let Some(start) = first {
                self.counted.remove(&start);
            }
        }
    }

    /// Forgets windows that are over.
    pub(crate) fn advance(&mut self, now: Monotonic) {
        if self.counted.len() > 1 {
            self.counted.retain(|_, count| count.over > now);
        }
    }

    /// When `need` units fit, unless more is sent: the end of the last window near `now` that is too full for them.
    pub(crate) fn relief(&mut self, amount: u64, need: u64, now: Now, civil: Civil, zone: &TimeZone) -> Timestamp {
        let needed = need.saturating_add(self.in_flight);
        let mut relief = now.wall;
        for (earliest, latest) in self.reaches(now, civil) {
            let (from, to) = (shifted(now.wall, earliest), shifted(now.wall, latest));
            let too_full =
                windows(from, to, civil, zone).find(|(start, _)| self.units(*start).saturating_add(needed) > amount);
            if let Some((_, end)) = too_full {
                relief = relief.max(shifted(end, earliest.saturating_neg()));
            }
        }
        relief
    }

    /// What is known of the provider's clock from now on.
    pub(crate) fn set_offset(&mut self, offset: Offset) {
        self.offset = Some(offset);
        // Whatever the wall clock says, the provider's is known from now on.
        self.settings.clear();
    }

    /// What is held against each window that a request sent at `now` can fall into.
    pub(crate) fn levels(
        &mut self,
        now: Now,
        civil: Civil,
        zone: &TimeZone,
    ) -> impl Iterator<Item = (Timestamp, u64)> + '_ {
        self.look(now, now, civil, zone);
        self.near.iter().map(|(start, _)| (*start, self.units(*start).saturating_add(self.in_flight)))
    }

    /// What was counted in the window that begins at `start`.
    pub(crate) fn units(&self, start: Timestamp) -> u64 {
        self.counted.get(&start).map_or(0, |count| count.units)
    }

    /// By how many microseconds the provider's clock may be ahead of our wall clock as it stands at `at`: at least and
    /// at most. Of a clock that was set anew each setting may be the right one.
    fn reaches(&self, at: Now, civil: Civil) -> impl Iterator<Item = (i64, i64)> + use<> {
        let learned = self.offset.and_then(|offset| offset.at(at));
        let learned = learned
            .map(|(earliest, latest)| (earliest.saturating_sub(MARGIN_MICROS), latest.saturating_add(MARGIN_MICROS)));
        let (slack, here) = (self.slack_micros(civil), alignment(at));
        let assumed = (-slack, slack);
        let mut others = [None; MOST_SETTINGS];
        if learned.is_none() {
            for (other, setting) in others.iter_mut().zip(&self.settings) {
                let ahead = setting.alignment.saturating_sub(here);
                let age = i64::try_from(at.monotonic.since(setting.seen).as_micros()).unwrap_or(i64::MAX);
                let slack = slack.saturating_add(age / 1_000_000 * DRIFT_PPM);
                *other =
                    (ahead.abs() > STEP_MICROS).then(|| (ahead.saturating_sub(slack), ahead.saturating_add(slack)));
            }
        }
        std::iter::once(learned.unwrap_or(assumed)).chain(others.into_iter().flatten())
    }

    /// How far a boundary may be from where our clock sees it, before the provider's is learned.
    fn slack_micros(&self, civil: Civil) -> i64 {
        let slack = match civil {
            Civil::Multiple(length) => self.skew.min(length / 50),
            Civil::Day | Civil::Week | Civil::Month => self.skew,
        };
        i64::try_from(slack.as_micros()).unwrap_or(i64::MAX)
    }

    /// Notes how the wall clock is set.
    fn observe(&mut self, now: Now) {
        let (here, seen) = (alignment(now), now.monotonic);
        let is_near = |setting: &&mut Setting| setting.alignment.abs_diff(here) <= STEP_MICROS.unsigned_abs();
        if let Some(known) = self.settings.iter_mut().rev().find(is_near) {
            // What drifts slowly is still the same setting.
            *known = Setting { alignment: here, seen: seen.max(known.seen) };
            return;
        }
        if self.settings.len() == MOST_SETTINGS {
            // The first one is the likeliest to be right, then the latest.
            self.settings.remove(1);
        }
        self.settings.push(Setting { alignment: here, seen });
    }

    /// Finds the windows that requests sent or counted between two instants fall into.
    fn look(&mut self, from: Now, to: Now, civil: Civil, zone: &TimeZone) {
        self.observe(to);
        let (earliest, latest) = if self.offset.is_none() && self.settings.len() == 1 {
            // What follows from a clock that was never set, which is what a plan asks for each of its candidates.
            let slack = self.slack_micros(civil);
            (-slack, slack)
        } else {
            let mut reaches = self.reaches(from, civil);
            let (Some((earliest, _)), None) = (reaches.next(), reaches.next()) else {
                return self.look_by_each_setting(from, to, civil, zone);
            };
            (earliest, self.reaches(to, civil).next().map_or(0, |(_, latest)| latest))
        };
        let (from, to) = (shifted(from.wall, earliest), shifted(to.wall, latest));
        if let [(start, end)] = self.near[..]
            && start <= from
            && to < end
        {
            return;
        }
        self.near.clear();
        self.near.extend(windows(from, to, civil, zone));
    }

    fn look_by_each_setting(&mut self, from: Now, to: Now, civil: Civil, zone: &TimeZone) {
        self.near.clear();
        for (earliest, latest) in self.reaches(from, civil) {
            for window in windows(shifted(from.wall, earliest), shifted(to.wall, latest), civil, zone) {
                if !self.near.contains(&window) {
                    self.near.push(window);
                }
            }
        }
    }
}

/// The windows that overlap `[from, to]`, the latest first.
fn windows(
    from: Timestamp,
    to: Timestamp,
    civil: Civil,
    zone: &TimeZone,
) -> impl Iterator<Item = (Timestamp, Timestamp)> {
    let last = window(to, civil, zone);
    let before = move |(start, _): &(Timestamp, Timestamp)| {
        (*start > from).then(|| window(start.before(Duration::from_micros(1)), civil, zone))
    };
    std::iter::successors(Some(last), before).take(MOST_NEAR)
}

fn shifted(instant: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(instant.as_micros().saturating_add(micros))
}
