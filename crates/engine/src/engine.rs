//! The engine: what all requests share, and the way in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use freeway_catalog::Charges;
use freeway_dialect::ClientError;
use freeway_policy::Caller;
use freeway_quota::{Actual, COUNT_LAG, LimitSpec, ReservationId, Rule, Target};
use freeway_router::{Account, Deployment, Snapshot};
use freeway_store::{Dispatch, Recorder, RequestRecord, Spent, Store, StoreError};
use freeway_telemetry::Telemetry;
use freeway_types::{AccountIndex, DeploymentIndex, LimitIndex, Now, RequestId, Secret, Timestamp};
use freeway_upstream::Client;
use tokio::sync::Notify;

use crate::asking::Inquirer;
use crate::calibration::Calibrated;
use crate::chance::random;
use crate::clock::Clock;
use crate::closing::Closing;
use crate::drive::drive;
use crate::foresight::Foresight;
use crate::health::Ward;
use crate::job::prepare;
use crate::scrub::Scrubber;
use crate::state::State;
use crate::stream::StreamBody;
use crate::timing::HOLD;
use crate::trace::Trace;
use crate::waiting::WaitingRoom;

/// Tokens are counted when an answer ends: so long after its dispatch at most.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(3600);

/// What an engine is made of.
pub struct Setup {
    /// What is configured.
    pub snapshot: Snapshot,
    /// The client of each account.
    pub clients: Vec<Client>,
    /// Every limit, in the order of the deployments' indices.
    pub limits: Vec<LimitSpec>,
    /// Takes secrets out of what upstreams say.
    pub scrubber: Scrubber,
}

/// Serves requests by one configuration. An edit makes a new engine, which shares everything that changes from
/// request to request with the one before; requests under way finish on the engine they began on.
pub struct Engine {
    pub(crate) snapshot: Snapshot,
    pub(crate) clients: Vec<Arc<Client>>,
    pub(crate) scrubber: Scrubber,
    /// The key that each account uses next.
    pub(crate) next_key: Vec<AtomicUsize>,
    /// What was learned about each deployment's tokens.
    pub(crate) calibrated: Vec<Arc<Calibrated>>,
    /// Whether a limit of each deployment charges what was asked for.
    pub(crate) charges_requested: Vec<bool>,
    /// Each deployment as the book knows it, with the limits that its answers have shown.
    pub(crate) targets: Vec<Target>,
    /// Each deployment among what was seen of them.
    pub(crate) wards: Vec<Ward>,
    /// The first account that fails when each account does.
    pub(crate) domains: Vec<AccountIndex>,
    /// Each account's limits that go by the provider's clock.
    pub(crate) calendars: Vec<Vec<LimitIndex>>,
    /// Who asks each account's quota endpoint, if it has one.
    pub(crate) inquirers: Vec<Option<Arc<Inquirer>>>,
    /// Its number among the engines of this process.
    pub(crate) edition: usize,
    shared: Arc<Shared>,
}

/// What outlives an edit of the configuration.
pub(crate) struct Shared {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) recorder: Arc<Recorder>,
    /// Where finished requests are read back from.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) closing: Closing,
    /// The warnings that stand in the log.
    said: Mutex<BTreeSet<String>>,
    /// Who asks quota endpoints, by account.
    pub(crate) inquirers: Mutex<BTreeMap<String, Arc<Inquirer>>>,
    /// What was learned about tokens, by deployment.
    calibrated: Mutex<BTreeMap<String, Arc<Calibrated>>>,
    state: Mutex<State>,
    /// Who came, for prices of limits.
    pub(crate) foresight: Mutex<Foresight>,
    /// Rings when bounds of use were flushed.
    pub(crate) secured: Notify,
    /// Who waits for quota.
    pub(crate) room: WaitingRoom,
    /// How many engines there were.
    editions: AtomicUsize,
}

/// A request as it comes from a face.
pub struct Ask {
    /// Its id.
    pub id: RequestId,
    /// When it came.
    pub received: Now,
    /// The client's bytes.
    pub body: Bytes,
    /// Who sent it.
    pub caller: Caller,
    /// The caller's name in the ledger.
    pub caller_name: String,
    /// `x-freeway-tier`.
    pub tier: Option<String>,
    /// `x-freeway-data`.
    pub data: Option<String>,
    /// `x-freeway-min-quality`.
    pub min_quality: Option<String>,
    /// `x-freeway-rescue`.
    pub rescue: Option<String>,
    /// `x-freeway-deadline`.
    pub deadline: Option<Duration>,
}

/// What goes back to the client.
pub struct Answer {
    /// The answer itself.
    pub reply: Reply,
    /// The account that served it; absent in an answer that went out before anyone had.
    pub provider: Option<String>,
    /// The model that served it.
    pub model: Option<String>,
    /// The request's tier.
    pub tier: String,
    /// Attempts made so far.
    pub attempts: usize,
    /// Fields that were left out for the target.
    pub dropped: Vec<String>,
}

/// The answer itself.
pub enum Reply {
    /// A whole answer, in the upstream's bytes.
    Whole(Bytes),
    /// A stream.
    Stream(Box<StreamBody>),
    /// An error.
    Failed(ClientError),
}

impl Answer {
    fn failed(error: ClientError) -> Self {
        let tier = String::new();
        Self { reply: Reply::Failed(error), provider: None, model: None, tier, attempts: 0, dropped: Vec::new() }
    }
}

impl Engine {
    /// An engine that counts on from what the store says was spent, and from what an earlier process sent without
    /// living to say so.
    ///
    /// # Errors
    /// When the store cannot be read or written: to begin with nothing used would overrun what is used.
    pub fn new(
        setup: Setup,
        store: Arc<dyn Store>,
        recorder: Arc<Recorder>,
        telemetry: Arc<Telemetry>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let shared = Shared {
            telemetry,
            recorder,
            store,
            clock,
            closing: Closing::default(),
            said: Mutex::default(),
            inquirers: Mutex::default(),
            calibrated: Mutex::default(),
            state: Mutex::default(),
            foresight: Mutex::default(),
            secured: Notify::new(),
            room: WaitingRoom::default(),
            editions: AtomicUsize::new(0),
        };
        shared.store.recover(shared.clock.now().wall)?;
        shared.load_learned()?;
        shared.load_demand()?;
        let legacy = shared.inherit_bounds()?;
        let engine = Self::on(Arc::new(shared), setup)?;
        let now = engine.now();
        engine.load_shown(now)?;
        engine.begin_bounds(&legacy)?;
        engine.shared().load_sizes(&mut engine.state(), now)?;
        engine.shared().load_pauses(&mut engine.state(), now)?;
        engine.shared().load_breakers(now)?;
        Ok(engine)
    }

    /// The engine of an edited configuration. From now on no request, whichever engine it began on, is sent to a
    /// target that the new configuration does not have or has switched off. A limit that is new counts what the ledger
    /// knows; what is under way at this moment is not in it yet.
    ///
    /// # Errors
    /// When the store cannot be read; nothing is changed then.
    pub fn succeed(&self, setup: Setup) -> Result<Self, StoreError> {
        let keys = |clients: &[Arc<Client>], snapshot: &Snapshot| -> BTreeMap<String, Vec<Secret>> {
            let of = |(account, client): (&Account, &Arc<Client>)| (account.id.clone(), client.keys().to_vec());
            snapshot.accounts.iter().zip(clients).map(of).collect()
        };
        let before = keys(&self.clients, &self.snapshot);
        let next = Self::on(Arc::clone(&self.shared), setup)?;
        let after = keys(&next.clients, &next.snapshot);
        for (account, keys) in before {
            if after.get(&account) != Some(&keys) {
                self.state().pauses.forget_keys(&account);
            }
        }
        next.look_ahead();
        next.shared.hurry_prices();
        Ok(next)
    }

    fn on(shared: Arc<Shared>, setup: Setup) -> Result<Self, StoreError> {
        let Setup { mut snapshot, clients, limits, scrubber } = setup;
        let next_key = snapshot.accounts.iter().map(|_| AtomicUsize::new(0)).collect();
        let charges_requested = |deployment: &Deployment| {
            deployment.limits.iter().any(|limit| limits[limit.get()].charging.charges == Charges::Requested)
        };
        let charges_requested = snapshot.deployments.iter().map(charges_requested).collect();
        let is_new: Vec<bool> = limits.iter().map(|limit| !shared.state().book.counts(limit)).collect();
        let spent = shared.spent_before(limits.iter().zip(&is_new).filter(|(_, new)| **new).map(|(limit, _)| limit))?;
        let mut state = shared.state();
        let now = shared.clock.now();
        let places = state.book.adopt(limits, now);
        let mut new_limits: BTreeMap<String, Vec<LimitIndex>> = BTreeMap::new();
        for deployment in &mut snapshot.deployments {
            let new = deployment.limits.iter().filter(|limit| is_new[limit.get()]).map(|limit| places[limit.get()]);
            new_limits.insert(deployment.name.clone(), new.collect());
            for limit in &mut deployment.limits {
                *limit = places[limit.get()];
            }
        }
        for spent in spent {
            let name = format!("{}/{}", spent.account, spent.model);
            for limit in new_limits.get(&name).into_iter().flatten() {
                state.count_spent(*limit, &spent, now);
            }
        }
        let usable = snapshot.deployments.iter().filter(|deployment| deployment.off.is_none());
        state.in_force = usable.map(|deployment| deployment.name.clone()).collect();
        let enlist = |deployment: &Deployment| {
            let account = &snapshot.accounts[deployment.account.get()].id;
            state.book.enlist(&deployment.name, account, &deployment.limits)
        };
        let targets = snapshot.deployments.iter().map(enlist).collect();
        let ward = |deployment: &Deployment| {
            let account = &snapshot.accounts[deployment.account.get()].id;
            state.health.enlist(&deployment.name, account)
        };
        let wards = snapshot.deployments.iter().map(ward).collect();
        let calendars = Self::calendars_of(&snapshot, &state);
        state.tell_clocks(&snapshot, &calendars);
        drop(state);
        let clients: Vec<Arc<Client>> = clients.into_iter().map(Arc::new).collect();
        let domains = domains(&snapshot, &clients);
        let inquirers = shared.post(&snapshot, &clients);
        let calibrated = snapshot.deployments.iter().map(|deployment| shared.calibrated(&deployment.name)).collect();
        let edition = shared.editions.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            edition,
            snapshot,
            clients,
            scrubber,
            next_key,
            calibrated,
            charges_requested,
            targets,
            wards,
            domains,
            calendars,
            inquirers,
            shared,
        })
    }

    /// What is configured.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Where finished requests are read back from.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.shared.store
    }

    /// Events and counts.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        self.shared.clock.now()
    }

    /// An id for a request that comes now.
    #[must_use]
    pub fn new_id(&self, now: Now) -> RequestId {
        RequestId::new(u64::try_from(now.wall.as_micros() / 1000).unwrap_or(0), random())
    }

    /// Serves one request. Dropping the future, or a stream that it gave, is how a client leaves: the upstream leg
    /// is closed then, settled and recorded.
    pub async fn serve(self: Arc<Self>, ask: Ask) -> Answer {
        if self.shared.recorder.is_overloaded() {
            let mut error =
                ClientError::new(503, "server_is_overloaded", "the ledger cannot keep up; come back in a moment");
            error.retry_after = Some(1);
            error.should_retry = true;
            return Answer::failed(error);
        }
        let mut trace = Trace::begin(Arc::clone(&self), &ask);
        let job = match prepare(&mut trace, &ask) {
            Ok(job) => job,
            Err(error) => {
                trace.failed(&error);
                return Answer::failed(error);
            }
        };
        let (is_stream, tier) = (job.chat.stream, job.admission.tier);
        // Boxed, because what is large is moved again with everything that holds it.
        let mut answer = Box::pin(async move { drive(trace, job).await.into_answer() });
        if !is_stream {
            return answer.await;
        }
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = tokio::time::sleep(HOLD) => {
                let tier = self.snapshot.rules.tiers[tier].name.clone();
                let reply = Reply::Stream(Box::new(StreamBody::held(answer)));
                Answer { reply, provider: None, model: None, tier, attempts: 0, dropped: Vec::new() }
            }
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn closing(&self) -> &Closing {
        &self.shared.closing
    }

    /// The changing state.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// What fails together with a deployment, by the first of its accounts.
    pub(crate) fn domain(&self, index: DeploymentIndex) -> AccountIndex {
        self.domains[self.snapshot.deployment(index).account.get()]
    }

    /// Hands a finished request to the ledger.
    pub(crate) fn record(&self, request: RequestRecord) {
        self.shared.recorder.record(request);
    }

    /// Writes an attempt down before it is sent.
    pub(crate) fn write_down(&self, dispatch: &Dispatch<'_>) -> Result<(), StoreError> {
        self.shared.recorder.dispatched(dispatch)
    }

    /// Gives the latest instant at which the provider can have counted the attempt.
    pub(crate) fn settle(&self, reservation: ReservationId, actual: &Actual) -> Option<Now> {
        let now = self.now();
        let counted = self.state().book.settle(reservation, now, actual);
        self.shared.room.ring();
        counted
    }

    /// Nothing was sent after all.
    pub(crate) fn release(&self, reservation: ReservationId) {
        self.state().book.release(reservation);
        self.shared.room.ring();
    }

    /// Whether the ledger could not be written when that was last tried.
    #[must_use]
    pub fn is_ledger_failing(&self) -> bool {
        self.shared.recorder.is_failing(self.now().wall)
    }

    /// How far back use matters: the longest window; `None` where a limit never comes back.
    #[must_use]
    pub fn memory<'a>(limits: impl Iterator<Item = &'a LimitSpec>) -> Option<Duration> {
        let mut longest = Duration::ZERO;
        for limit in limits {
            if matches!(limit.rule, Rule::Never(_)) {
                return None;
            }
            longest = longest.max(limit.length().unwrap_or_default());
        }
        Some(longest + COUNT_LAG + LONGEST_ATTEMPT)
    }
}

/// For each account, the first one at the same provider and address: what is wrong with one is wrong with the other.
fn domains(snapshot: &Snapshot, clients: &[Arc<Client>]) -> Vec<AccountIndex> {
    let is_same = |one: usize, other: usize| {
        let (here, there) = (&snapshot.accounts[one], &snapshot.accounts[other]);
        let is_same_provider = here.provider.is_some() && here.provider == there.provider;
        is_same_provider && clients[one].origin() == clients[other].origin()
    };
    let first = |account: usize| (0..account).find(|other| is_same(account, *other)).unwrap_or(account);
    (0..clients.len()).map(|account| AccountIndex::new(first(account))).collect()
}

impl Shared {
    /// The changing state. A panic elsewhere while it was held does not make its counts wrong: every change is
    /// made whole before anything can fail.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing was said under this name before; from now on, it was.
    pub(crate) fn is_said_first(&self, name: String) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(name)
    }

    pub(crate) fn calibrated_by_name(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Calibrated>>> {
        self.calibrated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was spent that these limits still count.
    pub(crate) fn spent_before<'a>(
        &self,
        limits: impl Iterator<Item = &'a LimitSpec>,
    ) -> Result<Vec<Spent>, StoreError> {
        let limits: Vec<&LimitSpec> = limits.collect();
        if limits.is_empty() {
            return Ok(Vec::new());
        }
        self.recorder.flush();
        let memory = Engine::memory(limits.into_iter());
        self.store.spent(memory.map_or(Timestamp::default(), |memory| self.clock.now().wall.before(memory)))
    }
}
