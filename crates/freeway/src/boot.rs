//! From a configuration to a gateway that listens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use freeway_config::{Loaded, Settings, StoreUrl};
use freeway_engine::{Clock, Engine, Scrubber, Setup};
use freeway_server::{Bounds, ClientKey, Editions, Keys, Server, Shutdown};
use freeway_store::{Recorder, Sqlite, Store};
use freeway_telemetry::{Event, Level, Telemetry};
use freeway_upstream::{Client, Resolver};
use tokio::task::JoinSet;

use crate::reload::{Reloader, Watched};

/// How often requests older than the retention are forgotten, and what has come up is said.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// How often what was learned is written down.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// How often windows that are about to begin are looked for.
const LOOK_AHEAD_EVERY: Duration = Duration::from_secs(1);

/// A gateway that listens.
pub(crate) struct Gateway {
    pub(crate) server: Server,
    pub(crate) engine: Arc<Engine>,
    recorder: Arc<Recorder>,
    telemetry: Arc<Telemetry>,
    store: Arc<dyn Store>,
    resolver: Resolver,
    settings: Settings,
    retention: Retention,
}

/// How long requests are remembered; `None`: for ever, because of a limit that never comes back.
pub(crate) type Retention = Arc<Mutex<Option<Duration>>>;

/// What an engine and its gates are made of.
pub(crate) struct Parts {
    pub(crate) setup: Setup,
    pub(crate) keys: Keys,
    pub(crate) settings: Settings,
    pub(crate) retention: Option<Duration>,
}

/// Makes the parts of a configuration that was found to be valid.
///
/// # Errors
/// When the cryptography cannot be set up.
pub(crate) fn assemble(loaded: Loaded, resolver: &Resolver) -> Result<Parts, String> {
    let Loaded { settings, snapshot, endpoints, limits, .. } = loaded;
    let resolver = resolver.trusting(&settings.roots).map_err(|error| error.to_string())?;
    let mut secrets = settings.keys.clone();
    secrets.extend(settings.client_keys.iter().map(|client| client.key.clone()));
    secrets.extend(endpoints.iter().flat_map(|endpoint| endpoint.keys.clone()));
    let clients = endpoints
        .into_iter()
        .map(|endpoint| {
            let headers = &endpoint.headers;
            Client::new(endpoint.origin, &endpoint.auth, endpoint.keys, headers, endpoint.reach, resolver.clone())
                .through(endpoint.proxy)
        })
        .collect();
    let client_keys: Vec<ClientKey> = settings
        .client_keys
        .iter()
        .map(|client| ClientKey { name: client.name.clone(), key: client.key.clone() })
        .collect();
    Ok(Parts {
        keys: Keys::new(&settings.keys, &client_keys),
        // What a limit still counts must not be forgotten.
        retention: Engine::memory(limits.iter()).map(|memory| memory.max(settings.retention)),
        setup: Setup { snapshot, clients, limits, scrubber: Scrubber::new(secrets) },
        settings,
    })
}

/// What the settings bound for all requests together.
pub(crate) fn bounds(settings: &Settings) -> Bounds {
    let max_requests = usize::try_from(settings.max_requests).unwrap_or(usize::MAX);
    Bounds { drain: settings.drain, max_requests }
}

impl Gateway {
    /// Wires everything together and starts to listen.
    pub(crate) async fn start(loaded: Loaded, log: Level) -> Result<Self, String> {
        let telemetry = Arc::new(Telemetry::new(log));
        let store: Arc<dyn Store> = match &loaded.settings.store {
            StoreUrl::Memory => Arc::new(Sqlite::in_memory().map_err(|error| error.to_string())?),
            StoreUrl::File(path) => {
                Arc::new(Sqlite::open(path).map_err(|error| format!("{}: {error}", path.display()))?)
            }
        };
        let recorder =
            Recorder::start(Arc::clone(&store), Arc::clone(&telemetry)).map_err(|error| error.to_string())?;
        let recorder = Arc::new(recorder);
        let resolver = Resolver::system().map_err(|error| error.to_string())?;
        let Parts { setup, keys, settings, retention } = assemble(loaded, &resolver)?;
        let retention = Arc::new(Mutex::new(retention));
        let engine =
            Engine::new(setup, Arc::clone(&store), Arc::clone(&recorder), Arc::clone(&telemetry), Clock::start())
                .map_err(|error| error.to_string())?;
        let engine = Arc::new(engine);
        let server = Server::bind(settings.listen, Arc::clone(&engine), keys, bounds(&settings))
            .await
            .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
        Ok(Self { server, engine, recorder, telemetry, store, resolver, settings, retention })
    }

    /// Serves until the process is asked to stop; asked again, it stops without waiting for requests. Edits of a watched file are taken in meanwhile.
    pub(crate) async fn run(self, watched: Option<Watched>) -> Result<(), String> {
        let Self { server, engine, recorder, telemetry, store, resolver, settings, retention } = self;
        let address = server.address().map_err(|error| error.to_string())?.to_string();
        telemetry.tell(engine.now().wall, &Event::Listening { address: &address });
        let mut beside = JoinSet::new();
        beside.spawn(forget(store, server.editions(), Arc::clone(&retention)));
        beside.spawn(save(Arc::clone(&engine)));
        beside.spawn(look_ahead(server.editions()));
        beside.spawn(stop_on_signals(server.shutdown(), Arc::clone(&engine)));
        if let Some(watched) = watched {
            let editions = server.editions();
            beside.spawn(
                Reloader { watched, editions, engine: Arc::clone(&engine), resolver, settings, retention }.run(),
            );
        }
        server.run().await;
        beside.shutdown().await;
        engine.save_learned();
        tokio::task::spawn_blocking(move || recorder.finish()).await.map_err(|error| error.to_string())
    }
}

async fn forget(store: Arc<dyn Store>, editions: Editions, retention: Retention) {
    loop {
        let engine = editions.engine();
        engine.tell_warnings();
        let length = *retention.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(length) = length {
            let before = engine.now().wall.before(length);
            let store = Arc::clone(&store);
            let _ = tokio::task::spawn_blocking(move || store.forget(before)).await;
        }
        tokio::time::sleep(FORGET_EVERY).await;
    }
}

async fn save(engine: Arc<Engine>) {
    loop {
        tokio::time::sleep(SAVE_EVERY).await;
        let engine = Arc::clone(&engine);
        let _ = tokio::task::spawn_blocking(move || engine.save_learned()).await;
    }
}

async fn look_ahead(editions: Editions) {
    loop {
        tokio::time::sleep(LOOK_AHEAD_EVERY).await;
        let engine = editions.engine();
        engine.look_ahead();
        engine.look_to_prices();
    }
}

/// The first signal lets requests under way go on for a while, the second does not.
async fn stop_on_signals(shutdown: Shutdown, engine: Arc<Engine>) {
    let mut signals = Signals::new();
    signals.next().await;
    engine.telemetry().tell(engine.now().wall, &Event::Stopping);
    shutdown.begin();
    signals.next().await;
    shutdown.hurry();
}

/// Requests to stop: SIGTERM, where there is such a thing, and what the terminal sends.
struct Signals {
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> Self {
        Self { terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok() }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Self {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(terminate) = &mut self.terminate {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// The runtime that the gateway runs on.
///
/// By default it has half as many threads as there are cores: requests wait for providers, not for us, and one thread
/// that is busy costs less than two that wake each other (`bench/README.md`).
pub(crate) fn runtime(threads: Option<u16>) -> Result<tokio::runtime::Runtime, String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads.map_or((cores / 2).max(1), usize::from);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all().build().map_err(|error| error.to_string())
}
