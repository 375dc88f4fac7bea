//! What a chat request's body must be. What is refused here is never sent anywhere.

use crate::faults::Told;
use crate::gateway::Gateway;
use crate::http::Ask;
use crate::last_word::check_error;
use crate::upstream::{Upstream, in_order};

/// A body that is refused with 400 (404 for a model that is not there), by code and field.
async fn check(gateway: &Gateway, body: &[u8], code: &'static str, param: Option<&str>) {
    let status = if code == "model_not_found" { 404 } else { 400 };
    let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
    let reply = gateway.ask(&Ask::body(body)).await;
    let told = Told { status, code, should_retry: false, retry_after: None };
    let message = check_error(&reply, told, &shown);
    assert_eq!(reply.json()["error"]["param"].as_str(), param, "{shown}: {}", reply.text());
    assert!(!message.contains("private words"), "{shown}: a message does not repeat the content");
}

/// A body with these fields besides the usual ones.
fn with(fields: &str) -> Vec<u8> {
    format!(r#"{{"model":"pair",{fields},"messages":[{{"role":"user","content":"private words"}}]}}"#).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_is_refused_with_its_place() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let good = String::from_utf8(with(r#""seed":1"#)).unwrap();
    let mut broken_utf8 = with(r#""seed":1"#);
    let place = broken_utf8.len() - 8;
    broken_utf8[place] = 0xff;
    let cases: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"private words".to_vec(),
        good.as_bytes()[..good.len() - 5].to_vec(),
        format!("{good} x").into_bytes(),
        format!("{good}{good}").into_bytes(),
        format!("\u{feff}{good}").into_bytes(),
        with(r#""temperature":NaN"#),
        with(r#""temperature":01"#),
        with("/* private words */ \"seed\":1"),
        b"[]".to_vec(),
        b"null".to_vec(),
        broken_utf8,
        with("\"x\":\"a\nb\""),
    ];
    for body in cases {
        check(&gateway, &body, "invalid_json", None).await;
    }
    for twice in [r#""seed":1,"seed":2"#, r#""seed":1,"s\u0065ed":2"#] {
        check(&gateway, &with(twice), "invalid_json", Some("seed")).await;
    }
    let crowd: String = (0..600).map(|field| format!("\"x{field}\":1,")).collect();
    check(&gateway, &with(crowd.trim_end_matches(',')), "invalid_json", None).await;
    assert_eq!(a.asked(), 0);
}

/// Between the same dialects, what is well-formed JSON is the provider's to judge, and arrives as it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_translation_would_have_to_understand_passes() {
    let deep = format!(r#"{{"model":"a-model","messages":[],"x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let surrogate = r#"{"model":"a-model","messages":[{"role":"user","content":"\ud800"}]}"#.to_owned();
    for body in [deep, surrogate] {
        let a = Upstream::new("a").await;
        let gateway = Gateway::start(&in_order(&[&a])).await;
        let reply = gateway.ask(&Ask::body(body.clone())).await;
        assert!([200, 400].contains(&reply.head.status), "{}", reply.everything());
        assert_eq!(a.sim.log()[0].body, body);
        assert_eq!(gateway.ask(&Ask::get("/healthz")).await.head.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn known_fields_hold_what_they_may_hold() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    for field in ["max_tokens", "max_completion_tokens"] {
        for value in ["0", "-1", "1.5", "\"5\"", "1e3", "18446744073709551616", "1e400", "[]", "true"] {
            check(&gateway, &with(&format!("\"{field}\":{value}")), "invalid_value", Some(field)).await;
        }
    }
    for (field, value) in [("n", "0"), ("n", "129"), ("stream", "\"yes\""), ("stream", "1"), ("stream_options", "7")] {
        check(&gateway, &with(&format!("\"{field}\":{value}")), "invalid_value", Some(field)).await;
    }
    for field in ["api_base", "api_key", "base_url", "extra_headers"] {
        let body = with(&format!("\"{field}\":\"http://127.0.0.1:1\""));
        check(&gateway, &body, "unknown_parameter", Some(field)).await;
    }
    assert_eq!(a.asked(), 0);
    for fields in [r#""max_tokens":null"#, r#""stream":null,"n":null"#, r#""max_tokens":1"#, r#""n":1"#] {
        let reply = gateway.ask(&Ask::body(with(fields))).await;
        assert_eq!(reply.head.status, 200, "{fields}: {}", reply.everything());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_a_name_that_is_known() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let model = |json: &str| format!(r#"{{"model":{json},"messages":[{{"role":"user","content":"private words"}}]}}"#);
    let long = format!("\"{}\"", "x".repeat(10_000));
    for json in ["\"\"", "null", "7", "[\"pair\"]", "\"pa\\u0000ir\"", "\"pair\\n\"", &long] {
        check(&gateway, model(json).as_bytes(), "invalid_value", Some("model")).await;
    }
    check(&gateway, br#"{"messages":[]}"#, "missing_required_parameter", Some("model")).await;
    for json in [
        "\"none\"",
        "\"a/none\"",
        "\"b/a-model\"",
        "\"../../etc/passwd\"",
        "\"http://127.0.0.1:1/v1\"",
        "\"PAIR\"",
        "\" pair\"",
        "\"<script>\"",
    ] {
        check(&gateway, model(json).as_bytes(), "model_not_found", Some("model")).await;
    }
    assert_eq!(a.asked(), 0);
    for name in ["pair", "a/a-model", "a-model", "auto"] {
        let reply = gateway.ask(&Ask::chat(name, false)).await;
        assert_eq!(reply.head.status, 200, "{name}: {}", reply.everything());
    }
}
