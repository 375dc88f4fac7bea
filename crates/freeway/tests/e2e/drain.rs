//! What becomes of requests under way when the gateway is told to stop.

use std::time::Duration;

use serde_json::Value;

use crate::faults::Told;
use crate::gateway::{End, Gateway, Home};
use crate::http::{Ask, Connection, Reply};
use crate::last_word::check_error;
use crate::patience::{each, until};
use crate::upstream::Upstream;

/// What a request is told that the gateway could not wait for.
const TOLD: Told = Told { status: 503, code: "server_shutting_down", should_retry: true, retry_after: Some(1) };

/// A configuration with a ledger that outlives the gateway, which waits so long for requests under way.
fn draining(seconds: u32, upstream: &Upstream) -> String {
    format!("[server]\ndrain_seconds = {seconds}\n[store]\nurl = \"sqlite:ledger.db\"\n{}", upstream.table())
}

/// Reads a stream until its content has begun.
async fn begun(connection: &mut Connection) -> Reply {
    let mut reply = Reply { head: connection.head().await.unwrap(), ..Reply::default() };
    while !reply.text().contains("heard") {
        reply.body.extend(connection.piece().await.unwrap().unwrap());
    }
    reply
}

/// What the ledger says of a request, read by a gateway that is started after the one that served it has ended.
async fn ledger(home: &Home, reply: &Reply) -> Value {
    home.serve().await.ledger(reply).await
}

/// Checks that a stream ended in the gateway's error, and so in the ledger.
async fn check_cut_off(home: &Home, upstream: &Upstream, reply: &Reply) {
    assert!(reply.whole, "the connection itself does not break: {}", reply.everything());
    assert!(!reply.text().contains("[DONE]"), "{}", reply.text());
    let last: Value = serde_json::from_str(reply.events().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], TOLD.code, "{last}");
    assert_eq!(last["error"]["type"], "service_unavailable_error", "{last}");
    // The provider sees it when it looks at its connection again.
    until("the upstream is not left at work", async || upstream.sim.log()[0].cancelled().then_some(())).await;
    let ledger = ledger(home, reply).await;
    assert_eq!((&ledger["outcome"], &ledger["status"]), (&"failed".into(), &503.into()), "{ledger:#}");
    assert_eq!(ledger["error"], TOLD.code, "{ledger:#}");
    let attempts = ledger["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "{ledger:#}");
    assert_eq!(attempts[0]["outcome"], "cancelled", "{ledger:#}");
    assert_eq!(attempts[0]["usage_source"], "estimated", "{ledger:#}");
    assert!(attempts[0]["usage"]["output"].as_u64().unwrap() > 0, "what had come is settled: {ledger:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_outlasts_the_drain_ends_in_an_error() {
    let a = Upstream::new("a").await;
    a.once(r#"{"fault":"stall","after_events":4}"#);
    let home = Home::new(&draining(1, &a));
    let gateway = home.serve().await;
    let mut connection = gateway.send(&Ask::chat("a/a-model", true)).await;
    let mut reply = begun(&mut connection).await;
    let (rest, ()) = tokio::join!(connection.rest(reply.head.clone()), gateway.end(End::Terminate));
    reply.body.extend(&rest.body);
    reply.whole = rest.whole;
    check_cut_off(&home, &a, &reply).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fits_the_drain_finishes_whole() {
    let pace = Duration::from_millis(100);
    let a = Upstream::with("a", "models = [{ id = \"a-model\" }]", |config| config.pace = pace).await;
    let home = Home::new(&draining(30, &a));
    let gateway = home.serve().await;
    let address = gateway.address;
    let mut connection = gateway.send(&Ask::chat("a/a-model", true)).await;
    let head = begun(&mut connection).await.head;
    let (reply, ()) = tokio::join!(connection.rest(head), gateway.end(End::Terminate));
    assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"), "{}", reply.text());
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
    let ledger = ledger(&home, &reply).await;
    assert_eq!((&ledger["outcome"], &ledger["status"]), (&"answered".into(), &200.into()), "{ledger:#}");
    assert_eq!(ledger["attempts"][0]["usage_source"], "reported", "{ledger:#}");
}

/// A stream that has its finish reason and lacks only what comes behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_said_all_is_whole() {
    let a = Upstream::new("a").await;
    a.once(r#"{"fault":"stall","after_events":8}"#);
    let home = Home::new(&draining(0, &a));
    let gateway = home.serve().await;
    let mut connection = gateway.send(&Ask::chat("a/a-model", true)).await;
    let mut reply = begun(&mut connection).await;
    while !reply.text().contains(r#""finish_reason":"stop""#) {
        reply.body.extend(connection.piece().await.unwrap().unwrap());
    }
    let (rest, ()) = tokio::join!(connection.rest(reply.head.clone()), gateway.end(End::Terminate));
    assert_eq!(rest.text(), "data: [DONE]\n\n");
    assert_eq!(ledger(&home, &reply).await["outcome"], "answered");
}

async fn check_unanswered(fault: &str, stream: bool) {
    let a = Upstream::new("a").await;
    a.once(fault);
    let home = Home::new(&draining(0, &a));
    let gateway = home.serve().await;
    let mut connection = gateway.send(&Ask::chat("a/a-model", stream)).await;
    until("the upstream is asked", async || (a.asked() == 1).then_some(())).await;
    let (reply, ()) = tokio::join!(connection.reply(), gateway.end(End::Terminate));
    check_error(&reply, TOLD, fault);
    assert!(reply.whole && connection.is_closed().await, "{}", reply.everything());
    let ledger = ledger(&home, &reply).await;
    assert_eq!((&ledger["outcome"], &ledger["error"]), (&"failed".into(), &TOLD.code.into()), "{ledger:#}");
    assert_eq!(ledger["attempts"][0]["outcome"], "cancelled", "{ledger:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_waits_for_an_answer_gets_an_error() {
    let silence = r#"{"fault":"silence"}"#;
    let stall = r#"{"fault":"stall"}"#;
    each([(silence, false), (silence, true), (stall, false)], |(fault, stream)| check_unanswered(fault, stream)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_holds_comments_only_ends_in_an_error() {
    // Thinking models may take longer to their first content than a stream is held back.
    let a = Upstream::with("a", "models = [{ id = \"a-model\", reasoning = true }]", |_| ()).await;
    a.once(r#"{"fault":"silence"}"#);
    let home = Home::new(&draining(0, &a));
    let gateway = home.serve().await;
    let mut connection = gateway.send(&Ask::chat("a/a-model", true)).await;
    let head = connection.head().await.unwrap();
    let comment = connection.piece().await.unwrap().unwrap();
    assert_eq!((head.status, comment[0]), (200, b':'));
    let (reply, ()) = tokio::join!(connection.rest(head), gateway.end(End::Terminate));
    assert!(reply.whole, "{}", reply.everything());
    let events = reply.events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!((events.len(), &last["error"]["code"]), (1, &TOLD.code.into()), "{}", reply.text());
    assert_eq!(ledger(&home, &reply).await["outcome"], "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_sends_gets_an_error_too() {
    let a = Upstream::new("a").await;
    let home = Home::new(&draining(0, &a));
    let gateway = home.serve().await;
    let ask = Ask::chat("a/a-model", false).header("expect", "100-continue").bytes(gateway.address);
    let mut connection = gateway.send_bytes(&ask[..ask.len() - 5]).await;
    // The interim answer comes once the gateway reads the body.
    assert_eq!(connection.head().await.unwrap().status, 100);
    let (reply, ()) = tokio::join!(connection.reply(), gateway.end(End::Terminate));
    check_error(&reply, TOLD, "half a body");
    assert_eq!(a.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_drain() {
    let a = Upstream::new("a").await;
    a.once(r#"{"fault":"stall","after_events":4}"#);
    let home = Home::new(&draining(86_400, &a));
    let gateway: Gateway = home.serve().await;
    let mut connection = gateway.send(&Ask::chat("a/a-model", true)).await;
    let mut reply = begun(&mut connection).await;
    gateway.terminate();
    until("the drain has begun", async || gateway.said().contains(" stopping").then_some(())).await;
    let (rest, ()) = tokio::join!(connection.rest(reply.head.clone()), gateway.end(End::Terminate));
    reply.body.extend(&rest.body);
    reply.whole = rest.whole;
    check_cut_off(&home, &a, &reply).await;
}
