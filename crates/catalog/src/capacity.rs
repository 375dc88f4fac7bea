//! What a free plan carries in a day, told honestly: what several models draw from one counter counts once, and what
//! is limited by the day or longer is told apart from what only a shorter limit, used without a pause, would allow.

use std::collections::{BTreeMap, BTreeSet};

use freeway_types::Metric;
use serde::Serialize;

use crate::facts::{Modality, Model, Provider};
use crate::limit::{Limit, LimitScope, Reset};
use crate::validate::window_seconds;

/// What a free plan carries of one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Daily {
    /// A day's worth of limits over a day or longer.
    pub documented: u64,
    /// A day's worth of limits over minutes and hours, of models that no longer limit holds back: to be had only by
    /// who never stops asking.
    pub theoretical: u64,
    /// Models of the free plan for which no limit of this metric is known.
    pub unknown_models: u64,
}

/// Models that draw on the same counters.
struct Node<'a> {
    models: BTreeSet<&'a str>,
    /// What they carry together in a day; `None` while no limit is known.
    carries: Option<f64>,
    /// Whether a limit over a day or longer is among them.
    by_the_day: bool,
}

/// A counter: who draws on it, and what its tightest row allows in a day.
#[derive(Default)]
struct Counter<'a> {
    models: BTreeSet<&'a str>,
    per_day: f64,
    by_the_day: bool,
}

/// What the chat models of the free plan carry in a day, of requests or of tokens.
#[must_use]
pub fn daily(provider: &Provider, metric: Metric) -> Daily {
    let is_offered =
        |model: &&Model| model.free != Some(false) && model.off.is_none() && model.modality == Modality::Chat;
    let models: Vec<&Model> = provider.models.iter().filter(is_offered).collect();
    let mut nodes: Vec<Node<'_>> = models
        .iter()
        .map(|model| Node { models: BTreeSet::from([model.id.as_str()]), carries: None, by_the_day: false })
        .collect();
    for counter in counters(provider, &models, metric) {
        // Small counters first, so that a shared one finds what its models carry each by itself.
        let (drawn, rest): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| !node.models.is_disjoint(&counter.models));
        let known: Option<f64> = drawn.iter().map(|node| node.carries).sum();
        nodes = rest;
        nodes.push(Node {
            carries: Some(known.map_or(counter.per_day, |known| known.min(counter.per_day))),
            by_the_day: counter.by_the_day || drawn.iter().any(|node| node.by_the_day),
            models: drawn.into_iter().flat_map(|node| node.models).collect(),
        });
    }
    let mut daily = Daily::default();
    for node in nodes {
        match node.carries {
            Some(carries) if node.by_the_day => daily.documented += whole(carries),
            Some(carries) => daily.theoretical += whole(carries),
            None => daily.unknown_models += node.models.len() as u64,
        }
    }
    daily
}

fn counters<'a>(provider: &'a Provider, models: &[&'a Model], metric: Metric) -> Vec<Counter<'a>> {
    let mut counters: BTreeMap<String, Counter<'a>> = BTreeMap::new();
    for model in models {
        let of_account = provider.limits.iter().filter(|limit| limit.is_for(&model.id));
        let of_account = of_account.map(|limit| (limit, limit.scope == Some(LimitScope::Model)));
        let of_model = model.limits.iter().flatten().map(|limit| (limit, limit.scope != Some(LimitScope::Account)));
        for (limit, per_model) in of_account.chain(of_model) {
            let Some((per_day, by_the_day)) = rate(limit, metric) else { continue };
            let key = match &limit.pool {
                Some(pool) => format!("pool {pool}"),
                None if per_model => format!("model {}", model.id),
                None => format!("account {:?}", limit.models),
            };
            let counter = counters.entry(key).or_insert(Counter { per_day, ..Counter::default() });
            counter.models.insert(&model.id);
            counter.per_day = counter.per_day.min(per_day);
            counter.by_the_day |= by_the_day;
        }
    }
    let mut counters: Vec<Counter<'a>> = counters.into_values().collect();
    counters.sort_by_key(|counter| counter.models.len());
    counters
}

/// What a row of the free plan allows in a day, and whether it counts by the day or longer.
fn rate(limit: &Limit, metric: Metric) -> Option<(f64, bool)> {
    let free = limit.plans.is_empty() || limit.plans.iter().any(|plan| plan == "free");
    if !free || limit.metric != metric || limit.reset == Some(Reset::Never) {
        return None;
    }
    let seconds = window_seconds(limit.window.as_deref()?)?;
    #[expect(clippy::cast_precision_loss, reason = "a window is far below 2^52 seconds")]
    let per_day = limit.amount? * 86_400.0 / seconds as f64;
    Some((per_day, seconds >= 86_400))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "amounts are positive and below 10^15")]
fn whole(amount: f64) -> u64 {
    amount.floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(facts: &str, documented: u64, theoretical: u64, unknown_models: u64) {
        let provider: Provider = toml::from_str(facts).unwrap();
        assert_eq!(daily(&provider, Metric::Requests), Daily { documented, theoretical, unknown_models }, "{facts}");
    }

    #[test]
    fn what_is_shared_counts_once() {
        let day =
            |amount: u32, more: &str| format!("{{ metric = \"requests\", window = \"day\", amount = {amount}{more} }}");
        let minute = "{ metric = \"requests\", window = \"minute\", amount = 2 }";
        let model = |id: &str, limits: &str| format!("[[models]]\nid = \"{id}\"\nlimits = [{limits}]\n");
        check(&(model("a", &day(50, "")) + &model("b", &day(70, ""))), 120, 0, 0);
        let pool = day(50, ", pool = \"free\"");
        check(&(model("a", &pool) + &model("b", &pool)), 50, 0, 0);
        check(&(model("a", &format!("{pool}, {}", day(10, ""))) + &model("b", &pool)), 50, 0, 0);
        let account = format!("limits = [{}]\n", day(60, ""));
        check(&(account.clone() + &model("a", &day(50, "")) + &model("b", &day(70, ""))), 60, 0, 0);
        check(&(account + &model("a", "") + &model("b", "")), 60, 0, 0);
        check(&(model("a", minute) + &model("b", "")), 0, 2880, 1);
        check(&model("a", &format!("{minute}, {}", day(9000, ""))), 2880, 0, 0);
        check(&model("a", &day(50, ", plans = [\"paid\"]")), 0, 0, 1);
        check(&format!("{}free = false\n", model("a", &day(50, ""))), 0, 0, 0);
    }
}
