//! `freeway serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use freeway_catalog::{Catalog, Trains};
use freeway_config::Loaded;
use freeway_telemetry::Level;
use freeway_types::DataClass;

use crate::boot::{Gateway, runtime};
use crate::reload::Watched;
use crate::{client, environment};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The configuration; `freeway.toml` if it is there, else the keys in the environment.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log lines of at least this level.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LogLevel,
}

/// How grave an event must be to be logged.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warn => Self::Warn,
            LogLevel::Error => Self::Error,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let file = environment::file(arguments.config.as_deref());
    let watched = file.clone().map(Watched::new);
    let loaded = environment::configuration(arguments.config.as_deref(), client::now())?;
    print!("{}", introduction(&loaded, file.is_some()));
    runtime(loaded.settings.threads)?.block_on(async {
        let gateway = Gateway::start(loaded, arguments.log.into()).await?;
        let address = gateway.server.address().map_err(|error| error.to_string())?;
        println!("\nPoint an OpenAI client at  http://{address}/v1   (model \"auto\", or see GET /v1/models)");
        gateway.run(watched).await
    })
}

/// What was found, what was left out and why, and who trains on what they are sent.
pub(crate) fn introduction(loaded: &Loaded, from_file: bool) -> String {
    let mut text = String::new();
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let (used, out): (Vec<_>, Vec<_>) = loaded.found.iter().partition(|found| found.left_out.is_none());
    for found in &used {
        let stale = found.stale.as_ref().map_or(String::new(), |day| format!(" (facts of {day}: stale)"));
        say(format!("provider  {:<14} {} models, plan {}{stale}", found.account, found.models, found.plan));
    }
    for found in &out {
        say(format!("left out  {:<14} {}", found.account, found.left_out.as_deref().unwrap_or_default()));
    }
    if !from_file && let Ok(catalog) = Catalog::embedded() {
        for (id, provider) in catalog.iter() {
            if !loaded.found.iter().any(|found| found.account == id) {
                let why = match provider.env.as_slice() {
                    [] => "runs on your own machine: add [providers.NAME] to freeway.toml".to_owned(),
                    names => format!("no key: set {}", names.join(" or ")),
                };
                say(format!("left out  {id:<14} {why}"));
            }
        }
    }
    let names = |trains: Trains| {
        let names: Vec<&str> =
            used.iter().filter(|found| found.trains == trains).map(|found| found.account.as_str()).collect();
        names.join(", ")
    };
    if loaded.snapshot.rules.data == DataClass::Public {
        let (yes, unknown) = (names(Trains::Yes), names(Trains::Unknown));
        if !yes.is_empty() {
            say(format!("note      train on what you send: {yes}"));
        }
        if !unknown.is_empty() {
            say(format!("note      nobody knows whether these train on what you send: {unknown}"));
        }
        if !yes.is_empty() || !unknown.is_empty() {
            say("note      set [server] data = \"internal\" to keep requests away from them".to_owned());
        }
    }
    if used.is_empty() {
        say(String::new());
        say("No provider can be used yet. Do one of these and start again:".to_owned());
        say("  export GROQ_API_KEY=…          (or another provider's key, see the list above)".to_owned());
        say("  write a freeway.toml           (see the README; `freeway check` says what is wrong with it)".to_owned());
        say("  freeway sandbox                (simulated providers, no keys needed)".to_owned());
    }
    text
}
