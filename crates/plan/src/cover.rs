//! What the rest costs with each paid model.

use freeway_router::{Snapshot, cost};
use freeway_types::{CostClass, Quality, Usage};
use serde::Serialize;

use crate::answer::{Facts, Trials};
use crate::carry::{Carry, MONTH_DAYS, carries};
use crate::course::Course;
use crate::ground::Ground;
use crate::need::{Need, NeedError};
use crate::span::Range;

/// What covering the rest costs with one paid model. Its plan is as long as the course.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cover {
    /// The model's name, with the account that is configured or would be.
    pub target: String,
    /// Its quality, from 1 to 5.
    pub quality: Quality,
    /// What one request costs, in USD.
    pub usd_a_request: f64,
    /// Requests that it would take: those of the rest whose tier may cost money. The lower figure is what is left if every
    /// shaky fact holds.
    pub requests: Range,
    /// What they cost, in USD: if every shaky fact holds …
    pub usd_least: f64,
    /// … and if none does.
    pub usd_most: f64,
    /// Requests that its own limits let through in that time, where they are known and fewer than the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carries: Option<Range>,
    /// The day that its price is of, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// Why the price cannot be relied on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// The paid models that may serve some of the rest, the cheapest first, and how many may and have no known price.
pub(crate) fn covers(
    need: &Need,
    paid: &Trials<'_>,
    start: freeway_types::Timestamp,
    (hoped, sure): (&Course, &Course),
) -> Result<(Vec<Cover>, usize), NeedError> {
    let snapshot = crate::next_key::opened(paid.snapshot, paid.known_accounts, &need.model);
    let ground = Ground::new(&snapshot, paid.limits, need, start)?;
    let carries = carries(&ground, paid.limits);
    let days = hoped.days.len() as u64;
    let (hoped, sure) = (by_tier(hoped), by_tier(sure));
    let (mut covers, mut unpriced) = (Vec::new(), 0);
    for taker in ground.all_takers() {
        let deployment = snapshot.deployment(taker.target);
        if deployment.cost != CostClass::Paid {
            continue;
        }
        let takes = |rest: &[u64]| -> u64 {
            let of_tier = ground.takers.iter().zip(rest);
            of_tier.filter(|(takers, _)| takers.iter().any(|other| other.target == taker.target)).map(|(_, n)| n).sum()
        };
        let (least, most) = (takes(&hoped), takes(&sure));
        if most == 0 {
            continue;
        }
        let usage = Usage { input: need.input_tokens, output: need.output_tokens, ..Usage::default() };
        let Some(usd) = cost(deployment, usage) else {
            unpriced += 1;
            continue;
        };
        let facts = facts(&snapshot, paid, deployment.account);
        covers.push(Cover {
            target: deployment.name.clone(),
            quality: deployment.quality,
            usd_a_request: usd.as_dollars(),
            requests: Range { least, most: Some(most) },
            usd_least: times(usd, least),
            usd_most: times(usd, most),
            carries: bound(&carries, &deployment.name, days, most),
            as_of: facts.and_then(|facts| facts.as_of.clone()),
            doubt: facts.and_then(|facts| facts.doubt.clone()),
        });
    }
    covers.sort_by(|one, other| one.usd_most.total_cmp(&other.usd_most).then_with(|| one.target.cmp(&other.target)));
    Ok((covers, unpriced))
}

/// What was not served of each tier.
fn by_tier(course: &Course) -> Vec<u64> {
    let tiers = course.days.first().map_or(0, |day| day.tiers.len());
    let of = |tier: usize| course.days.iter().map(|day| day.tiers[tier].asked - day.tiers[tier].served).sum();
    (0..tiers).map(of).collect()
}

fn facts<'a>(snapshot: &Snapshot, paid: &'a Trials<'_>, account: freeway_types::AccountIndex) -> Option<&'a Facts> {
    paid.facts.get(snapshot.accounts[account.get()].provider.as_ref()?)
}

#[expect(clippy::cast_precision_loss, reason = "dollars for people")]
fn times(usd: freeway_types::Usd, requests: u64) -> f64 {
    usd.as_dollars() * requests as f64
}

/// What its limits carry in so many days, if that is less than it would have to.
fn bound(carries: &[Carry], target: &str, days: u64, rest: u64) -> Option<Range> {
    let month = carries.iter().find(|carry| carry.target == target)?.a_month;
    let part = |figure: u64| figure.saturating_mul(days).div_ceil(MONTH_DAYS);
    let most = month.most.map(part).filter(|most| *most < rest)?;
    Some(Range { least: part(month.least), most: Some(most) })
}
