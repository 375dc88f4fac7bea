//! One limit, read from its written form into one that can be counted.

use std::time::Duration;

use freeway_catalog::{Charges, Confidence, Counts, Estimate, Limit, Reset, window_seconds};
use freeway_types::{Metric, Timestamp};
use jiff::tz::TimeZone;

use crate::civil::longest;
use crate::report::{Report, ReportWindow};

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
    /// Whether it is the user's own word: then nothing that a provider says can loosen it.
    pub own: bool,
    /// Whether nobody declared it: a provider's answers have shown it.
    pub undeclared: bool,
    /// Whether answers have shown that it does not come back when it is documented to: then it is counted as one that
    /// slides.
    pub moved: bool,
    /// Whether it belongs to one model rather than to the account.
    pub of_model: bool,
    /// How far the fact can be trusted.
    pub confidence: Option<Confidence>,
    /// The day that the fact is of, if it is one of a provider's and that is known.
    pub as_of: Option<Timestamp>,
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
    /// Not at all: credits, spent as one, in the order in which they lapse.
    Never(Vec<Grant>),
    /// When the request ends.
    Concurrency,
}

/// A credit that does not come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its size in units, tokens or picodollars. `None`: nobody knows; such a credit stands alone.
    pub amount: Option<u64>,
    /// When its rest is gone.
    pub expires: Option<Timestamp>,
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

const AN_HOUR: Duration = Duration::from_secs(3_600);
const A_DAY: Duration = Duration::from_secs(86_400);

/// A length as it must be waited out here to have passed at the provider, too: one part in 20,000 more, which is as
/// much as two clocks of quartz drift apart.
pub(crate) fn with_drift(length: Duration) -> Duration {
    length.saturating_add(length / 20_000)
}

impl Grant {
    /// What it is called as part of the limit of a name.
    #[must_use]
    pub fn name(&self, limit: &str) -> String {
        match self.expires {
            Some(end) => format!(
                "{limit}, until {}",
                end.before(Duration::from_secs(1)).to_rfc3339().split('T').next().unwrap_or_default()
            ),
            None => limit.to_owned(),
        }
    }

    /// Whether it can be charged at an instant.
    pub(crate) fn is_live(&self, at: Timestamp) -> bool {
        self.expires.is_none_or(|end| end > at)
    }
}

impl LimitSpec {
    /// Reads a limit from its written form. `owner` names what it counts for, such as `groq/llama`. The date of the
    /// file in which it stands is for the caller to add.
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
            own: limit.own,
            undeclared: false,
            moved: false,
            of_model: limit.pool.is_none() && owner.contains('/'),
            confidence: limit.confidence,
            as_of: None,
        })
    }

    /// Whether a report can speak of this limit, by what it counts and over which time.
    #[must_use]
    pub fn is_spoken_of(&self, report: &Report) -> bool {
        let same_window = match (report.window, &self.rule) {
            (ReportWindow::Unknown, _) => true,
            (ReportWindow::Never, rule) => matches!(rule, Rule::Never(_)),
            (ReportWindow::Length(length), _) => self.nominal().is_some_and(|nominal| nominal == length),
        };
        self.metric == report.metric && self.metric != Metric::Concurrency && same_window
    }

    /// The length of its window in the words of reports: a day as 24 hours, a month as 31 days.
    pub(crate) fn nominal(&self) -> Option<Duration> {
        match &self.rule {
            Rule::Rolling(length) if self.moved && *length > A_DAY => Some(*length - AN_HOUR),
            Rule::Rolling(length) | Rule::Bucket(length) | Rule::Calendar(Civil::Multiple(length), _) => Some(*length),
            Rule::Calendar(Civil::Day, _) => Some(Duration::from_secs(86_400)),
            Rule::Calendar(Civil::Week, _) => Some(Duration::from_secs(7 * 86_400)),
            Rule::Calendar(Civil::Month, _) => Some(Duration::from_secs(31 * 86_400)),
            Rule::Never(_) | Rule::Concurrency => None,
        }
    }

    /// The same limit as it is counted where its boundary has moved nobody knows where to: a log that slides over the
    /// longest window there is, which a change of clocks makes an hour longer.
    pub(crate) fn slid(&self) -> Self {
        let length = self.nominal().unwrap_or(A_DAY);
        let length = if length >= A_DAY { length + AN_HOUR } else { length };
        Self { rule: Rule::Rolling(length), moved: true, ..self.clone() }
    }

    /// Whether two limits count alike, whatever their amounts.
    #[must_use]
    pub fn counts_like(&self, other: &Self) -> bool {
        let same_rule = match (&self.rule, &other.rule) {
            (Rule::Rolling(one), Rule::Rolling(two)) | (Rule::Bucket(one), Rule::Bucket(two)) => one == two,
            (Rule::Calendar(one, here), Rule::Calendar(two, there)) => one == two && here == there,
            (Rule::Never(one), Rule::Never(two)) => {
                one.iter().map(|grant| grant.expires).eq(two.iter().map(|grant| grant.expires))
            }
            (Rule::Concurrency, Rule::Concurrency) => true,
            _ => false,
        };
        same_rule && self.charging == other.charging
    }

    /// Joins a credit to this one, so that both are spent as one: what lapses first is charged first. Credits belong
    /// together if they count the same in the same way for the same; their amounts must be known.
    ///
    /// Gives `None` if they do not belong together, and otherwise whether they agree: two credits that lapse together
    /// are one and the same, and must be of one size.
    pub fn join(&mut self, other: &Self) -> Option<bool> {
        let belongs = self.name == other.name
            && self.charging == other.charging
            && self.amount.is_some()
            && other.amount.is_some();
        let (Rule::Never(grants), Rule::Never(more)) = (&mut self.rule, &other.rule) else { return None };
        if !belongs {
            return None;
        }
        for grant in more {
            match grants.iter().find(|known| known.expires == grant.expires) {
                Some(known) if known != grant => return Some(false),
                Some(_) => {}
                None => grants.push(*grant),
            }
        }
        grants.sort_by_key(|grant| (grant.expires.is_none(), grant.expires));
        self.amount = grants.iter().map(|grant| grant.amount).try_fold(0_u64, |sum, one| sum.checked_add(one?));
        Some(true)
    }

    /// Whether two limits that [count alike](Self::counts_like) are of one size, credit by credit.
    #[must_use]
    pub fn is_as_large_as(&self, other: &Self) -> bool {
        self.amount == other.amount
            && match (&self.rule, &other.rule) {
                (Rule::Never(one), Rule::Never(two)) => one == two,
                _ => true,
            }
    }

    /// The length after which a charge is sure to be back, for windows that have one: of civil windows, one that none
    /// exceeds however the clocks are put forward or back.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        match &self.rule {
            Rule::Rolling(window) | Rule::Bucket(window) => Some(with_drift(*window)),
            Rule::Calendar(civil, _) => Some(longest(*civil)),
            Rule::Never(_) | Rule::Concurrency => None,
        }
    }
}

fn rule(limit: &Limit, reset: Reset) -> Result<Rule, SpecError> {
    if reset == Reset::Never {
        let amount = limit.amount.map(|amount| units(limit.metric, amount));
        return Ok(Rule::Never(vec![Grant { amount, expires: expiry(limit) }]));
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
