//! The attempt loop: the only one there is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use freeway_dialect::ClientError;
use freeway_dialect::openai_chat::ChatRequest;
use freeway_policy::{Admission, Denial, Wish, admit};
use freeway_quota::PauseScope;
use freeway_router::{Domain, Meaning, NameError, Plan, Reason, Remedy, Request, Scope, plan};
use freeway_telemetry::Event;
use freeway_types::{AccountIndex, DeploymentIndex, FeatureSet, KeyIndex, Now};

use crate::attempt::{Committed, Content, Failure, attempt};
use crate::engine::{Answer, Ask, LiveState, Reply, random};
use crate::explain::candidates_json;
use crate::failure::{Obstacle, last_word};
use crate::relay::StreamBody;
use crate::timing::{DEADLINE, MOST_ATTEMPTS, first_content, share};
use crate::trace::{Ending, Trace};

/// A request that has been read and admitted.
pub(crate) struct Job {
    pub(crate) chat: ChatRequest,
    pub(crate) admission: Admission,
    pub(crate) deadline: Now,
}

/// A request that has been driven to its answer or its end.
pub(crate) struct Driven {
    trace: Trace,
    tier: String,
    result: Result<Committed, ClientError>,
}

/// Reads a request and has it admitted.
pub(crate) fn prepare(trace: &mut Trace, ask: &Ask) -> Result<Job, ClientError> {
    let engine = Arc::clone(&trace.engine);
    let chat = ChatRequest::read(&ask.body)?;
    trace.note(|record| {
        record.model.clone_from(&chat.model);
        record.stream = chat.stream;
    });
    let wish = Wish { tier: ask.tier.as_deref(), data: ask.data.as_deref(), min_quality: ask.min_quality.as_deref() };
    let rules = &engine.snapshot.rules;
    let admission = admit(rules, ask.caller, wish).map_err(|denial| match denial {
        Denial::Unknown { header, .. } => ClientError::new(400, "invalid_value", denial.to_string()).at(header),
        Denial::Ceiling { header, .. } => ClientError::new(403, "permission_denied", denial.to_string()).at(header),
    })?;
    trace.note(|record| {
        record.tier.clone_from(&rules.tiers[admission.tier].name);
        record.data = admission.data.to_string();
    });
    let deadline = ask.received.after(ask.deadline.unwrap_or(DEADLINE));
    Ok(Job { chat, admission, deadline })
}

/// Drives a request through its targets.
pub(crate) async fn drive(mut trace: Trace, job: Job) -> Driven {
    let tier = trace.engine.snapshot.rules.tiers[job.admission.tier].name.clone();
    let result = run(&mut trace, &job).await;
    match &result {
        Ok(committed) => {
            let served_by = trace.engine.snapshot.deployment(committed.deployment).name.clone();
            trace.note(|record| record.served_by = Some(served_by));
            trace.first_content();
        }
        Err(error) => trace.failed(error),
    }
    Driven { trace, tier, result }
}

/// Makes the plan for a request as things stand now.
pub(crate) fn make_plan(
    engine: &crate::Engine,
    chat: &ChatRequest,
    admission: &Admission,
) -> Result<Plan, ClientError> {
    let named = engine.snapshot.named(&chat.model).map_err(|error| {
        let status = match error {
            NameError::Unknown { .. } => 404,
            NameError::Ambiguous { .. } => 400,
        };
        ClientError::new(status, "model_not_found", error.to_string()).at("model")
    })?;
    let now = engine.now();
    let mut state = engine.state();
    let mut live = LiveState { engine, state: &mut state, now };
    Ok(plan(&engine.snapshot, Request { chat, admission, named }, &mut live))
}

async fn run(trace: &mut Trace, job: &Job) -> Result<Committed, ClientError> {
    let engine = Arc::clone(&trace.engine);
    let plan = make_plan(&engine, &job.chat, &job.admission)?;
    let candidates = candidates_json(&engine, &plan);
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
        let reservation = match engine.reserve(now, deployment, &candidate.demand) {
            Ok(reservation) => reservation,
            Err(blocked) => {
                let name = engine.state().book.spec(blocked.limit).name.clone();
                course.obstacle(
                    turn.position,
                    Reason::Quota { limit: blocked.limit, name, until: blocked.until, too_large: blocked.too_large },
                );
                continue;
            }
        };
        let most_output = candidate.demand.output.most.min(job.chat.max_output.unwrap_or(1_000));
        let limit = share(first_content(deployment, job.chat.stream, most_output), remaining, course.has_others());
        match attempt(trace, job, candidate, key, reservation, limit).await {
            Ok(committed) => {
                course.clear(committed.deployment);
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

/// One thing to try.
#[derive(Clone, Copy)]
struct Turn {
    /// Position among the plan's candidates.
    position: usize,
    /// How long to wait first.
    wait: Duration,
    /// Whether it has been tried before, with the same key.
    again: bool,
}

/// What is still to be tried, and what stood in the way so far.
struct Course<'a> {
    engine: &'a crate::Engine,
    job: &'a Job,
    plan: Plan,
    /// Positions of candidates, next one last.
    ahead: Vec<usize>,
    /// The last target that may be tried again, and after how long.
    again: Option<Turn>,
    /// Accounts of which nothing more is to be tried in this request.
    given_up: Vec<AccountIndex>,
    /// Keys that failed in this request.
    failed_keys: Vec<(AccountIndex, KeyIndex)>,
    /// The least context that will do, once a smaller one has refused.
    larger_than: Option<u64>,
    obstacles: Vec<Obstacle>,
    /// The first refusal that blames the request.
    blamed: Option<ClientError>,
    empty_answer: Option<(DeploymentIndex, Bytes)>,
}

impl<'a> Course<'a> {
    fn new(engine: &'a crate::Engine, job: &'a Job, plan: Plan) -> Self {
        let ahead = plan.order.iter().rev().copied().collect();
        let obstacles = Obstacle::of_plan(&plan);
        Self {
            engine,
            job,
            plan,
            ahead,
            again: None,
            given_up: Vec::new(),
            failed_keys: Vec::new(),
            larger_than: None,
            obstacles,
            blamed: None,
            empty_answer: None,
        }
    }

    /// The next thing to try.
    fn next(&mut self, attempts: usize) -> Option<Turn> {
        if attempts >= MOST_ATTEMPTS {
            return None;
        }
        if self.plan.ordered && self.again.is_some() {
            return self.again.take();
        }
        while let Some(position) = self.ahead.pop() {
            if self.is_worth_trying(position) {
                return Some(Turn { position, wait: Duration::ZERO, again: false });
            }
        }
        self.again.take()
    }

    fn is_worth_trying(&self, position: usize) -> bool {
        let deployment = self.engine.snapshot.deployment(self.plan.candidates[position].deployment);
        let large_enough = match (self.larger_than, deployment.context) {
            (Some(least), Some(context)) => context > least,
            _ => true,
        };
        large_enough && !self.given_up.contains(&deployment.account)
    }

    fn has_others(&self) -> bool {
        self.ahead.iter().any(|position| self.is_worth_trying(*position))
    }

    /// A key of the target's account that is neither paused nor has failed in this request; the account's keys
    /// take turns.
    fn key(&self, deployment: DeploymentIndex, now: Now) -> Result<Option<KeyIndex>, Reason> {
        let account = self.engine.snapshot.deployment(deployment).account;
        let count = self.engine.clients[account.get()].keys().len();
        if count == 0 {
            return Ok(None);
        }
        let first = self.engine.next_key[account.get()].fetch_add(1, Ordering::Relaxed);
        let state = self.engine.state();
        (0..count)
            .map(|step| KeyIndex::new((first + step) % count))
            .find(|key| {
                !self.failed_keys.contains(&(account, *key))
                    && state.pauses.get(PauseScope::Key(account, *key), now).is_none()
            })
            .map(Some)
            .ok_or_else(|| Reason::Failed("no working key".to_owned()))
    }

    /// Notes why a target is out of the question.
    fn obstacle(&mut self, position: usize, reason: Reason) {
        self.obstacles.push(Obstacle { deployment: self.plan.candidates[position].deployment, reason, last: None });
    }

    /// A target has answered: what was held against it is forgotten.
    fn clear(&self, deployment: DeploymentIndex) {
        let mut state = self.engine.state();
        state.strikes.remove(&deployment);
        state.missing.remove(&deployment);
    }

    /// Draws the consequences of a failure. An error ends the request at once.
    fn learn(&mut self, turn: Turn, key: Option<KeyIndex>, failure: Failure) -> Option<ClientError> {
        let deployment = self.plan.candidates[turn.position].deployment;
        let account = self.engine.snapshot.deployment(deployment).account;
        let Failure { meaning, status, empty_answer, may_have_worked, .. } = failure;
        self.pause(deployment, key, &meaning);
        if let Some(answer) = empty_answer {
            self.empty_answer.get_or_insert((deployment, answer));
        }
        let until = meaning.pause.map(|pause| self.engine.now().after(pause.length));
        let reason = match until {
            Some(until) if matches!(status, Some(402 | 429)) => Reason::Paused { until, why: meaning.message.clone() },
            _ => Reason::Failed(format!("{}: {}", meaning.case, meaning.message)),
        };
        self.obstacles.push(Obstacle { deployment, reason, last: Some((meaning.case.clone(), status)) });

        if may_have_worked && self.job.chat.side_effects {
            // It may have been stored already: a second try could store it twice.
            self.ahead.clear();
            return None;
        }
        match meaning.remedy {
            Remedy::Nobody => return Some(blame(&meaning, status)),
            Remedy::Client => {
                let error = blame(&meaning, status);
                let surely = self.features_known(deployment);
                if surely || self.blamed.is_some() {
                    return Some(self.blamed.take().unwrap_or(error));
                }
                self.blamed = Some(error);
                self.ahead.drain(..self.ahead.len().saturating_sub(1));
            }
            Remedy::AnotherKey => {
                if let Some(key) = key {
                    self.failed_keys.push((account, key));
                    if self.key(deployment, self.engine.now()).is_ok() {
                        self.ahead.push(turn.position);
                        return None;
                    }
                }
                self.given_up.push(account);
            }
            Remedy::Larger => {
                let context = self.engine.snapshot.deployment(deployment).context;
                self.larger_than = self.larger_than.max(context);
            }
            Remedy::SameAgain(wait) if !turn.again => {
                let jitter = Duration::from_millis(u64::try_from(random() % 100).unwrap_or(0));
                self.again = Some(Turn { position: turn.position, wait: wait + jitter, again: true });
            }
            Remedy::SameAgain(_) | Remedy::Another => {}
        }
        if meaning.domain == Domain::Account {
            self.given_up.push(account);
        }
        None
    }

    /// Whether everything the request uses is known to work at a target, so that its "no" is the request's fault.
    fn features_known(&self, deployment: DeploymentIndex) -> bool {
        let known = self.engine.snapshot.deployment(deployment).features.present;
        let used: FeatureSet = self.job.chat.features;
        used.without(known).is_empty()
    }

    fn pause(&self, deployment: DeploymentIndex, key: Option<KeyIndex>, meaning: &Meaning) {
        let mut state = self.engine.state();
        match meaning.case.as_str() {
            "model_not_found" => {
                state.missing.insert(deployment);
            }
            "rate_limit" => *state.strikes.entry(deployment).or_default() += 1,
            _ => {}
        }
        let Some(order) = meaning.pause else { return };
        let now = self.engine.now();
        let until = now.after(order.length);
        let here = self.engine.snapshot.deployment(deployment);
        let scopes: Vec<PauseScope> = match order.scope {
            Scope::Key => key.map(|key| PauseScope::Key(here.account, key)).into_iter().collect(),
            Scope::Deployment => vec![PauseScope::Deployment(deployment)],
            Scope::Account => vec![PauseScope::Account(here.account)],
            Scope::Pool => self
                .engine
                .snapshot
                .deployments_of(here.account)
                .filter(|(_, other)| other.limits.iter().any(|limit| here.limits.contains(limit)))
                .map(|(index, _)| PauseScope::Deployment(index))
                .collect(),
        };
        // The provider's words may quote this request; a pause is shown to others.
        let why = meaning.case.clone();
        for scope in scopes {
            state.pauses.pause(scope, until, &why);
        }
        drop(state);
        if order.length > Duration::from_secs(3) {
            let event = Event::Paused { what: &here.name, seconds: order.length.as_secs(), why: &why };
            self.engine.telemetry.tell(now.wall, &event);
        }
    }

    /// Nothing is left to try.
    fn conclude(mut self, trace: &mut Trace) -> Result<Committed, ClientError> {
        if let Some(error) = self.blamed.take() {
            return Err(error);
        }
        if let Some((deployment, answer)) = self.empty_answer.take()
            && !self.job.chat.stream
        {
            // An empty answer is an answer: better than none, when nobody gives a better one.
            trace.note(|record| record.error = Some("empty_answer".to_owned()));
            return Ok(Committed { deployment, dropped: Vec::new(), content: Content::Whole(answer) });
        }
        // Of a target that was tried twice, the last word counts.
        let latest = |position: usize, obstacle: &Obstacle| {
            !self.obstacles[position + 1..].iter().any(|later| later.deployment == obstacle.deployment)
        };
        let named: Vec<(&str, &Obstacle)> = self
            .obstacles
            .iter()
            .enumerate()
            .filter(|(position, obstacle)| latest(*position, obstacle))
            .map(|(_, obstacle)| obstacle)
            .map(|obstacle| (self.engine.snapshot.deployment(obstacle.deployment).name.as_str(), obstacle))
            .collect();
        let out_of_time = self.job.deadline.monotonic <= self.engine.now().monotonic;
        Err(last_word(&self.job.chat.model, &named, self.engine.now(), out_of_time))
    }
}

/// The provider blames the request: its words go back to the client.
fn blame(meaning: &Meaning, status: Option<u16>) -> ClientError {
    let status = status.filter(|status| (400..500).contains(status)).unwrap_or(400);
    let code = meaning.code.clone().unwrap_or_else(|| meaning.case.clone());
    let mut error = ClientError::new(status, &code, meaning.message.clone());
    error.param.clone_from(&meaning.param);
    error
}

impl Driven {
    pub(crate) fn into_answer(self) -> Answer {
        let Self { mut trace, tier, result } = self;
        let engine = Arc::clone(&trace.engine);
        let attempts = trace.attempts();
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
