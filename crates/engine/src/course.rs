//! What is still to be tried for a request, and what stood in the way so far.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use freeway_dialect::ClientError;
use freeway_quota::PauseScope;
use freeway_router::{Bar, Candidate, Domain, Fault, Meaning, Plan, Reason, Remedy, Scope, Verdict};
use freeway_telemetry::Event;
use freeway_types::{AccountIndex, CostClass, DeploymentIndex, FeatureSet, KeyIndex, Monotonic, Now};

use crate::attempt::{Committed, Content, Failure};
use crate::chance::random;
use crate::failure::{Last, Obstacle, last_word};
use crate::health::{Sight, is_featured};
use crate::job::Job;
use crate::pausing::Cause;
use crate::race::Entry;
use crate::timing::MOST_ATTEMPTS;
use crate::trace::Trace;

/// Share of a target's scarcest limit that has to be left for a second attempt beside a slow one.
const PLENTY: f64 = 0.2;

/// One thing to try.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    /// Position among the plan's candidates.
    pub(crate) position: usize,
    /// How long to wait first.
    pub(crate) wait: Duration,
    /// Whether it has been tried before, with the same key.
    again: bool,
}

/// What is still to be tried, and what stood in the way so far.
pub(crate) struct Course<'a> {
    pub(crate) engine: &'a crate::Engine,
    job: &'a Job,
    pub(crate) featured: bool,
    pub(crate) plan: &'a Plan,
    /// Positions of candidates, next one last.
    ahead: Vec<usize>,
    /// The last target that may be tried again, and after how long.
    again: Option<Turn>,
    /// Accounts of which nothing more is to be tried in this request.
    given_up: Vec<AccountIndex>,
    /// Accounts at which something was tried.
    tried: Vec<AccountIndex>,
    /// Keys that failed in this request.
    failed_keys: Vec<(AccountIndex, KeyIndex)>,
    /// The least context that will do, once a smaller one has refused.
    larger_than: Option<u64>,
    obstacles: Vec<Obstacle>,
    /// The first refusal that blames the request.
    blamed: Option<ClientError>,
    empty_answer: Option<(DeploymentIndex, Bytes)>,
}

/// Why a request was not answered.
pub(crate) struct Unanswered {
    /// What its client is told.
    pub(crate) error: ClientError,
    /// What helps, if it was quota that stood in the way.
    pub(crate) delay: Option<Box<Delay>>,
}

/// What a request that waits has to know.
pub(crate) struct Delay {
    /// When it may be served after all.
    pub(crate) again: Monotonic,
    /// Targets that failed, and until when they need not be asked again; `None` is for good.
    pub(crate) barred: Vec<(DeploymentIndex, Option<Monotonic>)>,
}

impl<'a> Course<'a> {
    pub(crate) fn new(engine: &'a crate::Engine, job: &'a Job, plan: &'a Plan) -> Self {
        let ahead = plan.order.iter().rev().copied().collect();
        let obstacles = Obstacle::of_plan(plan);
        for obstacle in obstacles.iter().filter(|obstacle| matches!(obstacle.reason.bar(), Bar::Quota | Bar::Passing)) {
            // It would have been asked. Perhaps more is left by now than is known here.
            engine.want(engine.snapshot.deployment(obstacle.deployment).account);
        }
        Self {
            engine,
            job,
            featured: is_featured(job.chat.features),
            plan,
            ahead,
            again: None,
            given_up: Vec::new(),
            tried: Vec::new(),
            failed_keys: Vec::new(),
            larger_than: None,
            obstacles,
            blamed: None,
            empty_answer: None,
        }
    }

    /// The next thing to try.
    pub(crate) fn next(&mut self, attempts: usize) -> Option<Turn> {
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

    /// The next thing to try while others are still under way: what fails for other reasons than they do.
    pub(crate) fn beside<'b>(&mut self, attempts: usize, running: impl Iterator<Item = &'b Entry>) -> Option<Turn> {
        self.take(attempts, running, |_| true)
    }

    /// A second attempt for one that is slow: it costs no money that the first one does not, takes nothing from what is
    /// scarce, and goes where nothing speaks against it.
    pub(crate) fn hedge<'b>(
        &mut self,
        attempts: usize,
        running: impl Iterator<Item = &'b Entry>,
        slow: &Entry,
    ) -> Option<Turn> {
        if self.job.chat.side_effects {
            return None;
        }
        let (engine, featured) = (self.engine, self.featured);
        let now = engine.now();
        let cost = |candidate: &Candidate| engine.snapshot.deployment(candidate.deployment).cost;
        let allowed = cost(&self.plan.candidates[slow.turn.position]);
        self.take(attempts, running, |candidate| {
            let is_plenty = match candidate.verdict {
                Verdict::Kept { headroom } => headroom.is_none_or(|left| left >= PLENTY),
                Verdict::Dropped(_) => false,
            };
            let ward = engine.wards[candidate.deployment.get()];
            is_plenty
                && (cost(candidate) == CostClass::Free || cost(candidate) == allowed)
                && engine.state().health.is_well(ward, featured, now)
        })
    }

    /// The turn that was granted to a request that waited. It is not in its plan any more.
    pub(crate) fn granted(&mut self, position: usize) -> Turn {
        self.ahead.retain(|other| *other != position);
        self.is_first(self.plan.candidates[position].deployment);
        Turn { position, wait: Duration::ZERO, again: false }
    }

    /// What was taken is not tried after all.
    pub(crate) fn put_back(&mut self, turn: Turn) {
        self.ahead.push(turn.position);
    }

    pub(crate) fn target(&self, turn: Turn) -> DeploymentIndex {
        self.plan.candidates[turn.position].deployment
    }

    fn take<'b>(
        &mut self,
        attempts: usize,
        running: impl Iterator<Item = &'b Entry>,
        suits: impl Fn(&Candidate) -> bool,
    ) -> Option<Turn> {
        if attempts >= MOST_ATTEMPTS {
            return None;
        }
        let domain = |position: usize| self.engine.domain(self.plan.candidates[position].deployment);
        let busy: Vec<AccountIndex> = running.map(|entry| domain(entry.turn.position)).collect();
        let is_free = |position: &usize| {
            self.is_worth_trying(*position)
                && !busy.contains(&domain(*position))
                && suits(&self.plan.candidates[*position])
        };
        let place = self.ahead.iter().rposition(is_free)?;
        let position = self.ahead.remove(place);
        Some(Turn { position, wait: Duration::ZERO, again: false })
    }

    /// Whether this request has not been at a target's account before; from now on, it has.
    pub(crate) fn is_first(&mut self, deployment: DeploymentIndex) -> bool {
        let account = self.engine.snapshot.deployment(deployment).account;
        let is_first = !self.tried.contains(&account);
        if is_first {
            self.tried.push(account);
        }
        is_first
    }

    fn is_worth_trying(&self, position: usize) -> bool {
        let deployment = self.engine.snapshot.deployment(self.plan.candidates[position].deployment);
        let large_enough = match (self.larger_than, deployment.context) {
            (Some(least), Some(context)) => context > least,
            _ => true,
        };
        large_enough && !self.given_up.contains(&deployment.account)
    }

    pub(crate) fn has_others(&self) -> bool {
        self.ahead.iter().any(|position| self.is_worth_trying(*position))
    }

    /// A key of the target's account that is neither paused nor has failed in this request; the account's keys
    /// take turns.
    pub(crate) fn key(&self, deployment: DeploymentIndex, now: Now) -> Result<Option<KeyIndex>, Reason> {
        self.engine.key(deployment, &self.failed_keys, now)
    }

    /// Notes why a target is out of the question.
    pub(crate) fn obstacle(&mut self, position: usize, reason: Reason) {
        let deployment = self.plan.candidates[position].deployment;
        // What an attempt met there tells more than why there is no second one.
        let was_tried = |obstacle: &Obstacle| obstacle.deployment == deployment && obstacle.last.is_some();
        if !matches!(reason, Reason::Failed(_)) || !self.obstacles.iter().any(was_tried) {
            self.obstacles.push(Obstacle { deployment, reason, last: None });
        }
    }

    /// A target has answered: what was held against it is forgotten.
    pub(crate) fn clear(&self, deployment: DeploymentIndex, key: Option<KeyIndex>, sent: Now) {
        let mut state = self.engine.state();
        self.engine.lift_pauses(&mut state, deployment, key, sent);
        let name = &self.engine.snapshot.deployment(deployment).name;
        state.strikes.remove(name);
        state.missing.remove(name);
    }

    /// Draws the consequences of a failure. An error ends the request at once.
    pub(crate) fn learn(&mut self, turn: Turn, key: Option<KeyIndex>, failure: Failure) -> Option<ClientError> {
        let deployment = self.plan.candidates[turn.position].deployment;
        let account = self.engine.snapshot.deployment(deployment).account;
        let Failure { meaning, status, sent, empty_answer, may_have_worked, counted: failure_is_counted, is_unclear } =
            failure;
        let sight = if is_unclear { Sight::Unclear } else { Sight::Failed(Fault::of(&meaning, status, sent)) };
        self.engine.see(deployment, self.featured, sight);
        if !failure_is_counted {
            self.pause(deployment, key, &meaning);
        }
        if let Some(shortage) = meaning.shortage {
            let length = meaning.pause.map_or(Duration::ZERO, |pause| pause.length);
            self.engine.run_short(account, shortage, self.engine.now().after(length));
        }
        if let Some(answer) = empty_answer {
            self.empty_answer.get_or_insert((deployment, answer));
        }
        let until = meaning.pause.map(|pause| self.engine.now().after(pause.length));
        let last = Last::new(&meaning, status);
        let reason = match until {
            Some(until) if last.is_quota() => Reason::Paused { until, why: meaning.message.clone() },
            _ => Reason::Failed(format!("{}: {}", meaning.case, meaning.message)),
        };
        self.obstacles.push(Obstacle { deployment, reason, last: Some(last) });

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
        match meaning.domain {
            Domain::Account => self.given_up.push(account),
            Domain::Provider => {
                let domain = self.engine.domain(deployment);
                let accounts = (0..self.engine.domains.len()).map(AccountIndex::new);
                self.given_up.extend(accounts.filter(|account| self.engine.domains[account.get()] == domain));
            }
            Domain::Key | Domain::Deployment => {}
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
        let here = self.engine.snapshot.deployment(deployment);
        let account = &self.engine.snapshot.accounts[here.account.get()].id;
        let mut state = self.engine.state();
        match meaning.case.as_str() {
            "model_not_found" => {
                state.missing.insert(here.name.clone());
            }
            "rate_limit" => *state.strikes.entry(here.name.clone()).or_default() += 1,
            _ => {}
        }
        let Some(order) = meaning.pause else { return };
        let now = self.engine.now();
        let scopes: Vec<PauseScope> = match order.scope {
            Scope::Key => key.map(|key| PauseScope::Key(account.clone(), key)).into_iter().collect(),
            Scope::Deployment => vec![PauseScope::Deployment(here.name.clone())],
            Scope::Account => vec![PauseScope::Account(account.clone())],
            Scope::Pool => self
                .engine
                .snapshot
                .deployments_of(here.account)
                .filter(|(_, other)| other.limits.iter().any(|limit| here.limits.contains(limit)))
                .map(|(_, other)| PauseScope::Deployment(other.name.clone()))
                .collect(),
        };
        // The provider's words may quote this request; a pause is shown to others.
        let why = meaning.case.clone();
        let cause = Cause { why: &why, inferred: order.inferred, shortage: meaning.shortage };
        for scope in scopes {
            self.engine.lay_pause(&mut state, scope, order.length, cause);
        }
        drop(state);
        if order.length > Duration::from_secs(3) {
            let event = Event::Paused { what: &here.name, seconds: order.length.as_secs(), why: &why };
            self.engine.telemetry().tell(now.wall, &event);
        }
    }

    /// Nothing is left to try.
    pub(crate) fn conclude(mut self, trace: &Trace) -> Result<Committed, Unanswered> {
        if let Some(error) = self.blamed.take() {
            return Err(error.into());
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
        let error = last_word(&self.job.chat.model, &named, self.engine.now(), out_of_time);
        let until = |obstacle: &Obstacle| obstacle.reason.until().map(|until| until.monotonic);
        let quota = named.iter().filter(|(_, obstacle)| obstacle.is_quota());
        let again = quota.filter_map(|(_, obstacle)| until(obstacle)).min();
        let of_failed = |(_, obstacle): &(&str, &Obstacle)| {
            obstacle.last.as_ref().map(|_| (obstacle.deployment, until(obstacle).filter(|_| obstacle.is_quota())))
        };
        let barred = named.iter().filter_map(of_failed).collect();
        let again = again.filter(|_| matches!(error.status, 429 | 503));
        Err(Unanswered { error, delay: again.map(|again| Box::new(Delay { again, barred })) })
    }
}

// === impl Unanswered ===

impl From<ClientError> for Unanswered {
    fn from(error: ClientError) -> Self {
        Self { error, delay: None }
    }
}

impl Unanswered {
    /// Others wait for the same, and have been waiting for longer.
    pub(crate) fn behind_others(now: Now) -> Self {
        let mut error = ClientError::new(429, "quota_exhausted", "too many requests wait for the same quota already");
        error.retry_after = Some(1);
        error.should_retry = true;
        Self { error, delay: Some(Box::new(Delay { again: now.monotonic, barred: Vec::new() })) }
    }
}

impl From<Unanswered> for ClientError {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.error
    }
}

// === impl Engine ===

impl crate::Engine {
    /// A key of a deployment's account that is neither paused nor among `failed`; the account's keys take turns. `None` if
    /// it wants none.
    pub(crate) fn key(
        &self,
        deployment: DeploymentIndex,
        failed: &[(AccountIndex, KeyIndex)],
        now: Now,
    ) -> Result<Option<KeyIndex>, Reason> {
        let account = self.snapshot.deployment(deployment).account;
        let count = self.clients[account.get()].keys().len();
        if count == 0 {
            return Ok(None);
        }
        let id = &self.snapshot.accounts[account.get()].id;
        let first = self.next_key[account.get()].fetch_add(1, Ordering::Relaxed);
        let state = self.state();
        (0..count)
            .map(|step| KeyIndex::new((first + step) % count))
            .find(|key| {
                !failed.contains(&(account, *key))
                    && (state.pauses.is_empty() || state.pauses.get(&PauseScope::Key(id.clone(), *key), now).is_none())
            })
            .map(Some)
            .ok_or_else(|| Reason::Failed("no working key".to_owned()))
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
