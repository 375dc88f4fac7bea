//! Where civil windows begin and end: days, weeks and months in a zone, and
//! multiples of shorter lengths.
//!
//! A day is not 24 hours: it begins at the first instant of its date and lasts
//! until the first instant of the next date, however often the clocks were put
//! forward or back in between.

use std::time::Duration;

use freeway_types::Timestamp;
use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::spec::Civil;

const DAY: Duration = Duration::from_secs(86_400);

/// Start and end of the window that holds `at`. A midnight that does not exist is the first instant of
/// its date; of one that comes twice, the first counts.
pub(crate) fn window(at: Timestamp, civil: Civil, zone: &TimeZone) -> (Timestamp, Timestamp) {
    match civil {
        Civil::Multiple(length) => multiple(at, length),
        // Beyond the years that calendars are written for, days of 24 hours are as good as any.
        Civil::Day | Civil::Week | Civil::Month => civil_window(at, civil, zone).unwrap_or_else(|| multiple(at, DAY)),
    }
}

/// A length that no window of the kind exceeds. Zones have put their clocks back by up to a day.
pub(crate) fn longest(civil: Civil) -> Duration {
    match civil {
        Civil::Multiple(length) => length,
        Civil::Day => 2 * DAY,
        Civil::Week => 8 * DAY,
        Civil::Month => 32 * DAY,
    }
}

fn multiple(at: Timestamp, length: Duration) -> (Timestamp, Timestamp) {
    let length = i64::try_from(length.as_micros()).unwrap_or(i64::MAX).max(1);
    let start = at.as_micros().div_euclid(length).saturating_mul(length);
    (Timestamp::from_micros(start), Timestamp::from_micros(start.saturating_add(length)))
}

fn civil_window(at: Timestamp, civil: Civil, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    let date = jiff::Timestamp::from_microsecond(at.as_micros()).ok()?.to_zoned(zone.clone()).date();
    let first = match civil {
        Civil::Day | Civil::Multiple(_) => date,
        Civil::Week => date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).ok()?,
        Civil::Month => date.first_of_month(),
    };
    let (mut first, mut next) = (first, following(first, civil)?);
    if beginning(next, zone)? <= at {
        // Clocks that are put back over midnight show the old date again, in the new date's window.
        (first, next) = (next, following(next, civil)?);
    }
    Some((beginning(first, zone)?, beginning(next, zone)?))
}

/// The first date of the window after the one that begins with `first`.
fn following(first: Date, civil: Civil) -> Option<Date> {
    match civil {
        Civil::Day | Civil::Multiple(_) => first.tomorrow().ok(),
        Civil::Week => first.checked_add(7.days()).ok(),
        Civil::Month => first.last_of_month().tomorrow().ok(),
    }
}

/// The first instant at which the clocks of a zone show a date, or a later one if it is left out there.
fn beginning(date: Date, zone: &TimeZone) -> Option<Timestamp> {
    let midnight = zone.to_ambiguous_timestamp(date.at(0, 0, 0, 0));
    let is_gap = matches!(midnight.offset(), AmbiguousOffset::Gap { .. });
    let instant = midnight.compatible().ok()?;
    // Clocks that are put forward over midnight show the date at once, and not first at the midnight that would
    // have been.
    let instant = if is_gap {
        let just_after = instant.checked_add(1.nanosecond()).ok()?;
        zone.preceding(just_after).next().map_or(instant, |transition| transition.timestamp())
    } else {
        instant
    };
    Some(Timestamp::from_micros(instant.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
        // In 2 hours and in half an hour.
        check(Civil::Day, "Antarctica/Troll", "2026-03-29T12:00:00Z", "2026-03-29T00:00:00Z", "2026-03-29T22:00:00Z");
        check(
            Civil::Day,
            "Australia/Lord_Howe",
            "2026-04-05T00:00:00Z",
            "2026-04-04T13:00:00Z",
            "2026-04-05T13:30:00Z",
        );
    }

    #[test]
    fn a_missing_midnight_is_the_first_instant_of_its_date() {
        // Clocks in Santiago went from 24:00 to 01:00 on 2026-09-05.
        check(Civil::Day, "America/Santiago", "2026-09-06T12:00:00Z", "2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z");
        // In Toronto, from 23:30 to 00:30 on 1919-03-30: the day began at 00:30.
        check(Civil::Day, "America/Toronto", "1919-03-31T12:00:00Z", "1919-03-31T04:30:00Z", "1919-04-01T04:00:00Z");
        // In Apia there was no 2011-12-30.
        check(Civil::Day, "Pacific/Apia", "2011-12-30T00:00:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z");
        check(Civil::Day, "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z");
    }

    #[test]
    fn of_a_midnight_that_comes_twice_the_first_counts() {
        // Clocks on the Azores go from 01:00 back to 00:00 on 2026-10-25.
        check(Civil::Day, "Atlantic/Azores", "2026-10-25T01:30:00Z", "2026-10-25T00:00:00Z", "2026-10-26T01:00:00Z");
        // In St John's, from 00:01 back to 23:01 on 2010-11-07: the old date was shown again after the new one.
        for instant in ["2010-11-07T02:30:30Z", "2010-11-07T03:00:00Z", "2010-11-07T12:00:00Z"] {
            check(Civil::Day, "America/St_Johns", instant, "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z");
        }
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        check(Civil::Week, "UTC", "2026-11-22T12:00:00Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z");
        check(Civil::Month, "UTC", "2026-02-28T23:59:59Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z");
    }

    #[test]
    fn shorter_windows_are_multiples_since_1970() {
        let check = |secs, instant, start, end| {
            check(Civil::Multiple(Duration::from_secs(secs)), "UTC", instant, start, end);
        };
        check(10, "2026-01-01T00:00:19.5Z", "2026-01-01T00:00:10Z", "2026-01-01T00:00:20Z");
        check(5 * 3600, "1970-01-02T00:00:00Z", "1970-01-01T20:00:00Z", "1970-01-02T01:00:00Z");
        check(7, "1969-12-31T23:59:59Z", "1969-12-31T23:59:53Z", "1970-01-01T00:00:00Z");
    }

    #[test]
    fn instants_outside_of_every_calendar_still_have_windows() {
        for micros in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
            let here = Timestamp::from_micros(micros);
            for civil in [Civil::Day, Civil::Week, Civil::Month, Civil::Multiple(Duration::from_secs(10))] {
                let (start, end) = window(here, civil, &TimeZone::UTC);
                assert!(start <= here && here <= end, "{micros} {civil:?}");
            }
        }
    }

    // An oracle that knows nothing of dates but how to count days: it asks the zone for its offset at an instant, and
    // walks.

    const MINUTE: i64 = 60;
    const QUARTER: i64 = 15 * MINUTE;
    const SECS_PER_DAY: i64 = 86_400;

    fn offset(zone: &TimeZone, secs: i64) -> i64 {
        i64::from(zone.to_offset(jiff::Timestamp::from_second(secs).unwrap()).seconds())
    }

    /// The number of the day that clocks show, counted from 1970-01-01.
    fn day_shown(zone: &TimeZone, secs: i64) -> i64 {
        (secs + offset(zone, secs)).div_euclid(SECS_PER_DAY)
    }

    /// The first second at which a day or a later one is shown: by quarters of an hour, then minutes, then seconds.
    fn walk_to(zone: &TimeZone, day: i64) -> i64 {
        let mut secs = day * SECS_PER_DAY - 27 * 3600;
        for step in [QUARTER, MINUTE, 1] {
            while day_shown(zone, secs + step) < day {
                secs += step;
            }
        }
        secs + 1
    }

    /// Whether a day begins a window; days of months by the rule of the Gregorian calendar.
    fn begins(civil: Civil, day: i64) -> bool {
        match civil {
            Civil::Day | Civil::Multiple(_) => true,
            // 1970-01-05 was a Monday.
            Civil::Week => (day - 4).rem_euclid(7) == 0,
            Civil::Month => {
                let (mut first, mut year, mut month) = (0, 1970, 0);
                while first < day {
                    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
                    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
                    first += lengths[month];
                    (year, month) = if month == 11 { (year + 1, 0) } else { (year, month + 1) };
                }
                first == day
            }
        }
    }

    fn expected(zone: &TimeZone, civil: Civil, secs: i64) -> (i64, i64) {
        // The latest day that has begun, whatever the clocks show now.
        let shown = day_shown(zone, secs);
        let latest = if walk_to(zone, shown + 1) <= secs { shown + 1 } else { shown };
        let start = (0..32).map(|back| latest - back).find(|day| begins(civil, *day)).unwrap();
        let end = (1..33).map(|ahead| latest + ahead).find(|day| begins(civil, *day)).unwrap();
        (walk_to(zone, start), walk_to(zone, end))
    }

    /// Instants between which a zone changes its offset, within a quarter of an hour.
    fn transitions(zone: &TimeZone, from: i64, to: i64) -> Vec<i64> {
        let mut found = Vec::new();
        let step = 6 * 3600;
        let mut secs = from;
        while secs < to {
            if offset(zone, secs) != offset(zone, secs + step) {
                let inside = (0..step / QUARTER).map(|quarter| secs + quarter * QUARTER);
                found.extend(
                    inside.filter(|at| offset(zone, *at) != offset(zone, *at + QUARTER)).map(|at| at + QUARTER),
                );
            }
            secs += step;
        }
        found
    }

    #[test]
    fn every_transition_of_every_zone_for_eleven_years() {
        let (from, to) = (at("2025-01-01T00:00:00Z").as_secs(), at("2036-01-01T00:00:00Z").as_secs());
        let mut seen: BTreeSet<Vec<(i64, i64)>> = BTreeSet::new();
        let mut checked = 0;
        for name in jiff::tz::db().available() {
            let zone = TimeZone::get(name.as_str()).unwrap();
            let transitions = transitions(&zone, from, to);
            // Most names stand for clocks that others have too.
            if transitions.is_empty() || !seen.insert(transitions.iter().map(|at| (*at, offset(&zone, *at))).collect())
            {
                continue;
            }
            for transition in transitions {
                let around = [-25 * 3600, -3601, -1, 0, 1, 1799, 3600, 26 * 3600];
                for (civil, instants) in
                    [(Civil::Day, &around[..]), (Civil::Week, &[-1, 3600][..]), (Civil::Month, &[-1, 3600][..])]
                {
                    for away in instants {
                        let secs = transition + away;
                        let (start, end) = expected(&zone, civil, secs);
                        let expected = (Timestamp::from_secs(start), Timestamp::from_secs(end));
                        let here = Timestamp::from_secs(secs);
                        assert_eq!(window(here, civil, &zone), expected, "{name:?} {civil:?} at {here}");
                        let length = Duration::from_secs(u64::try_from(end - start).unwrap());
                        assert!(length <= longest(civil), "{name:?} {civil:?} at {here}");
                        checked += 1;
                    }
                }
            }
        }
        assert!(seen.len() > 25 && checked > 5_000, "{} kinds of clocks, {checked} instants", seen.len());
    }
}
