//! `freeway simulate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use freeway_catalog::window_seconds;
use freeway_router::Strategy;
use freeway_simulate::{LimitUse, Run, Scenario, Summary, Workload, decision_lines, recount, simulate};
use freeway_types::{Metric, Timestamp};
use serde_json::{Value, json};

use crate::command::Report;
use crate::environment;
use crate::table::{number, render};

mod recorded;

/// How many broken rules are told in words.
const MOST_TOLD: usize = 5;

#[derive(Args)]
pub(crate) struct Arguments {
    /// What is asked for, one JSON object on each line: `{"at": seconds from the start, "tier": "standard",
    /// "min_quality": 1, "input_tokens": 1000, "output_tokens": 200, "wait": seconds it may wait}`; it may have `data`,
    /// `features` and `model` (`auto` without it).
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// The instant at which the workload begins, such as 2026-11-23T00:00:00Z: windows of a calendar depend on it.
    #[arg(long, value_name = "WHEN")]
    start: Option<String>,
    /// Instead of a workload, the requests that came on this day in UTC, such as 2026-11-22, from the ledger: shows what
    /// would be different.
    #[arg(long, value_name = "DAY")]
    recorded: Option<String>,
    /// The ledger with the recorded day; without it, the one that the configuration names. It is only read, and its
    /// gateway may be running.
    #[arg(long, value_name = "FILE", requires = "recorded")]
    database: Option<PathBuf>,
    /// How targets are chosen, whatever the configuration says: ordered, cheapest, fastest, headroom or price.
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// How often prices are worked out anew at most; other strategies have none.
    #[arg(long, value_name = "LENGTH", default_value = "3h")]
    resolve: String,
    /// Write each decision as a line of JSON: `{"i": line from 0, "at": seconds, "target": "provider/model"}`; what has
    /// no line was not served. Those of a recorded day have the request's id as well.
    #[arg(long, value_name = "FILE")]
    decisions: Option<PathBuf>,
    #[command(flatten)]
    report: Report,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let resolve = window_seconds(&arguments.resolve).map(Duration::from_secs);
    let resolve = resolve.ok_or_else(|| format!("--resolve: `{}` is no length; write 3h", arguments.resolve))?;
    let chosen = arguments.strategy.as_deref().map(strategy).transpose()?;
    match (&arguments.workload, &arguments.recorded) {
        (Some(workload), None) => written(arguments, workload, chosen, resolve),
        (None, Some(day)) => recorded::run(arguments, day, chosen, resolve),
        (None, None) => {
            Err("name a workload with --workload FILE, or a day of the ledger with --recorded DAY".to_owned())
        }
        (Some(_), Some(_)) => Err("--workload and --recorded exclude each other; leave one of them out".to_owned()),
    }
}

/// Simulates a written workload.
fn written(arguments: &Arguments, workload: &Path, chosen: Option<Strategy>, resolve: Duration) -> Result<(), String> {
    let start = arguments.start.as_deref().ok_or("a workload needs --start; write --start 2026-11-23T00:00:00Z")?;
    let start = Timestamp::parse(start)
        .ok_or_else(|| format!("--start: `{start}` is no instant; write 2026-11-23T00:00:00Z"))?;
    // Facts are as old as they are at the start, so that the same simulation gives the same on every day.
    let loaded = environment::configuration(arguments.report.config.as_deref(), start)?;
    let path = workload.display().to_string();
    let text = std::fs::read_to_string(workload).map_err(|error| format!("{path}: {error}"))?;
    let workload = Workload::read(&path, &text, &loaded.snapshot, chosen).map_err(|error| error.to_string())?;
    let (snapshot, limits) = (&loaded.snapshot, loaded.limits.as_slice());
    let scenario = Scenario { snapshot, limits, workload: &workload, start, resolve };
    let (run, summary) = play(scenario);
    if let Some(path) = &arguments.decisions {
        write(path, &decision_lines(scenario, &run.decisions))?;
    }
    match arguments.report.json {
        true => println!("{:#}", document(&summary, name_of(chosen), start)),
        false => print!("{}", page(&summary, name_of(chosen), start)),
    }
    sound(&summary)
}

fn play(scenario: Scenario<'_>) -> (Run, Summary) {
    let run = simulate(scenario);
    let mut summary = Summary::of(scenario, &run, &recount(scenario, &run.decisions));
    summary.bound = freeway_simulate::bound(scenario);
    summary.share_of_bound = summary.bound.filter(|bound| *bound > 0.0).map(|bound| summary.value / bound);
    (run, summary)
}

fn name_of(chosen: Option<Strategy>) -> &'static str {
    chosen.map_or("as configured", Strategy::as_str)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Complains of decisions that break a rule. Nothing ever should.
fn sound(summary: &Summary) -> Result<(), String> {
    if summary.broken.is_empty() {
        return Ok(());
    }
    let told: Vec<&str> = summary.broken.iter().take(MOST_TOLD).map(String::as_str).collect();
    Err(format!("{} decisions break a rule; please report this:\n{}", summary.broken.len(), told.join("\n")))
}

pub(crate) fn strategy(name: &str) -> Result<Strategy, String> {
    Strategy::parse(name).ok_or_else(|| {
        let known: Vec<&str> = Strategy::ALL.into_iter().map(Strategy::as_str).collect();
        format!("--strategy: there is no `{name}`; there are {}", known.join(", "))
    })
}

fn document(summary: &Summary, strategy: &str, start: Timestamp) -> Value {
    let mut document = json!({"strategy": strategy, "start": start.to_rfc3339()});
    if let (Some(all), Ok(Value::Object(summary))) = (document.as_object_mut(), serde_json::to_value(summary)) {
        all.extend(summary);
    }
    document
}

fn page(summary: &Summary, strategy: &str, start: Timestamp) -> String {
    let count = |count: usize| number(&count.into());
    let mut text = format!(
        "strategy  {strategy}, from {start}\nserved    {} of {} requests, {} after waiting\nvalue     {} of {}\n",
        count(summary.served),
        count(summary.requests),
        count(summary.waited),
        figure(summary.value),
        figure(summary.value_asked),
    );
    if let (Some(bound), Some(share)) = (summary.bound, summary.share_of_bound) {
        text.push_str(&format!("bound     {}, of which {:.2} % were served\n", figure(bound), share * 100.0));
    }
    text.push_str(&format!("cost      ${:.6}", summary.cost_usd));
    if summary.unpriced > 0 {
        text.push_str(&format!(", and {} answers whose price nobody knows", count(summary.unpriced)));
    }
    let tiers = summary.tiers.iter().map(|row| {
        vec![row.tier.clone(), count(row.requests), count(row.served), figure(row.value), reasons(&row.refused)]
    });
    text.push_str("\n\n");
    text.push_str(&render(&["tier", "requests", "served", "value", "refused"], &tiers.collect::<Vec<_>>()));
    let targets = summary.targets.iter().map(|row| {
        let (input, output) = (number(&row.input_tokens.into()), number(&row.output_tokens.into()));
        vec![row.target.clone(), count(row.served), figure(row.value), input, output, format!("${:.6}", row.cost_usd)]
    });
    text.push('\n');
    text.push_str(&render(&["target", "served", "value", "input", "output", "cost"], &targets.collect::<Vec<_>>()));
    let limits = summary.limits.iter().map(|row| {
        let amount = row.amount.map_or_else(|| "unknown".to_owned(), |amount| amount_of(row, amount));
        let (most, used) = (amount_of(row, row.most), amount_of(row, row.used));
        vec![row.limit.clone(), number(&row.windows.into()), amount, most, used]
    });
    text.push('\n');
    text.push_str(&render(&["limit", "windows", "amount", "most in one", "in all"], &limits.collect::<Vec<_>>()));
    text
}

/// How many were refused for which reason.
fn reasons(refused: &BTreeMap<&'static str, usize>) -> String {
    let all: Vec<String> = refused.iter().map(|(code, count)| format!("{} {code}", number(&(*count).into()))).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// An amount in the units of a limit.
fn amount_of(row: &LimitUse, amount: f64) -> String {
    if row.metric == Metric::Usd { format!("${amount:.6}") } else { figure(amount) }
}

/// A number, with decimals only if it has some.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number that is not negative")]
fn figure(value: f64) -> String {
    let is_whole = (0.0..9e15).contains(&value) && value.fract().abs() < 1e-6;
    if is_whole { number(&(value.round() as u64).into()) } else { format!("{value:.2}") }
}
