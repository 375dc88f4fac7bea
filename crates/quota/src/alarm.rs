//! When a credit is about to end, so that somebody should hear of it.

use std::time::Duration;

use freeway_types::Timestamp;

use crate::counter::GrantView;

/// A credit is low when less than one part in so many is left of it.
const LOW_PART: u64 = 5;
/// How long before it lapses it is worth a word.
const LAPSES_SOON: Duration = Duration::from_secs(7 * 86_400);

/// What somebody should hear of a credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CreditAlarm {
    /// Less than a fifth of it is left.
    Low,
    /// It lapses within a week, with something left.
    Lapsing,
}

impl CreditAlarm {
    /// Its word in the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "credit_low",
            Self::Lapsing => "credit_lapsing",
        }
    }
}

impl GrantView {
    /// What should be heard of it now. Of one that has lapsed, nothing: it is too late.
    pub fn alarms(&self, now: Timestamp) -> impl Iterator<Item = CreditAlarm> {
        let is_over = self.lapses.is_some_and(|end| end <= now);
        let is_low = !is_over && self.amount > 0 && self.left.saturating_mul(LOW_PART) < self.amount;
        let is_lapsing = !is_over && self.left > 0 && self.lapses.is_some_and(|end| end.since(now) <= LAPSES_SOON);
        [(is_low, CreditAlarm::Low), (is_lapsing, CreditAlarm::Lapsing)]
            .into_iter()
            .filter_map(|(is_so, alarm)| is_so.then_some(alarm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(left: u64, lapses_in: Option<i64>, expected: &[CreditAlarm]) {
        let day = |days: i64| Timestamp::from_secs(days * 86_400);
        let lapses = lapses_in.map(|days| day(100 + days));
        let credit = GrantView { name: "lab usd".to_owned(), amount: 100, used: 100 - left, left, lapses };
        assert_eq!(credit.alarms(day(100)).collect::<Vec<_>>(), expected, "{left} {lapses_in:?}");
    }

    #[test]
    fn a_credit_is_told_of_below_a_fifth_and_a_week_before_it_lapses() {
        check(20, None, &[]);
        check(19, None, &[CreditAlarm::Low]);
        check(0, None, &[CreditAlarm::Low]);
        check(20, Some(8), &[]);
        check(20, Some(7), &[CreditAlarm::Lapsing]);
        check(19, Some(1), &[CreditAlarm::Low, CreditAlarm::Lapsing]);
        check(0, Some(1), &[CreditAlarm::Low]);
        check(19, Some(0), &[]);
    }
}
