//! What no compiler checks: the direction of the arrows between crates, the purity of the pure ring,
//! documents that speak of files that are there, and secrets in files.

#![expect(clippy::unwrap_used, reason = "a test panics when what it reads is not there")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates from the inside out. Each may depend only on crates above it.
const ORDER: [&str; 18] = [
    "types",
    "dialect",
    "catalog",
    "quota",
    "policy",
    "price",
    "router",
    "simulate",
    "plan", // pure
    "telemetry",
    "store",
    "upstream",
    "engine",
    "server", // effects
    "config",
    "sim",
    "freeway",
    "xtask", // edge and development
];
const PURE: [&str; 9] = ["types", "dialect", "catalog", "quota", "policy", "price", "router", "simulate", "plan"];
/// The simulated providers must prove the gateway right or wrong without sharing its arithmetic.
const SIM_MAY_USE: [&str; 3] = ["types", "dialect", "catalog"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn dependencies(name: &str, table: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    manifest.get(table).and_then(toml::Value::as_table).map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

fn own(dependency: &str) -> Option<&str> {
    dependency.strip_prefix("freeway-")
}

fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "this test reads the list of files from git");
    let names = String::from_utf8(output.stdout).unwrap();
    names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

#[test]
fn every_crate_has_its_place() {
    let mut found: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut known: Vec<String> = ORDER.iter().map(ToString::to_string).collect();
    found.sort();
    known.sort();
    assert_eq!(found, known);
}

#[test]
fn arrows_point_inwards() {
    let place: BTreeMap<&str, usize> = ORDER.iter().enumerate().map(|(place, name)| (*name, place)).collect();
    for name in ORDER {
        for dependency in dependencies(name, "dependencies").iter().filter_map(|dependency| own(dependency)) {
            assert!(place[dependency] < place[name], "{name} depends on {dependency}, which stands below it");
            assert!(dependency != "sim" || name == "freeway", "only the program may play providers, for its sandbox");
            assert!(
                name != "sim" || SIM_MAY_USE.contains(&dependency),
                "sim depends on {dependency}, which it is to test"
            );
        }
    }
}

#[test]
fn the_benchmark_looks_at_the_program_from_outside() {
    for table in ["dependencies", "dev-dependencies"] {
        let ours: Vec<String> =
            dependencies("../bench", table).into_iter().filter(|name| own(name).is_some()).collect();
        assert!(ours.is_empty(), "bench depends on {ours:?}, which it is to measure");
    }
}

#[test]
fn the_pure_ring_performs_nothing() {
    let impure = ["tokio", "hyper", "hyper-util", "rusqlite", "getrandom", "futures-util", "tokio-rustls"];
    for name in PURE {
        for dependency in dependencies(name, "dependencies") {
            assert!(!impure.contains(&dependency.as_str()), "{name} is pure and depends on {dependency}");
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = text.split("[workspace.dependencies]").nth(1).unwrap().split("\n[workspace.lints").next().unwrap();
    for line in section.lines().filter(|line| line.contains(" = ") && !line.contains("path = ")) {
        assert!(line.contains(" # "), "no reason beside: {line}");
    }
}

#[test]
fn documents_link_to_files_that_are_there() {
    for path in tracked().iter().filter(|path| path.extension().is_some_and(|ending| ending == "md")) {
        let text = fs::read_to_string(root().join(path)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let file = root().join(path).parent().unwrap().join(target);
            assert!(file.exists(), "{} links to {target}, which is not there", path.display());
        }
    }
}

#[test]
fn no_file_holds_something_that_looks_like_a_real_key() {
    for path in tracked() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for word in text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-' || letter == '_')) {
            let body = ["sk-ant-", "sk-or-v1-", "sk-proj-", "gsk_", "AIza", "csk-", "hf_"]
                .iter()
                .find_map(|prefix| word.strip_prefix(prefix))
                .or_else(|| word.strip_prefix("sk-").filter(|body| !body.starts_with("test")));
            let random = body.is_some_and(|body| body.len() >= 20 && body.bytes().any(|byte| byte.is_ascii_digit()));
            assert!(!random, "{} holds what looks like a key", path.display());
        }
    }
}
