//! A refusal holds back what it speaks of: no more, no less, and for as long as it says.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::http::Ask;
use crate::patience::until;
use crate::upstream::{Upstream, in_order};

async fn served_by(gateway: &Gateway, model: &str) -> String {
    let reply = gateway.ask(&Ask::chat(model, false)).await;
    assert_eq!(reply.head.status, 200, "{}", reply.everything());
    reply.head.header("x-freeway-provider").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_one_model_leaves_its_siblings_alone() {
    let a = Upstream::with("a", "models = [{ id = \"a-model\" }, { id = \"a-other\" }]", |_| ()).await;
    a.once(r#"{"fault":"status","status":429,"headers":{"retry-after":"600"}}"#);
    let gateway = Gateway::start(&a.table()).await;
    let statuses = [
        gateway.ask(&Ask::chat("a/a-model", false)).await.head.status,
        gateway.ask(&Ask::chat("a/a-other", false)).await.head.status,
        gateway.ask(&Ask::chat("a/a-model", false)).await.head.status,
    ];
    assert_eq!(statuses, [429, 200, 429]);
    assert_eq!(a.asked(), 2, "the paused model was not asked again, its sibling was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_longer_than_the_limits_own_is_kept() {
    // The refused attempt itself fills its limit, which has a place again long before the time that was stated.
    for limit in [r#"{ metric = "concurrency", amount = 1 }"#, r#"{ metric = "requests", window = "1s", amount = 1 }"#]
    {
        let a = Upstream::with("a", &format!("models = [{{ id = \"a-model\", limits = [{limit}] }}]"), |_| ()).await;
        a.once(r#"{"fault":"status","status":429,"headers":{"retry-after":"600"}}"#);
        let gateway = Gateway::start(&a.table()).await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            let reply = gateway.ask(&Ask::chat("a/a-model", false)).await;
            assert_eq!(reply.head.status, 429, "{limit}: {}", reply.everything());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(a.asked(), 1, "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_nothing_left_by_its_headers_is_not_asked_again() {
    let facts = r#"headers = [
        { name = "x-ratelimit-limit-requests", says = "limit", metric = "requests", window = "hour" },
        { name = "x-ratelimit-remaining-requests", says = "remaining", metric = "requests", window = "hour" },
    ]
    models = [{ id = "a-model", limits = [{ metric = "requests", window = "hour", amount = 100 }] }]"#;
    let a = Upstream::with("a", facts, |_| ()).await;
    let headers = r#"{"x-ratelimit-limit-requests":"100","x-ratelimit-remaining-requests":"0"}"#;
    a.once(&format!(r#"{{"fault":"status","status":200,"headers":{headers},"body":{ANSWER}}}"#));
    let b = Upstream::new("b").await;
    let gateway = Gateway::start(&in_order(&[&a, &b])).await;
    assert_eq!(served_by(&gateway, "pair").await, "a");
    for _ in 0..5 {
        assert_eq!(served_by(&gateway, "pair").await, "b");
    }
    assert_eq!(a.asked(), 1);
}

/// A whole answer.
const ANSWER: &str = r#"{"id":"x","object":"chat.completion","created":1,"model":"a-model","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn waits_are_kept_one_by_one() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&a.table()).await;
    for seconds in [1_u64, 2, 4] {
        a.once(&format!(r#"{{"fault":"status","status":429,"headers":{{"retry-after":"{seconds}"}},"times":1}}"#));
        // A wait that is short is waited out within the request; a longer one is told.
        let refused = Instant::now();
        let asked = a.asked();
        until("it answers again", async || {
            (gateway.ask(&Ask::chat("a/a-model", false)).await.head.status == 200).then_some(())
        })
        .await;
        let log = a.sim.log();
        let gap = log[asked + 1].arrived_ms - log[asked].arrived_ms;
        assert!(gap >= seconds * 1000, "{gap} ms after a wait of {seconds} s");
        assert!(refused.elapsed() >= Duration::from_secs(seconds));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_target_is_tried_again_after_a_failure_that_may_pass() {
    let a = Upstream::new("a").await;
    a.always(r#"{"fault":"status","status":500}"#);
    let gateway = Gateway::start(&a.table()).await;
    assert_eq!(gateway.ask(&Ask::chat("a/a-model", false)).await.head.status, 503);
    a.sim.set_faults(Vec::new());
    assert_eq!(served_by(&gateway, "a/a-model").await, "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_is_not_called_headroom() {
    let limits = "limits = [{ metric = \"requests\", window = \"hour\", amount = 10 }]";
    let a = Upstream::with("a", &format!("models = [{{ id = \"a-model\", {limits} }}]"), |_| ()).await;
    let b = Upstream::new("b").await;
    let gateway = Gateway::start(&in_order(&[&a, &b])).await;
    let reply = gateway.ask(&Ask::chat("pair", false)).await;
    let request = gateway.ledger(&reply).await;
    let shares: Vec<_> = (0..2).map(|place| request["candidates"][place]["headroom_percent"].clone()).collect();
    assert_eq!(shares, [json!(100.0), json!(null)], "{request:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_leave_leave_nothing_held() {
    let limits =
        r#"[{ metric = "concurrency", amount = 40 }, { metric = "tokens", window = "hour", amount = 1000000000 }]"#;
    let a = Upstream::with("a", &format!("models = [{{ id = \"a-model\", limits = {limits} }}]"), |config| {
        config.first_byte = Duration::from_millis(20);
    })
    .await;
    let gateway = Gateway::start(&a.table()).await;
    let mut clients = JoinSet::new();
    for client in 0..20_u64 {
        let address = gateway.address;
        clients.spawn(async move {
            for turn in 0..50 {
                let mut connection = crate::http::Connection::open(address).await;
                connection.send(&Ask::chat("a/a-model", turn % 2 == 0).bytes(address)).await;
                // In every phase: before the upstream has answered, and in the middle of its answer.
                tokio::time::sleep(Duration::from_millis((client * 7 + turn * 3) % 40)).await;
            }
        });
    }
    clients.join_all().await;
    until("nothing is held", async || {
        let quotas = gateway.document("/freeway/v1/quotas").await;
        quotas["limits"].as_array()?.iter().all(|limit| limit["held"] == 0).then_some(())
    })
    .await;
    assert_eq!(a.sim.overruns(), 0);
    assert_eq!(served_by(&gateway, "a/a-model").await, "a");
}
