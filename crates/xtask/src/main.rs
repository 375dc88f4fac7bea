//! Chores of the project: `cargo xtask ci | docs | release | scenarios DIR`.
//!
//! `ci` is the test command of the README: formatting, lints, documentation, the
//! client libraries, and all tests, whose summary closes it. `docs` writes what is
//! generated. `release` builds the program as it is shipped and checks it. `scenarios`
//! writes what strategies are compared on, for `freeway simulate`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to its terminal")]

#[path = "../../../bench/src/dice.rs"]
mod dice;
mod scenarios;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Largest shipped program, in bytes.
const MOST_BYTES: u64 = 25 * 1024 * 1024;

fn main() -> ExitCode {
    let chore = std::env::args().nth(1).unwrap_or_default();
    let done = match chore.as_str() {
        "ci" => ci(),
        "docs" => docs(),
        "release" => release(),
        "scenarios" => match std::env::args().nth(2) {
            Some(folder) => scenarios::write(Path::new(&folder), std::env::args().nth(3).as_deref()),
            None => Err("usage: cargo xtask scenarios DIR [FROM..TO]".to_owned()),
        },
        _ => Err("usage: cargo xtask ci | docs | release | scenarios DIR".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The folder that holds the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn ci() -> Result<(), String> {
    run("cargo", &["fmt", "--all", "--check"])?;
    run("cargo", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    run_with("cargo", &["doc", "--workspace", "--no-deps", "--quiet"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    run("cargo", &["test", "--workspace", "--doc", "--quiet"])?;
    run("cargo", &["build", "--package", "freeway", "--quiet"])?;
    let program = program("debug")?;
    run("bash", &["tests/sdk/run", &program])?;
    // One runner with one summary, if it is there; else the one that always is.
    if has("cargo-nextest") {
        run("cargo", &["nextest", "run", "--workspace", "--no-fail-fast"])
    } else {
        run("cargo", &["test", "--workspace", "--no-fail-fast"])
    }
}

fn docs() -> Result<(), String> {
    for (name, text) in generated() {
        let path = root().join("docs").join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("wrote docs/{name}");
    }
    Ok(())
}

/// Every generated document: its name under `docs/`, and its text.
fn generated() -> [(&'static str, String); 3] {
    [
        ("freeway.schema.json", format!("{:#}\n", freeway_config::schema())),
        ("configuration.md", freeway_config::reference_page()),
        ("providers.md", freeway_config::providers_page()),
    ]
}

fn release() -> Result<(), String> {
    run("cargo", &["build", "--package", "freeway", "--release"])?;
    let path = program("release")?;
    let size = std::fs::metadata(&path).map_err(|error| format!("{path}: {error}"))?.len();
    println!("{path}: {size} bytes");
    if size > MOST_BYTES {
        return Err(format!("the program is larger than {MOST_BYTES} bytes"));
    }
    run("file", &[&path])
}

/// Where cargo has put the program.
fn program(profile: &str) -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output().map_err(|error| format!("rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc names no host")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join(host).join(profile).join("freeway").display().to_string())
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    run_with(program, arguments, &[])
}

fn run_with(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    println!("\n$ {program} {}", arguments.join(" "));
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied()).current_dir(root());
    let status = command.status().map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("failed: {program} {}", arguments.join(" "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_documents_are_fresh() {
        for (name, text) in generated() {
            let found = std::fs::read_to_string(root().join("docs").join(name)).unwrap_or_default();
            assert!(found == text, "docs/{name} is stale: run `cargo xtask docs`");
        }
    }
}
