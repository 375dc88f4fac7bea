//! The plan: every candidate kept or dropped with a reason, and the kept ones in order.

use std::time::Duration;

use freeway_catalog::Modality;
use freeway_dialect::openai_chat::ChatRequest;
use freeway_policy::{Admission, permits};
use freeway_price::Cell;
use freeway_quota::{Demand, Fit};
use freeway_types::{CostClass, DeploymentIndex, FeatureSet, Now, Usd};

use crate::calibration::{Expectation, Shape};
use crate::estimate::{demand, least_input};
use crate::health::Class;
use crate::pricing::{Pricing, Score, Scored, kind, weigh};
use crate::reason::Reason;
use crate::snapshot::{Deployment, Named, Snapshot};
use crate::strategy::{Standing, Strategy};
use crate::waiting::Size;

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What the client sent.
    pub chat: &'a ChatRequest,
    /// What policy gave it.
    pub admission: &'a Admission,
    /// What its `model` stands for.
    pub named: Named<'a>,
    /// Whether somebody has begun to serve it, so that nothing of it is left for others.
    pub under_way: bool,
}

/// The state of the moment, as far as a plan needs it.
pub trait Live {
    /// Whether an attempt would fit into a deployment's limits.
    fn fit(&mut self, index: DeploymentIndex, deployment: &Deployment, demand: &Demand) -> Fit;
    /// Until when a deployment is paused and why, with its account and keys.
    fn paused(&mut self, deployment: DeploymentIndex) -> Option<(Now, String)>;
    /// Until when a deployment is left alone, because it fails again and again for requests with such features.
    fn broken(&mut self, _deployment: DeploymentIndex, _features: FeatureSet) -> Option<Now> {
        None
    }
    /// What was learned about requests of a shape at a deployment.
    fn expect(&mut self, _deployment: DeploymentIndex, shape: Shape) -> Expectation {
        Expectation::prior(shape)
    }
    /// How long a deployment lately took to its first content, for requests of a class; `None` where nothing is measured.
    fn first_content(&mut self, _deployment: DeploymentIndex, _class: Class) -> Option<Duration> {
        None
    }
    /// Which share of attempts at a deployment lately came to an answer.
    fn reliability(&self, _deployment: DeploymentIndex) -> f64 {
        1.0
    }
    /// The prices of limits; `None` while there are none.
    fn prices(&self) -> Option<Pricing<'_>> {
        None
    }
    /// The name of a limit.
    fn limit_name(&self, limit: freeway_types::LimitIndex) -> String;
}

/// One deployment that was considered.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Which.
    pub deployment: DeploymentIndex,
    /// Kept or dropped.
    pub verdict: Verdict,
    /// What an attempt is expected to charge.
    pub demand: Demand,
    /// Fields of the request that would be left out for it.
    pub dropped_fields: Vec<String>,
    /// What the request would gain there, where there are prices and it could go there.
    pub score: Option<Score>,
}

/// Whether a candidate is in the plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is; the scarcest of its limits has this share left, 0 to 1, if the size of one is known.
    Kept {
        /// The share.
        headroom: Option<f64>,
    },
    /// It is not.
    Dropped(Reason),
}

/// What to try, in order, and why not the others.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every candidate, in the order in which it was listed.
    pub candidates: Vec<Candidate>,
    /// Positions in `candidates` of those that were kept, first choice first.
    pub order: Vec<usize>,
    /// Whether the order is the user's own, so that the first target is worth a second try.
    pub ordered: bool,
    /// Whether it goes by the prices of limits, if there are any.
    pub by_price: bool,
    /// Whether the only target fails again and again, and there is no other.
    pub last_resort: bool,
    /// What a forecast knows the request by.
    pub cell: Option<Cell>,
    /// About how large it is.
    pub size: Size,
}

/// Makes the plan.
pub fn plan(snapshot: &Snapshot, request: Request<'_>, live: &mut impl Live) -> Plan {
    let strategy = request.named.alias.map_or_else(Strategy::default, |alias| alias.strategy);
    let shape = Shape::of(request.chat);
    let mut candidates = Vec::with_capacity(request.named.targets.len());
    for index in request.named.targets {
        let deployment = snapshot.deployment(*index);
        let demand = demand(request.chat, deployment, live.expect(*index, shape));
        let mut dropped_fields = Vec::new();
        let verdict = match unfit(snapshot, deployment, &request, &mut dropped_fields) {
            Some(reason) => Verdict::Dropped(reason),
            None => standing(*index, deployment, request.chat.features, &demand, live),
        };
        candidates.push(Candidate { deployment: *index, verdict, demand, dropped_fields, score: None });
    }
    let last_resort = least_bad(snapshot, &mut candidates, live);
    let size = candidates.first().map_or(Size::default(), |Candidate { demand, .. }| Size {
        input: demand.input.expected,
        output: demand.output.expected,
    });
    let kind = kind(snapshot, request.admission, &request.chat.model, request.chat.features);
    let cell = (kind, freeway_price::size(size.input, size.output));
    let prices = live.prices().filter(|_| strategy == Strategy::Price && !last_resort);
    let order = match prices.map(|prices| weigh(snapshot, &request, &mut candidates, &cell, (&prices, &*live))) {
        Some(scored) => fastest_of_equals(&request, &candidates, scored, live),
        None => rank(snapshot, &request, strategy, &candidates, live),
    };
    let (ordered, by_price) = (strategy == Strategy::Ordered, strategy == Strategy::Price);
    Plan { candidates, order, ordered, by_price, last_resort, cell: Some(cell), size }
}

/// The positions of scored candidates. Of what is worth as much and as good, what is measured to be faster goes first; times
/// are told apart by powers of two, and what is not measured goes before them.
fn fastest_of_equals(
    request: &Request<'_>,
    candidates: &[Candidate],
    mut scored: Vec<Scored>,
    live: &mut impl Live,
) -> Vec<usize> {
    for equals in scored.chunk_by_mut(Scored::is_like).filter(|equals| equals.len() > 1) {
        equals.sort_by_cached_key(|scored| {
            let candidate = &candidates[scored.position];
            let class = class(request, candidate);
            live.first_content(candidate.deployment, class).map(|time| time.as_millis().checked_ilog2())
        });
    }
    scored.into_iter().map(|scored| scored.position).collect()
}

fn class(request: &Request<'_>, candidate: &Candidate) -> Class {
    Class::of(request.chat.stream, candidate.demand.input.expected, request.chat.max_output)
}

/// Where all that could serve fail again and again, the one that is to be tried first is kept: breakers alone never
/// close everything off.
fn least_bad(snapshot: &Snapshot, candidates: &mut [Candidate], live: &mut impl Live) -> bool {
    if candidates.iter().any(|candidate| matches!(candidate.verdict, Verdict::Kept { .. })) {
        return false;
    }
    let until = |candidate: &Candidate| match candidate.verdict {
        Verdict::Dropped(Reason::Broken { until }) => Some(until.monotonic),
        _ => None,
    };
    let mut broken: Vec<usize> =
        (0..candidates.len()).filter(|position| until(&candidates[*position]).is_some()).collect();
    broken.sort_by_key(|position| until(&candidates[*position]));
    for position in broken {
        let candidate = &mut candidates[position];
        let deployment = snapshot.deployment(candidate.deployment);
        if let Fit::Fits(headroom) = live.fit(candidate.deployment, deployment, &candidate.demand) {
            candidate.verdict = Verdict::Kept { headroom };
            return true;
        }
    }
    false
}

/// Why a deployment can never serve this request, if so.
pub(crate) fn unfit(
    snapshot: &Snapshot,
    deployment: &Deployment,
    request: &Request<'_>,
    dropped_fields: &mut Vec<String>,
) -> Option<Reason> {
    let Request { chat, admission, named, .. } = request;
    if let Some(why) = &deployment.off {
        return Some(Reason::Off(why.clone()));
    }
    if deployment.modality != Modality::Chat {
        return Some(Reason::NotChat);
    }
    if let Err(clause) = permits(admission.data, &deployment.data) {
        return Some(Reason::Data(clause));
    }
    let tier = &snapshot.rules.tiers[admission.tier];
    if !tier.order.iter().any(|group| group.contains(deployment.cost)) {
        return Some(Reason::TierOrder { tier: tier.name.clone(), cost: deployment.cost });
    }
    let account = snapshot.accounts.get(deployment.account.get())?;
    if deployment.cost == CostClass::Paid && !account.may_spend && !named.explicit {
        return Some(Reason::WouldSpend);
    }
    let needs = admission.min_quality.max(named.alias.map_or(admission.min_quality, |alias| alias.min_quality));
    if deployment.quality < needs {
        return Some(Reason::Quality { has: deployment.quality, needs });
    }
    if let Some(feature) = chat.features.and(deployment.features.absent).iter().next() {
        return Some(Reason::Feature(feature));
    }
    let drop = named.alias.and_then(|alias| alias.drop_unsupported).unwrap_or(snapshot.drop_unsupported);
    for field in account.unsupported.iter().chain(&deployment.unsupported) {
        // One choice is what everybody gives anyway.
        let harmless = field == "n" && chat.choices == 1 || account.renamed.iter().any(|(usual, _)| usual == field);
        if !harmless && chat.fields.contains(field) {
            if !drop {
                return Some(Reason::Field(field.clone()));
            }
            dropped_fields.push(field.clone());
        }
    }
    if let (Some(most), Some(asked)) = (deployment.max_output, chat.max_output)
        && asked > most
    {
        return Some(Reason::Output { most, asked });
    }
    let needs = least_input(chat) + chat.max_output.unwrap_or(1);
    match deployment.context {
        Some(context) if needs > context => Some(Reason::Context { context, needs }),
        _ => None,
    }
}

/// Whether a deployment that could serve can do so now.
fn standing(
    index: DeploymentIndex,
    deployment: &Deployment,
    features: FeatureSet,
    demand: &Demand,
    live: &mut impl Live,
) -> Verdict {
    if let Some((until, why)) = live.paused(index) {
        return Verdict::Dropped(Reason::Paused { until, why });
    }
    if let Some(until) = live.broken(index, features) {
        return Verdict::Dropped(Reason::Broken { until });
    }
    match live.fit(index, deployment, demand) {
        Fit::Fits(headroom) => Verdict::Kept { headroom },
        Fit::Blocked(blocked) => Verdict::Dropped(Reason::Quota {
            limit: blocked.limit,
            name: live.limit_name(blocked.limit),
            until: blocked.until,
            too_large: blocked.too_large,
        }),
    }
}

fn rank(
    snapshot: &Snapshot,
    request: &Request<'_>,
    strategy: Strategy,
    candidates: &[Candidate],
    live: &mut impl Live,
) -> Vec<usize> {
    let groups = &snapshot.rules.tiers[request.admission.tier].order;
    let mut kept: Vec<(usize, Standing<'_>)> = Vec::with_capacity(candidates.len());
    for (position, candidate) in candidates.iter().enumerate() {
        if let Verdict::Kept { headroom } = candidate.verdict {
            let deployment = snapshot.deployment(candidate.deployment);
            // In a list of the user's own the tier's groups only filter: its order is what the user wants.
            let group = match strategy {
                Strategy::Ordered => 0,
                _ => groups.iter().position(|group| group.contains(deployment.cost)).unwrap_or(groups.len()),
            };
            let expected_cost = deployment
                .prices
                .map(|_| Usd::from_picos(i64::try_from(candidate.demand.picos.expected).unwrap_or(i64::MAX)));
            let first_content = match strategy {
                Strategy::Fastest => live.first_content(candidate.deployment, class(request, candidate)),
                _ => None,
            };
            // Nobody knows of a limit: nothing says that it is scarce.
            let headroom = headroom.unwrap_or(1.0);
            kept.push((group, Standing { deployment, headroom, expected_cost, first_content, position }));
        }
    }
    kept.sort_by(|(one_group, one), (other_group, other)| {
        one_group.cmp(other_group).then_with(|| strategy.compare(one, other))
    });
    kept.into_iter().map(|(_, standing)| standing.position).collect()
}
