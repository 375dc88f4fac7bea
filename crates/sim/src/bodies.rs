//! How each provider says no: statuses and bodies, one small function a shape.
//!
//! The words are our own; the fields, codes and key phrases are those by which
//! the provider's refusals are told apart.

use freeway_catalog::Reset;
use freeway_types::Metric;
use serde_json::{Value, json};

use crate::limits::Violation;
use crate::rules::grains_per_unit;
use crate::window::length_seconds;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The key is missing, unknown or revoked.
    BadKey,
    /// There is no such model.
    NoModel(String),
    /// The request itself is wrong.
    Invalid {
        /// The field.
        param: Option<String>,
        /// What is wrong with it.
        message: String,
    },
    /// A field that this provider or model does not take.
    Unsupported(String),
    /// Input and output do not fit the model.
    ContextTooLong {
        /// What was asked for.
        tokens: u64,
        /// What fits.
        context: u64,
    },
    /// A limit is spent, or the request is larger than the whole of it.
    Limited(Box<Violation>),
    /// Nothing is at this path.
    NoRoute,
}

/// A refusal as this provider sends it.
pub(crate) struct Shaped {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Providers whose refusals are shaped here, with the figures of the moment in them. The others speak by the examples
/// of their files.
pub(crate) fn is_shaped_by_hand(id: &str) -> bool {
    ["openai", "groq", "gemini", "openrouter", "mistral", "anthropic", "ollama", "llamacpp"].contains(&id)
}

/// The refusal in the shape of provider `id`; `model` is the one asked for.
pub(crate) fn shape(id: &str, refusal: &Refusal, model: &str) -> Shaped {
    let said = Said::of(id, refusal, model);
    let body = match id {
        "gemini" => gemini(&said, refusal, model),
        "openrouter" => openrouter(&said, refusal),
        "mistral" | "codestral" => mistral(&said, refusal),
        "cerebras" => cerebras(&said),
        "anthropic" => anthropic(&said),
        "ollama" | "ollama-cloud" => ollama(&said),
        "llamacpp" => llamacpp(&said, refusal),
        _ => openai(&said),
    };
    Shaped { status: said.status, body }
}

/// What every shape is made from.
struct Said {
    status: u16,
    message: String,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
}

impl Said {
    fn new(status: u16, kind: &'static str, code: Option<&'static str>, message: String) -> Self {
        Self { status, message, kind, code, param: None }
    }

    fn of(id: &str, refusal: &Refusal, model: &str) -> Self {
        let invalid = "invalid_request_error";
        match refusal {
            Refusal::BadKey => bad_key(id),
            Refusal::NoRoute => Self::new(404, invalid, None, "Nothing answers at this path.".to_owned()),
            Refusal::NoModel(name) => no_model(id, name),
            Refusal::Invalid { param, message } => {
                let status = if id == "mistral" { 422 } else { 400 };
                Self { param: param.clone(), ..Self::new(status, invalid, None, message.clone()) }
            }
            Refusal::Unsupported(field) => {
                let message = format!("Unsupported parameter: '{field}' cannot be used with this model.");
                let status = if id == "mistral" { 422 } else { 400 };
                let said = Self::new(status, invalid, Some("unsupported_parameter"), message);
                Self { param: Some(field.clone()), ..said }
            }
            Refusal::ContextTooLong { tokens, context } => context_too_long(id, *tokens, *context),
            Refusal::Limited(violation) => limited(id, violation, model),
        }
    }
}

/// A 401 nearly everywhere; Gemini: a 400 with `API_KEY_INVALID`; Cerebras: code `wrong_api_key`.
fn bad_key(id: &str) -> Said {
    let message = match id {
        "gemini" => "API key not valid. Give one that is.",
        "llamacpp" => "Invalid API Key",
        "mistral" | "ollama" | "ollama-cloud" => "Unauthorized",
        _ => "Incorrect API key provided; this one is unknown or was revoked.",
    };
    let (status, kind, code) = match id {
        "gemini" => (400, "INVALID_ARGUMENT", None),
        "anthropic" | "llamacpp" => (401, "authentication_error", None),
        "cerebras" => (401, "invalid_request_error", Some("wrong_api_key")),
        _ => (401, "invalid_request_error", Some("invalid_api_key")),
    };
    Said::new(status, kind, code, message.to_owned())
}

/// A 404 nearly everywhere; Mistral: a 400 "Invalid model"; SambaNova: a 400 with the code of the 404;
/// DeepSeek: a 400 that lists what there is; Scaleway: a 422.
fn no_model(id: &str, name: &str) -> Said {
    let missing = || format!("The model `{name}` does not exist or this account has no access to it.");
    match id {
        "gemini" => Said::new(404, "NOT_FOUND", None, format!("models/{name} is not found for this version.")),
        "mistral" => Said::new(400, "invalid_model", None, format!("Invalid model: {name}")),
        "anthropic" => Said::new(404, "not_found_error", Some("not_found_error"), format!("model: {name}")),
        "llamacpp" => Said::new(404, "not_found_error", None, missing()),
        "ollama" | "ollama-cloud" => {
            Said::new(404, "not_found_error", None, format!("model \"{name}\" not found, try pulling it first"))
        }
        "openrouter" => Said::new(404, "not_found", None, format!("No endpoints found for {name}.")),
        "sambanova" => Said::new(400, "invalid_request_error", Some("model_not_found"), missing()),
        "deepseek" => {
            let message = format!("The supported API model names are others than {name}.");
            Said::new(400, "invalid_request_error", Some("invalid_request_error"), message)
        }
        "scaleway" => Said::new(422, "invalid_request_error", None, format!("model not found: {name}")),
        _ => Said::new(404, "invalid_request_error", Some("model_not_found"), missing()),
    }
}

/// OpenAI and most others: code `context_length_exceeded`; llama.cpp: type `exceed_context_size_error`;
/// Anthropic: "prompt is too long"; Gemini: words only; Together: a 403.
fn context_too_long(id: &str, tokens: u64, context: u64) -> Said {
    let usual = format!("This model's maximum context length is {context} tokens, and {tokens} were asked for.");
    match id {
        "gemini" => {
            let message =
                format!("The input token count ({tokens}) exceeds the maximum number of tokens allowed ({context}).");
            Said::new(400, "INVALID_ARGUMENT", None, message)
        }
        "anthropic" => {
            let message = format!("prompt is too long: {tokens} tokens > {context} maximum");
            Said::new(400, "invalid_request_error", None, message)
        }
        "llamacpp" => Said::new(400, "exceed_context_size_error", None, usual),
        "together" => Said::new(403, "invalid_request_error", None, usual),
        _ => {
            let said = Said::new(400, "invalid_request_error", Some("context_length_exceeded"), usual);
            Said { param: Some("messages".to_owned()), ..said }
        }
    }
}

/// A limit. Groq: 413 when the request alone is larger than the tokens of a minute; OpenRouter, DeepSeek and
/// others: 402 when money is spent; OpenAI: `insufficient_quota`; Ollama and llama.cpp: 503 when every place is taken.
fn limited(id: &str, v: &Violation, model: &str) -> Said {
    let credit = v.metric == Metric::Usd || v.reset == Reset::Never;
    let kind = match v.metric {
        Metric::Requests | Metric::Concurrency => "requests",
        _ => "tokens",
    };
    let message = sentence(id, v, model);
    match id {
        "openai" if credit => Said::new(429, "insufficient_quota", Some("insufficient_quota"), message),
        "gemini" => Said::new(429, "RESOURCE_EXHAUSTED", None, message),
        "mistral" if credit => Said::new(402, "payment_required", None, message),
        "mistral" => Said::new(429, "rate_limited", None, message),
        "anthropic" => Said::new(429, "rate_limit_error", Some("rate_limit_error"), message),
        "ollama" | "llamacpp" if v.metric == Metric::Concurrency => Said::new(503, "unavailable_error", None, message),
        "ollama" | "llamacpp" | "ollama-cloud" => Said::new(429, "rate_limit_error", None, message),
        "groq" if v.too_large => Said::new(413, kind, Some("rate_limit_exceeded"), message),
        "cerebras" => {
            let code = if kind == "requests" { "request_quota_exceeded" } else { "token_quota_exceeded" };
            let said = Said::new(429, "too_many_requests_error", Some(code), message);
            Said { param: Some("quota".to_owned()), ..said }
        }
        "sambanova" => Said::new(429, "insufficient_quota", Some("insufficient_quota"), message),
        _ if credit => Said::new(402, "insufficient_quota", Some("payment_required"), message),
        _ => Said::new(429, kind, Some("rate_limit_exceeded"), message),
    }
}

/// What the refusal says to people, with the phrases that clients look for.
fn sentence(id: &str, v: &Violation, model: &str) -> String {
    let (limit, used) = (shown(v.metric, v.limit), shown(v.metric, v.used));
    let asked = shown(v.metric, v.requested);
    let window = v.window.as_deref().unwrap_or("account");
    if v.metric == Metric::Concurrency {
        return match id {
            "ollama" => "server busy, please try again".to_owned(),
            _ => format!("Too many requests in flight for {model}: {limit} may run at once."),
        };
    }
    match id {
        "openrouter" if v.metric == Metric::Requests => {
            let short = if length_seconds(window) == Some(60) { "min" } else { window };
            format!("Rate limit exceeded: free-models-per-{short}.")
        }
        "gemini" => {
            let wait = duration_seconds(retry_delay(v));
            format!("Quota exceeded for this metric, limit: {limit}, model: {model}. Please retry in {wait}.")
        }
        "mistral" => "Rate limit exceeded".to_owned(),
        "cohere" => {
            format!("A Trial key was used, which is limited to {limit} API calls / {window}.")
        }
        _ if v.too_large => format!(
            "Request too large for model `{model}` on {}: Limit {limit}, Requested {asked}. Ask for less.",
            rung(v)
        ),
        _ => {
            let wait = v.wait.map(|wait| format!(" Please try again in {}.", go_duration(wait))).unwrap_or_default();
            let rung = rung(v);
            format!(
                "Rate limit reached for model `{model}` on {rung}: Limit {limit}, Used {used}, Requested {asked}.{wait}"
            )
        }
    }
}

/// Groq and OpenAI name the rung: RPM, RPD, TPM, TPD.
fn rung(v: &Violation) -> String {
    let window = v.window.as_deref().unwrap_or("account");
    let short = match length_seconds(window) {
        Some(1) => "S",
        Some(60) => "M",
        Some(3600) => "H",
        Some(86_400) => "D",
        _ => return format!("{} per {window}", v.metric),
    };
    let letter = if v.metric == Metric::Requests { "RP" } else { "TP" };
    format!("{} per {window} ({letter}{short})", v.metric)
}

// === shapes ===

/// OpenAI, Groq and most others: one object under `error`.
fn openai(said: &Said) -> Value {
    json!({ "error": { "message": said.message, "type": said.kind, "param": said.param, "code": said.code } })
}

/// Gemini on its OpenAI path: the Google error inside an array. A refusal by quota names its `quotaId`.
fn gemini(said: &Said, refusal: &Refusal, model: &str) -> Value {
    let status = match (said.status, said.kind) {
        (400, _) => "INVALID_ARGUMENT",
        (404, _) => "NOT_FOUND",
        (_, kind) => kind,
    };
    let mut error = json!({ "code": said.status, "message": said.message, "status": status });
    match refusal {
        Refusal::BadKey => {
            error["details"] = json!([{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com"
            }]);
        }
        Refusal::Limited(v) => error["details"] = gemini_details(v, model),
        _ => {}
    }
    json!([{ "error": error }])
}

/// Gemini: the quota's name tells the window. The delay of a day's quota is known to be far too short, here as there.
fn gemini_details(v: &Violation, model: &str) -> Value {
    let window = v.window.as_deref().unwrap_or("day");
    let per = match length_seconds(window) {
        Some(seconds) if seconds >= 86_400 => "PerDay",
        _ => "PerMinute",
    };
    let (name, counted) = match v.metric {
        Metric::Requests => ("generate_content_free_tier_requests", "GenerateRequests"),
        _ => ("generate_content_free_tier_input_token_count", "GenerateContentInputTokens"),
    };
    json!([
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{
                "quotaMetric": format!("generativelanguage.googleapis.com/{name}"),
                "quotaId": format!("{counted}{per}PerProjectPerModel-FreeTier"),
                "quotaDimensions": { "location": "global", "model": model },
                "quotaValue": shown(v.metric, v.limit)
            }]
        },
        { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": duration_seconds(retry_delay(v)) }
    ])
}

/// OpenRouter: the code is a number, and `metadata.headers` repeats the rate headers.
fn openrouter(said: &Said, refusal: &Refusal) -> Value {
    let mut error = json!({ "code": said.status, "message": said.message });
    match refusal {
        Refusal::Limited(v) if said.status == 429 => {
            let reset = v.back_at.map_or_else(|| "0".to_owned(), |at| (at / 1000).to_string());
            error["metadata"] = json!({
                "headers": {
                    "X-RateLimit-Limit": shown(v.metric, v.limit),
                    "X-RateLimit-Remaining": shown(v.metric, v.limit.saturating_sub(v.used)),
                    "X-RateLimit-Reset": reset
                },
                "error_type": "rate_limit_exceeded"
            });
        }
        Refusal::Limited(_) => {
            error["metadata"] = json!({ "error_type": "payment_required", "limit_source": "openrouter_credits" });
        }
        Refusal::BadKey => error["metadata"] = json!({ "error_type": "authentication" }),
        Refusal::ContextTooLong { .. } => error["metadata"] = json!({ "error_type": "context_length_exceeded" }),
        _ => {}
    }
    json!({ "error": error, "user_id": "user_sim" })
}

/// Mistral: flat, with `object = error` and a code of digits in a string; a list of `detail` for a 422;
/// a bare `detail` for a bad key.
fn mistral(said: &Said, refusal: &Refusal) -> Value {
    match refusal {
        Refusal::BadKey => json!({ "detail": said.message }),
        Refusal::Invalid { .. } | Refusal::Unsupported(_) => {
            let field = said.param.as_deref().unwrap_or("body");
            json!({ "detail": [{ "type": "value_error", "loc": ["body", field], "msg": said.message, "input": null }] })
        }
        _ => {
            let code = match refusal {
                Refusal::Limited(_) if said.status == 429 => json!("1300"),
                Refusal::NoModel(_) => json!("1500"),
                _ => Value::Null,
            };
            json!({
                "object": "error", "message": said.message, "type": said.kind, "param": said.param,
                "code": code, "raw_status_code": said.status
            })
        }
    }
}

/// Cerebras: OpenAI's fields without the wrapper.
fn cerebras(said: &Said) -> Value {
    json!({ "message": said.message, "type": said.kind, "param": said.param, "code": said.code })
}

/// Anthropic's OpenAI path: OpenAI's wrapper around Anthropic's error types.
fn anthropic(said: &Said) -> Value {
    let code = said.code.unwrap_or(said.kind);
    json!({ "error": { "code": code, "message": said.message, "type": said.kind, "param": said.param } })
}

/// Ollama's OpenAI path: the wrapper, with a type and nothing else.
fn ollama(said: &Said) -> Value {
    json!({ "error": { "message": said.message, "type": said.kind, "param": null, "code": null } })
}

/// llama.cpp: the code is the status as a number; a prompt that is too long comes with the two figures.
fn llamacpp(said: &Said, refusal: &Refusal) -> Value {
    let mut error = json!({ "code": said.status, "message": said.message, "type": said.kind });
    if let Refusal::ContextTooLong { tokens, context } = refusal {
        error["n_prompt_tokens"] = json!(tokens);
        error["n_ctx"] = json!(context);
    }
    json!({ "error": error })
}

// === figures ===

/// A count as people read it: whole, or with the fraction that USD and units have.
pub(crate) fn shown(metric: Metric, grains: u64) -> String {
    let unit = grains_per_unit(metric);
    let fraction = grains % unit;
    if fraction == 0 {
        return (grains / unit).to_string();
    }
    let width = unit.ilog10() as usize;
    let text = format!("{}.{fraction:0width$}", grains / unit);
    text.trim_end_matches('0').to_owned()
}

/// Microseconds in the style of Go: `2m59.56s`, `370ms`, `6m0s`, `1h30m0s`.
pub(crate) fn go_duration(micros: i64) -> String {
    let millis = micros.max(0).saturating_add(999) / 1000;
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (hours, minutes, rest) = (millis / 3_600_000, millis / 60_000 % 60, millis % 60_000);
    let seconds = decimal(rest, 3);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Microseconds as protobuf writes a duration: `34s`, `45.578569s`.
fn duration_seconds(micros: i64) -> String {
    format!("{}s", decimal(micros.max(0), 6))
}

/// An integer with `places` digits after the point, without idle zeros.
pub(crate) fn decimal(value: i64, places: u32) -> String {
    let unit = 10_i64.pow(places);
    let fraction = value % unit;
    if fraction == 0 {
        return (value / unit).to_string();
    }
    let width = places as usize;
    format!("{}.{fraction:0width$}", value / unit).trim_end_matches('0').to_owned()
}

fn retry_delay(v: &Violation) -> i64 {
    v.wait.unwrap_or(0) % 60_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(metric: Metric, window: &str, too_large: bool) -> Refusal {
        Refusal::Limited(Box::new(Violation {
            metric,
            window: Some(window.to_owned()),
            reset: Reset::Rolling,
            limit: 30,
            used: 30,
            requested: 1,
            too_large,
            wait: Some(3_405_000),
            back_at: Some(1_741_305_600_000_000),
        }))
    }

    #[test]
    fn durations_are_written_as_providers_write_them() {
        assert_eq!(go_duration(179_560_000), "2m59.56s");
        assert_eq!(go_duration(370_000), "370ms");
        assert_eq!(go_duration(360_000_000), "6m0s");
        assert_eq!(go_duration(5_400_000_000), "1h30m0s");
        assert_eq!(duration_seconds(45_578_569), "45.578569s");
        assert_eq!(shown(Metric::Usd, 1_500_000_000_000), "1.5");
    }

    #[test]
    fn groq_names_the_rung_and_uses_413_for_what_never_fits() {
        let refused = shape("groq", &spent(Metric::Requests, "minute", false), "m");
        assert_eq!((refused.status, &refused.body["error"]["code"]), (429, &json!("rate_limit_exceeded")));
        let message = refused.body["error"]["message"].as_str().unwrap();
        assert!(message.contains("(RPM): Limit 30, Used 30, Requested 1. Please try again in 3.405s"), "{message}");
        let large = shape("groq", &spent(Metric::Tokens, "minute", true), "m");
        assert_eq!((large.status, &large.body["error"]["type"]), (413, &json!("tokens")));
    }

    #[test]
    fn gemini_answers_with_an_array_and_names_the_quota() {
        let refused = shape("gemini", &spent(Metric::Requests, "day", false), "m");
        let error = &refused.body[0]["error"];
        assert_eq!(error["status"], "RESOURCE_EXHAUSTED");
        let violation = &error["details"][0]["violations"][0];
        assert_eq!(violation["quotaId"], "GenerateRequestsPerDayPerProjectPerModel-FreeTier");
        assert_eq!(error["details"][1]["retryDelay"], "3.405s");
        assert_eq!(shape("gemini", &Refusal::BadKey, "m").status, 400);
    }

    #[test]
    fn each_provider_has_its_own_shape() {
        let refused = spent(Metric::Requests, "minute", false);
        let mistral = shape("mistral", &refused, "m").body;
        assert_eq!((&mistral["object"], &mistral["code"]), (&json!("error"), &json!("1300")));
        let openrouter = shape("openrouter", &refused, "m").body;
        assert_eq!(openrouter["error"]["metadata"]["headers"]["X-RateLimit-Reset"], "1741305600000");
        assert_eq!(shape("cerebras", &refused, "m").body["code"], "request_quota_exceeded");
        assert_eq!(shape("anthropic", &refused, "m").body["error"]["type"], "rate_limit_error");
        assert_eq!(shape("ollama", &spent(Metric::Concurrency, "minute", false), "m").status, 503);
        assert_eq!(shape("llamacpp", &Refusal::BadKey, "m").body["error"]["code"], 401);
        assert_eq!(shape("anyone", &refused, "m").body["error"]["type"], "requests");
    }
}
