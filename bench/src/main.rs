//! What Freeway costs, measured: against nginx and a direct call, in instructions, and over hours.
//!
//! Uses none of Freeway's crates. It starts the program as it is shipped and looks at it from outside: over HTTP, and
//! through `/proc`, so that it needs Linux.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its terminal")]

mod abandon;
mod ask;
mod behaviour;
mod client;
mod compare;
mod dice;
mod exchange;
mod instructions;
mod load;
mod overload;
mod process;
mod report;
mod scenario;
mod service;
mod setting;
mod soak;
mod statistics;
mod tail;
mod upstream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Measures Freeway against nginx and a direct call.
#[derive(Parser)]
#[command(name = "freeway-bench", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare a direct call, nginx and Freeway, in turns.
    Run(compare::Arguments),
    /// Count the instructions of a request with callgrind, and hold them against those that were written down.
    Instructions(instructions::Arguments),
    /// Serve mixed traffic for a long time, and look at memory and sockets.
    Soak(soak::Arguments),
    /// Measure what second attempts do about providers that stall.
    Tail(tail::Arguments),
    /// Open many streams and leave each at some instant, and look what stays behind.
    Abandon(abandon::Arguments),
    /// Ask for twice what can be served, in three tiers, and see who is refused, how soon, and what is served still.
    Overload(overload::Arguments),
    /// Play the provider, until the process is ended.
    Upstream(upstream::Arguments),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    // One thread is enough to drive two gateways, and leaves the other cores to them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(run(&command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{}", message.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// Runs a command, unless a signal ends it. Either way, what it has started is ended with it.
async fn run(command: &Command) -> Result<(), String> {
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let work = async {
        match command {
            Command::Run(arguments) => compare::run(arguments).await,
            Command::Instructions(arguments) => instructions::run(arguments).await,
            Command::Soak(arguments) => soak::run(arguments).await,
            Command::Tail(arguments) => tail::run(arguments).await,
            Command::Abandon(arguments) => abandon::run(arguments).await,
            Command::Overload(arguments) => overload::run(arguments).await,
            Command::Upstream(arguments) => upstream::run(arguments).await,
        }
    };
    tokio::select! {
        result = work => return result,
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    // The upstream has no other end.
    if matches!(command, Command::Upstream(_)) { Ok(()) } else { Err("ended by a signal".to_owned()) }
}
