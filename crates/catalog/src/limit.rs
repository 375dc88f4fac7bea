//! The language in which limits are written, and what headers say of them.

use freeway_types::Metric;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::facts::Confidence;

/// One limit as it is written in a file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Limit {
    /// What is counted.
    pub metric: Metric,
    /// Over which time: `second`, `minute`, `hour`, `day`, `week`, `month`, or a length such as
    /// `10s`, `15m`, `5h`. Concurrency has none.
    pub window: Option<String>,
    /// How much is allowed; whole units, or USD. Left out where a limit exists and nobody knows its size.
    pub amount: Option<f64>,
    /// How it comes back; `rolling` unless it says otherwise.
    pub reset: Option<Reset>,
    /// The zone of a `calendar` reset, such as `America/Los_Angeles`; UTC unless it says otherwise.
    pub zone: Option<String>,
    /// Name of a counter shared by all rows of the account that name it; with a leading `/`, by all accounts.
    pub pool: Option<String>,
    /// What the counter belongs to. A model's row counts per model and account, a provider's per account.
    pub scope: Option<LimitScope>,
    /// Which attempts count; for requests all, unless it says otherwise.
    pub counts: Option<Counts>,
    /// What is charged for tokens: what was asked for until the use is known (default), or to the end.
    pub charges: Option<Charges>,
    /// How tokens are estimated before they are known.
    pub estimate: Option<Estimate>,
    /// The day a `never` limit (a credit) lapses. Credits of one metric that a model has for the same (account or
    /// model, `pool` and `models`) and that lapse on different days are spent as one, the first to lapse first.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    pub expires: Option<toml::value::Datetime>,
    /// The day a `never` limit began, for `expires_days`.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    pub since: Option<toml::value::Datetime>,
    /// Days after `since` on which a `never` limit lapses.
    pub expires_days: Option<u32>,
    /// The plans it holds for; all, unless it says otherwise.
    #[serde(default)]
    pub plans: Vec<String>,
    /// Models of a provider's row, if it does not hold for all of them. A trailing `*` stands for any ending.
    #[serde(default)]
    pub models: Vec<String>,
    /// How far this row can be trusted, if less than the file.
    pub confidence: Option<Confidence>,
    /// What other sources say, where they disagree. The row itself is the reading that is safe.
    pub disputed: Option<String>,
    /// Anything a user should know.
    pub note: Option<String>,
    /// Ids of sources.
    #[serde(default)]
    pub src: Vec<String>,
    /// Whether it is the user's own word, from the configuration: then nothing that a provider says can loosen it.
    #[serde(skip)]
    pub own: bool,
}

impl Limit {
    /// Whether it holds for a model, by its `models`.
    #[must_use]
    pub fn is_for(&self, model: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => model.starts_with(start),
            None => pattern == model,
        };
        self.models.is_empty() || self.models.iter().any(matches)
    }
}

/// How a limit comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reset {
    /// Each use comes back one window after it was counted.
    #[default]
    Rolling,
    /// A store of `amount`, refilled evenly by `amount` per window.
    Bucket,
    /// All at once at a civil boundary; windows shorter than a day at multiples since 1970.
    Calendar,
    /// All at once, one window after the first use.
    Anchored,
    /// Not at all.
    Never,
    /// Nobody knows: counted as rolling, and after a refusal a whole window is waited.
    Unknown,
}

/// What a counter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LimitScope {
    /// The account, whatever the model.
    Account,
    /// Each model of the account on its own.
    Model,
    /// Each key. Counted for the whole account, which is safe, and exact with one key.
    Key,
    /// The address that requests come from. Counted for the account, which is exact while nobody else uses the address.
    Ip,
}

/// Which attempts a limit counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// Every attempt, refused ones too.
    #[default]
    All,
    /// Only attempts that were answered.
    Successes,
}

/// What is charged for tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Charges {
    /// What was asked for while in flight, then what was used.
    #[default]
    Used,
    /// What was asked for, to the end.
    Requested,
}

/// How tokens are estimated before they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Estimate {
    /// From what such requests used before.
    #[default]
    Calibrated,
    /// The most that it can be.
    Strict,
}

/// What one rate-limit header means.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct RateHeader {
    /// The header's name, in lower case.
    pub name: String,
    /// What it says.
    pub says: RateHeaderSays,
    /// The metric it speaks of.
    pub metric: Metric,
    /// The window it speaks of, in the words of a limit's `window`.
    pub window: Option<String>,
    /// What the limit belongs to, where that is known.
    pub scope: Option<LimitScope>,
    /// How a reset is written.
    pub format: Option<RateHeaderFormat>,
    /// Whether it is sent with refusals only.
    #[serde(default)]
    pub on_refusal_only: bool,
}

/// What a rate-limit header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RateHeaderSays {
    /// The size of the limit.
    Limit,
    /// What is left of it.
    Remaining,
    /// When it comes back.
    Reset,
    /// What this request was charged.
    Cost,
    /// That the next requests should come more slowly, by the value `yes`; it comes with answers that succeed.
    SlowDown,
}

/// How a reset is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RateHeaderFormat {
    /// `2m59.56s`.
    Duration,
    /// Seconds from now, perhaps with a fraction.
    Seconds,
    /// Milliseconds since 1970.
    EpochMs,
    /// `2025-08-21T12:40:59Z`.
    Rfc3339,
}
