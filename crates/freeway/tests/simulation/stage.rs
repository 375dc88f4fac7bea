//! An engine before one simulated provider, in virtual time, for tests that go step by step.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use freeway_engine::{Ask, Boot, Clock, Engine, Given, Reply};
use freeway_policy::Caller;
use freeway_sim::{Sim, SimConfig};
use freeway_store::{Recorder, Sqlite, Store};
use freeway_telemetry::{Level, Telemetry};
use freeway_types::{Monotonic, Now, Timestamp};
use freeway_upstream::{Dial, Dialled, Link, Origin, Resolver};
use tokio::time::Instant;

use crate::process::{configuration, setup};

/// 2026-11-22T00:00:00Z.
pub(crate) const START: i64 = 1_795_305_600_000_000;

pub(crate) struct Stage {
    pub(crate) sim: Arc<Sim>,
    pub(crate) resolver: Resolver,
    pub(crate) engine: Arc<Engine>,
}

struct Here(Arc<Sim>);

impl Dial for Here {
    fn dial(&self, _: &Origin) -> Dialled {
        let sim = Arc::clone(&self.0);
        Box::pin(async move {
            let (here, there) = tokio::io::duplex(64 * 1024);
            tokio::spawn(sim.serve(there));
            let link: Box<dyn Link> = Box::new(here);
            Ok(link)
        })
    }
}

/// A configuration with one provider.
pub(crate) fn loaded(facts: &str) -> freeway_config::Loaded {
    let text = format!(
        "[providers.lab]\nbase_url = \"http://127.0.0.1:1/v1\"\nkeys = [\"sk-test-lab\"]\ncost = \"free\"\n{facts}"
    );
    configuration(&text, Timestamp::from_micros(START))
}

impl Stage {
    /// What is true of the provider, and what the gateway is told.
    pub(crate) fn new(there: &str, here: &str) -> Self {
        let began = Instant::now();
        let elapsed = move || i64::try_from(began.elapsed().as_micros()).expect("no century");
        let now = move || {
            let monotonic = Monotonic::from_micros(u64::try_from(elapsed()).expect("no time before"));
            Now { wall: Timestamp::from_micros(START + elapsed()), monotonic }
        };
        let boot = || Boot { id: None, uptime: Duration::ZERO };
        let clock = Clock::given(Given { now: Arc::new(now), boot: Arc::new(boot) });
        let facts = freeway_catalog::parse("lab.toml", there).expect("facts");
        let sim = Arc::new(Sim::within(SimConfig::new("lab", facts), move || START + elapsed()));
        let resolver = Resolver::given(Arc::new(Here(Arc::clone(&sim))));
        let telemetry = Arc::new(Telemetry::new(Level::Error));
        let store: Arc<dyn Store> = Arc::new(Sqlite::in_memory().expect("a store"));
        let (recorder, _) = Recorder::unattended(Arc::clone(&store), Arc::clone(&telemetry), Box::new(|| ()));
        let setup = setup(&loaded(here), &resolver);
        let engine = Engine::new(setup, store, Arc::new(recorder), telemetry, clock).expect("an engine");
        Self { sim, resolver, engine: Arc::new(engine) }
    }

    /// How a request ends.
    pub(crate) async fn ask(&self, tier: Option<&str>) -> u16 {
        let (engine, now) = (Arc::clone(&self.engine), self.engine.now());
        let body = r#"{"model":"lab/m","messages":[{"role":"user","content":"hello"}]}"#;
        let ask = Ask {
            id: engine.new_id(now),
            received: now,
            body: bytes::Bytes::from_static(body.as_bytes()),
            caller: Caller::Operator,
            caller_name: "operator".to_owned(),
            tier: tier.map(str::to_owned),
            data: None,
            min_quality: None,
            rescue: None,
            deadline: None,
        };
        match engine.serve(ask).await.reply {
            Reply::Whole(_) => 200,
            Reply::Failed(error) => error.status,
            Reply::Stream(_) => 0,
        }
    }
}

pub(crate) fn play(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test);
}
