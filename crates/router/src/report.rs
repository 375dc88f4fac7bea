//! What a provider says of its limits: in headers, in the bodies of refusals, and at its quota endpoint. Only reading;
//! what follows from a [`Report`] is decided elsewhere.
//!
//! Names mean different things at different providers, so nothing is read that the provider's facts do not name, apart
//! from the fields that the IETF has drafted for everybody.

use freeway_catalog::{BodyReport, LimitScope, RateHeaderSays, window_seconds};
use freeway_quota::{
    RateLimitFields, Report, ReportScope, ReportSource, ReportWindow, figure, parse_duration, parse_figure,
};
use freeway_types::{Metric, Timestamp};
use serde_json::Value;

use crate::refusal::{Refusal, Seen};
use crate::snapshot::Account;

/// What the headers of an answer say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Of limits; one report for each metric, window and scope.
    pub reports: Vec<Report>,
    /// What this request was charged, by metric, in the units in which limits are counted.
    pub charged: Vec<(Metric, u64)>,
    /// Whether it asks for fewer requests. It comes with answers that succeed, and is no reason to go elsewhere.
    pub slow_down: bool,
}

/// Reads the headers of an answer or, if `refused`, of a refusal. `header` finds one by its name in lower case;
/// `answered_at` is the answer's own `date`, so that a difference between the clocks does not matter.
///
/// It runs for every answer: where nothing is said, nothing is allocated.
#[must_use]
pub fn read_headers<'a>(
    account: &Account,
    header: &dyn Fn(&str) -> Option<&'a str>,
    answered_at: Timestamp,
    refused: bool,
) -> Said {
    let mut said = Said::default();
    let mut name = String::new();
    for rate in account.headers.iter().filter(|rate| refused || !rate.on_refusal_only) {
        let passed_on = |prefix: &String| {
            name.clear();
            name.extend([prefix.as_str(), &rate.name]);
            header(&name)
        };
        let Some(text) = header(&rate.name).or_else(|| account.header_prefixes.iter().find_map(passed_on)) else {
            continue;
        };
        match rate.says {
            RateHeaderSays::SlowDown => said.slow_down |= text.trim().eq_ignore_ascii_case("yes"),
            RateHeaderSays::Cost => {
                said.charged.extend(parse_figure(rate.metric, text).map(|cost| (rate.metric, cost)));
            }
            RateHeaderSays::Limit | RateHeaderSays::Remaining | RateHeaderSays::Reset => {
                let window = window(rate.window.as_deref());
                let blank = Report::blank(rate.metric, window, scope(rate.scope), ReportSource::Header);
                let report = Report::entry(&mut said.reports, blank);
                match rate.says {
                    RateHeaderSays::Limit => report.amount = parse_figure(rate.metric, text),
                    RateHeaderSays::Remaining => report.left = parse_figure(rate.metric, text),
                    _ => report.returns = parse_duration(text, answered_at),
                }
            }
        }
    }
    said.reports.retain(Report::says_something);
    said.reports.iter_mut().for_each(Report::doubt_window);
    // The provider's own names say more than those for everybody, and go before them.
    for report in drafted(account, header, answered_at) {
        let is_told = |told: &Report| told.metric == report.metric && told.window == report.window;
        if !said.reports.iter().any(is_told) {
            said.reports.push(report);
        }
    }
    said
}

/// Reads what the body of a refusal says of the limits that refused, by the provider's `refusal_reports`. A report can
/// be without figures here: it names a limit.
#[must_use]
pub fn read_refusal_report(account: &Account, refusal: &Refusal<'_>) -> Vec<Report> {
    let rows = account.refusal_reports.iter();
    let rows: Vec<&BodyReport> =
        rows.filter(|row| row.status.is_empty() || row.status.contains(&refusal.status)).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let body = serde_json::from_slice(refusal.body).ok();
    read_body(account, &rows, refusal, body.as_ref(), ReportSource::Refusal)
}

/// Reads the body of the answer at the provider's `quota_path`, by its `quota_reports`. `answered_at` is the answer's
/// own `date`.
#[must_use]
pub fn read_quota_endpoint(account: &Account, body: &[u8], answered_at: Timestamp) -> Vec<Report> {
    let Ok(value) = serde_json::from_slice(body) else { return Vec::new() };
    let answer = Refusal { status: 200, header: &|_| None, body, answered_at, strikes: 0, missing_before: false };
    let rows: Vec<&BodyReport> = account.quota_reports.iter().collect();
    read_body(account, &rows, &answer, Some(&value), ReportSource::Endpoint)
}

/// What the fields drafted for everybody say, unless the provider's facts have a meaning of their own for one of them.
fn drafted<'a>(account: &Account, header: &dyn Fn(&str) -> Option<&'a str>, now: Timestamp) -> Vec<Report> {
    let field = |name: &str| header(name).filter(|_| account.headers.iter().all(|rate| rate.name != name));
    let fields = RateLimitFields {
        policy: field("ratelimit-policy"),
        ratelimit: field("ratelimit"),
        limit: field("ratelimit-limit"),
        remaining: field("ratelimit-remaining"),
        reset: field("ratelimit-reset"),
    };
    let is_there = [fields.policy, fields.ratelimit, fields.limit, fields.remaining, fields.reset];
    if is_there.iter().all(Option::is_none) { Vec::new() } else { fields.read(now) }
}

fn read_body(
    account: &Account,
    rows: &[&BodyReport],
    answer: &Refusal<'_>,
    body: Option<&Value>,
    source: ReportSource,
) -> Vec<Report> {
    let error = body.and_then(freeway_dialect::UpstreamError::read).unwrap_or_default();
    let mut reports: Vec<Report> = Vec::new();
    for row in rows {
        let whole = Seen { refusal: answer, account, body, error: &error };
        let things = match &row.each {
            Some(path) => whole.values(path).into_iter().map(Some).collect(),
            None => vec![body],
        };
        for thing in things {
            let seen = Seen { body: thing, ..whole };
            let Some(report) = read_row(row, &seen, &whole, source) else { continue };
            // A row without a window is told by words, where the others are told by fields: it only completes them.
            let mut same = reports.iter_mut().filter(|known| known.metric == report.metric);
            match (report.window, same.next(), same.next()) {
                (ReportWindow::Unknown, Some(known), None) => known.fill(&report),
                (ReportWindow::Unknown, Some(_), Some(_)) => {}
                _ => Report::entry(&mut reports, report).fill(&report),
            }
        }
    }
    reports.iter_mut().for_each(Report::doubt_window);
    reports
}

/// What one row finds in one thing of a body, if it is for that.
fn read_row(row: &BodyReport, seen: &Seen<'_>, whole: &Seen<'_>, source: ReportSource) -> Option<Report> {
    if !row.when.iter().all(|condition| seen.holds(condition)) {
        return None;
    }
    let words = if row.patterns.is_empty() { String::new() } else { whole.words() };
    let told = row.patterns.iter().find_map(|pattern| Figures::find(&words, pattern));
    if told.is_none() && !row.patterns.is_empty() {
        return None;
    }
    let told = told.unwrap_or_default();
    let field = |path: &Option<String>| path.as_ref().and_then(|path| seen.values(path).into_iter().next());
    let number = |path: &Option<String>, told: Option<&str>| match field(path) {
        Some(Value::String(text)) => parse_figure(row.metric, text),
        Some(value) => value.as_f64().and_then(|number| figure(row.metric, number)),
        None => told.and_then(|text| parse_figure(row.metric, &text.replace(',', ""))),
    };
    let mut report = Report::blank(row.metric, window(row.window.as_deref()), scope(row.scope), source);
    report.amount = number(&row.amount, told.amount);
    report.left = number(&row.left, told.left).or_else(|| {
        let used = number(&row.used, told.used)?;
        report.amount.map(|amount| amount.saturating_sub(used))
    });
    // One request was too many: none is left.
    if report.left.is_none() && source == ReportSource::Refusal && row.metric == Metric::Requests {
        report.left = Some(0);
    }
    report.returns = field(&row.returns).and_then(|value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        parse_duration(&text, seen.refusal.answered_at)
    });
    // A refusal that names a limit says that this one refused, with or without figures.
    (report.says_something() || source == ReportSource::Refusal).then_some(report)
}

/// The figures in the places of a pattern.
#[derive(Default)]
struct Figures<'a> {
    amount: Option<&'a str>,
    left: Option<&'a str>,
    used: Option<&'a str>,
}

impl<'a> Figures<'a> {
    /// Finds the first place in `words` where the pattern fits.
    fn find(words: &'a str, pattern: &str) -> Option<Self> {
        let start = pattern.split('{').next().filter(|start| !start.is_empty())?;
        words.match_indices(start).find_map(|(position, _)| Self::fit(&words[position..], pattern))
    }

    fn fit(words: &'a str, pattern: &str) -> Option<Self> {
        let mut figures = Self::default();
        let mut pieces = pattern.split('{');
        let mut rest = words.strip_prefix(pieces.next()?)?;
        for piece in pieces {
            let (place, after) = piece.split_once('}')?;
            let (digits, tail) = rest.split_at(digits(rest));
            let figure = Some(digits).filter(|digits| !digits.is_empty())?;
            match place {
                "amount" => figures.amount = Some(figure),
                "left" => figures.left = Some(figure),
                "used" => figures.used = Some(figure),
                _ => return None,
            }
            rest = tail.strip_prefix(after)?;
        }
        Some(figures)
    }
}

/// The length of the number at the beginning of a text. A comma or a point belongs to it if a digit follows.
fn digits(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_digit = |place: usize| bytes.get(place).is_some_and(u8::is_ascii_digit);
    let belongs =
        |place: &usize| is_digit(*place) || (*place > 0 && b",.".contains(&bytes[*place]) && is_digit(place + 1));
    (0..bytes.len()).take_while(belongs).count()
}

fn window(text: Option<&str>) -> ReportWindow {
    match text {
        Some("never") => ReportWindow::Never,
        Some(text) => window_seconds(text)
            .map_or(ReportWindow::Unknown, |seconds| ReportWindow::Length(std::time::Duration::from_secs(seconds))),
        None => ReportWindow::Unknown,
    }
}

/// What belongs to a key or an address is counted for the whole account, as in limits.
fn scope(scope: Option<LimitScope>) -> ReportScope {
    match scope {
        Some(LimitScope::Model) => ReportScope::Model,
        Some(LimitScope::Account | LimitScope::Key | LimitScope::Ip) => ReportScope::Account,
        None => ReportScope::Unknown,
    }
}

#[cfg(test)]
mod tests;
