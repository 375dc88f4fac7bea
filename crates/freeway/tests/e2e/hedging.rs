//! A stall costs little: a second attempt begins where the first is unusually slow.

use serde_json::Value;

use crate::gateway::Gateway;
use crate::http::Ask;
use crate::upstream::{Upstream, in_order};

/// Answers that make what is usual known.
const WARM: usize = 60;

async fn warm(gateway: &Gateway, stream: bool) {
    for _ in 0..WARM {
        let reply = gateway.ask(&Ask::chat("pair", stream)).await;
        assert_eq!(reply.head.header("x-freeway-provider"), Some("a"), "{}", reply.everything());
    }
}

fn outcomes(ledger: &Value) -> Vec<(&str, &str)> {
    let attempts = ledger["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| (attempt["target"].as_str().unwrap(), attempt["outcome"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_answered_by_another_and_both_are_accounted() {
    for stream in [true, false] {
        let (a, b) = (Upstream::new("a").await, Upstream::new("b").await);
        let gateway = Gateway::start(&in_order(&[&a, &b])).await;
        warm(&gateway, stream).await;
        a.once(r#"{"fault":"silence"}"#);
        let reply = gateway.ask(&Ask::chat("pair", stream)).await;
        assert_eq!(reply.head.header("x-freeway-provider"), Some("b"), "{}", reply.everything());
        let ledger = gateway.ledger(&reply).await;
        assert_eq!(outcomes(&ledger), [("a/a-model", "superseded"), ("b/b-model", "answered")], "{ledger}");
        let took = ledger["attempts"][0]["took_ms"].as_f64().unwrap();
        assert!(took < 5_000.0, "its limit alone would have been five seconds or more: {took} ms");
        assert_eq!(ledger["attempts"][0]["usage_source"], "estimated", "{ledger}");
        // The connection of the slow one is closed.
        crate::patience::until("the stalled provider sees its client leave", async || {
            a.sim.log().last().and_then(|entry| entry.cancelled_ms)
        })
        .await;
        let metrics = gateway.ask(&Ask::get("/metrics")).await.text();
        assert!(metrics.contains("freeway_hedges_total 1"), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_scarce_or_costs_money_or_could_happen_twice_is_not_spent_on_it() {
    let scarce = "models = [{ id = \"b-model\", limits = [{ metric = \"requests\", window = \"day\", amount = 10 }] }]";
    let cases = [
        // Of ten, eight are used: less than a fifth is left beyond them.
        (Upstream::with("b", scarce, |_| ()).await, 9, ""),
        (Upstream::new("b").await.account("cost = \"paid\"\nplan = \"paid\""), 0, ""),
        (Upstream::new("b").await, 0, r#","store":true"#),
    ];
    for (b, used, field) in cases {
        let a = Upstream::new("a").await;
        let gateway = Gateway::start(&in_order(&[&a, &b])).await;
        for _ in 0..used {
            gateway.ask(&Ask::chat("b/b-model", true)).await;
        }
        warm(&gateway, true).await;
        a.once(r#"{"fault":"slow","first_byte_ms":1500}"#);
        let body = format!(
            r#"{{"model":"pair","stream":true,"messages":[{{"role":"user","content":"the tide is out"}}]{field}}}"#
        );
        let reply = gateway.ask(&Ask::body(body)).await;
        assert_eq!(reply.head.header("x-freeway-provider"), Some("a"), "{}", reply.everything());
        assert_eq!(b.asked(), used, "{field}");
    }
}
