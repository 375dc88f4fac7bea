//! One account: its table in the configuration laid over the catalogue's facts.

use freeway_catalog::{AuthScheme, Catalog, DataPolicy, Kind, Limit, LimitScope, Model, ModelPrice, Plan, Provider};
use freeway_dialect::Dialect;
use freeway_policy::DataFacts;
use freeway_router::{Account, Prices};
use freeway_types::{CostClass, Features, Price, Secret, Timestamp};
use freeway_upstream::{Auth, Origin, Proxy, Reach};
use http::{HeaderName, HeaderValue};

use crate::diagnostic::Diagnostic;
use crate::offer::forbids_gateways;
use crate::raw::ProviderSection;
use crate::reference::{Surroundings, secret};

/// The plan an account is on unless it says otherwise: money is never spent unasked.
const FREE: &str = "free";
const PAID: &str = "paid";

/// Where an account is, and its keys.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where.
    pub origin: Origin,
    /// How the key is sent.
    pub auth: Auth,
    /// The keys.
    pub keys: Vec<Secret>,
    /// Headers for every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Which addresses it may have.
    pub reach: Reach,
    /// What it is reached through.
    pub proxy: Option<Proxy>,
}

/// An account with its facts put together.
pub(crate) struct Resolved {
    pub(crate) account: Account,
    pub(crate) endpoint: Endpoint,
    pub(crate) facts: Provider,
    /// Why nothing at this account can be used, if so.
    pub(crate) off: Option<String>,
    cost: Option<CostClass>,
    plan: Plan,
    in_free_offer: bool,
    opted_out: bool,
    own_data: Option<DataPolicy>,
}

/// What is wrong with an account's table: a path below it, and the mistake.
pub(crate) type Mistake = (Vec<String>, Diagnostic);

/// Puts an account together.
pub(crate) fn resolve(
    id: &str,
    section: &ProviderSection,
    catalog: &Catalog,
    surroundings: &Surroundings<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Resolved> {
    let mut wrong = |path: &[&str], message: String, help: Option<String>| {
        let diagnostic = Diagnostic { span: 0..0, message, help };
        mistakes.push((path.iter().map(|step| (*step).to_owned()).collect(), diagnostic));
    };
    let known = catalog.get(section.catalog.as_deref().unwrap_or(id));
    if let (Some(name), None) = (&section.catalog, known) {
        let ids: Vec<&str> = catalog.iter().map(|(id, _)| id).collect();
        wrong(
            &["catalog"],
            format!("the catalogue knows no provider `{name}`"),
            Some(crate::check::suggestion(name, &ids)),
        );
        return None;
    }
    let own_data = section.facts.data.clone();
    let facts = lay_over(&section.facts, known);
    let Some(base_url) = &facts.base_url else {
        let ids: Vec<&str> = catalog.iter().map(|(id, _)| id).collect();
        let message = format!("`{id}` is no provider of the catalogue and has no `base_url`");
        wrong(&[], message, Some(crate::check::suggestion(id, &ids)));
        return None;
    };
    let (base_url, without_variable) = address(base_url, &facts, surroundings);
    let origin = match Origin::parse(&base_url) {
        Ok(origin) => origin,
        Err(error) => {
            wrong(&["base_url"], error.to_string(), None);
            return None;
        }
    };
    let dialect = facts.dialect.unwrap_or(Dialect::OpenaiChat);
    if dialect != Dialect::OpenaiChat {
        let message = format!("the dialect `{}` is not supported yet", dialect.as_str());
        wrong(&["dialect"], message, Some("there is openai-chat, which most providers speak too".to_owned()));
        return None;
    }
    let plan_name = section.plan.clone().unwrap_or_else(|| FREE.to_owned());
    if plan_name != FREE && plan_name != PAID && !facts.plans.contains_key(&plan_name) {
        let names: Vec<&str> = facts.plans.keys().map(String::as_str).chain([FREE, PAID]).collect();
        wrong(
            &["plan"],
            format!("`{id}` has no plan `{plan_name}`"),
            Some(crate::check::suggestion(&plan_name, &names)),
        );
    }
    let headers = request_headers(&facts, &mut wrong);
    let scheme = facts.auth.as_ref().map_or(AuthScheme::Bearer, |auth| auth.scheme);
    let auth = match (scheme, facts.auth.as_ref().and_then(|auth| auth.header.as_deref())) {
        (AuthScheme::Header, Some(name)) => HeaderName::try_from(name).map_or(Auth::Bearer, Auth::Header),
        (AuthScheme::Header, None) => {
            wrong(&["auth"], "`scheme = \"header\"` needs the name of the `header`".to_owned(), None);
            Auth::Bearer
        }
        _ => Auth::Bearer,
    };
    let (keys, mut off) = find_keys(section, &facts, scheme, surroundings);
    off = off.or(without_variable);
    // The user's own word opens what terms forbid, but not what is gone.
    if !(section.enabled == Some(true) && forbids_gateways(&facts)) {
        off = crate::offer::off(&facts).or(off);
    }
    if section.enabled == Some(false) {
        off = Some("switched off in the configuration".to_owned());
    }
    let local = facts.kind == Some(Kind::Local);
    let reach = if local || is_inside(&origin.host) { Reach::Local } else { Reach::Public };
    Some(Resolved {
        account: Account {
            id: id.to_owned(),
            provider: known.map(|_| section.catalog.clone().unwrap_or_else(|| id.to_owned())),
            dialect,
            may_spend: plan_name == PAID,
            keys: keys.len(),
            local,
            ending: crate::offer::ending(&facts).filter(|_| plan_name != PAID).map(str::to_owned),
            errors: in_order(&facts),
            headers: facts.headers.clone(),
            header_prefixes: facts.header_prefixes.clone(),
            refusal_reports: facts.refusal_reports.clone(),
            // What nobody can read is not asked for, and what is elsewhere must not see the key.
            quota_path: (facts.quota_path.as_deref().filter(|_| !facts.quota_reports.is_empty()))
                .and_then(|path| origin.path_to(path)),
            quota_reports: facts.quota_reports.clone(),
            unsupported: facts.unsupported.clone(),
            renamed: facts.renamed.clone().into_iter().collect(),
            stream_usage: facts.stream_usage.unwrap_or_default(),
            prefill: facts.prefill.clone().unwrap_or_default(),
            plan: plan_name.clone(),
        },
        endpoint: Endpoint { origin, auth, keys, headers, reach, proxy: None },
        off,
        cost: section.cost,
        in_free_offer: plan_name == FREE && facts.plans.contains_key(FREE),
        plan: facts.plans.get(&plan_name).cloned().unwrap_or_default(),
        opted_out: section.opted_out.is_some_and(|date| {
            date.to_string().get(..10).and_then(Timestamp::parse).is_some_and(|turned| turned <= surroundings.now)
        }),
        own_data,
        facts,
    })
}

impl Resolved {
    /// What a model costs here.
    pub(crate) fn cost_of(&self, model: &Model) -> CostClass {
        let priced_at_nothing = model.price.is_some_and(|price| price.input == 0.0 && price.output == 0.0);
        // What the list does not name may be anything: an unknown price counts as one to pay.
        let offered = model.free.unwrap_or_else(|| self.facts.models.iter().any(|listed| listed.id == model.id));
        let free_offer = self.in_free_offer && offered;
        let plan_is_free = self.plan.cost == Some(CostClass::Free) && offered;
        self.cost.unwrap_or({
            if priced_at_nothing || free_offer || plan_is_free || self.account.local {
                CostClass::Free
            } else {
                CostClass::Paid
            }
        })
    }

    /// What happens to what is sent here.
    pub(crate) fn data(&self, now: Timestamp) -> DataFacts {
        let read = |policy: &DataPolicy, as_of| DataFacts::read(policy, as_of, self.opted_out, self.account.local, now);
        if let Some(own) = &self.own_data {
            return read(own, None);
        }
        let policy = self.plan.data.clone().or_else(|| self.facts.data.clone()).unwrap_or_default();
        let as_of = policy.as_of.or(self.facts.as_of).and_then(|date| Timestamp::parse(date.to_string().get(..10)?));
        // Facts without a date cannot be known to be fresh.
        read(&policy, Some(as_of.unwrap_or_default()))
    }

    /// The limits that hold for a model on this account's plan, each with the name of what it counts for.
    pub(crate) fn limits_of<'a>(&'a self, model: &'a Model) -> impl Iterator<Item = (String, &'a Limit)> {
        let account = &self.account.id;
        let holds = |limit: &&Limit| limit.plans.is_empty() || limit.plans.contains(&self.account.plan);
        let owner = move |limit: &Limit, per_model: bool| match &limit.pool {
            Some(pool) if pool.starts_with('/') => pool.clone(),
            Some(_) => account.clone(),
            None if per_model => format!("{account}/{}", model.id),
            None => account.clone(),
        };
        let of_account = self
            .facts
            .limits
            .iter()
            .filter(holds)
            .filter(|limit| limit.is_for(&model.id))
            .map(move |limit| (owner(limit, limit.scope == Some(LimitScope::Model)), limit));
        let of_model = model
            .limits
            .iter()
            .flatten()
            .filter(holds)
            .map(move |limit| (owner(limit, limit.scope != Some(LimitScope::Account)), limit));
        of_account.chain(of_model)
    }
}

/// Features as they are known: a list alone is somebody's word for all of them.
pub(crate) fn features(model: &Model) -> Features {
    let set = |list: &Option<Vec<freeway_types::Feature>>| list.iter().flatten().copied().collect();
    match (&model.features, &model.lacks) {
        (None, None) => Features::default(),
        (Some(_), None) => Features::from_list(set(&model.features)),
        (_, Some(_)) => Features { present: set(&model.features), absent: set(&model.lacks) },
    }
}

/// Prices per token, if they are known and sane.
pub(crate) fn prices(price: ModelPrice) -> Option<Prices> {
    let input = Price::from_usd_per_mtok(price.input)?;
    Some(Prices {
        input,
        cached_input: price.cached_input.and_then(Price::from_usd_per_mtok).unwrap_or(input),
        output: Price::from_usd_per_mtok(price.output)?,
    })
}

/// The provider's own units per token.
pub(crate) fn units(units: ModelPrice) -> Option<Prices> {
    let input = Price::from_units_per_mtok(units.input)?;
    Some(Prices {
        input,
        cached_input: units.cached_input.and_then(Price::from_units_per_mtok).unwrap_or(input),
        output: Price::from_units_per_mtok(units.output)?,
    })
}

/// The user's table goes before the catalogue's file, key by key; models by their ids.
fn lay_over(own: &Provider, known: Option<&Provider>) -> Provider {
    let mut own = own.clone();
    let of_models = own.models.iter_mut().flat_map(|model| model.limits.iter_mut().flatten());
    own.limits.iter_mut().chain(of_models).for_each(|limit| limit.own = true);
    let Some(known) = known else { return own };
    let mut models = known.models.clone();
    for model in own.models {
        match models.iter_mut().find(|known| known.id == model.id) {
            Some(known) => *known = model_over(model, known),
            None => models.push(model),
        }
    }
    Provider {
        name: own.name.or_else(|| known.name.clone()),
        kind: own.kind.or(known.kind),
        status: own.status.or(known.status),
        status_note: own.status_note.or_else(|| known.status_note.clone()),
        summary: own.summary.or_else(|| known.summary.clone()),
        as_of: own.as_of.or(known.as_of),
        confidence: own.confidence.or(known.confidence),
        signup: own.signup.or_else(|| known.signup.clone()),
        offer: own.offer.or(known.offer),
        terms: own.terms.or_else(|| known.terms.clone()),
        // With an address of one's own, the parts of the known one mean nothing.
        variables: match own.base_url.is_some() {
            true => own.variables,
            false => known.variables.clone().into_iter().chain(own.variables).collect(),
        },
        base_url: own.base_url.or_else(|| known.base_url.clone()),
        other_endpoints: or_list(own.other_endpoints, &known.other_endpoints),
        models_path: own.models_path.or_else(|| known.models_path.clone()),
        quota_path: own.quota_path.or_else(|| known.quota_path.clone()),
        dialect: own.dialect.or(known.dialect),
        auth: own.auth.or_else(|| known.auth.clone()),
        env: or_list(own.env, &known.env),
        request_headers: known.request_headers.clone().into_iter().chain(own.request_headers).collect(),
        unsupported: or_list(own.unsupported, &known.unsupported),
        unsupported_effect: own.unsupported_effect.or(known.unsupported_effect),
        renamed: known.renamed.clone().into_iter().chain(own.renamed).collect(),
        stream_usage: own.stream_usage.or(known.stream_usage),
        prefill: own.prefill.or_else(|| known.prefill.clone()),
        data: own.data.or_else(|| known.data.clone()),
        plans: known.plans.clone().into_iter().chain(own.plans).collect(),
        limits: or_list(own.limits, &known.limits),
        uncounted_limits: or_list(own.uncounted_limits, &known.uncounted_limits),
        models,
        errors: own.errors.into_iter().chain(known.errors.iter().cloned()).collect(),
        headers: or_list(own.headers, &known.headers),
        header_prefixes: or_list(own.header_prefixes, &known.header_prefixes),
        refusal_reports: or_list(own.refusal_reports, &known.refusal_reports),
        quota_reports: or_list(own.quota_reports, &known.quota_reports),
        report_examples: or_list(own.report_examples, &known.report_examples),
        sources: known.sources.iter().cloned().chain(own.sources).collect(),
        disputes: known.disputes.clone(),
    }
}

fn or_list<T: Clone>(own: Vec<T>, known: &[T]) -> Vec<T> {
    if own.is_empty() { known.to_vec() } else { own }
}

fn model_over(own: Model, known: &Model) -> Model {
    Model {
        id: own.id,
        aliases: or_list(own.aliases, &known.aliases),
        modality: if own.modality == freeway_catalog::Modality::default() { known.modality } else { own.modality },
        off: own.off.or_else(|| known.off.clone()),
        free: own.free.or(known.free),
        quality: own.quality.or(known.quality),
        quality_note: own.quality_note.or_else(|| known.quality_note.clone()),
        context: own.context.or(known.context),
        free_context: own.free_context.or(known.free_context),
        max_output: own.max_output.or(known.max_output),
        lacks: if own.features.is_some() { own.lacks } else { own.lacks.or_else(|| known.lacks.clone()) },
        features: own.features.or_else(|| known.features.clone()),
        reasoning: own.reasoning.or(known.reasoning),
        price: own.price.or(known.price),
        units_per_mtok: own.units_per_mtok.or(known.units_per_mtok),
        limits: own.limits.or_else(|| known.limits.clone()),
        uncounted_limits: or_list(own.uncounted_limits, &known.uncounted_limits),
        unsupported: or_list(own.unsupported, &known.unsupported),
        note: own.note.or_else(|| known.note.clone()),
        src: known.src.clone(),
    }
}

/// Rules with conditions before rules without.
fn in_order(facts: &Provider) -> Vec<freeway_catalog::ErrorRule> {
    let (specific, general): (Vec<_>, Vec<_>) = facts.errors.iter().cloned().partition(|rule| !rule.when.is_empty());
    specific.into_iter().chain(general).collect()
}

/// A base URL with its variables filled in, and why nothing can be sent there, if one has no value.
fn address(base_url: &str, facts: &Provider, surroundings: &Surroundings<'_>) -> (String, Option<String>) {
    let (mut filled, mut missing) = (base_url.to_owned(), None);
    for (name, reference) in &facts.variables {
        let value = secret(reference, surroundings).map_err(|why| why.message());
        let sound = |value: &Secret| value.expose().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let value = match value {
            Ok(value) if sound(&value) => value.expose().to_owned(),
            Ok(_) => {
                missing = Some(format!("`{name}` may hold letters, digits, `-`, `_` and `.`"));
                "unset".to_owned()
            }
            Err(why) => {
                missing = Some(format!("no `{name}`, which is part of its address: {why}"));
                "unset".to_owned()
            }
        };
        filled = filled.replace(&format!("{{{name}}}"), &value);
    }
    (filled, missing)
}

/// Keys, or why nothing can be sent without them.
fn find_keys(
    section: &ProviderSection,
    facts: &Provider,
    scheme: AuthScheme,
    surroundings: &Surroundings<'_>,
) -> (Vec<Secret>, Option<String>) {
    let mut keys = Vec::new();
    let mut missing = None;
    match &section.keys {
        Some(references) => {
            for reference in references {
                match secret(reference, surroundings) {
                    Ok(key) => keys.push(key),
                    Err(why) => missing = Some(format!("no key: {}", why.message())),
                }
            }
        }
        None => {
            keys.extend(
                facts.env.iter().find_map(|name| (surroundings.variable)(name)).map(|key| Secret::new(key.trim())),
            );
            if keys.is_empty() && !facts.env.is_empty() {
                missing = Some(format!("no key: set {}", facts.env.join(" or ")));
            }
        }
    }
    let off = match scheme {
        _ if !keys.is_empty() => None,
        AuthScheme::None => None,
        _ => Some(missing.unwrap_or_else(|| "no key: set `keys`".to_owned())),
    };
    (keys, off)
}

fn request_headers(
    facts: &Provider,
    wrong: &mut impl FnMut(&[&str], String, Option<String>),
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, value) in &facts.request_headers {
        match (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
            (Ok(name), Ok(value)) => headers.push((name, value)),
            _ => wrong(
                &["request_headers", name],
                format!("`{name}` is not a header, or its value cannot stand in one"),
                None,
            ),
        }
    }
    headers
}

/// Whether a base URL says itself that it leads to the inside of the user's network.
fn is_inside(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse().is_ok_and(|address: std::net::IpAddr| !Reach::Public.allows(address))
}
