//! `freeway explain`.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use serde_json::Value;

use crate::client::{self, ask};
use crate::command::Report;
use crate::table::{self, number, render};

#[derive(Args)]
pub(crate) struct Arguments {
    /// A request's id, as in the header `x-freeway-request-id`.
    #[arg(value_name = "REQUEST_ID", required_unless_present = "body")]
    request: Option<String>,
    /// A file with a request body: show the plan for it, send nothing.
    #[arg(long, value_name = "FILE", conflicts_with = "request")]
    body: Option<PathBuf>,
    /// The tier to plan for.
    #[arg(long, requires = "body")]
    tier: Option<String>,
    /// The data class to plan for.
    #[arg(long, requires = "body")]
    data: Option<String>,
    #[command(flatten)]
    report: Report,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let loaded = client::configuration(arguments.report.config.as_deref())?;
    let answer = match (&arguments.request, &arguments.body) {
        (Some(id), _) => ask(&loaded, Method::GET, &format!("/freeway/v1/requests/{id}"), &[], None),
        (None, Some(file)) => {
            let body = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let mut headers = Vec::new();
            if let Some(tier) = &arguments.tier {
                headers.push(("x-freeway-tier", tier.as_str()));
            }
            if let Some(data) = &arguments.data {
                headers.push(("x-freeway-data", data.as_str()));
            }
            ask(&loaded, Method::POST, "/freeway/v1/explain", &headers, Some(body.into()))
        }
        (None, None) => return Err("name a request, or a file with --body".to_owned()),
    };
    let answer = answer.map_err(client::Unanswered::message)?;
    if arguments.report.json {
        println!("{answer:#}");
    } else {
        print!("{}", for_people(&answer));
    }
    Ok(())
}

fn for_people(answer: &Value) -> String {
    let text = |name: &str| table::text(&answer[name]);
    let mut page = String::new();
    if answer["id"].is_string() {
        page.push_str(&format!(
            "{}  {}  {} ms\nasked for {} (tier {}, data {}{})\n{} {}, served by {}\n",
            text("id"),
            text("received_at"),
            text("took_ms"),
            text("model"),
            text("tier"),
            text("data"),
            if answer["stream"] == true { ", streamed" } else { "" },
            text("outcome"),
            text("status"),
            text("served_by"),
        ));
        if answer["waited_ms"].as_f64().is_some_and(|waited| waited > 0.0) {
            page.push_str(&format!("waited {} ms for quota\n", text("waited_ms")));
        }
    } else {
        page.push_str(&format!(
            "plan for {} (tier {}, data {}); nothing was sent\n",
            text("model"),
            text("tier"),
            text("data")
        ));
    }
    let rows: Vec<Vec<String>> = answer["candidates"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|candidate| {
            let verdict = if candidate["kept"] == true {
                let rank = table::text(&candidate["rank"]);
                match candidate["headroom_percent"].as_f64() {
                    Some(percent) => format!("{rank}. choice, {percent} % left"),
                    None => format!("{rank}. choice, no limit known"),
                }
            } else {
                table::text(&candidate["why"])
            };
            let mark = if candidate["kept"] == true { "kept" } else { "dropped" };
            vec![table::text(&candidate["target"]), mark.to_owned(), verdict]
        })
        .collect();
    page.push('\n');
    page.push_str(&render(&["candidate", "", "why"], &rows));
    if let Some(attempts) = answer["attempts"].as_array() {
        let rows: Vec<Vec<String>> = attempts
            .iter()
            .map(|attempt| {
                let usage = &attempt["usage"];
                vec![
                    table::text(&attempt["target"]),
                    table::text(&attempt["outcome"]),
                    table::text(&attempt["status"]),
                    table::text(&attempt["took_ms"]),
                    format!(
                        "{} + {} {}",
                        number(&usage["input"]),
                        number(&usage["output"]),
                        table::text(&attempt["usage_source"])
                    ),
                    attempt["cost_usd"].as_f64().map_or_else(|| "unknown".to_owned(), |cost| format!("${cost:.6}")),
                    attempt["message"].as_str().unwrap_or_default().to_owned(),
                ]
            })
            .collect();
        page.push('\n');
        page.push_str(&render(
            &["attempt", "outcome", "status", "ms", "tokens in + out", "cost", "provider said"],
            &rows,
        ));
    }
    page
}
