//! The requests that are sent: bytes made once, sent many times.

use std::sync::Arc;

/// The key that the gateways' clients send. nginx passes it on unread.
pub(crate) const KEY: &str = "sk-test-benchmark-client";

/// One request as it goes over the wire.
pub(crate) type Bytes = Arc<[u8]>;

/// How long a prompt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// A body of about 1 KB.
    Short,
    /// A body of about 100 KB.
    Long,
}

impl Prompt {
    /// Bytes of the message's content.
    const fn content_bytes(self) -> usize {
        match self {
            Self::Short => 900,
            Self::Long => 100_000,
        }
    }

    /// What the tables call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Short => "1 KB",
            Self::Long => "100 KB",
        }
    }
}

/// The body of a chat request. The model and whether it streams come first, where the mock upstream looks for them.
pub(crate) fn body(model: &str, stream: bool, prompt: Prompt) -> String {
    let stream = if stream { r#""stream":true,"# } else { "" };
    let content = sentences(prompt.content_bytes());
    format!(
        r#"{{"model":"{model}",{stream}"max_tokens":256,"messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{content}"}}]}}"#
    )
}

/// A chat request with the benchmark's own key.
pub(crate) fn chat(model: &str, stream: bool, prompt: Prompt) -> Bytes {
    post(KEY, &body(model, stream, prompt))
}

/// A short chat request of a tier.
pub(crate) fn chat_in_tier(model: &str, stream: bool, tier: &str) -> Bytes {
    post_with(KEY, &format!("x-freeway-tier: {tier}\r\n"), &body(model, stream, Prompt::Short))
}

/// A request to the chat endpoint with any key and body. All subjects get the same bytes, down to the host's name.
pub(crate) fn post(key: &str, body: &str) -> Bytes {
    post_with(key, "", body)
}

/// The same with more headers, a line each.
fn post_with(key: &str, headers: &str, body: &str) -> Bytes {
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n\
         authorization: Bearer {key}\r\ncontent-type: application/json\r\nuser-agent: freeway-bench\r\n\
         {headers}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
    .into()
}

/// A request for one of the gateway's own documents.
pub(crate) fn get(path: &str) -> Bytes {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n").into_bytes().into()
}

/// English-looking text with the escapes that JSON needs now and then.
fn sentences(bytes: usize) -> String {
    const SENTENCE: &str =
        r#"The tide is out, and the boats lie on the sand; \"wait for the evening\", said the pilot.\n"#;
    let mut text = SENTENCE.repeat(bytes / SENTENCE.len());
    text.push_str(&"x".repeat(bytes - text.len()));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn bodies_are_json_of_the_size_they_are_named_for() {
        let check = |prompt: Prompt, stream: bool, sizes: std::ops::Range<usize>| {
            let body = body("fast-0", stream, prompt);
            let read: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(read["model"], "fast-0");
            assert_eq!(read["stream"].as_bool().unwrap_or_default(), stream);
            assert!(sizes.contains(&body.len()), "{prompt:?}: {}", body.len());
        };
        check(Prompt::Short, false, 1000..1100);
        check(Prompt::Short, true, 1000..1100);
        check(Prompt::Long, true, 100_000..101_000);
    }

    #[test]
    fn the_length_is_that_of_the_body() {
        let bytes = post(KEY, "{\"é\":1}");
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(text.contains("content-length: 8\r\n\r\n{"), "{text}");
    }
}
