//! What will be sent, step by step, before any of it is: an answer, or what a
//! fault makes of it. Nothing here touches a socket.

use std::collections::BTreeMap;
use std::time::Duration;

use freeway_catalog::StreamUsage;
use serde_json::{Value, json};

use crate::answer::{Answer, Piece};
use crate::fault::FaultKind;
use crate::stopping;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";
/// The last chunk of a chunked body.
pub(crate) const END: &[u8] = b"0\r\n\r\n";
/// How long sent bytes get to arrive before a reset overtakes them.
pub(crate) const BEFORE_RESET: Duration = Duration::from_millis(20);

/// One step of an answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Wait.
    Pause(Duration),
    /// The answer is complete: count its tokens and give its place back. Comes before the last bytes, since whoever
    /// has read them may send the next request at once.
    Settle,
    /// The answer ends here without being complete: count what was sent, and give its place back.
    GiveUp,
    /// Send the head.
    Head(Head),
    /// Send these bytes as they are. They stand for so many output tokens.
    Bytes(Vec<u8>, u64),
    /// Send nothing more, and wait for the client to leave.
    Hang,
    /// Reset the connection.
    Reset,
    /// Close the connection.
    Close,
}

/// The head of an answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    /// The body's length; chunked if there is none.
    pub(crate) length: Option<usize>,
    /// Whether rate-limit headers go with it.
    pub(crate) figures: bool,
}

/// How an answer is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) stream_usage: StreamUsage,
    pub(crate) first_byte: Duration,
    pub(crate) pace: Duration,
}

/// A complete answer of known length: refusals, lists, pages.
pub(crate) fn whole(status: u16, content_type: &str, headers: Vec<(String, String)>, body: Vec<u8>) -> Vec<Step> {
    let head =
        Head { status, content_type: Some(content_type.to_owned()), headers, length: Some(body.len()), figures: false };
    vec![Step::Head(head), Step::Bytes(body, 0)]
}

/// A complete answer in JSON.
pub(crate) fn whole_json(status: u16, headers: Vec<(String, String)>, body: &Value) -> Vec<Step> {
    whole(status, JSON, headers, body.to_string().into_bytes())
}

/// An answer of which the text is given: JSON if it is.
pub(crate) fn whole_text(status: u16, headers: Vec<(String, String)>, body: String) -> Vec<Step> {
    let kind = if body.trim_start().starts_with(['{', '[']) { JSON } else { "text/plain; charset=utf-8" };
    whole(status, kind, headers, body.into_bytes())
}

/// What a fault that stands in the way of any answer sends. `None` for the others.
pub(crate) fn instead(fault: &FaultKind) -> Option<Vec<Step>> {
    Some(match fault {
        FaultKind::Status { status, body, headers, content_type } => {
            stated(*status, body.as_ref(), headers, content_type.as_deref())
        }
        FaultKind::BrokenRefusal { status, body, headers, at, how } => {
            let steps = stated(*status, body.as_ref(), headers, None);
            stopping::in_head(*at, *how).unwrap_or_else(|| stopping::broken(steps, false, *at, *how))
        }
        FaultKind::Html { status } => {
            let page =
                format!("<!DOCTYPE html>\n<html><head><title>{status}</title></head><body>simulated</body></html>\n");
            whole(*status, "text/html", Vec::new(), page.into_bytes())
        }
        FaultKind::Reset => vec![Step::Reset],
        FaultKind::ResetMidHeaders => {
            let part = b"HTTP/1.1 200 OK\r\ncontent-type: applic".to_vec();
            vec![Step::Bytes(part, 0), Step::Pause(BEFORE_RESET), Step::Reset]
        }
        FaultKind::Silence => vec![Step::Hang],
        FaultKind::Break { at, how } => return stopping::in_head(*at, *how),
        _ => return None,
    })
}

/// An answer of this status. A body that is a string goes out as it is, anything else as JSON.
fn stated(
    status: u16,
    body: Option<&Value>,
    headers: &BTreeMap<String, String>,
    content_type: Option<&str>,
) -> Vec<Step> {
    let headers = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    let (usual, body) = match body {
        Some(Value::String(text)) => ("text/plain; charset=utf-8", text.clone()),
        Some(value) => (JSON, value.to_string()),
        None => (JSON, simulated_error(status).to_string()),
    };
    whole(status, content_type.unwrap_or(usual), headers, body.into_bytes())
}

fn simulated_error(status: u16) -> Value {
    json!({ "error": {
        "message": format!("A simulated fault with status {status}."), "type": "simulated", "param": null, "code": null
    } })
}

/// The answer as a fault changes what it says, if it does.
pub(crate) fn altered(answer: Answer, fault: Option<&FaultKind>) -> Answer {
    match fault {
        Some(FaultKind::Empty) => answer.emptied(),
        Some(FaultKind::HugeEvent { bytes }) => answer.inflated(*bytes),
        _ => answer,
    }
}

/// How an answer goes out, spoilt by a fault if there is one.
pub(crate) fn play(answer: &Answer, manner: Manner, fault: Option<&FaultKind>) -> Vec<Step> {
    let manner = match fault {
        Some(FaultKind::Slow { first_byte_ms, pace_ms }) => Manner {
            first_byte: Duration::from_millis(*first_byte_ms),
            pace: Duration::from_millis(*pace_ms),
            ..manner
        },
        _ => manner,
    };
    let mut steps = vec![Step::Pause(manner.first_byte)];
    if manner.stream {
        streamed(answer, manner, fault, &mut steps);
    } else {
        plain(answer, fault, &mut steps);
    }
    match fault {
        Some(FaultKind::Break { at, how }) => stopping::broken(steps, manner.stream, *at, *how),
        Some(FaultKind::Drip { at, pause_ms }) => {
            stopping::dripping(steps, manner.stream, *at, Duration::from_millis(*pause_ms))
        }
        _ => steps,
    }
}

// === plain ===

fn plain(answer: &Answer, fault: Option<&FaultKind>, steps: &mut Vec<Step>) {
    steps.push(Step::Settle);
    let mut body = answer.body(&answer.usage(lie(fault)));
    match fault {
        Some(FaultKind::EmptyBody) => body.clear(),
        Some(FaultKind::ErrorIn200 { error }) => body = json!({ "error": error }).to_string().into_bytes(),
        Some(FaultKind::MalformedEvent { .. }) => body = b"{\"id\": \"sim\", \"choices\": [{]".to_vec(),
        Some(FaultKind::TruncatedJson) => body.truncate(body.len() / 2),
        _ => {}
    }
    steps.push(Step::Head(head(JSON, Some(body.len()), fault)));
    let half = body.len() / 2;
    match breaking(fault) {
        None => steps.push(Step::Bytes(body, 0)),
        Some((_, mut end)) => {
            body.truncate(half);
            steps.push(Step::Bytes(body, 0));
            steps.append(&mut end);
        }
    }
}

// === streamed ===

fn streamed(answer: &Answer, manner: Manner, fault: Option<&FaultKind>, steps: &mut Vec<Step>) {
    if fault == Some(&FaultKind::EmptyBody) {
        steps.extend([Step::Settle, Step::Head(head(EVENTS, Some(0), fault))]);
        return;
    }
    steps.push(Step::Head(head(EVENTS, None, fault)));
    let breaking = breaking(fault);
    let events = events(answer, manner, fault);
    let last = events.len().saturating_sub(1);
    for (position, event) in events.into_iter().enumerate() {
        if breaking.as_ref().is_some_and(|(after, _)| *after == position) {
            break;
        }
        if position > 0 {
            steps.push(Step::Pause(manner.pace));
        }
        if position == last && breaking.is_none() {
            steps.push(Step::Settle);
        }
        steps.push(Step::Bytes(chunk(event.json.as_bytes()), event.tokens));
    }
    match breaking {
        None => steps.push(Step::Bytes(END.to_vec(), 0)),
        Some((_, mut end)) => steps.append(&mut end),
    }
}

/// The events as they go out, `data:` and blank line included.
fn events(answer: &Answer, manner: Manner, fault: Option<&FaultKind>) -> Vec<Piece> {
    if let Some(FaultKind::ErrorIn200 { error }) = fault {
        return vec![event(&json!({ "error": error }).to_string(), 0)];
    }
    let with_usage = match manner.stream_usage {
        StreamUsage::Option => manner.include_usage,
        StreamUsage::Always => true,
        StreamUsage::Never => false,
    };
    let mut pieces = answer.pieces(with_usage);
    if with_usage {
        pieces.push(answer.usage_piece(&answer.usage(lie(fault))));
    }
    let mut events: Vec<Piece> = pieces.iter().map(|piece| event(&piece.json, piece.tokens)).collect();
    match fault {
        Some(FaultKind::MalformedEvent { at }) => {
            let place = (*at).min(events.len() - 1);
            events[place] = event("{\"id\": \"sim\", \"choices\": [{]", 0);
        }
        Some(FaultKind::TruncatedJson) => {
            // The stream ends inside its middle event.
            events.truncate(events.len() / 2 + 1);
            if let Some(end) = events.last_mut() {
                end.json.truncate(end.json.floor_char_boundary(end.json.len() / 2));
            }
            return events;
        }
        Some(FaultKind::NoDone) => return events,
        _ => {}
    }
    events.push(event("[DONE]", 0));
    events
}

fn event(data: &str, tokens: u64) -> Piece {
    Piece { json: format!("data: {data}\n\n"), tokens }
}

/// A piece of a chunked body.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    framed
}

// === both ===

fn head(content_type: &str, length: Option<usize>, fault: Option<&FaultKind>) -> Head {
    let content_type = match fault {
        Some(FaultKind::WrongContentType) => "text/plain; charset=utf-8",
        _ => content_type,
    };
    Head { status: 200, content_type: Some(content_type.to_owned()), headers: Vec::new(), length, figures: true }
}

fn lie(fault: Option<&FaultKind>) -> Option<u64> {
    match fault {
        Some(FaultKind::LieUsage { tokens }) => Some(*tokens),
        _ => None,
    }
}

/// After how many pieces the answer breaks off, and how.
fn breaking(fault: Option<&FaultKind>) -> Option<(usize, Vec<Step>)> {
    match fault? {
        FaultKind::ResetMidBody { after_events } => Some((*after_events, vec![Step::Pause(BEFORE_RESET), Step::Reset])),
        FaultKind::Stall { after_events } => Some((*after_events, vec![Step::Hang])),
        FaultKind::Cut { after_events, abrupt: true } => Some((*after_events, vec![Step::Close])),
        FaultKind::Cut { after_events, abrupt: false } => {
            Some((*after_events, vec![Step::GiveUp, Step::Bytes(END.to_vec(), 0), Step::Close]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Position, Stop};
    use crate::request::ChatRequest;

    fn played(stream: bool, fault: Option<&FaultKind>) -> Vec<Step> {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"one two three"}]}"#;
        let answer = Answer::to(ChatRequest::parse(body).unwrap(), 1, 1, 0);
        let manner = Manner {
            stream,
            include_usage: false,
            stream_usage: StreamUsage::Option,
            first_byte: Duration::ZERO,
            pace: Duration::ZERO,
        };
        play(&altered(answer, fault), manner, fault)
    }

    fn text(steps: &[Step]) -> String {
        let bytes = steps.iter().filter_map(|step| match step {
            Step::Bytes(bytes, _) => Some(bytes.as_slice()),
            _ => None,
        });
        String::from_utf8(bytes.collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn a_stream_is_settled_before_its_last_event() {
        let steps = played(true, None);
        let settled = steps.iter().position(|step| *step == Step::Settle).unwrap();
        assert!(text(&steps[..settled]).contains("\"finish_reason\":\"stop\""));
        assert!(text(&steps[settled..]).ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"));
    }

    #[test]
    fn a_broken_answer_is_never_settled_as_complete() {
        for fault in [
            FaultKind::ResetMidBody { after_events: 2 },
            FaultKind::Stall { after_events: 2 },
            FaultKind::Cut { after_events: 2, abrupt: false },
        ] {
            let steps = played(true, Some(&fault));
            assert!(!steps.contains(&Step::Settle));
            assert_eq!(text(&steps).matches("data: ").count(), 2);
            assert!(!text(&steps).contains("[DONE]"));
        }
    }

    #[test]
    fn a_refusal_stops_in_its_body_and_keeps_its_head() {
        let stopped = |at, how| {
            let headers = BTreeMap::from([("Retry-After".to_owned(), "7".to_owned())]);
            let body = Some(json!({"error": 1}));
            instead(&FaultKind::BrokenRefusal { status: 429, body, headers, at, how }).unwrap()
        };
        let cut = stopped(Position::MidContent, Stop::Close);
        let Step::Head(head) = &cut[0] else { panic!("{cut:?}") };
        assert_eq!((head.status, head.length), (429, None));
        assert_eq!(head.headers, [("retry-after".to_owned(), "7".to_owned())]);
        assert_eq!((text(&cut).as_str(), cut.last()), ("5\r\n{\"err\r\n", Some(&Step::Close)));
        assert_eq!(stopped(Position::BeforeHead, Stop::Hang), [Step::Hang]);
        assert_eq!(text(&stopped(Position::BeforeContent, Stop::Hang)), "");
        assert!(text(&stopped(Position::AtEnd, Stop::End)).ends_with("{\"error\":1}\r\n0\r\n\r\n"));
    }

    #[test]
    fn spoilt_json_is_not_json() {
        for fault in [FaultKind::TruncatedJson, FaultKind::MalformedEvent { at: 0 }] {
            let body = text(&played(false, Some(&fault)));
            assert!(serde_json::from_str::<Value>(&body).is_err());
        }
        assert!(text(&played(true, Some(&FaultKind::MalformedEvent { at: 1 }))).contains("[{]"));
        assert!(!text(&played(true, Some(&FaultKind::NoDone))).contains("[DONE]"));
    }
}
