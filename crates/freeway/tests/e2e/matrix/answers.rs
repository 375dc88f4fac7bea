//! Answers of status 200 whose bytes all arrive, and in which something is wrong, missing or in an odd place.

use serde_json::{Value, json};

use super::table::{Alone, BOTH, Cell, Outcome, PLAIN, Place, Row, STREAMED, Usage, bytes, second};
use crate::faults::INVALID;

const HEAD: &[Place] = &[Place::BeforeHead, Place::InHead];
const LATER: &[Place] = &[Place::MidContent, Place::AtEnd];
const BODY: &[Place] = &[Place::BeforeContent, Place::MidContent, Place::AtEnd];

const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";
const ROLE: &str = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
const ONE: &str = r#"{"choices":[{"index":0,"delta":{"content":"one "}}]}"#;
const TWO: &str = r#"{"choices":[{"index":0,"delta":{"content":"two"}}]}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const SPENT: &str = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#;
const DONE: &str = "[DONE]";
const ERROR: &str = r#"{"error":{"message":"it did not work","type":"server_error"}}"#;
const PAGE: &str = "<!DOCTYPE html>\n<html><body>simulated</body></html>\n\n";
const TEXT: &str = "one two";
/// More than the longest event that is taken, by more than arrives at once.
const OVERSIZED: usize = 9 * 1024 * 1024;

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// The usual stream, with these bytes at a place.
fn with(place: Place, strange: &str) -> Value {
    let mut parts: Vec<String> = [ROLE, ONE, TWO, STOP, SPENT, DONE].map(event).into();
    let position = match place {
        Place::AtEnd => 4,
        Place::MidContent => 2,
        _ => 1,
    };
    parts.insert(position, strange.to_owned());
    bytes(EVENTS, &parts.concat())
}

/// A stream of these events.
fn stream(events: &[&str]) -> Value {
    bytes(EVENTS, &events.iter().map(|data| event(data)).collect::<String>())
}

fn plain(text: &Value, finish: &Value, more: &Value) -> Value {
    let message = json!({"role": "assistant", "content": text});
    let mut body = json!({"choices": [{"index": 0, "message": message, "finish_reason": finish}]});
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    bytes(JSON, &body.to_string())
}

fn whole(usage: Usage) -> Outcome {
    Outcome::First { text: TEXT, usage }
}

fn usage() -> Value {
    json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7})
}

/// A row whose fault is in the body.
fn row(fault: &str) -> Row {
    Row::new(fault).cannot(HEAD, BOTH, "it stands in the body")
}

/// A row of something strange in a stream, which a plain answer cannot hold.
fn strange(fault: &str, bytes: &str, [before, mid, end]: [Outcome; 3]) -> Row {
    row(fault)
        .cannot(BODY, PLAIN, "a plain answer has no events")
        .runs(Place::BeforeContent, STREAMED, with(Place::BeforeContent, bytes), before)
        .runs(Place::MidContent, STREAMED, with(Place::MidContent, bytes), mid)
        .runs(Place::AtEnd, STREAMED, with(Place::AtEnd, bytes), end)
}

pub(super) fn rows() -> Vec<Row> {
    let again = || second(2, INVALID);
    let breaks = || Outcome::Breaks("one ");
    [errors(again, breaks), nothing(again), spoilt(again, breaks), odd()].concat()
}

/// Errors inside an answer that began well.
fn errors(again: impl Fn() -> Outcome, breaks: impl Fn() -> Outcome) -> Vec<Row> {
    let inside = json!({"error": {"message": "it did not work", "type": "server_error"}});
    let failing = |events: &[&str]| stream(events);
    let ended = |text: &str| {
        json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "error"}]}).to_string()
    };
    vec![
        row("error object")
            .runs(Place::BeforeContent, PLAIN, bytes(JSON, ERROR), again())
            .cannot(&[Place::MidContent], PLAIN, "a plain answer is one object")
            .runs(Place::AtEnd, PLAIN, plain(&json!(TEXT), &json!("stop"), &inside), again())
            .runs(Place::BeforeContent, STREAMED, with(Place::BeforeContent, &event(ERROR)), again())
            .runs(Place::MidContent, STREAMED, with(Place::MidContent, &event(ERROR)), breaks())
            .runs(Place::AtEnd, STREAMED, with(Place::AtEnd, &event(ERROR)), Outcome::Breaks(TEXT)),
        strange(
            "event named error",
            "event: error\ndata: {\"message\":\"it did not work\"}\n\n",
            [again(), breaks(), Outcome::Breaks(TEXT)],
        ),
        row("error object instead of a stream")
            .cannot(BODY, PLAIN, "no stream was asked for")
            .runs(Place::BeforeContent, STREAMED, bytes(JSON, ERROR), again())
            .cannot(LATER, STREAMED, "the whole body is the error"),
        row("finish_reason error")
            .runs(Place::BeforeContent, PLAIN, plain(&Value::Null, &json!("error"), &json!({})), again())
            .cannot(&[Place::MidContent], PLAIN, "a finish reason is at the end")
            .runs(Place::AtEnd, PLAIN, plain(&json!(TEXT), &json!("error"), &json!({})), again())
            .runs(Place::BeforeContent, STREAMED, failing(&[ROLE, &ended(""), DONE]), again())
            .runs(Place::MidContent, STREAMED, failing(&[ROLE, ONE, &ended(""), DONE]), breaks())
            .cannot(&[Place::AtEnd], STREAMED, "it would be a second finish reason"),
    ]
}

/// Answers without content.
fn nothing(again: impl Fn() -> Outcome) -> Vec<Row> {
    let empty = |finish: &str| plain(&json!(""), &json!(finish), &json!({"usage": usage()}));
    let ended = |finish: &str| {
        let finish = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}).to_string();
        stream(&[ROLE, &finish, SPENT, DONE])
    };
    let not_there = "there is content";
    let without = |fault: &str, finish: &str| {
        row(fault)
            .cannot(LATER, BOTH, not_there)
            .runs(Place::BeforeContent, PLAIN, empty(finish), Outcome::Second { tries: 1, alone: Alone::Empty })
            .runs(Place::BeforeContent, STREAMED, ended(finish), second(1, INVALID))
    };
    let withheld = Outcome::First { text: "", usage: Usage::Reported };
    vec![
        row("empty body").cannot(LATER, BOTH, not_there).runs(
            Place::BeforeContent,
            BOTH,
            json!({"fault": "empty-body"}),
            again(),
        ),
        without("empty completion", "stop"),
        without("no content, finish_reason length", "length"),
        row("no content, finish_reason content_filter")
            .cannot(LATER, BOTH, not_there)
            .runs(Place::BeforeContent, PLAIN, empty("content_filter"), withheld.clone())
            .runs(Place::BeforeContent, STREAMED, ended("content_filter"), withheld),
        row("the end marker alone")
            .cannot(BODY, PLAIN, "a plain answer has none")
            .runs(Place::BeforeContent, STREAMED, stream(&[DONE]), second(1, INVALID))
            .cannot(LATER, STREAMED, not_there),
        row("no choices")
            .cannot(LATER, BOTH, not_there)
            .runs(
                Place::BeforeContent,
                PLAIN,
                bytes(JSON, "{\"choices\":[]}"),
                Outcome::Second { tries: 1, alone: Alone::Empty },
            )
            .runs(Place::BeforeContent, STREAMED, stream(&["{\"choices\":[]}", DONE]), second(1, INVALID)),
        row("comments, and then the end")
            .cannot(BODY, PLAIN, "a plain answer has none")
            .runs(Place::BeforeContent, STREAMED, bytes(EVENTS, ": one\n\n: two\n\n"), again())
            .runs(
                Place::MidContent,
                STREAMED,
                bytes(EVENTS, &[event(ROLE), event(ONE), ": one\n\n".to_owned()].concat()),
                Outcome::Breaks("one "),
            )
            .runs(
                Place::AtEnd,
                STREAMED,
                bytes(EVENTS, &[event(ONE), event(TWO), event(STOP), ": one\n\n".to_owned()].concat()),
                whole(Usage::Estimated),
            ),
    ]
}

/// Bytes that are not what they should be.
fn spoilt(again: impl Fn() -> Outcome, breaks: impl Fn() -> Outcome) -> Vec<Row> {
    let short = |events: &[&str], cut: &str| {
        let before: String = events.iter().map(|data| event(data)).collect();
        bytes(EVENTS, &format!("{before}data: {}", &cut[..cut.len() / 2]))
    };
    let huge = |place| with(place, &event(&"x".repeat(OVERSIZED)));
    vec![
        row("a page instead of an answer")
            .runs(Place::BeforeContent, BOTH, json!({"fault": "html", "status": 200}), again())
            .cannot(LATER, BOTH, "it would be an answer already"),
        // What a proxy puts there when the model behind it has gone.
        row("a page in the answer, and then the end")
            .cannot(&[Place::BeforeContent], PLAIN, "it would be a page instead of an answer")
            .runs(Place::MidContent, PLAIN, bytes(JSON, &format!("{{\"choices\":[{{\"message\":{PAGE}")), again())
            .runs(Place::AtEnd, PLAIN, bytes(JSON, &format!("{{\"choices\":[]}}{PAGE}")), again())
            .runs(Place::BeforeContent, STREAMED, bytes(EVENTS, &[event(ROLE).as_str(), PAGE].concat()), again())
            .runs(
                Place::MidContent,
                STREAMED,
                bytes(EVENTS, &[event(ROLE).as_str(), &event(ONE), PAGE].concat()),
                breaks(),
            )
            .runs(
                Place::AtEnd,
                STREAMED,
                bytes(EVENTS, &[event(ONE).as_str(), &event(TWO), &event(STOP), PAGE].concat()),
                whole(Usage::Estimated),
            ),
        strange("a page in a stream that goes on", PAGE, [(); 3].map(|()| whole(Usage::Reported))),
        row("truncated JSON")
            .cannot(&[Place::BeforeContent], PLAIN, "it would be an empty body")
            .runs(Place::MidContent, PLAIN, json!({"fault": "truncated-json"}), again())
            .runs(
                Place::AtEnd,
                PLAIN,
                bytes(JSON, r#"{"choices":[{"message":{"content":"one two"},"finish_reason":"stop"}]"#),
                again(),
            )
            .runs(Place::BeforeContent, STREAMED, short(&[ROLE], ONE), again())
            .runs(Place::MidContent, STREAMED, short(&[ROLE, ONE], TWO), breaks())
            .runs(Place::AtEnd, STREAMED, short(&[ROLE, ONE, TWO, STOP], SPENT), whole(Usage::Estimated)),
        row("malformed event")
            .runs(Place::BeforeContent, PLAIN, bytes(JSON, "{\"choices\": [{]"), again())
            .cannot(LATER, PLAIN, "a plain answer is one object")
            .runs(Place::BeforeContent, STREAMED, with(Place::BeforeContent, &event("{\"choices\": [{]")), again())
            .runs(
                Place::MidContent,
                STREAMED,
                with(Place::MidContent, &event("{\"choices\": [{]")),
                whole(Usage::Reported),
            )
            .runs(Place::AtEnd, STREAMED, with(Place::AtEnd, &event("{\"choices\": [{]")), whole(Usage::Reported)),
        row("an event that is too long")
            .cannot(BODY, PLAIN, "a plain answer has no events")
            .at(&[Place::BeforeContent], STREAMED, |place| Cell::Runs(huge(place), again()))
            .at(&[Place::MidContent], STREAMED, |place| Cell::Runs(huge(place), breaks()))
            .at(&[Place::AtEnd], STREAMED, |place| Cell::Runs(huge(place), whole(Usage::Estimated))),
        row("an answer that is too long")
            .cannot(&[Place::BeforeContent, Place::AtEnd], PLAIN, "it is one piece of content")
            .runs(Place::MidContent, PLAIN, json!({"fault": "huge-event", "bytes": 65 * 1024 * 1024}), again())
            .cannot(BODY, STREAMED, "a stream has no length"),
        row("too much before the content")
            .cannot(BODY, PLAIN, "a plain answer comes at once")
            .runs(Place::BeforeContent, STREAMED, with(Place::BeforeContent, &event(ROLE).repeat(5_000)), again())
            .cannot(LATER, STREAMED, "there is content"),
    ]
}

/// Answers that are whole and look strange.
fn odd() -> Vec<Row> {
    let spent = |events: &[&str]| stream(events);
    let comment = ": still there\n\n";
    let with_usage = |text: &str, finish: Option<&str>| {
        json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], "usage": usage()})
            .to_string()
    };
    let plain_whole = |more: Value| plain(&json!(TEXT), &json!("stop"), &more);
    let reported = || whole(Usage::Reported);
    let unfinished = plain(&json!(TEXT), &Value::Null, &json!({"usage": usage()}));
    vec![
        row("no end marker")
            .cannot(BODY, PLAIN, "a plain answer has none")
            .cannot(&[Place::BeforeContent, Place::MidContent], STREAMED, "it is at the end")
            .runs(Place::AtEnd, STREAMED, stream(&[ROLE, ONE, TWO, STOP, SPENT]), reported()),
        row("no finish reason")
            .cannot(&[Place::BeforeContent, Place::MidContent], BOTH, "it is at the end")
            .runs(Place::AtEnd, PLAIN, unfinished, reported())
            .runs(Place::AtEnd, STREAMED, stream(&[ROLE, ONE, TWO, SPENT, DONE]), Outcome::Breaks(TEXT)),
        row("no usage")
            .cannot(&[Place::BeforeContent, Place::MidContent], BOTH, "it is at the end")
            .runs(Place::AtEnd, PLAIN, plain_whole(json!({})), whole(Usage::Estimated))
            .runs(Place::AtEnd, STREAMED, stream(&[ROLE, ONE, TWO, STOP, DONE]), whole(Usage::Estimated)),
        row("usage in an odd place")
            .cannot(&[Place::BeforeContent, Place::MidContent], PLAIN, "fields of an object have no order")
            .runs(Place::AtEnd, PLAIN, plain_whole(json!({"x_groq": {"usage": usage()}})), reported())
            .runs(Place::BeforeContent, STREAMED, spent(&[SPENT, ROLE, ONE, TWO, STOP, DONE]), reported())
            .runs(Place::MidContent, STREAMED, spent(&[ROLE, &with_usage("one ", None), TWO, STOP, DONE]), reported())
            .runs(Place::AtEnd, STREAMED, spent(&[ROLE, ONE, &with_usage("two", Some("stop")), DONE]), reported()),
        strange("comments between the events", comment, [(); 3].map(|()| reported())),
        strange("empty lines between the events", "\n\n\n\n", [(); 3].map(|()| reported())),
        strange("events that say nothing", &event("{\"choices\":[]}"), [(); 3].map(|()| reported())),
        strange("names, numbers and pauses of events", "id: 7\nretry: 10\n\n", [(); 3].map(|()| reported())),
        row("empty lines before a plain answer")
            .runs(
                Place::BeforeContent,
                PLAIN,
                bytes(
                    JSON,
                    &format!("\n\n\n{}", plain_whole(json!({"usage": usage()}))["body"].as_str().unwrap_or_default()),
                ),
                reported(),
            )
            .cannot(LATER, PLAIN, "it would be white space like any other")
            .cannot(BODY, STREAMED, "it would be a stream"),
    ]
}
