//! What a refusal means and what helps.
//!
//! The provider's own rules are asked first, because a status alone misleads;
//! then the general ones. Structured fields decide; digits in free text never do.

use std::time::Duration;

use freeway_catalog::{Action, ErrorRule, Match, Pause, RateHeaderSays, window_seconds};
use freeway_dialect::UpstreamError;
use freeway_quota::{Shortage, duration_in, parse_duration, parse_retry_after, parse_retry_after_ms};
use freeway_types::Timestamp;
use jiff::ToSpan;
use serde_json::Value;

use crate::snapshot::Account;

/// What came back instead of an answer.
pub struct Refusal<'a> {
    /// Its status; 200 for an error inside an answer.
    pub status: u16,
    /// Reads one of its headers.
    pub header: &'a dyn Fn(&str) -> Option<String>,
    /// Its body.
    pub body: &'a [u8],
    /// When it came, by the provider's `date` if it sent one.
    pub answered_at: Timestamp,
    /// Refusals without a hint that this deployment gave in a row before this one.
    pub strikes: u32,
    /// Whether this deployment has answered 404 before.
    pub missing_before: bool,
}

/// What a refusal means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// In one word: the provider rule's case, or a general one.
    pub case: String,
    /// The action of the provider rule that read it, if one did.
    pub action: Option<Action>,
    /// What helps.
    pub remedy: Remedy,
    /// How much of the provider is not worth trying again within this request.
    pub domain: Domain,
    /// What to leave alone, and for how long.
    pub pause: Option<PauseOrder>,
    /// What is used up, where that lasts longer than a moment: a quota endpoint can tell when it is back.
    pub shortage: Option<Shortage>,
    /// The provider's own words, not yet scrubbed.
    pub message: String,
    /// The provider's own code and field, for a refusal that goes back to the client.
    pub code: Option<String>,
    /// The field of the request that is at fault.
    pub param: Option<String>,
}

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Another target at once; the same again after the time given, if it is the last or the user's own first choice.
    SameAgain(Duration),
    /// Another target.
    Another,
    /// Another key of the same account, else another target.
    AnotherKey,
    /// A target with a larger context.
    Larger,
    /// Nothing here: the request is at fault. With features unverified there, one other target is tried first.
    Client,
    /// Nothing anywhere: the provider will not serve this content, and the client is told.
    Nobody,
}

/// How much of a provider a failure speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The key that was used.
    Key,
    /// The model.
    Deployment,
    /// Everything at the account.
    Account,
    /// Everything at the provider, whoever pays for it.
    Provider,
}

/// What to leave alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseOrder {
    /// What.
    pub scope: Scope,
    /// For how long.
    pub length: Duration,
    /// Whether that is only inferred: no header, no field and no documented reset says so.
    pub inferred: bool,
}

/// What a pause is laid on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The key that was used.
    Key,
    /// The model.
    Deployment,
    /// All models that share a pool with it.
    Pool,
    /// The account.
    Account,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// A wait up to this long is waited out rather than remembered.
const SHORT_WAIT: Duration = Duration::from_secs(3);
/// Longest pause after refusals that give no hint.
const LONGEST_GUESS: Duration = Duration::from_secs(60);
/// How much of a body that is no JSON conditions look at.
const MOST_WORDS: usize = 4096;
/// Pause before the same target is tried again; the engine adds jitter.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Reads a refusal.
#[must_use]
pub fn read_refusal(account: &Account, refusal: &Refusal<'_>) -> Meaning {
    let body: Option<Value> = serde_json::from_slice(refusal.body).ok();
    let error = body.as_ref().and_then(UpstreamError::read).unwrap_or_default();
    let seen = Seen { refusal, account, body: body.as_ref(), error: &error };
    let rule = account.errors.iter().find(|rule| seen.matches(rule));
    let mut meaning = match rule {
        Some(rule) => seen.by_rule(rule),
        None => seen.by_status(),
    };
    meaning.message = if error.message.is_empty() { default_message(refusal) } else { error.message.clone() };
    meaning
}

impl Meaning {
    /// Whether it spent a limit or a credit.
    #[must_use]
    pub fn is_quota(&self, status: Option<u16>) -> bool {
        matches!(status, Some(402 | 429)) || self.action == Some(Action::Exhaust)
    }
}

/// A refusal, or a part of its body, and by whose facts it is read.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) refusal: &'a Refusal<'a>,
    pub(crate) account: &'a Account,
    pub(crate) body: Option<&'a Value>,
    pub(crate) error: &'a UpstreamError,
}

impl<'a> Seen<'a> {
    fn matches(&self, rule: &ErrorRule) -> bool {
        rule.status.contains(&self.refusal.status) && rule.when.iter().all(|condition| self.holds(condition))
    }

    pub(crate) fn holds(&self, condition: &Match) -> bool {
        let values = match (&condition.field, &condition.header) {
            (Some(path), _) => self.fields(path),
            (None, Some(name)) => self.header(name).into_iter().collect(),
            (None, None) => vec![self.words()],
        };
        let holds = |value: &String| {
            let is = condition.is.is_empty() || condition.is.contains(value);
            is && condition.contains.as_ref().is_none_or(|wanted| value.contains(wanted.as_str()))
        };
        values.iter().any(holds)
    }

    /// The error's message; of a body that is no JSON, the body itself, as an edge in front of a provider sends it.
    pub(crate) fn words(&self) -> String {
        if self.body.is_some() {
            return self.error.message.clone();
        }
        let start = &self.refusal.body[..self.refusal.body.len().min(MOST_WORDS)];
        String::from_utf8_lossy(start).into_owned()
    }

    /// A header by its name; else as it was passed on from a provider behind this one, under a prefix.
    fn header(&self, name: &str) -> Option<String> {
        let passed_on = |prefix: &String| (self.refusal.header)(&format!("{prefix}{name}"));
        (self.refusal.header)(name).or_else(|| self.account.header_prefixes.iter().find_map(passed_on))
    }

    /// A field of the body by its path, as text.
    fn field(&self, path: &str) -> Option<String> {
        self.fields(path).into_iter().next()
    }

    /// Every field of the body that a path leads to, as text.
    fn fields(&self, path: &str) -> Vec<String> {
        self.values(path)
            .into_iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect()
    }

    /// Every value of the body that a path leads to.
    pub(crate) fn values(&self, path: &str) -> Vec<&'a Value> {
        let steps: Vec<&str> = path.split('.').collect();
        let mut found = Vec::new();
        if let Some(body) = self.body {
            find(body, &steps, &mut found);
        }
        found
    }

    fn by_rule(&self, rule: &ErrorRule) -> Meaning {
        let hint = rule.until.iter().find_map(|hint| Some((self.until(hint)?, hint)));
        let wait = hint.map(|(wait, _)| wait);
        // A whole window is waited where nobody knows when in it the reset comes.
        let inferred = hint.is_none_or(|(_, hint)| window_seconds(hint).is_some());
        let paused = |default: Scope, length: Duration, inferred: bool| PauseOrder {
            scope: rule.pauses.map_or(default, |pauses| match pauses {
                Pause::Key => Scope::Key,
                Pause::Model => Scope::Deployment,
                Pause::Pool => Scope::Pool,
                Pause::Account => Scope::Account,
            }),
            length,
            inferred,
        };
        let (remedy, domain, pause) = match rule.action {
            Action::RetrySame => (Remedy::SameAgain(self.again_after()), Domain::Deployment, None),
            Action::Cooldown => {
                let wait = wait.unwrap_or_else(|| self.guess());
                let remedy = if wait <= SHORT_WAIT { Remedy::SameAgain(wait) } else { Remedy::Another };
                (remedy, Domain::Deployment, Some(paused(Scope::Deployment, wait, inferred)))
            }
            Action::Exhaust => {
                (Remedy::Another, Domain::Deployment, Some(paused(Scope::Deployment, wait.unwrap_or(DAY), inferred)))
            }
            Action::DisableKey => (Remedy::AnotherKey, Domain::Key, Some(paused(Scope::Key, HOUR, false))),
            Action::DisableModel => (Remedy::Another, Domain::Deployment, Some(paused(Scope::Deployment, DAY, false))),
            Action::DisableProvider => (Remedy::Another, Domain::Account, Some(paused(Scope::Account, DAY, false))),
            Action::Failover => (Remedy::Another, Domain::Deployment, None),
            Action::FailoverLarger => (Remedy::Larger, Domain::Deployment, None),
            Action::ReturnClient => (Remedy::Nobody, Domain::Deployment, None),
        };
        // A credit is back when somebody pays; what is back by itself says when.
        let is_bill = self.refusal.status == 402 || rule.until.iter().any(|hint| hint == "operator");
        let is_long = hint.is_some_and(|(_, hint)| hint.starts_with("day:") || hint.starts_with("month:"));
        let shortage = match rule.action {
            Action::Exhaust if is_bill => Some(Shortage::Credit),
            Action::Exhaust => Some(Shortage::Quota),
            Action::Cooldown if is_long => Some(Shortage::Quota),
            _ => None,
        };
        Meaning { action: Some(rule.action), shortage, ..self.meaning(&rule.case, remedy, domain, pause) }
    }

    fn by_status(&self) -> Meaning {
        let order = |scope, length| Some(PauseOrder { scope, length, inferred: false });
        let (case, remedy, domain, pause) = match self.refusal.status {
            400 | 403 | 422 if self.speaks_of_content() => {
                ("content_refused", Remedy::Nobody, Domain::Deployment, None)
            }
            401 => ("bad_key", Remedy::AnotherKey, Domain::Key, order(Scope::Key, HOUR)),
            402 => ("payment_required", Remedy::Another, Domain::Account, order(Scope::Account, DAY)),
            403 => ("forbidden", Remedy::Another, Domain::Deployment, None),
            404 if self.refusal.missing_before => {
                ("model_not_found", Remedy::Another, Domain::Deployment, order(Scope::Deployment, DAY))
            }
            404 => ("model_not_found", Remedy::Another, Domain::Deployment, None),
            410 => ("model_gone", Remedy::Another, Domain::Deployment, order(Scope::Deployment, DAY)),
            413 => ("too_large", Remedy::Larger, Domain::Deployment, None),
            400 | 422 if self.speaks_of_context() => ("context_too_long", Remedy::Larger, Domain::Deployment, None),
            400 | 422 => ("invalid_request", Remedy::Client, Domain::Deployment, None),
            429 => {
                let stated = self.until("retry-after");
                let wait = stated.unwrap_or_else(|| self.guess());
                let inferred = stated.is_none();
                let remedy = if wait <= SHORT_WAIT { Remedy::SameAgain(wait) } else { Remedy::Another };
                (
                    "rate_limit",
                    remedy,
                    Domain::Deployment,
                    Some(PauseOrder { scope: Scope::Deployment, length: wait, inferred }),
                )
            }
            // A provider that is down as a whole is tried once, whatever the number of its models.
            502..=504 | 529 => ("overloaded", Remedy::SameAgain(self.again_after()), Domain::Provider, None),
            408 | 409 | 425 | 499 | 500..=599 => {
                ("upstream_error", Remedy::SameAgain(self.again_after()), Domain::Deployment, None)
            }
            200..=299 => ("error_in_answer", Remedy::SameAgain(self.again_after()), Domain::Deployment, None),
            _ => ("unexpected_status", Remedy::Another, Domain::Deployment, None),
        };
        let shortage = (self.refusal.status == 402).then_some(Shortage::Credit);
        Meaning { shortage, ..self.meaning(case, remedy, domain, pause) }
    }

    fn meaning(&self, case: &str, remedy: Remedy, domain: Domain, pause: Option<PauseOrder>) -> Meaning {
        Meaning {
            case: case.to_owned(),
            action: None,
            remedy,
            domain,
            pause,
            shortage: None,
            message: String::new(),
            code: self.error.code.clone(),
            param: self.error.param.clone(),
        }
    }

    fn again_after(&self) -> Duration {
        self.until("retry-after").filter(|wait| *wait <= SHORT_WAIT).unwrap_or(AGAIN_AFTER)
    }

    /// Without any hint: one second, doubled with each refusal in a row.
    fn guess(&self) -> Duration {
        SECOND.saturating_mul(1 << self.refusal.strikes.min(6)).min(LONGEST_GUESS)
    }

    /// Error codes by which a provider refuses the content itself.
    fn speaks_of_content(&self) -> bool {
        let codes = ["content_policy_violation", "content_filter", "moderation_blocked"];
        self.error.code.as_ref().is_some_and(|code| codes.contains(&code.as_str()))
    }

    /// Error codes by which a context that is too small is told; wording is the provider rules' business.
    fn speaks_of_context(&self) -> bool {
        let codes = ["context_length_exceeded", "exceed_context_size_error", "request_too_large"];
        [&self.error.code, &self.error.kind].into_iter().flatten().any(|code| codes.contains(&code.as_str()))
    }

    /// How long until the instant that a hint of a rule speaks of.
    fn until(&self, hint: &str) -> Option<Duration> {
        let now = self.refusal.answered_at;
        match hint {
            "retry-after" => {
                let ms = |name: &str| parse_retry_after_ms(&self.header(name)?);
                ms("retry-after-ms")
                    .or_else(|| ms("x-ms-retry-after-ms"))
                    .or_else(|| parse_retry_after(&self.header("retry-after")?, now))
            }
            "reset-header" => self.reset_header(now),
            "retry-delay" => parse_duration(&find_key(self.body?, "retryDelay")?, now),
            "message" => duration_in(&self.error.message),
            "operator" => Some(DAY),
            _ => match hint.split_once(':') {
                Some(("field", path)) => parse_duration(&self.field(path)?, now),
                Some(("day", zone)) => civil(now, zone, false),
                Some(("month", zone)) => civil(now, zone, true),
                _ => window_seconds(hint).map(Duration::from_secs),
            },
        }
    }

    /// The reset of the metric that is used up; if no header says which, the latest.
    fn reset_header(&self, now: Timestamp) -> Option<Duration> {
        let headers = &self.account.headers;
        let resets = headers.iter().filter(|header| header.says == RateHeaderSays::Reset).filter_map(|reset| {
            let wait = parse_duration(&self.header(&reset.name)?, now)?;
            let used_up = headers.iter().any(|other| {
                other.says == RateHeaderSays::Remaining
                    && other.metric == reset.metric
                    && other.window == reset.window
                    && self.header(&other.name).is_some_and(|left| left.trim() == "0")
            });
            Some((used_up, wait))
        });
        resets.max().map(|(_, wait)| wait)
    }
}

fn default_message(refusal: &Refusal<'_>) -> String {
    let body = refusal.body.trim_ascii_start();
    match (body.starts_with(b"<"), body.is_empty()) {
        (true, _) => format!("status {} with a page instead of an answer", refusal.status),
        (_, true) => format!("status {} without a body", refusal.status),
        _ => format!("status {}", refusal.status),
    }
}

/// The values that a path leads to. `*` stands for each position of a list, and at the start also for no list at all:
/// some providers wrap their errors only sometimes.
fn find<'a>(value: &'a Value, steps: &[&str], found: &mut Vec<&'a Value>) {
    let Some((step, rest)) = steps.split_first() else { return found.push(value) };
    match (value, *step) {
        (Value::Array(list), "*") => list.iter().for_each(|item| find(item, rest, found)),
        (_, "*") => find(value, rest, found),
        (Value::Array(list), step) => {
            if let Some(item) = step.parse().ok().and_then(|position: usize| list.get(position)) {
                find(item, rest, found);
            }
        }
        (Value::Object(object), step) => {
            if let Some(inner) = object.get(step) {
                find(inner, rest, found);
            }
        }
        _ => {}
    }
}

/// The first text under a key, anywhere in a body.
fn find_key(value: &Value, key: &str) -> Option<String> {
    match value {
        Value::Object(object) => object
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| object.values().find_map(|value| find_key(value, key))),
        Value::Array(list) => list.iter().find_map(|value| find_key(value, key)),
        _ => None,
    }
}

/// How long until the next midnight, or the first of the next month, in a zone.
fn civil(now: Timestamp, zone: &str, month: bool) -> Option<Duration> {
    let zone = jiff::tz::TimeZone::get(zone).ok()?;
    let zoned = jiff::Timestamp::from_microsecond(now.as_micros()).ok()?.to_zoned(zone.clone());
    let last = if month { zoned.date().last_of_month() } else { zoned.date() };
    let next = last.checked_add(1.day()).ok()?.to_zoned(zone).ok()?;
    Some(Timestamp::from_micros(next.timestamp().as_microsecond()).since(now))
}

#[cfg(test)]
mod tests;
