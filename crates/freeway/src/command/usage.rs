//! `freeway usage`.

use clap::{Args, ValueEnum};
use http::Method;

use crate::client::{self, ask};
use crate::command::Report;
use crate::table::{number, render, text};

#[derive(Args)]
pub(crate) struct Arguments {
    /// What to add up by.
    #[arg(long, default_value = "provider")]
    by: By,
    /// From this instant or date on; the last 30 days if it is left out.
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    #[command(flatten)]
    report: Report,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    Provider,
    Model,
    Key,
    Day,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let loaded = client::configuration(arguments.report.config.as_deref())?;
    let by = match arguments.by {
        By::Provider => "provider",
        By::Model => "model",
        By::Key => "key",
        By::Day => "day",
    };
    let since = arguments.since.as_ref().map(|since| format!("&since={since}")).unwrap_or_default();
    let path = format!("/freeway/v1/usage?by={by}{since}");
    let answer = ask(&loaded, Method::GET, &path, &[], None).map_err(client::Unanswered::message)?;
    if arguments.report.json {
        println!("{answer:#}");
        return Ok(());
    }
    let money = |value: &serde_json::Value| value.as_f64().map_or_else(|| "-".to_owned(), |usd| format!("${usd:.6}"));
    let rows: Vec<Vec<String>> = answer["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            vec![
                text(&row["name"]),
                number(&row["answered"]),
                number(&row["attempts"]),
                number(&row["input_tokens"]),
                number(&row["output_tokens"]),
                money(&row["cost_usd"]),
                money(&row["cost_usd_per_answer"]),
                number(&row["estimated_attempts"]),
                number(&row["unpriced_attempts"]),
            ]
        })
        .collect();
    println!("since {}", text(&answer["since"]));
    print!(
        "{}",
        render(&[by, "answered", "attempts", "input", "output", "cost", "per answer", "estimated", "no price"], &rows)
    );
    Ok(())
}
