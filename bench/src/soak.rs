//! Mixed traffic for a long time: does memory stay, do sockets come back, is every outcome one that may be?

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ask::{Prompt, chat, get};
use crate::client::Connection;
use crate::dice::Dice;
use crate::exchange::Pool;
use crate::process::{State, state};
use crate::scenario::{ALIASES, Scenario, configuration, draw, mix};
use crate::service::Service;
use crate::setting::Freeway;
use crate::statistics::{Slope, fit};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The program to run.
    #[arg(long, value_name = "PATH")]
    freeway: PathBuf,
    /// How long.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Requests a second, about.
    #[arg(long, default_value_t = 200)]
    per_second: u32,
    /// Requests at the same time, at most.
    #[arg(long, default_value_t = 64)]
    clients: u32,
    /// Seconds between two looks at the process.
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// What the traffic is drawn with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the samples go, a line each.
    #[arg(long, value_name = "FILE", default_value = "target/soak.csv")]
    csv: PathBuf,
    /// Fail if memory surely grows by more than this in an hour: if the slope less twice its error does.
    #[arg(long, value_name = "KIB")]
    most_growth: Option<f64>,
}

/// Sockets come back within this time once everybody has left.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
const HOUR: f64 = 3600.0;

/// How often each outcome came, by scenario.
type Outcomes = BTreeMap<(&'static str, String), u64>;

/// What all clients share.
struct Traffic {
    address: SocketAddr,
    pool: Pool,
    mix: Vec<Scenario>,
    outcomes: Mutex<Outcomes>,
    until: Instant,
    /// Between two requests of one client, on average.
    pause: Duration,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut upstream = Service::upstream()?;
    upstream.ready(&chat("fast-0", false, Prompt::Short)).await?;
    let freeway = Freeway {
        program: &arguments.freeway,
        folder: folder.path().to_owned(),
        upstream: upstream.address,
        aliases: ALIASES.map(ToOwned::to_owned).to_vec(),
        server: String::new(),
        more: configuration(upstream.address),
    };
    let mut service = freeway.start(&[])?;
    service.ready(&chat("fast", false, Prompt::Short)).await?;
    let processes = service.processes()?;
    let before = state(&processes)?;

    let traffic = Arc::new(Traffic {
        address: service.address,
        pool: Pool::new(service.address),
        mix: mix(),
        outcomes: Mutex::default(),
        until: Instant::now() + Duration::from_secs_f64(arguments.minutes * 60.0),
        pause: Duration::from_secs(1) * arguments.clients / arguments.per_second.max(1),
    });
    let mut clients = JoinSet::new();
    for number in 0..arguments.clients {
        clients.spawn(client(Arc::clone(&traffic), Dice::new(arguments.seed + u64::from(number) * 1_000_003)));
    }
    let samples = watch(arguments, &traffic, &processes).await?;
    while let Some(ended) = clients.join_next().await {
        ended.map_err(|error| error.to_string())?;
    }
    let metrics = metrics(service.address).await?;
    let outcomes = std::mem::take(&mut *traffic.outcomes.lock().unwrap_or_else(PoisonError::into_inner));
    // With the clients' connections and the upstream gone, no connection has a reason to be there.
    let mut faults = unexpected(&traffic.mix, &outcomes);
    drop(traffic);
    upstream.stop().await?;
    let after = settled(&processes, before.sockets).await?;
    service.stop().await?;

    println!("{}", tell(&outcomes, &metrics, before, after));
    faults.extend(memory(&samples, arguments.most_growth));
    if after.sockets > before.sockets {
        faults.push(format!("{} sockets are left of what were {}", after.sockets, before.sockets));
    }
    faults.extend(metrics.lines().filter(|line| line.starts_with("freeway_ledger_failures_total")).map(str::to_owned));
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// One client: draws, plays, pauses.
async fn client(traffic: Arc<Traffic>, mut dice: Dice) {
    while Instant::now() < traffic.until {
        let pause = traffic.pause.as_micros().try_into().unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_micros(dice.below(2 * pause + 1))).await;
        let Some(scenario) = draw(&traffic.mix, &mut dice) else { return };
        let outcome = scenario.play(&traffic.pool, traffic.address, &mut dice).await;
        let mut outcomes = traffic.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        *outcomes.entry((scenario.name, outcome)).or_default() += 1;
    }
}

/// Looks at the process until the traffic ends, and gives what was seen with the seconds since the beginning.
async fn watch(arguments: &Arguments, traffic: &Traffic, processes: &[u32]) -> Result<Vec<(f64, State)>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", arguments.csv.display());
    let mut csv = File::create(&arguments.csv).map_err(told)?;
    writeln!(csv, "seconds,resident_kib,threads,files,sockets,requests").map_err(told)?;
    let begun = Instant::now();
    let mut samples = Vec::new();
    for number in 0_u64.. {
        let next = begun + Duration::from_secs(arguments.every.max(1) * number);
        if next >= traffic.until {
            break;
        }
        tokio::time::sleep_until(next).await;
        let (seconds, state) = (begun.elapsed().as_secs_f64(), state(processes)?);
        let State { resident_kib, threads, files, sockets } = state;
        let requests: u64 = traffic.outcomes.lock().unwrap_or_else(PoisonError::into_inner).values().sum();
        writeln!(csv, "{seconds:.1},{resident_kib},{threads},{files},{sockets},{requests}").map_err(told)?;
        samples.push((seconds, state));
    }
    tokio::time::sleep_until(traffic.until).await;
    Ok(samples)
}

/// The gateway's own counts.
pub(crate) async fn metrics(address: SocketAddr) -> Result<String, String> {
    let told = |error: std::io::Error| format!("/metrics: {error}");
    let mut connection = Connection::open(address).await.map_err(told)?;
    connection.send(&get("/metrics")).await.map_err(told)?;
    connection.head().await.map_err(told)?;
    let mut text = Vec::new();
    while let Some(piece) = connection.piece().await.map_err(told)? {
        text.extend_from_slice(piece);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// How the process stands once its sockets are back to what they were, or the time for that is over.
async fn settled(processes: &[u32], sockets: u64) -> Result<State, String> {
    let begun = Instant::now();
    loop {
        let now = state(processes)?;
        if now.sockets <= sockets || begun.elapsed() > SETTLE_LIMIT {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn unexpected(mix: &[Scenario], outcomes: &Outcomes) -> Vec<String> {
    let allowed = |name: &str, outcome: &str| mix.iter().any(|part| part.name == name && part.allows(outcome));
    let wrong = outcomes.iter().filter(|((name, outcome), _)| !allowed(name, outcome));
    wrong.map(|((name, outcome), count)| format!("{name}: {outcome}, {count} times, which may not be")).collect()
}

fn tell(outcomes: &Outcomes, metrics: &str, before: State, after: State) -> String {
    let mut text = String::from("| traffic | outcome | requests |\n|---|---|---|\n");
    for ((name, outcome), count) in outcomes {
        text.push_str(&format!("| {name} | {outcome} | {count} |\n"));
    }
    let counts = metrics.lines().filter(|line| line.starts_with("freeway_requests_total"));
    for line in counts {
        text.push_str(&format!("\n{line}"));
    }
    text.push_str(&format!(
        "\n\nbefore: {} sockets, {} files, {} threads, {} KiB resident\nafter: {} sockets, {} files, {} threads, {} KiB resident",
        before.sockets,
        before.files,
        before.threads,
        before.resident_kib,
        after.sockets,
        after.files,
        after.threads,
        after.resident_kib
    ));
    text
}

/// Prints how memory went in the last two thirds, when all buffers have been used; a fault if it surely grew too much.
fn memory(samples: &[(f64, State)], most_growth: Option<f64>) -> Option<String> {
    let late: Vec<(f64, f64)> = samples[samples.len() / 3..]
        .iter()
        .map(|(seconds, state)| (*seconds / HOUR, state.resident_kib as f64))
        .collect();
    let Some(Slope { slope, error }) = fit(&late) else {
        println!("memory: too few samples for a slope");
        return None;
    };
    println!("memory: {slope:+.0} KiB an hour, ± {error:.0} (from {} samples)", late.len());
    let most = most_growth?;
    (slope - 2.0 * error > most)
        .then(|| format!("memory grows by {slope:.0} KiB an hour; at most {most} was asked for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outcomes_that_may_be_pass() {
        let outcome = |name: &'static str, outcome: &str| Outcomes::from([((name, outcome.to_owned()), 3)]);
        assert_eq!(unexpected(&mix(), &outcome("plain", "whole")), Vec::<String>::new());
        assert_eq!(unexpected(&mix(), &outcome("plain", "503")), ["plain: 503, 3 times, which may not be"]);
    }

    #[test]
    fn the_beginning_does_not_count_as_growth() {
        let state = |resident_kib| State { resident_kib, ..State::default() };
        // Grows while it warms up, and stays then.
        let warm: Vec<(f64, State)> =
            (0..30_u32).map(|at| (f64::from(at) * 10.0, state(u64::from(at.min(9)) * 500))).collect();
        assert_eq!(memory(&warm, Some(1.0)), None);
        // Grows by 10 KiB each 10 s, which is 3600 an hour.
        let growing: Vec<(f64, State)> =
            (0..30_u32).map(|at| (f64::from(at) * 10.0, state(u64::from(at) * 10))).collect();
        assert_eq!(
            memory(&growing, Some(3000.0)),
            Some("memory grows by 3600 KiB an hour; at most 3000 was asked for".to_owned())
        );
        assert_eq!(memory(&growing, Some(4000.0)), None);
        assert_eq!(memory(&growing, None), None);
    }
}
