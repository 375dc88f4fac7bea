//! Stalls, and what a second attempt does about them: two gateways before the same stalling providers, one of which may
//! try twice, at the same time and under the same load.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::ask::{Prompt, chat};
use crate::load::{Brought, Load};
use crate::service::Service;
use crate::setting::{Freeway, model, provider};
use crate::soak::metrics;
use crate::statistics::percentile;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The program to run.
    #[arg(long, value_name = "PATH")]
    freeway: PathBuf,
    /// Streams in a hundred that stall.
    #[arg(long, default_value_t = 3)]
    percent: u32,
    /// How long they stall, in milliseconds.
    #[arg(long, default_value_t = 5000)]
    stall: u32,
    /// Streams a second at each gateway.
    #[arg(long, default_value_t = 20)]
    per_second: u32,
    /// How long the measured part takes, in seconds. Before it, a fifth of that goes by unmeasured.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

/// What one gateway's load came to.
struct Outcome {
    name: &'static str,
    brought: Brought,
    /// Streams since the gateway's start, and what they took upstream.
    streams: u64,
    attempts: u64,
    hedges: u64,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut upstream = Service::upstream()?;
    upstream.ready(&chat("fast-0", false, Prompt::Short)).await?;
    let subject = |name: &'static str, hedge: bool| subject(arguments, folder.path(), upstream.address, name, hedge);
    let (with, without) = tokio::join!(subject("with", true), subject("without", false));
    let outcomes = [without?, with?];
    println!(
        "{} % of {} streams stalled for {} ms; {} streams/s at each gateway, at the same time\n",
        arguments.percent, outcomes[0].brought.requests, arguments.stall, arguments.per_second
    );
    println!("| second attempts | p50 ms | p95 ms | p99 ms | most ms | attempts for 100 streams | second attempts |");
    println!("|---|---|---|---|---|---|---|");
    for outcome in outcomes {
        println!("{}", outcome.row());
    }
    upstream.stop().await
}

async fn subject(
    arguments: &Arguments,
    folder: &Path,
    upstream: SocketAddr,
    name: &'static str,
    hedge: bool,
) -> Result<Outcome, String> {
    let stalling = format!("stalls{}x{}", arguments.percent, arguments.stall);
    let freeway = Freeway {
        program: &arguments.freeway,
        folder: folder.join(name),
        upstream,
        aliases: vec!["fast".to_owned()],
        server: String::new(),
        more: configuration(&stalling, upstream, hedge),
    };
    let mut service = freeway.start(&[])?;
    service.ready(&chat("fast", false, Prompt::Short)).await?;
    let load = Load { address: service.address, ask: chat("tail", true, Prompt::Short), stream: true };
    let measured = Duration::from_secs(arguments.seconds);
    let before = load.at_rate(arguments.per_second, measured / 5).await?.requests;
    let brought = load.at_rate(arguments.per_second, measured).await?;
    let metrics = metrics(service.address).await?;
    let sum = |metric: &str, label: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.starts_with(metric) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let attempts = sum("freeway_attempts_total", "tail");
    let hedges = sum("freeway_hedges_total", "");
    service.stop().await?;
    Ok(Outcome { name, streams: before + brought.requests, brought, attempts, hedges })
}

/// Two providers of one model, both of which stall now and then.
fn configuration(stalling: &str, upstream: SocketAddr, hedge: bool) -> String {
    let both = ["tail-a", "tail-b"].map(|name| provider(name, upstream) + &model(name, &format!("{stalling}-{name}")));
    let targets = ["tail-a", "tail-b"].map(|name| format!("\"{name}/{stalling}-{name}\"")).join(", ");
    format!("\n{}\n[aliases.tail]\ntargets = [{targets}]\n\n[routing]\nhedge = {hedge}\n", both.join("\n"))
}

impl Outcome {
    fn row(mut self) -> String {
        let mut at = |part: f64| percentile(&mut self.brought.firsts, part).unwrap_or_default();
        let (p50, p95, p99, most) = (at(0.5), at(0.95), at(0.99), at(1.0));
        let per_hundred = self.attempts as f64 * 100.0 / self.streams.max(1) as f64;
        format!(
            "| {} | {p50:.0} | {p95:.0} | {p99:.0} | {most:.0} | {per_hundred:.1} | {} of {} |",
            self.name, self.hedges, self.streams
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_differ_in_one_setting() {
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let read = |hedge: bool| configuration("stalls3x5000", address, hedge).parse::<toml::Table>().unwrap();
        let (with, without) = (read(true), read(false));
        assert_eq!((&with["aliases"], &with["providers"]), (&without["aliases"], &without["providers"]));
        assert_ne!(with["routing"], without["routing"]);
        assert_eq!(with["aliases"]["tail"]["targets"].as_array().unwrap().len(), 2);
    }
}
