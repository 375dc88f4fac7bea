//! The decisions, in the order of time.

use freeway_quota::Actual;
use freeway_router::{Bar, Desk, Plan, Reason, Request, Size, Unserved, Verdict, cost, plan, units};
use freeway_types::{DeploymentIndex, Monotonic, Usage};

use crate::Scenario;
use crate::ahead::Outlook;
use crate::scene::{Kind, Moment, Scene, Waiters};
use crate::workload::{Arrival, as_seconds};

/// One request that was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Its position in the workload.
    pub line: usize,
    /// When it was sent, and counted.
    pub at: Monotonic,
    /// Where it went.
    pub target: DeploymentIndex,
}

/// One request that was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its position in the workload.
    pub line: usize,
    /// Why, in one word for programs: of the obstacle that came nearest to being none, when the request arrived.
    pub code: &'static str,
}

/// What came of a workload. Each of its lines is in one of the two lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Those that were served, in the order in which they were.
    pub decisions: Vec<Decision>,
    /// Those that were not, in the order of their lines.
    pub refused: Vec<Refused>,
    /// How often prices were worked out.
    pub solutions: usize,
    /// How often they could not be, so that the earlier ones stayed.
    pub failures: usize,
}

/// Sees how things stand while decisions are made.
pub trait Watcher {
    /// Time has come to the scene's instant, which never falls: before each decision, and before each turn of those that
    /// wait.
    fn look(&mut self, scene: &mut Scene<'_>);
}

/// Nobody watches.
impl Watcher for () {
    fn look(&mut self, _: &mut Scene<'_>) {}
}

/// Makes the decisions for a workload. One uses nothing of what comes later.
#[must_use]
pub fn simulate(scenario: Scenario<'_>) -> Run {
    watched(scenario, scenario.workload.looks_ahead(), &mut ())
}

/// The same while somebody watches. Where nobody looks ahead there are never any prices, and who goes by them goes by what
/// stands in for them: that takes a hundredth of the time.
#[must_use]
pub fn watched(scenario: Scenario<'_>, looks_ahead: bool, watcher: &mut impl Watcher) -> Run {
    let arrivals = &scenario.workload.arrivals;
    let mut order: Vec<usize> = (0..arrivals.len()).collect();
    order.sort_by(|one, other| arrivals[*one].at.total_cmp(&arrivals[*other].at).then(one.cmp(other)));
    let scene = Scene::new(scenario);
    let outlook = looks_ahead.then(|| Outlook::new(&scene));
    let mut gateway = Gateway { scene, outlook, watcher, run: Run::default(), codes: Vec::new() };
    gateway.codes.resize(arrivals.len(), "");
    for line in order {
        gateway.pass_until(arrivals[line].arrives);
        gateway.receive(line);
    }
    gateway.pass_until(Monotonic::from_micros(u64::MAX));
    let mut run = gateway.run;
    run.refused.sort_by_key(|refused| refused.line);
    if let Some(outlook) = gateway.outlook {
        (run.solutions, run.failures) = (outlook.solutions, outlook.failures);
    }
    run
}

/// The decisions as lines of JSON.
#[must_use]
pub fn decision_lines(scenario: Scenario<'_>, decisions: &[Decision]) -> String {
    let mut text = String::new();
    for Decision { line, at, target } in decisions {
        let arrival = &scenario.workload.arrivals[*line];
        // Who did not wait went at the very instant that its line names.
        let at = if *at == arrival.arrives { arrival.at } else { as_seconds(*at) };
        let target = &scenario.snapshot.deployment(*target).name;
        text.push_str(&format!("{}\n", serde_json::json!({"i": line, "at": at, "target": target})));
    }
    text
}

struct Gateway<'a, 's, W> {
    scene: Scene<'a>,
    watcher: &'s mut W,
    /// Who works prices out, where somebody goes by them.
    outlook: Option<Outlook>,
    run: Run,
    /// Why each request was not served when it arrived, of those that wait.
    codes: Vec<&'static str>,
}

/// Why a request cannot be served now.
struct Obstacle {
    unserved: Unserved,
    code: &'static str,
}

impl<W: Watcher> Gateway<'_, '_, W> {
    /// Lets those that wait take turns until an instant, that one included.
    fn pass_until(&mut self, end: Monotonic) {
        while let Some(next) = self.scene.waiting.next().filter(|next| *next <= end) {
            self.advance(next);
            let mut waiting = std::mem::replace(&mut self.scene.waiting, Waiters::new(usize::MAX));
            waiting.take_turns(self.scene.now.monotonic, self);
            self.scene.waiting = waiting;
        }
    }

    fn receive(&mut self, line: usize) {
        let arrival = &self.scene.scenario.workload.arrivals[line];
        self.advance(arrival.arrives);
        if let Some(outlook) = &mut self.outlook {
            outlook.arrived(&self.scene, arrival);
        }
        let Err(Obstacle { unserved, code }) = self.send(line) else { return };
        match unserved {
            Unserved::NotBefore(again) if again <= arrival.deadline => {
                let (kind, size, deadline) = (Kind::of(arrival), arrival.size, arrival.deadline);
                self.codes[line] = code;
                let joined = self.scene.waiting.join(kind, size, deadline, again, line);
                debug_assert!(joined.is_ok(), "any number may wait");
            }
            _ => self.run.refused.push(Refused { line, code }),
        }
    }

    fn advance(&mut self, instant: Monotonic) {
        let instant = instant.max(self.scene.now.monotonic);
        self.scene.now = self.scene.scenario.now(instant);
        if let Some(outlook) = &mut self.outlook {
            outlook.advance(&mut self.scene);
        }
        self.watcher.look(&mut self.scene);
    }

    /// Where a request would go now.
    fn choose(&mut self, arrival: &Arrival) -> Result<(usize, Plan), Obstacle> {
        let scenario = self.scene.scenario;
        let named = scenario.workload.named(arrival.route);
        let request = Request { chat: &arrival.chat, admission: &arrival.admission, named, under_way: false };
        let mut moment = Moment { scene: &mut self.scene, output: arrival.size.output };
        let plan = plan(scenario.snapshot, request, &mut moment);
        match plan.order.first() {
            Some(first) => Ok((*first, plan)),
            None => Err(obstacle(&plan)),
        }
    }

    /// Sends a request, which is answered and counted at once.
    fn send(&mut self, line: usize) -> Result<(), Obstacle> {
        let scenario = self.scene.scenario;
        let arrival = &scenario.workload.arrivals[line];
        let (position, plan) = self.choose(arrival)?;
        let candidate = &plan.candidates[position];
        let deployment = scenario.snapshot.deployment(candidate.deployment);
        let Scene { now, book, targets, tariff, .. } = &mut self.scene;
        let target = targets[candidate.deployment.get()];
        let id = book.reserve_at(*now, target, &candidate.demand).map_err(|blocked| {
            let unserved = blocked.until.map_or(Unserved::Never, |until| Unserved::NotBefore(until.monotonic));
            Obstacle { unserved, code: "quota" }
        })?;
        let Size { input, output } = arrival.size_at(deployment);
        let usage = Usage { input, output, ..Usage::default() };
        let cost = cost(deployment, usage).unwrap_or_default();
        let actual = Actual { usage: Some(usage), cost, units: units(deployment, usage), answered: true };
        book.received(id, *now);
        book.settle(id, *now, &actual);
        self.run.decisions.push(Decision { line, at: now.monotonic, target: candidate.deployment });
        if let (Some(tariff), Some(cell)) = (tariff, &plan.cell) {
            tariff.take(cell);
        }
        Ok(())
    }
}

impl<W: Watcher> Desk<usize> for Gateway<'_, '_, W> {
    fn ask(&mut self, like: &usize, size: Size) -> Result<(), Unserved> {
        let mut arrival = self.scene.scenario.workload.arrivals[*like].clone();
        arrival.size = size;
        arrival.chat.input_tokens = Some(size.input);
        arrival.chat.max_output = Some(size.output);
        self.choose(&arrival).map(|_| ()).map_err(|obstacle| obstacle.unserved)
    }

    fn serve(&mut self, line: &usize) -> Result<(), Unserved> {
        self.send(*line).map_err(|obstacle| obstacle.unserved)
    }

    fn give_up(&mut self, line: usize) {
        self.run.refused.push(Refused { line, code: self.codes[line] });
    }
}

/// What stands in the way of a request for which nothing is kept: of all obstacles the kind that is nearest to being
/// none, and the first instant at which one of them is gone.
fn obstacle(plan: &Plan) -> Obstacle {
    let mut nearest: Option<(Bar, &'static str)> = None;
    let mut again: Option<Monotonic> = None;
    for candidate in &plan.candidates {
        let Verdict::Dropped(reason) = &candidate.verdict else { continue };
        if nearest.is_none_or(|(bar, _)| reason.bar() > bar) {
            nearest = Some((reason.bar(), code(reason)));
        }
        if let Some(until) = reason.until() {
            again = Some(again.map_or(until.monotonic, |other| other.min(until.monotonic)));
        }
    }
    let unserved = again.map_or(Unserved::Never, Unserved::NotBefore);
    Obstacle { unserved, code: nearest.map_or("no_target", |(_, code)| code) }
}

/// One word for a reason; a limit that is smaller than the request is told apart from one that is used up.
fn code(reason: &Reason) -> &'static str {
    match reason {
        Reason::Quota { too_large: true, .. } => "too_large",
        reason => reason.code(),
    }
}
