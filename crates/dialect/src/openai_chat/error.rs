//! OpenAI's error shape.

use serde_json::json;

use crate::error::ClientError;

/// The body of an error answer.
#[must_use]
pub fn render_error(error: &ClientError) -> Vec<u8> {
    let body = json!({
        "error": {
            "message": error.message,
            "type": kind(error),
            "param": error.param,
            "code": error.code,
        }
    });
    body.to_string().into_bytes()
}

/// The event that ends a stream already answered with 200. No end marker follows it.
#[must_use]
pub fn render_stream_error(error: &ClientError) -> bytes::Bytes {
    crate::sse::encode(&render_error(error))
}

/// `error.type`, by status.
fn kind(error: &ClientError) -> &'static str {
    match error.status {
        403 => "permission_error",
        429 if matches!(error.code.as_str(), "insufficient_quota") => "insufficient_quota",
        429 => "rate_limit_error",
        500 => "server_error",
        502 | 504 => "upstream_error",
        503 => "service_unavailable_error",
        _ => "invalid_request_error",
    }
}
