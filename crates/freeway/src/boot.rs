//! From a configuration to a gateway that listens.

use std::sync::Arc;
use std::time::Duration;

use freeway_config::{Loaded, StoreUrl};
use freeway_engine::{Clock, Engine, Scrubber, Setup};
use freeway_server::{ClientKey, Keys, Server, Shutdown};
use freeway_store::{Recorder, Sqlite, Store};
use freeway_telemetry::{Event, Level, Telemetry};
use freeway_upstream::{Client, Resolver};

/// How often requests older than the retention are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// A gateway that listens.
pub(crate) struct Gateway {
    pub(crate) server: Server,
    pub(crate) engine: Arc<Engine>,
    recorder: Arc<Recorder>,
    telemetry: Arc<Telemetry>,
    store: Arc<dyn Store>,
    /// How long requests are remembered; `None`: for ever, because of a limit that never comes back.
    retention: Option<Duration>,
}

impl Gateway {
    /// Wires everything together and starts to listen.
    pub(crate) async fn start(loaded: Loaded, log: Level) -> Result<Self, String> {
        let Loaded { settings, snapshot, endpoints, limits, .. } = loaded;
        let telemetry = Arc::new(Telemetry::new(log));
        let store: Arc<dyn Store> = match &settings.store {
            StoreUrl::Memory => Arc::new(Sqlite::in_memory().map_err(|error| error.to_string())?),
            StoreUrl::File(path) => {
                Arc::new(Sqlite::open(path).map_err(|error| format!("{}: {error}", path.display()))?)
            }
        };
        let recorder =
            Recorder::start(Arc::clone(&store), Arc::clone(&telemetry)).map_err(|error| error.to_string())?;
        let recorder = Arc::new(recorder);
        let resolver = Resolver::system().map_err(|error| error.to_string())?;

        let mut secrets = settings.keys.clone();
        secrets.extend(settings.client_keys.iter().map(|client| client.key.clone()));
        secrets.extend(endpoints.iter().flat_map(|endpoint| endpoint.keys.clone()));
        let clients = endpoints
            .into_iter()
            .map(|endpoint| {
                let headers = &endpoint.headers;
                Client::new(endpoint.origin, endpoint.auth, endpoint.keys, headers, endpoint.reach, resolver.clone())
            })
            .collect();
        let client_keys: Vec<ClientKey> = settings
            .client_keys
            .iter()
            .map(|client| ClientKey { name: client.name.clone(), key: client.key.clone() })
            .collect();
        let keys = Keys::new(&settings.keys, &client_keys);

        // What a limit still counts must not be forgotten.
        let retention = Engine::memory(&limits).map(|memory| memory.max(settings.retention));
        let setup = Setup { snapshot, clients, limits, scrubber: Scrubber::new(secrets) };
        let engine =
            Engine::new(setup, Arc::clone(&store), Arc::clone(&recorder), Arc::clone(&telemetry), Clock::start())
                .map_err(|error| error.to_string())?;
        let engine = Arc::new(engine);
        let server = Server::bind(settings.listen, Arc::clone(&engine), keys)
            .await
            .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
        Ok(Self { server, engine, recorder, telemetry, store, retention })
    }

    /// Serves until the process is asked to stop.
    pub(crate) async fn run(self) -> Result<(), String> {
        let Self { server, engine, recorder, telemetry, store, retention } = self;
        let address = server.address().map_err(|error| error.to_string())?.to_string();
        telemetry.tell(engine.now().wall, &Event::Listening { address: &address });
        let forgetting = retention.map(|retention| tokio::spawn(forget(store, Arc::clone(&engine), retention)));
        let stopping = tokio::spawn(stop_on_signal(server.shutdown()));
        server.run().await;
        telemetry.tell(engine.now().wall, &Event::Stopping);
        if let Some(forgetting) = forgetting {
            forgetting.abort();
        }
        stopping.abort();
        tokio::task::spawn_blocking(move || recorder.finish()).await.map_err(|error| error.to_string())
    }
}

async fn forget(store: Arc<dyn Store>, engine: Arc<Engine>, retention: Duration) {
    loop {
        let before = engine.now().wall.before(retention);
        let store = Arc::clone(&store);
        let _ = tokio::task::spawn_blocking(move || store.forget(before)).await;
        tokio::time::sleep(FORGET_EVERY).await;
    }
}

async fn stop_on_signal(shutdown: Shutdown) {
    let interrupted = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => {
                tokio::select! {
                    _ = interrupted => {}
                    _ = terminated.recv() => {}
                }
            }
            Err(_) => {
                let _ = interrupted.await;
            }
        }
    }
    #[cfg(not(unix))]
    let _ = interrupted.await;
    shutdown.begin();
}

/// The runtime that the gateway runs on.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())
}
