//! What a provider shows of its limits is believed: by headers, by refusals, and through a restart.

use std::time::Duration;

use freeway_sim::SimConfig;

use crate::gateway::{End, Gateway, Home};
use crate::http::{Ask, Connection};
use crate::patience::until;
use crate::upstream::Upstream;

const HEADERS: &str = r#"headers = [
    { name = "x-ratelimit-limit-requests", says = "limit", metric = "requests", window = "hour" },
    { name = "x-ratelimit-remaining-requests", says = "remaining", metric = "requests", window = "hour" },
]
"#;

/// A provider that allows so many requests an hour, with or without telling in headers.
async fn provider(amount: u64, headers: bool) -> Upstream {
    let limit = format!(r#"limits = [{{ metric = "requests", window = "hour", amount = {amount} }}]"#);
    let headers = if headers { HEADERS } else { "" };
    Upstream::with("a", &format!("{headers}models = [{{ id = \"a-model\", {limit} }}]"), |_: &mut SimConfig| ()).await
}

/// A configuration that thinks otherwise of the provider's limit.
fn thinking(a: &Upstream, limit: &str) -> String {
    let url = a.sim.base_url();
    format!(
        "[providers.a]\nbase_url = \"{url}\"\nkeys = [\"sk-test-upstream\"]\ncost = \"free\"\n{HEADERS}\
        models = [{{ id = \"a-model\", limits = [{limit}] }}]\n"
    )
}

async fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(gateway.ask(&Ask::chat("a/a-model", false)).await.head.status);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_smaller_than_was_thought_is_not_overrun() {
    let a = provider(5, true).await;
    let gateway = Gateway::start(&thinking(&a, r#"{ metric = "requests", window = "hour", amount = 20 }"#)).await;
    assert_eq!(statuses(&gateway, 8).await, [200, 200, 200, 200, 200, 429, 429, 429]);
    assert_eq!((a.asked(), a.sim.overruns()), (5, 0), "the headers said how large it is");
    let quotas = gateway.document("/freeway/v1/quotas").await;
    let row = &quotas["limits"][0];
    assert_eq!((&row["amount"], &row["declared"]), (&5.into(), &20.into()), "{quotas:#}");
    assert_eq!((&row["learned"]["source"], &row["declared_by"]), (&"headers".into(), &"configuration".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn use_by_others_is_noticed_before_it_hurts() {
    let a = provider(9, true).await;
    let gateway = Gateway::start(&thinking(&a, r#"{ metric = "requests", window = "hour", amount = 9 }"#)).await;
    // Somebody else uses the same key at the provider itself.
    let mut other = Connection::open(a.sim.address()).await;
    for _ in 0..5 {
        let ask = Ask::chat("a-model", false).key("sk-test-upstream");
        other.send(&ask.bytes(a.sim.address())).await;
        assert_eq!(other.reply().await.head.status, 200);
    }
    assert_eq!(statuses(&gateway, 6).await, [200, 200, 200, 200, 429, 429]);
    assert_eq!((a.asked(), a.sim.overruns()), (9, 0));
    let quotas = gateway.document("/freeway/v1/quotas").await;
    assert_eq!((&quotas["limits"][0]["used"], &quotas["limits"][0]["others"]), (&4.into(), &5.into()), "{quotas:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_nobody_knew_is_learned_from_the_first_refusal_and_outlives_a_kill() {
    let a = provider(4, false).await;
    let home = Home::new(&format!(
        "[store]\nurl = \"sqlite:ledger.db\"\n{}",
        thinking(&a, r#"{ metric = "requests", window = "hour" }"#)
    ));
    let gateway = home.serve().await;
    assert_eq!(statuses(&gateway, 7).await, [200, 200, 200, 200, 429, 429, 429]);
    assert_eq!((a.asked(), a.sim.overruns()), (5, 1), "one refusal is what it costs to learn it");
    // What was learned is committed with the request that taught it.
    until("it is written down", async || {
        let all = gateway.document("/freeway/v1/requests").await;
        (all["requests"].as_array()?.len() == 7).then_some(())
    })
    .await;
    gateway.end(End::Kill).await;
    let gateway = home.serve().await;
    assert_eq!(statuses(&gateway, 2).await, [429, 429]);
    let quotas = gateway.document("/freeway/v1/quotas").await;
    assert_eq!(quotas["limits"][0]["amount"], 4, "{quotas:#}");
    assert_eq!(a.asked(), 5, "nobody had to be refused again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_nobody_declared_is_made_from_headers_kept_and_outlives_a_kill() {
    let a = provider(5, true).await;
    let home = Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{}", thinking(&a, "")));
    let gateway = home.serve().await;
    assert_eq!(statuses(&gateway, 8).await, [200, 200, 200, 200, 200, 429, 429, 429]);
    assert_eq!((a.asked(), a.sim.overruns()), (5, 0), "the first answer's headers showed it");
    let quotas = gateway.document("/freeway/v1/quotas").await;
    let row = &quotas["limits"][0];
    assert_eq!(row["limit"], "a/a-model requests per hour", "{quotas:#}");
    assert_eq!((&row["amount"], &row["left"], &row["declared"]), (&5.into(), &0.into(), &serde_json::Value::Null));
    assert_eq!((&row["sources"]["amount"]["by"], &row["reset_assumed"]), (&"headers".into(), &true.into()));
    until("it is written down", async || {
        let all = gateway.document("/freeway/v1/requests").await;
        (all["requests"].as_array()?.len() == 8).then_some(())
    })
    .await;
    gateway.end(End::Kill).await;
    let gateway = home.serve().await;
    assert_eq!(statuses(&gateway, 2).await, [429, 429], "what the ledger knows of its use counts");
    let quotas = gateway.document("/freeway/v1/quotas").await;
    assert_eq!((&quotas["limits"][0]["amount"], &quotas["limits"][0]["used"]), (&5.into(), &5.into()), "{quotas:#}");
    assert_eq!((a.asked(), a.sim.overruns()), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_outlives_a_kill_with_all_of_its_length() {
    let a = Upstream::new("a").await;
    a.once(r#"{"fault":"status","status":429,"headers":{"retry-after":"900"}}"#);
    let home = Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{}", a.table()));
    let gateway = home.serve().await;
    assert_eq!(statuses(&gateway, 2).await, [429, 429]);
    assert_eq!(a.asked(), 1);
    until("it is written down", async || {
        let all = gateway.document("/freeway/v1/requests").await;
        (all["requests"].as_array()?.len() == 2).then_some(())
    })
    .await;
    gateway.end(End::Kill).await;
    let gateway = home.serve().await;
    let reply = gateway.ask(&Ask::chat("a/a-model", false)).await;
    assert_eq!(reply.head.status, 429, "{}", reply.everything());
    let wait = reply.head.number("retry-after").map(Duration::from_secs);
    assert!(wait.is_some_and(|wait| (800..=900).contains(&wait.as_secs())), "{}", reply.everything());
    assert_eq!(a.asked(), 1);
}
