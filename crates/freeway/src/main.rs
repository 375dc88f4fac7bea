//! The program: reads the command line, wires the crates together, and says what it does.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its terminal")]

mod boot;
mod client;
mod command;
mod environment;
mod moment;
mod reload;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// An LLM gateway for free tiers and small budgets.
#[derive(Parser)]
#[command(name = "freeway", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve requests.
    Serve(command::serve::Arguments),
    /// Serve requests from simulated providers, offline.
    Sandbox(command::sandbox::Arguments),
    /// Say whether a configuration can be used, and what would be served from it.
    Check(command::check::Arguments),
    /// Say what happened to a request, or what would happen to one.
    Explain(command::explain::Arguments),
    /// Show every limit of the running gateway: used, left, and when it comes back.
    Quotas(command::quotas::Arguments),
    /// Show what the providers of the catalogue offer, ask and do with data, and how old these facts are.
    Providers(command::providers::Arguments),
    /// Show use and cost, from the running gateway's ledger.
    Usage(command::usage::Arguments),
    /// Say what a configuration would make of a workload, without sending anything.
    Simulate(command::simulate::Arguments),
    /// Say whether a need can be served, for how long, and what the rest would take.
    Plan(command::plan::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(arguments) => command::serve::run(&arguments),
        Command::Sandbox(arguments) => command::sandbox::run(&arguments),
        Command::Check(arguments) => command::check::run(&arguments),
        Command::Explain(arguments) => command::explain::run(&arguments),
        Command::Quotas(arguments) => command::quotas::run(&arguments),
        Command::Providers(arguments) => command::providers::run(&arguments),
        Command::Usage(arguments) => command::usage::run(&arguments),
        Command::Simulate(arguments) => command::simulate::run(&arguments),
        Command::Plan(arguments) => command::plan::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{}", message.trim_end());
            ExitCode::from(2)
        }
    }
}
