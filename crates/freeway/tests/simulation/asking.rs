//! Asking quota endpoints, in virtual time: how often, how long, and whom not any more.

use std::sync::Arc;
use std::time::Duration;

use freeway_sim::Fault;
use freeway_types::Timestamp;
use tokio::time::sleep;

use crate::process::{configuration, setup};
use crate::stage::{START, Stage, loaded, play};

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

fn stage() -> Stage {
    Stage::new(&format!("{CREDIT}{FACTS}"), FACTS)
}

/// The minutes at which the endpoint was asked.
fn asked(stage: &Stage) -> Vec<u64> {
    let log = stage.sim.log();
    let questions = log.iter().filter(|entry| entry.path == "/v1/key");
    questions.map(|entry| (entry.arrived_ms + 30_000) / 60_000).collect()
}

fn requests(stage: &Stage) -> usize {
    stage.sim.log().iter().filter(|entry| entry.method == "POST").count()
}

#[test]
fn a_credit_is_asked_for_every_quarter_of_an_hour_until_it_is_back() {
    play(async {
        let stage = stage();
        assert_eq!((stage.ask(None).await, stage.ask(None).await), (200, 429));
        let before = requests(&stage);
        sleep(32 * MINUTE).await;
        assert_eq!(asked(&stage), [0, 0, 15, 30], "even though nobody wants it meanwhile");
        assert_eq!((stage.ask(None).await, requests(&stage)), (429, before), "it is left alone");
        let used = stage.sim.limits()[0].used;
        stage.sim.give_back(0, used);
        assert_eq!(stage.ask(None).await, 429, "nobody knows of it yet");
        sleep(14 * MINUTE).await;
        assert_eq!(asked(&stage), [0, 0, 15, 30, 45]);
        assert_eq!(stage.ask(None).await, 200);
    });
}

#[test]
fn who_is_idle_is_not_asked_about_and_who_is_used_every_ten_minutes() {
    play(async {
        let stage = stage();
        sleep(60 * MINUTE).await;
        assert!(asked(&stage).is_empty(), "nobody has used it");
        assert_eq!(stage.ask(None).await, 200);
        sleep(5 * MINUTE).await;
        for _ in 0..60 {
            let used = stage.sim.limits()[0].used;
            stage.sim.give_back(0, used);
            assert_eq!(stage.ask(None).await, 200);
            sleep(MINUTE / 2).await;
        }
        sleep(600 * MINUTE).await;
        assert_eq!(asked(&stage), [60, 70, 80, 90, 100]);
    });
}

#[test]
fn an_endpoint_that_fails_is_asked_ever_more_rarely() {
    play(async {
        let stage = stage();
        stage.sim.set_faults(vec![Fault::status(500).quota().forever()]);
        assert_eq!(stage.ask(None).await, 200);
        sleep(600 * MINUTE).await;
        assert_eq!(asked(&stage), [0, 1, 3, 7, 15, 31, 63], "and not for ever, as nobody uses it");
    });
}

#[test]
fn who_is_gone_by_an_edit_is_not_asked_about_any_more() {
    play(async {
        let stage = stage();
        assert_eq!((stage.ask(None).await, stage.ask(None).await), (200, 429));
        sleep(MINUTE).await;
        assert_eq!(asked(&stage), [0, 0]);
        let without =
            "[providers.other]\nbase_url = \"http://127.0.0.1:1/v1\"\ncost = \"free\"\nmodels = [{ id = \"m\" }]\n";
        let without = configuration(without, Timestamp::from_micros(START));
        let next = stage.engine.succeed(setup(&without, &stage.resolver)).expect("an edit");
        sleep(120 * MINUTE).await;
        assert_eq!(asked(&stage), [0, 0]);
        // An old request of the engine before, which still knows the account, changes nothing about that.
        assert_eq!(stage.ask(None).await, 429);
        sleep(120 * MINUTE).await;
        assert_eq!(asked(&stage), [0, 0]);
        let again = next.succeed(setup(&loaded(FACTS), &stage.resolver)).expect("another edit");
        let stage = Stage { engine: Arc::new(again), ..stage };
        assert_eq!(stage.ask(None).await, 429, "its pause was remembered");
        sleep(MINUTE).await;
        assert_eq!(asked(&stage), [0, 0, 241], "and it is asked about again");
    });
}
