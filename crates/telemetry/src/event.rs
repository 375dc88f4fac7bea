//! The events.

use freeway_types::{RequestId, Usage};

use crate::metrics::Metrics;
use crate::names;

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For following single requests.
    Debug,
    /// For knowing what the gateway does.
    Info,
    /// Something an operator may want to act on.
    Warn,
    /// Something an operator must act on.
    Error,
}

/// Something worth telling.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The gateway listens.
    Listening {
        /// Where.
        address: &'a str,
    },
    /// A request is over.
    RequestEnded {
        /// Which.
        id: RequestId,
        /// `answered`, `failed`, `refused` or `cancelled`.
        outcome: &'a str,
        /// Status sent to the client.
        status: u16,
        /// Who served it, if anybody.
        served_by: Option<&'a str>,
        /// Attempts made.
        attempts: usize,
    },
    /// An attempt is over.
    AttemptEnded {
        /// Of which request.
        id: RequestId,
        /// At which account.
        account: &'a str,
        /// Which model.
        model: &'a str,
        /// `answered`, or the case of its failure.
        outcome: &'a str,
        /// Upstream's status, if it sent one.
        status: Option<u16>,
        /// What it used.
        usage: Usage,
    },
    /// Something is left alone for a while.
    Paused {
        /// What.
        what: &'a str,
        /// For how many seconds.
        seconds: u64,
        /// Why.
        why: &'a str,
    },
    /// A pause ended before its time.
    Resumed {
        /// What was left alone.
        what: &'a str,
        /// Why it was.
        why: &'a str,
    },
    /// Something fails again and again, and is left alone until one request may try it.
    BreakerOpened {
        /// What.
        what: &'a str,
        /// For how many seconds.
        seconds: f64,
    },
    /// Something works again.
    BreakerClosed {
        /// What.
        what: &'a str,
    },
    /// A request was slow, and a second attempt began beside the first.
    Hedged {
        /// Which request.
        id: RequestId,
        /// The slow target.
        slow: &'a str,
        /// The second one.
        second: &'a str,
    },
    /// A request waited for quota, and does so no longer.
    Waited {
        /// Which.
        id: RequestId,
        /// `served`, `expired`, or `left` by its client or at the gateway's end.
        outcome: &'a str,
        /// How long, in milliseconds.
        millis: u64,
    },
    /// A provider was asked how much is left of an account.
    QuotaAsked {
        /// Of which account.
        account: &'a str,
        /// `answered`, or `failed`: then nothing was changed.
        outcome: &'a str,
        /// How many limits the answer told of.
        limits: usize,
        /// Why there was no answer.
        error: Option<&'a str>,
    },
    /// An event of a stream could not be read and was left out.
    MalformedEvent {
        /// At which account.
        account: &'a str,
    },
    /// A request was turned away before it was looked at.
    TurnedAway {
        /// Why.
        reason: &'a str,
    },
    /// The ledger could not be written.
    LedgerFailed {
        /// What the store said.
        error: &'a str,
    },
    /// The power was lost while a process counted here.
    PowerLost {
        /// Limits of which more counts as used than the ledger knows of.
        limits: usize,
    },
    /// Prices of limits were worked out.
    Priced {
        /// Groups of requests that are expected.
        groups: usize,
        /// Limits of which a unit is worth anything.
        limits: usize,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// Prices of limits could not be worked out; the earlier ones stay.
    PricesFailed {
        /// Why.
        why: &'a str,
    },
    /// An edited configuration is in force.
    Reloaded {
        /// Targets that can be called now.
        targets: usize,
    },
    /// An edited configuration was not taken; the one before stays in force.
    ReloadRefused {
        /// What is wrong with it, in one line.
        why: &'a str,
    },
    /// A route may stop to work.
    RouteAtRisk {
        /// The name that clients call.
        route: &'a str,
        /// What it rests on.
        why: &'a str,
        /// What helps.
        remedy: &'a str,
    },
    /// A credit is nearly used up, or lapses soon.
    CreditEnding {
        /// What it is called.
        credit: &'a str,
        /// How it stands.
        why: &'a str,
    },
    /// The gateway stops.
    Stopping,
}

impl Level {
    /// The word in a log line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

impl Event<'_> {
    /// The event's name in a log line.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Listening { .. } => "listening",
            Self::RequestEnded { .. } => "request_ended",
            Self::AttemptEnded { .. } => "attempt_ended",
            Self::Paused { .. } => "paused",
            Self::Resumed { .. } => "resumed",
            Self::BreakerOpened { .. } => "breaker_opened",
            Self::BreakerClosed { .. } => "breaker_closed",
            Self::Hedged { .. } => "hedged",
            Self::Waited { .. } => "waited",
            Self::QuotaAsked { .. } => "quota_asked",
            Self::MalformedEvent { .. } => "malformed_event",
            Self::TurnedAway { .. } => "turned_away",
            Self::LedgerFailed { .. } => "ledger_failed",
            Self::PowerLost { .. } => "power_lost",
            Self::Priced { .. } => "priced",
            Self::PricesFailed { .. } => "prices_failed",
            Self::Reloaded { .. } => "reloaded",
            Self::ReloadRefused { .. } => "reload_refused",
            Self::RouteAtRisk { .. } => "route_at_risk",
            Self::CreditEnding { .. } => "credit_ending",
            Self::Stopping => "stopping",
        }
    }

    /// How grave it is.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self {
            Self::RequestEnded { .. }
            | Self::AttemptEnded { .. }
            | Self::Hedged { .. }
            | Self::Waited { .. }
            | Self::TurnedAway { .. } => Level::Debug,
            Self::Listening { .. }
            | Self::Priced { .. }
            | Self::Reloaded { .. }
            | Self::Resumed { .. }
            | Self::BreakerClosed { .. }
            | Self::QuotaAsked { .. }
            | Self::Stopping => Level::Info,
            Self::Paused { .. }
            | Self::BreakerOpened { .. }
            | Self::PowerLost { .. }
            | Self::PricesFailed { .. }
            | Self::MalformedEvent { .. }
            | Self::RouteAtRisk { .. }
            | Self::CreditEnding { .. } => Level::Warn,
            Self::LedgerFailed { .. } | Self::ReloadRefused { .. } => Level::Error,
        }
    }

    /// The rest of its log line: `key=value`, with control characters escaped.
    #[must_use]
    pub fn fields(&self) -> String {
        match self {
            Self::Listening { address } => format!("address={address}"),
            Self::RequestEnded { id, outcome, status, served_by, attempts } => {
                let served_by = served_by.unwrap_or("-");
                format!("id={id} outcome={outcome} status={status} served_by={served_by:?} attempts={attempts}")
            }
            Self::AttemptEnded { id, account, model, outcome, status, usage } => {
                let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
                let Usage { input, output, .. } = usage;
                format!(
                    "id={id} account={account:?} model={model:?} outcome={outcome} status={status} input={input} output={output}"
                )
            }
            Self::Paused { what, seconds, why } => format!("what={what:?} seconds={seconds} why={why:?}"),
            Self::Resumed { what, why } => format!("what={what:?} why={why:?}"),
            Self::BreakerOpened { what, seconds } => format!("what={what:?} seconds={seconds:.1}"),
            Self::BreakerClosed { what } => format!("what={what:?}"),
            Self::Hedged { id, slow, second } => format!("id={id} slow={slow:?} second={second:?}"),
            Self::Waited { id, outcome, millis } => format!("id={id} outcome={outcome} millis={millis}"),
            Self::QuotaAsked { account, outcome, limits, error } => {
                let error = error.map(|error| format!(" error={error:?}")).unwrap_or_default();
                format!("account={account:?} outcome={outcome} limits={limits}{error}")
            }
            Self::MalformedEvent { account } => format!("account={account:?}"),
            Self::TurnedAway { reason } => format!("reason={reason}"),
            Self::LedgerFailed { error } => format!("error={error:?}"),
            Self::PowerLost { limits } => format!("limits={limits}"),
            Self::Priced { groups, limits, millis } => format!("groups={groups} limits={limits} millis={millis}"),
            Self::PricesFailed { why } => format!("why={why:?}"),
            Self::Reloaded { targets } => format!("targets={targets}"),
            Self::ReloadRefused { why } => format!("why={why:?}"),
            Self::RouteAtRisk { route, why, remedy } => format!("route={route:?} why={why:?} remedy={remedy:?}"),
            Self::CreditEnding { credit, why } => format!("credit={credit:?} why={why:?}"),
            Self::Stopping => String::new(),
        }
    }

    /// Adds the event to the counts it belongs to.
    pub fn count(&self, metrics: &mut Metrics) {
        match self {
            Self::RequestEnded { outcome, .. } => metrics.add(names::REQUESTS, &[("outcome", outcome)], 1),
            Self::AttemptEnded { account, outcome, usage, .. } => {
                metrics.add(names::ATTEMPTS, &[("account", account), ("outcome", outcome)], 1);
                metrics.add(names::TOKENS, &[("account", account), ("type", "input")], usage.input);
                metrics.add(names::TOKENS, &[("account", account), ("type", "output")], usage.output);
            }
            Self::QuotaAsked { account, outcome, .. } => {
                metrics.add(names::QUOTA_ASKS, &[("account", account), ("outcome", outcome)], 1);
            }
            Self::MalformedEvent { account } => metrics.add(names::MALFORMED_EVENTS, &[("account", account)], 1),
            Self::TurnedAway { reason } => metrics.add(names::TURNED_AWAY, &[("reason", reason)], 1),
            Self::LedgerFailed { .. } => metrics.add(names::LEDGER_FAILURES, &[], 1),
            Self::BreakerOpened { .. } => metrics.add(names::BREAKERS_OPENED, &[], 1),
            Self::Hedged { .. } => metrics.add(names::HEDGES, &[], 1),
            Self::Waited { outcome, .. } => metrics.add(names::WAITS, &[("outcome", outcome)], 1),
            Self::Reloaded { .. } => metrics.add(names::RELOADS, &[("outcome", "taken")], 1),
            Self::ReloadRefused { .. } => metrics.add(names::RELOADS, &[("outcome", "refused")], 1),
            Self::Listening { .. }
            | Self::Paused { .. }
            | Self::PowerLost { .. }
            | Self::Priced { .. }
            | Self::PricesFailed { .. }
            | Self::Resumed { .. }
            | Self::BreakerClosed { .. }
            | Self::RouteAtRisk { .. }
            | Self::CreditEnding { .. }
            | Self::Stopping => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_be_forged() {
        let event = Event::Paused { what: "a\nERROR forged", seconds: 1, why: "\u{1b}[31m" };
        assert_eq!(event.fields(), r#"what="a\nERROR forged" seconds=1 why="\u{1b}[31m""#);
    }

    #[test]
    fn counts_are_rendered_with_their_labels() {
        let mut metrics = Metrics::default();
        Event::RequestEnded {
            id: RequestId::new(0, 0),
            outcome: "answered",
            status: 200,
            served_by: None,
            attempts: 1,
        }
        .count(&mut metrics);
        assert_eq!(
            metrics.render(),
            "# TYPE freeway_requests_total counter\nfreeway_requests_total{outcome=\"answered\"} 1\n"
        );
    }
}
