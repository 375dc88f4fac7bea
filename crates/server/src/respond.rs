//! Building answers: the few headers that go back, and errors in the client's dialect.

use bytes::Bytes;
use freeway_dialect::ClientError;
use freeway_dialect::openai_chat::render_error;
use freeway_types::RequestId;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::Value;

use crate::body::Reply;

/// An answer of ours.
pub(crate) type Answer = Response<Reply>;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FREEWAY_REQUEST_ID: HeaderName = HeaderName::from_static("x-freeway-request-id");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A whole body of the given type.
pub(crate) fn whole(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Reply::whole(body.into()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// A JSON document.
pub(crate) fn json(value: &Value) -> Answer {
    whole(200, "application/json", value.to_string())
}

/// A stream of events.
pub(crate) fn stream(body: Box<freeway_engine::StreamBody>) -> Answer {
    let mut answer = Response::new(Reply::stream(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// An error, with the advice that client libraries read: whether and when to try again.
pub(crate) fn error(error: &ClientError) -> Answer {
    let mut answer = whole(error.status, "application/json", render_error(error));
    let retry = HeaderValue::from_static(if error.should_retry { "true" } else { "false" });
    answer.headers_mut().insert(SHOULD_RETRY, retry);
    if let Some(seconds) = error.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// The path is there for other methods.
pub(crate) fn other_method(methods: &str) -> Answer {
    let message = format!("this path takes {methods}");
    let mut answer = error(&ClientError::new(405, "method_not_allowed", message));
    set(&mut answer, ALLOW, methods);
    answer
}

/// Names the request.
pub(crate) fn name(answer: &mut Answer, id: RequestId) {
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        answer.headers_mut().insert(REQUEST_ID, id.clone());
        answer.headers_mut().insert(FREEWAY_REQUEST_ID, id);
    }
}

/// Sets a header; text that cannot stand in one (a model's id may hold anything) is percent-encoded where needed.
pub(crate) fn set(answer: &mut Answer, header: HeaderName, text: &str) {
    if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        if let Ok(value) = HeaderValue::from_str(text) {
            answer.headers_mut().insert(header, value);
        }
        return;
    }
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii_graphic() || letter == ' ' {
            safe.push(letter);
        } else {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                safe.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    if let Ok(value) = HeaderValue::try_from(safe) {
        answer.headers_mut().insert(header, value);
    }
}
