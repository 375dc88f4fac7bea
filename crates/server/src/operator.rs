//! The operator's API under `/freeway/v1`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use freeway_dialect::ClientError;
use freeway_engine::Engine;
use freeway_policy::{Caller, Wish};
use freeway_store::{Page, RequestRecord, StoreError, UsageKey};
use freeway_telemetry::names;
use freeway_types::{RequestId, Timestamp, Usd};
use http::HeaderMap;
use serde_json::{Value, json};

/// Most requests on one page.
const MOST_REQUESTS: u32 = 500;

/// Every deployment with its facts.
pub(crate) fn deployments(engine: &Engine) -> Value {
    let rows: Vec<Value> = engine
        .deployments()
        .into_iter()
        .map(|deployment| {
            let mut row = deployment.facts;
            row["deployment"] = json!(deployment.name);
            row["off"] = json!(deployment.unusable);
            row["estimates"] = json!(deployment.estimates);
            row
        })
        .collect();
    json!({"deployments": rows})
}

/// Requests, newest first.
pub(crate) async fn requests(
    engine: Arc<Engine>,
    query: &str,
    caller: Caller,
    name: String,
) -> Result<Value, ClientError> {
    let query = parameters(query);
    let most = match query.get("limit").map(|limit| limit.parse::<u32>()) {
        None => 50,
        Some(Ok(most)) if (1..=MOST_REQUESTS).contains(&most) => most,
        Some(_) => {
            return Err(ClientError::new(
                400,
                "invalid_value",
                format!("`limit` is a number from 1 to {MOST_REQUESTS}"),
            )
            .at("limit"));
        }
    };
    let before = query.get("before").map(|id| id.parse::<RequestId>()).transpose();
    let before =
        before.map_err(|error| ClientError::new(400, "invalid_value", format!("`before`: {error}")).at("before"))?;
    let own = (caller != Caller::Operator).then_some(name);
    let found = blocking(move || engine.store().requests(Page { caller: own, most, before })).await?;
    let rows: Vec<Value> = found.iter().map(summary).collect();
    Ok(json!({"requests": rows}))
}

/// What is counted, and what stands.
pub(crate) fn metrics(engine: &Engine) -> String {
    let waiting = names::WAITING;
    format!("{}# TYPE {waiting} gauge\n{waiting} {}\n", engine.telemetry().render(), engine.waiting())
}

/// One request with its candidates and attempts. Another client's request is as unknown as one that never was.
pub(crate) async fn request(engine: Arc<Engine>, id: &str, caller: Caller, name: String) -> Result<Value, ClientError> {
    let unknown = || {
        ClientError::new(404, "not_found", "no such request is in the ledger (it is written when the request is over)")
    };
    let id: RequestId = id.parse().map_err(|_| unknown())?;
    let found = blocking(move || engine.store().request(id)).await?;
    let found = found.filter(|request| caller == Caller::Operator || request.caller == name).ok_or_else(unknown)?;
    let mut row = summary(&found);
    row["candidates"] = freeway_engine::read_candidates(&found.candidates);
    row["attempts"] = found
        .attempts
        .iter()
        .map(|attempt| {
            json!({
                "target": format!("{}/{}", attempt.account, attempt.model),
                "key": attempt.key.map(|key| key + 1),
                "sent_at": attempt.sent_at.to_string(),
                "took_ms": ms(attempt.took_us),
                "status": attempt.status,
                "outcome": attempt.outcome,
                "message": attempt.message,
                "usage": attempt.usage,
                "usage_source": attempt.usage_source,
                "cost_usd": attempt.cost.map(Usd::as_dollars),
            })
        })
        .collect();
    Ok(row)
}

fn summary(request: &RequestRecord) -> Value {
    json!({
        "id": request.id.to_string(),
        "received_at": request.received_at.to_string(),
        "took_ms": ms(request.took_us),
        "first_content_ms": request.first_content_us.map(ms),
        "waited_ms": ms(request.waited_us),
        "caller": request.caller,
        "model": request.model,
        "tier": request.tier,
        "data": request.data,
        "stream": request.stream,
        "status": request.status,
        "outcome": request.outcome,
        "error": request.error,
        "served_by": request.served_by,
    })
}

/// Use and cost. `by` is provider, model, key or day; `since` an instant, by default 30 days ago.
pub(crate) async fn usage(engine: Arc<Engine>, query: &str) -> Result<Value, ClientError> {
    let query = parameters(query);
    let by_text = query.get("by").map_or("provider", String::as_str).to_owned();
    let by = match by_text.as_str() {
        "provider" => UsageKey::Provider,
        "model" => UsageKey::Model,
        "key" => UsageKey::Key,
        "day" => UsageKey::Day,
        _ => return Err(ClientError::new(400, "invalid_value", "`by` is provider, model, key or day").at("by")),
    };
    let month = std::time::Duration::from_secs(30 * 86_400);
    let since = query.get("since").map(|text| instant("since", text)).transpose()?;
    let since = since.unwrap_or_else(|| engine.now().wall.before(month));
    let rows = blocking(move || engine.store().usage(by, since)).await?;
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            #[expect(clippy::cast_precision_loss, reason = "shown to people")]
            let each = (row.answered > 0).then(|| row.cost.as_dollars() / row.answered as f64);
            json!({
                "name": row.name,
                "answered": row.answered,
                "attempts": row.attempts,
                "input_tokens": row.input,
                "output_tokens": row.output,
                "estimated_attempts": row.estimated,
                "cost_usd": row.cost.as_dollars(),
                "cost_usd_per_answer": each,
                "unpriced_attempts": row.unpriced,
            })
        })
        .collect();
    Ok(json!({"by": by_text, "since": since.to_string(), "rows": rows}))
}

/// The plan for a request body.
pub(crate) fn explain(engine: &Engine, headers: &HeaderMap, body: &Bytes) -> Result<Value, ClientError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let wish =
        Wish { tier: text("x-freeway-tier"), data: text("x-freeway-data"), min_quality: text("x-freeway-min-quality") };
    engine.explain(body, wish)
}

/// Runs a query where it holds nobody up.
async fn blocking<T: Send + 'static>(
    query: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ClientError> {
    let failed = |message: String| ClientError::new(503, "ledger_unavailable", message);
    let result = tokio::task::spawn_blocking(query).await.map_err(|error| failed(error.to_string()))?;
    result.map_err(|error| failed(error.to_string()))
}

/// The parameters of a query string.
fn parameters(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn instant(name: &str, text: &str) -> Result<Timestamp, ClientError> {
    Timestamp::parse(text).ok_or_else(|| {
        ClientError::new(
            400,
            "invalid_value",
            format!("`{name}` is an instant such as 2026-11-22T00:00:00Z, or a date"),
        )
        .at(name)
    })
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn ms(micros: u64) -> f64 {
    (micros as f64 / 100.0).round() / 10.0
}
