//! Asking quota endpoints, in virtual time: how often, how long, and whom not any more.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use freeway_engine::{Ask, Boot, Clock, Engine, Given, Reply};
use freeway_policy::Caller;
use freeway_sim::{Fault, Sim, SimConfig};
use freeway_store::{Recorder, Sqlite, Store};
use freeway_telemetry::{Level, Telemetry};
use freeway_types::{Monotonic, Now, Timestamp};
use freeway_upstream::{Dial, Dialled, Link, Origin, Resolver};
use tokio::time::{Instant, sleep};

use crate::process::{configuration, setup};

/// 2026-11-22T00:00:00Z.
const START: i64 = 1_795_305_600_000_000;
const MINUTE: Duration = Duration::from_secs(60);

/// A provider with a credit in dollars that one answer uses up. The gateway is not told of it.
const FACTS: &str = r#"quota_path = "/key"
quota_reports = [{ metric = "usd", window = "never", left = "balance", scope = "account" }]
report_examples = [{ endpoint = true, body = '{"balance": 1.5}', origin = "composed" }]
errors = [{ case = "credits_exhausted", status = [402], action = "exhaust", until = ["operator"], pauses = "account", examples = [
    { status = 402, body = '{"error": {"message": "Insufficient balance"}}', origin = "composed" },
] }]
models = [{ id = "m", price = { input = 1000.0, output = 1000.0 } }]
"#;
const CREDIT: &str = "limits = [{ metric = \"usd\", reset = \"never\", amount = 0.001 }]\n";

struct Stage {
    sim: Arc<Sim>,
    resolver: Resolver,
    engine: Arc<Engine>,
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

fn loaded(facts: &str) -> freeway_config::Loaded {
    let text = format!(
        "[providers.lab]\nbase_url = \"http://127.0.0.1:1/v1\"\nkeys = [\"sk-test-lab\"]\ncost = \"free\"\n{facts}"
    );
    configuration(&text, Timestamp::from_micros(START))
}

impl Stage {
    fn new() -> Self {
        let began = Instant::now();
        let elapsed = move || i64::try_from(began.elapsed().as_micros()).expect("no century");
        let now = move || {
            let monotonic = Monotonic::from_micros(u64::try_from(elapsed()).expect("no time before"));
            Now { wall: Timestamp::from_micros(START + elapsed()), monotonic }
        };
        let boot = || Boot { id: None, uptime: Duration::ZERO };
        let clock = Clock::given(Given { now: Arc::new(now), boot: Arc::new(boot) });
        let facts = freeway_catalog::parse("lab.toml", &format!("{CREDIT}{FACTS}")).expect("facts");
        let sim = Arc::new(Sim::within(SimConfig::new("lab", facts), move || START + elapsed()));
        let resolver = Resolver::given(Arc::new(Here(Arc::clone(&sim))));
        let telemetry = Arc::new(Telemetry::new(Level::Error));
        let store: Arc<dyn Store> = Arc::new(Sqlite::in_memory().expect("a store"));
        let (recorder, _) = Recorder::unattended(Arc::clone(&store), Arc::clone(&telemetry), Box::new(|| ()));
        let setup = setup(&loaded(FACTS), &resolver);
        let engine = Engine::new(setup, store, Arc::new(recorder), telemetry, clock).expect("an engine");
        Self { sim, resolver, engine: Arc::new(engine) }
    }

    /// How a request ends.
    async fn ask(&self) -> u16 {
        let (engine, now) = (Arc::clone(&self.engine), self.engine.now());
        let body = r#"{"model":"lab/m","messages":[{"role":"user","content":"hello"}]}"#;
        let ask = Ask {
            id: engine.new_id(now),
            received: now,
            body: bytes::Bytes::from_static(body.as_bytes()),
            caller: Caller::Operator,
            caller_name: "operator".to_owned(),
            tier: None,
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

    /// The minutes at which the endpoint was asked.
    fn asked(&self) -> Vec<u64> {
        let log = self.sim.log();
        let questions = log.iter().filter(|entry| entry.path == "/v1/key");
        questions.map(|entry| (entry.arrived_ms + 30_000) / 60_000).collect()
    }

    fn requests(&self) -> usize {
        self.sim.log().iter().filter(|entry| entry.method == "POST").count()
    }
}

fn play(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(test);
}

#[test]
fn a_credit_is_asked_for_every_quarter_of_an_hour_until_it_is_back() {
    play(async {
        let stage = Stage::new();
        assert_eq!((stage.ask().await, stage.ask().await), (200, 429));
        let requests = stage.requests();
        sleep(32 * MINUTE).await;
        assert_eq!(stage.asked(), [0, 0, 15, 30], "even though nobody wants it meanwhile");
        assert_eq!((stage.ask().await, stage.requests()), (429, requests), "it is left alone");
        let used = stage.sim.limits()[0].used;
        stage.sim.give_back(0, used);
        assert_eq!(stage.ask().await, 429, "nobody knows of it yet");
        sleep(14 * MINUTE).await;
        assert_eq!(stage.asked(), [0, 0, 15, 30, 45]);
        assert_eq!(stage.ask().await, 200);
    });
}

#[test]
fn who_is_idle_is_not_asked_about_and_who_is_used_every_ten_minutes() {
    play(async {
        let stage = Stage::new();
        sleep(60 * MINUTE).await;
        assert!(stage.asked().is_empty(), "nobody has used it");
        assert_eq!(stage.ask().await, 200);
        sleep(5 * MINUTE).await;
        for _ in 0..60 {
            let used = stage.sim.limits()[0].used;
            stage.sim.give_back(0, used);
            assert_eq!(stage.ask().await, 200);
            sleep(MINUTE / 2).await;
        }
        sleep(600 * MINUTE).await;
        assert_eq!(stage.asked(), [60, 70, 80, 90, 100]);
    });
}

#[test]
fn an_endpoint_that_fails_is_asked_ever_more_rarely() {
    play(async {
        let stage = Stage::new();
        stage.sim.set_faults(vec![Fault::status(500).quota().forever()]);
        assert_eq!(stage.ask().await, 200);
        sleep(600 * MINUTE).await;
        assert_eq!(stage.asked(), [0, 1, 3, 7, 15, 31, 63], "and not for ever, as nobody uses it");
    });
}

#[test]
fn who_is_gone_by_an_edit_is_not_asked_about_any_more() {
    play(async {
        let stage = Stage::new();
        assert_eq!((stage.ask().await, stage.ask().await), (200, 429));
        sleep(MINUTE).await;
        assert_eq!(stage.asked(), [0, 0]);
        let without =
            "[providers.other]\nbase_url = \"http://127.0.0.1:1/v1\"\ncost = \"free\"\nmodels = [{ id = \"m\" }]\n";
        let without = configuration(without, Timestamp::from_micros(START));
        let next = stage.engine.succeed(setup(&without, &stage.resolver)).expect("an edit");
        sleep(120 * MINUTE).await;
        assert_eq!(stage.asked(), [0, 0]);
        // An old request of the engine before, which still knows the account, changes nothing about that.
        assert_eq!(stage.ask().await, 429);
        sleep(120 * MINUTE).await;
        assert_eq!(stage.asked(), [0, 0]);
        let again = next.succeed(setup(&loaded(FACTS), &stage.resolver)).expect("another edit");
        let stage = Stage { engine: Arc::new(again), ..stage };
        assert_eq!(stage.ask().await, 429, "its pause was remembered");
        sleep(MINUTE).await;
        assert_eq!(stage.asked(), [0, 0, 241], "and it is asked about again");
    });
}
