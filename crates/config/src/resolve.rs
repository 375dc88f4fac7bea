//! From sections to the valid form: one snapshot, its endpoints and its limits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use freeway_catalog::{Catalog, Model, validate};
use freeway_policy::{ClientKeyRule, Rules, Tier};
use freeway_quota::LimitSpec;
use freeway_router::{Alias, Deployment, Prices, Risk, Snapshot, Strategy, risks};
use freeway_types::{
    AccountIndex, CostClass, DataClass, DeploymentIndex, Group, LimitIndex, Metric, Quality, Secret, Timestamp,
};
use freeway_upstream::{Proxy, Roots};

use crate::check::{Document, suggestion};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::outbound;
use crate::provider::{self, Endpoint, Resolved, features, prices, units};
use crate::raw::{AliasSection, ProviderSection, Raw, Rescue, StrategyName};
use crate::reference::{Surroundings, secret};
use crate::schema::{provider_schema, schema};

/// A configuration that can be used.
pub struct Loaded {
    /// The gateway itself.
    pub settings: Settings,
    /// Accounts, deployments, aliases, rules.
    pub snapshot: Snapshot,
    /// Where each account is, and its keys; in the order of the accounts.
    pub endpoints: Vec<Endpoint>,
    /// Every limit, in the order of the deployments' indices.
    pub limits: Vec<LimitSpec>,
    /// What was found, for the operator.
    pub found: Vec<Found>,
}

/// The gateway itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The operator's keys.
    pub keys: Vec<Secret>,
    /// The clients' keys, in the order of the snapshot's rules.
    pub client_keys: Vec<ClientKeySetting>,
    /// Where the ledger is kept.
    pub store: StoreUrl,
    /// How long requests are remembered.
    pub retention: Duration,
    /// How long requests under way may go on once the gateway stops.
    pub drain: Duration,
    /// Requests that are served at the same time.
    pub max_requests: u32,
    /// Threads that serve requests; `None`: by the number of cores.
    pub threads: Option<u16>,
    /// Root certificates beside the built-in ones.
    pub roots: Roots,
}

/// A client's key.
#[derive(Clone, Debug)]
pub struct ClientKeySetting {
    /// Its name.
    pub name: String,
    /// The key.
    pub key: Secret,
}

/// Where the ledger is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// In a file.
    File(PathBuf),
    /// Nowhere: it is gone with the process.
    Memory,
}

/// One provider that was found, or left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The account's name.
    pub account: String,
    /// Models that can be called.
    pub models: usize,
    /// The plan it is on.
    pub plan: String,
    /// Why it is left out, if it is.
    pub left_out: Option<String>,
    /// Whether it trains on what it is sent: yes, no or unknown.
    pub trains: freeway_catalog::Trains,
    /// The day its facts are of, if they are too old to be relied on.
    pub stale: Option<String>,
}

impl Loaded {
    /// The routes that may stop to work, as things stand at an instant.
    #[must_use]
    pub fn risks(&self, now: Timestamp) -> Vec<Risk> {
        risks(&self.snapshot, &|limit| &self.limits[limit.get()], now)
    }
}

/// Reads a configuration. Without a text, the environment's keys are all there is.
///
/// # Errors
/// Every mistake of the file, with its place.
pub fn load(path: &str, text: Option<&str>, surroundings: &Surroundings<'_>) -> Result<Loaded, Diagnostics> {
    let text = text.map(str::to_owned);
    let own_text = text.clone().unwrap_or_default();
    let fail = |mut list: Vec<Diagnostic>| {
        list.sort_by_key(|diagnostic| diagnostic.span.start);
        Err(Diagnostics { path: path.to_owned(), text: own_text.clone(), list })
    };
    let document = match Document::parse(text.as_deref().unwrap_or_default()) {
        Ok(document) => document,
        Err(list) => return fail(list),
    };
    let mistakes = document.check("a configuration", &schema());
    if !mistakes.is_empty() {
        return fail(mistakes);
    }
    let mut raw: Raw = match toml::from_str(text.as_deref().unwrap_or_default()) {
        Ok(raw) => raw,
        Err(error) => {
            return fail(vec![Diagnostic::new(error.span().unwrap_or(0..0), error.message().to_owned())]);
        }
    };
    let mut resolver = Resolver { document: &document, surroundings, mistakes: Vec::new() };
    let catalog = resolver.catalog(&raw);
    if text.is_none() {
        raw.providers = from_environment(&catalog, surroundings);
    }
    let loaded = resolver.load(&raw, &catalog);
    match loaded {
        Some(loaded) if resolver.mistakes.is_empty() => Ok(loaded),
        _ => fail(resolver.mistakes),
    }
}

/// The provider files that are built in, and those of a folder over them.
///
/// # Errors
/// What is wrong with which file of the folder, with its place.
pub fn read_catalog(folder: Option<&Path>) -> Result<Catalog, String> {
    let mut catalog = Catalog::embedded().map_err(|problem| problem.to_string())?;
    let Some(folder) = folder else { return Ok(catalog) };
    let schema = provider_schema();
    for (path, text) in freeway_catalog::files_of(folder).map_err(|problem| problem.to_string())? {
        let list = match Document::parse(&text) {
            Ok(document) => document.check("a provider file", &schema),
            Err(list) => list,
        };
        if !list.is_empty() {
            return Err(Diagnostics { path: path.display().to_string(), text, list }.to_string());
        }
        catalog.lay_over(&path, &text).map_err(|problem| problem.to_string())?;
    }
    Ok(catalog)
}

/// An account for every provider whose key stands in the environment under its usual name.
fn from_environment(catalog: &Catalog, surroundings: &Surroundings<'_>) -> BTreeMap<String, ProviderSection> {
    let has_key = |name: &String| (surroundings.variable)(name).is_some_and(|key| !key.trim().is_empty());
    catalog
        .iter()
        .filter(|(_, provider)| provider.env.iter().any(has_key))
        .map(|(id, _)| (id.to_owned(), ProviderSection::default()))
        .collect()
}

struct Resolver<'a> {
    document: &'a Document<'a>,
    surroundings: &'a Surroundings<'a>,
    mistakes: Vec<Diagnostic>,
}

/// Deployments and limits while they are put together.
#[derive(Default)]
struct Parts {
    deployments: Vec<Deployment>,
    limits: Vec<LimitSpec>,
    limit_names: BTreeMap<String, LimitIndex>,
    other_ids: Vec<(DeploymentIndex, String)>,
}

impl Resolver<'_> {
    fn wrong(&mut self, path: &[&str], message: impl Into<String>, help: Option<String>) {
        let path: Vec<String> = path.iter().map(|step| (*step).to_owned()).collect();
        let span = self.document.span(&path);
        self.mistakes.push(Diagnostic { span, message: message.into(), help });
    }

    fn not_yet(&mut self, path: &[&str], what: &str) {
        let path: Vec<String> = path.iter().map(|step| (*step).to_owned()).collect();
        let span = self.document.key_span(&path);
        let diagnostic = Diagnostic::new(span, format!("{what} is not supported yet"));
        self.mistakes.push(diagnostic.help("leave it out: it would have no effect"));
    }

    fn catalog(&mut self, raw: &Raw) -> Catalog {
        let folder = raw.catalog.dir.as_ref().map(|dir| self.surroundings.folder.join(dir));
        read_catalog(folder.as_deref()).unwrap_or_else(|problem| {
            self.wrong(&["catalog", "dir"], problem, None);
            Catalog::default()
        })
    }

    fn load(&mut self, raw: &Raw, catalog: &Catalog) -> Option<Loaded> {
        self.unsupported(raw);
        let settings = self.settings(raw);
        let rules = self.rules(raw);
        let proxy = self.proxy(&["server", "proxy"], raw.server.proxy.as_deref());
        let mut accounts: Vec<Resolved> = Vec::new();
        for (id, section) in &raw.providers {
            let own_proxy = self.proxy(&["providers", id, "proxy"], section.proxy.as_deref());
            if let Some(mut account) = self.account(id, section, catalog) {
                // What is inside the network is not to be found outside of it.
                let is_outside = !account.account.local && !account.endpoint.origin.is_loopback();
                let proxy = if section.proxy.is_some() { own_proxy } else { proxy.clone() };
                account.endpoint.proxy = proxy.filter(|_| is_outside);
                accounts.push(account);
            }
        }
        let mut parts = Parts::default();
        for (position, account) in accounts.iter().enumerate() {
            for model in &account.facts.models {
                self.deployment(AccountIndex::new(position), account, model, &mut parts);
            }
        }
        let mut aliases = BTreeMap::new();
        for (name, section) in &raw.aliases {
            aliases.insert(name.clone(), self.alias(name, section, raw, &accounts, &mut parts));
        }
        let settings = settings?;
        let found = found(&accounts, &parts, self.surroundings.now);
        let mut snapshot = Snapshot::new(
            accounts.iter().map(|account| account.account.clone()).collect(),
            parts.deployments,
            aliases,
            rules,
            raw.server.drop_unsupported.unwrap_or(false),
            &parts.other_ids,
        );
        snapshot.hedge = raw.routing.hedge.unwrap_or(true);
        let endpoints = accounts.into_iter().map(|account| account.endpoint).collect();
        Some(Loaded { settings, snapshot, endpoints, limits: parts.limits, found })
    }

    /// Keys that are known and have no effect yet.
    fn unsupported(&mut self, raw: &Raw) {
        if raw.routing.usd_per_value.is_some() {
            self.not_yet(&["routing", "usd_per_value"], "weighing money against value");
        }
        for (name, tier) in &raw.tiers {
            if tier.wait.is_some() {
                self.not_yet(&["tiers", name, "wait"], "waiting for quota");
            }
        }
        for (name, key) in &raw.client_keys {
            if key.budget.is_some() {
                self.not_yet(&["client_keys", name, "budget"], "a budget");
            }
        }
        for (name, alias) in &raw.aliases {
            if matches!(alias.strategy, Some(StrategyName::Fastest | StrategyName::Price)) {
                self.not_yet(&["aliases", name, "strategy"], "this strategy");
            }
        }
    }

    fn settings(&mut self, raw: &Raw) -> Option<Settings> {
        let listen = raw.server.listen.as_deref().unwrap_or("127.0.0.1:8080");
        let address: Option<SocketAddr> = listen.replace("localhost", "127.0.0.1").parse().ok();
        if address.is_none() {
            let help = "write an address and a port, such as 127.0.0.1:8080 or [::1]:8080";
            self.wrong(
                &["server", "listen"],
                format!("`{listen}` is not an address to listen on"),
                Some(help.to_owned()),
            );
        }
        let mut keys = Vec::new();
        for (position, reference) in raw.server.keys.iter().enumerate() {
            match secret(reference, self.surroundings) {
                Ok(key) => keys.push(key),
                Err(missing) => {
                    self.wrong(&["server", "keys", &position.to_string()], missing.message(), Some(missing.help()));
                }
            }
        }
        let mut client_keys = Vec::new();
        for (name, section) in &raw.client_keys {
            match secret(&section.key, self.surroundings) {
                Ok(key) => client_keys.push(ClientKeySetting { name: name.clone(), key }),
                Err(missing) => self.wrong(&["client_keys", name, "key"], missing.message(), Some(missing.help())),
            }
        }
        if !client_keys.is_empty() && keys.is_empty() && raw.server.keys.is_empty() {
            let help = "without one, nobody could use the operator's API".to_owned();
            self.wrong(&["client_keys"], "client keys need an operator's key in `[server] keys`", Some(help));
        }
        if let Some(listen) = address
            && !listen.ip().is_loopback()
            && raw.server.keys.is_empty()
        {
            let help = "set `keys` in [server], or listen on 127.0.0.1".to_owned();
            self.wrong(&["server", "listen"], "others can reach this address, and no key is set", Some(help));
        }
        let store = self.store(raw.store.url.as_deref().unwrap_or("sqlite:freeway.db"));
        let days = raw.store.retention_days.unwrap_or(90);
        let retention = Duration::from_secs(u64::from(days) * 86_400);
        let drain = Duration::from_secs(u64::from(raw.server.drain_seconds.unwrap_or(30)));
        let max_requests = raw.server.max_requests.unwrap_or(12_000);
        let threads = raw.server.threads;
        let roots = raw.server.ca_file.as_deref().map(|path| outbound::roots(path, self.surroundings)).transpose();
        let roots = roots.unwrap_or_else(|(message, help)| {
            self.wrong(&["server", "ca_file"], message, Some(help));
            None
        });
        let roots = roots.unwrap_or_default();
        Some(Settings {
            listen: address?,
            keys,
            client_keys,
            store: store?,
            retention,
            drain,
            max_requests,
            threads,
            roots,
        })
    }

    fn proxy(&mut self, path: &[&str], text: Option<&str>) -> Option<Proxy> {
        outbound::proxy(text?, self.surroundings).unwrap_or_else(|(message, help)| {
            self.wrong(path, message, Some(help));
            None
        })
    }

    fn store(&mut self, url: &str) -> Option<StoreUrl> {
        match url.split_once(':') {
            Some(("sqlite", ":memory:")) => Some(StoreUrl::Memory),
            Some(("sqlite", path)) if !path.is_empty() => Some(StoreUrl::File(self.surroundings.folder.join(path))),
            Some(("postgres" | "postgresql", _)) => {
                let help = "there is sqlite:PATH".to_owned();
                self.wrong(&["store", "url"], "PostgreSQL is not supported yet", Some(help));
                None
            }
            _ => {
                let help = "write sqlite:PATH or sqlite::memory:".to_owned();
                self.wrong(&["store", "url"], format!("`{url}` is not a place for the ledger"), Some(help));
                None
            }
        }
    }

    fn rules(&mut self, raw: &Raw) -> Rules {
        let tier = |name: &str, order: &[Group], value: f64, wait: u64| Tier {
            name: name.to_owned(),
            order: order.to_vec(),
            value,
            wait: Duration::from_secs(wait),
        };
        let mut tiers = vec![
            tier("critical", &[Group::Paid, Group::Free], 10.0, 0),
            tier("standard", &[Group::Free, Group::Paid], 3.0, 0),
            tier("batch", &[Group::Free], 1.0, 30),
        ];
        for (name, section) in &raw.tiers {
            if section.order.as_ref().is_some_and(Vec::is_empty) {
                self.wrong(&["tiers", name, "order"], "a tier without groups could use nothing", None);
            }
            if section.value.is_some_and(|value| !(0.0..=1e9).contains(&value)) {
                self.wrong(&["tiers", name, "value"], "a value is a number from 0 to 1,000,000,000", None);
            }
            let position = tiers.iter().position(|tier| tier.name == *name).unwrap_or_else(|| {
                tiers.push(tier(name, &[Group::Free, Group::Paid], 3.0, 0));
                tiers.len() - 1
            });
            if let Some(order) = &section.order {
                tiers[position].order.clone_from(order);
            }
            tiers[position].value = section.value.unwrap_or(tiers[position].value);
        }
        tiers.sort_by(|one, other| other.value.total_cmp(&one.value).then_with(|| one.name.cmp(&other.name)));
        let names: Vec<&str> = tiers.iter().map(|tier| tier.name.as_str()).collect();
        let mut client_keys = Vec::new();
        for (name, section) in &raw.client_keys {
            if let Some(tier) = &section.tier
                && !names.contains(&tier.as_str())
            {
                self.wrong(
                    &["client_keys", name, "tier"],
                    format!("there is no tier `{tier}`"),
                    Some(suggestion(tier, &names)),
                );
            }
            client_keys.push(ClientKeyRule { name: name.clone(), tier: section.tier.clone(), data: section.data });
        }
        Rules { data: raw.server.data.unwrap_or(DataClass::Public), client_keys, tiers }
    }

    fn account(&mut self, id: &str, section: &ProviderSection, catalog: &Catalog) -> Option<Resolved> {
        if id.is_empty() || id.contains('/') {
            self.wrong(
                &["providers", id],
                format!("`{id}` cannot name a provider: `/` stands between provider and model"),
                None,
            );
        }
        let problems = validate(&section.facts);
        let invalid = !problems.is_empty();
        for problem in problems {
            let path: Vec<&str> =
                ["providers", id].into_iter().chain(problem.path.iter().map(String::as_str)).collect();
            self.wrong(&path, problem.message, None);
        }
        let mut mistakes = Vec::new();
        let account = provider::resolve(id, section, catalog, self.surroundings, &mut mistakes);
        for (path, diagnostic) in mistakes {
            let path: Vec<String> = ["providers", id].into_iter().map(str::to_owned).chain(path).collect();
            let span = if path.len() == 2 { self.document.key_span(&path) } else { self.document.span(&path) };
            self.mistakes.push(Diagnostic { span, ..diagnostic });
        }
        account.filter(|_| !invalid)
    }

    fn deployment(
        &mut self,
        index: AccountIndex,
        account: &Resolved,
        model: &Model,
        parts: &mut Parts,
    ) -> DeploymentIndex {
        let now = self.surroundings.now;
        let id = &account.account.id;
        let mut limits = Vec::new();
        for spec in self.specs(account, model) {
            let limit = self.limit(id, spec, parts);
            if !limits.contains(&limit) {
                limits.push(limit);
            }
        }
        let cost = account.cost_of(model);
        let units = model.units_per_mtok.and_then(units);
        if cost == CostClass::Free && model.price.is_none() {
            // A credit in money cannot be counted without a price; on a plan that costs nothing, the provider's own
            // word that it is spent is all there is.
            limits.retain(|limit| parts.limits[limit.get()].metric != Metric::Usd);
        }
        let counts = |metric| limits.iter().any(|limit: &LimitIndex| parts.limits[limit.get()].metric == metric);
        // What costs nothing is billed at nothing; but a credit in money is spent at the list price.
        let prices = if cost == CostClass::Free && !counts(Metric::Usd) {
            Some(Prices::default())
        } else {
            model.price.and_then(prices)
        };
        let barred = limits.iter().any(|limit| parts.limits[limit.get()].amount == Some(0));
        let unusable = if barred {
            Some("a limit of 0: it is not allowed on this plan".to_owned())
        } else if prices.is_none() && counts(Metric::Usd) {
            Some("a limit in usd cannot be kept without the model's `price`".to_owned())
        } else if units.is_none() && counts(Metric::Units) {
            Some("a limit in units cannot be kept without the model's `units_per_mtok`".to_owned())
        } else {
            None
        };
        let on_free_plan = account.account.plan == "free";
        let context = if on_free_plan { model.free_context.or(model.context) } else { model.context };
        let deployment = Deployment {
            account: index,
            name: format!("{id}/{}", model.id),
            model: model.id.clone(),
            modality: model.modality,
            off: account.off.clone().or_else(|| model.off.clone()).or(unusable),
            quality: model.quality.unwrap_or(Quality::LOWEST),
            context,
            max_output: model.max_output,
            features: features(model),
            unsupported: model.unsupported.clone(),
            reasoning: model.reasoning.unwrap_or(false),
            prices,
            units,
            cost,
            data: account.data(now),
            limits,
        };
        parts.deployments.push(deployment);
        let index = DeploymentIndex::new(parts.deployments.len() - 1);
        parts.other_ids.extend(model.aliases.iter().map(|alias| (index, alias.clone())));
        index
    }

    /// The limits of a model, with the credits that are spent as one joined.
    fn specs(&mut self, account: &Resolved, model: &Model) -> Vec<LimitSpec> {
        let id = &account.account.id;
        let mut specs: Vec<(LimitSpec, &[String])> = Vec::new();
        for (owner, limit) in account.limits_of(model) {
            let mut spec = match LimitSpec::read(&owner, limit) {
                Ok(spec) => spec,
                Err(error) => {
                    self.wrong(&["providers", id], error.to_string(), None);
                    continue;
                }
            };
            if !spec.own {
                spec.as_of = crate::offer::read_on(&account.facts);
                spec.confidence = spec.confidence.or(account.facts.confidence);
            }
            // A credit for some of the models stands alone: together, it would pay for the others.
            let same_models = specs.iter_mut().filter(|(_, models)| *models == limit.models.as_slice());
            let joined = same_models.filter_map(|(standing, _)| standing.join(&spec)).next();
            match joined {
                None => specs.push((spec, &limit.models)),
                Some(true) => {}
                Some(false) => self.disagreement(id, &spec.name),
            }
        }
        specs.into_iter().map(|(spec, _)| spec).collect()
    }

    fn disagreement(&mut self, account: &str, limit: &str) {
        let message = format!("rows of the limit \"{limit}\" do not agree on its amount");
        let help = "one pool has one amount for each metric and window".to_owned();
        self.wrong(&["providers", account], message, Some(help));
    }

    /// The index of a limit: rows that count for the same thing share one.
    fn limit(&mut self, account: &str, mut spec: LimitSpec, parts: &mut Parts) -> LimitIndex {
        // Two rows of one metric and window may differ in how they come back: then they are two limits.
        while let Some(other) = parts.limit_names.get(&spec.name).map(|index| &parts.limits[index.get()])
            && !spec.counts_like(other)
        {
            spec.name.push_str(" (another reset)");
        }
        if let Some(index) = parts.limit_names.get(&spec.name) {
            if !parts.limits[index.get()].is_as_large_as(&spec) {
                self.disagreement(account, &spec.name);
            }
            return *index;
        }
        let index = LimitIndex::new(parts.limits.len());
        parts.limit_names.insert(spec.name.clone(), index);
        parts.limits.push(spec);
        index
    }

    fn alias(
        &mut self,
        name: &str,
        section: &AliasSection,
        raw: &Raw,
        accounts: &[Resolved],
        parts: &mut Parts,
    ) -> Alias {
        if name == "auto" {
            self.wrong(
                &["aliases", name],
                "`auto` stands for any model already",
                Some("choose another name".to_owned()),
            );
        }
        if section.targets.is_empty() {
            self.wrong(&["aliases", name, "targets"], format!("the alias `{name}` has no targets"), None);
        }
        let mut targets = Vec::new();
        for (position, target) in section.targets.iter().enumerate() {
            let place = position.to_string();
            let path = ["aliases", name, "targets", place.as_str()];
            let Some((provider, model)) = target.split_once('/') else {
                let names: Vec<&str> = parts.deployments.iter().map(|deployment| deployment.name.as_str()).collect();
                self.wrong(
                    &path,
                    format!("`{target}` is not a target: write provider/model"),
                    Some(suggestion(target, &names)),
                );
                continue;
            };
            let Some(account) = accounts.iter().position(|account| account.account.id == provider) else {
                if !raw.providers.contains_key(provider) {
                    let names: Vec<&str> = raw.providers.keys().map(String::as_str).collect();
                    self.wrong(&path, format!("there is no provider `{provider}`"), Some(suggestion(provider, &names)));
                }
                continue;
            };
            let known =
                parts.deployments.iter().position(|deployment| deployment.name == *target).map(DeploymentIndex::new);
            let by_other_id = || {
                let found = parts.other_ids.iter().find(|(index, id)| {
                    id == model && parts.deployments[index.get()].account == AccountIndex::new(account)
                });
                found.map(|(index, _)| *index)
            };
            let index = known.or_else(by_other_id).unwrap_or_else(|| {
                // Lists of models are never complete: a name that is not in them is the user's word.
                let model = Model { id: model.to_owned(), ..Model::default() };
                self.deployment(AccountIndex::new(account), &accounts[account], &model, parts)
            });
            if !targets.contains(&index) {
                targets.push(index);
            }
        }
        let mut equivalents = Vec::new();
        for (position, equivalent) in section.equivalents.iter().enumerate() {
            match section.targets.iter().position(|target| target == equivalent).and_then(|place| targets.get(place)) {
                Some(index) => equivalents.push(*index),
                None => {
                    let names: Vec<&str> = section.targets.iter().map(String::as_str).collect();
                    let path = ["aliases", name, "equivalents", &position.to_string()];
                    let what = format!("`{equivalent}` is no target of the alias `{name}`");
                    self.wrong(&path, what, Some(suggestion(equivalent, &names)));
                }
            }
        }
        Alias {
            rescue: match section.rescue {
                Some(Rescue::Continue) => freeway_router::Rescue::Continue,
                Some(Rescue::Restart) => freeway_router::Rescue::Restart,
                Some(Rescue::Fail) | None => freeway_router::Rescue::Fail,
            },
            equivalents,
            targets,
            strategy: match section.strategy {
                Some(StrategyName::Ordered) => Strategy::Ordered,
                Some(StrategyName::Cheapest) => Strategy::Cheapest,
                Some(StrategyName::Headroom) => Strategy::Headroom,
                Some(StrategyName::Fastest | StrategyName::Price) | None => Strategy::default(),
            },
            min_quality: section.min_quality.unwrap_or(Quality::LOWEST),
            drop_unsupported: section.drop_unsupported,
        }
    }
}

fn found(accounts: &[Resolved], parts: &Parts, now: Timestamp) -> Vec<Found> {
    accounts
        .iter()
        .enumerate()
        .map(|(position, account)| {
            let here = parts.deployments.iter().filter(|deployment| deployment.account == AccountIndex::new(position));
            let models = here.filter(|deployment| deployment.off.is_none()).count();
            let nothing = (models == 0)
                .then(|| "no models are listed for it: name some in `models`, or as targets of an alias".to_owned());
            Found {
                account: account.account.id.clone(),
                models,
                plan: account.account.plan.clone(),
                left_out: account.off.clone().or(nothing),
                trains: account.data(now).trains,
                stale: account.account.provider.as_ref().and_then(|_| crate::offer::stale(&account.facts, now)),
            }
        })
        .collect()
}
