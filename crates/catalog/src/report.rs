//! How to read what a provider says of its limits elsewhere than in headers: in refusals and at a quota endpoint; and
//! examples of all three.

use std::collections::BTreeMap;

use freeway_types::Metric;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limit::LimitScope;
use crate::refusal::{ExampleOrigin, Match};

/// One limit that a body tells of. Every row that fits is read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct BodyReport {
    /// The statuses of refusals it is for; all, unless it says otherwise.
    #[serde(default)]
    pub status: Vec<u16>,
    /// Path of the things in the body that each tell of one limit, such as `error.details.*`. The other paths then
    /// begin there.
    pub each: Option<String>,
    /// Conditions, all of which must hold.
    #[serde(default)]
    pub when: Vec<Match>,
    /// Words of the message, one of which must stand there. Figures are taken from the places of `{amount}`, `{used}`
    /// and `{left}`.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// The metric it speaks of.
    pub metric: Metric,
    /// The window it speaks of, in the words of a limit's `window`, or `never` for a credit.
    pub window: Option<String>,
    /// Path of the field with the limit's size.
    pub amount: Option<String>,
    /// Path of the field with what is left.
    pub left: Option<String>,
    /// Path of the field with what was used, where none says what is left.
    pub used: Option<String>,
    /// Path of the field with the time of its return.
    pub returns: Option<String>,
    /// What the limit belongs to.
    pub scope: Option<LimitScope>,
    /// Anything a reader should know.
    pub note: Option<String>,
    /// Ids of sources.
    #[serde(default)]
    pub src: Vec<String>,
}

/// An answer, a refusal or the answer of a quota endpoint, and what it says of limits.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct ReportExample {
    /// Its status; 200 unless it says otherwise.
    pub status: Option<u16>,
    /// Whether it is the answer of the quota endpoint.
    #[serde(default)]
    pub endpoint: bool,
    /// Headers that matter, in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Its body, letter for letter, where that matters.
    #[serde(default)]
    pub body: String,
    /// How it was come by.
    pub origin: ExampleOrigin,
    /// All that must be read from it, in this order.
    #[serde(default)]
    pub reports: Vec<ExpectedReport>,
    /// What it says that this request was charged.
    #[serde(default)]
    pub charged: Vec<ExpectedReport>,
    /// Whether it asks for fewer requests.
    #[serde(default)]
    pub slow_down: bool,
    /// Anything a reader should know.
    pub note: Option<String>,
    /// Ids of sources.
    #[serde(default)]
    pub src: Vec<String>,
}

/// What must be read from an example of one limit. What is left out must not be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExpectedReport {
    /// The metric.
    pub metric: Metric,
    /// The window, in the words of a limit's `window`, or `never`.
    pub window: Option<String>,
    /// The limit's size; whole units, or USD. With `charged`, what was charged.
    pub amount: Option<f64>,
    /// What is left of it.
    pub left: Option<f64>,
    /// Seconds until it returns.
    pub returns: Option<f64>,
    /// What the limit belongs to: `model` or `account`.
    pub scope: Option<LimitScope>,
}
