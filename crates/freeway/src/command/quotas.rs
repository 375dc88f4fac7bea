//! `freeway quotas`.

use clap::Args;
use freeway_types::Timestamp;
use http::Method;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::client::{self, ask};
use crate::command::Report;
use crate::environment;
use crate::moment::{moment, span};
use crate::table::{number, render, text};

const HEADING: [&str; 8] = ["limit", "amount", "source", "used", "in flight", "left", "next back", "runs dry"];

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    report: Report,
}

/// The reader's clock.
struct Clock {
    now: Timestamp,
    zone: TimeZone,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let loaded = client::configuration(arguments.report.config.as_deref())?;
    let answer = ask(&loaded, Method::GET, "/freeway/v1/quotas", &[], None).map_err(client::Unanswered::message)?;
    if arguments.report.json {
        println!("{answer:#}");
        return Ok(());
    }
    let clock = Clock { now: instant(&answer["at"]).unwrap_or_else(client::now), zone: environment::zone() };
    let rows: Vec<Vec<String>> = list(&answer["limits"]).flat_map(|limit| limit_rows(limit, &clock)).collect();
    print!("{}", render(&HEADING, &rows));
    let is_priced = |limit: &&Value| limit["price"].as_f64().is_some_and(|price| price > 0.0);
    let price = |limit: &Value| vec![text(&limit["limit"]), format!("{:.6}", limit["price"].as_f64().unwrap_or(0.0))];
    let rows: Vec<Vec<String>> = list(&answer["limits"]).filter(is_priced).map(price).collect();
    if !rows.is_empty() {
        print!("\n{}", render(&["scarce", "value of a unit"], &rows));
    }
    let pause = |pause: &Value| vec![text(&pause["what"]), clock.show(&pause["until"]), text(&pause["why"])];
    let rows: Vec<Vec<String>> = list(&answer["pauses"]).map(pause).collect();
    if !rows.is_empty() {
        print!("\n{}", render(&["paused", "until", "why"], &rows));
    }
    let warning = |warning: &Value| {
        let about = if warning["route"].is_null() { &warning["credit"] } else { &warning["route"] };
        vec![text(about), text(&warning["why"]), text(&warning["remedy"])]
    };
    let rows: Vec<Vec<String>> = list(&answer["warnings"]).map(warning).collect();
    if !rows.is_empty() {
        print!("\n{}", render(&["warning", "why", "what helps"], &rows));
    }
    Ok(())
}

/// A limit's row, and one for each of several credits in it.
fn limit_rows(limit: &Value, clock: &Clock) -> Vec<Vec<String>> {
    let back = match (limit["lapses"].is_null(), limit["reset_assumed"] == true) {
        (false, _) => format!("lapses {}", clock.show(&limit["lapses"])),
        (true, true) => format!("{}, assumed", clock.show(&limit["returns"])),
        (true, false) => clock.show(&limit["returns"]),
    };
    let row = vec![
        text(&limit["limit"]),
        number(&limit["amount"]),
        source(&limit["sources"]["amount"]),
        number(&limit["used"]),
        number(&limit["held"]),
        number(&limit["left"]),
        back,
        clock.show(&limit["runs_dry"]),
    ];
    let credit = |credit: &Value| {
        let lapses = match credit["lapses"].is_null() {
            true => "stays".to_owned(),
            false => format!("lapses {}", clock.show(&credit["lapses"])),
        };
        let blank = String::new;
        let name = format!("  {}", text(&credit["credit"]));
        let [amount, used, left] = ["amount", "used", "left"].map(|figure| number(&credit[figure]));
        vec![name, amount, blank(), used, blank(), left, lapses]
    };
    std::iter::once(row).chain(list(&limit["credits"]).map(credit)).collect()
}

/// Where a figure is from, and how old it is: `yours`, `facts 12 d`, `headers 3 s`.
fn source(source: &Value) -> String {
    let by = match source["by"].as_str() {
        Some("configuration") => return "yours".to_owned(),
        Some(by) => by,
        None => return "-".to_owned(),
    };
    let age = source["age_seconds"].as_u64();
    // Facts are of a day, not of an hour.
    let days = |seconds: u64| format!("{} d", seconds / 86_400);
    let age = age.map(|age| if by == "facts" { days(age) } else { span(age) });
    let mut words = format!("{by} {}", age.unwrap_or_else(|| "of unknown age".to_owned()));
    if source["stale"] == true {
        words.push_str(", stale");
    }
    if source["confidence"] == "low" {
        words.push_str(", doubtful");
    }
    words
}

impl Clock {
    /// An instant of the interface, or a dash.
    fn show(&self, value: &Value) -> String {
        instant(value).map_or_else(|| "-".to_owned(), |instant| moment(instant, self.now, &self.zone))
    }
}

fn instant(value: &Value) -> Option<Timestamp> {
    Timestamp::parse(value.as_str()?)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn where_a_figure_is_from_takes_two_words() {
        let check = |value: Value, expected: &str| assert_eq!(source(&value), expected, "{value}");
        check(json!({"by": "configuration"}), "yours");
        check(json!({"by": "headers", "age_seconds": 3}), "headers 3 s");
        check(json!({"by": "facts", "age_seconds": 12 * 86_400 + 4_000, "stale": false}), "facts 12 d");
        check(json!({"by": "facts", "age_seconds": 0, "confidence": "low"}), "facts 0 d, doubtful");
        check(json!({"by": "facts", "age_seconds": 61 * 86_400, "stale": true}), "facts 61 d, stale");
        check(json!({"by": "facts", "age_seconds": null, "stale": true}), "facts of unknown age, stale");
    }
}
