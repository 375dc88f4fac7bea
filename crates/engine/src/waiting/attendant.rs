//! The task that serves those who wait for quota, for as long as there are any.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use freeway_router::{Candidate, Class, Desk, Plan, Reason, Size, Unserved, Verdict};
use freeway_types::{DeploymentIndex, Monotonic, Now};

use super::{Barred, Grant, GrantedHold, Waiter, WaitingRoom};
use crate::engine::Shared;
use crate::health::is_featured;
use crate::job::make_plan;
use crate::reserving::Entrance;

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

/// Serves those that wait, for as long as anybody does.
pub(super) async fn attend(shared: Arc<Shared>) {
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
                    return Ok(Grant { engine: Arc::clone(engine), plan: Some(plan), featured, held });
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
