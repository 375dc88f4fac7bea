//! A provider's quota endpoint is asked beside the requests: it shows what others use and what has come back, and
//! whatever it does, it harms nothing.

use freeway_sim::SimConfig;

use crate::gateway::{End, Gateway, Home};
use crate::http::{Ask, Connection};
use crate::patience::until;
use crate::upstream::{Upstream, in_order};

/// An endpoint that tells of requests a day and of a credit in dollars.
const ENDPOINT: &str = r#"quota_path = "/key"
quota_reports = [
    { metric = "requests", window = "day", amount = "free.limit", left = "free.remaining", scope = "account" },
    { metric = "usd", window = "never", left = "balance", scope = "account" },
]
report_examples = [
    { endpoint = true, body = '{"free": {"limit": 1, "remaining": 1}, "balance": 1.5}', origin = "composed" },
]
"#;

/// Nine requests a day.
const NINE: &str = "limits = [{ metric = \"requests\", window = \"day\", amount = 9 }]\n";
/// A credit that one answer uses up.
const CENT: &str = "limits = [{ metric = \"usd\", reset = \"never\", amount = 0.001 }]\n";
const MODEL: &str = "models = [{ id = \"a-model\", price = { input = 1000.0, output = 1000.0 } }]\n";

async fn provider(limits: &str) -> Upstream {
    let keys = |config: &mut SimConfig| config.keys = vec!["sk-test-upstream".to_owned()];
    Upstream::with("a", &format!("{ENDPOINT}{limits}{MODEL}"), keys).await
}

/// How often the endpoint was asked.
fn asked(upstream: &Upstream) -> usize {
    upstream.sim.log().iter().filter(|entry| entry.path == "/v1/key").count()
}

async fn status(gateway: &Gateway) -> u16 {
    gateway.ask(&Ask::chat("a/a-model", false)).await.head.status
}

/// Waits until the gateway says that the endpoint was asked so often.
async fn told(gateway: &Gateway, outcome: &str, times: usize) {
    let line = format!("quota_asked account=\"a\" outcome={outcome}");
    until("the endpoint was asked", async || (gateway.said().matches(&line).count() >= times).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn use_by_others_is_seen_through_the_endpoint() {
    let a = provider(NINE).await;
    let gateway = Gateway::start(&a.table()).await;
    let mut other = Connection::open(a.sim.address()).await;
    for _ in 0..5 {
        let ask = Ask::chat("a-model", false).key("sk-test-upstream");
        other.send(&ask.bytes(a.sim.address())).await;
        assert_eq!(other.reply().await.head.status, 200);
    }
    assert_eq!(asked(&a), 0, "nobody has used the account yet");
    assert_eq!(status(&gateway).await, 200);
    told(&gateway, "answered", 1).await;
    let quotas = gateway.document("/freeway/v1/quotas").await;
    let row = &quotas["limits"][0];
    assert_eq!((&row["used"], &row["others"], &row["left"]), (&1.into(), &5.into(), &3.into()), "{quotas:#}");
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(status(&gateway).await);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(a.sim.overruns(), 0);
    assert_eq!(asked(&a), 1, "and not at every request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_that_is_back_ends_its_pause_even_after_a_kill() {
    let a = provider(CENT).await;
    let table = a.table().replace(CENT, "");
    let home = Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{table}"));
    let gateway = home.serve().await;
    assert_eq!(status(&gateway).await, 200);
    told(&gateway, "answered", 1).await;
    a.once(r#"{"fault":"status","status":402}"#);
    assert_eq!(status(&gateway).await, 429);
    told(&gateway, "answered", 2).await;
    assert_eq!(status(&gateway).await, 429, "nothing is left, so the pause stands");
    let quotas = gateway.document("/freeway/v1/quotas").await;
    assert_eq!(quotas["pauses"][0]["why"], "payment_required", "{quotas:#}");
    until("it is written down", async || {
        let all = gateway.document("/freeway/v1/requests").await;
        (all["requests"].as_array()?.len() == 3).then_some(())
    })
    .await;
    gateway.end(End::Kill).await;

    let credit = &a.sim.limits()[0];
    a.sim.give_back(0, credit.used);
    let gateway = home.serve().await;
    // Somebody wants it, and cannot have it: a reason to ask.
    assert_eq!(status(&gateway).await, 429);
    until("the pause is lifted", async || gateway.said().contains(" resumed what=\"a\"").then_some(())).await;
    assert_eq!(status(&gateway).await, 200);
    let quotas = gateway.document("/freeway/v1/quotas").await;
    assert_eq!(quotas["pauses"], serde_json::json!([]), "{quotas:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_changes_nothing() {
    for (fault, said) in [
        (r#"{"fault":"status","status":401}"#, "status 401"),
        (r#"{"fault":"status","status":402}"#, "status 402"),
        (r#"{"fault":"status","status":404}"#, "status 404"),
        (r#"{"fault":"status","status":429,"headers":{"retry-after":"600"}}"#, "status 429"),
        (r#"{"fault":"status","status":503}"#, "status 503"),
        (r#"{"fault":"status","status":200,"body":"<html>"}"#, "the answer is not JSON"),
        (r#"{"fault":"reset"}"#, "connection"),
        (r#"{"fault":"reset-mid-headers"}"#, "connection"),
    ] {
        let a = provider(NINE).await;
        let fault = fault.replacen('{', "{\"quota\":true,", 1);
        a.always(&fault);
        let local = a.table().replace("[providers.a]\n", "[providers.a]\nkind = \"local\"\n");
        let gateway = Gateway::start(&local).await;
        assert_eq!(status(&gateway).await, 200, "{fault}");
        told(&gateway, "failed", 1).await;
        assert!(gateway.said().contains(said), "{fault}: {}", gateway.said());
        for _ in 0..8 {
            assert_eq!(status(&gateway).await, 200, "{fault}");
        }
        let quotas = gateway.document("/freeway/v1/quotas").await;
        let row = &quotas["limits"][0];
        let figures = (&row["used"], &row["others"], &row["amount"]);
        assert_eq!(
            (figures, &quotas["pauses"]),
            ((&9.into(), &0.into(), &9.into()), &serde_json::json!([])),
            "{fault}"
        );
        assert_eq!(asked(&a), 1, "{fault}: it is left alone for a while");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hangs_holds_up_no_request() {
    let a = provider(NINE).await;
    a.always(r#"{"quota":true,"fault":"silence"}"#);
    let gateway = Gateway::start(&a.table()).await;
    for _ in 0..9 {
        assert_eq!(status(&gateway).await, 200);
    }
    assert_eq!((asked(&a), status(&gateway).await), (1, 429));
    // Nor does it hold up the end.
    gateway.end(End::Terminate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_goes_to_the_accounts_own_origin_alone() {
    let elsewhere = provider(NINE).await;
    let place = format!("{}/key", elsewhere.sim.base_url());
    // By a redirect …
    let a = provider(NINE).await;
    a.always(&format!(r#"{{"quota":true,"fault":"status","status":302,"headers":{{"location":"{place}"}}}}"#));
    let gateway = Gateway::start(&a.table()).await;
    assert_eq!(status(&gateway).await, 200);
    told(&gateway, "failed", 1).await;
    assert!(gateway.said().contains("status 302"), "{}", gateway.said());
    let log = a.sim.log();
    let question = log.iter().find(|entry| entry.path == "/v1/key").unwrap();
    assert_eq!((question.method.as_str(), question.key.as_deref()), ("GET", Some("sk-test-upstream")));
    assert!(!gateway.said().contains("sk-test-upstream"));
    drop(gateway);
    // … or by an address in the facts, it goes nowhere.
    let a = provider(NINE).await;
    let b = Upstream::new("b").await;
    let pair = in_order(&[&a, &b]).replace("quota_path = \"/key\"", &format!("quota_path = \"{place}\""));
    let gateway = Gateway::start(&pair).await;
    for _ in 0..12 {
        assert_eq!(gateway.ask(&Ask::chat("pair", false)).await.head.status, 200);
    }
    assert!(!gateway.said().contains("quota_asked"), "nobody is asked who has no endpoint at this origin");
    assert_eq!((elsewhere.asked(), asked(&a)), (0, 0));
}
