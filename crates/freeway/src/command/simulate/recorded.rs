//! `freeway simulate --recorded`: a day of the ledger against a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use freeway_config::{Loaded, StoreUrl};
use freeway_engine::read_candidates;
use freeway_router::Strategy;
use freeway_simulate::{
    CLIENT_LEFT, Change, Comparison, Decision, Fate, LatencyClass, Recorded, Replay, Scenario, Shift, Side, compare,
};
use freeway_store::{AttemptRecord, Recorded as Ledger, RequestRecord};
use freeway_types::{RequestId, Timestamp};
use serde_json::{Value, json};

use super::{Arguments, name_of, play, sound, write};
use crate::environment;
use crate::table::{number, render};

const DAY: Duration = Duration::from_secs(86_400);
/// Latencies are measured on this day and the six before it.
const MEASURED: Duration = Duration::from_secs(6 * 86_400);
/// How many days are told of where the one that was asked for is not there.
const MOST_DAYS: usize = 10;
/// The error of a request that rules keep from every target.
const NOT_PERMITTED: &str = "no_permitted_target";
/// What a replay never shows.
const IDEAL: &str = "answers are immediate, providers never fail, every limit begins the day unused,\n\
                     and every target takes each field of a request";

/// What the ledger has of a day.
#[derive(Default)]
struct Day {
    ids: Vec<RequestId>,
    requests: Vec<Recorded>,
    latency: BTreeMap<String, LatencyClass>,
}

pub(super) fn run(arguments: &Arguments, day: &str, chosen: Option<Strategy>, resolve: Duration) -> Result<(), String> {
    if arguments.start.is_some() {
        return Err("--start: a recorded day begins at its midnight in UTC; leave --start out".to_owned());
    }
    let start = Timestamp::parse(day).filter(|_| day.len() == "2026-11-22".len());
    let start = start.ok_or_else(|| format!("--recorded: `{day}` is no day; write 2026-11-22"))?;
    // Facts are as old as they were on that day.
    let loaded = environment::configuration(arguments.report.config.as_deref(), start)?;
    let path = database(arguments, &loaded)?;
    let found = read(&path, start, day)?;
    let (snapshot, limits) = (&loaded.snapshot, loaded.limits.as_slice());
    let is_open = loaded.settings.keys.is_empty() && loaded.settings.client_keys.is_empty();
    let replay = Replay::of(&found.requests, snapshot, is_open, chosen);
    let scenario = Scenario { snapshot, limits, workload: &replay.workload, start, resolve };
    let (run, summary) = play(scenario);
    if let Some(path) = &arguments.decisions {
        write(path, &decision_lines(scenario, &run.decisions, &replay, &found.ids))?;
    }
    let comparison = compare(scenario, &run, &found.requests, &replay, &found.latency);
    match arguments.report.json {
        true => {
            let mut document = json!({"day": day, "strategy": name_of(chosen), "ideal": IDEAL.replace('\n', " ")});
            if let (Some(all), Ok(Value::Object(comparison))) =
                (document.as_object_mut(), serde_json::to_value(&comparison))
            {
                all.extend(comparison);
            }
            document["simulation"] = serde_json::to_value(&summary).unwrap_or_default();
            println!("{document:#}");
        }
        false => print!("{}", page(&comparison, day, name_of(chosen))),
    }
    sound(&summary)
}

/// The ledger to read.
fn database(arguments: &Arguments, loaded: &Loaded) -> Result<PathBuf, String> {
    let path = match (&arguments.database, &loaded.settings.store) {
        (Some(path), _) | (None, StoreUrl::File(path)) => path.clone(),
        (None, StoreUrl::Memory) => {
            return Err(
                "the configuration keeps its ledger in memory, where nobody else can read it; give [store] url \
                        a file, or name a ledger with --database"
                    .to_owned(),
            );
        }
    };
    match path.exists() {
        true => Ok(path),
        false => Err(format!(
            "{}: there is no ledger; it is made when `freeway serve` runs. Name another one with --database",
            path.display()
        )),
    }
}

fn read(path: &Path, start: Timestamp, day: &str) -> Result<Day, String> {
    let fail = |error: freeway_store::StoreError| format!("{}: {error}", path.display());
    let ledger = Ledger::open(path).map_err(fail)?;
    let mut found = Day::default();
    let end = start.after(DAY);
    let show = |record: RequestRecord| {
        found.ids.push(record.id);
        found.requests.push(recorded(record, start));
    };
    ledger.each(start, end, show).map_err(fail)?;
    if found.requests.is_empty() {
        let days = ledger.days().map_err(fail)?;
        return Err(format!("--recorded {day}: no request came on that day in UTC. {}", known(path, &days)));
    }
    for times in ledger.first_contents(start.before(MEASURED), end).map_err(fail)? {
        let class = LatencyClass::of(times.answers, times.below_half_a_second, times.below_two_seconds);
        found.latency.insert(times.target, class);
    }
    Ok(found)
}

/// Which days a ledger has, the latest ones.
fn known(path: &Path, days: &[(String, u64)]) -> String {
    if days.is_empty() {
        return format!("The ledger {} has no request at all", path.display());
    }
    let latest: Vec<String> =
        days.iter().rev().take(MOST_DAYS).map(|(day, count)| format!("{day} ({count})")).collect();
    let more = days.len().saturating_sub(MOST_DAYS);
    let more = if more > 0 { format!(" and {more} earlier days") } else { String::new() };
    format!("The ledger {} has, with their requests, {}{more}", path.display(), latest.join(", "))
}

fn recorded(record: RequestRecord, start: Timestamp) -> Recorded {
    let answering = answering(&record);
    let tokens = record.attempts.iter().map(|attempt| attempt.usage.input).max().filter(|tokens| *tokens > 0);
    let input = answering.map(|attempt| attempt.usage.input).or(tokens);
    let output = answering.map(|attempt| attempt.usage.output);
    let was_sent = |attempt: &&AttemptRecord| attempt.outcome != "connection_failed";
    let sent: BTreeMap<String, _> =
        record.attempts.iter().filter(was_sent).map(|attempt| (target(attempt), attempt.handling)).collect();
    let costs = |attempt: &&AttemptRecord| attempt.handling.is_none_or(|handling| handling.paid);
    let cost = record.attempts.iter().filter(costs).filter_map(|attempt| attempt.cost).sum();
    let is_unpriced = answering
        .is_some_and(|attempt| attempt.cost.is_none() && attempt.handling.is_some_and(|handling| handling.paid));
    let fate = match (record.outcome.as_str(), record.served_by, record.error) {
        ("answered", Some(target), _) => Fate::Served(target),
        ("cancelled", ..) => Fate::Unserved(CLIENT_LEFT.to_owned()),
        (outcome, _, error) => Fate::Unserved(error.unwrap_or_else(|| outcome.to_owned())),
    };
    let barred = match &fate {
        Fate::Unserved(code) if code == NOT_PERMITTED => barred(&record.candidates),
        _ => BTreeSet::new(),
    };
    Recorded {
        after: record.received_at.since(start),
        caller: record.caller,
        model: record.model,
        tier: record.tier,
        data: record.data,
        stream: record.stream,
        asked: record.asked,
        input,
        output,
        fate,
        cost,
        is_unpriced,
        sent: sent.into_iter().collect(),
        barred: barred.into_iter().collect(),
    }
}

/// The attempt that was the answer.
fn answering(record: &RequestRecord) -> Option<&AttemptRecord> {
    let served = record.served_by.as_deref()?;
    let is_answer = |attempt: &&AttemptRecord| attempt.outcome == "answered" && target(attempt) == served;
    record.attempts.iter().rfind(is_answer)
}

fn target(attempt: &AttemptRecord) -> String {
    format!("{}/{}", attempt.account, attempt.model)
}

/// The data rules that stood in the way of a target.
fn barred(candidates: &str) -> BTreeSet<String> {
    let candidates = read_candidates(candidates);
    let candidates = candidates.as_array().into_iter().flatten();
    let by_data = candidates.filter(|candidate| candidate["reason"] == "data_rule");
    by_data.filter_map(|candidate| candidate["why"].as_str().map(str::to_owned)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a day are exact")]
fn decision_lines(scenario: Scenario<'_>, decisions: &[Decision], replay: &Replay, ids: &[RequestId]) -> String {
    let line = |decision: &Decision| {
        let position = replay.positions[decision.line];
        let at = decision.at.as_micros() as f64 / 1e6;
        let target = &scenario.snapshot.deployment(decision.target).name;
        format!("{}\n", json!({"i": position, "request": ids[position].to_string(), "at": at, "target": target}))
    };
    decisions.iter().map(line).collect()
}

fn page(comparison: &Comparison, day: &str, strategy: &str) -> String {
    let count = |count: usize| number(&count.into());
    let Comparison { recorded, simulated, .. } = comparison;
    let mut text = format!("day       {day} in UTC, {} requests\n", count(comparison.requests));
    text.push_str(&format!("strategy  {strategy}\n\n"));
    let both = |what: &str, of: &dyn Fn(&Side) -> String| vec![what.to_owned(), of(recorded), of(simulated)];
    let mut rows = vec![both("served", &|side| count(side.served))];
    let codes: BTreeSet<&String> = recorded.unserved.keys().chain(simulated.unserved.keys()).collect();
    for code in codes {
        rows.push(both(code, &|side| count(side.unserved.get(code).copied().unwrap_or(0))));
    }
    rows.push(both("cost", &|side| format!("${:.6}", side.cost_usd)));
    if recorded.unpriced + simulated.unpriced > 0 {
        rows.push(both("of unknown price", &|side| count(side.unpriced)));
    }
    text.push_str(&render(&["", "recorded", "simulated"], &rows));
    text.push_str(&format!(
        "\n{} at the same target, {} at another, {} newly served, {} no longer served\n\n",
        count(comparison.same_target),
        count(comparison.other_target),
        count(comparison.newly_served),
        count(comparison.no_longer_served),
    ));
    let targets = comparison.targets.iter().map(|row| {
        vec![row.target.clone(), row.latency.as_str().to_owned(), count(row.recorded), count(row.simulated)]
    });
    text.push_str(&render(&["target", "first content", "recorded", "simulated"], &targets.collect::<Vec<_>>()));
    shifts(&mut text, "target", &comparison.moves);
    shifts(&mut text, "cost", &comparison.cost_classes);
    shifts(&mut text, "first content", &comparison.latency_classes);
    changes(&mut text, "what becomes of the data", &comparison.data);
    changes(&mut text, "refused by a data rule", &comparison.data_rules);
    text.push('\n');
    text.push_str(&notes(comparison));
    text
}

fn shifts(text: &mut String, what: &str, rows: &[Shift]) {
    if rows.is_empty() {
        return;
    }
    let cells = |row: &Shift| vec![row.from.clone(), row.to.clone(), number(&row.requests.into())];
    text.push('\n');
    text.push_str(&render(&[&format!("{what}: from"), "to", "requests"], &rows.iter().map(cells).collect::<Vec<_>>()));
}

fn changes(text: &mut String, what: &str, rows: &[Change]) {
    if rows.is_empty() {
        return;
    }
    let cells = |row: &Change| {
        let counts = [row.recorded, row.simulated, row.newly, row.no_longer].map(|count| number(&count.into()));
        std::iter::once(row.what.clone()).chain(counts).collect()
    };
    text.push('\n');
    let heading = [what, "recorded", "simulated", "newly", "no longer"];
    text.push_str(&render(&heading, &rows.iter().map(cells).collect::<Vec<_>>()));
}

/// What is not as it was.
fn notes(comparison: &Comparison) -> String {
    let assumed = comparison.assumed;
    let all = [
        (
            assumed.asked,
            "of which the ledger has only tier and data class: taken to name both, and to ask for nothing else",
        ),
        (assumed.input, "of unknown input: taken to be the middle one of the day"),
        (
            assumed.output,
            "without a whole answer: its length taken to be the day's middle one, or what was asked for if less",
        ),
        (assumed.stayed, "that their clients left: taken to stay"),
        (assumed.turned_away, "turned away before a tier was found for them: they stay so"),
        (assumed.handling, "at a target of which nobody knows any more what it did with the data: not counted there"),
    ];
    let mut text = format!("ideal     {}\n", IDEAL.replace('\n', "\n          "));
    for (count, what) in all.iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("assumed   {} {what}\n", number(&(*count).into())));
    }
    text
}
