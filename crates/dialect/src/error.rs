//! Errors in both directions: what an upstream's refusal says, and what a client is told.

use serde_json::Value;

/// What an upstream's error body says, in whichever of the usual shapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamError {
    /// The provider's own words.
    pub message: String,
    /// `error.type`, or what stands in for it.
    pub kind: Option<String>,
    /// `error.code`, as text.
    pub code: Option<String>,
    /// `error.param`.
    pub param: Option<String>,
}

/// An error that a client is told. The dialect of the client decides what it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientError {
    /// HTTP status.
    pub status: u16,
    /// Stable word for programs, such as `quota_exhausted`.
    pub code: String,
    /// What happened, to what, and what to do.
    pub message: String,
    /// The request field at fault, if one is.
    pub param: Option<String>,
    /// Seconds after which it makes sense to come back, if that is known.
    pub retry_after: Option<u64>,
    /// Whether the same request can succeed later without a change.
    pub should_retry: bool,
}

impl ClientError {
    /// An error that repeating the same request cannot mend.
    #[must_use]
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            param: None,
            retry_after: None,
            should_retry: false,
        }
    }

    /// The same, at a field of the request.
    #[must_use]
    pub fn at(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }
}

impl UpstreamError {
    /// Reads an error body: `{"error": {…}}`, the same in a list, `{"error": "…"}`, or bare fields.
    /// `None` where the body is not JSON or holds no error.
    #[must_use]
    pub fn read(body: &Value) -> Option<Self> {
        let body = body.as_array().and_then(|list| list.first()).unwrap_or(body);
        let object = body.as_object()?;
        let inner = match object.get("error") {
            Some(Value::Object(inner)) => inner,
            // Beside a message of its own, the text is the code: `{"error": "UNAUTHORIZED", "message": "…"}`.
            Some(Value::String(code)) if object.get("message").is_some_and(Value::is_string) => {
                let message = object.get("message").map(shown).unwrap_or_default();
                return Some(Self { message, code: Some(code.clone()), ..Self::default() });
            }
            Some(Value::String(message)) => {
                return Some(Self { message: message.clone(), ..Self::default() });
            }
            Some(Value::Null) | None
                if object.contains_key("choices")
                    || !["message", "detail", "errors"].iter().any(|key| object.contains_key(*key)) =>
            {
                return None;
            }
            _ => object,
        };
        let text = |key: &str| match inner.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let message =
            text("message").or_else(|| inner.get("detail").map(shown)).or_else(|| inner.get("errors").map(shown));
        Some(Self {
            message: message.unwrap_or_default(),
            kind: text("type").or_else(|| text("status")),
            code: text("code"),
            param: text("param"),
        })
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, message: &str, code: Option<&str>) {
        let read = UpstreamError::read(&serde_json::from_str(body).unwrap()).unwrap();
        assert_eq!((read.message.as_str(), read.code.as_deref()), (message, code), "{body}");
    }

    #[test]
    fn error_bodies_in_the_usual_shapes() {
        check(r#"{"error":{"message":"no","type":"t","code":"c"}}"#, "no", Some("c"));
        check(r#"[{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}]"#, "slow", Some("429"));
        check(r#"{"error":"plain"}"#, "plain", None);
        check(r#"{"status":401,"error":"UNAUTHORIZED","message":"no key"}"#, "no key", Some("UNAUTHORIZED"));
        check(r#"{"object":"error","message":"rate","type":"rate_limited","code":"1300"}"#, "rate", Some("1300"));
        check(r#"{"detail":[{"loc":["body"],"msg":"extra"}]}"#, r#"[{"loc":["body"],"msg":"extra"}]"#, None);
    }

    #[test]
    fn an_answer_is_no_error() {
        for body in [r#"{"choices":[],"message":"x"}"#, r#"{"id":"x"}"#, r#"{"error":null,"choices":[]}"#, "3"] {
            assert_eq!(UpstreamError::read(&serde_json::from_str(body).unwrap()), None, "{body}");
        }
    }
}
