//! What is expected to be asked for and what there is to serve it with, as the program for prices wants it.

use freeway_dialect::openai_chat::ChatRequest;
use freeway_policy::Admission;
use freeway_price::{Class, Group, Market, Offer};
use freeway_quota::{Book, Target};
use freeway_types::{DeploymentIndex, LimitIndex, Now, Timestamp};

use super::score::{float, money};
use crate::calibration::{Expectation, Rate};
use crate::estimate::demand;
use crate::plan::{Request, unfit};
use crate::snapshot::Snapshot;

/// How much of the value a group of the tier's order costs that is tried later, so that the program sees which one is
/// preferred.
const LATER: f64 = 1e-3;
/// How much of a limit whose windows are shorter than an hour can be used.
const SHARE_OF_SHORT: f64 = 0.97;
/// What a value counts that is served a day from now …
const AFTER_A_DAY: f64 = 0.7;
/// … and what comes later counts the less, the longer it takes: a tenth of that after ten days.
const DAY: f64 = 86_400.0;
/// By how much less that counts a day from now which is not worth most; later, it counts less by as many times as there are
/// days. Of what is worth the same, it does not matter which is served, and what is asked for now is sure; but what is worth
/// most is kept for longer.
const LOWER_AFTER_A_DAY: f64 = 0.2;

/// What is expected to be asked for, and what there is to serve it with. `targets` are the deployments in the book. What is
/// served later counts less: whether it will be asked for at all is the more doubtful the later it is.
#[must_use]
pub(super) fn market(
    snapshot: &Snapshot,
    book: &mut Book,
    targets: &[Target],
    now: Now,
    ends: &[Timestamp],
    groups: &[(Group, Vec<f64>)],
) -> Market {
    let mut market = supplied(snapshot, book, targets, now, ends, groups, SHARE_OF_SHORT);
    let starts = std::iter::once(now.wall).chain(ends.iter().copied());
    let days =
        |(start, end): (Timestamp, &Timestamp)| (start.since(now.wall) + end.since(now.wall)).as_secs_f64() / 2.0 / DAY;
    let days: Vec<f64> = starts.zip(ends).map(days).collect();
    market.weights = days.iter().map(|days| weight(*days)).collect();
    let most = market.classes.iter().map(|class| class.value).fold(0.0, f64::max);
    for class in market.classes.iter_mut().filter(|class| class.value < most) {
        class.weights = days.iter().map(|days| lower(*days)).collect();
    }
    market
}

/// The same, with nothing lost of what comes back from minute to minute: for what could be served at the very most.
#[must_use]
pub fn market_at_most(
    snapshot: &Snapshot,
    book: &mut Book,
    targets: &[Target],
    now: Now,
    ends: &[Timestamp],
    groups: &[(Group, Vec<f64>)],
) -> Market {
    supplied(snapshot, book, targets, now, ends, groups, 1.0)
}

/// What a value counts that is served so many days from now.
fn weight(days: f64) -> f64 {
    if days < 1.0 { 1.0 - (1.0 - AFTER_A_DAY) * days } else { AFTER_A_DAY / days }
}

/// Which part of that a value counts that is not the greatest.
fn lower(days: f64) -> f64 {
    (1.0 - LOWER_AFTER_A_DAY * days.min(1.0)) / days.max(1.0)
}

fn supplied(
    snapshot: &Snapshot,
    book: &mut Book,
    targets: &[Target],
    now: Now,
    ends: &[Timestamp],
    groups: &[(Group, Vec<f64>)],
    share: f64,
) -> Market {
    let mut market = Market { blocks: ends.len(), ..Market::default() };
    for target in targets {
        for limit in book.limits_of(*target).to_vec() {
            if market.supplies.len() <= limit.get() {
                market.supplies.resize(limit.get() + 1, Vec::new());
            }
            if market.supplies[limit.get()].is_empty() {
                market.supplies[limit.get()] = book.outlook(limit, now, ends, share);
            }
        }
    }
    for (group, arrivals) in groups {
        let tier = snapshot.rules.tiers.iter().position(|tier| *tier.name == *group.kind.tier);
        let value = tier.map_or(0.0, |tier| snapshot.rules.tiers[tier].value);
        let offers = tier.map_or(Vec::new(), |tier| offers(snapshot, book, targets, tier, group));
        market.classes.push(Class {
            value,
            arrivals: arrivals.clone(),
            patience: Vec::new(),
            weights: Vec::new(),
            offers,
        });
    }
    market
}

/// Who may serve the requests of a group, which are of a tier.
fn offers(snapshot: &Snapshot, book: &Book, targets: &[Target], tier: usize, group: &Group) -> Vec<Offer> {
    let kind = &group.kind;
    let Ok(named) = snapshot.named(&kind.model) else { return Vec::new() };
    let chat = ChatRequest::sized(&kind.model, tokens(group.input), tokens(group.output).max(1), kind.features);
    let admission = Admission { tier, data: kind.data, min_quality: kind.min_quality };
    let request = Request { chat: &chat, admission: &admission, named, under_way: false };
    let tier = &snapshot.rules.tiers[tier];
    let offer = |index: &DeploymentIndex| {
        let deployment = snapshot.deployment(*index);
        if unfit(snapshot, deployment, &request, &mut Vec::new()).is_some() {
            return None;
        }
        let exact = Expectation { input: Rate::from_bits(0), output: u32::MAX };
        let demand = demand(&chat, deployment, exact);
        let place = tier.order.iter().position(|group| group.contains(deployment.cost))?;
        let money = match tier.order[place] {
            freeway_types::Group::Any => money(snapshot, deployment, &demand),
            _ => 0.0,
        };
        let amount = |limit: &LimitIndex| (limit.get(), float(demand.amount(book.spec(*limit))));
        let uses = book.limits_of(targets[index.get()]).iter().map(amount).collect();
        #[expect(clippy::cast_precision_loss, reason = "a handful of groups")]
        let loss = money + LATER * tier.value * place as f64;
        Some(Offer { loss, uses })
    };
    named.targets.iter().filter_map(offer).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of counts of tokens")]
fn tokens(mean: f64) -> u64 {
    mean.round().max(0.0) as u64
}
