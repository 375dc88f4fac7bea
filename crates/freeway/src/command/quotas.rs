//! `freeway quotas`.

use clap::Args;
use http::Method;

use crate::client::{self, ask};
use crate::command::Report;
use crate::table::{number, render, text};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    report: Report,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let loaded = client::configuration(arguments.report.config.as_deref())?;
    let answer = ask(&loaded, Method::GET, "/freeway/v1/quotas", &[], None).map_err(client::Unanswered::message)?;
    if arguments.report.json {
        println!("{answer:#}");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = answer["limits"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|limit| {
            let reset = if limit["reset_assumed"] == true {
                format!("{} (assumed)", text(&limit["returns"]))
            } else {
                text(&limit["returns"])
            };
            let row = vec![
                text(&limit["limit"]),
                number(&limit["amount"]),
                number(&limit["used"]),
                number(&limit["held"]),
                number(&limit["left"]),
                reset,
            ];
            let credits = limit["credits"].as_array().into_iter().flatten().map(|credit| {
                vec![
                    format!("  {}", text(&credit["credit"])),
                    number(&credit["amount"]),
                    number(&credit["used"]),
                    String::new(),
                    number(&credit["left"]),
                    String::new(),
                ]
            });
            std::iter::once(row).chain(credits).collect::<Vec<_>>()
        })
        .collect();
    print!("{}", render(&["limit", "amount", "used", "in flight", "left", "next back"], &rows));
    let rows: Vec<Vec<String>> = answer["pauses"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|pause| vec![text(&pause["what"]), text(&pause["until"]), text(&pause["why"])])
        .collect();
    if !rows.is_empty() {
        print!("\n{}", render(&["paused", "until", "why"], &rows));
    }
    Ok(())
}
