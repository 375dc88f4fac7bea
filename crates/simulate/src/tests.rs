use std::path::Path;

use freeway_config::{Loaded, Surroundings, load};
use freeway_router::Strategy;

use super::*;

mod ahead;
mod limits;
mod lines;
mod recorded;
mod recounting;
mod rules;
mod waiting;

/// A Monday, at noon in UTC.
const START: &str = "2026-11-23T12:00:00Z";

fn start() -> Timestamp {
    Timestamp::parse(START).unwrap()
}

fn loaded(config: &str) -> Loaded {
    let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now: start() };
    load("freeway.toml", Some(config), &surroundings).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// A provider of one model that is free, with these limits.
fn provider(id: &str, quality: u8, limits: &str) -> String {
    format!(
        "[providers.{id}]\nbase_url = \"http://127.0.0.1:9/v1\"\nkeys = [\"sk-test-{id}\"]\ncost = \"free\"\n\
         [[providers.{id}.models]]\nid = \"m\"\nquality = {quality}\nlimits = [{limits}]\n"
    )
}

/// A line of a workload; `more` is put behind its other keys.
fn line(at: f64, tier: &str, tokens: (u64, u64), wait: f64, more: &str) -> String {
    let (input, output) = tokens;
    format!(
        "{{\"at\":{at:?},\"tier\":\"{tier}\",\"min_quality\":1,\"input_tokens\":{input},\"output_tokens\":{output},\"wait\":{wait:?}{more}}}\n"
    )
}

/// A request of 100 tokens that does not wait.
fn small(at: f64) -> String {
    line(at, "standard", (80, 20), 0.0, "")
}

/// What came of a workload: each line's target and instant, or why it was refused. Nothing may be broken.
fn played(config: &str, workload: &str, strategy: Option<Strategy>) -> (Vec<String>, Summary) {
    let loaded = loaded(config);
    let (snapshot, limits) = (&loaded.snapshot, loaded.limits.as_slice());
    let workload = Workload::read("w.jsonl", workload, snapshot, strategy).unwrap();
    let scenario =
        Scenario { snapshot, limits, workload: &workload, start: start(), resolve: Duration::from_secs(10_800) };
    let run = simulate(scenario);
    let summary = Summary::of(scenario, &run, &recount(scenario, &run.decisions));
    assert_eq!(summary.broken, [""; 0]);
    let mut came = vec![String::new(); workload.arrivals.len()];
    let lines = decision_lines(scenario, &run.decisions);
    for decision in lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        let line = usize::try_from(decision["i"].as_u64().unwrap()).unwrap();
        came[line] = format!("{} {}", decision["target"].as_str().unwrap(), decision["at"]);
    }
    for refused in &run.refused {
        assert_eq!(came[refused.line], "");
        came[refused.line] = refused.code.to_owned();
    }
    (came, summary)
}

fn check(config: &str, workload: &[String], expected: &[&str]) {
    assert_eq!(played(config, &workload.concat(), None).0, expected);
}
