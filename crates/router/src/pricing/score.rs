//! What a request would gain at each target, and in which order the targets that are worth it are tried.

use std::cmp::Ordering;
use std::time::Duration;

use freeway_price::Cell;
use freeway_quota::Demand;
use freeway_types::{CostClass, Group};

use super::tariff::Pricing;
use crate::plan::{Candidate, Live, Request, Verdict};
use crate::reason::Reason;
use crate::snapshot::{Deployment, Snapshot};

/// A target is taken although its price is above the value, as long as it is by no more than this share of the value:
/// prices are no more exact than that.
const MARGIN: f64 = 0.02;
/// A request whose gain is no more than such a share of its value is as good as others of its kind that are turned away:
/// of those, as many are taken as the solution serves.
const EVEN: f64 = 0.05;
/// Picodollars in a dollar.
const PICOS: f64 = 1e12;

/// What a request would gain at one target, in the unit of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// What the request is worth.
    pub value: f64,
    /// Which share of that counts: how often the target lately came to an answer.
    pub reliability: f64,
    /// What it uses of limits, at their prices.
    pub toll: f64,
    /// What it costs in money, where the group is `any`.
    pub money: f64,
}

/// One candidate among the others.
#[derive(Debug)]
pub(crate) struct Scored {
    /// Its position in the plan.
    pub(crate) position: usize,
    /// Position of its group in the tier's order: groups are tried in turn, but for [`round`].
    place: usize,
    /// When its group has its turn.
    round: usize,
    /// Its gain, in steps of what prices are exact to.
    step: f64,
    quality: u8,
    /// Share of the scarcest limit that is used.
    used: f64,
    score: Score,
}

impl Score {
    /// Value, as far as the target is reliable, less price.
    #[must_use]
    pub fn gain(&self) -> f64 {
        self.value * self.reliability - self.toll - self.money
    }

    /// Whether the target is worth its price.
    fn is_worth_it(&self) -> bool {
        self.gain() >= -MARGIN * self.value
    }
}

impl Scored {
    /// Gains are compared in steps of what prices are exact to. Of what is as good, the lowest quality goes first, then
    /// what has most left, then the order of the list.
    fn compare(&self, other: &Self) -> Ordering {
        let order =
            self.round.cmp(&other.round).then(other.step.total_cmp(&self.step)).then(self.place.cmp(&other.place));
        let order = order.then(self.quality.cmp(&other.quality)).then(self.used.total_cmp(&other.used));
        order.then(self.position.cmp(&other.position))
    }

    /// Whether only what is measured of two can decide between them.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.place == other.place
            && self.round == other.round
            && self.step.total_cmp(&other.step).is_eq()
            && self.quality == other.quality
    }
}

/// Gives each kept candidate its score, and these in order, the best first. What is not worth its price is dropped, and
/// everything is where a request gains next to nothing and others like it have had all that is theirs. A request that is
/// under way is worth going on with, whatever it takes; and where all that is expected is worth the same, nothing is kept from
/// anybody.
pub(crate) fn weigh(
    snapshot: &Snapshot,
    request: &Request<'_>,
    candidates: &mut [Candidate],
    cell: &Cell,
    (prices, live): (&Pricing<'_>, &impl Live),
) -> Vec<Scored> {
    let tier = &snapshot.rules.tiers[request.admission.tier];
    let value = tier.value;
    let mut scored: Vec<Scored> = Vec::with_capacity(candidates.len());
    for (position, candidate) in candidates.iter_mut().enumerate() {
        let deployment = snapshot.deployment(candidate.deployment);
        let Verdict::Kept { headroom } = candidate.verdict else { continue };
        let Some(place) = tier.order.iter().position(|group| group.contains(deployment.cost)) else { continue };
        let money = if tier.order[place] == Group::Any { money(snapshot, deployment, &candidate.demand) } else { 0.0 };
        let reliability = live.reliability(candidate.deployment);
        let score = Score { value, reliability, toll: prices.toll(candidate.deployment, &candidate.demand), money };
        candidate.score = Some(score);
        let step = (score.gain() / (MARGIN * value.max(f64::MIN_POSITIVE))).round();
        let (quality, used) = (deployment.quality.get(), 1.0 - headroom.unwrap_or(1.0));
        let round = round(&tier.order, place);
        scored.push(Scored { position, round, place, step, quality, used, score });
    }
    scored.sort_by(Scored::compare);
    if request.under_way || !prices.keeps() {
        return scored;
    }
    let best = scored.iter().map(|scored| scored.score).find(Score::is_worth_it);
    let until_room = best.map(|best| if best.gain() > EVEN * value { Duration::ZERO } else { prices.until_room(cell) });
    let is_served = until_room.is_some_and(|wait| wait.is_zero());
    scored.retain(|Scored { position, score, .. }| {
        let is_kept = is_served && score.is_worth_it();
        if !is_kept {
            let reason = Reason::Price {
                value,
                price: score.toll + score.money,
                until: prices.again(until_room.filter(|_| score.is_worth_it())),
            };
            candidates[*position].verdict = Verdict::Dropped(reason);
        }
        is_kept
    });
    scored
}

/// When a group of a tier's order has its turn. Free targets that come after paid ones have it together with them: to go
/// there sooner spends no money, and leaves what is paid for to those who can go nowhere else. Money is never spent sooner
/// than the order says.
fn round(order: &[Group], place: usize) -> usize {
    match order[place] {
        Group::Free if place > 0 && order[place - 1] == Group::Paid => place - 1,
        _ => place,
    }
}

/// What an attempt costs in money, in the unit of values.
pub(super) fn money(snapshot: &Snapshot, deployment: &Deployment, demand: &Demand) -> f64 {
    match deployment.cost {
        CostClass::Free => 0.0,
        CostClass::Paid => float(demand.picos.expected) / PICOS / snapshot.usd_per_value,
    }
}

#[expect(clippy::cast_precision_loss, reason = "amounts of one request")]
pub(super) fn float(amount: u64) -> f64 {
    amount as f64
}
