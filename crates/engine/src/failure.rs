//! The last word: what a client is told when no target could serve, and when to come back.

use std::time::Duration;

use freeway_catalog::Action;
use freeway_dialect::ClientError;
use freeway_router::{Bar, Meaning, Plan, Reason, Verdict};
use freeway_types::{DeploymentIndex, Now};

use crate::attempt::SETTING;

/// Most targets that are named in a message.
const MOST_NAMED: usize = 12;
/// A wait longer than this is not worth repeating the same request for.
const LONGEST_RETRY: Duration = Duration::from_secs(120);

/// Failures that the same request will meet again, where only the status tells.
const LASTING: [&str; 4] = ["model_not_found", "model_gone", "payment_required", "model_not_on_plan"];

/// What stood in the way of one target.
pub(crate) struct Obstacle {
    pub(crate) deployment: DeploymentIndex,
    pub(crate) reason: Reason,
    /// The attempt that failed, if there was one.
    pub(crate) last: Option<Last>,
}

/// An attempt that failed.
pub(crate) struct Last {
    case: String,
    /// What the provider's own rule said of it, if one did.
    action: Option<Action>,
    status: Option<u16>,
    is_quota: bool,
    /// Whether only another setting helps.
    is_setting: bool,
}

impl Last {
    pub(crate) fn new(meaning: &Meaning, status: Option<u16>) -> Self {
        let is_setting = status.is_none() && meaning.code.as_deref() == Some(SETTING);
        let (case, is_quota) = (meaning.case.clone(), meaning.is_quota(status));
        Self { case, action: meaning.action, status, is_quota, is_setting }
    }

    /// Whether it spent a limit or a credit.
    pub(crate) fn is_quota(&self) -> bool {
        self.is_quota
    }

    fn is_key(&self) -> bool {
        self.case == "bad_key" || self.action == Some(Action::DisableKey)
    }

    fn is_too_long(&self) -> bool {
        matches!(self.case.as_str(), "context_too_long" | "too_large") || self.action == Some(Action::FailoverLarger)
    }

    /// Whether the same request will meet it again.
    fn lasts(&self) -> bool {
        let gone = matches!(self.action, Some(Action::DisableModel | Action::DisableProvider | Action::Exhaust));
        gone || self.is_key() || self.is_setting || LASTING.contains(&self.case.as_str())
    }
}

impl Obstacle {
    /// What stood in the way before anything was tried.
    pub(crate) fn of_plan(plan: &Plan) -> Vec<Self> {
        plan.candidates
            .iter()
            .filter_map(|candidate| match &candidate.verdict {
                Verdict::Dropped(reason) => {
                    Some(Self { deployment: candidate.deployment, reason: reason.clone(), last: None })
                }
                Verdict::Kept { .. } => None,
            })
            .collect()
    }

    /// Whether it is used-up quota, which comes back at a known time.
    pub(crate) fn is_quota(&self) -> bool {
        match (&self.reason, &self.last) {
            (Reason::Paused { .. }, Some(last)) if last.is_quota() => true,
            (Reason::Paused { why, .. }, None) => ["rate_limit", "quota", "exhausted", "credits", "payment", "limit"]
                .iter()
                .any(|word| why.contains(word)),
            (reason, _) => reason.bar() == Bar::Quota,
        }
    }

    /// Whether an upstream said that it cannot serve just now. With 499 it says that somebody within it went away before
    /// the answer was there, since this gateway did not: a timeout like 408.
    fn is_passing(&self) -> bool {
        match &self.last {
            Some(Last { status: Some(status), .. }) => matches!(status, 408 | 409 | 425 | 429 | 499 | 500..=599),
            Some(Last { status: None, .. }) => false,
            None => self.reason.bar() == Bar::Passing,
        }
    }
}

/// The error for a request that nobody served.
pub(crate) fn last_word(model: &str, obstacles: &[(&str, &Obstacle)], now: Now, out_of_time: bool) -> ClientError {
    let (status, code) = judge(obstacles, out_of_time);
    let model: String = model.chars().take(128).flat_map(char::escape_debug).collect();
    let mut message = format!("no target could serve `{model}`");
    let mut separator = ": ";
    for (name, obstacle) in obstacles.iter().take(MOST_NAMED) {
        message.push_str(&format!("{separator}{name}: {}", obstacle.reason));
        separator = "; ";
    }
    if obstacles.len() > MOST_NAMED {
        message.push_str(&format!("; and {} more", obstacles.len() - MOST_NAMED));
    }
    let mut error = ClientError::new(status, code, message);
    if matches!(status, 429 | 503) {
        let earliest = match status {
            // What may pass at any moment is not made to wait for what is used up.
            503 => {
                let passing = obstacles.iter().filter(|(_, obstacle)| obstacle.is_passing() && !obstacle.is_quota());
                passing.map(|(_, obstacle)| obstacle.reason.wait(now).unwrap_or(Duration::from_secs(1))).min()
            }
            _ => obstacles.iter().filter_map(|(_, obstacle)| obstacle.reason.wait(now)).min(),
        };
        error.retry_after = match (status, earliest) {
            (_, Some(wait)) => Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0 || wait.is_zero())),
            (503, None) => Some(1),
            _ => None,
        };
    }
    error.should_retry = match status {
        429 | 503 => error.retry_after.is_some_and(|seconds| seconds <= LONGEST_RETRY.as_secs()),
        504 => true,
        502 => obstacles.iter().any(|(_, obstacle)| obstacle.last.as_ref().is_some_and(|last| !last.lasts())),
        _ => false,
    };
    if code == "unsupported_parameter" {
        error.param = obstacles.iter().find_map(|(_, obstacle)| match &obstacle.reason {
            Reason::Field(field) => Some(field.clone()),
            _ => None,
        });
    }
    error
}

fn judge(obstacles: &[(&str, &Obstacle)], out_of_time: bool) -> (u16, &'static str) {
    let all = |bar: Bar| !obstacles.is_empty() && obstacles.iter().all(|(_, obstacle)| obstacle.reason.bar() == bar);
    if all(Bar::Policy) {
        return (403, "no_permitted_target");
    }
    // What rules or abilities bar says nothing about when to come back: the others decide.
    let open: Vec<&Obstacle> = obstacles
        .iter()
        .map(|(_, obstacle)| *obstacle)
        .filter(|obstacle| !matches!(obstacle.reason.bar(), Bar::Policy | Bar::Capability))
        .collect();
    if obstacles.is_empty() || (out_of_time && open.is_empty()) {
        return (504, "upstream_timeout");
    }
    if open.is_empty() {
        let all_off = obstacles.iter().all(|(_, obstacle)| matches!(obstacle.reason, Reason::Off(_)));
        return if all_off { (404, "model_not_found") } else { (400, "unsupported_parameter") };
    }
    let too_long = |obstacle: &&Obstacle| {
        obstacle.reason.bar() == Bar::Context || obstacle.last.as_ref().is_some_and(Last::is_too_long)
    };
    if open.iter().all(too_long) {
        return (400, "context_length_exceeded");
    }
    let reachable: Vec<&&Obstacle> = open.iter().filter(|obstacle| !too_long(obstacle)).collect();
    if reachable.iter().all(|obstacle| obstacle.is_quota()) {
        return (429, "quota_exhausted");
    }
    if reachable.iter().any(|obstacle| obstacle.is_passing()) {
        return (503, "upstream_unavailable");
    }
    match reachable.iter().rev().find_map(|obstacle| obstacle.last.as_ref()) {
        Some(last) if last.case == "silence" => (504, "upstream_timeout"),
        Some(last) if last.case.starts_with("connection") => (502, "upstream_connection_failed"),
        Some(last) if last.is_key() => (502, "upstream_refused_key"),
        Some(_) => (502, "upstream_invalid_response"),
        None if out_of_time => (504, "upstream_timeout"),
        None => (503, "upstream_unavailable"),
    }
}
