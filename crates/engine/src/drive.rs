//! The attempt loop: the only one there is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freeway_dialect::ClientError;
use freeway_quota::ReservationId;
use freeway_router::{Candidate, Class, Meaning, Plan, Reason};
use freeway_store::StoreError;
use freeway_telemetry::Event;
use freeway_types::{KeyIndex, Now};
use tokio::time::Instant;

use crate::attempt::{Committed, Content, Failure, Sending, attempt, silent};
use crate::course::{Course, Delay, Turn, Unanswered};
use crate::engine::{Answer, Reply};
use crate::explain::write_candidates;
use crate::failure::Obstacle;
use crate::health::Sight;
use crate::job::{Job, make_plan};
use crate::race::{Attempt, Entry, Happening, Race};
use crate::rescue::Rescuer;
use crate::reserving::Entrance;
use crate::stream::StreamBody;
use crate::timing::{self, Limits, MOST_ATTEMPTS, first_content};
use crate::trace::{Ending, FlightId, Trace};
use crate::waiting::{Barred, GrantedHold, Waited};

/// A request that has been driven to its answer or its end.
pub(crate) struct Driven {
    trace: Trace,
    job: Job,
    tier: String,
    attempts: usize,
    result: Result<Committed, ClientError>,
}

/// Drives a request through its targets.
pub(crate) async fn drive(trace: Trace, job: Job) -> Driven {
    let tier = trace.engine.snapshot.rules.tiers[job.admission.tier].name.clone();
    let engine = Arc::clone(&trace.engine);
    let result = engine.unless_closed(std::pin::pin!(planned(&trace, &job))).await;
    let attempts = trace.attempts();
    match &result {
        Ok(committed) => {
            let served_by = trace.engine.snapshot.deployment(committed.deployment).name.clone();
            trace.note(|record| record.served_by = Some(served_by));
            trace.first_content();
        }
        Err(error) => {
            // An attempt is under way still where the gateway ended it in the middle, or another one settled the matter.
            trace.land_all(&Ending::Broken { outcome: "cancelled", message: Some(error.message.clone()) });
            trace.failed(error);
        }
    }
    Driven { trace, job, tier, attempts, result }
}

async fn planned(trace: &Trace, job: &Job) -> Result<Committed, ClientError> {
    let plan = make_plan(&trace.engine, &job.chat, &job.admission, false)?;
    trace.engine.arrived(&plan, trace.engine.now());
    take_down(trace, &plan);
    let engine = &trace.engine;
    let result = match engine.is_behind_others(trace.received, job, &plan) {
        true => Err(Unanswered::behind_others(engine.now())),
        false => run(trace, job, &plan, None).await,
    };
    match result {
        Ok(committed) => Ok(committed),
        Err(Unanswered { error, delay: None }) => Err(error),
        // Boxed, because few requests ever wait.
        Err(unanswered) => Box::pin(wait(trace, job, plan, unanswered)).await,
    }
}

/// The record of a request tells of the plan that was carried out last.
fn take_down(trace: &Trace, plan: &Plan) {
    let candidates = write_candidates(&trace.engine, plan);
    trace.note(|record| {
        record.candidates = candidates;
        if let (Some(asked), Some(first)) = (&mut record.asked, plan.candidates.first()) {
            asked.input = first.demand.input.expected;
        }
    });
}

/// Lets a request wait for as long as it may, and carries out what is planned for it then.
async fn wait(trace: &Trace, job: &Job, mut plan: Plan, mut unanswered: Unanswered) -> Result<Committed, ClientError> {
    let engine = &trace.engine;
    let end = engine.patience(trace.received, job);
    let mut barred = Barred::default();
    while let Some(delay) = unanswered.delay.take().filter(|delay| delay.again <= end) {
        let Delay { again, barred: latest } = *delay;
        barred.0.extend(latest);
        if end <= engine.now().monotonic || trace.attempts() >= MOST_ATTEMPTS {
            break;
        }
        let (held, is_over) = match engine.wait(trace, job, (&plan, &barred), again, end).await {
            Waited::Full => break,
            Waited::Granted(grant) => {
                let (granted, held) = grant.take();
                plan = granted;
                (Some(held), false)
            }
            // What the client is told is how things stand now.
            Waited::InVain => {
                plan = make_plan(engine, &job.chat, &job.admission, false)?;
                barred.leave_out(&mut plan, engine.now().monotonic);
                if plan.order.is_empty() && Obstacle::of_plan(&plan).is_empty() {
                    // Nothing stands in the way but what failed before, and that was said.
                    break;
                }
                (None, true)
            }
        };
        take_down(trace, &plan);
        match run(trace, job, &plan, held).await {
            Ok(committed) => return Ok(committed),
            Err(latest) => unanswered = latest,
        }
        if is_over {
            break;
        }
    }
    Err(unanswered.error)
}

/// Goes through the targets of a plan until one answers. What is `granted` has been held for it, and goes first.
pub(crate) async fn run(
    trace: &Trace,
    job: &Job,
    plan: &Plan,
    granted: Option<GrantedHold>,
) -> Result<Committed, Unanswered> {
    let engine = &*trace.engine;
    let mut course = Course::new(engine, job, plan);
    let mut race = Race::new();
    let mut alarm = std::pin::pin!(tokio::time::sleep(Duration::ZERO));

    if let Some(GrantedHold { position, key, reservation, now }) = granted {
        let held = Held { turn: course.granted(position), key, reservation, now, is_granted: true };
        let (entry, attempt) = begin(trace, job, &course, held)?;
        race.enter(entry, attempt);
    }
    loop {
        if race.is_idle() {
            let turn = match race.is_empty() {
                true => course.next(trace.attempts()),
                false => course.beside(trace.attempts(), race.entries()),
            };
            match turn {
                Some(turn) => {
                    if turn.wait >= job.deadline.monotonic.since(engine.now().monotonic) {
                        break;
                    }
                    if !turn.wait.is_zero() {
                        tokio::time::sleep(turn.wait).await;
                    }
                    let held = match race.is_empty() {
                        true => hold(&mut course, turn).await,
                        false => hold_beside(&mut course, turn),
                    };
                    if let Some(held) = held {
                        match begin(trace, job, &course, held) {
                            Ok((entry, attempt)) => race.enter(entry, attempt),
                            Err(error) if race.is_empty() => return Err(error.into()),
                            // Somebody is under way, and may still answer.
                            Err(_) => {}
                        }
                    }
                    continue;
                }
                None if race.is_empty() => break,
                None => {}
            }
        }
        match race.next(alarm.as_mut()).await {
            Happening::Landed(entry, Ok(committed)) => {
                won(trace, &course, &entry, &committed);
                race.entries().for_each(|loser| beaten(trace, &course, loser));
                return Ok(committed);
            }
            Happening::Landed(entry, Err(failure)) => failed(trace, &mut course, &entry, failure)?,
            Happening::Silent(entry) => {
                if !entry.was_hurried {
                    engine.silent(course.target(entry.turn));
                }
                failed(trace, &mut course, &entry, silent(entry.begun.elapsed(), entry.was_hurried))?;
            }
            Happening::HedgeDue(slow) => {
                if let Some(held) = hedge(trace, &mut course, race.entries(), &slow)
                    && let Ok((entry, attempt)) = begin(trace, job, &course, held)
                {
                    race.enter(entry, attempt);
                }
            }
            // Somebody else is looked for at once.
            Happening::ReliefDue => {}
        }
    }
    course.conclude(trace)
}

/// What an attempt needs before it is sent.
#[derive(Clone, Copy)]
struct Held {
    turn: Turn,
    key: Option<KeyIndex>,
    reservation: ReservationId,
    /// Since when.
    now: Now,
    /// Whether it was held for a request that waited, which has its share already.
    is_granted: bool,
}

/// Takes hold of what an attempt needs. What stands in the way is noted.
async fn hold(course: &mut Course<'_>, turn: Turn) -> Option<Held> {
    let (engine, candidate, now) = (course.engine, &course.plan.candidates[turn.position], course.engine.now());
    let (key, entrance) = approach(course, turn, now)?;
    let (target, others) = (candidate.deployment, course.has_others());
    let reserved = engine.reserve(now, target, key, &candidate.demand, entrance, others).await;
    held(course, turn, key, reserved)
}

/// The same for one that goes beside others, which are not kept waiting for it.
fn hold_beside(course: &mut Course<'_>, turn: Turn) -> Option<Held> {
    let (engine, candidate, now) = (course.engine, &course.plan.candidates[turn.position], course.engine.now());
    let (key, entrance) = approach(course, turn, now)?;
    let reserved = engine.try_reserve(now, candidate.deployment, key, &candidate.demand, entrance);
    held(course, turn, key, reserved.map(|reservation| (reservation, now)))
}

/// The key for an attempt, and how it comes to its target.
fn approach(course: &mut Course<'_>, turn: Turn, now: Now) -> Option<(Option<KeyIndex>, Entrance)> {
    let target = course.target(turn);
    match course.key(target, now) {
        Ok(key) => {
            let (featured, is_last_resort) = (course.featured, course.plan.last_resort);
            Some((key, Entrance { featured, is_last_resort, is_first: course.is_first(target) }))
        }
        Err(reason) => {
            course.obstacle(turn.position, reason);
            None
        }
    }
}

fn held(
    course: &mut Course<'_>,
    turn: Turn,
    key: Option<KeyIndex>,
    reserved: Result<(ReservationId, Now), Reason>,
) -> Option<Held> {
    match reserved {
        Ok((reservation, now)) => Some(Held { turn, key, reservation, now, is_granted: false }),
        Err(reason) => {
            course.obstacle(turn.position, reason);
            None
        }
    }
}

/// Writes an attempt down and gets it ready. From here on it counts, whatever becomes of this process.
fn begin<'a>(
    trace: &'a Trace,
    job: &'a Job,
    course: &Course<'a>,
    held: Held,
) -> Result<(Entry, Attempt<'a>), ClientError> {
    let Held { turn, key, reservation, now, is_granted } = held;
    let engine = course.engine;
    let candidate = &course.plan.candidates[turn.position];
    if let Err(error) = trace.dispatch(candidate, key, now.wall) {
        engine.release(reservation);
        return Err(ledger_unavailable(&error));
    }
    let deployment = engine.snapshot.deployment(candidate.deployment);
    let flight = trace.take_off(candidate.deployment, key, reservation, now, &candidate.demand);
    let most_output = candidate.demand.output.most.min(job.chat.max_output.unwrap_or(1_000));
    let remaining = job.deadline.monotonic.since(now.monotonic);
    let class = Class::of(job.chat.stream, candidate.demand.input.expected, job.chat.max_output);
    let outlook = engine.outlook(candidate.deployment, class, course.has_others());
    let limit = first_content(deployment, job.chat.stream, most_output, outlook);
    let limits = Limits::new(limit, remaining, course.has_others(), job.chat.stream);
    let is_first = flight.is_first();
    if is_first {
        engine.begins(candidate.deployment, class, expected_tokens(candidate));
        if !is_granted {
            engine.takes_its_share(course.plan);
        }
    }
    let hedge = outlook
        .times
        .filter(|_| is_first && engine.snapshot.hedge && course.has_others())
        .map(|times| timing::hedge(&times));
    let begun = Instant::now();
    let entry = Entry {
        turn,
        key,
        flight,
        class,
        sent: now,
        begun,
        hedge_at: hedge.map(|hedge| begun + hedge),
        relief_at: limits.relief.map(|relief| begun + relief),
        is_late: false,
        was_hurried: limits.is_hurried,
        ends_at: begun + limits.end,
    };
    Ok((entry, Box::pin(attempt(trace, job, candidate, Sending { key, reservation, flight, sent: now }))))
}

/// Takes hold of what a second attempt needs, beside one that is slow. What is scarce pays for none, and neither does a
/// time in which everything is slow.
fn hedge<'b>(
    trace: &Trace,
    course: &mut Course<'_>,
    running: impl Iterator<Item = &'b Entry>,
    slow: &Entry,
) -> Option<Held> {
    let engine = course.engine;
    if !engine.is_exception(course.target(slow.turn), slow.class) {
        return None;
    }
    let turn = course.hedge(trace.attempts(), running, slow)?;
    let tokens = expected_tokens(&course.plan.candidates[turn.position]);
    if !engine.state().health.hedges.hedge(tokens) {
        course.put_back(turn);
        return None;
    }
    let held = hold_beside(course, turn)?;
    let name = |turn: Turn| engine.snapshot.deployment(course.target(turn)).name.as_str();
    let event = Event::Hedged { id: trace.id, slow: name(slow.turn), second: name(turn) };
    engine.telemetry().tell(held.now.wall, &event);
    Some(held)
}

fn expected_tokens(candidate: &Candidate) -> u64 {
    candidate.demand.input.expected.saturating_add(candidate.demand.output.expected)
}

/// An attempt brought content that the client is going to get.
fn won(trace: &Trace, course: &Course<'_>, entry: &Entry, committed: &Committed) {
    course.clear(committed.deployment, entry.key, entry.sent);
    trace.engine.observe(committed.deployment, entry.class, entry.begun.elapsed());
    match committed.content {
        Content::Stream(_) => trace.see(entry.flight, Sight::Answers),
        Content::Whole(_) => {
            trace.see(entry.flight, Sight::Worked);
            trace.land(entry.flight, &Ending::Answered);
        }
    }
}

/// Another attempt was faster. What this one used is not known.
fn beaten(trace: &Trace, course: &Course<'_>, entry: &Entry) {
    trace.engine.observe(course.target(entry.turn), entry.class, entry.begun.elapsed());
    trace.see(entry.flight, Sight::Unclear);
    trace.land(entry.flight, &Ending::Broken { outcome: "superseded", message: None });
}

/// Draws the consequences of an attempt that failed.
fn failed(trace: &Trace, course: &mut Course<'_>, entry: &Entry, failure: Failure) -> Result<(), ClientError> {
    land(trace, entry.flight, &failure);
    course.learn(entry.turn, entry.key, failure).map_or(Ok(()), Err)
}

/// Nothing is sent that is not written down: the request could overrun its limits after a restart, and nobody would
/// know of it.
fn ledger_unavailable(error: &StoreError) -> ClientError {
    let message = format!("nothing was sent, because the ledger cannot be written: {error}");
    let mut error = ClientError::new(503, "ledger_unavailable", message);
    error.retry_after = Some(5);
    error.should_retry = true;
    error
}

/// Settles an attempt that failed.
fn land(trace: &Trace, flight: FlightId, failure: &Failure) {
    let Meaning { case, message, .. } = &failure.meaning;
    let message = trace.engine.scrubber.scrub(message);
    let ending = match (failure.sent, failure.may_have_worked) {
        (false, _) => Ending::Unsent { outcome: case, message },
        (true, false) => Ending::Refused { outcome: case, message },
        (true, true) => Ending::Broken { outcome: case, message: Some(message) },
    };
    trace.land(flight, &ending);
}

impl Driven {
    pub(crate) fn into_answer(self) -> Answer {
        let Self { trace, job, tier, attempts, result } = self;
        let engine = Arc::clone(&trace.engine);
        let mut answer = Answer {
            reply: Reply::Whole(Bytes::new()),
            provider: None,
            model: None,
            tier,
            attempts,
            dropped: Vec::new(),
        };
        match result {
            Err(error) => answer.reply = Reply::Failed(error),
            Ok(committed) => {
                let deployment = engine.snapshot.deployment(committed.deployment);
                answer.provider = Some(engine.snapshot.accounts[deployment.account.get()].id.clone());
                answer.model = Some(deployment.model.clone());
                answer.dropped = committed.dropped;
                answer.reply = match committed.content {
                    Content::Whole(body) => {
                        trace.answered();
                        Reply::Whole(body)
                    }
                    Content::Stream(relay) => {
                        let rescuer = Rescuer::new(job, committed.deployment);
                        Reply::Stream(Box::new(StreamBody::relaying(relay, trace, rescuer)))
                    }
                };
            }
        }
        answer
    }
}
