//! Windows that begin and end at civil boundaries: midnight in Los Angeles, the
//! first of the month, each full minute.
//!
//! The provider's clock is not ours. A request whose counting may fall on either
//! side of a boundary is charged to both windows, and while a boundary is nearer
//! than the uncertainty, a new request must fit into both. The uncertainty is a
//! fixed slack, until the provider's clock is [learned](crate::skew).
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
use crate::skew::Offset;
use crate::spec::Civil;

/// The most that a provider's clock is assumed to differ from ours before it is learned.
const MOST_SLACK: Duration = Duration::from_secs(1);
/// How much further than the learned offset a boundary is taken to be, on each side.
const MARGIN_MICROS: i64 = 50_000;
/// The most windows that one charge is counted in. Of a charge that may have been counted in more, the last ones
/// matter: the others are over.
const MOST_NEAR: usize = 64;
/// The most windows that are remembered. Only a clock that jumps about makes so many; those go first that will be over
/// first.
const MOST_REMEMBERED: usize = 256;

#[derive(Clone, Debug, Default)]
pub(crate) struct Calendar {
    /// Units counted in each window, by its start on the provider's clock.
    counted: BTreeMap<Timestamp, Count>,
    /// The windows near the last instant asked for, the latest first. Only a shortcut: where windows begin and end
    /// does not depend on the clock.
    near: Vec<(Timestamp, Timestamp)>,
    /// What is known of the provider's clock.
    offset: Option<Offset>,
    pub(crate) in_flight: u64,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    units: u64,
    /// When the window is over, whatever the wall clock says.
    over: Monotonic,
}

impl Calendar {
    /// Units held against the fullest window that a request sent at `now` can fall into.
    pub(crate) fn used(&mut self, now: Now, civil: Civil, zone: &TimeZone) -> u64 {
        let (earliest, latest) = self.reach(now, civil);
        self.look(shifted(now.wall, earliest), shifted(now.wall, latest), civil, zone);
        self.near.iter().map(|(start, _)| self.units(*start)).max().unwrap_or(0).saturating_add(self.in_flight)
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
            let (earliest, latest) = (self.reach(from, civil).0, self.reach(to, civil).1);
            self.look(shifted(from.wall, earliest), shifted(to.wall, latest), civil, zone);
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
        let (earliest, latest) = self.reach(now, civil);
        self.look(shifted(now.wall, earliest), shifted(now.wall, latest), civil, zone);
        let needed = need.saturating_add(self.in_flight);
        let too_full = self.near.iter().find(|(start, _)| self.units(*start).saturating_add(needed) > amount);
        too_full.map_or(now.wall, |(_, end)| shifted(*end, earliest.saturating_neg()))
    }

    /// What is known of the provider's clock from now on.
    pub(crate) fn set_offset(&mut self, offset: Offset) {
        self.offset = Some(offset);
    }

    /// What is held against each window that a request sent at `now` can fall into.
    pub(crate) fn levels(
        &mut self,
        now: Now,
        civil: Civil,
        zone: &TimeZone,
    ) -> impl Iterator<Item = (Timestamp, u64)> + '_ {
        let (earliest, latest) = self.reach(now, civil);
        self.look(shifted(now.wall, earliest), shifted(now.wall, latest), civil, zone);
        self.near.iter().map(|(start, _)| (*start, self.units(*start).saturating_add(self.in_flight)))
    }

    /// What was counted in the window that begins at `start`.
    pub(crate) fn units(&self, start: Timestamp) -> u64 {
        self.counted.get(&start).map_or(0, |count| count.units)
    }

    /// By how many microseconds the provider's clock may be ahead of ours: at least and at most.
    fn reach(&self, now: Now, civil: Civil) -> (i64, i64) {
        let learned = self.offset.and_then(|offset| offset.at(now));
        learned.map_or_else(
            || {
                let slack = slack_micros(civil);
                (-slack, slack)
            },
            |(earliest, latest)| (earliest.saturating_sub(MARGIN_MICROS), latest.saturating_add(MARGIN_MICROS)),
        )
    }

    /// Finds the windows that overlap `[from, to]`, with the last answer as a shortcut.
    fn look(&mut self, from: Timestamp, to: Timestamp, civil: Civil, zone: &TimeZone) {
        if let [(start, end)] = self.near[..]
            && start <= from
            && to < end
        {
            return;
        }
        self.near.clear();
        let mut at = to;
        loop {
            let (start, end) = window(at, civil, zone);
            self.near.push((start, end));
            if start <= from || self.near.len() >= MOST_NEAR {
                break;
            }
            at = start.before(Duration::from_micros(1));
        }
    }
}

fn slack_micros(civil: Civil) -> i64 {
    let slack = match civil {
        Civil::Multiple(length) => MOST_SLACK.min(length / 50),
        Civil::Day | Civil::Week | Civil::Month => MOST_SLACK,
    };
    i64::try_from(slack.as_micros()).unwrap_or(i64::MAX)
}

fn shifted(instant: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(instant.as_micros().saturating_add(micros))
}
