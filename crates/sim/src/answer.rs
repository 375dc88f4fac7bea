//! What a simulated model says: the same every time for the same request, seed
//! and ordinal number, and never to be taken for the answer to another request.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::request::{ChatRequest, Format};
use crate::rules::Spend;
use crate::schema;

/// The answer repeats at most this much of the last message.
const REPEATED: usize = 4096;
/// The draw that decides when an answer begins; those below are for its tokens.
const DELAY: u64 = 1 << 19;

/// An answer, complete, before any of it is sent.
#[derive(Debug)]
pub(crate) struct Answer {
    id: String,
    created: i64,
    model: String,
    choices: Vec<Choice>,
    logprobs: bool,
    echo: BTreeMap<String, Box<RawValue>>,
    /// What it truly used.
    pub(crate) spend: Spend,
}

#[derive(Debug)]
struct Choice {
    content: Content,
    finish: &'static str,
    tokens: u64,
}

#[derive(Debug)]
enum Content {
    Text(String),
    Call { id: String, name: String, arguments: String },
}

/// One piece of a streamed answer.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) json: String,
    /// Output tokens that this piece stands for.
    pub(crate) tokens: u64,
}

/// The tokens of a request's input: bytes over four, give or take up to 30 %.
pub(crate) fn input_tokens(request: &ChatRequest, seed: u64, ordinal: u64) -> u64 {
    tokens(request.text_bytes, seed, ordinal, 0)
}

/// How much later an answer begins than the earliest: a part of `spread`, by a draw from the seed.
pub(crate) fn delay(spread: Duration, seed: u64, ordinal: u64) -> Duration {
    let per_mille = mixed(seed ^ mixed(ordinal.wrapping_mul(1 << 20).wrapping_add(DELAY))) % 1001;
    spread * u32::try_from(per_mille).unwrap_or(0) / 1000
}

impl Answer {
    pub(crate) fn to(request: ChatRequest, seed: u64, ordinal: u64, now: i64) -> Self {
        let input = input_tokens(&request, seed, ordinal);
        let choices: Vec<Choice> =
            (0..request.choices).map(|position| Choice::to(&request, seed, ordinal, position)).collect();
        let output = choices.iter().map(|choice| choice.tokens).sum();
        Self {
            id: format!("chatcmpl-sim-{ordinal}"),
            created: now.div_euclid(1_000_000),
            model: request.model,
            choices,
            logprobs: request.logprobs,
            echo: request.echo,
            spend: Spend { input, output },
        }
    }

    /// The same answer with nothing in it.
    pub(crate) fn emptied(mut self) -> Self {
        for choice in &mut self.choices {
            *choice = Choice { content: Content::Text(String::new()), finish: "stop", tokens: 0 };
        }
        self.spend.output = 0;
        self
    }

    /// The same answer with `bytes` letters in one piece.
    pub(crate) fn inflated(mut self, bytes: usize) -> Self {
        for choice in &mut self.choices {
            choice.content = Content::Text("x".repeat(bytes));
        }
        self
    }

    /// The body of an answer that is not streamed.
    pub(crate) fn body(&self, usage: &Value) -> Vec<u8> {
        let choices = self.choices.iter().enumerate().map(|(position, choice)| {
            let mut shown = json!({
                "index": position, "message": choice.message(), "finish_reason": choice.finish, "logprobs": null
            });
            if self.logprobs
                && let Content::Text(text) = &choice.content
            {
                shown["logprobs"] = logprobs(pieces(text));
            }
            shown
        });
        self.object("chat.completion", choices.collect(), Some(usage), true)
    }

    /// The pieces of a streamed answer, without the usage; each says `usage: null` if usage will follow.
    pub(crate) fn pieces(&self, usage_follows: bool) -> Vec<Piece> {
        let mut made = Vec::new();
        let usage = usage_follows.then_some(&Value::Null);
        let deltas: Vec<Vec<(Value, Value)>> = self.choices.iter().map(|choice| choice.deltas(self.logprobs)).collect();
        let longest = deltas.iter().map(Vec::len).max().unwrap_or(0);
        for round in 0..longest {
            for (position, choice) in deltas.iter().enumerate() {
                let Some((delta, logprobs)) = choice.get(round) else { continue };
                let finish = if round + 1 == choice.len() { json!(self.choices[position].finish) } else { Value::Null };
                let shown = json!({ "index": position, "delta": delta, "finish_reason": finish, "logprobs": logprobs });
                // The tokens are spread over the pieces between the first and the last.
                let (all, steps) = (self.choices[position].tokens, choice.len() as u64 - 1);
                let until = |step: u64| all * step / steps.max(1);
                let tokens = if round == 0 { 0 } else { until(round as u64) - until(round as u64 - 1) };
                let json = self.object("chat.completion.chunk", vec![shown], usage, made.is_empty());
                made.push(Piece { json: String::from_utf8_lossy(&json).into_owned(), tokens });
            }
        }
        made
    }

    /// The piece that carries the usage of a stream.
    pub(crate) fn usage_piece(&self, usage: &Value) -> Piece {
        let json = self.object("chat.completion.chunk", Vec::new(), Some(usage), false);
        Piece { json: String::from_utf8_lossy(&json).into_owned(), tokens: 0 }
    }

    /// The usage as it is reported; `lie` is what to report as output instead of the truth.
    pub(crate) fn usage(&self, lie: Option<u64>) -> Value {
        let Spend { input, output } = self.spend;
        let output = lie.unwrap_or(output);
        json!({
            "prompt_tokens": input,
            "completion_tokens": output,
            "total_tokens": input + output,
            "prompt_tokens_details": { "cached_tokens": 0 },
            "completion_tokens_details": { "reasoning_tokens": 0 }
        })
    }

    fn object(&self, object: &'static str, choices: Vec<Value>, usage: Option<&Value>, echo: bool) -> Vec<u8> {
        #[derive(Serialize)]
        struct Object<'a> {
            id: &'a str,
            object: &'static str,
            created: i64,
            model: &'a str,
            system_fingerprint: &'static str,
            choices: Vec<Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            usage: Option<&'a Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            echo: Option<&'a BTreeMap<String, Box<RawValue>>>,
        }
        let made = Object {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            system_fingerprint: "fp_sim",
            choices,
            usage,
            echo: (echo && !self.echo.is_empty()).then_some(&self.echo),
        };
        serde_json::to_vec(&made).unwrap_or_default()
    }
}

// === impl Choice ===

impl Choice {
    fn to(request: &ChatRequest, seed: u64, ordinal: u64, position: usize) -> Self {
        let said = repeated(&request.last_user);
        if let Some(function) = &request.call {
            let arguments = schema::value_for(&function.parameters, said).to_string();
            let tokens = tokens(arguments.len() as u64, seed, ordinal, 1 + position as u64);
            let id = format!("call_sim_{ordinal}_{position}");
            let content = Content::Call { id, name: function.name.clone(), arguments };
            return Self { content, finish: "tool_calls", tokens };
        }
        let mut text = match &request.format {
            Format::Text => plain(request, said, position),
            Format::Object => json!({ "model": request.model, "said": said, "choice": position }).to_string(),
            Format::Schema(schema) => schema::value_for(schema, said).to_string(),
        };
        if let Some(rest) = request.begun.as_ref().and_then(|begun| text.strip_prefix(begun.as_str())) {
            text = rest.to_owned();
        }
        let mut used = tokens(text.len() as u64, seed, ordinal, 1 + position as u64);
        let mut finish = "stop";
        if let Some(most) = request.max_output.filter(|most| *most < used) {
            let kept = usize::try_from(text.len() as u64 * most / used).unwrap_or(text.len());
            text.truncate(text.floor_char_boundary(kept));
            (used, finish) = (most, "length");
        }
        Self { content: Content::Text(text), finish, tokens: used }
    }

    fn message(&self) -> Value {
        match &self.content {
            Content::Text(text) => json!({ "role": "assistant", "content": text }),
            Content::Call { id, name, arguments } => json!({
                "role": "assistant",
                "content": null,
                "tool_calls": [{
                    "id": id, "type": "function", "function": { "name": name, "arguments": arguments }
                }]
            }),
        }
    }

    /// The deltas of this choice with their log probabilities: first the role, last the end.
    fn deltas(&self, with_logprobs: bool) -> Vec<(Value, Value)> {
        let mut made = Vec::new();
        match &self.content {
            Content::Text(text) => {
                made.push((json!({ "role": "assistant", "content": "" }), Value::Null));
                for piece in pieces(text) {
                    let chances = if with_logprobs { logprobs([piece]) } else { Value::Null };
                    made.push((json!({ "content": piece }), chances));
                }
            }
            Content::Call { id, name, arguments } => {
                let first = json!({
                    "role": "assistant",
                    "content": null,
                    "tool_calls": [{
                        "index": 0, "id": id, "type": "function", "function": { "name": name, "arguments": "" }
                    }]
                });
                made.push((first, Value::Null));
                for piece in thirds(arguments) {
                    let delta = json!({ "tool_calls": [{ "index": 0, "function": { "arguments": piece } }] });
                    made.push((delta, Value::Null));
                }
            }
        }
        made.push((json!({}), Value::Null));
        made
    }
}

fn plain(request: &ChatRequest, said: &str, position: usize) -> String {
    let mut text = format!("{} heard: {said}", request.model);
    match request.images {
        0 => {}
        1 => text.push_str(" (and 1 image)"),
        count => text.push_str(&format!(" (and {count} images)")),
    }
    if position > 0 {
        text.push_str(&format!(" (choice {position})"));
    }
    text
}

fn repeated(text: &str) -> &str {
    &text[..text.floor_char_boundary(REPEATED)]
}

/// A text in words, each with the space after it.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

/// A text in up to three parts, cut where a parser of whole values would stumble.
fn thirds(text: &str) -> Vec<&str> {
    let first = text.floor_char_boundary(text.len() / 3);
    let second = text.floor_char_boundary(text.len() * 2 / 3);
    [&text[..first], &text[first..second], &text[second..]].into_iter().filter(|part| !part.is_empty()).collect()
}

fn logprobs<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Value {
    let content: Vec<Value> = pieces
        .into_iter()
        .map(|piece| json!({ "token": piece, "logprob": -0.25, "bytes": piece.as_bytes(), "top_logprobs": [] }))
        .collect();
    json!({ "content": content, "refusal": null })
}

/// Bytes over four, give or take up to 30 % by a draw from the seed.
fn tokens(bytes: u64, seed: u64, ordinal: u64, draw: u64) -> u64 {
    let per_mille = 700 + mixed(seed ^ mixed(ordinal.wrapping_mul(1 << 20).wrapping_add(draw))) % 601;
    (bytes.div_ceil(4) * per_mille / 1000).max(1)
}

/// A number that looks random and is not (the finisher of SplitMix64).
fn mixed(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(extra: &str) -> ChatRequest {
        let body = format!(r#"{{"model":"m-1","messages":[{{"role":"user","content":"the tide is out"}}]{extra}}}"#);
        ChatRequest::parse(body.as_bytes()).unwrap()
    }

    fn body(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body(&answer.usage(None))).unwrap()
    }

    #[test]
    fn the_text_names_the_model_and_what_was_said() {
        let answer = Answer::to(request(r#","n":2"#), 7, 3, 0);
        let body = body(&answer);
        assert_eq!(body["choices"][0]["message"]["content"], "m-1 heard: the tide is out");
        assert_eq!(body["choices"][1]["message"]["content"], "m-1 heard: the tide is out (choice 1)");
        assert_eq!(body["usage"]["total_tokens"], answer.spend.input + answer.spend.output);
    }

    #[test]
    fn the_pieces_of_a_stream_make_the_same_text_and_tokens() {
        let answer = Answer::to(request(""), 7, 3, 0);
        let pieces = answer.pieces(false);
        let text: String = pieces
            .iter()
            .map(|piece| serde_json::from_str::<Value>(&piece.json).unwrap())
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(text, "m-1 heard: the tide is out");
        assert_eq!(pieces.iter().map(|piece| piece.tokens).sum::<u64>(), answer.spend.output);
    }

    #[test]
    fn token_counts_stay_within_their_bounds_and_repeat() {
        for ordinal in 0..1000 {
            let count = tokens(4000, 1, ordinal, 0);
            assert!((700..=1300).contains(&count));
            assert_eq!(count, tokens(4000, 1, ordinal, 0));
        }
        assert_ne!(tokens(4000, 1, 1, 0), tokens(4000, 1, 2, 0));
    }

    #[test]
    fn a_cap_on_output_cuts_the_text() {
        let answer = Answer::to(request(r#","max_tokens":2"#), 7, 3, 0);
        assert_eq!(answer.spend.output, 2);
        assert_eq!(body(&answer)["choices"][0]["finish_reason"], "length");
    }

    #[test]
    fn a_tool_is_called_with_arguments_in_several_pieces() {
        let tools = r#","tools":[{"type":"function","function":{"name":"look","parameters":
            {"type":"object","properties":{"place":{"type":"string"}}}}}]"#;
        let answer = Answer::to(request(tools), 7, 3, 0);
        let pieces = answer.pieces(false);
        assert!(pieces.len() >= 4);
        let arguments: String = pieces
            .iter()
            .map(|piece| serde_json::from_str::<Value>(&piece.json).unwrap())
            .filter_map(|c| {
                c.pointer("/choices/0/delta/tool_calls/0/function/arguments").and_then(Value::as_str).map(str::to_owned)
            })
            .collect();
        assert_eq!(arguments, r#"{"place":"the tide is out"}"#);
        assert_eq!(body(&answer)["choices"][0]["finish_reason"], "tool_calls");
    }

    #[test]
    fn a_wanted_format_is_kept() {
        let schema = r#","response_format":{"type":"json_schema","json_schema":{"name":"s","schema":
            {"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}}}"#;
        let answer = Answer::to(request(schema), 7, 3, 0);
        assert_eq!(body(&answer)["choices"][0]["message"]["content"], r#"{"a":1}"#);
    }

    #[test]
    fn unknown_fields_come_back_digit_for_digit() {
        let answer = Answer::to(request(r#","x_big":123456789012345678901234567890.0"#), 7, 3, 0);
        let text = String::from_utf8(answer.body(&answer.usage(None))).unwrap();
        assert!(text.contains(r#""echo":{"x_big":123456789012345678901234567890.0}"#), "{text}");
    }
}
