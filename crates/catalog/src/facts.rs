//! The schema of one provider file.

use std::collections::BTreeMap;

use freeway_dialect::Dialect;
use freeway_types::{CostClass, Feature, Quality};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limit::{Limit, RateHeader};
use crate::refusal::ErrorRule;
use crate::report::{BodyReport, ReportExample};

/// Days after which facts are shown as stale.
pub const STALE_DAYS: i64 = 60;

/// Everything known of one provider.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Provider {
    /// The provider's name as people write it.
    pub name: Option<String>,
    /// What kind of provider it is.
    pub kind: Option<Kind>,
    /// Whether it can be used; anything but `active` switches it off, with `status_note` as the reason.
    pub status: Option<Status>,
    /// Why it is not active, in one sentence.
    pub status_note: Option<String>,
    /// What it gives away and the catches, in a sentence or two.
    pub summary: Option<String>,
    /// Newest date of a source that confirms the core of this file.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    pub as_of: Option<toml::value::Datetime>,
    /// How far the facts of the free offer can be trusted.
    pub confidence: Option<Confidence>,
    /// Where to sign up.
    pub signup: Option<String>,
    /// What kind of thing is given away.
    pub offer: Option<Offer>,
    /// What is asked of who signs up, and what the account may be used for.
    pub terms: Option<Terms>,

    /// Root of the interface, such as `https://api.example.com/v1`. A name in braces stands for one of `variables`.
    pub base_url: Option<String>,
    /// Parts of `base_url` that differ from account to account: a value, or `env:NAME`.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Other interfaces of the same account, for people to know of. None is called yet.
    #[serde(default)]
    pub other_endpoints: Vec<OtherEndpoint>,
    /// Where the list of models is, after the base URL.
    pub models_path: Option<String>,
    /// Where what is left can be asked for; a whole address, or a path after the base URL. Only asked at the same origin,
    /// and only if `quota_reports` say what the answer means.
    pub quota_path: Option<String>,
    /// The wire format spoken there.
    pub dialect: Option<Dialect>,
    /// How the key is sent; a bearer token unless it says otherwise.
    pub auth: Option<Auth>,
    /// Names of environment variables in which people keep the key, most usual first.
    #[serde(default)]
    pub env: Vec<String>,
    /// Headers that every request to this provider needs besides the key.
    #[serde(default)]
    pub request_headers: BTreeMap<String, String>,
    /// Request fields that this provider is known not to take.
    #[serde(default)]
    pub unsupported: Vec<String>,
    /// What becomes of a request with one of them.
    pub unsupported_effect: Option<UnsupportedEffect>,
    /// Request fields that go by another name here: the usual name, and the provider's.
    #[serde(default)]
    pub renamed: BTreeMap<String, String>,
    /// How the usage of a streamed answer is had.
    pub stream_usage: Option<StreamUsage>,
    /// How an answer that has begun is handed over, for a model to go on from it. Which models do so, their `features`
    /// say.
    pub prefill: Option<Prefill>,

    /// What the provider does with what it is sent, whatever the plan.
    pub data: Option<DataPolicy>,
    /// The plans an account can be on, by name.
    #[serde(default)]
    pub plans: BTreeMap<String, Plan>,
    /// Limits of the whole account.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Limits that are there and cannot be counted, in words.
    #[serde(default)]
    pub uncounted_limits: Vec<String>,
    /// The models that are known; others can be called by name.
    #[serde(default)]
    pub models: Vec<Model>,

    /// How refusals are to be read. Rules with conditions go before rules without.
    #[serde(default)]
    pub errors: Vec<ErrorRule>,
    /// What rate-limit headers mean here.
    #[serde(default)]
    pub headers: Vec<RateHeader>,
    /// Prefixes under which headers of a provider behind this one are passed on, such as `llm_provider-`. Where an
    /// answer lacks a header, it is looked for under each of them.
    #[serde(default)]
    pub header_prefixes: Vec<String>,
    /// What refusals say in their bodies of the limit that is used up.
    #[serde(default)]
    pub refusal_reports: Vec<BodyReport>,
    /// What the answer at `quota_path` says of limits.
    #[serde(default)]
    pub quota_reports: Vec<BodyReport>,
    /// Answers that tell of limits, and what must be read from them: what the tests hold against `headers`,
    /// `refusal_reports` and `quota_reports`.
    #[serde(default)]
    pub report_examples: Vec<ReportExample>,

    /// Where the facts come from.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// Where sources disagree, and what is assumed.
    #[serde(default)]
    pub disputes: Vec<Dispute>,
}

/// What kind of provider it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Makes models and serves them.
    Lab,
    /// Serves models that others made.
    Host,
    /// Passes requests on to several hosts.
    Aggregator,
    /// Another gateway.
    Gateway,
    /// A server on the user's own machine or network.
    Local,
}

/// What kind of thing is given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Offer {
    /// Quota that comes back.
    Recurring,
    /// Money that comes back.
    RecurringCredit,
    /// Money or tokens once, which may lapse.
    TrialCredit,
    /// Something for whoever comes, without a key.
    Anonymous,
    /// A gift that may end any day.
    Promotion,
    /// Tokens each day in exchange for what is sent.
    DataSharing,
    /// Nothing.
    None,
    /// It was, and is no more.
    Ended,
    /// The user's own machine, or one that the user runs.
    SelfHosted,
    /// A gateway's own plan: it passes requests on, and has no models of its own.
    GatewayPlan,
    /// Sources disagree.
    Disputed,
    /// Nobody knows.
    Unknown,
}

/// What is asked of who signs up, and what the account may be used for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Terms {
    /// Whether a payment card is asked for.
    pub card: Option<Asked>,
    /// Whether a telephone number is.
    pub phone: Option<Asked>,
    /// Whether proof of identity is.
    pub identity: Option<Asked>,
    /// Whether it works without any account.
    pub anonymous: Option<bool>,
    /// Whether past the free amount it bills without asking.
    pub bills_unasked: Option<bool>,
    /// Where in the world it can be had.
    pub regions: Option<String>,
    /// Whether the free offer may be used in production.
    pub production: Option<Allowed>,
    /// Whether it may be used for commercial work.
    pub commercial: Option<Allowed>,
    /// Whether requests may come through a gateway. `no` switches the provider off until `enabled = true`.
    pub gateways: Option<Allowed>,
    /// The terms in a sentence or two.
    pub note: Option<String>,
    /// Ids of sources.
    #[serde(default)]
    pub src: Vec<String>,
}

/// Whether something is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// No.
    No,
    /// Yes.
    Yes,
    /// Of some, or for part of the offer.
    Sometimes,
    /// Nobody knows, or sources disagree.
    Unknown,
}

/// Whether something is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Allowed {
    /// Yes.
    Yes,
    /// No.
    No,
    /// Within limits that `note` tells.
    Limited,
    /// Nobody knows, or sources disagree.
    Unknown,
}

/// Another interface of the same account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct OtherEndpoint {
    /// Its wire format, in the provider's or the field's words.
    pub dialect: String,
    /// Its root.
    pub base_url: String,
    /// What is different there.
    pub note: Option<String>,
}

/// What becomes of a request with a field that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnsupportedEffect {
    /// It is refused.
    Refused,
    /// The field has no effect, and nobody is told.
    Ignored,
    /// Some are refused and some ignored.
    Mixed,
    /// Nobody knows.
    Unknown,
}

/// Whether a provider or a model can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Can be used.
    Active,
    /// Gone.
    Retired,
    /// There, but not for a gateway like this one.
    Restricted,
}

/// How far a fact can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Confirmed by the provider or by measurement.
    High,
    /// Plausible, partly confirmed.
    Medium,
    /// Disputed or old.
    Low,
}

/// How a key is sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct Auth {
    /// The way it is sent.
    pub scheme: AuthScheme,
    /// The header's name, for `scheme = "header"`.
    pub header: Option<String>,
}

/// The way a key is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuthScheme {
    /// `authorization: Bearer KEY`.
    Bearer,
    /// The bare key in a header of the provider's own.
    Header,
    /// No key; one that is configured is sent as a bearer token.
    None,
}

/// How the usage of a streamed answer is had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StreamUsage {
    /// On request, by `stream_options.include_usage`.
    #[default]
    Option,
    /// Always there; asking for it may be refused.
    Always,
    /// Never there.
    Never,
}

/// How an answer that has begun, an assistant's message at the end, is handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct Prefill {
    /// The field that has to be `true` in that message. Without it, the message is sent as any other.
    pub mark: Option<String>,
    /// Whether the answer repeats that message before it goes on; it does not unless it says otherwise.
    #[serde(default)]
    pub repeats: bool,
}

/// A plan that an account can be on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Plan {
    /// What it is, in one sentence.
    pub summary: Option<String>,
    /// `free` if nothing on this plan is ever charged; else prices decide.
    pub cost: Option<CostClass>,
    /// What the provider does with what this plan sends.
    pub data: Option<DataPolicy>,
}

/// What a provider does with what it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct DataPolicy {
    /// Whether it trains on it: the short form, for the user's own word.
    pub trains: Option<Trains>,
    /// Whether it trains on it, as the catalogue's facts tell it.
    pub train_class: Option<TrainClass>,
    /// Days until it is deleted; 0 means that it is not kept.
    pub retention_days: Option<u32>,
    /// Whether an independent audit confirms that it is not kept.
    pub audited: Option<bool>,
    /// How training is switched off, where it can be.
    pub opt_out: Option<String>,
    /// The facts in a sentence.
    pub note: Option<String>,
    /// When the policy was read, if that differs from the file's `as_of`.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    pub as_of: Option<toml::value::Datetime>,
    /// Ids of sources.
    #[serde(default)]
    pub src: Vec<String>,
}

/// Whether a provider trains on what it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trains {
    /// It does not.
    No,
    /// Nobody knows; counts as the worst.
    #[default]
    Unknown,
    /// It does.
    Yes,
}

/// Whether a provider trains on what it is sent, in the finer words of the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrainClass {
    /// The provider says that it does not.
    No,
    /// The provider says that content is not stored.
    NoStore,
    /// It does, with no way out.
    Trains,
    /// It does unless a switch is turned.
    TrainsOptOut,
    /// The default is not clear; a switch exists.
    OptOutAvailable,
    /// Depends on the host behind.
    Upstream,
    /// The provider's own pages disagree.
    Conflict,
    /// No source says anything.
    Unknown,
    /// Nothing leaves the user's machines.
    Local,
}

/// What a model does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Modality {
    /// Answers messages.
    #[default]
    Chat,
    /// Turns text into numbers.
    Embedding,
    /// Orders documents by a query.
    Rerank,
    /// Turns speech into text.
    Transcription,
    /// Labels text; not a chat model even where it answers like one.
    Classifier,
}

/// One model at this provider.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Model {
    /// The id that goes on the wire.
    pub id: String,
    /// Other ids for the same model and the same limits.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What it does; chat unless it says otherwise.
    #[serde(default)]
    pub modality: Modality,
    /// Why it cannot be used, if it cannot.
    pub off: Option<String>,
    /// Whether the free offer covers it; true unless it says otherwise.
    pub free: Option<bool>,
    /// How good it is, 1 (small) to 5 (frontier); unknown counts as 1.
    pub quality: Option<Quality>,
    /// What the quality rests on.
    pub quality_note: Option<String>,
    /// Input and output tokens that fit together.
    pub context: Option<u64>,
    /// The same on the free plan, where that is less.
    pub free_context: Option<u64>,
    /// Most output tokens of one answer.
    pub max_output: Option<u64>,
    /// What it can do. Without `lacks`, what the list leaves out it cannot do.
    pub features: Option<Vec<Feature>>,
    /// What it cannot do. Given this list, what is in neither is unknown: allowed, and learned.
    pub lacks: Option<Vec<Feature>>,
    /// Whether it thinks before it answers, so that the first content takes long.
    pub reasoning: Option<bool>,
    /// List price.
    pub price: Option<ModelPrice>,
    /// The provider's own units per million tokens, for limits in units.
    pub units_per_mtok: Option<ModelPrice>,
    /// Limits of this model. In a configuration, the list replaces the catalogue's.
    pub limits: Option<Vec<Limit>>,
    /// Limits of this model that cannot be counted, in words.
    #[serde(default)]
    pub uncounted_limits: Vec<String>,
    /// Request fields that this model is known not to take.
    #[serde(default)]
    pub unsupported: Vec<String>,
    /// Anything a user should know.
    pub note: Option<String>,
    /// Ids of sources.
    #[serde(default)]
    pub src: Vec<String>,
}

/// A price in USD per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct ModelPrice {
    /// Per million input tokens.
    pub input: f64,
    /// Per million input tokens served from the provider's cache.
    pub cached_input: Option<f64>,
    /// Per million output tokens.
    pub output: f64,
}

/// Where a fact comes from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Source {
    /// Short id, used in `src`.
    pub id: String,
    /// Where it was read.
    pub url: String,
    /// When it was read or written.
    #[schemars(with = "String", extend("format" = "date"))]
    pub date: toml::value::Datetime,
    /// `official`, `official-copy`, `official-digest`, `measured`, `error-bodies`, `staff-post`, `code`, `third-party` or `general-knowledge`.
    pub kind: String,
    /// Anything that limits it.
    pub note: Option<String>,
}

/// A point on which sources disagree.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Dispute {
    /// What it is about.
    pub topic: String,
    /// What the sources say.
    pub positions: Vec<String>,
    /// What is assumed here.
    pub assumed: String,
}

impl DataPolicy {
    /// Whether the provider trains, given whether the user has turned the opt-out switch.
    /// `None` where the policy says nothing either way.
    #[must_use]
    pub fn trains(&self, opted_out: bool) -> Option<Trains> {
        self.trains.or_else(|| {
            self.train_class.map(|class| match class {
                TrainClass::No | TrainClass::NoStore | TrainClass::Local => Trains::No,
                TrainClass::TrainsOptOut | TrainClass::OptOutAvailable if opted_out => Trains::No,
                TrainClass::Trains | TrainClass::TrainsOptOut | TrainClass::Conflict => Trains::Yes,
                TrainClass::Upstream | TrainClass::OptOutAvailable | TrainClass::Unknown => Trains::Unknown,
            })
        })
    }
}
