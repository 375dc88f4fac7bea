//! Rules for reading a provider's refusals. A status code alone misleads: the
//! same 429 means "in three seconds" at one provider and "never" at another.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One rule: if status and all conditions hold, this is what helps.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ErrorRule {
    /// What has happened, in one or two words.
    pub case: String,
    /// The statuses it is for; 200 is an answer that holds an error.
    pub status: Vec<u16>,
    /// Conditions on body and headers, all of which must hold.
    #[serde(default)]
    pub when: Vec<Match>,
    /// What helps.
    pub action: Action,
    /// Until when, for `cooldown` and `exhaust`: the first of these that is known.
    #[serde(default)]
    pub until: Vec<String>,
    /// What is paused; the smallest thing that explains the refusal, unless it says otherwise.
    pub pauses: Option<Pause>,
    /// Anything a reader should know.
    pub note: Option<String>,
    /// Ids of sources.
    #[serde(default)]
    pub src: Vec<String>,
    /// Refusals that this rule is for: what the tests hold against it, and what a simulated provider says.
    #[serde(default)]
    pub examples: Vec<Example>,
}

/// A refusal as a provider sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct Example {
    /// Its status, one of the rule's.
    pub status: u16,
    /// Headers that matter, in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Its body, letter for letter. Simulated providers put the model's name in the place of `{model}`.
    pub body: String,
    /// How the body was come by.
    pub origin: ExampleOrigin,
    /// The wait that must be read from it, such as `3.405s`, where there is one.
    pub wait: Option<String>,
    /// The limit that it says is used up, such as `requests/day`, where it names one.
    pub limit: Option<String>,
    /// Ids of sources.
    #[serde(default)]
    pub src: Vec<String>,
}

/// How the body of an example was come by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExampleOrigin {
    /// Somebody received it.
    Recorded,
    /// A page of the provider shows it.
    Documented,
    /// Put together from the fields and words that sources tell of; the rest of it is a guess.
    #[default]
    Composed,
}

/// A condition on a refusal. One of `field`, `header` and `text`, and how it compares.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Match {
    /// Path of a field in the JSON body, such as `error.code`; a list index is a number, `*` any.
    pub field: Option<String>,
    /// Name of a header.
    pub header: Option<String>,
    /// The field or header is one of these, letter for letter.
    #[serde(default)]
    pub is: Vec<String>,
    /// The field or header contains this; alone, the body's error message does.
    pub contains: Option<String>,
    /// The field or header is there.
    #[serde(default)]
    pub exists: bool,
}

/// What helps against a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The same again, shortly; then another target.
    RetrySame,
    /// Another target; this one pauses until the time given.
    Cooldown,
    /// Another target; the limit or credit is spent until the time given, and is not probed.
    Exhaust,
    /// Another key; this one is wrong or revoked.
    DisableKey,
    /// Another model; this one is not available to this account.
    DisableModel,
    /// Another provider; nothing here can work.
    DisableProvider,
    /// Another target, for this request only.
    Failover,
    /// Another target with a larger context or token window.
    FailoverLarger,
    /// Nothing: the request itself is refused, and the client is told.
    ReturnClient,
}

/// What a pause holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pause {
    /// One key.
    Key,
    /// One model of the account.
    Model,
    /// All models that share a pool with this one.
    Pool,
    /// The whole account.
    Account,
}
