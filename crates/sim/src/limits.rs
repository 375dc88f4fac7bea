//! The provider's own books: which limits a request is under, whether it is
//! admitted, and what it is charged.
//!
//! Requests and places are taken on arrival. Tokens and money are counted when the
//! answer is complete; on arrival, what is already used decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use freeway_catalog::{Provider, Reset};
use freeway_types::Metric;
use serde::Serialize;

use crate::rules::{self, Demand, Rule, Spend, grains_per_unit};
use crate::window::{Counter, length_seconds};

/// The newest charges of each limit that are kept.
const CHARGES: usize = 200_000;

/// One admitted request; give it to [`Book::settle`] exactly once.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket {
    rules: Arc<[Held]>,
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
    /// How many requests were refused that did not fit into it.
    pub refused: u64,
    /// How many of these are one unit of the metric: 10¹² for USD, 10⁹ for units, else 1.
    pub unit: u64,
}

/// One entry in the books of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// When it was entered, in microseconds since 1970.
    pub at: i64,
    /// How much, in the units of [`LimitState::unit`]; below zero where something was given back.
    pub units: i64,
}

/// All limits of one account.
#[derive(Debug)]
pub(crate) struct Book {
    provider: Provider,
    plan: String,
    rules: BTreeMap<String, Arc<[Held]>>,
    places: Vec<Place>,
    by_key: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Place {
    name: String,
    metric: Metric,
    amount: u64,
    counter: Counter,
    charges: VecDeque<Charge>,
    refused: u64,
}

/// A rule and the counter it is held against.
#[derive(Clone, Debug)]
struct Held {
    place: usize,
    rule: Rule,
}

// === impl Book ===

impl Book {
    pub(crate) fn new(provider: Provider, plan: &str) -> Self {
        let mut book = Self {
            provider,
            plan: plan.to_owned(),
            rules: BTreeMap::new(),
            places: Vec::new(),
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
        for Held { place, rule } in rules.iter().filter(|held| charged.insert(held.place)) {
            let place = &mut self.places[*place];
            match (rule.metric, &violation) {
                (Metric::Requests, None) => place.charge(now, 1),
                (Metric::Requests, Some(_)) if !rule.successes_only => place.counter.charge_refused(now, 1),
                (Metric::Concurrency, None) => place.charge(now, 1),
                (_, None) if rule.requested_to_the_end => place.charge(now, rule.asked(demand)),
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
        for Held { place, rule } in ticket.rules.iter().filter(|held| seen.insert(held.place)) {
            let place = &mut self.places[*place];
            match rule.metric {
                Metric::Concurrency => place.refund(now, ticket.arrived),
                Metric::Requests if rule.successes_only && !success => place.refund(now, ticket.arrived),
                Metric::Requests => {}
                _ if rule.requested_to_the_end => {}
                _ => match rule.grains(spend) {
                    0 => {}
                    grains => place.charge(now, grains),
                },
            }
        }
    }

    /// The state of every limit that holds for a model.
    pub(crate) fn figures(&mut self, now: i64, model: &str) -> Vec<Figure> {
        let rules = self.rules_for(model);
        rules
            .iter()
            .filter(|held| held.rule.metric != Metric::Concurrency)
            .map(|Held { place, rule }| {
                let counter = &mut self.places[*place].counter;
                Figure {
                    metric: rule.metric,
                    window_seconds: rule.label.as_deref().and_then(length_seconds),
                    limit: rule.amount,
                    used: counter.used(now),
                    reset_at: counter.reset_at(now),
                }
            })
            .collect()
    }

    /// The state of every limit of the account, as far as its models are known.
    pub(crate) fn all_figures(&mut self, now: i64) -> Vec<Figure> {
        let models: Vec<String> = self.rules.keys().cloned().collect();
        models.iter().flat_map(|model| self.figures(now, model)).collect()
    }

    /// Takes so much of a limit's use back, as when somebody pays in.
    pub(crate) fn give_back(&mut self, now: i64, place: usize, units: u64) {
        if let Some(place) = self.places.get_mut(place) {
            place.counter.refund(now, now, units);
            place.enter(now, i64::try_from(units).map_or(i64::MIN, i64::wrapping_neg));
        }
    }

    /// The state of every counter.
    pub(crate) fn states(&mut self, now: i64) -> Vec<LimitState> {
        self.places
            .iter_mut()
            .map(|place| LimitState {
                name: place.name.clone(),
                metric: place.metric,
                amount: place.amount,
                used: place.counter.used(now),
                peak: place.counter.peak(),
                refused: place.refused,
                unit: grains_per_unit(place.metric),
            })
            .collect()
    }

    /// What was entered for a limit, by its place in [`Self::states`], oldest first.
    pub(crate) fn charges(&self, place: usize) -> Vec<Charge> {
        self.places.get(place).map_or_else(Vec::new, |place| place.charges.iter().copied().collect())
    }

    /// The limit that bars a request the longest.
    fn violation(&mut self, now: i64, rules: &[Held], demand: Demand) -> Option<Violation> {
        let mut worst: Option<Violation> = None;
        for Held { place, rule } in rules {
            let amount = if rule.lapses_at.is_some_and(|end| end <= now) { 0 } else { rule.amount };
            let Place { counter, refused, .. } = &mut self.places[*place];
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
            *refused += 1;
            let back_at = if too_large { None } else { counter.fits_at(now, needed, amount) };
            let back_at = back_at.filter(|_| rule.metric != Metric::Concurrency);
            let violation = Violation {
                metric: rule.metric,
                window: rule.label.clone(),
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

    fn rules_for(&mut self, model: &str) -> Arc<[Held]> {
        if let Some(held) = self.rules.get(model) {
            return Arc::clone(held);
        }
        let rules = rules::rules(&self.provider, &self.plan, model);
        let held: Arc<[Held]> = rules.into_iter().map(|rule| Held { place: self.place(&rule), rule }).collect();
        self.rules.insert(model.to_owned(), Arc::clone(&held));
        held
    }

    fn place(&mut self, rule: &Rule) -> usize {
        if let Some(place) = self.by_key.get(&rule.key) {
            return *place;
        }
        let counter = Counter::new(rule.window.clone(), rule.amount);
        let place = self.places.len();
        let (name, metric, amount) = (rule.name.clone(), rule.metric, rule.amount);
        self.places.push(Place { name, metric, amount, counter, charges: VecDeque::new(), refused: 0 });
        self.by_key.insert(rule.key.clone(), place);
        place
    }
}

// === impl Place ===

impl Place {
    fn charge(&mut self, now: i64, units: u64) {
        self.counter.charge(now, units);
        self.enter(now, i64::try_from(units).unwrap_or(i64::MAX));
    }

    /// Gives one back that was charged at `at`.
    fn refund(&mut self, now: i64, at: i64) {
        self.counter.refund(now, at, 1);
        self.enter(now, -1);
    }

    fn enter(&mut self, at: i64, units: i64) {
        if self.charges.len() >= CHARGES {
            self.charges.pop_front();
        }
        self.charges.push_back(Charge { at, units });
    }
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
        let entered: Vec<(i64, i64)> = book.charges(0).into_iter().map(|charge| (charge.at, charge.units)).collect();
        assert_eq!(entered, [(0, 1), (2, -1), (2, 1)]);
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
