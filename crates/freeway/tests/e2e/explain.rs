//! What can be said of a request afterwards; and what must never be said.

use serde_json::{Value, json};

use crate::gateway::{End, Home};
use crate::http::{Ask, find};
use crate::patience::until;
use crate::upstream::{Upstream, in_order};

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_can_be_explained() {
    let facts = "models = [{ id = \"a-model\" }]";
    let off = Upstream::with("off", "models = [{ id = \"off-model\", features = [\"tools\"] }]", |_| ()).await;
    let (a, b) = (Upstream::with("a", facts, |_| ()).await, Upstream::new("b").await);
    a.always(r#"{"fault":"status","status":403,"body":{"error":{"message":"not from your country"}}}"#);
    let gateway = Home::new(&in_order(&[&off, &a, &b])).serve().await;
    let reply = gateway.ask(&Ask::chat("pair", true).header("x-freeway-tier", "critical")).await;
    let request = gateway.ledger(&reply).await;

    for (field, expected) in [
        ("model", json!("pair")),
        ("tier", json!("critical")),
        ("data", json!("public")),
        ("stream", json!(true)),
        ("status", json!(200)),
        ("outcome", json!("answered")),
        ("error", Value::Null),
        ("served_by", json!("b/b-model")),
        ("caller", json!("operator")),
    ] {
        assert_eq!(request[field], expected, "{field}: {request:#}");
    }
    let took = |value: &Value| value.as_f64().unwrap_or(-1.0);
    assert!((0.0..=took(&request["took_ms"])).contains(&took(&request["first_content_ms"])), "{request:#}");

    let candidates = request["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 3, "{request:#}");
    assert_eq!((&candidates[0]["kept"], &candidates[0]["reason"]), (&json!(false), &json!("feature")), "{request:#}");
    assert!(candidates[0]["why"].as_str().unwrap().contains("stream"), "{request:#}");
    assert_eq!((&candidates[1]["target"], &candidates[1]["rank"]), (&json!("a/a-model"), &json!(1)), "{request:#}");
    assert_eq!((&candidates[2]["target"], &candidates[2]["rank"]), (&json!("b/b-model"), &json!(2)), "{request:#}");

    let attempts = request["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{request:#}");
    assert_eq!(attempts[0]["target"], "a/a-model", "{request:#}");
    assert_eq!((&attempts[0]["status"], &attempts[0]["outcome"]), (&json!(403), &json!("forbidden")), "{request:#}");
    assert_eq!(attempts[0]["message"], "not from your country", "the provider's own words: {request:#}");
    assert_eq!(attempts[0]["usage"]["output"], 0, "{request:#}");
    assert_eq!(attempts[1]["target"], "b/b-model", "{request:#}");
    assert_eq!((&attempts[1]["status"], &attempts[1]["outcome"]), (&json!(200), &json!("answered")), "{request:#}");
    assert_eq!((&attempts[1]["message"], &attempts[1]["usage_source"]), (&Value::Null, &json!("reported")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_made_without_sending_anything() {
    let (a, b) = (Upstream::new("a").await, Upstream::new("b").await);
    let gateway = Home::new(&in_order(&[&a, &b])).serve().await;
    let body = r#"{"model":"pair","messages":[{"role":"user","content":"the tide is out"}]}"#;
    let reply = gateway.ask(&Ask::post("/freeway/v1/explain", body).header("x-freeway-data", "internal")).await;
    assert_eq!(reply.head.status, 200, "{}", reply.everything());
    let plan = reply.json();
    assert_eq!((&plan["data"], &plan["tier"]), (&json!("internal"), &json!("standard")), "{plan:#}");
    assert_eq!(plan["candidates"].as_array().unwrap().len(), 2, "{plan:#}");
    assert_eq!(plan["candidates"][0]["reason"], "data_rule", "nobody knows whether it trains: {plan:#}");
    assert_eq!((a.asked(), b.asked()), (0, 0));
}

/// Secrets that stand out, none of which may leave the configuration but in the header to its own provider.
const CANARIES: [&str; 6] = [
    "canary-operator-4711-key",
    "canary-client-4711-key",
    "canary-first-4711-key",
    "canary-second-4711-key",
    "canary-wrong-4711-key",
    "sk-test-canary4711-of-a-stranger",
];
/// What was said and answered, which is nobody's business but the client's and the provider's.
const PRIVATE: &str = "the canary sings at noon";

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_words_show_nowhere() {
    let [operator, client, first, second, wrong, foreign] = CANARIES;
    let (a, b) = (Upstream::new("a").await, Upstream::new("b").await);
    let a = a.account(&format!("cost = \"free\"\nkeys = [\"{first}\", \"{second}\"]"));
    let echo = format!(
        "Incorrect API key provided: {first}, {second}. See https://user:{foreign}@host.test/{first}?key={first} and {foreign}"
    );
    let home = Home::new(&format!(
        "[server]\nkeys = [\"{operator}\"]\n[client_keys.ci]\nkey = \"{client}\"\n[store]\nurl = \"sqlite:ledger.db\"\n{}",
        in_order(&[&a, &b])
    ));
    let gateway = home.serve().await;
    let mut seen = String::new();
    let body = |stream: bool| {
        format!(r#"{{"model":"pair","stream":{stream},"messages":[{{"role":"user","content":"{PRIVATE}"}}]}}"#)
    };
    for status in [401, 400, 500, 429] {
        a.always(
            &json!({"fault": "status", "status": status, "body": {"error": {"message": echo, "code": foreign, "param": first}},
                "headers": {"x-echo": first}})
            .to_string(),
        );
        for stream in [false, true] {
            let reply = gateway.ask(&Ask::body(body(stream)).key(client)).await;
            seen.push_str(&reply.everything().replace(PRIVATE, ""));
            let id = reply.head.header("x-freeway-request-id").unwrap().to_owned();
            let ask = Ask::get(&format!("/freeway/v1/requests/{id}")).key(operator);
            let request = until("the ledger knows", async || {
                let reply = gateway.ask(&ask).await;
                (reply.head.status == 200).then(|| reply.everything())
            })
            .await;
            seen.push_str(&request);
        }
    }
    // A stream that breaks with the key in its words, keys that are wrong, and keys where none belong.
    let text = r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#;
    let stream = format!("data: {text}\n\ndata: {{\"error\":{{\"message\":\"{echo}\"}}}}\n\n");
    b.always(
        &json!({"fault": "status", "status": 200, "body": stream, "content_type": "text/event-stream"}).to_string(),
    );
    let asks = [
        Ask::body(body(true)).key(operator),
        Ask::body(body(false)).key(wrong),
        Ask::get(&format!("/v1/models/{wrong}")).key(operator),
        Ask::get(&format!("/v1/models?key={wrong}")),
        Ask::get("/v1/models").key(operator),
        Ask::get("/freeway/v1/quotas").key(operator),
        Ask::get("/freeway/v1/deployments").key(operator),
        Ask::get("/freeway/v1/requests").key(operator),
        Ask::get("/freeway/v1/usage?by=key").key(operator),
        Ask::get("/metrics").key(operator),
    ];
    for ask in asks {
        let reply = gateway.ask(&ask).await;
        // Who asks for a model by such a name is told that there is none of that name.
        if !reply.text().contains("no model or alias is called") {
            seen.push_str(&reply.everything());
        }
    }
    seen.push_str(&gateway.said());
    gateway.end(End::Terminate).await;
    let written = home.written();
    assert!(find(&written, b"pair").is_some(), "the ledger is there");
    for secret in CANARIES.iter().chain(&[PRIVATE]) {
        let place = seen.find(secret).map(|place| {
            let around = |at: usize| seen.floor_char_boundary(at.min(seen.len()));
            seen[around(place.saturating_sub(300))..around(place + 100)].to_owned()
        });
        assert_eq!(place, None, "{secret} was shown");
        assert!(find(&written, secret.as_bytes()).is_none(), "{secret} was written");
    }
}
