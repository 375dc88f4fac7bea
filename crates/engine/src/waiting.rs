//! Requests that wait for quota, held open: who may, how long, and what holds their turn.
//!
//! Whose turn it is, the router decides (`waiting.rs` there). A request that waits is planned for anew when its turn may
//! have come, and what it will use is held in the same moment (`waiting/attendant.rs`): between being served and being
//! sent, nobody can come before it. Its own task then sends it. Whoever stops to wait, because its time is over or its
//! client has left, is out of its line at once, and what was held for it meanwhile is given back.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use freeway_quota::ReservationId;
use freeway_router::{Place, Plan, Shape, Size, Waiting};
use freeway_telemetry::Event;
use freeway_types::{DataClass, DeploymentIndex, Feature, FeatureSet, KeyIndex, Monotonic, Now, Quality};
use tokio::sync::{Notify, oneshot};

use attendant::attend;

use crate::engine::Engine;
use crate::health::Sight;
use crate::job::Job;
use crate::trace::{Trace, micros};

mod attendant;

/// Most requests that wait at the same time.
const MOST: usize = 1_000;
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
    /// Gone once it is taken.
    plan: Option<Plan>,
    featured: bool,
    held: GrantedHold,
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

    /// Whether others wait for the same as a request: it goes behind them then, if it may wait itself.
    pub(crate) fn is_behind_others(&self, received: Now, job: &Job, plan: &Plan) -> bool {
        let room = &self.shared().room;
        let may_wait = || self.patience(received, job) > self.now().monotonic;
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
        (self.plan.take().unwrap_or_default(), self.held)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let Some(plan) = &self.plan else { return };
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
