//! What the documents show works: each command of theirs is run, and each configuration is read.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::gateway::{Gateway, Home, program};
use crate::http::Ask;
use crate::patience::until;
use crate::upstream::Upstream;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The documents for users, with their names.
fn documents() -> Vec<(String, String)> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)).into_iter().chain(docs).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    paths.iter().map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The blocks of one language in a document.
pub(crate) fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    document.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// The command lines of a document, with continued lines joined and comments taken off.
fn commands(document: &str) -> Vec<String> {
    let lines = blocks(document, "sh").into_iter().flat_map(|block| {
        let joined = block.replace("\\\n", " ");
        joined.lines().map(|line| line.split("  #").next().unwrap_or(line).trim().to_owned()).collect::<Vec<_>>()
    });
    lines.filter(|line| !line.is_empty()).collect()
}

/// Runs one command line of a document.
async fn check(place: &str, line: &str, home: &Home, gateway: &Gateway, request: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["freeway", "serve" | "sandbox", ..] | ["cargo", "run", "--", "serve" | "sandbox", ..] => {
            let command = words.iter().find(|word| matches!(**word, "serve" | "sandbox")).unwrap();
            let output = program().args([*command, "--help"]).output().unwrap();
            assert!(output.status.success(), "{place}: {line}");
        }
        ["freeway", rest @ ..] => {
            let body = home.path().join("body.json");
            std::fs::write(&body, r#"{"model":"smart","messages":[]}"#).unwrap();
            let file = body.display().to_string();
            let arguments: Vec<&str> = rest
                .iter()
                .map(|word| match *word {
                    "REQUEST_ID" => request,
                    "FILE" => file.as_str(),
                    word => word,
                })
                .collect();
            let output = match arguments.as_slice() {
                ["simulate", ..] => {
                    let example = crate::recorded::recorded_example();
                    program().args(&arguments).current_dir(example.path()).output().unwrap()
                }
                ["plan", ..] if !arguments.contains(&"--recorded") => {
                    let example = crate::plan::example();
                    program().args(&arguments).current_dir(example.path()).output().unwrap()
                }
                ["providers", ..] => program().args(&arguments).current_dir(home.path()).output().unwrap(),
                arguments => home.command(arguments).await,
            };
            assert!(output.status.success(), "{place}: {line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        ["curl", ..] => {
            let line = line.replace("127.0.0.1:8080", &gateway.address.to_string()).replace("REQUEST_ID", request);
            let output = Command::new("bash").args(["-c", &format!("{line} --silent --fail")]).output().unwrap();
            assert!(output.status.success(), "{place}: {line}: {}", String::from_utf8_lossy(&output.stdout));
        }
        ["cargo", "xtask", chore] => {
            let chores = std::fs::read_to_string(root().join("crates/xtask/src/main.rs")).unwrap();
            assert!(chores.contains(&format!("\"{chore}\" =>")), "{place}: there is no chore {chore}");
        }
        // What cargo, git and the shell themselves bring.
        ["cargo" | "git" | "export" | "cd", ..] => {}
        _ => panic!("{place}: nobody checks `{line}`"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_documents_run() {
    let a = Upstream::new("a").await;
    let text = format!("{}\n[aliases.smart]\ntargets = [\"a/a-model\"]\n", a.table());
    let home = Home::new(&text);
    let gateway = home.serve().await;
    home.write(&text, &gateway.address.to_string());
    let reply = gateway.ask(&Ask::chat("smart", false)).await;
    let request = reply.head.header("x-freeway-request-id").unwrap();
    until("the ledger knows", async || home.command(&["explain", request]).await.status.success().then_some(())).await;
    // The folder that docs/adding-a-provider.md makes.
    let adding = include_str!("../../../../docs/adding-a-provider.md");
    std::fs::create_dir(home.path().join("my-providers")).unwrap();
    std::fs::write(home.path().join("my-providers/harbour.toml"), blocks(adding, "toml")[0]).unwrap();
    let mut checked = 0;
    for (place, document) in documents() {
        for line in commands(&document) {
            check(&place, &line, &home, &gateway, request).await;
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} commands were found");
}

#[test]
fn the_configurations_of_the_readme_are_taken() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let found = blocks(&readme, "toml");
    assert!(!found.is_empty());
    for text in found {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("freeway.toml"), text).unwrap();
        let mut command = program();
        command
            .arg("check")
            .current_dir(folder.path())
            .env("FREEWAY_KEY", "sk-test-operator")
            .env("GROQ_API_KEY", "sk-test-groq");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
