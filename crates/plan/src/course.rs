//! What comes of a need, day by day, by the gateway's own decisions in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_router::Strategy;
use freeway_simulate::{Scenario, Scene, Summary, Workload, recount, watched};
use freeway_types::Timestamp;
use serde::Serialize;

use crate::ground::{Ground, after_days};
use crate::need::{Need, NeedError};
use crate::watch::{RunOut, Watch, day};

/// How often prices are worked out anew.
const RESOLVE: Duration = Duration::from_secs(3 * 3_600);

/// How targets are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choosing {
    /// As the configuration says; who goes by prices, as long as there are none: by the lowest quality that will do.
    #[default]
    AsConfigured,
    /// By this strategy, whatever it says.
    Ranked(Strategy),
    /// By prices from a forecast. It takes about a hundred times as long.
    Prices,
}

/// What comes of a need.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Course {
    /// Requests that came.
    pub asked: u64,
    /// Those that were served.
    pub served: u64,
    /// What paid targets cost, in USD.
    pub cost_usd: f64,
    /// Answers of paid targets whose price nobody knows.
    pub unpriced: usize,
    /// Each day of 24 hours from the start.
    pub days: Vec<Day>,
    /// Limits of an hour or longer that ran out, in the order in which they did.
    pub run_outs: Vec<RunOut>,
}

/// One day of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Day {
    /// Its number, from 1.
    pub day: u64,
    /// When it begins.
    #[serde(serialize_with = "crate::span::as_text")]
    pub from: Timestamp,
    /// Requests that came.
    pub asked: u64,
    /// Those that were served.
    pub served: u64,
    /// The same by tier, in the need's order.
    pub tiers: Vec<TierDay>,
    /// Requests that each target served; who served none is not in it.
    pub targets: BTreeMap<String, u64>,
}

/// The requests of one tier on one day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TierDay {
    /// The tier's name.
    pub tier: String,
    /// Requests that came.
    pub asked: u64,
    /// Those that were served.
    pub served: u64,
}

impl Course {
    /// Requests that were not served, of each tier in the need's order, on each day.
    pub(crate) fn rest(&self) -> Vec<Vec<f64>> {
        let tiers = self.days.first().map_or(0, |day| day.tiers.len());
        #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
        let of = |day: &Day, tier: usize| (day.tiers[tier].asked - day.tiers[tier].served) as f64;
        (0..tiers).map(|tier| self.days.iter().map(|day| of(day, tier)).collect()).collect()
    }
}

/// Plays a need on some ground.
pub(crate) fn course(
    ground: &Ground<'_>,
    need: &Need,
    lines: &str,
    days: u32,
    choosing: Choosing,
) -> Result<Course, NeedError> {
    let strategy = match choosing {
        Choosing::Ranked(strategy) => Some(strategy),
        Choosing::AsConfigured => None,
        Choosing::Prices => Some(Strategy::Price),
    };
    let workload = Workload::read("the need", lines, ground.snapshot, strategy);
    let workload = workload.map_err(|error| NeedError::NotThere(error.message))?;
    let scenario = Scenario {
        snapshot: ground.snapshot,
        limits: &ground.limits,
        workload: &workload,
        start: ground.start,
        resolve: RESOLVE,
    };
    let mut watch = Watch::new(ground.all_takers());
    let run = watched(scenario, choosing == Choosing::Prices, &mut watch);
    let run_outs = watch.run_outs(&Scene::new(scenario));
    let summary = Summary::of(scenario, &run, &recount(scenario, &run.decisions));
    if let Some(broken) = summary.broken.first() {
        return Err(NeedError::NotThere(format!("a decision breaks a rule; please report this: {broken}")));
    }
    let days = by_day(scenario, &run, need, days);
    let (asked, served) = (days.iter().map(|day| day.asked).sum(), days.iter().map(|day| day.served).sum());
    Ok(Course { asked, served, cost_usd: summary.cost_usd, unpriced: summary.unpriced, days, run_outs })
}

fn by_day(scenario: Scenario<'_>, run: &freeway_simulate::Run, need: &Need, days: u32) -> Vec<Day> {
    let tiers = &scenario.snapshot.rules.tiers;
    let tier = |name: &String| TierDay { tier: name.clone(), ..TierDay::default() };
    let day_of = |number: usize| Day {
        day: number as u64 + 1,
        from: after_days(scenario.start, number),
        tiers: need.tiers.iter().map(|share| tier(&share.tier)).collect(),
        ..Day::default()
    };
    let mut all: Vec<Day> = (0..days as usize).map(day_of).collect();
    let place = |line: usize| {
        let arrival = &scenario.workload.arrivals[line];
        let name = &tiers[arrival.admission.tier].name;
        let tier = need.tiers.iter().position(|share| share.tier == *name)?;
        Some((usize::try_from(day(arrival.arrives) - 1).ok()?, tier))
    };
    for line in 0..scenario.workload.arrivals.len() {
        let Some((day, tier)) = place(line).filter(|(day, _)| *day < all.len()) else { continue };
        all[day].asked += 1;
        all[day].tiers[tier].asked += 1;
    }
    for decision in &run.decisions {
        let Some((day, tier)) = place(decision.line).filter(|(day, _)| *day < all.len()) else { continue };
        let target = &scenario.snapshot.deployment(decision.target).name;
        all[day].served += 1;
        all[day].tiers[tier].served += 1;
        *all[day].targets.entry(target.clone()).or_default() += 1;
    }
    all
}
