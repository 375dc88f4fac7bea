//! One file for each command, and what they have in common.

use std::path::PathBuf;

use clap::Args;

pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod plan;
pub(crate) mod providers;
pub(crate) mod quotas;
pub(crate) mod sandbox;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod usage;

/// What the commands that report have in common.
#[derive(Args)]
pub(crate) struct Report {
    /// The configuration, of the running gateway where one is asked; `freeway.toml` if it is there, else the keys in
    /// the environment.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
