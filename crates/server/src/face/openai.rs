//! The face that OpenAI's clients see.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use freeway_dialect::ClientError;
use freeway_engine::{Ask, Engine, Reply};
use freeway_policy::Caller;
use freeway_types::{Now, RequestId};
use http::HeaderMap;
use http::header::HeaderName;
use serde_json::{Value, json};

use crate::respond::{self, Answer};

/// Headers by which a request says what it wants. Two of one kind could be read in two ways.
const WISHES: [&str; 5] =
    ["x-freeway-tier", "x-freeway-data", "x-freeway-min-quality", "x-freeway-deadline", "x-freeway-rescue"];

/// Serves a chat completion.
pub(crate) async fn chat(
    engine: Arc<Engine>,
    id: RequestId,
    received: Now,
    headers: &HeaderMap,
    body: Bytes,
    caller: Caller,
    caller_name: String,
) -> Answer {
    // Most requests say nothing.
    let says = headers.keys().any(|name| name.as_str().starts_with("x-freeway-"));
    let text = |name: &str| {
        headers.get(name).filter(|_| says).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    if says && let Some(name) = WISHES.iter().find(|name| headers.get_all(**name).iter().count() > 1) {
        let message = format!("{name}: say it once");
        return respond::error(&ClientError::new(400, "invalid_value", message).at(name));
    }
    let deadline = match text("x-freeway-deadline").map(|seconds| deadline(&seconds)).transpose() {
        Ok(deadline) => deadline,
        Err(error) => return respond::error(&error),
    };
    let ask = Ask {
        id,
        received,
        body,
        caller,
        caller_name,
        tier: text("x-freeway-tier"),
        data: text("x-freeway-data"),
        min_quality: text("x-freeway-min-quality"),
        rescue: text("x-freeway-rescue"),
        deadline,
    };
    let served = engine.serve(ask).await;
    let mut answer = match served.reply {
        Reply::Whole(body) => respond::whole(200, "application/json", body),
        Reply::Stream(body) => respond::stream(body),
        Reply::Failed(error) => respond::error(&error),
    };
    let facts = [
        ("x-freeway-provider", served.provider),
        ("x-freeway-model", served.model),
        ("x-freeway-tier", Some(served.tier).filter(|tier| !tier.is_empty())),
        ("x-freeway-attempts", (served.attempts > 0).then(|| served.attempts.to_string())),
        ("x-freeway-dropped", Some(served.dropped.join(", ")).filter(|dropped| !dropped.is_empty())),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            respond::set(&mut answer, HeaderName::from_static(name), &value);
        }
    }
    answer
}

fn deadline(seconds: &str) -> Result<Duration, ClientError> {
    let parsed = seconds.trim().parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    parsed.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        let message = "x-freeway-deadline: a number of seconds above 0, such as 30 or 2.5";
        ClientError::new(400, "invalid_value", message).at("x-freeway-deadline")
    })
}

/// Everything that can be called, as OpenAI lists models.
pub(crate) fn models(engine: &Engine, created: i64) -> Value {
    json!({"object": "list", "data": list(engine, created)})
}

/// One of them, by its name.
pub(crate) fn model(engine: &Engine, created: i64, name: &str) -> Result<Value, ClientError> {
    let name = &*percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    let found = list(engine, created).into_iter().find(|model| model["id"] == name);
    found.ok_or_else(|| {
        let name: String = name.chars().take(128).flat_map(char::escape_debug).collect();
        let message = format!("no model or alias is called `{name}`; GET /v1/models lists what can be called");
        ClientError::new(404, "model_not_found", message).at("model")
    })
}

fn list(engine: &Engine, created: i64) -> Vec<Value> {
    let snapshot = engine.snapshot();
    let entry = |id: &str, owner: &str, facts: Value| json!({"id": id, "object": "model", "created": created, "owned_by": owner, "freeway": facts});
    let aliases = snapshot.aliases.iter().map(|(name, alias)| {
        let targets: Vec<&str> =
            alias.targets.iter().map(|target| snapshot.deployment(*target).name.as_str()).collect();
        entry(name, "freeway", json!({"alias": true, "strategy": alias.strategy.as_str(), "targets": targets}))
    });
    let auto = entry("auto", "freeway", json!({"alias": true, "targets": "any chat model that will do"}));
    let deployments = engine
        .deployments()
        .into_iter()
        .filter(|deployment| deployment.unusable.is_none())
        .map(|deployment| entry(&deployment.name, &deployment.account, deployment.facts));
    aliases.chain([auto]).chain(deployments).collect()
}
