//! `/freeway/v1/quotas`: every limit as it stands, where each figure is from, pauses, warnings, and what was learned
//! about tokens.

use freeway_engine::{Engine, LimitReport, Warning, size_json};
use freeway_types::{Metric, Timestamp, Usd};
use serde_json::{Value, json};

/// Every limit and pause as it stands, what somebody should hear of, and what was learned about tokens.
pub(crate) fn quotas(engine: &Engine) -> Value {
    let now = engine.now().wall;
    let limits: Vec<Value> = engine.limits().into_iter().map(|report| limit(&report)).collect();
    let pauses: Vec<Value> = engine
        .pauses()
        .into_iter()
        .map(|pause| json!({"what": pause.what, "until": pause.until.to_string(), "why": pause.why}))
        .collect();
    let learned = engine.deployments().into_iter().filter(|deployment| !deployment.estimates.is_empty());
    let estimates: Vec<Value> =
        learned.map(|deployment| json!({"deployment": deployment.name, "learned": deployment.estimates})).collect();
    let warnings: Vec<Value> = engine.warnings().iter().map(warning).collect();
    json!({
        "at": now.to_string(),
        "limits": limits,
        "pauses": pauses,
        "warnings": warnings,
        "estimates": estimates,
    })
}

fn limit(report: &LimitReport) -> Value {
    let shown = |units: u64| match report.metric {
        Metric::Usd => json!(Usd::from_picos(i64::try_from(units).unwrap_or(i64::MAX)).as_dollars()),
        _ => json!(units),
    };
    let instant = |instant: Option<Timestamp>| instant.map(|instant| instant.to_string());
    // One that stands alone is the limit itself.
    let credits = report.credits.iter().filter(|_| report.credits.len() > 1).map(|credit| {
        json!({
            "credit": credit.name,
            "amount": shown(credit.amount),
            "used": shown(credit.used),
            "left": shown(credit.left),
            "lapses": instant(credit.lapses),
        })
    });
    let lapses = report.credits.iter().filter(|credit| credit.left > 0).find_map(|credit| credit.lapses);
    json!({
        "limit": report.name,
        "metric": report.metric,
        "window": report.window,
        "amount": report.amount.map(shown),
        "declared": report.declared.map(shown),
        "declared_by": match (report.own, report.undeclared) {
            (true, _) => Some("configuration"),
            (false, false) => Some("facts"),
            (false, true) => None,
        },
        "confidence": report.confidence,
        "learned": report.learned.map(|size| size_json(size, shown)),
        "others": shown(report.foreign),
        "used": shown(report.used),
        "held": shown(report.held),
        "left": report.amount.map(|_| shown(report.left)),
        "returns": instant(report.returns),
        "lapses": instant(lapses),
        "credits": credits.collect::<Vec<_>>(),
        "reset_assumed": report.reset_unknown,
        "pace_per_hour": report.pace.map(|pace| shown(pace.per_hour())),
        "runs_dry": instant(report.dry),
        "price": report.price,
        "sources": report.sources,
    })
}

fn warning(warning: &Warning) -> Value {
    match warning {
        Warning::Route(risk) => {
            json!({"kind": warning.kind(), "route": risk.route, "why": risk.why, "remedy": risk.remedy})
        }
        Warning::Credit { name, why, .. } => json!({"kind": warning.kind(), "credit": name, "why": why}),
    }
}
