//! The rules a provider file must keep that a schema cannot say.

use std::collections::BTreeSet;
use std::fmt;

use freeway_types::{Metric, Price};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;

use crate::facts::{ModelPrice, Provider};
use crate::limit::{Limit, Reset};
use crate::refusal::{Action, ErrorRule, Example, Match};
use crate::report::BodyReport;

/// One thing that is wrong with a provider's facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: keys and list positions from the top of the provider's table, such as `models.0.limits.2.window`.
    pub path: Vec<String>,
    /// What, and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.join("."), self.message)
    }
}

/// Everything that is wrong with a provider's facts; empty when they can be used.
#[must_use]
pub fn validate(provider: &Provider) -> Vec<Problem> {
    let mut check = Check { path: Vec::new(), problems: Vec::new() };
    check.provider(provider);
    check.problems
}

/// How long a window is, in seconds, if `text` is one. A day counts as 24 h, a month as 31 days, the longest it can be.
#[must_use]
pub fn window_seconds(text: &str) -> Option<u64> {
    match text {
        "second" => return Some(1),
        "minute" => return Some(60),
        "hour" => return Some(3600),
        "day" => return Some(86_400),
        "week" => return Some(604_800),
        "month" => return Some(2_678_400),
        _ => {}
    }
    let unit = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].parse().ok()?;
    (count > 0).then(|| count.checked_mul(unit)).flatten()
}

struct Check {
    path: Vec<String>,
    problems: Vec<Problem>,
}

impl Check {
    fn at(&mut self, step: impl fmt::Display, run: impl FnOnce(&mut Self)) {
        self.path.push(step.to_string());
        run(self);
        self.path.pop();
    }

    fn problem(&mut self, message: impl Into<String>) {
        self.problems.push(Problem { path: self.path.clone(), message: message.into() });
    }

    fn provider(&mut self, provider: &Provider) {
        if let Some(url) = &provider.base_url {
            self.at("base_url", |check| check.base_url(url));
        }
        self.at("limits", |check| {
            for (position, limit) in provider.limits.iter().enumerate() {
                check.at(position, |check| check.limit(limit));
            }
        });
        self.at("models", |check| {
            let mut seen = BTreeSet::new();
            for (position, model) in provider.models.iter().enumerate() {
                check.at(position, |check| {
                    for id in std::iter::once(&model.id).chain(&model.aliases) {
                        if !seen.insert(id.as_str()) {
                            check.at("id", |check| check.problem(format!("the model `{id}` stands here twice")));
                        }
                    }
                    if model.id.is_empty() || model.id.chars().any(char::is_control) {
                        check.at("id", |check| {
                            check.problem("a model id is neither empty nor holds control characters");
                        });
                    }
                    if let Some(price) = &model.price {
                        check.at("price", |check| check.price(price));
                    }
                    if let Some(units) = &model.units_per_mtok
                        && [Some(units.input), units.cached_input, Some(units.output)]
                            .into_iter()
                            .flatten()
                            .any(|units| Price::from_units_per_mtok(units).is_none())
                    {
                        check
                            .at("units_per_mtok", |check| check.problem("units per million tokens are from 0 to 10^9"));
                    }
                    check.at("limits", |check| {
                        for (position, limit) in model.limits.iter().flatten().enumerate() {
                            check.at(position, |check| check.limit(limit));
                        }
                    });
                });
            }
        });
        self.at("errors", |check| {
            for (position, rule) in provider.errors.iter().enumerate() {
                check.at(position, |check| check.rule(rule));
            }
        });
        if let Some(mark) = provider.prefill.as_ref().and_then(|prefill| prefill.mark.as_ref()) {
            let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            let is_taken = ["role", "content", "name", "refusal", "audio", "tool_calls"].contains(&mark.as_str());
            if mark.is_empty() || !mark.bytes().all(is_name) || is_taken {
                self.at("prefill", |check| {
                    check.at("mark", |check| {
                        check.problem("a mark is a field of its own in a message, in lower case letters and `_`");
                    });
                });
            }
        }
        self.at("header_prefixes", |check| {
            for (position, prefix) in provider.header_prefixes.iter().enumerate() {
                let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
                if prefix.is_empty() || !prefix.bytes().all(is_name) {
                    check.at(position, |check| {
                        check.problem("a prefix of header names is lower case letters, digits, `-` and `_`");
                    });
                }
            }
        });
        self.at("headers", |check| {
            for (position, header) in provider.headers.iter().enumerate() {
                check.at(position, |check| check.window(header.window.as_deref(), false));
            }
        });
        for (list, rows) in [("refusal_reports", &provider.refusal_reports), ("quota_reports", &provider.quota_reports)]
        {
            self.at(list, |check| {
                for (position, row) in rows.iter().enumerate() {
                    check.at(position, |check| check.report(row));
                }
            });
        }
        self.at("report_examples", |check| {
            for (position, example) in provider.report_examples.iter().enumerate() {
                check.at(position, |check| {
                    check.header_names(example.headers.keys());
                    for report in &example.reports {
                        check.window(report.window.as_deref(), true);
                    }
                });
            }
        });
        self.variables(provider);
        self.sources(provider);
    }

    fn base_url(&mut self, url: &str) {
        let Some((scheme, rest)) = url.split_once("://") else {
            return self.problem("a base URL starts with https:// or http://");
        };
        if !matches!(scheme, "https" | "http") {
            self.problem("a base URL starts with https:// or http://");
        }
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.is_empty() {
            self.problem("the base URL names no host");
        }
        if authority.contains('@') {
            self.problem("credentials do not belong in a URL; use `keys`");
        }
        if rest.contains(['?', '#', ' ', '\\']) {
            self.problem("a base URL has no query, fragment, space or backslash");
        }
    }

    fn price(&mut self, price: &ModelPrice) {
        for (name, usd) in
            [("input", Some(price.input)), ("cached_input", price.cached_input), ("output", Some(price.output))]
        {
            if usd.is_some_and(|usd| Price::from_usd_per_mtok(usd).is_none()) {
                self.at(name, |check| {
                    check.problem("a price is in USD per million tokens, from 0 to 1000; was it typed per token?");
                });
            }
        }
    }

    fn limit(&mut self, limit: &Limit) {
        let reset = limit.reset.unwrap_or_default();
        if let Some(amount) = limit.amount {
            let whole = limit.metric == Metric::Usd || amount.fract() == 0.0;
            if !amount.is_finite() || !(0.0..=1e15).contains(&amount) || !whole {
                self.at("amount", |check| {
                    check.problem("an amount is a whole number of units (USD may have a fraction), 0 or more");
                });
            }
        }
        if limit.metric == Metric::Concurrency {
            for (name, given) in [("window", limit.window.is_some()), ("reset", limit.reset.is_some())] {
                if given {
                    self.at(name, |check| {
                        check
                            .problem(format!("concurrency has no {name}: a request gives its place back when it ends"));
                    });
                }
            }
        } else if let Some(window) = &limit.window {
            if window_seconds(window).is_none() {
                self.at("window", |check| {
                    check.problem(
                        "a window is second, minute, hour, day, week, month, or a length such as 10s, 15m, 5h, 7d",
                    );
                });
            } else if reset == Reset::Calendar && window.ends_with('d') {
                self.at("window", |check| {
                    check.problem("a calendar window is a day, week or month, or is shorter than a day");
                });
            }
        } else if reset != Reset::Never {
            self.problem("this limit needs a `window`, or `reset = \"never\"`");
        }
        if let Some(zone) = &limit.zone {
            if reset != Reset::Calendar {
                self.at("zone", |check| check.problem("a zone goes with `reset = \"calendar\"`"));
            } else if jiff::tz::TimeZone::get(zone).is_err() {
                self.at("zone", |check| {
                    check.problem(format!("`{zone}` is not a time zone; write it like America/Los_Angeles or UTC"));
                });
            }
        }
        for (name, given) in [
            ("expires", limit.expires.is_some()),
            ("since", limit.since.is_some()),
            ("expires_days", limit.expires_days.is_some()),
        ] {
            if given && reset != Reset::Never {
                self.at(name, |check| check.problem(format!("`{name}` goes with `reset = \"never\"`")));
            }
        }
        if limit.expires_days.is_some() && limit.since.is_none() {
            // A catalogue file gives the days; the user's own `since` starts the clock.
            return;
        }
        if limit.since.is_some() && limit.expires_days.is_none() {
            self.at("since", |check| check.problem("`since` needs `expires_days`"));
        }
    }

    fn rule(&mut self, rule: &ErrorRule) {
        if rule.status.is_empty() {
            self.at("status", |check| check.problem("a rule names the statuses it is for"));
        }
        if matches!(rule.action, Action::Cooldown | Action::Exhaust) && rule.until.is_empty() {
            self.problem("`cooldown` and `exhaust` say until when, in `until`");
        }
        self.at("examples", |check| {
            for (position, example) in rule.examples.iter().enumerate() {
                check.at(position, |check| check.example(rule, example));
            }
        });
        self.at("until", |check| {
            for (position, hint) in rule.until.iter().enumerate() {
                if !is_until(hint) {
                    check.at(position, |check| {
                        check.problem(
                            "known are retry-after, reset-header, retry-delay, message, field:PATH, operator, day:ZONE, \
                             month:ZONE, or a length such as 60s",
                        );
                    });
                }
            }
        });
        self.conditions(&rule.when);
    }

    fn conditions(&mut self, when: &[Match]) {
        self.at("when", |check| {
            for (position, condition) in when.iter().enumerate() {
                let compares = !condition.is.is_empty() || condition.contains.is_some() || condition.exists;
                if !compares || (condition.field.is_some() && condition.header.is_some()) {
                    check.at(position, |check| {
                        check.problem(
                            "a condition names a `field` or a `header` and compares it by `is`, `contains` or `exists`",
                        );
                    });
                }
            }
        });
    }

    fn example(&mut self, rule: &ErrorRule, example: &Example) {
        if !rule.status.contains(&example.status) {
            self.at("status", |check| check.problem("an example's status is one of its rule's"));
        }
        self.header_names(example.headers.keys());
        let is_length = |text: &str| text.strip_suffix('s').is_some_and(|seconds| seconds.parse::<f64>().is_ok());
        if example.wait.as_deref().is_some_and(|wait| !is_length(wait)) {
            self.at("wait", |check| check.problem("a wait is a number of seconds, such as 3.405s"));
        }
        let is_limit = |text: &str| match text.split_once('/') {
            Some((metric, window)) => is_metric(metric) && window_seconds(window).is_some(),
            None => is_metric(text),
        };
        if example.limit.as_deref().is_some_and(|limit| !is_limit(limit)) {
            self.at("limit", |check| check.problem("a limit is a metric and a window, such as requests/day"));
        }
    }

    fn header_names<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        for name in names.filter(|name| name.bytes().any(|byte| byte.is_ascii_uppercase())) {
            self.at("headers", |check| check.problem(format!("write `{name}` in lower case")));
        }
    }

    fn window(&mut self, window: Option<&str>, may_be_never: bool) {
        let is_window = |text: &str| window_seconds(text).is_some() || (may_be_never && text == "never");
        if window.is_some_and(|window| !is_window(window)) {
            self.at("window", |check| check.problem("a window is written as in a limit"));
        }
    }

    fn report(&mut self, row: &BodyReport) {
        self.window(row.window.as_deref(), true);
        self.conditions(&row.when);
        self.at("patterns", |check| {
            for (position, pattern) in row.patterns.iter().enumerate() {
                let mut places = pattern.split('{');
                let begins_with_words = places.next().is_some_and(|words| !words.is_empty());
                let are_known =
                    places.all(|place| matches!(place.split_once('}'), Some(("amount" | "used" | "left", _))));
                if !begins_with_words || !are_known {
                    check.at(position, |check| {
                        check.problem("a pattern begins with words, and its places are {amount}, {used} and {left}");
                    });
                }
            }
        });
        let says = [&row.amount, &row.left, &row.used, &row.returns].iter().any(|path| path.is_some());
        if !says && row.patterns.is_empty() && row.when.is_empty() {
            self.problem("this row says nothing: name a field, a pattern or a condition");
        }
    }

    /// Names in braces have a value, and every value a name.
    fn variables(&mut self, provider: &Provider) {
        let url = provider.base_url.as_deref().unwrap_or_default();
        let named: BTreeSet<&str> = url.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect();
        for name in named.iter().filter(|name| !provider.variables.contains_key(**name)) {
            self.problem(format!("`base_url` speaks of {{{name}}}: name it in `variables`"));
        }
        for name in provider.variables.keys().filter(|name| !url.is_empty() && !named.contains(name.as_str())) {
            self.at("variables", |check| check.problem(format!("`base_url` has no {{{name}}}")));
        }
    }

    fn sources(&mut self, provider: &Provider) {
        let known: BTreeSet<&str> = provider.sources.iter().map(|source| source.id.as_str()).collect();
        let cited = provider
            .limits
            .iter()
            .flat_map(|limit| &limit.src)
            .chain(provider.models.iter().flat_map(|model| &model.src))
            .chain(provider.models.iter().flat_map(|model| model.limits.iter().flatten()).flat_map(|limit| &limit.src))
            .chain(provider.errors.iter().flat_map(|rule| &rule.src))
            .chain(provider.errors.iter().flat_map(|rule| &rule.examples).flat_map(|example| &example.src))
            .chain(provider.refusal_reports.iter().chain(&provider.quota_reports).flat_map(|row| &row.src))
            .chain(provider.report_examples.iter().flat_map(|example| &example.src))
            .chain(provider.terms.iter().flat_map(|terms| &terms.src))
            .chain(provider.plans.values().filter_map(|plan| plan.data.as_ref()).flat_map(|data| &data.src));
        let unknown: BTreeSet<&String> = cited.filter(|id| !known.contains(id.as_str())).collect();
        self.at("sources", |check| {
            for id in unknown {
                check.problem(format!("`{id}` is cited and not listed"));
            }
        });
    }
}

fn is_metric(text: &str) -> bool {
    let word: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    Metric::deserialize(word).is_ok()
}

fn is_until(hint: &str) -> bool {
    match hint.split_once(':') {
        Some(("day" | "month", zone)) => jiff::tz::TimeZone::get(zone).is_ok(),
        Some(("field", path)) => !path.is_empty(),
        Some(_) => false,
        None => {
            matches!(hint, "retry-after" | "reset-header" | "retry-delay" | "message" | "operator")
                || window_seconds(hint).is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn check(text: &str, expected: &str) {
        let problem = parse("x.toml", text).expect_err("the file is wrong").to_string();
        assert!(problem.contains(expected), "{problem}\n  lacks\n{expected}");
    }

    #[test]
    fn contradictions_are_named_with_their_place() {
        check("[[limits]]\nmetric = \"requests\"\namount = 1\n", "limits.0: this limit needs a `window`");
        check(
            "[[limits]]\nmetric = \"concurrency\"\nwindow = \"day\"\namount = 1\n",
            "limits.0.window: concurrency has no window",
        );
        check("[[limits]]\nmetric = \"requests\"\nwindow = \"1 day\"\namount = 1\n", "limits.0.window");
        check("[[limits]]\nmetric = \"requests\"\nwindow = \"day\"\nzone = \"UTC\"\namount = 1\n", "limits.0.zone");
        check("base_url = \"https://key@host/v1\"\n", "credentials do not belong");
        check("[[models]]\nid = \"a\"\n[[models]]\nid = \"a\"\n", "models.1.id: the model `a` stands here twice");
        check("[[models]]\nid = \"a\"\nprice = { input = 5000.0, output = 1.0 }\n", "models.0.price.input");
        check("[[errors]]\ncase = \"x\"\nstatus = [429]\naction = \"cooldown\"\n", "say until when");
        check(
            "[[errors]]\ncase = \"x\"\nstatus = [429]\naction = \"cooldown\"\nuntil = [\"soon\"]\n",
            "errors.0.until.0",
        );
        check(
            "[[errors]]\ncase = \"x\"\nstatus = [401]\naction = \"disable_key\"\nsrc = [\"nowhere\"]\n",
            "`nowhere` is cited",
        );
        for mark in ["", "content", "Prefix", "a b"] {
            check(&format!("prefill = {{ mark = \"{mark}\" }}\n"), "prefill.mark: a mark is a field of its own");
        }
        check("header_prefixes = [\"behind-\", \"\"]\n", "header_prefixes.1: a prefix of header names");
        check("header_prefixes = [\"behind: \"]\n", "header_prefixes.0: a prefix of header names");
        let row = |keys: &str| format!("[[refusal_reports]]\nmetric = \"requests\"\n{keys}\n");
        check(&row(""), "refusal_reports.0: this row says nothing");
        check(&row("amount = \"a\"\nwindow = \"daily\""), "refusal_reports.0.window");
        check(&row("patterns = [\"{amount} a day\"]"), "refusal_reports.0.patterns.0");
        check(&row("patterns = [\"limit {size}\"]"), "refusal_reports.0.patterns.0");
        check(&row("patterns = [\"limit {amount\"]"), "refusal_reports.0.patterns.0");
        check(&row("when = [{ field = \"a\" }]"), "refusal_reports.0.when.0");
        check(&row("amount = \"a\"\nsrc = [\"nowhere\"]"), "`nowhere` is cited");
    }
}
