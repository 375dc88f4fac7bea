//! What each provider of the catalogue offers, for people: what it gives, what it asks, what it does with data, and how
//! old all that is.

use freeway_catalog::{
    Allowed, Catalog, Confidence, Daily, DataPolicy, Dispute, Kind, Limit, Model, Offer, Plan, Provider, Reset,
    STALE_DAYS, Status, Terms, Trains, daily,
};
use freeway_policy::{DataFacts, permits};
use freeway_types::{DataClass, Metric, Timestamp};
use serde::Serialize;

/// One provider, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct Card {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What kind of provider it is.
    pub kind: Option<Kind>,
    /// What kind of thing it gives away.
    pub offer: Option<Offer>,
    /// Why it is not used unless the configuration says so, if it is not.
    pub off: Option<String>,
    /// What it gives away and the catches.
    pub summary: String,
    /// Where to sign up.
    pub signup: Option<String>,
    /// Root of its interface.
    pub base_url: Option<String>,
    /// Where people keep its key.
    pub env: Vec<String>,
    /// What is asked of who signs up, and what is allowed.
    pub terms: Terms,
    /// Its plans, by name.
    pub plans: Vec<PlanCard>,
    /// Chat models of the free plan.
    pub free_models: usize,
    /// Requests that the free plan carries in a day.
    pub requests: Daily,
    /// Tokens that it carries in a day.
    pub tokens: Daily,
    /// Its models.
    pub models: Vec<ModelCard>,
    /// Limits of the account, in words.
    pub limits: Vec<String>,
    /// Where sources disagree, and what is assumed.
    pub disputes: Vec<String>,
    /// Where the facts come from.
    pub sources: Vec<String>,
    /// When the core of the facts was last confirmed.
    pub as_of: Option<String>,
    /// How far they can be trusted.
    pub confidence: Option<Confidence>,
    /// Days since then.
    pub age_days: Option<i64>,
    /// Whether they are too old to be relied on.
    pub stale: bool,
}

/// One plan, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct PlanCard {
    /// Its name.
    pub name: String,
    /// What it is.
    pub summary: Option<String>,
    /// Whether the provider trains on what it is sent, as far as that is still known.
    pub trains: Trains,
    /// Days until it is deleted, if known.
    pub retention_days: Option<u32>,
    /// The strictest class of data that may go there.
    pub strictest_data: DataClass,
    /// Whether the policy was read so long ago that it counts as unknown.
    pub policy_stale: bool,
    /// How training is switched off, where it can be.
    pub opt_out: Option<String>,
    /// The policy in words.
    pub note: Option<String>,
}

/// One model, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct ModelCard {
    /// Its id.
    pub id: String,
    /// Whether the free offer covers it.
    pub free: bool,
    /// Why it cannot be used, if so.
    pub off: Option<String>,
    /// Its quality, 1 to 5.
    pub quality: Option<u8>,
    /// Input and output tokens that fit together, on the free plan if it is less there.
    pub context: Option<u64>,
    /// Its limits, in words.
    pub limits: Vec<String>,
}

/// What the free plans of all providers carry in a day.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Total {
    /// Providers that are counted: those that are not off.
    pub providers: usize,
    /// Requests.
    pub requests: Daily,
    /// Tokens.
    pub tokens: Daily,
}

/// The cards of all providers, by id.
#[must_use]
pub fn cards(catalog: &Catalog, now: Timestamp) -> Vec<Card> {
    catalog.iter().map(|(id, provider)| card(id, provider, now)).collect()
}

/// Adds up what the providers carry that are not off.
#[must_use]
pub fn total(cards: &[Card]) -> Total {
    let mut total = Total::default();
    for card in cards.iter().filter(|card| card.off.is_none()) {
        total.providers += 1;
        for (sum, one) in [(&mut total.requests, card.requests), (&mut total.tokens, card.tokens)] {
            sum.documented += one.documented;
            sum.theoretical += one.theoretical;
            sum.unknown_models += one.unknown_models;
        }
    }
    total
}

/// Why a provider is off unless the configuration says otherwise.
pub(crate) fn off(provider: &Provider) -> Option<String> {
    if provider.status.is_some_and(|status| status != Status::Active) {
        let unsaid = || "the provider cannot be used any more".to_owned();
        return Some(provider.status_note.clone().unwrap_or_else(unsaid));
    }
    forbids_gateways(provider)
        .then(|| "its terms forbid requests through a gateway; `enabled = true` uses it all the same".to_owned())
}

/// Why what is given away will not last, by what kind of thing it is.
pub(crate) fn ending(provider: &Provider) -> Option<&'static str> {
    match provider.offer? {
        Offer::TrialCredit => Some("its free offer is a credit for trying it"),
        Offer::Promotion => Some("its free offer is a gift that may end any day"),
        Offer::Ended => Some("its free offer has ended"),
        _ => None,
    }
}

/// The day that a provider's facts are of.
pub(crate) fn read_on(provider: &Provider) -> Option<Timestamp> {
    Timestamp::parse(provider.as_of?.to_string().get(..10)?)
}

/// Whether the terms forbid requests through a gateway.
pub(crate) fn forbids_gateways(provider: &Provider) -> bool {
    provider.terms.as_ref().and_then(|terms| terms.gateways) == Some(Allowed::No)
}

/// The day that facts are of, if they are too old to be relied on, or have none.
pub(crate) fn stale(provider: &Provider, now: Timestamp) -> Option<String> {
    let Some(as_of) = provider.as_of.map(|date| date.to_string()) else { return Some("an unknown day".to_owned()) };
    let read = read_on(provider).unwrap_or_default();
    (days_between(read, now) > STALE_DAYS).then_some(as_of)
}

fn days_between(earlier: Timestamp, later: Timestamp) -> i64 {
    (later.as_secs() - earlier.as_secs()) / 86_400
}

fn card(id: &str, provider: &Provider, now: Timestamp) -> Card {
    let as_of = provider.as_of.map(|date| date.to_string());
    let read = read_on(provider);
    let age_days = read.map(|read| days_between(read, now));
    let off = off(provider);
    let models: Vec<ModelCard> = provider.models.iter().map(model_card).collect();
    Card {
        id: id.to_owned(),
        name: provider.name.clone().unwrap_or_else(|| id.to_owned()),
        kind: provider.kind,
        offer: provider.offer,
        summary: provider.summary.clone().unwrap_or_default(),
        signup: provider.signup.clone(),
        base_url: provider.base_url.clone(),
        env: provider.env.clone(),
        terms: provider.terms.clone().unwrap_or_default(),
        plans: provider.plans.iter().map(|(name, plan)| plan_card(name, plan, provider, read, now)).collect(),
        free_models: models.iter().filter(|model| model.free && model.off.is_none()).count(),
        requests: daily(provider, Metric::Requests),
        tokens: daily(provider, Metric::Tokens),
        models,
        limits: limits_in_words(&provider.limits, &provider.uncounted_limits),
        disputes: provider.disputes.iter().map(dispute_in_words).collect(),
        sources: provider.sources.iter().map(|source| format!("{} ({})", source.url, source.date)).collect(),
        as_of,
        confidence: provider.confidence,
        age_days,
        stale: stale(provider, now).is_some(),
        off,
    }
}

fn plan_card(name: &str, plan: &Plan, provider: &Provider, read: Option<Timestamp>, now: Timestamp) -> PlanCard {
    let policy: DataPolicy = plan.data.clone().or_else(|| provider.data.clone()).unwrap_or_default();
    let as_of = policy.as_of.and_then(|date| Timestamp::parse(date.to_string().get(..10)?)).or(read);
    let local = provider.kind == Some(Kind::Local);
    let facts = DataFacts::read(&policy, Some(as_of.unwrap_or_default()), false, local, now);
    let strictest = DataClass::ALL.into_iter().rev().find(|class| permits(*class, &facts).is_ok());
    PlanCard {
        name: name.to_owned(),
        summary: plan.summary.clone(),
        trains: facts.trains,
        retention_days: facts.retention_days,
        strictest_data: strictest.unwrap_or(DataClass::Public),
        policy_stale: facts.stale,
        opt_out: policy.opt_out,
        note: policy.note,
    }
}

fn model_card(model: &Model) -> ModelCard {
    ModelCard {
        id: model.id.clone(),
        free: model.free != Some(false),
        off: model.off.clone(),
        quality: model.quality.map(freeway_types::Quality::get),
        context: model.free_context.or(model.context),
        limits: limits_in_words(model.limits.as_deref().unwrap_or_default(), &model.uncounted_limits),
    }
}

fn dispute_in_words(dispute: &Dispute) -> String {
    format!("{}: {} Assumed: {}", dispute.topic, dispute.positions.join(" "), dispute.assumed)
}

fn limits_in_words(limits: &[Limit], uncounted: &[String]) -> Vec<String> {
    let not_counted = uncounted.iter().map(|words| format!("not counted: {words}"));
    limits.iter().map(limit_in_words).chain(not_counted).collect()
}

/// A limit as people say it: `20 requests a day, back at midnight in America/Los_Angeles (plan free)`.
#[must_use]
pub(crate) fn limit_in_words(limit: &Limit) -> String {
    let metric = match limit.metric {
        Metric::Concurrency => "at a time".to_owned(),
        Metric::Usd => "USD".to_owned(),
        metric => metric.as_str().replace('_', " "),
    };
    let amount = limit.amount.map_or_else(|| "an unknown number of".to_owned(), number);
    let mut words = format!("{amount} {metric}");
    match limit.window.as_deref() {
        Some("hour") => words.push_str(" an hour"),
        Some(unit @ ("second" | "minute" | "day" | "week" | "month")) => words.push_str(&format!(" a {unit}")),
        Some(length) => words.push_str(&format!(" in {length}")),
        None => {}
    }
    match limit.reset {
        Some(Reset::Never) => match (limit.expires, limit.expires_days) {
            (Some(date), _) => words.push_str(&format!(" once, until {date}")),
            (None, Some(days)) => words.push_str(&format!(" once, for {days} days")),
            (None, None) => words.push_str(" once"),
        },
        Some(Reset::Calendar) => {
            words.push_str(&format!(", by the calendar of {}", limit.zone.as_deref().unwrap_or("UTC")));
        }
        Some(Reset::Bucket) => words.push_str(", refilled evenly"),
        Some(Reset::Anchored) => words.push_str(", from the first use"),
        Some(Reset::Unknown) => words.push_str(", back at an unknown time"),
        Some(Reset::Rolling) | None => {}
    }
    let mut more = Vec::new();
    if let Some(pool) = &limit.pool {
        more.push(format!("shared as `{pool}`"));
    }
    if !limit.models.is_empty() {
        more.push(format!("for {}", limit.models.join(", ")));
    }
    if !limit.plans.is_empty() {
        more.push(format!("plan {}", limit.plans.join(", ")));
    }
    if limit.confidence == Some(Confidence::Low) {
        more.push("low confidence".to_owned());
    }
    if let Some(disputed) = &limit.disputed {
        more.push(format!("disputed: {}", disputed.trim_end_matches('.')));
    }
    if !more.is_empty() {
        words.push_str(&format!(" ({})", more.join("; ")));
    }
    words
}

/// A number with thousands set apart, and a fraction only where there is one.
#[must_use]
pub fn number(value: f64) -> String {
    let text = format!("{value}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: &str = r#"
        name = "Example"
        offer = "recurring"
        as_of = 2026-06-01
        terms = { card = "no", gateways = "no" }
        plans.free.data = { train_class = "no", retention_days = 30 }
        plans.paid.data = { train_class = "no_store", retention_days = 0, as_of = 2026-01-01 }
        limits = [{ metric = "requests", window = "day", amount = 1000, reset = "calendar", zone = "Asia/Tokyo", plans = ["free"] }]
        [[models]]
        id = "small"
        limits = [{ metric = "concurrency", amount = 4, confidence = "low", disputed = "one list says 8." }]
    "#;

    fn example(now: &str) -> Card {
        card("example", &toml::from_str(FACTS).unwrap(), Timestamp::parse(now).unwrap())
    }

    #[test]
    fn age_shows() {
        assert!(!example("2026-07-31").stale);
        assert!(example("2026-08-01").stale);
        let classes = |now| example(now).plans.iter().map(|plan| plan.strictest_data).collect::<Vec<_>>();
        assert_eq!(classes("2026-06-20"), [DataClass::Personal, DataClass::Secret]);
        assert_eq!(classes("2026-07-01"), [DataClass::Personal, DataClass::Public], "the second policy is older");
        assert_eq!(classes("2026-12-01"), [DataClass::Public, DataClass::Public]);
    }

    #[test]
    fn limits_are_said_in_words() {
        let card = example("2026-06-20");
        assert_eq!(card.limits, ["1,000 requests a day, by the calendar of Asia/Tokyo (plan free)"]);
        assert_eq!(card.models[0].limits, ["4 at a time (low confidence; disputed: one list says 8)"]);
        assert_eq!([number(1_500_000.0), number(0.25), number(999.0)], ["1,500,000", "0.25", "999"]);
    }

    #[test]
    fn what_is_off_is_shown_and_not_counted() {
        let card = example("2026-06-20");
        assert_eq!((card.requests.documented, card.off.is_some()), (1000, true));
        assert_eq!(total(&[card]).providers, 0);
    }
}
