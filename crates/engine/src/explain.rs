//! Reports for people: plans, limits, pauses, deployments.

use std::collections::BTreeSet;

use freeway_dialect::ClientError;
use freeway_dialect::openai_chat::ChatRequest;
use freeway_policy::{Admission, Caller, Wish, admit};
use freeway_quota::PauseScope;
use freeway_router::{Plan, Verdict};
use freeway_types::{LimitIndex, Metric, Quality, Timestamp};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::job::make_plan;

/// One limit as it stands.
pub struct LimitReport {
    /// Its name.
    pub name: String,
    /// What it counts.
    pub metric: Metric,
    /// Its window, as written.
    pub window: String,
    /// Its size, if known; USD in picodollars.
    pub amount: Option<u64>,
    /// Used or held.
    pub used: u64,
    /// Of that, held for attempts in flight.
    pub held: u64,
    /// Left now.
    pub left: u64,
    /// When the next unit comes back, if any is used.
    pub returns: Option<Timestamp>,
    /// Whether the kind of reset is only assumed.
    pub reset_unknown: bool,
}

/// One pause in force.
pub struct PauseReport {
    /// What is paused.
    pub what: String,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub why: String,
}

/// One deployment, as `/v1/models` shows it.
pub struct DeploymentReport {
    /// `account/model`.
    pub name: String,
    /// The account's name.
    pub account: String,
    /// Its facts.
    pub facts: Value,
    /// Why it cannot be used now, if so.
    pub unusable: Option<String>,
}

/// The candidates of a plan, as JSON text. Every request pays for it, so it is written by hand.
pub(crate) fn candidates_json(engine: &Engine, plan: &Plan) -> String {
    let mut ranks = vec![0; plan.candidates.len()];
    for (rank, position) in plan.order.iter().enumerate() {
        ranks[*position] = rank + 1;
    }
    let mut text = String::with_capacity(96 * plan.candidates.len() + 2);
    for (candidate, rank) in plan.candidates.iter().zip(ranks) {
        text.push(if text.is_empty() { '[' } else { ',' });
        text.push_str(r#"{"target":"#);
        push_quoted(&mut text, &engine.snapshot.deployment(candidate.deployment).name);
        match &candidate.verdict {
            Verdict::Kept { headroom } => {
                let permille = permille(*headroom);
                text.push_str(r#","kept":true,"rank":"#);
                push_number(&mut text, rank);
                text.push_str(r#","headroom_percent":"#);
                push_number(&mut text, permille / 10);
                text.push('.');
                push_number(&mut text, permille % 10);
            }
            Verdict::Dropped(reason) => {
                text.push_str(r#","kept":false,"reason":"#);
                push_quoted(&mut text, reason.code());
                text.push_str(r#","why":"#);
                push_quoted(&mut text, &reason.to_string());
            }
        }
        text.push('}');
    }
    text.push_str(if text.is_empty() { "[]" } else { "]" });
    text
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share lies between 0 and 1")]
fn permille(share: f64) -> usize {
    (share.clamp(0.0, 1.0) * 1000.0).round() as usize
}

fn push_number(text: &mut String, number: usize) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b"0123456789"[number % 10]));
}

/// Text as JSON writes it.
fn push_quoted(text: &mut String, value: &str) {
    if value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\') {
        text.push('"');
        text.push_str(value);
        text.push('"');
    } else {
        text.push_str(&Value::from(value).to_string());
    }
}

impl Engine {
    /// The plan for a request body, as things stand now. Nothing is sent and nothing is held.
    ///
    /// # Errors
    /// What a client that sent the body would be told.
    pub fn explain(&self, body: &bytes::Bytes, wish: Wish<'_>) -> Result<Value, ClientError> {
        let chat = ChatRequest::read(body)?;
        let admission: Admission = admit(&self.snapshot.rules, Caller::Operator, wish)
            .map_err(|denial| ClientError::new(400, "invalid_value", denial.to_string()))?;
        let plan = make_plan(self, &chat, &admission)?;
        let expected = plan.order.first().map(|position| plan.candidates[*position].demand);
        Ok(json!({
            "model": chat.model,
            "tier": self.snapshot.rules.tiers[admission.tier].name,
            "data": admission.data,
            "min_quality": admission.min_quality.get(),
            "features": chat.features.iter().map(freeway_types::Feature::as_str).collect::<Vec<_>>(),
            "expected_input_tokens": expected.map(|demand| demand.input.expected),
            "expected_output_tokens": expected.map(|demand| demand.output.expected),
            "candidates": serde_json::from_str::<Value>(&candidates_json(self, &plan)).unwrap_or_default(),
        }))
    }

    /// Every limit as it stands.
    pub fn limits(&self) -> Vec<LimitReport> {
        let now = self.now();
        let mut state = self.state();
        let in_use: BTreeSet<LimitIndex> =
            self.snapshot.deployments.iter().flat_map(|deployment| deployment.limits.iter().copied()).collect();
        let views = state.book.view(now).enumerate();
        let views = views.filter(|(place, _)| in_use.contains(&LimitIndex::new(*place)));
        let reports = views.map(|(_, view)| LimitReport {
            name: view.spec.name.clone(),
            metric: view.spec.metric,
            window: view.spec.window.clone(),
            amount: view.amount,
            used: view.used,
            held: view.held,
            left: view.left,
            returns: view.returns,
            reset_unknown: view.spec.reset_unknown,
        });
        reports.collect()
    }

    /// Every pause in force.
    pub fn pauses(&self) -> Vec<PauseReport> {
        let now = self.now();
        let state = self.state();
        let reports = state.pauses.iter(now).map(|(scope, until, why)| PauseReport {
            what: match scope {
                PauseScope::Key(account, key) => format!("key {} of {account}", key.get() + 1),
                PauseScope::Deployment(name) | PauseScope::Account(name) => name.clone(),
            },
            until: until.wall,
            why: why.to_owned(),
        });
        reports.collect()
    }

    /// Every deployment, in the order of the configuration.
    pub fn deployments(&self) -> Vec<DeploymentReport> {
        let reports = self.snapshot.deployments.iter().map(|deployment| {
            let account = &self.snapshot.accounts[deployment.account.get()];
            let features = &deployment.features;
            let price = deployment.prices.map(|prices| {
                let usd = |price: freeway_types::Price| price.times(1_000_000).as_dollars();
                json!({"input": usd(prices.input), "output": usd(prices.output)})
            });
            let quality: Quality = deployment.quality;
            DeploymentReport {
                name: deployment.name.clone(),
                account: account.id.clone(),
                facts: json!({
                    "quality": quality.get(),
                    "context": deployment.context,
                    "max_output": deployment.max_output,
                    "cost": deployment.cost,
                    "price_usd_per_mtok": price,
                    "features": features.present.iter().map(freeway_types::Feature::as_str).collect::<Vec<_>>(),
                    "lacks": features.absent.iter().map(freeway_types::Feature::as_str).collect::<Vec<_>>(),
                    "reasoning": deployment.reasoning,
                    "trains": deployment.data.trains,
                    "retention_days": deployment.data.retention_days,
                }),
                unusable: deployment.off.clone(),
            }
        });
        reports.collect()
    }
}
