//! The attempt loop: the only one there is.

use std::sync::Arc;

use bytes::Bytes;
use freeway_dialect::ClientError;
use freeway_router::Meaning;
use freeway_store::StoreError;

use crate::attempt::{Committed, Content, Failure, attempt};
use crate::course::Course;
use crate::engine::{Answer, Reply};
use crate::explain::write_candidates;
use crate::job::{Job, make_plan};
use crate::relay::StreamBody;
use crate::timing::{first_content, share};
use crate::trace::{Ending, Trace};

/// A request that has been driven to its answer or its end.
pub(crate) struct Driven {
    trace: Trace,
    tier: String,
    attempts: usize,
    result: Result<Committed, ClientError>,
}

/// Drives a request through its targets.
pub(crate) async fn drive(mut trace: Trace, job: Job) -> Driven {
    let tier = trace.engine.snapshot.rules.tiers[job.admission.tier].name.clone();
    let engine = Arc::clone(&trace.engine);
    let result = engine.unless_closed(std::pin::pin!(run(&mut trace, &job))).await;
    let attempts = trace.attempts();
    match &result {
        Ok(committed) => {
            let served_by = trace.engine.snapshot.deployment(committed.deployment).name.clone();
            trace.note(|record| record.served_by = Some(served_by));
            trace.first_content();
        }
        Err(error) => {
            // An attempt is under way still only where the gateway ended it in the middle.
            trace.land(&Ending::Broken { outcome: "cancelled", message: Some(error.message.clone()) });
            trace.failed(error);
        }
    }
    Driven { trace, tier, attempts, result }
}

async fn run(trace: &mut Trace, job: &Job) -> Result<Committed, ClientError> {
    let engine = Arc::clone(&trace.engine);
    let plan = make_plan(&engine, &job.chat, &job.admission)?;
    let candidates = write_candidates(&engine, &plan);
    trace.note(|record| record.candidates = candidates);
    let mut course = Course::new(&engine, job, plan);

    while let Some(turn) = course.next(trace.attempts()) {
        if turn.wait >= job.deadline.monotonic.since(engine.now().monotonic) {
            break;
        }
        if !turn.wait.is_zero() {
            tokio::time::sleep(turn.wait).await;
        }
        let now = engine.now();
        let remaining = job.deadline.monotonic.since(now.monotonic);
        if remaining.is_zero() {
            break;
        }
        let candidate = &course.plan.candidates[turn.position];
        let deployment = engine.snapshot.deployment(candidate.deployment);
        let key = match course.key(candidate.deployment, now) {
            Ok(key) => key,
            Err(reason) => {
                course.obstacle(turn.position, reason);
                continue;
            }
        };
        let (target, others) = (candidate.deployment, course.has_others());
        let (reservation, now) = match engine.reserve(now, target, key, &candidate.demand, others).await {
            Ok(reserved) => reserved,
            Err(reason) => {
                course.obstacle(turn.position, reason);
                continue;
            }
        };
        // From here on the attempt counts, whatever becomes of this process.
        if let Err(error) = engine.write_down(&trace.dispatch(candidate, key, now.wall)) {
            engine.state().book.release(reservation);
            return Err(ledger_unavailable(&error));
        }
        let most_output = candidate.demand.output.most.min(job.chat.max_output.unwrap_or(1_000));
        let limit = share(first_content(deployment, job.chat.stream, most_output), remaining, course.has_others());
        match attempt(trace, job, candidate, key, reservation, limit).await {
            Ok(committed) => {
                course.clear(committed.deployment, key, now);
                if matches!(committed.content, Content::Whole(_)) {
                    trace.land(&Ending::Answered);
                }
                return Ok(committed);
            }
            Err(failure) => {
                land(trace, &failure);
                if let Some(error) = course.learn(turn, key, failure) {
                    return Err(error);
                }
            }
        }
    }
    course.conclude(trace)
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
fn land(trace: &mut Trace, failure: &Failure) {
    let Meaning { case, message, .. } = &failure.meaning;
    let message = trace.engine.scrubber.scrub(message);
    trace.land(&match (failure.sent, failure.may_have_worked) {
        (false, _) => Ending::Unsent { outcome: case, message },
        (true, false) => Ending::Refused { outcome: case, message },
        (true, true) => Ending::Broken { outcome: case, message: Some(message) },
    });
}

impl Driven {
    pub(crate) fn into_answer(self) -> Answer {
        let Self { mut trace, tier, attempts, result } = self;
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
