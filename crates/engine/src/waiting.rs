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
use freeway_router::{Candidate, Desk, Place, Plan, Shape, Size, Unserved, Verdict, Waiting};
use freeway_telemetry::Event;
use freeway_types::{DataClass, Feature, FeatureSet, KeyIndex, Monotonic, Now, Quality, RequestId};
use tokio::sync::{Notify, oneshot};

use crate::engine::{Engine, Shared};
use crate::health::is_featured;
use crate::job::{Job, make_plan};
use crate::reserving::Entrance;
use crate::trace::micros;

/// Most requests that wait at the same time.
const MOST: usize = 1_000;
/// Nobody is looked at less often than this, whatever was heard of when it could be served: pauses are lifted, limits turn
/// out to be larger, prices fall.
const LOOK: Duration = Duration::from_secs(1);
/// When something is given back, so much time passes before anybody is looked at, for what comes back meanwhile …
const BREATH: Duration = Duration::from_millis(5);
/// … and as much again for each so many lines.
const LINES_TO_A_BREATH: usize = 32;
/// What is not secured on the disk yet is asked for again after this.
const UNSECURED: Duration = Duration::from_millis(50);

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
}

/// A request that waits.
struct Waiter {
    engine: Arc<Engine>,
    job: Job,
    /// What a forecast knows it by.
    kind: Option<freeway_price::Kind>,
    /// Where its task hears of its turn; empty once it has been told.
    turn: Cell<Option<oneshot::Sender<Grant>>>,
}

/// A request's turn: what it will use is held. Given back if nobody takes it.
pub(crate) struct Grant {
    engine: Arc<Engine>,
    plan: Option<Plan>,
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

/// Takes a request out of its line when it stops to wait.
struct Seat<'a> {
    engine: &'a Engine,
    place: Place<Kind>,
    id: RequestId,
    begun: Now,
    /// Why it stops.
    outcome: &'static str,
}

/// Serves those that wait at one instant.
struct Attendant {
    now: Now,
}

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

    /// Until when a request may wait for quota.
    pub(crate) fn patience(&self, received: Now, job: &Job) -> Monotonic {
        let wait = self.snapshot.rules.tiers[job.admission.tier].wait;
        received.monotonic.after(wait).min(job.deadline.monotonic)
    }

    /// Waits until it is a request's turn, but no longer than until `end`. It may be served from `again` on. `None` if its
    /// turn did not come, and at once if too many wait already.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        id: RequestId,
        job: &Job,
        plan: &Plan,
        again: Monotonic,
        end: Monotonic,
    ) -> Option<Grant> {
        let begun = self.now();
        let (place, turn) = self.take_place(job, plan, again, end)?;
        let mut seat = Seat { engine: self, place, id, begun, outcome: "left" };
        let granted = tokio::time::timeout(end.since(begun.monotonic), turn).await;
        let granted = granted.ok().and_then(Result::ok);
        seat.outcome = if granted.is_some() { "served" } else { "expired" };
        granted
    }

    /// Lets a request join its line, and sees to it that somebody serves it.
    fn take_place(
        self: &Arc<Self>,
        job: &Job,
        plan: &Plan,
        again: Monotonic,
        end: Monotonic,
    ) -> Option<(Place<Kind>, oneshot::Receiver<Grant>)> {
        let (sender, turn) = oneshot::channel();
        let waiter = Waiter {
            engine: Arc::clone(self),
            job: job.clone(),
            kind: plan.cell.as_ref().map(|(kind, _)| kind.clone()),
            turn: Cell::new(Some(sender)),
        };
        let shared = self.shared();
        let size = Size { input: plan.size.input, output: job.chat.max_output.unwrap_or(0) };
        let mut inner = shared.room.inner();
        let place = inner.waiting.join(Kind::of(self, job), size, end, again, waiter).ok()?;
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

    /// Holds what a request will use at the first target of a plan that has it.
    fn grant(self: &Arc<Self>, plan: Plan, featured: bool, now: Now) -> Result<Grant, Unserved> {
        let mut again: Option<Monotonic> = None;
        let mut hear = |instant: Monotonic| again = Some(again.map_or(instant, |other| other.min(instant)));
        for position in plan.order.iter().copied() {
            let candidate = &plan.candidates[position];
            let Ok(key) = self.key(candidate.deployment, &[], now) else { continue };
            let entrance = Entrance { featured, is_last_resort: plan.last_resort, is_first: true };
            match self.try_reserve(now, candidate.deployment, key, &candidate.demand, entrance) {
                Ok(reservation) => {
                    let held = GrantedHold { position, key, reservation, now };
                    return Ok(Grant { engine: Arc::clone(self), plan: Some(plan), held, is_taken: false });
                }
                Err(reason) => hear(reason.until().unwrap_or(now.after(UNSECURED)).monotonic),
            }
        }
        match (again, unserved(&plan)) {
            (Some(again), Unserved::NotBefore(other)) => Err(Unserved::NotBefore(again.min(other))),
            (Some(again), Unserved::Never) => Err(Unserved::NotBefore(again)),
            (None, unserved) => Err(unserved),
        }
    }
}

/// The first instant at which something is gone of what stands in the way.
fn unserved(plan: &Plan) -> Unserved {
    let until = |candidate: &Candidate| match &candidate.verdict {
        Verdict::Dropped(reason) => reason.until().map(|until| until.monotonic),
        Verdict::Kept { .. } => None,
    };
    plan.candidates.iter().filter_map(until).min().map_or(Unserved::Never, Unserved::NotBefore)
}

// === impl Kind ===

impl Kind {
    fn of(engine: &Engine, job: &Job) -> Self {
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
        if !self.is_taken {
            self.engine.release(self.held.reservation);
        }
    }
}

// === impl Seat ===

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let Self { engine, place, id, begun, outcome } = self;
        engine.shared().room.leave(place);
        let now = engine.now();
        let millis = micros(now.monotonic.since(begun.monotonic)) / 1_000;
        engine.telemetry().tell(now.wall, &Event::Waited { id: *id, outcome, millis });
    }
}

// === impl Attendant ===

/// Serves those that wait, for as long as anybody does.
async fn attend(shared: Arc<Shared>) {
    let room = &shared.room;
    let mut looked = shared.clock.now().monotonic;
    loop {
        let (next, lines) = {
            let mut inner = room.inner();
            let Some(next) = inner.waiting.next() else {
                inner.is_attended = false;
                return;
            };
            (next.min(looked.after(LOOK)), u32::try_from(inner.waiting.lines() / LINES_TO_A_BREATH).unwrap_or(u32::MAX))
        };
        let wait = next.since(shared.clock.now().monotonic);
        let _ = tokio::time::timeout(wait, room.bell.notified()).await;
        let has_more = room.has_more.swap(false, Ordering::Relaxed);
        if has_more {
            tokio::time::sleep(BREATH * (1 + lines)).await;
        }
        let now = shared.clock.now();
        let mut inner = room.inner();
        if has_more || now.monotonic >= looked.after(LOOK) {
            inner.waiting.hurry(now.monotonic);
            looked = now.monotonic;
        }
        inner.waiting.take_turns(now.monotonic, &mut Attendant { now });
        room.count(&inner);
    }
}

impl Desk<Waiter> for Attendant {
    fn ask(&mut self, like: &Waiter, size: Size) -> Result<(), Unserved> {
        let mut job = like.job.clone();
        job.chat.input_tokens = Some(size.input);
        job.chat.max_output = job.chat.max_output.map(|_| size.output);
        let plan = make_plan(&like.engine, &job.chat, &job.admission, false).map_err(|_| Unserved::Never)?;
        match plan.order.is_empty() {
            false => Ok(()),
            true => Err(unserved(&plan)),
        }
    }

    fn serve(&mut self, waiter: &Waiter) -> Result<(), Unserved> {
        let Waiter { engine, job, turn, .. } = waiter;
        let plan = make_plan(engine, &job.chat, &job.admission, false).map_err(|_| Unserved::Never)?;
        let grant = engine.grant(plan, is_featured(job.chat.features), self.now)?;
        if let Some(turn) = turn.take() {
            // Where nobody hears it any more, what is held is given back here.
            let _ = turn.send(grant);
        }
        Ok(())
    }

    fn give_up(&mut self, _: Waiter) {}
}
