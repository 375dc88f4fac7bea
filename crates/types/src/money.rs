//! Money as integers. One unit is a picodollar (10⁻¹² USD), so that a price of
//! one microdollar per million tokens is exactly one unit per token and a bill
//! never rounds.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// An amount of money in picodollars. Holds up to nine million dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usd(i64);

/// What one token costs, in picodollars; equally, microdollars per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price(u64);

// === impl Usd ===

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount in picodollars.
    #[must_use]
    pub const fn from_picos(picos: i64) -> Self {
        Self(picos)
    }

    /// The amount in picodollars.
    #[must_use]
    pub const fn as_picos(self) -> i64 {
        self.0
    }

    /// The amount in dollars, for showing only: never calculate with it.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown to people; the integer is the record")]
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / 1e12
    }
}

impl Add for Usd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${:.6}", self.as_dollars())
    }
}

// === impl Price ===

impl Price {
    /// Free of charge.
    pub const ZERO: Self = Self(0);

    /// A price as providers print it: USD per million tokens. `None` for a
    /// negative or absurd one (above 1,000 USD per million, where a price per
    /// token has been typed by mistake).
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked in the line above the cast"
    )]
    pub fn from_usd_per_mtok(usd: f64) -> Option<Self> {
        (0.0..=1000.0).contains(&usd).then(|| Self((usd * 1e6).round() as u64))
    }

    /// A rate in a provider's own units per million tokens; a bill is then in millionths of millionths of a unit.
    /// `None` for a negative or absurd one.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked in the line above the cast"
    )]
    pub fn from_units_per_mtok(units: f64) -> Option<Self> {
        (0.0..=1e9).contains(&units).then(|| Self((units * 1e6).round() as u64))
    }

    /// Microdollars per million tokens.
    #[must_use]
    pub const fn as_micros_per_mtok(self) -> u64 {
        self.0
    }

    /// What `tokens` tokens cost.
    #[must_use]
    pub fn times(self, tokens: u64) -> Usd {
        Usd(i64::try_from(self.0.saturating_mul(tokens)).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_exact() {
        let input = Price::from_usd_per_mtok(0.0375).unwrap();
        assert_eq!(input.times(1), Usd::from_picos(37_500));
        assert_eq!(input.times(1_000_000), Usd::from_picos(37_500_000_000));
        assert_eq!(Price::from_usd_per_mtok(2.0).unwrap().times(3).to_string(), "$0.000006");
    }

    #[test]
    fn a_price_per_token_typed_as_per_million_is_refused() {
        assert_eq!(Price::from_usd_per_mtok(-0.1), None);
        assert_eq!(Price::from_usd_per_mtok(1000.1), None);
        assert_eq!(Price::from_usd_per_mtok(f64::NAN), None);
        assert_eq!(Price::from_usd_per_mtok(0.0), Some(Price::ZERO));
    }
}
