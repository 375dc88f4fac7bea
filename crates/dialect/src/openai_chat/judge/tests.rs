use proptest::prelude::*;

use super::*;
use crate::sse::{Decoder, MAX_EVENT_BYTES};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const ROLE: &str = r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
const TEXT: &str = r#"{"choices":[{"delta":{"content":"hi"}}]}"#;
const STOP: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
const FULL: &str = r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#;
/// Bytes of a stream that arrive at once.
const PIECE: usize = 64 * 1024;
const SPENT: &str = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":0}}"#;

fn head<'a>(content_type: &'a str, content_coding: &'a str) -> Head<'a> {
    let (content_type, content_coding) = (content_type.as_bytes(), content_coding.as_bytes());
    Head { status: 200, content_type, content_coding, streamed: false }
}

fn said(content: &str, finish: &str) -> String {
    format!(r#"{{"choices":[{{"message":{{"content":{content}}},"finish_reason":"{finish}"}}]}}"#)
}

#[test]
fn a_head_says_how_its_answer_is_read() {
    let table = [
        (200, JSON, "", false, Ok(Form::Whole)),
        (200, JSON, "Identity", true, Ok(Form::Whole)),
        (200, "", "", true, Ok(Form::Whole)),
        (200, EVENTS, "", true, Ok(Form::Stream)),
        (200, "Text/Event-Stream; charset=utf-8", "", true, Ok(Form::Stream)),
        (200, EVENTS, "", false, Ok(Form::Whole)),
        (204, JSON, "", false, Err(Flaw::Status)),
        (206, EVENTS, "", true, Err(Flaw::Status)),
        (200, JSON, "gzip", false, Err(Flaw::Compressed)),
        (200, EVENTS, "br", true, Err(Flaw::Compressed)),
    ];
    for (status, kind, coding, streamed, expected) in table {
        let head = Head { status, streamed, ..head(kind, coding) };
        assert_eq!(head.form(), expected, "{status} {kind} {coding} {streamed}");
    }
}

#[test]
fn each_flaw_of_a_whole_answer() {
    let good = said("\"hi\"", "stop");
    let spent = said("\"\"", "length").replace("}]}", "}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}");
    let usage = Some(Usage { input: 5, output: 3, ..Usage::default() });
    let table = [
        (JSON, false, good.as_str(), None),
        ("Application/JSON; charset=utf-8", false, &good, None),
        ("", false, &good, None),
        (JSON, false, &said("null", "content_filter"), None),
        (JSON, false, r#"{"error":{"message":"overloaded"}}"#, Some(Flaw::Error)),
        ("text/plain", false, r#"{"error":{"message":"overloaded"}}"#, Some(Flaw::Error)),
        (JSON, true, r#"{"error":{"message":"overloaded"}}"#, Some(Flaw::Error)),
        (JSON, false, &good.replace("]}", r#"],"error":{"message":"late"}}"#), Some(Flaw::Error)),
        (JSON, false, &said("\"hi\"", "error"), Some(Flaw::EndedInError)),
        ("text/html", false, &good, Some(Flaw::ContentType)),
        (JSON, true, &good, Some(Flaw::NotStream)),
        (JSON, false, "", Some(Flaw::NoBytes)),
        ("text/html", false, "<!DOCTYPE html>", Some(Flaw::Page)),
        (JSON, false, "\n <html><body>429</body></html>", Some(Flaw::Page)),
        ("text/plain", false, "no such thing", Some(Flaw::NotJson)),
        ("", true, "data: {}\n\n", Some(Flaw::NotJson)),
        (JSON, false, &good[..good.len() / 2], Some(Flaw::Unreadable)),
        (JSON, false, r#"{"id":"x"}"#, Some(Flaw::Unreadable)),
        (JSON, false, &said("\"\"", "stop"), Some(Flaw::Empty { usage: None })),
        (JSON, false, r#"{"choices":[]}"#, Some(Flaw::Empty { usage: None })),
        (JSON, false, &spent, Some(Flaw::NoRoom { usage })),
    ];
    for (kind, streamed, body, expected) in table {
        let head = Head { streamed, ..head(kind, "") };
        assert_eq!(head.judge(body.as_bytes()).err(), expected, "{kind} {streamed} {body}");
    }
}

/// What comes of an opening: the held bytes if it has content, else what is wrong.
fn open(stream: &[u8], strip_usage: bool) -> Result<Bytes, Flaw> {
    let (mut decoder, mut opening) = (Decoder::default(), Opening::new(strip_usage));
    for piece in stream.chunks(PIECE) {
        decoder.push(piece);
        while let Some(event) = decoder.next()? {
            if opening.take(&event)?.content {
                return Ok(opening.finish().0);
            }
        }
    }
    if let Some(event) = decoder.rest().filter(|event| event.data.is_some())
        && opening.take(&event.ended())?.content
    {
        return Ok(opening.finish().0);
    }
    Err(opening.end())
}

fn events(data: &[&str]) -> String {
    data.iter().map(|data| format!("data: {data}\n\n")).collect()
}

#[test]
fn each_flaw_of_an_opening() {
    let none = Flaw::Empty { usage: None };
    let table = [
        (events(&[ROLE, r#"{"error":{"message":"boom"}}"#]), Flaw::Error),
        (format!("event: error\n{}", events(&[r#"{"message":"boom"}"#])), Flaw::Error),
        (format!("event: error\n{}", events(&[r#"{"code":500}"#])), Flaw::Error),
        (events(&[r#"{"choices":[{"delta":{"content":"hi"},"finish_reason":"error"}]}"#]), Flaw::EndedInError),
        (events(&[ROLE, "[DONE]"]), none),
        (events(&["[DONE]"]), none),
        (events(&[ROLE, STOP]), none),
        (events(&[ROLE, STOP, SPENT, "[DONE]"]), none),
        (events(&[ROLE, FULL, "[DONE]"]), Flaw::NoRoom { usage: None }),
        (events(&[ROLE, FULL]), Flaw::NoRoom { usage: None }),
        (events(&[ROLE, "{\"choices\": [{]"]), Flaw::Event),
        (events(&["<html>"]), Flaw::Event),
        (events(&[&"x".repeat(MAX_EVENT_BYTES + PIECE)]), Flaw::EventTooLong(TooLong)),
        (events(&vec![ROLE; MOST_HELD_BYTES / ROLE.len() + 1]), Flaw::TooMuch),
        (events(&[ROLE]), Flaw::NoEnd),
        (": a comment\n\n".to_owned(), Flaw::NoEnd),
        ("<html>\n\n</html>\n\n".to_owned(), Flaw::NoEnd),
        (String::new(), Flaw::NoEnd),
    ];
    for (stream, expected) in table {
        let start: String = stream.chars().take(200).collect();
        assert_eq!(open(stream.as_bytes(), false), Err(expected), "{start}");
    }
}

#[test]
fn an_opening_holds_what_the_client_gets() {
    let comment = ": waiting\n\n";
    let whole = [comment, &events(&[ROLE, SPENT, TEXT])].concat();
    assert_eq!(open(whole.as_bytes(), false), Ok(Bytes::from(whole.clone())));
    assert_eq!(open(whole.as_bytes(), true), Ok(Bytes::from([comment, &events(&[ROLE, TEXT])].concat())));
    let page = [&events(&[ROLE]), "<html>\n\n", &events(&[TEXT])].concat();
    assert_eq!(open(page.as_bytes(), false), Ok(Bytes::from(events(&[ROLE, TEXT]))));
    let withheld = events(&[ROLE, r#"{"choices":[{"delta":{},"finish_reason":"content_filter"}]}"#]);
    assert_eq!(open(withheld.as_bytes(), false), Ok(Bytes::from(withheld)));
    // Comments are dropped before they cost memory, and never end it.
    let flood = comment.repeat(MOST_HELD_COMMENTS);
    let held = open([flood, events(&[TEXT])].concat().as_bytes(), false).unwrap();
    assert!(held.len() < MOST_HELD_COMMENTS + 2 * comment.len() + 2 * TEXT.len() && held.ends_with(b"\"hi\"}}]}\n\n"));
}

#[test]
fn an_opening_says_what_each_event_used() {
    let mut decoder = Decoder::default();
    decoder.push(
        events(&[SPENT, r#"{"choices":[{"index":1,"delta":{"content":"hi"},"finish_reason":"stop"}]}"#]).as_bytes(),
    );
    let mut opening = Opening::new(true);
    let mut next = || opening.take(&decoder.next().unwrap().unwrap()).unwrap();
    let usage = Some(Usage { input: 5, ..Usage::default() });
    assert_eq!(next(), Heard { content: false, usage, text_bytes: 0 });
    assert_eq!(next(), Heard { content: true, usage: None, text_bytes: 2 });
    assert_eq!(opening.finish().1, 0b10);
}

/// Bytes like those that providers send, cut and mixed.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let known = [ROLE, TEXT, STOP, FULL, SPENT, "[DONE]", "{\"error\":\"no\"}", "data: ", "event: error", "\n", "\n\n"];
    let piece = prop_oneof![
        4 => prop::sample::select(known.map(|known| known.as_bytes().to_vec()).to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    let cut = (piece, 0_usize..40).prop_map(|(mut piece, cut)| {
        if cut > 30 {
            piece.truncate(piece.len() * (cut - 30) / 10);
        }
        piece
    });
    prop::collection::vec(cut, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_input_panics(
        status in 200_u16..300, kind in "(application/json|text/html|text/event-stream|\\PC*)",
        coding in "(|gzip|identity|\\PC*)", streamed: bool, bytes in likely(), strip_usage: bool,
    ) {
        let head = Head { status, streamed, ..head(&kind, &coding) };
        let _ = head.form();
        if let Ok(answer) = head.judge(&bytes) {
            prop_assert!(answer.content || answer.finish == Some(Finish::ContentFilter));
            prop_assert!(!streamed);
        }
        if let Ok(held) = open(&bytes, strip_usage) {
            prop_assert!(!held.is_empty());
        }
    }
}
