//! The sections of a file as they are written.

use std::collections::BTreeMap;

use freeway_catalog::Provider;
use freeway_types::{CostClass, DataClass, Group, Quality};
use schemars::JsonSchema;
use serde::Deserialize;

/// Freeway's configuration.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Raw {
    /// The gateway itself.
    #[serde(default)]
    pub server: Server,
    /// Where the ledger is kept.
    #[serde(default)]
    pub store: Store,
    /// Facts about providers.
    #[serde(default)]
    pub catalog: CatalogSection,
    /// How requests find their targets.
    #[serde(default)]
    pub routing: Routing,
    /// Accounts at providers, by a name of your choice. A provider's id from the catalogue, as the name or as
    /// `catalog`, brings its facts along; every key of a catalogue file can be given here and goes before it.
    #[serde(default)]
    pub providers: BTreeMap<String, ProviderSection>,
    /// Names for several targets, which clients write in `model`.
    #[serde(default)]
    pub aliases: BTreeMap<String, AliasSection>,
    /// Tiers of requests. `critical`, `standard` and `batch` are there without being named.
    #[serde(default)]
    pub tiers: BTreeMap<String, TierSection>,
    /// Keys for clients, with defaults and ceilings of their own.
    #[serde(default)]
    pub client_keys: BTreeMap<String, ClientKeySection>,
}

/// The gateway itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Server {
    /// Address and port to listen on; 127.0.0.1:8080 unless it says otherwise.
    pub listen: Option<String>,
    /// The operator's keys: `env:NAME`, `file:PATH`, or the key itself. Without any, everything is open on
    /// this machine, and an address that others can reach is refused.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Data class of requests that name none; public unless it says otherwise.
    pub data: Option<DataClass>,
    /// Whether a field or feature that a target does not take is left out, and named in `x-freeway-dropped`,
    /// instead of making the target ineligible. False unless it says otherwise.
    pub drop_unsupported: Option<bool>,
    /// Seconds for which requests under way may go on once the gateway is told to stop; 30 unless it says otherwise.
    /// What outlasts them ends in an error that can be tried again.
    pub drain_seconds: Option<u32>,
    /// Requests to models that are served at the same time, streams that flow included; 12,000 unless it says otherwise.
    /// Tiers of lower value fill only a part of it, so that requests of higher ones still find room: of the usual three,
    /// `batch` begins while fewer than two thirds are under way, `standard` while fewer than five sixths. Others are
    /// refused with 503 and `server_is_overloaded`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<u32>,
    /// Threads that serve requests; half as many as there are cores, and at least one, unless it says otherwise.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<u16>,
    /// The HTTP proxy that providers are reached through: `http://[user:password@]host:port`, as `env:NAME`,
    /// `file:PATH` or itself. Never used for providers on this machine or with `kind = "local"`. The variables that
    /// other programs read, such as HTTPS_PROXY, mean nothing here. No proxy unless it says otherwise.
    pub proxy: Option<String>,
    /// A file with further root certificates in PEM form, from the configuration's own folder: for a proxy that opens
    /// connections, or for upstreams with certificates of your own. The built-in ones go on to be trusted.
    pub ca_file: Option<String>,
}

/// Where the ledger is kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Store {
    /// `sqlite:PATH`, from the configuration's own folder, or `sqlite::memory:` for one that is gone with the process. `sqlite:freeway.db` unless it says otherwise.
    pub url: Option<String>,
    /// Days after which requests are forgotten; 90 unless it says otherwise.
    pub retention_days: Option<u32>,
}

/// Facts about providers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct CatalogSection {
    /// A folder of provider files; each replaces the built-in file of the same name.
    pub dir: Option<String>,
}

/// How requests find their targets.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct Routing {
    /// What one unit of value is worth in USD, where a tier's order has `any`, so that free quota and money are weighed
    /// against each other. 0.01 if not set.
    pub usd_per_value: Option<f64>,
    /// Whether a second attempt is made at another target when one is unusually slow. It costs at most a twentieth more
    /// requests and tokens, never money and nothing that is scarce. True if not set.
    pub hedge: Option<bool>,
}

/// An account at a provider.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct ProviderSection {
    /// The catalogue's id of the provider, where it is not the table's name.
    pub catalog: Option<String>,
    /// All keys of this account: `env:NAME`, `file:PATH`, or the key itself. Left out, the provider's usual
    /// environment variables are looked at.
    pub keys: Option<Vec<String>>,
    /// The plan it is on: `free` (the default), `paid`, or another plan of the catalogue file. Money is spent
    /// only where this says `paid`, or where a request names the model.
    pub plan: Option<String>,
    /// Whether its models cost money; overrides what follows from plan and price.
    pub cost: Option<CostClass>,
    /// The day on which you turned the provider's training switch off.
    #[schemars(with = "Option<String>", extend("format" = "date"))]
    pub opted_out: Option<toml::value::Datetime>,
    /// False switches the account off.
    pub enabled: Option<bool>,
    /// The same as in `[server]`, for this account, and it goes before it; `""` is no proxy.
    pub proxy: Option<String>,
    /// The provider's facts.
    #[serde(flatten)]
    pub facts: Provider,
}

/// A name for several targets.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct AliasSection {
    /// Targets as `provider/model`. They are equals, and their order only breaks ties, unless `strategy` says otherwise.
    pub targets: Vec<String>,
    /// How one of them is chosen. `price` if not set.
    pub strategy: Option<StrategyName>,
    /// The least quality that will do.
    pub min_quality: Option<Quality>,
    /// What happens when an answer breaks off after its first content; a request can say so itself by the header
    /// `x-freeway-rescue`. `fail` if not set.
    pub rescue: Option<Rescue>,
    /// Targets of this alias of which one may go on from what another has said, although their models have different
    /// names. Targets whose models have the same name may anyway.
    #[serde(default)]
    pub equivalents: Vec<String>,
    /// The same as in `[server]`, for this alias.
    pub drop_unsupported: Option<bool>,
}

/// How one of several targets is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    /// In the order of the list.
    Ordered,
    /// The least expected cost.
    Cheapest,
    /// The most headroom.
    Headroom,
    /// The least time to the first content, as measured of requests of about the same size.
    Fastest,
    /// The greatest value minus price, where a limit's price is what it could still earn before it comes back. Until there
    /// is a history to forecast from, the lowest quality that will do and then the most headroom.
    Price,
}

/// What happens when an answer breaks off after its first content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rescue {
    /// The client gets an error in the stream.
    Fail,
    /// The same model goes on from what was said, here or elsewhere, where only plain text was said.
    Continue,
    /// Another answer begins, after a chunk that says so, for clients that know it.
    Restart,
}

/// A tier of requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct TierSection {
    /// Groups of targets, tried in turn.
    pub order: Option<Vec<Group>>,
    /// What serving one of its requests is worth against the others.
    pub value: Option<f64>,
    /// Seconds that a request may wait for quota, if its deadline is not sooner; 0 to 3,600.
    pub wait: Option<f64>,
}

/// A client's key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ClientKeySection {
    /// The key: `env:NAME`, `file:PATH`, or the key itself.
    pub key: String,
    /// Its tier: the default, and the highest that may be asked for.
    pub tier: Option<String>,
    /// Its data class: the default, and the mildest that may be asked for.
    pub data: Option<DataClass>,
    /// What it may spend. Not supported yet.
    pub budget: Option<Budget>,
}

/// What may be spent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Budget {
    /// Money.
    pub usd: Option<f64>,
    /// Tokens.
    pub tokens: Option<u64>,
    /// Over which time.
    pub window: Option<String>,
}
