//! What an answer says: whether it holds content, how it ended, what it used.

use freeway_types::Usage;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::UpstreamError;

/// The data of the event that ends a stream.
pub const END_MARKER: &[u8] = b"[DONE]";

/// Usage above this is not believed.
const MOST_TOKENS: u64 = 1_000_000_000;

/// What a whole answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether a choice holds text, a tool call, reasoning, audio or a refusal.
    pub content: bool,
    /// How the first choice ended.
    pub finish: Option<Finish>,
    /// What was used, if the provider says so.
    pub usage: Option<Usage>,
    /// Bytes of text in it, for an estimate where no usage is reported.
    pub text_bytes: u64,
}

/// What one chunk of a stream says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Whether it holds something the client can see.
    pub content: bool,
    /// How a choice ended, if one ends here.
    pub finish: Option<Finish>,
    /// The choices that end here, one bit for each index.
    pub finished: u128,
    /// What was used so far, if the provider says so.
    pub usage: Option<Usage>,
    /// Whether it is there for its usage alone: no choices, or such that say nothing.
    pub usage_only: bool,
    /// An error inside the stream.
    pub error: Option<UpstreamError>,
    /// Bytes of text in it.
    pub text_bytes: u64,
}

/// How a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// By itself, with a tool call, or for a reason that is not listed here.
    Stop,
    /// At the most output allowed.
    Length,
    /// Because the provider would not say more.
    ContentFilter,
    /// Because something broke upstream.
    Error,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    x_groq: Option<Groq<'a>>,
}

#[derive(Deserialize)]
struct Groq<'a> {
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

/// Small, because room for four is made where there is one; nearly all have only one of the boxes.
#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    delta: Option<Box<Delta<'a>>>,
    #[serde(borrow, default)]
    message: Option<Box<Delta<'a>>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
    #[serde(borrow, default)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow, default)]
    audio: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct UsageBody {
    #[serde(default)]
    prompt_tokens: Option<f64>,
    #[serde(default)]
    completion_tokens: Option<f64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<f64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<f64>,
}

/// Reads a whole answer.
///
/// # Errors
/// The error that the body holds instead of an answer, or `None` when it is neither.
pub fn read_answer(body: &[u8]) -> Result<Answer, Option<UpstreamError>> {
    let Some(parsed) = parse(body) else {
        let value: Option<Value> = serde_json::from_slice(body).ok();
        return Err(value.as_ref().and_then(UpstreamError::read));
    };
    if let Some(error) = read_error(&parsed) {
        return Err(Some(error));
    }
    let Some(choices) = &parsed.choices else { return Err(bare_error(body)) };
    let text_bytes = choices.iter().map(text_bytes).sum();
    Ok(Answer {
        content: choices.iter().any(holds_content),
        finish: choices.first().and_then(finish),
        usage: usage(&parsed),
        text_bytes,
    })
}

/// Reads the data of one event. `None` when it is not a chunk: not JSON, or not of the right shape.
#[must_use]
pub fn read_chunk(data: &[u8]) -> Option<Chunk> {
    let parsed = parse(data)?;
    let error = read_error(&parsed);
    let usage = usage(&parsed);
    let choices = parsed.choices.as_deref().unwrap_or_default();
    if error.is_none() && parsed.choices.is_none() && usage.is_none() {
        // Not a chunk we know. Either it is an error without its wrapping, or it passes and says nothing.
        return Some(Chunk { error: bare_error(data), ..Chunk::default() });
    }
    Some(Chunk {
        content: choices.iter().any(holds_content),
        finish: choices.iter().find_map(finish),
        finished: choices.iter().filter(|choice| finish(choice).is_some()).map(bit).fold(0, |bits, bit| bits | bit),
        usage_only: usage.is_some() && choices.iter().all(says_nothing),
        usage,
        error,
        text_bytes: choices.iter().map(text_bytes).sum(),
    })
}

/// Text that is checked once is not checked piece by piece; what is not text is no answer.
fn parse(body: &[u8]) -> Option<Body<'_>> {
    serde_json::from_str(std::str::from_utf8(body).ok()?).ok()
}

/// A choice's index as a bit.
fn bit(choice: &Choice<'_>) -> u128 {
    1_u128.checked_shl(choice.index.unwrap_or(0)).unwrap_or(0)
}

/// An error whose fields stand in the body itself.
fn bare_error(body: &[u8]) -> Option<UpstreamError> {
    let value: Value = serde_json::from_slice(body).ok()?;
    UpstreamError::read(&value)
}

fn read_error(parsed: &Body<'_>) -> Option<UpstreamError> {
    let raw =
        parsed.error.filter(|raw| raw.get().starts_with('{') || (raw.get().starts_with('"') && raw.get() != "\"\""))?;
    let mut holder = serde_json::Map::new();
    holder.insert("error".to_owned(), serde_json::from_str(raw.get()).ok()?);
    UpstreamError::read(&Value::Object(holder))
}

/// Whether a JSON value says something: not null, not an empty string or list.
fn says_something(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| !matches!(raw.get(), "null" | "\"\"" | "[]" | "{}"))
}

/// The message of a whole answer, and the delta of a chunk; some providers send both.
fn parts<'a, 'b>(choice: &'b Choice<'a>) -> impl Iterator<Item = &'b Delta<'a>> {
    choice.delta.as_deref().into_iter().chain(choice.message.as_deref())
}

/// Whether a client would miss nothing without it: no content, no role, no end.
fn says_nothing(choice: &Choice<'_>) -> bool {
    !holds_content(choice) && finish(choice).is_none() && parts(choice).all(|delta| delta.role.is_none())
}

fn holds_content(choice: &Choice<'_>) -> bool {
    says_something(choice.text)
        || parts(choice).any(|delta| {
            says_something(delta.content)
                || says_something(delta.refusal)
                || says_something(delta.reasoning_content)
                || says_something(delta.reasoning)
                || says_something(delta.function_call)
                || says_something(delta.audio)
                || delta.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty())
        })
}

fn text_bytes(choice: &Choice<'_>) -> u64 {
    let length = |raw: Option<&RawValue>| {
        raw.filter(|_| says_something(raw))
            .map_or(0, |raw| u64::try_from(raw.get().len()).unwrap_or(0).saturating_sub(2))
    };
    let of = |delta: &Delta<'_>| {
        length(delta.content) + length(delta.reasoning_content) + length(delta.reasoning) + length(delta.refusal)
    };
    length(choice.text) + parts(choice).map(of).max().unwrap_or(0)
}

fn finish(choice: &Choice<'_>) -> Option<Finish> {
    match choice.finish_reason?.get() {
        "null" | "\"\"" => None,
        "\"length\"" => Some(Finish::Length),
        "\"content_filter\"" => Some(Finish::ContentFilter),
        "\"error\"" => Some(Finish::Error),
        _ => Some(Finish::Stop),
    }
}

fn usage(parsed: &Body<'_>) -> Option<Usage> {
    let raw = parsed.usage.or_else(|| parsed.x_groq.as_ref().and_then(|groq| groq.usage))?;
    let body: UsageBody = serde_json::from_str(raw.get()).ok()?;
    let cached = body.prompt_tokens_details.and_then(|details| details.cached_tokens).and_then(tokens);
    let reasoning = body.completion_tokens_details.and_then(|details| details.reasoning_tokens).and_then(tokens);
    let input = tokens(body.prompt_tokens?)?;
    let output = tokens(body.completion_tokens.unwrap_or(0.0))?;
    Some(Usage {
        input,
        output,
        cached_input: cached.unwrap_or(0).min(input),
        reasoning: reasoning.unwrap_or(0).min(output),
    })
}

/// A count of tokens that can be believed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the range is checked before the cast"
)]
fn tokens(value: f64) -> Option<u64> {
    (value >= 0.0 && value <= MOST_TOKENS as f64).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer() {
        let body = br#"{"choices":[{"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}"#;
        let answer = read_answer(body).unwrap();
        assert!(answer.content);
        assert_eq!(answer.finish, Some(Finish::Stop));
        assert_eq!(answer.usage, Some(Usage { input: 9, output: 2, cached_input: 4, reasoning: 0 }));
    }

    #[test]
    fn answers_that_are_none() {
        assert_eq!(read_answer(b""), Err(None));
        assert_eq!(read_answer(b"<html>"), Err(None));
        assert_eq!(read_answer(b"{\"choices\":[{\"mess"), Err(None));
        assert_eq!(read_answer(b"{}"), Err(None));
        let error = read_answer(br#"{"error":{"message":"overloaded","code":503}}"#).unwrap_err().unwrap();
        assert_eq!(error.code.as_deref(), Some("503"));
        let list = read_answer(br#"[{"error":{"message":"m","code":429}}]"#).unwrap_err().unwrap();
        assert_eq!(list.message, "m");
    }

    #[test]
    fn emptiness() {
        let empty = |message: &str| {
            !read_answer(format!(r#"{{"choices":[{{"message":{message},"finish_reason":"stop"}}]}}"#).as_bytes())
                .unwrap()
                .content
        };
        assert!(empty(r#"{"content":null}"#));
        assert!(empty(r#"{"content":""}"#));
        assert!(empty(r#"{"content":null,"tool_calls":[]}"#));
        assert!(!empty(r#"{"content":null,"tool_calls":[{"id":"a"}]}"#));
        assert!(!empty(r#"{"content":null,"refusal":"I cannot"}"#));
        assert!(!empty(r#"{"content":"","reasoning_content":"hm"}"#));
    }

    #[test]
    fn chunks() {
        let role = read_chunk(br#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#).unwrap();
        assert!(!role.content);
        let text = read_chunk(br#"{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}"#).unwrap();
        assert!(text.content && text.finish.is_none());
        let usage = read_chunk(br#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#).unwrap();
        assert!(usage.usage_only);
        // As LiteLLM sends it.
        let alone = |delta: &str| {
            let data = format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}],"usage":{{"prompt_tokens":1}}}}"#);
            read_chunk(data.as_bytes()).unwrap().usage_only
        };
        assert_eq!([alone("{}"), alone(r#"{"role":"assistant"}"#), alone(r#"{"content":"a"}"#)], [true, false, false]);
        let azure = read_chunk(br#"{"choices":[],"prompt_filter_results":[]}"#).unwrap();
        assert_eq!(azure, Chunk::default());
        let groq = read_chunk(br#"{"choices":[{"delta":{},"finish_reason":"stop"}],"x_groq":{"usage":{"prompt_tokens":3,"completion_tokens":1}}}"#).unwrap();
        assert_eq!(groq.usage.unwrap().input, 3);
        let error = read_chunk(br#"{"error":{"message":"boom"}}"#).unwrap();
        assert_eq!(error.error.unwrap().message, "boom");
        assert_eq!(read_chunk(b"{\"choices\":"), None);
    }

    #[test]
    fn odd_shapes_of_good_answers_and_of_errors() {
        let both = read_chunk(br#"{"choices":[{"index":2,"delta":{"content":"a"},"message":{"content":"a"},"finish_reason":"stop"}],"error":false}"#);
        let both = both.unwrap();
        assert!(both.content && both.error.is_none());
        assert_eq!((both.finished, both.text_bytes), (0b100, 1));
        let bare =
            read_answer(br#"{"object":"error","message":"Rate limit exceeded","code":429}"#).unwrap_err().unwrap();
        assert_eq!(bare.code.as_deref(), Some("429"));
        assert!(read_chunk(br#"{"message":"boom","type":"server_error"}"#).unwrap().error.is_some());
    }

    #[test]
    fn absurd_usage_is_not_believed() {
        for bad in ["-1", "1e12"] {
            let body = format!(r#"{{"choices":[],"usage":{{"prompt_tokens":{bad},"completion_tokens":1}}}}"#);
            assert_eq!(read_chunk(body.as_bytes()).unwrap().usage, None, "{bad}");
        }
    }
}
