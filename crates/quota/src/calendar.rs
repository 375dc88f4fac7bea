//! Windows that begin and end at civil boundaries: midnight in Los Angeles, the
//! first of the month, each full minute.
//!
//! The provider's clock is not ours. A request whose counting may fall on either
//! side of a boundary is charged to both windows, and while a boundary is nearer
//! than the slack, a new request must fit into both.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_types::Timestamp;
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

use crate::spec::Civil;

/// The most that the provider's clock is assumed to differ from ours.
const MOST_SLACK: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub(crate) struct Calendar {
    /// Units counted in each window that is not over, by its start.
    counted: BTreeMap<Timestamp, u64>,
    /// The windows near the last instant asked for: start and end.
    near: Vec<(Timestamp, Timestamp)>,
    pub(crate) in_flight: u64,
}

impl Calendar {
    /// Units held against the fullest window that a request sent at `now` can fall into.
    pub(crate) fn used(&mut self, now: Timestamp, civil: Civil, zone: &TimeZone) -> u64 {
        let slack = slack(civil);
        self.look(now.before(slack), now.after(slack), civil, zone);
        let fullest = self.near.iter().map(|(start, _)| self.counted.get(start).copied().unwrap_or(0)).max();
        fullest.unwrap_or(0).saturating_add(self.in_flight)
    }

    /// Books units that were counted at some instant between `dispatched` and `receipt`.
    pub(crate) fn count(
        &mut self,
        amount: u64,
        dispatched: Timestamp,
        receipt: Timestamp,
        civil: Civil,
        zone: &TimeZone,
    ) {
        let slack = slack(civil);
        self.look(dispatched.before(slack), receipt.after(slack), civil, zone);
        for (start, _) in &self.near {
            *self.counted.entry(*start).or_default() += amount;
        }
    }

    /// Forgets windows that are over.
    pub(crate) fn advance(&mut self, now: Timestamp, civil: Civil, zone: &TimeZone) {
        let slack = slack(civil);
        if self.counted.len() > 2 {
            let (start, _) = window(now.before(slack), civil, zone);
            self.counted = self.counted.split_off(&start);
        }
    }

    /// The end of the present window, with the slack.
    pub(crate) fn relief(&self, now: Timestamp, civil: Civil, zone: &TimeZone) -> Timestamp {
        let slack = slack(civil);
        window(now.after(slack), civil, zone).1.after(slack)
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
        let mut at = from;
        loop {
            let (start, end) = window(at, civil, zone);
            self.near.push((start, end));
            if to < end || self.near.len() >= 64 {
                break;
            }
            at = end;
        }
    }
}

fn slack(civil: Civil) -> Duration {
    match civil {
        Civil::Multiple(length) => MOST_SLACK.min(length / 50),
        Civil::Day | Civil::Week | Civil::Month => MOST_SLACK,
    }
}

/// Start and end of the window that holds `at`. A midnight that does not exist is the first instant of
/// its date; of one that comes twice, the first counts.
fn window(at: Timestamp, civil: Civil, zone: &TimeZone) -> (Timestamp, Timestamp) {
    if let Civil::Multiple(length) = civil {
        let length = i64::try_from(length.as_micros()).unwrap_or(i64::MAX).max(1);
        let start = at.as_micros().div_euclid(length) * length;
        return (Timestamp::from_micros(start), Timestamp::from_micros(start + length));
    }
    civil_window(at, civil, zone).unwrap_or((at, at.after(Duration::from_secs(86_400))))
}

fn civil_window(at: Timestamp, civil: Civil, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    let zoned = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?.to_zoned(zone.clone());
    let today = zoned.date();
    let (first, next) = match civil {
        Civil::Day | Civil::Multiple(_) => (today, today.tomorrow().ok()?),
        Civil::Week => {
            let back = i64::from(today.weekday().to_monday_zero_offset());
            let monday = today.checked_sub(back.days()).ok()?;
            (monday, monday.checked_add(7.days()).ok()?)
        }
        Civil::Month => (today.first_of_month(), today.last_of_month().tomorrow().ok()?),
    };
    let start = |date: jiff::civil::Date| -> Option<Timestamp> {
        let zoned: Zoned = date.to_zoned(zone.clone()).ok()?;
        Some(Timestamp::from_micros(zoned.timestamp().as_microsecond()))
    };
    Some((start(first)?, start(next)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn check(civil: Civil, zone: &str, instant: &str, start: &str, end: &str) {
        let zone = TimeZone::get(zone).unwrap();
        assert_eq!(window(at(instant), civil, &zone), (at(start), at(end)), "{instant}");
    }

    #[test]
    fn days_may_last_23_or_25_hours() {
        let la = "America/Los_Angeles";
        check(Civil::Day, la, "2026-03-08T18:00:00Z", "2026-03-08T08:00:00Z", "2026-03-09T07:00:00Z");
        check(Civil::Day, la, "2026-11-01T12:00:00Z", "2026-11-01T07:00:00Z", "2026-11-02T08:00:00Z");
    }

    #[test]
    fn a_missing_midnight_is_the_first_instant_of_its_date() {
        // Clocks in Santiago went from 24:00 to 01:00 on 2026-09-05.
        check(Civil::Day, "America/Santiago", "2026-09-06T12:00:00Z", "2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z");
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        check(Civil::Week, "UTC", "2026-11-22T12:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z");
        check(Civil::Month, "UTC", "2026-02-28T23:59:59Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z");
    }

    #[test]
    fn shorter_windows_are_multiples_since_1970() {
        check(
            Civil::Multiple(Duration::from_secs(10)),
            "UTC",
            "2026-01-01T00:00:19.5Z",
            "2026-01-01T00:00:10Z",
            "2026-01-01T00:00:20Z",
        );
    }
}
