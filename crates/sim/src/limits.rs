//! The provider's own books: which limits a request is under, whether it is
//! admitted, and what it is charged.
//!
//! Requests and places are taken on arrival. Tokens and money are counted when the
//! answer is complete; on arrival, what is already used decides.

use std::collections::{BTreeMap, BTreeSet};

use freeway_catalog::{Charges, Counts, Limit, LimitScope, Model, ModelPrice, Provider, Reset};
use freeway_types::{Metric, Price};
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::window::{Counter, Window, length_seconds};

/// What is known of a request on arrival.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand {
    pub(crate) input: u64,
    /// The most output it asks for, if it says so.
    pub(crate) max_output: Option<u64>,
}

/// What a request used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spend {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// One admitted request; give it to [`Book::settle`] exactly once.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket {
    rules: Vec<Rule>,
    arrived: i64,
}

/// The limit that refused a request.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) metric: Metric,
    pub(crate) window: Option<String>,
    pub(crate) reset: Reset,
    pub(crate) limit: u64,
    pub(crate) used: u64,
    pub(crate) requested: u64,
    /// The request alone is larger than the whole limit: no wait helps.
    pub(crate) too_large: bool,
    /// Microseconds until the same request would fit, if it ever does.
    pub(crate) wait: Option<i64>,
    /// When that is, in microseconds since 1970.
    pub(crate) back_at: Option<i64>,
}

/// The state of one limit, as rate headers show it.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) metric: Metric,
    pub(crate) window_seconds: Option<i64>,
    pub(crate) limit: u64,
    pub(crate) used: u64,
    pub(crate) reset_at: Option<i64>,
}

/// The state of one counter, as tests read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitState {
    /// What it belongs to and what it counts.
    pub name: String,
    /// What it counts.
    pub metric: Metric,
    /// Its size, in the units of [`LimitState::unit`].
    pub amount: u64,
    /// What counts as used now.
    pub used: u64,
    /// The most that was ever used at once; above `amount`, the limit was overrun.
    pub peak: u64,
    /// How many of these are one unit of the metric: 10¹² for USD, 10⁹ for units, else 1.
    pub unit: u64,
}

/// All limits of one account.
#[derive(Debug)]
pub(crate) struct Book {
    provider: Provider,
    plan: String,
    rules: BTreeMap<String, Vec<Rule>>,
    counters: Vec<Place>,
    by_key: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Place {
    name: String,
    metric: Metric,
    amount: u64,
    counter: Counter,
}

/// One limit as it holds for one model.
#[derive(Clone, Debug)]
struct Rule {
    place: usize,
    metric: Metric,
    window: Option<String>,
    reset: Reset,
    amount: u64,
    successes_only: bool,
    requested_to_the_end: bool,
    lapses_at: Option<i64>,
    price: Rates,
}

/// What a token costs in the grains of USD and of units.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    usd_input: u64,
    usd_output: u64,
    units_input: u64,
    units_output: u64,
}

// === impl Book ===

impl Book {
    pub(crate) fn new(provider: Provider, plan: &str) -> Self {
        let mut book = Self {
            provider,
            plan: plan.to_owned(),
            rules: BTreeMap::new(),
            counters: Vec::new(),
            by_key: BTreeMap::new(),
        };
        for position in 0..book.provider.models.len() {
            let id = book.provider.models[position].id.clone();
            book.rules_for(&id);
        }
        book
    }

    /// Admits a request or refuses it, and counts it either way. `model` is the canonical id.
    pub(crate) fn arrive(&mut self, now: i64, model: &str, demand: Demand) -> Result<Ticket, Box<Violation>> {
        let rules = self.rules_for(model);
        let violation = self.violation(now, &rules, demand);
        let mut charged = BTreeSet::new();
        for rule in rules.iter().filter(|rule| charged.insert(rule.place)) {
            let counter = &mut self.counters[rule.place].counter;
            match (rule.metric, &violation) {
                (Metric::Requests, None) => counter.charge(now, 1),
                (Metric::Requests, Some(_)) if !rule.successes_only => counter.charge_refused(now, 1),
                (Metric::Concurrency, None) => counter.charge(now, 1),
                (_, None) if rule.requested_to_the_end => counter.charge(now, rule.asked(demand)),
                _ => {}
            }
        }
        match violation {
            Some(violation) => Err(Box::new(violation)),
            None => Ok(Ticket { rules, arrived: now }),
        }
    }

    /// Counts what an admitted request used and gives its place back.
    pub(crate) fn settle(&mut self, now: i64, ticket: &Ticket, spend: Spend, success: bool) {
        let mut seen = BTreeSet::new();
        for rule in ticket.rules.iter().filter(|rule| seen.insert(rule.place)) {
            let counter = &mut self.counters[rule.place].counter;
            match rule.metric {
                Metric::Concurrency => counter.refund(now, ticket.arrived, 1),
                Metric::Requests if rule.successes_only && !success => counter.refund(now, ticket.arrived, 1),
                Metric::Requests => {}
                _ if rule.requested_to_the_end => {}
                _ => match rule.grains(spend) {
                    0 => {}
                    grains => counter.charge(now, grains),
                },
            }
        }
    }

    /// The state of every limit that holds for a model.
    pub(crate) fn figures(&mut self, now: i64, model: &str) -> Vec<Figure> {
        let rules = self.rules_for(model);
        rules
            .iter()
            .filter(|rule| rule.metric != Metric::Concurrency)
            .map(|rule| {
                let counter = &mut self.counters[rule.place].counter;
                Figure {
                    metric: rule.metric,
                    window_seconds: rule.window.as_deref().and_then(length_seconds),
                    limit: rule.amount,
                    used: counter.used(now),
                    reset_at: counter.reset_at(now),
                }
            })
            .collect()
    }

    /// The state of every counter.
    pub(crate) fn states(&mut self, now: i64) -> Vec<LimitState> {
        self.counters
            .iter_mut()
            .map(|place| LimitState {
                name: place.name.clone(),
                metric: place.metric,
                amount: place.amount,
                used: place.counter.used(now),
                peak: place.counter.peak(),
                unit: grains_per_unit(place.metric),
            })
            .collect()
    }

    /// The limit that bars a request the longest.
    fn violation(&mut self, now: i64, rules: &[Rule], demand: Demand) -> Option<Violation> {
        let mut worst: Option<Violation> = None;
        for rule in rules {
            let amount = if rule.lapses_at.is_some_and(|end| end <= now) { 0 } else { rule.amount };
            let counter = &mut self.counters[rule.place].counter;
            let used = counter.used(now);
            let asked = rule.asked(demand);
            let too_large = asked > amount && rule.counts_tokens();
            // Of what is counted at completion, only what is already used can bar.
            let needed =
                if rule.metric == Metric::Requests || rule.metric == Metric::Concurrency || rule.requested_to_the_end {
                    asked
                } else {
                    1
                };
            if !too_large && used.saturating_add(needed) <= amount {
                continue;
            }
            let back_at = if too_large { None } else { counter.fits_at(now, needed, amount) };
            let back_at = back_at.filter(|_| rule.metric != Metric::Concurrency);
            let violation = Violation {
                metric: rule.metric,
                window: rule.window.clone(),
                reset: rule.reset,
                limit: amount,
                used,
                requested: asked,
                too_large,
                wait: back_at.map(|at| at - now),
                back_at,
            };
            let rank = |v: &Violation| (v.too_large, v.metric != Metric::Concurrency, v.wait.unwrap_or(i64::MAX));
            if worst.as_ref().is_none_or(|worst| rank(&violation) > rank(worst)) {
                worst = Some(violation);
            }
        }
        worst
    }

    fn rules_for(&mut self, model: &str) -> Vec<Rule> {
        if let Some(rules) = self.rules.get(model) {
            return rules.clone();
        }
        let facts = self.provider.models.iter().find(|facts| facts.id == model).cloned();
        let rates = facts.as_ref().map_or_else(Rates::default, Rates::of);
        let mut rules = Vec::new();
        for limit in self.provider.limits.clone() {
            let for_model = limit.models.is_empty() || limit.models.iter().any(|pattern| matches(pattern, model));
            if for_model {
                rules.extend(self.rule(&limit, model, LimitScope::Account, rates));
            }
        }
        for limit in facts.iter().flat_map(|facts| facts.limits.iter().flatten()) {
            rules.extend(self.rule(limit, model, LimitScope::Model, rates));
        }
        self.rules.insert(model.to_owned(), rules.clone());
        rules
    }

    /// The rule of a row, unless it is for another plan or its size is not known.
    fn rule(&mut self, limit: &Limit, model: &str, usual: LimitScope, rates: Rates) -> Option<Rule> {
        if !limit.plans.is_empty() && !limit.plans.contains(&self.plan) {
            return None;
        }
        let amount = whole(limit.amount? * to_float(grains_per_unit(limit.metric)));
        let reset = limit.reset.unwrap_or_default();
        let owner = match (&limit.pool, limit.scope.unwrap_or(usual)) {
            (Some(pool), _) => format!("pool {pool}"),
            (None, LimitScope::Account) => "account".to_owned(),
            (None, LimitScope::Model) => format!("model {model}"),
        };
        let length = limit.window.as_deref().unwrap_or("-");
        let zone = limit.zone.as_deref().unwrap_or("UTC");
        let mut key = format!("{owner} {} {length} {reset:?} {zone}", limit.metric);
        if limit.pool.is_none() {
            // Without a pool, rows of different size or for different models are different limits.
            key = format!("{key} {amount} {:?}", limit.models);
        }
        let place = match self.by_key.get(&key) {
            Some(place) => *place,
            None => {
                let counter = Counter::new(window_of(limit, reset)?, amount);
                let name = format!("{owner}: {} per {length}", limit.metric);
                self.counters.push(Place { name, metric: limit.metric, amount, counter });
                self.by_key.insert(key, self.counters.len() - 1);
                self.counters.len() - 1
            }
        };
        Some(Rule {
            place,
            metric: limit.metric,
            window: limit.window.clone(),
            reset,
            amount,
            successes_only: limit.counts == Some(Counts::Successes),
            requested_to_the_end: limit.charges == Some(Charges::Requested) && limit.metric != Metric::Requests,
            lapses_at: lapse(limit),
            price: rates,
        })
    }
}

// === impl Rule ===

impl Rule {
    fn counts_tokens(&self) -> bool {
        !matches!(self.metric, Metric::Requests | Metric::Concurrency | Metric::Usd | Metric::Units)
    }

    /// The most that a request can use of this limit, as far as it says.
    fn asked(&self, demand: Demand) -> u64 {
        self.grains(Spend { input: demand.input, output: demand.max_output.unwrap_or(0) })
    }

    fn grains(&self, spend: Spend) -> u64 {
        match self.metric {
            Metric::Requests | Metric::Concurrency => 1,
            // No simulated answer comes from a cache: all input is uncached.
            Metric::Tokens | Metric::UncachedTokens => spend.input.saturating_add(spend.output),
            Metric::InputTokens => spend.input,
            Metric::OutputTokens => spend.output,
            Metric::Usd => self.price.usd_input * spend.input + self.price.usd_output * spend.output,
            Metric::Units => self.price.units_input * spend.input + self.price.units_output * spend.output,
        }
    }
}

// === impl Rates ===

impl Rates {
    fn of(model: &Model) -> Self {
        let usd = |pick: fn(&ModelPrice) -> f64| {
            let price = model.price.as_ref().map_or(0.0, pick);
            Price::from_usd_per_mtok(price).map_or(0, Price::as_micros_per_mtok)
        };
        let units =
            |pick: fn(&ModelPrice) -> f64| model.units_per_mtok.as_ref().map_or(0, |rate| whole(pick(rate) * 1e3));
        Self {
            usd_input: usd(|price| price.input),
            usd_output: usd(|price| price.output),
            units_input: units(|price| price.input),
            units_output: units(|price| price.output),
        }
    }
}

/// Whether a model's id is meant by a pattern, whose last character may be a star.
fn matches(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => model.starts_with(start),
        None => pattern == model,
    }
}

fn window_of(limit: &Limit, reset: Reset) -> Option<Window> {
    if limit.metric == Metric::Concurrency {
        return Some(Window::Never);
    }
    let length = || limit.window.as_deref().and_then(length_seconds).and_then(|seconds| seconds.checked_mul(1_000_000));
    match reset {
        Reset::Rolling | Reset::Unknown => length().map(Window::Rolling),
        Reset::Bucket => length().map(Window::Bucket),
        Reset::Anchored => length().map(Window::Anchored),
        Reset::Never => Some(Window::Never),
        Reset::Calendar => {
            let zone = limit.zone.as_deref().map_or(Some(TimeZone::UTC), |name| TimeZone::get(name).ok())?;
            Window::calendar(limit.window.as_deref()?, &zone)
        }
    }
}

/// When a credit lapses: at the start (UTC) of the day named.
fn lapse(limit: &Limit) -> Option<i64> {
    let day = |date: String| date.parse::<jiff::civil::Date>().ok();
    let expires = limit.expires.as_ref().and_then(|date| day(date.to_string()));
    let counted = match (&limit.since, limit.expires_days) {
        (Some(since), Some(days)) => {
            day(since.to_string()).and_then(|date| date.checked_add(jiff::Span::new().days(i64::from(days))).ok())
        }
        _ => None,
    };
    let last = expires.into_iter().chain(counted).min()?;
    Some(last.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond())
}

/// How finely a metric is counted: picodollars, thousand-millionths of a unit, else whole ones.
pub(crate) fn grains_per_unit(metric: Metric) -> u64 {
    match metric {
        Metric::Usd => 1_000_000_000_000,
        Metric::Units => 1_000_000_000,
        _ => 1,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "facts are validated; a cast saturates")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "only powers of ten come here")]
fn to_float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn book(text: &str, plan: &str) -> Book {
        Book::new(freeway_catalog::parse("x.toml", text).unwrap(), plan)
    }

    fn demand(input: u64, max_output: u64) -> Demand {
        Demand { input, max_output: Some(max_output) }
    }

    #[test]
    fn plans_patterns_and_scopes_select_the_rows() {
        let mut book = book(
            r#"
            limits = [
                { metric = "requests", window = "minute", amount = 2, models = ["small*"], plans = ["free"] },
                { metric = "requests", window = "minute", amount = 9, plans = ["paid"] },
            ]
            models = [{ id = "small-1" }, { id = "small-2" }, { id = "large" }]
            "#,
            "free",
        );
        assert!(book.arrive(0, "small-1", Demand::default()).is_ok());
        assert!(book.arrive(0, "small-2", Demand::default()).is_ok());
        let refused = book.arrive(0, "small-1", Demand::default()).unwrap_err();
        assert_eq!((refused.limit, refused.used, refused.wait), (2, 2, Some(60 * SECOND)));
        for _ in 0..20 {
            assert!(book.arrive(0, "large", Demand::default()).is_ok());
        }
    }

    #[test]
    fn a_pool_is_one_counter_and_a_model_row_is_one_each() {
        let mut book = book(
            r#"
            [[models]]
            id = "a"
            limits = [{ metric = "requests", window = "hour", amount = 2, pool = "p" }]
            [[models]]
            id = "b"
            limits = [{ metric = "requests", window = "hour", amount = 2, pool = "p" }]
            [[models]]
            id = "c"
            limits = [{ metric = "requests", window = "hour", amount = 1 }]
            [[models]]
            id = "d"
            limits = [{ metric = "requests", window = "hour", amount = 1 }]
            "#,
            "free",
        );
        assert!(book.arrive(0, "a", Demand::default()).is_ok());
        assert!(book.arrive(0, "b", Demand::default()).is_ok());
        assert!(book.arrive(0, "a", Demand::default()).is_err());
        assert!(book.arrive(0, "c", Demand::default()).is_ok());
        assert!(book.arrive(0, "d", Demand::default()).is_ok());
        assert!(book.arrive(0, "d", Demand::default()).is_err());
    }

    #[test]
    fn tokens_count_at_completion_and_bar_the_next_arrival() {
        let text = "[[limits]]\nmetric = \"tokens\"\nwindow = \"10s\"\namount = 100\n";
        let mut book = book(text, "free");
        let first = book.arrive(0, "m", demand(30, 60)).unwrap();
        let second = book.arrive(0, "m", demand(30, 60)).unwrap();
        book.settle(SECOND, &first, Spend { input: 30, output: 60 }, true);
        assert!(book.arrive(SECOND, "m", demand(30, 60)).is_ok());
        book.settle(2 * SECOND, &second, Spend { input: 30, output: 5 }, true);
        let refused = book.arrive(2 * SECOND, "m", demand(1, 1)).unwrap_err();
        assert_eq!((refused.used, refused.wait), (125, Some(9 * SECOND)));
        let large = book.arrive(60 * SECOND, "m", demand(50, 51)).unwrap_err();
        assert!(large.too_large);
        assert_eq!(book.states(60 * SECOND)[0].peak, 125);
    }

    #[test]
    fn refused_attempts_count_unless_only_successes_do() {
        for (counts, expected) in [("all", 3), ("successes", 1)] {
            let mut book = book(
                &format!(
                    "limits = [{{ metric = \"requests\", window = \"10s\", amount = 1, counts = \"{counts}\" }}]\n"
                ),
                "free",
            );
            let _first = book.arrive(0, "m", Demand::default()).unwrap();
            assert!(book.arrive(1, "m", Demand::default()).is_err());
            assert!(book.arrive(2, "m", Demand::default()).is_err());
            assert_eq!(book.figures(2, "m")[0].used, expected);
        }
    }

    #[test]
    fn an_attempt_that_failed_is_taken_back_where_only_successes_count() {
        let text = "limits = [{ metric = \"requests\", window = \"10s\", amount = 1, counts = \"successes\" }]\n";
        let mut book = book(text, "free");
        let ticket = book.arrive(0, "m", Demand::default()).unwrap();
        book.settle(1, &ticket, Spend::default(), false);
        assert!(book.arrive(2, "m", Demand::default()).is_ok());
    }

    #[test]
    fn places_come_back_when_requests_end() {
        let mut book = book("limits = [{ metric = \"concurrency\", amount = 1 }]\n", "free");
        let ticket = book.arrive(0, "m", Demand::default()).unwrap();
        let refused = book.arrive(1, "m", Demand::default()).unwrap_err();
        assert_eq!((refused.metric, refused.wait), (Metric::Concurrency, None));
        book.settle(2, &ticket, Spend::default(), true);
        assert!(book.arrive(2, "m", Demand::default()).is_ok());
    }

    #[test]
    fn money_and_units_are_counted_by_the_models_rates() {
        let mut book = book(
            r#"
            limits = [
                { metric = "usd", reset = "never", amount = 0.001 },
                { metric = "units", window = "day", reset = "calendar", amount = 10000 },
            ]
            [[models]]
            id = "m"
            price = { input = 1.0, output = 2.0 }
            units_per_mtok = { input = 200.0, output = 900.5 }
            "#,
            "free",
        );
        let ticket = book.arrive(0, "m", Demand::default()).unwrap();
        book.settle(0, &ticket, Spend { input: 400, output: 200 }, true);
        let used: Vec<u64> = book.states(0).iter().map(|state| state.used).collect();
        assert_eq!(used, [800_000_000, 260_100_000]);
        let ticket = book.arrive(1, "m", Demand::default()).unwrap();
        book.settle(1, &ticket, Spend { input: 400, output: 200 }, true);
        let refused = book.arrive(2, "m", Demand::default()).unwrap_err();
        assert_eq!((refused.metric, refused.wait), (Metric::Usd, None));
    }

    #[test]
    fn a_credit_lapses_and_requested_tokens_stay_charged() {
        let mut book = book(
            r#"
            limits = [
                { metric = "tokens", reset = "never", amount = 1000, since = 1970-01-01, expires_days = 2 },
                { metric = "tokens", window = "minute", amount = 100, charges = "requested" },
            ]
            "#,
            "free",
        );
        let ticket = book.arrive(0, "m", demand(10, 50)).unwrap();
        book.settle(1, &ticket, Spend { input: 10, output: 1 }, true);
        assert!(book.arrive(2, "m", demand(10, 50)).is_err());
        assert!(book.arrive(2, "m", demand(10, 30)).is_ok());
        assert!(book.arrive(2 * 86_400 * SECOND, "m", demand(1, 1)).is_err());
    }
}
