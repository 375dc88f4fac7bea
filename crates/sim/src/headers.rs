//! Rate-limit headers: which are sent, and in which format, as the facts say.

use freeway_catalog::{Provider, RateHeader, RateHeaderFormat, RateHeaderSays, Reset};
use freeway_types::Metric;

use crate::bodies::{decimal, go_duration, shown};
use crate::limits::{Figure, Violation};
use crate::window::length_seconds;

/// What the headers are about.
pub(crate) struct Told<'a> {
    /// The state of the limits that hold for the request.
    pub(crate) figures: &'a [Figure],
    /// The limit that refused it, if one did.
    pub(crate) violation: Option<&'a Violation>,
    /// What the request used, once that is known.
    pub(crate) cost: Option<u64>,
    /// Microseconds since 1970.
    pub(crate) now: i64,
}

/// The headers of the facts, with the figures of the moment.
pub(crate) fn rate_headers(id: &str, provider: &Provider, told: &Told<'_>) -> Vec<(String, String)> {
    provider
        .headers
        .iter()
        .filter(|header| sent(id, header, told))
        .filter_map(|header| Some((header.name.clone(), value(header, told)?)))
        .collect()
}

/// When to come back, for a refusal by a limit: `retry-after` in whole seconds, rounded up.
pub(crate) fn retry_after(id: &str, provider: &Provider, violation: &Violation) -> Vec<(String, String)> {
    // Groq sends it even with the 413 that no wait can help; credits and places in flight have no time.
    let wait = match (id, violation.too_large) {
        ("groq", true) => 60_000_000,
        _ => match violation.wait {
            Some(wait) if violation.reset != Reset::Never => wait,
            _ => return Vec::new(),
        },
    };
    if !sends_retry_after(id, provider) {
        return Vec::new();
    }
    let seconds = (wait.max(1) - 1) / 1_000_000 + 1;
    let mut headers = vec![("retry-after".to_owned(), seconds.to_string())];
    if id == "openai" {
        headers.push(("retry-after-ms".to_owned(), ((wait + 999) / 1000).to_string()));
    }
    headers
}

/// OpenAI, Groq, Cerebras and Anthropic send it; Mistral and Gemini never do, OpenRouter not for limits of its own,
/// local servers neither. Of the rest, those whose rules read it, and those without any rules.
fn sends_retry_after(id: &str, provider: &Provider) -> bool {
    match id {
        "openai" | "groq" | "cerebras" | "anthropic" => true,
        "mistral" | "gemini" | "openrouter" | "ollama" | "llamacpp" => false,
        _ => {
            let hinted = |rule: &freeway_catalog::ErrorRule| rule.until.iter().any(|hint| hint == "retry-after");
            provider.errors.is_empty() || provider.errors.iter().any(hinted)
        }
    }
}

fn sent(id: &str, header: &RateHeader, told: &Told<'_>) -> bool {
    match (id, told.violation) {
        (_, None) => !header.on_refusal_only,
        // A refusal of Cerebras often carries none of its headers.
        ("cerebras", Some(_)) => false,
        // Mistral leaves out the pair that did not refuse.
        ("mistral", Some(violation)) => violation.metric == header.metric,
        (_, Some(_)) => true,
    }
}

fn value(header: &RateHeader, told: &Told<'_>) -> Option<String> {
    let figure = figure(header, told);
    match header.says {
        RateHeaderSays::Cost => told.cost.map(|cost| cost.to_string()),
        RateHeaderSays::Limit => figure.map(|figure| shown(figure.metric, figure.limit)),
        RateHeaderSays::Remaining => {
            figure.map(|figure| shown(figure.metric, figure.limit.saturating_sub(figure.used)))
        }
        RateHeaderSays::SlowDown => None,
        RateHeaderSays::Reset => written(header.format, figure?.reset_at?, told.now),
    }
}

/// The limit a header speaks of: same metric, same window. A header without a window speaks of the limit
/// that refused, else of the one with the least left.
fn figure<'a>(header: &RateHeader, told: &Told<'a>) -> Option<&'a Figure> {
    let candidates = told.figures.iter().filter(|figure| figure.metric == header.metric);
    match header.window.as_deref().and_then(length_seconds) {
        Some(seconds) => {
            candidates.filter(|figure| figure.window_seconds == Some(seconds)).min_by_key(|figure| left(figure))
        }
        None => {
            let refused = told.violation.filter(|violation| violation.metric == header.metric);
            let window = refused.and_then(|violation| violation.window.as_deref()).and_then(length_seconds);
            match window {
                Some(_) => candidates.into_iter().find(|figure| figure.window_seconds == window),
                None => candidates.min_by_key(|figure| left(figure)),
            }
        }
    }
}

fn left(figure: &Figure) -> u64 {
    figure.limit.saturating_sub(figure.used)
}

fn written(format: Option<RateHeaderFormat>, at: i64, now: i64) -> Option<String> {
    let wait = (at - now).max(0);
    Some(match format.unwrap_or(RateHeaderFormat::Duration) {
        RateHeaderFormat::Duration => go_duration(wait),
        RateHeaderFormat::Seconds => decimal(wait, 6),
        RateHeaderFormat::EpochMs => ((at + 999) / 1000).to_string(),
        RateHeaderFormat::Rfc3339 => {
            jiff::Timestamp::from_second((at + 999_999).div_euclid(1_000_000)).ok()?.to_string()
        }
    })
}

/// What a header's cost counts: all tokens, or one request.
pub(crate) fn cost(provider: &Provider, tokens: u64) -> Option<u64> {
    let header = provider.headers.iter().find(|header| header.says == RateHeaderSays::Cost)?;
    Some(if header.metric == Metric::Requests { 1 } else { tokens })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_are_written_in_the_format_of_the_facts() {
        let now = 1_755_780_000_000_000;
        let at = now + 59_500_000;
        assert_eq!(written(Some(RateHeaderFormat::Duration), at, now).unwrap(), "59.5s");
        assert_eq!(written(Some(RateHeaderFormat::Seconds), at, now).unwrap(), "59.5");
        assert_eq!(written(Some(RateHeaderFormat::EpochMs), at, now).unwrap(), "1755780059500");
        assert_eq!(written(Some(RateHeaderFormat::Rfc3339), at, now).unwrap(), "2025-08-21T12:41:00Z");
    }

    #[test]
    fn a_header_speaks_of_the_limit_with_its_window() {
        let provider = freeway_catalog::parse(
            "x.toml",
            r#"headers = [
                { name = "x-limit", says = "limit", metric = "requests", window = "day" },
                { name = "x-left", says = "remaining", metric = "requests" },
                { name = "x-late", says = "reset", metric = "requests", on_refusal_only = true, format = "epoch-ms" },
            ]"#,
        )
        .unwrap();
        let figure = |seconds, limit, used| Figure {
            metric: Metric::Requests,
            window_seconds: Some(seconds),
            limit,
            used,
            reset_at: Some(5_000),
        };
        let figures = [figure(60, 30, 4), figure(86_400, 1000, 10)];
        let told = Told { figures: &figures, violation: None, cost: None, now: 0 };
        let expected = [("x-limit", "1000"), ("x-left", "26")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(rate_headers("any", &provider, &told), expected);
    }
}
