//! The quota endpoint: an example of the provider's file, with the figures of the books in the places where the file
//! says that they stand.

use freeway_catalog::{BodyReport, Match, Provider};
use serde_json::Value;

use crate::bodies::shown;
use crate::limits::Figure;
use crate::window::length_seconds;

/// Whether a request for this path is one for the quota endpoint, of an interface under `/v1`.
pub(crate) fn is_asked(provider: &Provider, path: &str) -> bool {
    provider.quota_path.as_deref().is_some_and(|known| Some(known) == path.strip_prefix("/v1"))
}

/// What the endpoint says: the example that has places for most of the figures. Nothing without an example.
pub(crate) fn answer(provider: &Provider, figures: &[Figure]) -> Option<Value> {
    let examples = provider.report_examples.iter().filter(|example| example.endpoint);
    let bodies = examples.filter_map(|example| serde_json::from_str::<Value>(&example.body).ok());
    let filled = bodies.map(|mut body| {
        let count: usize = provider.quota_reports.iter().map(|row| fill(row, &mut body, figures)).sum();
        (count, body)
    });
    // Of equals the first.
    filled.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, body)| body)
}

/// Writes the figures that a row speaks of; gives how many it wrote.
fn fill(row: &BodyReport, body: &mut Value, figures: &[Figure]) -> usize {
    let seconds = row.window.as_deref().and_then(length_seconds);
    let is_meant =
        |figure: &&Figure| figure.metric == row.metric && (row.window.is_none() || figure.window_seconds == seconds);
    let Some(figure) = figures.iter().filter(is_meant).min_by_key(|figure| figure.limit.saturating_sub(figure.used))
    else {
        return 0;
    };
    let written = [
        (&row.amount, figure.limit),
        (&row.left, figure.limit.saturating_sub(figure.used)),
        (&row.used, figure.used.min(figure.limit)),
    ];
    let mut count = 0;
    for thing in places(body, row.each.as_deref()) {
        if !row.when.iter().all(|condition| holds(condition, thing)) {
            continue;
        }
        for (path, amount) in &written {
            let Some(path) = path else { continue };
            for place in places(thing, Some(path)) {
                let text = shown(figure.metric, *amount);
                match place {
                    Value::String(known) => *known = text,
                    Value::Number(known) => *known = text.parse().unwrap_or_else(|_| known.clone()),
                    // What the example leaves open is not limited there.
                    _ => continue,
                }
                count += 1;
            }
        }
    }
    count
}

fn holds(condition: &Match, thing: &mut Value) -> bool {
    let found = places(thing, condition.field.as_deref());
    let mut texts = found.into_iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    texts.any(|text| {
        let is = condition.is.is_empty() || condition.is.contains(&text);
        is && condition.contains.as_ref().is_none_or(|wanted| text.contains(wanted.as_str()))
    })
}

/// The places that a path leads to; without one, the value itself. `*` stands for each position of a list.
fn places<'a>(value: &'a mut Value, path: Option<&str>) -> Vec<&'a mut Value> {
    let mut found = vec![value];
    for step in path.iter().flat_map(|path| path.split('.')) {
        let next = |value: &'a mut Value| -> Vec<&'a mut Value> {
            match (value, step) {
                (Value::Array(list), "*") => list.iter_mut().collect(),
                (Value::Array(list), step) => match step.parse::<usize>() {
                    Ok(place) => list.get_mut(place).into_iter().collect(),
                    Err(_) => Vec::new(),
                },
                (Value::Object(object), step) => object.get_mut(step).into_iter().collect(),
                _ => Vec::new(),
            }
        };
        found = found.into_iter().flat_map(next).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use freeway_types::Metric;
    use serde_json::json;

    use super::*;

    const FACTS: &str = r#"
        quota_path = "/key"
        [[quota_reports]]
        metric = "requests"
        window = "day"
        amount = "free.limit"
        left = "free.remaining"
        used = "free.used"
        [[quota_reports]]
        each = "balances.*"
        when = [{ field = "currency", is = ["USD"] }]
        metric = "usd"
        window = "never"
        left = "total"
        [[report_examples]]
        endpoint = true
        body = '{"free": {"limit": 1, "used": 1}}'
        origin = "composed"
        [[report_examples]]
        endpoint = true
        body = '{"free": {"limit": 1, "remaining": 1, "used": null}, "balances": [{"currency": "CNY", "total": "7"}, {"currency": "USD", "total": "1"}]}'
        origin = "composed"
    "#;

    #[test]
    fn the_fullest_example_is_filled_from_the_books() {
        let provider: Provider = freeway_catalog::parse("x.toml", FACTS).unwrap();
        let figure =
            |metric, window_seconds, limit, used| Figure { metric, window_seconds, limit, used, reset_at: None };
        let figures = [
            figure(Metric::Requests, Some(60), 20, 20),
            figure(Metric::Requests, Some(86_400), 50, 12),
            figure(Metric::Usd, None, 5_000_000_000_000, 1_250_000_000_000),
        ];
        let expected = json!({
            "free": {"limit": 50, "remaining": 38, "used": null},
            "balances": [{"currency": "CNY", "total": "7"}, {"currency": "USD", "total": "3.75"}],
        });
        assert_eq!(answer(&provider, &figures), Some(expected));
        assert_eq!(answer(&Provider::default(), &figures), None);
        assert!(is_asked(&provider, "/v1/key") && !is_asked(&provider, "/key") && !is_asked(&provider, "/v1/keys"));
    }
}
