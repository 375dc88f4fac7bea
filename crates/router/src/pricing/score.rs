//! What a request would gain at each target, and which one it takes.

use std::cmp::Ordering;

use freeway_policy::Admission;
use freeway_price::Cell;
use freeway_quota::Demand;
use freeway_types::{CostClass, Group, Now};

use super::tariff::Tariff;
use crate::plan::{Candidate, Plan, Verdict};
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
    /// The candidate's position in the plan.
    pub position: usize,
    /// Position of the group in the tier's order: groups are tried in turn.
    pub place: usize,
    /// What the request is worth.
    pub value: f64,
    /// What it uses of limits, at their prices.
    pub toll: f64,
    /// What it costs in money, where the group is `any`.
    pub money: f64,
    quality: u8,
    /// Share of the scarcest limit that is used.
    used: f64,
}

impl Score {
    /// Value less price.
    #[must_use]
    pub fn gain(&self) -> f64 {
        self.value - self.toll - self.money
    }

    /// Whether the target is worth its price.
    #[must_use]
    pub fn is_worth_it(&self) -> bool {
        self.gain() >= -MARGIN * self.value
    }

    /// Gains are compared in steps of what prices are exact to. Of what is as good, the lowest quality goes first, then
    /// what has most left, then the order of the list.
    fn compare(&self, other: &Self) -> Ordering {
        let step = |score: &Self| (-score.gain() / (MARGIN * score.value.max(f64::MIN_POSITIVE))).round();
        let order = self.place.cmp(&other.place).then(step(self).total_cmp(&step(other)));
        let order = order.then(self.quality.cmp(&other.quality)).then(self.used.total_cmp(&other.used));
        order.then(self.position.cmp(&other.position))
    }
}

/// The scores of the kept candidates that the tier allows, the best first. `toll` is what an attempt costs at the prices
/// of limits.
#[must_use]
pub fn scores(
    snapshot: &Snapshot,
    admission: &Admission,
    plan: &Plan,
    mut toll: impl FnMut(&Candidate) -> f64,
) -> Vec<Score> {
    let tier = &snapshot.rules.tiers[admission.tier];
    let mut scores: Vec<Score> = Vec::with_capacity(plan.candidates.len());
    for (position, candidate) in plan.candidates.iter().enumerate() {
        let deployment = snapshot.deployment(candidate.deployment);
        let Verdict::Kept { headroom } = candidate.verdict else { continue };
        let Some(place) = tier.order.iter().position(|group| group.contains(deployment.cost)) else { continue };
        let money = if tier.order[place] == Group::Any { money(snapshot, deployment, &candidate.demand) } else { 0.0 };
        scores.push(Score {
            position,
            place,
            value: tier.value,
            toll: toll(candidate),
            money,
            quality: deployment.quality.get(),
            used: 1.0 - headroom.unwrap_or(1.0),
        });
    }
    scores.sort_by(Score::compare);
    scores
}

/// The best of the scores that is worth its price, if the request is to be served now. None where no target is, and for
/// one that gains next to nothing when all that are to be served of its kind have been.
#[must_use]
pub fn choose(scores: &[Score], tariff: &Tariff, cell: &Cell, now: Now) -> Option<usize> {
    let best = scores.iter().find(|score| score.is_worth_it())?;
    (best.gain() > EVEN * best.value || tariff.has_room(cell, now.wall)).then_some(best.position)
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
