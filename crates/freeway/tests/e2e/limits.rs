//! A limit that is known is never overrun, nor left unused, and its end is told.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::faults::Told;
use crate::gateway::{End, Gateway, Home};
use crate::http::{Ask, Connection, Reply};
use crate::last_word::check_error;
use crate::patience::{each, until};
use crate::upstream::{Upstream, in_order};

const CLIENTS: usize = 40;

/// A provider whose model has one limit.
async fn limited(limit: &str) -> Upstream {
    Upstream::with("a", &format!("models = [{{ id = \"a-model\", limits = [{limit}] }}]"), |_| ()).await
}

/// Forty clients ask as fast as they are answered. Gives how many answers they got.
async fn storm(address: SocketAddr, asks: &[Ask], length: Duration) -> usize {
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let request = asks[client % asks.len()].bytes(address);
        clients.spawn(async move {
            let mut connection = Connection::open(address).await;
            let mut served = 0;
            while begun.elapsed() < length {
                connection.send(&request).await;
                let reply = connection.reply().await;
                match reply.head.status {
                    200 => served += 1,
                    429 => {
                        assert_eq!(reply.json()["error"]["code"], "quota_exhausted", "{}", reply.everything());
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    _ => panic!("{}", reply.everything()),
                }
            }
            served
        });
    }
    clients.join_all().await.into_iter().sum()
}

/// A limit under more requests than it allows: none too many goes out, and no fewer than `least` are served.
async fn check_storm((limit, most_output, least): (&'static str, u64, usize)) {
    let models = ["a-model", "a-other"].map(|id| format!("{{ id = \"{id}\", limits = [{limit}] }}"));
    let a = Upstream::with("a", &format!("models = [{}]", models.join(", ")), |config| {
        config.first_byte = Duration::from_millis(30);
    })
    .await;
    let gateway = Gateway::start(&a.table()).await;
    // Rows of one pool are shared by both models; without a pool, one model is enough.
    let used = if limit.contains("pool") { &["a-model", "a-other"][..] } else { &["a-model"] };
    let asks: Vec<Ask> = used
        .iter()
        .map(|model| {
            Ask::body(format!(
                r#"{{"model":"a/{model}","max_tokens":{most_output},"messages":[{{"role":"user","content":"the tide is out"}}]}}"#
            ))
        })
        .collect();
    let served = storm(gateway.address, &asks, Duration::from_secs(5)).await;
    assert_eq!(a.sim.overruns(), 0, "{limit}: {:?}", a.sim.limits());
    for state in a.sim.limits() {
        assert!(state.peak <= state.amount, "{limit}: {state:?}");
    }
    assert!(served >= least, "{limit}: only {served} were served");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_limit_is_overrun_by_many_at_once() {
    each(
        [
            // In five seconds: 30 at most, in three windows.
            (r#"{ metric = "requests", window = "2s", amount = 10 }"#, 50, 20),
            (r#"{ metric = "requests", window = "2s", amount = 10, reset = "calendar" }"#, 50, 20),
            // The store of 10, and 25 refilled.
            (r#"{ metric = "requests", window = "2s", amount = 10, reset = "bucket" }"#, 50, 25),
            (r#"{ metric = "requests", window = "2s", amount = 10, reset = "bucket", pool = "both" }"#, 50, 25),
            (r#"{ metric = "requests", window = "2s", amount = 10, pool = "both" }"#, 50, 20),
            // Each answer takes 30 ms.
            (r#"{ metric = "concurrency", amount = 4 }"#, 50, 150),
            // An answer uses some 13 tokens and may use 115.
            (r#"{ metric = "tokens", window = "2s", amount = 1000, estimate = "strict" }"#, 20, 100),
        ],
        check_storm,
    )
    .await;
}

/// Seconds since midnight in the zone that is so far ahead of UTC, by the answer's own date.
fn seconds_of_day(reply: &Reply, ahead: u64) -> u64 {
    let date = reply.head.header("date").unwrap();
    let time: Vec<u64> = date.split(' ').nth(4).unwrap().split(':').map(|part| part.parse().unwrap()).collect();
    (time[0] * 3600 + time[1] * 60 + time[2] + ahead) % 86_400
}

/// Seconds until a limit comes back, by the date of the answer that says so; none if it does not.
type Wait = fn(&Reply) -> Option<u64>;

/// A limit of three: three are served, the fourth is told when to come back, and a second key changes nothing.
async fn check_exhausted((limit, wait): (&'static str, Wait)) {
    let a = limited(limit).await.account("cost = \"free\"\nkeys = [\"sk-test-one\", \"sk-test-two\"]");
    let gateway = Gateway::start(&a.table()).await;
    for _ in 0..3 {
        let reply = gateway.ask(&Ask::chat("a/a-model", false)).await;
        assert_eq!(reply.head.status, 200, "{limit}: {}", reply.everything());
    }
    for stream in [false, true] {
        let reply = gateway.ask(&Ask::chat("a/a-model", stream)).await;
        let told = Told { status: 429, code: "quota_exhausted", should_retry: false, retry_after: wait(&reply) };
        let message = check_error(&reply, told, limit);
        assert!(message.contains("a/a-model"), "{limit}: {message}");
    }
    assert_eq!((a.asked(), a.sim.overruns()), (3, 0), "{limit}");
    let keys: Vec<_> = a.sim.log().into_iter().filter_map(|entry| entry.key).collect();
    assert!(keys.contains(&"sk-test-one".to_owned()) && keys.contains(&"sk-test-two".to_owned()), "{keys:?}");
    let quotas = gateway.document("/freeway/v1/quotas").await;
    let row = &quotas["limits"][0];
    assert_eq!((&row["amount"], &row["used"], &row["left"]), (&3.into(), &3.into(), &0.into()), "{limit}: {quotas}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_up_says_when_it_comes_back() {
    let cases: [(&str, Wait); 6] = [
        (r#"{ metric = "requests", window = "hour", amount = 3 }"#, |_| Some(3600)),
        (r#"{ metric = "requests", window = "hour", amount = 3, reset = "unknown" }"#, |_| Some(3600)),
        (r#"{ metric = "requests", window = "hour", amount = 3, reset = "bucket" }"#, |_| Some(1200)),
        (r#"{ metric = "requests", window = "5h", amount = 3, reset = "anchored" }"#, |_| Some(5 * 3600)),
        (r#"{ metric = "requests", window = "day", amount = 3, reset = "calendar" }"#, |reply| {
            Some(86_400 - seconds_of_day(reply, 0))
        }),
        (
            r#"{ metric = "requests", window = "day", amount = 3, reset = "calendar", zone = "Asia/Kolkata" }"#,
            |reply| Some(86_400 - seconds_of_day(reply, 5 * 3600 + 1800)),
        ),
    ];
    each(cases, check_exhausted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_up_for_good_says_that_it_is_used_up() {
    check_exhausted((r#"{ metric = "requests", amount = 3, reset = "never" }"#, |_| None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_taken_sends_who_comes_next_elsewhere() {
    let (a, b) = (limited(r#"{ metric = "concurrency", amount = 1 }"#).await, Upstream::new("b").await);
    a.once(r#"{"fault":"silence"}"#);
    let gateway = Gateway::start(&in_order(&[&a, &b])).await;
    let waiting = gateway.send(&Ask::chat("a/a-model", false)).await;
    until("the place is taken", async || (a.asked() == 1).then_some(())).await;
    let reply = gateway.ask(&Ask::chat("a/a-model", false)).await;
    let told = Told { status: 429, code: "quota_exhausted", should_retry: true, retry_after: Some(1) };
    check_error(&reply, told, "the only place");
    let reply = gateway.ask(&Ask::chat("pair", false)).await;
    assert_eq!(reply.head.header("x-freeway-provider"), Some("b"), "{}", reply.everything());
    assert_eq!((a.asked(), a.sim.overruns()), (1, 0));
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_the_whole_limit_does_not_wait_for_it() {
    let a = limited(r#"{ metric = "tokens", window = "minute", amount = 50 }"#).await;
    let gateway = Gateway::start(&a.table()).await;
    let body = format!(
        r#"{{"model":"a/a-model","max_tokens":10,"messages":[{{"role":"user","content":"{}"}}]}}"#,
        "tide ".repeat(500)
    );
    let reply = gateway.ask(&Ask::body(body)).await;
    let told = Told { status: 400, code: "context_length_exceeded", should_retry: false, retry_after: None };
    check_error(&reply, told, "too large");
    assert_eq!(a.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_over_two_providers_shares_a_pool_that_says_so() {
    let row = r#"{ metric = "requests", window = "day", amount = 3, pool = "/shared" }"#;
    let upstreams = [
        Upstream::with("a", &format!("models = [{{ id = \"a-model\", limits = [{row}] }}]"), |_| ()).await,
        Upstream::with("b", &format!("models = [{{ id = \"b-model\", limits = [{row}] }}]"), |_| ()).await,
    ];
    let gateway = Gateway::start(&upstreams.iter().map(Upstream::table).collect::<String>()).await;
    let mut statuses = Vec::new();
    for model in ["a/a-model", "b/b-model", "a/a-model", "b/b-model"] {
        statuses.push(gateway.ask(&Ask::chat(model, false)).await.head.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_teach_about_tokens_is_shown_and_outlives_a_restart() {
    let a = Upstream::new("a").await;
    let home = Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{}", a.table()));
    let gateway = home.serve().await;
    for count in 0..6 {
        let reply = gateway.ask(&Ask::chat("a/a-model", count % 2 == 0)).await;
        assert_eq!(reply.head.status, 200, "{}", reply.everything());
    }
    let learned = async |gateway: &Gateway| {
        let shown = gateway.document("/freeway/v1/deployments").await;
        let quotas = gateway.document("/freeway/v1/quotas").await;
        let of_model = shown["deployments"][0]["estimates"].clone();
        assert!(of_model == json!([]) || quotas["estimates"][0]["learned"] == of_model, "{quotas}");
        of_model
    };
    let before = until("all six are settled", async || {
        let learned = learned(&gateway).await;
        (learned[0]["samples"] == 6 && learned[1]["samples"] == 6).then_some(learned)
    })
    .await;
    assert_eq!(
        (&before[0]["of"], &before[0]["script"], &before[0]["judged"]),
        (&"input".into(), &"code".into(), &6.into())
    );
    assert_eq!((&before[1]["of"], &before[1]["output_cap"]), (&"output".into(), &"none".into()));
    assert!(before[0]["reserved"].as_f64() > before[0]["mean"].as_f64(), "{before}");
    gateway.end(End::Terminate).await;
    let gateway = home.serve().await;
    assert_eq!(learned(&gateway).await, before);
}

const FIVE_A_DAY: &str = r#"{ metric = "requests", window = "day", amount = 5 }"#;

/// Statuses of so many requests, one after the other.
async fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(gateway.ask(&Ask::chat("a/a-model", false)).await.head.status);
    }
    statuses
}

async fn check_restart(how: End) {
    let a = limited(FIVE_A_DAY).await;
    let home = Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{}", a.table()));
    let gateway = home.serve().await;
    assert_eq!(statuses(&gateway, 3).await, [200; 3], "{how:?}");
    gateway.end(how).await;
    let gateway = home.serve().await;
    assert_eq!(statuses(&gateway, 3).await, [200, 200, 429], "{how:?}");
    assert_eq!(a.sim.overruns(), 0, "{how:?}");
    until("what clients got is in the ledger", async || {
        let all = gateway.document("/freeway/v1/requests").await;
        let outcomes: Vec<&str> =
            all["requests"].as_array()?.iter().filter_map(|row| row["outcome"].as_str()).collect();
        // A kill can come before the ledger is told how a request ended, but not before it knows of it.
        let known = outcomes.iter().filter(|outcome| ["answered", "interrupted"].contains(outcome)).count();
        assert!(matches!(how, End::Kill) || !outcomes.contains(&"interrupted"), "{outcomes:?}");
        (known == 5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_outlive_an_orderly_end() {
    check_restart(End::Terminate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_outlive_a_kill() {
    check_restart(End::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_counts_after_a_restart_as_before() {
    let row =
        |charges: &str| format!(r#"{{ metric = "tokens", window = "day", amount = 9000, charges = "{charges}" }}"#);
    // One model whose limit charges what was asked for, one with another limit that does not.
    let both = format!(r#"{}, {{ metric = "output_tokens", window = "day", amount = 9000 }}"#, row("requested"));
    for limits in [row("requested"), both, row("used")] {
        let a = limited(&limits).await;
        let home = Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{}", a.table()));
        let gateway = home.serve().await;
        let body = r#"{"model":"a/a-model","max_tokens":900,"messages":[{"role":"user","content":"the tide is out"}]}"#;
        a.once(r#"{"fault":"status","status":400}"#);
        for _ in 0..3 {
            gateway.ask(&Ask::body(body)).await;
        }
        let used = async |gateway: &Gateway| {
            let quotas = gateway.document("/freeway/v1/quotas").await;
            let limits = quotas["limits"].as_array().unwrap();
            limits.iter().map(|limit| limit["used"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        let before = used(&gateway).await;
        assert_eq!(before[0] > 1800, limits.contains("requested"), "{limits}: {before:?}");
        gateway.end(End::Terminate).await;
        let gateway = home.serve().await;
        assert_eq!(used(&gateway).await, before, "{limits}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_at_a_kill_counts() {
    let a = limited(FIVE_A_DAY).await;
    a.once(r#"{"fault":"silence"}"#);
    let home = Home::new(&format!("[store]\nurl = \"sqlite:ledger.db\"\n{}", a.table()));
    let gateway = home.serve().await;
    let waiting = gateway.send(&Ask::chat("a/a-model", false)).await;
    until("it has arrived", async || (a.asked() == 1).then_some(())).await;
    gateway.end(End::Kill).await;
    drop(waiting);
    let gateway = home.serve().await;
    assert_eq!(statuses(&gateway, 5).await, [200, 200, 200, 200, 429]);
    assert_eq!(a.sim.overruns(), 0);
}
