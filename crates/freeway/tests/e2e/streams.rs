//! A broken stream never looks like a whole one, and a whole one loses nothing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::http::{Ask, Reply};
use crate::patience::each;
use crate::upstream::Upstream;

/// Whether a stream is a whole answer, told by what a client can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// With the end marker and no error.
    Complete,
    /// With an error as its last event, and without the marker.
    Broken,
}

/// Gives how a stream ends, and insists that it is one of the two ways.
fn ends(reply: &Reply) -> Ends {
    assert_eq!(reply.head.status, 200, "{}", reply.everything());
    assert!(reply.whole, "the connection itself does not break: {}", reply.everything());
    let events = reply.events();
    let errors: Vec<&String> = events.iter().filter(|data| data.starts_with("{\"error\"")).collect();
    match (events.last().map(String::as_str), errors.as_slice()) {
        (Some("[DONE]"), []) => Ends::Complete,
        (Some(last), [error]) if *error == last => {
            let error: Value = serde_json::from_str(last).unwrap();
            assert_eq!(error["error"]["type"], "upstream_error", "{error}");
            assert_eq!(error["error"]["code"], "upstream_stream_broken", "{error}");
            assert!(!reply.text().contains("[DONE]"), "{}", reply.text());
            Ends::Broken
        }
        _ => panic!("neither whole nor broken: {}", reply.text()),
    }
}

async fn check(fault: &str, expected: Ends, content: &str) {
    let a = Upstream::new("a").await;
    a.always(fault);
    let gateway = Gateway::start(&a.table()).await;
    let reply = gateway.ask(&Ask::chat("a/a-model", true)).await;
    assert_eq!(ends(&reply), expected, "{fault}: {}", reply.text());
    assert_eq!(reply.content(), content, "{fault}");
    let ledger = gateway.ledger(&reply).await;
    let (outcome, attempt) = match expected {
        Ends::Complete => ("answered", "answered"),
        Ends::Broken => ("failed", "broken_answer"),
    };
    assert_eq!(ledger["outcome"], outcome, "{fault}: {ledger}");
    assert_eq!(ledger["attempts"][0]["outcome"], attempt, "{fault}: {ledger}");
    assert_eq!(a.asked(), 1, "{fault}: nothing is tried again once there was content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_says_so_and_a_whole_one_is_whole() {
    let whole = "a-model heard: the tide is out";
    let cases = [
        (r#"{"fault":"cut","after_events":3}"#, Ends::Broken, "a-model heard: "),
        (r#"{"fault":"cut","after_events":3,"abrupt":true}"#, Ends::Broken, "a-model heard: "),
        (r#"{"fault":"reset-mid-body","after_events":3}"#, Ends::Broken, "a-model heard: "),
        // All of the text, and no finish reason.
        (r#"{"fault":"cut","after_events":7}"#, Ends::Broken, whole),
        (r#"{"fault":"truncated-json"}"#, Ends::Broken, "a-model heard: the "),
        // All of the text and the finish reason; only the usage and the marker are missing.
        (r#"{"fault":"cut","after_events":8}"#, Ends::Complete, whole),
        (r#"{"fault":"cut","after_events":8,"abrupt":true}"#, Ends::Complete, whole),
        (r#"{"fault":"no-done"}"#, Ends::Complete, whole),
        (r#"{"fault":"malformed-event","at":3}"#, Ends::Complete, "a-model heard: tide is out"),
        // The finish reason itself is lost.
        (r#"{"fault":"malformed-event","at":7}"#, Ends::Broken, whole),
    ];
    each(cases, |(fault, expected, content)| check(fault, expected, content)).await;
}

/// A stream in the upstream's own bytes, and what comes of it.
async fn check_bytes(stream: &str, expected: Ends, content: &str) {
    let body = json!({"fault": "status", "status": 200, "body": stream, "content_type": "text/event-stream"});
    check(&body.to_string(), expected, content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_streams_are_read_to_the_letter() {
    const TEXT: &str = r#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#;
    const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let cases: Vec<(String, Ends, &str)> = vec![
        (format!("data: {TEXT}\n\ndata: {STOP}\n\ndata: [DONE]\n\n"), Ends::Complete, "hi"),
        (format!("data:{TEXT}\n\ndata:{STOP}\n\ndata:[DONE]\n\n"), Ends::Complete, "hi"),
        // The marker alone does not make it whole.
        (format!("data: {TEXT}\n\ndata: [DONE]\n\n"), Ends::Broken, "hi"),
        // The last line end is missing.
        (format!("data: {TEXT}\n\ndata: {STOP}\n\ndata: [DONE]"), Ends::Complete, "hi"),
        (format!("data: {TEXT}\n\ndata: {{\"error\":{{\"message\":\"gone\"}}}}\n\n"), Ends::Broken, "hi"),
        (
            format!("data: {TEXT}\n\ndata: {{\"error\":{{\"message\":\"gone\"}}}}\n\ndata: [DONE]\n\n"),
            Ends::Broken,
            "hi",
        ),
        (format!("data: {TEXT}\n\ndata: {{\"choices\":[{{\"finish_reason\":\"error\"}}]}}\n\n"), Ends::Broken, "hi"),
        // An event without choices, as Azure sends first, and an empty delta.
        (
            format!(
                "data: {{\"choices\":[]}}\n\ndata: {{\"choices\":[{{\"delta\":{{}}}}]}}\n\ndata: {TEXT}\n\ndata: {STOP}\n\ndata: [DONE]\n\n"
            ),
            Ends::Complete,
            "hi",
        ),
    ];
    each(cases, |(stream, expected, content)| async move { check_bytes(&stream, expected, content).await }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_event_without_its_line_end_is_an_event() {
    let one = r#"data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}"#;
    check_bytes(one, Ends::Complete, "hi").await;
    let text = r#"data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}"#;
    let stop = r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    check_bytes(&format!("{text}\n\n{stop}"), Ends::Complete, "hi").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_as_the_first_event_is_a_failure_before_content() {
    let (a, b) = (Upstream::new("a").await, Upstream::new("b").await);
    let stream = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n";
    a.always(
        &json!({"fault": "status", "status": 200, "body": stream, "content_type": "text/event-stream"}).to_string(),
    );
    let gateway = Gateway::start(&crate::upstream::in_order(&[&a, &b])).await;
    let reply = gateway.ask(&Ask::chat("pair", true)).await;
    assert_eq!((ends(&reply), reply.content().as_str()), (Ends::Complete, "b-model heard: the tide is out"));
}

/// Chunks whose `choices` are empty and that hold a usage.
fn usage_chunks(reply: &Reply) -> usize {
    let events = reply.events().into_iter().filter_map(|data| serde_json::from_str::<Value>(&data).ok());
    events.filter(|chunk| chunk["choices"] == json!([]) && chunk["usage"].is_object()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_usage_comes_only_to_who_asked_and_always_to_the_ledger() {
    let a = Upstream::new("a").await;
    let gateway = Gateway::start(&a.table()).await;
    for (options, expected) in [
        ("", 0),
        (r#""stream_options":{"include_usage":false},"#, 0),
        (r#""stream_options":{},"#, 0),
        (r#""stream_options":{"include_usage":true},"#, 1),
    ] {
        let body = format!(
            r#"{{"model":"a/a-model","stream":true,{options}"messages":[{{"role":"user","content":"the tide is out"}}]}}"#
        );
        let reply = gateway.ask(&Ask::body(body)).await;
        assert_eq!(ends(&reply), Ends::Complete);
        assert_eq!(usage_chunks(&reply), expected, "{options}: {}", reply.text());
        let ledger = gateway.ledger(&reply).await;
        let attempt = &ledger["attempts"][0];
        assert_eq!(attempt["usage_source"], "reported", "{options}: {ledger}");
        assert!(attempt["usage"]["output"].as_u64().is_some_and(|output| output > 0), "{options}: {ledger}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_usage_is_marked_as_estimated() {
    let a = Upstream::new("a").await;
    a.always(r#"{"fault":"cut","after_events":8}"#);
    let gateway = Gateway::start(&a.table()).await;
    let reply = gateway.ask(&Ask::chat("a/a-model", true)).await;
    assert_eq!(ends(&reply), Ends::Complete);
    let ledger = gateway.ledger(&reply).await;
    assert_eq!(ledger["attempts"][0]["usage_source"], "estimated", "{ledger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_are_passed_on_as_they_come() {
    let pace = Duration::from_millis(60);
    let a = Upstream::with("a", "models = [{ id = \"a-model\" }]", |config| config.pace = pace).await;
    let gateway = Gateway::start(&a.table()).await;
    let reply = gateway.ask(&Ask::chat("a/a-model", true)).await;
    let times: Vec<Duration> = reply.pieces.iter().map(|(at, _)| *at).collect();
    // The role waits for the first word; then each of the other words comes for itself.
    assert!(times.len() >= 6, "{times:?}");
    let (first, last) = (times[0], times[times.len() - 1]);
    assert!(last - first >= pace * 5, "nothing is held back to go out together: {times:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the longest silence within a stream is a minute"]
async fn a_stream_that_stalls_is_broken_off() {
    let a = Upstream::new("a").await;
    a.always(r#"{"fault":"stall","after_events":3}"#);
    let gateway = Gateway::start(&a.table()).await;
    let mut connection = gateway.send(&Ask::chat("a/a-model", true)).await;
    let head = connection.head().await.unwrap();
    connection.be_patient(Duration::from_secs(70));
    assert_eq!(ends(&connection.rest(head).await), Ends::Broken);
}
