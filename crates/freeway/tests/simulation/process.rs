//! One life of the gateway: the real engine on the real store, made from a configuration as the program makes it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use freeway_config::{Loaded, Surroundings, load};
use freeway_engine::{Clock, Engine, Given, Scrubber, Setup};
use freeway_store::{
    Block, Dispatch, Learned, Legacy, Lost, Page, Recorder, RequestRecord, Spent, Sqlite, Store, StoreError, UsageKey,
    UsageRow,
};
use freeway_telemetry::{Level, Telemetry};
use freeway_types::{RequestId, Timestamp};
use freeway_upstream::{Client, Resolver};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::client::Outcome;
use crate::network::Network;
use crate::reached::Rare;
use crate::world::World;

pub(crate) struct Process {
    pub(crate) life: u64,
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clients: JoinSet<Outcome>,
    /// Held once by each client, and here.
    pub(crate) active: Arc<()>,
    /// Rings when there is something for the ledger.
    pub(crate) handed_over: Arc<Notify>,
}

/// Reads the configuration as the program does. Once for all lives: most of a scenario's time would go into it.
pub(crate) fn configuration(text: &str, now: Timestamp) -> Loaded {
    let nothing = |_: &str| None;
    let surroundings = Surroundings { variable: &nothing, folder: Path::new("."), now };
    match load("simulated.toml", Some(text), &surroundings) {
        Ok(loaded) => loaded,
        Err(diagnostics) => panic!("the configuration is wrong: {diagnostics}\n{text}"),
    }
}

impl Process {
    /// Starts on what is in the folder.
    pub(crate) fn start(network: Network, loaded: &Loaded, folder: &Path) -> Result<Self, StoreError> {
        let (world, life) = (Arc::clone(&network.world), network.life);
        let telemetry = Arc::new(Telemetry::new(Level::Error));
        let sqlite = Sqlite::open(&folder.join("ledger.db"))?;
        let store: Arc<dyn Store> = Arc::new(Watched { store: sqlite, world: Arc::clone(&world), life });
        let handed_over = Arc::new(Notify::new());
        // Bounds of use are waited for.
        let is_waited_for = Arc::new(AtomicBool::new(false));
        let hurry = {
            let (rings, is_waited_for) = (Arc::clone(&handed_over), Arc::clone(&is_waited_for));
            move || {
                is_waited_for.store(true, Ordering::Relaxed);
                rings.notify_one();
            }
        };
        let (recorder, queued) = Recorder::unattended(Arc::clone(&store), Arc::clone(&telemetry), Box::new(hurry));
        let resolver = Resolver::given(Arc::new(network));
        let clock = {
            let (world, machine) = (Arc::clone(&world), Arc::clone(&world));
            Clock::given(Given { now: Arc::new(move || world.clock(life)), boot: Arc::new(move || machine.boot()) })
        };
        let engine = Engine::new(setup(loaded, &resolver), Arc::clone(&store), Arc::new(recorder), telemetry, clock)?;
        let engine = Arc::new(engine);
        let mut clients = JoinSet::new();
        // The writer: it takes its time, as long as it likes.
        let (writes, learner) = (Arc::clone(&handed_over), Arc::downgrade(&engine));
        clients.spawn(async move {
            loop {
                writes.notified().await;
                // Now and then the disk is very slow.
                let slow = if world.has_trouble() { 250 } else { 0 };
                let (wait, flush, saves) = world.draw(|chance| {
                    let flush = if chance.permille(slow) { 1_900 } else { 30 };
                    (chance.any_size(3_000), chance.any_size(flush), chance.permille(200))
                });
                let hurried = async {
                    while !is_waited_for.swap(false, Ordering::Relaxed) {
                        writes.notified().await;
                    }
                    tokio::time::sleep(Duration::from_millis(flush)).await;
                };
                let _ = tokio::time::timeout(Duration::from_millis(wait), hurried).await;
                if saves && let Some(engine) = learner.upgrade() {
                    engine.save_learned();
                }
                if !world.lives(life) {
                    return Outcome::Lost;
                }
                match queued.write() {
                    Ok(count) => _ = world.step(life, "commits", count as u64),
                    Err(error) => world.fail(format!("the ledger could not be written: {error}")),
                }
            }
        });
        Ok(Self { life, engine, store, clients, active: Arc::new(()), handed_over })
    }
}

/// What `assemble` of the program makes of a configuration, as far as the engine goes.
pub(crate) fn setup(loaded: &Loaded, resolver: &Resolver) -> Setup {
    let Loaded { snapshot, endpoints, limits, .. } = loaded;
    let secrets = endpoints.iter().flat_map(|endpoint| endpoint.keys.clone()).collect();
    let clients = endpoints.iter().cloned().map(|endpoint| {
        let headers = &endpoint.headers;
        Client::new(endpoint.origin, &endpoint.auth, endpoint.keys, headers, endpoint.reach, resolver.clone())
    });
    Setup {
        snapshot: snapshot.clone(),
        clients: clients.collect(),
        limits: limits.clone(),
        scrubber: Scrubber::new(secrets),
    }
}

/// The store, where what is done is a step.
struct Watched {
    store: Sqlite,
    world: Arc<World>,
    life: u64,
}

impl Watched {
    /// Does something that is flushed: what the disk holds then outlives a loss of power.
    fn flushed(&self, what: &'static str, write: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        // A process that is dead writes nothing.
        if self.world.lives(self.life) {
            write()?;
            self.world.flushed(self.life);
            self.world.step(self.life, what, 0);
        }
        Ok(())
    }
}

impl Store for Watched {
    fn dispatched(&self, dispatch: &Dispatch<'_>) -> Result<(), StoreError> {
        let written = self.store.dispatched(dispatch);
        self.world.step(self.life, "is journalled", dispatch.ordinal);
        written
    }

    fn recover(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.world.step(self.life, "recovers", 0);
        let found = self.store.recover(now)?;
        self.world.step(self.life, "has recovered", found as u64);
        if found > 0 {
            self.world.note(Rare::CountedOnAfterRestart);
        }
        Ok(found)
    }

    fn write(&self, requests: &[RequestRecord], learned: &[Learned]) -> Result<(), StoreError> {
        if learned.iter().any(|row| row.kind == "breaker" && row.value.is_some()) {
            self.world.note(Rare::BreakerOpened);
        }
        if requests.iter().flat_map(|request| &request.attempts).any(|attempt| attempt.outcome == "superseded") {
            self.world.note(Rare::TwoAttemptsAtOnce);
        }
        self.store.write(requests, learned)
    }

    fn outlives_power(&self) -> bool {
        self.store.outlives_power()
    }

    fn secure(&self, bounds: &[Block]) -> Result<(), StoreError> {
        self.flushed("secures", || self.store.secure(bounds))
    }

    fn legacy(&self) -> Result<Legacy, StoreError> {
        self.store.legacy()
    }

    fn begin(&self, boot: &str, lost: Option<&[Lost]>) -> Result<(), StoreError> {
        if lost.is_some() {
            self.world.note(Rare::PowerWasLost);
        }
        if lost.is_some_and(|lost| lost.iter().any(|lost| lost.from < lost.to)) {
            self.world.note(Rare::MoreWasLostThanIsKnown);
        }
        self.flushed("begins", || self.store.begin(boot, lost))
    }

    fn end(&self) -> Result<(), StoreError> {
        self.store.end()
    }

    fn learned(&self, kind: &str) -> Result<Vec<Learned>, StoreError> {
        self.store.learned(kind)
    }

    fn request(&self, id: RequestId) -> Result<Option<RequestRecord>, StoreError> {
        self.store.request(id)
    }

    fn requests(&self, page: Page) -> Result<Vec<RequestRecord>, StoreError> {
        self.store.requests(page)
    }

    fn usage(&self, by: UsageKey, since: Timestamp) -> Result<Vec<UsageRow>, StoreError> {
        self.store.usage(by, since)
    }

    fn spent(&self, since: Timestamp) -> Result<Vec<Spent>, StoreError> {
        self.store.spent(since)
    }

    fn forget(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.store.forget(before)
    }
}
