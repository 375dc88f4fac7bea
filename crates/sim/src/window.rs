//! Window arithmetic, on a clock that the caller gives in microseconds.
//!
//! This is a second, independent account of what the gateway's own books must
//! get right, so it is written to be obviously true and not to be fast: a rolling
//! window keeps every single use until it leaves, a bucket is an exact fraction.

use std::collections::VecDeque;

use jiff::ToSpan;
use jiff::tz::TimeZone;

/// One second, in microseconds.
const SECOND: i64 = 1_000_000;
/// What stands in for a civil boundary that the calendar cannot give.
const A_DAY: i64 = 86_400 * SECOND;

/// How a limit comes back. Lengths are in microseconds.
#[derive(Clone, Debug)]
pub enum Window {
    /// Each use leaves one length after it was counted.
    Rolling(i64),
    /// A store of the whole amount, refilled evenly by the amount per length.
    Bucket(i64),
    /// All at once at each multiple of the length since 1970.
    Multiples(i64),
    /// All at once at a civil boundary in a zone.
    Civil(Civil, TimeZone),
    /// All at once, one length after the first use.
    Anchored(i64),
    /// Not at all.
    Never,
}

/// A civil period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Civil {
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first to the first.
    Month,
}

/// What has been used of one limit. The unit is the caller's.
#[derive(Clone, Debug)]
pub struct Counter {
    window: Window,
    amount: u64,
    state: State,
    peak: u64,
}

#[derive(Clone, Debug)]
enum State {
    Uses(VecDeque<(i64, u64)>),
    /// What is left, times the window's length: a fraction kept exact. `at` is when that was true.
    Level {
        level: i128,
        at: i64,
    },
    /// What was used until `end`; nothing is open when there is no end.
    Period {
        used: u64,
        end: Option<i64>,
    },
}

/// The length of a window in seconds, if `text` is one.
#[must_use]
pub fn length_seconds(text: &str) -> Option<i64> {
    let (digits, unit) = match text {
        "second" => ("1", 1),
        "minute" => ("1", 60),
        "hour" => ("1", 3600),
        "day" => ("1", 86_400),
        "week" => ("7", 86_400),
        "month" => ("31", 86_400),
        _ => {
            let unit = match text.chars().last()? {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                'd' => 86_400,
                _ => return None,
            };
            (&text[..text.len() - 1], unit)
        }
    };
    digits.parse::<i64>().ok().filter(|count| *count > 0)?.checked_mul(unit)
}

// === impl Window ===

impl Window {
    /// The calendar window of that name: civil for day, week and month, multiples for lengths.
    #[must_use]
    pub fn calendar(text: &str, zone: &TimeZone) -> Option<Self> {
        Some(match text {
            "day" => Self::Civil(Civil::Day, zone.clone()),
            "week" => Self::Civil(Civil::Week, zone.clone()),
            "month" => Self::Civil(Civil::Month, zone.clone()),
            length => Self::Multiples(length_seconds(length)?.checked_mul(SECOND)?),
        })
    }

    /// When the period that contains `now` ends, for windows that end all at once whatever was used.
    fn boundary(&self, now: i64) -> Option<i64> {
        match self {
            Self::Multiples(length) => Some((now.div_euclid(*length) + 1) * length),
            Self::Civil(civil, zone) => Some(civil_end(*civil, zone, now).unwrap_or(now + A_DAY)),
            Self::Rolling(_) | Self::Bucket(_) | Self::Anchored(_) | Self::Never => None,
        }
    }
}

fn civil_end(civil: Civil, zone: &TimeZone, now: i64) -> Option<i64> {
    let today = jiff::Timestamp::from_microsecond(now).ok()?.to_zoned(zone.clone()).date();
    let next = match civil {
        Civil::Day => today.checked_add(1.day()).ok()?,
        Civil::Week => {
            let since_monday = i64::from(today.weekday().to_monday_zero_offset());
            today.checked_add((7 - since_monday).days()).ok()?
        }
        Civil::Month => today.first_of_month().checked_add(1.month()).ok()?,
    };
    Some(next.to_zoned(zone.clone()).ok()?.timestamp().as_microsecond())
}

// === impl Counter ===

impl Counter {
    /// A counter of which nothing has been used.
    #[must_use]
    pub fn new(window: Window, amount: u64) -> Self {
        let state = match &window {
            Window::Rolling(_) => State::Uses(VecDeque::new()),
            Window::Bucket(length) => State::Level { level: i128::from(amount) * i128::from(*length), at: i64::MIN },
            Window::Multiples(_) | Window::Civil(..) | Window::Anchored(_) | Window::Never => {
                State::Period { used: 0, end: None }
            }
        };
        Self { window, amount, state, peak: 0 }
    }

    /// What counts as used at `now`. May be more than the amount.
    pub fn used(&mut self, now: i64) -> u64 {
        self.pass(now);
        match &self.state {
            State::Uses(uses) => uses.iter().map(|(_, units)| units).sum(),
            State::Level { level, .. } => {
                let left = level.div_euclid(i128::from(self.length()));
                u64::try_from(i128::from(self.amount) - left).unwrap_or(0)
            }
            State::Period { used, .. } => *used,
        }
    }

    /// The most that was ever used at once.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// Counts `units` at `now`.
    pub fn charge(&mut self, now: i64, units: u64) {
        self.pass(now);
        let opened = match &self.window {
            Window::Anchored(length) => Some(now + length),
            window => window.boundary(now),
        };
        let length = self.length();
        match &mut self.state {
            State::Uses(uses) => uses.push_back((now, units)),
            State::Level { level, .. } => *level -= i128::from(units) * i128::from(length),
            State::Period { used, end } => {
                *used += units;
                *end = end.or(opened);
            }
        }
        self.peak = self.peak.max(self.used(now));
    }

    /// Counts an attempt that was refused. An empty bucket does not go into debt for it.
    pub fn charge_refused(&mut self, now: i64, units: u64) {
        let left = self.amount.saturating_sub(self.used(now));
        match self.state {
            State::Level { .. } => self.charge(now, units.min(left)),
            State::Uses(_) | State::Period { .. } => self.charge(now, units),
        }
    }

    /// Takes back `units` that were counted at `at`, if they still count.
    pub fn refund(&mut self, now: i64, at: i64, units: u64) {
        self.pass(now);
        let full = i128::from(self.amount) * i128::from(self.length());
        let started = match &self.window {
            Window::Anchored(length) => self.end().map(|end| end - length),
            _ => None,
        };
        let same_period =
            self.end() == self.window.boundary(at).or(self.end()) && started.is_none_or(|start| at >= start);
        let length = self.length();
        match &mut self.state {
            State::Uses(uses) => {
                if let Some(place) = uses.iter().position(|(when, charged)| *when == at && *charged >= units) {
                    uses[place].1 -= units;
                }
            }
            State::Level { level, .. } => *level = (*level + i128::from(units) * i128::from(length)).min(full),
            State::Period { used, .. } if same_period => *used = used.saturating_sub(units),
            State::Period { .. } => {}
        }
    }

    /// The first instant at which `units` more fit into `amount`, if nothing else is counted until then.
    pub fn fits_at(&mut self, now: i64, units: u64, amount: u64) -> Option<i64> {
        let mut used = self.used(now);
        if units > amount {
            return None;
        }
        if used + units <= amount {
            return Some(now);
        }
        match (&self.state, &self.window) {
            (State::Uses(uses), Window::Rolling(length)) => {
                for (at, units_then) in uses {
                    used -= units_then;
                    if used + units <= amount {
                        return Some(at + length);
                    }
                }
                None
            }
            (State::Level { level, .. }, Window::Bucket(length)) => {
                Some(now + self.refill_time(i128::from(units) * i128::from(*length) - level))
            }
            (State::Period { end, .. }, _) => *end,
            _ => None,
        }
    }

    /// When what was used comes back: a bucket is full, a period over, the oldest use out of a rolling window.
    pub fn reset_at(&mut self, now: i64) -> Option<i64> {
        self.pass(now);
        match (&self.state, &self.window) {
            (State::Uses(uses), Window::Rolling(length)) => Some(uses.front().map_or(now, |(at, _)| at + length)),
            (State::Level { level, .. }, Window::Bucket(length)) => {
                Some(now + self.refill_time(i128::from(self.amount) * i128::from(*length) - level))
            }
            (_, Window::Never) => None,
            (State::Period { end, .. }, window) => Some(end.or_else(|| window.boundary(now)).unwrap_or(now)),
            _ => None,
        }
    }

    /// Microseconds until `level` more has flowed into the bucket, rounded up.
    fn refill_time(&self, level: i128) -> i64 {
        let per_micro = i128::from(self.amount.max(1));
        i64::try_from((level.max(0) + per_micro - 1) / per_micro).unwrap_or(i64::MAX / 4)
    }

    /// Lets time pass: what has left the window at `now` leaves the books.
    fn pass(&mut self, now: i64) {
        let length = self.length();
        match &mut self.state {
            State::Uses(uses) => {
                while uses.front().is_some_and(|(at, _)| at + length <= now) {
                    uses.pop_front();
                }
            }
            State::Level { level, at } => {
                let full = i128::from(self.amount) * i128::from(length);
                if *at != i64::MIN {
                    *level = (*level + i128::from(self.amount) * i128::from(now - *at)).min(full);
                }
                *at = now;
            }
            State::Period { used, end } => {
                if end.is_some_and(|end| end <= now) {
                    *used = 0;
                    *end = None;
                }
            }
        }
    }

    fn end(&self) -> Option<i64> {
        match self.state {
            State::Period { end, .. } => end,
            State::Uses(_) | State::Level { .. } => None,
        }
    }

    fn length(&self) -> i64 {
        match self.window {
            Window::Rolling(length) | Window::Bucket(length) | Window::Multiples(length) | Window::Anchored(length) => {
                length
            }
            Window::Civil(..) | Window::Never => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    #[test]
    fn a_rolling_use_leaves_exactly_one_window_later() {
        let mut counter = Counter::new(Window::Rolling(10 * SECOND), 2);
        counter.charge(0, 1);
        counter.charge(4 * SECOND, 1);
        assert_eq!(counter.used(10 * SECOND - 1), 2);
        assert_eq!(counter.fits_at(5 * SECOND, 1, 2), Some(10 * SECOND));
        assert_eq!(counter.fits_at(5 * SECOND, 2, 2), Some(14 * SECOND));
        assert_eq!(counter.fits_at(5 * SECOND, 3, 2), None);
        assert_eq!(counter.reset_at(5 * SECOND), Some(10 * SECOND));
        assert_eq!(counter.used(10 * SECOND), 1);
        assert_eq!(counter.used(14 * SECOND), 0);
        assert_eq!(counter.peak(), 2);
    }

    #[test]
    fn a_bucket_refills_evenly_and_never_overflows() {
        let mut counter = Counter::new(Window::Bucket(60 * SECOND), 3);
        for _ in 0..3 {
            counter.charge(1_000, 1);
        }
        assert_eq!(counter.used(1_000), 3);
        assert_eq!(counter.fits_at(1_000, 1, 3), Some(1_000 + 20 * SECOND));
        assert_eq!(counter.reset_at(1_000), Some(1_000 + 60 * SECOND));
        assert_eq!(counter.used(1_000 + 20 * SECOND - 1), 3);
        assert_eq!(counter.used(1_000 + 20 * SECOND), 2);
        assert_eq!(counter.used(1_000 + 900 * SECOND), 0);
        counter.charge(1_000 + 900 * SECOND, 1);
        assert_eq!(counter.used(1_000 + 900 * SECOND), 1);
    }

    #[test]
    fn a_refused_attempt_does_not_put_a_bucket_into_debt_but_extends_a_rolling_window() {
        let mut bucket = Counter::new(Window::Bucket(60 * SECOND), 1);
        bucket.charge(0, 1);
        bucket.charge_refused(0, 1);
        assert_eq!(bucket.fits_at(0, 1, 1), Some(60 * SECOND));
        let mut rolling = Counter::new(Window::Rolling(60 * SECOND), 1);
        rolling.charge(0, 1);
        rolling.charge_refused(30 * SECOND, 1);
        assert_eq!(rolling.fits_at(30 * SECOND, 1, 1), Some(90 * SECOND));
    }

    #[test]
    fn a_short_calendar_window_ends_at_a_multiple_since_the_epoch() {
        let mut counter = Counter::new(Window::calendar("15m", &TimeZone::UTC).unwrap(), 5);
        let start = at("2026-11-22T10:14:59Z");
        counter.charge(start, 5);
        assert_eq!(counter.fits_at(start, 1, 5), Some(at("2026-11-22T10:15:00Z")));
        assert_eq!(counter.used(start + SECOND), 0);
        let mut five_hours = Counter::new(Window::calendar("5h", &TimeZone::UTC).unwrap(), 1);
        five_hours.charge(18_000 * SECOND - 1, 1);
        assert_eq!(five_hours.used(18_000 * SECOND - 1), 1);
        assert_eq!(five_hours.used(18_000 * SECOND), 0);
    }

    #[test]
    fn a_civil_day_has_the_length_its_zone_gives_it() {
        // The clocks go back in Los Angeles on 2026-11-01: that day has 25 hours.
        let mut counter = Counter::new(Window::calendar("day", &zone("America/Los_Angeles")).unwrap(), 1);
        counter.charge(at("2026-11-01T07:00:00Z"), 1);
        assert_eq!(counter.reset_at(at("2026-11-01T07:00:00Z")), Some(at("2026-11-02T08:00:00Z")));
        assert_eq!(counter.used(at("2026-11-02T07:59:59Z")), 1);
        assert_eq!(counter.used(at("2026-11-02T08:00:00Z")), 0);
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let sunday = at("2026-11-22T23:00:00Z");
        let mut week = Counter::new(Window::calendar("week", &TimeZone::UTC).unwrap(), 1);
        assert_eq!(week.reset_at(sunday), Some(at("2026-11-23T00:00:00Z")));
        assert_eq!(week.reset_at(at("2026-11-23T00:00:00Z")), Some(at("2026-11-30T00:00:00Z")));
        let mut month = Counter::new(Window::calendar("month", &zone("Asia/Shanghai")).unwrap(), 1);
        assert_eq!(month.reset_at(at("2026-12-31T15:59:59Z")), Some(at("2026-12-31T16:00:00Z")));
        assert_eq!(month.reset_at(at("2026-12-31T16:00:00Z")), Some(at("2027-01-31T16:00:00Z")));
    }

    #[test]
    fn an_anchored_window_opens_at_first_use() {
        let mut counter = Counter::new(Window::Anchored(5 * 3600 * SECOND), 2);
        counter.charge(7, 1);
        counter.charge(3600 * SECOND, 1);
        assert_eq!(counter.fits_at(3600 * SECOND, 1, 2), Some(7 + 18_000 * SECOND));
        assert_eq!(counter.used(7 + 18_000 * SECOND), 0);
        counter.charge(30_000 * SECOND, 1);
        assert_eq!(counter.reset_at(30_000 * SECOND), Some(48_000 * SECOND));
    }

    #[test]
    fn what_never_resets_stays_used() {
        let mut counter = Counter::new(Window::Never, 3);
        counter.charge(0, 3);
        assert_eq!(counter.used(i64::MAX / 2), 3);
        assert_eq!(counter.fits_at(0, 1, 3), None);
        assert_eq!(counter.reset_at(0), None);
    }

    #[test]
    fn a_refund_counts_only_where_the_charge_still_does() {
        for window in [Window::Rolling(10), Window::Multiples(10), Window::Anchored(10), Window::Bucket(10)] {
            let mut counter = Counter::new(window, 2);
            counter.charge(10, 1);
            counter.charge(11, 1);
            counter.refund(11, 11, 1);
            assert_eq!(counter.used(11), 1);
        }
        let mut counter = Counter::new(Window::Multiples(10), 2);
        counter.charge(9, 1);
        counter.charge(10, 1);
        counter.refund(10, 9, 1);
        assert_eq!(counter.used(10), 1);
    }

    #[test]
    fn lengths_are_read_as_facts_write_them() {
        assert_eq!(length_seconds("10s"), Some(10));
        assert_eq!(length_seconds("5h"), Some(18_000));
        assert_eq!(length_seconds("week"), Some(604_800));
        assert_eq!(length_seconds("0s"), None);
        assert_eq!(length_seconds("soon"), None);
    }
}
