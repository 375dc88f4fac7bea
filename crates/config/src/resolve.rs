//! From sections to the valid form: one snapshot, its endpoints and its limits.

mod aliases;
mod settings;

use std::collections::BTreeMap;
use std::path::Path;

use freeway_catalog::{Catalog, Model, validate};
use freeway_quota::LimitSpec;
use freeway_router::{Deployment, Prices, Risk, Snapshot, risks};
use freeway_types::{AccountIndex, CostClass, DeploymentIndex, LimitIndex, Metric, Quality, Timestamp};

use crate::check::Document;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::offer::{Card, cards};
use crate::provider::{self, Endpoint, Resolved, features, prices, units};
use crate::raw::{ProviderSection, Raw};
use crate::reference::Surroundings;
use crate::schema::{provider_schema, schema};

pub use settings::{ClientKeySetting, Settings, StoreUrl};

/// Most that a unit of value may be worth, in USD: more is a mistake of units.
const MOST_USD_PER_VALUE: f64 = 1_000.0;

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
    read(path, text, surroundings, None).map(|(loaded, _)| loaded)
}

/// The same with more accounts, for finding out what they would bring: one on `plan` at each provider of the catalogue
/// at which the configuration has none on it. Gives the cards of the catalogue as well. Providers that cannot be called,
/// and those whose terms forbid gateways, stay off. Only for planning: the keys are none.
///
/// # Errors
/// Every mistake of the file, with its place.
pub fn load_with_more(
    path: &str,
    text: Option<&str>,
    surroundings: &Surroundings<'_>,
    plan: &str,
) -> Result<(Loaded, Vec<Card>), Diagnostics> {
    let (loaded, catalog) = read(path, text, surroundings, Some(plan))?;
    Ok((loaded, cards(&catalog, surroundings.now)))
}

fn read(
    path: &str,
    text: Option<&str>,
    surroundings: &Surroundings<'_>,
    plan: Option<&str>,
) -> Result<(Loaded, Catalog), Diagnostics> {
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
    if let Some(plan) = plan {
        crate::trial::add(&mut raw.providers, plan, &catalog, surroundings);
    }
    let loaded = resolver.load(&raw, &catalog);
    match loaded {
        Some(loaded) if resolver.mistakes.is_empty() => Ok((loaded, catalog)),
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
        if let Some(usd) = raw.routing.usd_per_value {
            if !(usd > 0.0 && usd <= MOST_USD_PER_VALUE) {
                self.wrong(&["routing", "usd_per_value"], "a number above 0 and up to 1,000 is wanted here", None);
                return None;
            }
            snapshot.usd_per_value = usd;
        }
        let endpoints = accounts.into_iter().map(|account| account.endpoint).collect();
        Some(Loaded { settings, snapshot, endpoints, limits: parts.limits, found })
    }

    /// Keys that are known and have no effect yet.
    fn unsupported(&mut self, raw: &Raw) {
        for (name, key) in &raw.client_keys {
            if key.budget.is_some() {
                self.not_yet(&["client_keys", name, "budget"], "a budget");
            }
        }
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
