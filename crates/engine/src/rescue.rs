//! What becomes of a stream that breaks off after its first content.
//!
//! Nothing is sent twice that could do something twice, and only once in a request. What is joined is plain text: the
//! same model goes on from what the client has, where it takes an answer that has begun, or answers anew and is held
//! to what was said. Whoever asked for it gets a new answer instead, marked as one.

use std::sync::Arc;
use std::time::Duration;

use freeway_dialect::ClientError;
use freeway_dialect::openai_chat::{ChatRequest, Splice, Told};
use freeway_dialect::sse;
use freeway_router::{Candidate, Class, Plan, Rescue};
use freeway_types::{DeploymentIndex, Feature};

use crate::attempt::{Committed, Content};
use crate::drive::run;
use crate::engine::Engine;
use crate::job::{Job, make_plan};
use crate::relay::Relay;
use crate::trace::Trace;

/// Time that has to be left, where nobody knows how long an answer takes to begin.
const LEAST_TIME: Duration = Duration::from_secs(2);
/// Said before an answer that was joined.
const CONTINUED: &[u8] = b": the answer broke off, and another target goes on\n\n";

/// What a stream needs that may be rescued.
pub(crate) struct Rescuer {
    job: Job,
    /// Who answers.
    deployment: DeploymentIndex,
}

impl Rescuer {
    /// For a stream whose request wants to be rescued.
    pub(crate) fn new(job: Job, deployment: DeploymentIndex) -> Option<Self> {
        let is_allowed = job.rescue != Rescue::Fail && !job.chat.side_effects;
        is_allowed.then_some(Self { job, deployment })
    }

    /// Whether a stream of which the client was told this can be rescued.
    pub(crate) fn suits(&self, trace: &Trace, told: &Told) -> bool {
        let engine = &trace.engine;
        let plain = !self.job.chat.features.iter().any(|feature| feature != Feature::Stream)
            && self.job.chat.choices == 1
            && !["logprobs", "top_logprobs"].iter().any(|field| self.job.chat.fields.iter().any(|own| own == field));
        let class = Class::of(true, 0, None);
        let usual = engine.outlook(self.deployment, class, true).times.map_or(LEAST_TIME, |times| times.p50 * 2);
        let left = self.job.deadline.monotonic.since(engine.now().monotonic);
        left >= usual && (self.job.rescue == Rescue::Restart || (plain && told.can_be_continued()))
    }

    /// Another stream that goes on for the one that broke.
    pub(crate) async fn rescue(self, trace: &Trace, told: Told) -> Result<Box<Relay>, ClientError> {
        let engine = Arc::clone(&trace.engine);
        let found = std::pin::pin!(self.find(trace, told));
        let (relay, deployment) = engine.unless_closed(found).await?;
        let served_by = engine.snapshot.deployment(deployment).name.clone();
        trace.note(|record| record.served_by = Some(served_by));
        Ok(relay)
    }

    async fn find(self, trace: &Trace, told: Told) -> Result<(Box<Relay>, DeploymentIndex), ClientError> {
        if self.job.rescue == Rescue::Restart {
            let plan = self.plan(&trace.engine, &self.job, |_, _| true)?;
            let (mut relay, by) = stream(run(trace, &self.job, &plan, None).await?)?;
            let name = &trace.engine.snapshot.deployment(by).name;
            relay.precede(&sse::encode(&told.restart(name)));
            return Ok((relay, by));
        }
        if let Some(committed) = self.go_on(trace, &told).await? {
            let repeats = trace.engine.snapshot.account_of(committed.deployment).prefill.repeats;
            return join(trace, committed, |by| Splice::onward(told, by, repeats));
        }
        // Who does not take a begun answer may still give the same one.
        let plan = self.plan(&trace.engine, &self.job, |engine, index| self.is_same(engine, index))?;
        let committed = run(trace, &self.job, &plan, None).await?;
        join(trace, committed, |by| Splice::anew(told, by))
    }

    /// An answer of somebody who goes on from what was told, if there is one. Only who is known to take an answer that has
    /// begun is asked; nobody who is not known to, and of course nobody who is known not to.
    async fn go_on(&self, trace: &Trace, told: &Told) -> Result<Option<Committed>, ClientError> {
        let engine = &trace.engine;
        let Some(job) = self.onward(told, None) else { return Ok(None) };
        let plan = self.plan(engine, &job, |engine, index| {
            let takes = engine.snapshot.deployment(index).features.present.contains(Feature::Prefill);
            takes && self.is_same(engine, index)
        })?;
        let mark = |position: usize| {
            let account = engine.snapshot.account_of(plan.candidates[position].deployment);
            account.prefill.mark.as_deref()
        };
        // A mark that a provider does not know may be refused, so that each is asked with its own.
        for alike in plan.order.chunk_by(|one, next| mark(*one) == mark(*next)) {
            let Some(job) = self.onward(told, mark(alike[0])) else { continue };
            if let Ok(committed) = run(trace, &job, &Plan { order: alike.to_vec(), ..plan.clone() }, None).await {
                return Ok(Some(committed));
            }
        }
        Ok(None)
    }

    /// The request for who goes on from what was told, where it has to be marked so.
    fn onward(&self, told: &Told, mark: Option<&str>) -> Option<Job> {
        let body = told.continuation(&self.job.chat, mark)?;
        Some(Job { chat: ChatRequest::read(&body).ok()?, ..self.job.clone() })
    }

    /// Those who may take part, with the one that broke last.
    fn plan(
        &self,
        engine: &Engine,
        job: &Job,
        suits: impl Fn(&Engine, DeploymentIndex) -> bool,
    ) -> Result<Plan, ClientError> {
        let mut plan = make_plan(engine, &job.chat, &job.admission, true)?;
        let of = |candidates: &[Candidate], position: usize| candidates[position].deployment;
        plan.order.retain(|position| suits(engine, of(&plan.candidates, *position)));
        plan.order.sort_by_key(|position| of(&plan.candidates, *position) == self.deployment);
        Ok(plan)
    }

    /// Whether a target gives the answers of the one that broke, or the operator says so.
    fn is_same(&self, engine: &Engine, index: DeploymentIndex) -> bool {
        let (here, there) = (engine.snapshot.deployment(index), engine.snapshot.deployment(self.deployment));
        let alias = engine.snapshot.aliases.get(&self.job.chat.model);
        let is_named = |index: &DeploymentIndex| alias.is_some_and(|alias| alias.equivalents.contains(index));
        here.model == there.model || (is_named(&index) && is_named(&self.deployment))
    }
}

fn join(
    trace: &Trace,
    committed: Committed,
    splice: impl FnOnce(String) -> Splice,
) -> Result<(Box<Relay>, DeploymentIndex), ClientError> {
    let (mut relay, by) = stream(committed)?;
    relay.join(splice(trace.engine.snapshot.deployment(by).name.clone()));
    relay.precede(CONTINUED);
    Ok((relay, by))
}

fn stream(committed: Committed) -> Result<(Box<Relay>, DeploymentIndex), ClientError> {
    match committed.content {
        Content::Stream(relay) => Ok((relay, committed.deployment)),
        // An attempt gives no such thing for a request that streams.
        Content::Whole(_) => Err(ClientError::new(502, "upstream_invalid_response", "the answer is not a stream")),
    }
}
