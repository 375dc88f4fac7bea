//! `freeway plan`: what a need takes.

use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::documents::blocks;
use crate::gateway::{Home, complaint, program, stdout};
use crate::http::Ask;
use crate::patience::until;
use crate::upstream::Upstream;

const DOCUMENT: &str = include_str!("../../../../docs/plan.md");
const START: &str = "2026-12-01T00:00:00Z";
const SENTENCE: &str = "100 requests a day of 8,000 tokens, 10 % critical";

/// A folder with the example of `docs/plan.md`.
pub(crate) fn example() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("freeway.toml"), blocks(DOCUMENT, "toml")[0]).unwrap();
    folder
}

fn plan(folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("plan").args(arguments).args(["--start", START]).current_dir(folder.path()).env("TZ", "UTC");
    command.output().unwrap()
}

#[test]
fn the_example_of_the_document_comes_out_as_it_says() {
    let folder = example();
    let page = stdout(&plan(&folder, &[SENTENCE]));
    let (own, of_catalogue) = page.split_once("\nWhat the rest costs").unwrap();
    assert_eq!(own, blocks(DOCUMENT, "text")[0]);
    // 60 a day until the five dollars are spent, and 123 of the large model: 1,977 of 3,100 are left.
    assert!(of_catalogue.starts_with(", 1,977 requests in 31 days\n"), "{of_catalogue}");
    assert!(of_catalogue.contains("\nWhich next free key would add the most in 31 days\n1. "), "{of_catalogue}");
    let widest = page.lines().max_by_key(|line| line.chars().count()).unwrap();
    assert!(widest.chars().count() <= 100, "{widest}");
    let plain = stdout(&plan(&folder, &[SENTENCE, "--ascii"]));
    assert!(plain.split("\nWhat the rest costs").next().unwrap().is_ascii(), "{plain}");
    assert_eq!(page, stdout(&plan(&folder, &[SENTENCE])), "the same is said each time");
}

#[test]
fn what_rests_on_shaky_facts_is_shown_apart() {
    // Of a free offer of a provider in the catalogue, no limit is known by the user's own word: it is doubted at an
    // instant at which all its facts are stale.
    let folder = tempfile::tempdir().unwrap();
    let groq = blocks(DOCUMENT, "toml")[0].to_owned() + "\n[providers.groq]\nkeys = [\"sk-test-groq\"]\n";
    std::fs::write(folder.path().join("freeway.toml"), groq).unwrap();
    let mut command = program();
    command.args(["plan", SENTENCE, "--ascii", "--start", "2036-12-01T00:00:00Z"]).current_dir(folder.path());
    let page = stdout(&command.env("TZ", "UTC").output().unwrap());
    assert!(page.contains("# served for sure, + if every shaky fact holds, . not served"), "{page}");
    assert!(
        page.contains("Counted as 0 in lower figures: its facts are of 20") && page.contains(", which is stale"),
        "{page}"
    );
    assert!(page.contains("without what rests on shaky facts)") && page.contains("day 31, sure"), "{page}");
    let widest = page.lines().max_by_key(|line| line.chars().count()).unwrap();
    assert!(widest.chars().count() <= 100, "{widest}");
}

#[test]
fn options_say_what_the_sentence_says() {
    let folder = example();
    let options = ["--requests", "100/day", "--tokens", "8000", "--critical", "10%", "--json"];
    let by_options: Value = serde_json::from_str(&stdout(&plan(&folder, &options))).unwrap();
    let by_sentence: Value = serde_json::from_str(&stdout(&plan(&folder, &[SENTENCE, "--json"]))).unwrap();
    assert_eq!(by_options, by_sentence);
    let more: Value = serde_json::from_str(&stdout(&plan(
        &folder,
        &[SENTENCE, "--json", "--batch", "20", "--output-tokens", "500", "--min-quality", "3", "--days", "2"],
    )))
    .unwrap();
    let need = &more["need"];
    assert_eq!((&need["input_tokens"], &need["output_tokens"]), (&json!(7_500), &json!(500)));
    assert_eq!((&need["split_is_assumed"], &need["min_quality"]), (&json!(false), &json!(3)));
    let tiers: Vec<&str> =
        need["tiers"].as_array().unwrap().iter().map(|tier| tier["tier"].as_str().unwrap()).collect();
    assert_eq!(tiers, ["critical", "batch", "standard"]);
    assert_eq!(more["carries"].as_array().unwrap().len(), 1, "one of the models is good enough");
    assert_eq!(more["course"]["days"].as_array().unwrap().len(), 2);
}

#[test]
fn programs_get_everything() {
    let folder = example();
    let said: Value = serde_json::from_str(&stdout(&plan(&folder, &[SENTENCE, "--json"]))).unwrap();
    assert_eq!((&said["strategy"], &said["start"]), (&json!("as configured"), &json!(START)));
    assert_eq!(said["together"], json!({"least": 1_123, "most": 1_123}));
    assert_eq!((&said["course"]["asked"], &said["course"]["served"]), (&json!(3_100), &json!(1_123)));
    assert_eq!(said["carries"][0]["bound_by"], "lab/large tokens per month");
    assert_eq!(said["course"]["days"][30]["served"], 0, "day 31");
    let spent = &said["course"]["run_outs"][2];
    assert_eq!(
        (&spent["limit"], &spent["day"], &spent["for_good"]),
        (&json!("lab/small usd per ever"), &json!(17), &json!(true))
    );
    // What the catalogue has changes; that it has something does not.
    let cover = &said["covers"][0];
    assert_eq!(cover["requests"], json!({"least": 1_977, "most": 1_977}));
    let usd = cover["usd_a_request"].as_f64().unwrap();
    assert!(usd > 0.0 && (cover["usd_most"].as_f64().unwrap() - usd * 1_977.0).abs() < 1e-6, "{cover}");
    let keys = said["next_keys"].as_array().unwrap();
    assert!(keys.len() > 3 && keys.iter().all(|key| key["adds"]["least"].as_u64().unwrap() <= 1_977), "{keys:#?}");
    let names: Vec<&str> = keys.iter().map(|key| key["provider"].as_str().unwrap()).collect();
    assert!(names.contains(&"groq") && !names.contains(&"ollama"), "{names:?}");
    assert!(keys.iter().any(|key| !key["catches"].as_array().unwrap().is_empty()));
    // A key that is there already is none to get.
    let config = blocks(DOCUMENT, "toml")[0].to_owned() + "\n[providers.groq]\nkeys = [\"sk-test-groq\"]\n";
    std::fs::write(folder.path().join("freeway.toml"), config).unwrap();
    let said: Value = serde_json::from_str(&stdout(&plan(&folder, &[SENTENCE, "--json"]))).unwrap();
    let names: Vec<&Value> = said["next_keys"].as_array().unwrap().iter().map(|key| &key["provider"]).collect();
    assert!(!names.contains(&&json!("groq")), "{names:?}");
}

#[test]
fn a_strategy_is_compared_and_looking_ahead_serves_no_less_of_what_is_critical() {
    let folder = example();
    let critical = |more: &[&str]| {
        let arguments = [&["30 requests an hour of 8k tokens, 10% critical", "--days", "3", "--json"], more].concat();
        let said: Value = serde_json::from_str(&stdout(&plan(&folder, &arguments))).unwrap();
        let days = said["course"]["days"].as_array().unwrap();
        days.iter().map(|day| day["tiers"][0]["served"].as_u64().unwrap()).sum::<u64>()
    };
    let (ordered, price) = (critical(&["--strategy", "ordered"]), critical(&["--strategy", "price"]));
    assert!(price >= ordered && ordered > 0, "{price} and {ordered}");
}

#[test]
fn what_cannot_be_planned_is_told_with_what_helps() {
    let folder = example();
    let complaint = |arguments: &[&str]| complaint(&plan(&folder, arguments));
    assert!(
        complaint(&["5 elephants a day"]).starts_with("`5 elephants` was not understood; write for example \"5,000")
    );
    assert!(complaint(&[]).starts_with("how many requests there are was not said; write for example"));
    assert!(complaint(&["--requests", "many", "--tokens", "5"]).contains("`many` was not understood"));
    assert!(complaint(&[SENTENCE, "--critical", "some"]).contains("write 10%"));
    assert!(complaint(&[SENTENCE, "--strategy", "best"]).contains("there are ordered"));
    assert!(complaint(&[SENTENCE, "--model", "gpt"]).contains("no model or alias is called `gpt`"));
    assert!(complaint(&[SENTENCE, "--data", "own"]).contains("there are public"));
    assert!(complaint(&[SENTENCE, "10 % urgent"]).contains("tier: `urgent` is not known; there are critical"));
    assert!(complaint(&[SENTENCE, "--min-quality", "7"]).contains("a quality is 1, 2, 3, 4 or 5"));
    assert!(complaint(&["90,000 requests a day of 80 tokens"]).contains("plan fewer days with --days: 5 would do"));
    assert!(complaint(&[SENTENCE, "--config", "other.toml"]).starts_with("other.toml: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_need_is_taken_from_what_was_recorded() {
    let a = Upstream::new("a").await;
    let text = format!("{}\n[aliases.smart]\ntargets = [\"a/a-model\"]\n", a.table());
    let home = Home::new(&text);
    let gateway = home.serve().await;
    home.write(&text, &gateway.address.to_string());
    let recorded = |arguments: Vec<&'static str>| {
        let home = &home;
        async move { home.command(&[&["plan", "--recorded", "1", "--json"], arguments.as_slice()].concat()).await }
    };
    let nothing = recorded(Vec::new()).await;
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(said.contains("no request was answered in the last 1 days; describe the need instead"), "{said}");
    for tier in ["critical", "standard", "standard", "batch"] {
        gateway.ask(&Ask::chat("smart", false).header("x-freeway-tier", tier)).await;
    }
    // A request that is wrong is no need.
    gateway.ask(&Ask::chat("nobody-has-this", false)).await;
    let found = until("the ledger knows all of them", async || {
        let output = recorded(Vec::new()).await;
        let said: Value = serde_json::from_slice(&output.stdout).ok()?;
        (said["need"]["requests"] == 4).then_some(said)
    })
    .await;
    let shares: Vec<(&str, f64)> = found["need"]["tiers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tier| (tier["tier"].as_str().unwrap(), tier["share"].as_f64().unwrap()))
        .collect();
    assert_eq!(shares, [("batch", 0.25), ("critical", 0.25), ("standard", 0.5)]);
    let by_hour = found["need"]["by_hour"].as_array().unwrap();
    assert_eq!(by_hour.iter().map(|weight| weight.as_u64().unwrap()).sum::<u64>(), 4, "{by_hour:?}");
    let usage = home.command(&["usage", "--json"]).await;
    let usage: Value = serde_json::from_slice(&usage.stdout).unwrap();
    let mean = usage["rows"][0]["input_tokens"].as_u64().unwrap().div_ceil(4);
    assert_eq!(found["need"]["input_tokens"], mean, "{usage:#}");
    // What is said goes before what was.
    let output = recorded(vec!["--requests", "50/day", "--tokens", "800", "--critical", "100%"]).await;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let need = &said["need"];
    assert_eq!((&need["requests"], &need["input_tokens"]), (&json!(50), &json!(700)));
    assert_eq!(need["tiers"], json!([{"tier": "critical", "share": 1.0}]));
    assert_eq!(said["course"]["asked"], 50 * 31);
}
