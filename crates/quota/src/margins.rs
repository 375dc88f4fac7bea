//! What counting leaves room for, because a provider's count cannot be seen.

use std::time::Duration;

use crate::COUNT_LAG;

/// What a [`Book`](crate::Book) leaves room for between what is known here and what a provider counts.
///
/// The live gateway needs all of it. A simulation, in which a request is counted at the instant at which it is sent and
/// its size is known, needs none; what clocks may drift is always waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margins {
    /// Longest time between the end of our write and the provider's count.
    pub lag: Duration,
    /// The most that a provider's clock is assumed to differ from ours before it is learned.
    pub skew: Duration,
    /// Whether what an attempt uses is an estimate, so that a hundredth of a limit in tokens is kept for those that
    /// fall short.
    pub are_estimates: bool,
    /// Whether the charges of a large limit that slides may leave it in steps, a 64th of the window late at most.
    pub in_steps: bool,
}

impl Margins {
    /// What the live gateway leaves room for.
    pub const LIVE: Self = Self { lag: COUNT_LAG, skew: Duration::from_secs(1), are_estimates: true, in_steps: true };
    /// For a provider that counts at once, by our clock, what is known before.
    pub const NONE: Self = Self { lag: Duration::ZERO, skew: Duration::ZERO, are_estimates: false, in_steps: false };
}

impl Default for Margins {
    fn default() -> Self {
        Self::LIVE
    }
}

#[cfg(test)]
mod tests {
    use freeway_types::{LimitIndex, Monotonic, Now, Timestamp, Usage, Usd};

    use super::*;
    use crate::{Actual, Book, Bound, Demand, Fit, LimitSpec};

    /// Half past ten in the evening, UTC.
    fn start() -> Now {
        let wall = Timestamp::parse("2026-10-20T22:30:00Z").unwrap();
        Now { wall, monotonic: Monotonic::from_micros(1_000_000) }
    }

    fn at(seconds: f64) -> Now {
        start().after(Duration::from_secs_f64(seconds))
    }

    fn send(book: &mut Book, now: Now, tokens: u64) -> bool {
        let picos = Bound::exactly(tokens);
        let demand = Demand { input: Bound::exactly(tokens), picos, ..Demand::default() };
        let Ok(id) = book.reserve(now, &[LimitIndex::FIRST], &demand) else { return false };
        book.received(id, now);
        let usage = Some(Usage { input: tokens, ..Usage::default() });
        let cost = Usd::from_picos(i64::try_from(tokens).unwrap());
        book.settle(id, now, &Actual { usage, cost, units: 0, answered: true });
        true
    }

    /// How often `tokens` fit at once at `sent`, and whether they fit again at each later instant.
    fn check(limit: &str, margins: Margins, (sent, tokens): (f64, u64), fit: usize, later: &[(f64, bool)]) {
        let spec = LimitSpec::read("lab/small", &toml::from_str(limit).unwrap()).unwrap();
        let mut book = Book::with_margins(vec![spec], margins, start());
        let sent = (0..2_000).take_while(|_| send(&mut book, at(sent), tokens)).count();
        assert_eq!(sent, fit, "{limit}, {margins:?}");
        for (seconds, fits) in later {
            let demand = Demand { input: Bound::exactly(tokens), picos: Bound::exactly(tokens), ..Demand::default() };
            let answer = book.fit(at(*seconds), &[LimitIndex::FIRST], &demand);
            assert_eq!(matches!(answer, Fit::Fits(_)), *fits, "{limit}, {margins:?}, at {seconds}: {answer:?}");
        }
    }

    #[test]
    fn without_margins_each_limit_is_used_whole_and_comes_back_at_its_instant() {
        let check = |limit, sent, fit, later: &[(f64, bool)]| check(limit, Margins::NONE, sent, fit, later);
        let minute = "metric = \"requests\"\nwindow = \"minute\"\namount = 5";
        check(minute, (10.0, 1), 5, &[(69.999, false), (70.002_9, false), (70.003, true)]);
        let many = "metric = \"tokens\"\nwindow = \"hour\"\namount = 10000";
        check(many, (10.0, 1_000), 10, &[(3_610.179, false), (3_610.18, true)]);
        let day = "metric = \"requests\"\nwindow = \"day\"\namount = 3\nreset = \"calendar\"";
        check(day, (5_399.9, 1), 3, &[(5_399.999, false), (5_400.0, true)]);
        let minute = "metric = \"requests\"\nwindow = \"minute\"\namount = 3\nreset = \"calendar\"";
        check(minute, (59.9, 1), 3, &[(59.999, false), (60.0, true)]);
        let bucket = "metric = \"tokens\"\nwindow = \"minute\"\namount = 600\nreset = \"bucket\"";
        check(bucket, (10.0, 100), 6, &[(19.9, false), (20.0, false), (20.001, true)]);
        let credit = "metric = \"usd\"\namount = 0.000001\nreset = \"never\"\nexpires = 2026-10-20";
        check(credit, (5_399.9, 500_000), 2, &[(1e6, false)]);
    }

    #[test]
    fn the_live_margins_hold_charges_longer() {
        let check = |limit, sent, fit, later: &[(f64, bool)]| check(limit, Margins::LIVE, sent, fit, later);
        // A hundredth is kept; the rest leaves two seconds late, and then at the next 64th of the hour.
        let hour = "metric = \"tokens\"\nwindow = \"hour\"\namount = 10000";
        check(hour, (10.0, 1_000), 9, &[(3_650.0, false), (3_656.0, true)]);
        let day = "metric = \"requests\"\nwindow = \"day\"\namount = 3\nreset = \"calendar\"";
        check(day, (5_399.9, 1), 3, &[(5_400.1, false), (5_400.9, false)]);
        let credit = "metric = \"usd\"\namount = 0.000001\nreset = \"never\"\nexpires = 2026-10-20";
        check(credit, (5_397.1, 500_000), 0, &[]);
        check(credit, (5_396.9, 500_000), 2, &[]);
    }

    #[test]
    fn only_the_lag_may_differ() {
        let minute = "metric = \"tokens\"\nwindow = \"minute\"\namount = 500\nestimate = \"strict\"";
        for (seconds, back) in [(0_u32, 70.004), (2, 72.004), (7, 77.004)] {
            let margins = Margins { lag: Duration::from_secs(seconds.into()), ..Margins::LIVE };
            check(minute, margins, (10.0, 100), 5, &[(back - 0.01, false), (back, true)]);
        }
    }
}
