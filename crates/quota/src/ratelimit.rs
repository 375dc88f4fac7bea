//! The header fields that the IETF's HTTP working group drafted for rate limits, as
//! draft-ietf-httpapi-ratelimit-headers has written them over the years:
//!
//! - `ratelimit-policy: "default";q=100;w=60` with `ratelimit: "default";r=50;t=30` (draft 10),
//! - `ratelimit-policy: 100;w=60` with `ratelimit: limit=100, remaining=50, reset=30` (draft 7),
//! - `ratelimit-limit: 100, 100;w=60`, `ratelimit-remaining: 50` and `ratelimit-reset: 30` (draft 6).
//!
//! Any server may send them, so they are read wherever they come, as far as they count requests, which they do
//! where they say nothing else.

use freeway_types::{Metric, Timestamp};

use crate::hint::parse_duration;
use crate::report::{Report, ReportScope, ReportSource, ReportWindow, parse_figure};

/// More members of one field are not looked at.
const MOST_MEMBERS: usize = 16;

/// The fields of one answer, each as it was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimitFields<'a> {
    /// `ratelimit-policy`.
    pub policy: Option<&'a str>,
    /// `ratelimit`.
    pub ratelimit: Option<&'a str>,
    /// `ratelimit-limit`.
    pub limit: Option<&'a str>,
    /// `ratelimit-remaining`.
    pub remaining: Option<&'a str>,
    /// `ratelimit-reset`.
    pub reset: Option<&'a str>,
}

impl RateLimitFields<'_> {
    /// What they say, joined by the names of policies. `now` is when the answer was made.
    #[must_use]
    pub fn read(&self, now: Timestamp) -> Vec<Report> {
        let mut policies = Vec::new();
        members(self.policy).filter_map(policy).for_each(|policy| policies.push(policy));
        let mut limit = None;
        for (position, member) in members(self.limit).enumerate() {
            match policy(member) {
                Some((_, report)) if position == 0 => limit = report.amount,
                later => policies.extend(later),
            }
        }
        let mut old = Report { amount: limit, ..blank(Metric::Requests) };
        old.left = self.remaining.and_then(|text| parse_figure(Metric::Requests, text));
        old.returns = self.reset.and_then(|text| parse_duration(text, now));
        for member in members(self.ratelimit) {
            match member.split_once(';').unwrap_or((member, "")) {
                (pair, _) if pair.contains('=') => pair_of(&mut old, pair, now),
                (name, rest) => {
                    let name = name.trim();
                    let left = |metric| parameter(rest, "r").and_then(|text| parse_figure(metric, text));
                    let returns = parameter(rest, "t").and_then(|text| parse_duration(text, now));
                    match policies.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, report)) => (report.left, report.returns) = (left(report.metric), returns),
                        None => {
                            let Some(metric) = unit(rest) else { continue };
                            policies.push((name, Report { left: left(metric), returns, ..blank(metric) }));
                        }
                    }
                }
            }
        }
        if old.says_something() {
            // The older forms do not name the policy they speak of: it is the one of the same size, or the only one.
            let only = policies.len() == 1 && old.amount.is_none();
            let same = policies.iter_mut().find(|(_, report)| only || report.amount == old.amount);
            match same {
                Some((_, report)) => report.fill(&old),
                None => policies.push(("", old)),
            }
        }
        let mut reports: Vec<Report> = Vec::new();
        for (_, mut report) in policies.into_iter().filter(|(_, report)| report.says_something()) {
            report.doubt_window();
            // Policies that differ in what they are kept by, which is not ours to see: the tighter one binds.
            let known = Report::entry(&mut reports, report);
            known.amount = known.amount.into_iter().chain(report.amount).min();
            known.left = known.left.into_iter().chain(report.left).min();
            known.returns = known.returns.into_iter().chain(report.returns).max();
        }
        reports
    }
}

fn blank(metric: Metric) -> Report {
    Report::blank(metric, ReportWindow::Unknown, ReportScope::Unknown, ReportSource::Header)
}

/// A policy and its name: `"default";q=100;w=60`, or in the older form `100;w=60`, whose size is its name.
fn policy(member: &str) -> Option<(&str, Report)> {
    let (name, rest) = member.split_once(';').unwrap_or((member, ""));
    let metric = unit(rest)?;
    let amount = parse_figure(metric, parameter(rest, "q").unwrap_or(name));
    let seconds = parameter(rest, "w").and_then(|text| parse_duration(text, Timestamp::default()));
    let window = seconds.filter(|length| !length.is_zero()).map_or(ReportWindow::Unknown, ReportWindow::Length);
    Some((name.trim(), Report { amount, window, ..blank(metric) }))
}

/// `limit=100`, `remaining=50` or `reset=30`.
fn pair_of(report: &mut Report, pair: &str, now: Timestamp) {
    let (key, value) = pair.split_once('=').unwrap_or_default();
    match key.trim() {
        "limit" => report.amount = parse_figure(report.metric, value),
        "remaining" => report.left = parse_figure(report.metric, value),
        "reset" => report.returns = parse_duration(value, now),
        _ => {}
    }
}

/// What a policy counts, by its parameter `qu`; nothing for units that are none of ours.
fn unit(parameters: &str) -> Option<Metric> {
    match parameter(parameters, "qu").map(|text| text.trim_matches('"')) {
        None | Some("requests") => Some(Metric::Requests),
        Some("concurrent-requests") => Some(Metric::Concurrency),
        Some(_) => None,
    }
}

fn parameter<'a>(parameters: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = parameters.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(name, value)| (name.trim() == key).then(|| value.trim()))
}

/// The members of a list, which commas part outside of quotes.
fn members(field: Option<&str>) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let parts = field.unwrap_or_default().split(move |letter| {
        quoted ^= letter == '"';
        letter == ',' && !quoted
    });
    parts.map(str::trim).filter(|member| !member.is_empty()).take(MOST_MEMBERS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Metric, window in seconds, amount, left, seconds until it returns.
    type Expected = (Metric, Option<u64>, Option<u64>, Option<u64>, Option<u64>);

    fn check(fields: RateLimitFields<'_>, expected: &[Expected]) {
        let found: Vec<Expected> = fields
            .read(Timestamp::from_secs(1_792_569_600))
            .iter()
            .map(|report| {
                let seconds = |length: Duration| length.as_secs();
                let window = report.window.length().map(seconds);
                (report.metric, window, report.amount, report.left, report.returns.map(seconds))
            })
            .collect();
        assert_eq!(found, expected, "{fields:?}");
    }

    #[test]
    fn every_draft_says_the_same() {
        let all = [(Metric::Requests, Some(60), Some(100), Some(50), Some(30))];
        let fields = RateLimitFields::default();
        let policy = Some(r#""default";q=100;w=60"#);
        check(RateLimitFields { policy, ratelimit: Some(r#""default";r=50;t=30"#), ..fields }, &all);
        let ratelimit = Some("limit=100, remaining=50, reset=30");
        check(RateLimitFields { policy: Some("100;w=60"), ratelimit, ..fields }, &all);
        let (limit, remaining, reset) = (Some("100, 100;w=60"), Some("50"), Some("30"));
        check(RateLimitFields { limit, remaining, reset, ..fields }, &all);
        let bare = [(Metric::Requests, None, Some(100), Some(50), Some(30))];
        check(RateLimitFields { ratelimit, ..fields }, &bare);
        check(RateLimitFields { limit: Some("100"), remaining, reset, ..fields }, &bare);
    }

    #[test]
    fn several_policies_keep_apart() {
        let fields = RateLimitFields {
            policy: Some(
                r#""burst, 7, short";q=10;w=1,"day";q=1000;w=86400;pk=:cHNk:, "size";q=65535;qu="content-bytes""#,
            ),
            ratelimit: Some(r#""day";r=999;t=43200, "burst, 7, short";r=0;t=1"#),
            ..RateLimitFields::default()
        };
        let burst = (Metric::Requests, Some(1), Some(10), Some(0), Some(1));
        let day = (Metric::Requests, Some(86_400), Some(1000), Some(999), Some(43_200));
        check(fields, &[burst, day]);
        let places = Some(r#""a";q=5;qu="concurrent-requests""#);
        let expected = [(Metric::Concurrency, None, Some(5), None, None)];
        check(RateLimitFields { policy: places, ..RateLimitFields::default() }, &expected);
    }

    #[test]
    fn of_policies_that_cannot_be_told_apart_the_tighter_binds() {
        let fields = RateLimitFields {
            policy: Some(r#""user";q=100;w=60, "address";q=20;w=60"#),
            ratelimit: Some(r#""user";r=3;t=5, "address";r=19;t=30"#),
            ..RateLimitFields::default()
        };
        check(fields, &[(Metric::Requests, Some(60), Some(20), Some(3), Some(30))]);
    }

    #[test]
    fn what_is_no_figure_says_nothing() {
        for text in ["", ";", ",,,", r#""default";r=-1;t=-1"#, r#""default";r=x"#, "limit=-5", "\"", "=", ";=;="] {
            check(RateLimitFields { ratelimit: Some(text), ..RateLimitFields::default() }, &[]);
            check(RateLimitFields { policy: Some(text), ..RateLimitFields::default() }, &[]);
        }
        let ratelimit = Some(r#""default";r=0;t=99999999"#);
        check(
            RateLimitFields { ratelimit, ..RateLimitFields::default() },
            &[(Metric::Requests, None, None, Some(0), None)],
        );
    }

    proptest! {
        #[test]
        fn no_field_panics(text in "[ -~]{0,80}", other in r#"("[a-z]*"|[0-9]+|;[qwrt]=|,|=|limit=){0,30}"#) {
            for (one, two) in [(&text, &other), (&other, &text), (&other, &other)] {
                let one = Some(one.as_str());
                let fields = RateLimitFields { policy: one, ratelimit: Some(two), limit: one, remaining: one, reset: one };
                prop_assert!(fields.read(Timestamp::default()).len() <= 3 * MOST_MEMBERS + 1);
            }
        }
    }
}
