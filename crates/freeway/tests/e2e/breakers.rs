//! What fails again and again is left alone, tried now and then, and never shuts everything off.

use crate::gateway::{End, Gateway, Home};
use crate::http::Ask;
use crate::patience::until;
use crate::upstream::{Upstream, in_order};

const BROKEN: &str = r#"{"fault":"status","status":500}"#;

/// A list whose first target is tried first, and only once by each request.
fn equals(upstreams: &[&Upstream]) -> String {
    in_order(upstreams).replace("strategy = \"ordered\"\n", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_after_five_failures_outlives_a_kill_and_closes_when_the_target_is_well() {
    let (a, b) = (Upstream::new("a").await, Upstream::new("b").await);
    let home = Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{}", equals(&[&a, &b])));
    let gateway = home.serve().await;
    a.always(BROKEN);
    for _ in 0..8 {
        let reply = gateway.ask(&Ask::chat("pair", true)).await;
        assert_eq!(reply.head.header("x-freeway-provider"), Some("b"), "{}", reply.everything());
    }
    assert_eq!((a.asked(), b.asked()), (5, 8));
    let explained = gateway.ask(&Ask::post("/freeway/v1/explain", Ask::chat("pair", true).body.unwrap())).await.json();
    assert_eq!(explained["candidates"][0]["reason"], "breaker", "{explained}");
    until("the ledger holds the breaker", async || gateway.said().contains("breaker_opened").then_some(())).await;
    // Another commit, so that what was handed over before it is written.
    let last = gateway.ask(&Ask::chat("pair", true)).await;
    gateway.ledger(&last).await;
    gateway.end(End::Kill).await;

    let gateway = home.serve().await;
    let reply = gateway.ask(&Ask::chat("pair", true)).await;
    assert_eq!(reply.head.header("x-freeway-provider"), Some("b"));
    let tried = a.asked();
    assert!(tried <= 6, "one request may have tried it: {tried}");
    a.sim.set_faults(Vec::new());
    until("the target serves again", async || {
        let reply = gateway.ask(&Ask::chat("pair", true)).await;
        (reply.head.header("x-freeway-provider") == Some("a")).then_some(())
    })
    .await;
    let before = a.asked();
    for _ in 0..5 {
        gateway.ask(&Ask::chat("pair", true)).await;
    }
    assert!(a.asked() > before, "all is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_model_does_not_take_its_siblings_along_and_quota_opens_nothing() {
    let a = Upstream::with("a", "models = [{ id = \"a-model\" }, { id = \"sibling\" }]", |_| ()).await;
    let gateway = Gateway::start(&a.table()).await;
    a.always(r#"{"fault":"status","status":503,"model":"a-model"}"#);
    for _ in 0..6 {
        let reply = gateway.ask(&Ask::chat("a/a-model", true)).await;
        assert_eq!(reply.head.status, 503, "{}", reply.everything());
    }
    let sibling = gateway.ask(&Ask::chat("a/sibling", true)).await;
    assert_eq!(sibling.head.status, 200, "{}", sibling.everything());

    let (c, d) = (Upstream::new("c").await, Upstream::new("d").await);
    let gateway = Gateway::start(&equals(&[&c, &d])).await;
    c.always(r#"{"fault":"status","status":429,"headers":{"retry-after":"1"}}"#);
    for _ in 0..6 {
        assert_eq!(gateway.ask(&Ask::chat("pair", true)).await.head.status, 200);
    }
    assert!(!gateway.said().contains("breaker_opened"), "{}", gateway.said());
    c.always(r#"{"fault":"status","status":400,"body":{"error":{"message":"no"}}}"#);
    for _ in 0..6 {
        gateway.ask(&Ask::chat("c/c-model", true)).await;
    }
    assert!(!gateway.said().contains("breaker_opened"), "{}", gateway.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_everything_fails_one_request_a_second_goes_there_all_the_same() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&a.table()).await;
    a.always(BROKEN);
    let mut refused = None;
    for _ in 0..12 {
        let reply = gateway.ask(&Ask::chat("a/a-model", false)).await;
        assert!(reply.head.status >= 500, "{}", reply.everything());
        if reply.json()["error"]["message"].as_str().unwrap().contains("again and again") {
            refused = Some(reply);
        }
    }
    let refused = refused.expect("a breaker that opened");
    assert_eq!(refused.head.status, 503, "{}", refused.everything());
    assert!(refused.head.number("retry-after").is_some_and(|seconds| (1..=30).contains(&seconds)));
    assert!(a.asked() < 24, "less than twice for each: {}", a.asked());
    // As soon as it is well, it serves.
    a.sim.set_faults(Vec::new());
    until("the only target serves again", async || {
        (gateway.ask(&Ask::chat("a/a-model", false)).await.head.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_empty_answers_are_enough_and_one_without_room_is_none() {
    let (a, b) = (Upstream::new("a").await, Upstream::new("b").await);
    let gateway = Gateway::start(&equals(&[&a, &b])).await;
    a.always(r#"{"fault":"empty"}"#);
    for _ in 0..8 {
        let reply = gateway.ask(&Ask::chat("pair", false)).await;
        assert_eq!(reply.head.header("x-freeway-provider"), Some("b"), "{}", reply.everything());
    }
    assert_eq!(a.asked(), 3);
    let no_room = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"length"}]}"#;
    let (c, d) = (Upstream::new("c").await, Upstream::new("d").await);
    let gateway = Gateway::start(&equals(&[&c, &d])).await;
    c.always(
        &serde_json::json!({"fault": "status", "status": 200, "body": no_room, "content_type": "application/json"})
            .to_string(),
    );
    for _ in 0..8 {
        let reply = gateway.ask(&Ask::chat("pair", false)).await;
        assert_eq!(reply.head.header("x-freeway-provider"), Some("d"), "{}", reply.everything());
        let ledger = gateway.ledger(&reply).await;
        assert_eq!(ledger["attempts"][0]["outcome"], "no_room_for_content", "{ledger}");
    }
    assert_eq!(c.asked(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_provider_is_tried_once_whatever_its_keys_and_models() {
    let models: Vec<String> = (0..6).map(|model| format!("{{ id = \"a-{model}\" }}")).collect();
    let a = Upstream::with("a", &format!("models = [{}]", models.join(", ")), |_| ()).await;
    let keys: Vec<String> = (0..5).map(|key| format!("\"sk-test-{key}\"")).collect();
    let a = a.account(&format!("cost = \"free\"\nkeys = [{}]", keys.join(", ")));
    let b = Upstream::new("b").await;
    let targets: Vec<String> = (0..6).map(|model| format!("\"a/a-{model}\"")).collect();
    let alias = format!("[aliases.pair]\ntargets = [{}, \"b/b-model\"]\n", targets.join(", "));
    let gateway = Gateway::start(&[a.table(), b.table(), alias].concat()).await;
    a.always(r#"{"fault":"status","status":503}"#);
    let reply = gateway.ask(&Ask::chat("pair", true)).await;
    assert_eq!(reply.head.header("x-freeway-provider"), Some("b"), "{}", reply.everything());
    assert_eq!((a.asked(), b.asked()), (1, 1));
}
