use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use freeway_catalog::{Catalog, ExpectedReport, Provider, RateHeader, ReportExample};
use freeway_dialect::Dialect;
use freeway_quota::parse_http_date;

use super::*;

/// 2026-10-21T00:30:00Z.
const NOW: Timestamp = Timestamp::from_secs(1_792_542_600);

fn account(facts: &Provider) -> Account {
    Account {
        id: "lab".to_owned(),
        provider: None,
        dialect: Dialect::OpenaiChat,
        plan: "free".to_owned(),
        may_spend: false,
        keys: 1,
        local: false,
        ending: None,
        errors: Vec::new(),
        headers: facts.headers.clone(),
        header_prefixes: facts.header_prefixes.clone(),
        refusal_reports: facts.refusal_reports.clone(),
        quota_path: None,
        quota_reports: facts.quota_reports.clone(),
        unsupported: Vec::new(),
        renamed: Vec::new(),
        stream_usage: freeway_catalog::StreamUsage::Option,
        prefill: freeway_catalog::Prefill::default(),
    }
}

fn made_of(text: &str) -> Account {
    account(&freeway_catalog::parse("x.toml", text).unwrap())
}

fn headers(account: &Account, headers: &[(&'static str, &'static str)], refused: bool) -> Said {
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    read_headers(account, &header, NOW, refused)
}

fn refusal_of(account: &Account, status: u16, body: &str) -> Vec<Report> {
    let header = |_: &str| None;
    let refusal =
        Refusal { status, header: &header, body: body.as_bytes(), answered_at: NOW, strikes: 0, missing_before: false };
    read_refusal_report(account, &refusal)
}

/// All that the readers find in an example: first in the headers, then in the body.
fn read(account: &Account, example: &ReportExample) -> Said {
    let status = example.status.unwrap_or(200);
    let header = |name: &str| example.headers.get(name).map(String::as_str);
    let answered_at = header("date").map_or(NOW, |date| parse_http_date(date).unwrap());
    let mut said = read_headers(account, &header, answered_at, status != 200);
    if example.endpoint {
        said.reports.extend(read_quota_endpoint(account, example.body.as_bytes(), answered_at));
    } else if status != 200 {
        said.reports.extend(refusal_of(account, status, &example.body));
    }
    said
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the figures of examples are small")]
fn units(metric: Metric, figure: f64) -> u64 {
    if metric == Metric::Usd { (figure * 1e12).round() as u64 } else { figure as u64 }
}

fn expected(example: &ExpectedReport, source: ReportSource) -> Report {
    let units = |figure| units(example.metric, figure);
    let window = match example.window.as_deref() {
        None => ReportWindow::Unknown,
        Some("never") => ReportWindow::Never,
        Some(text) => ReportWindow::Length(Duration::from_secs(window_seconds(text).unwrap())),
    };
    let scope = match example.scope {
        None => ReportScope::Unknown,
        Some(LimitScope::Model) => ReportScope::Model,
        Some(_) => ReportScope::Account,
    };
    Report {
        metric: example.metric,
        window,
        amount: example.amount.map(units),
        left: example.left.map(units),
        returns: example.returns.map(Duration::from_secs_f64),
        scope,
        source,
    }
}

/// Whether two reports say the same; where they were read is told by the example. A return may differ by a microsecond,
/// which is less than clocks tell.
fn is_same(found: &Report, expected: &Report) -> bool {
    let apart = match (found.returns, expected.returns) {
        (Some(one), Some(other)) => one.abs_diff(other),
        (None, None) => Duration::ZERO,
        _ => Duration::MAX,
    };
    apart <= Duration::from_micros(1)
        && Report { returns: expected.returns, source: expected.source, ..*found } == *expected
}

/// Each example of the catalogue is read exactly: no report less, none more, each figure the same.
#[test]
fn the_examples_of_the_catalogue_are_read_exactly() {
    let mut wrong = String::new();
    let mut count = 0;
    for (id, facts) in Catalog::embedded().unwrap().iter() {
        let account = account(facts);
        for example in &facts.report_examples {
            let said = read(&account, example);
            let wanted: Vec<Report> =
                example.reports.iter().map(|report| expected(report, ReportSource::Header)).collect();
            let charged: Vec<(Metric, u64)> = example
                .charged
                .iter()
                .map(|charged| (charged.metric, units(charged.metric, charged.amount.unwrap())))
                .collect();
            let same = said.reports.len() == wanted.len()
                && said.reports.iter().zip(&wanted).all(|(found, wanted)| is_same(found, wanted));
            if !same || said.charged != charged || said.slow_down != example.slow_down {
                writeln!(
                    wrong,
                    "{id} {:?} {}\n  found  {said:#?}\n  wanted {wanted:#?}",
                    example.headers, example.body
                )
                .unwrap();
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(count >= 40, "{count} examples");
}

/// A name, or a row, without an example is one that nobody has seen at work.
#[test]
fn each_header_and_each_row_of_the_catalogue_has_an_example() {
    let mut bare = Vec::new();
    for (id, facts) in Catalog::embedded().unwrap().iter() {
        let sent: BTreeSet<&str> =
            facts.report_examples.iter().flat_map(|example| example.headers.keys()).map(String::as_str).collect();
        let is_sent = |header: &RateHeader| {
            let behind = |prefix: &String| sent.contains(format!("{prefix}{}", header.name).as_str());
            sent.contains(header.name.as_str()) || facts.header_prefixes.iter().any(behind)
        };
        bare.extend(
            facts.headers.iter().filter(|header| !is_sent(header)).map(|header| format!("{id}: {}", header.name)),
        );

        let refusals = facts.errors.iter().flat_map(|rule| &rule.examples);
        let refusals = refusals.map(|example| (example.status, false, example.body.as_str()));
        let answers = facts.report_examples.iter();
        let answers = answers.map(|example| (example.status.unwrap_or(200), example.endpoint, example.body.as_str()));
        let bodies: Vec<(u16, bool, &str)> = refusals.chain(answers).collect();
        for (place, row) in facts.refusal_reports.iter().enumerate() {
            let alone = Provider { refusal_reports: vec![row.clone()], ..Provider::default() };
            let reads = |(status, endpoint, body): &(u16, bool, &str)| {
                !endpoint && *status != 200 && !refusal_of(&account(&alone), *status, body).is_empty()
            };
            if !bodies.iter().any(reads) {
                bare.push(format!("{id}: refusal_reports.{place}"));
            }
        }
        for (place, row) in facts.quota_reports.iter().enumerate() {
            let alone = Provider { quota_reports: vec![row.clone()], ..Provider::default() };
            let reads = |(_, endpoint, body): &(u16, bool, &str)| {
                *endpoint && !read_quota_endpoint(&account(&alone), body.as_bytes(), NOW).is_empty()
            };
            if !bodies.iter().any(reads) {
                bare.push(format!("{id}: quota_reports.{place}"));
            }
        }
    }
    assert!(bare.is_empty(), "{bare:#?}");
}

/// What the examples of refusals say is used up is what is read from their bodies, where anything is.
#[test]
fn refusals_name_the_limit_that_their_examples_name() {
    let mut compared = 0;
    for (id, facts) in Catalog::embedded().unwrap().iter() {
        for example in facts.errors.iter().flat_map(|rule| &rule.examples) {
            let Some(limit) = &example.limit else { continue };
            let reports = refusal_of(&account(facts), example.status, &example.body);
            if reports.is_empty() {
                continue;
            }
            let (metric, length) =
                limit.split_once('/').map_or((limit.as_str(), None), |(metric, window)| (metric, Some(window)));
            let named = |report: &Report| report.metric.as_str() == metric && report.window == window(length);
            assert!(reports.iter().any(named), "{id}: {} names {limit}, read was {reports:?}", example.body);
            compared += 1;
        }
    }
    assert!(compared >= 40, "{compared} examples");
}

#[test]
fn the_same_name_means_a_day_here_and_a_minute_there() {
    let catalog = Catalog::embedded().unwrap();
    let sent = [("x-ratelimit-limit-requests", "1000"), ("x-ratelimit-remaining-requests", "999")];
    let window = |provider: &str| {
        let said = headers(&account(catalog.get(provider).unwrap()), &sent, false);
        said.reports.first().map(|report| report.window.length().map(|length| length.as_secs()))
    };
    assert_eq!(window("groq"), Some(Some(86_400)));
    assert_eq!(window("openai"), Some(Some(60)));
    assert_eq!(window("nebius"), Some(None));
    assert_eq!(window("mistral"), None);
}

const LAB: &str = r#"
[[headers]]
name = "x-limit"
says = "limit"
metric = "requests"
window = "minute"
[[headers]]
name = "x-left"
says = "remaining"
metric = "requests"
window = "minute"
[[headers]]
name = "x-reset"
says = "reset"
metric = "requests"
window = "minute"
[[headers]]
name = "x-refused-left"
says = "remaining"
metric = "tokens"
on_refusal_only = true
[[headers]]
name = "x-slow"
says = "slow-down"
metric = "requests"
[[headers]]
name = "x-cost"
says = "cost"
metric = "tokens"
"#;

#[test]
fn a_figure_that_is_none_says_nothing_and_zero_stays() {
    let lab = made_of(LAB);
    for nothing in ["", "-1", "NaN", "1e9", "9999999999999999", "soon"] {
        let sent =
            [("x-limit", nothing), ("x-left", nothing), ("x-reset", nothing), ("x-slow", nothing), ("x-cost", nothing)];
        assert_eq!(headers(&lab, &sent, true), Said::default(), "{nothing}");
    }
    let said = headers(&lab, &[("x-limit", "0"), ("x-left", "-1")], false);
    assert_eq!((said.reports[0].amount, said.reports[0].left, said.reports[0].returns), (Some(0), None, None));
    let said = headers(&lab, &[("x-left", "0")], false);
    assert_eq!((said.reports[0].amount, said.reports[0].left), (None, Some(0)));
}

#[test]
fn what_comes_with_refusals_only_is_read_there_only() {
    let lab = made_of(LAB);
    assert_eq!(headers(&lab, &[("x-refused-left", "3")], false), Said::default());
    assert_eq!(headers(&lab, &[("x-refused-left", "3")], true).reports[0].left, Some(3));
}

#[test]
fn the_drafted_fields_are_read_everywhere_and_go_behind_the_providers_own() {
    let policy = ("ratelimit-policy", r#""default";q=100;w=60"#);
    let left = ("ratelimit", r#""default";r=50;t=30"#);
    let said = headers(&made_of(""), &[policy, left], false);
    assert_eq!((said.reports[0].amount, said.reports[0].left), (Some(100), Some(50)));
    assert_eq!(said.reports[0].returns, Some(Duration::from_secs(30)));

    let own = headers(&made_of(LAB), &[policy, left, ("x-left", "7")], false);
    assert_eq!(own.reports.len(), 1);
    assert_eq!((own.reports[0].amount, own.reports[0].left), (None, Some(7)));

    // A provider that has a meaning of its own for such a name is believed.
    let tokens = made_of("[[headers]]\nname = \"ratelimit-remaining\"\nsays = \"remaining\"\nmetric = \"tokens\"");
    let said = headers(&tokens, &[("ratelimit-remaining", "9")], false);
    assert_eq!(said.reports.iter().map(|report| report.metric).collect::<Vec<_>>(), [Metric::Tokens]);
}

#[test]
fn a_plain_header_goes_before_one_that_was_passed_on() {
    let lab = made_of(&format!("header_prefixes = [\"behind-\"]\n{LAB}"));
    let said = headers(&lab, &[("behind-x-left", "5"), ("behind-x-limit", "10"), ("x-left", "2")], false);
    assert_eq!((said.reports[0].amount, said.reports[0].left), (Some(10), Some(2)));
    assert_eq!(headers(&made_of(LAB), &[("behind-x-left", "5")], false), Said::default());
}

const WORDS: &str = r#"
[[refusal_reports]]
status = [429]
patterns = ["of {amount} calls, {left} left.", "limit is {amount} calls a day"]
metric = "tokens"
window = "day"
"#;

#[test]
fn figures_are_taken_from_words_only_where_a_pattern_fits() {
    let lab = made_of(WORDS);
    let read = |status, message: &str| {
        let body = format!(r#"{{"error":{{"message":"{message}"}}}}"#);
        refusal_of(&lab, status, &body).first().map(|report| (report.amount, report.left))
    };
    assert_eq!(read(429, "of 1,000 calls, 7 left."), Some((Some(1000), Some(7))));
    assert_eq!(read(429, "Of many, of x calls; of 50 calls, 0 left."), Some((Some(50), Some(0))));
    assert_eq!(read(429, "the limit is 30 calls a day"), Some((Some(30), None)));
    assert_eq!(read(429, "of calls,  left."), None);
    assert_eq!(read(429, "of 50 calls, 7"), None);
    assert_eq!(read(429, "limit 30 in a day, try 60 later"), None);
    assert_eq!(read(503, "limit is 30 calls a day"), None);
    assert_eq!(refusal_of(&lab, 429, "limit is 30 calls a day, says an edge")[0].amount, Some(30));
}

#[test]
fn a_body_that_is_no_json_or_something_else_says_nothing() {
    let catalog = Catalog::embedded().unwrap();
    for (id, facts) in catalog.iter() {
        for body in ["", "{", "<html>", "null", "[]", "[[[]]]", "{\"data\":7,\"error\":[]}", "\"429\"", "1e999"] {
            assert_eq!(refusal_of(&account(facts), 429, body), [], "{id} {body}");
            assert_eq!(read_quota_endpoint(&account(facts), body.as_bytes(), NOW), [], "{id} {body}");
        }
    }
}

#[test]
fn a_balance_below_zero_says_nothing_and_almost_nothing_is_nothing() {
    let openrouter = account(Catalog::embedded().unwrap().get("openrouter").unwrap());
    let left = |figure: &str| {
        let body = format!(r#"{{"data":{{"limit":null,"limit_remaining":{figure},"limit_reset":null}}}}"#);
        read_quota_endpoint(&openrouter, body.as_bytes(), NOW).first().map(|report| report.left)
    };
    assert_eq!(left("1.4e-14"), Some(Some(0)));
    assert_eq!(left("\"0.5\""), Some(Some(500_000_000_000)));
    assert_eq!(left("-0.01"), None);
    assert_eq!(left("1e300"), None);
}
