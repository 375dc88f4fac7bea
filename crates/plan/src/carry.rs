//! What each target carries of requests of one size, and all of them together.
//!
//! A limit is filled by whole requests, and not to its last token: where sizes are estimates, the gateway sends only
//! while a hundredth of the limit would stay free besides the request. So a limit of 1,000,000 tokens a month takes
//! requests of 8,000 tokens while at most 1,000,000 − 10,000 − 8,000 = 982,000 are used: 123 of them, where plain division
//! gives 125.

use std::time::Duration;

use freeway_price::Precision;
use freeway_quota::{Civil, Demand, LimitSpec, Rule};
use freeway_types::{CostClass, Metric, Quality};
use serde::Serialize;

use crate::doubt::doubt;
use crate::ground::{Ground, only, unsolved, whole};
use crate::need::{Need, NeedError};
use crate::span::Range;

const DAY_S: u64 = 86_400;
/// The days of a month.
pub(crate) const MONTH_DAYS: u64 = 31;

/// What a target carries by itself of requests of one size, whenever they come. Targets that share a limit cannot each
/// carry their figure at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Carry {
    /// Its name.
    pub target: String,
    /// Its quality, from 1 to 5.
    pub quality: Quality,
    /// Whether it is free or paid.
    pub cost: CostClass,
    /// Requests on an ordinary day.
    pub a_day: Range,
    /// Requests in a month of 31 days.
    pub a_month: Range,
    /// The limit that binds over the month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_by: Option<String>,
    /// How many of the need's targets count against that limit, this one included.
    pub sharers: usize,
    /// Why the lower figures are 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// How many requests fit into a limit that is unused before the gateway holds one back. `None`: any number does, because
/// its size is not known or they use nothing of it.
#[must_use]
pub fn fits(spec: &LimitSpec, demand: &Demand) -> Option<u64> {
    let (amount, need) = (spec.amount?, demand.amount(spec));
    if need == 0 || spec.metric == Metric::Concurrency {
        return None;
    }
    let room = demand.room(spec, amount);
    // One is sent while its room is left; the last one may find no more than that.
    Some(if room > amount { 0 } else { (amount - room) / need + 1 })
}

/// What each target carries that may serve the need, in the order of the configuration.
pub(crate) fn carries(ground: &Ground<'_>, limits: &[LimitSpec]) -> Vec<Carry> {
    let takers = ground.all_takers();
    let carry = |taker: &crate::ground::Taker| {
        let deployment = ground.snapshot.deployment(taker.target);
        let doubt = doubt(ground.snapshot, limits, deployment, ground.start);
        let over = |days: u64| {
            let specs = deployment.limits.iter().map(|limit| (*limit, &limits[limit.get()]));
            let known = specs.filter_map(|(limit, spec)| Some((in_days(spec, &taker.demand, days)?, limit)));
            known.min_by_key(|(count, _)| *count)
        };
        let range = |most: Option<u64>| match (&doubt, most) {
            (Some(_), most) => Range { least: 0, most },
            // No limit is known, and none is doubted: it is one's own, or paid for.
            (None, None) => Range::default(),
            (None, Some(most)) => Range::exactly(most),
        };
        let month = over(MONTH_DAYS);
        let binding = month.map(|(_, limit)| limit);
        let counts_there = |other: &&crate::ground::Taker| {
            binding.is_some_and(|limit| ground.snapshot.deployment(other.target).limits.contains(&limit))
        };
        Carry {
            target: deployment.name.clone(),
            quality: deployment.quality,
            cost: deployment.cost,
            a_day: range(over(1).map(|(count, _)| count)),
            a_month: range(month.map(|(count, _)| count)),
            bound_by: binding.map(|limit| limits[limit.get()].name.clone()),
            sharers: takers.iter().filter(counts_there).count(),
            doubt,
        }
    };
    takers.iter().map(carry).collect()
}

/// What the targets carry together in so many days from the start, whoever asks first; a limit that several share counts
/// once. Targets without any known limit are left out of it, since they would carry anything.
pub(crate) fn together(ground: &Ground<'_>, limits: &[LimitSpec], need: &Need, days: u32) -> Result<Range, NeedError> {
    let carries = carries(ground, limits);
    let named = |name: &String| carries.iter().find(|carry| carry.target == *name);
    let solve = |sure_alone: bool| {
        let is_wanted = |deployment: &freeway_router::Deployment| {
            named(&deployment.name)
                .is_some_and(|carry| carry.a_month.most.is_some() && (carry.doubt.is_none() || !sure_alone))
        };
        let snapshot = only(ground.snapshot, is_wanted);
        let alone = Ground::new(&snapshot, limits, need, ground.start)?;
        // More than anybody could serve on one day, into which two windows may reach.
        let of_one = |carry: &Carry| carry.a_day.most.unwrap_or(0).saturating_mul(2);
        #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
        let most = carries.iter().map(of_one).fold(0, u64::saturating_add) as f64;
        let asked = alone.samples.arrivals.iter().map(|_| vec![most; days as usize]).collect::<Vec<_>>();
        let mut market = alone.market(&asked);
        market.classes.iter_mut().for_each(|class| class.value = 1.0);
        let solution = market.solve(Precision::Exact).map_err(|error| unsolved(&error))?;
        Ok(whole(&solution, &asked))
    };
    let most = solve(false)?;
    let least = if carries.iter().any(|carry| carry.doubt.is_some()) { solve(true)? } else { most };
    Ok(Range { least, most: Some(most) })
}

/// How many requests a limit takes in so many days from an unused beginning. A calendar's window is taken as a whole.
fn in_days(spec: &LimitSpec, demand: &Demand, days: u64) -> Option<u64> {
    let fit = fits(spec, demand)?;
    let span = days * DAY_S;
    let windows = |length: Duration| span.div_ceil(length.as_secs().max(1));
    Some(match &spec.rule {
        Rule::Rolling(length) => fit.saturating_mul(windows(*length)),
        Rule::Calendar(Civil::Multiple(length), _) => fit.saturating_mul(windows(*length)),
        Rule::Calendar(Civil::Day, _) => fit.saturating_mul(days),
        Rule::Calendar(Civil::Week, _) => fit.saturating_mul(days.div_ceil(7)),
        Rule::Calendar(Civil::Month, _) => fit.saturating_mul(days.div_ceil(MONTH_DAYS)),
        Rule::Bucket(length) if fit > 0 => {
            // On an ordinary day what flows in; over a month the full store at its beginning as well.
            let (amount, need) = (u128::from(spec.amount?), u128::from(demand.amount(spec)));
            let flow = amount * u128::from(span) / u128::from(length.as_secs().max(1)) / need.max(1);
            let store = if days > 1 { fit } else { 0 };
            u64::try_from(flow).unwrap_or(u64::MAX).saturating_add(store)
        }
        Rule::Bucket(_) => 0,
        Rule::Never(_) => fit,
        Rule::Concurrency => return None,
    })
}
