//! Clients: they ask, read what comes as a server would hand it on, leave early, and judge what they got.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freeway_engine::{Ask, Engine, Reply, StreamBody};
use freeway_policy::Caller;
use freeway_types::RequestId;
use http_body::Body;
use serde_json::{Value, json};

use crate::chance::mixed;
use crate::reached::Rare;
use crate::scenario::Call;
use crate::world::World;

/// What a client got.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A whole answer, plain or streamed.
    Whole,
    /// An error, in its words.
    Failed(String),
    /// A stream that told its client that it broke.
    Broken,
    /// The client left.
    Left,
    /// The gateway's life ended first.
    Lost,
}

/// The text that ends a request's message, and so the answer to it.
pub(crate) fn mark(number: usize) -> String {
    format!("end#{number};")
}

/// The number of the request whose body this is.
pub(crate) fn number_in(body: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(body).ok()?;
    text.split_once("end#")?.1.split_once(';')?.0.parse().ok()
}

fn body(call: &Call, number: usize) -> Bytes {
    let words = "tide ".repeat(usize::try_from(call.words).unwrap_or(1));
    let mut body = json!({
        "model": call.model,
        "stream": call.stream,
        "messages": [{ "role": "user", "content": format!("{words}{}", mark(number)) }],
    });
    if let Some(most) = call.max_tokens {
        body["max_tokens"] = json!(most);
    }
    Bytes::from(body.to_string())
}

/// Asks, and stays until the end or until it leaves.
pub(crate) async fn ask(
    world: Arc<World>,
    life: u64,
    engine: Arc<Engine>,
    call: Call,
    (number, id): (usize, RequestId),
) -> Outcome {
    let now = engine.now();
    let ask = Ask {
        id,
        received: now,
        body: body(&call, number),
        caller: Caller::Operator,
        caller_name: "operator".to_owned(),
        tier: call.is_patient.then(|| "patient".to_owned()),
        data: None,
        min_quality: None,
        rescue: call.rescue.map(str::to_owned),
        deadline: call.deadline_ms.map(Duration::from_millis),
    };
    let patience = call.leaves_ms.map_or(Duration::from_secs(7_200), Duration::from_millis);
    let mut seen = false;
    let got = tokio::time::timeout(patience, converse(&world, life, engine, ask, number, &mut seen)).await;
    if seen {
        world.streams(false);
    }
    if !world.lives(life) {
        return Outcome::Lost;
    }
    match got {
        Ok(outcome) => outcome,
        Err(_) if call.leaves_ms.is_some() => {
            if seen {
                world.note(Rare::LeftInMidStream);
            }
            Outcome::Left
        }
        Err(_) => {
            world.fail(format!("request {number} had no end after two hours"));
            Outcome::Left
        }
    }
}

async fn converse(world: &World, life: u64, engine: Arc<Engine>, ask: Ask, number: usize, seen: &mut bool) -> Outcome {
    let asked: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
    let asked = asked["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
    let answer = engine.serve(ask).await;
    if !world.lives(life) {
        return Outcome::Lost;
    }
    if answer.attempts > 1 && answer.provider.is_some() {
        world.note(Rare::AnotherTargetServed);
    }
    match answer.reply {
        Reply::Whole(body) => {
            judge_whole(world, &body, number);
            Outcome::Whole
        }
        Reply::Failed(error) => {
            if error.code == "quota_exhausted" {
                world.note(Rare::NothingLeftTold);
            }
            Outcome::Failed(format!("{} {}: {}", error.status, error.code, error.message))
        }
        Reply::Stream(body) => {
            if answer.provider.is_none() {
                world.note(Rare::HeldBeforeFirstContent);
            }
            let text = read(world, life, *body, seen).await;
            if world.lives(life) { judge_stream(world, &text, number, &asked) } else { Outcome::Lost }
        }
    }
}

async fn read(world: &World, life: u64, mut body: StreamBody, seen: &mut bool) -> String {
    let mut text = String::new();
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if !world.lives(life) {
            break;
        }
        if let Ok(bytes) = frame.into_data() {
            text.push_str(&String::from_utf8_lossy(&bytes));
            if !*seen && text.contains("data: ") {
                *seen = true;
                world.streams(true);
            }
        }
    }
    text
}

/// A whole answer has all of its text, unless it says that it was cut short or is empty.
fn judge_whole(world: &World, body: &[u8], number: usize) {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return world.fail(format!("request {number} got a body that is not JSON"));
    };
    let choice = &answer["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap_or_default();
    world.tell("client got", [number as u64, text.bytes().fold(0, |sum, byte| mixed(sum, u64::from(byte)))]);
    if choice["finish_reason"] == "stop" && !text.is_empty() && !text.contains(&mark(number)) {
        world.fail(format!("request {number} got an answer without its end: {text}"));
    }
    if choice["finish_reason"].is_null() {
        world.fail(format!("request {number} got an answer without a finish reason"));
    }
}

/// A stream is whole with a finish reason, all of its text and the end marker, or it says that it broke.
fn judge_stream(world: &World, text: &str, number: usize, asked: &str) -> Outcome {
    let mut said = String::new();
    let (mut finish, mut error, mut ended) = (None, None, false);
    for data in text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
        if ended {
            world.fail(format!("request {number}: something came after the end marker: {data}"));
        }
        if data == "[DONE]" {
            ended = true;
            continue;
        }
        let Ok(event) = serde_json::from_str::<Value>(data) else {
            world.fail(format!("request {number}: an event is not JSON: {data}"));
            continue;
        };
        if !event["error"].is_null() {
            error = Some(event["error"]["code"].as_str().unwrap_or_default().to_owned());
        }
        match event["freeway"]["rescued"].as_str() {
            Some("restart") => {
                world.note(Rare::StreamBegunAnew);
                said.clear();
                finish = None;
            }
            Some(_) => world.note(Rare::StreamWentOn),
            None => {}
        }
        let choice = &event["choices"][0];
        said.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        finish = choice["finish_reason"].as_str().map(str::to_owned).or(finish);
    }
    world.tell("client read", [number as u64, said.bytes().fold(0, |sum, byte| mixed(sum, u64::from(byte)))]);
    match (ended, error) {
        (true, None) => {
            // Who says it is named in front; what follows is said once, and whole.
            let is_short = finish.as_deref() == Some("stop")
                && said.split_once(" heard: ").is_none_or(|(model, heard)| model.len() > 2 || heard != asked);
            if finish.is_none() || is_short {
                world.fail(format!("request {number}: a stream that is not whole has an end marker: {text}"));
            }
            Outcome::Whole
        }
        (false, Some(code)) => {
            if code == "upstream_stream_broken" {
                world.note(Rare::BrokenStreamTold);
            }
            Outcome::Broken
        }
        (true, Some(code)) => {
            world.fail(format!("request {number}: a stream has both an end marker and the error {code}"));
            Outcome::Broken
        }
        (false, None) => {
            world.fail(format!("request {number}: a stream ended without a word: {text}"));
            Outcome::Broken
        }
    }
}
