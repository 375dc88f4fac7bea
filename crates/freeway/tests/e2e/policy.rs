//! Rules on data, money, quality and keys hold through every failure.

use serde_json::json;

use crate::faults::Told;
use crate::gateway::Gateway;
use crate::http::{Ask, Reply};
use crate::last_word::check_error;
use crate::patience::{each, until};
use crate::upstream::{Upstream, in_order};

const TRAINS: &str = "cost = \"free\"\ndata = { trains = \"yes\", retention_days = 0 }";
const UNKNOWN: &str = "cost = \"free\"";
const KEEPS: &str = "cost = \"free\"\ndata = { trains = \"no\", retention_days = 90 }";
const MONTH: &str = "cost = \"free\"\ndata = { trains = \"no\", retention_days = 30 }";
const NOTHING: &str = "cost = \"free\"\ndata = { trains = \"no\", retention_days = 0 }";

const NOT_PERMITTED: Told = Told { status: 403, code: "no_permitted_target", should_retry: false, retry_after: None };

/// All five kinds of providers, worst first.
async fn kinds() -> Vec<Upstream> {
    let mut all = Vec::new();
    for (id, account) in [("t", TRAINS), ("u", UNKNOWN), ("k", KEEPS), ("m", MONTH), ("n", NOTHING)] {
        all.push(Upstream::new(id).await.account(account));
    }
    all
}

/// Where a class of data may go at the most, if everything else fails.
async fn check_class((class, fault, permitted): (&'static str, &'static str, usize)) {
    let all = kinds().await;
    for upstream in &all {
        upstream.always(fault);
    }
    let gateway = Gateway::start(&in_order(&all.iter().collect::<Vec<_>>())).await;
    for stream in [false, true] {
        let ask = Ask::chat("pair", stream).header("x-freeway-data", class).header("x-freeway-deadline", "2");
        let reply = gateway.ask(&ask).await;
        assert!(reply.head.status >= 400, "{class}: {}", reply.everything());
    }
    for upstream in &all[..all.len() - permitted] {
        assert_eq!(upstream.asked(), 0, "{class}, {fault}: {} was asked", upstream.target());
    }
    assert!(all[all.len() - permitted].asked() > 0, "{class}, {fault}: what is permitted is tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_goes_nowhere_it_may_not_go_whatever_fails() {
    let faults = [
        r#"{"fault":"status","status":500}"#,
        r#"{"fault":"status","status":401}"#,
        r#"{"fault":"status","status":403}"#,
        r#"{"fault":"silence"}"#,
        r#"{"fault":"reset"}"#,
        r#"{"fault":"malformed-event"}"#,
    ];
    let classes = [("internal", 3), ("personal", 2), ("secret", 1)];
    let cases = classes.into_iter().flat_map(|(class, permitted)| {
        faults.into_iter().map(move |fault| (class, fault, permitted)).collect::<Vec<_>>()
    });
    each(cases, check_class).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_permitted_target_nothing_is_sent_and_the_clause_is_named() {
    let all = kinds().await;
    for (class, count, clause) in [
        ("internal", 1, "must not be trained on, and this provider trains"),
        ("internal", 2, "nobody knows whether this provider trains"),
        ("personal", 3, "must not be kept for 90 days"),
        ("secret", 4, "must not be kept for 30 days"),
    ] {
        let gateway = Gateway::start(&in_order(&all[..count].iter().collect::<Vec<_>>())).await;
        for stream in [false, true] {
            let reply = gateway.ask(&Ask::chat("pair", stream).header("x-freeway-data", class)).await;
            let message = check_error(&reply, NOT_PERMITTED, class);
            assert!(message.contains(clause), "{class}: {message}");
        }
    }
    assert_eq!(all.iter().map(Upstream::asked).sum::<usize>(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_class_holds_where_none_is_named_and_public_goes_anywhere() {
    let (trains, keeps) = (Upstream::new("t").await.account(TRAINS), Upstream::new("k").await.account(KEEPS));
    let gateway = Gateway::start(&format!("[server]\ndata = \"internal\"\n{}", in_order(&[&trains, &keeps]))).await;
    let served = |reply: Reply| reply.head.header("x-freeway-provider").map(str::to_owned);
    assert_eq!(served(gateway.ask(&Ask::chat("pair", false)).await).as_deref(), Some("k"));
    let public = Ask::chat("pair", false).header("x-freeway-data", "public");
    assert_eq!(served(gateway.ask(&public).await).as_deref(), Some("t"));
    // A name of the model's own is no way around, nor is `auto`.
    check_error(&gateway.ask(&Ask::chat("t/t-model", false)).await, NOT_PERMITTED, "by name");
    check_error(&gateway.ask(&Ask::chat("t-model", false)).await, NOT_PERMITTED, "by id");
    assert_eq!(served(gateway.ask(&Ask::chat("auto", false)).await).as_deref(), Some("k"));
    assert_eq!((trains.asked(), keeps.asked()), (1, 2));
}

/// What a header's value comes to.
async fn check_header(gateway: &Gateway, header: (&str, &str), told: Told) {
    let reply = gateway.ask(&Ask::chat("pair", false).header(header.0, header.1)).await;
    let context = format!("{header:?}");
    check_error(&reply, told, &context);
    if told.status == 400 {
        assert_eq!(reply.json()["error"]["param"], header.0, "{context}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_is_not_understood_is_refused_and_never_ignored() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let invalid = Told { status: 400, code: "invalid_value", should_retry: false, retry_after: None };
    for header in [
        ("x-freeway-data", "sekret"),
        ("x-freeway-data", ""),
        ("x-freeway-data", "public, secret"),
        ("x-freeway-tier", "urgent"),
        ("x-freeway-min-quality", "6"),
        ("x-freeway-min-quality", "high"),
        ("x-freeway-deadline", "soon"),
        ("x-freeway-deadline", "-1"),
        ("x-freeway-deadline", "NaN"),
        ("x-freeway-rescue", "again"),
    ] {
        check_header(&gateway, header, invalid).await;
    }
    check_header(&gateway, ("x-freeway-min-quality", "5"), NOT_PERMITTED).await;
    assert_eq!(a.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_data_classes_the_stricter_is_not_overlooked() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let twice = Ask::chat("pair", false).header("x-freeway-data", "public").header("x-freeway-data", "secret");
    let reply = gateway.ask(&twice).await;
    assert!([400, 403].contains(&reply.head.status), "two data classes: {}", reply.everything());
    assert_eq!(a.asked(), 0);
}

const PRICED: &str = "models = [{ id = \"p-model\", quality = 5, price = { input = 1.0, output = 2.0 } }]";

/// A provider that costs money, under the plan given, and a free one with which it shares an alias.
async fn paid_and_free(plan: &str) -> (Upstream, Upstream, Gateway) {
    let paid = Upstream::with("p", PRICED, |_| ()).await.account(&format!("plan = \"{plan}\""));
    let free = Upstream::new("f").await;
    let gateway = Gateway::start(&in_order(&[&paid, &free])).await;
    (paid, free, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_never_spent_unasked() {
    let (paid, free, gateway) = paid_and_free("free").await;
    for model in ["pair", "auto"] {
        let reply = gateway.ask(&Ask::chat(model, false).header("x-freeway-tier", "critical")).await;
        assert_eq!(reply.head.header("x-freeway-provider"), Some("f"), "{model}: {}", reply.everything());
    }
    free.always(r#"{"fault":"status","status":500}"#);
    assert_eq!(gateway.ask(&Ask::chat("pair", false)).await.head.status, 503);
    assert_eq!(paid.asked(), 0);
    // Who names it, asks for it.
    let reply = gateway.ask(&Ask::chat("p/p-model", false)).await;
    assert_eq!(reply.head.header("x-freeway-provider"), Some("p"), "{}", reply.everything());
    let cost = &gateway.ledger(&reply).await["attempts"][0]["cost_usd"];
    assert!(cost.as_f64().is_some_and(|usd| usd > 0.0), "{cost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_costs_nothing_even_where_money_may_be_spent() {
    let (paid, free, gateway) = paid_and_free("paid").await;
    let batch = Ask::chat("pair", false).header("x-freeway-tier", "batch");
    assert_eq!(gateway.ask(&batch).await.head.header("x-freeway-provider"), Some("f"));
    free.always(r#"{"fault":"status","status":500}"#);
    assert_eq!(gateway.ask(&batch).await.head.status, 503);
    assert_eq!(paid.asked(), 0);
    let by_name = Ask::chat("p/p-model", false).header("x-freeway-tier", "batch");
    check_error(&gateway.ask(&by_name).await, NOT_PERMITTED, "by name");
    let critical = Ask::chat("pair", false).header("x-freeway-tier", "critical");
    assert_eq!(gateway.ask(&critical).await.head.header("x-freeway-provider"), Some("p"));
}

#[tokio::test(flavor = "multi_thread")]
async fn quality_is_a_floor() {
    let model = |id: &str, quality: u8| format!("models = [{{ id = \"{id}-model\", quality = {quality} }}]");
    let (low, high) =
        (Upstream::with("l", &model("l", 2), |_| ()).await, Upstream::with("h", &model("h", 4), |_| ()).await);
    let gateway = Gateway::start(&in_order(&[&low, &high])).await;
    for (floor, provider) in [("1", "l"), ("2", "l"), ("3", "h"), ("4", "h")] {
        let reply = gateway.ask(&Ask::chat("pair", false).header("x-freeway-min-quality", floor)).await;
        assert_eq!(reply.head.header("x-freeway-provider"), Some(provider), "{floor}: {}", reply.everything());
    }
    high.always(r#"{"fault":"status","status":500}"#);
    let reply = gateway.ask(&Ask::chat("pair", false).header("x-freeway-min-quality", "3")).await;
    assert_eq!(reply.head.status, 503, "{}", reply.everything());
    assert_eq!(low.asked(), 2, "no failure lowers the floor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_key_is_held_to_its_ceilings_and_sees_only_its_own() {
    let a = Upstream::new("a").await.account(NOTHING);
    let gateway = Gateway::start(&format!(
        "[server]\nkeys = [\"sk-test-operator\"]\n\
         [client_keys.ci]\nkey = \"sk-test-ci\"\ntier = \"batch\"\ndata = \"internal\"\n\
         [client_keys.web]\nkey = \"sk-test-web\"\n{}",
        in_order(&[&a])
    ))
    .await;
    let chat = || Ask::chat("pair", false);

    let denied = Told { status: 403, code: "permission_denied", should_retry: false, retry_after: None };
    for (header, value) in
        [("x-freeway-tier", "critical"), ("x-freeway-tier", "standard"), ("x-freeway-data", "public")]
    {
        let reply = gateway.ask(&chat().key("sk-test-ci").header(header, value)).await;
        check_error(&reply, denied, &format!("{header}: {value}"));
    }
    assert_eq!(a.asked(), 0);

    let own = gateway.ask(&chat().key("sk-test-ci")).await;
    assert_eq!((own.head.status, own.head.header("x-freeway-tier")), (200, Some("batch")), "{}", own.everything());
    let stricter = gateway.ask(&chat().key("sk-test-ci").header("x-freeway-data", "secret")).await;
    assert_eq!(stricter.head.status, 200, "{}", stricter.everything());
    let other = gateway.ask(&chat().key("sk-test-web").header("x-freeway-tier", "critical")).await;
    assert_eq!(other.head.status, 200, "{}", other.everything());

    let path = |reply: &Reply| format!("/freeway/v1/requests/{}", reply.head.header("x-freeway-request-id").unwrap());
    let operator = Ask::get(&path(&other)).key("sk-test-operator");
    until("the ledger knows", async || (gateway.ask(&operator).await.head.status == 200).then_some(())).await;
    let mine = gateway.ask(&Ask::get(&path(&own)).key("sk-test-ci")).await;
    assert_eq!(
        (mine.head.status, &mine.json()["caller"], &mine.json()["data"]),
        (200, &json!("ci"), &json!("internal"))
    );
    // Another's is as unknown as one that never was.
    let theirs = gateway.ask(&Ask::get(&path(&other)).key("sk-test-ci")).await;
    let never = gateway.ask(&Ask::get("/freeway/v1/requests/req_00000000000000000000000000").key("sk-test-ci")).await;
    assert_eq!((theirs.head.status, never.head.status), (404, 404));
    assert_eq!(theirs.text(), never.text());
    let list = gateway.ask(&Ask::get("/freeway/v1/requests").key("sk-test-ci")).await.json();
    let rows = list["requests"].as_array().unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|row| row["caller"] == "ci"), "{list}");
}
