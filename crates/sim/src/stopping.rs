//! Answers that stop at a certain place, or go out a few bytes at a time: what
//! these faults make of the steps of an answer to which nothing else happens.

use std::time::Duration;

use crate::fault::{Position, Stop};
use crate::script::{BEFORE_RESET, END, Head, Step, chunk};

/// What is sent of a head that is not sent whole.
const PART_OF_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: applic";
/// How often, and how many times, something is said that says nothing.
const CHATTER: (Duration, usize) = (Duration::from_millis(50), 200);
/// Bytes that drip at a time.
const DROP: usize = 16;
/// What the piece of a stream holds that has the finish reason.
const FINISH: &[u8] = b"\"finish_reason\":\"";

/// A stop before the body, in place of any answer. `None` for later places.
pub(crate) fn in_head(at: Position, how: Stop) -> Option<Vec<Step>> {
    let mut steps = match at {
        Position::BeforeHead => Vec::new(),
        Position::InHead => vec![Step::Bytes(PART_OF_HEAD.to_vec(), 0)],
        _ => return None,
    };
    match how {
        Stop::End | Stop::Close => steps.push(Step::Close),
        Stop::Reset => steps.extend([Step::Pause(BEFORE_RESET), Step::Reset]),
        Stop::Hang | Stop::Chatter => steps.push(Step::Hang),
    }
    Some(steps)
}

/// An answer that stops in its body.
pub(crate) fn broken(steps: Vec<Step>, streamed: bool, at: Position, how: Stop) -> Vec<Step> {
    let mut made = match streamed {
        true => first_pieces(steps, at),
        false => first_bytes(steps, at),
    };
    match how {
        Stop::End => made.extend([Step::GiveUp, Step::Bytes(END.to_vec(), 0), Step::Close]),
        Stop::Close => made.push(Step::Close),
        Stop::Reset => made.extend([Step::Pause(BEFORE_RESET), Step::Reset]),
        Stop::Hang => made.push(Step::Hang),
        Stop::Chatter => {
            let nothing: &[u8] = if streamed { b": still there\n\n" } else { b"\n" };
            for _ in 0..CHATTER.1 {
                made.extend([Step::Pause(CHATTER.0), Step::Bytes(chunk(nothing), 0)]);
            }
            made.push(Step::Hang);
        }
    }
    made
}

/// The steps of a stream up to a place.
fn first_pieces(steps: Vec<Step>, at: Position) -> Vec<Step> {
    let end = finish(&steps).map_or(0, |place| place + 1);
    let pieces = steps[..end].iter().filter(|step| is_bytes(step)).count();
    let kept = match at {
        Position::AtEnd => pieces,
        Position::MidContent => pieces / 2,
        _ => 1,
    };
    let mut sent = 0;
    let is_before = move |step: &Step| {
        sent += usize::from(is_bytes(step));
        sent <= kept
    };
    steps.into_iter().take_while(is_before).filter(|step| *step != Step::Settle).collect()
}

/// The steps of a plain answer up to a place. It is sent in chunks, so that its end does not show beforehand.
fn first_bytes(steps: Vec<Step>, at: Position) -> Vec<Step> {
    let cut = |body: Vec<u8>| match at {
        Position::AtEnd => Step::Bytes(chunk(&body), 0),
        Position::MidContent => Step::Bytes(chunk(&body[..body.len() / 2]), 0),
        _ => Step::Bytes(Vec::new(), 0),
    };
    let change = |step| match step {
        Step::Head(head) => Step::Head(Head { length: None, ..head }),
        Step::Bytes(body, _) => cut(body),
        other => other,
    };
    steps.into_iter().filter(|step| *step != Step::Settle).map(change).collect()
}

/// An answer of which one part goes out drop by drop.
pub(crate) fn dripping(steps: Vec<Step>, streamed: bool, at: Position, pause: Duration) -> Vec<Step> {
    let finish = finish(&steps).unwrap_or(steps.len());
    let first = steps.iter().position(is_bytes).unwrap_or(0);
    let mut made = Vec::new();
    if at == Position::BeforeHead {
        made.push(Step::Pause(pause * 10));
    }
    for (place, step) in steps.into_iter().enumerate() {
        let is_part = match at {
            Position::BeforeContent => place == first,
            Position::MidContent => place > first && place < finish,
            Position::AtEnd => place >= finish,
            Position::BeforeHead | Position::InHead => false,
        };
        match step {
            Step::Head(head) if at == Position::InHead => drip(&raw(&head), 0, pause, &mut made),
            Step::Bytes(bytes, tokens) if streamed && is_part => drip(&bytes, tokens, pause, &mut made),
            Step::Bytes(bytes, _) if !streamed => drip_third(&bytes, at, pause, &mut made),
            other => made.push(other),
        }
    }
    made
}

/// Bytes in drops.
fn drip(bytes: &[u8], tokens: u64, pause: Duration, made: &mut Vec<Step>) {
    for (place, drop) in bytes.chunks(DROP).enumerate() {
        let tokens = if place == 0 { tokens } else { 0 };
        made.extend([Step::Bytes(drop.to_vec(), tokens), Step::Pause(pause)]);
    }
}

/// A body of which one third goes out in drops.
fn drip_third(body: &[u8], at: Position, pause: Duration, made: &mut Vec<Step>) {
    let thirds = [Position::BeforeContent, Position::MidContent, Position::AtEnd];
    for (part, third) in body.chunks(body.len().div_ceil(3).max(1)).zip(thirds) {
        match third == at {
            true => drip(part, 0, pause, made),
            false => made.push(Step::Bytes(part.to_vec(), 0)),
        }
    }
}

/// A head as it goes over the wire, without what else a provider tells in it.
fn raw(head: &Head) -> Vec<u8> {
    let kind = head.content_type.as_deref().unwrap_or_default();
    let framing = match head.length {
        Some(length) => format!("content-length: {length}"),
        None => "transfer-encoding: chunked".to_owned(),
    };
    format!("HTTP/1.1 {} OK\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n", head.status).into_bytes()
}

/// Where the piece stands that holds the finish reason.
fn finish(steps: &[Step]) -> Option<usize> {
    steps.iter().position(|step| match step {
        Step::Bytes(bytes, _) => bytes.windows(FINISH.len()).any(|window| window == FINISH),
        _ => false,
    })
}

fn is_bytes(step: &Step) -> bool {
    matches!(step, Step::Bytes(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(length: Option<usize>) -> Step {
        Step::Head(Head {
            status: 200,
            content_type: Some("text/event-stream".to_owned()),
            headers: Vec::new(),
            length,
            figures: true,
        })
    }

    fn stream() -> Vec<Step> {
        let pieces = ["role", "one", "two", "\"finish_reason\":\"stop\"", "[DONE]"];
        let mut steps = vec![head(None)];
        steps.extend(pieces.map(|piece| Step::Bytes(piece.as_bytes().to_vec(), 0)));
        steps.insert(5, Step::Settle);
        steps
    }

    fn text(steps: &[Step]) -> String {
        let bytes = steps.iter().filter_map(|step| match step {
            Step::Bytes(bytes, _) => Some(bytes.as_slice()),
            _ => None,
        });
        String::from_utf8(bytes.collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn a_stream_stops_where_it_is_told_to() {
        let sent = |at| text(&broken(stream(), true, at, Stop::Close));
        assert_eq!(sent(Position::BeforeContent), "role");
        assert_eq!(sent(Position::MidContent), "roleone");
        assert_eq!(sent(Position::AtEnd), "roleonetwo\"finish_reason\":\"stop\"");
        for how in [Stop::End, Stop::Close, Stop::Reset, Stop::Hang, Stop::Chatter] {
            assert!(!broken(stream(), true, Position::AtEnd, how).contains(&Step::Settle), "{how:?}");
        }
    }

    #[test]
    fn a_plain_answer_stops_without_saying_so_beforehand() {
        let plain = || vec![Step::Settle, head(Some(6)), Step::Bytes(b"{\"a\":1".to_vec(), 0)];
        let steps = broken(plain(), false, Position::MidContent, Stop::End);
        assert_eq!((&steps[0], text(&steps).as_str()), (&head(None), "3\r\n{\"a\r\n0\r\n\r\n"));
        let whole = broken(plain(), false, Position::AtEnd, Stop::Hang);
        assert_eq!((text(&whole).as_str(), whole.last()), ("6\r\n{\"a\":1\r\n", Some(&Step::Hang)));
    }

    #[test]
    fn a_stop_in_the_head_comes_in_the_place_of_an_answer() {
        assert_eq!(in_head(Position::BeforeHead, Stop::Close), Some(vec![Step::Close]));
        assert_eq!(in_head(Position::InHead, Stop::Hang).map(|steps| steps.len()), Some(2));
        assert_eq!(in_head(Position::BeforeContent, Stop::Hang), None);
    }

    #[test]
    fn what_drips_is_whole_in_the_end() {
        let pause = Duration::from_millis(1);
        let long = "x".repeat(144);
        let plain = vec![head(Some(144)), Step::Bytes(long.clone().into_bytes(), 0)];
        for at in [Position::BeforeContent, Position::MidContent, Position::AtEnd] {
            let steps = dripping(plain_of(&plain), false, at, pause);
            assert_eq!(text(&steps), long);
            assert_eq!(steps.iter().filter(|step| **step == Step::Pause(pause)).count(), 3, "{at:?}");
            assert_eq!(text(&dripping(stream(), true, at, pause)), text(&stream()));
        }
        let steps = dripping(stream(), true, Position::InHead, pause);
        assert!(text(&steps).starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"));
        assert_eq!(dripping(stream(), true, Position::BeforeHead, pause)[0], Step::Pause(pause * 10));
    }

    fn plain_of(steps: &[Step]) -> Vec<Step> {
        steps
            .iter()
            .map(|step| match step {
                Step::Bytes(bytes, tokens) => Step::Bytes(bytes.clone(), *tokens),
                _ => head(Some(144)),
            })
            .collect()
    }
}
