//! Refusals in the words of a provider file: the example of the rule that a refusal is for. Providers that are shaped
//! by hand in `bodies` do without; for all others this is how they say no, and a new file needs no code.

use freeway_catalog::{Action, ErrorRule, Example, Provider, Reset, window_seconds};
use freeway_types::Metric;

use crate::bodies::Refusal;
use crate::limits::Violation;

/// The example that says this refusal best, if the file has one.
pub(crate) fn find<'a>(provider: &'a Provider, refusal: &Refusal) -> Option<&'a Example> {
    let first = |wanted: &dyn Fn(&ErrorRule) -> bool| {
        provider.errors.iter().filter(|rule| wanted(rule)).flat_map(|rule| &rule.examples).next()
    };
    match refusal {
        Refusal::BadKey => first(&|rule| rule.action == Action::DisableKey),
        Refusal::NoModel(_) => first(&|rule| rule.action == Action::DisableModel && rule.case.contains("model")),
        Refusal::ContextTooLong { .. } => first(&|rule| rule.action == Action::FailoverLarger),
        Refusal::Limited(violation) => limited(provider, violation),
        Refusal::Invalid { .. } | Refusal::Unsupported(_) | Refusal::NoRoute => None,
    }
}

/// The example for a limit: of its own metric and window, else of its metric, else one that names no limit.
fn limited<'a>(provider: &'a Provider, violation: &Violation) -> Option<&'a Example> {
    if violation.too_large {
        let larger = provider.errors.iter().filter(|rule| rule.action == Action::FailoverLarger);
        if let Some(example) = larger.flat_map(|rule| &rule.examples).find(|example| speaks_of(example, violation)) {
            return Some(example);
        }
    }
    let credit = violation.reset == Reset::Never || violation.metric == Metric::Usd;
    let in_turn = match (credit, violation.metric) {
        (true, _) => [Action::Exhaust, Action::DisableModel, Action::Cooldown],
        (false, Metric::Concurrency) => [Action::RetrySame, Action::Cooldown, Action::Exhaust],
        (false, _) => [Action::Cooldown, Action::Exhaust, Action::RetrySame],
    };
    let of = |action: Action| {
        // A limit that is reached is a 429 or a bill, never a server that is down.
        let is_limit = |example: &&Example| matches!(example.status, 402 | 403 | 413 | 429) || example.limit.is_some();
        provider
            .errors
            .iter()
            .filter(move |rule| rule.action == action)
            .flat_map(|rule| &rule.examples)
            .filter(is_limit)
    };
    let all = || in_turn.into_iter().flat_map(of);
    all()
        .find(|example| is_exactly(example, violation))
        .or_else(|| all().find(|example| !credit && speaks_of(example, violation)))
        .or_else(|| all().find(|example| example.limit.is_none()))
}

fn is_exactly(example: &Example, violation: &Violation) -> bool {
    let window = |text: &str| window_seconds(text);
    let named = example.limit.as_deref().map(|limit| limit.split_once('/').unwrap_or((limit, "")));
    named.is_some_and(|(metric, length)| {
        metric == violation.metric.as_str() && window(length) == violation.window.as_deref().and_then(window)
    })
}

fn speaks_of(example: &Example, violation: &Violation) -> bool {
    let metric = example.limit.as_deref().map(|limit| limit.split('/').next().unwrap_or(limit));
    metric == Some(violation.metric.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: &str = r#"
        [[errors]]
        case = "bad_key"
        status = [401]
        action = "disable_key"
        examples = [{ status = 401, body = "key", origin = "composed" }]
        [[errors]]
        case = "day"
        status = [429]
        action = "exhaust"
        until = ["day:UTC"]
        examples = [{ status = 429, body = "day", origin = "composed", limit = "requests/day" }]
        [[errors]]
        case = "rate"
        status = [429]
        action = "cooldown"
        until = ["60s"]
        examples = [
            { status = 429, body = "minute", origin = "composed", limit = "requests/minute" },
            { status = 429, body = "any", origin = "composed" },
        ]
    "#;

    #[test]
    fn the_example_that_fits_best_is_taken() {
        let provider = freeway_catalog::parse("x.toml", FACTS).unwrap();
        let spent = |metric, window: &str, reset| {
            Refusal::Limited(Box::new(Violation {
                metric,
                window: Some(window.to_owned()),
                reset,
                limit: 1,
                used: 1,
                requested: 1,
                too_large: false,
                wait: None,
                back_at: None,
            }))
        };
        let said = |refusal: &Refusal| find(&provider, refusal).map(|example| example.body.as_str());
        assert_eq!(said(&Refusal::BadKey), Some("key"));
        assert_eq!(said(&spent(Metric::Requests, "day", Reset::Calendar)), Some("day"));
        assert_eq!(said(&spent(Metric::Requests, "60s", Reset::Rolling)), Some("minute"));
        assert_eq!(said(&spent(Metric::Requests, "hour", Reset::Rolling)), Some("minute"));
        assert_eq!(said(&spent(Metric::Tokens, "day", Reset::Rolling)), Some("any"));
        assert_eq!(said(&Refusal::NoModel("m".to_owned())), None);
    }
}
