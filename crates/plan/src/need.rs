//! What is asked for.

use std::time::Duration;

use freeway_types::Timestamp;
use serde::Serialize;
use serde_json::json;

/// Most requests that are simulated: about as many as a minute can take.
const MOST_REQUESTS: u64 = 500_000;
/// The tier of what no other tier is given.
pub(crate) const REST: &str = "standard";
const DAY_S: u64 = 86_400;
const HOUR_S: u64 = 3_600;

/// What is asked for: requests of one size that come evenly, day and night, unless hours are told apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Need {
    /// How many requests come in one period.
    pub requests: u64,
    /// The period, in seconds.
    pub period_s: u64,
    /// Input tokens of each.
    pub input_tokens: u64,
    /// Output tokens of each: the most that its answer may have, and what it has.
    pub output_tokens: u64,
    /// Whether only the sum of both was given, so that the parts are an assumption.
    pub split_is_assumed: bool,
    /// Which part of the requests is of which tier; the parts add up to 1.
    pub tiers: Vec<TierShare>,
    /// The least quality that will do, from 1 to 5.
    pub min_quality: u8,
    /// The model or alias they ask for.
    pub model: String,
    /// Their data class, if it is not the configuration's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// How requests are spread over the hours of a day in UTC, by weights. Without it, evenly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_hour: Option<[u64; 24]>,
}

/// Which part of the requests is of a tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierShare {
    /// The tier's name.
    pub tier: String,
    /// The part, from 0 to 1.
    pub share: f64,
}

/// A need that cannot be planned for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeedError {
    /// A word or a figure that means nothing here.
    #[error("{0}")]
    Unclear(String),
    /// More requests than are simulated.
    #[error(
        "{requests} requests in {days} days are more than are simulated ({MOST_REQUESTS}); plan fewer days with --days{}",
        match days_that_fit { 0 => String::new(), days => format!(": {days} would do") }
    )]
    TooMany {
        /// How many there would be.
        requests: u64,
        /// In how many days.
        days: u32,
        /// How many days could be simulated.
        days_that_fit: u64,
    },
    /// The configuration does not have what is asked for.
    #[error("{0}")]
    NotThere(String),
}

impl Need {
    /// Requests that come in a length of time.
    #[must_use]
    pub fn count(&self, length: Duration) -> u64 {
        let count = u128::from(self.requests) * u128::from(length.as_secs());
        u64::try_from(count.div_ceil(u128::from(self.period_s.max(1)))).unwrap_or(u64::MAX)
    }

    /// The requests of so many days from `start` as lines of a workload. They come at even distances from the start on, or
    /// of each hour; tiers take turns by their shares, so that each stretch of time has about its part of each.
    ///
    /// # Errors
    /// When there are too many.
    pub(crate) fn lines(&self, start: Timestamp, days: u32) -> Result<String, NeedError> {
        let requests = self.count(Duration::from_secs(u64::from(days) * DAY_S));
        if requests > MOST_REQUESTS {
            let a_day = self.count(Duration::from_secs(DAY_S)).max(1);
            return Err(NeedError::TooMany { requests, days, days_that_fit: MOST_REQUESTS / a_day });
        }
        let mut owed = vec![0.0; self.tiers.len()];
        let mut text = String::new();
        for number in 0..requests {
            for (owed, tier) in owed.iter_mut().zip(&self.tiers) {
                *owed += tier.share;
            }
            let behind = |place: &usize| owed[*place];
            let next = (0..owed.len()).max_by(|one, other| {
                // Of two that are as much behind, the first one's turn it is.
                behind(one).total_cmp(&behind(other)).then(other.cmp(one))
            });
            let Some(next) = next else { break };
            owed[next] -= 1.0;
            text.push_str(&self.line(&self.tiers[next].tier, self.at(start, number)));
        }
        Ok(text)
    }

    /// One request of each tier, in their order, to ask who would take it.
    pub(crate) fn samples(&self) -> String {
        self.tiers.iter().map(|tier| self.line(&tier.tier, 0.0)).collect()
    }

    /// When a request comes, in seconds from the start.
    #[expect(clippy::cast_precision_loss, reason = "seconds of a few months")]
    fn at(&self, start: Timestamp, number: u64) -> f64 {
        match &self.by_hour {
            None => number as f64 * self.period_s as f64 / self.requests.max(1) as f64,
            Some(weights) => {
                let a_day = self.count(Duration::from_secs(DAY_S)).max(1);
                let part = (number % a_day) as f64 / a_day as f64;
                (number / a_day * DAY_S) as f64 + into_the_day(start, weights, part)
            }
        }
    }

    fn line(&self, tier: &str, at: f64) -> String {
        let mut line = json!({
            "at": at, "tier": tier, "min_quality": self.min_quality, "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens, "wait": 0, "model": self.model,
        });
        if let Some(data) = &self.data {
            line["data"] = json!(data);
        }
        format!("{line}\n")
    }
}

/// After how many seconds such a part of a day's requests has come, of a day that begins at `start`.
#[expect(clippy::cast_precision_loss, reason = "seconds of a day")]
fn into_the_day(start: Timestamp, weights: &[u64; 24], part: f64) -> f64 {
    let begun = start.as_secs().rem_euclid(86_400).unsigned_abs();
    let mut owed = part * (weights.iter().sum::<u64>() * HOUR_S) as f64;
    let mut at = begun;
    // The hour that is under way at the start comes twice: its rest first, and its beginning at the end.
    while at < begun + DAY_S {
        let end = ((at / HOUR_S + 1) * HOUR_S).min(begun + DAY_S);
        let weight = weights[usize::try_from(at / HOUR_S % 24).unwrap_or(0)] as f64;
        let held = weight * (end - at) as f64;
        if owed < held {
            return (at - begun) as f64 + owed / weight;
        }
        owed -= held;
        at = end;
    }
    DAY_S as f64 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_the_hours_that_are_said() {
        // Three parts in the hour from 9, one in that from 12; a plan that begins at 9:30 has half of the nine o'clock
        // hour first and half at the end of its day.
        let mut weights = [0; 24];
        (weights[9], weights[12]) = (3, 1);
        let check = |start: &str, part: f64, minutes: f64| {
            let came = into_the_day(Timestamp::parse(start).unwrap(), &weights, part) / 60.0;
            assert!((came - minutes).abs() < 1e-6, "{start}, {part}: {came}");
        };
        let midnight = "2026-12-01T00:00:00Z";
        check(midnight, 0.0, 9.0 * 60.0);
        check(midnight, 0.25, 9.0 * 60.0 + 20.0);
        check(midnight, 0.75, 12.0 * 60.0);
        check(midnight, 0.875, 12.0 * 60.0 + 30.0);
        // 3 / 8 of all come in the half hour up to 10:00, a quarter from 12:00 to 13:00, the rest from 9:00 to 9:30.
        let late = "2026-12-01T09:30:00Z";
        check(late, 0.0, 0.0);
        check(late, 0.375, 150.0);
        check(late, 0.625, 23.5 * 60.0);
        check(late, 0.8125, 23.5 * 60.0 + 15.0);
    }
}
