//! The attempt loop: the only one there is.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freeway_dialect::ClientError;
use freeway_quota::ReservationId;
use freeway_router::Meaning;
use freeway_store::StoreError;
use freeway_types::{KeyIndex, Now};
use tokio::time::Instant;

use crate::attempt::{Committed, Content, Failure, Sending, attempt, silent};
use crate::course::{Course, Turn};
use crate::engine::{Answer, Reply};
use crate::explain::write_candidates;
use crate::job::{Job, make_plan};
use crate::race::{Entry, Happening, Race};
use crate::relay::StreamBody;
use crate::timing::{Limits, first_content};
use crate::trace::{Ending, FlightId, Trace};

/// A request that has been driven to its answer or its end.
pub(crate) struct Driven {
    trace: Trace,
    tier: String,
    attempts: usize,
    result: Result<Committed, ClientError>,
}

/// Drives a request through its targets.
pub(crate) async fn drive(trace: Trace, job: Job) -> Driven {
    let tier = trace.engine.snapshot.rules.tiers[job.admission.tier].name.clone();
    let engine = Arc::clone(&trace.engine);
    let result = engine.unless_closed(std::pin::pin!(run(&trace, &job))).await;
    let attempts = trace.attempts();
    match &result {
        Ok(committed) => {
            let served_by = trace.engine.snapshot.deployment(committed.deployment).name.clone();
            trace.note(|record| record.served_by = Some(served_by));
            trace.first_content();
        }
        Err(error) => {
            // An attempt is under way still only where the gateway ended it in the middle.
            trace.land_all(&Ending::Broken { outcome: "cancelled", message: Some(error.message.clone()) });
            trace.failed(error);
        }
    }
    Driven { trace, tier, attempts, result }
}

async fn run(trace: &Trace, job: &Job) -> Result<Committed, ClientError> {
    let engine = &*trace.engine;
    let plan = make_plan(engine, &job.chat, &job.admission)?;
    let candidates = write_candidates(engine, &plan);
    trace.note(|record| record.candidates = candidates);
    let mut course = Course::new(engine, job, &plan);
    let mut race = Race::new();
    let mut alarm = std::pin::pin!(tokio::time::sleep(Duration::ZERO));

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
                    if let Some(held) = hold(&mut course, turn, race.is_empty()).await {
                        let (entry, attempt) = begin(trace, job, &course, held)?;
                        race.enter(entry, attempt);
                    }
                    continue;
                }
                None if race.is_empty() => break,
                None => {}
            }
        }
        match race.next(alarm.as_mut()).await {
            Happening::Landed(entry, Ok(committed)) => {
                course.clear(committed.deployment, entry.key, entry.sent);
                if matches!(committed.content, Content::Whole(_)) {
                    trace.land(entry.flight, &Ending::Answered);
                }
                for loser in race.entries() {
                    trace.land(loser.flight, &Ending::Broken { outcome: "superseded", message: None });
                }
                return Ok(committed);
            }
            Happening::Landed(entry, Err(failure)) => failed(trace, &mut course, &entry, failure)?,
            Happening::Silent(entry) => failed(trace, &mut course, &entry, silent(entry.begun.elapsed()))?,
            Happening::HedgeDue | Happening::ReliefDue => {}
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
}

/// Takes hold of what an attempt needs. What stands in the way is noted.
async fn hold(course: &mut Course<'_>, turn: Turn, may_wait: bool) -> Option<Held> {
    let (engine, candidate) = (course.engine, &course.plan.candidates[turn.position]);
    let (target, now) = (candidate.deployment, engine.now());
    let key = match course.key(target, now) {
        Ok(key) => key,
        Err(reason) => {
            course.obstacle(turn.position, reason);
            return None;
        }
    };
    let reserved = match may_wait {
        true => engine.reserve(now, target, key, &candidate.demand, course.has_others()).await,
        // Others are under way, who are not kept waiting.
        false => engine.try_reserve(now, target, key, &candidate.demand).map(|reservation| (reservation, now)),
    };
    match reserved {
        Ok((reservation, now)) => Some(Held { turn, key, reservation, now }),
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
) -> Result<(Entry, impl Future<Output = Result<Committed, Failure>> + use<'a>), ClientError> {
    let Held { turn, key, reservation, now } = held;
    let engine = course.engine;
    let candidate = &course.plan.candidates[turn.position];
    if let Err(error) = trace.dispatch(candidate, key, now.wall) {
        engine.state().book.release(reservation);
        return Err(ledger_unavailable(&error));
    }
    let deployment = engine.snapshot.deployment(candidate.deployment);
    let flight = trace.take_off(candidate.deployment, key, reservation, now, &candidate.demand);
    let most_output = candidate.demand.output.most.min(job.chat.max_output.unwrap_or(1_000));
    let remaining = job.deadline.monotonic.since(now.monotonic);
    let limit = first_content(deployment, job.chat.stream, most_output);
    let limits = Limits::new(limit, remaining, course.has_others(), job.chat.stream);
    let begun = Instant::now();
    let entry = Entry {
        turn,
        key,
        flight,
        sent: now,
        begun,
        hedge_at: None,
        relief_at: limits.relief.map(|relief| begun + relief),
        is_late: false,
        ends_at: begun + limits.end,
    };
    Ok((entry, attempt(trace, job, candidate, Sending { key, reservation, flight, sent: now })))
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
        let Self { trace, tier, attempts, result } = self;
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
                    Content::Stream(relay) => Reply::Stream(Box::new(StreamBody::relaying(relay, trace))),
                };
            }
        }
        answer
    }
}
