//! Runs one scenario from its beginning to its end.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use freeway_config::Loaded;
use freeway_engine::{Engine, seed_chance};
use freeway_sim::{Sim, SimConfig};
use freeway_types::{RequestId, Timestamp};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::checks::{check_ledger, check_now, check_quiet};
use crate::client::{Outcome, ask};
use crate::limit::{Limit, Owner};
use crate::network::Network;
use crate::process::{Process, configuration};
use crate::reached::{Rare, Reached};
use crate::scenario::{Call, Deed, Scenario};
use crate::trace::Trace;
use crate::world::World;

/// The longest that a request may take after everything has calmed down: its deadline, and a stream's silences.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Pauses that end by themselves do so within a day.
const PAUSES: Duration = Duration::from_secs(26 * 3_600);

/// How a scenario went.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) trace: Trace,
    pub(crate) reached: Reached,
    pub(crate) failure: Option<String>,
    pub(crate) requests: usize,
}

/// Runs a scenario in a folder of its own, in virtual time.
pub(crate) fn run(scenario: &Scenario, root: &Path) -> Report {
    seed_chance(scenario.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let world = World::new(scenario.seed, scenario.start_wall, root);
        let mut stage = Stage::new(Arc::clone(&world), Arc::new(scenario.clone()));
        stage.play().await;
        let (trace, reached) = world.trace();
        Report { trace, reached, failure: world.failure(), requests: stage.ids.len() }
    })
}

struct Stage {
    world: Arc<World>,
    scenario: Arc<Scenario>,
    sims: Arc<Vec<Sim>>,
    process: Option<Process>,
    loaded: Loaded,
    /// How many lives have begun.
    lives: usize,
    /// The ids of all requests, by their numbers.
    ids: Vec<RequestId>,
}

impl Stage {
    fn new(world: Arc<World>, scenario: Arc<Scenario>) -> Self {
        let sim = |provider: &crate::scenario::Provider| {
            let facts = freeway_catalog::parse("simulated.toml", &provider.facts(true)).expect("a provider's facts");
            let mut config = SimConfig::new(&provider.name, facts);
            config.seed = scenario.seed;
            config.first_byte = Duration::from_millis(provider.first_byte_ms);
            config.pace = Duration::from_millis(provider.pace_ms);
            let (world, skew) = (Arc::clone(&world), provider.skew);
            Sim::within(config, move || world.truth() + skew)
        };
        let sims = Arc::new(scenario.providers.iter().map(sim).collect());
        let now = Timestamp::from_micros(scenario.start_wall);
        let loaded = configuration(&scenario.configuration(), now);
        Self { world, scenario, sims, process: None, loaded, lives: 0, ids: Vec::new() }
    }

    async fn play(&mut self) {
        let scenario = Arc::clone(&self.scenario);
        let began = Instant::now();
        let mut calls = scenario.calls.iter().peekable();
        let mut deeds = scenario.deeds.iter().peekable();
        self.live();
        loop {
            let next = [calls.peek().map(|call| call.at_ms), deeds.peek().map(|(at, _)| *at)];
            let Some(at) = next.into_iter().flatten().min() else { break };
            self.wait(sleep_until(began + Duration::from_millis(at))).await;
            if let Some((_, deed)) = deeds.next_if(|(when, _)| *when <= at) {
                self.act(deed);
            } else if let Some(call) = calls.next() {
                self.call(call.clone());
            }
            if self.world.failure().is_some() {
                return;
            }
        }
        self.wait(sleep_until(began + Duration::from_millis(scenario.calm_ms))).await;
        self.world.calm();
        self.sims.iter().for_each(|sim| sim.set_faults(Vec::new()));
        self.settle().await;
        self.world.spare();
        self.recover().await;
        self.end().await;
    }

    /// Begins a life on what the last one left behind.
    fn live(&mut self) {
        loop {
            let death = self.scenario.deaths.get(self.lives).copied();
            self.lives += 1;
            let (life, folder) = self.world.begin(death);
            let Stage { world, scenario, sims, .. } = &self;
            let (world, scenario, sims) = (Arc::clone(world), Arc::clone(scenario), Arc::clone(sims));
            let network = Network { world, scenario, sims, life };
            if life == 1 {
                std::fs::create_dir_all(&folder).expect("a folder");
            }
            match Process::start(network, &self.loaded, &folder) {
                Ok(process) => self.process = Some(process),
                Err(error) => return self.world.fail(format!("life {life} could not begin: {error}")),
            }
            if self.world.lives(life) {
                return;
            }
            self.world.note(Rare::KilledWhileStarting);
            self.process = None;
        }
    }

    /// Waits for something, while lives end and begin.
    async fn wait<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        let world = Arc::clone(&self.world);
        loop {
            tokio::select! {
                biased;
                () = world.killed.notified() => self.rise().await,
                done = &mut what => return done,
            }
        }
    }

    /// A life has ended: its tasks are dropped, and after a while the next one begins.
    async fn rise(&mut self) {
        if self.process.as_ref().is_some_and(|process| self.world.lives(process.life)) {
            return;
        }
        let down = self.scenario.deaths.get(self.lives - 1).map_or(1_000, |death| death.down_ms);
        if let Some(mut process) = self.process.take() {
            process.clients.shutdown().await;
        }
        sleep(Duration::from_millis(down)).await;
        self.live();
    }

    fn act(&self, deed: &Deed) {
        match deed {
            Deed::StepWall(by) => {
                let before = self.world.truth() + self.world.wall_error();
                self.world.step_wall(*by);
                let day = |at: i64| at.div_euclid(86_400_000_000);
                match by {
                    1.. => self.world.note(Rare::WallSteppedForward),
                    _ if day(before + by) < day(before) => self.world.note(Rare::WallSteppedBackOverBoundary),
                    _ => {}
                }
            }
            Deed::Suspend(length) => self.world.suspend(*length),
            Deed::Faults(provider, faults) => self.sims[*provider].set_faults(faults.clone()),
        }
    }

    fn call(&mut self, call: Call) {
        let Some(process) = self.process.as_mut().filter(|process| self.world.lives(process.life)) else { return };
        let number = self.ids.len();
        let engine = Arc::clone(&process.engine);
        let now = self.world.unwatched(|| engine.now());
        let id = engine.new_id(now);
        self.ids.push(id);
        self.world.tell("client asks", [number as u64, 0]);
        let (world, life) = (Arc::clone(&self.world), process.life);
        let talk = ask(Arc::clone(&world), life, Arc::clone(&engine), call, (number, id));
        let (scenario, sims) = (Arc::clone(&self.scenario), Arc::clone(&self.sims));
        let (active, began) = (Arc::clone(&process.active), world.truth());
        let watched =
            Stepped { talk: Box::pin(talk), world, life, number: number as u64, engine, scenario, sims, began, active };
        let handed_over = Arc::clone(&process.handed_over);
        process.clients.spawn(async move {
            let outcome = watched.await;
            handed_over.notify_one();
            outcome
        });
    }

    /// Waits until every client has its end.
    async fn settle(&mut self) {
        let ended = Instant::now() + LONGEST;
        loop {
            // The writer is always there.
            if self.process.as_ref().is_none_or(|process| process.clients.len() <= 1) {
                break;
            }
            if Instant::now() > ended {
                return self.world.fail("a request has no end".to_owned());
            }
            self.wait(sleep(Duration::from_millis(500))).await;
            if let Some(process) = &mut self.process {
                while let Some(ended) = process.clients.try_join_next() {
                    if let Err(error) = ended {
                        self.world.fail(format!("a client fell over: {error}"));
                    }
                }
            }
        }
        if let Some(process) = &self.process {
            self.world.unwatched(|| check_quiet(&self.world, &process.engine));
        }
    }

    /// After all windows and pauses have passed, each provider can be used again.
    async fn recover(&mut self) {
        let limits = self.scenario.providers.iter().flat_map(|provider| &provider.limits);
        let longest = limits.filter_map(|limit| limit.window).map(|(_, seconds)| seconds).max().unwrap_or(0);
        let wrong = Duration::from_micros(self.world.wall_error().unsigned_abs());
        self.wait(sleep(Duration::from_secs(longest) + PAUSES + wrong)).await;
        let scenario = Arc::clone(&self.scenario);
        for provider in &scenario.providers {
            let fits = |limit: &Limit| if limit.metric.contains("tokens") { limit.amount / 400 } else { limit.amount };
            let for_model = |limit: &&Limit| limit.owner != Owner::Model(1) && limit.metric != "concurrency";
            let most = provider.limits.iter().filter(for_model).map(fits).min().unwrap_or(3).min(6);
            for _ in 0..most {
                let call = Call {
                    at_ms: 0,
                    model: format!("{}/m0", provider.name),
                    stream: false,
                    words: 1,
                    max_tokens: Some(10),
                    leaves_ms: None,
                    deadline_ms: None,
                    rescue: None,
                    is_patient: false,
                };
                self.probe(call).await;
                if self.world.failure().is_some() {
                    return;
                }
            }
        }
    }

    async fn probe(&mut self, call: Call) {
        let model = call.model.clone();
        self.call(call);
        let Some(process) = &mut self.process else { return };
        match timeout(LONGEST, process.clients.join_next()).await {
            Ok(Some(Ok(Outcome::Whole))) => {}
            Ok(Some(Ok(Outcome::Failed(error)))) => self.world.fail(format!("{model} has not recovered: {error}")),
            Ok(Some(Ok(outcome))) => self.world.fail(format!("{model} has not recovered: {outcome:?}")),
            Ok(Some(Err(error))) => self.world.fail(format!("a client fell over: {error}")),
            Ok(None) | Err(_) => self.world.fail(format!("{model} gives no answer")),
        }
    }

    /// Everything is written; then the ledger is read.
    async fn end(&mut self) {
        let Some(process) = &self.process else { return };
        self.world.unwatched(|| check_quiet(&self.world, &process.engine));
        process.handed_over.notify_one();
        sleep(Duration::from_secs(10)).await;
        let Stage { world, scenario, sims, ids, .. } = &self;
        check_ledger(world, scenario, sims, &*process.store, ids);
    }
}

/// A client whose every turn is a step, after which all that must hold is looked at.
struct Stepped {
    talk: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    world: Arc<World>,
    life: u64,
    number: u64,
    engine: Arc<Engine>,
    scenario: Arc<Scenario>,
    sims: Arc<Vec<Sim>>,
    /// The true time at which it asked.
    began: i64,
    /// Held once by each client of this life and once by the process.
    active: Arc<()>,
}

/// Whether a window by the calendar ended between two instants.
fn turned(scenario: &Scenario, from: i64, to: i64) -> bool {
    let limits = scenario.providers.iter().flat_map(|provider| &provider.limits);
    let windows = limits.filter(|limit| limit.is_calendar()).filter_map(|limit| limit.window);
    let lengths = windows.map(|(_, seconds)| i64::try_from(seconds).unwrap_or(1) * 1_000_000);
    lengths.filter(|length| *length >= 30_000_000).any(|length| from.div_euclid(length) != to.div_euclid(length))
}

/// How many clients have not come to their end.
fn active(held: &Arc<()>) -> usize {
    Arc::strong_count(held) - 1
}

impl Future for Stepped {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.get_mut();
        this.world.step(this.life, "client is turned to", this.number);
        let done = this.talk.as_mut().poll(context);
        if this.world.lives(this.life) {
            if matches!(done, Poll::Ready(Outcome::Whole)) && turned(&this.scenario, this.began, this.world.truth()) {
                this.world.note(Rare::CalendarBoundaryInFlight);
            }
            this.world
                .unwatched(|| check_now(&this.world, &this.scenario, &this.engine, &this.sims, active(&this.active)));
        }
        done
    }
}

/// Where scenarios keep their files: in memory, where that can be had.
pub(crate) fn home() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
