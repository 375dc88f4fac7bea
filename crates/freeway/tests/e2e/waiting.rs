//! Requests that wait for quota, held open: who is served, in which order, and what becomes of the others.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::gateway::{End, Gateway, Home};
use crate::http::{Ask, Connection, Reply};
use crate::patience::until;
use crate::upstream::{Upstream, in_order};

/// A tier that waits for up to four seconds, besides those that there are.
const PATIENT: &str = "[tiers.patient]\norder = [\"any\"]\nwait = 4\n";

fn ask(tier: &str) -> Ask {
    Ask::chat("a/a-model", false).header("x-freeway-tier", tier)
}

async fn limited(limits: &str) -> Upstream {
    Upstream::with("a", &format!("models = [{{ id = \"a-model\", limits = [{limits}] }}]"), |_| ()).await
}

/// A gateway before an upstream.
async fn before(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!("{}{PATIENT}", upstream.table())).await
}

async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let page = gateway.ask(&Ask::get("/metrics")).await.text();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |count| count.parse().unwrap())
}

async fn wait_for(gateway: &Gateway, count: u64) {
    until("as many wait", async || (metric(gateway, "freeway_waiting").await == count).then_some(())).await;
}

/// Sends a request and gives, when it is answered, its number and the reply.
fn send(replies: &mut JoinSet<(usize, Reply)>, gateway: &Gateway, number: usize, ask: &Ask) {
    let (address, bytes) = (gateway.address, ask.bytes(gateway.address));
    replies.spawn(async move {
        let mut connection = Connection::open(address).await;
        connection.send(&bytes).await;
        (number, connection.reply().await)
    });
}

fn waited_ms(request: &Value) -> f64 {
    request["waited_ms"].as_f64().unwrap()
}

#[tokio::test]
async fn who_may_wait_is_served_when_quota_comes_back() {
    let a = limited(r#"{ metric = "requests", window = "2s", amount = 2 }"#).await;
    let gateway = before(&a).await;
    for _ in 0..2 {
        assert_eq!(gateway.ask(&ask("standard")).await.head.status, 200);
    }
    let refused = gateway.ask(&ask("standard")).await;
    assert_eq!((refused.head.status, refused.json()["error"]["code"].as_str()), (429, Some("quota_exhausted")));
    let begun = Instant::now();
    let served = gateway.ask(&ask("patient")).await;
    assert_eq!(served.head.status, 200, "{}", served.everything());
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    let request = gateway.ledger(&served).await;
    let (waited, took) = (waited_ms(&request), request["took_ms"].as_f64().unwrap());
    assert!(waited > 500.0 && waited < took, "{request:#}");
    assert_eq!((request["candidates"][0]["kept"].as_bool(), a.asked()), (Some(true), 3), "{request:#}");
    assert_eq!(waited_ms(&gateway.ledger(&refused).await), 0.0);
    assert_eq!(a.sim.overruns(), 0);
    let id = request["id"].as_str().unwrap();
    assert_eq!(metric(&gateway, "freeway_waits_total{outcome=\"served\"}").await, 1, "{id}");
}

#[tokio::test]
async fn the_earliest_deadline_goes_first() {
    let a = limited(r#"{ metric = "requests", window = "1s", amount = 1 }"#).await;
    let gateway = before(&a).await;
    assert_eq!(gateway.ask(&ask("standard")).await.head.status, 200);
    let mut replies = JoinSet::new();
    for (number, deadline) in ["5.9", "5.5", "5.7"].into_iter().enumerate() {
        send(&mut replies, &gateway, number, &ask("patient").header("x-freeway-deadline", deadline));
        wait_for(&gateway, number as u64 + 1).await;
    }
    let mut served = Vec::new();
    while let Some(reply) = replies.join_next().await {
        let (number, reply) = reply.unwrap();
        assert_eq!(reply.head.status, 200, "{}", reply.everything());
        served.push(number);
    }
    assert_eq!((served, a.sim.overruns()), (vec![1, 2, 0], 0));
}

#[tokio::test]
async fn nobody_waits_longer_than_he_may_nor_for_nothing() {
    let a = limited(r#"{ metric = "requests", window = "10s", amount = 1 }"#).await;
    let gateway = before(&a).await;
    assert_eq!(gateway.ask(&ask("standard")).await.head.status, 200);
    // It comes back after every deadline: that is said at once.
    let begun = Instant::now();
    let refused = gateway.ask(&ask("patient")).await;
    assert_eq!((refused.head.status, waited_ms(&gateway.ledger(&refused).await)), (429, 0.0));
    assert!(refused.head.number("retry-after").is_some_and(|seconds| (8..=13).contains(&seconds)));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    // Two wait for what only one of them can have.
    let b = limited(r#"{ metric = "requests", window = "3s", amount = 1 }"#).await;
    let gateway = before(&b).await;
    assert_eq!(gateway.ask(&ask("standard")).await.head.status, 200);
    let mut replies = JoinSet::new();
    for number in 0..2 {
        send(&mut replies, &gateway, number, &ask("patient"));
        wait_for(&gateway, number as u64 + 1).await;
    }
    let begun = Instant::now();
    let mut statuses = Vec::new();
    while let Some(reply) = replies.join_next().await {
        let (number, reply) = reply.unwrap();
        statuses.push((number, reply.head.status));
        if reply.head.status == 429 {
            assert!(reply.head.number("retry-after").is_some(), "{}", reply.everything());
            let request = gateway.ledger(&reply).await;
            assert!((3_000.0..4_100.0).contains(&waited_ms(&request)), "{request:#}");
            assert_eq!(request["candidates"][0]["kept"], false, "it tells how things stood at the end: {request:#}");
        }
    }
    assert_eq!(statuses, [(0, 200), (1, 429)]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(metric(&gateway, "freeway_waits_total{outcome=\"expired\"}").await, 1);
}

#[tokio::test]
async fn a_place_that_becomes_free_is_taken_at_once() {
    let a = limited(r#"{ metric = "concurrency", amount = 1 }"#).await;
    let gateway = before(&a).await;
    a.once(r#"{"fault":"silence"}"#);
    let first = gateway.send(&ask("standard")).await;
    until("it is under way", async || (a.asked() == 1).then_some(())).await;
    let mut replies = JoinSet::new();
    send(&mut replies, &gateway, 0, &ask("patient"));
    wait_for(&gateway, 1).await;
    let begun = Instant::now();
    drop(first);
    let (_, reply) = replies.join_next().await.unwrap().unwrap();
    assert_eq!(reply.head.status, 200, "{}", reply.everything());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(a.sim.overruns(), 0);
}

#[tokio::test]
async fn who_leaves_while_waiting_leaves_nothing_behind() {
    let a = limited(r#"{ metric = "requests", window = "2s", amount = 1 }"#).await;
    let gateway = before(&a).await;
    assert_eq!(gateway.ask(&ask("standard")).await.head.status, 200);
    let gone = gateway.send(&ask("patient").header("x-freeway-deadline", "5")).await;
    wait_for(&gateway, 1).await;
    let mut replies = JoinSet::new();
    send(&mut replies, &gateway, 0, &ask("patient"));
    wait_for(&gateway, 2).await;
    drop(gone);
    wait_for(&gateway, 1).await;
    let (_, reply) = replies.join_next().await.unwrap().unwrap();
    assert_eq!(reply.head.status, 200, "the other one has its turn: {}", reply.everything());
    let rows = gateway.document("/freeway/v1/requests").await;
    let left = rows["requests"].as_array().unwrap().iter().find(|row| row["status"] == 499).unwrap().clone();
    assert_eq!((left["outcome"].as_str(), a.asked()), (Some("cancelled"), 2), "{left:#}");
    assert!(waited_ms(&left) > 0.0, "{left:#}");
    assert_eq!(metric(&gateway, "freeway_waits_total{outcome=\"left\"}").await, 1);
}

/// What a provider says of a limit that nobody knew of is waited for as well.
#[tokio::test]
async fn who_is_refused_upstream_waits_for_as_long_as_the_provider_says() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&format!("{}{}", a.table(), PATIENT.replace("wait = 4", "wait = 8"))).await;
    a.once(r#"{"fault":"status","status":429,"headers":{"retry-after":"4"}}"#);
    let reply = gateway.ask(&ask("patient")).await;
    assert_eq!((reply.head.status, a.asked()), (200, 2), "{}", reply.everything());
    let request = gateway.ledger(&reply).await;
    assert!(waited_ms(&request) > 3_000.0, "{request:#}");
    assert_eq!(request["attempts"].as_array().map(Vec::len), Some(2), "{request:#}");
}

#[tokio::test]
async fn what_failed_for_good_is_not_asked_again_while_another_is_waited_for() {
    let (a, b) = (Upstream::new("a").await, Upstream::new("b").await);
    let gateway = Gateway::start(&format!("{}{}", in_order(&[&a, &b]), PATIENT.replace("wait = 4", "wait = 8"))).await;
    a.always(r#"{"fault":"status","status":413}"#);
    b.once(r#"{"fault":"status","status":429,"headers":{"retry-after":"4"}}"#);
    let reply = gateway.ask(&Ask::chat("pair", false).header("x-freeway-tier", "patient")).await;
    assert_eq!(
        (reply.head.status, reply.head.header("x-freeway-provider")),
        (200, Some("b")),
        "{}",
        reply.everything()
    );
    assert_eq!((a.asked(), b.asked()), (1, 2));
}

#[tokio::test]
async fn who_comes_later_goes_behind_those_who_wait_for_the_same() {
    let a = Upstream::with(
        "a",
        r#"models = [{ id = "a-model", limits = [{ metric = "concurrency", amount = 1 }] }]"#,
        |config| config.first_byte = Duration::from_millis(100),
    )
    .await;
    let gateway = before(&a).await;
    let mut replies = JoinSet::new();
    for number in 0..12 {
        send(&mut replies, &gateway, number, &ask("patient"));
        until("it is under way or waits", async || {
            (metric(&gateway, "freeway_waiting").await + a.asked() as u64 > number as u64).then_some(())
        })
        .await;
    }
    let mut served = Vec::new();
    while let Some(reply) = replies.join_next().await {
        let (number, reply) = reply.unwrap();
        assert_eq!(reply.head.status, 200, "{}", reply.everything());
        served.push(number);
    }
    assert_eq!(served, (0..12).collect::<Vec<_>>());
    assert_eq!(a.sim.overruns(), 0);
}

#[tokio::test]
async fn who_cannot_wait_is_not_sent_behind_those_who_do() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&format!("{}{}", a.table(), PATIENT.replace("wait = 4", "wait = 60"))).await;
    a.once(r#"{"fault":"status","status":429,"headers":{"retry-after":"30"}}"#);
    let mut replies = JoinSet::new();
    send(&mut replies, &gateway, 0, &ask("patient"));
    wait_for(&gateway, 1).await;
    let reply = gateway.ask(&ask("patient").header("x-freeway-deadline", "1.5")).await;
    assert!(reply.everything().contains("paused until"), "it is told what stands in the way: {}", reply.everything());
    assert_eq!((reply.head.status, waited_ms(&gateway.ledger(&reply).await)), (429, 0.0));
}

/// Nobody is sent who has no time left for an answer, and who is cut off by his own deadline says nothing of the target.
#[tokio::test]
async fn time_is_left_for_the_answer() {
    let a = Upstream::with(
        "a",
        r#"models = [{ id = "a-model", limits = [{ metric = "concurrency", amount = 1 }] }]"#,
        |config| config.first_byte = Duration::from_millis(700),
    )
    .await;
    let gateway = before(&a).await;
    let mut replies = JoinSet::new();
    for number in 0..10 {
        send(&mut replies, &gateway, number, &ask("patient").header("x-freeway-deadline", "4"));
    }
    let mut statuses = Vec::new();
    while let Some(reply) = replies.join_next().await {
        statuses.push(reply.unwrap().1.head.status);
    }
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert!(served >= 2 && statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    assert_eq!((a.asked(), gateway.said().contains("breaker_opened")), (served, false));
}

#[tokio::test]
async fn larger_and_smaller_ones_wait_beside_each_other() {
    let a = Upstream::with(
        "a",
        r#"models = [{ id = "a-model", context = 2000, limits = [{ metric = "requests", window = "2s", amount = 1 }] }]"#,
        |_| (),
    )
    .await;
    let gateway = Gateway::start(&format!("{}{}", a.table(), PATIENT.replace("wait = 4", "wait = 8"))).await;
    assert_eq!(gateway.ask(&ask("standard")).await.head.status, 200);
    let mut replies = JoinSet::new();
    for (number, words) in [(0, 900), (1, 850)] {
        let body = format!(
            r#"{{"model":"a/a-model","max_tokens":50,"messages":[{{"role":"user","content":"{}"}}]}}"#,
            "water ".repeat(words)
        );
        send(&mut replies, &gateway, number, &Ask::body(body).header("x-freeway-tier", "patient"));
        wait_for(&gateway, number as u64 + 1).await;
    }
    while let Some(reply) = replies.join_next().await {
        let (number, reply) = reply.unwrap();
        assert_eq!(reply.head.status, 200, "{number}: {}", reply.everything());
    }
}

#[tokio::test]
async fn a_stream_waits_too() {
    let a = limited(r#"{ metric = "requests", window = "1s", amount = 1 }"#).await;
    let gateway = before(&a).await;
    assert_eq!(gateway.ask(&ask("standard")).await.head.status, 200);
    let reply = gateway.ask(&Ask::chat("a/a-model", true).header("x-freeway-tier", "patient")).await;
    assert_eq!((reply.head.status, reply.head.header("x-freeway-provider")), (200, Some("a")));
    assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"), "{}", reply.everything());
}

#[tokio::test]
async fn who_waits_learns_of_the_end() {
    let a = limited(r#"{ metric = "requests", window = "3s", amount = 1 }"#).await;
    let home = Home::new(&format!("{}{PATIENT}[server]\ndrain_seconds = 1\n", a.table()));
    let gateway = home.serve().await;
    assert_eq!(gateway.ask(&ask("standard")).await.head.status, 200);
    let mut replies = JoinSet::new();
    send(&mut replies, &gateway, 0, &ask("patient"));
    wait_for(&gateway, 1).await;
    gateway.terminate();
    let (_, reply) = replies.join_next().await.unwrap().unwrap();
    assert_eq!(reply.json()["error"]["code"], "server_shutting_down", "{}", reply.everything());
    gateway.end(End::Terminate).await;
}

#[tokio::test]
async fn an_edit_is_no_end_of_waiting() {
    let (a, b) = (limited(r#"{ metric = "requests", window = "3s", amount = 1 }"#).await, Upstream::new("b").await);
    let home = Home::new(&format!("{}{PATIENT}", in_order(&[&a])));
    let gateway = home.serve().await;
    let pair = Ask::chat("pair", false).header("x-freeway-tier", "patient");
    assert_eq!(gateway.ask(&pair).await.head.status, 200);
    let mut replies = JoinSet::new();
    send(&mut replies, &gateway, 0, &pair);
    wait_for(&gateway, 1).await;
    home.write(&format!("{}{PATIENT}", in_order(&[&a, &b])), "127.0.0.1:0");
    until("it is in force", async || gateway.said().contains(" reloaded ").then_some(())).await;
    // Who comes now has more to choose from; who waits goes on with what there was.
    assert_eq!(gateway.ask(&pair).await.head.header("x-freeway-provider"), Some("b"));
    let (_, reply) = replies.join_next().await.unwrap().unwrap();
    assert_eq!((reply.head.status, reply.head.header("x-freeway-provider")), (200, Some("a")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_may_wait_and_no_more() {
    let a = limited(r#"{ metric = "concurrency", amount = 1 }"#).await;
    let gateway = Gateway::start(&format!(
        "{}[tiers.patient]\norder = [\"any\"]\nwait = 60\n[server]\nmax_requests = 4000\n",
        a.table()
    ))
    .await;
    a.always(r#"{"fault":"silence"}"#);
    let first = gateway.send(&ask("standard")).await;
    until("it is under way", async || (a.asked() == 1).then_some(())).await;
    // While the first one is under way, its place may become free at any moment.
    let mut crowd = Vec::new();
    for _ in 0..1_000 {
        crowd.push(gateway.send(&ask("patient")).await);
    }
    wait_for(&gateway, 1_000).await;
    let refused = gateway.ask(&ask("patient")).await;
    assert_eq!(refused.head.status, 429, "{}", refused.everything());
    drop(crowd);
    wait_for(&gateway, 0).await;
    drop(first);
}
