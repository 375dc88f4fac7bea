//! What would have been different: a day as it was recorded, beside the same day under a configuration.

use std::collections::{BTreeMap, BTreeSet};

use freeway_catalog::Modality;
use freeway_policy::permits;
use freeway_router::{Deployment, Snapshot};
use freeway_types::{CostClass, Handling, Usd};
use serde::Serialize;

use crate::Scenario;
use crate::recorded::{Assumed, Fate, Recorded, Replay};
use crate::run::Run;

/// The error of a request that rules keep from every target.
const NOT_PERMITTED: &str = "no_permitted_target";
/// Stands where a target would, for a request that got no answer.
const UNSERVED: &str = "unserved";

/// How long a target usually takes to its first content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum LatencyClass {
    /// Half of its answers begin within half a second.
    #[serde(rename = "below 0.5 s")]
    BelowHalfASecond,
    /// Half of them begin within two seconds.
    #[serde(rename = "below 2 s")]
    BelowTwoSeconds,
    /// They take longer.
    #[serde(rename = "slower")]
    Slower,
    /// Nothing was measured.
    #[default]
    #[serde(rename = "unknown")]
    Unknown,
}

/// What would have been different.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Requests of the day.
    pub requests: usize,
    /// As it was.
    pub recorded: Side,
    /// As it would have been.
    pub simulated: Side,
    /// Requests that the same target serves.
    pub same_target: usize,
    /// Requests that another target serves.
    pub other_target: usize,
    /// Requests that are served, and were not.
    pub newly_served: usize,
    /// Requests that were served, and are not.
    pub no_longer_served: usize,
    /// By target: those of the configuration in its order, then those that it does not have.
    pub targets: Vec<TargetPair>,
    /// From which target to which, the most requests first.
    pub moves: Vec<Shift>,
    /// From free to paid and the like; only what differs.
    pub cost_classes: Vec<Shift>,
    /// From targets of one latency class to those of another; only what differs.
    pub latency_classes: Vec<Shift>,
    /// What happens to what is sent, whether or not the request is answered.
    pub data: Vec<Change>,
    /// Requests that no target may have, by the data rules that stand in the way of one.
    pub data_rules: Vec<Change>,
    /// What had to be assumed.
    pub assumed: Assumed,
}

/// One side of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Side {
    /// Requests that were answered.
    pub served: usize,
    /// Those that were not, by the code of their error.
    pub unserved: BTreeMap<String, usize>,
    /// What it cost.
    pub cost_usd: f64,
    /// Requests of paid targets whose price nobody knows.
    pub unpriced: usize,
}

/// One target on both sides.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TargetPair {
    /// Its name.
    pub target: String,
    /// How fast it was measured to be.
    pub latency: LatencyClass,
    /// Requests that it answered.
    pub recorded: usize,
    /// Requests that it would have answered.
    pub simulated: usize,
}

/// Requests that go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shift {
    /// Where they went.
    pub from: String,
    /// Where they would have gone.
    pub to: String,
    /// How many.
    pub requests: usize,
}

/// How many requests something is true of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What is true of them.
    pub what: String,
    /// Of how many it was.
    pub recorded: usize,
    /// Of how many it would have been.
    pub simulated: usize,
    /// Of how many it would have been, and was not.
    pub newly: usize,
    /// Of how many it was, and would not have been.
    pub no_longer: usize,
}

impl LatencyClass {
    /// The class of a target, by how many of its answers began within half a second and within two.
    #[must_use]
    pub const fn of(answers: u64, below_half_a_second: u64, below_two_seconds: u64) -> Self {
        let half = answers.div_ceil(2);
        match answers {
            0 => Self::Unknown,
            _ if below_half_a_second >= half => Self::BelowHalfASecond,
            _ if below_two_seconds >= half => Self::BelowTwoSeconds,
            _ => Self::Slower,
        }
    }

    /// It in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BelowHalfASecond => "below 0.5 s",
            Self::BelowTwoSeconds => "below 2 s",
            Self::Slower => "slower",
            Self::Unknown => "unknown",
        }
    }
}

/// Counts something on both sides.
#[derive(Default)]
struct Changes(BTreeMap<String, [usize; 4]>);

impl Changes {
    fn count(&mut self, before: &BTreeSet<String>, after: &BTreeSet<String>) {
        for what in before.union(after) {
            let [recorded, simulated, newly, no_longer] = self.0.entry(what.clone()).or_default();
            let (was, is) = (before.contains(what), after.contains(what));
            *recorded += usize::from(was);
            *simulated += usize::from(is);
            *newly += usize::from(is && !was);
            *no_longer += usize::from(was && !is);
        }
    }

    fn rows(self) -> Vec<Change> {
        let row = |(what, counts): (String, [usize; 4])| {
            let [recorded, simulated, newly, no_longer] = counts;
            Change { what, recorded, simulated, newly, no_longer }
        };
        self.0.into_iter().map(row).collect()
    }
}

/// Counts where requests go that went elsewhere.
#[derive(Default)]
struct Shifts(BTreeMap<(String, String), usize>);

impl Shifts {
    fn count(&mut self, from: &str, to: &str) {
        if from != to {
            *self.0.entry((from.to_owned(), to.to_owned())).or_default() += 1;
        }
    }

    fn rows(self) -> Vec<Shift> {
        let mut rows: Vec<Shift> =
            self.0.into_iter().map(|((from, to), requests)| Shift { from, to, requests }).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.requests));
        rows
    }
}

/// What would have come of one request.
enum After<'a> {
    /// This target serves it, at this cost, if its price is known.
    Served(&'a Deployment, Option<Usd>),
    /// It gets this error; with the data rules that stand in the way of a target, where rules alone refuse it.
    Refused(String, BTreeSet<String>),
}

/// Compares a day with what came of its replay. `latency` says how fast targets are, by name.
#[must_use]
pub fn compare(
    scenario: Scenario<'_>,
    run: &Run,
    day: &[Recorded],
    replay: &Replay,
    latency: &BTreeMap<String, LatencyClass>,
) -> Comparison {
    let outcomes = outcomes(scenario, run, replay);
    let mut tally = Tally::new(scenario.snapshot, day, latency);
    for (position, request) in day.iter().enumerate() {
        if let Some(after) = outcomes.get(&position) {
            tally.count(request, after);
        }
    }
    Comparison { requests: day.len(), assumed: replay.assumed, ..tally.comparison() }
}

/// What has been counted so far.
struct Tally<'a> {
    snapshot: &'a Snapshot,
    latency: &'a BTreeMap<String, LatencyClass>,
    counts: Comparison,
    /// Where each target stands in `counts`.
    places: BTreeMap<String, usize>,
    costs: [Usd; 2],
    moves: Shifts,
    cost_classes: Shifts,
    latency_classes: Shifts,
    data: Changes,
    data_rules: Changes,
}

impl<'a> Tally<'a> {
    fn new(snapshot: &'a Snapshot, day: &[Recorded], latency: &'a BTreeMap<String, LatencyClass>) -> Self {
        let mut targets = targets(snapshot, day);
        for row in &mut targets {
            row.latency = latency.get(&row.target).copied().unwrap_or_default();
        }
        Self {
            snapshot,
            latency,
            places: targets.iter().enumerate().map(|(place, row)| (row.target.clone(), place)).collect(),
            counts: Comparison { targets, ..Comparison::default() },
            costs: [Usd::ZERO; 2],
            moves: Shifts::default(),
            cost_classes: Shifts::default(),
            latency_classes: Shifts::default(),
            data: Changes::default(),
            data_rules: Changes::default(),
        }
    }

    fn count(&mut self, request: &Recorded, after: &After<'_>) {
        let before = match &request.fate {
            Fate::Served(target) => Some(target.as_str()),
            Fate::Unserved(_) => None,
        };
        let target = match after {
            After::Served(deployment, _) => Some(*deployment),
            After::Refused(..) => None,
        };
        self.count_sides(request, after);
        self.count_moves(request, before, target);
        let was: Vec<Handling> =
            request.sent.iter().filter_map(|(name, _)| handled(request, name, self.snapshot)).collect();
        let is: Vec<Handling> = target.iter().map(|deployment| deployment.handling()).collect();
        self.data.count(&exposures(&was), &exposures(&is));
        let barred = request.barred.iter().cloned().collect();
        match after {
            After::Refused(_, clauses) => self.data_rules.count(&barred, clauses),
            After::Served(..) => self.data_rules.count(&barred, &BTreeSet::new()),
        }
    }

    /// What was answered, what not, and what that cost.
    fn count_sides(&mut self, request: &Recorded, after: &After<'_>) {
        let Comparison { recorded, simulated, .. } = &mut self.counts;
        self.costs[0] += request.cost;
        recorded.unpriced += usize::from(request.is_unpriced);
        match &request.fate {
            Fate::Served(_) => recorded.served += 1,
            Fate::Unserved(code) => *recorded.unserved.entry(code.clone()).or_default() += 1,
        }
        match after {
            After::Served(_, cost) => {
                simulated.served += 1;
                simulated.unpriced += usize::from(cost.is_none());
                self.costs[1] += cost.unwrap_or_default();
            }
            After::Refused(code, _) => *simulated.unserved.entry(code.clone()).or_default() += 1,
        }
    }

    /// Which target answers, and how it differs from the one that did.
    fn count_moves(&mut self, request: &Recorded, before: Option<&str>, after: Option<&Deployment>) {
        let name = after.map(|deployment| deployment.name.as_str());
        match (before, name) {
            (Some(before), Some(after)) if before == after => self.counts.same_target += 1,
            (Some(_), Some(_)) => self.counts.other_target += 1,
            (None, Some(_)) => self.counts.newly_served += 1,
            (Some(_), None) => self.counts.no_longer_served += 1,
            (None, None) => {}
        }
        if let Some(place) = before.and_then(|name| self.places.get(name)) {
            self.counts.targets[*place].recorded += 1;
        }
        if let Some(place) = name.and_then(|name| self.places.get(name)) {
            self.counts.targets[*place].simulated += 1;
        }
        self.moves.count(before.unwrap_or(UNSERVED), name.unwrap_or(UNSERVED));
        let paid = before.map_or(UNSERVED, |name| cost_word(handled(request, name, self.snapshot)));
        self.cost_classes.count(paid, after.map_or(UNSERVED, |deployment| cost_word(Some(deployment.handling()))));
        let class = |name: &str| self.latency.get(name).copied().unwrap_or_default().as_str();
        self.latency_classes.count(before.map_or(UNSERVED, class), name.map_or(UNSERVED, class));
    }

    fn comparison(self) -> Comparison {
        let mut counts = self.counts;
        [counts.recorded.cost_usd, counts.simulated.cost_usd] = self.costs.map(Usd::as_dollars);
        counts.moves = self.moves.rows();
        counts.cost_classes = self.cost_classes.rows();
        counts.latency_classes = self.latency_classes.rows();
        counts.data = self.data.rows();
        counts.data_rules = self.data_rules.rows();
        counts
    }
}

/// A row for each target of the configuration, and for each that served and is not in it.
fn targets(snapshot: &Snapshot, day: &[Recorded]) -> Vec<TargetPair> {
    let own: BTreeSet<&str> = snapshot.deployments.iter().map(|deployment| deployment.name.as_str()).collect();
    let served = day.iter().filter_map(|request| match &request.fate {
        Fate::Served(target) => Some(target.as_str()),
        Fate::Unserved(_) => None,
    });
    let gone: BTreeSet<&str> = served.filter(|name| !own.contains(name)).collect();
    let names = snapshot.deployments.iter().map(|deployment| deployment.name.as_str()).chain(gone);
    names.map(|name| TargetPair { target: name.to_owned(), ..TargetPair::default() }).collect()
}

/// What comes of each request, by its position in the day.
fn outcomes<'a>(scenario: Scenario<'a>, run: &Run, replay: &Replay) -> BTreeMap<usize, After<'a>> {
    let arrivals = &scenario.workload.arrivals;
    let turned_away = replay.turned_away.iter();
    let mut all: BTreeMap<usize, After<'_>> =
        turned_away.map(|(position, code)| (*position, After::Refused(code.clone(), BTreeSet::new()))).collect();
    for decision in &run.decisions {
        let deployment = scenario.snapshot.deployment(decision.target);
        let served = After::Served(deployment, arrivals[decision.line].cost_at(deployment));
        all.insert(replay.positions[decision.line], served);
    }
    for refused in &run.refused {
        let arrival = &arrivals[refused.line];
        let targets = scenario.workload.named(arrival.route).targets;
        let deployments: Vec<&Deployment> = targets.iter().map(|index| scenario.snapshot.deployment(*index)).collect();
        let all_off = deployments.iter().all(|deployment| deployment.off.is_some());
        let code = if all_off { "model_not_found" } else { client_code(refused.code) };
        let clauses = deployments
            .iter()
            .filter(|deployment| code == NOT_PERMITTED && deployment.off.is_none())
            .filter(|deployment| deployment.modality == Modality::Chat)
            .filter_map(|deployment| permits(arrival.admission.data, &deployment.data).err())
            .map(|clause| clause.to_string());
        all.insert(replay.positions[refused.line], After::Refused(code.to_owned(), clauses.collect()));
    }
    all
}

/// The code of the error that a client gets where this was the obstacle nearest to being none.
fn client_code(code: &'static str) -> &'static str {
    match code {
        "data_rule" | "tier_order" | "would_spend" | "quality" => NOT_PERMITTED,
        "off" | "not_chat" | "feature" | "field" | "output" => "unsupported_parameter",
        "context" | "too_large" => "context_length_exceeded",
        "quota" | "price" => "quota_exhausted",
        other => other,
    }
}

/// What a target did with a request: as it was known then, else as the configuration knows it.
fn handled(request: &Recorded, target: &str, snapshot: &Snapshot) -> Option<Handling> {
    let then = request.sent.iter().filter(|(name, _)| name == target).find_map(|(_, handling)| *handling);
    then.or_else(|| {
        let own = snapshot.deployments.iter().find(|deployment| deployment.name == target)?;
        Some(own.handling())
    })
}

fn cost_word(handling: Option<Handling>) -> &'static str {
    match handling {
        Some(Handling { paid: true, .. }) => CostClass::Paid.as_str(),
        Some(Handling { paid: false, .. }) => CostClass::Free.as_str(),
        None => "unknown",
    }
}

/// What happens to a request at any of these targets that its sender may not want.
fn exposures(targets: &[Handling]) -> BTreeSet<String> {
    let any = |is: fn(&Handling) -> bool| targets.iter().any(is);
    let all = [
        ("trained on", any(|at| at.trains == Some(true))),
        ("nobody knows whether it is trained on", any(|at| at.trains.is_none())),
        ("kept for some days", any(|at| at.retention_days.is_some_and(|days| days > 0))),
        ("nobody knows how long it is kept", any(|at| at.retention_days.is_none())),
    ];
    all.into_iter().filter(|(_, holds)| *holds).map(|(what, _)| what.to_owned()).collect()
}
