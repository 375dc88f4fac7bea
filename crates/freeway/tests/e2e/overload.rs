//! More than can be served: who is refused first, in which words, and what answers all the same.

use serde_json::json;

use crate::faults::Told;
use crate::gateway::{Gateway, Home};
use crate::http::{Ask, Connection};
use crate::last_word::check_error;
use crate::patience::until;
use crate::upstream::Upstream;

/// Room for four requests of `batch`, one of `standard` more, and one of `critical` more.
const ROOM: &str = "[server]\nmax_requests = 6\n";

const fn told(retry_after: u64) -> Told {
    Told { status: 503, code: "server_is_overloaded", should_retry: true, retry_after: Some(retry_after) }
}

fn chat(tier: &str) -> Ask {
    Ask::chat("a/a-model", false).header("x-freeway-tier", tier)
}

/// A provider that never answers, so that a request stays under way for as long as its client does.
async fn silent() -> Upstream {
    let a = Upstream::new("a").await;
    a.always(r#"{"fault":"silence"}"#);
    a
}

/// Sends so many requests of a tier that stay under way.
async fn hold(gateway: &Gateway, a: &Upstream, tier: &str, requests: usize) -> Vec<Connection> {
    let mut held = Vec::new();
    for _ in 0..requests {
        let asked = a.asked();
        held.push(gateway.send(&chat(tier)).await);
        until("the request is under way", async || (a.asked() > asked).then_some(())).await;
    }
    held
}

async fn check_refused(gateway: &Gateway, tier: &str, retry_after: u64) {
    let reply = gateway.ask(&chat(tier)).await;
    check_error(&reply, told(retry_after), tier);
    assert_eq!(reply.head.header("x-freeway-tier"), Some(tier), "{}", reply.everything());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lowest_tier_is_refused_first_and_the_operator_never() {
    let a = silent().await;
    let gateway = Gateway::start(&format!("{ROOM}{}", a.table())).await;
    let _batch = hold(&gateway, &a, "batch", 4).await;
    check_refused(&gateway, "batch", 3).await;
    let mut standard = hold(&gateway, &a, "standard", 1).await;
    check_refused(&gateway, "standard", 2).await;
    let _critical = hold(&gateway, &a, "critical", 1).await;
    for (tier, retry_after) in [("critical", 1), ("standard", 2), ("batch", 3)] {
        check_refused(&gateway, tier, retry_after).await;
    }
    assert_eq!(a.asked(), 6);

    for path in ["/healthz", "/readyz", "/metrics", "/v1/models", "/freeway/v1/quotas", "/freeway/v1/requests"] {
        let reply = gateway.ask(&Ask::get(path)).await;
        assert_eq!(reply.head.status, 200, "{path}: {}", reply.everything());
    }
    let body = r#"{"model":"a/a-model","messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(gateway.ask(&Ask::post("/freeway/v1/explain", body)).await.head.status, 200);
    let metrics = gateway.ask(&Ask::get("/metrics")).await.text();
    assert!(metrics.contains("freeway_turned_away_total{reason=\"server_is_overloaded\"} 5\n"), "{metrics}");

    // Who leaves makes room for one, and only for who may have it.
    standard.pop();
    let critical = until("there is room again", async || {
        let asked = a.asked();
        let mut connection = gateway.send(&chat("critical")).await;
        tokio::select! {
            _ = connection.reply() => None,
            () = until("it is under way", async || (a.asked() > asked).then_some(())) => Some(connection),
        }
    })
    .await;
    check_refused(&gateway, "batch", 3).await;
    drop(critical);
}

#[tokio::test(flavor = "multi_thread")]
async fn tiers_of_ones_own_are_ordered_by_value() {
    let a = silent().await;
    let tiers = "[tiers.night]\nvalue = 0.1\norder = [\"any\"]\n[tiers.gold]\nvalue = 50\norder = [\"any\"]\n";
    // Five values: six, seven, eight, nine and ten tenths of the room.
    let gateway = Gateway::start(&format!("[server]\nmax_requests = 10\n{}{tiers}", a.table())).await;
    let mut held = hold(&gateway, &a, "night", 6).await;
    for (tier, refused, retry_after) in
        [("batch", "night", 5), ("standard", "batch", 4), ("critical", "standard", 3), ("gold", "critical", 2)]
    {
        check_refused(&gateway, refused, retry_after).await;
        held.extend(hold(&gateway, &a, tier, 1).await);
    }
    check_refused(&gateway, "gold", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_under_way_until_its_end() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&format!("[server]\nmax_requests = 2\n{}", a.table())).await;
    let critical = Ask::chat("a/a-model", true).header("x-freeway-tier", "critical");
    for _ in 0..3 {
        a.always(r#"{"fault":"stall","after_events":3}"#);
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut stream = gateway.send(&critical).await;
            assert_eq!(stream.head().await.unwrap().status, 200);
            streams.push(stream);
        }
        check_refused(&gateway, "critical", 1).await;
        drop(streams);
        a.sim.set_faults(Vec::new());
        // Streams that end and streams that are left give their places back.
        until("there is room again", async || (gateway.ask(&critical).await.head.status == 200).then_some(())).await;
        for _ in 0..3 {
            assert!(gateway.ask(&critical).await.text().ends_with("data: [DONE]\n\n"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_above_the_keys_ceiling_opens_no_door() {
    let a = silent().await;
    let keys = "[server]\nmax_requests = 6\nkeys = [\"sk-test-operator\"]\n\
                [client_keys.ci]\nkey = \"sk-test-client\"\ntier = \"batch\"\n";
    let gateway = Gateway::start(&format!("{keys}{}", a.table())).await;
    let client = |tier: &str| chat(tier).key("sk-test-client");
    let denied = Told { status: 403, code: "permission_denied", should_retry: false, retry_after: None };
    check_error(&gateway.ask(&client("critical")).await, denied, "with room");
    let mut held = Vec::new();
    for asked in 0..4 {
        held.push(gateway.send(&Ask::chat("a/a-model", false).key("sk-test-client")).await);
        until("the request is under way", async || (a.asked() > asked).then_some(())).await;
    }
    for tier in ["batch", "critical", "nonsense"] {
        let reply = gateway.ask(&client(tier)).await;
        check_error(&reply, told(3), tier);
        assert_eq!(reply.head.header("x-freeway-tier"), Some("batch"), "{tier}");
    }
    held.push(gateway.send(&chat("critical").key("sk-test-operator")).await);
    until("the operator's request is under way", async || (a.asked() == 5).then_some(())).await;
}

/// Whether the connection of a refused request, sent in these parts, takes another one.
async fn check_connection(gateway: &Gateway, parts: &[&[u8]], usable: bool) {
    let context = String::from_utf8_lossy(&parts[0][..parts[0].len().min(200)]).into_owned();
    let mut connection = Connection::open(gateway.address).await;
    for part in parts {
        connection.send(part).await;
        tokio::task::yield_now().await;
    }
    let reply = connection.reply().await;
    check_error(&reply, told(2), &context);
    assert_eq!(reply.head.header("connection") == Some("close"), !usable, "{context}: {}", reply.everything());
    if usable {
        connection.send(&Ask::get("/healthz").bytes(gateway.address)).await;
        assert_eq!(connection.reply().await.text(), "ok\n", "{context}");
    } else {
        assert!(connection.is_closed().await, "{context}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_leaves_the_connection_usable_where_the_body_is_small() {
    let a = silent().await;
    let gateway = Gateway::start(&format!("[server]\nmax_requests = 1\n{}", a.table())).await;
    let _held = hold(&gateway, &a, "critical", 1).await;
    let head = |lines: &str| {
        let host = gateway.address;
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{lines}\r\n")
    };
    let small = Ask::chat("a/a-model", true).bytes(gateway.address);
    check_connection(&gateway, &[&small], true).await;
    let (first, second) = small.split_at(small.len() - 20);
    check_connection(&gateway, &[first, second], true).await;
    check_connection(&gateway, &[head("transfer-encoding: chunked\r\n").as_bytes(), b"2\r\n{}\r\n0\r\n\r\n"], true)
        .await;
    // Too large to be taken in for nothing, by what is announced and by what comes.
    check_connection(&gateway, &[head("content-length: 70000\r\n").as_bytes()], false).await;
    let endless = format!("10000\r\n{}\r\n1\r\n", "x".repeat(65_536));
    check_connection(&gateway, &[head("transfer-encoding: chunked\r\n").as_bytes(), endless.as_bytes()], false).await;
    // Waits for our word, which is no.
    check_connection(&gateway, &[head("expect: 100-continue\r\ncontent-length: 10\r\n").as_bytes()], false).await;
    // Does not come.
    check_connection(&gateway, &[head("content-length: 10\r\n").as_bytes(), b"{"], false).await;
    assert_eq!(a.asked(), 1);
    assert_eq!(gateway.document("/freeway/v1/requests").await["requests"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_changes_with_the_configuration() {
    let a = silent().await;
    let home = Home::new(&format!("[server]\nmax_requests = 1\n{}", a.table()));
    let gateway = home.serve().await;
    let _held = hold(&gateway, &a, "standard", 1).await;
    check_refused(&gateway, "standard", 2).await;
    home.write(&format!("{ROOM}{}", a.table()), "127.0.0.1:0");
    until("the edit is taken in", async || gateway.said().contains(" reloaded ").then_some(())).await;
    // What was under way before counts too.
    let _more = hold(&gateway, &a, "standard", 4).await;
    check_refused(&gateway, "standard", 2).await;
}
