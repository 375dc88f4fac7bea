//! Which further free key would serve most of the rest.

use std::collections::BTreeSet;

use freeway_price::{Market, Precision};
use freeway_router::{Deployment, Snapshot};
use freeway_types::{CostClass, DeploymentIndex, Timestamp};
use serde::Serialize;

use crate::answer::Trials;
use crate::course::Course;
use crate::doubt::doubt;
use crate::ground::{Ground, only, whole};
use crate::need::{Need, NeedError};
use crate::span::Range;

/// What a key at a further provider would bring.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NextKey {
    /// The provider's id in the catalogue.
    pub provider: String,
    /// Requests of the rest that it would serve over the plan's days; `most` is missing where nobody knows a limit.
    pub adds: Range,
    /// What they are worth by their tiers, as far as it is sure.
    pub value_least: f64,
    /// What they are worth if every shaky fact holds.
    pub value_most: f64,
    /// Models that would serve them.
    pub models: usize,
    /// What it asks in return, and what to beware of.
    pub catches: Vec<String>,
}

/// What each provider that is tried would bring, the most first; those that bring nothing are left out. The rest is given
/// to each by itself by the linear program that prices come from.
pub(crate) fn next_keys(
    need: &Need,
    free: &Trials<'_>,
    start: Timestamp,
    rest: &Course,
) -> Result<Vec<NextKey>, NeedError> {
    let asked = rest.rest();
    let opened = opened(free.snapshot, free.known_accounts, &need.model);
    let mut keys = Vec::new();
    for (place, account) in opened.accounts.iter().enumerate() {
        let Some(provider) = account.provider.clone().filter(|_| !free.known_accounts.contains(&account.id)) else {
            continue;
        };
        if account.local || rest.asked == rest.served {
            continue;
        }
        let is_here = |deployment: &Deployment| deployment.account.get() == place && deployment.cost == CostClass::Free;
        let is_sure = |deployment: &Deployment| doubt(&opened, free.limits, deployment, start).is_none();
        let (hoped, models) = serve(need, free, start, &asked, &only(&opened, is_here))?;
        if hoped.requests == Some(0) {
            continue;
        }
        let (sure, _) = serve(need, free, start, &asked, &only(&opened, |of| is_here(of) && is_sure(of)))?;
        let facts = free.facts.get(&provider);
        keys.push(NextKey {
            provider,
            adds: Range { least: sure.requests.unwrap_or(0), most: hoped.requests },
            value_least: sure.value,
            value_most: hoped.value,
            models,
            catches: facts.map(|facts| facts.catches.clone()).unwrap_or_default(),
        });
    }
    keys.sort_by(|one, other| {
        let by_value = other.value_least.total_cmp(&one.value_least);
        let by_known = other.adds.most.is_some().cmp(&one.adds.most.is_some());
        let by_hope = other.value_most.total_cmp(&one.value_most);
        by_value.then(by_known).then(by_hope).then_with(|| one.provider.cmp(&other.provider))
    });
    Ok(keys)
}

struct Served {
    /// `None`: nobody knows where it would end.
    requests: Option<u64>,
    value: f64,
}

fn serve(
    need: &Need,
    free: &Trials<'_>,
    start: Timestamp,
    asked: &[Vec<f64>],
    snapshot: &Snapshot,
) -> Result<(Served, usize), NeedError> {
    let ground = Ground::new(snapshot, free.limits, need, start)?;
    let models = ground.all_takers().len();
    if models == 0 {
        return Ok((Served { requests: Some(0), value: 0.0 }, 0));
    }
    let market = ground.market(asked);
    // Of one that has no solution, nothing is known; the others are no worse for it.
    let Ok(solution) = market.solve(Precision::Exact) else {
        return Ok((Served { requests: None, value: 0.0 }, models));
    };
    let requests = whole(&solution, asked);
    let requests = Some(requests).filter(|_| !has_unbounded(&market));
    Ok((Served { requests, value: solution.value }, models))
}

/// Whether somebody offers to serve without any limit that is known.
fn has_unbounded(market: &Market) -> bool {
    let is_bounded = |(supply, units): &(usize, f64)| *units > 0.0 && !market.supplies[*supply].is_empty();
    market.classes.iter().flat_map(|class| &class.offers).any(|offer| !offer.uses.iter().any(is_bounded))
}

/// A configuration in which accounts that are only tried serve an alias, too: as if each of their models were one of its
/// targets.
pub(crate) fn opened(snapshot: &Snapshot, known_accounts: &BTreeSet<String>, model: &str) -> Snapshot {
    let mut snapshot = snapshot.clone();
    let is_tried = |deployment: &Deployment| !known_accounts.contains(&snapshot.accounts[deployment.account.get()].id);
    let tried: Vec<DeploymentIndex> = (0..snapshot.deployments.len())
        .map(DeploymentIndex::new)
        .filter(|index| is_tried(snapshot.deployment(*index)))
        .collect();
    if let Some(alias) = snapshot.aliases.get_mut(model) {
        alias.targets.extend(tried);
    }
    snapshot
}
