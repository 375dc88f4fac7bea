//! Where the figures of a limit are from, and how old they are.

use freeway_catalog::STALE_DAYS;
use freeway_quota::{LimitView, Provenance, ReportSource, Size};
use freeway_types::Timestamp;
use serde_json::{Value, json};

/// Where each figure is from, and how old it is.
pub(crate) fn sources(view: &LimitView<'_>, now: Timestamp) -> Value {
    let declared = match (view.spec.own, view.spec.undeclared) {
        (true, _) => json!({"by": "configuration"}),
        // Somebody has shown that there is such a limit, and nobody has said how it comes back.
        (false, true) => json!({"by": "assumption"}),
        (false, false) => facts(view, now),
    };
    let amount = match view.provenance {
        Provenance::Configuration | Provenance::Facts => declared.clone(),
        Provenance::Learned(size) => learned(size, now),
    };
    let told = view.heard.map(|at| json!({"by": "provider", "at": at.to_string(), "age_seconds": age(at, now)}));
    // Where answers have contradicted what is documented of its boundary, theirs is the word that counts.
    let reset = if view.spec.moved { json!({"by": "headers"}) } else { declared };
    json!({"amount": amount, "used": {"by": "gateway"}, "others": told, "reset": reset})
}

fn facts(view: &LimitView<'_>, now: Timestamp) -> Value {
    let days = view.spec.as_of.map(|day| age(day, now) / 86_400);
    json!({
        "by": "facts",
        // The day alone: facts are not read at an hour.
        "as_of": view.spec.as_of.and_then(|day| Some(day.to_string().split_once('T')?.0.to_owned())),
        "age_seconds": view.spec.as_of.map(|day| age(day, now)),
        "confidence": view.spec.confidence,
        "stale": days.is_none_or(|days| i64::try_from(days).is_ok_and(|days| days > STALE_DAYS)),
    })
}

fn learned(size: Size, now: Timestamp) -> Value {
    let by = match size.source {
        Some(ReportSource::Header) => "headers",
        Some(ReportSource::Refusal) => "refusal",
        Some(ReportSource::Endpoint) => "endpoint",
        None => "refusals",
    };
    json!({"by": by, "at": size.at.to_string(), "age_seconds": age(size.at, now)})
}

fn age(at: Timestamp, now: Timestamp) -> u64 {
    now.since(at).as_secs()
}
