//! Decisions, counted again by arithmetic that shares nothing with the gateway's.
//!
//! Each limit is counted by the plainest rule there is: of one that slides, no stretch of time as long as its window
//! holds more than its amount; of a calendar's, no civil day, week or month of its zone; a bucket is full at the start
//! and never below empty; a credit is spent once, and not after it has lapsed.

use std::collections::BTreeMap;

use freeway_quota::{Civil, Grant, LimitSpec, Rule};
use freeway_router::Deployment;
use freeway_types::{Metric, Monotonic, Timestamp};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::Scenario;
use crate::run::Decision;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recount {
    /// How each limit was used, in the order of the configuration.
    pub limits: Vec<LimitUse>,
    /// What was broken, by which decision, in the order in which they were made.
    pub broken: Vec<Broken>,
}

/// How one limit was used. Amounts are in its own units: requests, tokens, or USD.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitUse {
    /// Its name.
    pub limit: String,
    /// What it counts.
    pub metric: Metric,
    /// How much is allowed in one window; nothing where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<f64>,
    /// How many windows the workload reaches over.
    pub windows: u64,
    /// The most that was used in one: of a bucket, the most that was ever missing in it.
    pub most: f64,
    /// What was used in all.
    pub used: f64,
}

/// A decision that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The request's position in the workload.
    pub line: usize,
    /// When it was sent.
    pub at: Monotonic,
    /// Which rule is broken, and how.
    pub what: String,
}

/// One charge of a limit.
#[derive(Clone, Copy)]
struct Charge {
    line: usize,
    at: Monotonic,
    units: u64,
}

/// What counting one limit gives.
#[derive(Default)]
struct Count {
    windows: u64,
    most: u64,
    /// The charges that were too much, with what their window then held.
    over: Vec<(Charge, u64)>,
}

/// Counts decisions again, and looks whether each was allowed.
#[must_use]
pub fn recount(scenario: Scenario<'_>, decisions: &[Decision]) -> Recount {
    let mut broken = Vec::new();
    let mut charges: Vec<Vec<Charge>> = vec![Vec::new(); scenario.limits.len()];
    let mut served = vec![false; scenario.workload.arrivals.len()];
    for decision in decisions {
        let Decision { line, at, target } = *decision;
        let mut tell = |what: String| broken.push(Broken { line, at, what });
        let Some(arrival) = scenario.workload.arrivals.get(line) else {
            tell("there is no such line".to_owned());
            continue;
        };
        let Some(deployment) = scenario.snapshot.deployments.get(target.get()) else {
            tell("there is no such target".to_owned());
            continue;
        };
        if std::mem::replace(&mut served[line], true) {
            tell("it was served twice".to_owned());
        }
        if at < arrival.arrives || at > arrival.deadline {
            tell("it was served before it came or after its time".to_owned());
        }
        let (size, quality) = (arrival.size_at(deployment), arrival.admission.min_quality);
        if deployment.quality < quality {
            tell(format!("{}: quality {}, and {quality} is needed", deployment.name, deployment.quality));
        }
        let least = size.input + arrival.chat.max_output.unwrap_or(1);
        if deployment.context.is_some_and(|context| least > context) {
            tell(format!("{}: it does not fit the context", deployment.name));
        }
        for limit in &deployment.limits {
            let units = units(&scenario.limits[limit.get()], deployment, size.input, size.output);
            charges[limit.get()].push(Charge { line, at, units });
        }
    }
    let last_arrival = scenario.workload.arrivals.iter().map(|arrival| arrival.deadline).max();
    let end = decisions.iter().map(|decision| decision.at).max().max(last_arrival).unwrap_or_default();
    let mut limits = Vec::new();
    for (spec, mut charges) in scenario.limits.iter().zip(charges) {
        charges.sort_by_key(|charge| charge.at);
        let count = count(spec, &charges, scenario.start, end);
        for (charge, held) in count.over {
            let (held, amount) = (shown(spec, held), shown(spec, spec.amount.unwrap_or_default()));
            let what = format!("{}: {held} used, and {amount} is the limit", spec.name);
            broken.push(Broken { line: charge.line, at: charge.at, what });
        }
        limits.push(LimitUse {
            limit: spec.name.clone(),
            metric: spec.metric,
            amount: spec.amount.map(|amount| shown(spec, amount)),
            windows: count.windows,
            most: shown(spec, count.most),
            used: shown(spec, charges.iter().map(|charge| charge.units).sum()),
        });
    }
    broken.sort_by_key(|broken| (broken.at, broken.line));
    Recount { limits, broken }
}

/// What a request uses of a limit.
fn units(spec: &LimitSpec, deployment: &Deployment, input: u64, output: u64) -> u64 {
    let priced = |prices: Option<freeway_router::Prices>| {
        prices.map_or(0, |prices| {
            let (input_price, output_price) = (prices.input.as_micros_per_mtok(), prices.output.as_micros_per_mtok());
            input * input_price + output * output_price
        })
    };
    match spec.metric {
        Metric::Requests => 1,
        Metric::InputTokens => input,
        Metric::OutputTokens => output,
        Metric::Tokens | Metric::UncachedTokens => input + output,
        Metric::Usd => priced(deployment.prices),
        Metric::Units => priced(deployment.units).div_ceil(1_000_000_000_000),
        // Answers are immediate.
        Metric::Concurrency => 0,
    }
}

fn count(spec: &LimitSpec, charges: &[Charge], start: Timestamp, end: Monotonic) -> Count {
    let amount = spec.amount.unwrap_or(u64::MAX);
    match &spec.rule {
        Rule::Rolling(window) => sliding(charges, micros(*window), amount, end),
        Rule::Bucket(window) => bucket(charges, micros(*window), amount, end),
        Rule::Calendar(civil, zone) => calendar(charges, *civil, zone, amount, start, end),
        Rule::Never(grants) => credits(charges, grants, start),
        Rule::Concurrency => Count::default(),
    }
}

fn sliding(charges: &[Charge], window: u64, amount: u64, end: Monotonic) -> Count {
    let mut count = Count { windows: end.as_micros() / window + 1, ..Count::default() };
    let (mut first, mut held) = (0, 0_u64);
    for charge in charges {
        held += charge.units;
        while charges[first].at.as_micros() + window <= charge.at.as_micros() {
            held -= charges[first].units;
            first += 1;
        }
        count.see(*charge, held, amount);
    }
    count
}

fn bucket(charges: &[Charge], window: u64, amount: u64, end: Monotonic) -> Count {
    let mut count = Count { windows: end.as_micros() / window + 1, ..Count::default() };
    // What is missing from the full bucket, in units times microseconds of the window.
    let (mut missing, mut last) = (0_u128, 0_u64);
    for charge in charges {
        let refilled = u128::from(charge.at.as_micros() - last) * u128::from(amount);
        missing = missing.saturating_sub(refilled) + u128::from(charge.units) * u128::from(window);
        last = charge.at.as_micros();
        let units = u64::try_from(missing.div_ceil(u128::from(window))).unwrap_or(u64::MAX);
        count.see(*charge, units, amount);
    }
    count
}

fn calendar(charges: &[Charge], civil: Civil, zone: &TimeZone, amount: u64, start: Timestamp, end: Monotonic) -> Count {
    let number = |at: Monotonic| window_number(start.as_micros() + signed(at.as_micros()), civil, zone);
    let span = number(end) - number(Monotonic::default());
    let mut count = Count { windows: span.unsigned_abs() + 1, ..Count::default() };
    let mut held: BTreeMap<i64, u64> = BTreeMap::new();
    for charge in charges {
        let held = held.entry(number(charge.at)).or_default();
        *held += charge.units;
        count.see(*charge, *held, amount);
    }
    count
}

/// The number of a civil window: of days, weeks or months that clocks in a zone show, or of multiples since 1970.
fn window_number(micros: i64, civil: Civil, zone: &TimeZone) -> i64 {
    let date: Date = match (civil, jiff::Timestamp::from_microsecond(micros)) {
        (Civil::Multiple(length), _) => return micros.div_euclid(signed(self::micros(length))),
        (_, Ok(instant)) => zone.to_datetime(instant).date(),
        (_, Err(_)) => return 0,
    };
    let days = date.duration_since(jiff::civil::date(1970, 1, 5)).as_hours() / 24;
    match civil {
        Civil::Week => days.div_euclid(7),
        Civil::Month => i64::from(date.year()) * 12 + i64::from(date.month()),
        Civil::Day | Civil::Multiple(_) => days,
    }
}

fn credits(charges: &[Charge], grants: &[Grant], start: Timestamp) -> Count {
    let mut left: Vec<(Option<Timestamp>, u64)> =
        grants.iter().map(|grant| (grant.expires, grant.amount.unwrap_or(u64::MAX))).collect();
    left.sort_by_key(|(expires, _)| (expires.is_none(), *expires));
    let mut count = Count { windows: 1, ..Count::default() };
    let mut spent = 0;
    for charge in charges {
        let now = Timestamp::from_micros(start.as_micros() + signed(charge.at.as_micros()));
        let mut owed = charge.units;
        for (_, left) in left.iter_mut().filter(|(expires, _)| expires.is_none_or(|end| end > now)) {
            let paid = owed.min(*left);
            (*left, owed) = (*left - paid, owed - paid);
        }
        spent += charge.units;
        count.most = spent;
        if owed > 0 {
            count.over.push((*charge, spent));
        }
    }
    count
}

impl Count {
    fn see(&mut self, charge: Charge, held: u64, amount: u64) {
        self.most = self.most.max(held);
        if held > amount {
            self.over.push((charge, held));
        }
    }
}

fn micros(length: std::time::Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX).max(1)
}

fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

/// An amount of a limit in the units that people use.
#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn shown(spec: &LimitSpec, units: u64) -> f64 {
    if spec.metric == Metric::Usd { units as f64 / 1e12 } else { units as f64 }
}
