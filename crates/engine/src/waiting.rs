//! Requests that wait for quota, held open, and the task that serves them while there are any.
//!
//! Whose turn it is, the router decides (`waiting.rs` there). A request that waits is planned for anew when its turn may
//! have come, and what it will use is held in the same moment: between being served and being sent, nobody can come
//! before it. Its own task then sends it. Whoever stops to wait, because its time is over or its client has left, is out
//! of its line at once, and what was held for it meanwhile is given back.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freeway_quota::ReservationId;
use freeway_router::{Candidate, Class, Desk, Place, Plan, Reason, Shape, Size, Unserved, Verdict, Waiting};
use freeway_telemetry::Event;
use freeway_types::{DataClass, DeploymentIndex, Feature, FeatureSet, KeyIndex, Monotonic, Now, Quality};
use tokio::sync::{Notify, oneshot};

use crate::engine::{Engine, Shared};
use crate::health::{Sight, is_featured};
use crate::job::{Job, make_plan};
use crate::reserving::Entrance;
use crate::trace::{Trace, micros};

/// Most requests that wait at the same time.
const MOST: usize = 1_000;
/// Nobody is looked at less often than this, whatever was heard of when it could be served: pauses are lifted, limits turn
/// out to be larger, prices fall.
const LOOK: Duration = Duration::from_secs(1);
/// So much time passes between two looks, for what comes back meanwhile …
const BREATH: Duration = Duration::from_millis(5);
/// … and as much again for each so many lines.
const LINES_TO_A_BREATH: usize = 32;
/// What may be there at any moment, such as what is not secured on the disk yet, is asked for again after this.
const MOMENT: Duration = Duration::from_millis(50);
/// Most plans that are made in a row while they take turns; the rest comes after a breath.
const MOST_PLANS: usize = 64;
/// So much time has to be left for an answer, where nobody knows how long it takes to begin.
const LEAST_TIME: Duration = Duration::from_secs(2);

/// Where they wait. Shared by the engines of all editions.
#[derive(Default)]
pub(crate) struct WaitingRoom {
    inner: Mutex<Inner>,
    /// How many wait, for those who only want to know whether anybody does.
    count: AtomicUsize,
    /// Whether something was given back since somebody was looked at.
    has_more: AtomicBool,
    /// Rings for that, when somebody comes, and when the last one leaves.
    bell: Notify,
}

struct Inner {
    waiting: Waiting<Kind, Waiter>,
    /// Whether a task serves them.
    is_attended: bool,
}

/// What makes two requests that wait of one kind: nothing but their size, and how their letters turn into tokens, tells
/// them apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    edition: usize,
    model: String,
    tier: usize,
    data: DataClass,
    min_quality: Quality,
    features: [bool; Feature::ALL.len()],
    fields: Vec<String>,
    choices: u64,
    shape: [usize; 2],
    /// What a forecast knows its size by, since its share is counted by that.
    size: Option<u32>,
}

/// A request that waits.
struct Waiter {
    engine: Arc<Engine>,
    job: Job,
    barred: Barred,
    /// What a forecast knows it by.
    kind: Option<freeway_price::Kind>,
    /// Where its task hears of its turn; empty once it has been told.
    turn: Cell<Option<oneshot::Sender<Grant>>>,
}

/// Targets that have failed in a request, and until when they are left out of its plans; `None` is for good.
#[derive(Clone, Debug, Default)]
pub(crate) struct Barred(pub(crate) Vec<(DeploymentIndex, Option<Monotonic>)>);

/// What came of waiting.
pub(crate) enum Waited {
    /// It is the request's turn.
    Granted(Box<Grant>),
    /// Its turn did not come in time, or waiting does not help any more.
    InVain,
    /// Too many wait already.
    Full,
}

/// A request's turn: what it will use is held. Given back if nobody takes it.
pub(crate) struct Grant {
    engine: Arc<Engine>,
    plan: Option<Plan>,
    featured: bool,
    held: GrantedHold,
    is_taken: bool,
}

/// What is held for a request whose turn it is.
#[derive(Clone, Copy)]
pub(crate) struct GrantedHold {
    /// Its target's position in the plan.
    pub(crate) position: usize,
    pub(crate) key: Option<KeyIndex>,
    pub(crate) reservation: ReservationId,
    /// Since when.
    pub(crate) now: Now,
}

/// Takes a request out of its line when it stops to wait, and takes down how long it did.
struct Seat<'a> {
    trace: &'a Trace,
    place: Place<Kind>,
    begun: Now,
    /// Why it stops.
    outcome: &'static str,
}

/// Serves those that wait, once through.
#[derive(Default)]
struct Attendant {
    /// Plans that were made.
    plans: usize,
    /// Targets without a known limit that somebody was sent to: what comes back at once there is not known, so that they
    /// get one at a time.
    sent: Vec<(usize, DeploymentIndex)>,
}

/// Sees to it that there is another attendant if this one falls over.
struct Attending<'a>(&'a WaitingRoom);

// === impl WaitingRoom ===

impl WaitingRoom {
    /// Something was given back: somebody's turn may have come.
    pub(crate) fn ring(&self) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.has_more.store(true, Ordering::Relaxed);
            self.bell.notify_one();
        }
    }

    /// What a forecast knows those by that wait.
    pub(crate) fn kinds(&self) -> Vec<freeway_price::Kind> {
        self.inner().waiting.iter().filter_map(|waiter| waiter.kind.clone()).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down how many wait.
    fn count(&self, inner: &Inner) {
        self.count.store(inner.waiting.len(), Ordering::Relaxed);
    }

    fn leave(&self, place: &Place<Kind>) {
        let mut inner = self.inner();
        let left = inner.waiting.leave(place);
        self.count(&inner);
        if inner.waiting.is_empty() {
            self.bell.notify_one();
        }
        drop(inner);
        // Not while the room is held: it may be the last to hold its engine.
        drop(left);
    }
}

impl Default for Inner {
    fn default() -> Self {
        Self { waiting: Waiting::new(MOST), is_attended: false }
    }
}

// === impl Engine ===

impl Engine {
    /// How many requests wait for quota.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared().room.count.load(Ordering::Relaxed)
    }

    /// Until when a request may wait for quota: time has to be left for its answer.
    pub(crate) fn patience(&self, received: Now, job: &Job) -> Monotonic {
        let wait = self.snapshot.rules.tiers[job.admission.tier].wait;
        let latest = job.deadline.monotonic.since(received.monotonic).saturating_sub(LEAST_TIME);
        received.monotonic.after(wait.min(latest))
    }

    /// Whether others wait for the same as a request: it goes behind them then.
    pub(crate) fn is_behind_others(&self, job: &Job, plan: &Plan) -> bool {
        let room = &self.shared().room;
        let may_wait = || !self.snapshot.rules.tiers[job.admission.tier].wait.is_zero();
        room.count.load(Ordering::Relaxed) > 0
            && may_wait()
            && room.inner().waiting.has_line(&Kind::of(self, job, plan))
    }

    /// Waits until it is a request's turn, but no longer than until `end`. It may be served from `again` on.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        trace: &Trace,
        job: &Job,
        (plan, barred): (&Plan, &Barred),
        again: Monotonic,
        end: Monotonic,
    ) -> Waited {
        let begun = self.now();
        let Some((place, turn)) = self.take_place(job, (plan, barred), again, end) else { return Waited::Full };
        let mut seat = Seat { trace, place, begun, outcome: "left" };
        let granted = tokio::time::timeout(end.since(begun.monotonic), turn).await;
        match granted.ok().and_then(Result::ok) {
            Some(grant) => {
                seat.outcome = "served";
                Waited::Granted(Box::new(grant))
            }
            None => {
                seat.outcome = "expired";
                Waited::InVain
            }
        }
    }

    /// Lets a request join its line, and sees to it that somebody serves it.
    fn take_place(
        self: &Arc<Self>,
        job: &Job,
        (plan, barred): (&Plan, &Barred),
        again: Monotonic,
        end: Monotonic,
    ) -> Option<(Place<Kind>, oneshot::Receiver<Grant>)> {
        let (sender, turn) = oneshot::channel();
        let waiter = Waiter {
            engine: Arc::clone(self),
            job: job.clone(),
            barred: barred.clone(),
            kind: plan.cell.as_ref().map(|(kind, _)| kind.clone()),
            turn: Cell::new(Some(sender)),
        };
        let shared = self.shared();
        // Every estimate of its input grows with that.
        let bytes = u64::try_from(job.chat.body.len()).unwrap_or(u64::MAX);
        let size = Size { input: bytes, output: job.chat.max_output.unwrap_or(0) };
        let mut inner = shared.room.inner();
        let place = inner.waiting.join(Kind::of(self, job, plan), size, end, again, waiter).ok()?;
        shared.room.count(&inner);
        let is_attended = std::mem::replace(&mut inner.is_attended, true);
        drop(inner);
        match is_attended {
            // It may be looked at sooner than those who wait already.
            true => shared.room.bell.notify_one(),
            false => _ = tokio::spawn(attend(Arc::clone(shared))),
        }
        Some((place, turn))
    }
}

// === impl Barred ===

impl Barred {
    /// Leaves out of a plan what has failed.
    pub(crate) fn leave_out(&self, plan: &mut Plan, now: Monotonic) {
        let Plan { order, candidates, .. } = plan;
        order.retain(|position| {
            let of = |(deployment, until): &(DeploymentIndex, Option<Monotonic>)| {
                *deployment == candidates[*position].deployment && until.is_none_or(|until| now < until)
            };
            !self.0.iter().any(of)
        });
    }
}

// === impl Kind ===

impl Kind {
    fn of(engine: &Engine, job: &Job, plan: &Plan) -> Self {
        let Job { chat, admission, .. } = job;
        let mut fields = chat.fields.clone();
        fields.sort_unstable();
        let Shape { input, output } = Shape::of(chat);
        Self {
            edition: engine.edition,
            model: chat.model.clone(),
            tier: admission.tier,
            data: admission.data,
            min_quality: admission.min_quality,
            features: Feature::ALL.map(|feature| FeatureSet::contains(chat.features, feature)),
            fields,
            choices: chat.choices,
            shape: [input, output],
            size: plan.cell.as_ref().map(|(_, size)| *size),
        }
    }
}

// === impl Grant ===

impl Grant {
    /// The plan that it is by, and what is held. From here on whoever takes it answers for that.
    pub(crate) fn take(mut self) -> (Plan, GrantedHold) {
        self.is_taken = true;
        (self.plan.take().unwrap_or_default(), self.held)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let (false, Some(plan)) = (self.is_taken, &self.plan) else { return };
        self.engine.give_back_its_share(plan);
        self.engine.see(plan.candidates[self.held.position].deployment, self.featured, Sight::Unclear);
        self.engine.release(self.held.reservation);
    }
}

// === impl Seat ===

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Self { trace, place, begun, outcome } = self;
        let engine = &trace.engine;
        engine.shared().room.leave(place);
        let now = engine.now();
        let waited = micros(now.monotonic.since(begun.monotonic));
        trace.note(|record| record.waited_us += waited);
        engine.telemetry().tell(now.wall, &Event::Waited { id: trace.id, outcome, millis: waited / 1_000 });
    }
}

// === impl Attendant ===

/// Serves those that wait, for as long as anybody does.
async fn attend(shared: Arc<Shared>) {
    let room = &shared.room;
    let _attending = Attending(room);
    let mut looked = shared.clock.now().monotonic;
    loop {
        let (next, breath) = {
            let mut inner = room.inner();
            let Some(next) = inner.waiting.next() else {
                inner.is_attended = false;
                return;
            };
            let lines = u32::try_from(inner.waiting.lines() / LINES_TO_A_BREATH).unwrap_or(u32::MAX);
            (next.min(looked.after(LOOK)), BREATH.saturating_mul(1 + lines))
        };
        let wait = next.since(shared.clock.now().monotonic);
        let _ = tokio::time::timeout(wait, room.bell.notified()).await;
        tokio::time::sleep(breath).await;
        let now = shared.clock.now().monotonic;
        let has_more = room.has_more.swap(false, Ordering::Relaxed);
        let mut inner = room.inner();
        if has_more || now >= looked.after(LOOK) {
            inner.waiting.hurry(now);
            looked = now;
        }
        inner.waiting.take_turns(now, &mut Attendant::default());
        room.count(&inner);
    }
}

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.inner().is_attended = false;
        }
    }
}

impl Attendant {
    /// Holds what a request will use at the first target of its plan that has it.
    fn grant(&mut self, waiter: &Waiter, now: Now) -> Result<Grant, Unserved> {
        let Waiter { engine, job, barred, .. } = waiter;
        let mut plan = make_plan(engine, &job.chat, &job.admission, false).map_err(|_| Unserved::Never)?;
        barred.leave_out(&mut plan, now.monotonic);
        let mut again = first_return(&plan, barred, now.monotonic);
        let mut hear =
            |instant: Now| again = Some(again.map_or(instant.monotonic, |other| other.min(instant.monotonic)));
        let (featured, left) = (is_featured(job.chat.features), job.deadline.monotonic.since(now.monotonic));
        for position in plan.order.iter().copied() {
            let candidate = &plan.candidates[position];
            let (target, account) = (candidate.deployment, engine.snapshot.deployment(candidate.deployment).account);
            let class = Class::of(job.chat.stream, candidate.demand.input.expected, job.chat.max_output);
            if engine.outlook(target, class, true).times.is_some_and(|times| times.p50 > left) {
                // Its answer would come too late.
                continue;
            }
            let is_unknown = matches!(candidate.verdict, Verdict::Kept { headroom: None });
            if is_unknown && self.sent.contains(&(engine.edition, target)) {
                hear(now.after(MOMENT));
                continue;
            }
            let Ok(key) = engine.key(target, &[], now) else {
                hear(now.after(LOOK));
                continue;
            };
            let was_there = |(tried, _): &(DeploymentIndex, _)| engine.snapshot.deployment(*tried).account == account;
            let is_first = !barred.0.iter().any(was_there);
            let entrance = Entrance { featured, is_last_resort: plan.last_resort, is_first };
            match engine.try_reserve(now, target, key, &candidate.demand, entrance) {
                Ok(reservation) => {
                    if is_unknown {
                        self.sent.push((engine.edition, target));
                    }
                    engine.takes_its_share(&plan);
                    let held = GrantedHold { position, key, reservation, now };
                    return Ok(Grant { engine: Arc::clone(engine), plan: Some(plan), featured, held, is_taken: false });
                }
                // The disk is told, and this target is not passed over for a moment's sake.
                Err(Reason::Unsecured { .. }) => return Err(Unserved::NotBefore(now.after(MOMENT).monotonic)),
                Err(reason) => hear(reason.until().unwrap_or(now.after(LOOK))),
            }
        }
        match again {
            Some(again) if again > now.monotonic => Err(Unserved::NotBefore(again)),
            Some(_) => Err(Unserved::NotBefore(now.after(MOMENT).monotonic)),
            None => Err(Unserved::Never),
        }
    }
}

/// The first instant at which something is gone of what stands in the way.
fn first_return(plan: &Plan, barred: &Barred, now: Monotonic) -> Option<Monotonic> {
    let until = |candidate: &Candidate| match &candidate.verdict {
        Verdict::Dropped(reason) => reason.until().map(|until| until.monotonic),
        Verdict::Kept { .. } => None,
    };
    let of_barred = barred.0.iter().filter_map(|(_, until)| *until).filter(|until| *until > now);
    plan.candidates.iter().filter_map(until).chain(of_barred).min()
}

impl Desk<Waiter> for Attendant {
    /// A plan for a request that is not there would be of its making. The smallest is asked for itself when its turn comes.
    fn ask(&mut self, _: &Waiter, _: Size) -> Result<(), Unserved> {
        Ok(())
    }

    fn serve(&mut self, waiter: &Waiter) -> Result<(), Unserved> {
        let now = waiter.engine.now();
        self.plans += 1;
        if self.plans > MOST_PLANS {
            return Err(Unserved::NotBefore(now.after(BREATH).monotonic));
        }
        let Some(turn) = waiter.turn.take().filter(|turn| !turn.is_closed()) else { return Err(Unserved::Never) };
        match self.grant(waiter, now) {
            // Where nobody hears it any more, what is held is given back here.
            Ok(grant) => _ = turn.send(grant),
            Err(unserved) => {
                waiter.turn.set(Some(turn));
                return Err(unserved);
            }
        }
        Ok(())
    }

    fn give_up(&mut self, _: Waiter) {}
}
