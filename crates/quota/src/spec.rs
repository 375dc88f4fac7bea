//! One limit, read from its written form into one that can be counted.

use std::time::Duration;

use freeway_catalog::{Charges, Counts, Estimate, Limit, Reset, window_seconds};
use freeway_types::{Metric, Timestamp};
use jiff::tz::TimeZone;

/// One limit, ready to be counted.
#[derive(Clone, Debug)]
pub struct LimitSpec {
    /// What it is called wherever it is shown, and what its count is remembered by.
    pub name: String,
    /// What is counted.
    pub metric: Metric,
    /// How much is allowed: units, tokens, or picodollars. `None`: a limit whose size nobody knows.
    pub amount: Option<u64>,
    /// How it comes back.
    pub rule: Rule,
    /// What is charged, and when.
    pub charging: Charging,
    /// The window as it was written, for showing.
    pub window: String,
    /// Whether the kind of reset was only assumed.
    pub reset_unknown: bool,
}

/// What is charged, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charging {
    /// Which attempts count.
    pub counts: Counts,
    /// Whether tokens asked for stay charged.
    pub charges: Charges,
    /// How tokens are estimated.
    pub estimate: Estimate,
}

/// How a limit comes back.
#[derive(Clone, Debug)]
pub enum Rule {
    /// Each charge one window after it was counted. Also stands for anchored and unknown resets:
    /// a log that slides covers every fixed window of its length, whatever its phase.
    Rolling(Duration),
    /// A store refilled evenly by its whole amount per window.
    Bucket(Duration),
    /// All at once at a civil boundary.
    Calendar(Civil, TimeZone),
    /// Not at all; the rest lapses at the given instant.
    Never(Option<Timestamp>),
    /// When the request ends.
    Concurrency,
}

/// A civil window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Civil {
    /// Multiples of a length since 1970, for windows shorter than a day.
    Multiple(Duration),
    /// From midnight to midnight.
    Day,
    /// From Monday's midnight to Monday's midnight.
    Week,
    /// From the first to the first.
    Month,
}

/// Why a limit cannot be counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The window is not one.
    #[error("`{0}` is not a window")]
    Window(String),
    /// The zone is not one.
    #[error("`{0}` is not a time zone")]
    Zone(String),
}

const DAY: Duration = Duration::from_secs(86_400);

impl LimitSpec {
    /// Reads a limit from its written form. `owner` names what it counts for, such as `groq/llama`.
    ///
    /// # Errors
    /// When window or zone are not what the catalogue's checks let pass.
    pub fn read(owner: &str, limit: &Limit) -> Result<Self, SpecError> {
        let reset = limit.reset.unwrap_or_default();
        let rule = if limit.metric == Metric::Concurrency { Rule::Concurrency } else { rule(limit, reset)? };
        let window = limit.window.clone().unwrap_or_else(|| match rule {
            Rule::Concurrency => "in flight".to_owned(),
            _ => "ever".to_owned(),
        });
        let pool = limit.pool.as_ref().map(|pool| format!(" ({pool})")).unwrap_or_default();
        Ok(Self {
            name: format!("{owner}{pool} {} per {window}", limit.metric),
            metric: limit.metric,
            amount: limit.amount.map(|amount| units(limit.metric, amount)),
            rule,
            charging: Charging {
                counts: limit.counts.unwrap_or_default(),
                charges: limit.charges.unwrap_or_default(),
                estimate: limit.estimate.unwrap_or_default(),
            },
            window,
            reset_unknown: reset == Reset::Unknown,
        })
    }

    /// Whether two limits count alike, whatever their amounts.
    #[must_use]
    pub fn counts_like(&self, other: &Self) -> bool {
        let same_rule = match (&self.rule, &other.rule) {
            (Rule::Rolling(one), Rule::Rolling(two)) | (Rule::Bucket(one), Rule::Bucket(two)) => one == two,
            (Rule::Calendar(one, here), Rule::Calendar(two, there)) => one == two && here == there,
            (Rule::Never(one), Rule::Never(two)) => one == two,
            (Rule::Concurrency, Rule::Concurrency) => true,
            _ => false,
        };
        same_rule && self.charging == other.charging
    }

    /// The length after which a charge is sure to be back, for windows that have one.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        match &self.rule {
            Rule::Rolling(window) | Rule::Bucket(window) => Some(*window),
            Rule::Calendar(Civil::Multiple(length), _) => Some(*length),
            Rule::Calendar(Civil::Day, _) => Some(DAY),
            Rule::Calendar(Civil::Week, _) => Some(7 * DAY),
            Rule::Calendar(Civil::Month, _) => Some(31 * DAY),
            Rule::Never(_) | Rule::Concurrency => None,
        }
    }
}

fn rule(limit: &Limit, reset: Reset) -> Result<Rule, SpecError> {
    if reset == Reset::Never {
        return Ok(Rule::Never(expiry(limit)));
    }
    let text = limit.window.as_deref().unwrap_or_default();
    let length = window_seconds(text).map(Duration::from_secs).ok_or_else(|| SpecError::Window(text.to_owned()))?;
    Ok(match reset {
        Reset::Bucket => Rule::Bucket(length),
        Reset::Calendar => {
            let civil = match text {
                "day" => Civil::Day,
                "week" => Civil::Week,
                "month" => Civil::Month,
                _ => Civil::Multiple(length),
            };
            let zone = limit.zone.as_deref().unwrap_or("UTC");
            Rule::Calendar(civil, TimeZone::get(zone).map_err(|_| SpecError::Zone(zone.to_owned()))?)
        }
        Reset::Rolling | Reset::Anchored | Reset::Unknown | Reset::Never => Rule::Rolling(length),
    })
}

/// When a credit lapses: at the end of its last day, UTC.
fn expiry(limit: &Limit) -> Option<Timestamp> {
    let last: jiff::civil::Date = match (&limit.expires, &limit.since, limit.expires_days) {
        (Some(day), _, _) => day.to_string().get(..10)?.parse().ok()?,
        (None, Some(day), Some(days)) => {
            let first: jiff::civil::Date = day.to_string().get(..10)?.parse().ok()?;
            first.checked_add(jiff::Span::new().days(i64::from(days))).ok()?
        }
        _ => return None,
    };
    let end = last.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(Timestamp::from_secs(end.timestamp().as_second()))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the catalogue's checks keep amounts whole, positive and below 10^15"
)]
fn units(metric: Metric, amount: f64) -> u64 {
    if metric == Metric::Usd { (amount * 1e12).round() as u64 } else { amount.round() as u64 }
}
