//! What a plan stands on: a configuration, a need, and which targets may serve it.

use std::time::Duration;

use freeway_price::{Group, Market, Solution, SolveError};
use freeway_quota::{Demand, Fit, LimitSpec, Rule};
use freeway_router::{Deployment, Live, Named, Request, Snapshot, Verdict, kind, market_at_most, plan};
use freeway_simulate::{Arrival, Scenario, Scene, Workload};
use freeway_types::{DeploymentIndex, LimitIndex, Monotonic, Now, Timestamp};

use crate::need::{Need, NeedError};

const DAY: Duration = Duration::from_secs(86_400);

/// A configuration with the need that it is to serve.
pub(crate) struct Ground<'a> {
    pub(crate) snapshot: &'a Snapshot,
    /// Its limits, each as small as the gateway lets requests of this size fill it.
    pub(crate) limits: Vec<LimitSpec>,
    pub(crate) start: Timestamp,
    /// One request of each tier of the need, in their order.
    pub(crate) samples: Workload,
    /// Who may serve them, whatever is left: for each tier of the need.
    pub(crate) takers: Vec<Vec<Taker>>,
}

/// A target that may serve a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taker {
    pub(crate) target: DeploymentIndex,
    pub(crate) demand: Demand,
}

/// Every limit has enough left: what remains of a plan are the rules that never change.
struct Ample<'a>(&'a [LimitSpec]);

impl Live for Ample<'_> {
    fn fit(&mut self, _: DeploymentIndex, _: &Deployment, _: &Demand) -> Fit {
        Fit::Fits(None)
    }

    fn paused(&mut self, _: DeploymentIndex) -> Option<(Now, String)> {
        None
    }

    /// The size of a request is known.
    fn expect(&mut self, _: DeploymentIndex, _: freeway_router::Shape) -> freeway_router::Expectation {
        freeway_router::Expectation { input: freeway_router::Rate::from_bits(0), output: u32::MAX }
    }

    fn limit_name(&self, limit: LimitIndex) -> String {
        self.0[limit.get()].name.clone()
    }
}

impl<'a> Ground<'a> {
    /// # Errors
    /// When the configuration lacks what the need asks for.
    pub(crate) fn new(
        snapshot: &'a Snapshot,
        limits: &[LimitSpec],
        need: &Need,
        start: Timestamp,
    ) -> Result<Self, NeedError> {
        let samples = read(&need.samples(), snapshot)?;
        let takers: Vec<Vec<Taker>> =
            samples.arrivals.iter().map(|arrival| takers(snapshot, limits, &samples, arrival)).collect();
        let limits = narrowed(snapshot, limits, takers.iter().flatten());
        Ok(Self { snapshot, limits, start, samples, takers })
    }

    /// Each target that may serve some tier of the need, once, in the order of the configuration.
    pub(crate) fn all_takers(&self) -> Vec<Taker> {
        let mut all: Vec<Taker> = self.takers.iter().flatten().copied().collect();
        all.sort_by_key(|taker| taker.target);
        all.dedup_by_key(|taker| taker.target);
        all
    }

    /// The linear program of so many requests of each tier of the need on each day. Money counts for nothing in it.
    pub(crate) fn market(&self, asked: &[Vec<f64>]) -> Market {
        let days = asked.first().map_or(0, Vec::len);
        let ends: Vec<Timestamp> = (1..=days).map(|day| after_days(self.start, day)).collect();
        let groups: Vec<(Group, Vec<f64>)> = self
            .samples
            .arrivals
            .iter()
            .zip(asked)
            .map(|(arrival, counts)| {
                (group(self.snapshot, &self.samples, arrival, counts.iter().sum()), counts.clone())
            })
            .collect();
        let scenario = Scenario {
            snapshot: self.snapshot,
            limits: &self.limits,
            workload: &self.samples,
            start: self.start,
            resolve: DAY,
        };
        let mut scene = Scene::new(scenario);
        let now = scenario.now(Monotonic::default());
        let mut market = market_at_most(self.snapshot, &mut scene.book, &scene.targets, now, &ends, &groups);
        market.classes.iter_mut().flat_map(|class| &mut class.offers).for_each(|offer| offer.loss = 0.0);
        market
    }
}

/// So many days of 24 hours after an instant.
pub(crate) fn after_days(start: Timestamp, days: usize) -> Timestamp {
    start.after(DAY * u32::try_from(days).unwrap_or(u32::MAX))
}

/// The same configuration, with every deployment off that is not wanted.
pub(crate) fn only(snapshot: &Snapshot, is_wanted: impl Fn(&Deployment) -> bool) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for deployment in &mut snapshot.deployments {
        if deployment.off.is_none() && !is_wanted(deployment) {
            deployment.off = Some("left out of this plan".to_owned());
        }
    }
    snapshot
}

/// Whole requests out of a solution, which is exact to a millionth of all that were asked for.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
pub(crate) fn whole(solution: &Solution, asked: &[Vec<f64>]) -> u64 {
    let (served, all): (f64, f64) = (solution.served.iter().flatten().sum(), asked.iter().flatten().sum());
    (served + all * 2e-6 + 1e-3).clamp(0.0, all) as u64
}

pub(crate) fn unsolved(error: &SolveError) -> NeedError {
    NeedError::NotThere(error.to_string())
}

fn read(text: &str, snapshot: &Snapshot) -> Result<Workload, NeedError> {
    Workload::read("the need", text, snapshot, None).map_err(|error| NeedError::NotThere(error.message))
}

fn takers(snapshot: &Snapshot, limits: &[LimitSpec], samples: &Workload, arrival: &Arrival) -> Vec<Taker> {
    let named: Named<'_> = samples.named(arrival.route);
    let request = Request { chat: &arrival.chat, admission: &arrival.admission, named, under_way: false };
    let candidates = plan(snapshot, request, &mut Ample(limits)).candidates;
    let kept = candidates.iter().filter(|candidate| matches!(candidate.verdict, Verdict::Kept { .. }));
    kept.map(|candidate| Taker { target: candidate.deployment, demand: candidate.demand }).collect()
}

/// Limits without the room that the gateway keeps free where sizes are estimates, since a simulation knows sizes and would
/// keep none; and as whole requests, where all are of one size: the linear program would fill the rest with a part of one.
fn narrowed<'t>(snapshot: &Snapshot, limits: &[LimitSpec], takers: impl Iterator<Item = &'t Taker>) -> Vec<LimitSpec> {
    // Of each limit: the least that is kept free, and what a request needs, if it is the same at every target.
    let mut found: Vec<Option<(u64, Option<u64>)>> = vec![None; limits.len()];
    for taker in takers {
        for limit in &snapshot.deployment(taker.target).limits {
            let spec = &limits[limit.get()];
            let Some(amount) = spec.amount else { continue };
            let need = taker.demand.amount(spec);
            let kept = taker.demand.room(spec, amount) - need;
            let found = &mut found[limit.get()];
            *found = Some(match *found {
                None => (kept, Some(need)),
                Some((other, same)) => (other.min(kept), same.filter(|same| *same == need)),
            });
        }
    }
    let narrow = |(spec, found): (&LimitSpec, Option<(u64, Option<u64>)>)| {
        let (kept, need) = found.unwrap_or_default();
        let narrow = |amount: u64| {
            let amount = amount.saturating_sub(kept);
            match (need, &spec.rule) {
                // Parts of a request flow into a bucket, and stay there.
                (None | Some(0), _) | (_, Rule::Bucket(_)) => amount,
                // A credit lapses grant by grant, and each may end within a request.
                (_, Rule::Never(grants)) if grants.len() > 1 => amount,
                (Some(need), _) => amount / need * need,
            }
        };
        let mut spec = LimitSpec { amount: spec.amount.map(narrow), ..spec.clone() };
        // What is kept is kept of what lapses last.
        match &mut spec.rule {
            Rule::Never(grants) if grants.len() > 1 => {
                let last = grants.last_mut().and_then(|grant| grant.amount.as_mut());
                last.into_iter().for_each(|amount| *amount = amount.saturating_sub(kept));
            }
            Rule::Never(grants) => grants.iter_mut().for_each(|grant| grant.amount = spec.amount),
            _ => {}
        }
        spec
    };
    limits.iter().zip(found).map(narrow).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens")]
fn group(snapshot: &Snapshot, samples: &Workload, arrival: &Arrival, count: f64) -> Group {
    let kind = kind(snapshot, &arrival.admission, samples.name(arrival.route), arrival.chat.features);
    Group { kind, input: arrival.size.input as f64, output: arrival.size.output as f64, count, cells: Vec::new() }
}
