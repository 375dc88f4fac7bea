//! How a provider counts, in arithmetic of its own: it knows when each request really arrived, by a clock that the
//! gateway does not see, and sums up afterwards.

use freeway_types::Metric;
use jiff::tz::TimeZone;

const HOUR: i64 = 3_600_000_000;

/// How a limit of the provider comes back.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Rolling(i64),
    Anchored(i64),
    Bucket(i64),
    /// Multiples of a length since 1970.
    Multiple(i64),
    Day(String),
    Week(String),
    Month(String),
    /// Credits: size, and when each lapses.
    Credits(Vec<(u64, Option<i64>)>),
    Concurrency,
}

/// A limit of the provider.
#[derive(Clone, Debug)]
pub(crate) struct Hidden {
    pub(crate) kind: Kind,
    pub(crate) metric: Metric,
    pub(crate) amount: u64,
    pub(crate) successes_only: bool,
    pub(crate) requested: bool,
}

/// One charge: when, in microseconds that go on evenly; when, by the provider's calendar; how much; and for places,
/// when it was given back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    pub(crate) at: i64,
    pub(crate) wall: i64,
    pub(crate) units: u64,
    pub(crate) until: i64,
}

/// The number of the window that a calendar shows.
fn shown(kind: &Kind, wall: i64) -> i64 {
    let at = jiff::Timestamp::from_microsecond(wall).unwrap();
    let day = |zone: &str| {
        let zone = TimeZone::get(zone).unwrap();
        (at.as_second() + i64::from(zone.to_offset(at).seconds())).div_euclid(86_400)
    };
    match kind {
        Kind::Multiple(length) => wall.div_euclid(*length),
        Kind::Day(zone) => day(zone),
        Kind::Week(zone) => (day(zone) + 3).div_euclid(7),
        Kind::Month(zone) => {
            let date = at.to_zoned(TimeZone::get(zone).unwrap()).date();
            i64::from(date.year()) * 12 + i64::from(date.month())
        }
        other => panic!("{other:?} has no calendar"),
    }
}

/// Whether the charges ever exceed the limit.
pub(crate) fn is_overrun(limit: &Hidden, charges: &[Charge]) -> bool {
    let mut charges: Vec<Charge> = charges.iter().copied().filter(|charge| charge.units > 0).collect();
    charges.sort_by_key(|charge| charge.at);
    let amount = limit.amount;
    let sum = |charges: &mut dyn Iterator<Item = &Charge>| charges.map(|charge| charge.units).sum::<u64>();
    match &limit.kind {
        Kind::Rolling(window) => charges
            .iter()
            .any(|last| sum(&mut charges.iter().filter(|one| one.at > last.at - window && one.at <= last.at)) > amount),
        Kind::Anchored(window) => {
            let (mut opened, mut used) = (i64::MIN, 0);
            charges.iter().any(|charge| {
                if opened == i64::MIN || charge.at >= opened + window {
                    (opened, used) = (charge.at, 0);
                }
                used += charge.units;
                used > amount
            })
        }
        Kind::Bucket(window) => {
            let full = i128::from(amount) * i128::from(*window);
            let (mut level, mut updated) = (full, i64::MIN);
            charges.iter().any(|charge| {
                if updated != i64::MIN {
                    level = full.min(level + i128::from(charge.at - updated) * i128::from(amount));
                }
                updated = charge.at;
                level -= i128::from(charge.units) * i128::from(*window);
                level < 0
            })
        }
        Kind::Credits(credits) => {
            let mut left = credits.clone();
            left.sort_by_key(|(_, lapses)| lapses.unwrap_or(i64::MAX));
            charges.iter().any(|charge| {
                let mut rest = charge.units;
                for (units, lapses) in &mut left {
                    if lapses.is_none_or(|lapses| charge.wall < lapses) {
                        let part = rest.min(*units);
                        *units -= part;
                        rest -= part;
                    }
                }
                rest > 0
            })
        }
        Kind::Concurrency => charges
            .iter()
            .any(|last| sum(&mut charges.iter().filter(|one| one.at <= last.at && last.at < one.until)) > amount),
        calendar => {
            // A clock that is set back far enough shows a window again that is long over, and that is another one.
            let longest = match calendar {
                Kind::Multiple(length) => *length,
                Kind::Day(_) => 25 * HOUR,
                Kind::Week(_) => (7 * 24 + 1) * HOUR,
                _ => (31 * 24 + 1) * HOUR,
            };
            let windows: Vec<i64> = charges.iter().map(|charge| shown(calendar, charge.wall)).collect();
            let all = || charges.iter().zip(&windows);
            all().any(|(last, window)| {
                let since = last.at - longest;
                let here = all().filter(|(one, other)| *other == window && one.at <= last.at && one.at > since);
                here.map(|(one, _)| one.units).sum::<u64>() > amount
            })
        }
    }
}
