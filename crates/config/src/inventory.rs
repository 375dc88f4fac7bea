//! A configuration as named things with their facts, in the form in which two can be compared.
//!
//! Keys, and headers that may hold some, are in it to be compared and have no way to be shown.

use std::collections::BTreeMap;

use freeway_quota::{Grant, LimitSpec, Rule};
use freeway_router::{Account, Deployment, Prices};
use freeway_types::{Feature, Metric, Price, Secret, Usd};
use freeway_upstream::Proxy;
use serde::Serialize;
use serde_json::{Value, json};

use crate::resolve::{Loaded, Settings, StoreUrl};

/// Settings that a gateway reads when it starts and never again.
pub(crate) const FIXED_AT_START: [&str; 3] = ["server.listen", "server.threads", "store.url"];
/// Why a thing cannot be used: its being there or not is a change of its own kind.
pub(crate) const OFF: &str = "off";
/// An alias's list, in which the order matters.
pub(crate) const TARGETS: &str = "targets";
/// The one fact of a thing that is all value.
pub(crate) const VALUE: &str = "value";

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A setting of the gateway itself.
    Setting,
    /// An account at a provider.
    Account,
    /// A model at an account.
    Target,
    /// A limit.
    Limit,
    /// A name for several targets.
    Alias,
    /// A tier of requests.
    Tier,
    /// A client's key.
    ClientKey,
}

/// What is configured, as named things with their facts.
#[derive(Clone, Debug, Default)]
pub struct Inventory(pub(crate) BTreeMap<Kind, BTreeMap<String, Facts>>);

/// Facts in the order in which they matter to people.
pub(crate) type Facts = Vec<(String, Fact)>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    Shown(Value),
    /// Compared and never shown.
    Hidden(Secret),
}

/// Whether a gateway that runs by one configuration has to be started again for the other.
#[must_use]
pub fn needs_restart(old: &Settings, new: &Settings) -> bool {
    let fixed = |settings: &Settings| -> Vec<(String, Value)> {
        settings_of(settings).into_iter().filter(|(name, _)| FIXED_AT_START.contains(&name.as_str())).collect()
    };
    fixed(old) != fixed(new)
}

// === impl Inventory ===

impl Inventory {
    /// Everything that a configuration says.
    #[must_use]
    pub fn of(loaded: &Loaded) -> Self {
        let Loaded { settings, snapshot, endpoints, limits, found } = loaded;
        let mut all = Self::default();
        for kind in [Kind::Account, Kind::Target, Kind::Limit, Kind::Alias, Kind::Tier, Kind::ClientKey] {
            all.know(kind);
        }
        for (name, value) in settings_of(settings) {
            all.add(Kind::Setting, &name, [(VALUE, value)]);
        }
        let rules = &snapshot.rules;
        all.add(Kind::Setting, "server.keys", [("set", json!(!settings.keys.is_empty()))]);
        all.hide(Kind::Setting, "server.keys", "keys", &lines(&settings.keys));
        all.hide(Kind::Setting, "server.ca_file", "certificates", &format!("{:?}", settings.roots));
        all.add(Kind::Setting, "server.data", [(VALUE, json!(rules.data))]);
        all.add(Kind::Setting, "server.drop_unsupported", [(VALUE, json!(snapshot.drop_unsupported))]);

        for ((account, endpoint), found) in snapshot.accounts.iter().zip(endpoints).zip(found) {
            let facts = [
                (OFF, json!(found.left_out)),
                ("plan", json!(account.plan)),
                ("may_spend", json!(account.may_spend)),
                ("base_url", json!(format!("{}{}", endpoint.origin.authority(), endpoint.origin.base_path))),
                ("catalog", json!(account.provider)),
                ("dialect", json!(account.dialect.as_str())),
                ("local", json!(account.local)),
                ("unsupported", json!(account.unsupported)),
            ];
            all.add(Kind::Account, &account.id, facts);
            all.hide(Kind::Account, &account.id, "keys", &lines(&endpoint.keys));
            let proxy = endpoint.proxy.as_ref();
            all.add(Kind::Account, &account.id, [("proxy", json!(proxy.map(Proxy::place)))]);
            all.hide(Kind::Account, &account.id, "proxy_user", proxy.and_then(Proxy::user).map_or("", Secret::expose));
            all.hide(Kind::Account, &account.id, "auth", &format!("{:?}", endpoint.auth));
            all.hide(Kind::Account, &account.id, "request_headers", &format!("{:?}", endpoint.headers));
            all.hide(Kind::Account, &account.id, "other_facts", &rest(account));
        }
        for target in &snapshot.deployments {
            all.add(Kind::Target, &target.name, target_facts(target));
            let names = target.limits.iter().map(|limit| limits[limit.get()].name.as_str());
            all.add(Kind::Target, &target.name, [("limits", json!(names.collect::<Vec<_>>()))]);
        }
        for limit in limits {
            all.add(Kind::Limit, &limit.name, limit_facts(limit));
        }
        for (name, alias) in &snapshot.aliases {
            let targets = alias.targets.iter().map(|target| snapshot.deployment(*target).name.as_str());
            let facts = [
                (TARGETS, json!(targets.collect::<Vec<_>>())),
                ("strategy", json!(alias.strategy.as_str())),
                ("min_quality", json!(alias.min_quality.get())),
                ("drop_unsupported", json!(alias.drop_unsupported)),
            ];
            all.add(Kind::Alias, name, facts);
        }
        for tier in &rules.tiers {
            let facts = [("order", json!(tier.order)), ("value", json!(tier.value))];
            all.add(Kind::Tier, &tier.name, facts);
        }
        for (rule, setting) in rules.client_keys.iter().zip(&settings.client_keys) {
            all.add(Kind::ClientKey, &rule.name, [("tier", json!(rule.tier)), ("data", json!(rule.data))]);
            all.hide(Kind::ClientKey, &rule.name, "key", setting.key.expose());
        }
        all
    }

    /// Says that the things of a kind are known, so that one which is not named is one that is not there.
    pub fn know(&mut self, kind: Kind) {
        self.0.entry(kind).or_default();
    }

    /// Adds facts of a thing. A fact that only one of two inventories has is left out of the comparison.
    pub fn add<'a>(&mut self, kind: Kind, name: &str, facts: impl IntoIterator<Item = (&'a str, Value)>) {
        let facts = facts.into_iter().map(|(fact, value)| (fact.to_owned(), Fact::Shown(value)));
        self.0.entry(kind).or_default().entry(name.to_owned()).or_default().extend(facts);
    }

    fn hide(&mut self, kind: Kind, name: &str, fact: &str, text: &str) {
        let fact = (fact.to_owned(), Fact::Hidden(Secret::new(text)));
        self.0.entry(kind).or_default().entry(name.to_owned()).or_default().push(fact);
    }
}

fn settings_of(settings: &Settings) -> Vec<(String, Value)> {
    let store = match &settings.store {
        StoreUrl::File(path) => format!("sqlite:{}", path.display()),
        StoreUrl::Memory => "sqlite::memory:".to_owned(),
    };
    vec![
        ("server.listen".to_owned(), json!(settings.listen.to_string())),
        ("server.drain_seconds".to_owned(), json!(settings.drain.as_secs())),
        ("server.max_requests".to_owned(), json!(settings.max_requests)),
        ("server.threads".to_owned(), json!(settings.threads)),
        ("store.url".to_owned(), json!(store)),
        ("store.retention_days".to_owned(), json!(settings.retention.as_secs() / 86_400)),
    ]
}

fn target_facts(target: &Deployment) -> Vec<(&'static str, Value)> {
    let per_mtok = |price: Price| price.times(1_000_000).as_dollars();
    let pair = |prices: Prices| json!({"input": per_mtok(prices.input), "output": per_mtok(prices.output)});
    let words = |set: freeway_types::FeatureSet| json!(set.iter().map(Feature::as_str).collect::<Vec<_>>());
    let cached = |prices: Prices| (prices.cached_input != prices.input).then(|| per_mtok(prices.cached_input));
    vec![
        (OFF, json!(target.off)),
        ("cost", json!(target.cost)),
        ("price_usd_per_mtok", json!(target.prices.map(pair))),
        ("cached_input_usd_per_mtok", json!(target.prices.and_then(cached))),
        ("units_per_mtok", json!(target.units.map(pair))),
        ("quality", json!(target.quality.get())),
        ("context", json!(target.context)),
        ("max_output", json!(target.max_output)),
        ("trains", json!(target.data.trains)),
        ("retention_days", json!(target.data.retention_days)),
        ("audited", json!(target.data.audited)),
        ("data_facts_too_old", json!(target.data.stale)),
        ("features", words(target.features.present)),
        ("lacks", words(target.features.absent)),
        ("unsupported", json!(target.unsupported)),
        ("reasoning", json!(target.reasoning)),
        ("modality", json!(target.modality)),
    ]
}

fn limit_facts(limit: &LimitSpec) -> [(&'static str, Value); 6] {
    let amount = json!(limit.amount.map(|amount| shown(limit.metric, amount)));
    let reset = match &limit.rule {
        Rule::Rolling(_) if limit.reset_unknown => "unknown, counted as rolling".to_owned(),
        Rule::Rolling(_) => "rolling".to_owned(),
        Rule::Bucket(_) => "bucket".to_owned(),
        Rule::Calendar(_, zone) => format!("calendar in {}", zone.iana_name().unwrap_or("UTC")),
        Rule::Never(grants) => never(limit.metric, grants),
        Rule::Concurrency => "when a request ends".to_owned(),
    };
    [
        ("amount", amount),
        ("window", json!(limit.window)),
        ("reset", json!(reset)),
        ("counts", json!(limit.charging.counts)),
        ("charges", json!(limit.charging.charges)),
        ("estimate", json!(limit.charging.estimate)),
    ]
}

/// How credits lapse; several are spent as one, the first one first.
fn never(metric: Metric, grants: &[Grant]) -> String {
    let lapses = |grant: &Grant| grant.expires.map(|end| format!("lapses at {end}"));
    let part = |grant: &Grant| {
        let amount = grant.amount.map_or(Value::Null, |amount| shown(metric, amount));
        format!("{amount} {}", lapses(grant).unwrap_or_else(|| "never lapses".to_owned()))
    };
    match grants {
        [only] => lapses(only).map_or_else(|| "never".to_owned(), |lapses| format!("never, {lapses}")),
        several => format!("never, {}", several.iter().map(part).collect::<Vec<_>>().join(", then ")),
    }
}

fn shown(metric: Metric, amount: u64) -> Value {
    match metric {
        Metric::Usd => json!(Usd::from_picos(i64::try_from(amount).unwrap_or(i64::MAX)).as_dollars()),
        _ => json!(amount),
    }
}

/// What an account's provider is known for beyond what is shown, such as how its refusals are read.
fn rest(account: &Account) -> String {
    let mut rest = account.clone();
    rest.plan.clear();
    rest.provider = None;
    rest.unsupported.clear();
    (rest.may_spend, rest.local, rest.keys) = (false, false, 0);
    format!("{rest:?}")
}

fn lines(keys: &[Secret]) -> String {
    keys.iter().map(Secret::expose).collect::<Vec<_>>().join("\n")
}
