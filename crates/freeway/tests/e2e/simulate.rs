//! `freeway simulate`: what a configuration would make of a workload.

use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::documents::blocks;
use crate::gateway::{complaint, program, stdout};

/// The document with the examples.
pub(crate) const ROUTING: &str = include_str!("../../../../docs/routing.md");
const START: &str = "2026-11-23T00:00:00Z";

/// A folder with the example of `docs/routing.md`.
pub(crate) fn example() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("freeway.toml"), blocks(ROUTING, "toml")[0]).unwrap();
    std::fs::write(folder.path().join("workload.jsonl"), blocks(ROUTING, "json")[0]).unwrap();
    folder
}

fn simulate(folder: &TempDir, more: &[&str]) -> Output {
    let usual = ["simulate", "--workload", "workload.jsonl", "--start", START];
    program().args(usual).args(more).current_dir(folder.path()).output().unwrap()
}

#[test]
fn the_example_of_the_document_comes_out_as_it_says() {
    let folder = example();
    assert_eq!(stdout(&simulate(&folder, &[])), blocks(ROUTING, "text")[0]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is written that was not asked for");
}

#[test]
fn programs_get_json_and_each_decision() {
    let folder = example();
    let said = stdout(&simulate(&folder, &["--json", "--decisions", "out.jsonl", "--resolve", "1h"]));
    let said: Value = serde_json::from_str(&said).unwrap();
    let expected = json!({"strategy": "as configured", "start": START, "requests": 5, "served": 4, "waited": 1});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&said[key], value, "{key}: {said:#}");
    }
    assert_eq!(said["refused"], json!({"quota": 1}));
    assert_eq!(said["limits"][0]["most"], 2.0, "{said:#}");
    let (bound, share) = (said["bound"].as_f64().unwrap(), said["share_of_bound"].as_f64().unwrap());
    assert!((bound - 27.0).abs() < 1e-3 && (share - 17.0 / bound).abs() < 1e-9, "{said:#}");
    let decisions = std::fs::read_to_string(folder.path().join("out.jsonl")).unwrap();
    let lines: Vec<Value> = decisions.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let went = |i: u32, at: f64, target: &str| json!({"i": i, "at": at, "target": target});
    let expected =
        [went(0, 0.0, "lab/small"), went(1, 1.5, "lab/large"), went(2, 2.0, "lab/large"), went(4, 61.503, "lab/large")];
    assert_eq!(lines, expected);
    let named = "{\"i\":4,\"at\":61.503,\"target\":\"lab/large\"}";
    assert!(decisions.contains(named) && ROUTING.contains(named), "{decisions}");
}

#[test]
fn what_cannot_be_simulated_is_told_with_what_helps() {
    let folder = example();
    let none = complaint(&simulate(&folder, &["--strategy", "quickest"]));
    assert!(none.contains("no `quickest`; there are ordered, cheapest, fastest, headroom, price"), "{none}");
    assert!(complaint(&simulate(&folder, &["--resolve", "soon"])).contains("write 3h"));
    assert!(complaint(&simulate(&folder, &["--config", "other.toml"])).contains("other.toml"));
    let text = blocks(ROUTING, "json")[0].replacen("\"batch\"", "\"urgent\"", 1);
    std::fs::write(folder.path().join("workload.jsonl"), text).unwrap();
    let urgent = complaint(&simulate(&folder, &[]));
    assert!(urgent.starts_with("workload.jsonl:5: tier: `urgent` is not known; there are critical"), "{urgent}");
    std::fs::remove_file(folder.path().join("workload.jsonl")).unwrap();
    assert!(complaint(&simulate(&folder, &[])).starts_with("workload.jsonl: "));
}
