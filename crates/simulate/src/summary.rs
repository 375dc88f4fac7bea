//! What came of a workload, for people and programs.

use std::collections::BTreeMap;

use freeway_router::Size;
use freeway_types::Usd;
use serde::Serialize;

use crate::Scenario;
use crate::recount::{LimitUse, Recount};
use crate::run::Run;

/// What came of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Requests of the workload.
    pub requests: usize,
    /// Those that were served.
    pub served: usize,
    /// Of those, the ones that waited first.
    pub waited: usize,
    /// What serving them was worth: the sum of their tiers' values.
    pub value: f64,
    /// What serving all would have been worth.
    pub value_asked: f64,
    /// The greatest value that anybody could have served, knowing the future, if it was worked out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// The value as a share of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_of_bound: Option<f64>,
    /// What the answers of paid targets cost.
    pub cost_usd: f64,
    /// Answers of paid targets whose price nobody knows.
    pub unpriced: usize,
    /// Those that were not served, by the reason.
    pub refused: BTreeMap<&'static str, usize>,
    /// By tier, the highest value first.
    pub tiers: Vec<TierRow>,
    /// By target, in the order of the configuration.
    pub targets: Vec<TargetRow>,
    /// How each limit was used.
    pub limits: Vec<LimitUse>,
    /// What was broken, in words. Nothing ever should be.
    pub broken: Vec<String>,
}

/// What came of one tier.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TierRow {
    /// Its name.
    pub tier: String,
    /// Requests of it.
    pub requests: usize,
    /// Those that were served.
    pub served: usize,
    /// What serving them was worth.
    pub value: f64,
    /// Those that were not served, by the reason.
    pub refused: BTreeMap<&'static str, usize>,
}

/// What came to one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TargetRow {
    /// Its name.
    pub target: String,
    /// Requests that it served.
    pub served: usize,
    /// What serving them was worth.
    pub value: f64,
    /// Their input.
    pub input_tokens: u64,
    /// Their output.
    pub output_tokens: u64,
    /// What they cost; nothing at a target that is free.
    pub cost_usd: f64,
}

impl Summary {
    /// Adds up what came of a workload, with what counting it again found.
    #[must_use]
    pub fn of(scenario: Scenario<'_>, run: &Run, recount: &Recount) -> Self {
        let tiers = &scenario.snapshot.rules.tiers;
        let arrivals = &scenario.workload.arrivals;
        let target = |name: &String| TargetRow { target: name.clone(), ..TargetRow::default() };
        let tier = |name: &String| TierRow { tier: name.clone(), ..TierRow::default() };
        let mut summary = Self {
            requests: arrivals.len(),
            served: run.decisions.len(),
            tiers: tiers.iter().map(|of| tier(&of.name)).collect(),
            targets: scenario.snapshot.deployments.iter().map(|of| target(&of.name)).collect(),
            limits: recount.limits.clone(),
            ..Self::default()
        };
        for arrival in arrivals {
            summary.tiers[arrival.admission.tier].requests += 1;
            summary.value_asked += tiers[arrival.admission.tier].value;
        }
        let mut costs = vec![Usd::ZERO; summary.targets.len()];
        for decision in &run.decisions {
            let arrival = &arrivals[decision.line];
            let deployment = scenario.snapshot.deployment(decision.target);
            let (tier, place) = (arrival.admission.tier, decision.target.get());
            let value = tiers[tier].value;
            summary.value += value;
            summary.waited += usize::from(decision.at > arrival.arrives);
            (summary.tiers[tier].served, summary.tiers[tier].value) =
                (summary.tiers[tier].served + 1, summary.tiers[tier].value + value);
            let row = &mut summary.targets[place];
            (row.served, row.value) = (row.served + 1, row.value + value);
            let Size { input, output } = arrival.size_at(deployment);
            row.input_tokens += input;
            row.output_tokens += output;
            match arrival.cost_at(deployment) {
                Some(cost) => costs[place] += cost,
                None => summary.unpriced += 1,
            }
        }
        for (row, cost) in summary.targets.iter_mut().zip(&costs) {
            row.cost_usd = cost.as_dollars();
        }
        summary.cost_usd = costs.into_iter().sum::<Usd>().as_dollars();
        for refused in &run.refused {
            *summary.refused.entry(refused.code).or_default() += 1;
            let tier = &mut summary.tiers[arrivals[refused.line].admission.tier];
            *tier.refused.entry(refused.code).or_default() += 1;
        }
        let told = |broken: &crate::recount::Broken| {
            let at = scenario.now(broken.at).wall;
            format!("line {} at {at}: {}", broken.line + 1, broken.what)
        };
        summary.broken = recount.broken.iter().map(told).collect();
        summary
    }
}
