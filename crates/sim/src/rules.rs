//! From the rows of a provider file to the rules that hold for one model on one plan.

use freeway_catalog::{Charges, Counts, Limit, LimitScope, Model, ModelPrice, Provider, Reset};
use freeway_types::{Metric, Price};
use jiff::tz::TimeZone;

use crate::window::{Window, length_seconds};

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

/// One limit as it holds for one model. Rules of equal `key` share a counter.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) key: String,
    /// What people call it.
    pub(crate) name: String,
    pub(crate) metric: Metric,
    /// The window in the words of the facts.
    pub(crate) label: Option<String>,
    pub(crate) window: Window,
    pub(crate) reset: Reset,
    /// Its size in grains.
    pub(crate) amount: u64,
    pub(crate) successes_only: bool,
    pub(crate) requested_to_the_end: bool,
    pub(crate) lapses_at: Option<i64>,
    rates: Rates,
}

/// What a token costs in the grains of USD and of units.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    usd_input: u64,
    usd_output: u64,
    units_input: u64,
    units_output: u64,
}

/// The rules for a model by its canonical id: the provider's rows that mean it, and its own.
pub(crate) fn rules(provider: &Provider, plan: &str, model: &str) -> Vec<Rule> {
    let facts = provider.models.iter().find(|facts| facts.id == model);
    let rates = facts.map_or_else(Rates::default, Rates::of);
    let means = |limit: &&Limit| limit.models.is_empty() || limit.models.iter().any(|pattern| matches(pattern, model));
    let general = provider.limits.iter().filter(means).map(|limit| (limit, LimitScope::Account));
    let own = facts.iter().flat_map(|facts| facts.limits.iter().flatten()).map(|limit| (limit, LimitScope::Model));
    general.chain(own).filter_map(|(limit, usual)| Rule::of(limit, plan, model, usual, rates)).collect()
}

// === impl Rule ===

impl Rule {
    /// The rule of a row, unless it is for another plan or its size is not known.
    fn of(limit: &Limit, plan: &str, model: &str, usual: LimitScope, rates: Rates) -> Option<Self> {
        if !limit.plans.is_empty() && !limit.plans.iter().any(|known| known == plan) {
            return None;
        }
        let amount = whole(limit.amount? * to_float(grains_per_unit(limit.metric)));
        let reset = limit.reset.unwrap_or_default();
        // There is one account here, with one address, so a key or an address counts what its row's place says.
        let scope = limit.scope.filter(|scope| matches!(scope, LimitScope::Account | LimitScope::Model));
        let owner = match (&limit.pool, scope.unwrap_or(usual)) {
            (Some(pool), _) => format!("pool {pool}"),
            (None, LimitScope::Model) => format!("model {model}"),
            (None, _) => "account".to_owned(),
        };
        let length = limit.window.as_deref().unwrap_or("-");
        let zone = limit.zone.as_deref().unwrap_or("UTC");
        let mut key = format!("{owner} {} {length} {reset:?} {zone}", limit.metric);
        if limit.pool.is_none() {
            // Without a pool, rows of different size or for different models are different limits.
            key = format!("{key} {amount} {:?}", limit.models);
        }
        Some(Self {
            key,
            name: match &limit.window {
                Some(length) => format!("{owner}: {} per {length}", limit.metric),
                None => format!("{owner}: {}", limit.metric),
            },
            metric: limit.metric,
            label: limit.window.clone(),
            window: window_of(limit, reset)?,
            reset,
            amount,
            successes_only: limit.counts == Some(Counts::Successes),
            requested_to_the_end: limit.charges == Some(Charges::Requested) && limit.metric != Metric::Requests,
            lapses_at: lapse(limit),
            rates,
        })
    }

    /// Whether a single request can be larger than the whole of it.
    pub(crate) fn counts_tokens(&self) -> bool {
        !matches!(self.metric, Metric::Requests | Metric::Concurrency | Metric::Usd | Metric::Units)
    }

    /// The most that a request can use of this limit, as far as it says.
    pub(crate) fn asked(&self, demand: Demand) -> u64 {
        self.grains(Spend { input: demand.input, output: demand.max_output.unwrap_or(0) })
    }

    /// What a request uses of this limit.
    pub(crate) fn grains(&self, spend: Spend) -> u64 {
        match self.metric {
            Metric::Requests | Metric::Concurrency => 1,
            // No simulated answer comes from a cache: all input is uncached.
            Metric::Tokens | Metric::UncachedTokens => spend.input.saturating_add(spend.output),
            Metric::InputTokens => spend.input,
            Metric::OutputTokens => spend.output,
            Metric::Usd => self.rates.usd_input * spend.input + self.rates.usd_output * spend.output,
            Metric::Units => self.rates.units_input * spend.input + self.rates.units_output * spend.output,
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
