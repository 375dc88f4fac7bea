//! Between the same dialect on both sides bytes pass untouched, but for the
//! model's name and the request for usage.

use serde_json::json;

use crate::gateway::Gateway;
use crate::http::Ask;
use crate::patience::each;
use crate::upstream::{Upstream, in_order};

/// Requests with all that a rewrite through a parser would change.
const BODIES: &[&str] = &[
    r#"{"model":"pair","messages":[{"role":"user","content":"plain"}]}"#,
    "{ \"model\" :\t\"pair\" ,\r\n  \"messages\" : [ {\"role\": \"user\",\"content\":\"odd  white\\tspace\"} ]\n}\n",
    r#"{"messages":[{"role":"user","content":"the model comes last"}],"seed":7,"model":"pair"}"#,
    r#"{"model":"pair","messages":[{"role":"user","content":"caf\u00e9 \ud83d\ude00 \u0000 \/ \u2028"}]}"#,
    r#"{"model":"pair","messages":[{"role":"user","content":"raw é 😀 "}]}"#,
    r#"{"model":"pair","messages":[{"role":"user","content":"numbers"}],"x_big":12345678901234567890123,"x_exp":1.50e+10,"x_neg":-0.0}"#,
    r#"{"model":"pair","messages":[{"role":"user","content":"unknown"}],"x_unknown":{"b":[1,2.0,null],"a":{}},"provider":{"order":["x"]}}"#,
    r#"{"model":"pair","messages":[{"role":"user","content":"\"model\":\"pair\""}],"metadata":{"model":"pair"}}"#,
    r#"{"\u006dodel":"pair","messages":[{"role":"user","content":"an escaped name"}]}"#,
    r#"{"model":"p\u0061ir","messages":[{"role":"user","content":"an escaped value"}]}"#,
    r#"{"model":"pair","messages":[{"role":"user","content":"stop"}],"stop":null,"temperature":1.0,"max_tokens":50}"#,
];

/// The same request with the model's name at the target, which is where the name stands first as a value of its own.
fn at_target(body: &str) -> String {
    for name in ["\"pair\"", r#""p\u0061ir""#] {
        // `"model":"pair"` within a text is escaped, and within `metadata` comes later.
        if let Some(place) = body.find(name) {
            return format!("{}\"a-model\"{}", &body[..place], &body[place + name.len()..]);
        }
    }
    panic!("no model in {body}")
}

/// What the target gets for a body.
async fn check_request(body: String, expected: String) {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let reply = gateway.ask(&Ask::body(body.clone())).await;
    assert_eq!(reply.head.status, 200, "{body}: {}", reply.everything());
    let arrived = String::from_utf8(a.sim.log()[0].body.to_vec()).unwrap();
    assert_eq!(arrived, expected, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_arrives_as_it_was_sent() {
    each(BODIES, |body| check_request((*body).to_owned(), at_target(body))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_request_also_asks_for_usage() {
    const WISH: &str = r#""stream_options":{"include_usage":true},"#;
    let streamed = |body: &str, more: &str| body.replacen('{', &format!("{{{more}\"stream\":true,"), 1);
    each(BODIES, |body| check_request(streamed(body, ""), at_target(&streamed(body, WISH)))).await;
    // Who asks for it already, sends what arrives.
    check_request(streamed(BODIES[5], WISH), at_target(&streamed(BODIES[5], WISH))).await;
    // Other options stay.
    let (own, both) = (r#""stream_options":{"x":1},"#, r#""stream_options":{"x":1,"include_usage":true},"#);
    check_request(streamed(BODIES[0], own), at_target(&streamed(BODIES[0], both))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_the_model_as_the_target_does_is_not_touched_at_all() {
    let body = "{\"model\": \"a-model\",\n \"messages\": [{\"role\":\"user\",\"content\":\"x\"}], \"n\": 1}";
    check_request(body.to_owned(), body.to_owned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_a_provider_needs_to_see_arrives() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let ask = Ask::chat("pair", false)
        .header("cookie", "session=1")
        .header("authorization", "Bearer sk-test-clients-own")
        .header("x-freeway-tier", "critical")
        .header("openai-organization", "org-1")
        .header("x-forwarded-for", "10.0.0.1")
        .header("user-agent", "someone/1");
    assert_eq!(gateway.ask(&ask).await.head.status, 200);
    let log = a.sim.log();
    let mut names: Vec<&str> = log[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let expected =
        ["accept", "accept-encoding", "authorization", "content-length", "content-type", "host", "user-agent"];
    assert_eq!(names, expected, "{:?}", log[0].headers);
    assert_eq!(log[0].header("authorization"), Some("Bearer sk-test-upstream"));
    assert_eq!(log[0].header("accept-encoding"), Some("identity"));
    assert_eq!(log[0].path, "/v1/chat/completions");
}

/// What a client gets for an answer in these bytes.
async fn check_answer(answer: String, stream: bool, expected: String) {
    let a = Upstream::new("a").await;
    let kind = if stream { "text/event-stream" } else { "application/json" };
    a.always(
        &json!({
            "fault": "status", "status": 200, "body": answer, "content_type": kind,
            "headers": {"set-cookie": "a=b", "x-secret": "1", "access-control-allow-origin": "*", "server": "sim"}
        })
        .to_string(),
    );
    let gateway = Gateway::start(&in_order(&[&a])).await;
    let reply = gateway.ask(&Ask::chat("pair", stream)).await;
    assert_eq!(reply.text(), expected, "{}", reply.everything());
    for name in ["set-cookie", "x-secret", "access-control-allow-origin", "server"] {
        assert_eq!(reply.head.header(name), None, "only an allow-list returns to the client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_back_as_it_was_given() {
    let answers = [
        r#"{"choices":[{"message":{"content":"caf\u00e9 \/ 😀"},"finish_reason":"stop"}],"x":12345678901234567890123,"created":1.0e3}"#,
        "{\n\t\"model\" : \"another-name\",\r\n\"choices\":[ {\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"x\",\"reasoning_content\":\"because\"}} ]}\n",
        r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\": 1 }"}}]},"finish_reason":"tool_calls"}],"usage":null}"#,
    ];
    each(answers, |answer| check_answer(answer.to_owned(), false, answer.to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_comes_back_as_it_was_given() {
    let text = r#"{"choices":[{"index":0,"delta":{"content":"caf\u00e9 😀"}}],"x":12345678901234567890123}"#;
    let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
    let streams = [
        format!("data: {text}\n\ndata: {stop}\n\ndata: [DONE]\n\n"),
        format!("data:{text}\n\n: a comment\n\nid: 7\nevent: message\nretry: 10\ndata: {stop}\n\ndata: [DONE]\n\n"),
        format!("data: {text}\r\n\r\ndata: {stop}\r\n\r\ndata: [DONE]\r\n\r\n"),
        // An event whose data stands on two lines.
        format!("data: {text}\n\ndata: {{\"choices\":\ndata: [{{\"finish_reason\":\"stop\"}}]}}\n\ndata: [DONE]\n\n"),
    ];
    each(streams, |stream| check_answer(stream.clone(), true, stream)).await;
    // Only what was asked for by the gateway itself is taken out.
    let given = format!("data: {text}\n\ndata: {stop}\n\ndata: {usage}\n\ndata: [DONE]\n\n");
    let left = given.replace(&format!("data: {usage}\n\n"), "");
    check_answer(given, true, left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_answer_is_the_one_that_the_provider_gives_directly() {
    // Two providers of the same seed give the same answer to their first request, if it falls into the same second.
    for attempt in 0..5 {
        let (a, twin) = (Upstream::new("a").await, Upstream::new("a").await);
        let gateway = Gateway::start(&in_order(&[&a])).await;
        let through = gateway.ask(&Ask::chat("pair", false)).await;
        let mut direct = crate::http::Connection::open(twin.sim.address()).await;
        direct.send(&Ask::post("/v1/chat/completions", a.sim.log()[0].body.to_vec()).bytes(twin.sim.address())).await;
        let direct = direct.reply().await;
        if through.json()["created"] == direct.json()["created"] || attempt == 4 {
            assert_eq!(through.text(), direct.text());
            return;
        }
    }
}
